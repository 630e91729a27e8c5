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
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.shard_index import INDEX_SUFFIX, index_dtype, read_index_header, write_index
from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

MAX_OPEN_FILES = 128  # file descriptors a reader keeps; far below the usual limit of 1024 with several workers


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

    Opening reads one short header a shard; rows are memory-mapped when first asked for. Safe after fork and when
    pickled: reads use ``pread``, which moves no shared file position.
    """

    sequential = True

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = [Path(path) for path in paths]
        self._headers: list[dict[str, Any] | None] = []
        self._rows: dict[int, np.ndarray] = {}
        self._files: OrderedDict[int, int] = OrderedDict()
        self._starts = [0]
        for shard, path in enumerate(self.paths):
            if not path.is_file():
                raise UserError(f"The shard {path} does not exist: correct the path or build the data again.")
            header = read_index_header(path)
            cut = header is not None and header.get("cut", False)
            if header is None:
                self._rows[shard], cut = write_index(path)
            if cut:
                logger.warning("%s is cut short: its last record is bad, and those that followed are lost", path)
            self._headers.append(header)
            self._starts.append(self._starts[-1] + (header["count"] if header else len(self._rows[shard])))

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
            if not offset or (only is not None and extension not in only):
                continue
            try:
                data = os.pread(self._file(shard), size, offset)
            except OSError as error:
                raise BadRecord(Reason.VANISHED, f"{self.paths[shard]} cannot be read: {error}", key) from error
            if len(data) != size or zlib.crc32(data) != checksum:
                message = f"{self.paths[shard]}: bytes of {key}.{extension} differ from the index"
                raise BadRecord(Reason.CHANGED, message, key)
            parts[extension] = data
        return Record(key, parts)

    def _shard_rows(self, shard: int) -> np.ndarray:
        if shard not in self._rows:
            header, path = self._headers[shard], self.paths[shard]
            assert header is not None
            dtype = index_dtype(header)
            if header["count"]:
                index_path = path.with_name(path.name + INDEX_SUFFIX)
                try:
                    rows = np.memmap(index_path, dtype, "r", header["data_start"], shape=(header["count"],))
                except (OSError, ValueError) as error:  # ValueError: the file has become shorter
                    raise BadRecord(Reason.VANISHED, f"{index_path} cannot be opened: {error}") from error
                # A plain ndarray view: scalar access is several times faster than on np.memmap itself.
                self._rows[shard] = rows.view(np.ndarray)
            else:
                self._rows[shard] = np.zeros(0, dtype)
        return self._rows[shard]

    def _file(self, shard: int) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            while len(self._files) >= MAX_OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            try:
                descriptor = os.open(self.paths[shard], os.O_RDONLY)
            except OSError as error:
                raise BadRecord(Reason.VANISHED, f"{self.paths[shard]} cannot be opened: {error}") from error
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
        kept = {shard: rows for shard, rows in self._rows.items() if self._headers[shard] is None}
        return {**self.__dict__, "_files": OrderedDict(), "_rows": kept}


def shard_paths(path: str | Path) -> list[Path]:
    """The tar shards that ``path`` names: a tar file, a glob, or a folder of tars. Empty when it names none."""
    path = Path(path)
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return [Path(found) for found in sorted(glob.glob(str(path))) if found.endswith(".tar")]
