"""Shards and manifests are the same bytes whatever the executor, and whoever is killed."""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from mmf_flava.data.prepare import tasks
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.executors import LOCAL, MAX_DEATHS, Executor, parse_executor
from mmf_flava.data.prepare.row_tasks import RowResult
from mmf_flava.data.prepare.rows import BadRow
from mmf_flava.data.prepare.shard_preparation import ShardPreparation
from mmf_flava.errors import UserError

from .process_kills import read_files, run_two_concurrently

if multiprocessing.current_process().name != "MainProcess":
    tasks.QUIET = 0.3  # workers import this module, and a task takes a millisecond
ROWS = 23
SBATCH = Path(__file__).parents[3] / "projects/flava/slurm/prepare.sbatch"
EXECUTORS = [
    Executor("local", 2),
    pytest.param(
        Executor("ray", 2), marks=pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
    ),
]


def result(number):
    if number in (3, 17):
        return RowResult(bad=BadRow("malformed row", f"row {number} is bad"))
    return RowResult(dropped="no image") if number % 4 == 2 else RowResult({"txt": b"%d" % number}, {"images": 1})


def convert(marks, rows, work, first):
    """Yield results. A file in ``marks`` that names a row kills the process that reads it; its first line says how
    often."""
    for number in range(first, rows):
        mark = Path(marks, str(number))
        if mark.exists() and (times := int(mark.read_text())):
            mark.write_text(str(times - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        yield result(number)


def preparation(folder, shard=4, rows=None):
    options = partial(convert, str(folder), ROWS), dict, ("images",), shard, rows
    return ShardPreparation("test", {"shard": shard}, *options)


def make_folder(path):
    path.mkdir()
    return path


@pytest.fixture
def expected(tmp_path):
    preparation(tmp_path).run(tmp_path / "expected", progress=False)
    return read_files(tmp_path / "expected")


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("known", [True, False])
def test_files_are_those_of_one_process(tmp_path, expected, executor, known, capfd):
    preparation(tmp_path, rows=ROWS if known else None).run(tmp_path / "out", True, executor)
    assert read_files(tmp_path / "out") == expected
    output = "".join(capfd.readouterr())
    assert output.count("row 3 is dropped: row 3 is bad (logged once per reason)") + output.count("row 17 is") == 1
    assert "23/23" in output if known else "23row" in output


@pytest.mark.parametrize("executor", EXECUTORS)
def test_tasks_of_killed_workers_are_run_again(tmp_path, expected, executor):
    (tmp_path / "9").write_text("1")
    (tmp_path / "14").write_text("1")
    preparation(tmp_path).run(tmp_path / "out", False, executor)
    assert (tmp_path / "9").read_text() == (tmp_path / "14").read_text() == "0"
    assert read_files(tmp_path / "out") == expected


def test_workers_that_are_killed_repeatedly_are_an_error_and_the_rest_is_kept(tmp_path, expected):
    (tmp_path / "9").write_text(str(MAX_DEATHS + 2))
    with pytest.raises(UserError, match=r"workers were killed one after the other .* Run the command again with fewer"):
        preparation(tmp_path).run(tmp_path / "out", False, Executor("local", 2))
    (tmp_path / "9").unlink()
    assert len(list((tmp_path / "out/.work").glob("[0-9]*.json"))) == 5, "all but that of row 9"
    preparation(tmp_path).run(tmp_path / "out", False, LOCAL)
    assert read_files(tmp_path / "out") == expected


def fail(error, work, first):
    yield RowResult({"txt": b"a"}, {"images": 1})
    raise error


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("error", [UserError("a.tsv is truncated."), RuntimeError("a defect")])
def test_errors_of_workers_are_raised(tmp_path, executor, error):
    failing = ShardPreparation("test", {}, partial(fail, error), dict, ("images",), 2)
    with pytest.raises(type(error), match=str(error)):
        failing.run(tmp_path / "out", False, executor)
    if isinstance(error, UserError):
        assert list((tmp_path / "out").iterdir()) == [], "nothing was written, so nothing is left"


def missing(work, first):
    yield from [RowResult(dropped="no image", unmatched="no file 1.jpg")] * 3000


def test_empty_result_is_the_same_error(tmp_path):
    failing = ShardPreparation("test", {}, missing, dict, ("images",), 2000, source="a.tsv")
    for executor in (LOCAL, Executor("local", 2)):
        with pytest.raises(UserError, match=r"a\.tsv: none of the first 1,000 rows gives a record \(1,000 no image"):
            failing.run(tmp_path / "out", False, executor)
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("rows", "shard", "shards"), [(8, 4, 2), (9, 4, 3), (1, 4, 1), (4, 1, 3), (8, 100, 1)])
@pytest.mark.parametrize("known", [True, False])
def test_last_task(tmp_path, rows, shard, shards, known):
    options = {"rows": rows} if known else {}
    manifest = ShardPreparation(
        "test", {}, partial(convert, str(tmp_path), rows), dict, ("images",), shard, **options
    ).run(tmp_path / "out", False)
    assert manifest["counts"]["rows"] == rows
    assert len(manifest["shards"]) == len(list((tmp_path / "out").glob("*.tar"))) == shards - (rows == 4)


@pytest.fixture
def corpus(tmp_path):
    """Annotations and images as files; one in seven is missing."""
    (tmp_path / "images").mkdir()
    for number in range(60):
        if number % 7:
            (tmp_path / f"images/{number}.jpg").write_bytes(b"\xff\xd8\xff%d" % number)
    rows = [json.dumps({"image_id": str(n), "caption": f"A cat number {n}."}) for n in range(60)]
    (tmp_path / "open_images_train_captions.jsonl").write_text("\n".join(rows) + "\n")
    words = ["pmd", "--part", "localized_narratives", "--src", str(tmp_path / "open_images_train_captions.jsonl")]
    return [*words, "--images", str(tmp_path / "images"), "--shard", "4", "--exclude", "none", "--quiet"]


@pytest.mark.parametrize("executor", ["local:2", "slurm"])
def test_command_with_an_executor(tmp_path, corpus, executor, monkeypatch, capsys):
    for name, value in {"SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "2"}.items():
        monkeypatch.setenv(name, value)
    for out, option in {"one": "local:1", "other": executor}.items():
        assert main([*corpus, "--out", str(tmp_path / out), "--executor", option]) == 0
    assert read_files(tmp_path / "one") == read_files(tmp_path / "other")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]


def test_two_processes_on_one_folder(tmp_path, corpus):
    run_two_concurrently(corpus, tmp_path / "out")
    assert main([*corpus, "--out", str(tmp_path / "alone")]) == 0
    assert read_files(tmp_path / "out") == read_files(tmp_path / "alone")


def test_jobs_of_a_slurm_array_share_the_work(tmp_path, corpus):
    """The sbatch file runs as it is written; Slurm itself only sets the variables and starts it."""
    words = ["bash", str(SBATCH), *corpus, "--out", str(tmp_path / "out")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    jobs = [subprocess.Popen(words, env={**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": job}) for job in ("0", "7")]
    assert [job.wait(120) for job in jobs] == [0, 0]
    assert main([*corpus, "--out", str(tmp_path / "alone")]) == 0
    assert read_files(tmp_path / "out") == read_files(tmp_path / "alone")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command_and_finished_tasks_are_kept(tmp_path, kind):
    """Ctrl-C reaches the process group of a terminal, so the command has its own; other signals reach one process."""
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from functools import partial
from pathlib import Path
from mmf_flava.command import command
from mmf_flava.data.prepare.executors import Executor
from tests.data.prepare.test_executors import slow_preparation
@command
def main(arguments):
    slow_preparation().run(Path({str(tmp_path / "out")!r}), False, Executor("local", 2))
if __name__ == "__main__":
    sys.exit(main([]))
"""
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out/.work").glob("[0-9]*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (os.killpg if kind == signal.SIGINT else os.kill)(process.pid, kind)
    error = process.communicate(timeout=60)[1]
    interrupted = 130, "mmf_flava: interrupted\n"
    assert (process.returncode, error) == (interrupted if kind == signal.SIGINT else (-kind, ""))
    while any(is_running(path) for path in Path("/proc").glob("[0-9]*") if group(path) == process.pid):
        assert time.monotonic() < deadline, "a worker has not ended"
        time.sleep(0.05)
    assert list((tmp_path / "out/.work").glob("[0-9]*.json"))


def group(process):
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return 0


def is_running(process):
    with contextlib.suppress(OSError):
        return (process / "stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def slow(work, first):
    for number in range(first, 10_000):
        time.sleep(0.02)
        yield RowResult({"txt": b"%d" % number}, {"images": 1})


def slow_preparation():
    return ShardPreparation("test", {}, slow, dict, ("images",), 4)


def test_invalid_executors_are_errors(monkeypatch):
    assert parse_executor("local:3") == Executor("local", 3)
    assert parse_executor("ray") == Executor("ray", 0)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for text in ("local", "local:0", "local:x", "spark", "ray:2", "slurm"):
        with pytest.raises(argparse.ArgumentTypeError, match="sbatch --array" if text == "slurm" else "local:N"):
            parse_executor(text)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert parse_executor("slurm") == Executor("local", 4)
    for count in ("abc", "-3", "0"):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", count)
        with pytest.raises(argparse.ArgumentTypeError, match="SLURM_CPUS_PER_TASK must be 1 to 1024"):
            parse_executor("slurm")


def test_missing_ray_leaves_the_work_of_others(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    preparation(tmp_path).output_folder(make_folder(tmp_path / "out")).begin()
    with pytest.raises(UserError, match="needs Ray"):
        preparation(tmp_path).run(tmp_path / "out", False, Executor("ray", 0))
    assert (tmp_path / "out/.work/input.json").is_file()


def test_missing_ray_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'mmf_flava\[ray\]'"):
        preparation(tmp_path).run(tmp_path / "out", False, Executor("ray", 0))
