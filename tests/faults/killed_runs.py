"""Signals at random times: ``python -m tests.faults.killed_runs`` kills and stops ``mmf_run`` and resumes it.

A run of a tiny model with dropout, evaluated and saved (in the background) every few updates, is done once
uninterrupted, with its memory and open files monitored. Then it is killed (SIGKILL) or stopped (SIGTERM) repeatedly and
resumed each time: weights, optimizer, metrics and the best checkpoint must end bit-identical to those of the
uninterrupted run. ``exact_kills`` and ``stops`` send signals in given situations instead. ``finetuning_kills`` kills
finetunings.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.training.signals import STOPPED
from tests.faults.resource_monitor import ResourceMonitor
from tests.faults.runs import DROPOUT, Run, count_differences, find_differences, kill_all, training_pids

OPTIONS = [
    *DROPOUT,
    "training.evaluation_interval=100",
    "training.checkpoint_interval=20",
    "checkpoint.background=true",
]
TIMEOUT = 120  # seconds from a signal to the exit of a run


class UpdateReader:
    """Reads the current update of a run from the new records of its ``metrics.jsonl``."""

    def __init__(self, run: Run) -> None:
        self.file, self.update = run.folder / "metrics.jsonl", 0
        self.offset = self.file.stat().st_size if self.file.is_file() else 0

    def __call__(self) -> int:
        """Return the update of the last complete record of this attempt; 0 if there is none."""
        if self.file.is_file():
            if self.file.stat().st_size < self.offset:  # an attempt without a checkpoint starts a new file
                self.offset = 0
            with open(self.file, "rb") as file:
                file.seek(self.offset)
                lines, _, _ = file.read().rpartition(b"\n")
            if lines:
                self.offset += len(lines) + 1
                self.update = json.loads(lines.rpartition(b"\n")[2])["update"]
        return self.update


def run_and_signal(
    run: Run, number: int, update: int, rng: random.Random, processes: int, starting: float = 0.0
) -> int | None:
    """Start the run, send signal ``number`` soon after ``update``, and return the exit code; None if it hung.

    If ``starting`` is not 0, the signal is sent within that many seconds after the start instead.
    """
    current_update, process = UpdateReader(run), run.start(processes=processes)
    while process.poll() is None and (
        len(training_pids(process.pid, processes)) < processes if starting else current_update() < update
    ):
        time.sleep(0.005)
    time.sleep(rng.uniform(0, starting or 0.1))
    if process.poll() is None:
        os.kill(rng.choice(training_pids(process.pid, processes)), number)
    try:
        return process.wait(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        kill_all(process.pid, processes)
        return None


def uninterrupted_run(root: Path, updates: int, processes: int) -> tuple[Run, dict[str, Any]]:
    """Do an uninterrupted run; return it and the growth of memory and open files of its first process."""
    run = Run(root, "uninterrupted", *OPTIONS, f"training.max_updates={updates}")
    current_update, process = UpdateReader(run), run.start(processes=processes)
    while current_update() == 0 and process.poll() is None:
        time.sleep(0.1)
    with ResourceMonitor(training_pids(process.pid, processes)[0], current_update) as monitor:
        code = process.wait()
    if code != 0:
        raise SystemExit(f"The run in {run.folder} failed:\n{run.log.read_text()[-3000:]}")
    return run, {**monitor.result(updates), "processes": processes}


def interrupted_run(
    uninterrupted: Run, number: int, count: int, updates: int, processes: int, seed: int
) -> dict[str, Any]:
    """Do the same run with ``count`` signals at random times, and compare the results."""
    name = signal.Signals(number).name
    run = Run(uninterrupted.root, name, *OPTIONS, f"training.max_updates={updates}")
    return interrupt(uninterrupted, run, number, count, updates, processes, seed)


def interrupt(
    uninterrupted: Run,
    run: Run,
    number: int,
    count: int,
    updates: int,
    processes: int,
    seed: int,
    starting: float = 0.0,
) -> dict[str, Any]:
    """Send ``count`` signals to ``run`` at random times, and compare its results with those of ``uninterrupted``.

    starting: seconds that the run takes to start; if it is not 0, every sixth signal is sent within this time.
    """
    rng, name = random.Random(seed), signal.Signals(number).name
    # not at the end: the run continues until the signal arrives, which takes 40 updates on a busy machine
    end = updates - max(updates // 20, min(40, updates // 2))
    signal_updates = sorted(rng.choices(range(1, end), k=count))
    codes, partly_written = [], 0
    for n, update in enumerate(signal_updates):
        codes.append(run_and_signal(run, number, update, rng, processes, starting if n % 6 == 5 else 0.0))
        partly_written += bool(list(run.folder.glob("checkpoints/.*")))
    run.finish(processes=processes)
    differing, hung, late = count_differences(uninterrupted, run), codes.count(None), codes.count(0)
    others = find_differences(uninterrupted, run)
    expected = 1 if processes > 1 else STOPPED if number == signal.SIGTERM else -number
    as_expected = codes.count(expected)
    return {"test": f"{name} at random times", "processes": processes, "updates": updates, "sent": len(codes),
            "expected exit code": as_expected, "too late": late, "hung": hung, "while writing": partly_written,
            "tensors that differ": differing, "others that differ": others,
            "passed": not differing and not others and not hung and as_expected == len(codes)}  # fmt: skip


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=integer(0), default=2000, help="updates per run (default: %(default)s)")
    parser.add_argument("--kills", type=integer(0), default=50, help="number of SIGKILLs (default: %(default)s)")
    parser.add_argument(
        "--stops", type=integer(0), default=10, help="number of SIGTERMs, each to one process (default: %(default)s)"
    )
    parser.add_argument(
        "--processes", type=integer(0), default=1, help="number of training processes (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=integer(0), default=0, help="random seed of the signal times (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted, result = uninterrupted_run(Path(folder, "runs"), options.updates, options.processes)
        print(json.dumps(result), flush=True)
        failed |= not result["passed"]
        for number, count in ((signal.SIGKILL, options.kills), (signal.SIGTERM, options.stops)):
            if count:
                result = interrupted_run(uninterrupted, number, count, options.updates, options.processes, options.seed)
                print(json.dumps(result), flush=True)
                failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
