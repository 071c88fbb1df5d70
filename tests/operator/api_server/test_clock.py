"""Time by the API server's clock, whatever this machine's says."""

from email.utils import formatdate

import kopf
import pytest
from aiohttp import web

from retrainer_operator.api_server.client import Kube
from retrainer_operator.api_server.clock import ServerClock

TRUE = 1_800_000_000.0


@pytest.mark.parametrize("wrong", [600.0, -600.0, 86_400.0, 0.0])
def test_one_answer_is_enough_to_know_the_time_to_a_second(wrong: float) -> None:
    local = [50.0]
    clock = ServerClock(local=lambda: local[0], wall=lambda: TRUE + wrong)
    asked = clock.moment()
    local[0] += 0.02
    clock.correct(formatdate(TRUE + 0.01, usegmt=True), asked)
    assert abs(clock() - (TRUE + 0.02)) <= 1.02


def test_many_answers_never_move_a_clock_that_is_right() -> None:
    """A Date has whole seconds: taken as it is, it would shake the time by one."""
    local = [0.0]
    clock = ServerClock(local=lambda: local[0], wall=lambda: TRUE)
    for step in range(200):
        asked = clock.moment()
        local[0] = step * 0.37 + 0.1
        clock.correct(formatdate(int(TRUE + local[0] - 0.05), usegmt=True), asked)
        assert clock() == pytest.approx(TRUE + local[0])


@pytest.mark.parametrize("date", [None, "", "soon", "Fri, 99 Nov 2026 99:00:00 GMT"])
def test_a_date_that_is_none_changes_nothing(date: str | None) -> None:
    clock = ServerClock(local=lambda: 1.0, wall=lambda: TRUE)
    clock.correct(date, 0.5)
    assert clock() == TRUE


async def test_every_answer_of_the_api_server_corrects_the_clock() -> None:
    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({}, headers={"Date": formatdate(TRUE, usegmt=True)})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    clock = ServerClock(wall=lambda: TRUE + 600)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kube = Kube(kopf.ConnectionInfo(server=url), lambda *_: None, clock)
    try:
        await kube.get("/api")
    finally:
        await kube.close()
        await runner.cleanup()
    assert TRUE <= clock() < TRUE + 10
