"""Tolerant conversion of values from JSON files, which a killed run may have left incomplete.

Each function accepts any value and returns the requested type, or None or an empty container if the value is invalid.
A report can therefore also be created for a failed run.
"""

import json
import math
from pathlib import Path
from typing import Any

MAX_NUMBER = 1e30  # larger values are treated as diverged; matplotlib needs headroom


def as_number(value: Any) -> float | None:
    """Return a finite number of at most MAX_NUMBER in absolute value; None for anything else, including booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:  # JSON integers are unbounded
        return None
    return result if math.isfinite(result) and abs(result) <= MAX_NUMBER else None


def as_int(value: Any) -> int | None:
    """Return a number truncated to an integer, or None."""
    result = as_number(value)
    return None if result is None else int(result)


def as_text(value: Any) -> str | None:
    """Return a non-blank string, or None."""
    return value if isinstance(value, str) and value.strip() else None


def as_mapping(value: Any) -> dict[str, Any]:
    """Return a dictionary, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list, or an empty one."""
    return value if isinstance(value, list) else []


def as_numbers(value: Any) -> dict[str, float]:
    """Return the entries of a mapping that are numbers."""
    numbers = {key: as_number(entry) for key, entry in as_mapping(value).items()}
    return {key: number for key, number in numbers.items() if number is not None}


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a JSON file, or None if the file is missing, unreadable, truncated or not a mapping."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the mappings of a JSON-lines file in order; invalid and truncated lines are skipped."""
    records: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    content = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(content, dict):
                    records.append(content)
    except OSError:
        pass
    return records
