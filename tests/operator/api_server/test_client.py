"""What the client makes of answers that no API server gives, but something on the way to it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import kopf
import pytest
from aiohttp import web
from tests.operator.objects import make_job

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import Kube
from retrainer_operator.api_server.events import EventWriter
from retrainer_operator.planning.actions import Event

NO_OBJECTS = [b"<html>Please log in.</html>", b"[]", b'"ok"', b"\xff", b"[" * 100_000]


@asynccontextmanager
async def _answering(body: bytes) -> AsyncIterator[Kube]:
    """A client whose every request is answered with 200 and this body."""

    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kube = Kube(kopf.ConnectionInfo(server=url), lambda *_: None)
    try:
        yield kube
    finally:
        await kube.close()
        await runner.cleanup()


@pytest.mark.parametrize("body", NO_OBJECTS)
async def test_an_answer_that_is_no_object_is_a_failed_request(body: bytes) -> None:
    async with _answering(body) as kube:
        wanted = r"/api/v1/x: the answer is no JSON object\."
        with pytest.raises(ClusterError, match=wanted):
            await kube.get("/api/v1/x")
        with pytest.raises(ClusterError, match=wanted):
            await kube.create("/api/v1/x", {})


async def test_such_an_answer_to_an_event_costs_that_event_alone() -> None:
    async with _answering(NO_OBJECTS[0]) as kube:
        events = EventWriter(kube, "me")
        writing = asyncio.create_task(events.run())
        for number in range(8):
            events.add(make_job(), Event("Normal", f"Reason{number}", "Text."))
        await events.drain()
        assert not writing.done()
        writing.cancel()
        await asyncio.wait([writing])
