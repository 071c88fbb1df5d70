"""The comparison with the API server's lists: what it reads anew, and what it lets be."""

import pytest
from tests.operator.objects import UID, make_child_body, make_job, make_job_body, make_pod
from tests.operator.watching.cluster import KEY, ScriptedApi, make_intake

from retrainer_operator.api_server.client import ApiError
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.intake import RETRAINJOBS
from retrainer_operator.watching.resync import Resync


class _Bench:
    def __init__(self) -> None:
        self.api = ScriptedApi()
        self.memory = Memory()
        self.intake = make_intake(self.api, self.memory)
        self.resync = Resync(
            self.api.kube, self.intake, longest=300, on_compared=lambda: None,
            on_forbidden=lambda: None, grace=0,
        )  # fmt: skip

    async def compare(self) -> int:
        return await self.resync.compare(RETRAINJOBS, None)

    def version(self) -> int:
        job = self.memory.observe(KEY).job
        return job.version if job else 0


async def test_a_job_that_no_watch_has_shown_is_read() -> None:
    bench = _Bench()
    bench.api.objects = [make_job_body()]
    assert await bench.compare() == 1
    assert bench.version() == int(bench.api.objects[0]["metadata"]["resourceVersion"])
    assert await bench.compare() == 0


async def test_a_change_that_no_watch_has_shown_is_read() -> None:
    bench = _Bench()
    bench.memory.put(make_job())
    bench.api.objects = [make_job_body()]
    assert await bench.compare() == 1
    assert bench.version() == int(bench.api.objects[0]["metadata"]["resourceVersion"])


async def test_a_job_that_no_list_has_is_dropped_once_it_is_not_there_itself() -> None:
    bench = _Bench()
    bench.memory.put(make_job())
    assert await bench.compare() == 1
    assert bench.version() == 0


async def test_a_job_that_an_old_list_does_not_have_yet_is_kept() -> None:
    """A list may be answered by an API server that is behind."""
    bench = _Bench()
    bench.memory.put(make_job())
    bench.api.objects = [make_job_body()]
    bench.api.listed = []
    assert await bench.compare() == 1
    assert bench.version() == int(bench.api.objects[0]["metadata"]["resourceVersion"])


async def test_another_job_of_the_same_name_takes_the_place_of_the_one_that_is_gone() -> None:
    bench = _Bench()
    bench.memory.put(make_job())
    successor = make_job_body()
    successor["metadata"]["uid"] = "another"
    bench.api.objects = [successor]
    await bench.compare()
    job = bench.memory.observe(KEY).job
    assert job is not None
    assert job.uid == "another"
    assert bench.memory.get(UID) is None


async def test_an_object_that_cannot_be_read_is_not_read_again_and_again() -> None:
    bench = _Bench()
    poison = make_job_body()
    poison["metadata"]["creationTimestamp"] = ["none"]
    bench.api.objects = [
        poison,
    ]
    assert await bench.compare() == 1
    assert await bench.compare() == 0


async def test_a_job_that_only_its_pods_show_is_read() -> None:
    """It has lost its labels, and no note of it is left: the operator was killed meanwhile."""
    bench = _Bench()
    bench.memory.put(make_job())
    bench.memory.put(make_pod())
    bench.api.objects = [make_child_body(labels={})]
    await bench.intake.read_children_of_pods()
    (child,) = bench.memory.observe(KEY).children
    assert child.stripped
    assert bench.memory.pods_without_child() == []


async def test_a_read_that_fails_drops_nothing() -> None:
    bench = _Bench()
    bench.memory.put(make_job())
    bench.api.error = ApiError(500, "InternalError", "etcd is away", None)
    with pytest.raises(ApiError):
        await bench.compare()
    assert bench.version()
