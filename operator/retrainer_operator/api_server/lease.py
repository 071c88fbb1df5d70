"""One replica acts: a Lease in the operator's own namespace, by plain requests.

Times as client-go's defaults scaled to a takeover within 15 s. Another's Lease has run out when we have
not seen it change for its duration by our own clock: clocks of two machines are never compared.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError

DURATION = 10.0
"""Seconds for which a Lease holds."""
RENEW_WITHIN = 6.0
"""Seconds after the last renewal at which we stop acting: well before another may start."""
RETRY = 2.0
"""Seconds between two tries, and between two renewals."""
_REQUEST = 4.0
"""Seconds a single request may take, so that a hanging one does not eat the time to renew."""

_logger = logging.getLogger(__name__)

Body = dict[str, Any]


class Api(Protocol):
    """What is asked of the API server."""

    async def get(self, path: str, **params: str) -> Body:
        """One object."""

    async def create(self, path: str, body: Body) -> Body:
        """Create it."""

    async def replace(self, path: str, body: Body) -> Body:
        """Replace it, if the resourceVersion is still the same."""


class Leader:
    """Holds the Lease, or tries to; `leads` is asked before each write."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_change: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._clock = clock
        self._held_until = float("-inf")
        self._told = False
        self._seen: tuple[str, float] = ("", 0.0)

    def leads(self) -> bool:
        """Whether this replica may write at this moment."""
        return self._clock() < self._held_until

    async def run(self) -> None:
        """Take and renew the Lease until cancelled; then give it back, and take it no more."""
        try:
            while True:
                await self._round()
        finally:
            await self._release()

    async def _round(self) -> None:
        asked = self._clock()
        try:
            async with asyncio.timeout(_REQUEST):
                held = await self.take()
        except (ClusterError, TimeoutError) as error:
            _logger.warning("Lease %s/%s: %s", self._namespace, self._name, error or "timeout")
            held = False
        if held:
            # From when we asked, not from when we were answered.
            self._held_until = asked + RENEW_WITHIN
        self._tell()
        await asyncio.sleep(RETRY)
        self._tell()

    async def _release(self) -> None:
        """So that another need not wait for its end."""
        if not self.leads():
            return
        self._held_until = float("-inf")
        self._tell()
        try:
            async with asyncio.timeout(_REQUEST):
                lease = await self._api.get(self._path)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"] |= {"holderIdentity": "", "renewTime": _now()}
                    await self._api.replace(self._path, lease)
        except (ClusterError, TimeoutError) as error:
            _logger.warning("The Lease was not released: %s", error or "timeout")

    async def take(self) -> bool:
        """Take or renew it; whether we hold it now."""
        try:
            lease = await self._api.get(self._path)
        except ApiError as error:
            if error.code != 404:
                raise
            return await self._create()
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and not self._ran_out(lease):
            return False
        if holder != self._identity:
            spec["acquireTime"] = _now()
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": _now(),
        }
        try:
            await self._api.replace(self._path, lease)
        except ApiError as error:
            if error.code == 409:  # another was quicker
                return False
            raise
        return True

    async def _create(self) -> bool:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseTransitions": 0,
            },
        }
        try:
            await self._api.create(self._path.rpartition("/")[0], body)
        except ApiError as error:
            if error.code == 409:
                return False
            raise
        return True

    def _ran_out(self, lease: Body) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        duration = float(lease["spec"].get("leaseDurationSeconds") or DURATION)
        return self._clock() >= self._seen[1] + duration

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{self._name}"

    def _tell(self) -> None:
        leads = self.leads()
        if leads != self._told:
            self._told = leads
            _logger.info("This replica %s", "leads" if leads else "no longer leads")
            self._on_change(leads)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
