"""The queue of jobs that are due for a pass: each once, one pass at a time, failed ones with backoff."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from retrainer.errors import ClusterError
from retrainer_operator.planning.snapshots import Key

Pass = Callable[[Key], Awaitable[float | None]]
"""One pass over a job; it returns after how many seconds the next is due, if one is."""

_FIRST_BACKOFF = 0.1
_LAST_BACKOFF = 60.0

_logger = logging.getLogger(__name__)


class RetryLater(Exception):
    """The pass met something that passes, such as a conflict: it is repeated soon; nothing is logged."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(f"again in {seconds} s" if seconds else "again with backoff")
        self.seconds = seconds


class Queue:
    """The queue and its workers; until `opened` is set it takes no keys and does no work.

    Whoever opens it adds every key. A replica that only waits would otherwise keep the keys of all jobs
    that ever were.
    """

    def __init__(
        self,
        work: Pass,
        *,
        on_wait: Callable[[float], None] = lambda _: None,
        on_result: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.opened = asyncio.Event()
        self._work = work
        self._on_wait = on_wait
        self._on_result = on_result
        self._ready: deque[Key] = deque()
        self._since: dict[Key, float] = {}
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Ask for a pass over this key now; a key that waits already is not added twice."""
        if not self.opened.is_set():
            return
        if key in self._active:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = time.monotonic()
            self._ready.append(key)
            self._wake.release()

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a pass in a while; of two times for one key the earlier counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, seconds)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker())

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _worker(self) -> None:
        while True:
            await self._wake.acquire()
            await self.opened.wait()
            key = self._ready.popleft()
            self._on_wait(time.monotonic() - self._since.pop(key))
            if timer := self._timers.pop(key, None):
                timer.cancel()  # this pass finds anew when the next is due; of a deleted job, never
            self._active.add(key)
            try:
                await self._one(key)
            finally:
                self._active.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _one(self, key: Key) -> None:
        try:
            seconds = await self._work(key)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # What the worker waited for was cancelled, not the worker: the watches have restarted.
            self._backoff(key, "error", None)
        except RetryLater as later:
            self._backoff(key, "conflict", later.seconds)
        except ClusterError as error:
            _logger.warning("A pass over %s/%s failed: %s", *key, error)
            self._backoff(key, "error", getattr(error, "retry_after", None))
        except Exception:
            _logger.exception("A pass over %s/%s failed", *key)
            self._backoff(key, "error", None)
        else:
            self._failures.pop(key, None)
            self._on_result("ok")
            if seconds is not None:
                self.add_after(key, seconds)

    def _backoff(self, key: Key, result: str, asked: float | None) -> None:
        self._on_result(result)
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self.add_after(key, backoff(count, asked))


def backoff(failures: int, asked: float | None) -> float:
    """Seconds to wait after so many failures in a row, and at least what the API server asked for.

    Never longer than a minute: what stands between may ask for a day.
    """
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    wait = _FIRST_BACKOFF * 2.0 ** min(failures, 20) * jitter
    return min(_LAST_BACKOFF, max(asked or 0.0, wait))
