"""How fast and how small the operator is, on a real API server: `make bench-operator`.

Each row is printed with what it must reach. Times are the API server's own (its audit log), rivals run
in the same minute, medians are of three runs. Not called operator.py: a script's folder comes first on
Python's path, and everything imports the standard library's `operator`.

    python tests/bench/operator_rates.py                    all rows, about 30 minutes on 2 cores
    python tests/bench/operator_rates.py burst lives        some of them
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.pop(1)  # this script's own folder

from tests.operator import load
from tests.operator.harness import ACCOUNT, Bed, eventually
from tests.support.chart import install_crd
from tests.support.devcluster_client import ensure


async def burst(bench: load.Bench) -> None:
    """1,000 at once: from the first RetrainJob's creation to the last Job's."""
    rates, count = [], bench.many(1000)
    with bench.operator("bench"):
        for _ in range(bench.repeats):
            namespace = bench.namespace("burst")
            await bench.all(bench.submit(namespace, f"j{n}", "never") for n in range(count))
            await load.until(partial(bench.count, load.JOBS.format(namespace)), count, within=300)
            applied = [
                load.at(e)
                for e in bench.audit(load.ADMIN, namespace)
                if load.creates(e, "retrainjobs")
            ]
            started = [
                load.at(e) for e in bench.audit(ACCOUNT, namespace) if load.creates(e, "jobs")
            ]
            rates.append(count / (max(started) - min(applied)))
            await bench.delete(namespace)
    what = f"RetrainJob to its first Job, {count} applied at once"
    load.show(what, f"{load.median(rates):.0f}/s ({load.each(rates)})", "80/s, aim at 107/s")


async def offered(bench: load.Bench) -> None:
    """20 a second: each one's time from its own creation to its Job's."""
    with bench.operator("bench"):
        namespace = bench.namespace("offered")
        count = bench.many(600)
        begin = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / 20 - time.monotonic()))
            await bench.submit(namespace, f"j{number}")
        await load.until(partial(bench.phases, namespace, "Succeeded"), count, within=300)
        admin = bench.audit(load.ADMIN, namespace)
        applied = {load.name(e): load.at(e) for e in admin if load.creates(e, "retrainjobs")}
        waits = sorted(
            load.at(event) - applied[load.name(event).removesuffix("-train")]
            for event in bench.audit(ACCOUNT, namespace)
            if load.creates(event, "jobs")
        )
        await bench.delete(namespace)
    p50, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    load.show("the same at 20/s offered", f"p50 {p50:.3f} s, p99 {p99:.3f} s", "p99 under 2 s")


async def lives(bench: load.Bench) -> None:
    """500 whole lives, and 500 plain Jobs with the same pods, in turns."""
    writes = await _whole_lives(bench, bench.many(500), "0.8")
    load.show("API writes per life", f"{writes:.2f}", "8")


async def paced(bench: load.Bench) -> None:
    """The same with the Job controller held to its usual 20 requests a second, as on most clusters."""
    await _whole_lives(bench, bench.many(100), "0.8", ", Job controller as it comes")


async def _whole_lives(bench: load.Bench, count: int, wanted: str, how: str = "") -> float:
    """The writes of one life."""
    ours, theirs, writes = [], [], []
    with bench.operator("bench"):
        for _ in range(bench.repeats):
            namespace = bench.namespace("plain")
            begin = time.time()
            await bench.all(
                bench.kube.create(load.JOBS.format(namespace), load.plain(f"j{n}"))
                for n in range(count)
            )
            await load.until(
                partial(load.complete, bench, namespace), count, within=600, every=load.SELDOM
            )
            theirs.append(count / (await load.last_end(bench, load.JOBS.format(namespace)) - begin))
            await bench.delete(namespace)

            namespace = bench.namespace("lives")
            begin = time.time()
            await bench.all(bench.submit(namespace, f"j{n}") for n in range(count))
            finished = partial(bench.phases, namespace, "Succeeded")
            await load.until(finished, count, within=600, every=load.SELDOM)
            ours.append(
                count / (await load.last_end(bench, load.RETRAINJOBS.format(namespace)) - begin)
            )
            writes.append(len(bench.audit(ACCOUNT, namespace)) / count)
            await bench.delete(namespace)
    ratio = load.median([o / t for o, t in zip(ours, theirs, strict=True)])
    load.show(
        f"whole life of {count} RetrainJobs beside {count} plain Jobs{how}",
        f"{ratio:.2f} ({load.each(ours)} /s beside {load.each(theirs)} /s)",
        wanted,
    )
    return max(writes)


async def finished(bench: load.Bench) -> None:
    """5,000 finished jobs, each with its Job and its pod."""
    namespace, count = bench.namespace("finished"), bench.many(5000)
    await bench.all(load.finished_job(bench, namespace, f"j{n}") for n in range(count))
    ready, memory = [], []
    idle_writes, page, seconds, next_seconds = 0, "", 0.0, 0.0
    for run in range(bench.repeats):
        begin = time.monotonic()
        with bench.operator("bench") as operator:
            ready.append(time.monotonic() - begin)
            eventually(operator.leads, within=30)
            page, seconds = load.scrape(operator)
            page, next_seconds = load.scrape(operator)
            if run == 0:
                before = len(bench.bed.writes())
                await asyncio.sleep(bench.idle)
                idle_writes = len(bench.bed.writes()) - before
            memory.append(operator.memory())
    load.show(
        f"{count} finished RetrainJobs present: memory", f"{load.median(memory):.0f} MiB", "200 MiB"
    )
    load.show("... time to ready", f"{load.median(ready):.1f} s ({load.each(ready)})", "20 s")
    load.show(f"... writes in {bench.idle:.0f} idle seconds", str(idle_writes), "0 but the Lease")
    size = f"{len(page) / 1e6:.2f} MB, first {seconds:.2f} s, then {next_seconds:.2f} s"
    load.show("... /metrics", size, "5 MB, 0.5 s")
    await bench.delete(namespace)


async def foreign(bench: load.Bench) -> None:
    """20,000 pods of other people: what they add to the operator's memory."""
    namespace, count = bench.namespace("foreign"), bench.many(20_000)
    before = [load.memory(bench) for _ in range(bench.repeats)]
    pods = (
        bench.kube.create(load.PODS.format(namespace), load.gated(f"p{n}", {}))
        for n in range(count)
    )
    await bench.all(pods)
    after = [load.memory(bench) for _ in range(bench.repeats)]
    more = load.median(after) - load.median(before)
    measured = f"{more:.1f} MiB ({load.each(before)}; {load.each(after)})"
    load.show(f"{count} foreign pods present: extra memory", measured, "10 MiB")
    await bench.delete(namespace)


async def killed(bench: load.Bench) -> None:
    """kill -9, and the next Job that is made: by the same replica started again, by a second one."""
    restarted, taken = [], []
    namespace = bench.namespace("killed")
    for run in range(bench.repeats):
        with bench.operator("bench") as operator:
            eventually(operator.leads)
            operator.kill()
            begin = time.time()
            operator.start(wait=False)
            await bench.submit(namespace, f"again{run}")
            restarted.append(await load.next_job(bench, namespace, f"again{run}-train") - begin)
    for run in range(bench.repeats):
        with bench.operator("first") as first:
            eventually(first.leads)
            with bench.operator("second"):
                first.kill()
                begin = time.time()
                await bench.submit(namespace, f"taken{run}")
                taken.append(await load.next_job(bench, namespace, f"taken{run}-train") - begin)
    measured = f"{load.median(restarted):.1f} s ({load.each(restarted)})"
    load.show("kill -9 to the next Job, restarted at once", measured, "5 s")
    load.show(
        "... taken over by a second replica",
        f"{load.median(taken):.1f} s ({load.each(taken)})",
        "15 s",
    )
    await bench.delete(namespace)


Row = Callable[[load.Bench], Awaitable[None]]
# By control plane, as (simulated nodes, controllers not held to 20 requests a second).
ROWS: dict[tuple[int, bool], dict[str, Row]] = {
    # Without nodes nothing but the operator has much to do.
    (0, False): {"burst": burst},
    (3, False): {"paced": paced},
    (3, True): {
        "offered": offered,
        "lives": lives,
        "finished": finished,
        "foreign": foreign,
        "killed": killed,
    },
}
NAMES = [name for rows in ROWS.values() for name in rows]


async def _run(bench: load.Bench, rows: list[Row]) -> None:
    for row in rows:
        await row(bench)
    await bench.kube.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", choices=[*NAMES, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts, for a quick look")
    parser.add_argument("--idle", type=float, default=300.0, help="idle seconds watched")
    arguments = parser.parse_args()
    wanted = arguments.rows or NAMES
    print("| what | measured | at least |\n|---|---|---|", flush=True)
    for (nodes, unpaced), rows in ROWS.items():
        chosen = [row for name, row in rows.items() if name in wanted]
        if chosen:
            _measure(chosen, nodes, unpaced, arguments)


def _measure(rows: list[Row], nodes: int, unpaced: bool, arguments: Any) -> None:
    name = f"bench-{secrets.token_hex(2)}"
    cluster = ensure("control-plane", name=name, simulated_nodes=nodes, bench=unpaced)
    with cluster, tempfile.TemporaryDirectory() as folder:
        install_crd(cluster)
        bed = Bed(cluster, Path(folder))
        bed.rights()
        asyncio.run(_run(load.Bench(bed, arguments.repeats, arguments.scale, arguments.idle), rows))


if __name__ == "__main__":
    main()
