"""The table, our columns before the paper's, as Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.paper import PaperTable, paper_table, rows
from mmf_flava.evaluation.table.results import Cell, Column, Run

NOT_RUN = "not run"
FORMATS = ("markdown", "csv", "json")


@dataclass(frozen=True)
class Table:
    """ours: column -> row -> cell; a row that a column lacks was not run."""

    names: tuple[str, ...]
    ours: dict[str, dict[str, Cell]]
    paper: PaperTable
    left_out: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader should know of the paper's figures and of runs that are not in the table."""
        return [misprint.note for misprint in self.paper.misprints] + list(self.left_out)

    def sources(self) -> list[tuple[str, Run]]:
        """(column, run) of every run in the table, each once."""
        found = {(name, run.folder): run for name, cells in self.ours.items() for c in cells.values() for run in c.runs}
        return [(name, run) for (name, _), run in found.items()]


def table(columns: Sequence[Column], paper: str = "table4") -> Table:
    """The table of our columns beside one of the paper's; rows that this one lacks are there where they were run.

    Raises:
        UserError: two runs give the same row of one column, a run lacks one of a row's figures, or a column has the
            name of one of the paper's.
    """
    printed = paper_table(paper)
    for column in columns:
        if column.name in printed.columns:
            raise UserError(f"'{column.name}' is a column of the paper's: choose another NAME for ours.")
    ours = {column.name: column.cells() for column in columns}
    run = {name for cells in ours.values() for name in cells}
    names = tuple(row.name for row in rows() if row.name in (run if row.part == "extra" else printed.cells))
    return Table(names, ours, printed, tuple(note for column in columns for note in column.left_out))


def markdown(table: Table) -> str:
    """A Markdown table in per cent; below it the runs, and notes."""
    averages = {row.name for row in rows() if row.part == "average"}
    header = ["task", *table.ours, *table.paper.columns]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    for name in table.names:
        cells = [name, *(_ours(cells.get(name)) for cells in table.ours.values()), *_paper(table, name)]
        lines.append(_line([f"**{cell}**" if name in averages and cell != "-" else cell for cell in cells]))
    lines += ["", "In per cent. Runs:" if table.sources() else "In per cent. No run is in the table.", ""]
    for column, run in table.sources():
        details = [f"{word} {run.evaluation[key]}" for key, word in _DETAILS.items() if run.evaluation.get(key)]
        lines.append(f"- {column}, {run.task}: `{run.folder}`" + "".join(f", {detail}" for detail in details))
    lines += ["", "Notes:", "", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


_DETAILS = {"split": "split", "updates": "update", "update": "update"}


def csv_text(table: Table) -> str:
    """CSV in per cent; ``not run`` where nothing was run, empty where the paper has no figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", *table.ours, *table.paper.columns])
    for name in table.names:
        ours = [_ours(cells.get(name)) for cells in table.ours.values()]
        writer.writerow([name, *ours, *("" if cell == "-" else cell for cell in _paper(table, name))])
    return text.getvalue()


def json_text(table: Table) -> str:
    """JSON: rows with our figures unrounded (null: not run) and the paper's, in per cent; runs; notes."""
    content = {
        "unit": "percent",
        "rows": [
            {
                "task": name,
                "ours": {column: _json_cell(cells.get(name)) for column, cells in table.ours.items()},
                "paper": table.paper.cells.get(name, {}),
            }
            for name in table.names
        ],
        "runs": [
            {"column": column, "task": run.task, "folder": str(run.folder), "split": run.evaluation.get("split")}
            for column, run in table.sources()
        ],
        "notes": table.notes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def render(table: Table, form: str) -> str:
    """The table in one of ``FORMATS``."""
    return {"markdown": markdown, "csv": csv_text, "json": json_text}[form](table)


def _ours(cell: Cell | None) -> str:
    return NOT_RUN if cell is None else f"{cell.value:.2f}"


def _paper(table: Table, name: str) -> list[str]:
    cells = table.paper.cells.get(name, {})
    return ["-" if (value := cells.get(column)) is None else f"{value:.2f}" for column in table.paper.columns]


def _json_cell(cell: Cell | None) -> Any:
    return None if cell is None else {"value": cell.value, "runs": [str(run.folder) for run in cell.runs]}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
