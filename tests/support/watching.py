"""A watcher for tests: calls a function with each report."""

from collections.abc import Callable

from typing_extensions import override

from retrainer.api import Report
from retrainer.watcher import Silent


class OnReport(Silent):
    def __init__(self, function: Callable[[Report], object]) -> None:
        self._function = function

    @override
    def report(self, report: Report) -> None:
        self._function(report)
