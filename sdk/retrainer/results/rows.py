"""The values that results are made of: one test image's guess, one job's figures, one difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from retrainer.api.interval import percent, percent_range

SIGNIFICANT = 0.05
"""Below this p-value (after Holm's correction) a difference is called one."""


@dataclass(frozen=True)
class TestPrediction:
    """The network's guess for one test image.

    Attributes:
        path: of the image, relative to `spec.images`.
        label: what it is (its folder).
        guess: the label that the network finds most likely.
        score: of the guess, 0 to 1.
        label_score: of the label, 0 to 1.
        identity: 32 hexadecimal digits that stand for the image's content (see "Image identity" in
            docs/reference/run.md); "" in runs of versions that did not write it.
    """

    path: str
    label: str
    guess: str
    score: float
    label_score: float
    identity: str = ""

    @property
    def right(self) -> bool:
        """Whether the guess is the label."""
        return self.guess == self.label


@dataclass(frozen=True)
class Combination:
    """One combination of values that a sweep tried.

    Attributes:
        learning_rate: with solver sgd; None with lbfgs.
        l2: strength of the weight decay.
        validation_accuracy: of the head trained with them, 0 to 1; None if it diverged.
        validation_cross_entropy: the same in nats; the lowest is chosen.
        diverged_step: step at which the training diverged; None if it did not.
        chosen: whether the run's head was trained with these values.
    """

    learning_rate: float | None
    l2: float
    validation_accuracy: float | None
    validation_cross_entropy: float | None
    diverged_step: int | None
    chosen: bool


@dataclass(frozen=True)
class Finding:
    """Something that stands out among a run's images.

    Attributes:
        kind: `label` (its label is probably wrong), `leak` or `duplicate` (it shows the same as an
            image of another set, or of its own), `stranger` (it is unlike all others).
        path: of the image, relative to `spec.images`.
        label: what it is (its folder).
        score: how surely the label is wrong (0 to 1), the cosine between the two images' bottlenecks,
            or the stranger's distance to its nearest images.
        other: path of the image that shows the same; None for the other kinds.
        suggested: the label that fits better; None for the other kinds.
    """

    kind: str
    path: str
    label: str
    score: float
    other: str | None = None
    suggested: str | None = None


@dataclass(frozen=True)
class CatalogRow:
    """One image of a run, or one row of its manifest that was left out.

    Attributes:
        path: of the image, relative to `spec.images`.
        identity: 32 hexadecimal digits that stand for its content; None for a row that is left out.
        label: what it is; None for a row that is left out.
        set: training, validation or testing; None for a row that is left out.
        group: images of one group stay in one set; None without one.
        reason: why it was rejected; None if it was not.
    """

    path: str
    identity: str | None
    label: str | None
    set: str | None
    group: str | None
    reason: str | None


@dataclass(frozen=True)
class Row:
    """One job of a comparison.

    Attributes:
        name: of the job.
        architecture: as in its spec, or the name of its backbone; "" if not known.
        accuracy: on the test images, 0 to 1; None without test images.
        low, high: ends of its 95% Wilson interval.
        images: number of test images.
        multiply_adds: of the network, for one image.
        parameters: of the network, head included.
        images_per_second: bottlenecks computed per second; None if all came from the cache.
        differs: fields of its spec in which the compared jobs differ, such as `steps 4000, seed 1`.
    """

    name: str
    architecture: str
    accuracy: float | None
    low: float | None
    high: float | None
    images: int
    multiply_adds: int | None
    parameters: int | None
    images_per_second: float | None
    differs: str = ""


@dataclass(frozen=True)
class Difference:
    """What McNemar's exact test says of two jobs on the test images that both have.

    Attributes:
        better, worse: names; by the number of these images guessed right.
        only_better, only_worse: images that one guessed right and the other wrong.
        images: number of test images in both; copies of a photo count once.
        p: two-sided p-value, corrected for the number of comparisons (Holm).
    """

    better: str
    worse: str
    only_better: int
    only_worse: int
    images: int
    p: float

    @property
    def significant(self) -> bool:
        """Whether chance alone would hardly make such a difference."""
        return self.p < SIGNIFICANT

    def __str__(self) -> str:
        counts = (
            f"of {self.images:,} common test images, {self.only_better:,} right in {self.better} "
            f"only, {self.only_worse:,} in {self.worse} only, p = {self.p:.2g}"
        )
        if self.significant:
            return f"{self.better} is better than {self.worse} ({counts})."
        return f"No difference between {self.better} and {self.worse} is shown ({counts})."


def accuracy_words(row: Row) -> str:
    """Write an accuracy with its interval, such as `88.7% (83.0 to 92.7%, 165 images)`."""
    if row.accuracy is None or row.low is None or row.high is None:
        return "no test images"
    return f"{percent(row.accuracy)} ({percent_range(row.low, row.high)}, {row.images:,} images)"


def frontier_of(rows: Sequence[Row]) -> list[Row]:
    """Choose the rows that no other beats in accuracy for as few multiply-adds, cheapest first."""
    best = -1.0
    edge = []
    for row in sorted(rows, key=lambda r: (r.multiply_adds or math.inf, -(r.accuracy or 0))):
        if row.multiply_adds and row.accuracy is not None and row.accuracy > best:
            best = row.accuracy
            edge.append(row)
    return edge
