"""How many more photos would help: the accuracy with fewer of them, carried on by a power law."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retrainer_trainer.findings.heads import Rotated, train_heads

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the training images of a fold on which heads are trained."""
Longs = npt.NDArray[np.intp]


class Point(NamedTuple):
    """The accuracy of a head with one number of training images."""

    images: int
    accuracy: float


class Forecast(NamedTuple):
    """The measured points, and the law through them: error = scale * images**-exponent."""

    points: list[Point]
    scale: float
    exponent: float

    def accuracy(self, images: float) -> float:
        """Compute the accuracy that the law gives for a number of training images."""
        return 1 - self.scale * math.pow(images, -self.exponent)


def forecast(
    rotated: Rotated, label: Longs, label_count: int, fold: Longs, *, seed: int
) -> Forecast | None:
    """Measure the learning curve over the number of training images; None where they are too few.

    Each head is tested on images of a fold that it has not seen. The law is fitted to the logarithms
    of the errors, each point weighted by its number of errors. Every fold is one more draw of the
    images of each share.
    """
    generator = np.random.default_rng(seed)
    folds = int(fold.max()) + 1
    takes_part, tested = [], []
    for number in range(folds):
        training = generator.permutation(np.flatnonzero(fold != number))
        # Labels evenly in every share: rank within the label, then across labels.
        order = np.argsort(_rank_in_label(label[training], label_count), kind="stable")
        training = training[order]
        for share in SHARES:
            part = np.zeros(len(label), np.bool_)
            part[training[: max(label_count, round(share * len(training)))]] = True
            takes_part.append(part)
            tested.append(np.flatnonzero(fold == number))
    masks = np.stack(takes_part)
    heads = train_heads(rotated, label, label_count, masks)
    right = np.zeros(len(SHARES))
    count = np.zeros(len(SHARES))
    size = np.zeros(len(SHARES))
    for head, rows in enumerate(tested):
        guess = heads.scores(rotated, head, rows).argmax(axis=1)
        right[head % len(SHARES)] += (guess == label[rows]).sum()
        count[head % len(SHARES)] += len(rows)
        size[head % len(SHARES)] += masks[head].sum() / folds
    errors = count - right
    points = [
        Point(round(s), r / c)
        for s, r, c in zip(size.tolist(), right.tolist(), count.tolist(), strict=True)
    ]
    if errors.min() < 1 or len(set(size.tolist())) < 3:
        return None
    slope, intercept = np.polyfit(np.log(size), np.log(errors / count), 1, w=np.sqrt(errors))
    return Forecast(points, float(np.exp(intercept)), float(max(0.0, -slope)))


def _rank_in_label(label: Longs, label_count: int) -> npt.NDArray[np.float64]:
    """Compute, for images in random order, the share of its label's images that comes before each."""
    rank = np.empty(len(label))
    for number in range(label_count):
        rows = np.flatnonzero(label == number)
        rank[rows] = (np.arange(len(rows)) + 0.5) / max(1, len(rows))
    return rank
