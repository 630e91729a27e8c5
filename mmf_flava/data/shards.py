"""Tar shards, read map-style: webdataset and img2dataset tars as they are, plus a sidecar index per shard.

A record is the run of tar members that share a key: ``000123.jpg`` + ``000123.json`` is the record ``000123`` with the
parts ``jpg`` and ``json`` (webdataset's convention). The index (``shard_index``) says where each part lies, so that a
record costs one row of a memory map and one ``pread`` a part.
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

MAX_OPEN_FILES = 128  # file descriptors a reader keeps; far below the usual limit of 1024 with several workers
MAX_OPEN_COPIES = 4  # the same of remote shards: what is open keeps its space in the cache
MAX_MAPPED_BYTES = 256 << 20  # of indexes; pages of a map that were read count as the process's memory


class ShardWriter:
    """Writes one tar shard and its index; nothing of that name exists until ``close`` has written all of it.

    Use it as a context manager: an exception inside leaves no shard behind. The bytes depend on the records alone
    (no time, no user name), so the same records give the same file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed by close or __exit__)
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, key: str, parts: dict[str, bytes]) -> None:
        """Appends one record. Keys must be unique in a shard and hold no dot after the last slash."""
        for extension, data in parts.items():
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
    """Random access to the records of many tar shards; ``reader[i]`` is record i in the order of the shards.

    Opening reads one short header a shard; rows are memory-mapped when asked for, and those that were not used for
    longest let go, so that memory grows with the number of shards only. Safe after fork and when pickled: reads use
    ``pread``, which moves no shared file position.

    A remote shard is fetched whole when a record of it is first read; a copy that was damaged is fetched once more.

    Raises:
        UserError: a shard does not exist or is no tar file, or its server cannot be reached.
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
        self._renewed: set[int] = set()
        for path, index in zip(self.paths, self._indexes, strict=True):
            limit = path.cache.limit if isinstance(path, RemoteShard) else None
            if limit is not None and index.tar_bytes > limit:
                raise UserError(
                    f"The cache of {limit:,} bytes cannot hold {path} of {index.tar_bytes:,} bytes: raise cache_bytes."
                )
            if index.cut:
                logger.warning("%s is cut short: its last record is bad, and those that followed are lost", path)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Record ``index``; with ``only``, just the parts of these extensions. Raises BadRecord on damaged bytes."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect_right(self._starts, index) - 1
        row = self._shard_rows(shard)[index - self._starts[shard]]
        key = row["key"].decode()
        parts = {}
        for extension in (row.dtype.names or ())[1:]:
            offset, size, checksum = row[extension].item()
            if offset and (only is None or extension in only):
                parts[extension] = self._bytes(shard, key, extension, offset, size, checksum)
        return Record(key, parts)

    def checksums(self, index: int, only: Sequence[str]) -> tuple[str, dict[str, tuple[int, int]]]:
        """(key, (size, CRC-32) of each part of the extensions ``only``) of a record; the shard is not read."""
        shard = bisect_right(self._starts, index) - 1
        row = self._shard_rows(shard)[index - self._starts[shard]]
        found = {name: row[name].item() for name in (row.dtype.names or ())[1:] if name in only}
        return row["key"].decode(), {name: (size, crc32) for name, (offset, size, crc32) in found.items() if offset}

    def shard_sizes(self) -> list[tuple[str, int]]:
        """(name, bytes) of each shard."""
        return [(path.name, index.tar_bytes) for path, index in zip(self.paths, self._indexes, strict=True)]

    def _bytes(self, shard: int, key: str, extension: str, offset: int, size: int, checksum: int) -> bytes:
        while True:
            try:
                data = os.pread(self._file(shard), size, offset)
            except (OSError, UserError) as error:  # UserError: a remote shard cannot be fetched
                raise BadRecord(Reason.VANISHED, f"{self.paths[shard]} cannot be read: {error}", key) from error
            if len(data) == size and zlib.crc32(data) == checksum:
                return data
            if not self._renew(shard):
                message = f"{self.paths[shard]}: bytes of {key}.{extension} differ from the index"
                raise BadRecord(Reason.CHANGED, message, key)

    def _renew(self, shard: int) -> bool:
        """Whether another copy of this shard may be read; of a remote one, once."""
        path = self.paths[shard]
        if not isinstance(path, RemoteShard) or shard in self._renewed:
            return False
        self._renewed.add(shard)
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
            place = self.paths[shard]
            path = index_path(place.local if isinstance(place, RemoteShard) else place)
            try:
                mapped = np.memmap(path, index.dtype, "r", index.start, shape=(index.count,))
            except (OSError, ValueError) as error:  # ValueError: the file has become shorter
                raise BadRecord(Reason.VANISHED, f"{path} cannot be opened: {error}") from error
            # A plain ndarray view: scalar access is several times faster than on np.memmap itself.
            rows = self._rows[shard] = mapped.view(np.ndarray)
            self._mapped += rows.nbytes
            while self._mapped > MAX_MAPPED_BYTES and len(self._rows) > 1:
                self._mapped -= self._rows.popitem(last=False)[1].nbytes
        else:
            self._rows.move_to_end(shard)
        return rows

    def _file(self, shard: int) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            while len(self._files) >= (MAX_OPEN_COPIES if self.remote else MAX_OPEN_FILES):
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


def shard_paths(path: str | Path) -> list[Path]:
    """The tar shards that ``path`` names: a tar file, a glob, braces, or a folder of tars. Empty when it names none.

    Raises:
        UserError: some of the names in braces name no shard.
    """
    path = Path(path)
    expanded = [] if path.exists() else expand_braces(str(path))
    if len(expanded) > 1:
        found = {name: shard_paths(name) for name in expanded}
        missing = [name for name, shards in found.items() if not shards]
        if missing:
            raise UserError(f"There is no shard at {missing[0]}, one of {len(missing)} missing of {path}: correct it.")
        return [shard for shards in found.values() for shard in shards]
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return [Path(found) for found in sorted(glob.glob(str(path))) if found.endswith(".tar")]
