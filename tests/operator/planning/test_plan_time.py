"""Suspension, Kueue, deadlines and the time after the end."""

from typing import Any

from tests.operator.deciding import KUEUE, RUNNING, created_names, decide, summary
from tests.operator.objects import (
    CHILD_UID,
    FINAL,
    NOW,
    make_child,
    make_complete_child,
    make_failed_child,
    make_job,
    make_observed,
    make_pod,
    make_report,
)

from retrainer_operator.planning.actions import CreateChild, DeleteChild, PatchChild
from retrainer_operator.planning.plan import NOTHING, Plan
from retrainer_operator.planning.snapshots import ChildEvents, Refusal
from retrainer_operator.planning.times import format_time
from retrainer_operator.reconciling.rate import OverallLimit


def test_suspend_holds_the_child_and_says_so() -> None:
    observed = make_observed(
        make_job(RUNNING, suspend=True), make_child(), pods=(make_pod(running=True),)
    )
    decision = decide(observed)
    assert decision.writes == (PatchChild(observed.children[0], {"suspend": True}),)
    assert summary(decision) == (
        "Suspended",
        "Suspended",
        "Suspended by spec.suspend; finished bottlenecks are kept.",
    )
    assert decision.status is not None
    assert decision.status["startTime"] is None


def test_a_suspended_job_without_a_child_gets_none() -> None:
    assert decide(make_observed(make_job(suspend=True))).writes == ()


def test_resume_lets_the_child_run_and_the_condition_turns() -> None:
    status = {"phase": "Suspended", "reason": "Suspended",
              "conditions": [{"type": "Suspended", "status": "True"}]}  # fmt: skip
    observed = make_observed(make_job(status), make_child(suspend=True, start=None, queue="gpus"))
    decision = decide(observed)
    assert decision.writes == (PatchChild(observed.children[0], {"suspend": False}),)
    assert decision.status is not None
    assert decision.status["conditions"][0]["status"] == "False"
    assert [n.reason for n in decision.events] == ["Resumed"]


def test_suspend_in_the_moment_of_success_changes_nothing_about_the_success() -> None:
    pod = make_pod(ended=(0, "Completed", FINAL))
    decision = decide(
        make_observed(make_job(RUNNING, suspend=True), make_complete_child(), pods=(pod,))
    )
    assert summary(decision)[0] == "Succeeded"
    assert decision.writes == ()


def test_with_a_queue_the_child_is_created_suspended_with_kueues_labels_only() -> None:
    decision = decide(make_observed(make_job(labels=KUEUE)))
    (write,) = decision.writes
    assert isinstance(write, CreateChild)
    assert write.body["spec"]["suspend"] is True
    labels = write.body["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "team" not in labels
    assert "kueue.x-k8s.io/queue-name" not in write.body["spec"]["template"]["metadata"]["labels"]
    assert summary(decision) == (
        "Pending",
        "Queued",
        "Job flowers-train waits in Kueue queue gpus.",
    )


def test_a_child_that_kueue_holds_is_never_let_go_by_the_operator() -> None:
    decision = decide(
        make_observed(
            make_job(RUNNING, labels=KUEUE), make_child(suspend=True, start=None, queue="gpus")
        )
    )
    assert decision.writes == ()
    assert summary(decision)[:2] == ("Pending", "Queued")


def test_suspend_with_a_queue_deletes_the_child_and_resume_makes_it_again() -> None:
    observed = make_observed(make_job(RUNNING, labels=KUEUE, suspend=True), make_child())
    assert decide(observed).writes == (DeleteChild(observed.children[0]),)
    assert created_names(decide(make_observed(make_job({"phase": "Suspended"}, labels=KUEUE)))) == [
        "flowers-train"
    ]


def test_the_second_child_is_created_with_what_is_left_of_the_deadline() -> None:
    job = make_job(RUNNING, shards=2, active_deadline_seconds=100)
    decision = decide(make_observed(job, make_complete_child("bottlenecks")), NOW + 30)
    (write,) = decision.writes
    assert isinstance(write, CreateChild)
    assert write.body["spec"]["activeDeadlineSeconds"] == 70


def test_a_deadline_that_passed_between_two_children_fails_the_job() -> None:
    job = make_job(RUNNING, shards=2, active_deadline_seconds=100)
    decision = decide(make_observed(job, make_complete_child("bottlenecks")), NOW + 100)
    assert summary(decision)[1] == "DeadlineExceeded"
    assert decision.writes == ()


def test_a_child_that_kueue_still_holds_goes_with_the_jobs_deadline() -> None:
    """Kubernetes counts no time of a suspended Job: the operator ends it, and nothing is left."""
    job = make_job(RUNNING, labels=KUEUE, shards=2, active_deadline_seconds=100)
    queued = make_child(suspend=True, start=None, deadline=90)
    observed = make_observed(job, make_complete_child("bottlenecks", uid="shards"), queued)
    assert decide(observed, NOW + 99).again_at == NOW + 100
    decision = decide(observed, NOW + 100)
    assert summary(decision)[1] == "DeadlineExceeded"
    assert decision.writes == (DeleteChild(queued),)


def test_an_edited_deadline_is_passed_on_to_the_running_child() -> None:
    observed = make_observed(
        make_job(RUNNING, active_deadline_seconds=300),
        make_child(deadline=100),
        pods=(make_pod(running=True),),
    )
    decision = decide(observed)
    assert decision.writes == (PatchChild(observed.children[0], {"activeDeadlineSeconds": 300}),)
    observed = make_observed(
        make_job(RUNNING), make_child(deadline=100), pods=(make_pod(running=True),)
    )
    assert decide(observed).writes == (
        PatchChild(observed.children[0], {"activeDeadlineSeconds": None}),
    )


def test_the_time_starts_anew_when_a_suspended_job_is_resumed() -> None:
    status = {"phase": "Suspended", "reason": "Suspended"}
    job = make_job(status, active_deadline_seconds=100)
    child = make_child(deadline=40, suspend=True, start=None)
    decision = decide(make_observed(job, child))
    assert decision.writes == (PatchChild(child, {"suspend": False, "activeDeadlineSeconds": 100}),)


def test_the_time_that_a_suspended_job_was_held_does_not_count() -> None:
    """Kubernetes before 1.36 keeps the Job's old startTime until it has resumed it."""
    old: dict[str, Any] = {"start": NOW - 3600, "conditions": [("Suspended", "JobSuspended", "")]}
    job = make_job({"phase": "Suspended", "reason": "Suspended"}, active_deadline_seconds=100)
    for child in (make_child(suspend=True, **old), make_child(**old)):
        decision = decide(make_observed(job, child))
        assert decision.status is not None
        assert "startTime" not in decision.status
    taken_back = make_child(suspend=True, deadline=100, **old)
    observed = make_observed(
        make_job(RUNNING, labels=KUEUE, active_deadline_seconds=100), taken_back
    )
    assert summary(decide(observed, NOW + 500))[1] == "Queued"


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    before = NOW + 3600
    refusal = Refusal(403, "exceeded quota", before)
    assert created_names(decide(make_observed(make_job(), refusals={"flowers-train": refusal})))
    events = {CHILD_UID: ChildEvents("", before)}
    observed = make_observed(make_job(RUNNING), make_child(), child_events=events)
    assert decide(observed, NOW + 60).look is not None
    reports = {
        "uid-of-flowers-train-x1": make_report(progress={"imagesTotal": 9, "imagesCached": 3})
    }
    observed = make_observed(
        make_job({**RUNNING, "observedGeneration": 1}),
        make_child(),
        pods=(make_pod(running=True),),
        reports=reports,
        progress_written=before,
    )
    decision = decide(observed)
    assert decision.figures_only
    assert decision.status is not None
    limit = OverallLimit()
    limit.take(before)
    assert limit.take(NOW) == 0


def test_a_finished_job_is_deleted_when_its_time_is_over_and_not_before() -> None:
    ended = {"phase": "Succeeded", "completionTime": format_time(NOW)}
    job = make_job(ended, ttl_seconds_after_finished=60)
    assert decide(make_observed(job), NOW + 59) == Plan(again_at=NOW + 60)
    assert decide(make_observed(job), NOW + 60) == Plan(delete=True)
    assert decide(make_observed(make_job(ended)), NOW + 1e9) == NOTHING


def test_a_job_ends_when_its_child_did_however_late_that_is_seen() -> None:
    pod = make_pod(ended=(0, "Completed", FINAL))
    child = make_complete_child(completed=NOW + 30)
    decision = decide(make_observed(make_job(RUNNING), child, pods=(pod,)), NOW + 3600)
    assert decision.status is not None
    assert decision.status["completionTime"] == format_time(NOW + 30)
    failed = make_failed_child("DeadlineExceeded", completed=NOW + 31, deadline=31)
    decision = decide(make_observed(make_job(RUNNING), failed), NOW + 3600)
    assert decision.status is not None
    assert decision.status["completionTime"] == format_time(NOW + 31)


def test_no_job_ends_before_it_started() -> None:
    job = make_job(RUNNING, labels=KUEUE, shards=2, active_deadline_seconds=100)
    shards = make_complete_child("bottlenecks", completed=NOW - 600)
    decision = decide(make_observed(make_job(RUNNING, shards="many"), shards), NOW - 600)
    assert decision.status is not None
    assert decision.status["completionTime"] == format_time(NOW)
    early = make_complete_child(completed=NOW - 600)
    pod = make_pod(ended=(0, "Completed", FINAL))
    decision = decide(make_observed(job, early, pods=(pod,)), NOW)
    assert decision.status is not None
    assert decision.status["completionTime"] == format_time(NOW)
