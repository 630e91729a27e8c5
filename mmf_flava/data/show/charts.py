"""Numbers -> the geometry of charts, which template.html draws; lengths are shares of the plot's width and height."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

MOST_BINS = 30
LABELS = 6  # written at most below a chart
ASPECTS = [1 / 3, 1 / 2, 3 / 4, 0.99, 1.01, 4 / 3, 2, 3]
ASPECT_NAMES = [
    "narrower than 1:3", "1:3 to 1:2", "1:2 to 3:4", "3:4 to 1:1", "square",
    "1:1 to 4:3", "4:3 to 2:1", "2:1 to 3:1", "wider than 3:1",
]  # fmt: skip
CELLS = 8  # an octave is cut into this many cells, so that a scatter of any data stays small


@dataclass(frozen=True)
class Bar:
    """A count with a name."""

    label: str  # empty where there is no room for it
    count: int
    length: float  # of the longest bar


@dataclass(frozen=True)
class Bin(Bar):
    """A count of numbers near each other."""

    title: str  # says what is inside and how much


@dataclass(frozen=True)
class Mark:
    """A line across a chart."""

    place: float
    words: str


@dataclass(frozen=True)
class Histogram:
    """Bars side by side."""

    bars: list[Bin]
    highest: int
    at_edges: bool  # labels name the beginnings of bins, not what is inside
    mark: Mark | None = None


@dataclass(frozen=True)
class Bars:
    """Named bars one below another."""

    bars: list[Bar]


@dataclass(frozen=True)
class Point:
    """Images of one size, or of about one."""

    x: float
    y: float
    radius: float  # of the largest
    title: str


@dataclass(frozen=True)
class Scatter:
    """Widths and heights on logarithmic scales of the same range."""

    points: list[Point]
    ticks: list[Mark]
    side: float  # place of the encoder's


def histogram(values: Sequence[int], mark: int | None = None, words: str = "") -> Histogram:
    """Whole numbers in bins of 1, 2, 5, 10, ... each; a line with ``words`` behind ``mark``, if larger ones occur."""
    low, high = min(values), max(values)
    width = _bin_width(high - low + 1)
    first = low // width
    counts = Counter(value // width - first for value in values)
    bins = high // width - first + 1
    titles = [
        str(start) if width == 1 else f"{start:,} to {start + width - 1:,}"
        for start in range(first * width, (first + bins) * width, width)
    ]
    labels = [f"{(first + step) * width:,}" for step in range(bins)]
    inside = mark is not None and low <= mark < high
    place = ((mark + 1) / width - first) / bins if mark is not None else 0
    return _histogram(labels, titles, counts, width > 1, Mark(place, words) if inside else None)


def octaves(values: Sequence[int], wording: Callable[[int], str]) -> Histogram:
    """Numbers in bins that double."""
    powers = [max(value, 1).bit_length() - 1 for value in values]
    first = min(powers)
    labels = [wording(2**power) for power in range(first, max(powers) + 2)]
    titles = [f"{low} to {high}" for low, high in pairwise(labels)]
    return _histogram(labels[:-1], titles, Counter(power - first for power in powers), at_edges=True)


def bars(counts: Mapping[str, int]) -> Bars:
    longest = max(1, *counts.values())
    return Bars([Bar(label, count, count / longest) for label, count in counts.items()])


def aspects(sizes: Mapping[tuple[int, int], int]) -> Bars:
    """Shares of width to height, the classes that occur and those between them."""
    counts = [0] * len(ASPECT_NAMES)
    for (width, height), count in sizes.items():
        counts[sum(width / height > edge for edge in ASPECTS)] += count
    filled = [place for place, count in enumerate(counts) if count]
    return bars({ASPECT_NAMES[place]: counts[place] for place in range(filled[0], filled[-1] + 1)})


def scatter(sizes: Mapping[tuple[int, int], int], side: int) -> Scatter:
    """Image sizes beside the ``side`` of the encoder's view."""
    cells: defaultdict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
    for (width, height), count in sizes.items():
        cells[round(math.log2(width) * CELLS), round(math.log2(height) * CELLS)][width, height] = count
    ends = [side, *chain.from_iterable(sizes)]
    low, high = math.floor(math.log2(min(ends)) - 0.1), math.ceil(math.log2(max(ends)) + 0.1)

    def place(size: float) -> float:
        return (math.log2(size) - low) / (high - low)

    largest = max(cell.total() for cell in cells.values())
    points = []
    for _, cell in sorted(cells.items()):
        width, height = max(cell, key=lambda size: (cell[size], size))
        title = f"{'about ' * (len(cell) > 1)}{width} x {height}: {cell.total():,}"
        points.append(Point(place(width), place(height), math.sqrt(cell.total() / largest), title))
    step = -(-(high - low) // LABELS)
    ticks = [Mark(place(2**power), f"{2**power:,}") for power in range(max(low, 0), high + 1, step)]
    return Scatter(points, ticks, place(side))


def size_in_bytes(number: float) -> str:
    """1536 -> "1.5 KB"."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} TB"


def _bin_width(span: int) -> int:
    power = 1
    while True:
        for step in (1, 2, 5):
            if span / (step * power) <= MOST_BINS:
                return step * power
        power *= 10


def _histogram(
    labels: list[str], titles: list[str], counts: Counter[int], at_edges: bool, mark: Mark | None = None
) -> Histogram:
    highest = max(counts.values())
    step = -(-len(titles) // LABELS)
    found = [
        Bin("" if place % step else label, counts[place], counts[place] / highest, f"{title}: {counts[place]:,}")
        for place, (label, title) in enumerate(zip(labels, titles, strict=True))
    ]
    return Histogram(found, highest, at_edges, mark)
