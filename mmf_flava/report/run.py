"""Reading of run folders into dataclasses. Missing values are None or empty; ``Run.missing`` lists missing files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmf_flava.errors import UserError
from mmf_flava.report.examples import Examples, read_examples
from mmf_flava.report.issues import Issues, read_issues
from mmf_flava.report.recipe import read_recipe
from mmf_flava.report.series import Series
from mmf_flava.report.values import (
    as_int,
    as_list,
    as_mapping,
    as_number,
    as_numbers,
    as_text,
    read_json,
    read_json_lines,
)

FEATURE_SCORES = ("knn", "linear_probe")  # sections of accuracies on frozen image features
METRICS, EVALUATION, SUMMARY, EXAMPLES = "metrics.jsonl", "evaluation.json", "summary.json", "examples/examples.json"
FILES = (METRICS, EVALUATION, SUMMARY, EXAMPLES)


@dataclass(frozen=True)
class MetricsRecord:
    """A record of metrics.jsonl: the measurements at one training update."""

    update: int
    values: dict[str, float]  # top-level numbers: time, lr, samples_per_second, data_wait, ...
    losses: dict[str, float]
    accuracy: float | None  # zero-shot, 0 to 1
    count: int | None  # number of images that the accuracy is computed on
    retrieval: dict[str, float]  # recalls such as image_to_text_r1, 0 to 1
    metrics: dict[str, float] = field(default_factory=dict)  # finetuning metrics, under MMF's names
    features: dict[str, float] = field(default_factory=dict)  # accuracies on frozen features: knn, linear_probe
    outputs: dict[str, float] = field(default_factory=dict)  # statistics of the model's outputs, e.g. of entropies


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
    retrieval: dict[str, float]  # recalls, and the counts "images" and "captions"
    metrics: dict[str, float] = field(default_factory=dict)  # finetuning metrics, under MMF's names
    # dataset -> number of evaluated samples and of all samples, of the datasets with bad records
    samples: dict[str, tuple[int, int]] = field(default_factory=dict)
    captions_have_classes: bool = False  # the training captions contain the class names
    features: dict[str, float] = field(default_factory=dict)  # accuracies on frozen features: knn, linear_probe
    feature_counts: dict[str, int] = field(default_factory=dict)  # number of test images of each of them


@dataclass(frozen=True)
class Summary:
    """summary.json: the model, the data and the duration of the training."""

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
    """The content of a run folder."""

    folder: Path
    name: str
    train: list[MetricsRecord]
    validation: list[MetricsRecord]
    evaluation: Evaluation | None
    summary: Summary
    examples: Examples
    recipe: dict[str, str]  # dotted key -> value; empty without config.yaml
    issues: Issues
    missing: tuple[str, ...]  # entries of FILES that are missing, empty or unreadable


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; the name of each run is the shortest unique suffix of its path.

    Raises:
        UserError: ``folders`` is empty, or a folder does not exist or has no readable file.
    """
    if not folders:
        raise UserError("No run folder was given. Run `python -m mmf_flava.report RUN_DIR`.")
    return [_read_run(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest unique names of the folders, e.g. "a" and "b" for ``sweep/a/save`` and ``sweep/b/save``."""
    paths = [folder.resolve() for folder in folders]
    components = [path.parts for path in paths]
    several = len(set(components)) > 1
    while several and len({names[-1] for names in components}) == 1:
        components = [names[:-1] for names in components]
    depth = 1
    while len({names[-depth:] for names in components}) < len(set(components)):
        depth += 1
    return [
        "/".join(name for name in names[-depth:] if name != path.anchor) or str(path)
        for names, path in zip(components, paths, strict=True)
    ]


def _read_run(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(
            f"Run folder {folder} was not found. Pass a run folder, i.e. env.save_dir of a run (default: ./save)."
        )
    train, validation = _read_metrics(folder / METRICS)
    evaluation, summary = read_json(folder / EVALUATION), read_json(folder / SUMMARY)
    examples = read_examples(folder / EXAMPLES)
    contents = (train or validation, evaluation, summary, examples.images or examples.sentences)
    missing = tuple(file for file, content in zip(FILES, contents, strict=True) if not content)
    if len(missing) == len(FILES):
        raise UserError(
            f"{folder} has no results: {METRICS}, {EVALUATION} and {SUMMARY} are missing or empty. "
            "Pass the folder of a run that has logged at least once."
        )
    return Run(
        folder=folder,
        name=name,
        train=train,
        validation=validation,
        evaluation=_parse_evaluation(evaluation) if evaluation else None,
        summary=_parse_summary(summary or {}),
        examples=examples,
        recipe=read_recipe(folder),
        issues=read_issues(folder, summary or {}),
        missing=missing,
    )


def _read_metrics(path: Path) -> tuple[list[MetricsRecord], list[MetricsRecord]]:
    """Return the training and validation records, sorted by update; of a long run, a part of them (``Series``).

    A resumed run continues from its last checkpoint and logs some updates again. A training record of a repeated update
    therefore replaces all earlier records of that update and of later updates.
    """
    train, validation, last = Series[dict[str, Any]](), Series[dict[str, Any]](), -1
    for content in read_json_lines(path):
        update = as_int(content.get("update"))
        if update is None:
            continue
        if content.get("split") == "val":
            validation.add(update, content)
        elif content.get("split") == "train":
            if update <= last:
                train.cut(update)
                validation.cut(update)
            train.add(update, content)
            last = update
    parsed = [[_parse_record(*entry) for entry in series.items()] for series in (train, validation)]
    return parsed[0], parsed[1]


def _parse_record(update: int, content: dict[str, Any]) -> MetricsRecord:
    zero_shot = as_mapping(content.get("zero_shot"))
    return MetricsRecord(
        update=update,
        values=as_numbers(content),
        losses=as_numbers(content.get("losses")),
        accuracy=as_number(zero_shot.get("accuracy")),
        count=as_int(zero_shot.get("count")),
        retrieval=as_numbers(content.get("retrieval")),
        metrics=as_numbers(content.get("metrics")),
        features=_feature_scores(content),
        outputs=as_numbers(content.get("outputs")),
    )


def _feature_scores(content: dict[str, Any]) -> dict[str, float]:
    accuracies = {name: as_number(as_mapping(content.get(name)).get("accuracy")) for name in FEATURE_SCORES}
    return {name: value for name, value in accuracies.items() if value is not None}


def _parse_evaluation(content: dict[str, Any]) -> Evaluation:
    zero_shot = as_mapping(content.get("zero_shot"))
    rows = [[as_int(cell) for cell in as_list(row)] for row in as_list(zero_shot.get("confusion"))]
    square = all(len(row) == len(rows) for row in rows) and not any(cell is None for row in rows for cell in row)
    classes = [str(name) for name in as_list(zero_shot.get("classes"))]
    return Evaluation(
        split=as_text(content.get("split")) or "test",
        update=as_int(content.get("update", content.get("updates"))),
        accuracy=as_number(zero_shot.get("accuracy")),
        count=as_int(zero_shot.get("count")),
        chance=as_number(zero_shot.get("chance")),
        classes=classes if len(classes) == len(rows) else [str(index) for index in range(len(rows))],
        confusion=[[max(cell or 0, 0) for cell in row] for row in rows] if square else [],
        templates=[str(template) for template in as_list(zero_shot.get("templates"))],
        retrieval=as_numbers(content.get("retrieval")),
        metrics=as_numbers(content.get("metrics")),
        samples=_parse_samples(as_mapping(content.get("samples"))),
        captions_have_classes=zero_shot.get("captions_have_classes") is True,
        features=_feature_scores(content),
        feature_counts={
            name: count
            for name in FEATURE_SCORES
            if (count := as_int(as_mapping(content.get(name)).get("count"))) is not None
        },
    )


def _parse_samples(content: dict[str, Any]) -> dict[str, tuple[int, int]]:
    samples = {}
    for name, counts in content.items():
        evaluated, bad = (as_int(as_mapping(counts).get(key)) for key in ("evaluated", "bad"))
        if evaluated is not None and bad is not None:
            samples[str(name)] = evaluated, evaluated + bad
    return samples


def read_summary(path: Path) -> Summary:
    """Read ``summary.json``; all fields are empty if it is missing or unreadable."""
    return _parse_summary(read_json(path) or {})


def _parse_summary(content: dict[str, Any]) -> Summary:
    return Summary(
        model=as_text(content.get("model")),
        parameters=as_int(content.get("parameters")),
        updates=as_int(content.get("updates")),
        seconds=as_number(content.get("seconds")),
        samples=as_int(content.get("samples")),
        batch_size=as_int(content.get("batch_size")),
        datasets=[str(name) for name in as_list(content.get("datasets"))],
        device=as_text(content.get("device")),
        precision=as_text(content.get("precision")),
        version=as_text(content.get("version")),
        first_losses=as_numbers(content.get("first_losses")),
        last_losses=as_numbers(content.get("last_losses")),
    )
