"""Answers of the API server to what a pass writes and reads."""

import asyncio
from typing import Any

from tests.operator.fake_cluster import JOB, KEY, FakeCluster, Run
from tests.operator.objects import make_settings

from retrainer_operator.api_server.client import ApiError

Body = dict[str, Any]


class _Refusing(FakeCluster):
    """One that has something against some requests."""

    def __init__(self) -> None:
        super().__init__()
        self.against: dict[str, ApiError] = {}

    async def get(self, path: str, **params: str) -> Body:
        self._object(path)
        return await super().get(path, **params)

    async def create(self, path: str, body: Body) -> Body:
        self._object(path)
        return await super().create(path, body)

    def _object(self, path: str) -> None:
        error = self.against.get(path.rpartition("/")[2])
        if error is not None:
            raise error


def _pass(run: Run) -> float | None:
    return asyncio.run(run.make_pass())


def test_a_refusal_is_not_the_next_jobs_of_that_name() -> None:
    cluster = _Refusing()
    cluster.against["jobs"] = ApiError(422, "Invalid", "priorityClassName: not found", None)
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    assert cluster.phase == "Failed"
    # Deleted and created again, mended, before any pass over it.
    cluster.against.clear()
    cluster.remove(JOB)
    run.sync()
    cluster.apply_job()
    cluster.objects[JOB]["metadata"]["uid"] = "second"
    run.sync()
    _pass(run)
    _pass(run)
    assert cluster.phase == "Pending"
    assert len(cluster.children()) == 1


def test_a_job_that_is_gone_when_its_end_is_written_is_left_at_once() -> None:
    """Its deletion may have been missed: without this it is tried again without a pause."""
    cluster = FakeCluster()
    cluster.apply_job(shards="many")
    run = Run(cluster, make_settings())
    cluster.remove(JOB)
    _pass(run)
    assert run.memory.observe(KEY).job is None
    assert _pass(run) is None


def test_without_the_right_to_read_events_a_job_without_pods_is_told_of_all_the_same() -> None:
    cluster = _Refusing()
    cluster.against["events"] = ApiError(403, "Forbidden", "cannot list events", None)
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    cluster.now += 20
    run.sync()
    _pass(run)
    assert cluster.job is not None
    assert cluster.job["status"]["message"] == "Waiting for the first pod of Job flowers-train."
