"""What becomes of a child whose deletion is told, by what is true of its job."""

import asyncio

from tests.operator.objects import CHILD_UID, make_child, make_child_body, make_job, make_job_body
from tests.operator.watching.cluster import KEY, ScriptedApi, make_intake

from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.intake import CHILDREN


async def _after_deletion(api: ScriptedApi) -> tuple[Memory, list[Key]]:
    """Memory after the watch has told of a child's deletion, and which jobs are due."""
    memory, due = Memory(), asyncio.Queue[Key]()
    memory.put(make_job())
    memory.put(make_child())
    make_intake(api, memory, due.put_nowait).remove(CHILDREN, make_child_body())
    assert memory.get(CHILD_UID) is not None, "until its job is read, nothing is made in its place"
    async with asyncio.timeout(10):
        keys = [await due.get()]
        while memory.get(CHILD_UID) is not None:  # noqa: ASYNC110 - memory wakes nobody
            await asyncio.sleep(0)
    return memory, keys + [due.get_nowait() for _ in range(due.qsize())]


async def test_a_job_that_is_gone_with_its_child_is_dropped_before_the_child_is_missed() -> None:
    memory, _ = await _after_deletion(ScriptedApi())
    assert memory.observe(KEY).job is None
    assert memory.get(CHILD_UID) is None


async def test_a_job_that_is_there_misses_its_child() -> None:
    api = ScriptedApi()
    api.objects = [make_job_body()]
    memory, keys = await _after_deletion(api)
    assert KEY in keys
    assert memory.observe(KEY).job is not None
    assert memory.get(CHILD_UID) is None


async def test_a_job_that_cannot_be_read_misses_its_child_all_the_same() -> None:
    api = ScriptedApi()
    api.error = ApiError(503, "ServiceUnavailable", "later", None)
    memory, keys = await _after_deletion(api)
    assert keys == [KEY]
    assert memory.get(CHILD_UID) is None
