"""A download cache with a size limit."""

import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from iopath.common.file_io import file_lock

from mmf_flava.files.download import cache_path, download_file
from mmf_flava.files.download_errors import DownloadError
from mmf_flava.files.open_files import open_file

logger = logging.getLogger(__name__)

RETRY_DELAYS = (0.5, 1, 2, 4)  # seconds between attempts if a server is not reachable
ABANDONED_SECONDS = 3600  # a partial download that was not written to for this long may be deleted
PERMANENT = (".index", ".lock")  # suffixes of small files: never deleted, and not counted in the size of the cache

CHECKED_BYTES = 1 << 28  # bytes that a process writes to sparse copies before it checks the size of the cache again

T = TypeVar("T")
_unchecked: Counter[Path] = Counter()  # folder -> bytes that this process has written since the last check


def retry(download: Callable[[], T]) -> T:
    """Call ``download`` again if a server is not reachable.

    Raises:
        DownloadError: all attempts failed.
    """
    for delay in RETRY_DELAYS:
        try:
            return download()
        except DownloadError as error:
            logger.info("%s Retrying in %s s.", error, delay)
            time.sleep(delay)
    return download()


@dataclass(frozen=True)
class FileCache:
    """A folder to which files are downloaded on first use, with eviction of the least recently used files.

    Processes on one machine can use the same folder; each file is downloaded by only one of them. Interrupted downloads
    are resumed.

    Attributes:
        folder: the cache folder; it should not contain other files.
        limit: maximum size of ``folder`` in bytes, not counting index files; None for no limit. Files that a process of
            this machine has opened and files that are being downloaded are not deleted, even if ``folder`` exceeds the
            limit. Sparse copies count as much as is allocated on the disk.
        connections: number of connections with which a process downloads in the background.
    """

    folder: Path
    limit: int | None = None
    connections: int = 8

    def path(self, url: str) -> Path:
        """Return the path of the local copy of a file; the copy may not exist yet."""
        return cache_path(url, self.folder)

    def get(self, url: str, target: Path | None = None) -> Path:
        """Return the path of a file's local copy; download the file if it is missing. The size limit is not applied.

        Args:
            target: path of the local copy; default: ``path(url)``.

        Raises:
            RemoteFileNotFoundError: the file does not exist on the server.
            DownloadError: the server is not reachable, and all retries failed.
        """
        path = target or self.path(url)
        return path if path.is_file() else retry(lambda: download_file(url, self.folder, progress=False, target=path))

    def open(self, url: str, size: int = 0) -> int:
        """Open the local copy of a file and mark it as just used; download the file if it is missing.

        Args:
            size: size of the file in bytes, or 0 if unknown; as much space is freed before the download.

        Returns:
            A file descriptor.

        Raises:
            RemoteFileNotFoundError, DownloadError: see ``get``.
        """
        path = self.path(url)
        while True:
            missing = not path.is_file()
            if missing:
                self._evict(size, path)
                self.get(url)
            try:
                descriptor = self.open_copy(path)
            except FileNotFoundError:  # evicted by another process after the download
                continue
            if missing:
                self._evict(0, path)
            return descriptor

    @staticmethod
    def open_copy(path: Path, flags: int = os.O_RDONLY) -> int:
        """Open a file of the cache and mark it as just used. It is not evicted before it is closed.

        Raises:
            FileNotFoundError: the file does not exist, or it has just been evicted.
        """
        # threads that write must not close files that the main thread reads, as ``open_file`` does if many are open
        descriptor = open_file(path) if flags == os.O_RDONLY else os.open(path, flags, 0o666)
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # held until the file is closed; waits while it is deleted
        if not os.fstat(descriptor).st_nlink:
            os.close(descriptor)
            raise FileNotFoundError(str(path))
        os.utime(descriptor)
        return descriptor

    def add_bytes(self, path: Path, count: int) -> None:
        """Count ``count`` bytes that were written to the file at ``path``; evict other files at intervals."""
        if self.limit is None:
            return
        interval = min(self.limit // 64, CHECKED_BYTES)
        _unchecked[self.folder] += count
        if _unchecked[self.folder] >= interval:
            _unchecked[self.folder] = 0
            self._evict(interval, path)

    def remove(self, url: str, descriptor: int) -> None:
        """Delete the local copy of a file that is open as ``descriptor``. A newer copy at the same path is kept."""
        path = self.path(url)
        with file_lock(str(path)), suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()

    def _evict(self, size: int, requested: Path) -> None:
        """Delete the least recently used files, except ``requested``, until ``size`` bytes are free."""
        if self.limit is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(str(self.folder / "eviction")):
            # partial downloads of the requested file are included in ``size``
            partial = str(requested.with_name(f".{requested.name}."))
            files = [(path, stat) for path, stat in self._files() if not str(path).startswith(partial)]
            excess = size + sum(map(_disk_bytes, (stat for _, stat in files))) - self.limit
            in_use = _open_files() if excess > 0 else set()
            for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
                if excess <= 0:
                    return
                downloading = self._is_partial(path) and time.time() - stat.st_mtime < ABANDONED_SECONDS
                if path == requested or downloading or (stat.st_dev, stat.st_ino) in in_use:
                    continue
                if _delete_unused(path):
                    excess -= _disk_bytes(stat)

    def _is_partial(self, path: Path) -> bool:
        """Return whether this is a partial download: a hidden file, or a file in the hidden folder of S3 downloads."""
        return any(name.startswith(".") for name in path.relative_to(self.folder).parts)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if not name.endswith(PERMANENT):
                    with suppress(FileNotFoundError):
                        yield Path(folder, name), os.stat(os.path.join(folder, name))


def _disk_bytes(stat: os.stat_result) -> int:
    """Return the size of a file, or the allocated bytes of a sparse file."""
    return min(stat.st_size, stat.st_blocks * 512)


def _delete_unused(path: Path) -> bool:
    """Delete a file, unless a process of this machine has opened it with ``FileCache.open``. Return whether it did."""
    try:
        # some file systems lock only files that are open for writing
        with os.fdopen(open_file(path, os.O_RDWR)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    except OSError:  # already deleted, not writable, or the file system has no locks
        path.unlink(missing_ok=True)
    return True


def _open_files() -> set[tuple[int, int]]:
    """Return (device, inode) of every file that this process has open."""
    identities = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            stat = os.fstat(int(descriptor))
            identities.add((stat.st_dev, stat.st_ino))
    return identities
