"""Pictures, by matplotlib (extra `plot`)."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrainer.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from retrainer._compare import Comparison, Row
    from retrainer._runs import ConfusionMatrix
    from retrainer.history import History

# Two colours that people with any colour vision tell apart (Okabe and Ito 2008).
TRAINING, VALIDATION = "#0072B2", "#D55E00"
_WIDTH_COLOURS = {"1.0": "#0072B2", "0.75": "#009E73", "0.50": "#E69F00", "0.25": "#CC79A7"}
_OTHER = "#555555"
DPI = 150
BUBBLE_POINTS2 = 900.0
"""Area of the largest bubble, square points."""


def needs(library: str) -> Any:
    """The library, imported.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingExtra(f"{library} is not installed: pip install 'retrainer[plot]'") from error


def _figure(columns: int, width: float, height: float) -> "tuple[Figure, Sequence[Axes]]":
    """Made without pyplot: nothing is kept open, and a notebook shows it once."""
    needs("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
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


def curves(history: "History", path: str | None = None) -> "Figure":
    """Accuracy (0 to 1) and cross entropy (nats) against the step."""
    figure, (left, right) = _figure(2, 9.0, 3.4)
    steps = history.column("step")
    for name, label, colour in (
        ("training", "training batch", TRAINING),
        ("validation", "validation", VALIDATION),
    ):
        entropy = "cross_entropy" if name == "training" else "validation_cross_entropy"
        left.plot(steps, _numbers(history.column(f"{name}_accuracy")), color=colour, label=label)
        right.plot(steps, _numbers(history.column(entropy)), color=colour, label=label)
    left.set(xlabel="step", ylabel="accuracy", title=history.title)
    right.set(xlabel="step", ylabel="cross entropy (nats)")
    left.legend(frameon=False, loc="lower right")
    return _saved(figure, path)


def _numbers(values: list[float | None]) -> list[float]:
    """None becomes NaN, which matplotlib leaves out."""
    return [float("nan") if value is None else value for value in values]


def confusion(matrix: "ConfusionMatrix", path: str | None = None) -> "Figure":
    """Counts of test images: rows what they are, columns what was guessed."""
    side = max(3.5, 0.45 * len(matrix.labels) + 1.5)
    figure, (axis,) = _figure(1, side + 0.6, side)
    axis.grid(visible=False)
    share = matrix.counts / matrix.counts.sum(axis=1, keepdims=True).clip(1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(matrix.labels))
    axis.set_xticks(ticks, matrix.labels, rotation=45, ha="right")
    axis.set_yticks(ticks, matrix.labels)
    axis.set(xlabel="guess", ylabel="label")
    if len(matrix.labels) <= 30:
        for i in ticks:
            for j in ticks:
                if matrix.counts[i, j]:
                    colour = "white" if share[i, j] > 0.5 else "black"
                    axis.text(
                        j, i, str(matrix.counts[i, j]), ha="center", va="center", color=colour
                    )
    return _saved(figure, path)


def frontier(comparison: "Comparison", path: str | None = None) -> "Figure":
    """Test accuracy with its 95% interval against multiply-adds; a bubble's area is the size.

    The line joins the jobs that no other beats for as few multiply-adds. Beside each name stands how
    many images a second its bottlenecks took, where they were computed.
    """
    from retrainer._compare import frontier_of

    rows = [row for row in comparison.rows if row.multiply_adds and row.accuracy is not None]
    figure, (axis,) = _figure(1, 9.0, 5.6)
    axis.set(xscale="log", xlabel="multiply-adds per image (millions)", ylabel="test accuracy")
    if not rows:
        axis.text(0.5, 0.5, "no job with a test accuracy", transform=axis.transAxes, ha="center")
        return _saved(figure, path)
    edge = frontier_of(rows)
    axis.plot(
        [_millions(r) for r in edge],
        _numbers([r.accuracy for r in edge]),
        color="#bbbbbb",
        zorder=1,
    )
    largest = max(row.parameters or 0 for row in rows) or 1
    for row in rows:
        colour = _colour(row.architecture)
        accuracy = row.accuracy or 0.0
        # Rounding can put an end of the interval on the wrong side of an accuracy of 0 or 1.
        below = max(0.0, accuracy - (row.low or 0.0))
        above = max(0.0, (row.high or 0.0) - accuracy)
        axis.errorbar(
            _millions(row), accuracy, [[below], [above]],
            color=colour, alpha=0.45, capsize=3, zorder=2,
        )  # fmt: skip
        area = BUBBLE_POINTS2 * (row.parameters or 0) / largest
        axis.scatter(_millions(row), accuracy, s=area, color=colour, alpha=0.7, zorder=3, lw=0)
    _labels(axis, rows, edge)
    axis.set_title(
        "bubble: parameters; bar: 95% interval of the test accuracy", fontsize=9, color=_OTHER
    )
    ticks = [
        t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if _between(t, rows)
    ]
    axis.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axis.minorticks_off()
    return _saved(figure, path)


def _labels(axis: "Axes", rows: "Sequence[Row]", edge: "Sequence[Row]") -> None:
    """Names of the jobs on the line, above it; with few jobs, of all."""
    named = rows if len(rows) <= 8 else edge
    for row in named:
        rate = f"\n{row.images_per_second:,.0f} images/s" if row.images_per_second else ""
        up = row in edge
        axis.annotate(
            short(row.architecture or row.name) + rate,
            (_millions(row), row.accuracy or 0.0),
            xytext=(0, 14 if up else -14),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=8,
        )


def short(architecture: str) -> str:
    """Such as `0.50@224` for mobilenet_0.50_224."""
    parts = architecture.split("_")
    if parts[0] == "mobilenet" and len(parts) >= 3:
        return f"{parts[1]}@{parts[2]}" + (" int8" if parts[-1] == "quantized" else "")
    return architecture


def _colour(architecture: str) -> str:
    parts = architecture.split("_")
    return _WIDTH_COLOURS.get(parts[1] if len(parts) > 1 else "", _OTHER)


def _millions(row: "Row") -> float:
    return (row.multiply_adds or 0) / 1e6


def _between(tick: float, rows: "Sequence[Row]") -> bool:
    values = [_millions(row) for row in rows]
    return 0.7 * min(values) <= tick <= 1.4 * max(values)
