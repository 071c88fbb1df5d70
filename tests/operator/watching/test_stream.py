"""One watch: rounds that overlap, and every way for a round to go wrong."""

import asyncio
from typing import Any

import pytest
from tests.operator.objects import make_job_body
from tests.operator.watching.cluster import (
    KEY,
    SILENCE,
    Body,
    ScriptedApi,
    bookmark,
    event,
    make_intake,
)

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.objects import read_job
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.intake import RETRAINJOBS
from retrainer_operator.watching.stream import Stream


class _Bench:
    def __init__(self) -> None:
        self.api = ScriptedApi()
        self.memory = Memory()
        self.due: list[Key] = []
        self.stream = Stream(
            self.api.kube,
            make_intake(self.api, self.memory, self.due.append),
            RETRAINJOBS,
            None,
            on_listed=lambda: None,
            on_forbidden=lambda: None,
            seconds=-1,  # with the slack, a silent round is given up after a second
        )

    async def play(self, *rounds: list[Any]) -> None:
        """Run until the last of these rounds is over."""
        self.api.rounds = list(rounds)
        following = asyncio.create_task(self.stream.run())
        async with asyncio.timeout(30):
            while len(self.api.begun_at) <= len(rounds):
                await asyncio.sleep(0.01)
                assert not following.done()
        following.cancel()
        await asyncio.wait([following])

    def version(self) -> int:
        job = self.memory.observe(KEY).job
        return job.version if job else 0


async def test_before_anything_is_decided_of_a_listed_job_its_children_are_read() -> None:
    """A list of those with our labels does not show one that has lost them."""
    bench = _Bench()
    bench.api.objects = [make_job_body()]
    await bench.play([])
    assert "flowers-train" in bench.memory.observe(KEY).unread
    finished = make_job_body({"phase": "Succeeded"})
    bench = _Bench()
    bench.api.objects = [finished]
    await bench.play([])
    assert bench.memory.observe(KEY).unread == frozenset()


def _job(version: int) -> Body:
    body = make_job_body()
    body["metadata"]["resourceVersion"] = str(version)
    return body


async def test_each_round_begins_where_the_one_before_it_began() -> None:
    bench = _Bench()
    await bench.play([bookmark(1010)], [bookmark(1020)], [bookmark(1030)])
    assert bench.api.begun_at == [1000, 1000, 1010, 1020]
    assert bench.api.lists == 1


async def test_what_came_already_is_not_taken_twice() -> None:
    bench = _Bench()
    added = event("ADDED", _job(1001))
    await bench.play([added, bookmark(1010)], [added, bookmark(1020)], [bookmark(1030)])
    assert bench.due == [KEY]


async def test_an_event_that_a_round_has_lost_comes_with_the_next() -> None:
    bench = _Bench()
    await bench.play([bookmark(1010)], [event("ADDED", _job(1005)), bookmark(1020)])
    assert bench.version() == 1005


async def test_a_lost_addition_of_what_is_gone_meanwhile_does_not_bring_it_back() -> None:
    bench = _Bench()
    deleted = event("DELETED", _job(1007))
    await bench.play(
        [deleted, bookmark(1010)], [event("ADDED", _job(1005)), deleted, bookmark(1020)]
    )
    assert bench.version() == 0


@pytest.mark.parametrize(
    "failure",
    [
        SILENCE,
        ClusterError("the connection ended"),
        ApiError(503, "ServiceUnavailable", "later", None),
        event("ERROR", {"code": 500, "message": "etcd"}),
        event("ERROR", {}),
        b"<html>",
        b"[]",
        event("ADDED", {}),
        b'{"type": "MODIFIED"}',
        b"[" * 100_000,
    ],
    ids=["silent", "cut", "refused", "error 500", "bare error", "no JSON", "no object", "no version",
         "no object in it", "nested"],
)  # fmt: skip
async def test_a_round_that_fails_is_followed_by_one_from_where_it_began(failure: Any) -> None:
    bench = _Bench()
    await bench.play(
        [bookmark(1010)], [bookmark(1020), failure], [event("ADDED", _job(1015)), bookmark(1030)]
    )
    assert bench.api.begun_at[2] <= 1010
    assert bench.version() == 1015
    assert bench.api.lists == 1


@pytest.mark.parametrize(
    "failure",
    [ApiError(410, "Expired", "too old", None), event("ERROR", {"code": 410, "reason": "Expired"})],
    ids=["answer", "event"],
)
async def test_a_version_that_is_too_old_is_a_reason_to_list_anew(failure: Any) -> None:
    bench = _Bench()
    bench.memory.put(read_job(_job(990)))
    bench.api.objects = [_job(1001)]
    await bench.play([bookmark(1010)], [failure], [bookmark(1030)])
    assert bench.api.lists == 2
    assert bench.version() == 1001


async def test_rounds_that_fail_again_and_again_are_a_reason_to_list_anew() -> None:
    bench = _Bench()
    failing = [[ApiError(500, "InternalError", "etcd", None)]] * 5
    await bench.play(*failing, [bookmark(1030)])
    assert bench.api.lists == 2


async def test_an_object_that_cannot_be_read_does_not_stop_the_one_behind_it() -> None:
    bench = _Bench()
    poison = _job(1001)
    poison["metadata"]["creationTimestamp"] = ["none"]
    await bench.play([event("ADDED", poison), event("ADDED", _job(1002)), bookmark(1010)])
    assert bench.version() == 1002
