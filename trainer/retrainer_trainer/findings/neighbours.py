"""Which images lie nearest to each other in the space of the bottlenecks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Floats

NEIGHBOURS = 10

_BLOCK = 512
"""Number of rows compared with all others at a time."""
_GROUP = 64
"""Columns of which only the largest is looked at first: the ten largest numbers of a row lie in at most
ten groups, and finding those is ten times faster than sorting whole rows of 100,000."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest other images of each image, nearest first.

    Attributes:
        rows: (images, k) their row numbers.
        cosine: float32, (images, k) the cosine between the two bottlenecks.
    """

    rows: npt.NDArray[np.intp]
    cosine: Floats


def nearest(matrix: Floats, count: int = NEIGHBOURS) -> Neighbours:
    """Find the `count` nearest other images of each by the cosine of bottlenecks (images, width).

    Fewer where there are fewer other images.
    """
    images = len(matrix)
    count = min(count, images - 1)
    length = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float32))
    unit = matrix / np.maximum(length, np.finfo(np.float32).tiny)[:, None]
    rows = np.empty((images, count), np.intp)
    cosine = np.empty((images, count), np.float32)
    if not count:
        return Neighbours(rows, cosine)
    padded = -(-images // _GROUP) * _GROUP
    similarity = np.full((min(_BLOCK, images), padded), -2, np.float32)
    for start in range(0, images, _BLOCK):
        stop = min(start + _BLOCK, images)
        block = similarity[: stop - start]
        np.matmul(unit[start:stop], unit.T, out=block[:, :images])
        block[np.arange(stop - start), np.arange(start, stop)] = -2
        rows[start:stop], cosine[start:stop] = _largest(block, count)
    return Neighbours(rows, cosine)


def _largest(block: Floats, count: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Find columns and values of the `count` largest numbers of each row, largest first."""
    grouped = block.reshape(len(block), -1, _GROUP)
    group = _top(grouped.max(axis=2), min(count, grouped.shape[1]))
    candidates = np.take_along_axis(grouped, group[:, :, None], axis=1).reshape(len(block), -1)
    columns = (group[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(len(block), -1)
    best = _top(candidates, count)
    values = np.take_along_axis(candidates, best, axis=1)
    # Equal numbers in the order of their columns, whatever the partition left.
    columns = np.take_along_axis(columns, best, axis=1)
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def _top(values: Floats, count: int) -> npt.NDArray[np.intp]:
    """Find the columns of the `count` largest numbers of each row, in no order."""
    return np.argpartition(-values, count - 1, axis=1)[:, :count]
