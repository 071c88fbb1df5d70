"""Draws learning curves, confusion matrices and comparisons with matplotlib."""

import functools
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrainer.api.status import CurvePoint
from retrainer.results.rows import Row, frontier_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Two colours that people with any colour vision tell apart (Okabe and Ito 2008).
TRAINING, VALIDATION = "#0072B2", "#D55E00"
_WIDTH_COLOURS = {"1.0": "#0072B2", "0.75": "#009E73", "0.50": "#E69F00", "0.25": "#CC79A7"}
_OTHER = "#555555"
DPI = 150
BUBBLE_POINTS2 = 900.0
"""Area of the largest bubble, square points."""
SMALLEST_POINTS2 = 20.0
"""Least area of a bubble: beside Inception V3, the true area of the smallest MobileNet is invisible."""
WIDTH_POINTS = 430.0
"""Width of the frontier's axes, about."""
MOST_LEGEND_LINES = 32
"""Lines that fit beside the frontier; with more names the legend has a second column."""
ASIDE_POINTS = 16.0
"""Distance between two jobs of one network, which would lie on each other."""
LONGEST_LABEL = 28
DARK_SHARE = 0.71
"""Share of a row from which white is easier to read than black on the confusion matrix's blue."""
_FONTS_OF_MANY_SCRIPTS = (
    "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
"""Fonts for labels in Chinese, Japanese or Korean, whose signs matplotlib's own font lacks."""


@functools.cache
def _picture() -> "type[Figure]":
    """Make the class of figures that a notebook shows without the help of pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png")
            return out.getvalue()

    return Picture


def _figure(columns: int, width: float, height: float) -> "tuple[Figure, Sequence[Axes]]":
    """Make a figure without pyplot, which would keep it open and might open a window."""
    figure = _picture()(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, color="#e6e6e6")
        axis.set_axisbelow(True)
    return figure, list(axes)


def _saved(figure: "Figure", path: str | None) -> "Figure":
    if path:
        figure.savefig(path)
    return figure


def curves(points: Sequence[CurvePoint], title: str, path: str | None = None) -> "Figure":
    """Draw accuracy (0 to 1) and cross entropy (nats) against the step."""
    figure, (left, right) = _figure(2, 9.0, 3.4)
    steps = [point.step for point in points]
    for name, label, colour in (
        ("training", "training batch", TRAINING),
        ("validation", "validation", VALIDATION),
    ):
        entropy = "cross_entropy" if name == "training" else "validation_cross_entropy"
        for axis, column in ((left, f"{name}_accuracy"), (right, entropy)):
            values = _numbers([getattr(point, column) for point in points])
            axis.plot(steps, values, color=colour, label=label)
    left.set(xlabel="step", ylabel="accuracy")
    left.set_title(title, parse_math=False)
    right.set(xlabel="step", ylabel="cross entropy (nats)")
    left.legend(frameon=False, loc="lower right")
    return _saved(figure, path)


def _numbers(values: list[float | None]) -> list[float]:
    """Replace None by NaN, which matplotlib leaves out."""
    return [float("nan") if value is None else value for value in values]


def _families() -> list[str]:
    """List the fonts to use: matplotlib's own, then those on this machine that have the other glyphs."""
    from matplotlib.font_manager import get_font_names

    return ["sans-serif", *sorted(set(_FONTS_OF_MANY_SCRIPTS) & set(get_font_names()))]


def confusion(
    labels: Sequence[str], counts: "npt.NDArray[np.int64]", path: str | None = None
) -> "Figure":
    """Draw the counts of test images: rows are what they are, columns what was guessed."""
    side = max(3.5, 0.45 * len(labels) + 1.5)
    figure, (axis,) = _figure(1, side + 0.6, side)
    axis.grid(visible=False)
    share = counts / counts.sum(axis=1, keepdims=True).clip(1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(labels))
    # A label is a folder's name: between two $ matplotlib would read a formula.
    text: dict[str, Any] = {"parse_math": False, "fontfamily": _families()}
    titles = [_cut(label) for label in labels]
    axis.set_xticks(ticks, titles, rotation=45, ha="right", **text)
    axis.set_yticks(ticks, titles, **text)
    axis.set(xlabel="guess", ylabel="label")
    if len(labels) <= 30:
        for i in ticks:
            for j in ticks:
                if counts[i, j]:
                    colour = "white" if share[i, j] > DARK_SHARE else "black"
                    axis.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)
    return _saved(figure, path)


def frontier(jobs: Sequence[Row], path: str | None = None) -> "Figure":
    """Draw test accuracy, with its 95% interval, against multiply-adds; bubbles show the parameters.

    The line joins the jobs that no other beats for as few multiply-adds. The legend names the jobs by
    their numbers, the best first. Where a job computed bottlenecks, it says how many images a second.
    """
    rows = [row for row in jobs if row.multiply_adds and row.accuracy is not None]
    figure, (axis,) = _figure(1, 9.0, 5.6)
    axis.set(xscale="log", xlabel="multiply-adds per image (millions)")
    axis.set_ylabel(_accuracy_label(rows))
    if not rows:
        axis.text(0.5, 0.5, "no job with a test accuracy", transform=axis.transAxes, ha="center")
        return _saved(figure, path)
    edge = [row.name for row in frontier_of(rows)]
    places = _places(rows)
    # Set the limits here: for one job alone matplotlib would choose two equal ones, and warn.
    low, high = _limits(rows)
    axis.set_xlim(low, max(high, max(places.values()) * 1.1))
    line = sorted((row for row in rows if row.name in edge), key=lambda row: places[row.name])
    axis.plot(
        [places[row.name] for row in line],
        _numbers([row.accuracy for row in line]),
        color="#bbbbbb",
        zorder=1,
    )
    largest = max(row.parameters or 0 for row in rows) or 1
    for number, row in enumerate(rows, 1):
        place, colour = places[row.name], _colour(row.architecture)
        accuracy = row.accuracy or 0.0
        # Rounding can put an end of the interval on the wrong side of an accuracy of 0 or 1.
        below = max(0.0, accuracy - (row.low or 0.0))
        above = max(0.0, (row.high or 0.0) - accuracy)
        axis.errorbar(
            place, accuracy, [[below], [above]], color=colour, alpha=0.45, capsize=3, zorder=2
        )
        area = max(SMALLEST_POINTS2, BUBBLE_POINTS2 * (row.parameters or 0) / largest)
        axis.scatter(place, accuracy, s=area, color=colour, alpha=0.7, zorder=3, lw=0)
        axis.annotate(str(number), (place, accuracy), ha="center", va="center", fontsize=8)
    _legend(figure, axis, rows)
    axis.set_title(_READING, fontsize=9, color=_OTHER)
    ticks = _ticks([_millions(row) for row in rows])
    axis.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
    axis.minorticks_off()
    return _saved(figure, path)


_READING = (
    "bubble: parameters; bar: 95% interval of the test accuracy; line: no cheaper job is as good; "
    "/s: images per second"
)


def _accuracy_label(rows: Sequence[Row]) -> str:
    """Write the axis's label, with the number of test images where all jobs have the same."""
    images = {row.images for row in rows}
    return f"test accuracy ({images.pop():,} images)" if len(images) == 1 else "test accuracy"


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    costs = [_millions(row) for row in rows]
    return min(costs) / 1.5, max(costs) * 1.5


def _points(rows: Sequence[Row]) -> float:
    """How many points of the cost axis stand for a factor of e."""
    low, high = _limits(rows)
    return WIDTH_POINTS / math.log(high / low)


def _places(rows: Sequence[Row]) -> dict[str, float]:
    """Place each job on the cost axis, by name; jobs of one network stand side by side."""
    aside = math.exp(ASIDE_POINTS / _points(rows))
    jobs_at: Counter[float] = Counter()
    places = {}
    for row in rows:
        cost = _millions(row)
        places[row.name] = cost * aside ** jobs_at[cost]
        jobs_at[cost] += 1
    return places


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def _legend(figure: "Figure", axis: "Axes", rows: Sequence[Row]) -> None:
    """Name the job behind each number, with how many images a second its bottlenecks took."""
    networks = {row.architecture for row in rows}
    for number, row in enumerate(rows, 1):
        # The network says more than the name, but only where no two jobs have the same.
        name = row.name if len(networks) < len(rows) else short(row.architecture or row.name)
        rate = f", {row.images_per_second:,.0f}/s" if row.images_per_second else ""
        label = f"{number}  {_cut(name)}{rate}"
        axis.scatter([], [], s=40, color=_colour(row.architecture), alpha=0.7, lw=0, label=label)
    legend = figure.legend(
        frameon=False,
        loc="outside right upper",
        fontsize=8,
        ncols=1 + (len(rows) - 1) // MOST_LEGEND_LINES,
    )
    for text in legend.get_texts():
        # A name may have $ in it: between two of them matplotlib would read a formula.
        text.set_parse_math(False)


def short(architecture: str) -> str:
    """Shorten an architecture's name, such as mobilenet_0.50_224 to `0.50@224`."""
    parts = architecture.split("_")
    if parts[0] == "mobilenet" and len(parts) >= 3:
        return f"{parts[1]}@{parts[2]}" + (" int8" if parts[-1] == "quantized" else "")
    return architecture


def _colour(architecture: str) -> str:
    parts = architecture.split("_")
    return _WIDTH_COLOURS.get(parts[1] if len(parts) > 1 else "", _OTHER)


def _millions(row: Row) -> float:
    return (row.multiply_adds or 0) / 1e6


def _ticks(values: list[float]) -> list[float]:
    """Choose round numbers over the range of `values`, more of them where the range is small."""
    low, high = 0.7 * min(values), 1.4 * max(values)
    decades = range(-1, 6)

    def multiples(*factors: float) -> list[float]:
        return [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]

    many = multiples(1, 1.5, 2, 3, 4, 5, 7)
    return many if len(many) <= 9 else multiples(1, 2, 5)
