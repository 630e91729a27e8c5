"""CSV and TSV: text whose rows are fields between commas, tabs, semicolons or vertical bars.

The delimiter is the one by which the first rows have as many fields as the first line, or that of Excel's first line
``sep=;``. Quotation marks enclose fields with delimiters, line ends or doubled quotation marks, as in RFC 4180. A row
that breaks these rules costs only itself: if its line has the right number of fields without regard to quotation marks,
as in TSV files that do not quote, they are used, otherwise the row is invalid. Reading resumes at the next line.
"""

import csv
from collections import Counter, deque
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mmf_flava.data.annotations import clean_text
from mmf_flava.data.formats.encodings import refuse_unknown_encoding
from mmf_flava.data.names import extension_of
from mmf_flava.data.prepare.source_files import open_text
from mmf_flava.data.record import IMAGE_EXTENSIONS
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file

DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "CSV with vertical bars"}
NONE = "\x1f"  # of a table with one column
SAMPLED_ROWS = 100  # rows by which the delimiter is decided
MAX_RECORD = 1 << 20  # characters of a row of several lines, so that a stray quotation mark costs bounded time


class Delimited:
    """A text file with one row of column names, and one row per record.

    Raises:
        UserError: the file has no column names, or its encoding is unknown.
    """

    unit, direct = "line", False

    def __init__(self, path: Path):
        self.path = path
        refuse_unknown_encoding(path)
        with damaged_file(path, "text file", "Copy or download it again."), open_text(path) as text:
            lines = list(islice(_lines(text), 10 * SAMPLED_ROWS))
        self._skipped, self._delimiter = _first_row(lines), NONE
        if self._skipped:
            self._delimiter = lines[0][1].strip().strip('"')[-1] if lines[0][1].strip()[-1:] != "=" else "\t"
        rows = lines[self._skipped :]
        if not self._skipped:
            self._delimiter = max(DELIMITERS, key=lambda delimiter: _fit(rows, delimiter))
            if not _fit(rows, self._delimiter)[0]:
                self._delimiter = NONE
        self.kind = DELIMITERS.get(self._delimiter, "CSV")
        first = next(_records(iter(rows), self._delimiter, 0), (1, []))[1]
        self.columns = _unique([clean_text(name) for name in first] if isinstance(first, list) else [])
        self._check_names()

    def _check_names(self) -> None:
        values = [name for name in self.columns if extension_of(name) in IMAGE_EXTENSIONS]
        if values or not any(self.columns):
            problem = f"but data ({values[0]})" if values else "but is empty"
            names = ",".join(["image", "caption", *(f"column{n}" for n in range(3, len(self.columns) + 1))])
            delimiter = self._delimiter if self._delimiter in DELIMITERS else ","
            raise UserError(
                f"{self.path}: its first line does not name the columns, {problem}. Insert a first line with their "
                f"names, e.g. {names.replace(',', delimiter)!r}."
            )

    def rows(self, columns: Collection[str]) -> Iterator[Any]:
        """Yield the number of each row's first line, and the row or the reason why it is invalid."""
        width = len(self.columns)
        with damaged_file(self.path, "text file", "Copy or download it again."), open_text(self.path) as text:
            lines = islice(_lines(text), self._skipped, None)
            header = True
            for number, fields in _records(lines, self._delimiter, width):
                if header:
                    header = False
                elif isinstance(fields, str):
                    yield number, fields
                elif any(fields):
                    values = dict(zip(self.columns, fields, strict=False))
                    yield number, {name: values[name] for name in columns if values.get(name)}


def _lines(text: Any) -> Iterator[tuple[int, str]]:
    """Yield the numbers and the lines of a file; a carriage return without line feed ends a line too."""
    number = 0
    for line in text:
        parts = [line]
        if "\r" in line[:-2]:
            parts = line.replace("\r\n", "\n").replace("\r", "\r\0").split("\0")
        for part in parts:
            if part:
                number += 1
                yield number, part


def _first_row(lines: list[tuple[int, str]]) -> int:
    """Return 1 if the first line is Excel's ``sep=;``, otherwise 0."""
    first = lines[0][1].strip("\r\n").strip('"') if lines else ""
    return int(first[:4].lower() == "sep=" and len(first) <= 5)


def _fit(lines: list[tuple[int, str]], delimiter: str) -> tuple[float, int]:
    """Return the share of the first rows with as many fields as the first one, and their number; 0 for one field."""
    rows = [fields for _, fields in islice(_records(iter(lines), delimiter, 0), SAMPLED_ROWS)]
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    fitting = sum(isinstance(fields, list) and len(fields) == width for fields in rows)
    return (fitting / len(rows), width) if width > 1 else (0.0, 0)


def _records(lines: Iterator[tuple[int, str]], delimiter: str, width: int) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the number of each row's first line, and its fields or the reason why it is invalid.

    Args:
        width: number of fields of a row; 0: any.
    """
    pending: deque[tuple[int, str]] = deque()

    def following() -> tuple[int, str] | None:
        return pending.popleft() if pending else next(lines, None)

    while (first := following()) is not None:
        number, line = first
        literal = line.rstrip("\r\n").split(delimiter)
        if '"' not in line:
            yield number, _checked(literal, width)
            continue
        block: list[tuple[int, str]] = []
        fields = _quoted_fields(first, following, block, delimiter)
        separate = len(block) > 1 and delimiter == "\t" and all(len(part.split("\t")) == width for _, part in block)
        if isinstance(fields, list) and not separate and (len(block) == 1 or isinstance(_checked(fields, width), list)):
            yield number, _checked(fields, width)
            continue
        pending.extendleft(reversed(block[1:]))
        yield number, literal if len(literal) == width else f"its quotation marks are unbalanced: {line[:80].strip()}"


def _quoted_fields(first: tuple[int, str], following: Any, block: list[tuple[int, str]], delimiter: str) -> Any:
    """Return the fields of the row that starts with a line, or None; add the row's lines to ``block``."""

    def feed() -> Iterator[str]:
        line, size = first, 0
        while line is not None and size < MAX_RECORD:
            block.append(line)
            size += len(line[1])
            yield line[1]
            line = following()
        if line is not None:
            block.append(line)

    try:
        return next(csv.reader(feed(), delimiter=delimiter, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return None


def _checked(fields: list[str], width: int) -> list[str] | str:
    """Return the fields of a row, or the reason why their number is wrong. Empty fields at the end do not matter."""
    if len(fields) > width > 0 and not any(field.strip() for field in fields[width:]):
        fields = fields[:width]
    if not width or len(fields) == width or not any(field.strip() for field in fields):
        return fields
    return f"{len(fields)} fields, but the first line has {width}"


def _unique(names: list[str]) -> list[str]:
    """Return column names of which each occurs once, as pandas does: "a", "a.1"."""
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        unique.append(f"{name}.{counts[name]}" if counts[name] and name else name)
        counts[name] += 1
    return unique
