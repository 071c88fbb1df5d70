"""A job that nothing can be done with stops no other, whatever somebody has written into it."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.fake_cluster import JOB, FakeCluster
from tests.operator.objects import FINAL, make_job_body, make_settings

from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.reconciling.queue import Queue
from retrainer_operator.reconciling.reconciler import Reconciler

Body = dict[str, Any]
GOOD, POISON = ("team", "flowers"), ("team", "poison")
POISON_PATH = JOB.replace("flowers", "poison")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = ("architecture", "images", "output", "shards", "pod", "training", "suspend", "storage",
          "activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit")  # fmt: skip
STATUS = ("phase", "reason", "message", "conditions", "startTime", "completionTime", "progress",
          "metrics", "curve", "artifacts", "observedGeneration")  # fmt: skip


class _Refusing(FakeCluster):
    """One that refuses whatever is written about the poison job, as a webhook might."""

    def __init__(self, code: int | None) -> None:
        super().__init__()
        self.code = code

    async def create(self, path: str, body: Body) -> Body:
        self._refuse(body["metadata"].get("name", ""))
        return await super().create(path, body)

    async def patch(self, path: str, body: Body) -> Body:
        self._refuse(path)
        return await super().patch(path, body)

    def _refuse(self, where: str) -> None:
        if self.code is not None and "poison" in where:
            raise ApiError(self.code, "Refused", "no", None)


def _listen(cluster: FakeCluster, memory: Memory) -> None:
    for path, body in cluster.objects.items():
        if "/retrainjobs/" in path:
            memory.put(read_job(body))
        elif "/jobs/" in path:
            memory.put(read_child(body))
        else:
            memory.put(read_pod(body))


async def _work(cluster: FakeCluster) -> None:
    """One worker, so that a pass that does not end would hold up all others."""
    memory = Memory()
    reconciler = Reconciler(
        cluster, memory, make_settings(), leads=lambda: True, clock=lambda: cluster.now
    )
    passed: asyncio.Queue[Key] = asyncio.Queue()

    async def work(key: Key) -> float | None:
        try:
            return await reconciler(key)
        finally:
            passed.put_nowait(key)

    queue = Queue(work)
    queue.opened.set()
    worker = asyncio.create_task(queue.run(1))
    try:
        for _ in range(8):
            _listen(cluster, memory)
            queue.add(POISON)
            queue.add(GOOD)
            while await passed.get() != GOOD:
                pass
            cluster.now += 20
            cluster.control_jobs()
            for path in cluster.pod_paths("Pending"):
                cluster.run_pod(path)
            for path in cluster.pod_paths("Running"):
                cluster.end_pod(path, 0, "Completed", FINAL)
            for body in cluster.children():
                if "flowers" in body["metadata"]["name"]:
                    cluster.finish(body, "Complete", "CompletionsReached")
        assert not worker.done()
    finally:
        worker.cancel()
        await asyncio.wait([worker])


@settings(max_examples=40, deadline=None)
@given(
    spec=st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4),
    status=st.dictionaries(st.sampled_from(STATUS), anything, max_size=4),
    code=st.sampled_from([None, 400, 403, 404, 409, 422, 429, 500]),
)
def test_a_poison_job_never_stops_another(spec: Body, status: Body, code: int | None) -> None:
    cluster = _Refusing(code)
    poison = make_job_body(status)
    poison["metadata"] |= {"name": "poison", "uid": "poison"}
    poison["spec"] |= spec
    cluster.put(POISON_PATH, poison)
    cluster.apply_job()
    asyncio.run(_work(cluster))
    assert cluster.phase == "Succeeded"
