"""Error messages for a run folder that cannot be written to."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmf_flava.errors import FULL_DISK, NOT_WRITABLE, UserError

FULL = FULL_DISK | {errno.EFBIG}


def diagnose_disk_error(error: Exception) -> tuple[str, str]:
    """Return the operating system's error message and a suggested fix for a failed write.

    Args:
        error: an OSError, or a safetensors error whose text contains the error number of an OSError.
    """
    number = error.errno if isinstance(error, OSError) else _parse_errno(error)
    reason = os.strerror(number).lower() if number is not None else str(error)
    if number in FULL:
        return reason, "Free some space, or keep fewer checkpoints with checkpoint.max_to_keep"
    if number in NOT_WRITABLE:
        return reason, "Make the folder writable, or choose another folder with env.save_dir"
    return reason, "Check that the disk is available and has no errors"


def _parse_errno(error: Exception) -> int | None:
    match = re.search(r"code: (\d+)|os error (\d+)", str(error))
    return int(match[1] or match[2]) if match else None


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Context manager: convert an OSError of a full or read-only disk to a UserError that names the file and the fix.

    Args:
        folder: named in the message if the OSError has no file name.

    Raises:
        UserError: a file could not be written because its disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | {errno.EROFS}:
            raise
        reason, fix = diagnose_disk_error(error)
        path = error.filename or folder
        raise UserError(
            f"{path} cannot be written ({reason}). {fix}, then resume with checkpoint.resume=true."
        ) from error
