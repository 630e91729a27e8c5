"""Splitting of text into lines, at ``\\n`` or ``\\r\\n`` only (``str.splitlines`` also splits at form feeds)."""

from pathlib import Path

from mmf_flava.files.regular_file import read_regular_file


def split_lines(text: str) -> list[str]:
    """Split a text into lines without their line ends. The last line may have no line end."""
    lines = text.split("\n")
    if not lines[-1]:
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file, with or without a byte order mark.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    return split_lines(read_regular_file(path).decode("utf-8-sig"))
