"""Kills after given updates: ``python -m tests.faults.exact_kills`` kills ``mmf_run`` after updates 1, 7 and 13.

The resumed run must end bit-identical to an uninterrupted one: weights, optimizer, counters, the random generators of
every process, and the samples of every update, including repeated ones. Then a run of one process resumes with two, and
again with one: it must have the same batches, and the same losses up to rounding.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, integer
from tests.faults.runs import DROPOUT, Run, count_differences

UPDATES, KILLS = 20, (1, 7, 13)
TOLERANCE = 1e-6  # relative difference of a loss
Kill = tuple[int, str]  # the update, and "updated" or "saved" as in ``instrumented_run``


def exact(root: Path, kills: Sequence[Kill], updates: int, processes: int = 1, interval: int = 3) -> dict[str, Any]:
    """Compare a run with dropout, whose last process is killed several times, with an uninterrupted run."""
    options = [*DROPOUT, f"training.max_updates={updates}", "training.evaluation_interval=8"]
    options.append(f"training.checkpoint_interval={interval}")
    uninterrupted, run = Run(root, "uninterrupted", *options), Run(root, "killed", *options)
    uninterrupted.finish(processes=processes, instrument={})
    for attempt, (update, place) in enumerate(kills):
        instrument = {"attempt": attempt, "kill_after": update, "place": place, "ranks": [processes - 1]}
        wait_for_kill(run, run.start(processes=processes, instrument=instrument), processes)
    run.finish(processes=processes, instrument={"attempt": len(kills)})
    samples = dict(uninterrupted.samples())
    expected, actual = uninterrupted.state(), run.state()
    counts = {
        "tensors that differ": count_differences(uninterrupted, run),
        "states that differ": [key for key in expected if expected[key] != actual[key]],
        "updates done": len(run.samples()),
        "updates with other samples": sum(samples[update] != names for update, names in run.samples()),
    }
    complete = sorted(samples) == list(range(1, updates + 1)) == sorted(dict(run.samples()))
    passed = complete and len(expected["rng"]) == processes and not any(list(counts.values())[i] for i in (0, 1, 3))
    return {"test": "exact kills", "processes": processes, "kills": list(kills), **counts, "passed": passed}


def wait_for_kill(run: Run, process: subprocess.Popen, processes: int) -> None:
    """Wait for an attempt to exit, and check that it was killed."""
    code = process.wait(timeout=300)
    if code != (-signal.SIGKILL if processes == 1 else 1):
        raise SystemExit(
            f"The run in {run.folder} was not killed but exited with {code}:\n{run.log.read_text()[-3000:]}"
        )


def change_processes(root: Path, changes: Sequence[int], updates: int) -> dict[str, Any]:
    """Compare a run that switches to two processes and back after the updates ``changes`` with a single-process run."""
    options = [f"training.max_updates={updates}", "training.evaluation_interval=1000", "training.checkpoint_interval=1"]
    uninterrupted, run = Run(root, "single", *options), Run(root, "changed", *options)
    uninterrupted.finish(instrument={})
    for attempt, update in enumerate(changes):
        instrument = {"attempt": attempt, "kill_after": update, "place": "saved", "ranks": [0, 1]}
        wait_for_kill(run, run.start(processes=attempt + 1, instrument=instrument), attempt + 1)
    run.finish(instrument={"attempt": len(changes)})
    expected, actual = uninterrupted.losses(), run.losses()
    relative = {
        name: max(
            abs(actual[update][name] - value) / abs(value)
            for update, losses in expected.items()
            if (value := losses.get(name)) is not None
        )
        for name in sorted({name for losses in expected.values() for name in losses})
    }
    same = uninterrupted.samples() == run.samples()
    passed = (
        same and expected.keys() == actual.keys() and len(expected) == updates and max(relative.values()) <= TOLERANCE
    )
    return {"test": "1 -> 2 -> 1 processes", "changes after": list(changes), "same batches": same,
            "losses differ by": {name: float(f"{value:.2g}") for name, value in relative.items()},
            "passed": passed}  # fmt: skip


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=integer(1), default=UPDATES, help="updates per run (default: %(default)s)")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        results = (
            *(
                partial(
                    exact,
                    Path(folder, f"{place}_{processes}"),
                    [(n, place) for n in KILLS],
                    options.updates,
                    processes,
                    interval,
                )
                for processes in (1, 2)
                # killed after updates that are not in a checkpoint, and directly after a save
                for place, interval in (("updated", 3), ("saved", 1))
            ),
            partial(change_processes, Path(folder, "changed"), KILLS[1:], options.updates),
        )
        for compute in results:
            result = compute()
            print(json.dumps(result), flush=True)
            failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
