"""Line charts as inline SVG with selectable text and the colours of the page.

matplotlib draws with placeholder colours, which are then replaced by CSS variables, ``var(--...)``. The same SVG
therefore has the colours of the light or the dark theme.
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

RUN_COLOURS = 6  # number of run colours in report.css; further runs reuse the colours with other dashes
# dash patterns distinguish runs in prints without colour; report.css has the same patterns for legends
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
WIDTH, HEIGHT = 360, 196  # SVG units, each about one CSS pixel if three charts are in a row
# maximum number of points per curve; more would be indistinguishable at this size and increase the file size
MAX_POINTS = {"trend": 300, "line": 60, "second": 60, "rings": 30, "final": 1}
Style = Literal["trend", "line", "second", "rings", "final"]

PLACEHOLDERS = {
    "#fe0001": "ink",
    "#fe0002": "muted",
    "#fe0003": "grid",
    "#fe0004": "card",
    **{f"#fe01{index:02x}": f"run-{index + 1}" for index in range(RUN_COLOURS)},
}
COLOURS = {name: placeholder for placeholder, name in PLACEHOLDERS.items()}
RC_PARAMS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmf_flava",  # deterministic ids, so that the same run gives the same page
    "text.parse_math": False,
    "font.size": 11,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Curve:
    """A series of values of one run; the style depends on the quantity, and the colour depends on the run."""

    run: int  # index of the run
    xs: list[float]
    ys: list[float]
    style: Style
    label: str | None = None  # shown at the end of the curve


def line_chart(
    name: str,
    description: str,
    curves: Sequence[Curve],
    scale: Literal["auto", "from_zero", "percent"] = "auto",
    reference: tuple[float, str] | None = None,
) -> Markup:
    """Draw the curves over the updates and return inline SVG.

    Args:
        name: prefix of all ids in the SVG; must be unique in the page.
        description: alternative text for screen readers.
        scale: y axis; "auto" fits the curves, "from_zero" starts at 0, "percent" is 0 to 100 %.
        reference: value and label of a horizontal line, such as chance accuracy.
    """
    with matplotlib.rc_context(RC_PARAMS):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        canvas = FigureCanvasSVG(figure)
        labelled = any(curve.label for curve in curves)
        left, right, bottom, top = 42, 46 if labelled else 14, 27, 8
        axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, 1 - (left + right) / WIDTH, 1 - (bottom + top) / HEIGHT))
        figure.patch.set_visible(False)  # transparent, so that the background of the theme is visible
        axes.patch.set_visible(False)
        curves = [downsample(curve) for curve in curves]
        for curve in curves:
            _draw(axes, curve)
        _style_axes(axes, scale, reference)
        _label_ends(axes, curves)
        buffer = io.StringIO()
        canvas.print_svg(buffer, metadata={"Date": None})
    return _to_inline_svg(buffer.getvalue(), name, description)


def dash_index(run: int) -> int:
    """Return the index in DASHES for a run; the first 24 runs have unique combinations of dash and colour."""
    return (run + run // RUN_COLOURS) % len(DASHES)


def _draw(axes: Axes, curve: Curve) -> None:
    colour = COLOURS[f"run-{curve.run % RUN_COLOURS + 1}"]
    dashes = DASHES[dash_index(curve.run)]
    if curve.style == "trend":
        smooth = moving_average(curve.ys, window=len(curve.ys) // 12)
        axes.plot(curve.xs, curve.ys, color=colour, linewidth=1, alpha=0.3)
        axes.plot(
            curve.xs, smooth, color=colour, linewidth=2, linestyle=dashes, marker="o", markersize=5, markevery=[-1]
        )
    elif curve.style == "line":
        axes.plot(curve.xs, curve.ys, color=colour, linewidth=2, linestyle=dashes, marker="o", markersize=3.5)
    elif curve.style == "second":
        axes.plot(curve.xs, curve.ys, color=colour, linewidth=1.2, linestyle=(0, (3, 2)), alpha=0.75)
    else:
        marker, size = ("o", 4.5) if curve.style == "rings" else ("D", 7)
        axes.plot(
            curve.xs,
            curve.ys,
            linestyle="none",
            marker=marker,
            markersize=size,
            markeredgecolor=colour,
            markerfacecolor=COLOURS["card"],
            markeredgewidth=1.4 if curve.style == "rings" else 2,
            zorder=4,
            clip_on=False,
        )


def _style_axes(axes: Axes, scale: str, reference: tuple[float, str] | None) -> None:
    """Draw a light horizontal grid and few tick labels, without a frame."""
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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _format_update(value)))
    if scale == "percent":
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    if scale == "from_zero":
        axes.set_ylim(bottom=0)
    if reference:
        value, label = reference
        axes.axhline(value, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
        right = axes.get_xlim()[1]
        axes.annotate(
            label,
            (right, value),
            (0, 3),
            textcoords="offset points",
            ha="right",
            color=COLOURS["muted"],
            fontsize=10.5,
        )


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Label the curves at their ends, and shift labels that would overlap."""
    ends = sorted((curve for curve in curves if curve.label and curve.ys), key=lambda curve: curve.ys[-1])
    low, high = axes.get_ylim()
    gap = (high - low) * 13 / (HEIGHT - 35)
    heights = [curve.ys[-1] for curve in ends]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    excess = max(heights[-1] - high + gap / 2, 0) if heights else 0
    for height, curve in zip(heights, ends, strict=True):
        axes.annotate(
            curve.label or "",
            (1, height - excess),
            (7, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=COLOURS[f"run-{curve.run % RUN_COLOURS + 1}"],
            annotation_clip=False,
        )


def _format_update(value: float) -> str:
    if value == 0:
        return ""  # the axis label "update" is at this position
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def downsample(curve: Curve) -> Curve:
    """Return the curve with at most MAX_POINTS + 2 points: group averages between the exact first and last point."""
    step = -(-len(curve.xs) // MAX_POINTS[curve.style])
    if step <= 1:
        return curve
    inner = range(1, len(curve.xs) - 1, step)
    groups = [slice(start, min(start + step, len(curve.xs) - 1)) for start in inner]
    xs, ys = ([sum(values[group]) / len(values[group]) for group in groups] for values in (curve.xs, curve.ys))
    return replace(curve, xs=[curve.xs[0], *xs, curve.xs[-1]], ys=[curve.ys[0], *ys, curve.ys[-1]])


def moving_average(ys: Sequence[float], window: int) -> list[float]:
    """Return a centred moving average; the window shrinks towards both ends, so that the end values are exact."""
    means = []
    for index in range(len(ys)):
        reach = min(window // 2, index, len(ys) - 1 - index)
        values = ys[index - reach : index + reach + 1]
        means.append(sum(values) / len(values))
    return means


def _to_inline_svg(svg: str, name: str, description: str) -> Markup:
    """Convert an SVG file to an inline element with unique ids, the page's colours and fonts, and responsive size."""
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 : body.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for placeholder, variable in PLACEHOLDERS.items():
        body = body.replace(placeholder, f"var(--{variable})")
    body = re.sub(r"\n\s*", "\n", body)
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}" '
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(head + namespaces + body + "</svg>")
