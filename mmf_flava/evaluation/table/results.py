"""What runs leave in ``evaluation.json``, by task, and what it gives for a row of the table."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmf_flava.config.nearness import did_you_mean, near
from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.paper import Row, rows

SECTIONS = ("metrics", "linear_probe", "zero_shot", "retrieval")


@dataclass(frozen=True)
class Run:
    """One run's figures of one task."""

    folder: Path
    task: str
    evaluation: dict[str, Any]

    def figure(self, row: Row) -> float:
        """What this run gives for ``row``, in per cent; UserError where a figure is missing or no share of 1."""
        section = self.evaluation[row.section]
        return 100 * fmean(self._share(section, row, name) for name in row.figures)

    def _share(self, section: dict[str, Any], row: Row, name: str) -> float:
        where = f"{self.folder / 'evaluation.json'}: {row.name}"
        if name not in section:
            raise UserError(
                f"{where} needs {' and '.join(row.figures)} of '{row.section}', which has "
                f"{', '.join(section)}: let the run compute {name} too."
            )
        value = section[name]
        if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1:
            raise UserError(f"{where}'s {row.section}.{name} is {value!r}; figures are shares of 1.")
        return float(value)


@dataclass(frozen=True)
class Cell:
    """A figure in per cent and the runs that it comes from."""

    value: float
    runs: tuple[Run, ...]


class Column:
    """The runs of one model: at most one for each task and section."""

    def __init__(self, name: str, folders: Iterable[Path]) -> None:
        self.name = name
        self.left_out: list[str] = []
        self._runs: dict[tuple[str, str], Run] = {}
        for folder in folders:
            self._add(folder)

    def _add(self, folder: Path) -> None:
        evaluation = read_evaluation(folder)
        sections = [section for section in SECTIONS if evaluation.get(section)]
        if not evaluation.get("task"):
            self.left_out.append(f"{folder} names no task in evaluation.json and is left out.")
            return
        run = Run(folder, task_name(str(evaluation["task"]), folder), evaluation)
        used = {row.section for row in rows() if any(run.task in tasks for tasks in row.tasks)}
        for section in sections:
            if section not in used:
                self.left_out.append(f"{folder}: the table has no row for {section} of {run.task}.")
            elif (other := self._runs.setdefault((run.task, section), run)) is not run:
                raise UserError(self._twice(other.folder, folder, f"{section} of {run.task}"))
        if not sections:
            self.left_out.append(f"{folder}: evaluation.json has no figures of {run.task}.")

    def _twice(self, first: Path, second: Path, what: str) -> str:
        return (
            f"{first} and {second} both give {what}, and a column shows one: leave one out, or name their columns, "
            f"A={first} B={second}."
        )

    def cells(self) -> dict[str, Cell]:
        """Row name -> cell, for all rows that were run, averages only where all their rows were."""
        table = rows()
        cells = {row.name: cell for row in table if row.part != "average" and (cell := self._cell(row)) is not None}
        for row in table:
            if row.part == "average":
                parts = [[other.name for other in table if other.part == part] for part in row.figures]
                if all(name in cells for names in parts for name in names):
                    value = fmean(fmean(cells[name].value for name in names) for names in parts)
                    cells[row.name] = Cell(value, ())
        return cells

    def _cell(self, row: Row) -> Cell | None:
        found: Cell | None = None
        for tasks in row.tasks:
            runs = tuple(run for task in tasks if (run := self._runs.get((task, row.section))) is not None)
            if len(runs) < len(tasks):
                if runs:
                    missing = " and ".join(set(tasks) - {run.task for run in runs})
                    self.left_out.append(f"{row.name} needs {missing} beside {runs[0].folder}.")
                continue
            if found is not None:
                raise UserError(self._twice(found.runs[0].folder, runs[0].folder, row.name))
            found = Cell(fmean(run.figure(row) for run in runs), runs)
        return found


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of a run folder's ``evaluation.json``; UserError where there is none or it is no JSON object."""
    path = folder / "evaluation.json"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no evaluation.json: name the folder of a run (its env.save_dir) that came to its end."
        )
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): run the evaluation again.") from None
    if not isinstance(evaluation, dict):
        raise UserError(f"{path} is no JSON object: run the evaluation again.")
    return evaluation


def task_name(said: str, folder: Path) -> str:
    """The table's name of a task, whatever its case and whether it has ``-``, ``_`` or blanks; UserError: unknown."""
    known = {_plain(task): task for row in rows() for tasks in row.tasks for task in tasks}
    if _plain(said) not in known:
        close = near(said, known.values())
        hint = did_you_mean(close) if close else f"the table knows {', '.join(sorted(known.values()))}."
        raise UserError(f"{folder / 'evaluation.json'}: the table has no task '{said}'; {hint}")
    return known[_plain(said)]


def _plain(task: str) -> str:
    return re.sub(r"[-_\s]", "", task.lower())


def columns(arguments: Sequence[str]) -> list[Column]:
    """The columns of ``[NAME=]RUN_DIR`` arguments in order of first naming; without a name a run goes to ``ours``."""
    folders: dict[str, list[Path]] = {}
    for argument in arguments:
        name, sign, folder = argument.partition("=")
        if not sign or Path(argument).is_dir():
            name, folder = "ours", argument
        known = folders.setdefault(name, [])
        if Path(folder) not in known:
            known.append(Path(folder))
    return [Column(name, paths) for name, paths in folders.items()]
