"""Splits of a folder by the names of its files or subfolders: train, val and test."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.data.names import extension_of, is_hidden
from mmf_flava.data.record import IMAGE_EXTENSIONS

# name of a split in a file, a folder or a column -> split
SPLIT_NAMES = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
NAMED = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.]?\d[\w-]*)?", re.IGNORECASE)  # also train-00000-of-00002


def named_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the files, or else the folders, in a folder that are named train, val and test; empty if there are none.

    Images are not splits. Folders are splits only if there is one for training and another one, or no other folder:
    ``train`` may be a class.
    """
    if not folder.is_dir():
        return {}
    visible = [path for path in sorted(folder.iterdir()) if not is_hidden(path.name)]
    files = _group([path for path in visible if path.is_file() and extension_of(path.name) not in IMAGE_EXTENSIONS])
    if "train" in files:
        return files
    folders = [path for path in visible if path.is_dir()]
    named = _group(folders)
    is_only = sum(map(len, named.values())) == len(folders)
    return named if "train" in named and (len(named) > 1 or is_only) else {}


def _group(paths: Sequence[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        stem = path.name.partition(".")[0] if path.is_file() else path.name
        if match := NAMED.fullmatch(stem):
            groups.setdefault(SPLIT_NAMES[match[1].casefold()], []).append(path)
    return groups
