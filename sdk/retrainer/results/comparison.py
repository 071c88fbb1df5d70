"""Jobs side by side: how good, how costly, and whether the difference is more than noise."""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from retrainer.api import ARCHITECTURES
from retrainer.errors import NotFound, UserError
from retrainer.results.naming import named, run_at
from retrainer.results.rows import Difference, Row, TestPrediction, accuracy_words
from retrainer.results.run import Run
from retrainer.results.significance import against_best
from retrainer.store.s3 import Access

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


T = TypeVar("T")


class HasRun(Protocol):
    """A job whose run can be read, on a cluster or on this machine."""

    @property
    def run(self) -> Run:
        """The run, read from its folder."""


@dataclass(frozen=True)
class Comparison:
    """Several jobs, the best first; a notebook shows it as a table.

    Attributes:
        rows: one per job, by test accuracy, then by cost.
        differences: the best against each other job, on the test images that both have.
        notes: sentences on where the test images differ, and what cannot be compared and why.
    """

    rows: list[Row]
    differences: list[Difference]
    notes: list[str]

    def __str__(self) -> str:
        lines = [f"{row.name}: {accuracy_words(row)}" for row in self.rows]
        return "\n".join([*lines, *map(str, self.differences), *self.notes])

    def to_pandas(self) -> "pd.DataFrame":
        """Make a frame with one row per job and the attributes of `Row` as columns.

        Raises:
            MissingExtra: pandas is not installed.
        """
        from retrainer.extras import import_pandas

        frame: pd.DataFrame = import_pandas().DataFrame([vars(row) for row in self.rows])
        return frame

    def plot(self, path: str | None = None) -> "Figure":
        """Draw test accuracy with its interval against multiply-adds; bubbles show the parameters.

        Args:
            path: also write the picture there (the ending says the format, such as `.png`).
        """
        from retrainer.results import plots

        return plots.frontier(self.rows, path)

    def to_html(self, picture: bool = True) -> str:
        """Write a part of an HTML page: the table, the sentences, and the picture (embedded PNG)."""
        from retrainer.results import notebook

        image = None
        if picture:
            buffer = io.BytesIO()
            self.plot().savefig(buffer, format="png")
            image = buffer.getvalue()
        return notebook.comparison(self.rows, [*map(str, self.differences), *self.notes], image)

    def _repr_html_(self) -> str:
        return self.to_html(picture=False)

    def to_dict(self) -> dict[str, Any]:
        """Give the comparison as dicts and lists that JSON can hold."""
        return {
            "rows": [vars(row) for row in self.rows],
            "differences": [
                {**vars(d), "significant": d.significant, "sentence": str(d)}
                for d in self.differences
            ],
            "notes": self.notes,
        }


def compare(jobs: Sequence[HasRun | Run | str | Path]) -> Comparison:
    """Put jobs side by side.

    Args:
        jobs: finished jobs, runs, or paths or URLs of runs or of outputs, whose newest run is taken; at
            least one.

    Raises:
        UserError: none is given.
        NotFound: a run's folder is not there or not whole.
    """
    runs = runs_of(jobs)
    if not runs:
        raise UserError("Give at least one job to compare.")
    names = _distinct(runs)
    differing = _differing([run.spec for run in runs])
    rows = [
        _row(name, run, differs) for name, run, differs in zip(names, runs, differing, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: _rank(rows[i]))
    guesses, notes = _predictions([(names[i], runs[i]) for i in order])
    differences, more = against_best(guesses)
    return Comparison([rows[i] for i in order], differences, notes + more)


def runs_of(
    jobs: Sequence[HasRun | Run | str | Path],
    access: Access | None = None,
    job: Callable[[str], HasRun] | None = None,
) -> list[Run]:
    """Open the run of each job; paths and URLs are read by `access`.

    Args:
        jobs: as for `compare`.
        access: how stores are reached.
        job: reads the job of a name, where texts may be names.
    """

    def run(place: str | Path) -> Run:
        return run_at(place, access=access)

    def of(each: HasRun | Run | str | Path) -> Run:
        if isinstance(each, str):
            each = run(each) if job is None else named(each, job=job, run=run)
        elif isinstance(each, Path):
            each = run(each)
        return each if isinstance(each, Run) else each.run

    return [of(each) for each in several(jobs)]


def several(jobs: Sequence[T]) -> Sequence[T]:
    """Refuse what is no list of jobs; of one text alone Python would take the letters for jobs."""
    if isinstance(jobs, (str, Path)):
        raise TypeError(f"Give a list of jobs, such as [{str(jobs)!r}].")
    if not isinstance(jobs, Iterable):
        raise TypeError(f"Give a list of jobs, not {jobs!r}.")
    for job in jobs:
        if not isinstance(job, (str, Path, Run)) and not hasattr(type(job), "run"):
            raise TypeError(f"Give jobs, runs, or their names, paths or URLs, not {job!r}.")
    return jobs


def _row(name: str, run: Run, differs: str) -> Row:
    report = run.report
    low, high = run.interval or (None, None)
    multiply_adds, parameters, width = _costs(run)
    head = ((width or 0) + 1) * (report.label_count or 0)
    return Row(
        name,
        run.network,
        run.test_accuracy,
        low,
        high,
        report.metrics.test_images or 0,
        multiply_adds,
        None if parameters is None else parameters + head,
        report.images_per_second,
        differs,
    )


def _costs(run: Run) -> tuple[int | None, int | None, int | None]:
    """Give multiply-adds, parameters and width of a run's network.

    Runs of versions that did not write them are of a network of the list.
    """
    of_list = ARCHITECTURES.get(run.architecture)
    if of_list is not None:
        return of_list.multiply_adds, of_list.parameters, of_list.bottleneck
    evaluation = run.evaluation
    return evaluation.multiply_adds, evaluation.parameters, evaluation.bottleneck


_PLACES = {"architecture", "output", "cache", "storage", "shards"}
"""Fields that are not compared: they have a column of their own, or say where a job writes."""


def _differing(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write each spec's values of the fields in which the specs differ; "" for an unknown spec."""
    flat = [dict(_leaves(spec)) for spec in specs]
    given = [leaves for leaves in flat if leaves]
    paths = dict.fromkeys(path for leaves in given for path in leaves)
    differing = [p for p in paths if len({leaves.get(p) for leaves in given}) > 1]
    return [", ".join(f"{p} {leaves[p]}" for p in differing if p in leaves) for leaves in flat]


def _leaves(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if name in _PLACES:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, list):
            yield name, "+".join(map(str, value))
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _rank(row: Row) -> tuple[float, float, str]:
    accuracy = -1.0 if row.accuracy is None else row.accuracy
    return -accuracy, row.multiply_adds or math.inf, row.name


def _distinct(runs: list[Run]) -> list[str]:
    """Give each run a name of its own.

    Runs of equal names are called by their folders; a folder that is given twice gets a number.
    """
    given = [run.name for run in runs]
    names = [
        run.url.rpartition("/")[2] if given.count(name) > 1 else name
        for name, run in zip(given, runs, strict=True)
    ]
    uses: dict[str, int] = {}
    distinct = []
    for name in names:
        uses[name] = uses.get(name, 0) + 1
        distinct.append(name if uses[name] == 1 else f"{name} ({uses[name]})")
    return distinct


def _predictions(runs: list[tuple[str, Run]]) -> tuple[dict[str, list[TestPrediction]], list[str]]:
    """Read the guesses of each job that can be tested, in order; write a sentence on each other job."""
    guesses = {}
    notes = []
    for name, run in runs:
        try:
            predictions = run.predictions()
        except NotFound:
            notes.append(
                f"{name} has no predictions.parquet and cannot be tested against the others."
            )
            continue
        if predictions:
            guesses[name] = predictions
        else:
            notes.append(f"{name} has no test images and cannot be tested against the others.")
    return guesses, notes
