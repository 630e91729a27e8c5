"""Names of the checkpoint folders of a run, and the pointer files ``checkpoints/latest`` and ``checkpoints/best``.

A pointer file contains the name of a checkpoint folder in ``checkpoints`` and the SHA-256 of the file
``checksums.sha256`` in that checkpoint folder.
"""

import re
from pathlib import Path

from mmf_flava.files.checksums import CHECKSUMS, sha256

LATEST, BEST = "latest", "best"
# suffix of the folder of an old checkpoint while a new checkpoint of the same update replaces it
REPLACED = ".replaced"
NAME = re.compile(rf"update_(\d+)({re.escape(REPLACED)})?")


def pointer_text(checkpoint: Path) -> str:
    """Return the content of a pointer file that names ``checkpoint``."""
    return f"{checkpoint.name} {sha256(checkpoint / CHECKSUMS)}\n"


def read_pointer(pointer: Path) -> Path | None:
    """Return the checkpoint folder that a pointer file names, or None if the file is missing or corrupt."""
    try:
        text = pointer.read_text(encoding="ascii")
        path = pointer.parent / text.partition(" ")[0]
        return path if NAME.fullmatch(path.name) and text == pointer_text(path) else None
    except (OSError, ValueError):  # ValueError: not ASCII, or a null byte in the name
        return None
