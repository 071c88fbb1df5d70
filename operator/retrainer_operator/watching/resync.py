"""Compares memory with the API server's own lists now and then, and reads anew what differs.

The watches mend themselves what one of their rounds loses; this finds what they can never show: an event
that is lost each time, an object that left the watch by its labels, a defect of ours. Only metadata is
listed, and what differs is given a moment: it is mostly an event on its way.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError, Kube
from retrainer_operator.watching.intake import KINDS, Intake, Kind

INTERVAL = 15.0
"""Seconds between two comparisons, if one takes little of them."""
_SHARE = 0.1
"""Share of the time to spend on lists at most: they grow with the number of objects."""
_GRACE = 3.0
"""Seconds to wait for an event that is on its way."""
_RETRY = 2.0

_logger = logging.getLogger(__name__)


class Resync:
    """Compares, and has the intake read what is behind, and what no list has."""

    def __init__(
        self,
        kube: Kube,
        intake: Intake,
        *,
        longest: float,
        on_compared: Callable[[], None],
        on_forbidden: Callable[[], None],
        grace: float = _GRACE,
    ) -> None:
        self._kube = kube
        self._intake = intake
        self._longest = longest
        self._on_compared = on_compared
        self._on_forbidden = on_forbidden
        self._grace = grace
        self._namespaces: Sequence[str | None] = ()
        self._slowest = 0.0

    def restart(self, namespaces: Sequence[str | None]) -> None:
        """Compare what is in these namespaces from now on (None is all)."""
        self._namespaces = namespaces

    async def run(self) -> None:
        """Compare until cancelled."""
        wait = min(INTERVAL, self._longest)
        while True:
            await asyncio.sleep(wait)
            listing = 0.0
            try:
                for namespace in self._namespaces:
                    self._slowest = 0.0
                    await asyncio.gather(*(self.compare(kind, namespace) for kind in KINDS))
                    listing += self._slowest
                await self._intake.read_children_of_pods()
            except ClusterError as error:
                _logger.warning("The full list failed: %s", error)
                wait = _RETRY
                if isinstance(error, ApiError) and error.code == 403:
                    self._on_forbidden()
                continue
            except Exception:
                _logger.exception("The full list could not be compared")
            else:
                self._on_compared()
            wait = min(self._longest, max(INTERVAL, listing / _SHARE))

    async def compare(self, kind: Kind, namespace: str | None) -> int:
        """Compare one kind in one namespace, and read what differs and still does after a moment.

        Returns:
            How many objects were read.
        """
        started = time.monotonic()
        before = self._intake.snapshots(kind, namespace)
        listed: dict[str, tuple[str, str, int]] = {}
        async for meta in self._kube.metadata(kind.path(namespace), kind.selector):
            listed[meta["uid"]] = meta["namespace"], meta["name"], int(meta["resourceVersion"])
        self._slowest = max(self._slowest, time.monotonic() - started)
        after = self._intake.snapshots(kind, namespace)
        gone = {uid for uid in before if uid in after and uid not in listed}
        behind = {
            uid
            for uid, entry in listed.items()
            if (uid not in after or after[uid].version < entry[2])
            and uid not in self._intake.unreadable
        }
        if not gone and not behind:
            return 0
        await asyncio.sleep(self._grace)
        now = self._intake.snapshots(kind, namespace)
        objects = [(now[uid].namespace, now[uid].name, uid) for uid in gone if uid in now]
        objects += [
            (listed[uid][0], listed[uid][1], uid)
            for uid in behind
            if uid not in now or now[uid].version < listed[uid][2]
        ]
        if objects:
            _logger.info("%d %s are read anew: no watch showed them", len(objects), kind.resource)
            await self._intake.read(kind, objects)
        return len(objects)
