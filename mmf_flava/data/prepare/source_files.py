"""Reading of foreign files as rows: text, JSON, JSONL, TSV and parquet, compressed or not."""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

from mmf_flava.data.names import is_hidden
from mmf_flava.data.record import BadRecord, record_boundary
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_json
from mmf_flava.files.regular_file import open_regular_file
from mmf_flava.files.text_file import TextFile

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, decompressed if its content is gzip, bzip2, xz or a zip archive of one file.

    Raises:
        UserError: a zip archive contains several files.
    """
    file = open_regular_file(path)  # opening a pipe would wait for its writer
    head = file.read(10)
    opener: Any = None
    if head.startswith(b"\x1f\x8b"):
        opener = gzip.open
    elif head.startswith(b"BZh") and head[4:] == b"1AY&SY":
        opener = bz2.open
    elif head.startswith(b"\xfd7zXZ\x00"):
        opener = lzma.open
    elif head.startswith(b"PK\x03\x04"):
        opener = _open_zip
    if opener is None:
        file.seek(0)
        return file
    file.close()
    return opener(path)


def _open_zip(path: Path) -> IO[bytes]:
    archive = ZipFile(path)
    members = [
        member for member in archive.namelist() if member[-1] != "/" and not any(map(is_hidden, member.split("/")))
    ]
    if len(members) != 1:
        raise UserError(f"{path}: the archive contains {len(members)} files. Unpack it, and set --src to its folder.")
    return archive.open(members[0])


def open_text(path: Path) -> TextFile:
    """Open a text file, decompressed as by ``open_bytes``. ``TextFile`` finds out its encoding and bounds its lines."""
    return TextFile(open_bytes(path), path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    with open_text(path) as file:
        return parse_json(file.read())


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file that are not blank."""
    with open_text(path) as file:
        yield from (line for line in file if not line.isspace())


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the objects of a JSONL file. For a line that is not JSON, yield the ValueError."""
    yield from map(parse_json_line, read_lines(path))


def parse_json_line(line: str) -> Any:
    """Return the content of a line of a JSONL file; if it is not JSON, the ValueError."""
    try:
        return parse_json(line)
    except ValueError as error:
        return error


def read_tsv(path: Path) -> Iterator[list[str]]:
    """Yield the fields of each line. Quotation marks have no meaning."""
    with open_text(path) as file:
        for line in file:
            yield line.rstrip("\r\n").split("\t")


def open_parquet(path: Path) -> Any:
    """Open a parquet file as pyarrow's ParquetFile. Raise UserError if pyarrow is not installed."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'mmf_flava[data]'.") from None
    return ParquetFile(path, page_checksum_verification=True)


def read_parquet(path: Path, columns: list[str] | None = None, first: int = 0, batch_size: int = 1024) -> Iterator[Any]:
    """Yield the rows of a parquet file from row ``first`` on. For a row that cannot be decoded, yield the exception.

    Raises:
        UserError: pyarrow is not installed.
    """
    with open_parquet(path) as file:
        groups = list(range(file.num_row_groups))
        while groups and first >= (rows := file.metadata.row_group(groups[0]).num_rows):
            first -= rows
            del groups[0]
        for batch in file.iter_batches(batch_size, row_groups=groups, columns=columns):
            yield from decode_rows(batch.slice(min(first, len(batch))))
            first = max(0, first - len(batch))


def lazy_parquet(path: Path) -> Iterator[Callable[[], Any]]:
    """Yield a function for each row of a parquet file, which reads the row. Row groups without calls are not read.

    Raises:
        UserError: pyarrow is not installed.
    """
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            rows = _LazyRows(file.iter_batches(1024, row_groups=[group]))
            yield from (partial(rows.read, number) for number in range(file.metadata.row_group(group).num_rows))


def lazy_arrow(path: Path) -> Iterator[Callable[[], Any]]:
    """Yield a function for each row of an Arrow file, which decodes the row; see ``read_arrow``."""
    for batch in _arrow_batches(path):
        rows = _LazyRows([batch])
        yield from (partial(rows.read, number) for number in range(len(batch)))


class _LazyRows:
    """The rows of batches, which are read in ascending order. The rows of one batch are in memory."""

    def __init__(self, batches: Iterable[Any]):
        self._batches = iter(batches)
        self._batch: Any = None
        self._rows: list[Any] | None = None
        self._start = self._end = 0

    def read(self, number: int) -> Any:
        while number >= self._end:
            self._batch, self._rows = next(self._batches), None
            self._start, self._end = self._end, self._end + len(self._batch)
        if self._rows is None:
            self._rows = decode_rows(self._batch)
        return self._rows[number - self._start]


def read_arrow(path: Path, first: int = 0) -> Iterator[Any]:
    """Yield the rows of an Arrow file or stream, the format in which Hugging Face's ``datasets`` stores its data.

    Args:
        first: number of the first row; the rows before it are not decoded.

    Raises:
        UserError: pyarrow is not installed.
    """
    for batch in _arrow_batches(path):
        yield from decode_rows(batch.slice(min(first, len(batch))))
        first = max(0, first - len(batch))


def _arrow_batches(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'mmf_flava[data]'.") from None
    with pyarrow.OSFile(str(path)) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
        yield from map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader


def decode_rows(batch: Any) -> list[Any]:
    """Return the rows of a pyarrow batch as dicts; for a row that cannot be decoded, for example text, an exception."""
    try:
        with record_boundary("rows"):
            return batch.to_pylist()
    except BadRecord as error:
        if len(batch) == 1:
            return [ValueError(error.message)]
        return [row for number in range(len(batch)) for row in decode_rows(batch.slice(number, 1))]
