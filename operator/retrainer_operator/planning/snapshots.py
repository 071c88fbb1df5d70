"""Snapshots of watched objects: small values with what decisions need, and nothing else.

The watched objects are kept as these and not as they came: a finished job, its Job and its pod take
about 3 KiB here and 40 KiB as parsed JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from retrainer.api import Report
from retrainer.api.names import KIND
from retrainer_operator.planning.reports import parse_report

Key = tuple[str, str]
"""Namespace and name of a job."""
UNOWNED = "no RetrainJob"
"""The owner of a Job that nobody controls, as sentences name it."""


@dataclass(frozen=True, slots=True)
class RetrainJobSnapshot:
    """A RetrainJob; its spec and status are kept as compact JSON."""

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
        """The document that `parse_job` takes: metadata and spec, without the status."""
        metadata = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "labels": dict(self.kueue_labels),
        }
        return {"metadata": metadata, "spec": json.loads(self.spec)}


@dataclass(frozen=True, slots=True)
class ChildSnapshot:
    """A batch/v1 Job."""

    namespace: str
    name: str
    uid: str
    version: int
    created: float
    deleting: bool
    owner_uid: str
    owner: str
    suspended: bool
    deadline: int | None
    start: float | None
    failures: int
    complete: bool
    failed: tuple[str, str] | None
    """Reason and message of the condition Failed."""
    ended: float | None
    """When it became Complete or Failed."""
    stripped: bool
    """Whether a label that the operator gave it, or its owner reference, was changed or taken off."""
    queue: str | None
    """The Kueue queue that it is labelled for."""
    template_job: str
    """The RetrainJob, by name, whose child it was made as and still has the name of; else empty."""

    @property
    def finished(self) -> bool:
        """Whether none of its pods runs, or will run again."""
        return self.complete or self.failed is not None

    @property
    def unowned(self) -> bool:
        """Whether it was made for a RetrainJob, and no owner reference says so any more."""
        return bool(self.template_job) and self.owner == UNOWNED


@dataclass(frozen=True)
class ContainerEnd:
    """How a pod's container ended."""

    exit_code: int
    reason: str
    message: str
    at: float

    @cached_property
    def report(self) -> Report | None:
        """The report that the message is, if it is one; of which job is not checked yet."""
        return parse_report(self.message) if self.message.startswith("{") else None


@dataclass(frozen=True, slots=True)
class PodSnapshot:
    """A pod of a child."""

    namespace: str
    name: str
    uid: str
    version: int
    child_uid: str
    child_name: str
    shard: int
    created: float
    deleting: bool
    phase: str
    ip: str
    running: bool
    memory_limit: str
    unschedulable: str | None = None
    waiting: tuple[str, str] | None = None
    """Reason and message of the first container that waits because something is wrong."""
    ended: ContainerEnd | None = None
    evicted: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it runs no more."""
        return self.phase in ("Succeeded", "Failed")

    def without_message(self) -> "PodSnapshot":
        """Copy this pod without the message of its end, which takes most of its memory."""
        if self.ended is None or not self.ended.message:
            return self
        return replace(self, ended=replace(self.ended, message=""))


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server's answer to the last try to create a child."""

    code: int
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class ChildEvents:
    """The latest warning about a child without pods, and when it was looked for."""

    message: str
    looked_at: float


@dataclass(frozen=True)
class Observed:
    """Everything that a pass decides from, gathered in one value.

    Attributes:
        job: None once it is deleted.
        children: the job's own Jobs, and those of others that have the names of such.
        pods: of those Jobs.
        reports: by uid of the pod, read live from it.
        refusals: by name of the child.
        child_events: by uid of the child.
        unread: names of children that no watch shows, and that were not read since: they do not exist,
            or somebody has changed their labels.
        listed: uids of children whose pods were just read from the API server, not from the watch.
        progress_written: when progress alone was last written, Unix time.
        left: Jobs that were made for an earlier job of this name, and that nobody owns any more: the job
            went before it could be made their owner again.
    """

    job: RetrainJobSnapshot | None
    children: tuple[ChildSnapshot, ...] = ()
    pods: tuple[PodSnapshot, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    child_events: Mapping[str, ChildEvents] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    progress_written: float | None = None
    left: tuple[ChildSnapshot, ...] = ()


def is_own(child: ChildSnapshot, job: RetrainJobSnapshot) -> bool:
    """Say whether the Job is of this very RetrainJob, not of an earlier one of its name."""
    return child.owner_uid == job.uid


def is_of_earlier_job(child: ChildSnapshot, job: RetrainJobSnapshot) -> bool:
    """Say whether an earlier RetrainJob of this name controls the Job: Kubernetes will delete it."""
    return child.owner == f"{KIND} {job.name}" and child.owner_uid != job.uid
