"""Reader of YFCC100M's metadata: text with 23 to 25 columns, compressed or not, or the SQLite database."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmf_flava.data.prepare.annotations import (
    Annotation,
    LazyAnnotation,
    annotate,
    flickr_id,
    make_annotation,
    malformed_line,
)
from mmf_flava.data.prepare.caption_rules import load_english_detector, yfcc_caption
from mmf_flava.data.prepare.source_files import read_tsv
from mmf_flava.files.regular_file import open_regular_file

SQLITE = b"SQLite format 3\x00"
COLUMNS = 23
# numbers of the columns in the text format of 23 columns, and names in the database
FIELDS = {"photoid": 0, "title": 6, "description": 7, "downloadurl": 14, "marker": 22}
HASHES = ("hash", "photohash", "key")


def read_yfcc100m(path: Path) -> Iterator[LazyAnnotation]:
    """Read ``yfcc100m_dataset``, TSV without header: 23 columns, 24 with a line number, or 25 with a photo hash too.

    Columns, numbered from 0: 0 photo id, 6 title, 7 description (both URL-encoded), 14 download URL, 22 marker
    (1 = video). In the format with 25 columns, the line number precedes column 0 and the hash follows it.
    ``yfcc100m_dataset.sql`` is an SQLite database with a table that has these columns.
    """
    is_english = load_english_detector()

    def convert(row: Sequence[Any]) -> Annotation:
        if len(row) not in (COLUMNS, COLUMNS + 1, COLUMNS + 2):
            return malformed_line(len(row), f"{COLUMNS} to {COLUMNS + 2}")
        offset = len(row) - COLUMNS
        identity, hashes = str(row[1] if offset else row[0]), [str(row[2])] if offset == 2 else []
        row = row[offset:]
        if str(row[FIELDS["marker"]]) == "1":
            return Annotation(dropped="video")
        caption, reason = yfcc_caption(row[FIELDS["description"]] or "", row[FIELDS["title"]] or "", is_english)
        if caption is None:
            return Annotation(dropped=reason)
        url = row[FIELDS["downloadurl"]] or ""
        ids = [flickr_id(identity)] if identity.isdecimal() else []
        return make_annotation(caption, url, [identity, *hashes, *_hash_names(url)], ids=ids)

    yield from annotate(_database_rows(path) if is_database(path) else read_tsv(path), convert)


def is_database(path: Path) -> bool:
    """Return whether a file is an SQLite database."""
    with open_regular_file(path) as file:
        return file.read(len(SQLITE)) == SQLITE


def _hash_names(url: str) -> tuple[str, str]:
    """Return the file names of an image in the Multimedia Commons: the MD5 of its URL, bytes without leading zeros."""
    digest = hashlib.md5(url.encode("utf-8", "replace"), usedforsecurity=False).digest()
    return "".join(f"{byte:x}" for byte in digest), digest.hex()


def _database_rows(path: Path) -> Iterator[list[Any]]:
    """Yield the rows of the database as lists of 25 columns, most of them empty."""
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        table, columns = _find_table(connection)
        hashed = next((name for name in HASHES if name in columns), "NULL")
        selected = ", ".join((*FIELDS, hashed))
        for *values, photo_hash in connection.execute(f'SELECT {selected} FROM "{table}" ORDER BY rowid'):
            row: list[Any] = [""] * COLUMNS
            for number, value in zip(FIELDS.values(), values, strict=True):
                row[number] = value
            yield ["", row[0], photo_hash or "", *row[1:]]


def _find_table(connection: sqlite3.Connection) -> tuple[str, set[str]]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = {row[1].lower() for row in connection.execute(f'PRAGMA table_info("{table}")')}
        if columns >= set(FIELDS):
            return table, columns
    raise ValueError(f"no table has the columns {', '.join(FIELDS)}; tables: {', '.join(tables) or 'none'}")
