"""Lines of annotation files in JSON Lines format."""

import json
from typing import Any


class InvalidLine(str):
    """A line that is not valid JSON. It takes the place of the line's entry.

    Attributes:
        problem: why the line is invalid.
    """

    problem = ""


def parse_line(line: bytes) -> Any:
    """Parse a line. For invalid JSON, return an InvalidLine."""
    try:
        return json.loads(line)
    except Exception as error:  # ValueError, or RecursionError for deep nesting
        invalid = InvalidLine()
        invalid.problem = f"the line is not valid JSON ({type(error).__name__}: {error})"
        return invalid
