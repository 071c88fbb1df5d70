"""All parts of the operator, put together: read here who calls whom.

The watches fill the memory and put a job's key into the queue; the queue's workers make passes over
jobs while this replica holds the Lease; /metrics and the probes answer from what is in memory.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Sequence

from retrainer_operator.api_server.client import Kube, connection
from retrainer_operator.api_server.clock import ServerClock
from retrainer_operator.api_server.events import EventWriter
from retrainer_operator.api_server.lease import Leader
from retrainer_operator.api_server.warnings import Question, WarningReader
from retrainer_operator.planning.snapshots import ChildEvents, Key
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.reconciling.queue import Queue
from retrainer_operator.reconciling.reconciler import Reconciler
from retrainer_operator.serving.metrics import Live, OperatorMetrics
from retrainer_operator.serving.web import Web
from retrainer_operator.settings import Settings
from retrainer_operator.watching.intake import Intake
from retrainer_operator.watching.reports import Reports
from retrainer_operator.watching.resync import Resync
from retrainer_operator.watching.watches import Watches

_WORKERS = 16
"""Passes at the same time: mostly they wait for the API server; more gained nothing on 2 cores."""
_BURST_SECONDS = 0.05
"""Seconds in which the changes of one job's Jobs and pods become one pass: they come in bursts."""

_logger = logging.getLogger(__name__)


class Operator:
    """All parts of one replica."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._metrics = OperatorMetrics()
        self._memory = Memory()
        self._clock = ServerClock()
        self._kube = Kube(connection(), self._metrics.count_write, self._clock)
        self._leader = Leader(
            self._kube,
            settings.namespace,
            settings.lease,
            settings.identity,
            on_change=self._lead_changed,
        )
        self._events = EventWriter(self._kube, settings.identity, clock=self._clock)
        self._warnings = WarningReader(self._kube, on_answer=self._warning_read)
        self._reconciler = Reconciler(
            self._kube,
            self._memory,
            settings,
            leads=self._leader.leads,
            on_event=self._events.add,
            on_question=self._warnings.ask,
            on_finished=lambda phase, reason: self._metrics.finished.labels(phase, reason).inc(),
            on_refused=self._metrics.statuses_refused.inc,
            clock=self._clock,
        )
        self._queue = Queue(
            self._make_pass,
            on_wait=self._metrics.queue_seconds.observe,
            on_result=lambda result: self._metrics.passes.labels(result).inc(),
        )
        self._metrics.queue_depth.set_function(lambda: len(self._queue))
        self._reports = Reports(self._memory, leads=self._leader.leads, on_news=self._due_soon)
        self._intake = Intake(self._kube, self._memory, due=self._queue.add, soon=self._due_soon)
        self._watches = Watches(
            self._kube,
            self._intake,
            settings.namespaces,
            longest=settings.resync_seconds,
            on_start=self._watches_started,
            on_listed=self._open_or_close_queue,
            on_skipped=self._metrics.namespaces_skipped.set,
        )
        self._resync = Resync(
            self._kube,
            self._intake,
            longest=settings.resync_seconds,
            on_compared=self._lists_compared,
            on_forbidden=self._watches.doubt,
        )
        self._web = Web(page=self._page, alive=self._alive, ready=self._ready)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; the Lease is given back at the end."""
        ports = await self._web.start(
            self._settings.bind_address, self._settings.metrics_port, self._settings.probe_port
        )
        _logger.info("Serving /metrics on port %d and the probes on port %d", *ports)
        self._handle_signals()
        loop = asyncio.get_running_loop()
        self._metrics.asyncio_tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        leading = asyncio.create_task(self._leader.run(), name="leader")
        parts = [
            leading,
            asyncio.create_task(self._queue.run(_WORKERS), name="queue"),
            asyncio.create_task(self._events.run(), name="events"),
            asyncio.create_task(self._reports.run(), name="reports"),
            asyncio.create_task(self._warnings.run(), name="warnings"),
            asyncio.create_task(self._resync.run(), name="resync"),
            asyncio.create_task(self._watches.run(), name="watches"),
        ]
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        try:
            done, _ = await asyncio.wait([*parts, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._queue.opened.clear()
            leading.cancel()
            await asyncio.wait([leading])
            await self._events.drain()
            for task in (*parts, stopping):
                task.cancel()
            await asyncio.wait(parts, timeout=5)
            await self._web.close()
            await self._kube.close()
        for task in done - {stopping}:
            task.result()  # no part should end by itself: raise what ended it

    def _handle_signals(self) -> None:
        """Let signals end the whole process in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)

    async def _make_pass(self, key: Key) -> float | None:
        started = time.perf_counter()
        try:
            return await self._reconciler(key)
        finally:
            self._metrics.pass_seconds.observe(time.perf_counter() - started)

    # --- callbacks between the parts ---

    def _lead_changed(self, leads: bool) -> None:
        self._metrics.leader.set(leads)
        self._open_or_close_queue()

    def _watches_started(self, namespaces: Sequence[str | None]) -> None:
        self._queue.opened.clear()
        self._resync.restart(namespaces)

    def _lists_compared(self) -> None:
        self._metrics.last_resync.set_to_current_time()
        self._memory.forget_gone()

    def _open_or_close_queue(self) -> None:
        """Let passes run only while this replica leads and the watches have listed everything."""
        if not (self._leader.leads() and self._watches.listed):
            self._queue.opened.clear()
            return
        self._queue.opened.set()
        for key in self._memory.job_keys():
            self._queue.add(key)

    def _warning_read(self, question: Question, message: str) -> None:
        if self._memory.get(question.job.uid) is None:
            return
        warning = ChildEvents(message, self._clock())
        self._memory.note_events(question.job.uid, question.child_uid, warning)
        self._queue.add(question.job.key)

    def _due_soon(self, key: Key) -> None:
        self._queue.add_after(key, _BURST_SECONDS)

    # --- answers over HTTP ---

    def _page(self) -> bytes:
        """Render /metrics, in a thread: everything is copied before it is read."""
        if not self._leader.leads():
            return self._metrics.render(())
        lives = [Live(job, tuple(self._memory.reports(job.uid))) for job in self._memory.jobs()]
        return self._metrics.render(lives)

    def _alive(self) -> str:
        return "a watch does not turn any more" if self._watches.stuck() else ""

    def _ready(self) -> str:
        return "" if self._watches.listed else "the watches have not listed everything yet"
