"""Reports over HTTP, from pods that answer anything."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from aiohttp import web
from tests.operator import objects as o

from retrainer.api import Report
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.reports import SIZE_MAX, Reports, session_of_pods

KEY = ("team", "flowers")
GOOD = o.report(message="well").to_json().encode()


async def _heard(answer: web.StreamResponse, **pod: Any) -> list[Report]:
    """What is known after one round, of a pod on this machine that answers so."""

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
    job = o.job()
    for seen in (job, o.child(), o.pod(**{"running": True, "ip": "127.0.0.1", **pod})):
        memory.saw(KEY, seen)
    news: list[Any] = []
    reports = Reports(memory, leads=lambda: True, on_news=news.append, port=runner.addresses[0][1])
    try:
        async with session_of_pods() as session:
            await reports.poll(session)
    finally:
        await runner.cleanup()
    heard = list(memory.reports(KEY))
    assert len(news) == len(heard)
    return heard


async def test_the_report_of_a_pod_of_ours_is_heard() -> None:
    (report,) = await _heard(web.Response(body=GOOD))
    assert report.message == "well"


async def test_a_pod_that_only_has_our_labels_is_not_asked() -> None:
    assert await _heard(web.Response(body=GOOD), child_uid="somebody's") == []


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(body=b"[" * 20_000),
        web.Response(body=b"\xff\xfe"),
        web.Response(body=GOOD + b" " * SIZE_MAX),
        web.Response(body=gzip.compress(GOOD), headers={"Content-Encoding": "gzip"}),
        web.Response(body=GOOD.replace(o.UID.encode(), b"another")),
        web.Response(body=GOOD, status=500),
        web.Response(status=302, headers={"Location": "/other"}),
    ],
    ids=["nested", "no text", "too long", "packed", "of another job", "an error", "a redirect"],
)
async def test_an_answer_that_is_no_report_of_the_job_is_not_heard(answer: web.Response) -> None:
    assert await _heard(answer) == []
