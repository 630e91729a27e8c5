"""Sidecar index of a tar shard: the byte range and checksum of every field of every record.

``<shard>.tar.index``, next to ``<shard>.tar``:

    line 1   JSON: version, cut (whether the shard is truncated), count, tar_bytes, tar_mtime_ns, data_start, dtype;
             padded with spaces to ``data_start``
    rows     one per record: key (bytes), then for each extension: offset u64, size u64, crc32 u32 (offset 0: the record
             has no such field)

Rows have a fixed size and are memory-mapped, so opening 70 million records reads only one header per shard.
"""

import fcntl
import functools
import json
import logging
import os
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index"
INDEX_VERSION = 1
ENTRY_DTYPE = [("offset", "<u8"), ("size", "<u8"), ("crc32", "<u4")]


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Header of a shard's index. The rows remain on disk.

    Attributes:
        count: number of records.
        truncated: whether the shard is truncated.
        tar_bytes: size of the shard in bytes.
        data_start: byte offset of the rows in the index file.
        dtype: structured dtype of a row: ``key`` and one entry per extension in the shard.
        rows: the rows, if the index file could not be written; otherwise None.
    """

    count: int
    truncated: bool
    tar_bytes: int
    data_start: int
    dtype: np.dtype
    rows: np.ndarray | None = None


def index_path(shard: Path) -> Path:
    """Return the path of a shard's index."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def split_member_name(name: str) -> tuple[str, str]:
    """Split the name of a tar member into (key, extension) at the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def scan_shard(path: Path) -> tuple[np.ndarray, bool]:
    """Scan a tar file and return its index rows and whether it is truncated.

    Rows are in the order in which keys first appear. Of duplicate members, the first is used. If the shard is
    truncated within a field, the index contains the field's full size, so that reading the field raises an error.
    """
    records: OrderedDict[str, dict[str, tuple[int, int, int]]] = OrderedDict()
    truncated = False
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if not member.isfile():
                        continue
                    key, extension = split_member_name(member.name)
                    data = os.pread(file.fileno(), member.size, member.offset_data)
                    entries = records.setdefault(key, {})
                    if extension and extension not in entries:
                        entries[extension] = (member.offset_data, member.size, zlib.crc32(data))
        except tarfile.TarError as error:
            if not records:
                raise UserError(f"{path} is not a readable tar shard ({error}). Rebuild or remove it.") from error
            truncated = True
    extensions = sorted({extension for entries in records.values() for extension in entries})
    keys = [key.encode() for key in records]
    width = max([len(key) for key in keys], default=1)
    dtype = np.dtype([("key", f"S{width}"), *[(extension, ENTRY_DTYPE) for extension in extensions]])
    rows = np.zeros(len(keys), dtype)
    rows["key"] = keys
    for row, entries in zip(rows, records.values(), strict=True):
        for extension, entry in entries.items():
            row[extension] = entry
    return rows, truncated


def ensure_index(path: Path) -> ShardIndex:
    """Return the index of the shard at ``path``. If it is missing, exactly one of the calling processes builds it."""
    with _index_lock(path):
        return read_index(path) or write_index(path)


@contextmanager
def _index_lock(path: Path) -> Iterator[None]:
    """Lock a shard's index. On file systems without locks, every process scans the shard, which is slower."""
    lock = path.with_name(f".{path.name}{INDEX_SUFFIX}.lock")
    try:
        file = open(lock, "ab")  # noqa: SIM115 (closed below; some file systems only lock files that are open for writing)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        lock.unlink(missing_ok=True)  # waiting and new processes find the finished index
        file.close()


def write_index(path: str | Path) -> ShardIndex:
    """Scan the shard at ``path`` and write its index atomically.

    If the folder is not writable, the rows are kept in memory and a warning is logged.
    """
    path = Path(path)
    stat = path.stat()
    rows, truncated = scan_shard(path)
    header: dict[str, Any] = {
        "version": INDEX_VERSION,
        "cut": truncated,
        "count": len(rows),
        "tar_bytes": stat.st_size,
        "tar_mtime_ns": stat.st_mtime_ns,
        "dtype": [["key", rows.dtype["key"].str], *[[name, ENTRY_DTYPE] for name in (rows.dtype.names or ())[1:]]],
    }
    data_start = (len(json.dumps(header)) + 64 + 4095) // 4096 * 4096
    header_line = json.dumps({**header, "data_start": data_start}).encode().ljust(data_start - 1) + b"\n"
    target = index_path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    index = ShardIndex(len(rows), truncated, stat.st_size, data_start, rows.dtype)
    try:
        with open(temporary, "wb") as file:
            file.write(header_line)
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        logger.warning("%s: the index cannot be written (%s). It will be rebuilt at every start.", path, error)
        return replace(index, rows=rows)
    return index


def read_index(path: Path) -> ShardIndex | None:
    """Read the index of a local shard. Return None if it is missing, invalid or stale.

    An index is stale if its stored size of the tar file is wrong, or if its stored modification time is wrong and the
    tar file is newer than the index (copying files may change modification times). Checksums detect other changes when
    records are read.

    Raises:
        FileNotFoundError: the shard does not exist.
    """
    return load_index(path, path.stat())


def load_index(path: Path, tar: os.stat_result | None) -> ShardIndex | None:
    """Load the index of a shard. Return None if it is missing, invalid or stale.

    Args:
        tar: result of ``os.stat`` for the shard; None for remote shards, whose index is never stale.
    """
    try:
        with open(index_path(path), "rb") as file:
            header, stat = json.loads(file.readline()), os.fstat(file.fileno())
        index = ShardIndex(
            header["count"],
            header.get("cut", False),
            header["tar_bytes"],
            header["data_start"],
            _dtype(json.dumps(header["dtype"])),
        )
        complete = stat.st_size == index.data_start + index.count * index.dtype.itemsize
        if header["version"] != INDEX_VERSION or not complete:
            return None
        if tar is not None:
            same_time = header["tar_mtime_ns"] == tar.st_mtime_ns or stat.st_mtime_ns > tar.st_mtime_ns
            if index.tar_bytes != tar.st_size or not same_time:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index


@functools.lru_cache(maxsize=256)
def _dtype(text: str) -> np.dtype:
    """Return the row dtype of an index. Cached, because the shards of a dataset have the same dtype."""
    key, *entries = json.loads(text)
    return np.dtype([(key[0], key[1]), *[(name, [tuple(field) for field in fields]) for name, fields in entries]])
