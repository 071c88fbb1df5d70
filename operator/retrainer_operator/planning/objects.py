"""The API server's objects, read into snapshots. Nothing in them is trusted but their metadata."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from retrainer.api.names import (
    ANNOTATION_MIN_ACCURACY,
    CONTAINER,
    KUEUE_PREFIX,
    KUEUE_QUEUE,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_TASK,
    LABEL_UID,
    MANAGED_BY,
    child,
)
from retrainer_operator.planning.snapshots import (
    UNOWNED,
    ChildSnapshot,
    ContainerEnd,
    PodSnapshot,
    RetrainJobSnapshot,
)
from retrainer_operator.planning.times import parse_time

Body = Mapping[str, Any]

_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


# Reasons for which every container waits while it starts: nothing is wrong then.
_USUAL = frozenset({"", "ContainerCreating", "PodInitializing"})


def read_job(body: Body) -> RetrainJobSnapshot:
    """Read a RetrainJob."""
    meta = body["metadata"]
    status = body.get("status") or {}
    labels = meta.get("labels") or {}
    return RetrainJobSnapshot(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        generation=int(meta.get("generation") or 0),
        created=parse_time(meta.get("creationTimestamp")) or 0.0,
        deleting="deletionTimestamp" in meta,
        phase=str(status.get("phase") or ""),
        spec=_compact(body.get("spec") or {}),
        status=_compact(status),
        kueue_labels=tuple(sorted((k, v) for k, v in labels.items() if k.startswith(KUEUE_PREFIX))),
        min_accuracy=(meta.get("annotations") or {}).get(ANNOTATION_MIN_ACCURACY),
    )


def read_child(body: Body) -> ChildSnapshot:
    """Read a batch/v1 Job."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    owner, labels = _controller(meta), meta.get("labels") or {}
    # What its pods are labelled with cannot be changed after its creation: it says whose it was made as.
    template = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    template_job, template_task = template.get(LABEL_JOB, ""), template.get(LABEL_TASK, "")
    conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    complete, failed = conditions.get("Complete"), conditions.get("Failed")
    end = (complete or failed or {}).get("lastTransitionTime")
    task = labels.get(LABEL_TASK, "")
    intact = (
        labels.get(LABEL_MANAGED_BY) == MANAGED_BY
        and labels.get(LABEL_JOB) == owner.get("name")
        and labels.get(LABEL_UID) == owner.get("uid")
        and meta["name"] == child(owner.get("name", ""), task)
    )
    # Kubernetes before 1.36 keeps the old startTime of a suspended Job until it is resumed.
    start = None if "Suspended" in conditions else parse_time(status.get("startTime"))
    return ChildSnapshot(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        created=parse_time(meta.get("creationTimestamp")) or 0.0,
        deleting="deletionTimestamp" in meta,
        # A Job that nobody controls is of the RetrainJob that it was made for: its owner reference was
        # taken off. Whoever may create such a Job may write the reference as well.
        owner_uid=owner.get("uid", "") if owner else template.get(LABEL_UID, ""),
        owner=f"{owner['kind']} {owner['name']}" if owner else UNOWNED,
        suspended=bool(spec.get("suspend")),
        deadline=spec.get("activeDeadlineSeconds"),
        start=start,
        failures=int(status.get("failed") or 0),
        complete=complete is not None,
        failed=(failed.get("reason", ""), failed.get("message", "")) if failed else None,
        ended=parse_time(status.get("completionTime") or end),
        stripped=not intact,
        queue=labels.get(KUEUE_QUEUE),
        template_job=(
            template_job
            if LABEL_UID in template
            and template_job
            and meta["name"] == child(template_job, template_task)
            else ""
        ),
    )


def read_pod(body: Body) -> PodSnapshot:
    """Read a pod."""
    meta, status = body["metadata"], body.get("status") or {}
    owner = _controller(meta)
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    trainer = _trainer(containers).get("state") or {}
    terminated = trainer.get("terminated")
    return PodSnapshot(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        child_uid=owner.get("uid", "") if owner.get("kind") == "Job" else "",
        child_name=owner.get("name", "") if owner.get("kind") == "Job" else "",
        shard=_whole((meta.get("annotations") or {}).get(_INDEX_ANNOTATION)),
        created=parse_time(meta.get("creationTimestamp")) or 0.0,
        deleting="deletionTimestamp" in meta,
        phase=status.get("phase") or "Pending",
        ip=status.get("podIP") or "",
        running="running" in trainer,
        memory_limit=_memory_limit(body.get("spec") or {}),
        unschedulable=_unschedulable(conditions.get("PodScheduled")),
        waiting=_waiting((*(status.get("initContainerStatuses") or ()), *containers)),
        ended=_ended(terminated) if terminated else None,
        evicted=_evicted(status, conditions.get("DisruptionTarget")),
    )


def _controller(meta: Body) -> Body:
    owners = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller")), {})


def _trainer(containers: Iterable[Body]) -> Body:
    return next((c for c in containers if c.get("name") == CONTAINER), {})


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _whole(text: str | None) -> int:
    """Read a shard's number; anybody may write an annotation, and int() refuses one of 5,000 digits."""
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0


def _memory_limit(spec: Body) -> str:
    trainer = _trainer(spec.get("containers") or ())
    limits = (trainer.get("resources") or {}).get("limits") or {}
    return str(limits.get("memory", "the node's memory"))


def _unschedulable(scheduled: Body | None) -> str | None:
    if scheduled and scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "no reason given")
    return None


def _waiting(containers: tuple[Body, ...]) -> tuple[str, str] | None:
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason not in _USUAL:
            return reason, waiting.get("message") or reason
    return None


def _ended(terminated: Body) -> ContainerEnd:
    return ContainerEnd(
        exit_code=int(terminated.get("exitCode") or 0),
        reason=terminated.get("reason") or "",
        message=terminated.get("message") or "",
        at=parse_time(terminated.get("finishedAt")) or 0.0,
    )


def _evicted(status: Body, disruption: Body | None) -> str | None:
    if disruption and disruption.get("status") == "True":
        return str(disruption.get("message") or disruption.get("reason") or "disrupted")
    if status.get("phase") == "Failed" and status.get("reason"):
        return str(status.get("message") or status["reason"])
    return None
