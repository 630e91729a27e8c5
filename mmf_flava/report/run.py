"""A run folder, read into dataclasses. Whatever is missing is None or empty, and named in ``Run.missing``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmf_flava.errors import UserError
from mmf_flava.report.examples import Examples, read_examples
from mmf_flava.report.recipe import read_recipe
from mmf_flava.report.troubles import Troubles, read_troubles
from mmf_flava.report.values import mapping, number, numbers, read_json, read_json_lines, sequence, text, whole

METRICS, EVALUATION, SUMMARY, EXAMPLES = "metrics.jsonl", "evaluation.json", "summary.json", "examples/examples.json"
FILES = (METRICS, EVALUATION, SUMMARY, EXAMPLES)


@dataclass(frozen=True)
class Line:
    """One line of metrics.jsonl: what was measured at an update."""

    update: int
    values: dict[str, float]  # time, lr, samples_per_second, data_wait and other plain numbers
    losses: dict[str, float]
    accuracy: float | None  # zero-shot, 0 to 1
    count: int | None  # images behind the accuracy
    retrieval: dict[str, float]  # image_to_text_r1 and its kin, 0 to 1
    metrics: dict[str, float] = field(default_factory=dict)  # of finetuning, by MMF's names


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json: the final scores on the held-out split."""

    split: str
    update: int | None
    accuracy: float | None
    count: int | None
    chance: float | None
    classes: list[str]
    confusion: list[list[int]]  # rows are the true classes; empty if the file has no square matrix
    templates: list[str]
    retrieval: dict[str, float]  # recalls, and the numbers of "images" and "captions"
    metrics: dict[str, float] = field(default_factory=dict)  # of finetuning, by MMF's names


@dataclass(frozen=True)
class Summary:
    """summary.json: what was trained, on what, for how long."""

    model: str | None = None
    parameters: int | None = None
    updates: int | None = None
    seconds: float | None = None
    samples: int | None = None
    batch_size: int | None = None
    datasets: list[str] = field(default_factory=list)
    device: str | None = None
    precision: str | None = None
    version: str | None = None
    first_losses: dict[str, float] = field(default_factory=dict)
    last_losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    folder: Path
    name: str
    train: list[Line]
    validation: list[Line]
    evaluation: Evaluation | None
    summary: Summary
    examples: Examples
    recipe: dict[str, str]  # dotted key -> value; empty without config.yaml
    troubles: Troubles
    missing: tuple[str, ...]  # the names of FILES that are not there or hold nothing readable


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads the folders; runs get the shortest names that tell them apart.

    Raises:
        UserError: no folders, or one that is missing or without a single readable file.
    """
    if not folders:
        raise UserError("no run folder was given: name at least one, python -m mmf_flava.report RUN_DIR")
    return [_read_run(folder, name) for folder, name in zip(folders, names(folders), strict=True)]


def names(folders: Sequence[Path]) -> list[str]:
    """``sweep/a/save`` and ``sweep/b/save`` -> "a" and "b": what the ends of the paths differ in."""
    places = [folder.resolve() for folder in folders]
    parts = [place.parts for place in places]
    several = len(set(parts)) > 1
    while several and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return [
        "/".join(word for word in part[-depth:] if word != place.anchor) or str(place)
        for part, place in zip(parts, places, strict=True)
    ]


def _read_run(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(
            f"there is no run folder {folder}: give the folder that a run wrote, its env.save_dir (./save by default)"
        )
    train, validation = _read_metrics(folder / METRICS)
    evaluation, summary = read_json(folder / EVALUATION), read_json(folder / SUMMARY)
    examples = read_examples(folder / EXAMPLES)
    found = (train or validation, evaluation, summary, examples.pictures or examples.sentences)
    missing = tuple(file for file, content in zip(FILES, found, strict=True) if not content)
    if len(missing) == len(FILES):
        raise UserError(
            f"{folder} holds nothing to report, no {METRICS}, {EVALUATION} or {SUMMARY} with anything in it: "
            "give the folder of a run that has logged at least once"
        )
    return Run(
        folder=folder,
        name=name,
        train=train,
        validation=validation,
        evaluation=_evaluation(evaluation) if evaluation else None,
        summary=_summary(summary or {}),
        examples=examples,
        recipe=read_recipe(folder),
        troubles=read_troubles(folder, summary or {}),
        missing=missing,
    )


def _read_metrics(path: Path) -> tuple[list[Line], list[Line]]:
    """Training and validation lines in order of their updates.

    A resumed run goes back to its last checkpoint and logs some updates again. From there on the lines of its earlier
    life describe a future that never came, so a repeated training update drops everything logged from it onwards.
    """
    train: dict[int, Line] = {}
    validation: dict[int, Line] = {}
    last = -1
    for content in read_json_lines(path):
        update = whole(content.get("update"))
        if update is None:
            continue
        if content.get("split") == "val":
            validation[update] = _line(update, content)
        elif content.get("split") == "train":
            if update <= last:
                train = {at: line for at, line in train.items() if at < update}
                validation = {at: line for at, line in validation.items() if at < update}
            train[update] = _line(update, content)
            last = update
    return [train[at] for at in sorted(train)], [validation[at] for at in sorted(validation)]


def _line(update: int, content: dict[str, Any]) -> Line:
    zero_shot = mapping(content.get("zero_shot"))
    return Line(
        update=update,
        values=numbers(content),
        losses=numbers(content.get("losses")),
        accuracy=number(zero_shot.get("accuracy")),
        count=whole(zero_shot.get("count")),
        retrieval=numbers(content.get("retrieval")),
        metrics=numbers(content.get("metrics")),
    )


def _evaluation(content: dict[str, Any]) -> Evaluation:
    zero_shot = mapping(content.get("zero_shot"))
    rows = [[whole(cell) for cell in sequence(row)] for row in sequence(zero_shot.get("confusion"))]
    square = all(len(row) == len(rows) for row in rows) and not any(cell is None for row in rows for cell in row)
    classes = [str(name) for name in sequence(zero_shot.get("classes"))]
    return Evaluation(
        split=text(content.get("split")) or "test",
        update=whole(content.get("update", content.get("updates"))),
        accuracy=number(zero_shot.get("accuracy")),
        count=whole(zero_shot.get("count")),
        chance=number(zero_shot.get("chance")),
        classes=classes if len(classes) == len(rows) else [str(index) for index in range(len(rows))],
        confusion=[[max(cell or 0, 0) for cell in row] for row in rows] if square else [],
        templates=[str(template) for template in sequence(zero_shot.get("templates"))],
        retrieval=numbers(content.get("retrieval")),
        metrics=numbers(content.get("metrics")),
    )


def _summary(content: dict[str, Any]) -> Summary:
    return Summary(
        model=text(content.get("model")),
        parameters=whole(content.get("parameters")),
        updates=whole(content.get("updates")),
        seconds=number(content.get("seconds")),
        samples=whole(content.get("samples")),
        batch_size=whole(content.get("batch_size")),
        datasets=[str(name) for name in sequence(content.get("datasets"))],
        device=text(content.get("device")),
        precision=text(content.get("precision")),
        version=text(content.get("version")),
        first_losses=numbers(content.get("first_losses")),
        last_losses=numbers(content.get("last_losses")),
    )
