"""Lookup of images by URL or file name, in img2dataset's tar shards or among image files.

Images are those of img2dataset (tar shards, or files with a .json beside each image), other tar shards, or image files.
The index is an SQLite file on disk, so that memory does not grow with the number of images.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path

from mmf_flava.data.image_folder import find_images
from mmf_flava.data.names import display_name, extension_of
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, record_boundary
from mmf_flava.data.shards import ShardReader, find_shards
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import parse_object
from mmf_flava.files.regular_file import read_regular_file


class ImageSource:
    """Images in ``folder``, found by URL or file name.

    The folder contains either ``*.tar`` shards (matched by the URL in each ``json``, as img2dataset writes it; records
    without a URL by their key) or image files at any depth (matched by file name, with or without extension, and by the
    URL in a .json file beside the image). If several images match, the first one is used.

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

    @cached_property
    def examples(self) -> str:
        """The first URLs or file names, for messages."""
        rows = self._database.execute("SELECT location FROM images LIMIT 6")  # a file has one or two rows
        locations = sorted({os.fsdecode(location) for (location,) in rows})[:3]
        if self._reader is None:
            return f"{self.folder} has files such as {', '.join(map(display_name, locations))}"
        keys = [key for location in locations for key in islice(self._keys(self._reader, int(location)), 1)]
        return f"{self.folder} has shards whose records are known as {', '.join(keys)}"

    def read(self, annotation: Annotation) -> tuple[str, bytes] | None:
        """Return (extension, original bytes) of an annotated image; None if it was not found or is empty.

        Raises:
            BadRecord: the image was found, but cannot be read.
        """
        query, bad = "SELECT location FROM images WHERE key = ?", None
        stems = (name.rpartition(".")[0] for name in annotation.names)
        for key in (annotation.url, *annotation.names, *stems):
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
            for key in ImageSource._keys(reader, number):
                yield key, str(number)

    @staticmethod
    def _keys(reader: ShardReader, number: int) -> Iterator[str]:
        """Yield the URL of a record; without one, its key, unless img2dataset numbered the records."""
        # without a readable URL or key, no annotation can refer to the record
        with suppress(BadRecord), record_boundary(f"record {number}"):
            record = reader.read(number, ["json"])
            data = parse_object(record.fields["json"]) if "json" in record.fields else {}
            if isinstance(data.get("url"), str):
                yield data["url"]
            elif "url" not in data:
                yield record.key.rpartition("/")[2]

    def _files(self) -> Iterator[tuple[str, str]]:
        for path in find_images(self.folder):
            name = os.path.basename(path)
            stem = name.rpartition(".")[0]
            url = None
            # img2dataset's files are numbered, so that their names say nothing
            with suppress(OSError, ValueError):
                url = parse_object(read_regular_file(self.folder / path[: len(path) - len(name)] / f"{stem}.json")).get(
                    "url"
                )
            if isinstance(url, str):
                yield url, path
            else:
                yield name, path
                yield stem, path


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of the names and sizes of files, to detect changed input when preparation is resumed."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
