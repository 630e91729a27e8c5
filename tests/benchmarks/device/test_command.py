"""The command of the device check: a real part on the CPU, fake parts that fail, and the make target."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
DEVICE = ROOT / "benchmarks" / "device"
FAKE_PARTS = {
    "good": "def run(context):\n    context.report('value', ms=1.0)\n",
    "failing": """
def run(context):
    with context.attempt('broken'):
        raise ValueError('no such value')
    context.report_limited('inexact', 'difference', 0.1, difference=float('nan'))
    context.report('later', ms=2.0)
""",
    "crashing": """
import os
def run(context):
    context.report('early', ms=3.0)
    print('not a result')
    print('lost connection', flush=True)
    os._exit(7)
""",
    "slow": """
import subprocess, time
def run(context):
    context.report('child', pid=subprocess.Popen(['sleep', '600']).pid)
    time.sleep(600)
""",
    "missing_import": "import module_that_does_not_exist\n",
}
# the last file that each part waits for is the other one's, so that both must run at the same time
for name, other in (("left", "right"), ("right", "left")):
    FAKE_PARTS[name] = f"""
import time
def run(context):
    (context.work / '{name}').touch()
    while not (context.work / '{other}').exists():
        time.sleep(0.01)
    context.report('met', ms=1.0)
"""
MAIN = """
import sys
sys.path.insert(0, {benchmarks!r})
import device.runner
from device.command import main
from device.parts import Part
device.runner.MIN_SECONDS = {least}
sys.exit(main(sys.argv[1:], parts=[Part(name, f"fake_{{name}}", {seconds}) for name in {names!r}]))
"""
CONCURRENT = """
import sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from device.parts import Part
from device.runner import Options, Runner
folder = Path(sys.argv[1])
parts = [Part(name, f"fake_{{name}}", 60, concurrent=name in ("left", "right")) for name in ("left", "right", "good")]
sys.exit(not Runner(Options("cuda", True, folder, folder, 100)).run(parts))
"""


def run_python(*command: object, path: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT
    )


def run_fake(
    tmp_path: Path, names: list[str], *options: str, seconds: float = 30, least: float = 25
) -> subprocess.CompletedProcess:
    """Run the command with fake parts.

    Args:
        seconds: time limit of a part on a GPU; on a CPU it is 20 times as long.
        least: rest of the budget below which a part is skipped.
    """
    write_fakes(tmp_path)
    script = MAIN.format(benchmarks=str(DEVICE.parent), names=names, seconds=seconds, least=least)
    options = ("--device", "cpu", "--tiny", "--out", str(tmp_path / "out"), *options)
    return run_python("-c", script, *options, path=tmp_path)


def write_fakes(folder: Path) -> None:
    for name, source in FAKE_PARTS.items():
        (folder / f"fake_{name}.py").write_text(source)


def read_results(folder: Path) -> dict[tuple[str, str], dict]:
    results = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return {(result["part"], result["name"]): result for result in results}


def test_environment_runs_on_the_cpu(tmp_path):
    done = run_python(DEVICE, "--device", "cpu", "--tiny", "--parts", "environment", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("{")] == (tmp_path / "results.jsonl").read_text().splitlines()
    results = read_results(tmp_path)
    assert results["environment", "versions"]["torch"] == torch.__version__.partition("+")[0]
    assert results["environment", "GEMM, square"]["tflops"] > 0
    assert results["environment", "part"]["status"] == "passed"
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout and "commit" in table and "| environment | memory copy |" in table
    assert lines[-1] == "9 results (0 failed, 0 skipped) of 1 parts (0 failed, 0 skipped)."


def test_failed_results_and_crashed_parts_do_not_stop_the_others(tmp_path):
    done = run_fake(tmp_path, ["failing", "crashing", "missing_import", "good"])
    assert done.returncode == 1
    results = read_results(tmp_path / "out")
    assert results["failing", "broken"]["error"] == "ValueError: no such value"
    assert results["failing", "inexact"]["error"] == "difference is nan, expected at most 0.1"
    assert results["failing", "later"]["ms"] == 2.0, "the part must continue after a failed result"
    assert results["failing", "part"]["error"] == "failed results: broken; inexact"
    assert results["crashing", "early"]["ms"] == 3.0
    crashed = results["crashing", "part"]
    assert (crashed["status"], crashed["code"], crashed["error"]) == ("failed", 7, "exit code 7: lost connection")
    assert "module_that_does_not_exist" in results["missing_import", "missing_import"]["error"]
    assert results["good", "part"]["status"] == "passed"
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| crashing | all results | **failed**: exit code 7: lost connection" in table
    assert "6 results (3 failed, 0 skipped) of 4 parts (3 failed, 0 skipped)." in done.stdout


def test_slow_part_is_killed_with_its_children(tmp_path):
    done = run_fake(tmp_path, ["slow", "good"], seconds=0.25)
    assert done.returncode == 1
    results = read_results(tmp_path / "out")
    assert results["slow", "part"]["status"] == "timeout"
    assert results["slow", "part"]["error"] == "stopped at its limit of 5 s"
    assert not is_running(results["slow", "child"]["pid"])
    assert results["good", "part"]["status"] == "passed"


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_parts_beyond_the_budget_are_skipped(tmp_path):
    done = run_fake(tmp_path, ["good"], "--budget", "10")
    assert done.returncode == 0
    assert read_results(tmp_path / "out")["good", "part"]["status"] == "skipped"
    assert "| good | all results | skipped: 10 s of the budget are left |" in done.stdout


def test_part_that_exceeds_the_budget_is_incomplete_and_not_failed(tmp_path):
    done = run_fake(tmp_path, ["slow", "good"], "--budget", "5", least=1)
    assert done.returncode == 0
    results = read_results(tmp_path / "out")
    assert results["slow", "child"]["pid"], "results before the end of the budget must be kept"
    assert results["slow", "part"]["skipped"] == "stopped after 5 s, at the end of the budget"
    assert results["good", "part"]["status"] == "skipped"


def test_concurrent_parts_run_together_on_a_gpu(tmp_path):
    write_fakes(tmp_path)
    done = run_python("-c", CONCURRENT.format(benchmarks=str(DEVICE.parent)), tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr
    results = read_results(tmp_path)
    assert [results[name, "part"]["status"] for name in ("left", "right", "good")] == ["passed"] * 3


def test_unknown_parts_and_a_missing_gpu_are_errors(tmp_path):
    done = run_python(DEVICE, "--device", "cpu", "--parts", "environment,atention", "--out", tmp_path)
    assert done.returncode == 2
    assert "--parts: unknown part atention. Known: environment, shards, precision, ranks" in done.stderr
    if not torch.cuda.is_available():
        done = run_python(DEVICE, "--out", tmp_path)
        assert done.returncode == 2
        assert "--device cuda: no GPU was found. Use --device cpu --tiny" in done.stderr


@pytest.mark.parametrize(
    "variables, options",
    [
        ([], ""),
        (["DEVICE=cpu", "TINY=1"], " --device cpu --tiny"),
        (["PARTS=step,loader", "BUDGET=60", "OUT=/tmp/a b"], " --parts step,loader --budget 60 --out '/tmp/a b'"),
    ],
)
def test_make_passes_the_options(tmp_path, variables, options):
    (tmp_path / "installed-python3").touch()
    names = ("MAKEFLAGS", "MMF", "VENV", "PYTHON", "DEVICE", "TINY", "PARTS", "BUDGET", "OUT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = ["make", "--dry-run", "--no-print-directory", "device", f"VENV={tmp_path}", *variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.stdout == f"{tmp_path}/bin/python benchmarks/device{options}\n", done.stderr
