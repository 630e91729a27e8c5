"""Random access to a file by many processes. Reads and writes do not change the file position, which they may share."""

import os
from pathlib import Path
from typing import Any

from mmf_flava.files.open_files import open_file


class RandomAccessFile:
    """A file that is opened at the first read. It can be used after a fork, and pickled.

    The file is read, not memory-mapped: a mapped file that is truncated ends the process. Reads do not change the file
    position, which processes share after a fork.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def read(self, start: int, size: int) -> bytes:
        """Return ``size`` bytes from byte ``start`` on; fewer at the end of the file.

        Raises:
            OSError: the file cannot be read.
        """
        if self._descriptor is None:
            self._descriptor = open_file(self.path)
        return os.pread(self._descriptor, size, start)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``; one call of the system may write only a part of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
