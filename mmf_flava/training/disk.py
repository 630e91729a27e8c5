"""Space on the disk of a run folder, and error messages for a folder that cannot be written to."""

import errno
import math
import os
import re
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmf_flava.errors import FULL_DISK, NOT_WRITABLE, UserError

SPARE_BLOCKS = 16  # for folders, pointer files and the logs of the run


def diagnose_disk_error(error: Exception) -> tuple[str, str]:
    """Return the operating system's error message and a suggested fix for a failed write.

    Args:
        error: an OSError, or a safetensors error whose text contains the error number of an OSError.
    """
    number = error_number(error)
    reason = os.strerror(number).lower() if number is not None else str(error)
    if number in FULL_DISK:
        return reason, "Free some space"
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit == resource.RLIM_INFINITY:
            return reason, "Choose a folder on a file system that allows larger files with env.save_dir"
        return reason, f"Raise the limit of file sizes, which is {limit:,} bytes (ulimit -f)"
    if number in NOT_WRITABLE:
        return reason, "Make the folder writable, or choose another folder with env.save_dir"
    return reason, "Check that the disk is available and has no errors"


def error_number(error: Exception) -> int | None:
    """Return the error number of an OSError, or of a safetensors error whose text contains one."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"code: (\d+)|os error (\d+)", str(error))
    return int(match[1] or match[2]) if match else None


def free_space(folder: Path) -> int | None:
    """Return the free bytes of the disk of ``folder``; None if the file system does not report them."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return (status.f_bfree if os.geteuid() == 0 else status.f_bavail) * status.f_frsize if status.f_blocks else None


def needed_space(folder: Path, sizes: Iterable[int]) -> int:
    """Return the bytes that new files of the given sizes take on the disk of ``folder``, with some space to spare."""
    block = 4096
    with suppress(OSError):
        block = os.statvfs(folder).f_frsize or block
    return (sum(math.ceil(size / block) for size in sizes) + SPARE_BLOCKS) * block


def disk_usage(path: Path) -> int:
    """Return the bytes that the files of a folder take on its disk; files that cannot be read do not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def format_size(size: int, round_up: bool = True) -> str:
    """Format a number of bytes with one decimal, rounded up or down: 1,510,000 -> "1.6 MB"."""
    factor, unit = next((item for item in ((1e9, "GB"), (1e6, "MB")) if size >= item[0]), (1e3, "kB"))
    return f"{(math.ceil if round_up else math.floor)(size / factor * 10) / 10:,.1f} {unit}"


@contextmanager
def explain_disk_errors(folder: Path, advise: Callable[[], str] | None = None) -> Iterator[None]:
    """Context manager: convert an OSError of a full or read-only disk to a UserError that names the file and the fix.

    Args:
        folder: named in the message if the OSError has no file name.
        advise: returns how to free space, instead of a general suggestion.

    Raises:
        UserError: a file could not be written because its disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK | {errno.EFBIG, errno.EROFS}:
            raise
        reason, fix = diagnose_disk_error(error)
        if advise is not None and error.errno in FULL_DISK:
            fix = advise()
        path = error.filename or folder
        raise UserError(
            f"{path} cannot be written ({reason}). {fix}, then resume with checkpoint.resume=true."
        ) from error
