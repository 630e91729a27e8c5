"""Captions and labels of records, with one meaning in shards, image lists, class folders and data preparation."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmf_flava.data.record import BadRecord, Reason, Record

# The first of these keys that has a caption is used. caption_tokens has the words of one caption.
CAPTION_KEYS = ("captions", "caption", "text", "caption_str", "caption_tokens")
JSON_KEYS_BEFORE_TXT = CAPTION_KEYS[:2]  # img2dataset's keys; a txt field has precedence over the other keys
NO_LABEL = -1
MAX_LABEL = 2**31 - 1


def clean_text(text: str) -> str:
    """Remove NULs, lone surrogates (neither can be tokenized or written to files) and surrounding white space."""
    return text.replace("\0", " ").encode("utf-8", "ignore").decode().strip()


def to_texts(value: object, name: str = "captions") -> list[str]:
    """Return the texts of a JSON value: one for a string, the items of a list, none for null.

    Empty strings, null and NaN are missing texts, in a list as well.

    Raises:
        ValueError: the value is neither a string nor a list of strings; the message is the reason.
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
    """Return the captions of a JSON object: those of the first of ``keys`` that has any.

    Raises:
        ValueError: a value is neither a string nor a list of strings; the message is the reason.
    """
    for key in keys:
        if texts := to_texts(data.get(key), key):
            return [" ".join(texts)] if key == "caption_tokens" else texts
    return []


def to_label(value: object, class_numbers: Mapping[str, int] | None = None) -> int:
    """Return the class number of a JSON value, or -1 for a missing label.

    A label is a number (3, 3.0 or "3") or, if ``class_numbers`` is given, a class name. A string that is a class name
    is never read as a number. null, NaN, an empty string and -1 are missing labels.

    Args:
        class_numbers: class name -> class number.

    Raises:
        ValueError: the value is not a label; the message is the reason.
    """
    if isinstance(value, str):
        name = value.strip()
        if class_numbers is not None and (number := class_numbers.get(name)) is not None:
            return number
        if not name:
            return NO_LABEL
        try:
            value = int(name) if name.isascii() and "_" not in name else name
        except ValueError:  # not a number, or one with thousands of digits
            pass
        if isinstance(value, str):
            known = "no class names are known" if class_numbers is None else "it is not a class name"
            raise ValueError(f"label {_shorten(value)} is not a class number, and {known}")
    elif _is_missing(value):
        return NO_LABEL
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"label must be a class number or a class name, got {_shorten(value)}")
    if not NO_LABEL <= value <= MAX_LABEL:
        raise ValueError(f"label must be in 0..{MAX_LABEL}, or -1 if there is none, got {_shorten(value)}")
    return value


def parse_annotation(record: Record) -> tuple[list[str], int]:
    """Return (captions, label) of a record. The label is -1 if it is missing or not a number.

    Raises:
        BadRecord: the record has no caption, or an invalid one.
    """
    captions, label = [], NO_LABEL
    try:
        if "json" in record.fields:
            data = _parse_object(record)
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


def parse_label(record: Record) -> int:
    """Return the label of a record as ``read_label`` does, or -1 if it is invalid. For data used without labels."""
    try:
        return read_label(record)
    except BadRecord:
        return NO_LABEL


def read_label(record: Record, class_numbers: Mapping[str, int] | None = None) -> int:
    """Return the label from ``cls`` (a class number in ASCII) or from ``json`` {"label": ...}; -1 if there is none.

    Raises:
        BadRecord: the label is invalid, see ``to_label``.
    """
    try:
        if "cls" in record.fields:
            return to_label(record.fields["cls"].decode(), None if _is_number(record.fields["cls"]) else class_numbers)
        return to_label(_parse_object(record).get("label"), class_numbers) if "json" in record.fields else NO_LABEL
    except ValueError as error:
        raise BadRecord(Reason.UNREADABLE_LABEL, f"{record.key}: unreadable label ({error})", record.key) from error


def _is_number(content: bytes) -> bool:
    return content.strip().removeprefix(b"-").isdigit()


def _label_or_none(value: object) -> int:
    try:
        return to_label(value)
    except ValueError:
        return NO_LABEL


def _parse_object(record: Record) -> dict[str, Any]:
    try:
        data = json.loads(record.fields["json"])
    except RecursionError as error:
        raise ValueError(f"json is nested too deeply: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"json must be an object, got {_shorten(data)}")
    return data


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shorten(value: object, limit: int = 40) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer with thousands of digits, a nested list
        return f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."
