"""Image lists: annotation files with one entry per image: the path, the captions and the label of the image.

    {"image": "train/1.jpg", "captions": ["a cat", "a grey cat"], "label": 3, "id": "cat-1"}

``.jsonl`` is JSON Lines; ``.json`` is an array of such objects, or MMF's {"metadata": ..., "data": [...]}; ``.npy`` is
MMF's imdb (see ``imdb``). Only the image is required. The key names of MMF's annotations are supported too; the first
key present in each group is used:
    image      image, image_path, img, file_name; image_name and image_id, to which MMF adds ".jpg"
    captions   captions, caption, text, caption_str: a string or a list; caption_tokens: the words of one caption
The label is a class number or a class name. See ``annotations`` for their values.
"""

import io
import json
import logging
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmf_flava.data.annotations import CAPTION_KEYS, to_captions
from mmf_flava.data.imdb import read_imdb
from mmf_flava.data.names import display_name
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.json_data import parse_json
from mmf_flava.files.random_access import RandomAccessFile
from mmf_flava.files.regular_file import open_regular_file, read_regular_file

logger = logging.getLogger(__name__)

LIST_EXTENSIONS = (".jsonl", ".json", ".npy")
IMAGE_KEYS = ("image", "image_path", "img", "file_name", "image_name", "image_id")
NAMES_WITHOUT_EXTENSION = ("image_name", "image_id")
MAX_SHOWN_ERRORS = 3  # invalid lines that an error message describes


class Entry(NamedTuple):
    """One parsed entry: the image path and label as in the file, captions (may be empty) and id."""

    image: str
    captions: tuple[str, ...]
    label: Any
    entry_id: str | None


class ImageList:
    """Records of one annotation file. A record has the image and ``json`` {"captions": [...], "label": n}.

    A record's key is its id, or its image path if it has no id; "#" and the line number are appended to duplicates.
    Opening reads every line once. An invalid line is a bad record.
    Memory use is 9 bytes per line of a JSONL file, or the text of another file.
    Readers can be forked and pickled.

    Args:
        path: the annotation file.
        images: root folder of relative image paths; defaults to the folder of the annotation file.

    Raises:
        UserError: the file is missing, empty or in an unsupported format, or all of its lines are invalid.
    """

    sequential = False

    def __init__(self, path: str | Path, images: str | Path | None = None):
        self.path = Path(path)
        self.images = Path(images) if images is not None else self.path.parent
        self._file = RandomAccessFile(self.path)
        self._text: bytes | None = None
        if not self.images.is_dir():
            raise UserError(f"{self.path}: the image folder {self.images} does not exist. Correct the path.")
        try:
            if self.path.suffix.lower() != ".jsonl":
                self._text = _to_json_lines(self.path)
                self._scan(io.BytesIO(self._text))
            else:
                with open_regular_file(self.path) as file:
                    self._scan(file)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}). Correct the path.") from None

    def _scan(self, lines: Iterable[bytes]) -> None:
        starts, blank_positions, key_hashes = array("Q"), array("Q"), array("Q")
        images_digest, lines_digest, offset, number = sha256(), sha256(), 0, 0
        errors: list[str] = []
        self._invalid: set[int] = set()
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                blank_positions.append(len(starts))
            else:
                starts.append(offset)
                try:
                    entry = parse_entry(line)
                    key = _entry_key(entry).encode()
                    images_digest.update(os.fsencode(entry.image) + b"\n")
                    key_hashes.append(int.from_bytes(blake2b(key, digest_size=8).digest()))
                except ValueError as error:
                    if len(errors) <= MAX_SHOWN_ERRORS:  # one more, so that join_first appends an ellipsis
                        errors.append(f"{self._unit} {number} ({error})")
                    self._invalid.add(len(key_hashes))
                    images_digest.update(f"invalid {self._unit} {number}\n".encode())
                    key_hashes.append(number)
            lines_digest.update(line)
            offset += len(line)
        if errors:
            units = "lines" if self._unit == "line" else "entries"
            message = (
                f"{self.path}: {len(self._invalid)} of {number} {units} are invalid: "
                f"{join_first(errors, MAX_SHOWN_ERRORS)}. Correct them."
            )
            if len(self._invalid) == len(starts):
                raise UserError(message)
            logger.warning(message)
        if not starts:
            raise UserError(f"{self.path} has no records.")
        starts.append(offset)
        self._starts, self._blank_positions = np.array(starts), blank_positions
        self.images_sha256, self.lines_sha256 = images_digest.hexdigest(), lines_digest.hexdigest()
        _, group, sizes = np.unique(np.array(key_hashes), return_inverse=True, return_counts=True)
        self._duplicated = sizes[group] > 1

    @property
    def _unit(self) -> str:
        return "line" if self._text is None else "entry"

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
        number = self._line_number(index)
        try:
            entry = parse_entry(self._line(index))
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.path} cannot be read: {error}") from error
        except ValueError as error:
            key = f"{self._unit} {number}"
            if index in self._invalid:
                raise BadRecord(Reason.INVALID_ENTRY, f"{self.path}: {key} is invalid ({error})", key) from error
            raise BadRecord(Reason.CHANGED, f"{self.path}: {key} has changed ({error})", key) from error
        key = f"{_entry_key(entry)}#{number}" if self._duplicated[index] else _entry_key(entry)
        # Pillow detects the format from the content, so any known extension works.
        extension = entry.image.rpartition(".")[2].lower()
        extension = extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]
        fields = {}
        if only is None or extension in only:
            path = self.images / entry.image
            try:
                fields[extension] = read_regular_file(path)
            except (OSError, ValueError) as error:  # ValueError: an invalid path
                raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}", key) from error
        if only is None or "json" in only:
            annotation = {"captions": entry.captions, **({} if entry.label is None else {"label": entry.label})}
            fields["json"] = json.dumps(annotation).encode()
        return Record(key, fields)

    def read_labels(self) -> Iterator[tuple[str, Any]]:
        """Yield (location, label as in the file) of each valid record, for example ("line 3", 7). Reads the whole file.

        Raises:
            UserError: the file has changed or cannot be read.
        """
        for index in range(len(self)):
            if index in self._invalid:
                continue
            location = f"{self._unit} {self._line_number(index)}"
            try:
                yield location, parse_entry(self._line(index)).label
            except (OSError, ValueError) as error:
                raise UserError(f"{self.path}: {location} has changed ({error}). Restart the run.") from error

    def _line_number(self, index: int) -> int:
        return index + 1 + bisect_right(self._blank_positions, index)

    def line_bytes(self, index: int) -> int:
        """Return the length in bytes of the line of record ``index``."""
        return int(self._starts[index + 1] - self._starts[index])

    def _line(self, index: int) -> bytes:
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        if self._text is not None:
            return self._text[start:end]
        return self._file.read(start, end - start)


def parse_entry(line: bytes) -> Entry:
    """Parse one line of an annotation file.

    Raises:
        ValueError: the line is invalid; the message is the reason.
    """
    try:
        data = parse_json(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    key = _first_key(data, IMAGE_KEYS)
    if key is None:
        raise ValueError(f"missing image: one of the keys {', '.join(IMAGE_KEYS)} is required")
    image = data[key]
    if key == "image_id" and type(image) is int:
        image = str(image)
    if not isinstance(image, str) or not image:
        raise ValueError(f"{key} must be a path")
    if key in NAMES_WITHOUT_EXTENSION and not image.lower().endswith(tuple(f".{name}" for name in IMAGE_EXTENSIONS)):
        image += ".jpg"
    entry_id = data.get("id")
    if entry_id is not None and not isinstance(entry_id, str | int):
        raise ValueError("id must be a string or an integer")
    entry = Entry(image, tuple(to_captions(data)), data.get("label"), None if entry_id is None else str(entry_id))
    os.fsencode(entry.image)  # raises ValueError for lone surrogates that do not stand for the bytes of a file name
    return entry


def _first_key(data: dict[str, Any], keys: Sequence[str]) -> str | None:
    for key in keys:
        if data.get(key) is not None:
            return key
    return None


def _entry_key(entry: Entry) -> str:
    return display_name(entry.image if entry.entry_id is None else entry.entry_id)


def _to_json_lines(path: Path) -> bytes:
    """Convert the entries of a JSON file or an imdb file to JSON Lines."""
    if path.suffix.lower() == ".npy":
        return read_imdb(path, (*IMAGE_KEYS, *CAPTION_KEYS, "label", "id"))
    try:
        data = parse_json(read_regular_file(path))
    except ValueError as error:
        raise UserError(f"{path}: invalid JSON ({error}). JSON Lines files must be named .jsonl.") from None
    entries = data.get("data") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise UserError(
            f'{path}: expected an array of objects, or {{"data": [...]}} as in MMF. Convert COCO\'s captions_*.json to '
            "shards with `python -m mmf_flava.data.prepare pmd --part coco`."
        )
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
