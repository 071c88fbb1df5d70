"""The plan of one pass over a job: what to write, in which order, and when to come again."""

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from retrainer.api import FINISHED, Phase, RetrainJobStatus, parse_job, reasons
from retrainer.api.names import TASK_BOTTLENECKS, TASK_TRAIN
from retrainer.api.names import child as child_name
from retrainer.errors import InvalidJob
from retrainer_operator.planning import checks, children
from retrainer_operator.planning import status as statuses
from retrainer_operator.planning.actions import (
    DeleteChild,
    DeleteLeft,
    Event,
    Look,
    PatchChild,
    RestoreChild,
    Verdict,
    Write,
)
from retrainer_operator.planning.case import Case
from retrainer_operator.planning.progress import JOB_INTERVAL
from retrainer_operator.planning.snapshots import ChildSnapshot, Observed, RetrainJobSnapshot
from retrainer_operator.planning.times import is_recent, parse_time
from retrainer_operator.settings import Settings

_TTL = "ttlSecondsAfterFinished"


@dataclass(frozen=True)
class Plan:
    """What one pass does, in this order: either look and decide again, or writes, status, events.

    Attributes:
        look: read this first; everything else is then empty.
        writes: to children.
        status: merge patch of the job's status; written after the children, and only if not empty.
        figures_only: only figures differ: when all jobs together write too often, this one waits.
        events: written once the status is.
        delete: delete the job, since its ttlSecondsAfterFinished are over.
        again_at: Unix time of the next pass, if nothing happens before.
        outcome: phase and reason of a job that this pass ends.
    """

    look: Look | None = None
    writes: tuple[Write, ...] = ()
    status: dict[str, Any] | None = None
    figures_only: bool = False
    events: tuple[Event, ...] = ()
    delete: bool = False
    again_at: float | None = None
    outcome: tuple[str, str] | None = None


NOTHING = Plan()


def plan(observed: Observed, settings: Settings, now: float) -> Plan:
    """Decide what to do about a job; `now` is Unix time."""
    job = observed.job
    if observed.left:
        return Plan(writes=tuple(map(DeleteLeft, observed.left)), again_at=now)
    if job is None or job.deleting:
        return NOTHING
    if job.phase in FINISHED:
        return _finished(job, observed, now)
    old = _status_of(job)
    try:
        parsed = parse_job(job.document())
    except InvalidJob as error:
        return _invalid(job, observed, old, error, now)
    case = Case(observed, parsed, old, settings, now)
    if (look := _unread(case)) is not None:
        return Plan(look=look)
    verdict = checks.verdict(case)
    return _act(case, job, verdict) if verdict.look is None else Plan(look=verdict.look)


def _unread(case: Case) -> Look | None:
    """Choose a child to read first, which may be there though no watch shows it."""
    tasks = (TASK_TRAIN,) if case.job.spec.shards == 1 else (TASK_BOTTLENECKS, TASK_TRAIN)
    names = (child_name(case.job.name, task) for task in tasks)
    return next((Look("child", n, "") for n in names if n in case.observed.unread), None)


def _act(case: Case, job: RetrainJobSnapshot, verdict: Verdict) -> Plan:
    finished = verdict.phase in FINISHED
    writes = verdict.writes
    writes += _stops(case.observed, job) if finished else _deadline(case, verdict)
    writes = _restores(case, writes) + writes
    if verdict.silent:
        return Plan(writes=_joined(writes), again_at=verdict.again_at)
    new = statuses.build(case, verdict, job.generation)
    change = statuses.compare(job, case.status, new, verdict)
    outcome = (str(verdict.phase), new.reason or "") if finished else None
    whole = Plan(
        writes=_joined(writes),
        status=change.patch or None,
        figures_only=change.figures_only,
        events=change.events,
        again_at=verdict.again_at,
        outcome=outcome,
    )
    if not (change.patch and change.figures_only):
        return whole
    written = case.observed.progress_written or 0.0
    if not is_recent(written, JOB_INTERVAL, case.now):
        return whole
    turn = written + JOB_INTERVAL
    again_at = turn if verdict.again_at is None else min(turn, verdict.again_at)
    return replace(whole, status=None, events=(), again_at=again_at)


def _deadline(case: Case, verdict: Verdict) -> tuple[PatchChild, ...]:
    """Keep the due child's activeDeadlineSeconds as the spec's: Kubernetes then enforces it."""
    child = case.child
    if child is None or child.finished or child.deleting:
        return ()
    if any(isinstance(write, DeleteChild) for write in verdict.writes):
        return ()
    wanted = _left(case, child)
    if wanted == child.deadline:
        return ()
    return (PatchChild(child, {"activeDeadlineSeconds": wanted}),)


def _restores(case: Case, writes: tuple[Write, ...]) -> tuple[RestoreChild, ...]:
    """Give children their labels and owner back: else no watch shows them, or they outlive the job."""
    deleted = [write.child for write in writes if isinstance(write, DeleteChild)]
    return tuple(
        RestoreChild(
            own,
            children.kueue_labels(case.job) | children.labels_of(case.job, task),
            children.owner_reference(case.job),
        )
        for task in (TASK_BOTTLENECKS, TASK_TRAIN)
        if (own := case.own(task))
        and (own.stripped or (case.queue is not None and own.queue is None and not own.finished))
        and not own.deleting
        and own not in deleted
    )


def _joined(writes: tuple[Write, ...]) -> tuple[Write, ...]:
    """Join two patches of one child to one write."""
    match writes:
        case (*others, PatchChild(child, first), PatchChild(other, second)) if child is other:
            return (*others, PatchChild(child, {**first, **second}))
    return writes


def _left(case: Case, child: ChildSnapshot) -> int | None:
    """Compute a child's activeDeadlineSeconds: the job's, but counted from the child's own start."""
    limit = case.job.spec.active_deadline_seconds
    if limit is None or case.start is None:
        return limit
    if child.start is None:
        # It has not started: what it was created with is still right, unless it has none.
        return child.deadline or max(1, int(limit - (case.now - case.start)))
    left = max(1, int(limit - max(0.0, child.start - case.start)))
    current = child.deadline
    # It was created a second or two before it started: the difference is not worth a write.
    close = current is not None and child.start != case.start and abs(current - left) <= 2
    return current if close else left


def _stops(observed: Observed, job: RetrainJobSnapshot) -> tuple[DeleteChild, ...]:
    """Delete whatever of a finished job still runs."""
    return tuple(
        DeleteChild(child)
        for child in observed.children
        if child.owner_uid == job.uid and not child.finished and not child.deleting
    )


def _finished(job: RetrainJobSnapshot, observed: Observed, now: float) -> Plan:
    if stops := _stops(observed, job):
        # They were made by an operator that had not yet heard of the job's end.
        return Plan(writes=stops, again_at=now)
    if _TTL not in job.spec:  # nearly all of them: nothing is parsed
        return NOTHING
    ttl = json.loads(job.spec).get(_TTL)
    ended = parse_time(json.loads(job.status).get("completionTime"))
    if not isinstance(ttl, int) or ended is None:
        return NOTHING
    return Plan(delete=True) if now >= ended + ttl else Plan(again_at=ended + ttl)


def _status_of(job: RetrainJobSnapshot) -> RetrainJobStatus:
    """Read the status; an empty one if somebody else wrote what cannot be read."""
    try:
        return RetrainJobStatus.model_validate_json(job.status)
    except ValidationError:
        return RetrainJobStatus()


def _invalid(
    job: RetrainJobSnapshot,
    observed: Observed,
    old: RetrainJobStatus,
    error: InvalidJob,
    now: float,
) -> Plan:
    """Fail a job that cannot be parsed; it stops no other."""
    detail = "; ".join(error.problems)
    reason = reasons.INVALID_SPEC
    verdict = Verdict(Phase.FAILED, reason, reason(detail=detail))
    new = statuses.status_without_figures(old, verdict, job.generation, now)
    change = statuses.compare(job, old, new, verdict)
    return Plan(
        writes=_stops(observed, job),
        status=change.patch,
        events=change.events,
        outcome=(str(Phase.FAILED), reason.name),
    )
