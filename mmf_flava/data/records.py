"""Functions that open the records of a dataset: tar shards, images in folders, or tables, and what is read as these.

``formats.detection`` recognises what a path contains. Three readers remain: ``ShardReader``, ``ImageFolder`` and
``ImageList``.
"""

import glob
import logging
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import accumulate, chain, groupby
from pathlib import Path
from typing import Any

from mmf_flava.config.columns import check_columns
from mmf_flava.data.formats.detection import Kind, detect
from mmf_flava.data.formats.embedded import embedded_shards
from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.indexing import Shard
from mmf_flava.data.order import Unit, spread_units
from mmf_flava.data.record import BadRecord, Record, Records, record_boundary
from mmf_flava.data.remote_shard import expand_remote_shards
from mmf_flava.data.shards import ShardReader, find_shards
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import is_remote
from mmf_flava.files.open_files import raise_limit

logger = logging.getLogger(__name__)


class ConcatRecords:
    """Concatenation of several record readers."""

    def __init__(self, readers: Sequence[Records]):
        self.readers = list(readers)
        self.sequential = all(reader.sequential for reader in readers)
        self._starts = [0, *accumulate(map(len, self.readers))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        reader, local_index = self.locate(index)
        return reader.read(local_index, only)

    def locate(self, index: int) -> tuple[Records, int]:
        """Return the reader that contains record ``index`` and the index within that reader."""
        if not 0 <= index < len(self):
            raise IndexError(f"record index {index} is out of range for {len(self)} records")
        number = bisect_right(self._starts, index) - 1
        return self.readers[number], index - self._starts[number]


def open_records(
    paths: str | Path | Sequence[str | Path],
    cache: FileCache | None = None,
    images: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    images_required: bool = True,
) -> Records:
    """Open the records at one or several paths, in order.

    Args:
        paths: one or several paths. Each is a file or folder of any format of ``formats.detection``, a glob of such
            files, or the URL (http, https, s3) of a tar file. Braces expand to several tar files, as in
            ``{00000..00099}.tar``.
        cache: cache for remote shards; see ``expand_remote_shards``.
        images: root folder of relative image paths in tables; None: the folder that contains the table.
        columns: value of the config key ``columns``.
        images_required: whether rows of tables without an image are bad records.

    Raises:
        UserError: a path has no records, several kinds of data, or a table whose columns are not recognised.
    """
    return open_parts(paths, cache, images, columns, images_required)[0]


def open_parts(
    paths: str | Path | Sequence[str | Path],
    cache: FileCache | None = None,
    images: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    images_required: bool = True,
) -> tuple[Records, list[Records]]:
    """Open records as ``open_records`` does; return all of them, in order, and those of each path.

    Adjacent tar shards of all paths are opened by one reader, which limits the number of open files.
    """
    check_columns(columns, "columns")
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    by_path: list[list[Records | Sequence[Shard]]] = []
    for path in listed:
        if is_remote(path):
            by_path.append([expand_remote_shards(str(path), cache)])
        else:
            by_path.append(_open_path(Path(path), images, columns, images_required))
    if not by_path:
        raise UserError("No record paths were given. List tar shards, folders of images or tables.")
    opened = list(chain.from_iterable(by_path))
    readers: list[Records] = []
    for is_shards, group in groupby(opened, lambda part: isinstance(part, Sequence)):
        adjacent = list(group)
        readers += [ShardReader(list(chain.from_iterable(adjacent)))] if is_shards else adjacent  # type: ignore[arg-type]
    records = _concat(readers)
    if not len(records):
        raise UserError(
            f"{join_first([str(path) for path in listed])}: the shards have no records. Create the shards again."
        )
    return records, _split(readers, by_path)


def _concat(readers: list[Records]) -> Records:
    return readers[0] if len(readers) == 1 else ConcatRecords(readers)


def _split(readers: Sequence[Records], by_path: Sequence[Sequence[Records | Sequence[Shard]]]) -> list[Records]:
    """Return the records of each path, given the readers of all paths, of which each reads all adjacent shards."""
    remaining, first = iter(readers), 0  # number of shards of the current reader that belong to former paths
    shards: ShardReader | None = None
    parts = []
    for opened in by_path:
        found: list[Records] = []
        for part in opened:
            if not isinstance(part, Sequence):
                found.append(next(remaining))
                shards = None
                continue
            if shards is None:
                shards, first = next(remaining), 0  # type: ignore[assignment]
            found.append(shards.select(slice(first, first + len(part))))  # type: ignore[union-attr]
            first += len(part)
        parts.append(_concat(found))
    return parts


def _open_path(
    path: Path, images: str | Path | None, columns: Mapping[str, Any] | None, images_required: bool
) -> list[Records | Sequence[Shard]]:
    """Open the records at a local path. Tar shards are returned unopened, so that their indexes are read only once."""
    if not path.exists() and (shards := find_shards(path)):
        return [shards]
    matches = [] if os.path.lexists(path) else sorted(map(Path, glob.glob(str(path))))
    parts: list[Records | Sequence[Shard]] = []
    for match in matches or [path]:
        kind, found = detect(match, columns)
        if kind == Kind.SHARDS:
            parts.append(found)
        elif kind == Kind.IMAGES:
            parts.append(ImageFolder(match))
        elif kind == Kind.TABLES:
            parts += [ImageList(file, images, columns, images_required) for file in found]
        else:
            root = None if images is None else Path(images)
            parts += [embedded_shards(file, columns, root, images_required, open_records) for file in found]
    return parts


def require_column(records: Records, role: str) -> None:
    """Raise UserError, with the line to write, if tables or folders lack a value that a dataset needs.

    Args:
        role: image, caption, label, id or split. Tar shards may have any.
    """
    for reader in split_readers(records):
        if isinstance(reader, ImageList | ImageFolder):
            reader.require(role)


def split_readers(records: Records) -> list[Records]:
    """Return the readers of concatenated records, or ``records`` itself as the only reader."""
    return records.readers if isinstance(records, ConcatRecords) else [records]


def record_groups(records: Records) -> Iterator[tuple[int, bool]]:
    """Yield each tar shard, and adjacent readers without shards together, as (number of records, whether a shard)."""
    for sharded, group in groupby(split_readers(records), lambda reader: isinstance(reader, ShardReader)):
        if sharded:
            for reader in group:
                yield from ((size, True) for size in reader.shard_lengths())  # type: ignore[attr-defined]
        else:
            yield sum(map(len, group)), False


def record_units(records: Records) -> list[Unit]:
    """Return the units in which records are shuffled: tar shards, or the entire records of adjacent other readers."""
    units: list[Unit] = []
    first = 0
    for size, sharded in record_groups(records):
        units += [Unit(first, 1, size)] if sharded else spread_units(size, first)
        first += size
    return units


def keep_lanes_open(records: Records, lanes: int, processes: int, name: str) -> None:
    """Prepare tar shards for reading from ``lanes`` lanes of an order at the same time. Call it before workers start.

    Args:
        processes: number of processes on this machine that read from other lanes.
        name: name of the dataset, for messages.

    Raises:
        UserError: the cache of remote shards is smaller than the shards that are read at the same time.
    """
    readers = [reader for reader in split_readers(records) if isinstance(reader, ShardReader)]
    opened = max((reader.keep_open(lanes) for reader in readers), default=0)
    remote = [shard for reader in readers for shard in reader.remote_shards()]
    limits = [path.cache.limit for path, _ in remote if path.cache.limit is not None]
    needed = sum(nlargest(processes * opened, (size for _, size in remote)))
    if limits and min(limits) < needed:
        raise UserError(
            f"dataset_config.{name}.cache_bytes: up to {min(processes * opened, len(remote)):,} remote shards are read "
            f"at the same time, which are {needed:,} bytes, but the cache is limited to {min(limits):,} bytes. "
            "Increase cache_bytes, or decrease training.lanes."
        )
    needed_files, allowed = raise_limit()
    if allowed < needed_files:
        logger.warning(
            "%s: reading from %s lanes needs %s open files, but at most %s are allowed. Shards are closed and opened "
            "again, which is slower. Raise the limit with `ulimit -n %s`, or decrease training.lanes.",
            *(name, f"{lanes:,}", f"{needed_files:,}", f"{allowed:,}", needed_files),
        )


def read_ahead(records: Records, indices: Iterable[int]) -> None:
    """Prepare for reading these records soon, see ``ShardReader.read_ahead``. Other readers do nothing."""
    for index in indices:
        reader, local_index = _locate(records, index)
        if isinstance(reader, ShardReader):
            reader.read_ahead(local_index)


def _locate(records: Records, index: int) -> tuple[Records, int]:
    return records.locate(index) if isinstance(records, ConcatRecords) else (records, index)


def estimate_text_bytes(records: Records, index: int) -> int:
    """Return the approximate size of a record's captions in bytes, without reading the record; 0 if unknown.

    In tar shards and folders, this is the size of the field ``txt`` or, if it is missing, of ``json``. In tables, it is
    the length of the row.
    """
    reader, local_index = _locate(records, index)
    if isinstance(reader, ImageList):
        return reader.line_bytes(local_index)
    if isinstance(reader, ImageFolder):
        return reader.text_bytes(local_index)
    if not isinstance(reader, ShardReader):
        return 0
    try:
        with record_boundary(f"record {index}"):
            _, checksums = reader.checksums(local_index, ("txt", "json"))
    except BadRecord:
        return 0
    return next((checksums[name][0] for name in ("txt", "json") if name in checksums), 0)
