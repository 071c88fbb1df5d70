"""Lists everything now and then: finds what the watches missed, and whether they keep up."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError, Kube
from retrainer_operator.api_server.selectors import SELECTOR
from retrainer_operator.reconciling.memory import Memory

LAG_MAX = 120.0
"""Seconds for which the watches may be behind a list before the liveness probe fails."""
_FIRST_RETRY = 0.25
_LAST_RETRY = 5.0

_logger = logging.getLogger(__name__)


class Resync:
    """Lists the metadata of all that is watched, and compares."""

    def __init__(
        self,
        kube: Kube,
        memory: Memory,
        *,
        interval: float,
        on_gone: Callable[[str], None],
        on_caught_up: Callable[[], None],
        on_forbidden: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._memory = memory
        self._interval = interval
        self._on_gone = on_gone
        self._on_caught_up = on_caught_up
        self._on_forbidden = on_forbidden
        self._clock = clock
        self._namespaces: Sequence[str | None] = ()
        # By uid: the version that was listed and has not come by a watch, and since when.
        self._behind: dict[str, tuple[int, float]] = {}
        self._restarted = asyncio.Event()
        self.caught_up = False

    def restart(self, namespaces: Sequence[str | None]) -> None:
        """The watches start anew, over these namespaces (None is all)."""
        self._namespaces = namespaces
        self._behind = {}
        self.caught_up = False
        self._restarted.set()

    def stuck(self) -> bool:
        """Whether a watch has been behind for too long; an API server that is away does not count."""
        return any(self._clock() > since + LAG_MAX for _, since in self._behind.values())

    async def run(self) -> None:
        """Compare until cancelled: often until the watches have caught up, then now and then."""
        retry = _FIRST_RETRY
        while True:
            if self._restarted.is_set():
                self._restarted.clear()
                retry = _FIRST_RETRY
            wait = self._interval
            try:
                behind = not self._namespaces or await self.compare()
            except ApiError as error:
                _logger.warning("The full list failed: %s", error)
                self._behind = {}
                wait = _LAST_RETRY
                if error.code == 403:
                    self._on_forbidden()
            except ClusterError as error:
                _logger.warning("The full list failed: %s", error)
                self._behind = {}
                wait = _LAST_RETRY
            else:
                if behind:
                    wait = retry
                    retry = min(_LAST_RETRY, retry * 2)
                else:
                    retry = _FIRST_RETRY
                    self.caught_up = True
                    self._on_caught_up()
            try:
                async with asyncio.timeout(wait):
                    await self._restarted.wait()
            except TimeoutError:
                continue

    async def compare(self) -> bool:
        """Whether the watches are behind; `on_gone` gets what is in memory and no longer listed."""
        before = {snapshot.uid for snapshot in self._memory.snapshots()}
        listed: dict[str, int] = {}
        for namespace in self._namespaces:
            await self._list(namespace, listed)
        for uid in before - listed.keys():
            self._on_gone(uid)
        watched = {snapshot.uid: snapshot.version for snapshot in self._memory.snapshots()}
        behind: dict[str, tuple[int, float]] = {}
        for uid, version in listed.items():
            if watched.get(uid, 0) < version:
                # An object that is written all the time is often a moment behind; what counts is how
                # long the watch has not delivered one and the same version.
                missed = self._behind.get(uid, (0, 0.0))
                still = watched.get(uid, 0) < missed[0]
                behind[uid] = missed if still else (version, self._clock())
        self._behind = behind
        return bool(behind)

    async def _list(self, namespace: str | None, listed: dict[str, int]) -> None:
        scope = f"/namespaces/{namespace}" if namespace else ""
        for path, selector in (
            (f"/apis/{GROUP}/{VERSION}{scope}/{PLURAL}", ""),
            (f"/apis/batch/v1{scope}/jobs", SELECTOR),
            (f"/api/v1{scope}/pods", SELECTOR),
        ):
            async for meta in self._kube.metadata(path, selector):
                listed[meta["uid"]] = int(meta["resourceVersion"])
