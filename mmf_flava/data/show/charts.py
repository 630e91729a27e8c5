"""Geometry of the charts that template.html renders; lengths are fractions of the plot's width and height."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

MAX_BINS = 30
MAX_LABELS = 6  # labels on a chart's x axis
ASPECTS = [1 / 3, 1 / 2, 3 / 4, 0.99, 1.01, 4 / 3, 2, 3]
ASPECT_NAMES = [
    "narrower than 1:3", "1:3 to 1:2", "1:2 to 3:4", "3:4 to 1:1", "square",
    "1:1 to 4:3", "4:3 to 2:1", "2:1 to 3:1", "wider than 3:1",
]  # fmt: skip
CELLS_PER_OCTAVE = 8  # sizes in the same cell of a scatter plot's grid are one point


@dataclass(frozen=True)
class Bar:
    """A bar of a bar chart."""

    label: str  # may be empty, see MAX_LABELS
    count: int
    length: float  # relative to the longest bar


@dataclass(frozen=True)
class Bin(Bar):
    """A bin of a histogram."""

    title: str  # tooltip: range and count


@dataclass(frozen=True)
class AxisMark:
    """A tick or a labelled reference line on the axis of a chart."""

    position: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """A histogram with vertical bars."""

    bars: list[Bin]
    highest: int
    at_edges: bool  # labels are at the left edges of the bins, not below their centres
    mark: AxisMark | None = None


@dataclass(frozen=True)
class BarChart:
    """A bar chart with labelled horizontal bars."""

    bars: list[Bar]


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot: images of the same or a similar size."""

    x: float
    y: float
    radius: float  # relative to the largest point
    title: str


@dataclass(frozen=True)
class Scatter:
    """A scatter plot of widths and heights; both axes are logarithmic and have the same range."""

    points: list[Point]
    ticks: list[AxisMark]
    side: float  # position of the image encoder's input size on both axes


def build_histogram(values: Sequence[int], mark: int | None = None, label: str = "") -> Histogram:
    """Count integers in bins of width 1, 2, 5, 10, ...

    Args:
        mark: value after which a reference line is drawn, if there are larger values.
        label: label of the reference line.
    """
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
    position = ((mark + 1) / width - first) / bins if mark is not None else 0
    return _histogram(labels, titles, counts, width > 1, AxisMark(position, label) if inside else None)


def build_log2_histogram(values: Sequence[int], format_value: Callable[[int], str]) -> Histogram:
    """Count integers in bins from each power of two to the next."""
    powers = [max(value, 1).bit_length() - 1 for value in values]
    first = min(powers)
    labels = [format_value(2**power) for power in range(first, max(powers) + 2)]
    titles = [f"{low} to {high}" for low, high in pairwise(labels)]
    return _histogram(labels[:-1], titles, Counter(power - first for power in powers), at_edges=True)


def build_bar_chart(counts: Mapping[str, int]) -> BarChart:
    """Return a bar chart with one bar per item of ``counts``, which maps labels to counts."""
    longest = max(1, *counts.values())
    return BarChart([Bar(label, count, count / longest) for label, count in counts.items()])


def build_aspect_chart(sizes: Mapping[tuple[int, int], int]) -> BarChart:
    """Count images by aspect ratio (width to height), from the first to the last non-empty range."""
    counts = [0] * len(ASPECT_NAMES)
    for (width, height), count in sizes.items():
        counts[sum(width / height > edge for edge in ASPECTS)] += count
    filled = [index for index, count in enumerate(counts) if count]
    return build_bar_chart({ASPECT_NAMES[index]: counts[index] for index in range(filled[0], filled[-1] + 1)})


def build_scatter(sizes: Mapping[tuple[int, int], int], side: int) -> Scatter:
    """Return a scatter plot of image sizes with a reference line at the image encoder's input size ``side``."""
    cells: defaultdict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
    for (width, height), count in sizes.items():
        key = round(math.log2(width) * CELLS_PER_OCTAVE), round(math.log2(height) * CELLS_PER_OCTAVE)
        cells[key][width, height] = count
    sides = [side, *chain.from_iterable(sizes)]
    low, high = math.floor(math.log2(min(sides)) - 0.1), math.ceil(math.log2(max(sides)) + 0.1)

    def position(size: float) -> float:
        return (math.log2(size) - low) / (high - low)

    largest = max(cell.total() for cell in cells.values())
    points = []
    for _, cell in sorted(cells.items()):
        width, height = max(cell, key=lambda size: (cell[size], size))
        title = f"{'about ' * (len(cell) > 1)}{width} x {height}: {cell.total():,}"
        points.append(Point(position(width), position(height), math.sqrt(cell.total() / largest), title))
    step = -(-(high - low) // MAX_LABELS)
    ticks = [AxisMark(position(2**power), f"{2**power:,}") for power in range(max(low, 0), high + 1, step)]
    return Scatter(points, ticks, position(side))


def format_bytes(number: float) -> str:
    """Format a number of bytes: 1536 -> "1.5 KB"."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} TB"


def _bin_width(span: int) -> int:
    power = 1
    while True:
        for step in (1, 2, 5):
            if span / (step * power) <= MAX_BINS:
                return step * power
        power *= 10


def _histogram(
    labels: list[str], titles: list[str], counts: Counter[int], at_edges: bool, mark: AxisMark | None = None
) -> Histogram:
    highest = max(counts.values())
    step = -(-len(titles) // MAX_LABELS)
    bins = [
        Bin("" if index % step else label, counts[index], counts[index] / highest, f"{title}: {counts[index]:,}")
        for index, (label, title) in enumerate(zip(labels, titles, strict=True))
    ]
    return Histogram(bins, highest, at_edges, mark)
