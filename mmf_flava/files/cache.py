"""Remote files that are needed again and again, in a folder of bounded size."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from iopath.common.file_io import file_lock

from mmf_flava.files.download import fetch, local_place
from mmf_flava.files.faults import Unreachable

logger = logging.getLogger(__name__)

WAITS = (0.5, 1, 2, 4)  # seconds between tries where a server does not answer
ABANDONED = 3600  # seconds after which half a download is one that nobody goes on with
UNCOUNTED = (".index", ".lock")  # small files, which stay


@dataclass(frozen=True)
class FileCache:
    """Fetches files whole when they are first opened; those that were not used for longest make room for new ones.

    Processes on one machine share a folder: each file is fetched by one of them, and goes on where it was cut off.

    folder: what the cache fills and clears; nothing else should lie in it.
    limit: bytes of files in ``folder``, None for no limit. Indexes do not count, and no file goes that is open in this
        process or being fetched, so that the limit is overstepped while these are more.
    """

    folder: Path
    limit: int | None = None

    def place(self, url: str) -> Path:
        """Where the local copy of a file lies, or will."""
        return local_place(url, self.folder)

    def get(self, url: str) -> Path:
        """The local copy of a small file that does not count; fetched where it lacks, after a few tries.

        Raises:
            NotThere: the server has no such file.
            Unreachable: it does not answer, nor a few seconds later.
        """
        place = self.place(url)
        for wait in () if place.is_file() else (*WAITS, None):
            try:
                return fetch(url, self.folder, progress=False)
            except Unreachable as error:
                if wait is None:
                    raise
                logger.info("%s Next try in %s s.", error, wait)
                time.sleep(wait)
        return place

    def open(self, url: str, size: int = 0) -> int:
        """A descriptor of the local copy, which counts as used now; see ``get`` for what is raised.

        Args:
            size: of the file in bytes, where it is known; room for it is made before it is fetched.
        """
        place = self.place(url)
        while True:
            lacks = not place.is_file()
            if lacks:
                self._make_room(size, place)
                self.get(url)
            try:
                descriptor = os.open(place, os.O_RDONLY)
            except FileNotFoundError:  # another process has just removed it
                continue
            os.utime(descriptor)
            if lacks:
                self._make_room(0, place)
            return descriptor

    def discard(self, url: str, descriptor: int) -> None:
        """Removes the local copy that ``descriptor`` is of; one that has replaced it since stays."""
        place = self.place(url)
        with file_lock(str(place)), suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                place.unlink()

    def _make_room(self, size: int, wanted: Path) -> None:
        """Removes files, the longest unused first, until those left and ``size`` bytes more are within the limit."""
        if self.limit is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(str(self.folder / "room")):
            half = f".{wanted.name}."  # of the wanted file: a part of ``size``
            files = [(path, stat) for path, stat in self._files() if not path.name.startswith(half)]
            excess = size + sum(stat.st_size for _, stat in files) - self.limit
            in_use = _open_here() if excess > 0 else set()
            for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
                if excess <= 0:
                    return
                fetched_now = self._is_half(path) and time.time() - stat.st_mtime < ABANDONED
                if path == wanted or fetched_now or (stat.st_dev, stat.st_ino) in in_use:
                    continue
                path.unlink(missing_ok=True)
                excess -= stat.st_size

    def _is_half(self, path: Path) -> bool:
        """Half a download has a hidden name, or lies in the hidden folder of s3."""
        return any(name.startswith(".") for name in path.relative_to(self.folder).parts)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if not name.endswith(UNCOUNTED):
                    with suppress(FileNotFoundError):
                        yield Path(folder, name), os.stat(os.path.join(folder, name))


def _open_here() -> set[tuple[int, int]]:
    """(device, inode) of every file that this process has open."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            stat = os.fstat(int(descriptor))
            found.add((stat.st_dev, stat.st_ino))
    return found
