"""Builders of Kubernetes objects as the API server sends them, and of the snapshots made from them.

Every builder takes keywords only where there is a choice, so that a misspelt one is a TypeError.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from retrainer.api import Report, RetrainJob, parse_job
from retrainer.api.names import (
    KUEUE_QUEUE,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_TASK,
    LABEL_UID,
    MANAGED_BY,
)
from retrainer.api.status import UNSEEN
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.snapshots import (
    ChildEvents,
    ChildSnapshot,
    Observed,
    PodSnapshot,
    Refusal,
    RetrainJobSnapshot,
)
from retrainer_operator.planning.times import format_time
from retrainer_operator.settings import Settings

Body = dict[str, Any]
Fields = ParamSpec("Fields")
Read = TypeVar("Read")
Condition = tuple[str, str, str]
"""Type, reason and message of a condition that is true."""
NOW = 1_800_000_000.0
UID = "3f2a9c1e-0000-4000-8000-000000000001"
CHILD_UID = "c41d0000-0000-4000-8000-000000000002"
RUN = "s3://models/flowers/flowers-3f2a9c1e"

_versions = itertools.count(100)
UNSEEN_STATUS = UNSEEN.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def make_settings(**fields: Any) -> Settings:
    """Settings with a trainer image; pydantic refuses a field that it does not have."""
    return Settings(trainer_image="example.com/trainer:1", **fields)


def _snapshot(
    make_body: Callable[Fields, Body], read: Callable[[Body], Read]
) -> Callable[Fields, Read]:
    """Make a builder of snapshots of a builder of objects."""

    def make(*arguments: Fields.args, **fields: Fields.kwargs) -> Read:
        return read(make_body(*arguments, **fields))

    return make


def make_job_body(
    status: Body | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    shards: int | str | None = None,
    suspend: bool | None = None,
    active_deadline_seconds: int | None = None,
    ttl_seconds_after_finished: int | None = None,
    backoff_limit: int | None = None,
    pod: Body | None = None,
    storage: Body | None = None,
) -> Body:
    """A RetrainJob."""
    spec = {
        "shards": shards,
        "suspend": suspend,
        "activeDeadlineSeconds": active_deadline_seconds,
        "ttlSecondsAfterFinished": ttl_seconds_after_finished,
        "backoffLimit": backoff_limit,
        "pod": pod,
        "storage": storage,
    }
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {
            "name": "flowers",
            "namespace": "team",
            "uid": UID,
            "resourceVersion": str(next(_versions)),
            "generation": 1,
            "creationTimestamp": format_time(NOW),
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "architecture": "mobilenet_0.50_224",
            "images": "s3://photos/flower_photos",
            "output": "s3://models/flowers",
            **{field: value for field, value in spec.items() if value is not None},
        },
        "status": status or UNSEEN_STATUS,
    }


make_job = _snapshot(make_job_body, read_job)
"""Make the snapshot of a RetrainJob; the parameters are those of `make_job_body`."""


def parse_plain_job() -> RetrainJob:
    """A RetrainJob as parsed, with the least spec there is."""
    body = make_job_body()
    del body["status"]
    return parse_job(body)


def child_labels(task: str = "train") -> dict[str, str]:
    """The labels that the operator gives a child."""
    return {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_JOB: "flowers",
        LABEL_UID: UID,
        LABEL_TASK: task,
    }


def make_child_body(
    task: str = "train",
    *,
    uid: str = CHILD_UID,
    owner_uid: str = UID,
    owner: str = "flowers",
    owner_kind: str = "RetrainJob",
    orphan: bool = False,
    labels: Mapping[str, str] | None = None,
    template: Mapping[str, str] | None = None,
    queue: str | None = None,
    created: float = NOW,
    start: float | None = NOW,
    completed: float | None = None,
    deadline: int | None = None,
    suspend: bool = False,
    deleting: bool = False,
    conditions: Iterable[Condition] = (),
    failures: int = 0,
) -> Body:
    """A batch/v1 Job, of the RetrainJob of `make_job` unless another owner is given.

    `template` are the labels of its pods, which say for which RetrainJob it was made.
    """
    meta: Body = {
        "name": f"flowers-{task}",
        "namespace": "team",
        "uid": uid,
        "resourceVersion": str(next(_versions)),
        "creationTimestamp": format_time(created),
        "labels": (child_labels(task) if labels is None else dict(labels))
        | ({} if queue is None else {KUEUE_QUEUE: queue}),
        "ownerReferences": [
            {"kind": owner_kind, "name": owner, "uid": owner_uid, "controller": True}
        ],
    }
    if orphan:
        del meta["ownerReferences"]
    if deleting:
        meta["deletionTimestamp"] = format_time(NOW)
    if template is None:
        template = child_labels(task) | {LABEL_UID: owner_uid}
    spec: Body = {"suspend": suspend, "template": {"metadata": {"labels": dict(template)}}}
    if deadline is not None:
        spec["activeDeadlineSeconds"] = deadline
    status: Body = {
        "conditions": [
            {"type": kind, "status": "True", "reason": reason, "message": message,
             "lastTransitionTime": format_time(completed or NOW)}
            for kind, reason, message in conditions
        ],
        "failed": failures,
    }  # fmt: skip
    if start is not None:
        status["startTime"] = format_time(start)
    if completed is not None:
        status["completionTime"] = format_time(completed)
    return {"metadata": meta, "spec": spec, "status": status}


make_child = _snapshot(make_child_body, read_child)
"""Make the snapshot of a batch/v1 Job; the parameters are those of `make_child_body`."""


def make_complete_child(
    task: str = "train", *, uid: str = CHILD_UID, completed: float = NOW
) -> ChildSnapshot:
    """A child whose pods all succeeded."""
    condition = ("Complete", "CompletionsReached", "done")
    return make_child(task, uid=uid, completed=completed, conditions=[condition])


def make_failed_child(
    reason: str, message: str = "it failed", *, task: str = "train", failures: int = 0,
    deadline: int | None = None, completed: float | None = None,
) -> ChildSnapshot:  # fmt: skip
    """A child that the Job controller gave up."""
    condition = ("Failed", reason, message)
    return make_child(
        task, conditions=[condition], failures=failures, deadline=deadline, completed=completed
    )


def make_pod_body(
    name: str = "flowers-train-x1",
    *,
    uid: str | None = None,
    child_uid: str = CHILD_UID,
    labels: Mapping[str, str] | None = None,
    shard: int = 0,
    created: float = NOW - 60,
    deleting: bool = False,
    phase: str | None = None,
    ip: str = "",
    running: bool = False,
    waiting: tuple[str, str] | None = None,
    ended: tuple[int, str, str] | None = None,
    ended_at: float = NOW,
    unschedulable: str | None = None,
    disrupted: str | None = None,
    memory: str = "4Gi",
) -> Body:
    """A pod of a child; `waiting` is reason and message, `ended` exit code, reason and message."""
    state: Body = {}
    if waiting is not None:
        state["waiting"] = {"reason": waiting[0], "message": waiting[1]}
    if running:
        state["running"] = {"startedAt": format_time(NOW)}
    if ended is not None:
        state["terminated"] = {
            "exitCode": ended[0],
            "reason": ended[1],
            "message": ended[2],
            "finishedAt": format_time(ended_at),
        }
    if phase is None and ended is not None:
        phase = "Succeeded" if ended[0] == 0 else "Failed"
    conditions = []
    if unschedulable is not None:
        conditions.append({"type": "PodScheduled", "status": "False", "message": unschedulable})
    if disrupted is not None:
        conditions.append({"type": "DisruptionTarget", "status": "True", "message": disrupted})
    meta: Body = {
        "name": name,
        "namespace": "team",
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": str(next(_versions)),
        "creationTimestamp": format_time(created),
        "labels": (
            {LABEL_MANAGED_BY: MANAGED_BY, LABEL_JOB: "flowers"} if labels is None else dict(labels)
        ),
        "annotations": {"batch.kubernetes.io/job-completion-index": str(shard)},
        "ownerReferences": [
            {"kind": "Job", "name": "flowers-train", "uid": child_uid, "controller": True}
        ],
    }
    if deleting:
        meta["deletionTimestamp"] = format_time(NOW)
    container = {"name": "trainer", "resources": {"limits": {"memory": memory}}}
    return {
        "metadata": meta,
        "spec": {"containers": [container]},
        "status": {
            "phase": phase or ("Running" if running else "Pending"),
            "podIP": ip,
            "conditions": conditions,
            "containerStatuses": [{"name": "trainer", "state": state}] if state else [],
        },
    }


make_pod = _snapshot(make_pod_body, read_pod)
"""Make the snapshot of a pod; the parameters are those of `make_pod_body`."""


def make_report(
    *,
    uid: str = UID,
    stage: str = "Bottlenecks",
    reason: str = "",
    message: str = "",
    progress: Body | None = None,
    metrics: Body | None = None,
    curve: Body | None = None,
    label_count: int | None = None,
    run: str | None = None,
    artifacts: Mapping[str, str] | None = None,
) -> Report:
    """A report of the train task."""
    return Report.model_validate(
        {
            "task": "train",
            "name": "flowers",
            "uid": uid,
            "stage": stage,
            "reason": reason,
            "message": message,
            "progress": progress or {},
            "metrics": metrics or {},
            "curve": curve or {},
            "labelCount": label_count,
            "run": run,
            "artifacts": dict(artifacts or {}),
        }
    )


FINAL = make_report(
    stage="Training",
    progress={"imagesTotal": 1498, "imagesCached": 0, "imagesComputed": 1498, "imagesRejected": 0,
              "step": 500, "steps": 500, "percent": 100},
    metrics={"trainingAccuracy": 0.97, "validationAccuracy": 0.9, "crossEntropy": 0.1,
             "validationCrossEntropy": 0.4, "testAccuracy": 0.8876, "testImages": 165},
    curve={"step": [0, 500], "trainingAccuracy": [0.2, 0.97], "validationAccuracy": [0.2, 0.9],
           "crossEntropy": [1.6, 0.1], "validationCrossEntropy": [1.6, 0.4]},
    label_count=5,
    run=RUN,
    artifacts={"savedModel": "saved_model", "tflite": "model.tflite"},
).termination_message()  # fmt: skip
"""The termination message of a pod that trained well."""


def make_observed(
    job: RetrainJobSnapshot | None,
    *children: ChildSnapshot,
    pods: tuple[PodSnapshot, ...] = (),
    reports: Mapping[str, Report] | None = None,
    refusals: Mapping[str, Refusal] | None = None,
    child_events: Mapping[str, ChildEvents] | None = None,
    unread: frozenset[str] = frozenset(),
    listed: frozenset[str] = frozenset(),
    progress_written: float | None = None,
    left: tuple[ChildSnapshot, ...] = (),
) -> Observed:
    """Everything that is decided from."""
    return Observed(
        job,
        children,
        pods,
        reports or {},
        refusals or {},
        child_events or {},
        unread,
        listed,
        progress_written,
        left,
    )


def status_after(job: RetrainJobSnapshot, patch: Body | None) -> Body:
    """The status that the API server would have after this merge patch."""
    after: Body = merge(json.loads(job.status), patch or {})
    return after


def merge(document: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result
