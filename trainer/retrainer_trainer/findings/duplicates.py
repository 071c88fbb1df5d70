"""Near-duplicates: pairs of images that show the same, and the groups that they make."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retrainer_trainer.findings.neighbours import Neighbours
from retrainer_trainer.findings.pictures import Comparer, Small

CANDIDATE_COSINE = 0.85
"""Bottlenecks farther apart are not compared: 98 of 100 copies with 10% cropped lie above it, and all
of the milder ones."""
MOST_CANDIDATES = 20_000
"""Pairs whose pictures are compared, the nearest first: two hundred a second and core."""

Longs = npt.NDArray[np.intp]
ReadSmall = Callable[[Iterable[int]], Mapping[int, Small]]
"""Reads small pictures of rows, by row; rows that cannot be read any more are left out."""


class Pair(NamedTuple):
    """Two images that show the same: their rows, the smaller first, and their bottlenecks' cosine."""

    row: int
    other: int
    cosine: float


def near_duplicates(neighbours: Neighbours, read_small: ReadSmall) -> list[Pair]:
    """Find the pairs of neighbours whose pictures are the same, nearest first."""
    candidates = _candidates(neighbours)
    pictures = read_small(sorted({row for pair in candidates for row in pair[:2]}))
    comparer = Comparer()
    pairs = [
        pair
        for pair in sorted(candidates)
        if pair.row in pictures
        and pair.other in pictures
        and comparer.same(pair.row, pictures[pair.row], pictures[pair.other], pair.cosine)
    ]
    return sorted(pairs, key=lambda pair: (-pair.cosine, pair.row, pair.other))


def _candidates(neighbours: Neighbours) -> list[Pair]:
    row, rank = np.nonzero(neighbours.cosine >= CANDIDATE_COSINE)
    other = neighbours.rows[row, rank]
    cosine = neighbours.cosine[row, rank]
    pairs = {
        (min(a, b), max(a, b)): c
        for a, b, c in zip(row.tolist(), other.tolist(), cosine.tolist(), strict=True)
    }
    nearest = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:MOST_CANDIDATES]
    return [Pair(a, b, c) for (a, b), c in nearest]


def groups_of(images: int, pairs: Iterable[tuple[int, int]]) -> Longs:
    """Number each image's group: images joined by pairs, however long the chain, are one group."""
    group = np.arange(images)

    def root(row: int) -> int:
        while group[row] != row:
            group[row] = group[group[row]]
            row = int(group[row])
        return row

    for row, other in pairs:
        first, second = root(row), root(other)
        group[max(first, second)] = min(first, second)
    return np.fromiter((root(row) for row in range(images)), np.intp, images)
