"""The rows of the paper's tables and what they print, read from the data files beside this module."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TABLES = ("table4", "table_c1")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: as it is printed.
        part: NLP, vision or multimodal; average; or extra, which the paper does not have and no average counts.
        tasks: alternatives, each the tasks that it takes the mean of.
        section: of ``evaluation.json``.
        figures: of that section, whose mean the row is; for an average the parts, whose averages' mean it is.
    """

    name: str
    part: str
    tasks: tuple[tuple[str, ...], ...]
    section: str
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Misprint:
    """A note on a printed table; where row and column are named, ``instead`` is the cell's right figure."""

    row: str
    column: str
    printed: str
    instead: str
    note: str


@dataclass(frozen=True)
class PaperTable:
    """cells: row -> column -> percentage, misprints mended; None where the paper has none."""

    columns: tuple[str, ...]
    cells: dict[str, dict[str, float | None]]
    misprints: tuple[Misprint, ...]


@cache
def rows() -> tuple[Row, ...]:
    """All rows, in the paper's order."""
    return tuple(
        Row(
            line["row"],
            line["part"],
            tuple(tuple(tasks.split("+")) for tasks in line["tasks"].split()),
            line["section"],
            tuple(line["figures"].split()),
        )
        for line in _read("rows")
    )


@cache
def paper_table(name: str) -> PaperTable:
    """``table4`` (8 columns) or ``table_c1`` (14)."""
    misprints = tuple(
        Misprint(*(line[field] for field in ("row", "column", "printed", "instead", "note")))
        for line in _read("misprints")
        if line["table"] == name
    )
    lines = _read(name)
    cells: dict[str, dict[str, float | None]] = {
        line.pop("row"): {column: float(cell) if cell else None for column, cell in line.items()} for line in lines
    }
    for misprint in misprints:
        if misprint.row:
            cells[misprint.row][misprint.column] = float(misprint.instead)
    return PaperTable(tuple(lines[0]), cells, misprints)


def _read(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
