"""Descriptions of what is wrong with an entry of an annotation file of MMF's datasets."""

import traceback
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import numpy as np

from mmf_flava.compat.annotation_lines import InvalidLine
from mmf_flava.data.image_decoding import image_reason
from mmf_flava.data.mmf_parts import UNKNOWN
from mmf_flava.data.record import Reason
from mmf_flava.errors import UserError, is_out_of_resources

TEXTS = ("text", "img", "question_str", "question", "sentence2", "image_name", "Flikr30kID")
IDS = ("id", "question_id")
LISTS = ("question_tokens", "answers", "all_answers", "valid_answers", "genres")


class Problem(NamedTuple):
    """What is wrong with an entry: the reason why it is bad, and a description for error messages."""

    reason: Reason
    text: str


def is_caused_by_entry(error: Exception) -> bool:
    """Return whether an exception may be caused by the entry that was read when it was raised."""
    return not (isinstance(error, UserError | MemoryError) or is_out_of_resources(error))


def explain_error(error: Exception, entry: Any, usual_fields: Set[str]) -> Problem | None:
    """Return the mistake in an entry that caused an exception of MMF's dataset, or None if the cause is unknown.

    Args:
        usual_fields: the fields that other entries have.
    """
    description = f"{type(error).__name__}: {error}"
    if entry is not UNKNOWN and (problem := find_problem(entry)):
        return problem
    if any("/PIL/" in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
        return Problem(image_reason(error), description)
    if isinstance(error, FileNotFoundError):
        return Problem(Reason.NO_IMAGE, description)
    if isinstance(error, OSError):
        return Problem(Reason.VANISHED, description)
    if entry is UNKNOWN:
        return None
    if missing := sorted(usual_fields - entry.keys()):
        return Problem(_reason_of_key(missing[0], entry), f"it has no {', '.join(missing)}")
    if isinstance(error, KeyError) and error.args and error.args[0] not in entry:
        return Problem(_reason_of_key(error.args[0], entry), description)
    return None


def _reason_of_key(key: Any, entry: Mapping[str, Any]) -> Reason:
    """Return the reason for a KeyError: the entry lacks a field, or its label is not one of the dataset's labels."""
    if any("label" in field and value == key for field, value in entry.items()):
        return Reason.UNREADABLE_LABEL
    return Reason.NO_LABEL if "label" in str(key) else Reason.INVALID_ENTRY


def find_problem(entry: Any) -> Problem | None:
    """Return the mistake in an entry, or None if it has no usual mistake."""
    if isinstance(entry, InvalidLine):
        return Problem(Reason.INVALID_ENTRY, entry.problem)
    if not isinstance(entry, Mapping):
        return Problem(Reason.INVALID_ENTRY, "it is not an object with keys")
    if "label" in entry and not _is_integer(entry["label"]):
        reason = Reason.NO_LABEL if entry["label"] is None else Reason.UNREADABLE_LABEL
        return Problem(reason, f"its label is {shorten(entry['label'])}, expected an integer")
    for key in IDS:
        if not _is_id(entry.get(key, 0), can_be_text=key == "id"):
            text = f"its {key} is {shorten(entry[key])}, expected an integer below 2147483648"
            return Problem(Reason.INVALID_ENTRY, text)
    for key in TEXTS:
        if not isinstance(entry.get(key, ""), str):
            return Problem(Reason.INVALID_ENTRY, f"its {key} is {shorten(entry[key])}, expected a string")
    for key in LISTS:
        values = entry.get(key, [""])
        is_list = isinstance(values, list | tuple | np.ndarray) and all(isinstance(value, str) for value in values)
        if not is_list or (len(values) == 0 and key != "question_tokens"):
            return Problem(Reason.INVALID_ENTRY, f"its {key} are {shorten(values)}, expected a list of strings")
    return None


def _is_integer(value: Any) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and -(2**63) <= value < 2**63


def _is_id(value: Any, can_be_text: bool) -> bool:
    if can_be_text and isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    return isinstance(value, int) and abs(value) < 2**31


def shorten(value: Any) -> str:
    """Return the repr of a value, of at most 60 characters."""
    try:
        text = repr(value)
    except Exception:  # an integer of more than 4,300 digits, or nesting beyond the recursion limit
        text = f"an unprintable {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
