"""Whole runs under fire: ``python -m tests.faults.killed_runs`` kills and stops the real command at random moments.

A run of a tiny model with dropout, evaluated and saved (in the background) every few updates, is done once in quiet,
and its memory and open files are looked at meanwhile. Then it is killed (SIGKILL), or asked to stop (SIGTERM), again
and again, each life going on from the last: its weights and optimizer state must end as those of the quiet run, to
the bit. ``exact_kills`` and ``stops`` beside this file choose the place instead.
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

from mmf_flava.training.signals import STOPPED
from tests.faults.growth import Growth
from tests.faults.runs import DROPOUT, Run, difference

OPTIONS = [
    *DROPOUT,
    "training.evaluation_interval=100",
    "training.checkpoint_interval=20",
    "checkpoint.background=true",
]
PATIENCE = 120  # seconds from a signal to the end of a run


class Meter:
    """How far a life of a run is: reads what was added to the run's metrics since it last looked."""

    def __init__(self, run: Run) -> None:
        self.file, self.update = run.folder / "metrics.jsonl", 0
        self.offset = self.file.stat().st_size if self.file.is_file() else 0

    def __call__(self) -> int:
        """The update of the last whole line of this life, 0 before its first."""
        if self.file.is_file():
            if self.file.stat().st_size < self.offset:  # a life without a checkpoint starts the file anew
                self.offset = 0
            with open(self.file, "rb") as file:
                file.seek(self.offset)
                lines, _, _ = file.read().rpartition(b"\n")
            if lines:
                self.offset += len(lines) + 1
                self.update = json.loads(lines.rpartition(b"\n")[2])["update"]
        return self.update


def workers(launcher: int, processes: int) -> list[int]:
    """The processes that train."""
    if processes == 1:
        return [launcher]
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def life(run: Run, number: int, update: int, moment: random.Random, processes: int) -> int | None:
    """Starts the run, sends a signal soon after ``update``, and returns its exit code; None where it did not end."""
    meter, process = Meter(run), run.start(processes=processes)
    while process.poll() is None and meter() < update:
        time.sleep(0.005)
    time.sleep(moment.uniform(0, 0.1))
    if process.poll() is None:
        os.kill(moment.choice(workers(process.pid, processes)), number)
    try:
        return process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *workers(process.pid, processes)):
            os.kill(pid, signal.SIGKILL)
        return None


def quiet_run(root: Path, updates: int, processes: int) -> tuple[Run, dict[str, Any]]:
    """The run that nothing befalls, and how the memory and the open files of its first process grew."""
    run = Run(root, "quiet", *OPTIONS, f"training.max_updates={updates}")
    meter, process = Meter(run), run.start(processes=processes)
    while meter() == 0 and process.poll() is None:
        time.sleep(0.1)
    with Growth(workers(process.pid, processes)[0], meter) as growth:
        code = process.wait()
    if code != 0:
        raise SystemExit(f"the run in {run.folder} failed:\n{run.log.read_text()[-3000:]}")
    return run, {**growth.result(updates), "processes": processes}


def under_fire(quiet: Run, number: int, count: int, updates: int, processes: int, seed: int) -> dict[str, Any]:
    """The same run with ``count`` signals at random moments."""
    moment, name = random.Random(seed), signal.Signals(number).name
    run = Run(quiet.root, name, *OPTIONS, f"training.max_updates={updates}")
    # not to the very end: the run goes on for the time that a kill takes
    moments = sorted(moment.choices(range(1, updates - updates // 20), k=count))
    codes = [life(run, number, update, moment, processes) for update in moments]
    run.finish(processes=processes)
    differing, hung, late = difference(quiet, run), codes.count(None), codes.count(0)
    expected = 1 if processes > 1 else STOPPED if number == signal.SIGTERM else -number
    documented = codes.count(expected)
    return {"proof": f"{name} at random moments", "processes": processes, "updates": updates, "sent": len(codes),
            "as documented": documented, "too late": late, "hung": hung, "tensors that differ": differing,
            "holds": not differing and not hung and documented == len(codes)}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000, help="of a run (%(default)s)")
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of one run (%(default)s)")
    parser.add_argument("--stops", type=int, default=10, help="SIGTERMs of one run, to one process (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    wishes = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        quiet, found = quiet_run(Path(folder, "runs"), wishes.updates, wishes.processes)
        print(json.dumps(found), flush=True)
        failed |= not found["holds"]
        for number, count in ((signal.SIGKILL, wishes.kills), (signal.SIGTERM, wishes.stops)):
            if count:
                found = under_fire(quiet, number, count, wishes.updates, wishes.processes, wishes.seed)
                print(json.dumps(found), flush=True)
                failed |= not found["holds"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
