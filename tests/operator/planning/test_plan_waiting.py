"""What the operator says of a job that waits; every sentence word for word."""

from typing import Any

import pytest
from tests.operator.deciding import RUNNING, created_names, decide, summary
from tests.operator.objects import CHILD_UID, NOW, make_child, make_job, make_observed, make_pod

from retrainer_operator.planning.actions import Look
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
            "Back-off pulling image \"x\".",
        ),
        (
            {"waiting": ("CreateContainerConfigError", 'secret "s3" not found')},
            "SecretMissing",
            "Pod flowers-train-x1 waits for Secret s3 with AWS_ACCESS_KEY_ID and "
            'AWS_SECRET_ACCESS_KEY: secret "s3" not found.',
        ),
        (
            {"waiting": ("CreateContainerError", "no such device")},
            "PodBlocked",
            "Pod flowers-train-x1 cannot start: no such device.",
        ),
        ({"waiting": ("ContainerCreating", "")}, "PodStarting", "Pod flowers-train-x1 is starting."),
    ],
)  # fmt: skip
def test_a_pod_that_waits_is_told_of_in_one_sentence(
    pod: dict[str, Any], reason: str, message: str
) -> None:
    job = make_job({"phase": "Pending", "reason": "Created"}, storage={"secretName": "s3"})
    decision = decide(make_observed(job, make_child(), pods=(make_pod(**pod),)))
    assert decision.status is not None
    assert (decision.status["reason"], decision.status["message"]) == (reason, message)
    assert "phase" not in decision.status
    assert decision.writes == ()


def test_a_pod_is_given_five_seconds_before_it_is_spoken_of() -> None:
    waiting = {"phase": "Pending", "reason": "Created", "observedGeneration": 1,
               "message": "Waiting for the first pod of Job flowers-train."}  # fmt: skip
    pod = make_pod(created=NOW - 1, unschedulable="no node yet")
    decision = decide(make_observed(make_job(waiting), make_child(), pods=(pod,)))
    assert decision == Plan(again_at=NOW + 4)
    starting = make_pod(created=NOW - 6)
    decision = decide(make_observed(make_job(waiting), make_child(), pods=(starting,)))
    assert decision == Plan(again_at=NOW + 9)


def test_waiting_keeps_the_phase_that_the_job_had() -> None:
    pod = make_pod(unschedulable="no node")
    decision = decide(make_observed(make_job(RUNNING), make_child(), pods=(pod,)))
    assert decision.status is not None
    assert "phase" not in decision.status


def test_a_pod_whose_container_has_just_ended_is_not_said_to_start() -> None:
    ended = make_pod(ended=(0, "Completed", ""), phase="Running")
    decision = decide(make_observed(make_job(RUNNING), make_child(), pods=(ended,)), now=NOW + 60)
    assert decision == Plan()


def test_a_job_without_pods_is_asked_why_after_ten_seconds_and_then_once_a_minute() -> None:
    job, child = make_job({"phase": "Pending", "reason": "Created"}), make_child()
    assert decide(make_observed(job, child), NOW + 9).again_at == NOW + 10
    late = NOW + 11
    assert decide(make_observed(job, child), late).look == Look(
        "events", "flowers-train", CHILD_UID
    )
    quota = 'pods "flowers-train-" is forbidden: exceeded quota: q, requested: cpu=1'
    asked = {CHILD_UID: ChildEvents(quota, late)}
    decision = decide(make_observed(job, child, child_events=asked), late + 1)
    assert decision.status is not None
    assert decision.status["reason"] == "QuotaExceeded"
    assert decision.status["message"] == (
        "A quota of the namespace is used up, and Job flowers-train waits: " + quota + "."
    )
    assert decision.again_at == late + 60
    assert decide(make_observed(job, child, child_events=asked), late + 61).look is not None
    refused = {CHILD_UID: ChildEvents("violates PodSecurity", late)}
    decision = decide(make_observed(job, child, child_events=refused), late + 1)
    assert decision.status is not None
    assert decision.status["message"] == (
        "Job flowers-train cannot create a pod: violates PodSecurity."
    )


def test_a_name_that_another_holds_is_left_alone_and_tried_again() -> None:
    holder = make_child(owner_kind="CronJob", owner="nightly", owner_uid="other")
    decision = decide(make_observed(make_job(), holder))
    assert summary(decision) == (
        "Pending",
        "NameTaken",
        "A Job named flowers-train exists and belongs to CronJob nightly; it is left alone.",
    )
    assert (decision.writes, decision.again_at) == ((), NOW + 10)
    nobodys = make_child(orphan=True, labels={}, template={})
    assert "belongs to no RetrainJob" in summary(decide(make_observed(make_job(), nobodys)))[2]


def test_the_job_of_an_earlier_retrainjob_of_this_name_is_waited_for() -> None:
    for leftover in (make_child(owner_uid="earlier"), make_child(deleting=True)):
        decision = decide(make_observed(make_job(), leftover))
        assert summary(decision)[1:] == (
            "WaitingForCleanup",
            "An earlier Job flowers-train is still being deleted.",
        )
        assert decision.writes == ()


def test_a_child_that_rbac_refuses_is_tried_again_later() -> None:
    refusal = Refusal(403, 'jobs.batch is forbidden: User "x" cannot create', NOW)
    observed = make_observed(make_job(), refusals={"flowers-train": refusal})
    decision = decide(observed)
    assert summary(decision)[1:] == (
        "NotPermitted",
        "The operator may not create jobs.batch in namespace team: "
        'jobs.batch is forbidden: User "x" cannot create.',
    )
    assert decision.again_at == NOW + 15
    assert created_names(decide(observed, NOW + 15)) == ["flowers-train"]


def test_a_child_that_is_invalid_fails_the_job_at_once() -> None:
    refusal = Refusal(422, "spec.template.spec.priorityClassName: not found", NOW)
    decision = decide(make_observed(make_job(), refusals={"flowers-train": refusal}))
    assert summary(decision) == (
        "Failed",
        "ChildRefused",
        "The API server refused Job flowers-train as invalid: "
        "spec.template.spec.priorityClassName: not found.",
    )
