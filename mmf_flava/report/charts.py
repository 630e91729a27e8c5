"""Line charts as SVG that lives inside the page: its text is text, and its colours are the page's CSS variables.

matplotlib draws with stand-in colours, which become ``var(--...)`` afterwards: one drawing serves light and dark.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

RUN_COLOURS = 6  # as many as report.css names; further runs begin again, with other dashes
# runs differ in these as well, for paper without colour; report.css draws the same in the legends
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
WIDTH, HEIGHT = 360, 196  # one unit is about one CSS pixel where three charts stand in a row
# per curve: more cannot be told apart at this size, and would make the pages of long runs heavy
POINTS = {"trend": 300, "line": 60, "second": 60, "rings": 30, "final": 1}
Shape = Literal["trend", "line", "second", "rings", "final"]

STAND_INS = {
    "#fe0001": "ink",
    "#fe0002": "muted",
    "#fe0003": "grid",
    "#fe0004": "card",
    **{f"#fe01{index:02x}": f"run-{index + 1}" for index in range(RUN_COLOURS)},
}
COLOURS = {name: stand_in for stand_in, name in STAND_INS.items()}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmf_flava",  # ids by content, not by chance: the same run gives the same page
    "text.parse_math": False,
    "font.size": 11,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Curve:
    """A series of one run. Shapes say what was measured, colours whose it is."""

    run: int  # position of the run, counted from 0
    xs: list[float]
    ys: list[float]
    shape: Shape
    label: str | None = None  # written at the end of the curve


def line_chart(
    name: str,
    description: str,
    curves: Sequence[Curve],
    scale: Literal["plain", "amount", "share"] = "plain",
    reference: tuple[float, str] | None = None,
) -> Markup:
    """Draws the curves over the updates.

    Args:
        name: unique in the page; all ids of the drawing begin with it.
        description: read out by screen readers.
        scale: "plain" fits the curves, "amount" begins at 0, "share" goes from 0 to 100 %.
        reference: height and name of a horizontal line, such as chance.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        canvas = FigureCanvasSVG(figure)
        labelled = any(curve.label for curve in curves)
        left, right, bottom, top = 42, 46 if labelled else 14, 27, 8
        axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, 1 - (left + right) / WIDTH, 1 - (bottom + top) / HEIGHT))
        figure.patch.set_visible(False)  # the card behind the chart is the paper, light or dark
        axes.patch.set_visible(False)
        curves = [thinned(curve) for curve in curves]
        for curve in curves:
            _draw(axes, curve)
        _dress(axes, scale, reference)
        _label_ends(axes, curves)
        buffer = io.StringIO()
        canvas.print_svg(buffer, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, description)


def dash(run: int) -> int:
    """Which of DASHES a run has: no two of the first 24 runs share it and the colour."""
    return (run + run // RUN_COLOURS) % len(DASHES)


def _draw(axes: Axes, curve: Curve) -> None:
    colour = COLOURS[f"run-{curve.run % RUN_COLOURS + 1}"]
    dashes = DASHES[dash(curve.run)]
    if curve.shape == "trend":
        smooth = moving_mean(curve.ys, window=len(curve.ys) // 12)
        axes.plot(curve.xs, curve.ys, color=colour, linewidth=1, alpha=0.3)
        axes.plot(
            curve.xs, smooth, color=colour, linewidth=2, linestyle=dashes, marker="o", markersize=5, markevery=[-1]
        )
    elif curve.shape == "line":
        axes.plot(curve.xs, curve.ys, color=colour, linewidth=2, linestyle=dashes, marker="o", markersize=3.5)
    elif curve.shape == "second":
        axes.plot(curve.xs, curve.ys, color=colour, linewidth=1.2, linestyle=(0, (3, 2)), alpha=0.75)
    else:
        marker, size = ("o", 4.5) if curve.shape == "rings" else ("D", 7)
        axes.plot(
            curve.xs,
            curve.ys,
            linestyle="none",
            marker=marker,
            markersize=size,
            markeredgecolor=colour,
            markerfacecolor=COLOURS["card"],
            markeredgewidth=1.4 if curve.shape == "rings" else 2,
            zorder=4,
            clip_on=False,
        )


def _dress(axes: Axes, scale: str, reference: tuple[float, str] | None) -> None:
    """Light horizontal grid, few numbers, no frame."""
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["grid"])
    axes.tick_params(length=0, colors=COLOURS["muted"], pad=5)
    axes.tick_params(axis="x", pad=8)
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=1)
    axes.set_axisbelow(True)
    axes.margins(x=0.015, y=0.08)
    axes.set_xlim(left=0)
    axes.annotate(
        "update", (0, 0), (4, -8), "axes fraction", "offset points", ha="right", va="top", color=COLOURS["muted"]
    )
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _updates(value)))
    if scale == "share":
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    if scale == "amount":
        axes.set_ylim(bottom=0)
    if reference:
        height, words = reference
        axes.axhline(height, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
        place = axes.get_xlim()[1]
        axes.annotate(
            words,
            (place, height),
            (0, 3),
            textcoords="offset points",
            ha="right",
            color=COLOURS["muted"],
            fontsize=10.5,
        )


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Names the curves at their ends, pushed apart where they would overlap."""
    ends = sorted((curve for curve in curves if curve.label and curve.ys), key=lambda curve: curve.ys[-1])
    low, high = axes.get_ylim()
    gap = (high - low) * 13 / (HEIGHT - 35)
    heights = [curve.ys[-1] for curve in ends]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    over = max(heights[-1] - high + gap / 2, 0) if heights else 0
    for height, curve in zip(heights, ends, strict=True):
        axes.annotate(
            curve.label or "",
            (1, height - over),
            (7, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=COLOURS[f"run-{curve.run % RUN_COLOURS + 1}"],
            annotation_clip=False,
        )


def _updates(value: float) -> str:
    if value == 0:
        return ""  # the word "update" stands there
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def thinned(curve: Curve) -> Curve:
    """At most two more than POINTS, each the mean of its neighbourhood; the first and the last stay as they are."""
    step = -(-len(curve.xs) // POINTS[curve.shape])
    if step <= 1:
        return curve
    inner = range(1, len(curve.xs) - 1, step)
    groups = [slice(start, min(start + step, len(curve.xs) - 1)) for start in inner]
    xs, ys = ([sum(row[group]) / len(row[group]) for group in groups] for row in (curve.xs, curve.ys))
    return replace(curve, xs=[curve.xs[0], *xs, curve.xs[-1]], ys=[curve.ys[0], *ys, curve.ys[-1]])


def moving_mean(ys: Sequence[float], window: int) -> list[float]:
    """A centred mean whose window shrinks towards both ends, so that the curve begins and ends at its true values."""
    means = []
    for index in range(len(ys)):
        reach = min(window // 2, index, len(ys) - 1 - index)
        around = ys[index - reach : index + reach + 1]
        means.append(sum(around) / len(around))
    return means


def _inline(svg: str, name: str, description: str) -> Markup:
    """Cuts the drawing out of its file: own ids, the page's colours and fonts, and a size that follows its column."""
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 : body.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for stand_in, variable in STAND_INS.items():
        body = body.replace(stand_in, f"var(--{variable})")
    body = re.sub(r"\n\s*", "\n", body)
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}" '
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(head + namespaces + body + "</svg>")
