"""The full list now and then: when the liveness probe has to fail, and when it must not."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.operator.objects import UID, make_job

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError, Kube
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.resync import LAG_MAX, Resync

LATER = LAG_MAX + 1


class _Server:
    """An API server that has one RetrainJob, if it is there."""

    def __init__(self) -> None:
        self.version = 0
        self.error: ClusterError | None = None

    async def metadata(self, path: str, selector: str = "") -> AsyncIterator[dict[str, Any]]:
        if self.error is not None:
            raise self.error
        if self.version and path.endswith("/retrainjobs"):
            yield {"uid": UID, "name": "flowers", "resourceVersion": str(self.version)}


class _Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.server = _Server()
        self.memory = Memory()
        self.gone: list[str] = []
        self.resync = Resync(
            cast(Kube, self.server),
            self.memory,
            interval=300,
            on_gone=self.gone.append,
            on_caught_up=lambda: None,
            on_forbidden=lambda: None,
            clock=lambda: self.now,
        )
        self.resync.restart([None])

    def behind(self, at: float) -> bool:
        self.now = at
        return asyncio.run(self.resync.compare())

    async def one_round(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await self.resync.run()


def test_a_watch_that_is_behind_for_two_minutes_fails_the_liveness_probe() -> None:
    bench = _Bench()
    bench.server.version = 7
    assert bench.behind(at=0)
    assert not bench.resync.stuck()
    assert bench.behind(at=LATER)
    assert bench.resync.stuck()


def test_a_watch_that_catches_up_does_not() -> None:
    bench = _Bench()
    job = make_job()
    bench.server.version = job.version
    assert bench.behind(at=0)
    bench.memory.put(job)
    assert not bench.behind(at=LATER)
    bench.server.version = job.version + 1
    assert bench.behind(at=LATER + 1)
    assert not bench.resync.stuck(), "its time starts anew"


def test_a_job_that_is_written_all_the_time_is_not_one_whose_watch_is_stuck() -> None:
    bench = _Bench()
    for at in range(0, int(3 * LAG_MAX), 60):
        job = make_job()
        bench.server.version = job.version + 1
        assert bench.behind(at=at)
        assert not bench.resync.stuck()
        bench.memory.put(replace(job, version=bench.server.version))


@pytest.mark.parametrize(
    "error",
    [ClusterError("away"), ApiError(500, "InternalError", "etcd is away", None)],
    ids=["unreachable", "refusing"],
)
def test_an_api_server_that_is_away_never_fails_the_liveness_probe(error: ClusterError) -> None:
    bench = _Bench()
    bench.server.version = 7
    assert bench.behind(at=0)
    bench.server.error = error
    asyncio.run(bench.one_round())
    bench.now = LATER
    assert not bench.resync.stuck()


def test_what_is_no_longer_listed_is_told_once_it_is_known() -> None:
    bench = _Bench()
    job = make_job()
    bench.memory.put(job)
    assert not bench.behind(at=0)
    assert bench.gone == [UID]
