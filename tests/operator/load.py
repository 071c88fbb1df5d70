"""Many jobs at once, for benches of the operator: made, counted, timed by the API server's own log."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Any

from tests.operator.harness import ACCOUNT, KWOK, Bed, Operator, eventually

from retrainer.api import parse_job
from retrainer_operator.api_server.client import ApiError, Kube, connection
from retrainer_operator.planning import children
from retrainer_operator.settings import Settings

Body = dict[str, Any]
ADMIN = "admin"
SMALL = {"requests": {"cpu": "10m"}}
AT_ONCE = 48
SELDOM = 3.0
"""Seconds between two lists of 500 RetrainJobs: one takes the API server 0.15 s."""
RETRAINJOBS = "/apis/retrainer.dev/v1alpha1/namespaces/{}/retrainjobs"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"


class Bench:
    """A control plane, a client that writes as fast as it can, and the results so far."""

    def __init__(self, bed: Bed, repeats: int, scale: float, idle: float) -> None:
        self.bed = bed
        self.repeats = repeats
        self.scale = scale
        self.idle = idle
        os.environ["KUBECONFIG"] = str(bed.cluster.kubeconfig)
        self.kube = Kube(connection(), lambda *_: None)

    def many(self, count: int) -> int:
        return max(1, int(count * self.scale))

    async def all(self, work: Iterable[Awaitable[Any]]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(request: Awaitable[Any]) -> None:
            async with gate:
                await request

        await asyncio.gather(*(one(request) for request in work))

    def operator(self, identity: str) -> AbstractContextManager[Operator]:
        """Its pods ask for little: three simulated nodes have room for all."""
        return self.bed.operator(identity, RETRAINER_TRAINER_RESOURCES=json.dumps(SMALL))

    def namespace(self, name: str) -> str:
        return self.bed.team(f"b-{name}").name

    async def delete(self, namespace: str) -> None:
        """Everything in it, and wait: the next row measures something else."""
        for kind in (RETRAINJOBS, JOBS, PODS):
            path = kind.format(namespace)
            objects = [meta async for meta in self.kube.metadata(path)]
            await self.all(self._gone(f"{path}/{meta['name']}", meta["uid"]) for meta in objects)
        await until(partial(self.count, PODS.format(namespace)), 0, within=600)

    async def _gone(self, path: str, uid: str) -> None:
        try:
            await self.kube.delete(path, uid)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def submit(self, namespace: str, name: str, delay: str = "1s") -> None:
        """One RetrainJob; its pods run so long."""
        await self.kube.create(RETRAINJOBS.format(namespace), retrainjob(name, delay))

    async def count(self, path: str) -> int:
        page = await self.kube.get(path, limit="1")
        more = page["metadata"].get("remainingItemCount") or 0
        return len(page["items"]) + int(more)

    async def phases(self, namespace: str, phase: str) -> int:
        """How many RetrainJobs of the namespace have ended so."""
        jobs = await self.kube.get(RETRAINJOBS.format(namespace))
        return sum((j.get("status") or {}).get("phase") == phase for j in jobs["items"])

    def audit(self, user: str, namespace: str) -> list[Body]:
        return [
            e
            for e in self.bed.cluster.requests(user)
            if e["objectRef"].get("namespace") == namespace
        ]


async def until(
    count: Callable[[], Awaitable[int]], wanted: int, *, within: float, every: float = 0.5
) -> None:
    end = time.monotonic() + within
    while (now := await count()) != wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{now} instead of {wanted} after {within} s")
        await asyncio.sleep(every)


async def last_end(bench: Bench, path: str) -> float:
    """When the last of these objects was complete."""
    ends = [o["status"]["completionTime"] for o in (await bench.kube.get(path))["items"]]
    return datetime.fromisoformat(max(ends)).timestamp()


def retrainjob(name: str, delay: str = "1s") -> Body:
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": name},
        "spec": {
            "architecture": "mobilenet_0.50_224",
            "images": "s3://photos/flower_photos",
            "output": "s3://models/flowers",
            "pod": {"annotations": {f"{KWOK}/delay": delay}},
        },
    }


def plain(name: str) -> Body:
    """The Job that the operator makes of that RetrainJob, as somebody would apply it by hand."""
    body = retrainjob(name)
    body["metadata"] |= {"namespace": "plain", "uid": "00000000-0000-4000-8000-000000000000"}
    environment = {
        "RETRAINER_TRAINER_IMAGE": "trainer:test",
        "RETRAINER_TRAINER_RESOURCES": json.dumps(SMALL),
        "POD_NAMESPACE": "retrainer",
    }
    job = children.train(parse_job(body), Settings.from_environment(environment), deadline=None)
    # Nobody's: without the owner, and without the labels that the operator watches.
    job["metadata"] = {"name": name}
    del job["spec"]["template"]["metadata"]["labels"]
    return job


def show(what: str, measured: str, wanted: str) -> None:
    print(f"| {what} | {measured} | {wanted} |", flush=True)


def at(event: Body) -> float:
    return datetime.fromisoformat(event["stageTimestamp"]).timestamp()


def median(values: list[float]) -> float:
    return statistics.median(values)


def each(values: list[float]) -> str:
    return ", ".join(f"{v:.3g}" for v in values)


def creates(event: Body, resource: str) -> bool:
    where = event["objectRef"]
    return (
        event["verb"] == "create"
        and where["resource"] == resource
        and "subresource" not in where
        and event["responseStatus"]["code"] == 201
    )


def name(event: Body) -> str:
    return str(event["objectRef"]["name"])


async def complete(bench: Bench, namespace: str) -> int:
    jobs = await bench.kube.get(JOBS.format(namespace))
    return sum(bool((j.get("status") or {}).get("completionTime")) for j in jobs["items"])


async def next_job(bench: Bench, namespace: str, job: str) -> float:
    """When the API server made it."""

    async def count() -> int:
        try:
            await bench.kube.get(f"{JOBS.format(namespace)}/{job}")
        except ApiError:
            return 0
        return 1

    await until(count, 1, within=60)
    return next(
        at(e) for e in bench.audit(ACCOUNT, namespace) if creates(e, "jobs") and name(e) == job
    )


async def finished_job(bench: Bench, namespace: str, name: str) -> None:
    created = await bench.kube.create(RETRAINJOBS.format(namespace), retrainjob(name))
    points = [
        {"step": n * 200, "trainingAccuracy": 0.9312, "validationAccuracy": 0.9012,
         "crossEntropy": 0.2213, "validationCrossEntropy": 0.3123} for n in range(20)
    ]  # fmt: skip
    now = "2026-01-01T00:00:00Z"
    status = {
        "phase": "Succeeded", "reason": "Succeeded", "message": "Test accuracy 0.9012 on 165 images.",
        "observedGeneration": 1, "startTime": now, "completionTime": now,
        "progress": {"percent": 100, "imagesTotal": 1498, "imagesCached": 0, "imagesComputed": 1498,
                     "imagesRejected": 0, "step": 4000, "steps": 4000},
        "metrics": {"trainingAccuracy": 0.9312, "validationAccuracy": 0.9012, "crossEntropy": 0.2213,
                    "validationCrossEntropy": 0.3123, "testAccuracy": 0.9012, "testImages": 165},
        "curve": points,
        "conditions": [{"type": "Complete", "status": "True", "reason": "Succeeded",
                        "message": "x", "lastTransitionTime": now}],
    }  # fmt: skip
    await bench.kube.patch(f"{RETRAINJOBS.format(namespace)}/{name}/status", {"status": status})
    labels = {"app.kubernetes.io/managed-by": "retrainer", "retrainer.dev/job": name}
    job = plain(f"{name}-train")
    owner = {"apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob", "name": name,
             "uid": created["metadata"]["uid"], "controller": True}  # fmt: skip
    job["metadata"] |= {"labels": labels, "ownerReferences": [owner]}
    job["spec"]["suspend"] = True
    await bench.kube.create(JOBS.format(namespace), job)
    await bench.kube.create(PODS.format(namespace), gated(f"{name}-train", labels))


def gated(name: str, labels: Body) -> Body:
    """A pod that the scheduler leaves alone."""
    container = {"name": "trainer", "image": "trainer:test"}
    spec = {"containers": [container], "schedulingGates": [{"name": "example.com/bench"}]}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def memory(bench: Bench) -> float:
    with bench.operator("bench") as operator:
        eventually(operator.leads)
        time.sleep(5)
        return operator.memory()


def scrape(operator: Operator) -> tuple[str, float]:
    begin = time.monotonic()
    page = operator.metrics()
    return page, time.monotonic() - begin
