"""Reading of files of others: a pipe without a writer would block the process, and a device may have no end."""

import errno
import os
import stat
from typing import BinaryIO

from mmf_flava.files.open_files import open_file


def open_regular_file(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """Open a file for reading. Devices and pipes are refused.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
        ValueError: the path contains a zero byte.
    """
    return open(path, "rb", buffering, opener=_open)  # type: ignore[return-value]


def read_regular_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file. Devices and pipes are refused.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: the path contains a zero byte.
    """
    with open_regular_file(path) as file:
        return file.read()


def _open(path: str, flags: int) -> int:
    descriptor = open_file(path, flags | os.O_NONBLOCK)  # regular files ignore O_NONBLOCK
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor
