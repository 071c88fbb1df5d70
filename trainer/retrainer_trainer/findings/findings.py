"""All findings of one set of images, from the matrix that the head was trained on.

    findings = find(matrix, label, sets, label_count, read_small, seed)

They depend on the photos, their labels and the backbone, not on the head.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Floats
from retrainer_trainer.findings.duplicates import Pair, ReadSmall, groups_of, near_duplicates
from retrainer_trainer.findings.folds import assign_folds, folds_interval, out_of_fold_scores
from retrainer_trainer.findings.forecast import Forecast, forecast
from retrainer_trainer.findings.heads import rotate
from retrainer_trainer.findings.labels import SHOWN_ABOVE, margins, neighbour_votes
from retrainer_trainer.findings.neighbours import Neighbours, nearest

FOLDS = 10
MOST_IMAGES = 100_000
"""Images above which findings are left out: the time to compare each with each grows as the square."""
FEWEST_PER_LABEL = 5
"""Images that every label needs: with fewer, a fold leaves a head with next to none of a label."""
STRANGER_SPREADS = 6.0
"""How many robust spreads above the median distance an image is a stranger."""

Longs = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong: its row, the label that fits better, the margin."""

    row: int
    suggested: int
    margin: float


@dataclass(frozen=True)
class Stranger:
    """An image that is unlike all others: its row, and the distance to its nearest ones."""

    row: int
    distance: float


@dataclass(frozen=True)
class Findings:
    """The findings of one set of images. Row numbers are those of the matrix.

    Attributes:
        right: images that the folds' heads, which had not seen them, guessed right.
        images: images tested by the folds.
        interval: 95% interval of that accuracy.
        suspects: most suspicious first.
        duplicates: near-duplicates within one set, or of any two images where sets do not matter.
        leaks: near-duplicates of which one image is tested and the other trained on.
        strangers: farthest first.
        forecast: the accuracy by the number of training images; None where there are too few.
    """

    right: int
    images: int
    interval: tuple[float, float]
    suspects: list[Suspect] = field(default_factory=list)
    duplicates: list[Pair] = field(default_factory=list)
    leaks: list[Pair] = field(default_factory=list)
    strangers: list[Stranger] = field(default_factory=list)
    forecast: Forecast | None = None

    @property
    def accuracy(self) -> float:
        """The share of all images guessed right by heads that were not trained on them."""
        return self.right / self.images


def why_not(label: Longs, label_count: int) -> str:
    """Write why findings are left out for these labels, as a sentence; "" if they are not."""
    if len(label) > MOST_IMAGES:
        return f"Findings are left out: there are more than {MOST_IMAGES:,} images."
    if np.bincount(label, minlength=label_count).min() < FEWEST_PER_LABEL:
        return f"Findings are left out: each label needs at least {FEWEST_PER_LABEL} images."
    return ""


def find(
    matrix: Floats,
    label: Longs,
    sets: npt.NDArray[np.integer],
    label_count: int,
    *,
    read_small: ReadSmall,
    seed: int = 0,
) -> Findings:
    """Look for all kinds of findings.

    Args:
        matrix: bottlenecks, float32, (images, width).
        label: (images,) number of each image's label; at least `FEWEST_PER_LABEL` of each.
        sets: (images,) which set each is in; images of different sets that show the same are leaks.
        label_count: number of labels.
        read_small: reads small pictures of images.
        seed: of the folds.
    """
    neighbours = nearest(matrix)
    pairs = near_duplicates(neighbours, read_small)
    leaks = [pair for pair in pairs if sets[pair.row] != sets[pair.other]]
    duplicates = [pair for pair in pairs if sets[pair.row] == sets[pair.other]]
    group = groups_of(len(label), ((pair.row, pair.other) for pair in pairs))
    fold = assign_folds(label, group, FOLDS, seed)
    rotated = rotate(matrix)
    scores = out_of_fold_scores(rotated, label, label_count, fold, FOLDS)
    right = int((scores.argmax(axis=1) == label).sum())
    return Findings(
        right=right,
        images=len(label),
        interval=folds_interval(right, len(label), FOLDS),
        suspects=_suspects(scores, neighbours, label, label_count),
        duplicates=duplicates,
        leaks=leaks,
        strangers=_strangers(neighbours),
        forecast=forecast(rotated, label, label_count, fold, seed=seed),
    )


def _suspects(
    scores: Floats, neighbours: Neighbours, label: Longs, label_count: int
) -> list[Suspect]:
    margin, suggested = margins(scores, neighbour_votes(neighbours, label, label_count), label)
    shown = np.flatnonzero(margin > SHOWN_ABOVE)
    shown = shown[np.argsort(-margin[shown], kind="stable")]
    return [Suspect(int(row), int(suggested[row]), float(margin[row])) for row in shown]


def distances(neighbours: Neighbours) -> Floats:
    """Compute the mean distance (1 - cosine) of each image to its nearest ones."""
    return np.asarray(1 - neighbours.cosine.mean(axis=1), np.float32)


def _strangers(neighbours: Neighbours) -> list[Stranger]:
    """Find images whose distance is far above that of the others (median and median deviation)."""
    distance = distances(neighbours)
    middle = float(np.median(distance))
    # 1.4826 times its median deviation is the standard deviation of a normal distribution.
    spread = 1.4826 * float(np.median(np.abs(distance - middle)))
    shown = np.flatnonzero(distance > middle + STRANGER_SPREADS * max(spread, 1e-6))
    shown = shown[np.argsort(-distance[shown], kind="stable")]
    return [Stranger(int(row), float(distance[row])) for row in shown]
