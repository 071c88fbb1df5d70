"""Jobs made, finished and deleted for as long as one likes, with all watches cut every 30 s.

    python -m tests.faults soak --minutes 60

Users live the lives of tests/faults/lives.py one after another, and delete what is left. Each life must
end as it did without faults. The operator's memory must not grow after its warm-up (the first third),
and at rest it must have no more tasks than before, and no job in its metrics.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.lives import LIVES, Course, World, live
from tests.faults.operators import Behind, operator_behind_proxy
from tests.faults.proxy import EventFault, Request
from tests.operator.harness import Bed, Operator, eventually

from retrainer_operator.api_server.client import Kube, connection

GROWTH = 5.0
"""MiB that the operator may have more at the end than after its warm-up."""
_USERS = 12
_CUT_EVERY = 30.0
_SAMPLE_EVERY = 5.0
_WARM_UP = 1 / 3
_REST = 90.0
"""Seconds in which the operator comes to rest: what is gone it remembers for a minute."""


@dataclass(frozen=True)
class Sample:
    """The operator at one moment: seconds since the beginning, MiB, tasks and open files."""

    at: float
    memory: float
    tasks: int
    files: int


@dataclass
class Result:
    """What came of a soak."""

    minutes: float
    lives: int = 0
    cuts: int = 0
    slowest: float = 0.0
    problems: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    before: Sample | None = None
    after: Sample | None = None

    @property
    def growth(self) -> float:
        """MiB between the fifth of the samples that follow the warm-up and the last fifth."""
        warm = self.samples[int(len(self.samples) * _WARM_UP) :]
        fifth = max(1, len(warm) // 5)
        first, last = warm[:fifth], warm[-fifth:]
        return _median(last) - _median(first)

    def __str__(self) -> str:
        memory = [sample.memory for sample in self.samples]
        lines = [
            f"soak of {self.minutes:g} minutes: {self.lives} lives, {len(self.problems)} of them "
            f"otherwise than undisturbed, the slowest {self.slowest:.0f} s later; "
            f"{self.cuts} watches cut",
            f"memory: {memory[0]:.1f} MiB at first, {max(memory):.1f} at most, {memory[-1]:.1f} "
            f"at last; {self.growth:+.1f} after the warm-up",
        ]
        for when, sample in (("before", self.before), ("after", self.after)):
            if sample is not None:
                lines.append(
                    f"at rest {when}: {sample.tasks} tasks, {sample.files} open files, "
                    f"{sample.memory:.1f} MiB"
                )
        return "\n".join([*lines, *self.problems])


def _median(samples: list[Sample]) -> float:
    return statistics.median(sample.memory for sample in samples)


def _sample(operator: Operator, at: float) -> Sample:
    assert operator.process is not None
    tasks = re.search(r"^retrainer_asyncio_tasks (\S+)", operator.metrics(), re.MULTILINE)
    files = len(list(Path(f"/proc/{operator.process.pid}/fd").iterdir()))
    return Sample(at, operator.memory(), int(float(tasks[1])) if tasks else 0, files)


class Soak:
    """One operator, its users, and whoever cuts its watches."""

    def __init__(self, behind: Behind, world: World, minutes: float) -> None:
        self._behind = behind
        self._world = world
        self._calm: list[Course] = []
        self._names = (f"l{number}" for number in itertools.count())
        self.result = Result(minutes)

    async def run(self) -> Result:
        """Let the users live for so many minutes, then wait until all is at rest."""
        loop = asyncio.get_running_loop()
        self.result.before = await asyncio.to_thread(_sample, self._behind.operator, 0.0)
        self._calm = list(
            await asyncio.gather(*(live(self._world, life, next(self._names)) for life in LIVES))
        )
        for course in self._calm:
            await self._clear(course.name)
        begun = loop.time()
        others = [asyncio.create_task(self._cut()), asyncio.create_task(self._watch(begun))]
        end = begun + self.result.minutes * 60
        turns = itertools.cycle(self._calm)
        await asyncio.gather(*(self._use(turns, end) for _ in range(_USERS)))
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        self._behind.proxy.clear()
        self.result.after = await self._rest(begun)
        return self.result

    async def _use(self, turns: Iterator[Course], end: float) -> None:
        while asyncio.get_running_loop().time() < end:
            calm, name = next(turns), next(self._names)
            course = await live(self._world, calm.life, name, calm)
            if problem := course.differs_from(calm):
                self.result.problems.append(f"{course.life}: {problem} ({name})")
            self.result.lives += 1
            self.result.slowest = max(self.result.slowest, course.seconds - calm.seconds)
            await self._clear(name)

    async def _clear(self, name: str) -> None:
        await self._world.delete(name)
        try:
            async with asyncio.timeout(_REST):
                await self._world.until(lambda: self._world.gone(name))
        except TimeoutError:
            self.result.problems.append(f"something is left of {name}, which was deleted")

    async def _cut(self) -> None:
        """Cut each watch at its next event, every 30 s."""
        while True:
            await asyncio.sleep(_CUT_EVERY)
            faults = [
                self._behind.proxy.add(EventFault("cut", when=_watches(resource), times=1))
                for resource in ("retrainjobs", "jobs", "pods")
            ]
            await asyncio.sleep(_SAMPLE_EVERY)
            self.result.cuts += sum(fault.hits for fault in faults)
            self._behind.proxy.clear()
            self._behind.proxy.requests.clear()

    async def _watch(self, begun: float) -> None:
        while True:
            at = asyncio.get_running_loop().time() - begun
            sample = await asyncio.to_thread(_sample, self._behind.operator, at)
            self.result.samples.append(sample)
            if int(at) % 300 < _SAMPLE_EVERY:
                print(
                    f"{at:5.0f} s: {self.result.lives} lives, {sample.memory:.1f} MiB, "
                    f"{sample.tasks} tasks, {sample.files} open files",
                    flush=True,
                )
            await asyncio.sleep(_SAMPLE_EVERY)

    async def _rest(self, begun: float) -> Sample:
        """Wait until there are no more tasks than before; else this is a problem."""
        loop = asyncio.get_running_loop()
        before, operator = self.result.before, self._behind.operator
        assert before is not None
        until = loop.time() + _REST
        while True:
            sample = await asyncio.to_thread(_sample, operator, loop.time() - begun)
            jobs = await asyncio.to_thread(_jobs_in, operator)
            if sample.tasks <= before.tasks and not jobs:
                return sample
            if loop.time() > until:
                self.result.problems.append(
                    f"At rest there are {sample.tasks} tasks instead of {before.tasks}, "
                    f"and {jobs} jobs in the metrics."
                )
                return sample
            await asyncio.sleep(1)


def _jobs_in(operator: Operator) -> int:
    return operator.metrics().count("retrainer_job_info{")


def _watches(resource: str) -> Any:
    def holds(request: Request, _: dict[str, Any]) -> bool:
        return request.resource == resource

    return holds


async def run(bed: Bed, minutes: float) -> Result:
    """Soak an operator of its own, in a namespace of its own."""
    team = bed.team("soak").name
    os.environ["KUBECONFIG"] = str(bed.cluster.kubeconfig)
    kube = Kube(connection(), lambda *_: None)
    with operator_behind_proxy(
        bed,
        "soak",
        RETRAINER_NAMESPACES=team,
        RETRAINER_TRAINER_RESOURCES=json.dumps({"requests": {"cpu": "10m"}}),
    ) as behind:
        await asyncio.to_thread(eventually, behind.operator.leads)
        world = World(kube, team)
        looking = asyncio.create_task(world.look())
        try:
            return await Soak(behind, world, minutes).run()
        finally:
            looking.cancel()
            await kube.close()
            bed.cluster.kubectl("delete", "namespace", team, "--wait=false")
