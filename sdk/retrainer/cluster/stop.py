"""Ends a wait, a watch or a followed log from another thread, at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from retrainer.cluster.connection import Response


class Stop:
    """Ends what another thread follows (`wait`, `watch`, `logs`): at once, not at the next event."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._open: list[Response] = []

    def set(self) -> None:
        """End what is followed; may be called again."""
        with self._lock:
            self._event.set()
            for response in self._open:
                response.shutdown()

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep so long, or until `set` is called; returns whether it was."""
        return self._event.wait(seconds)

    @contextmanager
    def reading(self, response: Response) -> Iterator[Response]:
        """Let `set` end this response too while inside; the response is closed at the end."""
        with self._lock:
            if self._event.is_set():
                response.shutdown()
            self._open.append(response)
        try:
            yield response
        finally:
            with self._lock:
                self._open.remove(response)
            response.close()
