"""Kills at exact places: ``python -m tests.faults.exact_kills`` SIGKILLs the real command after updates 1, 7 and 13.

Resumed, the run must end as an uninterrupted one, to the bit: weights, optimizer, counters, the generators of every
process, and the names of the samples of every update, those that are done again among them. Then a run of one process
goes on with two, and again with one: the same batches, and the same losses but for rounding.
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

from tests.faults.runs import DROPOUT, Run, difference

UPDATES, KILLS = 20, (1, 7, 13)
TOLERANCE = 1e-6  # of a loss, relative
Kill = tuple[int, str]  # after which update, and "updated" or "saved" as ``watched_run`` understands them


def exact(root: Path, kills: Sequence[Kill], updates: int, processes: int = 1, interval: int = 3) -> dict[str, Any]:
    """A run with dropout that is killed, the last process of it, beside one that is not."""
    options = [*DROPOUT, f"training.max_updates={updates}", "training.evaluation_interval=8"]
    options.append(f"training.checkpoint_interval={interval}")
    quiet, run = Run(root, "quiet", *options), Run(root, "killed", *options)
    quiet.finish(processes=processes, watch={})
    for life, (update, place) in enumerate(kills):
        watch = {"life": life, "kill_after": update, "place": place, "ranks": [processes - 1]}
        end(run, run.start(processes=processes, watch=watch), processes)
    run.finish(processes=processes, watch={"life": len(kills)})
    expected = dict(quiet.samples())
    ours, theirs = quiet.state(), run.state()
    counts = {
        "tensors that differ": difference(quiet, run),
        "states that differ": [key for key in ours if ours[key] != theirs[key]],
        "updates done": len(run.samples()),
        "updates with other samples": sum(expected[update] != names for update, names in run.samples()),
    }
    whole = sorted(expected) == list(range(1, updates + 1)) == sorted(dict(run.samples()))
    holds = whole and len(ours["rng"]) == processes and not any(list(counts.values())[i] for i in (0, 1, 3))
    return {"proof": "exact kills", "processes": processes, "kills": list(kills), **counts, "holds": holds}


def end(run: Run, process: subprocess.Popen, processes: int) -> None:
    """Waits for a life to end as it was told to."""
    code = process.wait(timeout=300)
    if code != (-signal.SIGKILL if processes == 1 else 1):
        raise SystemExit(
            f"a life in {run.folder} was to be killed, and ended with {code}:\n{run.log.read_text()[-3000:]}"
        )


def regrouped(root: Path, changes: Sequence[int], updates: int) -> dict[str, Any]:
    """A run that goes on with two processes after the first of ``changes``, and with one after the second."""
    options = [f"training.max_updates={updates}", "training.evaluation_interval=1000", "training.checkpoint_interval=1"]
    quiet, run = Run(root, "one", *options), Run(root, "regrouped", *options)
    quiet.finish(watch={})
    for life, update in enumerate(changes):
        watch = {"life": life, "kill_after": update, "place": "saved", "ranks": [0, 1]}
        end(run, run.start(processes=life + 1, watch=watch), life + 1)
    run.finish(watch={"life": len(changes)})
    ours, theirs = quiet.losses(), run.losses()
    relative = {
        name: max(
            abs(theirs[update][name] - value) / abs(value)
            for update, losses in ours.items()
            if (value := losses.get(name)) is not None
        )
        for name in sorted({name for losses in ours.values() for name in losses})
    }
    same = quiet.samples() == run.samples()
    holds = same and ours.keys() == theirs.keys() and len(ours) == updates and max(relative.values()) <= TOLERANCE
    return {"proof": "1 -> 2 -> 1 processes", "changes after": list(changes), "same batches": same,
            "losses differ by": {name: float(f"{value:.2g}") for name, value in relative.items()},
            "holds": holds}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=UPDATES, help="of a run (%(default)s)")
    wishes = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        results = (
            *(
                partial(
                    exact,
                    Path(folder, f"{place}_{processes}"),
                    [(n, place) for n in KILLS],
                    wishes.updates,
                    processes,
                    interval,
                )
                for processes in (1, 2)
                # with updates since the last checkpoint that are done again, and with a checkpoint just written
                for place, interval in (("updated", 3), ("saved", 1))
            ),
            partial(regrouped, Path(folder, "regrouped"), KILLS[1:], wishes.updates),
        )
        for result in results:
            found = result()
            print(json.dumps(found), flush=True)
            failed |= not found["holds"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
