"""What is known of a job at one moment: slim values made from the API server's objects. Pure.

The watched objects are kept as these values and not as they came: a finished job, its Job and its pod
take about 3 KiB here and 40 KiB as parsed JSON.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from retrainer.api import Report
from retrainer.api.names import (
    ANNOTATION_MIN_ACCURACY,
    CONTAINER,
    KIND,
    KUEUE_PREFIX,
    LABEL_JOB,
    LABEL_TASK,
)

Body = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name of a job."""

_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True)
class Job:
    """A RetrainJob as it was last seen; spec and status are kept as compact JSON."""

    namespace: str
    name: str
    uid: str
    version: int
    generation: int
    created: float
    deleting: bool
    phase: str
    spec: str
    status: str
    kueue_labels: tuple[tuple[str, str], ...] = ()
    min_accuracy: str | None = None

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    def document(self) -> dict[str, Any]:
        """What `parse_job` takes: the spec with its metadata, without the status."""
        metadata = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "labels": dict(self.kueue_labels),
        }
        return {"metadata": metadata, "spec": json.loads(self.spec)}


@dataclass(frozen=True, slots=True)
class Child:
    """A batch/v1 Job."""

    namespace: str
    name: str
    uid: str
    version: int
    created: float
    deleting: bool
    task: str
    owner_uid: str
    owner: str
    suspended: bool
    deadline: int | None
    start: float | None
    failures: int
    complete: bool
    failed: tuple[str, str] | None
    """Reason and message of the condition Failed."""

    @property
    def finished(self) -> bool:
        """Nothing of it runs any more, nor will."""
        return self.complete or self.failed is not None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a pod's container ended."""

    exit_code: int
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a child."""

    namespace: str
    name: str
    uid: str
    version: int
    child_uid: str
    job: str
    shard: int
    created: float
    deleting: bool
    phase: str
    ip: str
    running: bool
    memory_limit: str
    unschedulable: str | None = None
    waiting: tuple[str, str] | None = None
    """Reason and message of the first container that waits for more than its turn."""
    ended: Ended | None = None
    evicted: str | None = None

    @property
    def finished(self) -> bool:
        """It runs no more."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server's answer to the last try to create a child."""

    code: int
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class ChildEvents:
    """The latest warning about a child without pods, and when we looked."""

    message: str
    looked_at: float


@dataclass(frozen=True)
class Observed:
    """Everything that a pass decides from, gathered in one value.

    Attributes:
        job: None once it is deleted.
        children: Jobs of the two names that belong to this job, whoever owns them.
        pods: of those Jobs.
        reports: by uid of the pod, read live from it.
        refusals: by name of the child.
        child_events: by uid of the child.
        listed: uids of children whose pods were just read from the API server, not from the watch.
        progress_written: when progress alone was last written, Unix time.
    """

    job: Job | None
    children: tuple[Child, ...] = ()
    pods: tuple[Pod, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    child_events: Mapping[str, ChildEvents] = field(default_factory=dict)
    listed: frozenset[str] = frozenset()
    progress_written: float | None = None


# --- from the API server's objects ---


def job_of(body: Body) -> Job:
    """A RetrainJob; nothing in it is trusted to be right but its metadata."""
    meta = body["metadata"]
    status = body.get("status") or {}
    labels = meta.get("labels") or {}
    return Job(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        generation=int(meta.get("generation") or 0),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        deleting="deletionTimestamp" in meta,
        phase=str(status.get("phase") or ""),
        spec=_compact(body.get("spec") or {}),
        status=_compact(status),
        kueue_labels=tuple(sorted((k, v) for k, v in labels.items() if k.startswith(KUEUE_PREFIX))),
        min_accuracy=(meta.get("annotations") or {}).get(ANNOTATION_MIN_ACCURACY),
    )


def child_of(body: Body) -> Child:
    """A batch/v1 Job."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    owner = _controller(meta)
    conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    failed = conditions.get("Failed")
    # Kubernetes before 1.36 leaves the old time there until the Job is resumed: its clock stands still.
    start = None if "Suspended" in conditions else seconds(status.get("startTime"))
    return Child(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        deleting="deletionTimestamp" in meta,
        task=(meta.get("labels") or {}).get(LABEL_TASK, ""),
        owner_uid=owner.get("uid", ""),
        owner=f"{owner['kind']} {owner['name']}" if owner else "no RetrainJob",
        suspended=bool(spec.get("suspend")),
        deadline=spec.get("activeDeadlineSeconds"),
        start=start,
        failures=int(status.get("failed") or 0),
        complete="Complete" in conditions,
        failed=(failed.get("reason", ""), failed.get("message", "")) if failed else None,
    )


def pod_of(body: Body) -> Pod:
    """A pod of a child."""
    meta, status = body["metadata"], body.get("status") or {}
    owner = _controller(meta)
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    trainer = _trainer(containers).get("state") or {}
    terminated = trainer.get("terminated")
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        child_uid=owner.get("uid", "") if owner.get("kind") == "Job" else "",
        job=(meta.get("labels") or {}).get(LABEL_JOB, ""),
        shard=_whole((meta.get("annotations") or {}).get(_INDEX_ANNOTATION)),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
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


def seconds(timestamp: str | None) -> float | None:
    """Unix time of an RFC 3339 timestamp; None for one that cannot be read.

    The API server's own check lets pass what is none, such as a year 0 or words behind the time.
    """
    try:
        return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp() if timestamp else None
    except (ValueError, OverflowError):
        return None


def timestamp(unix: float) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes it."""
    return datetime.fromtimestamp(int(unix), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lately(at: float, within: float, now: float) -> bool:
    """Whether `at` is less than `within` seconds ago; not if the clock was set back since."""
    return 0 <= now - at < within


def is_own(child: Child, job: Job) -> bool:
    """Whether this very RetrainJob (not an earlier one of its name) controls the Job."""
    return child.owner_uid == job.uid


def is_of_earlier(child: Child, job: Job) -> bool:
    """Whether an earlier RetrainJob of this name controls the Job: it will be collected."""
    return child.owner == f"{KIND} {job.name}" and child.owner_uid != job.uid


def _controller(meta: Body) -> Body:
    owners = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller")), {})


def _trainer(containers: Iterable[Body]) -> Body:
    return next((c for c in containers if c.get("name") == CONTAINER), {})


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _whole(text: str | None) -> int:
    """A shard's number; anybody may write an annotation, and Python reads no number of 5,000 digits."""
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0


def _memory_limit(spec: Body) -> str:
    trainer = _trainer(spec.get("containers") or ())
    limits = (trainer.get("resources") or {}).get("limits") or {}
    return str(limits.get("memory", "the node's memory"))


def _unschedulable(scheduled: Body | None) -> str | None:
    if scheduled and scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "no reason given")
    return None


# What every container waits for on its way, and no trouble.
_USUAL = frozenset({"", "ContainerCreating", "PodInitializing"})


def _waiting(containers: tuple[Body, ...]) -> tuple[str, str] | None:
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason not in _USUAL:
            return reason, waiting.get("message") or reason
    return None


def _ended(terminated: Body) -> Ended:
    return Ended(
        exit_code=int(terminated.get("exitCode") or 0),
        reason=terminated.get("reason") or "",
        message=terminated.get("message") or "",
        at=seconds(terminated.get("finishedAt")) or 0.0,
    )


def _evicted(status: Body, disruption: Body | None) -> str | None:
    if disruption and disruption.get("status") == "True":
        return str(disruption.get("message") or disruption.get("reason") or "disrupted")
    if status.get("phase") == "Failed" and status.get("reason"):
        return str(status.get("message") or status["reason"])
    return None
