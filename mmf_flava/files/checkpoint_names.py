"""Names of the checkpoint folders of a run, and the pointer files ``checkpoints/latest`` and ``checkpoints/best``.

A pointer file contains the name of a checkpoint folder in ``checkpoints`` and the SHA-256 of the file
``checksums.sha256`` in that checkpoint folder.

Other processes can read checkpoints while a run saves, and removes, its checkpoints. Readers take no locks, because
they may not be able to write to the folder. They check that the checkpoint is still there, and otherwise read again.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mmf_flava.errors import UserError
from mmf_flava.files.checksums import CHECKSUMS, sha256
from mmf_flava.files.regular_file import read_regular_file

Found = TypeVar("Found", Path, Path | None)
T = TypeVar("T")

LATEST, BEST = "latest", "best"
# suffix of the folder of an old checkpoint while a new checkpoint of the same update replaces it
REPLACED = ".replaced"
NAME = re.compile(rf"update_(\d+)({re.escape(REPLACED)})?")
ATTEMPTS = 100  # to read a checkpoint while a run replaces its checkpoints


def pointer_text(checkpoint: Path, name: str | None = None) -> str:
    """Return the content of a pointer file for ``checkpoint``, under another name if ``name`` is given."""
    return f"{name or checkpoint.name} {sha256(checkpoint / CHECKSUMS)}\n"


def read_pointer(pointer: Path) -> Path | None:
    """Return the checkpoint folder that a pointer file names, or None if the file is missing or corrupt.

    While a new checkpoint of the same update replaces this checkpoint, its folder has the suffix ``REPLACED``.
    """
    text = previous = None
    for _ in range(ATTEMPTS):
        try:
            text = read_regular_file(pointer).decode("ascii")
            name = text.partition(" ")[0]
            for path in (pointer.parent / name, pointer.parent / f"{name}{REPLACED}"):
                if NAME.fullmatch(path.name) and path.is_dir() and text == pointer_text(path, name):
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
        before = _identity(folder)
        try:
            result = read(found)
        except Exception:
            if _identity(folder) == before and (before is not None or folder == previous):
                raise
        else:
            if before is not None and _identity(folder) == before:
                return result
        previous = folder if before is None else None
    raise UserError(f"{folder} and later checkpoints were removed while they were read. Increase max_to_keep.")


def _identity(folder: Path) -> tuple[int, ...] | None:
    """Return values that differ for another folder at the same path; None if there is no folder."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns
