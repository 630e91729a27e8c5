"""The sidecar index of a tar shard: where every part of every record lies, in rows of one size.

``<shard>.tar.index`` beside ``<shard>.tar``:

    line 1   JSON: version, count, tar_bytes, tar_mtime_ns, data_start, dtype; padded with blanks to ``data_start``
    rows     key (bytes), then for each part of this shard: offset u64, size u64, crc32 u32 (offset 0 = no such part)

Row i is found by arithmetic in a memory map, so that opening 70 million records reads one header a shard.
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
PART_FIELDS = [("offset", "<u8"), ("size", "<u8"), ("crc32", "<u4")]


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """One shard's index as it is held when open; its rows stay on disk.

    cut: whether the shard is cut short. tar_bytes: size of the shard. start: byte of the index file at which the rows
    begin. dtype: of a row; extensions are field names, so a row says which parts its shard knows. rows: only of an
    index that could not be written.
    """

    count: int
    cut: bool
    tar_bytes: int
    start: int
    dtype: np.dtype
    rows: np.ndarray | None = None


def index_path(shard: Path) -> Path:
    """Where the index of a shard lies."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def split_member_name(name: str) -> tuple[str, str]:
    """("key", "extension") of a tar member: the name is cut at the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def scan_shard(path: Path) -> tuple[np.ndarray, bool]:
    """Reads a tar once: its index rows, in the order in which keys first appear, and whether it is cut short.

    Of a member that comes twice the first counts. The part in which a shard is cut has its full size in the index, so
    that reading it fails.
    """
    found: OrderedDict[str, dict[str, tuple[int, int, int]]] = OrderedDict()
    cut = False
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if not member.isfile():
                        continue
                    key, extension = split_member_name(member.name)
                    data = os.pread(file.fileno(), member.size, member.offset_data)
                    parts = found.setdefault(key, {})
                    if extension and extension not in parts:
                        parts[extension] = (member.offset_data, member.size, zlib.crc32(data))
        except tarfile.TarError as error:
            if not found:
                raise UserError(
                    f"{path} is not a readable tar shard ({error}): make it again or leave it out."
                ) from error
            cut = True
    extensions = sorted({extension for parts in found.values() for extension in parts})
    keys = [key.encode() for key in found]
    width = max([len(key) for key in keys], default=1)
    dtype = np.dtype([("key", f"S{width}"), *[(extension, PART_FIELDS) for extension in extensions]])
    rows = np.zeros(len(keys), dtype)
    rows["key"] = keys
    for row, parts in zip(rows, found.values(), strict=True):
        for extension, place in parts.items():
            row[extension] = place
    return rows, cut


def ensure_index(path: Path) -> ShardIndex:
    """The index of the shard at ``path``, which is scanned where there is none; of several processes by one."""
    with _alone(path):
        return read_index(path) or write_index(path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits for another process at the same shard. Where files cannot be locked, each one scans: slow but harmless."""
    lock = path.with_name(f".{path.name}{INDEX_SUFFIX}.lock")
    try:
        file = open(lock, "ab")  # noqa: SIM115 (closed below; some file systems lock only files open for writing)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        lock.unlink(missing_ok=True)  # those who wait for it, or make another one, find the index there
        file.close()


def write_index(path: str | Path) -> ShardIndex:
    """Scans the shard at ``path`` and writes its sidecar atomically.

    A folder that cannot be written to costs only time: the rows are then kept in memory, and a warning says so.
    """
    path = Path(path)
    stat = path.stat()
    rows, cut = scan_shard(path)
    header: dict[str, Any] = {
        "version": INDEX_VERSION,
        "cut": cut,
        "count": len(rows),
        "tar_bytes": stat.st_size,
        "tar_mtime_ns": stat.st_mtime_ns,
        "dtype": [["key", rows.dtype["key"].str], *[[name, PART_FIELDS] for name in (rows.dtype.names or ())[1:]]],
    }
    start = (len(json.dumps(header)) + 64 + 4095) // 4096 * 4096
    line = json.dumps({**header, "data_start": start}).encode().ljust(start - 1) + b"\n"
    target = index_path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    index = ShardIndex(len(rows), cut, stat.st_size, start, rows.dtype)
    try:
        with open(temporary, "wb") as file:
            file.write(line)
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        logger.warning("no index beside %s (%s): it is read anew at every start", path, error)
        return replace(index, rows=rows)
    return index


def read_index(path: Path) -> ShardIndex | None:
    """The index of a shard, or None when there is none or it is not the index of these bytes.

    An index is trusted when the tar has the size written in it and either the time written in it or an age not below
    the tar's (a copy changes times). Checksums guard the rest at every read.

    Raises:
        FileNotFoundError: there is no such shard.
    """
    return load_index(path, path.stat())


def load_index(path: Path, tar: os.stat_result | None) -> ShardIndex | None:
    """``read_index`` of a shard whose ``tar`` was looked at, or lies elsewhere and must be as it was: None."""
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
        whole = stat.st_size == index.start + index.count * index.dtype.itemsize
        if header["version"] != INDEX_VERSION or not whole:
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
    """The row type of an index; shards of one corpus share it."""
    key, *parts = json.loads(text)
    return np.dtype([(key[0], key[1]), *[(name, [tuple(field) for field in fields]) for name, fields in parts]])
