"""The boundary of readers of foreign files: whatever a parser raises on damaged content becomes a UserError."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from mmf_flava.errors import UserError, ends_process, is_out_of_resources

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
        UserError: the file is damaged. A UserError, MemoryError, full disk or limit of open files is raised
            unchanged.
    """
    unchanged: tuple[type[Exception], ...] = (UserError, MemoryError, *passed)
    try:
        yield
    except unchanged:
        raise
    except BaseException as error:
        if ends_process(error) or is_out_of_resources(error):
            raise
        text = " ".join(str(error).split())
        reason = f"{text[:MAX_REASON]}..." if len(text) > MAX_REASON else text
        if not isinstance(error, ValueError | OSError) or not reason:
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        raise UserError(f"{path} is not a valid {kind} ({reason}). {remedy}") from error
