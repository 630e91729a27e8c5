"""Finds the image of a row, in img2dataset's tar shards or among files, through an index on disk.

The index is one SQLite file: the memory does not grow with the number of images.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmf_flava.data.prepare.published import Row
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord
from mmf_flava.data.shards import ShardReader, shard_paths
from mmf_flava.errors import UserError


class ImageSource:
    """Images in ``folder``: ``*.tar`` shards of img2dataset (matched by the url in each ``json``), else image files
    in any depth (matched by file name, or by file name without extension). Of two with one name the first is taken.

    Raises:
        UserError: there is neither.
    """

    def __init__(self, folder: str | Path, database: Path):
        self.folder = Path(folder)
        shards = shard_paths(self.folder)
        self._reader = ShardReader(shards) if shards else None
        if not shards and not self.folder.is_dir():
            raise UserError(f"There are no images at {folder}: give img2dataset's output or a folder of image files.")
        if not database.is_file():
            self._make(database)
        self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        if self._database.execute("SELECT count(*) FROM (SELECT 1 FROM place LIMIT 1)").fetchone()[0] == 0:
            raise UserError(
                f"There are no images in {folder}: looked for *.tar shards whose json parts hold a url, and for "
                f"{', '.join(IMAGE_EXTENSIONS)} files."
            )

    def read(self, row: Row) -> tuple[str, bytes] | None:
        """(extension, bytes as they are) of the row's image; None when there is none, or it is empty."""
        for key in (row.url, *row.names):
            found = key and self._database.execute("SELECT at FROM place WHERE key = ?", (_digest(key),)).fetchone()
            if found and (image := self._read(found[0])):
                return image
        return None

    def _read(self, place: str) -> tuple[str, bytes] | None:
        if self._reader is None:
            try:
                return place.rpartition(".")[2].lower(), (self.folder / place).read_bytes()
            except OSError:
                return None
        try:
            parts = self._reader.read(int(place), IMAGE_EXTENSIONS).parts
        except BadRecord:
            return None
        return next(((extension, data) for extension, data in parts.items() if data), None)

    def _make(self, database: Path) -> None:
        """Writes the index under another name first, so that a killed build leaves none that is half done."""
        temporary = database.with_name(f".{database.name}.partial")
        temporary.unlink(missing_ok=True)
        connection = sqlite3.connect(temporary)
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("CREATE TABLE place (key BLOB PRIMARY KEY, at TEXT) WITHOUT ROWID")
        places = self._files() if self._reader is None else self._records(self._reader)
        connection.executemany("INSERT OR IGNORE INTO place VALUES (?, ?)", ((_digest(key), at) for key, at in places))
        connection.commit()
        connection.close()
        os.replace(temporary, database)

    @staticmethod
    def _records(reader: ShardReader) -> Iterator[tuple[str, str]]:
        for number in range(len(reader)):
            try:
                data = json.loads(reader.read(number, ["json"]).parts["json"])
                yield data["url"], str(number)
            except (BadRecord, KeyError, TypeError, ValueError):
                continue  # a record without a readable address cannot be asked for

    def _files(self) -> Iterator[tuple[str, str]]:
        for folder, subfolders, names in os.walk(self.folder, followlinks=True):
            subfolders.sort()
            for name in sorted(names):
                stem, _, extension = name.rpartition(".")
                if extension.lower() in IMAGE_EXTENSIONS:
                    below = os.path.relpath(os.path.join(folder, name), self.folder)
                    yield name, below
                    yield stem, below


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=12).digest()


def fingerprint(paths: Iterable[Path]) -> str:
    """A hash of names and sizes: tells whether a build that goes on still reads what it began with."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
