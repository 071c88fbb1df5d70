"""Jobs side by side: how good, how costly, and whether the difference is more than noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from retrainer._runs import Guess, Run
from retrainer.api import ARCHITECTURES
from retrainer.errors import NotFound, UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from retrainer.job import Job

SIGNIFICANT = 0.05
"""A difference is told as one below this p-value (after Holm's correction)."""


@dataclass(frozen=True)
class Row:
    """One job.

    Attributes:
        name: of the job.
        architecture: as in its spec, "" if not known.
        accuracy: on the test images, 0 to 1; None without test images.
        low, high: ends of its 95% Wilson interval.
        images: number of test images.
        multiply_adds: of the network, for one image.
        parameters: of the network, head included.
        images_per_second: bottlenecks computed per second; None if all came from the cache.
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


@dataclass(frozen=True)
class Difference:
    """What McNemar's exact test says of two jobs with the same test images.

    Attributes:
        better, worse: names; by the share of test images guessed right.
        only_better, only_worse: images that one guessed right and the other wrong.
        p: two-sided p-value, corrected for the number of comparisons (Holm).
    """

    better: str
    worse: str
    only_better: int
    only_worse: int
    p: float

    @property
    def significant(self) -> bool:
        """Whether chance alone would hardly bring it about."""
        return self.p < SIGNIFICANT

    def __str__(self) -> str:
        counts = (
            f"{self.only_better} test images right in {self.better} only, "
            f"{self.only_worse} in {self.worse} only, p = {self.p:.2g}"
        )
        if self.significant:
            return f"{self.better} is better than {self.worse} ({counts})."
        return f"No difference between {self.better} and {self.worse} is shown ({counts})."


@dataclass(frozen=True)
class Comparison:
    """Several jobs, the best first; a notebook shows it as a table.

    Attributes:
        rows: one per job, by test accuracy, then by cost.
        differences: the best against each other job, where their test images are the same.
        notes: sentences on what cannot be compared and why.
    """

    rows: list[Row]
    differences: list[Difference]
    notes: list[str]

    def __str__(self) -> str:
        lines = [f"{row.name}: {accuracy_words(row)}" for row in self.rows]
        return "\n".join([*lines, *map(str, self.differences), *self.notes])

    def to_pandas(self) -> "pd.DataFrame":
        """A frame with one row per job and the attributes of `Row` as columns.

        Raises:
            MissingExtra: pandas is not installed.
        """
        from retrainer.plots import needs

        frame: pd.DataFrame = needs("pandas").DataFrame([vars(row) for row in self.rows])
        return frame

    def plot(self, path: str | None = None) -> "Figure":
        """Test accuracy with its interval against multiply-adds; a bubble's area is the size.

        Args:
            path: also write the picture there (the ending says the format, such as `.png`).

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from retrainer import plots

        return plots.frontier(self, path)

    def to_html(self, picture: bool = True) -> str:
        """A part of an HTML page: the table, the sentences, and the picture (embedded PNG)."""
        from retrainer import _html

        return _html.comparison(self, picture)

    def _repr_html_(self) -> str:
        return self.to_html(picture=False)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready dicts and lists."""
        return {
            "rows": [vars(row) for row in self.rows],
            "differences": [
                {**vars(d), "significant": d.significant, "sentence": str(d)}
                for d in self.differences
            ],
            "notes": self.notes,
        }


def compare(jobs: "Sequence[Job | Run | str]") -> Comparison:
    """Jobs side by side.

    Args:
        jobs: finished jobs, runs, or URLs or paths of runs' folders; at least one.

    Raises:
        UserError: none is given.
        NotFound: a run's folder is not there or not whole.
    """
    if not jobs:
        raise UserError("Give at least one job to compare.")
    runs = [Run(j) if isinstance(j, str) else j if isinstance(j, Run) else j.run for j in jobs]
    names = _distinct([run.name for run in runs])
    rows = [_row(name, run) for name, run in zip(names, runs, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: _rank(rows[i]))
    guesses, notes = _predictions([(names[i], runs[i]) for i in order])
    differences, more = against_best(guesses)
    return Comparison([rows[i] for i in order], differences, notes + more)


def _row(name: str, run: Run) -> Row:
    report = run.report
    network = ARCHITECTURES.get(run.architecture)
    low, high = run.interval or (None, None)
    head = (network.bottleneck + 1) * (report.label_count or 0) if network else 0
    return Row(
        name,
        run.architecture,
        run.test_accuracy,
        low,
        high,
        report.metrics.test_images or 0,
        network.multiply_adds if network else None,
        network.parameters + head if network else None,
        report.images_per_second,
    )


def _rank(row: Row) -> tuple[float, float, str]:
    accuracy = -1.0 if row.accuracy is None else row.accuracy
    return -accuracy, row.multiply_adds or math.inf, row.name


def _distinct(names: list[str]) -> list[str]:
    """Names of which no two are equal: a repeated one gets its number."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


Guesses = dict[str, list[Guess]]
"""Predictions of each job by its name, the best job first."""


def _predictions(runs: list[tuple[str, Run]]) -> tuple[Guesses, list[str]]:
    guesses: Guesses = {}
    notes = []
    for name, run in runs:
        try:
            guesses[name] = run.predictions()
        except NotFound:
            notes.append(
                f"{name} has no predictions.parquet and cannot be tested against the others."
            )
    return guesses, notes


def against_best(guesses: Guesses) -> tuple[list[Difference], list[str]]:
    """McNemar's test of the first job against each other one that has the same test images."""
    if len(guesses) < 2:
        return [], []
    (best, reference), *others = guesses.items()
    truth = {p.path: p.label for p in reference}
    right = {p.path for p in reference if p.right}
    notes = []
    found: list[Difference] = []
    for name, predictions in others:
        if {p.path: p.label for p in predictions} != truth:
            notes.append(_not_the_same(best, name, truth.keys(), {p.path for p in predictions}))
            continue
        other = {p.path for p in predictions if p.right}
        only_best, only_other = len(right - other), len(other - right)
        found.append(_ordered(best, name, only_best, only_other))
    adjusted = holm([d.p for d in found])
    return [replace(d, p=p) for d, p in zip(found, adjusted, strict=True)], notes


def _ordered(best: str, other: str, only_best: int, only_other: int) -> Difference:
    p = mcnemar(only_best, only_other)
    if only_other > only_best:
        return Difference(other, best, only_other, only_best, p)
    return Difference(best, other, only_best, only_other, p)


def _not_the_same(best: str, other: str, there: Any, here: set[str]) -> str:
    common = len(there & here)
    if common == len(there) == len(here):
        return (
            f"{best} and {other} have the same test images under different labels, so their accuracies "
            "cannot be compared."
        )
    return (
        f"The test images of {best} ({len(there)}) and {other} ({len(here)}) differ, {common} are in "
        "both: compare their intervals with care, no test is made."
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test.

    Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions";
    exact: the binomial distribution with one half, the tail doubled.

    Args:
        only_first, only_second: images that only the one, only the other guessed right.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0 or 2 * least == n:
        return 1.0
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)
        for k in range(least + 1)
    )
    return min(1.0, 2 * tail)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given.

    S. Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = highest
    return corrected


def accuracy_words(row: Row) -> str:
    """Such as `0.887 (0.83 to 0.93, 165 images)`."""
    if row.accuracy is None or row.low is None or row.high is None:
        return "no test images"
    return f"{row.accuracy:.3f} ({row.low:.2f} to {row.high:.2f}, {row.images:,} images)"


def frontier_of(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in accuracy for as few multiply-adds, cheapest first."""
    best = -1.0
    edge = []
    for row in sorted(rows, key=lambda r: (r.multiply_adds or math.inf, -(r.accuracy or 0))):
        if row.multiply_adds and row.accuracy is not None and row.accuracy > best:
            best = row.accuracy
            edge.append(row)
    return edge
