"""What a benchmark measured beside what it was to be, and the table of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Row:
    """A line of the table; a figure without a target cannot miss it."""

    what: str
    measured: str
    target: str = ""
    met: bool = True


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    for row in rows:
        met = ("yes" if row.met else "NO") if row.target else ""
        lines.append(f"| {row.what} | {row.measured} | {row.target} | {met} |")
    return "\n".join(lines)


def megabytes(count: float) -> str:
    """Bytes, in words."""
    return f"{count / 1e6:,.0f} MB"
