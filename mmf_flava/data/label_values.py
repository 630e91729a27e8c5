"""Labels of the user's own data: the values as in the files, and what they mean for each task.

A label is the name of a class, also if it is a number: classes 1, 2 and 3 are three classes named "1", "2" and "3".
"""

import ast
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from mmf_flava.data.image_folder import ImageFolder, class_folder
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.record import BadRecord, Records, record_boundary
from mmf_flava.data.records import split_readers
from mmf_flava.files.json_data import parse_object

MISSING = {"none", "nan", "null", "n/a", "na", "<na>"}  # names of classes that may be texts of missing values


@lru_cache(maxsize=4)  # all splits of a file, and their counts, read the same column
def read_column(records: Records, name: str) -> Sequence[Any]:
    """Return a value of every record without reading images: its label or split as in the files, or None.

    Args:
        name: ``label`` or ``split``.
    """
    values: list[Any] = []
    for reader in split_readers(records):
        if isinstance(reader, ImageList):
            values += reader.column(name)
        elif isinstance(reader, ImageFolder) and (reader.folders or not reader.beside["json"]):
            values += [class_folder(key) if name == "label" else None for key in reader.keys]
        else:
            values += [_stored_value(reader, index, name) for index in range(len(reader))]
    return values


def _stored_value(reader: Records, index: int, name: str) -> Any:
    """Return a value in the field ``json`` of a record in a shard; a label may also be in the field ``cls``."""
    try:
        with record_boundary(f"record {index}"):
            fields = reader.read(index, ("cls", "json")).fields
            if "cls" in fields and name == "label":
                return fields["cls"].decode("utf-8-sig")
            return parse_object(fields["json"]).get(name) if "json" in fields else None
    except (BadRecord, ValueError):
        return None


def class_name(value: Any) -> str | None:
    """Return the class that a label names, without surrounding and repeated white space; None for a missing label.

    Raises:
        ValueError: the label is no name and no number.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"must be one class, got {_shorten(value)}")
    return " ".join(str(value).split()) or None


def class_names_of(value: Any, separator: str) -> list[str] | None:
    """Return the classes that a label of ``task: multi_label`` names, without duplicates; None for a missing label.

    The label is a list, a text of a list as in JSON or Python (``["red", "old"]``, which pandas writes), or a text of
    names with ``separator`` between them. An empty list means that the record belongs to no class.

    Raises:
        ValueError: an element of a list is no name and no number.
    """
    if isinstance(value, str):
        text = value.strip()
        value = _parse_list(text) if text[:1] in ("[", "(") else text.split(separator) if text else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    items = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(name for item in items if (name := class_name(item)) is not None))


def number(value: Any) -> float | None:
    """Return the value of a label of ``task: regression``; None for a missing label.

    Raises:
        ValueError: the label is no finite number.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"must be a number, got {_shorten(value)}") from None
    if math.isnan(found):
        return None
    if math.isinf(found):
        raise ValueError("must be finite, got an infinite number")
    return found


def sort_classes(names: Iterable[str]) -> list[str]:
    """Return class names in label order: by value if all are numbers, otherwise by name."""
    distinct = sorted({*names})
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def similar_names(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case, in spaces, hyphens and underscores, or are equal numbers."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = name.casefold().replace("_", " ").replace("-", " ")
        with suppress(ValueError):
            key = str(float(name))
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _parse_list(text: str) -> list[Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"must be a list of classes, got {_shorten(text)}") from None
    return list(value) if isinstance(value, list | tuple) else [value]


def _shorten(value: Any, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
