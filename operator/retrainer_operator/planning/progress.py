"""Progress from the reports of pods, added up."""

from collections.abc import Iterable, Mapping

from retrainer.api import Progress, Report, RetrainJob, reasons
from retrainer.api.names import TASK_BOTTLENECKS
from retrainer.api.status import CURVE_MAX, CurvePoint, Phase
from retrainer_operator.planning.snapshots import PodSnapshot

JOB_INTERVAL = 10.0
"""Seconds between two writes of one job that change its progress alone."""

# Percent of a sharded job that is reached when its bottlenecks are done: computing them takes minutes,
# training the head seconds.
_SHARDS_SHARE = 90


def latest_report(pod: PodSnapshot, live: Mapping[str, Report], uid: str) -> Report | None:
    """Give the pod's final report, else the latest that was read live."""
    final = pod.ended.report if pod.ended else None
    return final if final and final.uid == uid else live.get(pod.uid)


def progress_of_shards(reports: Iterable[Report], shards: int) -> Progress:
    """Add up the reports of a sharded job; its percent is over all shards, with a report or without.

    Each shard counts its own share of the images. Of a shard that was computed twice (its first pod
    died) the report that got further counts.
    """
    best: dict[int, Report] = {}
    for report in reports:
        other = best.get(report.shard)
        if other is None or _done(report.progress) >= _done(other.progress):
            best[report.shard] = report
    done = sum(_fraction(r.progress) for r in best.values())
    counts = [r.progress for r in best.values()]
    remaining = [p.remaining_seconds for p in counts if p.remaining_seconds is not None]
    return Progress(
        percent=int(_SHARDS_SHARE * done / shards),
        remaining_seconds=max(remaining, default=None),
        images_total=_sum(p.images_total for p in counts),
        images_cached=_sum(p.images_cached for p in counts),
        images_computed=_sum(p.images_computed for p in counts),
        images_rejected=_sum(p.images_rejected for p in counts),
    )


def merge(job: RetrainJob, old: Progress | None, new: Progress, task: str) -> Progress:
    """Return `new`, its percent never less than `old`'s, and the shards' images counted as computed.

    The train pod of a sharded job finds everything in the cache and counts it as cached; only the
    operator can tell that this job's own shards computed it.
    """
    percent = max((p.percent for p in (old, new) if p and p.percent is not None), default=None)
    update: dict[str, int | None] = {"percent": percent}
    if job.spec.shards > 1 and task != TASK_BOTTLENECKS and old and new.images_cached is not None:
        by_shards = min(old.images_computed or 0, new.images_cached)
        if new.images_total is not None and (new.images_computed or 0) < by_shards:
            update["images_computed"] = by_shards
            update["images_cached"] = new.images_cached + (new.images_computed or 0) - by_shards
    # A new object, because its validator computes cachedPercent from the counts.
    return Progress(**{**new.model_dump(exclude={"cached_percent"}), **update})


def curve_points(report: Report) -> list[CurvePoint]:
    """Thin the curve of a report to 20 points, evenly spread, the first and the last among them."""
    return report.curve.thinned(CURVE_MAX).points()


def running_sentence(
    pod: PodSnapshot, progress: Progress | None, stage: Phase, last: str
) -> tuple[reasons.Reason, str]:
    """Give reason and sentence of a running job; `last` is the reason that its pod reports."""
    if progress is None:
        return reasons.RUNNING, reasons.RUNNING(pod=pod.name)
    done, steps = progress.step or 0, progress.steps or 0
    if stage == Phase.TRAINING and (last == reasons.EXPORTING.name or 0 < steps <= done):
        return reasons.EXPORTING, reasons.EXPORTING()
    if stage == Phase.TRAINING:
        return reasons.TRAINING, reasons.TRAINING(step=done, steps=steps)
    if progress.images_total is None:
        return reasons.RUNNING, reasons.RUNNING(pod=pod.name)
    return reasons.BOTTLENECKS, reasons.BOTTLENECKS(
        done=_done(progress), total=progress.images_total, cached=progress.images_cached or 0
    )


def _done(progress: Progress) -> int:
    return (
        (progress.images_cached or 0)
        + (progress.images_computed or 0)
        + (progress.images_rejected or 0)
    )


def _fraction(progress: Progress) -> float:
    total = progress.images_total
    if total is None:
        return 0.0
    return min(1.0, _done(progress) / total) if total else 1.0


def _sum(values: Iterable[int | None]) -> int | None:
    numbers = [v for v in values if v is not None]
    return sum(numbers) if numbers else None
