"""Error-tolerant reading of JSON files, so that a report can be created for a run that failed or was killed.

The functions ``as_...`` accept any value and return the requested type, or None or an empty container if the value has
another type.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmf_flava.files.json_data import parse_object
from mmf_flava.files.regular_file import open_regular_file, read_regular_file

MAX_NUMBER = 1e30  # larger values are treated as missing; matplotlib fails close to the largest float


def as_number(value: Any) -> float | None:
    """Return ``value`` as a float; None if it is not a finite number, exceeds MAX_NUMBER or is a boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:  # JSON integers are unbounded
        return None
    return result if math.isfinite(result) and abs(result) <= MAX_NUMBER else None


def as_int(value: Any) -> int | None:
    """Return ``value`` truncated to an integer, or None if it is not a valid number."""
    result = as_number(value)
    return None if result is None else int(result)


def as_text(value: Any) -> str | None:
    """Return ``value`` if it is a non-blank string, else None."""
    return value if isinstance(value, str) and value.strip() else None


def as_mapping(value: Any) -> dict[str, Any]:
    """Return ``value`` if it is a dictionary, else an empty dictionary."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return ``value`` if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def as_numbers(value: Any) -> dict[str, float]:
    """Return the entries of a dictionary whose values are valid numbers."""
    numbers = {key: as_number(entry) for key, entry in as_mapping(value).items()}
    return {key: number for key, number in numbers.items() if number is not None}


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if the file is missing, unreadable or not a valid JSON object."""
    try:
        return parse_object(read_regular_file(path).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return None


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a JSON Lines file in order; invalid and truncated lines are skipped."""
    with contextlib.suppress(OSError), open_regular_file(path) as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield parse_object(line.decode("utf-8", "replace"))
