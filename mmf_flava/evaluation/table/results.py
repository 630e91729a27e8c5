"""Reading of runs' results from ``evaluation.json``, and computation of the table's cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmf_flava.config.tasks import parse_task
from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.paper import TableRow, table_rows
from mmf_flava.files.json_data import read_object

SECTIONS = ("metrics", "linear_probe", "zero_shot", "retrieval")


@dataclass(frozen=True)
class RunResult:
    """The content of a run's ``evaluation.json``, with its folder and task."""

    folder: Path
    task: str
    evaluation: dict[str, Any]

    def sample_counts(self) -> list[str]:
        """Return "998 of 1,000 samples of pmd" for each dataset with bad records, which the scores leave out."""
        samples = self.evaluation.get("samples")
        counts = []
        for name, count in samples.items() if isinstance(samples, dict) else ():
            evaluated, bad = (count.get(key) if isinstance(count, dict) else None for key in ("evaluated", "bad"))
            if isinstance(evaluated, int) and isinstance(bad, int):
                counts.append(f"{evaluated:,} of {evaluated + bad:,} samples of {name}")
        return counts

    def value(self, row: TableRow) -> float:
        """Return the value of ``row`` in per cent; raise UserError if a metric is missing or not in [-1, 1]."""
        section = self.evaluation[row.section]
        return 100 * fmean(self._metric(section, row, name) for name in row.metrics)

    def _metric(self, section: Any, row: TableRow, name: str) -> float:
        path = self.folder / "evaluation.json"
        if not isinstance(section, dict):
            raise UserError(
                f"{path}: {row.section} must be a JSON object, got {section!r:.40}. Evaluate the run again."
            )
        if name not in section:
            raise UserError(
                f"{path}: {row.name} requires {' and '.join(row.metrics)} in section '{row.section}', but "
                f"the section has {', '.join(section)}. Evaluate the run again, with the metric {name}."
            )
        value = section[name]
        if not isinstance(value, int | float) or not -1 <= value <= 1:  # NaN is not
            raise UserError(f"{path}: {row.section}.{name} must be between -1 and 1, got {value!r:.40}.")
        return float(value)


@dataclass(frozen=True)
class TableCell:
    """A value in per cent and the runs that it is computed from."""

    value: float
    runs: tuple[RunResult, ...]


class Column:
    """A column of the table: the runs of one model, with at most one run per task and section."""

    def __init__(self, name: str, folders: Iterable[Path]) -> None:
        self.name = name
        self.skipped: list[str] = []
        self._runs: dict[tuple[str, str], RunResult] = {}
        for folder in folders:
            self._add(folder)

    def _add(self, folder: Path) -> None:
        evaluation = read_evaluation(folder)
        sections = [section for section in SECTIONS if evaluation.get(section)]
        if not evaluation.get("task"):
            self.skipped.append(f"{folder} was skipped, because its evaluation.json has no task.")
            return
        run = RunResult(folder, parse_task(str(evaluation["task"]), folder / "evaluation.json"), evaluation)
        used = {row.section for row in table_rows() if any(run.task in tasks for tasks in row.tasks)}
        for section in sections:
            if section not in used:
                self.skipped.append(f"{folder}: the table has no row for {section} of {run.task}.")
            elif (other := self._runs.setdefault((run.task, section), run)) is not run:
                raise UserError(self._conflict(other.folder, folder, f"{section} of {run.task}"))
        if not sections:
            self.skipped.append(f"{folder}: evaluation.json has no results for {run.task}.")

    def _conflict(self, first: Path, second: Path, result: str) -> str:
        return (
            f"{first} and {second} both have results for {result}. Remove one of them, or use two columns, "
            f"A={first} B={second}."
        )

    def cells(self) -> dict[str, TableCell]:
        """Return row name -> cell, for all rows with results; an average requires results for all of its rows."""
        rows = table_rows()
        cells = {row.name: cell for row in rows if row.group != "average" and (cell := self._cell(row)) is not None}
        for row in rows:
            if row.group == "average":
                groups = [[other.name for other in rows if other.group == group] for group in row.metrics]
                if all(name in cells for names in groups for name in names):
                    value = fmean(fmean(cells[name].value for name in names) for names in groups)
                    cells[row.name] = TableCell(value, ())
        return cells

    def _cell(self, row: TableRow) -> TableCell | None:
        cell: TableCell | None = None
        for tasks in row.tasks:
            runs = tuple(run for task in tasks if (run := self._runs.get((task, row.section))) is not None)
            if len(runs) < len(tasks):
                if runs:
                    missing = " and ".join(set(tasks) - {run.task for run in runs})
                    self.skipped.append(
                        f"{row.name} requires a run with task {missing} in addition to {runs[0].folder}."
                    )
                continue
            if cell is not None:
                raise UserError(self._conflict(cell.runs[0].folder, runs[0].folder, row.name))
            cell = TableCell(fmean(run.value(row) for run in runs), runs)
        return cell


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read a run folder's ``evaluation.json``; raise UserError if it is missing or not a JSON object."""
    path = folder / "evaluation.json"
    if not path.is_file():
        raise UserError(
            f"{folder} has no evaluation.json. Pass the folder (env.save_dir) of a run "
            "that has finished its evaluation."
        )
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Run the evaluation again.") from None


def parse_columns(arguments: Sequence[str]) -> list[Column]:
    """Parse ``[NAME=]RUN_DIR`` arguments into columns, in order of first occurrence; the default name is ``ours``."""
    folders: dict[str, list[Path]] = {}
    for argument in arguments:
        name, sign, folder = argument.partition("=")
        if not sign or Path(argument).is_dir():
            name, folder = "ours", argument
        paths = folders.setdefault(name, [])
        if Path(folder) not in paths:
            paths.append(Path(folder))
    return [Column(name, paths) for name, paths in folders.items()]
