"""One record, what every reader of records offers, and why a record cannot be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")


class Reason(StrEnum):
    """Why a record cannot be used; bad records are counted by these names."""

    VANISHED = "vanished"  # a shard, an index or a file that cannot be opened or read any more
    CHANGED = "changed bytes"  # they differ from the index's checksum, or the shard is cut short here
    NO_IMAGE = "no image"
    EMPTY_IMAGE = "empty image"
    NOT_AN_IMAGE = "not an image"
    TRUNCATED_IMAGE = "truncated image"
    DAMAGED_IMAGE = "damaged image"
    HUGE_IMAGE = "huge image"
    PIXEL_FORMAT = "unknown pixel format"
    NO_CAPTION = "no caption"
    UNREADABLE_CAPTION = "unreadable caption"
    NO_CODES = "no codes"


class BadRecord(Exception):
    """One record cannot be read or decoded. Datasets replace it by another one; it never stops a run by itself.

    ``key`` is the record's, where it is known.
    """

    def __init__(self, reason: Reason, message: str, key: str | None = None):
        super().__init__(reason, message, key)
        self.reason, self.message, self.key = reason, message, key

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Record:
    """One record: its key and its parts by extension in lower case, for example ``{"jpg": ..., "json": ...}``."""

    key: str
    parts: dict[str, bytes]


class Records(Protocol):
    """What every reader offers. ``sequential`` says whether neighbours lie side by side on disk."""

    sequential: bool

    def __len__(self) -> int: ...

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Record ``index``; with ``only``, just the parts of these extensions. Raises BadRecord."""
        ...
