"""Local copies of remote files of which only some byte ranges have been downloaded."""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mmf_flava.files.cache import FileCache, retry
from mmf_flava.files.http_download import write_error
from mmf_flava.files.http_range import read_range
from mmf_flava.files.random_access import write_at
from mmf_flava.files.s3 import read_object

SUFFIX = ".ranges"
MAX_GAP = 1 << 14  # bytes between two pieces that are downloaded with them, such as the headers of a tar file
FLOCK = struct.Struct("hhqqi0q")  # struct flock on 64-bit Linux: type, whence, start, length, process

Piece = tuple[int, int, int]  # offset, size and CRC-32


@dataclass(frozen=True)
class SparseCopy:
    """The local copy of the file at ``url``, to which byte ranges are downloaded when they are needed.

    The copy is sparse, unless the cache has a complete copy. A piece is present if its bytes match its checksum.
    Therefore, nothing else is stored about the copy, and what a killed process has written in part is downloaded again.
    Threads and processes of a machine share the copy, and each piece is downloaded by one of them.
    """

    url: str
    cache: FileCache

    @property
    def path(self) -> Path:
        """Path of the sparse copy, which may not exist."""
        complete = self.cache.path(self.url)
        return complete.with_name(complete.name + SUFFIX)

    def open(self) -> int:
        """Open the complete copy or, if there is none, the sparse copy. Return its descriptor, or -1 without a copy."""
        for path in (self.cache.path(self.url), self.path):
            with suppress(FileNotFoundError):
                return self.cache.open_copy(path)
        return -1

    def fetch(self, pieces: Sequence[Piece], patient: bool = True) -> None:
        """Download those of the pieces that are not present. Adjacent ones are downloaded with one request.

        The bytes that were received are not checked.

        Args:
            patient: whether requests to a server that is not reachable are repeated.

        Raises:
            RangeRefusedError, RemoteFileNotFoundError, DownloadError: see ``read_range`` and ``read_object``.
            UserError: the copy cannot be written.
        """
        if patient:
            retry(lambda: self._fetch(pieces))
        else:
            self._fetch(pieces)

    def _fetch(self, pieces: Sequence[Piece]) -> None:
        path, received = self.path, 0
        try:
            path, descriptor = self._open_to_write()
            try:
                for group in _adjacent(pieces):
                    with _locked(path, *_span(group)):
                        missing = [piece for piece in group if not is_present(descriptor, piece)]
                        received += self._download(descriptor, *_span(missing)) if missing else 0
            finally:
                os.close(descriptor)
        except OSError as error:
            raise write_error(path, error) from error
        self.cache.add_bytes(path, received)

    def _open_to_write(self) -> tuple[Path, int]:
        """Open the complete copy or, if there is none, the sparse copy. Return its path and descriptor."""
        copies = (self.cache.path(self.url), os.O_RDWR), (self.path, os.O_RDWR | os.O_CREAT)
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for path, flags in copies:
                with suppress(FileNotFoundError):  # missing, or evicted between opening and locking
                    return path, self.cache.open_copy(path, flags)

    def _download(self, descriptor: int, start: int, end: int) -> int:
        """Download the bytes ``start`` to ``end`` and return how many the server has sent."""
        position = start
        read = read_object if self.url.startswith("s3://") else read_range
        for chunk in read(self.url, start, end - start):
            write_at(descriptor, chunk, position)
            position += len(chunk)
        return position - start


def is_present(descriptor: int, piece: Piece) -> bool:
    """Return whether a file has the bytes of a piece."""
    offset, size, checksum = piece
    if size and offset + size > os.fstat(descriptor).st_size:  # memory of any size would be allocated
        return False
    return zlib.crc32(os.pread(descriptor, size, offset)) == checksum


def _adjacent(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return the pieces in groups that are close to each other in the file."""
    groups: list[list[Piece]] = []
    for piece in sorted(piece for piece in pieces if piece[1]):
        if groups and piece[0] <= _span(groups[-1])[1] + MAX_GAP:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _span(pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return the start of the first piece and the end of the last one."""
    return min(offset for offset, _, _ in pieces), max(offset + size for offset, size, _ in pieces)


@contextmanager
def _locked(path: Path, start: int, end: int) -> Iterator[None]:
    """Lock a byte range of a file against all threads and processes of this machine.

    The lock is on a file beside it, because network file systems would mix it up with the lock that prevents eviction.
    """
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0))
        yield
    finally:
        with suppress(OSError):  # a process that was forked meanwhile would keep the lock of a file that is only closed
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, end - start, 0))
        os.close(descriptor)
