"""The open files of one tar shard."""

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from mmf_flava.data.shard_index import (
    INDEX_SUFFIX,
    START,
    START_AND_END,
    STARTS_OFFSET,
    ShardIndex,
    decode_row,
    parse_header,
)
from mmf_flava.data.tar_members import Entry
from mmf_flava.files.open_files import open_file

# A process that reads a whole shard keeps the starts of its rows in memory, 4 bytes per record. A process that reads a
# few of its records does not, because reading all starts takes longer than reading a few of them.
READS_BEFORE_STARTS = 16
MAX_STARTS = 1 << 16  # per open shard
MEMORY_START = struct.Struct("<I")
MEMORY_START_AND_END = struct.Struct("<II")


class OpenShard:
    """The index and the tar file of a shard, each opened at the first access.

    Args:
        path: local path of the shard.
        index: the header of its index.
        open_tar: function that opens the tar file and returns its descriptor, or -1 if there is no local copy yet.
    """

    DESCRIPTORS = 2

    def __init__(self, path: Path, index: ShardIndex, open_tar: Callable[[], int]):
        self.path, self.index = path, index
        self._open_tar, self._rows_offset = open_tar, index.rows_offset
        self._index_descriptor, self.descriptor, self._tar_bytes = -1, -1, 0
        self._starts: bytes | None = None
        self._reads = 0

    def read_row(self, number: int) -> tuple[str, dict[str, Entry]]:
        """Return the key of record ``number`` and extension -> byte range of its fields.

        Raises:
            OSError: the index cannot be read.
            ValueError: the row is damaged, or the index was replaced.
        """
        if self._starts is None:
            start, end = self._read_bounds(number)
        else:
            start, end = MEMORY_START_AND_END.unpack_from(self._starts, number * MEMORY_START.size)
        if not start <= end <= self.index.rows_bytes:
            raise ValueError(f"record {number} is damaged")
        return decode_row(self._read_index(self._rows_offset + start, end - start), number)

    def _read_bounds(self, number: int) -> tuple[int, int]:
        """Return the start and the end of a row, relative to the first row."""
        if self._reads == READS_BEFORE_STARTS and self.index.count < MAX_STARTS and self.index.rows_bytes < 1 << 32:
            size = (self.index.count + 1) * START.size
            if len(starts := self._read_index(STARTS_OFFSET, size)) == size:
                # a damaged start is out of range before and after, and costs only its own records
                self._starts = np.frombuffer(starts, "<u8").clip(max=(1 << 32) - 1).astype("<u4").tobytes()
        self._reads += 1
        data = self._read_index(STARTS_OFFSET + number * START.size, START_AND_END.size)
        if len(data) != START_AND_END.size:
            raise ValueError("the index is truncated")
        return START_AND_END.unpack(data)

    def _read_index(self, offset: int, size: int) -> bytes:
        if self._index_descriptor < 0:
            if self.index.content is not None:
                return self.index.content[offset : offset + size]
            descriptor = open_file(f"{self.path}{INDEX_SUFFIX}")  # faster than index_path
            if parse_header(os.pread(descriptor, STARTS_OFFSET, 0)) != self.index:
                os.close(descriptor)
                raise ValueError("the index was replaced after it had been opened")
            self._index_descriptor = descriptor
        return os.pread(self._index_descriptor, size, offset)

    def read(self, offset: int, size: int) -> bytes | None:
        """Return ``size`` bytes of the tar file; fewer or None if the file ends before, or there is no local copy.

        Raises:
            OSError: the file cannot be read.
        """
        if self.descriptor < 0:
            self.descriptor, self._tar_bytes = self._open_tar(), 0
        if self.descriptor < 0:
            return None
        # memory of the size is allocated before it is read, so the size is compared with the file first
        if offset + size > self._tar_bytes:
            self._tar_bytes = os.fstat(self.descriptor).st_size  # sparse copies grow
        return os.pread(self.descriptor, size, offset) if not size or offset + size <= self._tar_bytes else None

    def will_need(self, offset: int, size: int) -> None:
        """Let the system read ``size`` bytes of the tar file in advance, if it is open. Errors are ignored."""
        if self.descriptor >= 0:
            with suppress(OSError, OverflowError):
                os.posix_fadvise(self.descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        self.close_tar()
        if self._index_descriptor >= 0:
            os.close(self._index_descriptor)
            self._index_descriptor = -1

    def close_tar(self) -> None:
        """Close the tar file. The next read opens it again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
