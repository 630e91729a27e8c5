"""Parsing of captions and labels, shared by tar shards, image lists, class folders and data preparation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.files.json_data import parse_object

# JSON keys of captions in order of precedence: the first key with a caption is used. The list under caption_tokens
# contains the words of a single caption.
CAPTION_KEYS = ("captions", "caption", "text", "caption_str", "caption_tokens")
JSON_KEYS_BEFORE_TXT = CAPTION_KEYS[:2]  # img2dataset's keys precede the field txt, which precedes the other keys
TEXT_EXTENSIONS = ("json", "txt")  # fields of a record with captions
NO_LABEL = -1
MAX_LABEL = 2**31 - 1


def clean_text(text: str) -> str:
    """Replace NUL characters with spaces, and remove lone surrogates and surrounding white space.

    NUL characters and lone surrogates cannot be tokenized or written to files.
    """
    return text.replace("\0", " ").encode("utf-8", "ignore").decode().strip()


def to_texts(value: object, name: str = "captions") -> list[str]:
    """Convert a JSON value to a list of texts: a string to one text, a list to its items, null to an empty list.

    Empty strings, null and NaN are dropped, also inside a list.

    Raises:
        ValueError: the value is neither a string nor a list of strings.
    """
    items = value if isinstance(value, list | tuple) else [value]
    texts = []
    for item in items:
        if isinstance(item, str):
            texts.append(clean_text(item))
        elif not _is_missing(item):
            raise ValueError(f"{name} must be a string or a list of strings, got {_shorten(value)}")
    return [text for text in texts if text]


def to_captions(data: Mapping[str, Any], keys: Sequence[str] = CAPTION_KEYS) -> list[str]:
    """Return the captions of a JSON object under the first of ``keys`` that has captions, or an empty list.

    Raises:
        ValueError: a value is neither a string nor a list of strings.
    """
    for key in keys:
        if texts := to_texts(data.get(key), key):
            return [" ".join(texts)] if key == "caption_tokens" else texts
    return []


def to_label(value: object, class_numbers: Mapping[str, int] | None = None) -> int:
    """Return the class number of a JSON value, or -1 for a missing label.

    A number (3 or 3.0) is a class number. A text is a class name if ``class_numbers`` is given and has it. A text of
    digits ("3") is otherwise a class number, unless other class names are digits too, because it may then be a name
    that is missing. null, NaN, an empty text and -1 mean that the label is missing.

    This rule is valid for JSON, lists and shards. ``read_label`` converts a field ``cls`` of digits to a number before,
    because shards and class folders store class numbers in it.

    Args:
        class_numbers: class name -> class number.

    Raises:
        ValueError: the value is not a label.
    """
    if isinstance(value, str):
        name = value.strip()
        if class_numbers is not None and (number := class_numbers.get(name)) is not None:
            return number
        if not name:
            return NO_LABEL
        if not _is_number(name):
            expected = "a class number" if class_numbers is None else "a class number or a class name"
            raise ValueError(f"label must be {expected}, got {_shorten(value)}")
        if class_numbers and any(map(_is_number, class_numbers)) and int(name) != NO_LABEL:
            raise ValueError(f"label must be a class name, because class names are digits, got {_shorten(value)}")
        value = int(name)
    elif _is_missing(value):
        return NO_LABEL
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"label must be a class number or a class name, got {_shorten(value)}")
    if not NO_LABEL <= value <= MAX_LABEL:
        raise ValueError(f"label must be in 0..{MAX_LABEL}, or -1 for a missing label, got {_shorten(value)}")
    return value


def parse_annotation(record: Record) -> tuple[list[str], int]:
    """Return the captions and the label of a record. The label is -1 if it is missing or not a class number.

    Raises:
        BadRecord: the record has no caption or an invalid caption.
    """
    captions, label = [], NO_LABEL
    try:
        if "json" in record.fields:
            data = parse_object(record.fields["json"])
            captions = to_captions(data, JSON_KEYS_BEFORE_TXT)
            label = _label_or_none(data.get("label"))
        if not captions and "txt" in record.fields:
            captions = to_texts(record.fields["txt"].decode("utf-8-sig"))
        if not captions and "json" in record.fields:
            captions = to_captions(data)
    except ValueError as error:
        raise BadRecord(Reason.UNREADABLE_CAPTION, f"{record.key}: unreadable caption ({error})", record.key) from error
    if not captions:
        raise BadRecord(Reason.NO_CAPTION, f"{record.key}: no caption", record.key)
    return captions, label


def parse_label(record: Record, class_numbers: Mapping[str, int] | None = None) -> int:
    """Return the label of a record, or -1 if it is missing or invalid. Used for datasets whose labels are optional."""
    try:
        return read_label(record, class_numbers)
    except BadRecord:
        return NO_LABEL


def read_label(record: Record, class_numbers: Mapping[str, int] | None = None) -> int:
    """Return the label of a record, or -1 if it is missing.

    The label is read from the field ``cls`` (a class number or a class name) or, if the record has no such field, from
    ``json`` ({"label": ...}).

    Raises:
        BadRecord: the label is invalid, see ``to_label``.
    """
    try:
        if "cls" in record.fields:
            text = record.fields["cls"].decode("utf-8-sig").strip()
            return to_label(int(text) if _is_number(text) else text, class_numbers)
        value = parse_object(record.fields["json"]).get("label") if "json" in record.fields else None
        return to_label(value, class_numbers)
    except ValueError as error:
        raise BadRecord(Reason.UNREADABLE_LABEL, f"{record.key}: unreadable label ({error})", record.key) from error


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20  # int() raises an error for thousands of digits


def _label_or_none(value: object) -> int:
    try:
        return to_label(value)
    except ValueError:
        return NO_LABEL


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shorten(value: object, limit: int = 40) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # repr() of thousands of digits or of deeply nested lists
        return f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."
