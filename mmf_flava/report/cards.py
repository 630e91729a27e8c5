"""The small charts of the page: losses, scores and speed over the updates, one curve a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from markupsafe import Markup

from mmf_flava.report import wording
from mmf_flava.report.charts import Curve, Shape, line_chart
from mmf_flava.report.run import Line, Run
from mmf_flava.report.scores import DIRECTIONS, METRIC, metric_names, score, value_of

Pick = Callable[[Line], float | None]
MACHINE = {
    "lr": ("Learning rate", "What the schedule allowed at each update."),
    "samples_per_second": ("Samples per second", "Over all datasets."),
    "tokens_per_second": ("Tokens per second", "Patches and word pieces together, padding left out."),
    "flops_per_second": ("FLOP/s used", "Matrix products of forward and backward; the codebook is not counted."),
    "data_wait": ("Waiting for data", "Share of the time in which the model had no batch."),
}


@dataclass(frozen=True)
class Card:
    """One small chart with its heading."""

    title: str
    says: str
    chart: Markup
    name: str | None = None  # the loss as the YAML calls it
    ends: tuple[tuple[int, str, str], ...] = ()  # run, first value, last value


def loss_names(runs: Sequence[Run]) -> list[str]:
    """FLAVA's six in their order, then whatever else the runs logged."""
    logged = {name for run in runs for line in (*run.train, *run.validation) for name in line.losses}
    logged |= {name for run in runs for name in (*run.summary.first_losses, *run.summary.last_losses)}
    return [name for name in wording.LOSSES if name in logged] + sorted(logged - set(wording.LOSSES))


def loss_ends(run: Run, name: str) -> tuple[float | None, float | None] | None:
    """First and last value: of the curve that is drawn, or of the summary where there is no curve."""
    values = [line.losses[name] for line in run.train if name in line.losses]
    if values:
        return values[0], values[-1]
    first, last = run.summary.first_losses.get(name), run.summary.last_losses.get(name)
    return None if first is None and last is None else (first, last)


def loss_cards(runs: Sequence[Run]) -> list[Card]:
    """A chart of each loss, with the validation in rings."""
    cards = []
    for number, name in enumerate(loss_names(runs)):
        title, says = wording.LOSSES.get(name, (name, "A loss beside the six of FLAVA."))
        curves: list[Curve] = []
        ends = []
        for index, run in enumerate(runs):
            curves += _curve(index, run.train, _loss(name), "trend")
            curves += _curve(index, run.validation, _loss(name), "rings")
            if end := loss_ends(run, name):
                ends.append((index, wording.loss(end[0]), wording.loss(end[1])))
        told = f"{title} loss over the updates: " + "; ".join(
            f"{runs[index].name} from {first} to {last}" for index, first, last in ends
        )
        chart = line_chart(f"loss-{number}", told, curves) if curves else Markup()
        cards.append(Card(title, says, chart, name, tuple(ends)))
    return cards


def score_cards(runs: Sequence[Run]) -> list[Card]:
    """Zero-shot accuracy and recall while training went on, with the final test value as a diamond."""
    chances = [run.evaluation.chance for run in runs if run.evaluation and run.evaluation.chance is not None]
    accuracy: list[Curve] = []
    for index, run in enumerate(runs):
        accuracy += _curve(index, run.validation, _accuracy, "line")
        accuracy += _final(index, run, "accuracy")
    cards = []
    if accuracy:
        reference = (chances[0], "chance") if len(set(chances)) == 1 else None
        chart = line_chart("accuracy", "Zero-shot accuracy over the updates", accuracy, "share", reference)
        cards.append(Card("Zero-shot accuracy", "Share of held-out images whose class the prompts name.", chart))
    ranks: dict[int, Shape] = {1: "line", 5: "second"} if len(runs) == 1 else {1: "line"}
    sought = {"image_to_text": ("caption", "an image"), "text_to_image": ("image", "a caption")}
    for direction, label in DIRECTIONS.items():
        curves: list[Curve] = []
        for index, run in enumerate(runs):
            for rank, shape in ranks.items():
                key = f"{direction}_r{rank}"
                words = f"R@{rank}" if len(runs) == 1 else None
                curves += _curve(index, run.validation, _recall(key), shape, words)
            curves += _final(index, run, f"{direction}_r1")
        if curves:
            chart = line_chart(direction.replace("_", "-"), f"{label} recall over the updates", curves, "share")
            what, given = sought[direction]
            says = f"Is the right {what} the first{', or in the first 5,' if len(ranks) > 1 else ''} for {given}?"
            cards.append(Card(f"{label} {'recall' if len(ranks) > 1 else 'R@1'}", says, chart))
    return cards + metric_cards(runs)


def metric_cards(runs: Sequence[Run]) -> list[Card]:
    """The metrics of finetuning; a correlation may be negative."""
    cards = []
    for number, name in enumerate(metric_names(runs)):
        key, curves = METRIC + name, list[Curve]()
        for index, run in enumerate(runs):
            curves += _curve(index, run.validation, partial(value_of, key=key), "line")
            curves += _final(index, run, key)
        title = score(runs[0], key).title
        share = all(0 <= value <= 1 for curve in curves for value in curve.ys)
        scale: Literal["amount", "share"] = "share" if share else "amount"
        if curves:
            chart = line_chart(f"metric-{number}", f"{title} over the updates", curves, scale)
            cards.append(Card(title, f"The metric {name}.", chart))
    return cards


def machine_cards(runs: Sequence[Run]) -> list[Card]:
    """Learning rate, speed and waiting."""
    cards = []
    for key, (title, says) in MACHINE.items():
        curves: list[Curve] = []
        for index, run in enumerate(runs):
            curves += _curve(index, run.train, _value(key), "trend")
        if curves and key == "flops_per_second":
            size, unit = wording.operations(max(max(curve.ys) for curve in curves))
            title = f"{unit} used"
            curves = [replace(curve, ys=[y / size for y in curve.ys]) for curve in curves]
        if curves:
            scale: Literal["amount", "share"] = "share" if key == "data_wait" else "amount"
            cards.append(
                Card(title, says, line_chart(key.replace("_", "-"), f"{title} over the updates", curves, scale))
            )
    return cards


def _accuracy(line: Line) -> float | None:
    return line.accuracy


def _loss(name: str) -> Pick:
    return lambda line: line.losses.get(name)


def _recall(key: str) -> Pick:
    return lambda line: line.retrieval.get(key)


def _value(key: str) -> Pick:
    return lambda line: line.values.get(key)


def _curve(run: int, lines: Sequence[Line], pick: Pick, shape: Shape, label: str | None = None) -> list[Curve]:
    """One curve of what ``pick`` finds in the lines; none if it finds nothing."""
    points = [(float(line.update), value) for line in lines if (value := pick(line)) is not None]
    if not points:
        return []
    return [Curve(run, [x for x, _ in points], [y for _, y in points], shape, label)]


def _final(index: int, run: Run, key: str) -> list[Curve]:
    found = score(run, key)
    if run.evaluation is None or found.value is None or not found.final:
        return []
    update = run.evaluation.update or run.summary.updates
    return [Curve(index, [float(update)], [found.value], "final")] if update else []
