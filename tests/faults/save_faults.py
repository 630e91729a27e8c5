"""Faults of system calls in a save: ``python -m tests.faults.save_faults`` lets each call fail, or kills the process.

A save is repeated in several situations, each time with a fault of another call of ``faulty_calls``: ENOSPC or EIO, of
one call or of all calls from then on, or SIGKILL. Afterwards both pointers must name complete checkpoints, ``latest``
the last or the new one and ``best`` the best or the new best one. The run must then go on: the next saves succeed, and
no files are left over. ``test_save_faults.py`` runs a small version.
"""

import errno
import json
import multiprocessing
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.errors import UserError
from mmf_flava.files.checksums import verify_folder
from mmf_flava.training.checkpoint import GatheredState
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from tests.faults.faulty_calls import FaultyCalls

# error number, or None for SIGKILL; whether all later calls fail too
FAULTS = [(number, lasting) for number in (errno.ENOSPC, errno.EIO) for lasting in (False, True)]
KILL = (None, False)


@dataclass(frozen=True)
class Save:
    update: int
    best: bool = False


@dataclass(frozen=True)
class Situation:
    """The saves before the one with a fault, which is the last.

    next: the save after the fault; the run has been resumed.
    """

    max_to_keep: int
    saves: tuple[Save, ...]
    next: Save


SITUATIONS = {
    "first save": Situation(1, (Save(1),), Save(2)),
    "one kept": Situation(1, (Save(1), Save(2)), Save(3)),
    "best is older": Situation(1, (Save(1, True), Save(2), Save(3)), Save(4)),
    "new best": Situation(1, (Save(1, True), Save(2), Save(3, True)), Save(4)),
    "best repeated": Situation(1, (Save(1, True), Save(1)), Save(1)),
    "best repeated again": Situation(2, (Save(1, True), Save(1), Save(1)), Save(2)),
    "best repeated as best": Situation(1, (Save(1, True), Save(2, True), Save(2, True)), Save(2, True)),
    "resumed from an older one": Situation(3, (Save(10), Save(30, True), Save(40), Save(20)), Save(25)),
}


def save(folder: CheckpointFolder, item: Save, value: int) -> None:
    """Save a checkpoint whose tensors all have one value, which identifies the checkpoint."""
    tensor = torch.full((100,), float(value))
    optimizer = {"state": {0: {"exp_avg": tensor}}, "param_groups": []}
    state = {"rng": [], "value": value}
    folder.save(item.update, GatheredState({"weight": tensor}), GatheredState(optimizer), state, item.best)


def value_of(checkpoint: Path) -> int:
    """Return the value of a checkpoint; assert that all its files are complete and from one save."""
    verify_folder(checkpoint)
    value = json.loads((checkpoint / "state.json").read_text())["value"]
    for file in ("model", "optimizer"):
        (tensor,) = load_file(checkpoint / f"{file}.safetensors").values()
        assert (tensor == value).all()
    return value


def prepare(root: Path, situation: Situation) -> CheckpointFolder:
    folder = CheckpointFolder(root, situation.max_to_keep, log=lambda _: None)
    for value, item in enumerate(situation.saves[:-1]):
        save(folder, item, value)
    return folder


def inject(root: Path, situation: Situation, calls: FaultyCalls) -> str:
    """Run the save with faults; return "saved", "refused" or, after a SIGKILL, "killed"."""
    folder = prepare(root, situation)
    arguments = folder, situation.saves[-1], len(situation.saves) - 1

    def run() -> None:
        with calls.active():
            save(*arguments)

    if calls.error is None and calls.number:
        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        return "killed"
    try:
        run()
    except UserError:
        return "refused"
    return "saved"


def check(root: Path, situation: Situation, outcome: str) -> None:
    """Assert that the pointers name the expected checkpoints, and that the resumed run goes on."""
    folder = root / "checkpoints"
    *before, faulty = range(len(situation.saves))
    last = situation.saves[faulty]
    best = next((value for value in reversed(before) if situation.saves[value].best), None)
    for pointer, old, new in (("latest", before[-1] if before else None, True), ("best", best, last.best)):
        allowed = {*([old] if old is not None else []), *([faulty] if new else [])}
        if outcome == "saved" and new:
            allowed = {faulty}
        if (folder / pointer).is_file():
            named = value_of(folder / (folder / pointer).read_text().partition(" ")[0])
            assert named in allowed, f"{pointer} names {named}"
        else:
            assert old is None, f"{pointer} is missing"
    resumed = CheckpointFolder(root, situation.max_to_keep, log=lambda _: None)
    latest = resumed.latest()
    assert latest is not None or not before
    for value, item in enumerate((situation.next, Save(situation.next.update + 1)), faulty + 1):
        save(resumed, item, value)
        latest = resumed.latest()
        assert latest is not None and value_of(latest) == value
    names = sorted(path.name for path in folder.iterdir() if path.name not in ("latest", "best"))
    assert not any(name.startswith(".") for name in names), names
    assert len(names) <= situation.max_to_keep + 1, names
    if (folder / "best").is_file():
        found = resumed.best()
        assert found is not None
        value_of(found)


def inject_all(name: str, faults: Sequence[tuple[int | None, bool]], step: int = 1, start: int = 0) -> Counter:
    """Inject faults into every ``step``-th call of the save in a situation.

    Returns:
        Numbers of faults and of their outcomes; all other keys are failures.
    """
    situation, counts = SITUATIONS[name], Counter()
    with tempfile.TemporaryDirectory() as folder:
        calls = FaultyCalls()
        assert inject(Path(folder), situation, calls) == "saved"
        check(Path(folder), situation, "saved")
    for error, lasting in faults:
        for number in range(1 + start, calls.count + 1, step):
            with tempfile.TemporaryDirectory() as folder:
                counts["faults"] += 1
                try:
                    outcome = inject(Path(folder), situation, FaultyCalls(number, error, lasting))
                    counts[outcome] += 1
                    check(Path(folder), situation, outcome)
                except (AssertionError, OSError, UserError) as failure:
                    counts[f"call {number}, error {error}, lasting {lasting}: {failure!r}"] += 1
    return counts


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m tests.faults.save_faults", description=__doc__)
    parser.add_argument("--step", type=integer(1), default=2, help="test every n-th call (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    failed = False
    for test, faults in (("ENOSPC and EIO in a save", FAULTS), ("SIGKILL in a save", [KILL])):
        for name in SITUATIONS:
            counts = inject_all(name, faults, options.step)
            passed = counts.keys() <= {"faults", "saved", "refused", "killed"}
            print(json.dumps({"test": test, "situation": name, **counts, "passed": passed}), flush=True)
            failed |= not passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
