"""The sidecar index of a tar shard: where every part of every record lies, in rows of one size.

``<shard>.tar.index`` beside ``<shard>.tar``:

    line 1   JSON: version, count, tar_bytes, tar_mtime_ns, data_start, dtype; padded with blanks to ``data_start``
    rows     key (bytes), then for each part of this shard: offset u64, size u64, crc32 u32 (offset 0 = no such part)

Row i is found by arithmetic in a memory map, so that opening 70 million records reads one header a shard.
"""

import json
import logging
import os
import tarfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index"
INDEX_VERSION = 1
PART_FIELDS = [("offset", "<u8"), ("size", "<u8"), ("crc32", "<u4")]


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


def write_index(path: str | Path) -> tuple[np.ndarray, bool]:
    """Scans the shard at ``path``, writes its sidecar atomically and returns what ``scan_shard`` does.

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
    target = path.with_name(path.name + INDEX_SUFFIX)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(line)
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        logger.warning("no index beside %s (%s): it is read anew at every start", path, error)
    return rows, cut


def read_index_header(path: Path) -> dict[str, Any] | None:
    """The index header of a shard, or None when there is no index or it is not the index of these bytes.

    An index is trusted when the tar has the size written in it and either the time written in it or an age not below
    the tar's (a copy changes times). Checksums guard the rest at every read.
    """
    try:
        tar, index = path.stat(), (path.parent / (path.name + INDEX_SUFFIX)).stat()
        with open(path.parent / (path.name + INDEX_SUFFIX), "rb") as file:
            header = json.loads(file.readline())
        same_time = header["tar_mtime_ns"] == tar.st_mtime_ns or index.st_mtime_ns > tar.st_mtime_ns
        rows = header["count"] * index_dtype(header).itemsize
        whole = index.st_size == header["data_start"] + rows
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    current = header["version"] == INDEX_VERSION and header["tar_bytes"] == tar.st_size
    return header if current and same_time and whole else None


def index_dtype(header: dict[str, Any]) -> np.dtype:
    """The row type of an index. Extensions are field names, so a row says which parts its shard knows."""
    key, *parts = header["dtype"]
    return np.dtype([(key[0], key[1]), *[(name, [tuple(field) for field in fields]) for name, fields in parts]])
