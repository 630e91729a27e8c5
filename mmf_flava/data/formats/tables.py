"""Tables: files whose rows have columns. CSV, TSV, JSON Lines, JSON, MMF's imdb and parquet, recognised by content."""

import io
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from mmf_flava.data.formats.arrow_files import ArrowFile
from mmf_flava.data.formats.delimited import Delimited
from mmf_flava.data.formats.file_types import FileType, file_type
from mmf_flava.data.imdb import read_imdb
from mmf_flava.data.prepare.source_files import open_bytes, open_text
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import parse_json

SAMPLED_ROWS = 1000  # rows of a JSON file whose keys are its columns
Row = tuple[int, Mapping[str, Any] | str]  # number of the row in its file; its values, or the reason why it is invalid
DAMAGED = "Copy or download it again"


class Table(Protocol):
    """A file of rows.

    Attributes:
        kind: name of the format, for the log.
        unit: what the numbers of the rows count: line, row or entry.
        columns: names of the columns.
        direct: whether the file has one JSON object per line in UTF-8, which can be read at any line without a copy.
    """

    kind: str
    unit: str
    columns: list[str]
    direct: bool

    def rows(self, columns: Collection[str]) -> Iterator[Row]:
        """Yield the rows in order, with at least these columns. Blank lines are skipped."""
        ...


def open_table(path: Path) -> Table:
    """Open a file of rows.

    Raises:
        OSError: the file cannot be read.
        UserError: the file is damaged, or has no rows.
    """
    kind = file_type(path)
    if kind == FileType.JSON_LINES:
        return JsonLines(path)
    if kind == FileType.TEXT:
        return Delimited(path)
    if kind == FileType.PARQUET:
        return Parquet(path)
    if kind in (FileType.JSON, FileType.IMDB):
        return JsonEntries(path, kind)
    raise UserError(f"{path} is not a table, but {kind.description}. {kind.remedy}")


class JsonLines:
    """One JSON object per line."""

    kind, unit = "JSON Lines", "line"

    def __init__(self, path: Path):
        self.path = path
        with open_bytes(path) as file:
            self.direct = isinstance(file, io.BufferedReader)
        with open_text(path) as text:
            self.direct = self.direct and text.encoding.startswith("utf-8")
        self.columns = _keys(row for _, row in islice(self.rows(()), SAMPLED_ROWS))

    def rows(self, columns: Collection[str]) -> Iterator[Row]:
        with damaged_file(self.path, "text file", DAMAGED + "."), open_text(self.path) as text:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    yield number, parse_row(line)


class JsonEntries:
    """A JSON array of objects, MMF's {"metadata": ..., "data": [...]}, or an imdb file."""

    unit, direct = "entry", False

    def __init__(self, path: Path, kind: FileType):
        self.path, self.kind = path, kind.value
        self._entries = read_imdb(path) if kind == FileType.IMDB else _json_entries(path)
        self.columns = _keys(self._entries[:SAMPLED_ROWS])

    def rows(self, columns: Collection[str]) -> Iterator[Row]:
        for number, entry in enumerate(self._entries, start=1):
            yield number, entry if isinstance(entry, dict) else "not a JSON object"


class Parquet:
    """A parquet file with the paths of images, or without images."""

    kind, unit, direct = "parquet", "row", False

    def __init__(self, path: Path):
        self._file = ArrowFile(path)
        self.columns = self._file.columns

    def rows(self, columns: Collection[str]) -> Iterator[Row]:
        names = [name for name in self.columns if name in columns]
        for number, row in enumerate(self._file.read(names), start=1):
            yield number, row if isinstance(row, dict) else str(row)


def parse_row(line: bytes | str) -> dict[str, Any] | str:
    """Parse a JSON object; return the reason why it is invalid."""
    try:
        row = parse_json(line)
    except ValueError as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else "not a JSON object"


def _keys(rows: Any) -> list[str]:
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))


def _json_entries(path: Path) -> list[Any]:
    with damaged_file(path, "JSON file", DAMAGED + ", or write one JSON object per line."), open_bytes(path) as file:
        data = parse_json(file.read())
    entries = data.get("data") if isinstance(data, dict) else data
    if isinstance(entries, list):
        return entries
    if isinstance(data, dict) and {"images", "annotations"} & data.keys():
        raise UserError(
            f"{path}: expected an array of objects, but it has the keys {', '.join(list(data)[:5])} of COCO's "
            "annotations. Convert COCO's captions_*.json to shards with `python -m mmf_flava.data.prepare pmd --part "
            "coco`."
        )
    if isinstance(data, dict) and data and all(isinstance(column, dict) for column in data.values()):
        raise UserError(
            f"{path}: expected an array of objects, but it has one object per column ({', '.join(list(data)[:5])}), as "
            'pandas writes by default. Write it with df.to_json(PATH, orient="records").'
        )
    raise UserError(f'{path}: expected an array of objects, or {{"data": [...]}} as in MMF. Write one object per row.')
