"""Suspension, Kueue, deadlines and the time after the end."""

from __future__ import annotations

from typing import Any

from tests.operator import objects as o
from tests.operator.deciding import KUEUE, RUNNING, created, decide, told

from retrainer_operator.planning.case import Change, Create, Remove
from retrainer_operator.planning.plan import NOTHING, Plan
from retrainer_operator.planning.progress import OverallLimit
from retrainer_operator.planning.snapshots import ChildEvents, Refusal, timestamp


def test_suspend_holds_the_child_and_says_so() -> None:
    seen = o.observed(o.job(RUNNING, suspend=True), o.child(), pods=(o.pod(running=True),))
    made = decide(seen)
    assert made.writes == (Change(seen.children[0], {"suspend": True}),)
    assert told(made) == (
        "Suspended",
        "Suspended",
        "Suspended by spec.suspend; finished bottlenecks are kept.",
    )
    assert made.status is not None
    assert made.status["startTime"] is None


def test_a_suspended_job_without_a_child_gets_none() -> None:
    assert decide(o.observed(o.job(suspend=True))).writes == ()


def test_resume_lets_the_child_run_and_the_condition_turns() -> None:
    status = {"phase": "Suspended", "reason": "Suspended",
              "conditions": [{"type": "Suspended", "status": "True"}]}  # fmt: skip
    seen = o.observed(o.job(status), o.child(suspend=True, start=None))
    made = decide(seen)
    assert made.writes == (Change(seen.children[0], {"suspend": False}),)
    assert made.status is not None
    assert made.status["conditions"][0]["status"] == "False"
    assert [n.reason for n in made.notices] == ["Resumed"]


def test_suspend_in_the_moment_of_success_changes_nothing_about_the_success() -> None:
    pod = o.pod(ended=(0, "Completed", o.FINAL))
    made = decide(o.observed(o.job(RUNNING, suspend=True), o.complete(), pods=(pod,)))
    assert told(made)[0] == "Succeeded"
    assert made.writes == ()


def test_with_a_queue_the_child_is_created_suspended_with_kueues_labels_only() -> None:
    made = decide(o.observed(o.job(labels=KUEUE)))
    (write,) = made.writes
    assert isinstance(write, Create)
    assert write.body["spec"]["suspend"] is True
    labels = write.body["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "team" not in labels
    assert "kueue.x-k8s.io/queue-name" not in write.body["spec"]["template"]["metadata"]["labels"]
    assert told(made) == ("Pending", "Queued", "Job flowers-train waits in Kueue queue gpus.")


def test_a_child_that_kueue_holds_is_never_let_go_by_the_operator() -> None:
    made = decide(o.observed(o.job(RUNNING, labels=KUEUE), o.child(suspend=True, start=None)))
    assert made.writes == ()
    assert told(made)[:2] == ("Pending", "Queued")


def test_suspend_with_a_queue_deletes_the_child_and_resume_makes_it_again() -> None:
    seen = o.observed(o.job(RUNNING, labels=KUEUE, suspend=True), o.child())
    assert decide(seen).writes == (Remove(seen.children[0]),)
    assert created(decide(o.observed(o.job({"phase": "Suspended"}, labels=KUEUE)))) == [
        "flowers-train"
    ]


def test_the_second_child_is_created_with_what_is_left_of_the_deadline() -> None:
    job = o.job(RUNNING, shards=2, activeDeadlineSeconds=100)
    made = decide(o.observed(job, o.complete("bottlenecks")), o.NOW + 30)
    (write,) = made.writes
    assert isinstance(write, Create)
    assert write.body["spec"]["activeDeadlineSeconds"] == 70


def test_a_deadline_that_passed_between_two_children_fails_the_job() -> None:
    job = o.job(RUNNING, shards=2, activeDeadlineSeconds=100)
    made = decide(o.observed(job, o.complete("bottlenecks")), o.NOW + 100)
    assert told(made)[1] == "DeadlineExceeded"
    assert made.writes == ()


def test_a_child_that_kueue_still_holds_goes_with_the_jobs_deadline() -> None:
    """Kubernetes counts no time of a suspended Job: the operator ends it, and nothing is left."""
    job = o.job(RUNNING, labels=KUEUE, shards=2, activeDeadlineSeconds=100)
    held = o.child(suspend=True, start=None, deadline=90)
    seen = o.observed(job, o.complete("bottlenecks", uid="shards"), held)
    assert decide(seen, o.NOW + 99).again_at == o.NOW + 100
    made = decide(seen, o.NOW + 100)
    assert told(made)[1] == "DeadlineExceeded"
    assert made.writes == (Remove(held),)


def test_an_edited_deadline_is_passed_on_to_the_running_child() -> None:
    seen = o.observed(
        o.job(RUNNING, activeDeadlineSeconds=300),
        o.child(deadline=100),
        pods=(o.pod(running=True),),
    )
    made = decide(seen)
    assert made.writes == (Change(seen.children[0], {"activeDeadlineSeconds": 300}),)
    seen = o.observed(o.job(RUNNING), o.child(deadline=100), pods=(o.pod(running=True),))
    assert decide(seen).writes == (Change(seen.children[0], {"activeDeadlineSeconds": None}),)


def test_the_time_starts_anew_when_a_suspended_job_is_resumed() -> None:
    status = {"phase": "Suspended", "reason": "Suspended"}
    job = o.job(status, activeDeadlineSeconds=100)
    child = o.child(deadline=40, suspend=True, start=None)
    made = decide(o.observed(job, child))
    assert made.writes == (Change(child, {"suspend": False, "activeDeadlineSeconds": 100}),)


def test_the_time_that_a_suspended_job_was_held_does_not_count() -> None:
    """Kubernetes before 1.36 keeps the Job's old startTime until it has resumed it."""
    old: dict[str, Any] = {"start": o.NOW - 3600, "conditions": [("Suspended", "JobSuspended", "")]}
    job = o.job({"phase": "Suspended", "reason": "Suspended"}, activeDeadlineSeconds=100)
    for child in (o.child(suspend=True, **old), o.child(**old)):
        made = decide(o.observed(job, child))
        assert made.status is not None
        assert "startTime" not in made.status
    taken_back = o.child(suspend=True, deadline=100, **old)
    seen = o.observed(o.job(RUNNING, labels=KUEUE, activeDeadlineSeconds=100), taken_back)
    assert told(decide(seen, o.NOW + 500))[1] == "Queued"


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    before = o.NOW + 3600
    refusal = Refusal(403, "exceeded quota", before)
    assert created(decide(o.observed(o.job(), refusals={"flowers-train": refusal})))
    events = {o.CHILD_UID: ChildEvents("", before)}
    seen = o.observed(o.job(RUNNING), o.child(), child_events=events)
    assert decide(seen, o.NOW + 60).look is not None
    said = {"uid-of-flowers-train-x1": o.report(progress={"imagesTotal": 9, "imagesCached": 3})}
    seen = o.observed(
        o.job({**RUNNING, "observedGeneration": 1}),
        o.child(),
        pods=(o.pod(running=True),),
        reports=said,
        progress_written=before,
    )
    made = decide(seen)
    assert made.figures_only
    assert made.status is not None
    limit = OverallLimit()
    limit.take(before)
    assert limit.take(o.NOW) == 0


def test_a_finished_job_is_deleted_when_its_time_is_over_and_not_before() -> None:
    ended = {"phase": "Succeeded", "completionTime": timestamp(o.NOW)}
    job = o.job(ended, ttlSecondsAfterFinished=60)
    assert decide(o.observed(job), o.NOW + 59) == Plan(again_at=o.NOW + 60)
    assert decide(o.observed(job), o.NOW + 60) == Plan(delete=True)
    assert decide(o.observed(o.job(ended)), o.NOW + 1e9) == NOTHING
