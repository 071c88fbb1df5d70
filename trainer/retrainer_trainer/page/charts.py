"""Draws the page's pictures as SVG and HTML text: learning curves, sweep, confusion matrix."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api import CurvePoint
from retrainer_trainer.head.sweep import Candidate

# A curve of more evaluations is thinned to this many: no screen shows more, and the page stays small.
MOST_POINTS = 500

# Up to this many labels the confusion matrix shows its counts; with more it is a picture.
MOST_COUNTED = 24

# On fewer validation images the page judges no curves: the gap of 5 points that it looks for is then
# less than three images, and the standard deviation of an accuracy of 90% is 4 points or more.
FEWEST_JUDGED = 50

# From this shade on (0 to 1) a cell's number is bold, and dark where the page is dark.
STRONG = 0.75

_WIDTH, _HEIGHT = 560.0, 286.0
_SWEEP_LEFT = 72.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 14.0, 12.0, 42.0

Points = list[tuple[int, float]]
"""Steps and values, in the order of the steps."""

Series = tuple[str, Points]
"""A name (`training` or `validation`, also its CSS class) and its points (step, value)."""


def points_of(curve: Sequence[CurvePoint], field: str) -> Points:
    """Give the steps at which `field` was measured, with its values."""
    measured = ((p.step, getattr(p, field)) for p in curve)
    return [(step, float(value)) for step, value in measured if value is not None]


def smoothed(points: Points, least: int = 0) -> Points:
    """Compute a centred running mean over a twentieth of the curve: batches of 100 images are noisy.

    Args:
        points: steps and values.
        least: evaluations to take in on each side of a short curve as well.
    """
    reach = max(least, len(points) // 40)
    if reach < 1:
        return points
    values = [value for _, value in points]
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = []
    for i, (step, _) in enumerate(points):
        # At the start, which is steep, the mean reaches as far back as forward; at the flat end it takes
        # what is left.
        low, high = i - min(reach, i), min(len(points), i + min(reach, i) + 1)
        means.append((step, float(sums[high] - sums[low]) / (high - low)))
    return means


def verdict(curve: Sequence[CurvePoint], validation_images: int) -> str:
    """Say whether training and validation move apart, from which step on, and what helps.

    Args:
        curve: every evaluation.
        validation_images: how many images each of them was validated on.
    """
    training = smoothed(points_of(curve, "training_accuracy"))
    validation = smoothed(points_of(curve, "validation_accuracy"))
    # Short curves are smoothed as well: the lowest of some noisy values lies below the true curve.
    entropy = smoothed(points_of(curve, "validation_cross_entropy"), 2)
    if not validation or not training:
        return "There are no validation images, so nothing watched the training from outside."
    if validation_images < FEWEST_JUDGED:
        counted = f"{validation_images} validation image{'' if validation_images == 1 else 's'}"
        return (
            f"On {counted} one image more or less is {100 / max(1, validation_images):.0f} points: too "
            "few to say whether the curves part. More images, or a larger validationPercentage, help."
        )
    return _judgement(training, validation, entropy)


def _judgement(training: Points, validation: Points, entropy: Points) -> str:
    """Judge smoothed curves that were validated on enough images."""
    last = min(len(training), len(validation))
    tail = max(1, last // 10)
    ours = float(np.mean([v for _, v in training[-tail:]]))
    theirs = float(np.mean([v for _, v in validation[-tail:]]))
    best_step, best = min(entropy, key=lambda p: p[1])
    final = float(np.mean([v for _, v in entropy[-tail:]]))
    if final > 1.15 * best and final - best > 0.05:
        if best_step == entropy[0][0]:
            return (
                f"The validation cross entropy is lowest at the first evaluation ({best:.2f}) and ends "
                f"at {final:.2f}: the steps are too large; try a smaller learningRate."
            )
        return (
            f"The validation cross entropy is lowest at about step {best_step:,} ({best:.2f}) and "
            f"rises to {final:.2f} while the training goes on: more steps only make the head surer "
            "of its mistakes; stop near there, or use earlyStopping."
        )
    if ours - theirs > 0.05:
        pairs = list(zip(training, validation, strict=False))
        together = [i for i, ((_, a), (_, b)) in enumerate(pairs) if a - b <= 0.05]
        parted = pairs[min(together[-1] + 1, len(pairs) - 1) if together else 0][0][0]
        parting = (
            f"The curves part at about step {parted:,}: at the end the head is right on "
            f"{100 * ours:.0f}% of its training images and {100 * theirs:.0f}% of the validation images"
        )
        if entropy[(len(entropy) - 1) * 3 // 4][1] > 1.02 * final:
            return (
                f"{parting}. The validation cross entropy still falls: try more steps first, then more "
                "images, or distortions."
            )
        return (
            f"{parting}, so it knows some of the former by heart; more images, or distortions, help "
            "more than more steps."
        )
    return (
        f"Training and validation stay together (at the end {100 * ours:.0f}% and "
        f"{100 * theirs:.0f}%): the head does about as well on images that it was not trained on."
    )


def curves(series: Sequence[Series], label: str, *, percent: bool) -> str:
    """Draw two learning curves as SVG: the measured values faint, their running mean on top."""
    all_points = [p for _, points in series for p in points]
    if not all_points:
        return '<p class="none">Nothing was measured.</p>'
    last = max(1, *(step for step, _ in all_points))
    if percent:
        low, high = _accuracy_range([v for _, v in all_points])
    else:
        low, high = 0.0, _top([v for _, v in all_points])

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = [
        f'<svg class="curve" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    for tick in _ticks(low, high):
        text = f"{100 * tick:.0f}%" if percent else f"{tick:g}"
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{text}</text>'
        )
    for tick in _ticks(0, last):
        if tick != int(tick):
            continue
        anchor = "end" if x(tick) > _WIDTH - 40 else "middle"
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{_HEIGHT - 24}" '
            f'text-anchor="{anchor}">{int(tick):,}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" '
        'text-anchor="middle">steps</text>'
    )
    for name, points in series:
        for kind, drawn in (("raw", points), ("mean", smoothed(points))):
            line = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in _thinned(drawn))
            parts.append(f'<polyline class="{kind} {name}" points="{line}"/>')
    return "".join(parts) + "</svg>"


def _thinned(points: Points) -> Points:
    if len(points) <= MOST_POINTS:
        return points
    keep = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
    return [points[i] for i in keep]


def _accuracy_range(values: list[float]) -> tuple[float, float]:
    low = math.floor(min(values) * 10) / 10
    return (min(low, 0.9), 1.0)


def _top(values: list[float]) -> float:
    """Choose the upper end of the axis: just above 99.5% of the values.

    With a high rate the first evaluations can lie far above the others, and would flatten them.
    """
    top = float(np.percentile(values, 99.5)) if len(values) > 20 else max(values)
    return max(top, 1e-3) * 1.05


def _ticks(low: float, high: float) -> list[float]:
    """Choose four to six round numbers from `low` to `high`."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(step * k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= 5.5)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, int(high / step + 1e-9) + 1)]


def sweep(candidates: Sequence[Candidate], chosen: int) -> str:
    """Draw what a sweep tried as SVG: a column per learning rate, a row per L2, dark where it is good.

    The shade goes by rank, so that a few bad ones do not make all others look alike.
    """
    rates = sorted({candidate.learning_rate or 0.0 for candidate in candidates})
    strengths = sorted({candidate.l2 for candidate in candidates})
    entropies = sorted(c.cross_entropy for c in candidates if c.cross_entropy is not None)
    width, height = _WIDTH - _SWEEP_LEFT - _RIGHT, max(60.0, min(480.0, 26.0 * len(strengths)))
    across, down = width / len(rates), height / len(strengths)
    parts = [
        f'<svg class="sweep" viewBox="0 0 {_WIDTH:.0f} {height + 44:.0f}" role="img" '
        'aria-label="Validation cross entropy of each combination">'
    ]
    frame = ""
    for number, candidate in enumerate(candidates):
        x = _SWEEP_LEFT + across * rates.index(candidate.learning_rate or 0.0)
        y = 4 + down * strengths.index(candidate.l2)
        place = f'x="{x:.1f}" y="{y:.1f}" width="{across:.1f}" height="{down:.1f}"'
        values = f"L2 {candidate.l2:g}"
        if candidate.learning_rate is not None:
            values = f"learning rate {candidate.learning_rate:g}, {values}"
        if candidate.cross_entropy is None:
            kind, shade, outcome = "wrong", 0.5, f"diverged at step {candidate.diverged_step}"
        else:
            rank = entropies.index(candidate.cross_entropy) / max(1, len(entropies) - 1)
            kind, shade = "right", 0.95 - 0.9 * rank
            accuracy = f"accuracy {100 * candidate.accuracy:.1f}%"
            outcome = f"cross entropy {candidate.cross_entropy:.4f}, {accuracy}"
        parts.append(
            f'<rect class="{kind}" {place} fill-opacity="{shade:.2f}">'
            f"<title>{values}: {outcome}</title></rect>"
        )
        if number == chosen:
            frame = f'<rect class="chosen" {place}/>'
    parts.append(frame)
    every = max(1, round(len(strengths) * 14 / height))
    for row, l2 in list(enumerate(strengths))[::every]:
        parts.append(
            f'<text class="tick" x="{_SWEEP_LEFT - 8}" y="{8 + down * (row + 0.5):.1f}" '
            f'text-anchor="end">{l2:g}</text>'
        )
    if rates != [0.0]:
        every = max(1, round(len(rates) * 60 / width))
        for column, rate in list(enumerate(rates))[::every]:
            parts.append(
                f'<text class="tick" x="{_SWEEP_LEFT + across * (column + 0.5):.1f}" '
                f'y="{height + 20:.0f}" text-anchor="middle">{rate:g}</text>'
            )
    axes = "L2" if rates == [0.0] else "L2 from top to bottom, learning rate from left to right"
    parts.append(
        f'<text class="tick" x="{_SWEEP_LEFT + width / 2:.0f}" y="{height + 38:.0f}" '
        f'text-anchor="middle">{axes}</text></svg>'
    )
    return "".join(parts)


def confusion(matrix: npt.NDArray[np.intp], labels: Sequence[str]) -> str:
    """Draw the confusion matrix as HTML: with its counts, or as a picture when there are many labels."""
    if not matrix.sum():
        return '<p class="none">There are no test images.</p>'
    return _counted(matrix, labels) if len(labels) <= MOST_COUNTED else _picture(matrix, labels)


def _shares(matrix: npt.NDArray[np.intp]) -> Any:
    """Compute, of each true label's images, the share of each guess."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _counted(matrix: npt.NDArray[np.intp], labels: Sequence[str]) -> str:
    shares = _shares(matrix)
    rows = []
    for i, label in enumerate(labels):
        cells = []
        for j, count in enumerate(matrix[i]):
            kind = "right" if i == j else "wrong"
            share = float(shares[i, j])
            attribute = " data-some" if count and i != j else ""
            text = str(int(count)) if count else ""
            # A mistake is drawn stronger than its share: one in ten should be seen.
            shade = share if i == j else min(1.0, share * 1.6)
            strong = " strong" if shade > STRONG else ""
            cells.append(
                f'<td class="{kind}{strong}"{attribute} style="--share:{shade:.3f}" '
                f'title="{escape(label)} guessed as {escape(labels[j])}: {int(count)}">{text}</td>'
            )
        rows.append(
            f'<tr><th scope="row" title="{escape(label)}">{escape(label)}</th>{"".join(cells)}</tr>'
        )
    many = " many" if len(labels) > 10 else ""
    head = "".join(
        f'<th scope="col" title="{escape(label)}"><span>{escape(label)}</span></th>'
        for label in labels
    )
    return (
        f'<div class="across"><table class="confusion{many}"><thead><tr><td class="corner">true label '
        f"&#8595; &nbsp; guess &#8594;</td>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        "</table></div>"
    )


def _picture(matrix: npt.NDArray[np.intp], labels: Sequence[str]) -> str:
    shares, count = _shares(matrix), len(labels)
    cell = max(2.0, 640 / count)
    side = cell * count
    parts = [
        f'<svg class="heat" viewBox="0 0 {side:.0f} {side:.0f}" role="img" '
        f'aria-label="Confusion matrix of {count} labels">'
        f'<rect class="ground" width="{side:.0f}" height="{side:.0f}"/>'
    ]
    for i, j in zip(*np.nonzero(matrix), strict=True):
        kind = "right" if i == j else "wrong"
        parts.append(
            f'<rect class="{kind}" x="{j * cell:.1f}" y="{i * cell:.1f}" width="{cell:.1f}" '
            f'height="{cell:.1f}" fill-opacity="{0.4 + 0.6 * float(shares[i, j]):.2f}">'
            f"<title>{escape(labels[i])} guessed as {escape(labels[j])}: {int(matrix[i, j])}"
            "</title></rect>"
        )
    return (
        "".join(parts)
        + f'</svg><p class="note">{count} labels: true label from top to bottom, guess from left to '
        "right, in the order of labels.txt. Point at a cell to read it.</p>"
    )


def confused(matrix: npt.NDArray[np.intp], labels: Sequence[str], most: int = 10) -> str:
    """Write the pairs of labels that are mistaken most often, as an HTML table."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            rows.append(
                f"<tr><td>{escape(labels[i])}</td><td>{escape(labels[j])}</td>"
                f'<td class="number">{int(wrong[i, j])} of {int(matrix[i].sum())}</td></tr>'
            )
    if not rows:
        return ""
    return (
        '<table class="plain"><thead><tr><th>true label</th><th>guessed as</th>'
        f'<th class="number">images</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
