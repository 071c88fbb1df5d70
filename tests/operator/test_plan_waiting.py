"""What the operator says of a job that waits; every sentence word for word."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator import objects as o
from tests.operator.deciding import RUNNING, created, decide, told

from retrainer_operator.planning.case import Look
from retrainer_operator.planning.plan import Plan
from retrainer_operator.planning.snapshots import ChildEvents, Refusal


@pytest.mark.parametrize(
    ("pod", "reason", "message"),
    [
        (
            {"unschedulable": "0/3 nodes are available: 3 Insufficient cpu."},
            "Unschedulable",
            "Pod flowers-train-x1 fits on no node: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            {"waiting": ("ImagePullBackOff", "Back-off pulling image \"x\"")},
            "ImagePullFailed",
            "The trainer's container image cannot be pulled for pod flowers-train-x1: "
            "Back-off pulling image \"x\"",
        ),
        (
            {"waiting": ("CreateContainerConfigError", 'secret "s3" not found')},
            "SecretMissing",
            "Pod flowers-train-x1 waits for Secret s3 with AWS_ACCESS_KEY_ID and "
            'AWS_SECRET_ACCESS_KEY: secret "s3" not found',
        ),
        (
            {"waiting": ("CreateContainerError", "no such device")},
            "PodBlocked",
            "Pod flowers-train-x1 cannot start: no such device",
        ),
        ({"waiting": ("ContainerCreating", "")}, "PodStarting", "Pod flowers-train-x1 is starting."),
    ],
)  # fmt: skip
def test_a_pod_that_waits_is_told_of_in_one_sentence(
    pod: dict[str, Any], reason: str, message: str
) -> None:
    job = o.job({"phase": "Pending", "reason": "Created"}, storage={"secretName": "s3"})
    made = decide(o.observed(job, o.child(), pods=(o.pod(**pod),)))
    assert made.status is not None
    assert (made.status["reason"], made.status["message"]) == (reason, message)
    assert "phase" not in made.status
    assert made.writes == ()


def test_a_pod_is_given_five_seconds_before_it_is_spoken_of() -> None:
    waiting = {"phase": "Pending", "reason": "Created", "observedGeneration": 1,
               "message": "Waiting for the first pod of Job flowers-train."}  # fmt: skip
    pod = o.pod(created=o.NOW - 1, unschedulable="no node yet")
    made = decide(o.observed(o.job(waiting), o.child(), pods=(pod,)))
    assert made == Plan(again_at=o.NOW + 4)
    starting = o.pod(created=o.NOW - 6)
    made = decide(o.observed(o.job(waiting), o.child(), pods=(starting,)))
    assert made == Plan(again_at=o.NOW + 9)


def test_waiting_keeps_the_phase_that_the_job_had() -> None:
    pod = o.pod(unschedulable="no node")
    made = decide(o.observed(o.job(RUNNING), o.child(), pods=(pod,)))
    assert made.status is not None
    assert "phase" not in made.status


def test_a_pod_whose_container_has_just_ended_is_not_said_to_start() -> None:
    ended = o.pod(ended=(0, "Completed", ""), phase="Running")
    made = decide(o.observed(o.job(RUNNING), o.child(), pods=(ended,)), now=o.NOW + 60)
    assert made == Plan()


def test_a_job_without_pods_is_asked_why_after_ten_seconds_and_then_once_a_minute() -> None:
    job, child = o.job({"phase": "Pending", "reason": "Created"}), o.child()
    assert decide(o.observed(job, child), o.NOW + 9).again_at == o.NOW + 10
    late = o.NOW + 11
    assert decide(o.observed(job, child), late).look == Look("events", "flowers-train", o.CHILD_UID)
    quota = 'pods "flowers-train-" is forbidden: exceeded quota: q, requested: cpu=1'
    asked = {o.CHILD_UID: ChildEvents(quota, late)}
    made = decide(o.observed(job, child, child_events=asked), late + 1)
    assert made.status is not None
    assert made.status["reason"] == "QuotaExceeded"
    assert made.status["message"] == (
        "A quota of the namespace is used up, and Job flowers-train waits: " + quota
    )
    assert made.again_at == late + 60
    assert decide(o.observed(job, child, child_events=asked), late + 61).look is not None
    refused = {o.CHILD_UID: ChildEvents("violates PodSecurity", late)}
    made = decide(o.observed(job, child, child_events=refused), late + 1)
    assert made.status is not None
    assert made.status["message"] == ("Job flowers-train cannot create a pod: violates PodSecurity")


def test_a_name_that_another_holds_is_left_alone_and_tried_again() -> None:
    holder = o.child(owner_kind="CronJob", owner="nightly", owner_uid="other")
    made = decide(o.observed(o.job(), holder))
    assert told(made) == (
        "Pending",
        "NameTaken",
        "A Job named flowers-train exists and belongs to CronJob nightly; it is left alone.",
    )
    assert (made.writes, made.again_at) == ((), o.NOW + 10)
    nobodys = o.child(orphan=True)
    assert "belongs to no RetrainJob" in told(decide(o.observed(o.job(), nobodys)))[2]


def test_the_job_of_an_earlier_retrainjob_of_this_name_is_waited_for() -> None:
    for leftover in (o.child(owner_uid="earlier"), o.child(deleting=True)):
        made = decide(o.observed(o.job(), leftover))
        assert told(made)[1:] == (
            "WaitingForCleanup",
            "An earlier Job flowers-train is still being deleted.",
        )
        assert made.writes == ()


def test_a_child_that_rbac_refuses_is_tried_again_later() -> None:
    refusal = Refusal(403, 'jobs.batch is forbidden: User "x" cannot create', o.NOW)
    seen = o.observed(o.job(), refusals={"flowers-train": refusal})
    made = decide(seen)
    assert told(made)[1:] == (
        "NotPermitted",
        "The operator may not create jobs.batch in namespace team: "
        'jobs.batch is forbidden: User "x" cannot create',
    )
    assert made.again_at == o.NOW + 15
    assert created(decide(seen, o.NOW + 15)) == ["flowers-train"]


def test_a_child_that_is_invalid_fails_the_job_at_once() -> None:
    refusal = Refusal(422, "spec.template.spec.priorityClassName: not found", o.NOW)
    made = decide(o.observed(o.job(), refusals={"flowers-train": refusal}))
    assert told(made) == (
        "Failed",
        "ChildRefused",
        "The API server refused Job flowers-train as invalid: "
        "spec.template.spec.priorityClassName: not found",
    )
