"""Table with results of runs and of the FLAVA paper, rendered as Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.paper import PaperTable, paper_table, table_rows
from mmf_flava.evaluation.table.results import Column, RunResult, TableCell

NOT_RUN = "not run"
FORMATS = ("markdown", "csv", "json")


@dataclass(frozen=True)
class Table:
    """A table with the results of runs and of the FLAVA paper.

    Attributes:
        names: row names.
        results: column -> row -> cell; rows without results are missing.
        paper: table of the FLAVA paper.
        skipped: messages about results that are not in the table.
    """

    names: tuple[str, ...]
    results: dict[str, dict[str, TableCell]]
    paper: PaperTable
    skipped: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """Notes on the paper's values and on results that are not in the table."""
        return [misprint.note for misprint in self.paper.misprints] + list(self.skipped)

    def sources(self) -> list[tuple[str, RunResult]]:
        """Return (column name, run) for each run in the table."""
        cells = [(name, cell) for name, column in self.results.items() for cell in column.values()]
        runs = {(name, run.folder): run for name, cell in cells for run in cell.runs}
        return [(name, run) for (name, _), run in runs.items()]


def build_table(columns: Sequence[Column], paper: str = "table4") -> Table:
    """Build a table from columns of runs and a table of the FLAVA paper.

    Rows that are not in the paper are included only if a run has results for them.

    Raises:
        UserError: two runs of a column have results for the same row, a run lacks a metric that a row requires, or a
            column has the same name as a column of the paper.
    """
    printed = paper_table(paper)
    for column in columns:
        if column.name in printed.columns:
            raise UserError(
                f"Column '{column.name}' is already in the paper's table. Choose another NAME in NAME=RUN_DIR."
            )
    results = {column.name: column.cells() for column in columns}
    run = {name for cells in results.values() for name in cells}
    names = tuple(row.name for row in table_rows() if row.name in (run if row.group == "extra" else printed.cells))
    return Table(names, results, printed, tuple(message for column in columns for message in column.skipped))


def render_markdown(table: Table) -> str:
    """Return a Markdown table in per cent, followed by lists of runs and notes."""
    averages = {row.name for row in table_rows() if row.group == "average"}
    header = ["task", *table.results, *table.paper.columns]
    lines = [_markdown_row(header), _markdown_row(["---", *["---:"] * (len(header) - 1)])]
    for name in table.names:
        results = [_format_cell(cells.get(name)) for cells in table.results.values()]
        cells = [name, *results, *_format_paper_cells(table, name)]
        lines.append(_markdown_row([f"**{cell}**" if name in averages and cell != "-" else cell for cell in cells]))
    lines += ["", "In per cent. Runs:" if table.sources() else "In per cent. The table has no runs.", ""]
    for column, run in table.sources():
        details = [f"{label} {run.evaluation[key]}" for key, label in _DETAILS.items() if run.evaluation.get(key)]
        details += run.sample_counts()
        lines.append(f"- {column}, {run.task}: `{run.folder}`" + "".join(f", {detail}" for detail in details))
    lines += ["", "Notes:", "", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


_DETAILS = {"split": "split", "updates": "update", "update": "update"}


def render_csv(table: Table) -> str:
    """Return CSV in per cent; missing results of runs are ``not run``, and missing values of the paper are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", *table.results, *table.paper.columns])
    for name in table.names:
        results = [_format_cell(cells.get(name)) for cells in table.results.values()]
        writer.writerow([name, *results, *("" if cell == "-" else cell for cell in _format_paper_cells(table, name))])
    return text.getvalue()


def render_json(table: Table) -> str:
    """Return JSON with rows, runs and notes.

    Values are in per cent. Results of runs ("ours") are not rounded; missing results are null.
    """
    content = {
        "unit": "percent",
        "rows": [
            {
                "task": name,
                "ours": {column: _json_cell(cells.get(name)) for column, cells in table.results.items()},
                "paper": table.paper.cells.get(name, {}),
            }
            for name in table.names
        ],
        "runs": [
            {
                "column": column,
                "task": run.task,
                "folder": str(run.folder),
                "split": run.evaluation.get("split"),
                **({"samples": run.evaluation["samples"]} if run.sample_counts() else {}),
            }
            for column, run in table.sources()
        ],
        "notes": table.notes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def render(table: Table, format_: str) -> str:
    """Return the table in one of ``FORMATS``."""
    return {"markdown": render_markdown, "csv": render_csv, "json": render_json}[format_](table)


def _format_cell(cell: TableCell | None) -> str:
    return NOT_RUN if cell is None else f"{cell.value:.2f}"


def _format_paper_cells(table: Table, name: str) -> list[str]:
    cells = table.paper.cells.get(name, {})
    return ["-" if (value := cells.get(column)) is None else f"{value:.2f}" for column in table.paper.columns]


def _json_cell(cell: TableCell | None) -> Any:
    return None if cell is None else {"value": cell.value, "runs": [str(run.folder) for run in cell.runs]}


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
