"""What the operator decides, case by case; every sentence word for word."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator import objects as o

from retrainer_operator.case import Change, Create, Look, Remove
from retrainer_operator.plan import NOTHING, Plan, plan
from retrainer_operator.state import ChildEvents, Observed, Refusal, job_of, timestamp

KUEUE = {"kueue.x-k8s.io/queue-name": "gpus", "team": "a"}
RUNNING = {"phase": "Bottlenecks", "reason": "Running", "startTime": timestamp(o.NOW)}


def decide(seen: Observed, now: float = o.NOW, **settings: Any) -> Plan:
    return plan(seen, o.settings(**settings), now)


def told(made: Plan) -> tuple[str, str, str]:
    assert made.status is not None
    return made.status["phase"], made.status["reason"], made.status["message"]


def created(made: Plan) -> list[str]:
    return [w.body["metadata"]["name"] for w in made.writes if isinstance(w, Create)]


# --- the first child ---


def test_a_new_job_gets_its_train_job_and_says_that_it_waits_for_a_pod() -> None:
    made = decide(o.observed(o.job()))
    assert created(made) == ["flowers-train"]
    assert told(made) == ("Pending", "Created", "Waiting for the first pod of Job flowers-train.")
    assert made.notices == ()


def test_a_job_with_shards_gets_its_bottlenecks_job_first() -> None:
    assert created(decide(o.observed(o.job(shards=3)))) == ["flowers-bottlenecks"]


def test_the_train_job_follows_once_all_shards_are_done() -> None:
    made = decide(o.observed(o.job(RUNNING, shards=3), o.complete("bottlenecks")))
    assert created(made) == ["flowers-train"]
    assert made.status is not None
    assert [c["type"] for c in made.status["conditions"]] == ["BottlenecksReady"]


def test_finished_bottlenecks_are_not_computed_again_when_their_job_was_deleted() -> None:
    ready = {"type": "BottlenecksReady", "status": "True", "lastTransitionTime": timestamp(o.NOW)}
    made = decide(o.observed(o.job({**RUNNING, "conditions": [ready]}, shards=3)))
    assert created(made) == ["flowers-train"]


def test_a_deleted_child_is_made_again() -> None:
    assert created(decide(o.observed(o.job(RUNNING)))) == ["flowers-train"]


def test_a_job_that_is_being_deleted_gets_nothing() -> None:
    body = o.job_body()
    body["metadata"]["deletionTimestamp"] = timestamp(o.NOW)
    assert decide(o.observed(job_of(body))) == NOTHING
    assert decide(o.observed(None)) == NOTHING


# --- running and succeeding ---


def test_a_running_pod_without_a_report_is_in_bottlenecks() -> None:
    pod = o.pod(running=True)
    made = decide(o.observed(o.job({"phase": "Pending"}), o.child(), pods=(pod,)))
    assert told(made) == ("Bottlenecks", "Running", "Pod flowers-train-x1 is running.")
    assert made.status is not None
    assert made.status["startTime"] == timestamp(o.NOW)
    assert made.notices == ()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"stage": "Bottlenecks",
             "progress": {"imagesTotal": 1498, "imagesCached": 100, "imagesComputed": 300}},
            ("Bottlenecks", "ComputingBottlenecks",
             "Computing bottlenecks: 400 of 1498 images, 100 from the cache."),
        ),
        (
            {"stage": "Training", "progress": {"step": 120, "steps": 500}},
            ("Training", "TrainingHead", "Training the head: step 120 of 500."),
        ),
        (
            {"stage": "Training", "progress": {"step": 500, "steps": 500}},
            ("Training", "Exporting", "Evaluating and exporting."),
        ),
        (
            {"stage": "Training", "reason": "Exporting", "progress": {"step": 90, "steps": 500}},
            ("Training", "Exporting", "Evaluating and exporting."),
        ),
    ],
)  # fmt: skip
def test_the_phase_follows_the_stage_of_the_report(
    said: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    pod = o.pod(running=True)
    seen = o.observed(
        o.job({"phase": "Pending"}),
        o.child(),
        pods=(pod,),
        reports={pod.uid: o.report(**said)},
    )
    assert told(decide(seen)) == expected


def test_a_complete_train_job_makes_the_job_succeed_with_all_that_its_report_says() -> None:
    pod = o.pod(ended=(0, "Completed", o.FINAL))
    made = decide(o.observed(o.job(RUNNING), o.complete(), pods=(pod,)))
    assert told(made) == (
        "Succeeded", "Succeeded", f"Test accuracy 0.8876 on 165 images; run in {o.RUN}.",
    )  # fmt: skip
    status = o.status_after(o.job(RUNNING), made.status)
    assert status["metrics"]["testAccuracy"] == 0.8876
    assert status["progress"]["percent"] == 100
    assert [p["step"] for p in status["curve"]] == [0, 500]
    assert status["artifacts"] == {"savedModel": "saved_model", "tflite": "model.tflite"}
    assert status["labelCount"] == 5
    assert {c["type"] for c in status["conditions"]} == {"BottlenecksReady", "Complete"}
    assert made.outcome == ("Succeeded", "Succeeded")
    assert [(n.kind, n.reason) for n in made.notices] == [("Normal", "Succeeded")]


def test_without_test_images_the_success_says_so() -> None:
    pod = o.pod(ended=(0, "Completed", o.said(stage="Training")))
    made = decide(o.observed(o.job(RUNNING), o.complete(), pods=(pod,)))
    assert told(made)[2] == f"Trained; no test images, so no test accuracy; run in {o.RUN}."


def test_a_lost_report_is_looked_for_once_and_then_named() -> None:
    child = o.complete()
    made = decide(o.observed(o.job(RUNNING), child))
    assert made == Plan(look=Look("pods", "flowers-train", o.CHILD_UID))
    made = decide(o.observed(o.job(RUNNING), child, listed=frozenset({o.CHILD_UID})))
    assert told(made) == (
        "Succeeded",
        "ReportLost",
        f"Training finished, but its pod is gone with the report: see {o.RUN}/result.json.",
    )


def test_a_report_of_another_job_is_no_report() -> None:
    pod = o.pod(ended=(0, "Completed", o.said(uid="another")))
    listed = frozenset({o.CHILD_UID})
    made = decide(o.observed(o.job(RUNNING), o.complete(), pods=(pod,), listed=listed))
    assert told(made)[1] == "ReportLost"


def test_between_the_pods_end_and_the_jobs_end_nothing_is_written() -> None:
    pod = o.pod(ended=(0, "Completed", o.FINAL))
    made = decide(o.observed(o.job(RUNNING), o.child(), pods=(pod,)))
    assert made == NOTHING


# --- waiting ---


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
        "Job flowers-train cannot create a pod, a quota of the namespace is used up: " + quota
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
            "Job flowers-train of an earlier RetrainJob of this name is still being deleted.",
        )
        assert made.writes == ()


def test_a_child_that_rbac_refuses_is_tried_again_later() -> None:
    refusal = Refusal(403, 'jobs.batch is forbidden: User "x" cannot create', o.NOW + 15)
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
    refusal = Refusal(422, "spec.template.spec.priorityClassName: not found", o.NOW + 15)
    made = decide(o.observed(o.job(), refusals={"flowers-train": refusal}))
    assert told(made) == (
        "Failed",
        "ChildRefused",
        "The API server refused Job flowers-train as invalid: "
        "spec.template.spec.priorityClassName: not found",
    )


# --- failing ---


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
        "Failed 4 times, the last time: exit code 1: Connection reset by peer",
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
    child = o.failed("MaxFailedIndexesExceeded", task="bottlenecks", failures=4)
    made = decide(o.observed(o.job(RUNNING, shards=3), child, pods=(pod,)))
    assert told(made)[1:] == (
        "BackoffLimitExceeded",
        "Failed 4 times, the last time: exit code 1: no route to host",
    )
    assert created(made) == []


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


# --- suspend, Kueue, time ---


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


def test_a_finished_job_is_deleted_when_its_time_is_over_and_not_before() -> None:
    ended = {"phase": "Succeeded", "completionTime": timestamp(o.NOW)}
    job = o.job(ended, ttlSecondsAfterFinished=60)
    assert decide(o.observed(job), o.NOW + 59) == Plan(again_at=o.NOW + 60)
    assert decide(o.observed(job), o.NOW + 60) == Plan(delete=True)
    assert decide(o.observed(o.job(ended)), o.NOW + 1e9) == NOTHING


# --- how often ---


def test_progress_alone_is_written_every_ten_seconds_at_most() -> None:
    pod = o.pod(running=True)
    status = {**RUNNING, "phase": "Training", "reason": "TrainingHead", "observedGeneration": 1,
              "message": "Training the head: step 1 of 500.",
              "conditions": [{"type": "BottlenecksReady", "status": "True",
                              "lastTransitionTime": timestamp(o.NOW)}]}  # fmt: skip
    seen = o.observed(
        o.job(status),
        o.child(),
        pods=(pod,),
        reports={pod.uid: o.report(stage="Training", progress={"step": 90, "steps": 500})},
        progress_written=o.NOW - 4,
    )
    assert decide(seen) == Plan(figures_only=True, again_at=o.NOW + 6)
    made = decide(seen, o.NOW + 6)
    assert made.status is not None
    assert made.status["message"] == "Training the head: step 90 of 500."
    assert made.figures_only


def test_a_change_of_phase_does_not_wait_for_its_turn() -> None:
    pod = o.pod(running=True)
    seen = o.observed(
        o.job({**RUNNING, "observedGeneration": 1}),
        o.child(),
        pods=(pod,),
        reports={pod.uid: o.report(stage="Training", progress={"step": 1, "steps": 500})},
        progress_written=o.NOW,
    )
    made = decide(seen)
    assert told(made)[0] == "Training"
    assert not made.figures_only


def test_the_start_time_alone_is_not_worth_a_write() -> None:
    waiting = {"phase": "Pending", "reason": "Created", "observedGeneration": 1,
               "message": "Waiting for the first pod of Job flowers-train."}  # fmt: skip
    made = decide(o.observed(o.job(waiting), o.child(created=o.NOW)))
    assert made.status is None
