"""Stops in every situation: ``python -m tests.faults.stops`` sends SIGTERM to the real command, and counts.

The signal falls in a step, in an evaluation, while waiting for data and while saving, by turns; on the only process of
a run and, by turns, on one of two; on runs that save in the background too. Each life goes on from the last.
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

from mmf_flava.files.checksums import Damaged, verify
from mmf_flava.training.signals import STOPPED
from tests.faults.runs import DROPOUT, Run, difference

SITUATIONS = {
    "step": "in a step",
    "evaluation": "in an evaluation",
    "data": "while waiting for data",
    "save": "while saving",
}
PATIENCE = 120  # seconds from a signal to the end of a run
UPDATES = 8  # more than a life does before it is stopped
OPTIONS = [*DROPOUT, "training.evaluation_interval=4", "training.checkpoint_interval=3", "checkpoint.max_to_keep=2"]


def stop(run: Run, life: int, situation: str, victim: int, processes: int, *options: str) -> dict[str, Any]:
    """One life: SIGTERM to the process of rank ``victim`` as soon as any process is in ``situation``."""
    for file in (file for suffix in ("entered", "left", "pid") for file in run.records.glob(f"*.{suffix}")):
        file.unlink()
    launcher = run.start(*options, processes=processes, watch={"life": life, "situation": situation})
    while not list(run.records.glob("*.entered")):
        if launcher.poll() is not None:
            raise SystemExit(f"no {situation} came in {run.folder}:\n{run.log.read_text()[-3000:]}")
        time.sleep(0.005)
    # a process that starts later than another is there before the other can do a step
    pid = int((run.records / f"{victim}.pid").read_text())
    sent = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    try:
        code = launcher.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        launcher.kill()
        for file in run.records.glob("*.pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
        return {"hung": 1}
    took = time.monotonic() - sent
    within = any(
        began <= sent <= left for began, left in (json.loads(f.read_text()) for f in run.records.glob("*.left"))
    )
    # torchrun's own code is 1; it names those of its workers
    codes = (
        [code] if processes == 1 else [int(found) for found in re.findall(r"exitcode *: (-?\d+)", run.log.read_text())]
    )
    return {
        "within": int(within),
        "saved": int(whole(run)),
        "code": int(bool(codes) and set(codes) == {STOPPED}),
        "seconds": took,
    }


def whole(run: Run) -> bool:
    """Whether ``latest`` names a whole checkpoint of the last update that was done, and the run has said so."""
    path = run.folder / "checkpoints" / (run.folder / "checkpoints" / "latest").read_text().partition(" ")[0]
    try:
        verify(path)
    except Damaged:
        return False
    update = int(path.name.removeprefix("update_"))
    said = f"after update {update}; checkpoint.resume=true goes on there" in run.log.read_text()
    return said and update == run.samples()[-1][0]


def stops(root: Path, count: int, processes: int) -> list[dict[str, Any]]:
    """``count`` lives of a run that each end by a signal, beside a run without: a result for each situation."""
    options = [*OPTIONS, f"training.max_updates={UPDATES * count}"]
    quiet, run = Run(root, "quiet", *options), Run(root, "stopped", *options)
    results = {name: {"sent": 0, "within": 0, "saved": 0, "code": 0, "hung": 0, "seconds": 0.0} for name in SITUATIONS}
    for life in range(count):
        situation, others = list(SITUATIONS)[life % len(SITUATIONS)], life // len(SITUATIONS)
        more = [f"checkpoint.background={'true' if others % 2 else 'false'}"]
        if processes == 1:
            more.append(f"training.num_workers={1 - others % 2}")
        found = stop(run, life, situation, others % processes, processes, *more)
        result = results[situation]
        result["sent"] += 1
        for name in ("within", "saved", "code", "hung"):
            result[name] += found.get(name, 0)
        result["seconds"] = max(result["seconds"], round(found.get("seconds", PATIENCE), 1))
    run.finish(processes=processes, watch={"life": count})
    quiet.finish(processes=processes, watch={})
    differing = difference(quiet, run)
    return [
        {"proof": f"SIGTERM {SITUATIONS[situation]}",
         "processes": processes, "sent": result["sent"], "sent in it": result["within"], "saved": result["saved"],
         "exit codes 75": result["code"], "hung": result["hung"], "longest seconds": result["seconds"],
         "tensors that differ": differing,
         "holds": result["within"] == result["saved"] == result["code"] == result["sent"] and not differing}
        for situation, result in results.items() if result["sent"]
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=30, help="half of one process, half of two (%(default)s)")
    wishes = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for processes, count in ((1, (wishes.stops + 1) // 2), (2, wishes.stops // 2)):
            for found in stops(Path(folder, f"of_{processes}"), count, processes) if count else ():
                print(json.dumps(found), flush=True)
                failed |= not found["holds"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
