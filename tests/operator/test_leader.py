"""The Lease: who holds it, and that it is given back for good."""

from __future__ import annotations

import asyncio
from typing import Any

from retrainer_operator.api_server.client import ApiError
from retrainer_operator.api_server.lease import Leader

Body = dict[str, Any]


class _Server:
    """One Lease; whoever writes it must have read it as it is."""

    def __init__(self) -> None:
        self.lease: Body | None = None
        self.version = 0

    async def get(self, path: str, **_: str) -> Body:
        await asyncio.sleep(0)
        if self.lease is None:
            raise ApiError(404, "NotFound", path, None)
        return {"metadata": dict(self.lease["metadata"]), "spec": dict(self.lease["spec"])}

    async def create(self, _: str, body: Body) -> Body:
        return self._store(body)

    async def replace(self, _: str, body: Body) -> Body:
        await asyncio.sleep(0)
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "it has changed", None)
        return self._store(body)

    def _store(self, body: Body) -> Body:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        return body

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""


async def test_what_is_given_back_at_the_end_is_not_taken_again() -> None:
    server, changes = _Server(), asyncio.Queue[bool]()
    leader = Leader(server, "retrainer", "lease", "me", on_change=changes.put_nowait)
    leading = asyncio.create_task(leader.run())
    assert await changes.get()
    assert server.holder == "me"
    leading.cancel()
    await asyncio.wait([leading])
    assert server.holder == ""
    assert not leader.leads()
    assert not await changes.get()


async def test_anothers_lease_is_not_taken_before_it_has_run_out_by_our_own_clock() -> None:
    server, now = _Server(), [1000.0]
    first = Leader(server, "n", "l", "first", on_change=lambda _: None)
    assert await first.take()
    second = Leader(server, "n", "l", "second", on_change=lambda _: None, clock=lambda: now[0])
    assert not await second.take()
    now[0] += 9.9
    assert not await second.take()
    assert await first.take()  # renewed: the time of it starts anew
    now[0] += 9.9
    assert not await second.take()
    now[0] += 10
    assert await second.take()
    assert not await first.take()
