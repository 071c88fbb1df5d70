"""What the operator decides: the first child, the run, the success, how often it writes."""

import json
from typing import Any

import pytest
from tests.operator.deciding import RUNNING, created_names, decide, summary
from tests.operator.objects import (
    CHILD_UID,
    FINAL,
    NOW,
    RUN,
    UID,
    child_labels,
    make_child,
    make_complete_child,
    make_job,
    make_job_body,
    make_observed,
    make_pod,
    make_report,
    make_settings,
    status_after,
)

from retrainer.api import Pod, RetrainJob
from retrainer_operator.planning import children
from retrainer_operator.planning.actions import CreateChild, Look, RestoreChild
from retrainer_operator.planning.objects import read_job
from retrainer_operator.planning.plan import NOTHING, Plan
from retrainer_operator.planning.reports import parse_report
from retrainer_operator.planning.times import format_time


def test_a_new_job_gets_its_train_job_and_says_that_it_waits_for_a_pod() -> None:
    decision = decide(make_observed(make_job()))
    assert created_names(decision) == ["flowers-train"]
    assert summary(decision) == (
        "Pending",
        "Created",
        "Waiting for the first pod of Job flowers-train.",
    )
    assert decision.events == ()


def test_the_operators_scheduling_holds_for_what_the_job_does_not_say() -> None:
    usual = Pod.model_validate(
        {
            "nodeSelector": {"pool": "training"},
            "tolerations": [{"key": "training", "operator": "Exists"}],
            "priorityClassName": "low",
        }
    )
    job = make_job(pod={"nodeSelector": {"pool": "gpus"}})
    (write,) = decide(make_observed(job), trainer_scheduling=usual).writes
    assert isinstance(write, CreateChild)
    pod = write.body["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpus"}
    assert pod["tolerations"] == [{"key": "training", "operator": "Exists"}]
    assert pod["priorityClassName"] == "low"
    assert "affinity" not in pod


def test_a_job_with_shards_gets_its_bottlenecks_job_first() -> None:
    assert created_names(decide(make_observed(make_job(shards=3)))) == ["flowers-bottlenecks"]


def test_the_train_job_follows_once_all_shards_are_done() -> None:
    decision = decide(
        make_observed(make_job(RUNNING, shards=3), make_complete_child("bottlenecks"))
    )
    assert created_names(decision) == ["flowers-train"]
    assert decision.status is not None
    assert [c["type"] for c in decision.status["conditions"]] == ["BottlenecksReady"]


def test_finished_bottlenecks_are_not_computed_again_when_their_job_was_deleted() -> None:
    ready = {"type": "BottlenecksReady", "status": "True", "lastTransitionTime": format_time(NOW)}
    decision = decide(make_observed(make_job({**RUNNING, "conditions": [ready]}, shards=3)))
    assert created_names(decision) == ["flowers-train"]


def test_a_deleted_child_is_made_again() -> None:
    assert created_names(decide(make_observed(make_job(RUNNING)))) == ["flowers-train"]


def test_a_job_that_is_being_deleted_gets_nothing() -> None:
    body = make_job_body()
    body["metadata"]["deletionTimestamp"] = format_time(NOW)
    assert decide(make_observed(read_job(body))) == NOTHING
    assert decide(make_observed(None)) == NOTHING


def test_a_running_pod_without_a_report_is_in_bottlenecks() -> None:
    pod = make_pod(running=True)
    decision = decide(make_observed(make_job({"phase": "Pending"}), make_child(), pods=(pod,)))
    assert summary(decision) == ("Bottlenecks", "Running", "Pod flowers-train-x1 is running.")
    assert decision.status is not None
    assert decision.status["startTime"] == format_time(NOW)
    assert decision.events == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
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
    fields: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    pod = make_pod(running=True)
    observed = make_observed(
        make_job({"phase": "Pending"}),
        make_child(),
        pods=(pod,),
        reports={pod.uid: make_report(**fields)},
    )
    assert summary(decide(observed)) == expected


def test_a_complete_train_job_makes_the_job_succeed_with_all_that_its_report_says() -> None:
    pod = make_pod(ended=(0, "Completed", FINAL))
    decision = decide(make_observed(make_job(RUNNING), make_complete_child(), pods=(pod,)))
    assert summary(decision) == (
        "Succeeded", "Succeeded", f"Test accuracy 88.8% on 165 images; run in {RUN}.",
    )  # fmt: skip
    status = status_after(make_job(RUNNING), decision.status)
    assert status["metrics"]["testAccuracy"] == 0.8876
    assert status["metrics"]["accuracy"] == "88.8%"
    assert status["progress"]["percent"] == 100
    assert [p["step"] for p in status["curve"]] == [0, 500]
    assert status["artifacts"] == {"savedModel": "saved_model", "tflite": "model.tflite"}
    assert status["labelCount"] == 5
    assert {c["type"] for c in status["conditions"]} == {"BottlenecksReady", "Complete"}
    assert decision.outcome == ("Succeeded", "Succeeded")
    assert [(n.kind, n.reason) for n in decision.events] == [("Normal", "Succeeded")]


def test_without_test_images_the_success_says_so() -> None:
    pod = make_pod(ended=(0, "Completed", make_report(stage="Training").termination_message()))
    decision = decide(make_observed(make_job(RUNNING), make_complete_child(), pods=(pod,)))
    assert summary(decision)[2] == f"Trained; no test images, so no test accuracy; run in {RUN}."


def test_a_lost_report_is_looked_for_once_and_then_named() -> None:
    child = make_complete_child()
    decision = decide(make_observed(make_job(RUNNING), child))
    assert decision == Plan(look=Look("pods", "flowers-train", CHILD_UID))
    decision = decide(make_observed(make_job(RUNNING), child, listed=frozenset({CHILD_UID})))
    assert summary(decision) == (
        "Succeeded",
        "ReportLost",
        f"Training finished, but its pod is gone with the report: see {RUN}/result.json.",
    )


def test_a_report_of_another_job_is_no_report() -> None:
    pod = make_pod(ended=(0, "Completed", make_report(uid="another").termination_message()))
    listed = frozenset({CHILD_UID})
    decision = decide(
        make_observed(make_job(RUNNING), make_complete_child(), pods=(pod,), listed=listed)
    )
    assert summary(decision)[1] == "ReportLost"


def test_between_the_pods_end_and_the_jobs_end_nothing_is_written() -> None:
    pod = make_pod(ended=(0, "Completed", FINAL))
    decision = decide(make_observed(make_job(RUNNING), make_child(), pods=(pod,)))
    assert decision == NOTHING


def test_progress_alone_is_written_every_ten_seconds_at_most() -> None:
    pod = make_pod(running=True)
    status = {**RUNNING, "phase": "Training", "reason": "TrainingHead", "observedGeneration": 1,
              "message": "Training the head: step 1 of 500.",
              "conditions": [{"type": "BottlenecksReady", "status": "True",
                              "lastTransitionTime": format_time(NOW)}]}  # fmt: skip
    observed = make_observed(
        make_job(status),
        make_child(),
        pods=(pod,),
        reports={pod.uid: make_report(stage="Training", progress={"step": 90, "steps": 500})},
        progress_written=NOW - 4,
    )
    assert decide(observed) == Plan(figures_only=True, again_at=NOW + 6)
    decision = decide(observed, NOW + 6)
    assert decision.status is not None
    assert decision.status["message"] == "Training the head: step 90 of 500."
    assert decision.figures_only


def test_a_change_of_phase_does_not_wait_for_its_turn() -> None:
    pod = make_pod(running=True)
    observed = make_observed(
        make_job({**RUNNING, "observedGeneration": 1}),
        make_child(),
        pods=(pod,),
        reports={pod.uid: make_report(stage="Training", progress={"step": 1, "steps": 500})},
        progress_written=NOW,
    )
    decision = decide(observed)
    assert summary(decision)[0] == "Training"
    assert not decision.figures_only


def test_the_start_time_alone_is_not_worth_a_write() -> None:
    waiting = {"phase": "Pending", "reason": "Created", "observedGeneration": 1,
               "message": "Waiting for the first pod of Job flowers-train."}  # fmt: skip
    decision = decide(make_observed(make_job(waiting), make_child(created=NOW)))
    assert decision.status is None


@pytest.mark.parametrize("orphan", [False, True])
@pytest.mark.parametrize("label", sorted(child_labels()))
def test_a_child_whose_labels_or_owner_were_changed_gets_them_back(
    label: str, orphan: bool
) -> None:
    labels = child_labels() | {label: "another"}
    child = make_child(labels=labels, orphan=orphan)
    decision = decide(make_observed(make_job(RUNNING), child, pods=(make_pod(running=True),)))
    (write,) = decision.writes
    assert isinstance(write, RestoreChild)
    assert write.labels == child_labels()
    assert (write.owner["kind"], write.owner["uid"]) == ("RetrainJob", UID)
    assert summary(decision)[2] == "Pod flowers-train-x1 is running.", "the job goes on meanwhile"


def test_a_child_that_left_its_watch_is_read_before_anything_is_decided() -> None:
    observed = make_observed(make_job(RUNNING), unread=frozenset({"flowers-train"}))
    assert decide(observed) == Plan(look=Look("child", "flowers-train", ""))


def test_conditions_of_other_controllers_stay_as_they_were_written() -> None:
    """An empty time that was sent back for one that had none is refused, each time anew."""
    foreign = {"type": "Approved", "status": "True"}
    status = {**RUNNING, "conditions": [foreign]}
    decision = decide(make_observed(make_job(status), make_child(), pods=(make_pod(running=True),)))
    assert decision.status is not None
    assert "conditions" not in decision.status, "nothing of them has changed"
    pod = make_pod(ended=(0, "Completed", FINAL))
    decision = decide(make_observed(make_job(status), make_complete_child(), pods=(pod,)))
    assert decision.status is not None
    first, *own = decision.status["conditions"]
    assert first == foreign
    assert {c["type"] for c in own} >= {"BottlenecksReady", "Complete"}
    assert all(c["lastTransitionTime"] for c in own)


def test_as_many_conditions_as_others_may_write_leave_room_for_the_jobs_own() -> None:
    foreign = [{"type": f"Check{n}", "status": "True", "reason": "Fine"} for n in range(16)]
    pod = make_pod(ended=(0, "Completed", FINAL))
    job = make_job({**RUNNING, "conditions": foreign})
    decision = decide(make_observed(job, make_complete_child(), pods=(pod,)))
    assert decision.status is not None
    types = [c["type"] for c in decision.status["conditions"]]
    assert len(types) == 16
    assert {"BottlenecksReady", "Complete"} <= set(types)


def test_a_status_that_a_later_version_wrote_is_read_without_what_is_new_in_it() -> None:
    ready = {"type": "BottlenecksReady", "status": "True", "lastTransitionTime": format_time(NOW)}
    status = {**RUNNING, "conditions": [{**ready, "severity": "Info"}], "progress": {"epochs": 3}}
    decision = decide(make_observed(make_job(status, shards=3)))
    assert created_names(decision) == ["flowers-train"], "the bottlenecks are not computed again"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            {"requests": {"cpu": "4"}},
            {"requests": {"memory": "2Gi", "cpu": "4"},
             "limits": {"memory": "4Gi", "ephemeral-storage": "8Gi"}},
        ),
        (
            {"requests": {"memory": "9Gi"}},
            {"requests": {"cpu": "1", "memory": "9Gi"}, "limits": {"ephemeral-storage": "8Gi"}},
        ),
        (
            {"limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}},
            {"requests": {"cpu": "1"},
             "limits": {"ephemeral-storage": "8Gi", "memory": "1Gi", "nvidia.com/gpu": "1"}},
        ),
    ],
)  # fmt: skip
def test_a_job_keeps_the_operators_resources_for_what_it_does_not_name(
    asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A job that gave only cpu ran without any limit of memory and of the node's disk."""
    (write,) = decide(make_observed(make_job(pod={"resources": asked}))).writes
    assert isinstance(write, CreateChild)
    (container,) = write.body["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == expected


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        ({}, "example.com/trainer:1"),
        ({"export": ["savedModel", "tflite", "frozenGraph", "onnx"]}, "example.com/trainer:1"),
        ({"export": ["keras"]}, "example.com/trainer-tensorflow:1"),
        ({"export": ["tflite", "tfliteInt8"]}, "example.com/trainer-tensorflow:1"),
        ({"architecture": "mobilenet_0.50_224_quantized"}, "example.com/trainer-tensorflow:1"),
        (
            {"pod": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
            "example.com/trainer-tensorflow:1",
        ),
    ],
)
def test_a_job_that_needs_tensorflow_gets_the_container_image_that_has_it(
    spec: dict[str, Any], image: str
) -> None:
    body = make_job_body()
    body["spec"] |= spec
    settings = make_settings(trainer_tensorflow_image="example.com/trainer-tensorflow:1")
    for build in (children.train, children.bottlenecks):
        job = RetrainJob.model_validate(body)
        pod = build(job, settings, deadline=None)["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == image
        usual = build(job, make_settings(), deadline=None)["spec"]["template"]["spec"]
        assert usual["containers"][0]["image"] == "example.com/trainer:1"


def test_what_a_sweep_chose_is_in_the_status_and_nonsense_of_a_pod_is_not() -> None:
    chosen = {"candidates": 12, "diverged": 1, "chosen": {"learningRate": 0.03, "l2": 1e-6}}
    for sweep, expected in ((chosen, chosen), ({"candidates": -3}, None)):
        pod = make_pod(running=True)
        report = make_report(stage="Training").model_dump(mode="json", by_alias=True)
        parsed = parse_report(json.dumps({**report, "sweep": sweep}))
        assert parsed is not None
        observed = make_observed(
            make_job(RUNNING), make_child(), pods=(pod,), reports={pod.uid: parsed}
        )
        status = status_after(make_job(RUNNING), decide(observed).status)
        assert status.get("sweep") == expected
