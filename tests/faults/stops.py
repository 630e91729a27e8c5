"""Stops in given situations: ``python -m tests.faults.stops`` stops ``mmf_run`` and resumes it.

A stop is a SIGTERM, a SIGHUP, or a closed pipe, as after ``mmf_run | head``. It comes during a step, during an
evaluation, while waiting for data and while saving; in runs of one process and of two, to each of them; with and
without background saves. Each attempt resumes from the last one.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.files.checksums import CorruptFileError, verify_folder
from mmf_flava.training.signals import STOPPED
from tests.faults.runs import DROPOUT, Run, count_differences

SITUATIONS = {
    "step": "during a step",
    "evaluation": "during an evaluation",
    "data": "while waiting for data",
    "save": "while saving",
}
PIPE = "closed pipe"
STOPS = ("SIGTERM", "SIGHUP", PIPE)
TIMEOUT = 120  # seconds from a stop to the exit of a run
UPDATES = 8  # per attempt; more than are done before the stop
OPTIONS = [*DROPOUT, "training.evaluation_interval=4", "training.checkpoint_interval=3", "checkpoint.max_to_keep=2"]


def stop_once(
    run: Run, attempt: int, situation: str, stop: str, victim: int, processes: int, *options: str
) -> dict[str, Any]:
    """Do an attempt, and stop it when any process enters ``situation``: the process of rank ``victim``, or the pipe."""
    for file in (file for suffix in ("entered", "left", "pid") for file in run.records.glob(f"*.{suffix}")):
        file.unlink()
    instrument = {"attempt": attempt, "situation": situation}
    reader, writer = os.pipe()
    launcher = run.start(*options, processes=processes, instrument=instrument, stdout=writer if stop == PIPE else None)
    os.close(writer)
    while not list(run.records.glob("*.entered")):
        if launcher.poll() is not None:
            raise SystemExit(
                f"The run in {run.folder} exited before the situation {situation!r}:\n{run.log.read_text()[-3000:]}"
            )
        time.sleep(0.005)
    # all processes have written their ID before any process can do a step
    pid = int((run.records / f"{victim}.pid").read_text())
    sent = time.monotonic()
    os.close(reader)
    if stop != PIPE:
        os.kill(pid, signal.Signals[stop])
    try:
        code = launcher.wait(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        launcher.kill()
        for file in run.records.glob("*.pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
        return {"hung": 1}
    seconds = time.monotonic() - sent
    within = any(
        entered <= sent <= left for entered, left in (json.loads(f.read_text()) for f in run.records.glob("*.left"))
    )
    # torchrun exits with 1 and prints the exit codes of its workers
    codes = (
        [code] if processes == 1 else [int(found) for found in re.findall(r"exitcode *: (-?\d+)", run.log.read_text())]
    )
    return {
        "within": int(within),
        "saved": int(is_saved(run)),
        "code": int(bool(codes) and set(codes) == {STOPPED}),
        "seconds": seconds,
    }


def is_saved(run: Run) -> bool:
    """Return whether ``latest`` names a valid checkpoint of the last update, and the run has logged that update."""
    path = run.folder / "checkpoints" / (run.folder / "checkpoints" / "latest").read_text().partition(" ")[0]
    try:
        verify_folder(path)
    except CorruptFileError:
        return False
    update = int(path.name.removeprefix("update_").partition(".")[0])
    logged = f"after update {update}. Resume with checkpoint.resume=true" in (run.folder / "train.log").read_text()
    return logged and update == run.samples()[-1][0]


def stop_repeatedly(root: Path, count: int, processes: int) -> list[dict[str, Any]]:
    """Stop and resume a run ``count`` times, compare it with an uninterrupted run; return a result per situation."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and the runs inherit this
    options = [*OPTIONS, f"training.max_updates={UPDATES * count}"]
    uninterrupted, run = Run(root, "uninterrupted", *options), Run(root, "stopped", *options)
    results: dict[str, Any] = {
        name: {"stops": [], "sent": 0, "within": 0, "saved": 0, "code": 0, "hung": 0, "seconds": 0.0}
        for name in SITUATIONS
    }
    for attempt in range(count):
        situation, round_ = list(SITUATIONS)[attempt % len(SITUATIONS)], attempt // len(SITUATIONS)
        more = [f"checkpoint.background={'true' if round_ % 2 else 'false'}"]
        if processes == 1:
            more.append(f"training.num_workers={1 - round_ % 2}")
        stop = STOPS[(attempt + round_) % len(STOPS)]
        outcome = stop_once(run, attempt, situation, stop, round_ % processes, processes, *more)
        result = results[situation]
        result["sent"] += 1
        result["stops"].append(stop)
        for name in ("within", "saved", "code", "hung"):
            result[name] += outcome.get(name, 0)
        result["seconds"] = max(result["seconds"], round(outcome.get("seconds", TIMEOUT), 1))
    run.finish(processes=processes, instrument={"attempt": count})
    uninterrupted.finish(processes=processes, instrument={})
    differing = count_differences(uninterrupted, run)
    return [
        {"test": f"stop {SITUATIONS[situation]}",
         "processes": processes, "stops": result["stops"],
         "sent": result["sent"], "sent in the situation": result["within"],
         "saved": result["saved"], "exit codes 75": result["code"],
         "hung": result["hung"], "longest seconds": result["seconds"],
         "tensors that differ": differing,
         "passed": result["within"] == result["saved"] == result["code"] == result["sent"] and not differing}
        for situation, result in results.items() if result["sent"]
    ]  # fmt: skip


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--stops",
        type=integer(0),
        default=48,
        help="number of stops, half with one process, half with two (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for processes, count in ((1, (options.stops + 1) // 2), (2, options.stops // 2)):
            for result in stop_repeatedly(Path(folder, str(processes)), count, processes) if count else ():
                print(json.dumps(result), flush=True)
                failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
