"""Faults of checkpoints: ``python -m tests.faults.chaos`` kills saving processes, corrupts files and counts losses.

``test_checkpoint_kills.py`` runs a small version.
"""

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

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import parse_name
from mmf_flava.files.checksums import CorruptFileError, verify_folder
from mmf_flava.training.checkpoint import load_state, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.weights.loading import load_checkpoint_weights

WIDTH = 300  # makes checkpoints of 1.1 MB, large enough to be killed while writing


def model_and_optimizer(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Build a model and an optimizer whose weights and moments all equal ``value``."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
        moments = {name: torch.full_like(parameter, value) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(value), **moments}
    return model, optimizer


def save(folder: CheckpointFolder, update: int) -> None:
    model, optimizer = model_and_optimizer(float(update))
    folder.save(update, model, optimizer, {"rng": [rng_state()]}, best=update % 5 == 0)


def load_update(path: Path) -> int:
    """Load a checkpoint and return its update; assert that all its values are from that update."""
    model, optimizer = model_and_optimizer(-1.0)
    load_checkpoint_weights(model, path)
    update = load_state(path, optimizer)["update"]
    for parameter in model.parameters():
        assert (parameter == update).all()
        assert all((value == update).all() for value in optimizer.state[parameter].values())
    return update


def is_valid(path: Path) -> bool:
    try:
        verify_folder(path)
    except CorruptFileError:
        return False
    return True


def named(pointer: Path) -> Path:
    """Return the folder that a pointer file names."""
    return pointer.parent / pointer.read_text().partition(" ")[0]


# ---------------------------------------------------------------------- kills


def _save_until_killed(folder: Path, start: int, background: bool, saved: Connection) -> None:
    """Save one update after the other, some of them twice, until killed; send the number of each saved update."""
    checkpoints = CheckpointFolder(folder, 2, background, log=lambda line: saved.send(parse_name(Path(line))[0]))
    for update in range(start, sys.maxsize):
        save(checkpoints, update)
        if update % 3 == 0:
            save(checkpoints, update)


def kills(folder: Path, count: int, seed: int) -> Counter:
    """Kill ``count`` processes that save to ``folder`` with SIGKILL at random times; each continues from the last one.

    Returns:
        Numbers of kills. ``loadable``: the newest valid checkpoint loads and is not older than the last reported one;
        ``valid pointers``: ``latest`` and ``best`` name valid checkpoints; ``while writing``: partly written files
        remain.
    """
    delays, counts = random.Random(seed), Counter()
    context = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    save(CheckpointFolder(folder, log=lambda _: None), 0)
    last_saved = 0
    for number in range(count):
        receiver, sender = context.Pipe(duplex=False)
        saver = context.Process(target=_save_until_killed, args=(folder, last_saved + 1, number % 2 == 1, sender))
        saver.start()
        sender.close()
        last_saved = receiver.recv()  # the process is saving
        time.sleep(delays.uniform(0, 0.1))
        os.kill(saver.pid, signal.SIGKILL)
        saver.join()
        assert saver.exitcode == -signal.SIGKILL
        try:
            while True:
                last_saved = receiver.recv()
        except (EOFError, OSError):  # OSError: killed while sending
            pass
        checkpoints = folder / "checkpoints"
        counts["while writing"] += any(path.name.startswith(".") for path in checkpoints.iterdir())
        counts["valid pointers"] += all(is_valid(named(checkpoints / name)) for name in ("latest", "best"))
        newest = CheckpointFolder(folder, log=lambda _: None).latest()
        if newest is not None and (update := load_update(newest)) >= last_saved:
            counts["loadable"] += 1
            last_saved = update
    return counts


# ---------------------------------------------------------------------- corruptions


def corruptions(folder: Path, count: int, seed: int) -> Counter:
    """Flip a bit in, or truncate, the files of the newest of two checkpoints ``count`` times, one file after the other.

    Returns:
        Numbers of corruptions. ``detected``: reported; ``previous used``: the previous checkpoint was loaded;
        ``latest``: the pointer was corrupted, and the newest checkpoint was loaded.
    """
    random_offset, counts = random.Random(seed), Counter()
    messages: list[str] = []
    checkpoints = CheckpointFolder(folder, log=messages.append)
    for update in (1, 2):
        save(checkpoints, update)
    newest = checkpoints.latest()
    assert newest is not None
    files = [*sorted(newest.iterdir()), folder / "checkpoints" / "latest"]
    for number in range(count):
        file = files[number % len(files)]
        content = file.read_bytes()
        offset = random_offset.randrange(len(content))
        if number // len(files) % 4 == 3:
            file.write_bytes(content[:offset])
        else:
            flipped = bytearray(content)
            flipped[offset] ^= 1 << random_offset.randrange(8)
            file.write_bytes(flipped)
        messages.clear()
        found = checkpoints.latest()
        assert found is not None
        counts["detected"] += len(messages) == 1 and str(file) in messages[0]
        counts["previous used" if file.parent == newest else "latest"] += load_update(found) == 1 + (
            file.parent != newest
        )
        file.write_bytes(content)
    return counts


# ---------------------------------------------------------------------- command line


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--kills", type=integer(0), default=100)
    parser.add_argument("--corruptions", type=integer(0), default=200)
    parser.add_argument("--seed", type=integer(0), default=0)
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root, killed, corrupted = Path(folder), Counter(), Counter()
        try:
            killed = kills(root / "kills", options.kills, options.seed)
            corrupted = corruptions(root / "corruptions", options.corruptions, options.seed)
        except (UserError, AssertionError) as error:
            print(f"lost: {error!r}", file=sys.stderr)
        used = corrupted["previous used"] + corrupted["latest"]
        for test, sent, counts, passed in (
            ("SIGKILL while saving", options.kills, killed, killed["loadable"] == killed["valid pointers"]),
            ("flipped bits and truncated files", options.corruptions, corrupted, corrupted["detected"] == used),
        ):
            passed = passed and sent in (counts["loadable"], counts["detected"])
            print(json.dumps({"test": test, "sent": sent, **counts, "passed": passed}), flush=True)
            failed |= not passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
