"""One job's case: everything that the checks decide from, derived once and on demand."""

from dataclasses import dataclass
from functools import cached_property

from retrainer.api import Phase, Progress, Report, RetrainJob, RetrainJobStatus
from retrainer.api.names import TASK_BOTTLENECKS, TASK_TRAIN, child
from retrainer.api.reasons import ConditionType, Reason
from retrainer_operator.planning import children, progress
from retrainer_operator.planning.actions import Look, Verdict, Write
from retrainer_operator.planning.snapshots import ChildSnapshot, Observed, PodSnapshot, is_own
from retrainer_operator.planning.times import parse_time
from retrainer_operator.settings import Settings


@dataclass(frozen=True)
class Case:
    """One job, what was observed of it, and the time."""

    observed: Observed
    job: RetrainJob
    status: RetrainJobStatus
    settings: Settings
    now: float

    @property
    def uid(self) -> str:
        """The RetrainJob's uid."""
        return self.job.metadata.uid or ""

    @property
    def queue(self) -> str | None:
        """The Kueue queue that the job is labelled for."""
        return children.queue_of(self.job)

    def holder(self, task: str) -> ChildSnapshot | None:
        """The Job that has the name of this task's child, whoever owns it."""
        name = child(self.job.name, task)
        return next((c for c in self.observed.children if c.name == name), None)

    def own(self, task: str) -> ChildSnapshot | None:
        """This task's child, if there is one and it belongs to this job."""
        holder = self.holder(task)
        job = self.observed.job
        return holder if holder and job and is_own(holder, job) else None

    @cached_property
    def bottlenecks_done(self) -> bool:
        """Whether the shards have filled the cache, or there are none."""
        ready = self.status.condition(ConditionType.BOTTLENECKS_READY)
        shards = self.own(TASK_BOTTLENECKS)
        return (
            self.job.spec.shards == 1
            or self.own(TASK_TRAIN) is not None
            or (shards is not None and shards.complete)
            or (ready is not None and ready.status == "True")
        )

    @property
    def task(self) -> str:
        """The task whose child is due."""
        return TASK_TRAIN if self.bottlenecks_done else TASK_BOTTLENECKS

    @cached_property
    def child(self) -> ChildSnapshot | None:
        """The child that is due, if it exists."""
        return self.own(self.task)

    @property
    def child_name(self) -> str:
        """The name of the child that is due."""
        return child(self.job.name, self.task)

    @cached_property
    def pods(self) -> tuple[PodSnapshot, ...]:
        """The pods of the child that is due, the oldest first."""
        if self.child is None:
            return ()
        uid = self.child.uid
        pods = (p for p in self.observed.pods if p.child_uid == uid)
        return tuple(sorted(pods, key=lambda p: (p.created, p.name)))

    @cached_property
    def reports(self) -> tuple[Report, ...]:
        """The latest report of each of those pods that has given one, in the pods' order."""
        latest = (progress.latest_report(p, self.observed.reports, self.uid) for p in self.pods)
        return tuple(r for r in latest if r is not None)

    @cached_property
    def progress(self) -> Progress | None:
        """How far the job is, by those reports; None before the first."""
        if not self.reports:
            return None
        if self.task == TASK_BOTTLENECKS:
            new = progress.progress_of_shards(self.reports, self.job.spec.shards)
        else:
            new = self.reports[-1].progress
        return progress.merge(self.job, self.status.progress, new, self.task)

    @cached_property
    def start(self) -> float | None:
        """Since when the job's time runs: the first child's first start, as batch/v1 counts it."""
        child = self.child
        written = parse_time(self.status.start_time)
        if self.job.spec.suspend and not (child and child.finished):
            return None
        if written is None:
            return child.start if child else None
        first = child is not None and not (
            self.task == TASK_TRAIN and self.own(TASK_BOTTLENECKS) is not None
        )
        # Kueue took the first child's place away before it did anything: the time starts anew with it.
        stopped = child is not None and child.suspended and child.start is None
        return None if first and stopped else written

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
        **details: object,
    ) -> Verdict:
        """Conclude that the job waits; `details` fill the reason's sentence."""
        message = reason(**details)
        return Verdict(phase or self.waiting_phase, reason, message, writes, look, again_at)

    def fails(self, reason: Reason, *, look: Look | None = None, **details: object) -> Verdict:
        """Conclude that the job has failed; `details` fill the reason's sentence."""
        return Verdict(Phase.FAILED, reason, reason(**details), look=look)
