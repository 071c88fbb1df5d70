"""Sequences of what people, pods and machines do to a RetrainJob, chosen by hypothesis.

    python -m tests.faults sequences --sample 320

A batch of sequences is played at the same time on a real API server, each on a RetrainJob of its own,
beside a poison job whose Job the API server refuses; meanwhile the operator is killed and its watches
are cut. Then all is left alone, pods that run are ended well, and each job must come to the state that
its spec declares: gone, suspended or ended. What has ended once never becomes anything else.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.faults.lives import ENDED, JOBS, PODS, World
from tests.faults.operators import Behind, operator_behind_proxy
from tests.faults.proxy import EventFault
from tests.operator.harness import Bed, eventually

from retrainer.api.names import LABEL_JOB, LABEL_MANAGED_BY
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import Kube, connection

Body = dict[str, Any]

BATCH = 16
"""Sequences that are played at the same time."""
_BOUND = 180.0
"""Seconds in which all jobs of a batch must be in the state that is declared."""
_POISON = "poison"

PEOPLE = ("suspend", "resume", "deadline", "delete", "create again")
OTHERS = ("delete child", "suspend child", "relabel child", "strip labels", "strip owner")
POD_ENDS = {"succeed": 0, "fail": 1, "give up": 64, "out of memory": 137}
ACTIONS = (*PEOPLE, *OTHERS, *POD_ENDS, "delete pod", "evict pod")


@dataclass(frozen=True)
class Sequence:
    """A job's spec, and what happens to it: each action, and the seconds before it."""

    spec: Body
    steps: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Batch:
    """Sequences, and after how many seconds of them the operator is killed, or its watches are cut."""

    sequences: tuple[Sequence, ...]
    disturbances: tuple[tuple[str, float], ...]


_WAITS = st.sampled_from([0.0, 0.1, 0.4, 1.5])
_SPECS = st.fixed_dictionaries(
    {"shards": st.sampled_from([1, 1, 3]), "backoffLimit": st.sampled_from([0, 2])},
    optional={
        "activeDeadlineSeconds": st.sampled_from([5, 600]),
        "ttlSecondsAfterFinished": st.sampled_from([1, 3600]),
        "suspend": st.booleans(),
    },
)
_SEQUENCES = st.builds(
    Sequence,
    spec=_SPECS,
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), _WAITS), min_size=2, max_size=9).map(tuple),
)
BATCHES = st.builds(
    Batch,
    sequences=st.lists(_SEQUENCES, min_size=BATCH, max_size=BATCH).map(tuple),
    disturbances=st.lists(
        st.tuples(st.sampled_from(["kill", "cut"]), st.sampled_from([0.3, 1.0, 2.5])),
        min_size=1,
        max_size=3,
    ).map(tuple),
)


class Player:
    """Plays one sequence, and knows what its end must be."""

    def __init__(self, world: World, kube: Kube, name: str, sequence: Sequence) -> None:
        self._world = world
        self._kube = kube
        self.sequence = sequence
        self.name = name
        self.spec: Body | None = None
        """As declared last; None once the job is deleted."""
        self._can_fail = False

    async def play(self) -> None:
        """Do one step after the other, whether the job is ready for it or not."""
        await self._create()
        for action, wait in self.sequence.steps:
            await asyncio.sleep(wait)
            # What an action is for may be gone already, or not there yet.
            with suppress(ClusterError):
                await self._act(action)

    async def _create(self) -> None:
        self.spec, self._can_fail = dict(self.sequence.spec), False
        await self._world.apply(self.name, pods={"delay": "never"}, **self.spec)

    async def _act(self, action: str) -> None:
        children = f"{JOBS.format(self._world.namespace)}/"
        if action in PEOPLE:
            await self._decide(action)
        elif action in OTHERS:
            for child in await self._children():
                await self._harm(action, f"{children}{child['metadata']['name']}", child)
        else:
            await self._end_pods(action)

    async def _decide(self, action: str) -> None:
        if action in ("delete", "create again"):
            await self._world.delete(self.name)
            self.spec = None
            if action == "create again":
                await self._create()
            return
        if self.spec is None:
            return
        changes: dict[str, Body] = {
            "suspend": {"suspend": True},
            "resume": {"suspend": False},
            "deadline": {"activeDeadlineSeconds": 6},
        }
        change = changes[action]
        await self._world.edit(self.name, **change)
        self.spec |= change

    async def _harm(self, action: str, path: str, child: Body) -> None:
        metadata: dict[str, Body] = {
            "relabel child": {"labels": {LABEL_JOB: "another"}},
            "strip labels": {"labels": {LABEL_JOB: None, LABEL_MANAGED_BY: None}},
            "strip owner": {"ownerReferences": None},
        }
        if action == "delete child":
            await self._kube.delete(path, child["metadata"]["uid"])
        elif action == "suspend child":
            await self._kube.patch(path, {"spec": {"suspend": True}})
        else:
            await self._kube.patch(path, {"metadata": metadata[action]})

    async def _children(self) -> list[Body]:
        jobs = await self._kube.get(JOBS.format(self._world.namespace))
        return [c for c in jobs["items"] if c["metadata"]["name"].rpartition("-")[0] == self.name]

    async def _end_pods(self, action: str) -> None:
        # A pod that is deleted is ended as its kubelet does: kwok deletes it and leaves its phase.
        self._can_fail |= POD_ENDS.get(action, 0) != 0
        for pod in await self._running():
            path = f"{PODS.format(self._world.namespace)}/{pod['metadata']['name']}"
            if action == "delete pod":
                # Counts as a failure to the Job controller.
                self._can_fail = True
                await self._kube.delete(path, pod["metadata"]["uid"])
                await self._kube.patch(f"{path}/status", {"status": _ended(pod, 143)})
            elif action == "evict pod":
                name = {"name": pod["metadata"]["name"], "namespace": self._world.namespace}
                body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
                await self._kube.create(f"{path}/eviction", body)
                await self._kube.patch(f"{path}/status", {"status": _ended(pod, 143)})
            else:
                await self._kube.patch(f"{path}/status", {"status": _ended(pod, POD_ENDS[action])})

    async def _running(self) -> list[Body]:
        pods = await self._kube.get(
            PODS.format(self._world.namespace), labelSelector=f"{LABEL_JOB}={self.name}"
        )
        return [
            pod
            for pod in pods["items"]
            if (pod.get("status") or {}).get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    async def settle(self) -> None:
        """End the pods that run, each second, until the declared state is there."""
        while self.problem():
            with suppress(ClusterError):
                await self._act("succeed")
            await asyncio.sleep(1)

    def problem(self) -> str:
        """What is not as the spec declares; empty if all is."""
        world, spec = self._world, self.spec
        job, status = world.jobs.get(self.name), world.status(self.name)
        children = world.children_of(self.name)
        phase = str(status.get("phase"))
        if job is None:
            lived = spec is not None and spec.get("ttlSecondsAfterFinished") != 1
            return "it is gone" if lived else f"{len(children)} Jobs are left" if children else ""
        if spec is None:
            return "it is still there"
        uid = job["metadata"]["uid"]
        strangers = [c for c in children if not _is_owned(c, uid)]
        working = [c for c in children if not _has_ended(c)]
        if strangers:
            return f"{len(strangers)} Jobs are not its own"
        if phase in ENDED:
            failed = phase == "Failed" and not self._can_fail and not _is_short(spec)
            return f"failed: {status}" if failed else "Jobs work on" if working else ""
        if spec.get("suspend"):
            running = [c for c in working if not c["spec"].get("suspend")]
            return f"it is {phase}" if phase != "Suspended" else "Jobs run" if running else ""
        return f"it is {phase} ({status.get('reason')})"


def _is_short(spec: Body) -> bool:
    return int(spec.get("activeDeadlineSeconds", 600)) < 600


def _is_owned(child: Body, uid: str) -> bool:
    owners = child["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == uid for owner in owners)


def _has_ended(child: Body) -> bool:
    conditions = (child.get("status") or {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def _ended(pod: Body, code: int) -> Body:
    at = pod["metadata"]["creationTimestamp"]
    reason = {0: "Completed", 137: "OOMKilled"}.get(code, "Error")
    state = {"exitCode": code, "reason": reason, "startedAt": at, "finishedAt": at}
    container = {"name": "trainer", "image": "x", "imageID": "x", "ready": False,
                 "restartCount": 0, "state": {"terminated": state}}  # fmt: skip
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}


class Stage:
    """One operator in one namespace, for one batch after the other."""

    def __init__(self, bed: Bed, behind: Behind, namespace: str) -> None:
        self._behind = behind
        self._namespace = namespace
        self._names = (f"s{number}" for number in itertools.count())
        self.played = 0
        self.failed = False
        os.environ["KUBECONFIG"] = str(bed.cluster.kubeconfig)

    async def play(self, batch: Batch) -> None:
        """Play a batch to its end, and clear it away; after one that failed, none.

        Raises:
            AssertionError: a job is not in its declared state in time, or one that had ended changed.
        """
        if self.failed:
            raise AssertionError("an earlier batch did not end in its declared state; see above")
        self.failed = True
        kube = Kube(connection(), lambda *_: None)
        world = World(kube, self._namespace)
        terminal: dict[str, str] = {}
        looking = [asyncio.create_task(world.look()), asyncio.create_task(_guard(world, terminal))]
        players = [Player(world, kube, next(self._names), s) for s in batch.sequences]
        poison = f"{_POISON}-{next(self._names)}"
        bad = {"nodeSelector": {"disk": "no label value!"}, "annotations": {}}
        try:
            with suppress(ClusterError):  # the CRD may refuse it as well
                await world.apply(poison, pods={}, **{"pod": bad})
            disturbing = asyncio.create_task(self._disturb(batch))
            await asyncio.gather(*(player.play() for player in players))
            await disturbing
            await self._settle(players)
            if looking[1].done():
                looking[1].result()
            for name in [player.name for player in players] + [poison]:
                await world.delete(name)
            await _until_clear(world)
        finally:
            for task in looking:
                task.cancel()
            await kube.close()
        self.played += len(players)
        self.failed = False

    async def _settle(self, players: list[Player]) -> None:
        try:
            async with asyncio.timeout(_BOUND):
                await asyncio.gather(*(player.settle() for player in players))
        except TimeoutError:
            problems = [f"{p.name}: {p.problem()}; {p.sequence}" for p in players if p.problem()]
            if problems:
                print("\n".join(problems), flush=True)
                raise AssertionError("\n".join(problems)) from None

    async def _disturb(self, batch: Batch) -> None:
        for how, wait in batch.disturbances:
            await asyncio.sleep(wait)
            if how == "cut":
                self._behind.proxy.add(EventFault("cut", times=3))
            else:
                self._behind.operator.kill()
                await asyncio.to_thread(self._behind.operator.start)
        self._behind.proxy.clear()
        self._behind.proxy.requests.clear()


async def _guard(world: World, terminal: dict[str, str]) -> None:
    """Watch that what has ended stays as it is."""
    while True:
        await world.until(lambda: True)
        for name, job in world.jobs.items():
            uid, phase = job["metadata"]["uid"], (job.get("status") or {}).get("phase")
            if uid in terminal and terminal[uid] != phase:
                raise AssertionError(f"{name} was {terminal[uid]} and is {phase}")
            if phase in ENDED:
                terminal[uid] = phase


async def _until_clear(world: World) -> None:
    async with asyncio.timeout(_BOUND):
        await world.until(lambda: not world.jobs and not world.children)


@contextmanager
def stage(bed: Bed) -> Iterator[Stage]:
    """An operator behind a proxy, alone in a namespace of its own, until the block ends."""
    team = bed.team("sequences").name
    with operator_behind_proxy(
        bed,
        "sequences",
        RETRAINER_NAMESPACES=team,
        RETRAINER_TRAINER_RESOURCES=json.dumps({"requests": {"cpu": "10m"}}),
    ) as behind:
        eventually(behind.operator.leads)
        try:
            yield Stage(bed, behind, team)
        finally:
            bed.cluster.kubectl("delete", "namespace", team, "--wait=false")


def run(bed: Bed, count: int) -> int:
    """Play so many sequences, the same ones each time.

    Returns:
        How many were played.
    """
    with stage(bed) as played_on:

        @settings(
            max_examples=max(1, count // BATCH),
            phases=[Phase.generate],  # a failure is not made smaller: each try takes half a minute
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(BATCHES)
        def play(batch: Batch) -> None:
            asyncio.run(played_on.play(batch))

        play()
        return played_on.played
