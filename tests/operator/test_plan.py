"""What the operator decides: the first child, the run, the success, how often it writes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator import objects as o
from tests.operator.deciding import RUNNING, created, decide, told

from retrainer.api import Pod
from retrainer_operator.planning.case import Create, Look
from retrainer_operator.planning.plan import NOTHING, Plan
from retrainer_operator.planning.snapshots import job_of, timestamp


def test_a_new_job_gets_its_train_job_and_says_that_it_waits_for_a_pod() -> None:
    made = decide(o.observed(o.job()))
    assert created(made) == ["flowers-train"]
    assert told(made) == ("Pending", "Created", "Waiting for the first pod of Job flowers-train.")
    assert made.notices == ()


def test_the_operators_scheduling_holds_for_what_the_job_does_not_say() -> None:
    usual = Pod.model_validate(
        {
            "nodeSelector": {"pool": "training"},
            "tolerations": [{"key": "training", "operator": "Exists"}],
            "priorityClassName": "low",
        }
    )
    job = o.job(pod={"nodeSelector": {"pool": "gpus"}})
    (write,) = decide(o.observed(job), trainer_scheduling=usual).writes
    assert isinstance(write, Create)
    pod = write.body["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpus"}
    assert pod["tolerations"] == [{"key": "training", "operator": "Exists"}]
    assert pod["priorityClassName"] == "low"
    assert "affinity" not in pod


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
