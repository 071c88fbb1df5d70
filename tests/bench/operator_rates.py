"""How fast and how small the operator is, on a real API server: `make bench-operator`.

Each row is printed with what it must reach. Times are the API server's own (its audit log), rivals run
in the same minute, medians are of three runs. Not called operator.py: a script's folder comes first on
Python's path, and everything imports the standard library's `operator`.

    python tests/bench/operator_rates.py                    all rows, about 25 minutes on 2 cores
    python tests/bench/operator_rates.py burst lives        some of them
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.pop(1)  # this script's own folder

from tests.operator.harness import ACCOUNT, KWOK, Bed, Operator, eventually
from tests.support.chart import install_crd
from tests.support.devcluster_client import ensure

from retrainer_operator.kube import ApiError, Kube, connection

Body = dict[str, Any]
ADMIN = "admin"
SMALL = {"requests": {"cpu": "10m"}}
AT_ONCE = 48
_SELDOM = 3.0
"""Seconds between two lists of 500 RetrainJobs: one takes the API server 0.15 s."""
_RJ = "/apis/retrainer.dev/v1alpha1/namespaces/{}/retrainjobs"
_JOBS = "/apis/batch/v1/namespaces/{}/jobs"
_PODS = "/api/v1/namespaces/{}/pods"


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
        for kind in (_RJ, _JOBS, _PODS):
            path = kind.format(namespace)
            there = [meta async for meta in self.kube.metadata(path)]
            await self.all(self._gone(f"{path}/{meta['name']}", meta["uid"]) for meta in there)
        await until(partial(self.count, _PODS.format(namespace)), 0, within=600)

    async def _gone(self, path: str, uid: str) -> None:
        try:
            await self.kube.delete(path, uid)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def count(self, path: str) -> int:
        page = await self.kube.get(path, limit="1")
        more = page["metadata"].get("remainingItemCount") or 0
        return len(page["items"]) + int(more)

    async def phases(self, namespace: str, phase: str) -> int:
        """How many RetrainJobs of the namespace have ended so."""
        jobs = await self.kube.get(_RJ.format(namespace))
        return sum((j.get("status") or {}).get("phase") == phase for j in jobs["items"])

    def audit(self, user: str, namespace: str) -> list[Body]:
        return [
            e
            for e in self.bed.cluster.requests(user)
            if e["objectRef"].get("namespace") == namespace
        ]


async def until(
    seen: Callable[[], Awaitable[int]], wanted: int, *, within: float, every: float = 0.5
) -> None:
    end = time.monotonic() + within
    while (now := await seen()) != wanted:
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
    container = {"name": "trainer", "image": "trainer:test", "resources": SMALL}
    return {
        "metadata": {"name": name},
        "spec": {
            "template": {
                "metadata": {"annotations": {f"{KWOK}/delay": "1s"}},
                "spec": {"containers": [container], "restartPolicy": "Never"},
            }
        },
    }


def show(what: str, measured: str, wanted: str) -> None:
    print(f"| {what} | {measured} | {wanted} |", flush=True)


def at(event: Body) -> float:
    return datetime.fromisoformat(event["stageTimestamp"]).timestamp()


def median(values: list[float]) -> float:
    return statistics.median(values)


def each(values: list[float]) -> str:
    return ", ".join(f"{v:.3g}" for v in values)


async def burst(bench: Bench) -> None:
    """1,000 at once: from the first RetrainJob's creation to the last Job's."""
    rates, count = [], bench.many(1000)
    with bench.operator("bench"):
        for _ in range(bench.repeats):
            namespace = bench.namespace("burst")
            await bench.all(
                bench.kube.create(_RJ.format(namespace), retrainjob(f"j{n}", "never"))
                for n in range(count)
            )
            await until(partial(bench.count, _JOBS.format(namespace)), count, within=300)
            applied = [at(e) for e in bench.audit(ADMIN, namespace) if _made(e, "retrainjobs")]
            started = [at(e) for e in bench.audit(ACCOUNT, namespace) if _made(e, "jobs")]
            rates.append(count / (max(started) - min(applied)))
            await bench.delete(namespace)
    what = f"RetrainJob to its first Job, {count} applied at once"
    show(what, f"{median(rates):.0f}/s ({each(rates)})", "80/s, aim at 107/s")


async def offered(bench: Bench) -> None:
    """20 a second: each one's time from its own creation to its Job's."""
    with bench.operator("bench"):
        namespace = bench.namespace("offered")
        count = bench.many(600)
        begin = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / 20 - time.monotonic()))
            await bench.kube.create(_RJ.format(namespace), retrainjob(f"j{number}"))
        await until(partial(bench.phases, namespace, "Succeeded"), count, within=300)
        admin = bench.audit(ADMIN, namespace)
        applied = {_name(e): at(e) for e in admin if _made(e, "retrainjobs")}
        waits = sorted(
            at(event) - applied[_name(event).removesuffix("-train")]
            for event in bench.audit(ACCOUNT, namespace)
            if _made(event, "jobs")
        )
        await bench.delete(namespace)
    p50, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    show("the same at 20/s offered", f"p50 {p50:.3f} s, p99 {p99:.3f} s", "p99 under 2 s")


async def lives(bench: Bench) -> None:
    """500 whole lives, and 500 plain Jobs with the same pods, in turns."""
    ours, theirs, writes = [], [], []
    count = bench.many(500)
    with bench.operator("bench"):
        for _ in range(bench.repeats):
            namespace = bench.namespace("plain")
            begin = time.time()
            await bench.all(
                bench.kube.create(_JOBS.format(namespace), plain(f"j{n}")) for n in range(count)
            )
            await until(partial(_complete, bench, namespace), count, within=600, every=_SELDOM)
            theirs.append(count / (await last_end(bench, _JOBS.format(namespace)) - begin))
            await bench.delete(namespace)

            namespace = bench.namespace("lives")
            begin = time.time()
            await bench.all(
                bench.kube.create(_RJ.format(namespace), retrainjob(f"j{n}")) for n in range(count)
            )
            finished = partial(bench.phases, namespace, "Succeeded")
            await until(finished, count, within=600, every=_SELDOM)
            ours.append(count / (await last_end(bench, _RJ.format(namespace)) - begin))
            writes.append(len(bench.audit(ACCOUNT, namespace)) / count)
            await bench.delete(namespace)
    ratio = median([o / t for o, t in zip(ours, theirs, strict=True)])
    show(
        f"whole life of {count} RetrainJobs beside {count} plain Jobs",
        f"{ratio:.2f} ({each(ours)} /s beside {each(theirs)} /s)",
        "0.8",
    )
    show("API writes per life", f"{max(writes):.2f}", "8")


async def finished(bench: Bench) -> None:
    """5,000 finished jobs, each with its Job and its pod."""
    namespace, count = bench.namespace("finished"), bench.many(5000)
    await bench.all(_finished_job(bench, namespace, f"j{n}") for n in range(count))
    ready, memory = [], []
    for run in range(bench.repeats):
        begin = time.monotonic()
        with bench.operator("bench") as operator:
            ready.append(time.monotonic() - begin)
            eventually(operator.leads, within=30)
            page, seconds = _scrape(operator)
            page, again = _scrape(operator)
            if run == 0:
                before = len(bench.bed.writes())
                await asyncio.sleep(bench.idle)
                idle_writes = len(bench.bed.writes()) - before
            memory.append(operator.memory())
    show(f"{count} finished RetrainJobs present: memory", f"{median(memory):.0f} MiB", "200 MiB")
    show("... time to ready", f"{median(ready):.1f} s ({each(ready)})", "20 s")
    show(f"... writes in {bench.idle:.0f} idle seconds", str(idle_writes), "0 but the Lease")
    size = f"{len(page) / 1e6:.2f} MB, first {seconds:.2f} s, then {again:.2f} s"
    show("... /metrics", size, "5 MB, 0.5 s")
    await bench.delete(namespace)


async def foreign(bench: Bench) -> None:
    """20,000 pods of other people: what they add to the operator's memory."""
    namespace, count = bench.namespace("foreign"), bench.many(20_000)
    before = [_memory(bench) for _ in range(bench.repeats)]
    pods = (bench.kube.create(_PODS.format(namespace), _gated(f"p{n}", {})) for n in range(count))
    await bench.all(pods)
    after = [_memory(bench) for _ in range(bench.repeats)]
    more = median(after) - median(before)
    measured = f"{more:.1f} MiB ({each(before)}; {each(after)})"
    show(f"{count} foreign pods present: extra memory", measured, "10 MiB")
    await bench.delete(namespace)


async def killed(bench: Bench) -> None:
    """kill -9, and the next Job that is made: by the same replica started again, by a second one."""
    again, taken = [], []
    namespace = bench.namespace("killed")
    for run in range(bench.repeats):
        with bench.operator("bench") as operator:
            eventually(operator.leads)
            operator.kill()
            begin = time.time()
            operator.start(wait=False)
            await bench.kube.create(_RJ.format(namespace), retrainjob(f"again{run}"))
            again.append(await _next_job(bench, namespace, f"again{run}-train") - begin)
    for run in range(bench.repeats):
        with bench.operator("first") as first:
            eventually(first.leads)
            with bench.operator("second"):
                first.kill()
                begin = time.time()
                await bench.kube.create(_RJ.format(namespace), retrainjob(f"taken{run}"))
                taken.append(await _next_job(bench, namespace, f"taken{run}-train") - begin)
    measured = f"{median(again):.1f} s ({each(again)})"
    show("kill -9 to the next Job, restarted at once", measured, "5 s")
    show("... taken over by a second replica", f"{median(taken):.1f} s ({each(taken)})", "15 s")
    await bench.delete(namespace)


# --- parts ---


def _made(event: Body, resource: str) -> bool:
    where = event["objectRef"]
    return (
        event["verb"] == "create"
        and where["resource"] == resource
        and "subresource" not in where
        and event["responseStatus"]["code"] == 201
    )


def _name(event: Body) -> str:
    return str(event["objectRef"]["name"])


async def _complete(bench: Bench, namespace: str) -> int:
    jobs = await bench.kube.get(_JOBS.format(namespace))
    return sum(bool((j.get("status") or {}).get("completionTime")) for j in jobs["items"])


async def _next_job(bench: Bench, namespace: str, name: str) -> float:
    """When the API server made it."""

    async def there() -> int:
        try:
            await bench.kube.get(f"{_JOBS.format(namespace)}/{name}")
        except ApiError:
            return 0
        return 1

    await until(there, 1, within=60)
    return next(
        at(e) for e in bench.audit(ACCOUNT, namespace) if _made(e, "jobs") and _name(e) == name
    )


async def _finished_job(bench: Bench, namespace: str, name: str) -> None:
    made = await bench.kube.create(_RJ.format(namespace), retrainjob(name))
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
    await bench.kube.patch(f"{_RJ.format(namespace)}/{name}/status", {"status": status})
    labels = {"app.kubernetes.io/managed-by": "retrainer", "retrainer.dev/job": name}
    job = plain(f"{name}-train")
    owner = {"apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob", "name": name,
             "uid": made["metadata"]["uid"], "controller": True}  # fmt: skip
    job["metadata"] |= {"labels": labels, "ownerReferences": [owner]}
    job["spec"]["suspend"] = True
    await bench.kube.create(_JOBS.format(namespace), job)
    await bench.kube.create(_PODS.format(namespace), _gated(f"{name}-train", labels))


def _gated(name: str, labels: Body) -> Body:
    """A pod that the scheduler leaves alone."""
    container = {"name": "trainer", "image": "trainer:test"}
    spec = {"containers": [container], "schedulingGates": [{"name": "example.com/bench"}]}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def _memory(bench: Bench) -> float:
    with bench.operator("bench") as operator:
        eventually(operator.leads)
        time.sleep(5)
        return operator.memory()


def _scrape(operator: Operator) -> tuple[str, float]:
    begin = time.monotonic()
    page = operator.metrics()
    return page, time.monotonic() - begin


# On a control plane as it comes, without nodes: nothing but the operator has much to do.
STARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {"burst": burst}
# With simulated nodes, and controllers that are not held to 20 requests a second.
ROWS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "offered": offered,
    "lives": lives,
    "finished": finished,
    "foreign": foreign,
    "killed": killed,
}


async def _run(bench: Bench, rows: list[Callable[[Bench], Awaitable[None]]]) -> None:
    for row in rows:
        await row(bench)
    await bench.kube.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", choices=[*STARTS, *ROWS, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts, for a quick look")
    parser.add_argument("--idle", type=float, default=300.0, help="idle seconds watched")
    given = parser.parse_args()
    wanted = given.rows or [*STARTS, *ROWS]
    print("| what | measured | at least |\n|---|---|---|", flush=True)
    for rows, nodes in ((STARTS, 0), (ROWS, 3)):
        chosen = [row for name, row in rows.items() if name in wanted]
        if chosen:
            _measure(chosen, nodes, given)


def _measure(rows: list[Callable[[Bench], Awaitable[None]]], nodes: int, given: Any) -> None:
    name = f"bench-{secrets.token_hex(2)}"
    cluster = ensure("control-plane", name=name, simulated_nodes=nodes, bench=nodes > 0)
    with cluster, tempfile.TemporaryDirectory() as folder:
        install_crd(cluster)
        bed = Bed(cluster, Path(folder))
        bed.rights()
        asyncio.run(_run(Bench(bed, given.repeats, given.scale, given.idle), rows))


if __name__ == "__main__":
    main()
