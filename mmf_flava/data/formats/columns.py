"""The columns of a table or a list: which has the image, the captions, the label, the id and the split of a row.

The config key ``columns`` names them. A role that it does not name is found by the common names in ``NAMES``, compared
without case, in this order. A column of ``STRONG`` is the one that is meant, also beside others; several others of a
caption or of a label are ambiguous.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mmf_flava.config.columns import ROLES
from mmf_flava.config.schema import suggestion
from mmf_flava.data.annotations import to_texts
from mmf_flava.data.names import display_name
from mmf_flava.data.record import IMAGE_EXTENSIONS
from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

NAMES = {
    "image": (
        *("image", "image_path", "img", "file_name", "filepath", "file_path", "filename", "image_file", "img_path"),
        *("image_filename", "path", "file", "picture", "photo", "image_name", "image_id"),
    ),
    "caption": (
        *("captions", "caption", "text", "caption_str", "caption_tokens", "title", "description", "sentence"),
        *("comment", "alt_text", "alttext", "alt"),
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target"),
    "id": ("id", "sample_id", "uid", "key"),
    "split": ("split", "subset", "partition"),
}
STRONG = {"captions", "caption", "text", "caption_str", "caption_tokens", "label", "labels"}
NAMES_WITHOUT_EXTENSION = ("image_name", "image_id")  # MMF adds ".jpg" to their values
SUFFIXES = tuple(f".{name}" for name in IMAGE_EXTENSIONS)
WORDS = "caption_tokens"  # its list contains the words of a single caption
PLAIN = re.compile(r"\w[\w .()/-]*")  # names that need no quotation marks in YAML
MAX_LISTED = 20  # columns of a file in a message


class Entry(NamedTuple):
    """One row: the image path (None: no image), the captions (may be empty), and the values of the other columns."""

    image: str | None
    captions: tuple[str, ...]
    label: Any
    entry_id: str | None
    split: Any = None


class Columns:
    """The names of a file's columns by role, in order of precedence: the first that has a value in a row is used.

    Args:
        path: the file, for messages.
        found: names of the file's columns; None: unknown.
        given: value of the config key ``columns``.
        images_required: whether a row must have an image.

    Attributes:
        names: role -> names of columns.
        chosen: role -> the columns of the file that are used, for the log.

    Raises:
        UserError: the file does not have a column of ``given``.
    """

    def __init__(
        self,
        path: str | Path = "",
        found: Sequence[str] | None = None,
        given: Mapping[str, Any] | None = None,
        images_required: bool = True,
    ):
        self.path, self.found, self.images_required = Path(path), found, images_required
        self.given = {role: name for role, name in (given or {}).items()}
        self.names: dict[str, tuple[str, ...]] = {}
        self.chosen: dict[str, tuple[str, ...]] = {}
        self._ambiguous: dict[str, tuple[str, ...]] = {}
        self._absent: dict[str, UserError] = {}
        by_name: dict[str, str] = {}
        for name in found or ():
            by_name.setdefault(_normalise(name), name)
        for role in ROLES:
            if role in self.given:
                self.names[role] = self.chosen[role] = self._given(role)
                continue
            present = [(known, by_name[known]) for known in NAMES[role] if known in by_name]
            strong = [known for known, _ in present if known in STRONG]
            columns = tuple(name for _, name in present)
            if role in ("caption", "label") and len(present) > 1 and not strong:
                self._ambiguous[role], columns = columns, ()
                self.names[role] = self.chosen[role] = ()
                continue
            self.chosen[role] = columns[:1]
            # entries of a JSON list may have other keys than the first ones
            self.names[role] = (*columns, *(name for name in NAMES[role] if name not in by_name))

    def _given(self, role: str) -> tuple[str, ...]:
        value = self.given[role]
        names = () if value is None else (value,) if isinstance(value, str) else tuple(value)
        if self.found is None:
            return names
        by_name = {_normalise(name): name for name in reversed(self.found)}
        columns = []
        for name in names:
            column = name if name in self.found else by_name.get(_normalise(name))
            if column is None:
                absent = UserError(
                    f"{self.path}: columns.{role} is '{name}', but there is no such column."
                    f"{suggestion(name, self.found)} The columns are {self.listed}."
                )
                if role != "label":  # files to predict have no labels
                    raise absent
                logger.warning("%s", absent)
                self._absent[role] = absent
                return ()
            columns.append(column)
        return tuple(columns)

    @property
    def listed(self) -> str:
        """The names of the file's columns, for messages."""
        names = [display_name(name) for name in self.found or ()]
        return ", ".join(names[:MAX_LISTED]) + (f" and {len(names) - MAX_LISTED} others" * (len(names) > MAX_LISTED))

    def require(self, role: str) -> None:
        """Raise UserError if the file has no column for a role, with the line to write."""
        if self.found is None or self.chosen[role]:
            return
        if role in self._absent:
            raise self._absent[role]
        if role in self._ambiguous:
            columns = self._ambiguous[role]
            raise UserError(
                f"{self.path}: several columns may be the {role}: {', '.join(columns)}. Write which one it is, e.g. "
                f"columns: {{{role}: {_to_yaml(columns[0])}}}."
            )
        used = {name for names in self.chosen.values() for name in names}
        free = [name for name in self.found if name not in used] or list(self.found)
        raise UserError(
            f"{self.path}: no column for the {role} was recognised. The columns are {self.listed}. Write which one it "
            f"is, e.g. columns: {{{role}: {_to_yaml(free[0]) if free else 'NAME'}}}."
        )

    def is_ambiguous(self, role: str) -> bool:
        """Return whether several columns may be the one of a role, so that none of them is used."""
        return role in self._ambiguous

    def use_image(self, name: str) -> None:
        """Use a column for the image paths, before others that may have them."""
        self.chosen["image"] = (name,)
        self.names["image"] = (name, *(other for other in self.names["image"] if other != name))

    def format_chosen(self) -> str:
        """Return the columns that are used, as in "image: filepath, caption: title"."""
        return ", ".join(f"{role}: {' + '.join(map(display_name, n))}" for role, n in self.chosen.items() if n)

    def entry(self, row: Mapping[str, Any]) -> Entry:
        """Return the entry of a row.

        Raises:
            ValueError: a value is missing or has another type; the message is the reason.
        """
        entry_id = _to_id(_first(row, self.names["id"]))
        label, split = (_first(row, self.names[role]) for role in ("label", "split"))
        return Entry(self._image(row), self._captions(row), label, entry_id, split)

    def _image(self, row: Mapping[str, Any]) -> str | None:
        names = self.names["image"]
        for key in names:
            if row.get(key) not in (None, ""):
                break
        else:
            if not self.images_required:
                return None
            if "image" in self.given:
                raise ValueError(f"missing image: {' '.join(names)} is empty")
            raise ValueError(f"missing image: one of the keys {', '.join(NAMES['image'][:6])}, ... is required")
        image = row[key]
        if isinstance(image, Mapping):  # the struct {bytes, path} of `datasets`, without bytes
            image = image.get("path")
        if type(image) is int and _normalise(key) == "image_id":
            image = str(image)
        if not isinstance(image, str) or not image:
            raise ValueError(f"{key} must be a path")
        if _normalise(key) in NAMES_WITHOUT_EXTENSION and not image.lower().endswith(SUFFIXES):
            image += ".jpg"
        return image

    def _captions(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        captions: list[str] = []
        for name in self.names["caption"]:
            if (value := row.get(name)) is not None and (texts := to_texts(value, name)):
                captions += [" ".join(texts)] if _normalise(name) == WORDS else texts
                if "caption" not in self.given:  # of several listed columns, each has a caption
                    break
        return tuple(captions)


def _to_yaml(name: str) -> str:
    return name if PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


@lru_cache(maxsize=1024)
def _normalise(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    for name in names:
        if (value := row.get(name)) is not None:
            return value
    return None


def _to_id(value: object) -> str | None:
    if isinstance(value, float) and value.is_integer():  # numbers beside missing ones in pandas
        value = int(value)
    if value is None or value == "" or value != value:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("id must be a string or an integer")
    return str(value)
