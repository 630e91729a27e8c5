"""What a path contains, by content: tar shards, tables, images in folders, or files with embedded images.

A folder is read if it contains one kind of data, or images and the one table that lists them. Files beside the data do
not count: manifests, indexes, img2dataset's ``_stats.json`` and tables of URLs, and texts without columns.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmf_flava.data.formats.archive import is_archive
from mmf_flava.data.formats.arrow_files import DATASET_FILES, find_arrow_files
from mmf_flava.data.formats.columns import NAMES
from mmf_flava.data.formats.embedded_images import has_image_bytes
from mmf_flava.data.formats.file_types import FileType, file_type
from mmf_flava.data.formats.splits import named_splits
from mmf_flava.data.formats.tables import open_table
from mmf_flava.data.image_folder import CAPTION_FILES, CLASS_LIST, EXTENSIONS_BESIDE, find_images
from mmf_flava.data.names import display_name, extension_of, is_hidden
from mmf_flava.data.record import IMAGE_EXTENSIONS
from mmf_flava.errors import UserError, join_first

logger = logging.getLogger(__name__)

TABLE_EXTENSIONS = ("csv", "tsv", "jsonl", "ndjson", "json", "npy")
COMPRESSIONS = ("gz", "bz2", "xz")
SIDE_FILES = {"manifest.json", "dataset_infos.json", "dataset_info.json", "config.json", "sizes.json", CLASS_LIST}
IMAGES = "images"
MAX_SUBFOLDERS = 1000  # subfolders in which tables are searched
SAMPLED_IMAGES = 100  # images beside which captions are searched
MAX_FILES = 10_000  # files of a folder that is not understood, which are counted
EXPECTED = (
    f"Expected *.tar shards, images ({', '.join(IMAGE_EXTENSIONS)}) in class folders or with texts beside them, a "
    "table (.csv, .tsv, .jsonl, .json, .parquet), or a dataset saved by `datasets`."
)


class Kind(Enum):
    """What a path contains, and by which reader it is read."""

    SHARDS = "tar shards"  # ShardReader
    TABLES = "tables"  # ImageList
    IMAGES = "images"  # ImageFolder
    EMBEDDED = "files with embedded images"  # ShardReader of shards in the cache, see ``embedded``


class Contents(NamedTuple):
    """The kind of data at a path, and the files to read, or the folder."""

    kind: Kind
    paths: tuple[Path, ...]


def detect(path: Path, columns: Mapping[str, Any] | None = None) -> Contents:
    """Return what a file or folder contains.

    Args:
        columns: value of the config key ``columns``.

    Raises:
        UserError: there is no such path, it contains several kinds of data, or none that can be read; the message says
            what was seen and what to write.
    """
    if path.is_dir():
        return _detect_folder(path, columns)
    if not os.path.lexists(path):
        raise UserError(f"{path} has no records: the path does not exist. {EXPECTED}")
    try:
        kind = file_type(path)
        if kind == FileType.TAR and not is_archive(path):
            return Contents(Kind.SHARDS, (path,))
        if kind in (FileType.TAR, FileType.COMPRESSED_TAR, FileType.ARROW):
            return Contents(Kind.EMBEDDED, (path,))
        if kind == FileType.PARQUET and has_image_bytes(path, columns):
            return Contents(Kind.EMBEDDED, (path,))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Correct the path.") from None
    return Contents(Kind.TABLES, (path,))


def _detect_folder(folder: Path, columns: Mapping[str, Any] | None) -> Contents:
    files, subfolders = _entries(folder)
    splits = named_splits(folder)
    if len(splits) > 1:
        listed = ", ".join(f"{split}: {_relative(paths, folder)}" for split, paths in splits.items())
        raise UserError(f"{folder} contains several splits. Write which ones to read, e.g. splits: {{{listed}}}.")
    if {file.name for file in files} & {*DATASET_FILES}:
        return Contents(Kind.EMBEDDED, (folder,))
    found = _find_data(folder, files, subfolders, columns)
    lists = [contents for contents in found.values() if contents.kind == Kind.TABLES]
    if len(lists) == 1 and len(found) == 2 and IMAGES in found:  # the images that the table lists
        del found[IMAGES]
    if not found:
        raise UserError(f"{folder} has no records{_contained(folder)}. {EXPECTED}")
    contents = next(iter(found.values()))
    if len(found) == 1 and (contents.kind != Kind.TABLES or len(contents.paths) == 1 or _are_arrow(contents.paths)):
        return contents
    seen = [f"{name} ({join_first(_names(folder, contents))})" for name, contents in found.items()]
    several = [path for contents in found.values() if contents.kind != Kind.IMAGES for path in contents.paths]
    example = several[0].parent / "*.tar" if extension_of(several[0].name) == "tar" else several[0]
    raise UserError(
        f"{folder} contains {' and '.join(seen)}. Write which of these to read, e.g. data_dir: {example}, or move the "
        "others to another folder."
    )


def _find_data(
    folder: Path, files: Sequence[Path], subfolders: Sequence[Path], columns: Mapping[str, Any] | None
) -> dict[str, Contents]:
    """Return the kinds of data in a folder by their names in messages."""
    names = {file.name for file in files}
    first_image = next(find_images(folder), None)
    shards = tuple(file for file in files if extension_of(file.name) == "tar")
    archives = tuple(file for file in files if file.name.lower().endswith((".tar.gz", ".tgz")))
    nested = first_image is None  # otherwise, at most the folder's own files
    arrow = tuple(file for file, _ in find_arrow_files(folder)) if nested else _arrow_in(files, subfolders)
    tables = [file for file in files if _is_table(file, names, bool(shards or archives))]
    if first_image is not None:
        nested_files = [file for sub in subfolders[:MAX_SUBFOLDERS] for file in _entries(sub)[0]]
        tables += [file for file in nested_files if _is_listed(file) and ".json" not in file.suffixes]
        unknown = [file for file in tables if "image" not in (columns or {}) and not _has_image_column(file)]
        if unknown:
            logger.warning(
                "%s: files that are not read, because no column for the image was recognised: %s. To read one, set "
                "data_dir to the file, and columns, e.g. columns: {image: NAME}.",
                *(folder, join_first([str(file.relative_to(folder)) for file in unknown])),
            )
        tables = [file for file in tables if file not in unknown]
    found = {
        "tar shards": Contents(Kind.SHARDS, shards),
        "compressed tar files": Contents(Kind.EMBEDDED, archives),
        "tables": Contents(Kind.TABLES, tuple(tables)),
    }
    if arrow:
        embedded = has_image_bytes(folder, columns)
        found["parquet or Arrow files"] = (
            Contents(Kind.EMBEDDED, (folder,)) if embedded else Contents(Kind.TABLES, arrow)
        )
    if first_image is not None:
        name = IMAGES if _captioned_image(folder) is None else "images with texts beside them"
        found[name] = Contents(Kind.IMAGES, (folder,))
    return {name: contents for name, contents in found.items() if contents.paths}


def _are_arrow(paths: Sequence[Path]) -> bool:
    """Return whether several tables are the parts of one."""
    return all(extension_of(path.name) in ("parquet", "arrow") for path in paths)


def _names(folder: Path, contents: Contents) -> list[str]:
    if contents.kind == Kind.IMAGES:
        return [display_name(key) for key in islice(find_images(folder), 4)]
    return [display_name(str(path.relative_to(folder))) if path != folder else "*.parquet" for path in contents.paths]


def _relative(paths: Sequence[Path], folder: Path) -> str:
    names = [str(path.relative_to(folder)) for path in paths]
    return names[0] if len(names) == 1 else f"[{join_first(names)}]"


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible files and subfolders of a folder, sorted."""
    try:
        visible = sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}). Correct the path.") from None
    folders = [entry for entry in visible if entry.is_dir()]
    return [entry for entry in visible if entry not in folders], folders


def _arrow_in(files: Sequence[Path], subfolders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the parquet and Arrow files of a folder with images, without those that img2dataset writes beside them."""
    beside = {folder.name for folder in subfolders} | {file.stem for file in files if extension_of(file.name) == "tar"}
    return tuple(file for file in files if extension_of(file.name) in ("parquet", "arrow") and file.stem not in beside)


def _is_table(file: Path, names: set[str], beside_shards: bool) -> bool:
    """Return whether a file in a folder is a table: by its extension, or by its first line if it has no or .txt."""
    name = file.name.lower()
    if name in SIDE_FILES or name.endswith("_stats.json") or any(map(name.endswith, (".tar.gz", ".index"))):
        return False
    stem = file.stem if extension_of(name) in COMPRESSIONS else file.name
    extension = extension_of(stem)
    is_caption = any(f"{file.stem}.{image}" in names for image in IMAGE_EXTENSIONS)
    if extension in CAPTION_FILES and is_caption:
        return False
    if extension == "json" and beside_shards:  # information about the shards
        return False
    return _is_listed(file) or (extension in ("", "txt") and _has_image_column(file))


def _is_listed(file: Path) -> bool:
    """Return whether a file has the extension of a table."""
    name = file.stem if extension_of(file.name) in COMPRESSIONS else file.name
    return extension_of(name) in TABLE_EXTENSIONS and not file.name.endswith("_stats.json")


def _has_image_column(file: Path) -> bool:
    """Return whether a file is a table with a column of a common name for images."""
    try:
        columns = open_table(file).columns
    except (OSError, UserError):
        return False
    return any(name.strip().lower() in NAMES["image"] for name in columns)


def _captioned_image(folder: Path) -> str | None:
    """Return one of the first images that has a text of the same name beside it."""
    for key in islice(find_images(folder), SAMPLED_IMAGES):
        stem = key.rpartition(".")[0]
        if any((folder / f"{stem}.{extension}").is_file() for extension in EXTENSIONS_BESIDE):
            return display_name(key)
    return None


def _contained(folder: Path) -> str:
    """Return what a folder contains, for a message."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for current, _, names in os.walk(folder):
        for name in names:
            if not is_hidden(name):
                counts[extension := f".{extension_of(name)}"] += 1
                examples.setdefault(extension, current)
        if counts.total() > MAX_FILES:
            break
    if not counts:
        return ": it is empty"
    seen = join_first(
        [f"{count:,} {name if name != '.' else 'without extension'}" for name, count in counts.most_common()], 5
    )
    shards = f" The shards are in subfolders: write data_dir: {examples['.tar']}." if ".tar" in counts else ""
    return f": it contains {seen} files.{shards}".removesuffix(".")
