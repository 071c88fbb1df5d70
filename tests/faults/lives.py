"""The lives of a RetrainJob that the fault matrix disturbs, and how each of them ends.

Pods are played by kwok, which ends them as their annotations say. A life is driven by what the API
server shows, read some times a second for all lives of a namespace, so that hundreds run side by side.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.operator.harness import KWOK

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError, Kube

Body = dict[str, Any]
RETRAINJOBS = "/apis/retrainer.dev/v1alpha1/namespaces/{}/retrainjobs"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
BOUND = 180.0
"""Seconds in which each disturbed life must come to its end; undisturbed ones take 1 to 15, and an
operator that is killed took 72 s to start again on two cores that 23 processes wanted."""
_GLANCE = 0.25
_SETTLED = 5.0
"""Seconds without a change after which the controllers have done what they do behind an end."""
ENDED = ("Succeeded", "Failed")


class World:
    """The RetrainJobs and Jobs of a namespace as the API server shows them, and requests as admin."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.namespace = namespace
        self.jobs: dict[str, Body] = {}
        self.children: dict[str, Body] = {}
        self._kube = kube
        self._looked = asyncio.Condition()

    async def look(self) -> None:
        """Look until cancelled."""
        while True:
            with suppress(ClusterError):
                jobs = await self._kube.get(RETRAINJOBS.format(self.namespace))
                children = await self._kube.get(JOBS.format(self.namespace))
                self.jobs = {b["metadata"]["name"]: b for b in jobs["items"]}
                self.children = {b["metadata"]["name"]: b for b in children["items"]}
                async with self._looked:
                    self._looked.notify_all()
            await asyncio.sleep(_GLANCE)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until this holds."""
        async with self._looked:
            await self._looked.wait()  # what was seen before the last request proves nothing
            await self._looked.wait_for(lambda: bool(holds()))

    async def apply(self, name: str, *, pods: Mapping[str, str], **spec: Any) -> None:
        annotations = {f"{KWOK}/{key}": text for key, text in pods.items()}
        body = {
            "apiVersion": "retrainer.dev/v1alpha1",
            "kind": "RetrainJob",
            "metadata": {"name": name},
            "spec": {
                "architecture": "mobilenet_0.50_224",
                "images": "s3://photos/flower_photos",
                "output": "s3://models/flowers",
                "pod": {"annotations": annotations},
                **spec,
            },
        }
        await self._kube.create(RETRAINJOBS.format(self.namespace), body)

    async def edit(self, name: str, **spec: Any) -> None:
        await self._kube.patch(f"{RETRAINJOBS.format(self.namespace)}/{name}", {"spec": spec})

    async def delete(self, name: str) -> None:
        path = f"{RETRAINJOBS.format(self.namespace)}/{name}"
        with suppress(ApiError):
            await self._kube.delete(path, (await self._kube.get(path))["metadata"]["uid"])

    def status(self, name: str) -> Body:
        return (self.jobs.get(name) or {}).get("status") or {}

    def ended(self, name: str) -> bool:
        return self.status(name).get("phase") in ENDED

    def at_work(self, name: str) -> bool:
        """Whether a pod of it runs."""
        return any((c.get("status") or {}).get("ready") for c in self.children_of(name))

    def gone(self, name: str) -> bool:
        return name not in self.jobs and not self.children_of(name)

    def children_of(self, name: str) -> list[Body]:
        return [c for n, c in self.children.items() if n.rpartition("-")[0] == name]

    def end(self, name: str) -> Body:
        """What there is in the end of a life, without what differs by chance."""
        job = self.jobs.get(name)
        status = self.status(name)
        return {
            "job": "gone" if job is None else f"{status.get('phase')} {status.get('reason')}",
            # That it was suspended once is no part of the end: its pods may have ended before.
            "conditions": sorted(
                f"{c['type']} {c['reason']}"
                for c in status.get("conditions", ())
                if c["status"] == "True"
            ),
            "children": sorted(map(_end_of_child, self.children_of(name))),
            "strangers": sorted(
                c["metadata"]["name"]
                for c in self.children_of(name)
                if job is None
                or c["metadata"]["ownerReferences"][0]["uid"] != job["metadata"]["uid"]
            ),
        }


def _end_of_child(child: Body) -> str:
    task = child["metadata"]["name"].rpartition("-")[2]
    conditions = (child.get("status") or {}).get("conditions") or ()
    ends = [c["type"] for c in conditions if c["status"] == "True"]
    end = next((e for e in ends if e in ("Complete", "Failed")), "")
    # A Job that has ended may still be told to be suspended: by then that means nothing.
    return f"{task} {end or ('suspended' if child['spec'].get('suspend') else 'at work')}"


async def _succeed(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, pods={"delay": "300ms"})
    await world.until(lambda: world.ended(name))


async def _exit_64(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, pods={"delay": "300ms", "exit-code": "64"})
    await world.until(lambda: world.ended(name))


async def _exhaust(world: World, name: str, shards: int) -> None:
    pods = {"delay": "200ms", "exit-code": "1"}
    await world.apply(name, shards=shards, backoffLimit=0, pods=pods)
    await world.until(lambda: world.ended(name))


async def _suspend(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, pods={"delay": "2s"})
    await world.until(lambda: world.at_work(name) or world.ended(name))
    await world.edit(name, suspend=True)
    await world.until(lambda: world.status(name).get("phase") == "Suspended" or world.ended(name))
    await world.edit(name, suspend=False)
    await world.until(lambda: world.ended(name))


async def _deadline(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, activeDeadlineSeconds=4, pods={"delay": "never"})
    await world.until(lambda: world.ended(name))


async def _outlive(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, ttlSecondsAfterFinished=1, pods={"delay": "300ms"})
    await world.until(lambda: name in world.jobs)
    await world.until(lambda: world.gone(name))


async def _delete(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, pods={"delay": "never"})
    await world.until(lambda: world.at_work(name))
    await world.delete(name)
    await world.until(lambda: world.gone(name))


async def _again(world: World, name: str, shards: int) -> None:
    await world.apply(name, shards=shards, pods={"delay": "never"})
    await world.until(lambda: world.at_work(name))
    await world.delete(name)
    await world.until(lambda: name not in world.jobs)
    await world.apply(name, shards=shards, pods={"delay": "300ms"})
    await world.until(lambda: world.ended(name))


@dataclass(frozen=True)
class Life:
    """A life by name, and the number of its shards."""

    story: str
    shards: int
    play: Callable[[World, str, int], Awaitable[None]] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.story}, {'one pod' if self.shards == 1 else f'{self.shards} shards'}"


_STORIES: dict[str, Callable[[World, str, int], Awaitable[None]]] = {
    "success": _succeed,
    "exit 64": _exit_64,
    "retries exhausted": _exhaust,
    "suspended and resumed": _suspend,
    "deadline": _deadline,
    "time to live": _outlive,
    "deleted while running": _delete,
    "name used again": _again,
}
LIVES = [Life(story, shards, play) for story, play in _STORIES.items() for shards in (1, 3)]


@dataclass
class Course:
    """How one life went: its end, and the seconds it took; no end if it did not come to one."""

    name: str
    life: Life
    end: Body | None
    seconds: float

    def differs_from(self, calm: Course) -> str:
        """What is wrong beside the undisturbed life; nothing if all is as there."""
        if self.end is None:
            return f"no end within {BOUND:.0f} s"
        if self.end != calm.end:
            return f"{json.dumps(self.end)} instead of {json.dumps(calm.end)}"
        return ""


async def live(world: World, life: Life, name: str, calm: Course | None = None) -> Course:
    """Play a life to its end, and give it time to become that of the undisturbed one."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(BOUND):
            await life.play(world, name, life.shards)
            seconds = loop.time() - started
            if calm is None:
                await _settle(world, name)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SETTLED * 12):
                        await world.until(lambda: world.end(name) == calm.end)
    except TimeoutError:
        return Course(name, life, None, loop.time() - started)
    return Course(name, life, world.end(name), seconds)


async def _settle(world: World, name: str) -> None:
    """Wait until nothing changes any more, and no child is at work."""
    end = world.end(name)
    while True:
        await asyncio.sleep(_SETTLED)
        before, end = end, world.end(name)
        if end == before and not any(child.endswith("at work") for child in end["children"]):
            return
