"""A list of images: an annotation file that names image files with their captions or labels, a line a record.

    {"image": "train/1.jpg", "captions": ["a cat", "a grey cat"], "label": 3, "id": "cat-1"}

``.jsonl`` is JSON Lines; ``.json`` is an array of such objects, or MMF's {"metadata": ..., "data": [...]}. A line needs
its image and may have the rest. MMF's own annotations use other names for the same; of each group the first counts:
    image      image, image_path, img, file_name; image_name and image_id, to which MMF adds ".jpg"
    captions   captions, caption, text, caption_str: a text or several; caption_tokens: the words of one
"""

import json
import os
import shlex
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.errors import UserError

LISTS = (".jsonl", ".json", ".npy")  # .npy only to say how it becomes a list
IMAGE_KEYS = ("image", "image_path", "img", "file_name", "image_name", "image_id")
NAMES_WITHOUT_EXTENSION = ("image_name", "image_id")
CAPTION_KEYS = ("captions", "caption", "text", "caption_str", "caption_tokens")
SHOWN = 3  # broken lines that an error describes
# MMF's rule for the header of its older files: entry 0 is one where it has no image_id.
CONVERSION = (
    "import json, sys, numpy; rows = list(numpy.load(sys.argv[1], allow_pickle=True)); "
    "[print(json.dumps(row, default=lambda value: value.tolist())) for row in rows['image_id' not in rows[0]:]]"
)


class Entry(NamedTuple):
    """What one line says: the image's path as it is written there, captions (may be none), label and id."""

    image: str
    captions: tuple[str, ...]
    label: int | None
    identity: str | None


class ImageList:
    """The records of one annotation file; parts are the image and ``json`` {"captions": [...], "label": n}.

    A record's key is its id, else the path of its image; where several lines share that, "#" and the line number are
    added. Every line is read once at opening; what stays in memory is 9 bytes a line of a JSONL file, or the whole of a
    JSON file. Safe after fork and when pickled.

    Args:
        path: the annotation file.
        images: folder below which its images lie; by default the file's own. Absolute paths are taken as they are.

    Raises:
        UserError: the file is missing, empty, of another format, or has broken lines, of which the first are named.
    """

    sequential = False

    def __init__(self, path: str | Path, images: str | Path | None = None):
        self.path = Path(path)
        self.images = Path(images) if images is not None else self.path.parent
        self._descriptor: int | None = None
        self._text: bytes | None = None
        if self.path.suffix.lower() == ".npy":
            raise UserError(
                f"{self.path} is a pickle, which can hold code, and is not read: if you trust it, make a list of it "
                f'with `python -c "{CONVERSION}" {shlex.quote(str(path))} > {shlex.quote(self.path.stem)}.jsonl`.'
            )
        if not self.images.is_dir():
            raise UserError(f"The images of {self.path} cannot be read: the folder {self.images} does not exist.")
        try:
            if self.path.suffix.lower() == ".json":
                self._text = _as_lines(self.path)
                self._scan(self._text.splitlines(keepends=True))
            else:
                with open(self.path, "rb") as file:
                    self._scan(file)
        except OSError as error:
            raise UserError(f"The list {self.path} cannot be read ({error.strerror}): correct the path.") from None

    def _scan(self, lines: Iterable[bytes]) -> None:
        starts, blanks, names = array("Q"), array("Q"), array("Q")
        images, place, number = sha256(), 0, 0
        broken: list[str] = []
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                blanks.append(len(starts))
            else:
                starts.append(place)
                try:
                    entry = parse(line)
                    image = entry.image.encode()  # half a character (a lone surrogate) is a ValueError here
                    name = image if entry.identity is None else entry.identity.encode()
                    images.update(image + b"\n")
                    names.append(int.from_bytes(blake2b(name, digest_size=8).digest()))
                except (ValueError, RecursionError) as error:
                    broken.append(f"{self._unit} {number} ({error})" if len(broken) < SHOWN else "")
            place += len(line)
        if broken:
            what = f"{len(broken)} of {number} {'lines' if self._unit == 'line' else 'entries'} cannot be used"
            shown = ", ".join(broken[:SHOWN])
            raise UserError(f"{self.path}: {what}: {shown}{', ...' if len(broken) > SHOWN else ''}; correct them.")
        if not starts:
            raise UserError(f"The list {self.path} holds no records.")
        starts.append(place)
        self._starts, self._blanks, self.images_sha256 = np.array(starts), blanks, images.hexdigest()
        _, group, sizes = np.unique(np.array(names), return_inverse=True, return_counts=True)
        self._shared = sizes[group] > 1

    @property
    def _unit(self) -> str:
        return "line" if self._text is None else "entry"

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Record ``index``; with ``only``, just the parts of these extensions. Raises BadRecord if a file is gone."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = index + 1 + bisect_right(self._blanks, index)
        try:
            entry = parse(self._line(index))
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.path} cannot be read: {error}") from error
        except (ValueError, RecursionError) as error:
            raise BadRecord(Reason.CHANGED, f"{self.path}: {self._unit} {number} has changed ({error})") from error
        key = f"{_name(entry)}#{number}" if self._shared[index] else _name(entry)
        # Pillow goes by the content: an extension that we do not know is as good as any
        extension = entry.image.rpartition(".")[2].lower()
        extension = extension if extension in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]
        parts = {}
        if only is None or extension in only:
            path = self.images / entry.image
            try:
                parts[extension] = path.read_bytes()
            except (OSError, ValueError) as error:  # ValueError: a path that no file system takes
                raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}", key) from error
        if only is None or "json" in only:
            about = {"captions": entry.captions, **({} if entry.label is None else {"label": entry.label})}
            parts["json"] = json.dumps(about).encode()
        return Record(key, parts)

    def line_bytes(self, index: int) -> int:
        """Bytes of the line of record ``index``."""
        return int(self._starts[index + 1] - self._starts[index])

    def _line(self, index: int) -> bytes:
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        if self._text is not None:
            return self._text[start:end]
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        return os.pread(self._descriptor, end - start, start)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}


def parse(line: bytes) -> Entry:
    """One line; ValueError, which says what is wrong with it, where it cannot be used."""
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("no object")
    key = _first(data, IMAGE_KEYS)
    if key is None:
        raise ValueError(f"none of {', '.join(IMAGE_KEYS)}")
    image = data[key]
    if key == "image_id" and type(image) is int:
        image = str(image)
    if not isinstance(image, str) or not image:
        raise ValueError(f"{key} is no path")
    if key in NAMES_WITHOUT_EXTENSION and not image.lower().endswith(tuple(f".{name}" for name in IMAGE_EXTENSIONS)):
        image += ".jpg"
    label, identity = data.get("label"), data.get("id")
    if label is not None and type(label) is not int:
        raise ValueError(f"label is {label!r}, not a whole number")
    if identity is not None and not isinstance(identity, str | int):
        raise ValueError("id is neither a text nor a number")
    return Entry(image, _captions(data), label, None if identity is None else str(identity))


def _first(data: dict[str, Any], keys: Sequence[str]) -> str | None:
    for key in keys:
        if data.get(key) is not None:
            return key
    return None


def _captions(data: dict[str, Any]) -> tuple[str, ...]:
    key = _first(data, CAPTION_KEYS)
    if key is None:
        return ()
    found = [data[key]] if isinstance(data[key], str) else data[key]
    if not isinstance(found, list) or not all(text is None or isinstance(text, str) for text in found):
        raise ValueError(f"{key} is no text")
    texts = [text.encode("utf-8", "replace").decode() for text in found if text]
    return (" ".join(texts),) if key == "caption_tokens" else tuple(texts)


def _name(entry: Entry) -> str:
    return entry.image if entry.identity is None else entry.identity


def _as_lines(path: Path) -> bytes:
    """The entries of a JSON file as JSON Lines."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): a list with a line a record is named .jsonl.") from None
    entries = data.get("data") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise UserError(
            f'{path} is no list of images: it is to be an array of objects, or {{"data": [...]}} as MMF has it '
            "(COCO's own captions_*.json becomes shards: `python -m mmf_flava.data.prepare pmd --part coco`)."
        )
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
