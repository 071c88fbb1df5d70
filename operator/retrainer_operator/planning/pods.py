"""The verdict that a child's pods give: why they wait, how they run, how they ended."""

import re
from collections import Counter
from dataclasses import replace

from retrainer.api import Phase, Report, reasons
from retrainer.api.names import EXIT_USER, TASK_BOTTLENECKS, TASK_TRAIN
from retrainer_operator.planning import progress
from retrainer_operator.planning.actions import Look, Verdict
from retrainer_operator.planning.case import Case
from retrainer_operator.planning.snapshots import ChildSnapshot, PodSnapshot
from retrainer_operator.planning.times import is_recent

NO_PODS_AFTER = 10.0
"""Seconds after which a child without pods is asked why."""
LOOK_INTERVAL = 60.0
"""Seconds between two looks at a child's Events: they are not watched, and a quota may hold for days."""
PATIENCE = 5.0
"""Seconds that a pod may wait before the status says why: most causes pass sooner by themselves, and
each change of the status is a write."""
STARTING = 15.0
"""Seconds after which the status says that a pod is starting, where nothing is wrong with it."""

_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_OOM = "OOMKilled"
_REASON_NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,127}")


# --- how a child ended ---


def verdict_of_failure(case: Case, child: ChildSnapshot) -> Verdict:
    """Say why the child gave up, by the pod that failed last."""
    code, message = child.failed or ("", "")
    if code == "DeadlineExceeded":
        limit = case.job.spec.active_deadline_seconds or child.deadline
        if limit is None:  # somebody has taken it off since: the Job's own message is left
            return case.fails(reasons.CHILD_LOST, child=child.name, detail=message)
        return case.fails(reasons.DEADLINE_EXCEEDED, seconds=limit)
    # The pods that the Job controller ends because one has failed end after it, and explain nothing.
    dead = [p for p in case.pods if p.phase == "Failed" and not p.deleting]
    fatal = [p for p in dead if p.ended and p.ended.exit_code == EXIT_USER]
    by_policy = code == "PodFailurePolicy"
    if not (fatal if by_policy else dead):
        # The watch of Jobs may be ahead of that of pods: the pods are read once.
        unread = child.uid not in case.observed.listed
        look = Look("pods", child.name, child.uid) if unread else None
        return case.fails(reasons.CHILD_LOST, look=look, child=child.name, detail=message)
    if by_policy:
        return _verdict_of_report(case, fatal[-1])
    last = _latest(dead)
    if last.ended and last.ended.reason == _OOM:
        return case.fails(reasons.OOM_KILLED, pod=last.name, limit=last.memory_limit)
    # For shards, the Job's count of failures includes the pods that it ended itself.
    count = len(dead) if case.task == TASK_BOTTLENECKS else max(child.failures, len(dead))
    times = "once" if count == 1 else f"{count} times"
    return case.fails(reasons.BACKOFF_LIMIT_EXCEEDED, times=times, detail=describe_end(case, last))


def _verdict_of_report(case: Case, pod: PodSnapshot) -> Verdict:
    report = progress.latest_report(pod, case.observed.reports, case.uid)
    if report is None or not report.message:
        return case.fails(reasons.TRAINER_FAILED, detail=describe_end(case, pod))
    code = report.reason if _REASON_NAME.fullmatch(report.reason) else reasons.TRAINER_FAILED.name
    return Verdict(Phase.FAILED, reasons.TRAINER_FAILED, report.message, code=code)


def describe_end(case: Case, pod: PodSnapshot) -> str:
    """Tell how a failed pod ended: by its report, or by the last line of its log."""
    if pod.evicted:
        return f"evicted: {pod.evicted}"
    if pod.ended is None:
        return "nothing is known of how it ended"
    if pod.ended.reason == _OOM:
        return f"killed for using more memory than its limit of {pod.memory_limit}"
    report = progress.latest_report(pod, case.observed.reports, case.uid)
    lines = [line.strip() for line in pod.ended.message.splitlines() if line.strip()]
    cause = report.message if report else (lines[-1] if lines else "")
    return f"exit code {pod.ended.exit_code}" + (f": {cause}" if cause else "")


def final_report(case: Case) -> Report | None:
    """Find the report that the train pod left when it succeeded."""
    for pod in reversed(case.pods):
        if pod.phase == "Succeeded":
            report = progress.latest_report(pod, {}, case.uid)
            if report is not None and report.task == TASK_TRAIN:
                return report
    return None


# --- how it goes on ---


def verdict_of_pods(case: Case, child: ChildSnapshot) -> Verdict:
    """Say what the pods of a child do, when nothing is left but to watch them."""
    # A pod whose container has ended counts as ended, though its phase may follow a moment later.
    alive = [p for p in case.pods if not p.finished and p.ended is None]
    running = [p for p in alive if p.running]
    if running:
        return _running(case, running)
    waiting = [v for v in (_verdict_of_waiting(case, p) for p in alive) if v is not None]
    troubles = [v for v in waiting if v.reason is not reasons.POD_STARTING]
    dead = [p for p in case.pods if p.phase == "Failed"]
    if troubles:
        verdict = troubles[0]
    elif dead and _is_retried(case, dead):
        last = _latest(dead)
        detail = describe_end(case, last)
        verdict = case.waits(reasons.RETRYING, pod=last.name, detail=detail)
    elif waiting:
        verdict = waiting[0]
    elif alive:
        oldest = min(p.created for p in alive)
        again_at = oldest + (PATIENCE if case.now < oldest + PATIENCE else STARTING)
        verdict = case.waits(reasons.CREATED, child=child.name, again_at=again_at)
    elif case.pods:  # all have ended, and so will the Job in a moment
        verdict = replace(case.waits(reasons.CREATED, child=child.name), silent=True)
    else:
        verdict = _verdict_without_pods(case, child)
    return verdict


def _running(case: Case, pods: list[PodSnapshot]) -> Verdict:
    reports = [progress.latest_report(p, case.observed.reports, case.uid) for p in pods]
    first = next((r for r in reports if r is not None), None)
    if case.task != TASK_TRAIN:
        phase = Phase.BOTTLENECKS
    elif first is not None:
        phase = (
            first.stage if first.stage in (Phase.BOTTLENECKS, Phase.TRAINING) else Phase.TRAINING
        )
    elif case.waiting_phase != Phase.PENDING and case.job.spec.shards == 1:
        phase = case.waiting_phase
    else:
        phase = Phase.BOTTLENECKS if case.job.spec.shards == 1 else Phase.TRAINING
    reason, message = progress.running_sentence(
        pods[0], case.progress, phase, first.reason if first else ""
    )
    return Verdict(phase, reason, message)


def _is_retried(case: Case, dead: list[PodSnapshot]) -> bool:
    """Say whether the Job controller will replace the failed pods; else the Job fails in a moment."""
    done = {p.shard for p in case.pods if p.phase == "Succeeded"}
    open_ = [p for p in dead if p.shard not in done]
    tries = Counter(p.shard for p in open_ if not p.evicted)
    fatal = any(p.ended and p.ended.exit_code == EXIT_USER for p in open_)
    limit = case.job.spec.backoff_limit
    return bool(open_) and not fatal and all(n <= limit for n in tries.values())


def _latest(dead: list[PodSnapshot]) -> PodSnapshot:
    return max(dead, key=lambda p: p.ended.at if p.ended else p.created)


def _verdict_of_waiting(case: Case, pod: PodSnapshot) -> Verdict | None:
    age = case.now - pod.created
    if age < PATIENCE:
        return None
    if pod.waiting is not None:
        return _blocked(case, pod, *pod.waiting)
    if pod.unschedulable is not None:
        return case.waits(reasons.UNSCHEDULABLE, pod=pod.name, detail=pod.unschedulable)
    return case.waits(reasons.POD_STARTING, pod=pod.name) if age >= STARTING else None


def _blocked(case: Case, pod: PodSnapshot, code: str, detail: str) -> Verdict:
    secret = case.job.spec.storage.secret_name
    if code in _IMAGE:
        return case.waits(reasons.IMAGE_PULL_FAILED, pod=pod.name, detail=detail)
    if code == "CreateContainerConfigError" and secret and "secret" in detail.lower():
        return case.waits(reasons.SECRET_MISSING, pod=pod.name, secret=secret, detail=detail)
    return case.waits(reasons.POD_BLOCKED, pod=pod.name, detail=detail)


def _verdict_without_pods(case: Case, child: ChildSnapshot) -> Verdict:
    """Say why a child has no pods: the Job controller gives its reasons in Events only."""
    ask_at = max(child.start or child.created, child.created) + NO_PODS_AFTER
    if case.now < ask_at:
        return case.waits(reasons.CREATED, child=child.name, again_at=ask_at)
    events = case.observed.child_events.get(child.uid)
    if events is None or not is_recent(events.looked_at, LOOK_INTERVAL, case.now):
        return case.waits(
            reasons.CREATED, child=child.name, look=Look("events", child.name, child.uid)
        )
    again_at = events.looked_at + LOOK_INTERVAL
    if not events.message:
        return case.waits(reasons.CREATED, child=child.name, again_at=again_at)
    quota = "exceeded quota" in events.message
    reason = reasons.QUOTA_EXCEEDED if quota else reasons.POD_REFUSED
    return case.waits(reason, child=child.name, detail=events.message, again_at=again_at)
