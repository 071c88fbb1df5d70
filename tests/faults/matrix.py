"""Every crash point, bad answer and lost event of a RetrainJob's lives, on a real API server.

    python -m tests.faults answers events lists kills    all of it, some 20 minutes on 2 cores
    python -m tests.faults answers         some of it: answers, events, lists, kills
    python -m tests.faults --sample 40     this many points of each, evenly spread
    python -m tests.faults kills --only "name used again"    of the lives with this in their name

First each life is lived undisturbed, and its writes and events are counted. Then it is lived again once
for each thing that can go wrong at each of them, and must come to the same end within a bound, with no
child made twice, and without the liveness probe. What differs is printed, and makes the exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.faults.lives import LIVES, Course, Life, World, live
from tests.faults.operators import Behind, operator_behind_proxy
from tests.faults.proxy import (
    EventFault,
    Fault,
    Harm,
    Request,
    answer,
    call,
    drop,
    fail_after,
    lose_answer,
    refuse,
    stale,
)
from tests.operator.harness import ACCOUNT, Bed, eventually

from retrainer_operator.api_server.client import Kube, connection

Body = dict[str, Any]
T = TypeVar("T")

PARTS = ("answers", "events", "lists", "kills")
ANSWERS: dict[str, Harm] = {
    "not heard": drop,
    "answer lost": lose_answer,
    "409": refuse(409),
    "429": refuse(429, retry_after=1),
    "500": refuse(500),
    "503": refuse(503),
    "500 after its effect": fail_after(500),
    "no JSON": answer(b"<html>Please log in.</html>"),
    "no JSON after its effect": answer(b"", effect=True),
    "empty object": answer(b"{}"),
}
_SMALL = json.dumps({"requests": {"cpu": "10m"}})
_AT_ONCE = 32
_REPLICAS = 4
"""Operators that are killed at the same time, each in a namespace and with a Lease of its own."""


@dataclass
class Counts:
    """What the undisturbed lives have to disturb: writes by job, versions of watched objects by job."""

    writes: Counter[str] = field(default_factory=Counter)
    events: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def note(self, request: Request, event: Body) -> bool:
        """Count an event of a watch; never a reason to harm it."""
        meta = event["object"].get("metadata", {})
        job = _job_of(meta.get("name", ""))
        versions = self.events.setdefault((job, request.resource), [])
        if meta.get("resourceVersion") not in versions:
            versions.append(meta.get("resourceVersion"))
        return False


@dataclass
class Result:
    """What came of one part of the matrix."""

    part: str
    points: int = 0
    missed: int = 0
    problems: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "none")

    def add(self, course: Course, calm: Course, what: str, *, hit: bool) -> None:
        self.points += 1
        self.missed += not hit
        late = course.seconds - calm.seconds
        self.slowest = max(self.slowest, (late, f"{course.life}: {what}"))
        if problem := course.differs_from(calm):
            self.problems.append(f"{course.life}: {what}: {problem} ({course.name})")

    def __str__(self) -> str:
        ends = f"{self.points - len(self.problems)} of {self.points} end as undisturbed"
        late = "at most {:.1f} s later ({})".format(*self.slowest)
        unused = f"; {self.missed} points were not reached" if self.missed else ""
        return "\n".join([f"{self.part}: {ends}, {late}{unused}", *self.problems])


def _job_of(name: str) -> str:
    """`l12` of the names that its children, pods and Events have."""
    return name.partition("-")[0].partition(".")[0]


def _writes_of(job: str) -> Callable[[Request], bool]:
    return lambda request: request.is_write and _job_of(request.name) == job


def _lost(job: str, resource: str, index: int) -> Callable[[Request, Body], bool]:
    """Whether an event is this one of a job's objects; the same is lost each time it is sent."""
    versions: list[str] = []

    def holds(request: Request, event: Body) -> bool:
        meta = event["object"].get("metadata", {})
        if request.resource != resource or _job_of(meta.get("name", "")) != job:
            return False
        if meta["resourceVersion"] not in versions:
            versions.append(meta["resourceVersion"])
        return versions.index(meta["resourceVersion"]) == index

    return holds


def spread(points: Sequence[T], count: int | None) -> Sequence[T]:
    """So many of them, evenly."""
    if count is None or count >= len(points):
        return points
    return [points[i * len(points) // count] for i in range(count)]


class Matrix:
    """The undisturbed lives, and the points at which they are disturbed."""

    def __init__(self, bed: Bed, sample: int | None = None, only: str = "") -> None:
        self.bed = bed
        self.sample = sample
        self.lives = [life for life in LIVES if only in str(life)]
        self.calm: dict[Life, Course] = {}
        self._created: dict[Life, Counter[str]] = {}
        self._counts = Counts()
        self._number = 0
        os.environ["KUBECONFIG"] = str(bed.cluster.kubeconfig)
        self._kube = Kube(connection(), lambda *_: None)
        _grant_leases(bed)

    async def close(self) -> None:
        await self._kube.close()

    async def live_undisturbed(self) -> None:
        """Live each life once, and count what there is to disturb."""
        async with self._operator("calm") as (behind, world):
            behind.proxy.add(EventFault("drop", when=self._counts.note))
            courses = await _gather(live(world, life, self._name()) for life in self.lives)
            for request in behind.proxy.requests:
                if request.is_write:
                    self._counts.writes[_job_of(request.name)] += 1
            self.calm = {course.life: course for course in courses}
            self._created = {c.life: self._creations(world, c.name) for c in courses}
        for course in courses:
            if course.end is None:
                raise RuntimeError(f"The undisturbed life {course.life} did not end.")

    async def answers(self) -> Result:
        """Each bad answer to each write of each life."""
        points = [
            (life, what, index)
            for life in self.lives
            for what in ANSWERS
            for index in range(self._counts.writes[self.calm[life].name])
        ]
        result = Result("Bad answers to writes")
        async with self._operator("answers") as (behind, world), _watched(behind, result):

            async def disturb(life: Life, what: str, index: int) -> None:
                name = self._name()
                fault = Fault(ANSWERS[what], when=_writes_of(name), skip=index, times=1)
                await self._disturb(
                    behind, world, life, name, fault, f"{what}, write {index}", result
                )

            await _gather(disturb(*point) for point in spread(points, self.sample))
        return result

    async def events(self) -> Result:
        """Each event of each watched object of each life, lost each time it is sent."""
        points = [
            (life, resource, index)
            for life in self.lives
            for resource in ("retrainjobs", "jobs", "pods")
            for index in range(len(self._counts.events.get((self.calm[life].name, resource), ())))
        ]
        result = Result("Lost events")
        async with self._operator("events") as (behind, world), _watched(behind, result):

            async def disturb(life: Life, resource: str, index: int) -> None:
                name = self._name()
                fault = EventFault("drop", when=_lost(name, resource, index))
                what = f"event {index} of {resource} lost"
                await self._disturb(behind, world, life, name, fault, what, result)

            await _gather(disturb(*point) for point in spread(points, self.sample))
        return result

    async def lists(self) -> Result:
        """Every other list as it was answered before, two of them a second, in each life."""
        result = Result("Stale lists")
        parity = iter(range(10**9))
        async with (
            self._operator("lists", keep_lists=True, resync="1") as (
                behind,
                world,
            ),
            _watched(behind, result),
        ):
            fault = Fault(stale, when=lambda r: r.is_list and next(parity) % 2 == 1)
            behind.proxy.add(fault)

            async def disturb(life: Life) -> None:
                name = self._name()
                course = await live(world, life, name, self.calm[life])
                result.add(course, self.calm[life], "stale lists", hit=fault.hits > 0)

            await _gather(disturb(life) for life in self.lives)
        return result

    async def kills(self) -> Result:
        """kill -9 before and after each write of each life, then also with stale lists at the start."""
        points = [
            (life, how, index)
            for life in self.lives
            for how in ("before", "after", "after, old lists")
            for index in range(self._counts.writes[self.calm[life].name])
        ]
        result = Result("kill -9")
        queue = list(spread(points, self.sample))

        async def replica(number: int) -> None:
            async with self._operator(f"kills-{number}", keep_lists=True) as (behind, world):
                while queue:
                    await self._kill_at(behind, world, *queue.pop(0), result)

        await asyncio.gather(*(replica(number) for number in range(_REPLICAS)))
        return result

    async def _kill_at(  # noqa: PLR0917
        self, behind: Behind, world: World, life: Life, how: str, index: int, result: Result
    ) -> None:
        operator, name = behind.operator, self._name()
        assert operator.process is not None
        harm = call(operator.process.kill, effect=how != "before")
        fault = behind.proxy.add(Fault(harm, when=_writes_of(name), skip=index, times=1))
        living = asyncio.create_task(live(world, life, name, self.calm[life]))
        while not living.done():
            await asyncio.wait([living], timeout=0.1)
            # Typed again: killing it forgets the process, which mypy cannot see.
            process: subprocess.Popen[bytes] | None = operator.process
            if process is not None and process.poll() is not None:
                operator.kill()
                if how.endswith("old lists"):
                    behind.proxy.add(Fault(stale, when=lambda r: r.is_list, times=3))
                operator.start(wait=False)
        behind.proxy.clear()
        course = await living
        result.add(course, self.calm[life], f"killed {how} write {index}", hit=fault.hits > 0)
        if (created := self._creations(world, name)) != self._created[life]:
            result.problems.append(
                f"{life}: killed {how} write {index}: created {dict(created)} ({name})"
            )

    async def _disturb(  # noqa: PLR0917
        self, behind: Behind, world: World, life: Life, name: str,
        fault: Fault | EventFault, what: str, result: Result,
    ) -> None:  # fmt: skip
        behind.proxy.add(fault)
        course = await live(world, life, name, self.calm[life])
        behind.proxy.remove(fault)
        result.add(course, self.calm[life], what, hit=fault.hits > 0)
        if (created := self._creations(world, name)) != self._created[life]:
            result.problems.append(f"{life}: {what}: created {dict(created)} ({name})")

    @asynccontextmanager
    async def _operator(
        self, what: str, *, keep_lists: bool = False, resync: str = "300"
    ) -> AsyncIterator[tuple[Behind, World]]:
        """An operator behind a proxy, alone in a namespace of its own."""
        namespace = self.bed.team(f"m-{what}").name
        with operator_behind_proxy(
            self.bed,
            f"matrix-{what}",
            keep_lists=keep_lists,
            RETRAINER_NAMESPACES=namespace,
            RETRAINER_LEASE_NAME=f"matrix-{what}-{secrets.token_hex(3)}",
            RETRAINER_TRAINER_RESOURCES=_SMALL,
            RETRAINER_RESYNC_SECONDS=resync,
        ) as behind:
            await asyncio.to_thread(eventually, behind.operator.leads)
            world = World(self._kube, namespace)
            looking = asyncio.create_task(world.look())
            try:
                yield behind, world
            finally:
                looking.cancel()
        self.bed.cluster.kubectl("delete", "namespace", namespace, "--wait=false")

    def _creations(self, world: World, name: str) -> Counter[str]:
        """How often each child of a job was made, by the API server's own log."""
        return Counter(
            event["objectRef"]["name"].removeprefix(name)
            for event in self.bed.cluster.requests(ACCOUNT)
            if event["verb"] == "create"
            and event["objectRef"]["resource"] == "jobs"
            and event["objectRef"]["namespace"] == world.namespace
            and event["objectRef"].get("name", "").startswith(f"{name}-")
            and event["responseStatus"]["code"] == 201
        )

    def _name(self) -> str:
        self._number += 1
        return f"l{self._number}"


@asynccontextmanager
async def _watched(behind: Behind, result: Result) -> AsyncIterator[None]:
    """Note if the liveness probe fails meanwhile, or the process ends."""
    assert behind.operator.process is not None
    process = behind.operator.process

    async def probe() -> None:
        while True:
            code = await asyncio.to_thread(behind.operator.probe, "healthz")
            if code != 200 or process.poll() is not None:
                result.problems.append(f"The liveness probe answers {code}.")
                return
            await asyncio.sleep(2)

    probing = asyncio.create_task(probe())
    try:
        yield
    finally:
        probing.cancel()


async def _gather(work: Iterable[Awaitable[T]]) -> list[T]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Awaitable[T]) -> T:
        async with gate:
            return await each

    return await asyncio.gather(*(one(each) for each in work))


def _grant_leases(bed: Bed) -> None:
    """Let the operator's account have Leases of any name: the chart's Role is for one of them."""
    name = {"name": "matrix-leases", "namespace": "retrainer"}
    group = "rbac.authorization.k8s.io"
    bed.cluster.apply(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": name,
         "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]},
        {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": name,
         "roleRef": {"apiGroup": group, "kind": "Role", "name": "matrix-leases"},
         "subjects": [{"kind": "ServiceAccount", "name": "rt-retrainer-operator",
                       "namespace": "retrainer"}]},
    )  # fmt: skip


async def run(bed: Bed, parts: Sequence[str], sample: int | None, only: str = "") -> list[Result]:
    """Run these parts and print each one's result."""
    matrix = Matrix(bed, sample, only)
    results = []
    try:
        await matrix.live_undisturbed()
        for part in parts:
            started = time.monotonic()
            result: Result = await getattr(matrix, part)()
            print(f"{result} ({time.monotonic() - started:.0f} s)", flush=True)
            results.append(result)
    finally:
        await matrix.close()
    return results
