"""Lists: the rows of a table, each with the path of an image, its captions, its label, its id and its split.

    {"image": "train/1.jpg", "captions": ["a cat", "a grey cat"], "label": 3, "id": "cat-1", "split": "train"}

The table is a file of JSON Lines, JSON, CSV, TSV or parquet, or MMF's annotations (JSON Lines, JSON or imdb); see
``formats.tables``. ``formats.columns`` says which column has what. Captions are a string or a list of strings; labels
are class numbers or class names; see ``annotations`` for their values.
"""

import json
import logging
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.data.formats.columns import Columns, Entry
from mmf_flava.data.formats.image_paths import check_image_paths, resolve_image
from mmf_flava.data.formats.stored_rows import StoredRows
from mmf_flava.data.formats.tables import open_table
from mmf_flava.data.names import display_name, extension_of
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.regular_file import read_regular_file

logger = logging.getLogger(__name__)

MAX_SHOWN_ERRORS = 3  # invalid lines that an error message describes
ATTRIBUTES = ("image", "captions", "label", "id", "name", "split")  # of ``ImageList.column``


class ImageList:
    """Records of one table. A record has the image, if the row has one, and ``json`` with the other values of the row.

    ``json`` is {"captions": [...], "label": n, "split": "train"}; missing values are left out.
    A record's key is its id, or its image path if it has no id, or "line 7" if it has neither; "#" and the number of
    the row are appended to duplicates.
    Opening reads every row once. An invalid row is a bad record.
    Memory use is 9 bytes per row, and up to ``stored_rows.MAX_MEMORY`` bytes of text of a table that is not JSON Lines.
    Readers can be forked and pickled.

    Args:
        path: the table.
        images: root folder of relative image paths; defaults to the folder of the table.
        columns: value of the config key ``columns``.
        images_required: whether a row without an image is invalid.

    Raises:
        UserError: the file is missing, empty or not a table, its columns or the images of its first rows are not
            found, or all of its rows are invalid.
    """

    sequential = False

    def __init__(
        self,
        path: str | Path,
        images: str | Path | None = None,
        columns: Mapping[str, Any] | None = None,
        images_required: bool = True,
    ):
        self.path = Path(path)
        self.images = Path(images) if images is not None else self.path.parent
        if not self.images.is_dir():
            raise UserError(f"{self.path}: the image folder {self.images} does not exist. Correct the path.")
        try:
            table = open_table(self.path)
            self.unit = table.unit
            self.columns = Columns(self.path, table.columns, columns, images_required)
            missing_images = check_image_paths(table, self.columns, self.images)
            names = dict.fromkeys(name for role in self.columns.names.values() for name in role)
            self._rows = StoredRows(self.path, table, [*names])
            self._scan(self._rows)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}). Correct the path.") from None
        if missing_images is not None:
            raise missing_images
        columns_used = self.columns.format_chosen()
        logger.info("%s: %s records of %s; %s.", self.path, f"{len(self):,}", table.kind, columns_used or "no columns")

    def _scan(self, lines: Iterable[bytes]) -> None:
        starts, blank_positions, key_hashes = array("Q"), array("Q"), array("Q")
        images_digest, lines_digest, offset, position = sha256(), sha256(), 0, 0
        errors: list[str] = []
        self._invalid: set[int] = set()
        for position, line in enumerate(lines, start=1):
            if line.isspace():
                blank_positions.append(len(starts))
            else:
                number = position
                starts.append(offset)
                try:
                    number, entry = self._entry(line, position)
                    key = self._key(entry, number).encode()
                    images_digest.update(os.fsencode(entry.image or "") + b"\n")
                    key_hashes.append(int.from_bytes(blake2b(key, digest_size=8).digest()))
                except InvalidRow as error:
                    number = error.number
                    if len(errors) <= MAX_SHOWN_ERRORS:  # one more, so that join_first appends an ellipsis
                        errors.append(f"{self.unit} {number} ({error})")
                    self._invalid.add(len(key_hashes))
                    images_digest.update(f"invalid {self.unit} {number}\n".encode())
                    key_hashes.append(number)
            lines_digest.update(line)
            offset += len(line)
        if errors:
            count = len(starts) if self._rows.numbered else position
            units = {"entry": "entries"}.get(self.unit, f"{self.unit}s")
            message = (
                f"{self.path}: {len(self._invalid)} of {count} {units} are invalid: "
                f"{join_first(errors, MAX_SHOWN_ERRORS)}. Correct them."
            )
            if len(self._invalid) == len(starts):
                raise UserError(message)
            logger.warning(message)
        if not starts:
            raise UserError(f"{self.path} has no records: it has no rows of data. Add them, or write it again.")
        starts.append(offset)
        self._starts, self._blank_positions = np.array(starts), blank_positions
        self.images_sha256, self.lines_sha256 = images_digest.hexdigest(), lines_digest.hexdigest()
        self._duplicated = _find_duplicated(np.frombuffer(key_hashes, np.uint64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the entry is invalid, a file cannot be read, or the annotation file has changed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record index {index} is out of range for {len(self)} records")
        number, entry = self._read_entry(index)
        key = self._value("id", index, number, entry)
        fields = {}
        if entry.image is not None:
            # Pillow detects the format from the content, so any known extension works.
            extension = extension_of(entry.image)
            extension = extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]
            if only is None or extension in only:
                path = self.images / entry.image
                try:
                    path = resolve_image(self.images, entry.image)
                    fields[extension] = read_regular_file(path)
                except (OSError, ValueError) as error:  # ValueError: an invalid path
                    raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}", key) from error
        if only is None or "json" in only:
            values = {"captions": entry.captions, "label": entry.label, "split": entry.split}
            fields["json"] = json.dumps({name: value for name, value in values.items() if value is not None}).encode()
        return Record(key, fields)

    def column(self, name: str) -> list[Any]:
        """Return one value of every record, see ``values``."""
        return list(self.values(name))

    def values(self, name: str) -> Iterator[Any]:
        """Yield one value of every record, without reading images; None for invalid rows.

        Args:
            name: image (the path), captions, label or split; id: the record's key; name: the id or, if there is none,
                the image path or "line 7", as in the file, which several records may have.

        Raises:
            UserError: the file has changed or cannot be read.
        """
        for found in self._entries():
            yield None if found is None else self._value(name, *found)

    def _value(self, name: str, index: int, number: int, entry: Entry) -> Any:
        if name == "id":
            return self._key(entry, number) + f"#{number}" * bool(self._duplicated[index])
        if name == "name":
            return entry.entry_id or entry.image or self._key(entry, number)
        return getattr(entry, name)

    def read_labels(self) -> Iterator[tuple[str, Any]]:
        """Yield (location, label as in the file) of each valid record, for example ("line 3", 7). Reads the whole file.

        Raises:
            UserError: the file has changed or cannot be read.
        """
        for found in self._entries():
            if found is not None:
                _, number, entry = found
                yield f"{self.unit} {number}", entry.label

    def _entries(self) -> Iterator[tuple[int, int, Entry] | None]:
        """Yield the index, the number of the row and the entry of each record; None for an invalid row."""
        for index in range(len(self)):
            if index in self._invalid:
                yield None
                continue
            try:
                yield index, *self._read_entry(index)
            except BadRecord as error:
                raise UserError(f"{error} Restart the run.") from error

    def require(self, role: str) -> None:
        """Raise UserError if the table has no column for a role (image, caption, label, id, split)."""
        self.columns.require(role)

    def line_bytes(self, index: int) -> int:
        """Return the length in bytes of the line of record ``index``."""
        return int(self._starts[index + 1] - self._starts[index])

    def _read_entry(self, index: int) -> tuple[int, Entry]:
        """Return the number of the row of record ``index`` and its entry. Raises BadRecord."""
        position = index + 1 + bisect_right(self._blank_positions, index)
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        try:
            return self._entry(self._rows.read(start, end - start), position)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self._rows.path} cannot be read: {error}") from error
        except InvalidRow as error:
            key = f"{self.unit} {error.number}"
            if index in self._invalid:
                raise BadRecord(Reason.INVALID_ENTRY, f"{self.path}: {key} is invalid ({error})", key) from error
            raise BadRecord(Reason.CHANGED, f"{self.path}: {key} has changed ({error}).", key) from error

    def _entry(self, line: bytes, position: int) -> tuple[int, Entry]:
        """Return the number of the row of a line and its entry.

        Raises:
            InvalidRow: the row is invalid.
        """
        number = position
        try:
            number, row = self._rows.parse(line, position)
            if isinstance(row, str):
                raise ValueError(row)
            entry = self.columns.entry(row)
            os.fsencode(entry.image or "")  # raises ValueError for lone surrogates that are not bytes of a file name
        except ValueError as error:
            raise InvalidRow(number, str(error)) from None
        return number, entry

    def _key(self, entry: Entry, number: int) -> str:
        name = entry.image if entry.entry_id is None else entry.entry_id
        return f"{self.unit} {number}" if name is None else display_name(name)


def _find_duplicated(values: np.ndarray) -> np.ndarray:
    """Return whether each of N integers occurs more than once. np.unique and np.isin need four times the memory."""
    ordered = np.sort(values)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return np.zeros(len(values), bool)
    places = np.searchsorted(repeated, values).clip(max=len(repeated) - 1)
    return repeated[places] == values


class InvalidRow(ValueError):
    """A row that is invalid. Its message is the reason; ``number`` is the number of the row."""

    def __init__(self, number: int, reason: str):
        super().__init__(reason)
        self.number = number
