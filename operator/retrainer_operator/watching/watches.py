"""Keeps kopf running over the namespaces that the operator has the rights in."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import kopf

from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import Kube, until_served
from retrainer_operator.watching import kopf_handlers

_JOBS = f"{PLURAL}.{GROUP}"
RIGHTS = (
    ("list", _JOBS),
    ("watch", _JOBS),
    ("patch", f"{_JOBS}/status"),
    ("list", "jobs.batch"),
    ("watch", "jobs.batch"),
    ("create", "jobs.batch"),
    ("patch", "jobs.batch"),
    ("delete", "jobs.batch"),
    ("list", "pods"),
    ("watch", "pods"),
)
"""Without one of these a namespace is left out; Events and TTLs are done without."""
_CHECK_INTERVAL = 60.0
_BACKOFF_MAX = 30.0

_logger = logging.getLogger(__name__)


class Watches:
    """Starts kopf again whenever it ends; `on_start` gets the namespaces each time (None is all)."""

    def __init__(
        self,
        kube: Kube,
        registry: Callable[[], kopf.OperatorRegistry],
        wanted: Sequence[str],
        *,
        on_start: Callable[[Sequence[str | None]], None],
        on_skipped: Callable[[int], None],
        on_spawned: Callable[[], None] = lambda: None,
    ) -> None:
        self._kube = kube
        self._registry = registry
        self._wanted: Sequence[str | None] = wanted or (None,)
        self._on_start = on_start
        self._on_skipped = on_skipped
        self._on_spawned = on_spawned
        self._doubt = asyncio.Event()
        self._logged: set[tuple[str | None, str]] = set()

    def doubt(self) -> None:
        """A request was forbidden: check the rights again."""
        self._doubt.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                await until_served(self._kube, f"/apis/{GROUP}/{VERSION}")
                allowed = await self._allowed()
                if allowed:
                    await self._watch(allowed)
                else:
                    await self._doubtful()
                    continue
            except ClusterError as error:
                _logger.warning("The watches did not start: %s", error)
            except Exception:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError from None  # kopf's own end, on our way out
                _logger.exception("The watches ended; they are started again")
            failures = 0 if loop.time() > started + _CHECK_INTERVAL else failures + 1
            wait = min(_BACKOFF_MAX, 2.0 ** min(failures, 10) / 2)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _watch(self, allowed: list[str | None]) -> None:
        """Until kopf ends, or the namespaces that we have the rights in are others."""
        stop = asyncio.Event()
        checker = asyncio.create_task(self._until_others(allowed, stop))
        others = asyncio.all_tasks()
        self._on_start(allowed)
        cluster_wide = allowed == [None]
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=kopf_handlers.settings(),
            clusterwide=cluster_wide,
            namespaces=() if cluster_wide else [n for n in allowed if n],
            standalone=True,
            # kopf would ask who the user is, and a container's uid need not have a name.
            identity=cast(Any, "retrainer-operator"),
            stop_flag=stop,
        )
        self._on_spawned()
        try:
            await kopf.run_tasks(tasks, ignored=others)
        finally:
            checker.cancel()

    async def _until_others(self, allowed: list[str | None], stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._doubtful(complete=len(allowed) == len(self._wanted))
            try:
                if await self._allowed() != allowed:
                    stop.set()
            except ClusterError as error:
                _logger.warning("The rights could not be checked: %s", error)

    async def _doubtful(self, *, complete: bool = False) -> None:
        """Until there is a reason to check: a refusal, or, with namespaces left out, a minute."""
        try:
            async with asyncio.timeout(None if complete else _CHECK_INTERVAL):
                await self._doubt.wait()
        except TimeoutError:
            return
        self._doubt.clear()

    async def _allowed(self) -> list[str | None]:
        allowed: list[str | None] = []
        for namespace in self._wanted:
            missing = [
                (verb, resource)
                for verb, resource in RIGHTS
                if not await self._kube.may(verb, resource, namespace)
            ]
            if not missing:
                allowed.append(namespace)
            self._report(namespace, missing)
        self._on_skipped(len(self._wanted) - len(allowed))
        return allowed

    def _report(self, namespace: str | None, missing: list[tuple[str, str]]) -> None:
        where = f"namespace {namespace}" if namespace else "the whole cluster"
        text = ", ".join(f"{verb} {resource}" for verb, resource in missing)
        if missing and (namespace, text) not in self._logged:
            _logger.error("No right to %s in %s: it is left out until there is one", text, where)
        elif not missing and any(n == namespace for n, _ in self._logged):
            _logger.info("All rights in %s are granted now", where)
        self._logged = {t for t in self._logged if t[0] != namespace}
        if missing:
            self._logged.add((namespace, text))
