"""Kubernetes Events, written behind the passes: nobody waits for them, and few are lost."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from retrainer.api.names import API_VERSION, KIND
from retrainer.errors import ClusterError
from retrainer_operator.planning.snapshots import Job, lately, timestamp
from retrainer_operator.planning.status import Notice

SAME = 600.0
"""Seconds in which one job's Event of one reason is not written again."""
_WAITING_MAX = 10_000
_WRITERS = 4
_LAST_WORDS = 2.0
"""Seconds that the end of the process waits for what is still unwritten."""
_COMPONENT = "retrainer-operator"

_logger = logging.getLogger(__name__)


class Api(Protocol):
    """What is asked of the API server."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create it."""


class Notices:
    """Takes notices at any rate and writes them a few at a time."""

    def __init__(self, api: Api, identity: str, *, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._identity = identity
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}
        self._moment = 0
        self._waiting: asyncio.Queue[tuple[Job, Notice, int]] = asyncio.Queue(_WAITING_MAX)

    def tell(self, job: Job, notice: Notice) -> None:
        """Write it soon; the same reason of the same job once in ten minutes."""
        now, told = self._clock(), (job.uid, notice.reason)
        if lately(self._told.get(told, 0.0), SAME, now):
            return
        if len(self._told) > _WAITING_MAX:
            self._told = {t: at for t, at in self._told.items() if lately(at, SAME, now)}
        self._told[told] = now
        self._moment = max(int(now * 1e9), self._moment + 1)  # no two have the same
        try:
            self._waiting.put_nowait((job, notice, self._moment))
        except asyncio.QueueFull:
            _logger.warning(
                "Event %s of %s/%s is dropped: too many are waiting", notice.reason, *job.key
            )

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(self._writer())

    async def drain(self) -> None:
        """Give what waits a moment to be written."""
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._waiting.join()
        except TimeoutError:
            _logger.warning("%d Events were not written", self._waiting.qsize())

    async def _writer(self) -> None:
        while True:
            job, notice, moment = await self._waiting.get()
            try:
                path = f"/api/v1/namespaces/{job.namespace}/events"
                await self._api.create(path, self._event(job, notice, moment))
            except ClusterError as error:
                # Nothing depends on an Event, and the status says the same.
                _logger.warning("Event %s of %s/%s: %s", notice.reason, *job.key, error)
            finally:
                self._waiting.task_done()

    def _event(self, job: Job, notice: Notice, moment: int) -> dict[str, Any]:
        """The object; `moment` is Unix time in nanoseconds."""
        at = timestamp(moment / 1e9)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            # As client-go names them: Events of one second can be put in order by it.
            "metadata": {"name": f"{job.name}.{moment:x}", "namespace": job.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.name,
                "namespace": job.namespace,
                "uid": job.uid,
            },
            "type": notice.kind,
            "reason": notice.reason,
            "message": notice.message[:1024],
            "source": {"component": _COMPONENT},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._identity,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
