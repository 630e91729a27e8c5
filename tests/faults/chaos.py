"""Checkpoints under fire: ``python -m tests.faults.chaos`` kills savers and damages bytes, then counts what was lost.

The tests beside this file do the same in small.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.files.checksums import Damaged, verify
from mmf_flava.training.checkpoint import load_model, load_state, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder

WIDTH = 300  # a checkpoint of 1.1 MB, in whose writing a kill can fall


def toy(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model of which every weight is ``value``, and an optimizer of which every moment is."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
        moments = {name: torch.full_like(parameter, value) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(value), **moments}
    return model, optimizer


def save(folder: CheckpointFolder, update: int) -> None:
    model, optimizer = toy(float(update))
    folder.save(update, model, optimizer, {"rng": [rng_state()]}, best=update % 5 == 0)


def loaded(path: Path) -> int:
    """The update of a checkpoint; every tensor and number in it is of that update, or an assertion fails."""
    model, optimizer = toy(-1.0)
    load_model(path, model)
    update = load_state(path, optimizer)["update"]
    for parameter in model.parameters():
        assert (parameter == update).all()
        assert all((value == update).all() for value in optimizer.state[parameter].values())
    return update


def whole(path: Path) -> bool:
    try:
        verify(path)
    except Damaged:
        return False
    return True


# ---------------------------------------------------------------------- kills


def _saver(folder: Path, start: int, background: bool, told: Connection) -> None:
    """Saves one update after the other, some of them twice, until it is killed; tells of each that is done."""
    checkpoints = CheckpointFolder(folder, 2, background, say=lambda line: told.send(int(line.rpartition("_")[2])))
    for update in range(start, sys.maxsize):
        save(checkpoints, update)
        if update % 3 == 0:
            save(checkpoints, update)


def kills(folder: Path, count: int, seed: int) -> Counter:
    """SIGKILLs ``count`` processes that save into ``folder``, each at a random moment, each going on from the last.

    Returns:
        ``loadable``: kills after which the newest whole checkpoint was at least the last that was told of, and sound;
        ``whole latest``: kills after which ``latest`` named a whole checkpoint, or the one being replaced;
        ``in the midst``: kills that left something half-written.
    """
    random_moment, counts = random.Random(seed), Counter()
    context = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    save(CheckpointFolder(folder, say=lambda _: None), 0)
    known = 0
    for number in range(count):
        ours, theirs = context.Pipe(duplex=False)
        saver = context.Process(target=_saver, args=(folder, known + 1, number % 2 == 1, theirs))
        saver.start()
        theirs.close()
        known = ours.recv()  # it is saving
        time.sleep(random_moment.uniform(0, 0.1))
        os.kill(saver.pid, signal.SIGKILL)
        saver.join()
        assert saver.exitcode == -signal.SIGKILL
        try:
            while True:
                known = ours.recv()
        except (EOFError, OSError):  # OSError: killed while telling
            pass
        names = sorted(path.name for path in (folder / "checkpoints").iterdir())
        counts["in the midst"] += any(name.startswith(".") or "replaced" in name for name in names)
        pointed = folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text().partition(" ")[0]
        counts["whole latest"] += whole(pointed) or whole(pointed.with_name(f"{pointed.name}.replaced"))
        newest = CheckpointFolder(folder, say=lambda _: None).latest()
        if newest is not None and (update := loaded(newest)) >= known:
            counts["loadable"] += 1
            known = update
    return counts


# ---------------------------------------------------------------------- bytes


def damages(folder: Path, count: int, seed: int) -> Counter:
    """Flips a bit of, or cuts, the newest of two checkpoints ``count`` times, by turns in each of its files.

    Returns:
        ``detected``: damages that were told of; ``previous used``: those after which the checkpoint before was found,
        and sound; ``latest``: damages of the pointer, after which the newest checkpoint was found all the same.
    """
    random_place, counts = random.Random(seed), Counter()
    said: list[str] = []
    checkpoints = CheckpointFolder(folder, say=said.append)
    for update in (1, 2):
        save(checkpoints, update)
    newest = checkpoints.latest()
    assert newest is not None
    files = [*sorted(newest.iterdir()), folder / "checkpoints" / "latest"]
    for number in range(count):
        file = files[number % len(files)]
        sound = file.read_bytes()
        place = random_place.randrange(len(sound))
        if number // len(files) % 4 == 3:
            file.write_bytes(sound[:place])
        else:
            flipped = bytearray(sound)
            flipped[place] ^= 1 << random_place.randrange(8)
            file.write_bytes(flipped)
        said.clear()
        found = checkpoints.latest()
        assert found is not None
        counts["detected"] += len(said) == 1 and str(file) in said[0]
        counts["previous used" if file.parent == newest else "latest"] += loaded(found) == 1 + (file.parent != newest)
        file.write_bytes(sound)
    return counts


# ---------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root, killed, damaged = Path(folder), Counter(), Counter()
        try:
            killed = kills(root / "kills", options.kills, options.seed)
            damaged = damages(root / "damages", options.damages, options.seed)
        except (UserError, AssertionError) as error:
            print(f"lost: {error!r}", file=sys.stderr)
        used = damaged["previous used"] + damaged["latest"]
        for proof, sent, counts, holds in (
            ("SIGKILL while saving", options.kills, killed, killed["loadable"] == killed["whole latest"]),
            ("flipped bits and cut files", options.damages, damaged, damaged["detected"] == used),
        ):
            holds = holds and sent in (counts["loadable"], counts["detected"])
            print(json.dumps({"proof": proof, "sent": sent, **counts, "holds": holds}), flush=True)
            failed |= not holds
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
