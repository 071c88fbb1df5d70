"""One job's case, what a check may say of it, and what may be done. Pure."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from retrainer.api import Phase, Progress, Report, RetrainJob, RetrainJobStatus
from retrainer.api.names import TASK_BOTTLENECKS, TASK_TRAIN, child
from retrainer.api.reasons import ConditionType, Reason
from retrainer_operator.planning import children, progress
from retrainer_operator.planning.snapshots import Child, Observed, Pod, is_own, seconds
from retrainer_operator.settings import Settings


@dataclass(frozen=True)
class Create:
    """Create a child."""

    body: children.Body


@dataclass(frozen=True)
class Change:
    """Set `suspend` or `activeDeadlineSeconds` of a child; nothing else of it is ever written."""

    child: Child
    spec: dict[str, bool | int | None]


@dataclass(frozen=True)
class Remove:
    """Delete a child, if it is still this one."""

    child: Child


@dataclass(frozen=True)
class Look:
    """Read what the watches do not tell, or not yet: a child's `events` or `pods`; then decide again."""

    at: Literal["events", "pods"]
    child: str
    uid: str


Write = Create | Change | Remove


@dataclass(frozen=True)
class Verdict:
    """What one check says of the job, and what is to be done."""

    phase: Phase
    reason: Reason
    message: str
    writes: tuple[Write, ...] = ()
    look: Look | None = None
    again_at: float | None = None
    code: str = ""
    """The reason's word, where the trainer gave another than `reason`'s."""
    silent: bool = False
    """What is seen lasts a moment only and is not worth a write."""


@dataclass(frozen=True)
class Case:
    """One job, everything known of it, and the time."""

    observed: Observed
    job: RetrainJob
    status: RetrainJobStatus
    settings: Settings
    now: float

    @property
    def uid(self) -> str:
        """Of the RetrainJob."""
        return self.job.metadata.uid or ""

    @property
    def queue(self) -> str | None:
        """Its Kueue queue."""
        return children.queue_of(self.job)

    def held(self, task: str) -> Child | None:
        """Whatever Job has the name of this child."""
        name = child(self.job.name, task)
        return next((c for c in self.observed.children if c.name == name), None)

    def own(self, task: str) -> Child | None:
        """This child, if it is this job's."""
        held = self.held(task)
        known = self.observed.job
        return held if held and known and is_own(held, known) else None

    @cached_property
    def bottlenecks_done(self) -> bool:
        """The shards have filled the cache, or there are none."""
        known = self.status.condition(ConditionType.BOTTLENECKS_READY)
        shards = self.own(TASK_BOTTLENECKS)
        return (
            self.job.spec.shards == 1
            or self.own(TASK_TRAIN) is not None
            or (shards is not None and shards.complete)
            or (known is not None and known.status == "True")
        )

    @property
    def task(self) -> str:
        """Which child is due."""
        return TASK_TRAIN if self.bottlenecks_done else TASK_BOTTLENECKS

    @cached_property
    def child(self) -> Child | None:
        """The child that is due, if it exists."""
        return self.own(self.task)

    @property
    def child_name(self) -> str:
        """The name of the child that is due."""
        return child(self.job.name, self.task)

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """Of the child that is due, the oldest first."""
        if self.child is None:
            return ()
        uid = self.child.uid
        mine = (p for p in self.observed.pods if p.child_uid == uid)
        return tuple(sorted(mine, key=lambda p: (p.created, p.name)))

    @cached_property
    def reports(self) -> tuple[Report, ...]:
        """Of those pods, one each at most."""
        said = (progress.of_pod(p, self.observed.reports, self.uid) for p in self.pods)
        return tuple(r for r in said if r is not None)

    @cached_property
    def progress(self) -> Progress | None:
        """How far the job is, by those reports; None before the first."""
        if not self.reports:
            return None
        if self.task == TASK_BOTTLENECKS:
            said = progress.of_shards(self.reports, self.job.spec.shards)
        else:
            said = self.reports[-1].progress
        return progress.merged(self.job, self.status.progress, said, self.task)

    @cached_property
    def start(self) -> float | None:
        """Since when the time runs: the first child's first start, as batch/v1 counts it."""
        child = self.child
        known = seconds(self.status.start_time)
        if self.job.spec.suspend and not (child and child.finished):
            return None
        if known is None:
            return child.start if child else None
        first = child is not None and not (
            self.task == TASK_TRAIN and self.own(TASK_BOTTLENECKS) is not None
        )
        # Kueue took its place away before the job got further: the time starts anew with it.
        stopped = child is not None and child.suspended and child.start is None
        return None if first and stopped else known

    @property
    def ends_at(self) -> float | None:
        """When activeDeadlineSeconds is over, once the time runs."""
        limit = self.job.spec.active_deadline_seconds
        return None if limit is None or self.start is None else self.start + limit

    @property
    def waiting_phase(self) -> Phase:
        """The phase of a job that waits: the one it had, Pending if no pod of it ever ran."""
        running = (Phase.BOTTLENECKS, Phase.TRAINING)
        return self.status.phase if self.status.phase in running else Phase.PENDING

    def waits(
        self,
        reason: Reason,
        *,
        look: Look | None = None,
        again_at: float | None = None,
        writes: tuple[Write, ...] = (),
        phase: Phase | None = None,
        **seen: object,
    ) -> Verdict:
        """The verdict that the job waits."""
        return Verdict(phase or self.waiting_phase, reason, reason(**seen), writes, look, again_at)

    def fails(self, reason: Reason, *, look: Look | None = None, **seen: object) -> Verdict:
        """The verdict that the job has failed."""
        return Verdict(Phase.FAILED, reason, reason(**seen), look=look)
