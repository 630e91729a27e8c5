"""Text files of others, in UTF-8, UTF-16, UTF-32 or Windows-1252. No letter is lost in silence.

The encoding is decided here, by the first bytes of the file:
    - a byte order mark selects UTF-8, UTF-16 or UTF-32;
    - zeros in every second byte select UTF-16 without a byte order mark;
    - any other text is UTF-8. A byte that is not valid UTF-8 is read as Windows-1252, which includes Latin-1, and a
      warning that names the file says how many bytes these were. Invalid UTF-16 and UTF-32 is an error.
"""

import codecs
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

MAX_LINE = 1 << 24  # characters of a line; annotations and documents have far fewer
SAMPLE = 1 << 12  # bytes by which the encoding is decided
# UTF-32 precedes UTF-16, whose mark its mark begins with
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
INVALID = re.compile("[\udc80-\udcff]")  # invalid bytes, as the error handler surrogateescape decodes them
WINDOWS_1252 = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
EXCERPT = 12  # characters on each side of the first invalid byte in the warning


class TextFile(io.TextIOWrapper):
    """A text file whose lines are bounded, because a small compressed file can contain one line of any size.

    Iteration raises UserError for a line of more than ``MAX_LINE`` characters. Line ends are not changed.

    Args:
        file: the open binary file, which has ``peek``; it is closed with the text file.
        path: its path, for messages.
    """

    def __init__(self, file: Any, path: Path):
        self.path, self._invalid, self._excerpt = path, 0, ""
        encoding = _detect_encoding(file.peek(SAMPLE)[:SAMPLE])
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        super().__init__(file, encoding=encoding, errors=errors, newline="\n")

    def __next__(self) -> str:  # type: ignore[override]
        line = io.TextIOWrapper.readline(self, MAX_LINE)
        if not line:
            raise StopIteration
        if not line.isascii():
            line = self._replace_invalid(line)
        if len(line) == MAX_LINE and line[-1] != "\n":
            raise UserError(f"{self.path}: a line has more than {MAX_LINE:,} characters. Split it into several lines.")
        return line

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return self

    def read(self, size: int | None = -1) -> str:
        return self._replace_invalid(super().read(size))

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        return self._replace_invalid(super().readline(size))

    def close(self) -> None:
        """Close the file, and log the bytes that were not valid."""
        if self._invalid and not self.closed:
            invalid, self._invalid = self._invalid, 0
            logger.warning(
                "%s: %s not valid UTF-8 and read as Windows-1252, the first one in %r. If the letters are "
                "wrong, convert the file with `iconv -f ENCODING -t utf-8`.",
                *(self.path, "1 byte was" if invalid == 1 else f"{invalid:,} bytes were", self._excerpt),
            )
        super().close()

    def _replace_invalid(self, text: str) -> str:
        if not (first := INVALID.search(text)):
            return text
        replaced = text.translate(WINDOWS_1252)
        self._excerpt = self._excerpt or replaced[max(0, first.start() - EXCERPT) : first.start() + EXCERPT].strip()
        self._invalid += len(INVALID.findall(text))
        return replaced


def is_binary(file: Any) -> bool:
    """Return whether the first bytes of a file that is open for reading, with ``peek``, are not text."""
    sample = file.peek(SAMPLE)[:SAMPLE]
    return b"\0" in sample and _detect_encoding(sample) == "utf-8"


def _detect_encoding(sample: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return encoding
    even, odd = sample[::2], sample[1::2]
    if 0.4 * len(odd) < odd.count(0) and 10 * even.count(0) < odd.count(0):
        return "utf-16-le"  # the high bytes of ASCII characters are zero
    if 0.4 * len(even) < even.count(0) and 10 * odd.count(0) < even.count(0):
        return "utf-16-be"
    return "utf-8"
