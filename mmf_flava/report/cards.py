"""Charts of the report: losses, scores and speed over the updates, with one curve per run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from markupsafe import Markup

from mmf_flava.report import wording
from mmf_flava.report.charts import Curve, Style, line_chart
from mmf_flava.report.run import MetricsRecord, Run
from mmf_flava.report.scores import (
    DIRECTIONS,
    FEATURE_TITLES,
    METRIC_PREFIX,
    TITLES,
    get_score,
    metric_names,
    read_value,
)

Getter = Callable[[MetricsRecord], float | None]
SPEED_CHARTS = {
    "lr": ("Learning rate", "At each update."),
    "weight_decay": ("Weight decay", "At each update, of the weights that are decayed."),
    "samples_per_second": ("Samples per second", "Over all datasets."),
    "tokens_per_second": ("Tokens per second", "Image patches and word pieces, without padding."),
    "flops_per_second": ("FLOP/s", "Matrix multiplications of the forward and backward pass, without the codebook."),
    "data_wait": ("Data wait", "Fraction of the time spent waiting for batches."),
}

FEATURE_DESCRIPTIONS = {
    "knn": "Fraction of held-out images that their nearest training images classify correctly.",
    "linear_probe": "Fraction of held-out images that logistic regression on the features classifies correctly.",
}
OUTPUT_CHARTS = {
    "teacher_entropy": (
        "Entropy of the teacher's output",
        "Mean over the global crops, in nats.",
    ),
    "teacher_information": (
        "Information in the teacher's output",
        "Entropy of the mean output minus the mean entropy, in nats. It is 0 if the output is equal for all crops.",
    ),
    "teacher_separation": (
        "Separation of images by the teacher's output",
        "1 - the divergence between crops of one image / the divergence between crops of two images.",
    ),
}


@dataclass(frozen=True)
class Card:
    """A chart with its heading."""

    title: str
    description: str
    chart: Markup
    name: str | None = None  # name of the loss in the recipe
    first_last: tuple[tuple[int, str, str], ...] = ()  # (run index, first value, last value) per run


def loss_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of all logged losses: first those of ``wording.LOSSES``, then others in alphabetical order."""
    logged = {name for run in runs for record in (*run.train, *run.validation) for name in record.losses}
    logged |= {name for run in runs for name in (*run.summary.first_losses, *run.summary.last_losses)}
    return [name for name in wording.LOSSES if name in logged] + sorted(logged - set(wording.LOSSES))


def first_and_last_loss(run: Run, name: str) -> tuple[float | None, float | None] | None:
    """Return the first and the last value of a training loss: from metrics.jsonl, otherwise from summary.json."""
    values = [record.losses[name] for record in run.train if name in record.losses]
    if values:
        return values[0], values[-1]
    first, last = run.summary.first_losses.get(name), run.summary.last_losses.get(name)
    return None if first is None and last is None else (first, last)


def loss_cards(runs: Sequence[Run]) -> list[Card]:
    """Return one chart per loss; validation losses are drawn as rings."""
    cards = []
    for number, name in enumerate(loss_names(runs)):
        title, description = wording.LOSSES.get(name, (name, "Not a loss of mmf_flava."))
        curves: list[Curve] = []
        first_last = []
        for index, run in enumerate(runs):
            curves += _curve(index, run.train, _loss(name), "trend")
            curves += _curve(index, run.validation, _loss(name), "rings")
            if values := first_and_last_loss(run, name):
                first_last.append((index, wording.format_loss(values[0]), wording.format_loss(values[1])))
        alt_text = f"{title} loss over the updates: " + "; ".join(
            f"{runs[index].name} from {first} to {last}" for index, first, last in first_last
        )
        chart = line_chart(f"loss-{number}", alt_text, curves) if curves else Markup()
        cards.append(Card(title, description, chart, name, tuple(first_last)))
    return cards


def score_cards(runs: Sequence[Run]) -> list[Card]:
    """Return charts of zero-shot accuracy, recall and finetuning metrics; final values are drawn as diamonds."""
    chances = [run.evaluation.chance for run in runs if run.evaluation and run.evaluation.chance is not None]
    accuracy: list[Curve] = []
    for index, run in enumerate(runs):
        accuracy += _curve(index, run.validation, _accuracy, "line")
        accuracy += _final(index, run, "accuracy")
    cards = []
    if accuracy:
        reference = (chances[0], "chance") if len(set(chances)) == 1 else None
        titles = {get_score(run, "accuracy").title for run in runs}
        title = titles.pop() if len(titles) == 1 else TITLES["accuracy"]
        chart = line_chart("accuracy", f"{title} over the updates", accuracy, "percent", reference)
        cards.append(Card(title, "Fraction of held-out images that are classified correctly from prompts.", chart))
    depths: dict[int, Style] = {1: "line", 5: "second"} if len(runs) == 1 else {1: "line"}
    nouns = {"image_to_text": ("images", "caption"), "text_to_image": ("captions", "image")}
    for direction, label in DIRECTIONS.items():
        curves: list[Curve] = []
        for index, run in enumerate(runs):
            for depth, style in depths.items():
                key = f"{direction}_r{depth}"
                curve_label = f"R@{depth}" if len(runs) == 1 else None
                curves += _curve(index, run.validation, _recall(key), style, curve_label)
            curves += _final(index, run, f"{direction}_r1")
        if curves:
            chart = line_chart(direction.replace("_", "-"), f"{label} recall over the updates", curves, "percent")
            queries, target = nouns[direction]
            top = "first, or among the first 5" if len(depths) > 1 else "first"
            description = f"Fraction of {queries} whose correct {target} is ranked {top}."
            cards.append(Card(f"{label} {'recall' if len(depths) > 1 else 'R@1'}", description, chart))
    return cards + metric_cards(runs)


def metric_cards(runs: Sequence[Run]) -> list[Card]:
    """Return one chart per finetuning metric; the y axis is 0 to 100 % if all values are in [0, 1]."""
    cards = []
    for number, name in enumerate(metric_names(runs)):
        key, curves = METRIC_PREFIX + name, list[Curve]()
        for index, run in enumerate(runs):
            curves += _curve(index, run.validation, partial(read_value, key=key), "line")
            curves += _final(index, run, key)
        title = get_score(runs[0], key).title
        is_fraction = all(0 <= value <= 1 for curve in curves for value in curve.ys)
        scale: Literal["from_zero", "percent"] = "percent" if is_fraction else "from_zero"
        if curves:
            chart = line_chart(f"metric-{number}", f"{title} over the updates", curves, scale)
            cards.append(Card(title, f"Metric {name}.", chart))
    return cards


def feature_cards(runs: Sequence[Run]) -> list[Card]:
    """Return charts of the accuracies on frozen image features, and of the entropies of the model's outputs."""
    cards = []
    for key, title in FEATURE_TITLES.items():
        curves: list[Curve] = []
        for index, run in enumerate(runs):
            curves += _curve(index, run.validation, partial(read_value, key=key), "line")
            curves += _final(index, run, key)
        if curves:
            chart = line_chart(key.replace("_", "-"), f"{title} over the updates", curves, "percent")
            cards.append(Card(title, FEATURE_DESCRIPTIONS[key], chart))
    for key, (title, description) in OUTPUT_CHARTS.items():
        curves = []
        for index, run in enumerate(runs):
            curves += _curve(index, run.train, _output(key), "trend")
        if curves:
            chart = line_chart(f"output-{key.replace('_', '-')}", f"{title} over the updates", curves, "from_zero")
            cards.append(Card(title, description, chart))
    return cards


def speed_cards(runs: Sequence[Run]) -> list[Card]:
    """Return charts of the learning rate, a scheduled weight decay, the throughput and the wait for data."""
    cards = []
    for key, (title, description) in SPEED_CHARTS.items():
        curves: list[Curve] = []
        for index, run in enumerate(runs):
            curves += _curve(index, run.train, _value(key), "trend")
        if curves and key == "flops_per_second":
            size, title = wording.flops_unit(max(max(curve.ys) for curve in curves))
            curves = [replace(curve, ys=[y / size for y in curve.ys]) for curve in curves]
        if curves:
            scale: Literal["from_zero", "percent"] = "percent" if key == "data_wait" else "from_zero"
            chart = line_chart(key.replace("_", "-"), f"{title} over the updates", curves, scale)
            cards.append(Card(title, description, chart))
    return cards


def _accuracy(record: MetricsRecord) -> float | None:
    return record.accuracy


def _loss(name: str) -> Getter:
    return lambda record: record.losses.get(name)


def _recall(key: str) -> Getter:
    return lambda record: record.retrieval.get(key)


def _output(key: str) -> Getter:
    return lambda record: record.outputs.get(key)


def _value(key: str) -> Getter:
    return lambda record: record.values.get(key)


def _curve(
    run: int, records: Sequence[MetricsRecord], getter: Getter, style: Style, label: str | None = None
) -> list[Curve]:
    """Return a list with one curve of the values that ``getter`` returns, or an empty list if all values are None."""
    points = [(float(record.update), value) for record in records if (value := getter(record)) is not None]
    if not points:
        return []
    return [Curve(run, [x for x, _ in points], [y for _, y in points], style, label)]


def _final(index: int, run: Run, key: str) -> list[Curve]:
    """Return a list with the final score as a curve of one point, or an empty list if the run has none."""
    score = get_score(run, key)
    if run.evaluation is None or score.value is None or not score.final:
        return []
    update = run.evaluation.update or run.summary.updates
    return [Curve(index, [float(update)], [score.value], "final")] if update else []
