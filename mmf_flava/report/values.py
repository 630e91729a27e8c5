"""Values out of JSON files that a killed run or another program may have left in any state.

Each function takes whatever stands there and gives the wanted type or nothing: a report is drawn after things went
wrong, too, and must not go wrong itself.
"""

import json
import math
from pathlib import Path
from typing import Any

LARGEST = 1e30  # a loss beyond it has diverged; drawing needs room above it


def number(value: Any) -> float | None:
    """A number that can be drawn, or None: NaN, infinities, booleans, strings and the rest are no points of a curve."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:  # JSON has integers of any length
        return None
    return result if math.isfinite(result) and abs(result) <= LARGEST else None


def whole(value: Any) -> int | None:
    result = number(value)
    return None if result is None else int(result)


def text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def numbers(value: Any) -> dict[str, float]:
    """The entries of a mapping that are numbers."""
    found = {key: number(entry) for key, entry in mapping(value).items()}
    return {key: entry for key, entry in found.items() if entry is not None}


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where the file is missing, unreadable, cut short or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The mappings of a JSON-lines file in order; a line that a killed run cut short is passed over."""
    lines: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for row in file:
                try:
                    content = json.loads(row)
                except (ValueError, RecursionError):
                    continue
                if isinstance(content, dict):
                    lines.append(content)
    except OSError:
        pass
    return lines
