"""How `wait` shows a job that is under way: a bar, a notebook's cell, or a line per change."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from retrainer.views.text import one_line

if TYPE_CHECKING:
    from retrainer.cluster.snapshot import JobSnapshot

Show = Callable[[Any], None]
"""Called with the job each time it changed."""


class Nothing:
    """Shows nothing."""

    def __call__(self, job: "JobSnapshot") -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Called(Nothing):
    """Tells a function of the caller's own."""

    def __init__(self, function: Show) -> None:
        self._function = function

    def __call__(self, job: "JobSnapshot") -> None:
        """Tell it."""
        self._function(job)


class Lines(Nothing):
    """One line on stderr each time the phase or the reason changes: for logs and pipes."""

    def __init__(self) -> None:
        self._last = ("", "")

    def __call__(self, job: "JobSnapshot") -> None:
        """Print it, if there is news."""
        now = (str(job.phase), job.reason)
        if now != self._last:
            self._last = now
            print(f"{job.name}: {job.phase}: {one_line(job.said)}", file=sys.stderr)


class Bar(Nothing):
    """A moving bar in the terminal, on stderr."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
        from rich.table import Column

        from retrainer.views.text import console

        out = console(stderr=True)
        self._bar = Progress(
            SpinnerColumn("dots" if out.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TaskProgressColumn(),
            # What does not fit is left out: `describe` has the whole sentence.
            TextColumn(
                "{task.fields[said]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=out,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, said="")
        self._bar.start()

    def __call__(self, job: "JobSnapshot") -> None:
        """Move it."""
        percent = job.status.progress.percent if job.status.progress else None
        self._bar.update(
            self._task,
            description=f"{job.name}  {job.phase}",
            completed=percent or 0,
            total=None if percent is None else 100,
            said=one_line(job.said),
        )

    def close(self) -> None:
        """Take it away."""
        self._bar.stop()


class Cell(Nothing):
    """The job's own page in a notebook's cell, kept up to date."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, job: "JobSnapshot") -> None:
        """Draw it anew."""
        import IPython.display

        draw: Any = IPython.display.display
        if self._handle is None:
            self._handle = draw(job, display_id=True)
        else:
            self._handle.update(job)


def shown(progress: "bool | Show | None") -> Nothing:
    """What `progress` asks for; None is a bar in a terminal, a cell in a notebook, else nothing."""
    if callable(progress):
        return Called(progress)
    if progress is False:
        return Nothing()
    if _in_notebook():
        return Cell()
    if sys.stderr.isatty():
        return Bar()
    return Lines() if progress else Nothing()


def _in_notebook() -> bool:
    """Whether IPython is there with a front end that shows HTML; never imports it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
