"""Run ``mmf_flava.data.prepare`` with a SIGKILL at a chosen file access or line of code, or twice concurrently."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys
from mmf_flava.data.prepare.__main__ import main
exec(sys.argv.pop(1))
kind, kill_at, steps = sys.argv.pop(1), int(sys.argv.pop(1)), 0
def step():
    global steps
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
def audit(event, arguments):
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.rmtree"):
        if sys.argv[-1] in str(arguments[0]):
            step()
def trace(frame, event, argument):
    if "mmf_flava/data" in frame.f_code.co_filename:
        step()
        return trace
if kind == "file accesses":
    sys.addaudithook(audit)
else:
    sys.settrace(trace)
code = main(sys.argv[1:])
sys.settrace(None)
print("steps", steps)
sys.exit(code)
"""


def run(arguments: list[str], kind: str, kill_at: int, setup: str = "") -> subprocess.CompletedProcess:
    """Run ``python -m mmf_flava.data.prepare`` and kill it at step ``kill_at``; 0: run it to the end."""
    command = [sys.executable, "-c", SCRIPT, setup, kind, str(kill_at), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def assert_survives_kills(arguments: list[str], out: Path, seed: int, setup: str = "") -> None:
    """Assert that the command, killed up to three times, writes the same files as an uninterrupted one.

    Args:
        arguments: the command without ``--out``.
        seed: seed of the random kind and times of the kills.
        setup: code that runs before the command.
    """
    rng = random.Random(seed)
    kind, uninterrupted = rng.choice(("file accesses", "lines")), out.with_name("uninterrupted")
    steps = int(run([*arguments, "--out", str(uninterrupted)], kind, 0, setup).stdout.split()[-1])
    killed = 0
    for _ in range(3):
        process = run([*arguments, "--out", str(out)], kind, rng.randrange(1, steps), setup)
        assert process.returncode in (0, -signal.SIGKILL), process.stderr
        killed += process.returncode != 0
    assert killed >= 1
    process = run([*arguments, "--out", str(out)], kind, 0, setup)
    assert process.returncode == 0, process.stderr
    assert read_files(out) == read_files(uninterrupted)


def run_two_concurrently(arguments: list[str], out: Path) -> None:
    """Run two processes with the same ``out`` concurrently. Assert that both succeed with the same output."""
    command = [sys.executable, "-m", "mmf_flava.data.prepare", *arguments, "--out", str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and outputs[0] == outputs[1]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return path -> content of all files below a folder; the content of indexes, which have timestamps, is omitted."""
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {str(p.relative_to(folder)): b"" if p.suffix == ".index" else p.read_bytes() for p in paths}
