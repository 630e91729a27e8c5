"""Lookup of images by URL or file name, in img2dataset's tar shards or among image files.

The index is an SQLite file on disk, so that memory does not grow with the number of images.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from mmf_flava.data.image_folder import find_images
from mmf_flava.data.names import extension_of
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, record_boundary
from mmf_flava.data.shards import ShardReader, find_shards
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import parse_object
from mmf_flava.files.regular_file import read_regular_file


class ImageSource:
    """Images in ``folder``, found by URL or file name.

    The folder contains either ``*.tar`` shards of img2dataset (matched by the URL in each ``json``) or image files at
    any depth (matched by file name, with or without extension). If several images match, the first one is used.

    Args:
        database: path of the index; it is written if it does not exist.

    Raises:
        UserError: the folder contains neither shards nor image files.
    """

    def __init__(self, folder: str | Path, database: Path):
        self.folder = Path(folder)
        shards = find_shards(self.folder)
        self._reader = ShardReader(shards) if shards else None
        if not shards and not self.folder.is_dir():
            raise UserError(
                f"{folder}: no images found. Set --images to img2dataset's output or a folder of image files."
            )
        if not database.is_file():
            self._write_index(database)
        self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            first = self._database.execute("SELECT location FROM images LIMIT 1").fetchone()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{database} is damaged ({error}). Delete it and prepare the data again.") from None
        if first is None:
            raise UserError(
                f"{folder}: no images found. Expected *.tar shards with a url in their json files, or "
                f"{', '.join(IMAGE_EXTENSIONS)} files."
            )

    def read(self, annotation: Annotation) -> tuple[str, bytes] | None:
        """Return (extension, original bytes) of an annotated image; None if it was not found or is empty.

        Raises:
            BadRecord: the image was found, but cannot be read.
        """
        query, bad = "SELECT location FROM images WHERE key = ?", None
        for key in (annotation.url, *annotation.names):
            found = key and self._database.execute(query, (_digest(key),)).fetchone()
            try:
                if found and (image := self._read(found[0])):
                    return image
            except BadRecord as error:
                bad = bad or error
        if bad is not None:
            raise bad
        return None

    def _read(self, location: bytes) -> tuple[str, bytes] | None:
        if self._reader is None:
            path = os.fsdecode(location)
            try:
                data = read_regular_file(self.folder / path)
            except OSError as error:
                raise BadRecord(Reason.VANISHED, f"{self.folder / path} cannot be read: {error}", path) from error
            return (extension_of(path), data) if data else None
        fields = self._reader.read(int(location), IMAGE_EXTENSIONS).fields
        return next(((extension, data) for extension, data in fields.items() if data), None)

    def _write_index(self, database: Path) -> None:
        """Write the index atomically, so that a killed process leaves no partial index."""
        found = self._files() if self._reader is None else self._records(self._reader)
        # names of files may be invalid UTF-8, which SQLite does not store as text
        rows = ((_digest(key), os.fsencode(location)) for key, location in found)
        with atomic.replace_file(database) as temporary, closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("CREATE TABLE images (key BLOB PRIMARY KEY, location BLOB) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", rows)
            connection.commit()

    @staticmethod
    def _records(reader: ShardReader) -> Iterator[tuple[str, str]]:
        for number in range(len(reader)):
            url = None
            # without a readable URL, no annotation can refer to the record
            with suppress(BadRecord), record_boundary(f"record {number}"):
                url = parse_object(reader.read(number, ["json"]).fields["json"])["url"]
            if isinstance(url, str):
                yield url, str(number)

    def _files(self) -> Iterator[tuple[str, str]]:
        for path in find_images(self.folder):
            name = os.path.basename(path)
            yield name, path
            yield name.rpartition(".")[0], path


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of the names and sizes of files, to detect changed input when preparation is resumed."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
