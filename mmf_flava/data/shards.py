"""Tar shards with random access through a sidecar index. Reads tar files of webdataset and img2dataset.

A record is the set of tar members with the same key: ``000123.jpg`` and ``000123.json`` are the record ``000123`` with
the fields ``jpg`` and ``json`` (webdataset's convention). The index (``shard_index``) stores the byte range of each
field, so reading a record requires one row of the index and one ``pread`` per field. Files are not memory-mapped,
because a process that accesses the map of a truncated file is killed.
"""

import glob
import logging
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path

from mmf_flava.data.braces import expand_braces
from mmf_flava.data.indexing import Shard, open_indexes
from mmf_flava.data.names import display_name, extension_of, is_hidden
from mmf_flava.data.open_shard import OpenShard
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.remote_shard import RemoteShard
from mmf_flava.data.shard_index import ShardIndex, index_path
from mmf_flava.data.tar_members import Entry
from mmf_flava.errors import UserError
from mmf_flava.files.open_files import OpenFiles, open_file

logger = logging.getLogger(__name__)

# open shards of a reader, each with its index; more in a process that reads from several lanes, see ``keep_open``
MAX_OPEN_SHARDS = 128
MAX_OPEN_REMOTE_SHARDS = 4  # the cache cannot evict open copies of remote shards
MAX_ATTEMPTS = 3  # to read a field: from the local copy, and after each of two downloads
SEQUENTIAL_RECORDS = 64  # records of a remote shard that are downloaded in advance if records are read in order
SPARE_SHARDS = 16  # open shards beyond one per lane: shards of replaced records and of mismatched captions


class ShardReader:
    """Random access to the records of many tar shards. ``reader[i]`` is record i in the order of the shards.

    Opening a reader loads one header per shard, and index rows remain on disk, so memory use depends on the number of
    shards, not on the number of records. Shards and indexes are opened on first access, and the least recently used
    shards are closed. Readers can be pickled, and used after a fork: ``pread`` does not change the file position that
    processes share.

    The records of a remote shard are downloaded when they are read, one request each, or in advance (``read_ahead``). A
    record that does not match its checksums is downloaded a second time. If the server does not send parts of a file,
    the shard is downloaded completely; if this copy is corrupt, a second time.

    Args:
        indexes: the index of each shard; None: they are opened.

    Raises:
        UserError: a shard does not exist or is not a tar file, or its server cannot be reached.
    """

    sequential = True

    def __init__(self, paths: Sequence[str | Shard], indexes: list[ShardIndex] | None = None):
        self.paths = [path if isinstance(path, RemoteShard) else Path(path) for path in paths]
        self.remote = any(isinstance(path, RemoteShard) for path in self.paths)
        self._indexes = open_indexes(self.paths) if indexes is None else indexes
        self._starts = [0, *accumulate(index.count for index in self._indexes)]
        most = min(MAX_OPEN_REMOTE_SHARDS if self.remote else MAX_OPEN_SHARDS, len(self.paths))
        self._open_shards: OpenFiles[OpenShard] = OpenFiles(most, OpenShard.DESCRIPTORS)
        self._redownloaded: set[int] = set()
        self._looks_ahead, self._last_read, self._prepared = False, -2, 0  # see ``_prepare_next``
        for path, index in zip(self.paths, self._indexes, strict=True):
            limit = path.cache.limit if isinstance(path, RemoteShard) else None
            if limit is not None and index.tar_bytes > limit:
                raise UserError(
                    f"{path}: the shard has {index.tar_bytes:,} bytes, more than the cache limit of {limit:,} bytes. "
                    "Increase cache_bytes."
                )
            if index.truncated and indexes is None:
                logger.warning(
                    "%s is truncated or damaged: its last record may be incomplete, and any records after the damage "
                    "are missing. Download or rebuild the shard.",
                    path,
                )

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the bytes cannot be read or do not match their checksum.
        """
        shard, key, entries = self._read_row(index)
        entries = {name: entry for name, entry in entries.items() if only is None or name in only}
        if self.remote and not self._looks_ahead:
            self._prepare_next(shard, index, only)
        opened, fields = self._open(shard), {}
        for extension in entries:
            fields[extension] = self._read_field(shard, opened, key, extension, entries)
        return Record(key, fields)

    def read_ahead(self, index: int) -> None:
        """Prepare for reading record ``index`` soon: download it in the background, or let the system read it.

        Errors are ignored, because reading the record raises them again.
        """
        self._looks_ahead = True
        self._prepare(index)

    def _prepare(self, index: int, only: Sequence[str] | None = None) -> None:
        shard = bisect_right(self._starts, index) - 1
        path, opened = self.paths[shard], self._open_shards.get(shard)
        if isinstance(path, RemoteShard):
            ahead = opened or self._build(shard)  # keeping another shard open would close one that is being read
            with suppress(BadRecord, UserError):
                _, _, entries = self._read_row(index, ahead)
                wanted = [entry for name, entry in entries.items() if only is None or name in only]
                path.fetch_later(wanted, self._indexes[shard].tar_bytes)
            if opened is None:
                ahead.close()
        elif opened is not None:  # opening another shard only for the hint would be slow on network file systems
            with suppress(BadRecord, UserError):
                for offset, size, _ in self._read_row(index, opened)[2].values():
                    opened.will_need(offset, size)

    def _prepare_next(self, shard: int, index: int, only: Sequence[str] | None) -> None:
        """Prepare for reading the next records of a shard, if the last two reads were of consecutive records.

        This is for commands that read all records in order and do not call ``read_ahead``.
        """
        sequential, self._last_read = index == self._last_read + 1, index
        self._prepared = max(self._prepared, index + 1) if sequential else 0
        end = min(index + 1 + SEQUENTIAL_RECORDS, self._starts[shard + 1]) if sequential else 0
        for following in range(self._prepared, end):
            self._prepare(following, only)
        self._prepared = max(self._prepared, end)

    def checksums(self, index: int, only: Sequence[str]) -> tuple[str, dict[str, tuple[int, int]]]:
        """Return a record's key and the (size, CRC-32) of its fields in ``only``, without reading the shard."""
        _, key, entries = self._read_row(index)
        return key, {name: (size, crc32) for name, (_, size, crc32) in entries.items() if name in only}

    def select(self, shards: slice) -> "ShardReader":
        """Return a reader of some of the shards, which keeps one shard open. Their indexes are not read again."""
        reader = ShardReader(self.paths[shards], self._indexes[shards])
        reader._open_shards.capacity = 1
        return reader

    def shard_sizes(self) -> list[tuple[str, int]]:
        """Return the (file name, size in bytes) of each shard."""
        return [(path.name, index.tar_bytes) for path, index in zip(self.paths, self._indexes, strict=True)]

    def shard_lengths(self) -> list[int]:
        """Return the number of records of each shard."""
        return [index.count for index in self._indexes]

    def remote_shards(self) -> list[tuple[RemoteShard, int]]:
        """Return the remote shards and their sizes in bytes."""
        shards = zip(self.paths, self._indexes, strict=True)
        return [(path, index.tar_bytes) for path, index in shards if isinstance(path, RemoteShard)]

    def keep_open(self, lanes: int) -> int:
        """Keep as many shards open as ``lanes`` lanes of an order read at the same time. Call it before workers start.

        Returns:
            The maximum number of open shards.
        """
        spare = MAX_OPEN_REMOTE_SHARDS if self.remote else SPARE_SHARDS
        self._open_shards.capacity = min(lanes + spare, len(self.paths))
        return self._open_shards.capacity

    def _read_row(self, index: int, opened: OpenShard | None = None) -> tuple[int, str, dict[str, Entry]]:
        """Return the shard of record ``index``, the record's key and the byte ranges of its fields."""
        if not 0 <= index < self._starts[-1]:
            raise IndexError(f"record index {index} is out of range for {len(self)} records")
        shard = bisect_right(self._starts, index) - 1
        try:
            key, entries = (opened or self._open(shard)).read_row(index - self._starts[shard])
        except OSError as error:
            path = index_path(self._local_path(shard))
            raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}") from error
        except UserError:
            raise
        except ValueError as error:
            path = index_path(self._local_path(shard))
            raise BadRecord(Reason.CHANGED, f"{path}: {error}. Delete the file, so that it is built again.") from error
        return shard, display_name(key), entries

    def _read_field(
        self, shard: int, opened: OpenShard, key: str, extension: str, entries: Mapping[str, Entry]
    ) -> bytes:
        """Return a field of a record. If it is missing in the local copy, all ``entries`` are downloaded together."""
        offset, size, checksum = entries[extension]
        for attempt in range(MAX_ATTEMPTS):
            try:
                data = opened.read(offset, size)
                if data is not None and len(data) == size and zlib.crc32(data) == checksum:
                    return data
                if attempt == MAX_ATTEMPTS - 1 or not self._fetch(shard, opened, list(entries.values())):
                    break
            except (OSError, UserError) as error:  # UserError: a remote shard cannot be downloaded
                raise BadRecord(Reason.VANISHED, f"{self.paths[shard]} cannot be read: {error}", key) from error
        message = f"{self.paths[shard]}: {key}.{extension} does not match its checksum in the index"
        raise BadRecord(Reason.CHANGED, message, key)

    def _fetch(self, shard: int, opened: OpenShard, entries: Sequence[Entry]) -> bool:
        """Download the missing fields of a record. Return False if the server has no other bytes.

        Raises:
            UserError: the download fails.
        """
        path, size = self.paths[shard], self._indexes[shard].tar_bytes
        if not isinstance(path, RemoteShard):
            return False
        if not path.fetch(entries, size) and path.is_complete(opened.descriptor):
            if shard in self._redownloaded:
                return False
            self._redownloaded.add(shard)
            path.discard(opened.descriptor)
            path.download(size)
        opened.close_tar()  # the next read opens the copy that is used now
        return True

    def _local_path(self, shard: int) -> Path:
        path = self.paths[shard]
        return path.local_path if isinstance(path, RemoteShard) else path

    def _open(self, shard: int) -> OpenShard:
        opened = self._open_shards.get(shard)
        if opened is None:
            opened = self._build(shard)
            self._open_shards.add(shard, opened)
        return opened

    def _build(self, shard: int) -> OpenShard:
        path, local = self.paths[shard], self._local_path(shard)
        open_tar = path.open if isinstance(path, RemoteShard) else partial(open_file, local)
        return OpenShard(local, self._indexes[shard], open_tar)

    def close(self) -> None:
        self._open_shards.close()


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
    found = path.iterdir() if path.is_dir() else [path] if path.is_file() else map(Path, glob.glob(str(path)))
    return sorted(file for file in found if extension_of(file.name) == "tar" and not is_hidden(file.name))
