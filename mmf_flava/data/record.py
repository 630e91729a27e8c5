"""The Record type, the interface of record readers, and the error for bad records."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

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


class BadRecord(Exception):
    """Raised when one record cannot be read or decoded.

    Datasets replace the record by another record, so a single bad record never stops a run.

    Args:
        reason: why the record is bad.
        message: the full error message.
        key: the record's key, if known.
    """

    def __init__(self, reason: Reason, message: str, key: str | None = None):
        super().__init__(reason, message, key)
        self.reason, self.message, self.key = reason, message, key

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Record:
    """One record: a key, and its fields by lower-case file extension, for example ``{"jpg": ..., "json": ...}``."""

    key: str
    fields: dict[str, bytes]


class Records(Protocol):
    """Interface of record readers.

    Attributes:
        sequential: whether consecutive records are adjacent on disk.
    """

    sequential: bool

    def __len__(self) -> int: ...

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the record cannot be read.
        """
        ...
