"""Writes Kubernetes Events behind the passes: nothing waits for them, and few are lost."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from retrainer.api.names import API_VERSION, KIND
from retrainer.errors import ClusterError
from retrainer_operator.planning.actions import Event
from retrainer_operator.planning.snapshots import RetrainJobSnapshot
from retrainer_operator.planning.times import format_time, is_recent

SAME = 600.0
"""Seconds in which one job's Event of one reason is not written again."""
_WAITING_MAX = 10_000
_TIDY_AT = 1000
"""Notes of Events at which old ones are dropped: ten thousand took 3 MiB."""
_WRITERS = 4
_DRAIN_SECONDS = 2.0
"""Seconds that the end of the process waits for Events that are not written yet."""
_COMPONENT = "retrainer-operator"

_logger = logging.getLogger(__name__)


class Api(Protocol):
    """Requests that the Events need of the API server."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""


class EventWriter:
    """Takes Events at any rate and writes a few at a time."""

    def __init__(self, api: Api, identity: str, *, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._identity = identity
        self._clock = clock
        self._written: dict[tuple[str, str], float] = {}
        self._tidy_at = _TIDY_AT
        self._moment = 0
        self._waiting: asyncio.Queue[tuple[RetrainJobSnapshot, Event, int]] = asyncio.Queue(
            _WAITING_MAX
        )

    def add(self, job: RetrainJobSnapshot, event: Event) -> None:
        """Write an Event soon; one of the same reason and job at most every ten minutes."""
        now, same = self._clock(), (job.uid, event.reason)
        if is_recent(self._written.get(same, 0.0), SAME, now):
            return
        if len(self._written) >= self._tidy_at:
            self._written = {s: at for s, at in self._written.items() if is_recent(at, SAME, now)}
            self._tidy_at = max(_TIDY_AT, 2 * len(self._written))
        self._written[same] = now
        self._moment = max(int(now * 1e9), self._moment + 1)  # no two have the same
        try:
            self._waiting.put_nowait((job, event, self._moment))
        except asyncio.QueueFull:
            _logger.warning(
                "Event %s of %s/%s is dropped: too many are waiting", event.reason, *job.key
            )

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(self._writer())

    async def drain(self) -> None:
        """Wait a moment until the Events that wait are written."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._waiting.join()
        except TimeoutError:
            _logger.warning("%d Events were not written", self._waiting.qsize())

    async def _writer(self) -> None:
        while True:
            job, event, moment = await self._waiting.get()
            try:
                path = f"/api/v1/namespaces/{job.namespace}/events"
                await self._api.create(path, self._body(job, event, moment))
            except ClusterError as error:
                # Nothing depends on an Event, and the status says the same.
                _logger.warning("Event %s of %s/%s: %s", event.reason, *job.key, error)
            finally:
                self._waiting.task_done()

    def _body(self, job: RetrainJobSnapshot, event: Event, moment: int) -> dict[str, Any]:
        """Make the Event object; `moment` is Unix time in nanoseconds."""
        at = format_time(moment / 1e9)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            # Named as client-go does: within a second, the name puts Events in order.
            "metadata": {"name": f"{job.name}.{moment:x}", "namespace": job.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.name,
                "namespace": job.namespace,
                "uid": job.uid,
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": _COMPONENT},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._identity,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
