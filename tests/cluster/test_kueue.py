"""Kueue itself decides when jobs run; the operator leaves that to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from tests.operator.harness import Bed, Namespace, eventually
from tests.support.chart import install_crd
from tests.support.devcluster_client import ensure
from tests.support.kueue import QUEUE, Kueue, kueue

pytestmark = pytest.mark.cluster

LABELS = {"kueue.x-k8s.io/queue-name": QUEUE}
RUNS_ON = {"annotations": {"delay": "never"}}
ENDS = {"annotations": {"delay": "1s"}}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    # Not the operator tests' control plane: with Kueue's webhooks it takes no Job once Kueue is gone.
    with ensure("control-plane", name="kueue", simulated_nodes=2, bench=True) as cluster:
        install_crd(cluster)
        bed = Bed(cluster, tmp_path_factory.mktemp("operator"))
        bed.rights()
        with bed.operator("kueue"):
            yield bed


@pytest.fixture(scope="module")
def queues(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kueue]:
    with kueue(bed, tmp_path_factory.mktemp("kueue"), cpu="1") as running:
        yield running


@pytest.fixture
def team(bed: Bed, queues: Kueue) -> Iterator[Namespace]:
    team = bed.team("queued")
    queues.join(team)
    yield team
    for job in team.jobs():
        team.delete(job)
    eventually(lambda: not queues.workloads(team), what="the workloads to go with their jobs")


def _apply(team: Namespace, name: str, **fields: dict[str, str]) -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    team.apply(name, labels=LABELS, pod={"resources": resources}, **fields)


def test_a_job_waits_until_there_is_room_and_then_runs_to_its_end(team: Namespace) -> None:
    _apply(team, "first", **RUNS_ON)
    team.until("first", phase="Bottlenecks")
    _apply(team, "second", **ENDS)
    waits = team.until("second", phase="Pending", reason="Queued")
    assert waits["message"] == f"Job second-train waits in Kueue queue {QUEUE}."
    assert not team.pods("second")
    team.delete("first")
    team.until("second", phase="Succeeded")


def test_a_suspended_job_gives_its_room_back_and_queues_again(team: Namespace) -> None:
    _apply(team, "first", **RUNS_ON)
    team.until("first", phase="Bottlenecks")
    _apply(team, "second", **RUNS_ON)
    team.until("second", reason="Queued")
    team.edit("first", suspend=True)
    team.until("first", phase="Suspended")
    team.until("second", phase="Bottlenecks")
    team.edit("first", suspend=False)
    team.until("first", phase="Pending", reason="Queued")
    team.delete("second")
    team.until("first", phase="Bottlenecks")


def test_an_evicted_job_is_queued_and_comes_back(team: Namespace, queues: Kueue) -> None:
    _apply(team, "evicted", **RUNS_ON)
    before = team.until("evicted", phase="Bottlenecks")
    queues.stop_policy("HoldAndDrain")
    team.until("evicted", phase="Pending", reason="Queued")
    eventually(lambda: not team.pods("evicted"), what="the pod to go")
    queues.stop_policy("None")
    after = team.until("evicted", phase="Bottlenecks")
    assert after["startTime"] >= before["startTime"]


def test_the_deadline_does_not_run_while_a_job_waits(team: Namespace) -> None:
    _apply(team, "first", **RUNS_ON)
    team.until("first", phase="Bottlenecks")
    resources = {"requests": {"cpu": "1"}}
    team.apply("hurried", labels=LABELS, pod={"resources": resources}, activeDeadlineSeconds=15,
               annotations={"delay": "1s"})  # fmt: skip
    team.until("hurried", reason="Queued")
    waited = team.child("hurried-train")
    assert waited is not None
    created = datetime.fromisoformat(waited["metadata"]["creationTimestamp"]).timestamp()
    eventually(lambda: time.time() > created + 16, what="it to wait longer than its deadline")
    assert team.status("hurried")["reason"] == "Queued"
    assert "startTime" not in team.status("hurried")
    team.delete("first")
    team.until("hurried", phase="Succeeded")
