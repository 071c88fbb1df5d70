"""`python -m retrainer_operator`: the operator, in a pod or with a kubeconfig."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from retrainer.errors import RetrainerError
from retrainer_operator.api_server.client import Kube, connection
from retrainer_operator.api_server.events import Notices
from retrainer_operator.api_server.lease import Leader
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.reconciling.queue import Queue
from retrainer_operator.reconciling.reconciler import Reconciler
from retrainer_operator.serving.metrics import Live, OperatorMetrics
from retrainer_operator.serving.web import Web
from retrainer_operator.settings import Settings
from retrainer_operator.watching import kopf_handlers as handlers
from retrainer_operator.watching.reports import Reports
from retrainer_operator.watching.resync import Resync
from retrainer_operator.watching.watches import Watches

_WORKERS = 16
"""Passes at once: they wait for the API server most of the time; more gained nothing on 2 cores."""
_GC_OBJECTS = 10_000
_GATHER = 0.05
"""Seconds in which the changes of one job's Jobs and pods become one pass: they come in bursts."""

_logger = logging.getLogger("retrainer_operator")


class Operator:
    """All parts, wired: watches fill memory, the queue's workers act on it while this replica leads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._metrics = OperatorMetrics()
        self._memory = Memory()
        self._kube = Kube(connection(), self._metrics.wrote)
        self._leader = Leader(
            self._kube,
            settings.namespace,
            settings.lease,
            settings.identity,
            on_change=self._led,
        )
        self._notices = Notices(self._kube, settings.identity)
        self._reconciler = Reconciler(
            self._kube,
            self._memory,
            settings,
            leads=self._leader.leads,
            tell=self._notices.tell,
            on_finished=lambda phase, reason: self._metrics.finished.labels(phase, reason).inc(),
        )
        self._queue = Queue(
            self._pass,
            on_wait=self._metrics.queue_seconds.observe,
            on_result=lambda result: self._metrics.passes.labels(result).inc(),
        )
        self._metrics.queue_depth.set_function(lambda: len(self._queue))
        self._reports = Reports(self._memory, leads=self._leader.leads, on_news=self._soon)
        self._watches = Watches(
            self._kube,
            lambda: handlers.registry(self._memory, self._queue.add, self._soon, self._deleted),
            settings.namespaces,
            on_start=self._started,
            on_skipped=self._metrics.namespaces_skipped.set,
            on_spawned=self._handle_signals,
        )
        self._resync = Resync(
            self._kube,
            self._memory,
            interval=settings.resync_seconds,
            on_gone=self._gone,
            on_caught_up=self._caught_up,
            on_forbidden=self._watches.doubt,
        )
        self._web = Web(page=self._page, alive=self._alive, ready=self._ready)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; the Lease is given back at the end."""
        ports = await self._web.start(
            self._settings.bind_address, self._settings.metrics_port, self._settings.probe_port
        )
        _logger.info("Serving /metrics on port %d and the probes on port %d", *ports)
        self._handle_signals()
        leading = asyncio.create_task(self._leader.run(), name="leader")
        parts = [
            leading,
            asyncio.create_task(self._queue.run(_WORKERS), name="queue"),
            asyncio.create_task(self._notices.run(), name="notices"),
            asyncio.create_task(self._reports.run(), name="reports"),
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
            await self._notices.drain()
            for task in (*parts, stopping):
                task.cancel()
            await asyncio.wait(parts, timeout=5)
            await self._web.close()
            await self._kube.close()
        for task in done - {stopping}:
            task.result()  # no part ends by itself: say why it did

    def _handle_signals(self) -> None:
        """kopf sets its own handlers each time it starts; ours end the whole process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)

    async def _pass(self, key: Key) -> float | None:
        started = time.perf_counter()
        try:
            return await self._reconciler(key)
        finally:
            self._metrics.pass_seconds.observe(time.perf_counter() - started)

    # --- what the parts tell each other ---

    def _led(self, leads: bool) -> None:
        self._metrics.leader.set(leads)
        self._gate()

    def _started(self, namespaces: Sequence[str | None]) -> None:
        self._queue.opened.clear()
        self._resync.restart(namespaces)

    def _caught_up(self) -> None:
        self._metrics.last_resync.set_to_current_time()
        self._gate()

    def _gate(self) -> None:
        """Passes run while this replica leads and the watches have listed everything."""
        if not (self._leader.leads() and self._resync.caught_up):
            self._queue.opened.clear()
            return
        self._queue.opened.set()
        for key in self._memory.every_key():
            self._queue.add(key)

    def _soon(self, key: Key) -> None:
        self._queue.add_after(key, _GATHER)

    def _deleted(self, key: Key, uid: str) -> None:
        self._memory.gone(key, uid)
        self._queue.forget(key)

    def _gone(self, key: Key, uid: str) -> None:
        self._memory.gone(key, uid)
        self._queue.add(key)

    # --- what is asked from outside ---

    def _page(self) -> bytes:
        """In a thread: everything is copied before it is read."""
        if not self._leader.leads():
            return self._metrics.render(())
        lives = [Live(job, tuple(self._memory.reports(job.key))) for job in self._memory.jobs()]
        return self._metrics.render(lives)

    def _alive(self) -> str:
        return "a watch is behind the API server's list" if self._resync.stuck() else ""

    def _ready(self) -> str:
        return "" if self._resync.caught_up else "the watches have not listed everything yet"


class _JsonLines(logging.Formatter):
    """One JSON object a line, for collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _log(settings: Settings) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if settings.log_format == "json" else plain)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # kopf tells of every object it sees; what goes wrong is enough.
    logging.getLogger("kopf").setLevel(
        logging.DEBUG if settings.log_level == "debug" else logging.WARNING
    )


async def _run(settings: Settings) -> None:
    await Operator(settings).run()


def main() -> int:
    """The exit code."""
    try:
        settings = Settings.from_environment(os.environ)
        _log(settings)
        # What is in memory stays there: looking through all of it for garbage at Python's usual pace
        # took a third of the time to list 15,000 objects.
        gc.set_threshold(_GC_OBJECTS, 20, 50)
        asyncio.run(_run(settings))
    except RetrainerError as error:
        print(f"retrainer-operator: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"retrainer-operator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
