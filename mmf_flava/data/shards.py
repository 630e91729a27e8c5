"""Tar shards with random access through a sidecar index. Reads tar files of webdataset and img2dataset.

A record is the set of tar members with the same key: ``000123.jpg`` and ``000123.json`` are the record ``000123`` with
the fields ``jpg`` and ``json`` (webdataset's convention). The index (``shard_index``) stores the byte range of each
field, so reading a record requires one memory-mapped row and one ``pread`` per field.
"""

import glob
import io
import logging
import os
import tarfile
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.data.braces import expand_braces
from mmf_flava.data.indexing import Shard, open_indexes
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.remote_shard import RemoteShard
from mmf_flava.data.shard_index import index_path, write_index
from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

MAX_OPEN_FILES = 128  # per reader; several readers stay below the usual limit of 1024 file descriptors per process
MAX_OPEN_REMOTE_SHARDS = 4  # per reader; the cache cannot evict open copies of remote shards
MAX_MAPPED_BYTES = 256 << 20  # memory-mapped index rows per reader; they count towards the process's memory


class ShardWriter:
    """Context manager that writes one tar shard and its index atomically.

    The file gets its final name when it is complete and is deleted after an exception. It contains no timestamps or
    user names, so equal records give identical files.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed by close or __exit__)
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, key: str, fields: dict[str, bytes]) -> None:
        """Append one record. Keys must be unique in a shard and must not contain a dot after the last slash."""
        for extension, data in fields.items():
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        self.count += 1

    def close(self) -> None:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)
        write_index(self.path)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


class ShardReader:
    """Random access to the records of many tar shards. ``reader[i]`` is record i in the order of the shards.

    Opening a reader loads one header per shard. Index rows are memory-mapped on first access, and the least recently
    used maps are closed, so memory use depends on the number of shards, not on the number of records. Readers can be
    pickled, and used after a fork: ``pread`` does not change the file position that processes share.

    A remote shard is downloaded completely on first access. If the copy is corrupt, it is downloaded a second time.

    Raises:
        UserError: a shard does not exist or is not a tar file, or its server cannot be reached.
    """

    sequential = True

    def __init__(self, paths: Sequence[str | Shard]):
        self.paths = [path if isinstance(path, RemoteShard) else Path(path) for path in paths]
        self.remote = any(isinstance(path, RemoteShard) for path in self.paths)
        self._indexes = open_indexes(self.paths)
        self._starts = [0, *accumulate(index.count for index in self._indexes)]
        self._rows: OrderedDict[int, np.ndarray] = OrderedDict()
        self._mapped = 0
        self._files: OrderedDict[int, int] = OrderedDict()
        self._redownloaded: set[int] = set()
        for path, index in zip(self.paths, self._indexes, strict=True):
            limit = path.cache.limit if isinstance(path, RemoteShard) else None
            if limit is not None and index.tar_bytes > limit:
                raise UserError(
                    f"{path}: the shard has {index.tar_bytes:,} bytes, more than the cache limit of {limit:,} bytes. "
                    "Increase cache_bytes."
                )
            if index.truncated:
                logger.warning("%s is truncated: its last record is corrupt. Download or rebuild the shard.", path)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the bytes cannot be read or do not match their checksum.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record index {index} is out of range for {len(self)} records")
        shard = bisect_right(self._starts, index) - 1
        row = self._shard_rows(shard)[index - self._starts[shard]]
        key = row["key"].decode()
        fields = {}
        for extension in (row.dtype.names or ())[1:]:
            offset, size, checksum = row[extension].item()
            if offset and (only is None or extension in only):
                fields[extension] = self._read_field(shard, key, extension, offset, size, checksum)
        return Record(key, fields)

    def checksums(self, index: int, only: Sequence[str]) -> tuple[str, dict[str, tuple[int, int]]]:
        """Return a record's key and the (size, CRC-32) of its fields in ``only``, without reading the shard."""
        shard = bisect_right(self._starts, index) - 1
        row = self._shard_rows(shard)[index - self._starts[shard]]
        entries = {name: row[name].item() for name in (row.dtype.names or ())[1:] if name in only}
        return row["key"].decode(), {name: (size, crc32) for name, (offset, size, crc32) in entries.items() if offset}

    def shard_sizes(self) -> list[tuple[str, int]]:
        """Return the (file name, size in bytes) of each shard."""
        return [(path.name, index.tar_bytes) for path, index in zip(self.paths, self._indexes, strict=True)]

    def _read_field(self, shard: int, key: str, extension: str, offset: int, size: int, checksum: int) -> bytes:
        while True:
            try:
                data = os.pread(self._descriptor(shard), size, offset)
            except (OSError, UserError) as error:  # UserError: a remote shard cannot be downloaded
                raise BadRecord(Reason.VANISHED, f"{self.paths[shard]} cannot be read: {error}", key) from error
            if len(data) == size and zlib.crc32(data) == checksum:
                return data
            if not self._discard_copy(shard):
                message = f"{self.paths[shard]}: {key}.{extension} does not match its checksum in the index"
                raise BadRecord(Reason.CHANGED, message, key)

    def _discard_copy(self, shard: int) -> bool:
        """Delete the corrupt copy of a remote shard, once per shard. Return whether it was deleted."""
        path = self.paths[shard]
        if not isinstance(path, RemoteShard) or shard in self._redownloaded:
            return False
        self._redownloaded.add(shard)
        descriptor = self._files.pop(shard)
        path.discard(descriptor)
        os.close(descriptor)
        return True

    def _shard_rows(self, shard: int) -> np.ndarray:
        index = self._indexes[shard]
        if index.rows is not None:
            return index.rows
        rows = self._rows.get(shard)
        if rows is None:
            source = self.paths[shard]
            path = index_path(source.local_path if isinstance(source, RemoteShard) else source)
            try:
                mapped = np.memmap(path, index.dtype, "r", index.data_start, shape=(index.count,))
            except (OSError, ValueError) as error:  # ValueError: the file is too short
                raise BadRecord(Reason.VANISHED, f"{path} cannot be opened: {error}") from error
            # Scalar access is several times faster on a plain ndarray view than on np.memmap.
            rows = self._rows[shard] = mapped.view(np.ndarray)
            self._mapped += rows.nbytes
            while self._mapped > MAX_MAPPED_BYTES and len(self._rows) > 1:
                self._mapped -= self._rows.popitem(last=False)[1].nbytes
        else:
            self._rows.move_to_end(shard)
        return rows

    def _descriptor(self, shard: int) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            while len(self._files) >= (MAX_OPEN_REMOTE_SHARDS if self.remote else MAX_OPEN_FILES):
                os.close(self._files.popitem(last=False)[1])
            path = self.paths[shard]
            if isinstance(path, RemoteShard):
                descriptor = path.open(self._indexes[shard].tar_bytes)
            else:
                descriptor = os.open(path, os.O_RDONLY)
            self._files[shard] = descriptor
        else:
            self._files.move_to_end(shard)
        return descriptor

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict(), "_rows": OrderedDict(), "_mapped": 0}


def find_shards(path: str | Path) -> list[Path]:
    """Return the tar shards at ``path``: a tar file, a folder of tar files, a glob or braces. The list may be empty.

    Raises:
        UserError: a path that the braces expand to has no shards.
    """
    path = Path(path)
    expanded = [] if path.exists() else expand_braces(str(path))
    if len(expanded) > 1:
        by_name = {name: find_shards(name) for name in expanded}
        missing = [name for name, shards in by_name.items() if not shards]
        if missing:
            raise UserError(
                f"{path}: {len(missing)} shards were not found, for example {missing[0]}. Correct the braces."
            )
        return [shard for shards in by_name.values() for shard in shards]
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return [Path(name) for name in sorted(glob.glob(str(path))) if name.endswith(".tar")]
