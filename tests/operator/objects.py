"""Kubernetes objects as the API server would send them, for tests of the operator."""

from __future__ import annotations

import itertools
import json
from typing import Any

from retrainer.api import Report, RetrainJob, parse_job
from retrainer.api.names import LABEL_JOB, LABEL_TASK, LABEL_UID
from retrainer.api.status import UNSEEN
from retrainer_operator.planning.snapshots import (
    Child,
    Job,
    Observed,
    Pod,
    child_of,
    job_of,
    pod_of,
    timestamp,
)
from retrainer_operator.settings import Settings

Body = dict[str, Any]
NOW = 1_800_000_000.0
UID = "3f2a9c1e-0000-4000-8000-000000000001"
CHILD_UID = "c41d0000-0000-4000-8000-000000000002"
RUN = "s3://models/flowers/flowers-3f2a9c1e"

_numbers = itertools.count(100)
UNSEEN_STATUS = UNSEEN.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def settings(**given: Any) -> Settings:
    return Settings(trainer_image="example.com/trainer:1", **given)


def job_body(status: Body | None = None, labels: Body | None = None, **spec: Any) -> Body:
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {
            "name": "flowers",
            "namespace": "team",
            "uid": UID,
            "resourceVersion": str(next(_numbers)),
            "generation": 1,
            "creationTimestamp": timestamp(NOW),
            "labels": labels or {},
        },
        "spec": {
            "architecture": "mobilenet_0.50_224",
            "images": "s3://photos/flower_photos",
            "output": "s3://models/flowers",
            **spec,
        },
        "status": status or UNSEEN_STATUS,
    }


def job(status: Body | None = None, labels: Body | None = None, **spec: Any) -> Job:
    return job_of(job_body(status, labels, **spec))


def parsed(**spec: Any) -> RetrainJob:
    body = job_body(**spec)
    body.pop("status")
    return parse_job(body)


def child_body(task: str = "train", **given: Any) -> Body:
    """A Job of ours; `owner_uid`, `owner`, `conditions`, `start`, `deleting`, `suspend`, ..."""
    name = given.get("name", f"flowers-{task}")
    uid = given.get("uid", CHILD_UID)
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": message}
        for kind, reason, message in given.get("conditions", ())
    ]
    start = given.get("start", NOW)
    meta: Body = {
        "name": name,
        "namespace": "team",
        "uid": uid,
        "resourceVersion": str(next(_numbers)),
        "creationTimestamp": timestamp(given.get("created", NOW)),
        "labels": {LABEL_JOB: "flowers", LABEL_UID: UID, LABEL_TASK: task},
        "ownerReferences": [
            {
                "kind": given.get("owner_kind", "RetrainJob"),
                "name": given.get("owner", "flowers"),
                "uid": given.get("owner_uid", UID),
                "controller": True,
            }
        ],
    }
    if given.get("orphan"):
        del meta["ownerReferences"]
    if given.get("deleting"):
        meta["deletionTimestamp"] = timestamp(NOW)
    spec: Body = {"suspend": given.get("suspend", False)}
    if given.get("deadline") is not None:
        spec["activeDeadlineSeconds"] = given["deadline"]
    status: Body = {"conditions": conditions, "failed": given.get("failures", 0)}
    if start is not None:
        status["startTime"] = timestamp(start)
    return {"metadata": meta, "spec": spec, "status": status}


def child(task: str = "train", **given: Any) -> Child:
    return child_of(child_body(task, **given))


def complete(task: str = "train", **given: Any) -> Child:
    return child(task, conditions=[("Complete", "CompletionsReached", "done")], **given)


def failed(reason: str, message: str = "it failed", task: str = "train", **given: Any) -> Child:
    return child(task, conditions=[("Failed", reason, message)], **given)


def pod_body(name: str = "flowers-train-x1", **given: Any) -> Body:
    """A pod; `waiting`, `ended` (exit code, reason, message), `running`, `unschedulable`, ..."""
    state: Body = {}
    if "waiting" in given:
        state["waiting"] = {"reason": given["waiting"][0], "message": given["waiting"][1]}
    if given.get("running"):
        state["running"] = {"startedAt": timestamp(NOW)}
    if "ended" in given:
        code, reason, message = given["ended"]
        state["terminated"] = {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "finishedAt": timestamp(given.get("at", NOW)),
        }
    phase = "Running" if given.get("running") else "Pending"
    if "ended" in given:
        phase = "Succeeded" if given["ended"][0] == 0 else "Failed"
    phase = given.get("phase", phase)
    conditions = []
    if "unschedulable" in given:
        conditions.append(
            {"type": "PodScheduled", "status": "False", "message": given["unschedulable"]}
        )
    if "disrupted" in given:
        conditions.append(
            {"type": "DisruptionTarget", "status": "True", "message": given["disrupted"]}
        )
    meta: Body = {
        "name": name,
        "namespace": "team",
        "uid": given.get("uid", f"uid-of-{name}"),
        "resourceVersion": str(next(_numbers)),
        "creationTimestamp": timestamp(given.get("created", NOW - 60)),
        "labels": {LABEL_JOB: "flowers"},
        "annotations": {"batch.kubernetes.io/job-completion-index": str(given.get("shard", 0))},
        "ownerReferences": [
            {
                "kind": "Job",
                "name": "flowers-train",
                "uid": given.get("child_uid", CHILD_UID),
                "controller": True,
            }
        ],
    }
    if given.get("deleting"):
        meta["deletionTimestamp"] = timestamp(NOW)
    limits = {"memory": given.get("memory", "4Gi")}
    return {
        "metadata": meta,
        "spec": {"containers": [{"name": "trainer", "resources": {"limits": limits}}]},
        "status": {
            "phase": phase,
            "podIP": given.get("ip", ""),
            "conditions": conditions,
            "containerStatuses": [{"name": "trainer", "state": state}] if state else [],
        },
    }


def pod(name: str = "flowers-train-x1", **given: Any) -> Pod:
    return pod_of(pod_body(name, **given))


def report(**given: Any) -> Report:
    return Report.model_validate({"task": "train", "name": "flowers", "uid": UID, **given})


def said(**given: Any) -> str:
    """A termination message."""
    return report(**given).termination_message()


FINAL = said(
    stage="Training",
    progress={"imagesTotal": 1498, "imagesCached": 0, "imagesComputed": 1498, "imagesRejected": 0,
              "step": 500, "steps": 500, "percent": 100},
    metrics={"trainingAccuracy": 0.97, "validationAccuracy": 0.9, "crossEntropy": 0.1,
             "validationCrossEntropy": 0.4, "testAccuracy": 0.8876, "testImages": 165},
    curve={"step": [0, 500], "trainingAccuracy": [0.2, 0.97], "validationAccuracy": [0.2, 0.9],
           "crossEntropy": [1.6, 0.1], "validationCrossEntropy": [1.6, 0.4]},
    labelCount=5,
    run=RUN,
    artifacts={"savedModel": "saved_model", "tflite": "model.tflite"},
)  # fmt: skip


def observed(job_: Job | None, *children: Child, **given: Any) -> Observed:
    return Observed(job_, children, **given)


def status_after(job_: Job, patch: Body | None) -> Body:
    """The status that the API server would have after this merge patch."""
    after: Body = merge(json.loads(job_.status), patch or {})
    return after


def merge(document: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
