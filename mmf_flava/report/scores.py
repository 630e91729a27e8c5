"""Scores of a run, from its final evaluation or, if it has none, from its last validation."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmf_flava.report import wording
from mmf_flava.report.run import Evaluation, MetricsRecord, Run

DIRECTIONS = {"image_to_text": "Image → text", "text_to_image": "Text → image"}
# accuracies on frozen image features
FEATURE_TITLES = {"knn": "k-NN accuracy", "linear_probe": "Linear probe accuracy"}
TITLES = {"accuracy": "Zero-shot accuracy"} | {f"{key}_r1": f"{label} R@1" for key, label in DIRECTIONS.items()}
TITLES |= FEATURE_TITLES

PROMPT_TITLE = "Prompt classification accuracy"  # of a model whose training captions contain the class names

METRIC_PREFIX = "metric "
METRIC_TITLES = {"vqa_accuracy": "VQA score", "roc_auc": "AUROC", "macro_f1": "Macro F1", "f1": "F1"}


@dataclass(frozen=True)
class Score:
    """A score with its title and notes; a value of 1 is displayed as 100 %."""

    title: str
    value: float | None
    chance: float | None = None
    notes: tuple[str, ...] = ()
    final: bool = False  # whether the score is from the final evaluation


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of all finetuning metrics of the runs, in order of first occurrence."""
    metrics = [record.metrics for run in runs for record in run.validation]
    metrics += [run.evaluation.metrics for run in runs if run.evaluation]
    return list(dict.fromkeys(name for values in metrics for name in values))


def read_value(source: MetricsRecord | Evaluation, key: str) -> float | None:
    """Return the value of ``key`` (see ``get_score``) in a validation record or the final evaluation."""
    if key == "accuracy":
        return source.accuracy
    if key in FEATURE_TITLES:
        return source.features.get(key)
    if key.startswith(METRIC_PREFIX):
        return source.metrics.get(key.removeprefix(METRIC_PREFIX))
    return source.retrieval.get(key)


def get_score(run: Run, key: str) -> Score:
    """Return a score of the final evaluation or, if it lacks the score, of the last validation that has it.

    Args:
        key: "accuracy", "knn", "linear_probe", a recall such as "image_to_text_r1", or a finetuning metric such as
            "metric roc_auc".
    """
    name = key.removeprefix(METRIC_PREFIX)
    title = TITLES.get(key, METRIC_TITLES.get(name, name.replace("_", " ").capitalize()))
    final = run.evaluation
    if key == "accuracy" and final is not None and final.captions_have_classes:
        title = PROMPT_TITLE
    if final is not None:
        value = read_value(final, key)
        if value is not None:
            chance = final.chance if key == "accuracy" else None
            return Score(title, value, chance, tuple(_notes(final, key, value)), final=True)
    for record in reversed(run.validation):
        value = read_value(record, key)
        if value is not None:
            return Score(title, value, None, (f"validation at update {wording.format_count(record.update)}",))
    return Score(title, None)


def _notes(final: Evaluation, key: str, value: float) -> list[str]:
    """Return the notes of a score: the number of samples, chance accuracy, and whether samples were left out."""
    left_out = [wording.format_samples(final.samples)] if final.samples else []
    return _sample_notes(final, key, value) + left_out


def _sample_notes(final: Evaluation, key: str, value: float) -> list[str]:
    if key == "accuracy":
        notes = ["training captions contain the class names"] if final.captions_have_classes else []
        if final.count:
            correct, count = (wording.format_count(n) for n in (round(value * final.count), final.count))
            notes.append(f"{correct} of {count} {final.split} images")
        if final.chance:
            notes.append(f"chance {wording.format_percent(final.chance, 0 if final.chance >= 0.01 else 2)}")
        return notes
    if key in FEATURE_TITLES:
        images = final.feature_counts.get(key)
        return [f"{final.split} split"] if images is None else [f"{wording.format_count(images)} {final.split} images"]
    queries, gallery = ("images", "captions") if key.startswith("image_to_text") else ("captions", "images")
    query_count, gallery_size = final.retrieval.get(queries), final.retrieval.get(gallery)
    if query_count and gallery_size:
        count, size = wording.format_count(query_count), wording.format_count(gallery_size)
        return [f"{count} {final.split} {queries},", f"gallery of {size} {gallery}"]
    return [f"{final.split} split"]


def index_of_best(values: Sequence[float | None]) -> int | None:
    """Return the index of the highest value; None if several values are highest or fewer than two are known."""
    known = [value for value in values if value is not None]
    return values.index(max(known)) if len(known) > 1 and known.count(max(known)) == 1 else None


def update_count(run: Run) -> int | None:
    """Return the number of updates of the run."""
    return run.summary.updates or (run.train[-1].update if run.train else None)


def training_seconds(run: Run) -> float | None:
    """Return the training time in seconds."""
    if run.summary.seconds is not None:
        return run.summary.seconds
    return run.train[-1].values.get("time") if run.train else None


def samples_per_second(run: Run) -> float | None:
    """Return the average number of samples per second."""
    if run.summary.samples and run.summary.seconds and run.summary.seconds > 0:
        return run.summary.samples / run.summary.seconds
    speeds = [record.values["samples_per_second"] for record in run.train if "samples_per_second" in record.values]
    return sum(speeds) / len(speeds) if speeds else None
