"""What a user is told when a run's folder cannot be written to."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmf_flava.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def reason_and_remedy(error: Exception) -> tuple[str, str]:
    """What the system said, and what to do about it; ``error`` is an OSError, or safetensors' with one inside."""
    number = error.errno if isinstance(error, OSError) else _inner_number(error)
    reason = os.strerror(number).lower() if number is not None else str(error)
    if number in FULL:
        return reason, "free some space there, or keep fewer checkpoints with checkpoint.max_to_keep"
    if number in FORBIDDEN:
        return reason, "make it writable, or choose another one with env.save_dir"
    return reason, "see what is wrong with that disk"


def _inner_number(error: Exception) -> int | None:
    found = re.search(r"code: (\d+)|os error (\d+)", str(error))
    return int(found[1] or found[2]) if found else None


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk inside into a sentence about the run's folder.

    Raises:
        UserError: such an error occurred.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | {errno.EROFS}:
            raise
        reason, remedy = reason_and_remedy(error)
        place = error.filename or folder
        raise UserError(
            f"{place} cannot be written ({reason}): {remedy}; then go on with checkpoint.resume=true."
        ) from error
