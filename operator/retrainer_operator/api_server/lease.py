"""One replica acts: a Lease in the operator's own namespace, by plain requests.

Times are client-go's defaults scaled to a takeover within 12 s. Another's Lease has run out when it has
not changed for its duration by our own clock: clocks of two machines are never compared.

Whoever leads renews by one PUT of the Lease as the last answer had it, so that an API server that takes
4 s for a request still has a leader. Each process marks the Lease with an instance of its own beside its
identity: a container started again in its pod has the identity of the one that died, and takes the Lease
at once; two processes that live with one identity see that it is not their own.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from retrainer.api.names import GROUP
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError

DURATION = 10.0
"""Seconds for which a Lease holds."""
RENEW_WITHIN = 8.0
"""Seconds after the last renewal at which we stop acting: well before another may start."""
RETRY = 2.0
"""Seconds between two tries, and between two renewals."""
_REQUEST = 5.0
"""Seconds a single request may take, so that a hanging one does not eat the time to renew."""
INSTANCE = f"{GROUP}/instance"
"""Annotation of the Lease: which process of the holder's identity wrote it."""

_logger = logging.getLogger(__name__)

Body = dict[str, Any]


class Api(Protocol):
    """Requests that the Lease needs of the API server."""

    async def get(self, path: str, **params: str) -> Body:
        """Read one object."""

    async def create(self, path: str, body: Body) -> Body:
        """Create an object."""

    async def replace(self, path: str, body: Body) -> Body:
        """Replace an object, if its resourceVersion is still the same."""


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
        self._instance = secrets.token_hex(8)
        self._on_change = on_change
        self._clock = clock
        self._held_until = float("-inf")
        self._led = False
        self._fresh = True
        self._lease: Body | None = None
        self._others: tuple[str, float] = ("", 0.0)

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
            await self.take()
        except (ClusterError, TimeoutError) as error:
            _logger.warning("Lease %s/%s: %s", self._namespace, self._name, error or "timeout")
        except Exception:  # an answer of any shape must not end the one part that keeps us leading
            _logger.exception("Lease %s/%s could not be read", self._namespace, self._name)
        self._report()
        until = asked + RETRY
        if self._others[0]:  # a takeover comes when the other's time is over, not up to RETRY later
            until = min(until, max(asked + RETRY / 10, self._others[1]))
        await asyncio.sleep(max(0.0, until - self._clock()))
        self._report()

    async def _release(self) -> None:
        """Give the Lease back, so that another need not wait for its end."""
        if not self.leads():
            return
        self._held_until = float("-inf")
        self._report()
        try:
            for _ in range(2):
                lease = self._lease or await self._ask(self._api.get(self._path))
                if not self._is_mine(lease):
                    return
                spec = {**lease["spec"], "holderIdentity": "", "renewTime": _now()}
                self._lease = None
                try:
                    await self._ask(self._api.replace(self._path, {**lease, "spec": spec}))
                except ApiError as error:
                    if error.code != 409:
                        raise
                else:
                    return
        except (ClusterError, TimeoutError) as error:
            _logger.warning("The Lease was not released: %s", error or "timeout")

    async def take(self) -> bool:
        """Take or renew the Lease.

        Returns:
            Whether this replica holds it now.
        """
        lease = self._lease
        if lease is None or not self._is_mine(lease):
            try:
                lease = await self._ask(self._api.get(self._path))
            except ApiError as error:
                if error.code != 404:
                    raise
                return await self._write(None)
        if self._is_mine(lease) or self._is_free(lease):
            return await self._write(lease)
        self._lose(lease)
        return False

    async def _write(self, lease: Body | None) -> bool:
        """Write ourselves into the Lease, which nobody may have written since we read it."""
        asked = self._clock()  # we lead from when we asked, not from when we were answered
        self._lease = None  # until we know better: a failed request may have taken effect
        try:
            if lease is None:
                path = self._path.rpartition("/")[0]
                answer = await self._ask(self._api.create(path, self._marked({})))
            else:
                answer = await self._ask(self._api.replace(self._path, self._marked(lease)))
        except ApiError as error:
            if error.code == 409:  # another was quicker, or we were and did not hear of it
                return await self._read_again()
            raise
        self._lease = answer
        self._others = ("", 0.0)
        self._fresh = False
        self._held_until = asked + RENEW_WITHIN
        return True

    async def _read_again(self) -> bool:
        lease = await self._ask(self._api.get(self._path))
        if self._is_mine(lease):
            self._lease = lease
        else:
            self._lose(lease)
        return False

    def _lose(self, lease: Body) -> None:
        self._lease = lease
        self._fresh = False
        self._held_until = float("-inf")

    def _marked(self, lease: Body) -> Body:
        metadata = dict(lease.get("metadata") or {"name": self._name, "namespace": self._namespace})
        annotations = {**(metadata.get("annotations") or {}), INSTANCE: self._instance}
        spec = dict(lease.get("spec") or {})
        if not self._is_mine(lease):
            transitions = spec.get("leaseTransitions")
            spec["acquireTime"] = _now()
            spec["leaseTransitions"] = int(transitions or 0) + 1 if lease else 0
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": _now(),
        }
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "annotations": annotations},
            "spec": spec,
        }

    def _is_mine(self, lease: Body) -> bool:
        """Whether this very process wrote it, and nobody has since."""
        annotations = (lease.get("metadata") or {}).get("annotations") or {}
        holder = (lease.get("spec") or {}).get("holderIdentity")
        return holder == self._identity and annotations.get(INSTANCE) == self._instance

    def _is_free(self, lease: Body) -> bool:
        """Whether nobody holds it: given back, run out, or left by the process before us in this pod."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if not holder or (holder == self._identity and self._fresh):
            return True
        version = str((lease.get("metadata") or {}).get("resourceVersion"))
        if version != self._others[0]:
            duration = float(spec.get("leaseDurationSeconds") or DURATION)
            self._others = (version, self._clock() + duration)
        return self._clock() >= self._others[1]

    async def _ask(self, request: Awaitable[Body]) -> Body:
        async with asyncio.timeout(_REQUEST):
            return await request

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{self._name}"

    def _report(self) -> None:
        leads = self.leads()
        if leads != self._led:
            self._led = leads
            _logger.info("This replica %s", "leads" if leads else "no longer leads")
            self._on_change(leads)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
