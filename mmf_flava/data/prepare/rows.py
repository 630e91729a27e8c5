"""The boundaries of data preparation: a bad row of a foreign file costs only this row, and is counted by reason.

A file that cannot be read, or that is in another format, is an error.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from mmf_flava.data.record import BadRecord, Failure, record_boundary
from mmf_flava.errors import UserError, is_out_of_resources

MALFORMED = "malformed row"
# Exceptions of code that expects other keys or types than a row has. The list only decides the reason that is counted.
FORMAT_ERRORS = (ValueError, LookupError, TypeError, AttributeError)
MAX_MALFORMED = 32  # malformed rows at the start of a file, after which the file is in another format

T = TypeVar("T")


class BadRow(NamedTuple):
    """A row that cannot be used.

    Attributes:
        reason: the reason that is counted.
        message: description of the error.
        failure: the exception, if it is unexpected.
    """

    reason: str
    message: str
    failure: Failure | None = None


@contextmanager
def file_boundary(error: Callable[[str], UserError]) -> Iterator[None]:
    """Context manager around code that reads a foreign file: whatever a parser raises becomes a UserError.

    UserError, MemoryError, a full disk and too many open files pass through, as does RuntimeError, which stops the run
    after many unexpected errors.

    Args:
        error: function that creates the error from the description of the exception.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as exception:
        if is_out_of_resources(exception) or type(exception) is RuntimeError:
            raise
        raise error(f"{type(exception).__name__}: {exception}") from exception


def convert_row(row: Any, convert: Callable[[Any], T]) -> T | BadRow:
    """Return ``convert(row)``, or a BadRow if this fails.

    Args:
        row: a row or, if the row itself could not be read, the exception.
    """
    try:
        with record_boundary("row"):
            try:
                if isinstance(row, Exception):
                    raise row
                return convert(row)
            except UserError:
                raise
            except FORMAT_ERRORS as error:
                return BadRow(MALFORMED, f"{type(error).__name__}: {error}")
    except BadRecord as error:
        return BadRow(error.reason.value, error.message, error.failure)


def refuse_other_format(
    results: Iterable[T], bad_row: Callable[[T], BadRow | None], error: Callable[[str], UserError], whole: bool = True
) -> Iterator[T]:
    """Yield the results of the rows of a file, unless all of its first rows are malformed.

    Args:
        bad_row: function that returns the BadRow in a result, if any.
        error: function that creates the error from the description of the first malformed row.
        whole: a shorter file whose rows are all malformed is an error too, not only many bad rows.

    Raises:
        UserError: the first 32 rows, or all rows, are malformed.
    """
    malformed: list[T] = []
    iterator, message = iter(results), ""
    for result in iterator:
        bad = bad_row(result)
        if bad is None or bad.reason != MALFORMED:
            yield from malformed
            yield result
            yield from iterator
            return
        message = message or bad.message
        malformed.append(result)
        if len(malformed) == MAX_MALFORMED:
            break
    if malformed and (whole or len(malformed) == MAX_MALFORMED):
        raise error(message)
    yield from malformed
