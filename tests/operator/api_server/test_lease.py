"""The Lease: who holds it, and that it is given back for good."""

import asyncio
import copy
from typing import Any

import pytest

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.api_server.lease import Leader

Body = dict[str, Any]


class _Server:
    """One Lease; whoever writes it must have read it as it is."""

    def __init__(self) -> None:
        self.lease: Body | None = None
        self.version = 0
        self.requests = 0
        self.lose_answer = False
        self.odd_answers: list[Body] = []

    async def get(self, path: str, **_: str) -> Body:
        self.requests += 1
        await asyncio.sleep(0)
        if self.odd_answers:
            return self.odd_answers.pop()
        if self.lease is None:
            raise ApiError(404, "NotFound", path, None)
        return copy.deepcopy(self.lease)

    async def create(self, _: str, body: Body) -> Body:
        return self._store(body)

    async def replace(self, _: str, body: Body) -> Body:
        self.requests += 1
        await asyncio.sleep(0)
        if body["metadata"].get("resourceVersion") != str(self.version):
            raise ApiError(409, "Conflict", "it has changed", None)
        answer = self._store(body)
        if self.lose_answer:
            self.lose_answer = False
            raise ClusterError("the connection ended")
        return answer

    def _store(self, body: Body) -> Body:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

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


async def test_of_two_that_live_with_one_identity_one_leads() -> None:
    server, now = _Server(), [1000.0]
    first, second = (
        Leader(server, "n", "l", "same", on_change=lambda _: None, clock=lambda: now[0])
        for _ in range(2)
    )
    assert await first.take()
    # It may be the same pod's next container, the other dead: it takes the Lease at once.
    assert await second.take()
    for _ in range(20):
        now[0] += 2
        assert not await first.take()
        assert await second.take()
        assert [first.leads(), second.leads()] == [False, True]


async def test_a_renewal_is_one_request() -> None:
    server = _Server()
    leader = Leader(server, "n", "l", "me", on_change=lambda _: None)
    assert await leader.take()
    server.requests = 0
    for _ in range(5):
        assert await leader.take()
    assert server.requests == 5


async def test_a_renewal_whose_answer_was_lost_is_read_and_renewed() -> None:
    server, now = _Server(), [1000.0]
    leader = Leader(server, "n", "l", "me", on_change=lambda _: None, clock=lambda: now[0])
    assert await leader.take()
    server.lose_answer = True
    now[0] += 2
    with pytest.raises(ClusterError):
        await leader.take()
    assert leader.leads()
    now[0] += 2
    assert await leader.take()


@pytest.mark.parametrize(
    "answer", [{}, {"spec": None}, {"metadata": {}, "spec": {"holderIdentity": 1}}]
)
async def test_an_answer_of_any_shape_does_not_end_the_process(answer: Body) -> None:
    server, changes = _Server(), asyncio.Queue[bool]()
    server.odd_answers = [answer]
    leader = Leader(server, "n", "l", "me", on_change=changes.put_nowait)
    leading = asyncio.create_task(leader.run())
    async with asyncio.timeout(30):
        assert await changes.get()
    leading.cancel()
    await asyncio.wait([leading])
