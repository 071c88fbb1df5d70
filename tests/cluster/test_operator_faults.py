"""The operator killed, doubled, without rights and cut off: the same end, and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.operator.harness import Bed, Operator, eventually
from tests.support import devcluster_tool

pytestmark = pytest.mark.cluster

# In a sharded job's life; the operator is killed there, or soon after, and started again.
MOMENTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "applied": lambda s: True,
    "pending": lambda s: s.get("reason") != "WaitingForOperator",
    "bottlenecks": lambda s: s.get("phase") != "Pending",
    "training": lambda s: s.get("phase") in ("Training", "Succeeded"),
    "between": lambda s: any(c["type"] == "BottlenecksReady" for c in s.get("conditions", ())),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_started_again_it_makes_no_second_job(bed: Bed, moment: str) -> None:
    team = bed.team(f"f-kill-{moment}")
    with bed.operator("killed") as operator:
        team.apply("job", shards=2, annotations={"delay": "2s"})
        eventually(lambda: MOMENTS[moment](team.status("job")), what=moment)
        operator.kill()
        operator.start()
        team.until("job", phase="Succeeded", within=120)
    assert sorted(team.children_created()) == ["job-bottlenecks", "job-train"]


def test_pods_that_ended_while_it_was_away_are_seen(bed: Bed) -> None:
    team = bed.team("f-away")
    with bed.operator("away") as operator:
        team.apply("job", annotations={"delay": "never"})
        team.until("job", phase="Bottlenecks")
        operator.kill()
        team.end_pods("job")
        eventually(lambda: (team.child("job-train") or {}).get("status", {}).get("succeeded") == 1)
        assert team.status("job")["phase"] == "Bottlenecks"
        operator.start()
        team.until("job", phase="Succeeded", within=120)


def test_a_replica_takes_over_within_15_seconds_and_only_the_leader_writes(bed: Bed) -> None:
    # The best of three: on a busy machine anything may be late once.
    assert any(_takeover(bed) < 15 for _ in range(3))


def _takeover(bed: Bed) -> float:
    """Seconds from the leader's death to the first write of the other."""
    team = bed.team("f-takeover")
    with bed.operator("first") as first, bed.operator("second") as second:
        eventually(lambda: first.leads() != second.leads(), what="one leader")
        leader, other = (first, second) if first.leads() else (second, first)
        assert other.probe("readyz") == 200
        assert "retrainer_job_phase{" not in other.metrics()
        leader.kill()
        team.apply("job")
        started = time.monotonic()
        eventually(lambda: team.status("job").get("reason") != "WaitingForOperator")
        seconds = time.monotonic() - started
        team.until("job", phase="Succeeded")
        assert other.leads()
    assert team.children_created() == ["job-train"]
    return seconds


def test_a_stopped_leader_gives_the_lease_back_at_once(bed: Bed) -> None:
    assert any(_handover(bed) < 5 for _ in range(3))


def _handover(bed: Bed) -> float:
    """Seconds from the leader's orderly end to the other's lead."""
    with bed.operator("first") as first:
        eventually(first.leads)
        with bed.operator("second") as second:
            assert first.stop() == 0
            started = time.monotonic()
            eventually(second.leads)
            return time.monotonic() - started


def test_a_leader_that_hung_writes_nothing_after_another_took_over(bed: Bed) -> None:
    team = bed.team("f-hung")
    with bed.operator("hung") as hung:
        eventually(hung.leads)
        assert hung.process is not None
        os.kill(hung.process.pid, signal.SIGSTOP)
        try:
            with bed.operator("other", wait=False) as other:
                eventually(other.leads, within=120)
                team.apply("job", annotations={"delay": "never"})
                team.until("job", phase="Bottlenecks")
                os.kill(hung.process.pid, signal.SIGCONT)
                eventually(lambda: hung.probe("readyz") == 200 and not hung.leads())
                assert other.leads()
        finally:
            os.kill(hung.process.pid, signal.SIGCONT)
    assert team.children_created() == ["job-train"]


def test_a_namespace_without_rights_is_left_out_until_it_has_them(bed: Bed) -> None:
    served, closed = bed.team("f-served"), bed.team("f-closed")
    bed.no_rights()
    try:
        bed.rights(served.name)
        with bed.operator(
            "scoped",
            RETRAINER_NAMESPACES=f"{served.name}, {closed.name}",
            RETRAINER_RESYNC_SECONDS="2",
        ) as operator:
            eventually(lambda: "retrainer_namespaces_skipped 1.0" in operator.metrics())
            served.apply("job")
            closed.apply("job")
            served.until("job", phase="Succeeded")
            assert closed.status("job")["reason"] == "WaitingForOperator"
            assert "No right to list retrainjobs.retrainer.dev" in operator.log.read_text()
            bed.rights(served.name, closed.name)
            # Not once a minute: as often as the settings ask for a list.
            closed.until("job", phase="Succeeded", within=50)
            assert "retrainer_namespaces_skipped 0.0" in operator.metrics()
    finally:
        bed.rights()


def test_rights_taken_away_and_given_back_are_noticed(bed: Bed) -> None:
    team = bed.team("f-taken")
    with bed.operator("taken", RETRAINER_RESYNC_SECONDS="2") as operator:
        eventually(operator.leads)
        bed.no_rights()
        eventually(lambda: "retrainer_namespaces_skipped 1.0" in operator.metrics())
        assert operator.probe("healthz") == 200
        bed.rights()
        team.apply("job")
        team.until("job", phase="Succeeded", within=180)


def test_an_api_server_that_is_away_is_waited_for(bed: Bed) -> None:
    team = bed.team("f-server")
    with bed.operator("patient", RETRAINER_LOG_FORMAT="json") as operator:
        team.apply("job", annotations={"delay": "never"})
        team.until("job", phase="Bottlenecks")
        assert operator.process is not None
        pid = operator.process.pid
        _kill_api_server(bed)
        try:
            # Only then: one that is back within the blink of an eye is not missed by anybody.
            eventually(lambda: any(line["level"] == "warning" for line in _lines(operator)))
        finally:
            _start_api_server(bed)
        eventually(operator.leads)
        assert operator.process.pid == pid
        assert operator.process.poll() is None
        assert operator.probe("healthz") == 200
        team.apply("next")
        team.until("next", phase="Succeeded", within=180)  # the controllers were cut off as well
        lines = _lines(operator)
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))


def _lines(operator: Operator) -> list[dict[str, Any]]:
    """What it has logged, but for a line that it is in the middle of."""
    whole = operator.log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _kill_api_server(bed: Bed) -> None:
    """kill -9."""
    # It exits with 1 if a component is slow to answer, which is none of this test's business.
    status = subprocess.run(
        [*devcluster_tool.COMMAND, "status", "--name", bed.cluster.name],
        cwd=devcluster_tool.CHECKOUT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    line = next(line for line in status.splitlines() if line.startswith("kube-apiserver"))
    os.kill(int(line.split()[2]), signal.SIGKILL)


def _start_api_server(bed: Bed) -> None:
    """`up` starts what of a cluster has ended."""
    up = ["up", "--name", bed.cluster.name, "--size", "control-plane", "--kwok", "3", "--bench"]
    devcluster_tool.run(*up)


def test_other_peoples_jobs_and_pods_cost_nothing_and_are_not_touched(bed: Bed) -> None:
    team = bed.team("f-others")
    pod: dict[str, Any] = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
    path = f"/apis/batch/v1/namespaces/{team.name}/jobs"
    with bed.operator("quiet"):
        team.api.call(
            "POST", path, {"metadata": {"name": "other"}, "spec": {"template": {"spec": pod}}}
        )
        eventually(lambda: (team.child("other") or {}).get("status", {}).get("succeeded") == 1)
        team.apply("mine")
        team.until("mine", phase="Succeeded")
    touched = {w["objectRef"].get("name") for w in bed.writes(namespace=team.name, resource="jobs")}
    assert touched == {"mine-train"}


def test_deletion_needs_no_operator(bed: Bed) -> None:
    team = bed.team("f-deletion")
    with bed.operator("deleter") as operator:
        team.apply("orphan", annotations={"delay": "never"})
        eventually(team.children)
        operator.kill()
        job = team.job("orphan")
        assert job is not None
        assert "finalizers" not in job["metadata"]
        assert "annotations" not in job["metadata"] or not job["metadata"]["annotations"]
        team.delete("orphan")
        eventually(lambda: team.job("orphan") is None)
        eventually(lambda: not team.children() and not team.pods("orphan"))
