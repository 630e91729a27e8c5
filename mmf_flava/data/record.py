"""The Record type, the interface of record readers, the error for bad records, and the boundary that raises it."""

import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from mmf_flava.errors import UserError, ends_process, is_out_of_resources

MAX_MESSAGE = 1000  # characters of the message of a bad record
MAX_ERROR_TEXT = 200  # characters of an exception's text in a message
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jfif", "avif", "jp2")


class Reason(StrEnum):
    """Reasons why a record is bad. Bad records are counted by reason."""

    VANISHED = "vanished"  # a shard, index or file can no longer be opened or read
    CHANGED = "changed bytes"  # checksum mismatch with the index, or the shard is truncated
    NO_IMAGE = "no image"
    EMPTY_IMAGE = "empty image"
    NOT_AN_IMAGE = "not an image"
    TRUNCATED_IMAGE = "truncated image"
    DAMAGED_IMAGE = "damaged image"
    HUGE_IMAGE = "huge image"
    PIXEL_FORMAT = "unknown pixel format"
    NO_CAPTION = "no caption"
    UNREADABLE_CAPTION = "unreadable caption"
    NO_LABEL = "no label"
    UNREADABLE_LABEL = "unreadable label"
    UNKNOWN_LABEL = "unknown label"
    NO_CODES = "no codes"
    INVALID_ENTRY = "invalid entry"  # an entry of an annotation file lacks a field, or a field has the wrong type
    MISFIT = "does not fit the batch"  # fields, shapes or dtypes differ from the other samples of the batch
    UNEXPECTED = "unexpected"  # an exception that no reader or processor anticipates


class Failure(NamedTuple):
    """An unexpected exception. Unlike an exception, it can be sent from a data loader worker to the main process."""

    type: str
    place: str  # file and line that raised the exception
    traceback: str


class BadRecord(Exception):
    """Raised when one record cannot be read or decoded.

    Datasets replace the record by another record, so a single bad record never stops a run.

    Args:
        reason: why the record is bad.
        message: the full error message.
        key: the record's key, if known.
        failure: the exception, if the reason is ``Reason.UNEXPECTED``.

    Attributes:
        record: index of the record in its dataset, set by the dataset.
    """

    record = -1

    def __init__(self, reason: Reason, message: str, key: str | None = None, failure: Failure | None = None):
        super().__init__(reason, message, key, failure)
        # file names that are not UTF-8 contain surrogates, which cannot be written to a log
        text = message.encode("utf-8", "backslashreplace").decode()
        # a name in a damaged file can have any length
        self.message = text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]}...{text[-MAX_MESSAGE // 2 :]}"
        self.reason, self.key, self.failure = reason, key, failure

    def __str__(self) -> str:
        return self.message

    def entry(self) -> dict[str, Any]:
        """Return the entry of the record in the list of bad records; see ``Quarantine``."""
        entry = {
            "sample_id": self.key or f"record {self.record}",
            "record": self.record,
            "reason": self.reason.value,
            "message": self.message,
        }
        return entry if self.failure is None else {**entry, "failure": self.failure}


class record_boundary:
    """Context manager around all code that handles the bytes of one record: reading, decoding, cropping, tokenizing.

    Any exception becomes a BadRecord, so that a bad record never stops a run. Exceptions that are not caused by the
    record pass through: UserError, MemoryError, a full disk, too many open files, and exceptions that end
    the process. It is a class, because a generator takes twice as long, which is 2 % of the time to prepare a record.

    Args:
        name: the record's key or a description such as "record 7"; a function that returns it is only called for a bad
            record.

    Raises:
        BadRecord: the code raised BadRecord, or any other exception, for which the reason is ``Reason.UNEXPECTED``.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str | Callable[[], str]):
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, UserError | MemoryError):
            return
        if (cause := _exhausted_resource(error)) is not None:
            raise cause from cause.__cause__
        if isinstance(error, BadRecord) or ends_process(error):
            return
        key, text = self._name if isinstance(self._name, str) else self._name(), _text(error)
        message = f"{key}: unexpected error ({type(error).__name__}{': ' * bool(text)}{text})"
        raise BadRecord(Reason.UNEXPECTED, message, key, _failure(error)) from error


def _exhausted_resource(error: BaseException) -> BaseException | None:
    """Return the error of a full disk or of too many open files that caused ``error``; None: another cause."""
    described: BaseException = error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            described = cause
        if is_out_of_resources(cause):
            return cause if isinstance(described, BadRecord) else described
        cause = cause.__cause__
    return None


def _text(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception class with an invalid __str__
        return ""
    return text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}..."


def _failure(error: BaseException) -> Failure:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return Failure(type(error).__name__, place, "".join(traceback.format_exception(error)))


class Record(NamedTuple):
    """One record: a key, and its fields by lower-case file extension, for example ``{"jpg": ..., "json": ...}``."""

    key: str
    fields: dict[str, bytes]


class Records(Protocol):
    """Interface of record readers.

    Attributes:
        sequential: whether consecutive records are adjacent on disk.
    """

    sequential: bool

    def __hash__(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the record cannot be read.
        """
        ...
