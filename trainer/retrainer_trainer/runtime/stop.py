"""Stopping in order: SIGTERM, Ctrl-C, or that nobody listens any more, end the task at once, or at
the next safe point."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from retrainer.api import reasons
from retrainer.errors import StorageError


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

    def install(self, events: int = -1) -> None:
        """Take SIGTERM and SIGINT; only in the main thread.

        Args:
            events: the pipe that the reports are written to. When its reader is gone, killed perhaps,
                nobody waits for this task: that counts as a SIGTERM. -1 if there is none.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if events >= 0:
            threading.Thread(target=_when_unread, args=[events], name="reader", daemon=True).start()

    def ask(self) -> None:
        """What a signal does within `deferred()`."""
        self._asked.set()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.asked:
            raise reasons.INTERRUPTED.error()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets the flag; at the end it is acted on.

        So is it when a store fails afterwards: the stop is why the task ends.
        """
        self._deferred = True
        try:
            yield
        except StorageError:
            self.check()
            raise
        finally:
            self._deferred = False
        self.check()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked.set()
        if not self._deferred:
            self.check()


def _when_unread(pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # nothing is waited for but an error: the other end is closed
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
