"""The plan of one pass over a job: what to write, in which order, and when to look again. Pure."""

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from retrainer.api import FINISHED, Phase, RetrainJobStatus, parse_job, reasons
from retrainer.errors import InvalidJob
from retrainer_operator.planning import checks
from retrainer_operator.planning import status as statuses
from retrainer_operator.planning.case import Case, Change, Look, Remove, Verdict, Write
from retrainer_operator.planning.progress import JOB_INTERVAL
from retrainer_operator.planning.snapshots import Child, Job, Observed, lately, seconds
from retrainer_operator.settings import Settings

_TTL = "ttlSecondsAfterFinished"


@dataclass(frozen=True)
class Plan:
    """What one pass does, in this order: look (and decide again), or writes, status, notices.

    Attributes:
        look: read this first; everything else is then empty.
        writes: to children.
        status: merge patch of the job's status; written last, and only if not empty.
        figures_only: the status may wait for its turn among all jobs'.
        notices: Events, once the status is written.
        delete: the job's own time after its end is over.
        again_at: Unix time of the next pass, if nothing happens before.
        outcome: phase and reason of a job that this pass ends.
    """

    look: Look | None = None
    writes: tuple[Write, ...] = ()
    status: dict[str, Any] | None = None
    figures_only: bool = False
    notices: tuple[statuses.Notice, ...] = ()
    delete: bool = False
    again_at: float | None = None
    outcome: tuple[str, str] | None = None


NOTHING = Plan()


def plan(observed: Observed, settings: Settings, now: float) -> Plan:
    """Decide; `now` is Unix time."""
    job = observed.job
    if job is None or job.deleting:
        return NOTHING
    if job.phase in FINISHED:
        return _finished(job, now)
    old = _status_of(job)
    try:
        parsed = parse_job(job.document())
    except InvalidJob as error:
        return _invalid(job, observed, old, error, now)
    case = Case(observed, parsed, old, settings, now)
    verdict = checks.verdict(case)
    if verdict.look is not None:
        return Plan(look=verdict.look)
    return _act(case, job, verdict)


def _act(case: Case, job: Job, verdict: Verdict) -> Plan:
    finished = verdict.phase in FINISHED
    writes = verdict.writes + (_stops(case.observed, job) if finished else _deadline(case, verdict))
    if verdict.silent:
        return Plan(writes=_joined(writes), again_at=verdict.again_at)
    new = statuses.build(case, verdict, job.generation)
    change = statuses.compare(case.status, new, verdict)
    outcome = (str(verdict.phase), new.reason or "") if finished else None
    made = Plan(
        writes=_joined(writes),
        status=change.patch or None,
        figures_only=change.figures_only,
        notices=change.notices,
        again_at=verdict.again_at,
        outcome=outcome,
    )
    if not (change.patch and change.figures_only):
        return made
    written = case.observed.progress_written or 0.0
    if not lately(written, JOB_INTERVAL, case.now):
        return made
    turn = written + JOB_INTERVAL
    again_at = turn if verdict.again_at is None else min(turn, verdict.again_at)
    return replace(made, status=None, notices=(), again_at=again_at)


def _deadline(case: Case, verdict: Verdict) -> tuple[Change, ...]:
    """The due child's activeDeadlineSeconds follows the spec's: Kubernetes then keeps it without us."""
    child = case.child
    if child is None or child.finished or child.deleting:
        return ()
    if any(isinstance(write, Remove) for write in verdict.writes):
        return ()
    wanted = _left(case, child)
    if wanted == child.deadline:
        return ()
    return (Change(child, {"activeDeadlineSeconds": wanted}),)


def _joined(writes: tuple[Write, ...]) -> tuple[Write, ...]:
    """Two changes of one child are one write."""
    match writes:
        case (Change(child, first), Change(other, second)) if child is other:
            return (Change(child, {**first, **second}),)
    return writes


def _left(case: Case, child: Child) -> int | None:
    """What the child's own clock, which starts with it, has to be set to."""
    limit = case.job.spec.active_deadline_seconds
    if limit is None or case.start is None:
        return limit
    if child.start is None:
        # Its clock does not run yet: what it was created with stands, unless it has none.
        return child.deadline or max(1, int(limit - (case.now - case.start)))
    left = max(1, int(limit - max(0.0, child.start - case.start)))
    known = child.deadline
    # Made a second before it started: not worth a write.
    close = known is not None and child.start != case.start and abs(known - left) <= 2
    return known if close else left


def _stops(observed: Observed, job: Job) -> tuple[Remove, ...]:
    """Nothing of a finished job runs on."""
    return tuple(
        Remove(child)
        for child in observed.children
        if child.owner_uid == job.uid and not child.finished and not child.deleting
    )


def _finished(job: Job, now: float) -> Plan:
    if _TTL not in job.spec:  # nearly all of them: nothing is parsed
        return NOTHING
    ttl = json.loads(job.spec).get(_TTL)
    ended = seconds(json.loads(job.status).get("completionTime"))
    if not isinstance(ttl, int) or ended is None:
        return NOTHING
    return Plan(delete=True) if now >= ended + ttl else Plan(again_at=ended + ttl)


def _status_of(job: Job) -> RetrainJobStatus:
    """What was last written, or an empty one if somebody else wrote what cannot be read."""
    try:
        return RetrainJobStatus.model_validate_json(job.status)
    except ValidationError:
        return RetrainJobStatus()


def _invalid(
    job: Job, observed: Observed, old: RetrainJobStatus, error: InvalidJob, now: float
) -> Plan:
    """A job that cannot be parsed fails by itself and stops nobody else."""
    detail = "; ".join(error.problems)
    reason = reasons.INVALID_SPEC
    verdict = Verdict(Phase.FAILED, reason, reason(detail=detail))
    new = statuses.words(old, verdict, job.generation, now)
    change = statuses.compare(old, new, verdict)
    return Plan(
        writes=_stops(observed, job),
        status=change.patch,
        notices=change.notices,
        outcome=(str(Phase.FAILED), reason.name),
    )
