"""The status that follows from a verdict, and the patch that makes it from the old one."""

import json
from dataclasses import dataclass
from typing import Any

from retrainer.api import FINISHED, Condition, Phase, Report, RetrainJobStatus, reasons
from retrainer.api.names import TASK_TRAIN
from retrainer.api.reasons import ConditionType, Kind
from retrainer.api.status import (
    CONDITIONS_MAX,
    ConditionStatus,
    JobMetrics,
    JobProgress,
    Metrics,
    Progress,
)
from retrainer.api.task import rounded, shorten
from retrainer_operator.planning import progress
from retrainer_operator.planning.actions import Event, Verdict
from retrainer_operator.planning.case import Case
from retrainer_operator.planning.snapshots import RetrainJobSnapshot
from retrainer_operator.planning.times import format_time, parse_time

_MESSAGE_MAX = 1024
_RESUMED = "Resumed"
_RESUMED_MESSAGE = "Resumed; pods may run again."
_READY = "The bottlenecks of all images are in the cache."

# A change of figures alone is written at most every ten seconds; startTime alone waits for the next
# write of anything else.
_FIGURES = frozenset(
    {"message", "progress", "metrics", "curve", "sweep", "labelCount", "run", "artifacts"}
)
_OWN = frozenset(ConditionType)
_RIDES_ALONG = frozenset({"startTime"})
_RUNNING = frozenset(r.name for r in reasons.REASONS if r.kind == Kind.RUNNING)
_USUAL = (reasons.CREATED, reasons.POD_STARTING, reasons.QUEUED)


@dataclass(frozen=True)
class StatusPatch:
    """The difference between two statuses.

    Attributes:
        patch: JSON merge patch of the status; empty when nothing differs.
        figures_only: only figures differ, so the write may wait its turn.
        events: to be written once the status is.
    """

    patch: dict[str, Any]
    figures_only: bool
    events: tuple[Event, ...]


def build(case: Case, verdict: Verdict, generation: int) -> RetrainJobStatus:
    """Build the whole new status."""
    ready = _ready(case, verdict)
    start = format_time(case.start) if case.start is not None else None
    new = status_without_figures(case.status, verdict, generation, case.now, ready=ready)
    return new.model_copy(update={"start_time": start, **_figures(case, verdict)})


def status_without_figures(
    old: RetrainJobStatus, verdict: Verdict, generation: int, now: float, *, ready: bool = False
) -> RetrainJobStatus:
    """Build phase, reason, message and conditions; `ready` is whether all bottlenecks are computed."""
    reason = verdict.code or verdict.reason.name
    message = shorten(" ".join(verdict.message.split()), _MESSAGE_MAX)
    finished = verdict.phase in FINISHED
    true: dict[ConditionType, tuple[str, str]] = {}
    if verdict.phase == Phase.SUSPENDED:
        true[ConditionType.SUSPENDED] = (reason, message)
    if ready:
        true[ConditionType.BOTTLENECKS_READY] = (ConditionType.BOTTLENECKS_READY, _READY)
    if verdict.phase == Phase.SUCCEEDED:
        true[ConditionType.COMPLETE] = (reason, message)
    if verdict.phase == Phase.FAILED:
        true[ConditionType.FAILED] = true[ConditionType.STALLED] = (reason, message)
    update: dict[str, Any] = {
        "observed_generation": generation,
        "phase": verdict.phase,
        "reason": reason,
        "message": message,
        "completion_time": _end(old, verdict, now) if finished else None,
        "conditions": _conditions(old, true, generation, now),
    }
    return old.model_copy(update=update)


def _end(old: RetrainJobStatus, verdict: Verdict, now: float) -> str:
    """Take the time from the child, however late we learn of it; never before the start of the job."""
    end = now if verdict.ended_at is None else verdict.ended_at
    return format_time(max(end, parse_time(old.start_time) or end))


def compare(
    job: RetrainJobSnapshot, old: RetrainJobStatus, new: RetrainJobStatus, verdict: Verdict
) -> StatusPatch:
    """Find what to write, if anything, and whether it may wait its turn."""
    was, will = rounded(old.dump()), rounded(new.dump())
    written = json.loads(job.status).get("conditions") or []
    was["conditions"] = _untouched(old.conditions, old, written)
    will["conditions"] = _untouched(new.conditions, old, written)
    patch = _patch(was, will)
    if set(patch) <= _RIDES_ALONG:
        return StatusPatch({}, False, ())
    runs_on = verdict.reason.kind == Kind.RUNNING and was.get("reason") in _RUNNING
    same_kind = old.phase == new.phase and runs_on
    urgent = set(patch) - _FIGURES - _RIDES_ALONG - ({"reason"} if same_kind else set())
    return StatusPatch(patch, not urgent, _events(old, new, verdict))


def _untouched(
    conditions: list[Condition], old: RetrainJobStatus, written: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Give the conditions as they are written: those whose status did not change stay as they were.

    A list is written as a whole, and another controller's condition may lack what ours always have:
    what was not there must not be sent as an empty text, which is no time, and would be refused.
    """
    before = {c.type: (c, raw) for c, raw in zip(old.conditions, written, strict=False)}
    return [
        before[c.type][1] if c.type in before and before[c.type][0] == c else c.dump()
        for c in conditions
    ]


def _patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Make the JSON merge patch from `old` to `new`, both without nulls."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if before == value:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            patch[name] = _patch(before, value)
        else:
            patch[name] = value
    return patch


def _conditions(
    old: RetrainJobStatus,
    true: dict[ConditionType, tuple[str, str]],
    generation: int,
    now: float,
) -> list[Condition]:
    """Change the conditions whose status is another; all others keep their reason and their time."""
    conditions = {c.type: c for c in old.conditions}

    def turn(kind: ConditionType, to: ConditionStatus, reason: str, message: str) -> None:
        if kind not in conditions or conditions[kind].status != to:
            conditions[kind] = Condition(
                type=str(kind),
                status=to,
                reason=reason,
                message=message,
                last_transition_time=format_time(now),
                observed_generation=generation,
            )

    for kind, (reason, message) in true.items():
        turn(kind, ConditionStatus.TRUE, reason, message)
    if ConditionType.SUSPENDED in conditions and ConditionType.SUSPENDED not in true:
        turn(ConditionType.SUSPENDED, ConditionStatus.FALSE, _RESUMED, _RESUMED_MESSAGE)
    if len(conditions) <= CONDITIONS_MAX:
        return list(conditions.values())
    # The job's own conditions are always written, however many there are of others.
    own = [c for c in conditions.values() if c.type in _OWN]
    foreign = [c for c in conditions.values() if c.type not in _OWN]
    return own + foreign[: CONDITIONS_MAX - len(own)]


def _ready(case: Case, verdict: Verdict) -> bool:
    if verdict.phase in (Phase.SUCCEEDED, Phase.TRAINING):
        return True
    return case.job.spec.shards > 1 and case.bottlenecks_done


def _figures(case: Case, verdict: Verdict) -> dict[str, Any]:
    """Take the figures from the reports; what no report has stays as it was."""
    status = case.status
    figures: dict[str, Any] = {}
    latest: Progress | None = case.progress or status.progress
    if verdict.phase == Phase.SUCCEEDED and latest is not None:
        latest = latest.model_copy(update={"percent": 100, "remaining_seconds": 0})
    elif verdict.phase in (Phase.FAILED, Phase.SUSPENDED) and latest is not None:
        latest = latest.model_copy(update={"remaining_seconds": None})
    figures["progress"] = None if latest is None else JobProgress.of(latest)
    report = verdict.report or _report_of_train(case)
    if report is not None:
        figures["metrics"] = _merge_metrics(status.metrics, report.metrics)
        figures["curve"] = progress.curve_points(report) or status.curve
        figures["sweep"] = report.sweep or status.sweep
        figures["label_count"] = report.label_count or status.label_count
        figures["findings"] = report.findings or status.findings
        figures["artifacts"] = report.artifacts or status.artifacts
    if report is not None or verdict.phase == Phase.SUCCEEDED:
        figures["run"] = case.job.run_url
    return figures


def _report_of_train(case: Case) -> Report | None:
    return next((r for r in reversed(case.reports) if r.task == TASK_TRAIN), None)


def _merge_metrics(old: Metrics | None, new: Metrics) -> JobMetrics:
    given = new.model_dump(exclude_none=True)
    return JobMetrics.of(old.model_copy(update=given) if old is not None else new)


def _events(old: RetrainJobStatus, new: RetrainJobStatus, verdict: Verdict) -> tuple[Event, ...]:
    """Choose the Events for a change of reason: few, because each is a write."""
    reason, message = new.reason or "", new.message or ""
    if reason == old.reason and new.phase == old.phase:
        return ()
    events: list[Event] = []
    if old.phase == Phase.SUSPENDED and new.phase not in FINISHED:
        events.append(Event("Normal", _RESUMED, _RESUMED_MESSAGE))
    kind = verdict.reason.kind
    if kind == Kind.FAILED:
        events.append(Event("Warning", reason, message))
    elif kind == Kind.SUCCEEDED or verdict.reason is reasons.SUSPENDED:
        events.append(Event("Normal", reason, message))
    elif kind == Kind.WAITING and verdict.reason not in _USUAL:
        events.append(Event("Warning", reason, message))
    return tuple(events)
