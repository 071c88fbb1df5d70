"""What the operator says of a job that fails; every sentence word for word."""

from typing import Any

import pytest
from tests.operator.deciding import RUNNING, created_names, decide, summary
from tests.operator.objects import (
    CHILD_UID,
    NOW,
    make_child,
    make_complete_child,
    make_failed_child,
    make_job,
    make_observed,
    make_pod,
    make_report,
)

from retrainer_operator.planning.actions import DeleteChild
from retrainer_operator.planning.plan import NOTHING, Plan
from retrainer_operator.planning.times import format_time


def test_exit_64_fails_with_the_trainers_own_sentence_and_reason() -> None:
    message = make_report(
        reason="BucketNotFound", message="Bucket x (images) does not exist at y."
    ).termination_message()
    pod = make_pod(ended=(64, "Error", message))
    decision = decide(
        make_observed(make_job(RUNNING), make_failed_child("PodFailurePolicy"), pods=(pod,))
    )
    assert summary(decision) == (
        "Failed",
        "BucketNotFound",
        "Bucket x (images) does not exist at y.",
    )
    assert [(n.kind, n.reason) for n in decision.events] == [("Warning", "BucketNotFound")]


def test_exit_64_without_a_report_gives_the_last_line_of_the_log() -> None:
    pod = make_pod(ended=(64, "Error", "Traceback\n\nretrainer: no images\n"))
    decision = decide(
        make_observed(make_job(RUNNING), make_failed_child("PodFailurePolicy"), pods=(pod,))
    )
    assert summary(decision)[1:] == ("TrainerFailed", "exit code 64: retrainer: no images.")


def test_a_reason_that_is_no_word_is_not_taken_over() -> None:
    message = make_report(reason="rm -rf; <b>", message="Something.").termination_message()
    pod = make_pod(ended=(64, "Error", message))
    decision = decide(
        make_observed(make_job(RUNNING), make_failed_child("PodFailurePolicy"), pods=(pod,))
    )
    assert summary(decision)[1:] == ("TrainerFailed", "Something.")


def test_out_of_memory_names_the_pod_and_its_limit() -> None:
    pods = (
        make_pod("a", ended=(1, "Error", ""), ended_at=NOW - 9),
        make_pod("b", ended=(137, "OOMKilled", "")),
    )
    observed = make_observed(
        make_job(RUNNING), make_failed_child("BackoffLimitExceeded", failures=4), pods=pods
    )
    assert summary(decide(observed)) == (
        "Failed", "OOMKilled", "Pod b was killed for using more memory than its limit of 4Gi.",
    )  # fmt: skip


def test_the_last_failure_is_told_with_the_number_of_tries() -> None:
    pod = make_pod(ended=(1, "Error", "one\nConnection reset by peer\n"))
    child = make_failed_child("BackoffLimitExceeded", failures=4)
    decision = decide(make_observed(make_job(RUNNING), child, pods=(pod,)))
    assert summary(decision) == (
        "Failed",
        "BackoffLimitExceeded",
        "Failed 4 times; the last pod: exit code 1: Connection reset by peer.",
    )


def test_a_failed_job_without_pods_gives_the_jobs_own_message() -> None:
    child = make_failed_child("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert decide(make_observed(make_job(RUNNING), child)).look is not None
    decision = decide(make_observed(make_job(RUNNING), child, listed=frozenset({CHILD_UID})))
    assert summary(decision)[1:] == (
        "ChildFailed",
        "Job flowers-train failed: Job has reached the specified backoff limit.",
    )


def test_the_deadline_is_told_with_its_seconds() -> None:
    job = make_job(RUNNING, active_deadline_seconds=60)
    decision = decide(make_observed(job, make_failed_child("DeadlineExceeded")))
    assert summary(decision)[1:] == (
        "DeadlineExceeded", "Not finished within activeDeadlineSeconds (60 s).",
    )  # fmt: skip


def test_a_failed_shard_fails_the_job() -> None:
    pod = make_pod("s2", shard=2, ended=(1, "Error", "no route to host"))
    child = make_failed_child("MaxFailedIndexesExceeded", task="bottlenecks", failures=1)
    decision = decide(make_observed(make_job(RUNNING, shards=3), child, pods=(pod,)))
    assert summary(decision)[1:] == (
        "BackoffLimitExceeded",
        "Failed once; the last pod: exit code 1: no route to host.",
    )
    assert created_names(decision) == []


def test_pods_that_kubernetes_ended_beside_a_failed_shard_are_not_its_cause() -> None:
    culprits = [
        make_pod(n, shard=2, ended=(1, "Error", "no route to host")) for n in ("s2a", "s2b")
    ]
    stopped = make_pod(
        "s1", shard=1, ended=(143, "Error", "Interrupted"), ended_at=NOW + 9, deleting=True
    )
    child = make_failed_child("MaxFailedIndexesExceeded", task="bottlenecks", failures=3)
    observed = make_observed(make_job(RUNNING, shards=3), child, pods=(*culprits, stopped))
    assert (
        summary(decide(observed))[2]
        == "Failed 2 times; the last pod: exit code 1: no route to host."
    )


def test_a_failed_pod_that_will_be_replaced_is_told_of() -> None:
    pod = make_pod(ended=(1, "Error", "Connection reset"))
    decision = decide(make_observed(make_job(RUNNING), make_child(failures=1), pods=(pod,)))
    assert decision.status is not None
    assert decision.status["message"] == (
        "Pod flowers-train-x1 failed and is tried again: exit code 1: Connection reset."
    )
    evicted = make_pod(disrupted="Eviction API: evicting", phase="Failed")
    decision = decide(make_observed(make_job(RUNNING), make_child(), pods=(evicted,)))
    assert decision.status is not None
    assert "evicted: Eviction API: evicting" in decision.status["message"]


@pytest.mark.parametrize("ended", [(64, "Error", ""), (1, "Error", "")])
def test_a_pod_that_will_not_be_replaced_is_not_said_to_be(ended: tuple[int, str, str]) -> None:
    job = make_job(RUNNING, backoff_limit=0)
    assert decide(make_observed(job, make_child(), pods=(make_pod(ended=ended),))) == NOTHING


def test_a_job_that_cannot_be_parsed_fails_with_the_field() -> None:
    decision = decide(make_observed(make_job(shards="many")))
    assert summary(decision) == (
        "Failed", "InvalidSpec", "spec.shards: must be a whole number, got 'many'.",
    )  # fmt: skip
    assert decision.writes == ()


def test_what_the_installer_did_not_allow_fails_before_anything_runs() -> None:
    decision = decide(
        make_observed(make_job(pod={"serviceAccountName": "root"})), trainer_service_account="t"
    )
    assert summary(decision) == (
        "Failed",
        "NotAllowed",
        "spec.pod.serviceAccountName root is not one of the operator's allowedServiceAccounts (t).",
    )
    decision = decide(make_observed(make_job(pod={"labels": {"team/x": "1"}})))
    assert summary(decision)[2] == (
        "spec.pod.labels has the key team/x, which starts with none of the operator's "
        "allowedPodMetadataPrefixes (none)."
    )
    assert decision.writes == ()
    fine = {"labels": {"team/x": "1"}, "serviceAccountName": "t"}
    decision = decide(
        make_observed(make_job(pod=fine)),
        trainer_service_account="t",
        allowed_pod_metadata_prefixes=("team/",),
    )
    assert created_names(decision) == ["flowers-train"]


def test_stricter_settings_do_not_fail_a_job_that_runs_already() -> None:
    job = make_job({"phase": "Pending"}, pod={"serviceAccountName": "root"})
    decision = decide(make_observed(job, make_child(), pods=(make_pod(running=True),)))
    assert summary(decision)[0] == "Bottlenecks"


def test_nothing_of_a_failed_job_runs_on() -> None:
    observed = make_observed(make_job(RUNNING, shards="many"), make_child())
    assert decide(observed).writes == (DeleteChild(observed.children[0]),)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_terminal_stays_terminal_whatever_is_seen(phase: str) -> None:
    job = make_job({"phase": phase, "completionTime": format_time(NOW)}, suspend=True)
    for child in (make_complete_child(), make_failed_child("BackoffLimitExceeded")):
        assert decide(make_observed(job, child)) == NOTHING
    assert decide(make_observed(job)) == NOTHING
    late = make_child()
    # And once more, for its time to live.
    assert decide(make_observed(job, late)) == Plan(writes=(DeleteChild(late),), again_at=NOW)


def test_a_deadline_that_was_taken_off_after_it_passed_is_not_told_as_none() -> None:
    message = "Job was active longer than specified deadline"
    decision = decide(
        make_observed(make_job(RUNNING), make_failed_child("DeadlineExceeded", message))
    )
    assert summary(decision)[1:] == ("ChildFailed", f"Job flowers-train failed: {message}.")


@pytest.mark.parametrize(
    ("spec", "settings", "sentence"),
    [
        (
            {"pod": {"priorityClassName": "high"}},
            {"trainer_scheduling": {"priorityClassName": "low"}},
            "spec.pod.priorityClassName high is not one of the operator's allowedPriorityClasses (low).",
        ),
        (
            {"pod": {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b"}]}},
            {"allowed_toleration_keys": ("a",)},
            "spec.pod.tolerations tolerates the taint b, which the operator's allowedTolerationKeys do "
            "not allow (a).",
        ),
        (
            {"pod": {"tolerations": [{"operator": "Exists"}]}},
            {},
            "spec.pod.tolerations tolerates every taint, which the operator's allowedTolerationKeys do "
            "not allow (none).",
        ),
        ({"shards": 101}, {}, "spec.shards is 101, and the operator's maxShards is 100."),
    ],
)
def test_what_would_push_others_aside_needs_the_installers_leave(
    spec: dict[str, Any], settings: dict[str, Any], sentence: str
) -> None:
    decision = decide(make_observed(make_job(**spec)), **settings)
    assert summary(decision) == ("Failed", "NotAllowed", sentence)
    assert decision.writes == ()


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        ({"pod": {"priorityClassName": "high"}}, {"allowed_priority_classes": ("high",)}),
        (
            {"pod": {"priorityClassName": "low"}},
            {"trainer_scheduling": {"priorityClassName": "low"}},
        ),
        ({"pod": {"tolerations": [{"key": "a"}]}}, {"allowed_toleration_keys": ("a",)}),
        (
            {"pod": {"tolerations": [{"key": "a"}]}},
            {"trainer_scheduling": {"tolerations": [{"key": "a"}]}},
        ),
        ({"pod": {"tolerations": [{"operator": "Exists"}]}}, {"allowed_toleration_keys": ("*",)}),
        ({"shards": 101}, {"max_shards": 101}),
    ],
)
def test_what_the_installer_allows_runs(spec: dict[str, Any], settings: dict[str, Any]) -> None:
    assert len(created_names(decide(make_observed(make_job(**spec)), **settings))) == 1
