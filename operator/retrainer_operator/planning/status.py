"""The status that a verdict makes, and how it differs from the old one. Pure; written once, last."""

from dataclasses import dataclass
from typing import Any

from retrainer.api import FINISHED, Condition, Phase, Report, RetrainJobStatus, reasons
from retrainer.api.names import TASK_TRAIN
from retrainer.api.reasons import ConditionType, Kind
from retrainer.api.status import ConditionStatus, Metrics
from retrainer.api.task import rounded, shorten
from retrainer_operator.planning import pods, progress
from retrainer_operator.planning.case import Case, Verdict
from retrainer_operator.planning.snapshots import timestamp

_MESSAGE_MAX = 1024
_RESUMED = "Resumed"
_RESUMED_MESSAGE = "Resumed; pods may run again."
JOB_CREATED = "JobCreated"
_READY = "The bottlenecks of all images are in the cache."

# Alone, these wait their turn: figures move all the time, and startTime comes with the next word.
_FIGURES = frozenset({"message", "progress", "metrics", "curve", "labelCount", "run", "artifacts"})
_RIDES_ALONG = frozenset({"startTime"})
_RUNNING = frozenset(r.name for r in reasons.REASONS if r.kind == Kind.RUNNING)
_USUAL = (reasons.CREATED, reasons.POD_STARTING, reasons.QUEUED)


@dataclass(frozen=True)
class Notice:
    """A Kubernetes Event to be: written after the status that it tells of."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True)
class Change:
    """What is new in a status.

    Attributes:
        patch: for a merge patch of the status; empty when there is nothing new.
        figures_only: it may wait its turn.
        notices: what to tell once it is written.
    """

    patch: dict[str, Any]
    figures_only: bool
    notices: tuple[Notice, ...]


def build(case: Case, verdict: Verdict, generation: int) -> RetrainJobStatus:
    """The whole new status."""
    ready = _ready(case, verdict)
    start = timestamp(case.start) if case.start is not None else None
    told = words(case.status, verdict, generation, case.now, ready=ready)
    return told.model_copy(update={"start_time": start, **_figures(case, verdict)})


def words(
    old: RetrainJobStatus, verdict: Verdict, generation: int, now: float, *, ready: bool = False
) -> RetrainJobStatus:
    """The new status without its figures; `ready` is whether the bottlenecks are."""
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
        true[ConditionType.FAILED] = (reason, message)
    update: dict[str, Any] = {
        "observed_generation": generation,
        "phase": verdict.phase,
        "reason": reason,
        "message": message,
        "completion_time": timestamp(now) if finished else None,
        "conditions": _conditions(old, true, generation, now),
    }
    return old.model_copy(update=update)


def compare(old: RetrainJobStatus, new: RetrainJobStatus, verdict: Verdict) -> Change:
    """What to write, if anything, and whether it can wait."""
    was, will = rounded(old.dump()), rounded(new.dump())
    patch = _patch(was, will)
    if set(patch) <= _RIDES_ALONG:
        return Change({}, False, ())
    told = was.get("reason")
    same_kind = old.phase == new.phase and verdict.reason.kind == Kind.RUNNING and told in _RUNNING
    loud = set(patch) - _FIGURES - _RIDES_ALONG - ({"reason"} if same_kind else set())
    return Change(patch, not loud, _notices(old, new, verdict))


def _patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The JSON merge patch from `old` to `new`, both without nulls."""
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
    """A condition is touched only when its status turns: kind, reason and sentence of that moment."""
    known = {c.type: c for c in old.conditions}

    def turn(kind: ConditionType, to: ConditionStatus, reason: str, message: str) -> None:
        if kind not in known or known[kind].status != to:
            known[kind] = Condition(
                type=str(kind),
                status=to,
                reason=reason,
                message=message,
                last_transition_time=timestamp(now),
                observed_generation=generation,
            )

    for kind, (reason, message) in true.items():
        turn(kind, ConditionStatus.TRUE, reason, message)
    if ConditionType.SUSPENDED in known and ConditionType.SUSPENDED not in true:
        turn(ConditionType.SUSPENDED, ConditionStatus.FALSE, _RESUMED, _RESUMED_MESSAGE)
    return list(known.values())


def _ready(case: Case, verdict: Verdict) -> bool:
    if verdict.phase in (Phase.SUCCEEDED, Phase.TRAINING):
        return True
    return case.job.spec.shards > 1 and case.bottlenecks_done


def _figures(case: Case, verdict: Verdict) -> dict[str, Any]:
    """What the reports say; what they do not say stays as it was."""
    status = case.status
    figures: dict[str, Any] = {}
    seen = case.progress or status.progress
    if verdict.phase == Phase.SUCCEEDED and seen is not None:
        seen = seen.model_copy(update={"percent": 100, "remaining_seconds": 0})
    elif verdict.phase in (Phase.FAILED, Phase.SUSPENDED) and seen is not None:
        seen = seen.model_copy(update={"remaining_seconds": None})
    figures["progress"] = seen
    said = _of_train(case, verdict)
    if said is not None:
        figures["metrics"] = _later(status.metrics, said.metrics)
        figures["curve"] = progress.curve(said) or status.curve
        figures["label_count"] = said.label_count or status.label_count
        figures["artifacts"] = said.artifacts or status.artifacts
    if said is not None or verdict.phase == Phase.SUCCEEDED:
        figures["run"] = case.job.run_url
    return figures


def _of_train(case: Case, verdict: Verdict) -> Report | None:
    if verdict.phase == Phase.SUCCEEDED:
        final = pods.final_report(case)
        if final is not None:
            return final
    return next((r for r in reversed(case.reports) if r.task == TASK_TRAIN), None)


def _later(old: Metrics | None, new: Metrics) -> Metrics:
    given = new.model_dump(exclude_none=True)
    return old.model_copy(update=given) if old is not None else new


def _notices(old: RetrainJobStatus, new: RetrainJobStatus, verdict: Verdict) -> tuple[Notice, ...]:
    """One Event per change of reason worth telling: few, since each is a write."""
    reason, message = new.reason or "", new.message or ""
    if reason == old.reason and new.phase == old.phase:
        return ()
    notices: list[Notice] = []
    if old.phase == Phase.SUSPENDED and new.phase not in FINISHED:
        notices.append(Notice("Normal", _RESUMED, _RESUMED_MESSAGE))
    kind = verdict.reason.kind
    if kind == Kind.FAILED:
        notices.append(Notice("Warning", reason, message))
    elif kind == Kind.SUCCEEDED or verdict.reason is reasons.SUSPENDED:
        notices.append(Notice("Normal", reason, message))
    elif kind == Kind.WAITING and verdict.reason not in _USUAL:
        notices.append(Notice("Warning", reason, message))
    return tuple(notices)
