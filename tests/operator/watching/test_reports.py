"""Reports over HTTP, from pods that answer anything."""

import asyncio
import gzip
import time
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from tests.operator.objects import UID, make_child, make_job, make_pod, make_report

from retrainer.api import Report
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.reports import SIZE_MAX, Reports, Standing, session_of_pods

GOOD = make_report(message="well").to_json().encode()


async def _reports_of(answer: web.StreamResponse, **pod: Any) -> list[Report]:
    """The reports in memory after one round, of a pod on this machine that gives this answer."""

    async def report(_: web.Request) -> web.StreamResponse:
        return answer

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(body=GOOD)

    app = web.Application()
    app.router.add_get("/report", report)
    app.router.add_get("/other", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    memory = Memory()
    job = make_job()
    for snapshot in (job, make_child(), make_pod(**{"running": True, "ip": "127.0.0.1", **pod})):
        memory.put(snapshot)
    news: list[Any] = []
    reports = Reports(memory, leads=lambda: True, on_news=news.append, port=runner.addresses[0][1])
    try:
        async with session_of_pods() as session:
            await reports.poll(session, Standing.NEW)
    finally:
        await runner.cleanup()
    latest = list(memory.reports(UID))
    assert len(news) == len(latest)
    return latest


async def test_the_report_of_a_pod_of_ours_is_heard() -> None:
    (report,) = await _reports_of(web.Response(body=GOOD))
    assert report.message == "well"


async def test_a_pod_that_only_has_our_labels_is_not_asked() -> None:
    assert await _reports_of(web.Response(body=GOOD), child_uid="somebody's") == []


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(body=b"[" * 20_000),
        web.Response(body=b"\xff\xfe"),
        web.Response(body=GOOD + b" " * SIZE_MAX),
        web.Response(body=gzip.compress(GOOD), headers={"Content-Encoding": "gzip"}),
        web.Response(body=GOOD.replace(UID.encode(), b"another")),
        web.Response(body=GOOD, status=500),
        web.Response(status=302, headers={"Location": "/other"}),
    ],
    ids=["nested", "no text", "too long", "packed", "of another job", "an error", "a redirect"],
)
async def test_an_answer_that_is_no_report_of_the_job_is_not_heard(answer: web.Response) -> None:
    assert await _reports_of(answer) == []


@pytest.mark.slow
async def test_pods_that_stay_silent_do_not_slow_the_reports_of_others() -> None:
    """With 150 of them in the same rounds, a pod that answers was asked every 6 s."""
    asked: asyncio.Queue[float] = asyncio.Queue()

    async def report(_: web.Request) -> web.StreamResponse:
        asked.put_nowait(time.monotonic())
        return web.Response(body=GOOD)

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    app = web.Application()
    app.router.add_get("/report", report)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    silent = await asyncio.start_server(never, "127.0.0.2", port)

    async def seconds_of_three_reports(*, silent_pods: int) -> float:
        memory = Memory()
        pods = [make_pod("answers", running=True, ip="127.0.0.1")]
        pods += [make_pod(f"silent-{n}", running=True, ip="127.0.0.2") for n in range(silent_pods)]
        memory.put(make_job())
        memory.put(make_child())
        for pod in pods:
            memory.put(pod)
        reports = Reports(memory, leads=lambda: True, on_news=lambda _: None, port=port)
        polling = asyncio.create_task(reports.run())
        try:
            async with asyncio.timeout(60):
                times = [await asked.get() for _ in range(3)]
        finally:
            polling.cancel()
            await asyncio.wait([polling])
        while not asked.empty():
            asked.get_nowait()
        return times[-1] - times[0]

    try:
        beside_silent_pods = await seconds_of_three_reports(silent_pods=150)
        alone = await seconds_of_three_reports(silent_pods=0)
    finally:
        silent.close()
        await runner.cleanup()
    assert beside_silent_pods < 2 * alone


async def test_600_silent_pods_are_in_no_round_of_those_that_answer_or_are_new() -> None:
    """In one round with others they took 20 s of it, since each takes the whole timeout."""
    silent = 600
    app = web.Application()

    async def report(_: web.Request) -> web.StreamResponse:
        return web.Response(body=GOOD)

    app.router.add_get("/report", report)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    memory = Memory()
    for snapshot in (make_job(), make_child()):
        memory.put(snapshot)
    for n in range(silent):  # nobody listens there, which costs the test less time than silence
        memory.put(make_pod(f"silent-{n}", running=True, ip="127.0.0.3"))
    now = 0.0
    reports = Reports(
        memory,
        leads=lambda: True,
        on_news=lambda _: None,
        port=runner.addresses[0][1],
        clock=lambda: now,
    )
    try:
        async with session_of_pods() as session:
            asked = [await reports.poll(session, Standing.NEW) for _ in range(2)]
            assert sum(asked) == silent
            memory.put(make_pod("answers", running=True, ip="127.0.0.1"))
            assert await reports.poll(session, Standing.NEW) == 1
            assert [report.message for report in memory.reports(UID)] == ["well"]
            for _ in range(5):
                assert await reports.poll(session, Standing.ANSWERING) == 1
            assert await reports.poll(session, Standing.SILENT) == 0
            now = 4.0
            again = [await reports.poll(session, Standing.SILENT) for _ in range(3)]
            assert sum(again) == silent
    finally:
        await runner.cleanup()


async def test_a_silent_pod_is_asked_less_and_less_often() -> None:
    now = [0.0]
    memory = Memory()
    # Nobody listens there: the connection is refused at once.
    for snapshot in (make_job(), make_child(), make_pod(running=True, ip="127.0.0.3")):
        memory.put(snapshot)
    reports = Reports(
        memory, leads=lambda: True, on_news=lambda _: None, port=1, clock=lambda: now[0]
    )
    asked: list[int] = []
    async with session_of_pods() as session:
        for second in range(0, 300, 2):
            now[0] = float(second)
            if await reports.poll(session, Standing.SILENT if asked else Standing.NEW):
                asked.append(second)
    assert asked[:5] == [0, 4, 12, 28, 60]
    assert all(60 <= b - a <= 62 for a, b in pairwise(asked[5:]))
