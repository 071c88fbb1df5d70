"""Stopping in order: SIGTERM and Ctrl-C end the task at once, or at the next safe point."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from retrainer.api import conditions
from retrainer.errors import Interrupted


class Stop:
    """Whether the task was asked to stop.

    A signal raises `Interrupted` in the main thread, except within `deferred()`, where it only sets
    the flag that the code inside looks at, so that it can first write what it has.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._deferred = False

    @property
    def asked(self) -> bool:
        """True once a signal came."""
        return self._asked.is_set()

    def install(self) -> None:
        """Take SIGTERM and SIGINT; only in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def ask(self) -> None:
        """What a signal does within `deferred()`."""
        self._asked.set()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.asked:
            raise Interrupted(conditions.INTERRUPTED())

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets the flag; at the end it is acted on."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked.set()
        if not self._deferred:
            self.check()
