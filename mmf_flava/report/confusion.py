"""The confusion matrix of the final evaluation, made ready to be looked at."""

from dataclasses import dataclass

from mmf_flava.report.run import Evaluation

LARGEST = 40  # classes in a matrix that can still be read; beyond, the list of pairs says more
PAIRS = 8


@dataclass(frozen=True)
class Cell:
    count: int
    share: float  # of the true class
    shade: float  # 0 to 1, how strongly it is coloured
    right: bool


@dataclass(frozen=True)
class Pair:
    """One class taken for another."""

    true: str
    read_as: str
    count: int
    of: int
    share: float


@dataclass(frozen=True)
class Confusion:
    classes: list[str]
    rows: list[list[Cell]]  # one per true class; empty where there are too many to show
    recalls: list[float | None]  # per true class
    pairs: list[Pair]  # the most frequent mistakes
    mistakes: int
    total: int


def read_confusion(evaluation: Evaluation | None) -> Confusion | None:
    """None where the run has no matrix, or one of nothing."""
    if evaluation is None or not any(map(sum, evaluation.confusion)):
        return None
    matrix, classes = evaluation.confusion, evaluation.classes
    totals = [sum(row) for row in matrix]
    rows = [
        [_cell(cell, of, true == read) for read, cell in enumerate(row)]
        for true, (row, of) in enumerate(zip(matrix, totals, strict=True))
    ]
    pairs = [
        Pair(classes[true], classes[read], cell.count, totals[true], cell.share)
        for true, row in enumerate(rows)
        for read, cell in enumerate(row)
        if cell.count and not cell.right
    ]
    return Confusion(
        classes=classes,
        rows=rows if len(classes) <= LARGEST else [],
        recalls=[row[index].share if of else None for index, (row, of) in enumerate(zip(rows, totals, strict=True))],
        pairs=sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.read_as))[:PAIRS],
        mistakes=sum(pair.count for pair in pairs),
        total=sum(totals),
    )


def _cell(count: int, of: int, right: bool) -> Cell:
    share = count / of if of else 0.0
    # single mistakes are what one looks for: the square root keeps them visible beside a full diagonal
    shade = 0.15 + 0.7 * share if right else min(1.0, 0.12 + share**0.5)
    return Cell(count, share, round(shade, 3) if count else 0.0, right)
