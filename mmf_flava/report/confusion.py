"""The confusion matrix of the final evaluation, prepared for display."""

from dataclasses import dataclass

from mmf_flava.report.run import Evaluation

MAX_CLASSES = 40  # for more classes, only the most confused pairs are shown
MAX_PAIRS = 8


@dataclass(frozen=True)
class ConfusionCell:
    """A cell of the confusion matrix."""

    count: int
    fraction: float  # fraction of the images of the true class
    shade: float  # intensity of the colour, 0 to 1
    correct: bool


@dataclass(frozen=True)
class ConfusedPair:
    """A true class and a wrong prediction for it."""

    true: str
    predicted: str
    count: int
    total: int  # images of the true class
    fraction: float


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix with its most frequent mistakes."""

    classes: list[str]
    rows: list[list[ConfusionCell]]  # one per true class; empty if there are more than MAX_CLASSES
    recalls: list[float | None]  # recall of each class; None for a class without images
    pairs: list[ConfusedPair]  # the most frequent mistakes
    mistakes: int
    total: int


def read_confusion(evaluation: Evaluation | None) -> Confusion | None:
    """Return the confusion matrix of the evaluation, or None if there is no matrix or all counts are 0."""
    if evaluation is None or not any(map(sum, evaluation.confusion)):
        return None
    matrix, classes = evaluation.confusion, evaluation.classes
    totals = [sum(row) for row in matrix]
    rows = [
        [_cell(count, total, true == predicted) for predicted, count in enumerate(row)]
        for true, (row, total) in enumerate(zip(matrix, totals, strict=True))
    ]
    pairs = [
        ConfusedPair(classes[true], classes[predicted], cell.count, totals[true], cell.fraction)
        for true, row in enumerate(rows)
        for predicted, cell in enumerate(row)
        if cell.count and not cell.correct
    ]
    return Confusion(
        classes=classes,
        rows=rows if len(classes) <= MAX_CLASSES else [],
        recalls=[
            row[index].fraction if total else None for index, (row, total) in enumerate(zip(rows, totals, strict=True))
        ],
        pairs=sorted(pairs, key=lambda pair: (-pair.count, -pair.fraction, pair.true, pair.predicted))[:MAX_PAIRS],
        mistakes=sum(pair.count for pair in pairs),
        total=sum(totals),
    )


def _cell(count: int, total: int, correct: bool) -> ConfusionCell:
    fraction = count / total if total else 0.0
    # the square root keeps rare mistakes visible
    shade = 0.15 + 0.7 * fraction if correct else min(1.0, 0.12 + fraction**0.5)
    return ConfusionCell(count, fraction, round(shade, 3) if count else 0.0, correct)
