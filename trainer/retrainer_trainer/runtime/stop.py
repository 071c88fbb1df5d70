"""Stops a task in order, at once or at the next safe point: after SIGTERM, after Ctrl-C, or when the
reader of its reports is gone."""

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
    """Holds whether the task was asked to stop.

    A signal raises `Interrupted` in the main thread, except within `deferred()`, where it only sets
    the flag that the code inside looks at, so that it can first write what it has.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._deferred = False

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked.is_set()

    def install(self, events: int = -1) -> None:
        """Handle SIGTERM and SIGINT from now on; call it in the main thread only.

        Args:
            events: the pipe that the reports are written to. When its reader is gone, killed perhaps,
                nobody waits for this task any more: that counts as a SIGTERM. -1 if there is no pipe.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if events >= 0:
            threading.Thread(target=_when_unread, args=[events], name="reader", daemon=True).start()

    def ask(self) -> None:
        """Set the flag, as a signal does within `deferred()`."""
        self._asked.set()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.asked:
            raise reasons.INTERRUPTED.error()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal only set the flag inside; at the end `Interrupted` is raised.

        It is raised as well when a store fails after the signal: the task ends because of the stop.
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
    poll.register(pipe, 0)  # no events: poll returns only once the other end is closed
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
