"""Names of the checkpoint folders of a run, and the pointer files ``checkpoints/latest`` and ``checkpoints/best``.

A pointer file contains the name of a checkpoint folder in ``checkpoints`` and the SHA-256 of the file
``checksums.sha256`` in that checkpoint folder.

The checkpoint of update 200 is ``update_00000200``. If it exists when this update is saved again, the new checkpoint
is ``update_00000200.1``. A checkpoint folder is never replaced or renamed, so a pointer to it is valid until it is
removed.

Other processes can read checkpoints while a run saves, and removes, its checkpoints. Readers take no locks, because
they may not be able to write to the folder. They check that the checkpoint is still there, and otherwise read again.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mmf_flava.errors import UserError
from mmf_flava.files.checksums import CHECKSUMS, sha256
from mmf_flava.files.regular_file import read_regular_file

Found = TypeVar("Found", Path, Path | None)
T = TypeVar("T")

LATEST, BEST = "latest", "best"
NAME = re.compile(r"update_(\d+)(?:\.(\d+))?")  # the update, and the number of the repetition
ATTEMPTS = 100  # to read a checkpoint while a run replaces its checkpoints


def parse_name(checkpoint: Path) -> tuple[int, int]:
    """Return the update of a checkpoint and the number of its repetition, 0 for the first checkpoint of an update."""
    match = NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def new_checkpoint(folder: Path, update: int) -> Path:
    """Return the path of a new checkpoint of ``update``, which no existing checkpoint has."""
    repetitions = [parse_name(path)[1] for path in find_checkpoints(folder) if parse_name(path)[0] == update]
    return folder / (f"update_{update:08d}" + (f".{max(repetitions) + 1}" if repetitions else ""))


def find_checkpoints(folder: Path, latest: Path | None = None, update: int | None = None) -> list[Path]:
    """Return the checkpoints in ``folder`` from newest to oldest.

    Those of later updates than ``update`` come last. They exist if the run was resumed from an older checkpoint.

    Args:
        latest: the checkpoint that is newer than all others up to ``update``; usually that of the pointer file.
        update: default: the update of ``latest``; None if both are missing.
    """
    names = {path: parse_name(path) for path in folder.glob("update_*") if NAME.fullmatch(path.name)}
    if update is None and latest in names:
        update = names[latest][0]

    def order(path: Path) -> tuple[Any, ...]:
        number, repetition = names[path]
        return update is not None and number > update, path != latest, -number, -repetition, path.name

    return sorted(names, key=order)


def pointer_text(checkpoint: Path) -> str:
    """Return the content of a pointer file for ``checkpoint``."""
    return f"{checkpoint.name} {sha256(checkpoint / CHECKSUMS)}\n"


def read_pointer(pointer: Path) -> Path | None:
    """Return the checkpoint folder that a pointer file names, or None if the file is missing or corrupt."""
    text = previous = None
    for _ in range(ATTEMPTS):
        try:
            text = read_regular_file(pointer).decode("ascii")
            path = pointer.parent / text.partition(" ")[0]
            if NAME.fullmatch(path.name) and path.is_dir() and text == pointer_text(path):
                return path
        except (OSError, ValueError):  # ValueError: not ASCII, or a null byte in the name
            pass
        if text == previous:
            return None
        previous = text  # the run may have removed the checkpoint after the pointer was read
    return None


def read_found(find: Callable[[], Found], read: Callable[[Found], T]) -> T:
    """Return ``read(find())``; repeat both if a run removes or replaces the checkpoint while it is read.

    Args:
        find: returns a checkpoint folder or a file in it. Other paths are read once.
        read: reads the path. Its result is discarded, and its exceptions are ignored, if the checkpoint changed.

    Raises:
        UserError: the checkpoints changed in all attempts.
    """
    previous = None
    for _ in range(ATTEMPTS):
        found = find()
        folder = found if found is None or NAME.fullmatch(found.name) else found.parent
        if folder is None or not NAME.fullmatch(folder.name):
            return read(found)
        before = identity(folder)
        try:
            result = read(found)
        except Exception:
            if identity(folder) == before and (before is not None or folder == previous):
                raise
        else:
            if before is not None and identity(folder) == before:
                return result
        previous = folder if before is None else None
    raise UserError(f"{folder} and later checkpoints were removed while they were read. Increase max_to_keep.")


def identity(folder: Path) -> tuple[int, ...] | None:
    """Return values that differ for another folder at the same path; None if there is no folder."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns
