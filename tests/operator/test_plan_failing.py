"""What the operator says of a job that fails; every sentence word for word."""

from __future__ import annotations

import pytest
from tests.operator import objects as o
from tests.operator.deciding import RUNNING, created, decide, told

from retrainer_operator.planning.case import Remove
from retrainer_operator.planning.plan import NOTHING
from retrainer_operator.planning.snapshots import timestamp


def test_exit_64_fails_with_the_trainers_own_sentence_and_reason() -> None:
    message = o.said(reason="BucketNotFound", message="Bucket x (images) does not exist at y.")
    pod = o.pod(ended=(64, "Error", message))
    made = decide(o.observed(o.job(RUNNING), o.failed("PodFailurePolicy"), pods=(pod,)))
    assert told(made) == ("Failed", "BucketNotFound", "Bucket x (images) does not exist at y.")
    assert [(n.kind, n.reason) for n in made.notices] == [("Warning", "BucketNotFound")]


def test_exit_64_without_a_report_gives_the_last_line_of_the_log() -> None:
    pod = o.pod(ended=(64, "Error", "Traceback\n\nretrainer: no images\n"))
    made = decide(o.observed(o.job(RUNNING), o.failed("PodFailurePolicy"), pods=(pod,)))
    assert told(made)[1:] == ("TrainerFailed", "exit code 64: retrainer: no images")


def test_a_reason_that_is_no_word_is_not_taken_over() -> None:
    message = o.said(reason="rm -rf; <b>", message="Something.")
    pod = o.pod(ended=(64, "Error", message))
    made = decide(o.observed(o.job(RUNNING), o.failed("PodFailurePolicy"), pods=(pod,)))
    assert told(made)[1:] == ("TrainerFailed", "Something.")


def test_out_of_memory_names_the_pod_and_its_limit() -> None:
    pods = (
        o.pod("a", ended=(1, "Error", ""), at=o.NOW - 9),
        o.pod("b", ended=(137, "OOMKilled", "")),
    )
    seen = o.observed(o.job(RUNNING), o.failed("BackoffLimitExceeded", failures=4), pods=pods)
    assert told(decide(seen)) == (
        "Failed", "OOMKilled", "Pod b was killed for using more memory than its limit of 4Gi.",
    )  # fmt: skip


def test_the_last_failure_is_told_with_the_number_of_tries() -> None:
    pod = o.pod(ended=(1, "Error", "one\nConnection reset by peer\n"))
    child = o.failed("BackoffLimitExceeded", failures=4)
    made = decide(o.observed(o.job(RUNNING), child, pods=(pod,)))
    assert told(made) == (
        "Failed",
        "BackoffLimitExceeded",
        "Failed 4 times; the last pod: exit code 1: Connection reset by peer",
    )


def test_a_failed_job_without_pods_gives_the_jobs_own_message() -> None:
    child = o.failed("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert decide(o.observed(o.job(RUNNING), child)).look is not None
    made = decide(o.observed(o.job(RUNNING), child, listed=frozenset({o.CHILD_UID})))
    assert told(made)[1:] == (
        "ChildFailed",
        "Job flowers-train failed: Job has reached the specified backoff limit",
    )


def test_the_deadline_is_told_with_its_seconds() -> None:
    job = o.job(RUNNING, activeDeadlineSeconds=60)
    made = decide(o.observed(job, o.failed("DeadlineExceeded")))
    assert told(made)[1:] == (
        "DeadlineExceeded", "Not finished within activeDeadlineSeconds (60 s).",
    )  # fmt: skip


def test_a_failed_shard_fails_the_job() -> None:
    pod = o.pod("s2", shard=2, ended=(1, "Error", "no route to host"))
    child = o.failed("MaxFailedIndexesExceeded", task="bottlenecks", failures=1)
    made = decide(o.observed(o.job(RUNNING, shards=3), child, pods=(pod,)))
    assert told(made)[1:] == (
        "BackoffLimitExceeded",
        "Failed once; the last pod: exit code 1: no route to host",
    )
    assert created(made) == []


def test_pods_that_kubernetes_ended_beside_a_failed_shard_are_not_its_cause() -> None:
    culprits = [o.pod(n, shard=2, ended=(1, "Error", "no route to host")) for n in ("s2a", "s2b")]
    stopped = o.pod("s1", shard=1, ended=(143, "Error", "Interrupted"), at=o.NOW + 9, deleting=True)
    child = o.failed("MaxFailedIndexesExceeded", task="bottlenecks", failures=3)
    seen = o.observed(o.job(RUNNING, shards=3), child, pods=(*culprits, stopped))
    assert told(decide(seen))[2] == "Failed 2 times; the last pod: exit code 1: no route to host"


def test_a_failed_pod_that_will_be_replaced_is_told_of() -> None:
    pod = o.pod(ended=(1, "Error", "Connection reset"))
    made = decide(o.observed(o.job(RUNNING), o.child(failures=1), pods=(pod,)))
    assert made.status is not None
    assert made.status["message"] == (
        "Pod flowers-train-x1 failed and is tried again: exit code 1: Connection reset"
    )
    evicted = o.pod(disrupted="Eviction API: evicting", phase="Failed")
    made = decide(o.observed(o.job(RUNNING), o.child(), pods=(evicted,)))
    assert made.status is not None
    assert "evicted: Eviction API: evicting" in made.status["message"]


@pytest.mark.parametrize("ended", [(64, "Error", ""), (1, "Error", "")])
def test_a_pod_that_will_not_be_replaced_is_not_said_to_be(ended: tuple[int, str, str]) -> None:
    job = o.job(RUNNING, backoffLimit=0)
    assert decide(o.observed(job, o.child(), pods=(o.pod(ended=ended),))) == NOTHING


def test_a_job_that_cannot_be_parsed_fails_with_the_field() -> None:
    made = decide(o.observed(o.job(shards="many")))
    assert told(made) == (
        "Failed", "InvalidSpec", "spec.shards: must be a whole number, got 'many'",
    )  # fmt: skip
    assert made.writes == ()


def test_what_the_installer_did_not_allow_fails_before_anything_runs() -> None:
    made = decide(
        o.observed(o.job(pod={"serviceAccountName": "root"})), trainer_service_account="t"
    )
    assert told(made) == (
        "Failed",
        "NotAllowed",
        "spec.pod.serviceAccountName root is not one of the operator's allowedServiceAccounts (t).",
    )
    made = decide(o.observed(o.job(pod={"labels": {"team/x": "1"}})))
    assert told(made)[2] == (
        "spec.pod.labels has the key team/x, which starts with none of the operator's "
        "allowedPodMetadataPrefixes (none)."
    )
    assert made.writes == ()
    fine = {"labels": {"team/x": "1"}, "serviceAccountName": "t"}
    made = decide(
        o.observed(o.job(pod=fine)),
        trainer_service_account="t",
        allowed_pod_metadata_prefixes=("team/",),
    )
    assert created(made) == ["flowers-train"]


def test_stricter_settings_do_not_fail_a_job_that_runs_already() -> None:
    job = o.job({"phase": "Pending"}, pod={"serviceAccountName": "root"})
    made = decide(o.observed(job, o.child(), pods=(o.pod(running=True),)))
    assert told(made)[0] == "Bottlenecks"


def test_nothing_of_a_failed_job_runs_on() -> None:
    seen = o.observed(o.job(RUNNING, shards="many"), o.child())
    assert decide(seen).writes == (Remove(seen.children[0]),)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_terminal_stays_terminal_whatever_is_seen(phase: str) -> None:
    job = o.job({"phase": phase, "completionTime": timestamp(o.NOW)}, suspend=True)
    for child in (o.child(), o.complete(), o.failed("BackoffLimitExceeded")):
        assert decide(o.observed(job, child)) == NOTHING
    assert decide(o.observed(job)) == NOTHING
