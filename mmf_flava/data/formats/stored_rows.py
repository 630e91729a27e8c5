"""The rows of a table as lines of JSON with random access.

JSON Lines are read where they are. The rows of other tables are converted once: to memory if they are few, otherwise to
a file in the cache, whose name depends on the path, the size and the modification time of the table.
"""

import hashlib
import io
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mmf_flava.data.formats.tables import Table, parse_row
from mmf_flava.data.imdb import to_json
from mmf_flava.data.prepare.lock import folder_lock
from mmf_flava.errors import UserError, is_out_of_resources
from mmf_flava.files import atomic
from mmf_flava.files.download import default_cache_dir
from mmf_flava.files.json_data import parse_json
from mmf_flava.files.random_access import RandomAccessFile
from mmf_flava.files.regular_file import open_regular_file

MAX_MEMORY = 1 << 24  # bytes of the rows of a table that are kept in memory
VERSION = 1  # of the converted rows


class StoredRows:
    """Lines of the rows of a table. Can be forked and pickled.

    Attributes:
        numbered: whether a line is [number, row], and not the row itself.
    """

    def __init__(self, path: Path, table: Table, columns: Collection[str]):
        self.numbered = not table.direct
        self._text: bytes | None = None
        self.path = path
        if self.numbered:
            stored = _stored_path(path, columns)
            if not stored.is_file():
                self._text = _small_text(table, columns)
            if self._text is None:
                _store(path, table, columns, stored)
                self.path = stored
        self._file = RandomAccessFile(self.path)

    def __iter__(self) -> Iterator[bytes]:
        with io.BytesIO(self._text) if self._text is not None else open_regular_file(self.path) as file:
            yield from file

    def read(self, start: int, size: int) -> bytes:
        """Return the line of ``size`` bytes from byte ``start`` on. Raises OSError if the file cannot be read."""
        return self._file.read(start, size) if self._text is None else self._text[start : start + size]

    def parse(self, line: bytes, number: int) -> tuple[int, dict[str, Any] | str]:
        """Return the number of a row in the table, and the row or the reason why it is invalid.

        Args:
            number: number of the line.

        Raises:
            ValueError: the converted line has changed.
        """
        if not self.numbered:
            return number, parse_row(line)
        number, row = parse_json(line)
        return number, row


def _convert(table: Table, columns: Collection[str]) -> Iterator[bytes]:
    for number, row in table.rows(columns):
        kept = row if isinstance(row, str) else {name: row[name] for name in columns if row.get(name) is not None}
        try:
            line = json.dumps([number, kept], default=to_json)
        except (ValueError, TypeError, RecursionError) as error:
            line = json.dumps([number, f"its values cannot be read ({type(error).__name__})"])
        yield line.encode() + b"\n"


def _small_text(table: Table, columns: Collection[str]) -> bytes | None:
    """Return the converted rows, or None if they have more than ``MAX_MEMORY`` bytes."""
    parts, size = [], 0
    for line in _convert(table, columns):
        parts.append(line)
        size += len(line)
        if size > MAX_MEMORY:
            return None
    return b"".join(parts)


def _stored_path(path: Path, columns: Collection[str]) -> Path:
    """Return the path of the converted rows of a table in the cache."""
    status = path.stat()
    key = [VERSION, os.path.realpath(path), status.st_size, status.st_mtime_ns, *sorted(columns)]
    return default_cache_dir() / "tables" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.jsonl"


def _store(path: Path, table: Table, columns: Collection[str], stored: Path) -> None:
    """Write the converted rows to the file ``stored`` in the cache, unless another run has written them."""
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(stored.parent):
            if not stored.is_file():
                with atomic.replace_file(stored) as temporary, open(temporary, "wb") as file:
                    file.writelines(_convert(table, columns))
    except OSError as error:
        if is_out_of_resources(error):
            raise
        raise UserError(
            f"{path}: its rows cannot be written to {stored.parent} ({error.strerror}). Set the environment variable "
            "MMF_CACHE_DIR to a folder that can be written to."
        ) from None
