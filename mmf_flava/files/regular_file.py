"""Reading of files whose paths come from foreign data, such as the images of a list."""

import os
import stat
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """Return the content of a file. Devices and pipes, whose content may be unlimited, are refused.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: the path contains a zero byte.
    """
    # a pipe without a writer would block the process
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return file.read()
