"""Selection of the training annotations of one part of PMD among published files, by their content and their names."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mmf_flava.data.names import extension_of, is_hidden
from mmf_flava.data.prepare.source_files import COMPRESSED_SUFFIXES
from mmf_flava.data.record import IMAGE_EXTENSIONS
from mmf_flava.errors import UserError, join_first

logger = logging.getLogger(__name__)

SUFFIXES = ("", ".json", ".jsonl", ".tsv", ".txt", ".csv", ".sql", ".db", ".sqlite", ".sqlite3", ".parquet", ".arrow")
HELD_OUT_NAME = re.compile(r"(?<![a-z])(val|valid|validation|minival|dev|test|testdev|sample)(?![a-z])")
COPY = re.compile(r" ?\(\d+\)(?=\.|$)| - copy(?=\.|$)")
OTHER_CONTENT = "other content"
OTHER_SPLIT = "validation, test or sample"
UNREADABLE = "unreadable"
MAX_DEPTH = 4  # folders below --src


@dataclass
class Selection:
    """The files to read, and those that are left, by reason.

    Attributes:
        companions: files that are read with those in ``read``, for example SBU's captions with its URLs.
    """

    read: list[Path] = field(default_factory=list)
    left: dict[Path, str] = field(default_factory=dict)
    companions: list[Path] = field(default_factory=list)

    def leave(self, paths: list[Path], reason: str) -> None:
        """Move files from ``read`` to ``left``."""
        self.left |= dict.fromkeys(paths, reason)
        self.read = [path for path in self.read if path not in self.left]

    def describe(self) -> str:
        """Describe the selection in one or two sentences."""
        names = [path.name for path in (*self.read, *self.companions)]
        text = f"Reads {len(names)} {'file' if len(names) == 1 else 'files'}: {join_first(names, 12)}."
        parts = []
        for reason, count in Counter(self.left.values()).most_common():
            names = [path.name for path, why in self.left.items() if why == reason]
            parts.append(f"{count} {reason} ({join_first(names, 5)})")
        return f"{text} Does not read: {'; '.join(parts)}." if parts else text


Matches = Callable[[Path], bool]
Prefer = Callable[[Selection], None]
Companions = Callable[[Path], list[Path]]


def annotation_candidates(src: Path) -> list[Path]:
    """Return the files below a folder that can contain annotations, sorted by path. Images and archives are not."""
    found: list[Path] = []
    for folder, folders, names in os.walk(src, followlinks=True):
        depth = len(Path(folder).relative_to(src).parts)
        folders[:] = [] if depth >= MAX_DEPTH else [name for name in folders if not is_hidden(name)]
        images = {name.rpartition(".")[0] for name in names if extension_of(name) in IMAGE_EXTENSIONS}
        found += (
            Path(folder, name)
            for name in names
            # img2dataset writes NAME.json and NAME.txt beside NAME.jpg
            if not is_hidden(name)
            and plain_suffix(name) in SUFFIXES
            and name.rpartition(".")[0] not in images
            and os.path.isfile(os.path.join(folder, name))
        )
    return sorted(found)


def plain_name(name: str) -> str:
    """Return a file name in lower case, without the suffixes of compression."""
    name = name.lower()
    while name.endswith(COMPRESSED_SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def plain_suffix(name: str) -> str:
    """Return the suffix of a file name without the suffixes of compression. ".all-00000-of-00010" is not a suffix."""
    suffix = os.path.splitext(plain_name(name))[1]
    return suffix if suffix in SUFFIXES else "" if re.search(r"[-_\d]", suffix) else suffix


def select_files(
    src: Path, part: str, matches: Matches, prefer: Prefer, companions: Companions, all_splits: bool
) -> Selection:
    """Select the files of a part below a folder.

    Args:
        matches: function that returns whether a file contains annotations of the part.
        prefer: function that leaves files with the same images as others.
        companions: function that returns the files that are read with a file.
        all_splits: read the files whose names contain val or test too.

    Raises:
        UserError: there are no training annotations.
    """
    selection = Selection()
    for path in annotation_candidates(src):
        try:
            found = matches(path)
        except Exception as error:  # whatever a decompressor raises
            selection.left[path] = f"{UNREADABLE}: {type(error).__name__}: {error}"
            continue
        if found:
            selection.read.append(path)
        else:
            selection.left[path] = OTHER_CONTENT
    if not all_splits:
        is_held_out = (path for path in selection.read if HELD_OUT_NAME.search(str(path.relative_to(src)).lower()))
        selection.leave(list(is_held_out), OTHER_SPLIT)
    _leave_copies(selection)
    prefer(selection)
    if not selection.read:
        found_names = [path.name for path in selection.left]
        reason = (
            selection.describe().partition("Does not read: ")[2] if found_names else "There are no annotation files."
        )
        raise UserError(
            f"{src}: no annotations of {part} found. {reason} Set --src to the published files of this part; a file "
            "as --src is read whatever its name."
        )
    selection.companions = [path for file in selection.read for path in companions(file)]
    selection.left = {path: reason for path, reason in selection.left.items() if path not in selection.companions}
    logger.warning("%s: %s", src, selection.describe())
    return selection


def _leave_copies(selection: Selection) -> None:
    """Leave a compressed file if the same file is also there uncompressed, and second downloads, "NAME (1).json"."""
    originals: dict[tuple[Path, str], Path] = {}
    for path in sorted(selection.read, key=lambda path: (len(path.name), path)):
        original = originals.setdefault((path.parent, COPY.sub("", plain_name(path.name))), path)
        if original != path:
            selection.leave([path], f"the same as {original.name}")
