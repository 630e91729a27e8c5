"""Sidecar index of a tar shard: the byte range and checksum of every field of every record.

``<shard>.tar.index``, next to ``<shard>.tar``, little-endian:

    header   ``Header``: magic and version, number of records, whether the shard is truncated, size and modification
             time of the tar file, bytes of all rows, CRC-32 of the header
    starts   count + 1 times u64: where each row starts and the last row ends, relative to the first row
    rows     CRC-32 of the row and its number, u32; number of fields n, u32; n times (offset u64, size u64, CRC-32 of
             the field u32); the record's key and the n extensions, separated by NUL

Opening 70 million records reads only one header per shard. Reading a record reads two starts and one row. The format is
not trusted: every number is checked before it is used, and a damaged row is an error of one record.
"""

import fcntl
import itertools
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mmf_flava.data.tar_members import Entry, TarRecords, scan_shard
from mmf_flava.files import atomic
from mmf_flava.files.regular_file import open_regular_file

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index"
INDEX_VERSION = 2
MAGIC = b"mmf_flava index\n"
HEADER = struct.Struct("<16sIIQQqQ")  # without its CRC-32
CHECKSUM = struct.Struct("<I")
STARTS_OFFSET = HEADER.size + CHECKSUM.size
START = struct.Struct("<Q")
START_AND_END = struct.Struct("<QQ")
ROW = struct.Struct("<II")
ENTRY = struct.Struct("<QQI")


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Header of a shard's index. The rows remain on disk.

    Attributes:
        count: number of records.
        truncated: whether the shard is truncated.
        tar_bytes: size of the shard in bytes.
        tar_mtime_ns: modification time of the shard.
        rows_bytes: size of all rows in bytes.
        content: the whole index, if the index file could not be written; otherwise None.
    """

    count: int
    truncated: bool
    tar_bytes: int
    tar_mtime_ns: int
    rows_bytes: int
    content: bytes | None = None

    @property
    def rows_offset(self) -> int:
        """Byte offset of the first row in the index file."""
        return STARTS_OFFSET + (self.count + 1) * START.size


def decode_row(row: bytes, number: int) -> tuple[str, dict[str, Entry]]:
    """Return the key and extension -> byte range of the fields in the row of record ``number``.

    Raises:
        ValueError: the row is damaged.
    """
    try:
        checksum, count = ROW.unpack_from(row)
        if zlib.crc32(row[CHECKSUM.size :], number & 0xFFFFFFFF) != checksum:
            raise ValueError
        names_offset = ROW.size + count * ENTRY.size
        key, *extensions = str(row[names_offset:], "utf-8", "surrogateescape").split("\0")
        if len(extensions) != count:
            raise ValueError
        entries, offset = {}, ROW.size
        for extension in extensions:  # faster than iter_unpack, because most rows have two or three fields
            entries[extension] = ENTRY.unpack_from(row, offset)
            offset += ENTRY.size
        return key, entries
    except (ValueError, struct.error):
        raise ValueError(f"record {number} is damaged") from None


def _encode_row(key: str, entries: dict[str, Entry], number: int) -> bytes:
    fields = b"".join(itertools.starmap(ENTRY.pack, entries.values()))
    names = "\0".join((key, *entries)).encode("utf-8", "surrogateescape")
    row = CHECKSUM.pack(len(entries)) + fields + names
    return CHECKSUM.pack(zlib.crc32(row, number & 0xFFFFFFFF)) + row


def encode_index(records: TarRecords, truncated: bool, tar_bytes: int, tar_mtime_ns: int) -> bytes:
    """Return the content of an index file."""
    rows = [_encode_row(key, entries, number) for number, (key, entries) in enumerate(records.items())]
    ends = list(itertools.accumulate(map(len, rows), initial=0))
    header = HEADER.pack(MAGIC, INDEX_VERSION, truncated, len(rows), tar_bytes, tar_mtime_ns, ends[-1])
    return b"".join((header, CHECKSUM.pack(zlib.crc32(header)), struct.pack(f"<{len(ends)}Q", *ends), *rows))


def index_path(shard: Path) -> Path:
    """Return the path of a shard's index."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def ensure_index(path: Path, stale: bool = True) -> ShardIndex:
    """Return the index of the shard at ``path``. If it is missing, exactly one of the calling processes builds it.

    Args:
        stale: whether the index may be stale. The copy of a remote shard has the time of its last use.
    """
    return ensure_records(path, stale)[0]


def ensure_records(path: Path, stale: bool = True) -> tuple[ShardIndex, TarRecords | None]:
    """Return the index as ``ensure_index`` does, and the records if this call has scanned the shard, otherwise None.

    The rows of a new index need not be read again, which takes a tenth of the time of the scan.
    """
    with _index_lock(path):
        index = load_index(path, path.stat() if stale else None)
        return (index, None) if index is not None else _scan_and_write(path)


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


def write_index(path: str | Path, records: TarRecords | None = None) -> ShardIndex:
    """Write the index of the shard at ``path`` atomically.

    If the folder is not writable, the index is kept in memory and a warning is logged.

    Args:
        records: the records of the shard, which is complete; None: the shard is scanned.
    """
    path = Path(path)
    return _scan_and_write(path)[0] if records is None else _write(path, path.stat(), records, truncated=False)


def _scan_and_write(path: Path) -> tuple[ShardIndex, TarRecords]:
    stat = path.stat()  # a shard that changes during the scan is newer
    records, truncated = scan_shard(path)
    return _write(path, stat, records, truncated), records


def _write(path: Path, stat: os.stat_result, records: TarRecords, truncated: bool) -> ShardIndex:
    content = encode_index(records, truncated, stat.st_size, stat.st_mtime_ns)
    index = parse_header(content[:STARTS_OFFSET])
    assert index is not None
    try:
        target = index_path(path)
        if target.exists() and not target.is_file():  # writing to a pipe would wait for its reader
            raise OSError(f"{target} is not a regular file")
        atomic.write_bytes(target, content)
    except OSError as error:
        if not path.exists():  # its folder was deleted meanwhile
            raise
        logger.warning("%s: the index cannot be written (%s). It will be rebuilt at every start.", path, error)
        return replace(index, content=content)
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
        with open_regular_file(index_path(path), buffering=0) as file:
            index, stat = parse_header(file.read(STARTS_OFFSET)), os.fstat(file.fileno())
    except OSError:
        return None
    if index is None or stat.st_size != index.rows_offset + index.rows_bytes:
        return None
    if tar is not None:
        same_time = index.tar_mtime_ns == tar.st_mtime_ns or stat.st_mtime_ns > tar.st_mtime_ns
        if index.tar_bytes != tar.st_size or not same_time:
            return None
    return index


def parse_header(data: bytes) -> ShardIndex | None:
    """Parse the header of an index file. Return None if it is invalid or has another version."""
    if len(data) != STARTS_OFFSET or zlib.crc32(data[: HEADER.size]) != CHECKSUM.unpack_from(data, HEADER.size)[0]:
        return None
    magic, version, truncated, count, tar_bytes, tar_mtime_ns, rows_bytes = HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, INDEX_VERSION):
        return None
    return ShardIndex(count, bool(truncated), tar_bytes, tar_mtime_ns, rows_bytes)
