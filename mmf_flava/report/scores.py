"""The figures that a run is judged by: from the final evaluation, or from the last validation where there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmf_flava.report import wording
from mmf_flava.report.run import Evaluation, Line, Run

DIRECTIONS = {"image_to_text": "Image → text", "text_to_image": "Text → image"}
TITLES = {"accuracy": "Zero-shot accuracy"} | {f"{key}_r1": f"{label} R@1" for key, label in DIRECTIONS.items()}

METRIC = "metric "
METRICS = {"vqa_accuracy": "VQA score", "roc_auc": "AUROC", "macro_f1": "Macro F1", "f1": "F1"}


@dataclass(frozen=True)
class Score:
    """One figure between 0 and 1, and where it comes from."""

    title: str
    value: float | None
    chance: float | None = None
    notes: tuple[str, ...] = ()
    final: bool = False  # from evaluation.json


def metric_names(runs: Sequence[Run]) -> list[str]:
    """The metrics of finetuning that any run has, in the order of their first appearance."""
    found = [line.metrics for run in runs for line in run.validation]
    found += [run.evaluation.metrics for run in runs if run.evaluation]
    return list(dict.fromkeys(name for metrics in found for name in metrics))


def value_of(source: Line | Evaluation, key: str) -> float | None:
    """What a line or the final evaluation has of ``key``; see ``score``."""
    if key == "accuracy":
        return source.accuracy
    return source.metrics.get(key.removeprefix(METRIC)) if key.startswith(METRIC) else source.retrieval.get(key)


def score(run: Run, key: str) -> Score:
    """``key`` is "accuracy", a recall such as "image_to_text_r1", or of finetuning such as "metric roc_auc"."""
    name = key.removeprefix(METRIC)
    title = TITLES.get(key, METRICS.get(name, name.replace("_", " ").capitalize()))
    final = run.evaluation
    if final is not None:
        value = value_of(final, key)
        if value is not None:
            chance = final.chance if key == "accuracy" else None
            return Score(title, value, chance, tuple(_notes(final, key, value)), final=True)
    for line in reversed(run.validation):
        value = value_of(line, key)
        if value is not None:
            return Score(title, value, None, (f"validation at update {wording.count(line.update)}",))
    return Score(title, None)


def _notes(final: Evaluation, key: str, value: float) -> list[str]:
    """Out of how many, and against what chance."""
    if key == "accuracy":
        notes = []
        if final.count:
            notes.append(
                f"{wording.count(round(value * final.count))} of {wording.count(final.count)} {final.split} images"
            )
        if final.chance:
            notes.append(f"chance {wording.percent(final.chance, 0 if final.chance >= 0.01 else 2)}")
        return notes
    asked, found = ("images", "captions") if key.startswith("image_to_text") else ("captions", "images")
    several, among = final.retrieval.get(asked), final.retrieval.get(found)
    if several and among:
        return [f"{wording.count(several)} {final.split} {asked},", f"each among {wording.count(among)} {found}"]
    return [f"{final.split} split"]


def best(values: Sequence[float | None]) -> int | None:
    """Position of the highest value, if there is one that stands alone."""
    known = [value for value in values if value is not None]
    return values.index(max(known)) if len(known) > 1 and known.count(max(known)) == 1 else None


def updates(run: Run) -> int | None:
    """How many updates the weights have seen."""
    return run.summary.updates or (run.train[-1].update if run.train else None)


def time(run: Run) -> float | None:
    """Seconds of training."""
    if run.summary.seconds is not None:
        return run.summary.seconds
    return run.train[-1].values.get("time") if run.train else None


def speed(run: Run) -> float | None:
    """Samples per second, over the whole run."""
    if run.summary.samples and run.summary.seconds and run.summary.seconds > 0:
        return run.summary.samples / run.summary.seconds
    speeds = [line.values["samples_per_second"] for line in run.train if "samples_per_second" in line.values]
    return sum(speeds) / len(speeds) if speeds else None
