"""Watches that lie, stall or end, on a real API server: the next useful write comes within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.faults.operators import Behind, operator_behind_proxy
from tests.faults.proxy import EventFault, Fault, Request, answer, refuse, status_object
from tests.operator.harness import Bed, Namespace, eventually

pytestmark = pytest.mark.cluster

Body = dict[str, Any]
MENDED = 10.0
"""Seconds from a watch's fault to the next useful write, beyond what this machine takes without it."""
LISTED = 30.0
"""Seconds in which what no watch shows is found by a list, beyond the same."""


@pytest.fixture(scope="module")
def behind(bed: Bed) -> Iterator[Behind]:
    with operator_behind_proxy(bed) as behind:
        eventually(behind.operator.leads)
        yield behind


@pytest.fixture(scope="module")
def usual(bed: Bed, behind: Behind) -> float:
    """Twice the seconds of the slowest of three lives without a fault: a machine may be busy."""
    team = bed.team("usual")
    return 2 * max(_seconds_of_life(team, f"job-{number}") for number in range(3))


@pytest.fixture
def team(bed: Bed, behind: Behind) -> Iterator[Namespace]:
    team = bed.team("w")
    yield team
    behind.proxy.clear()
    bed.cluster.kubectl("delete", "namespace", team.name, "--wait=false")


def _of(team: Namespace, name: str, change: str) -> Callable[[Request, Body], bool]:
    """Whether an event is this change of the object of this name."""

    def holds(_: Request, event: Body) -> bool:
        meta = event["object"].get("metadata", {})
        return bool(
            event["type"] == change
            and meta.get("namespace") == team.name
            and meta.get("name") == name
        )

    return holds


def _watches(resource: str) -> Callable[[Request, Body], bool]:
    return lambda request, _: request.resource == resource


def _seconds_of_life(team: Namespace, job: str) -> float:
    # Every kind of watch has something to tell of this life: its pod ends once it is seen to run.
    started = time.monotonic()
    team.apply(job, annotations={"delay": "100ms"})
    team.until(job, phase="Succeeded")
    return time.monotonic() - started


def _seconds_until_child(team: Namespace, job: str) -> float:
    started = time.monotonic()
    team.apply(job, annotations={"delay": "never"})
    eventually(lambda: team.child(f"{job}-train"))
    return time.monotonic() - started


def _seconds_until_suspended(team: Namespace, job: str) -> float:
    team.apply(job, annotations={"delay": "never"})
    eventually(lambda: team.child(f"{job}-train"))
    started = time.monotonic()
    team.edit(job, suspend=True)
    eventually(lambda: (team.child(f"{job}-train") or {}).get("spec", {}).get("suspend"))
    return time.monotonic() - started


@pytest.mark.parametrize(
    "harm",
    [status_object(500, "InternalError"), status_object(410, "Expired"), "cut", "silence", "drop"],
    ids=["error 500", "expired", "cut", "silent", "one event lost"],
)
@pytest.mark.parametrize("resource", ["retrainjobs", "jobs", "pods"])
def test_any_fault_of_one_watch_is_mended_within_ten_seconds(
    behind: Behind, usual: float, team: Namespace, harm: str | Body, resource: str
) -> None:
    """An ERROR 500 left the operator deaf for good in 4 of 9 runs, holding the Lease."""
    fault = behind.proxy.add(EventFault(harm, when=_watches(resource), times=1))
    assert behind.operator.process is not None
    pid = behind.operator.process.pid
    seconds = _seconds_of_life(team, "job")
    eventually(lambda: fault.hits == 1, what="the watch had something to tell")
    assert seconds < MENDED + usual
    assert behind.operator.process.pid == pid
    assert behind.operator.process.poll() is None
    assert behind.operator.probe("healthz") == 200


def test_an_error_in_one_watch_while_all_others_are_cut_leaves_it_hearing(
    behind: Behind, usual: float, team: Namespace
) -> None:
    for round_ in range(3):
        behind.proxy.add(
            EventFault(status_object(500, "InternalError"), when=_watches("jobs"), times=1)
        )
        behind.proxy.add(EventFault("cut", when=_watches("pods"), times=2))
        behind.proxy.add(EventFault("cut", when=_watches("retrainjobs"), times=2))
        assert _seconds_until_child(team, f"job-{round_}") < MENDED + usual
        behind.proxy.clear()


def test_a_job_that_no_watch_ever_shows_is_found_by_a_list(
    behind: Behind, usual: float, team: Namespace
) -> None:
    """It was never mended: liveness restarted the whole operator after 400 s."""
    seconds = _lost(behind, team, "ADDED", _seconds_until_child)
    assert seconds < LISTED + usual
    assert behind.operator.probe("healthz") == 200


def test_an_edit_that_no_watch_ever_shows_is_found_by_a_list(
    behind: Behind, usual: float, team: Namespace
) -> None:
    seconds = _lost(behind, team, "MODIFIED", _seconds_until_suspended)
    assert seconds < LISTED + usual
    assert behind.operator.probe("healthz") == 200


def _lost(
    behind: Behind, team: Namespace, change: str, seconds_until: Callable[[Namespace, str], float]
) -> float:
    """Seconds until the operator acts on a change of a job whose event is dropped.

    A list that happens to come between the change and its event leaves nothing to drop: then again
    with another job.
    """
    for number in range(5):
        job = f"job-{number}"
        fault = behind.proxy.add(EventFault("drop", when=_of(team, job, change)))
        seconds = seconds_until(team, job)
        if fault.hits:
            return seconds
    raise AssertionError(f"No {change} event was dropped in five jobs.")


def test_a_child_whose_end_is_never_shown_is_found_by_a_list(
    behind: Behind, usual: float, team: Namespace
) -> None:
    def ended(_: Request, event: Body) -> bool:
        body = event["object"]
        done = (body.get("status") or {}).get("completionTime")
        return body["metadata"].get("namespace") == team.name and bool(done)

    team.apply("job", annotations={"delay": "never"})
    team.until("job", phase="Bottlenecks")
    fault = behind.proxy.add(EventFault("drop", when=ended))
    team.end_pods("job")
    started = time.monotonic()
    team.until("job", phase="Succeeded")
    assert fault.hits
    assert time.monotonic() - started < LISTED + usual


def test_watches_answered_with_pages_of_no_json_do_not_end_the_process(
    behind: Behind, usual: float, team: Namespace
) -> None:
    """So does a proxy that wants its users to log in, for a while."""
    behind.proxy.add(Fault(answer(b"<html>Please log in.</html>"), when=lambda r: r.is_watch))
    behind.proxy.add(Fault(answer(b"<html>Please log in.</html>"), when=lambda r: r.is_list))
    behind.proxy.add(EventFault("cut"))
    team.apply("job", annotations={"delay": "never"})
    eventually(lambda: any(f.hits > 5 for f in behind.proxy.faults()))
    behind.proxy.clear()
    seconds = time.monotonic()
    eventually(lambda: team.child("job-train"))
    assert time.monotonic() - seconds < MENDED + usual
    assert behind.operator.process is not None
    assert behind.operator.process.poll() is None


def test_watches_that_are_all_refused_for_a_while_are_begun_again(
    behind: Behind, usual: float, team: Namespace
) -> None:
    for code in (500, 503, 429):
        harm = refuse(code, retry_after=1)
        fault = behind.proxy.add(Fault(harm, when=lambda r: r.is_watch, times=9))
        behind.proxy.add(EventFault("cut", times=3))
        assert _seconds_until_child(team, f"job-{code}") < MENDED + 5 + usual
        assert fault.hits
        behind.proxy.clear()
