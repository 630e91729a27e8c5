"""Opening of files within the limit of open files of this process, and files that stay open between reads."""

import os
import resource
import sys
from collections import OrderedDict
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from mmf_flava.config.workers import SPARE_FILES, raise_file_limit
from mmf_flava.errors import TOO_MANY_FILES, UserError


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)
_all_open: "WeakSet[OpenFiles[Any]]" = WeakSet()


class OpenFiles(Generic[T]):
    """Open files by number, at most ``capacity`` of them: the least recently used are closed.

    If the process is close to its limit of open files, ``open_file`` closes files of all instances, but never the most
    recently used one of an instance, which may be in use.

    Args:
        capacity: maximum number of open files, >= 1; it can be changed.
        descriptors: file descriptors of each.
    """

    def __init__(self, capacity: int, descriptors: int = 1):
        self.capacity, self.descriptors = capacity, descriptors
        self._files: OrderedDict[int, T] = OrderedDict()
        _all_open.add(self)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, number: int) -> bool:
        return number in self._files

    def get(self, number: int) -> T | None:
        """Return the file with this number, if it is open."""
        file = self._files.get(number)
        if file is not None:
            self._files.move_to_end(number)
        return file

    def add(self, number: int, file: T) -> None:
        while len(self._files) >= self.capacity:
            self._files.popitem(last=False)[1].close()
        self._files[number] = file

    def close_oldest(self) -> bool:
        """Close the least recently used file. Return False if there is at most one file."""
        if len(self._files) < 2:
            return False
        self._files.popitem(last=False)[1].close()
        return True

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, (self.capacity, self.descriptors)


def raise_limit() -> tuple[int, int]:
    """Raise the limit of open files of this process, so that every ``OpenFiles`` can reach its capacity.

    Processes that are started later have the same limit.

    Returns:
        The number of files that may be open then, and the limit, which is smaller if it cannot be raised so far.
    """
    kept = sum(files.descriptors * (files.capacity - len(files)) for files in _all_open)
    needed = len(os.listdir("/proc/self/fd")) + kept
    return needed, raise_file_limit(needed)


def open_file(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a file and return its descriptor. Close other files if this process has too many open files.

    Raises:
        OSError: the file cannot be opened.
        UserError: too many files are open, and none of them can be closed.
    """
    while True:
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno not in TOO_MANY_FILES:
                raise
            if not _close_oldest():
                raise UserError(
                    f"{os.fspath(path)}: the file cannot be opened, because too many files are open. Raise the limit "
                    "with `ulimit -n`."
                ) from error
            continue
        # the system assigns the smallest free number, so at least this many files are open
        if descriptor < _usable_files() or not _close_oldest():
            return descriptor
        os.close(descriptor)


def _usable_files() -> int:
    """Return how many files may be open before the oldest are closed. The rest is left for connections and batches."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return limit - min(SPARE_FILES, limit // 4)


def _close_oldest() -> bool:
    return max(_all_open, key=len).close_oldest() if _all_open else False
