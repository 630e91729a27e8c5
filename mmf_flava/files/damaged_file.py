"""The boundary of readers of foreign files: whatever a parser raises on damaged content becomes a UserError."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from mmf_flava.errors import UserError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
MAX_REASON = 200  # characters of an exception's text in a message


@contextmanager
def damaged_file(
    path: str | PathLike[str], kind: str, remedy: str, passed: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Context manager that converts the exceptions of a parser. Lists of exceptions would miss some of them.

    Args:
        path: the file.
        kind: what the file should be, for example ``safetensors file``.
        remedy: a sentence with the fix.
        passed: further exceptions that are raised unchanged.

    Raises:
        UserError: the file is damaged. A UserError, MemoryError or full disk is raised unchanged.
    """
    unchanged: tuple[type[Exception], ...] = (UserError, MemoryError, *passed)
    try:
        yield
    except unchanged:
        raise
    except BaseException as error:
        # a panic of a library in Rust, such as safetensors, is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        text = " ".join(str(error).split())
        reason = f"{text[:MAX_REASON]}..." if len(text) > MAX_REASON else text
        if not isinstance(error, ValueError | OSError) or not reason:
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        raise UserError(f"{path} is not a valid {kind} ({reason}). {remedy}") from error
