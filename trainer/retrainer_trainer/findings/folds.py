"""Cross-validation: every image is scored by a head that has not seen it."""

import math

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Floats
from retrainer_trainer.findings.heads import Rotated, train_heads

Longs = npt.NDArray[np.intp]

_Z95 = 1.959964  # two-sided 95% of the normal distribution


def assign_folds(label: Longs, group: Longs, folds: int, seed: int) -> Longs:
    """Assign a fold to each image: labels evenly spread, the images of one group in one fold.

    Args:
        label: (images,) number of each image's label.
        group: (images,) number of each image's group; near-duplicates share one.
        folds: how many.
        seed: of the shuffle.
    """
    _, first, group_number = np.unique(group, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(label[first][order], kind="stable")]
    fold = np.empty(len(first), np.intp)
    fold[order] = np.arange(len(first)) % folds
    return fold[group_number]


def out_of_fold_scores(
    rotated: Rotated, label: Longs, label_count: int, fold: Longs, folds: int
) -> Floats:
    """Score each image, (images, labels), by the head trained on the other folds."""
    takes_part = fold[None, :] != np.arange(folds)[:, None]
    heads = train_heads(rotated, label, label_count, takes_part)
    scores = np.empty((len(label), label_count), np.float32)
    for number in range(folds):
        rows = np.flatnonzero(fold == number)
        scores[rows] = heads.scores(rotated, number, rows)
    return scores


def folds_interval(right: int, images: int, folds: int) -> tuple[float, float]:
    """Compute the 95% interval of an accuracy that cross-validation gave.

    Wilson's interval takes the images as independent tests of one head. Here the heads share most of
    their training images, so their errors go together, and the interval of the folds alone is too
    narrow. Its variance is multiplied as Nadeau and Bengio propose (2003, "Inference for the
    generalization error"): by 1 + folds * (tested images / training images) = 1 + folds / (folds - 1).
    """
    effective = images / (1 + folds / (folds - 1))
    share = right / images
    middle = (share + _Z95**2 / (2 * effective)) / (1 + _Z95**2 / effective)
    half = (
        _Z95
        * math.sqrt(share * (1 - share) / effective + _Z95**2 / (4 * effective**2))
        / (1 + _Z95**2 / effective)
    )
    return max(0.0, middle - half), min(1.0, middle + half)
