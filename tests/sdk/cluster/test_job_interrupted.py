"""wait() through any sequence of interruptions."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fake_apiserver import FakeApiServer, refused
from tests.support.submitted import submitted
from tests.support.watching import OnReport

from retrainer.api import Report

GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


@pytest.mark.slow
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["step", "cut", "expire", "410", "refuse"]), min_size=1, max_size=4)
)
def test_each_change_is_seen_once_and_in_order_whatever_interrupts_the_wait(
    happens: list[str],
) -> None:
    server = FakeApiServer()
    job = submitted(server)
    changes: list[tuple[int, str]] = []

    def show(_: Report) -> None:
        version = job.to_dict()["metadata"]["resourceVersion"]
        changes.append((int(version), job.phase))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job.wait, 60, OnReport(show))
        server.wait_for_watch()
        for number, what in enumerate(happens):
            match what:
                case "step":
                    server.status("flowers", phase="Training", progress={"step": number})
                case "cut":
                    server.cut()
                case "expire":
                    server.expire()
                case "410":
                    server.send({"type": "ERROR", "object": GONE})
                case "refuse":
                    server.fail("GET", refused(503, "apiserver is shutting down"))
                    server.cut()
            server.wait_for_watch()
        server.status("flowers", phase="Succeeded")
        assert future.result(60) is job
    versions = [version for version, _ in changes]
    assert versions == sorted(set(versions))
    assert [phase for _, phase in changes][-1] == "Succeeded"
    assert "Succeeded" not in [phase for _, phase in changes][:-1]
