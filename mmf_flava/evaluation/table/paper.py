"""Rows and values of the FLAVA paper's tables, read from the CSV files in this folder."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TABLES = ("table4", "table_c1")


@dataclass(frozen=True)
class TableRow:
    """A row of the table.

    Attributes:
        name: name in the paper.
        group: "NLP", "vision", "multimodal", "average" or "extra". Rows of the group "extra" are not in the paper and
            not in any average.
        tasks: alternative sources of the row; each is a tuple of tasks whose results are averaged.
        section: section of ``evaluation.json``.
        metrics: metrics of the section whose mean is the row's value; for an average, the groups whose averages are
            averaged.
    """

    name: str
    group: str
    tasks: tuple[tuple[str, ...], ...]
    section: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Misprint:
    """A note on a table of the FLAVA paper; ``instead`` is the correct value of a misprinted cell."""

    row: str
    column: str
    printed: str
    instead: str
    note: str


@dataclass(frozen=True)
class PaperTable:
    """A table of the FLAVA paper.

    Attributes:
        columns: column names.
        cells: row -> column -> value in per cent with misprints corrected; None for an empty cell.
        misprints: corrections and notes.
    """

    columns: tuple[str, ...]
    cells: dict[str, dict[str, float | None]]
    misprints: tuple[Misprint, ...]


@cache
def table_rows() -> tuple[TableRow, ...]:
    """Return all rows of the table, in the order of the paper's Table 4."""
    return tuple(
        TableRow(
            record["row"],
            record["group"],
            tuple(tuple(tasks.split("+")) for tasks in record["tasks"].split()),
            record["section"],
            tuple(record["metrics"].split()),
        )
        for record in _read_csv("rows")
    )


@cache
def paper_table(name: str) -> PaperTable:
    """Return a table of the FLAVA paper: ``table4`` (8 columns) or ``table_c1`` (14 columns)."""
    misprints = tuple(
        Misprint(*(record[field] for field in ("row", "column", "printed", "instead", "note")))
        for record in _read_csv("misprints")
        if record["table"] == name
    )
    records = _read_csv(name)
    cells: dict[str, dict[str, float | None]] = {
        record.pop("row"): {column: float(cell) if cell else None for column, cell in record.items()}
        for record in records
    }
    for misprint in misprints:
        if misprint.row:
            cells[misprint.row][misprint.column] = float(misprint.instead)
    return PaperTable(tuple(records[0]), cells, misprints)


def _read_csv(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
