"""Shows a run on this machine in the terminal: its progress and its result.

On a terminal a bar moves under the lines; elsewhere (a file, a pipe, CI) there are lines only.
NO_COLOR is respected. Names of files come from strangers' folders, so nothing is read as markup and
control characters are shown as escapes.
"""

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from retrainer.api import CurvePoint, Phase, Report
from retrainer.api.layout import EXPORT_PATHS, LABELS, REJECTED, join
from retrainer.api.reasons import EXPORTING
from retrainer.local.process import Result
from retrainer.views.text import console, duration, near, paragraph

STEP_LINES = 20
"""Most lines of steps, unless every evaluation is wanted: the 400 of retrain.py hide the rest."""
PLAIN_SECONDS = 5.0
"""Seconds between two lines of progress where no bar can move."""
# What does not fit beside the bar is left out; the line that is printed at the end has it.
_ROOM = Column(no_wrap=True, overflow="ellipsis")
_STEP_HEAD = ("    step", "training accuracy", "validation accuracy", "cross entropy")


def stride(points: int, interval: int) -> int:
    """Choose the steps between two lines: a round multiple of `interval`, for STEP_LINES at most."""
    least = max(1, math.ceil(points / STEP_LINES))
    power = 10 ** (len(str(least)) - 1)
    rounded: int = next(f * power for f in (1, 2, 5, 10) if f * power >= least)
    return interval * rounded


def pace(rate: float, left: int, unit: str) -> str:
    """Write a rate per second, and the time left, such as `540 images/s, 3 s left`."""
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    return f"{shown} {unit}/s" + (f", {duration(left / rate)} left" if left else "")


class Pace:
    """Measures the rate of a count from its first value on, and the time left."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start: tuple[float, int] | None = None

    def __call__(self, done: int, left: int, unit: str) -> str:
        """Write rate and time left, such as `540 images/s, 3 s left`; "" until the count has grown."""
        now = self._clock()
        if self._start is None:
            self._start = (now, done)
        since, first = self._start
        if done <= first or now <= since:
            return ""
        return pace((done - first) / (now - since), left, unit)


class Display:
    """Watches a run (`retrainer.Watcher`); use it in a `with` statement."""

    def __init__(
        self,
        out: Console | None = None,
        *,
        every_step: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out = out or console()
        self.every_step = every_step
        self._clock = clock
        self._steps = Pace(clock)
        self._images_done = self._trains = False
        self._printed = -1  # the last step that has its line
        self._plain_at, self._plain_what, self._plain_line = -math.inf, "", ""
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self.out.is_terminal and not self.out.is_dumb_terminal and not self.out.is_jupyter:
            self._bar = Progress(
                SpinnerColumn("dots" if self.out.encoding.startswith("utf") else "line"),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=12),
                TextColumn("{task.fields[count]}", markup=False),
                TextColumn("{task.fields[pace]}", "dim", markup=False, table_column=_ROOM),
                console=self.out,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("starting", total=None, count="", pace="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def log(self, text: str) -> None:
        """Print a line in grey."""
        self._line(text, "dim")

    def warning(self, text: str) -> None:
        """Print a line in yellow."""
        self._line(f"warning: {text}", "yellow")

    def report(self, report: Report) -> None:
        """Move the bar; print the step lines that are new."""
        # The first report that counts the last images may be one of the training, which follows at once.
        bottlenecks_shown = self._images_done or self._trains or not report.progress.images_total
        if report.stage == Phase.BOTTLENECKS or not bottlenecks_shown:
            self._bottlenecks(report)
        self._step_lines(report)
        if report.stage == Phase.TRAINING:
            self._trains = True
            self._training(report)

    def _point(self, point: CurvePoint) -> None:
        """Write one evaluation: the figures of retrain.py's three lines in one."""
        if self._printed < 0:
            self._line("   ".join(_STEP_HEAD))
        self._printed = point.step
        cells = (
            f"{point.step:,}",
            _share(point.training_accuracy),
            _share(point.validation_accuracy),
            "-" if point.cross_entropy is None else f"{point.cross_entropy:.4f}",
        )
        padded = (cell.rjust(len(title)) for title, cell in zip(_STEP_HEAD, cells, strict=True))
        self._line("   ".join(padded))

    def _step_lines(self, report: Report) -> None:
        """Find the points of the curve that are due and have not been printed."""
        points = report.curve.points()
        if not points:
            return
        steps = report.progress.steps or points[-1].step
        interval = max(1, points[1].step - points[0].step) if len(points) > 1 else max(1, steps)
        every = 1 if self.every_step else stride(steps // interval + 1, interval)
        over = report.stage in (Phase.SUCCEEDED, Phase.FAILED) or report.reason == EXPORTING.name
        for point in points:
            last = point is points[-1] and (over or point.step >= steps)
            if point.step > self._printed and (point.step % every == 0 or last):
                self._point(point)

    def _bottlenecks(self, report: Report) -> None:
        counts = report.progress
        total, cached = counts.images_total, counts.images_cached or 0
        computed, rejected = counts.images_computed or 0, counts.images_rejected or 0
        if not total:
            self._move("listing images", None, None, "", "")
            return
        done = cached + computed + rejected
        # The trainer's own rate: it leaves out what came before the first image.
        rate, notes = report.images_per_second, []
        if rate:
            notes.append(pace(rate, total - done, "images"))
        notes += [f"{n:,} {what}" for n, what in ((cached, "cached"), (rejected, "rejected")) if n]
        note = ", ".join(notes)
        self._move("bottlenecks", done, total, "images", note)
        if self._bar and done == total and not self._images_done:
            self._line(f"bottlenecks {total:,} images" + (f" ({note})" if note else ""))
        self._images_done = done == total

    def _training(self, report: Report) -> None:
        counts = report.progress
        if report.reason == EXPORTING.name:
            self._move(report.message.rstrip(".").lower() or "exporting", None, None, "", "")
        elif counts.steps:
            step = counts.step or 0
            rate = self._steps(step, counts.steps - step, "steps")
            self._move("training", step, counts.steps, "steps", rate)

    def _move(self, what: str, done: int | None, total: int | None, unit: str, note: str) -> None:
        count = f"{done:,}/{total:,} {unit}" if done is not None and total else ""
        if self._bar:
            self._bar.update(
                self._task, description=what, completed=done or 0, total=total, count=count, pace=note
            )  # fmt: skip
            return
        line = f"{what} {count}".rstrip() + (f" ({note})" if note else "")
        due = self._clock() >= self._plain_at or what != self._plain_what or done == total
        if due and line != self._plain_line:
            self._line(line)
            self._plain_at = self._clock() + PLAIN_SECONDS
            self._plain_what, self._plain_line = what, line

    def _line(self, text: str, style: str = "") -> None:
        width = self.out.width if self.out.is_terminal else None
        self.out.print(Text(paragraph(text, width), style=style), soft_wrap=True)


def _share(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.1%}"


def summary(result: Result) -> list[tuple[str, str]]:
    """Write the facts that are printed under a finished run, as pairs of a title and a value."""
    counts = result.report.progress
    kinds = (
        (counts.images_cached, "from the cache"),
        (counts.images_computed, "computed"),
        (counts.images_rejected, "rejected"),
    )
    images = f"{counts.images_total or 0:,}"
    if parts := [f"{count:,} {kind}" for count, kind in kinds if count]:
        images += f" ({', '.join(parts)})"
    usable = (*EXPORT_PATHS.values(), LABELS)
    files = [path for path in usable if path in result.report.artifacts.values()]
    rows = [("images", images)]
    if result.report.seconds is not None:
        rows.append(("time", duration(result.report.seconds)))
    if counts.images_rejected:
        rejected = near(join(result.url, REJECTED))
        rows.append(("rejected", f"{counts.images_rejected:,}, each with its reason in {rejected}"))
    rows += [
        ("run", near(result.url)),
        ("page", near(result.page)),
        ("files", ", ".join(files)),
    ]
    return rows
