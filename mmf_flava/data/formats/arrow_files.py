"""Parquet and Arrow files: where they are in a folder, to which splits they belong, their columns and rows.

The layouts are those of `datasets` (``save_to_disk``, the shards of the Hugging Face hub), img2dataset and pandas.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, islice, repeat
from pathlib import Path
from typing import Any

from mmf_flava.data.annotations import NO_LABEL, clean_text
from mmf_flava.data.names import extension_of, is_hidden
from mmf_flava.data.prepare.source_files import decode_rows, open_parquet
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import parse_json, read_object
from mmf_flava.files.regular_file import open_regular_file

ARROW_FILE, ARROW_STREAM = b"ARROW1", b"\xff\xff\xff\xff"  # first bytes of Arrow's two formats
TOO_LARGE = "a size in the file is larger than the memory"
DATASET_FILES = ("state.json", "dataset_dict.json")  # of a folder that save_to_disk has written
# Files of the split train are called train-00000-of-00294.parquet; older datasets append a hash. In the Hugging Face
# hub's automatic conversions, they are called train/0000.parquet.
SPLIT_OF_FILE = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?\.(parquet|arrow)", re.IGNORECASE)
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
BATCH = 64  # rows in memory at a time
REMEDY = "Download or write the file again."


class DamagedRow(ValueError):
    """Stands for a row that cannot be read, because its file is damaged."""


class ArrowFile:
    """One parquet or Arrow file.

    Args:
        split: name of the split that the file belongs to; None: unknown.
        info: the folder's ``dataset_info.json``, whose class names are used if the file has none.

    Raises:
        UserError: the file is damaged, or pyarrow is not installed.
    """

    def __init__(self, path: Path, split: str | None = None, info: Path | None = None):
        self.path, self.split, self._info = path, split, info
        self.groups: list[int] = []  # rows of each row group; empty if unknown
        with _damaged(path), open_regular_file(path) as file:
            self.is_parquet = file.read(4) == b"PAR1"
            if self.is_parquet:
                with open_parquet(path) as table:
                    self.schema, metadata = table.schema_arrow, table.metadata
                    self.groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
            else:
                self.schema = _open_arrow(path, file).schema
        self.columns = list(self.schema.names)

    @property
    def rows(self) -> int | None:
        """Number of rows; None if it is unknown."""
        return sum(self.groups) if self.is_parquet else None

    @cached_property
    def features(self) -> dict[str, Any]:
        """The features of `datasets` by column, such as the class names; empty if the file has none."""
        try:
            info = parse_json((self.schema.metadata or {})[b"huggingface"])["info"]
        except (KeyError, TypeError, ValueError):
            info = None
        if info is None and self._info is not None and self._info.is_file():
            with damaged_file(self._info, "JSON file", REMEDY):
                info = read_object(self._info)
        features = info.get("features") if isinstance(info, dict) else None
        return features if isinstance(features, dict) else {}

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return the class names of a column, or of the lists in it, in label order; empty if it has none."""
        feature = self.features.get(column)
        while isinstance(feature, dict | list):
            if isinstance(feature, dict) and isinstance(feature.get("names"), list):
                return tuple(" ".join(clean_text(str(name)).split()) for name in feature["names"])
            feature = feature.get("feature") if isinstance(feature, dict) else feature[0] if feature else None
        return ()

    def image_columns(self) -> list[str]:
        """Return the names of the columns with the bytes of files, or with the structs {bytes, path} of `datasets`."""
        from pyarrow import types

        def is_bytes(kind: Any) -> bool:
            return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)

        def is_image(kind: Any) -> bool:
            fields = {kind.field(n).name: kind.field(n).type for n in range(kind.num_fields)}
            return is_bytes(kind) or (types.is_struct(kind) and "bytes" in fields and is_bytes(fields["bytes"]))

        return [field.name for field in self.schema if is_image(field.type)]

    def read(self, columns: Sequence[str], first: int = 0) -> Iterator[Any]:
        """Yield the rows as dicts, of a parquet file from row ``first`` on. Class numbers that have names are names.

        For a row that cannot be read, the item is an exception. If a row group of a parquet file is damaged, the
        following groups are read. The rows of an Arrow file after the damage are one exception.
        """
        named = {name: names for name in columns if (names := self.class_names(name))}
        while True:
            number = first
            try:
                with _damaged(self.path):
                    for row in self._read(list(columns), first):
                        if named and isinstance(row, dict):
                            row |= {name: _name_classes(row[name], names) for name, names in named.items()}
                        yield row
                        number += 1
                return
            except UserError as error:
                end = next((end for end in accumulate(self.groups) if end > number), number + 1)
                yield from repeat(DamagedRow(str(error)), end - number)
                if end >= (self.rows or 0):
                    return
                first = end

    def _read(self, columns: list[str], first: int) -> Iterator[Any]:
        if self.is_parquet:
            with open_parquet(self.path) as table:
                for group, rows in enumerate(self.groups):
                    start, first = min(first, rows), max(0, first - rows)
                    batches = table.iter_batches(BATCH, [group], columns) if start < rows and columns else ()
                    yield from islice(chain.from_iterable(map(decode_rows, batches)), start, None)
                    yield from repeat({}, 0 if columns else rows - start)
            return
        with open_regular_file(self.path) as file:
            for batch in _open_arrow(self.path, file, [self.columns.index(name) for name in columns]):
                for number in range(0, len(batch), BATCH):
                    rows = batch.slice(number, BATCH)
                    yield from decode_rows(rows) if columns else repeat({}, len(rows))


def _name_classes(value: Any, names: Sequence[str]) -> Any:
    """Return the names of class numbers. -1 means that there is no label; a number without a name is not changed."""
    if isinstance(value, list):
        return [_name_classes(item, names) for item in value]
    if not isinstance(value, int) or not NO_LABEL <= value < len(names):
        return value
    return None if value == NO_LABEL else names[value]


class _Batches:
    """The schema and the batches of an Arrow file in the stream format or in the file format."""

    def __init__(self, reader: Any):
        self.schema, self._reader = reader.schema, reader

    def __iter__(self) -> Iterator[Any]:
        count = getattr(self._reader, "num_record_batches", None)
        number = 0
        while count is None or number < count:
            try:
                batch = self._reader.read_next_batch() if count is None else self._reader.get_batch(number)
                batch.validate(full=True)  # the numbers in a damaged file may be outside of the file
            except StopIteration:
                return
            except MemoryError:
                raise ValueError(TOO_LARGE) from None
            yield batch
            number += 1


def _open_arrow(path: Path, file: Any, columns: list[int] | None = None) -> _Batches:
    try:
        from pyarrow import ipc
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'mmf_flava[data]'.") from None
    options = ipc.IpcReadOptions(included_fields=columns, use_threads=False)
    file.seek(0)
    start = file.read(len(ARROW_FILE))
    if not start.startswith((ARROW_FILE, ARROW_STREAM)):
        raise ValueError("it is neither Arrow nor parquet")
    file.seek(0)
    try:
        return _Batches((ipc.open_file if start == ARROW_FILE else ipc.open_stream)(file, options=options))
    except MemoryError:
        raise ValueError(TOO_LARGE) from None


def _damaged(path: Path) -> Any:
    return damaged_file(path, "Arrow file" if extension_of(path.name) == "arrow" else "parquet file", REMEDY)


def find_arrow_files(path: Path) -> list[tuple[Path, str | None]]:
    """Return the parquet and Arrow files at ``path`` and their splits; the list may be empty.

    Of a folder of ``save_to_disk``, these are the files in its ``state.json``; of other folders, all visible files at
    any depth, except for the tables of URLs that img2dataset writes beside its images. Splits are named if there are
    several.

    Raises:
        UserError: a ``state.json`` is damaged.
    """
    found = [(path, split_of_file(path))] if path.is_file() else list(_find(path, path))
    several = len({split for _, split in found}) > 1
    return [(file, split if several else None) for file, split in found]


def _find(folder: Path, root: Path) -> Iterator[tuple[Path, str | None]]:
    state = folder / "state.json"
    if state.is_file():
        with damaged_file(state, "state.json of `datasets`", REMEDY):
            content = read_object(state)
            names = [str(entry["filename"]) for entry in content["_data_files"]]
        split = content.get("_split") or (None if folder == root else folder.name)
        yield from ((folder / os.path.basename(name), split) for name in names)
        return
    try:
        entries = sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    except OSError:
        return
    present = {entry.name for entry in entries}
    for entry in entries:
        if entry.is_dir():
            if not entry.is_symlink() and entry.name != "_tmp":
                yield from _find(entry, root)
        elif extension_of(entry.name) in ("parquet", "arrow"):
            stem = entry.name.rpartition(".")[0]
            if not {stem, f"{stem}.tar"} & present:
                yield entry, split_of_file(entry)


def split_of_file(path: Path) -> str | None:
    """Return the split in the name of a file or of its folder, or None."""
    match = SPLIT_OF_FILE.fullmatch(path.name)
    if match:
        return match[1]
    return next((name for name in (path.stem, path.parent.name) if name.lower() in SPLITS), None)
