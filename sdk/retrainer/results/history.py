"""The learning curve of a job, as a sequence, a pandas frame or a picture."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from retrainer.api.status import CurvePoint

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = tuple(CurvePoint.model_fields)
"""Names of the figures of each evaluation, step first."""


class History(Sequence[CurvePoint]):
    """Evaluations in order of their step; a sequence of `CurvePoint`.

    Accuracies are shares (0 to 1), cross entropies in nats; None where there was nothing to measure.
    """

    def __init__(self, points: Sequence[CurvePoint], title: str = "") -> None:
        self._points = list(points)
        self.title = title

    @overload
    def __getitem__(self, index: int) -> CurvePoint: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    def __getitem__(self, index: int | slice) -> "CurvePoint | History":
        if isinstance(index, slice):
            return History(self._points[index], self.title)
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[CurvePoint]:
        return iter(self._points)

    def __repr__(self) -> str:
        if not self._points:
            return "History(no evaluation yet)"
        return f"History({len(self)} evaluations, steps {self[0].step} to {self[-1].step})"

    def column(self, name: str) -> list[Any]:
        """Give one of `COLUMNS`, one entry per evaluation."""
        return [getattr(point, name) for point in self._points]

    def to_pandas(self) -> "pd.DataFrame":
        """Make a frame with the columns of `COLUMNS`, of which `step` is the index.

        Raises:
            MissingExtra: pandas is not installed.
        """
        from retrainer.extras import import_pandas

        pandas = import_pandas()
        frame: pd.DataFrame = pandas.DataFrame(
            {name: self.column(name) for name in COLUMNS[1:]},
            index=pandas.Index(self.column("step"), name="step"),
            dtype=float,
        )
        return frame

    def plot(self, path: str | None = None) -> "Figure":
        """Draw accuracy and cross entropy against the step, of training and validation.

        Args:
            path: also write the picture there (the ending says the format, such as `.png`).
        """
        from retrainer.results import plots

        return plots.curves(self, self.title, path)

    def _repr_html_(self) -> str:
        from retrainer.results import notebook

        return notebook.history(self)
