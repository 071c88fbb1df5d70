"""How `wait` shows a job that is under way: a bar, a notebook's cell, or a line per change."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

from retrainer.api import Report
from retrainer.cluster.snapshot import JobSnapshot
from retrainer.views.text import one_line
from retrainer.watcher import Silent, Watcher, checked


class Lines(Silent):
    """Writes one line to stderr each time the phase or the reason changes: for logs and pipes."""

    def __init__(self) -> None:
        self._last = ("", "")

    @override
    def report(self, report: Report) -> None:
        state = (str(report.stage), report.reason)
        if state != self._last:
            self._last = state
            print(f"{report.name}: {report.stage}: {one_line(report.message)}", file=sys.stderr)


class Bar(Silent):
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
                "{task.fields[sentence]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=out,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, sentence="")
        self._bar.start()

    @override
    def report(self, report: Report) -> None:
        percent = report.progress.percent
        self._bar.update(
            self._task,
            description=f"{report.name}  {report.stage}",
            completed=percent or 0,
            total=None if percent is None else 100,
            sentence=one_line(report.message),
        )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


class Cell(Silent):
    """The job's own page in a notebook's cell, kept up to date."""

    def __init__(self, job: JobSnapshot) -> None:
        self._job = job
        self._handle: Any = None

    @override
    def report(self, report: Report) -> None:
        import IPython.display

        draw: Any = IPython.display.display
        if self._handle is None:
            self._handle = draw(self._job, display_id=True)
        else:
            self._handle.update(self._job)


@contextmanager
def watching(job: JobSnapshot, progress: bool | Watcher | None) -> Iterator[Watcher]:
    """Give the watcher that `progress` asks for.

    None is a bar in a terminal, a cell in a notebook, else nothing; True is lines where neither is.
    """
    if progress is not None and not isinstance(progress, bool):
        yield checked(progress)
    elif progress is False:
        yield Silent()
    elif _in_notebook():
        yield Cell(job)
    elif sys.stderr.isatty():
        bar = Bar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield Lines() if progress else Silent()


def _in_notebook() -> bool:
    """Say whether IPython is loaded, with a front end that shows HTML; never imports it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
