"""The fault menu: what happens to a cluster, and how long after it the operator does useful work again.

Each fault is a block that harms and mends; the seconds counted are those from its end (or, for a fault
that stays, from its beginning) to the next useful write: a new RetrainJob gets its Job, or the one that
was harmed goes on. Each has a limit, and one over it fails the command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

from kubernetes.client import ApiException
from tests.faults.jobs import JOBS
from tests.faults.proxy import EventFault, Fault, Request, delay, hang, refuse, status_object
from tests.faults.scene import PATIENCE, Body, Entry, Scene, actors, set_scene
from tests.operator.harness import Bed, eventually
from tests.support.chart import REPOSITORY

_LEASE = "/apis/coordination.k8s.io/v1/namespaces/retrainer/leases/rt-retrainer-operator"


def _kill_operator(scene: Scene) -> float:
    scene.operator.kill()
    started = time.monotonic()
    scene.operator.start(wait=False)
    return scene.seconds_to_a_job(since=started)


def _second_replica(scene: Scene) -> float:
    with scene.bed.operator("second"):
        scene.operator.kill()
        seconds = scene.seconds_to_a_job()
        scene.operator.start(wait=False)
    return seconds


def _two_operators(scene: Scene) -> float:
    """Both live; one leads, and the Job is made once."""
    with scene.bed.operator("second") as second:
        seconds = scene.seconds_to_a_job()
        if scene.operator.leads() == second.leads():
            raise AssertionError("both lead, or none")
    return seconds


def _lease_stolen(scene: Scene) -> float:
    spec = {"holderIdentity": "somebody-else"}
    scene.bed.api.call("PATCH", _LEASE, {"spec": spec})
    started = time.monotonic()
    eventually(lambda: not scene.operator.leads())
    return scene.seconds_to_a_job(since=started)


def _lease_deleted(scene: Scene) -> float:
    scene.bed.api.call("DELETE", _LEASE)
    started = time.monotonic()
    eventually(lambda: scene.bed.api.find(_LEASE))
    return scene.seconds_to_a_job(since=started)


def _component(scene: Scene, name: str) -> int:
    tool = [sys.executable, "-m", "tests.cluster.devcluster", "status", "--name"]
    text = subprocess.run(
        [*tool, scene.bed.cluster.name],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return int(line.split()[2])


def _restart(component: str, scene: Scene) -> float:
    """kill -9, two seconds without it, and until it answers again; counted from then."""
    os.kill(_component(scene, component), signal.SIGKILL)
    time.sleep(2)
    up = [
        "up",
        "--name",
        scene.bed.cluster.name,
        "--size",
        "control-plane",
        "--kwok",
        "3",
        "--bench",
    ]
    subprocess.run(
        [sys.executable, "-m", "tests.cluster.devcluster", *up],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    eventually(lambda: _answers(scene), within=PATIENCE)
    return scene.seconds_to_a_job()


def _answers(scene: Scene) -> bool:
    with suppress(ApiException, OSError):
        return bool(scene.team.jobs()) or True
    return False


def _watch(harm: str | Body, scene: Scene) -> float:
    fault = scene.behind.proxy.add(
        EventFault(harm, when=lambda request, _: request.resource == "retrainjobs", times=1)
    )
    seconds = scene.seconds_to_a_job()
    eventually(lambda: fault.hits)
    return seconds


def _event_never_shown(scene: Scene) -> float:
    def is_addition(request: Request, event: Body) -> bool:
        return request.resource == "retrainjobs" and event["type"] == "ADDED"

    scene.behind.proxy.add(EventFault("drop", when=is_addition))
    return scene.seconds_to_a_job()


def _slow_api_server(scene: Scene) -> float:
    scene.behind.proxy.add(Fault(delay(2.5), when=lambda request: not request.is_watch))
    time.sleep(15)
    seconds = scene.seconds_to_a_job()
    if not scene.operator.leads():
        raise AssertionError("it does not lead")
    return seconds


def _silent_api_server(scene: Scene) -> float:
    """No request is answered for 30 s; counted from their end."""
    fault = scene.behind.proxy.add(Fault(hang))
    scene.behind.proxy.add(EventFault("cut"))
    time.sleep(30)
    scene.behind.proxy.remove(fault)
    scene.behind.proxy.clear()
    return scene.seconds_to_a_job()


def _overloaded(scene: Scene) -> float:
    """429 to everything but the Lease for 10 s; counted from their end."""
    harm = refuse(429, retry_after=1)
    scene.behind.proxy.add(Fault(harm, when=lambda request: request.resource != "leases"))
    scene.team.apply("job", annotations={"delay": "never"})
    time.sleep(10)
    scene.behind.proxy.clear()
    started = time.monotonic()
    eventually(lambda: scene.team.child("job-train"), within=PATIENCE)
    return time.monotonic() - started


def _rights_revoked(scene: Scene) -> float:
    scene.bed.no_rights()
    scene.team.apply("job", annotations={"delay": "never"})
    eventually(
        lambda: "retrainer_namespaces_skipped 1.0" in scene.operator.metrics(), within=PATIENCE
    )
    scene.bed.rights()
    started = time.monotonic()
    eventually(lambda: scene.team.child("job-train"), within=PATIENCE)
    return time.monotonic() - started


def _quota_raised(scene: Scene) -> float:
    path = f"/api/v1/namespaces/{scene.team.name}/resourcequotas"
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    scene.bed.api.call("POST", path, quota)
    eventually(lambda: "status" in (scene.bed.api.find(f"{path}/none") or {}))
    scene.team.apply("job", annotations={"delay": "never"})
    scene.team.until("job", reason="QuotaExceeded")
    scene.bed.api.call("DELETE", f"{path}/none")
    started = time.monotonic()
    eventually(lambda: scene.team.child("job-train"), within=PATIENCE)
    return time.monotonic() - started


def _deadline_kept(scene: Scene) -> float:
    """A job with a deadline far shorter than the clock is off: it succeeds, and has a duration."""
    started = time.monotonic()
    scene.team.apply("job", activeDeadlineSeconds=300, annotations={"delay": "2s"})
    status = scene.team.until("job", within=PATIENCE, phase="Succeeded")
    if not status["startTime"] <= status["completionTime"]:
        raise AssertionError(f"it ends before it starts: {status}")
    seconds = time.monotonic() - started
    scene.team.apply("late", activeDeadlineSeconds=4, annotations={"delay": "never"})
    scene.team.until("late", within=PATIENCE, phase="Failed", reason="DeadlineExceeded")
    return seconds


MENU = [
    Entry("operator killed (kill -9) and started again", _kill_operator, 8, in_ci=False),
    Entry("operator killed, a second replica takes over", _second_replica, 15, in_ci=False),
    Entry("two operators at once", _two_operators, 5),
    Entry("Lease taken by somebody who does not live", _lease_stolen, 16, in_ci=False),
    Entry("Lease deleted", _lease_deleted, 16),
    Entry(
        "API server killed and started again", partial(_restart, "kube-apiserver"), 15, in_ci=False
    ),
    Entry("etcd killed and started again", partial(_restart, "etcd"), 15),
    Entry(
        "watch ends with an ERROR 500",
        partial(_watch, status_object(500, "InternalError")),
        10,
        in_ci=False,
    ),
    Entry("watch ends with a 410", partial(_watch, status_object(410, "Expired")), 10, in_ci=False),
    Entry("watch cut", partial(_watch, "cut"), 10, in_ci=False),
    Entry("watch silently dead", partial(_watch, "silence"), 10, in_ci=False),
    Entry("one event lost", partial(_watch, "drop"), 10, in_ci=False),
    Entry("an event lost each time it is sent", _event_never_shown, 30, in_ci=False),
    Entry("each request takes 2.5 s", _slow_api_server, 15, in_ci=False),
    Entry("no request answered for 30 s", _silent_api_server, 40, in_ci=False),
    Entry("429 to everything for 10 s", _overloaded, 15, in_ci=False),
    Entry("rights revoked and given back", _rights_revoked, 70, in_ci=False),
    Entry("quota exhausted and raised", _quota_raised, 20, in_ci=False),
    Entry("operator's clock 10 minutes ahead", _deadline_kept, 20, clock=600),
    Entry("operator's clock 10 minutes behind", _deadline_kept, 20, clock=-600),
    *JOBS,
]


def run(bed: Bed, times: int, only: str) -> bool:
    """Play the menu, print each fault's seconds; whether none was over its limit."""
    well = True
    print("| fault | seconds to the next useful write | at most |\n|---|---|---|", flush=True)
    for entry in MENU:
        if only not in entry.name:
            continue
        seconds: list[float] = []
        problem = ""
        try:
            with actors(bed, entry.clock) as behind:
                for _ in range(times):
                    with set_scene(bed, behind) as scene:
                        seconds.append(entry.play(scene))
        except (AssertionError, ApiException, RuntimeError) as error:
            problem = f" **{error}**"
        over = problem or any(each > entry.limit for each in seconds)
        well &= not over
        text = ", ".join(f"{each:.1f}" for each in seconds) + problem
        print(
            f"| {entry.name} | {text}{' (over)' if over else ''} | {entry.limit:.0f} |", flush=True
        )
    return well
