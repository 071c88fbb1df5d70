"""From reports to progress: what pods say, checked and added up. Pure; time is an argument."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from pydantic import ValidationError

from retrainer.api import Curve, Metrics, Progress, Report, RetrainJob, reasons
from retrainer.api.names import TASK_BOTTLENECKS
from retrainer.api.status import CURVE_MAX, CurvePoint, Phase
from retrainer_operator.planning.snapshots import Pod

JOB_INTERVAL = 10.0
"""Seconds between two writes of one job that change its progress alone: DESIGN section 5."""
OVERALL_RATE = 20.0
"""Such writes per second, of all jobs together: a quarter of what the API server takes on 2 cores."""

# Share of a sharded job's percent that its bottlenecks take, as in the figures of DESIGN section 3:
# the head trains in seconds, computing takes minutes.
_SHARDS_SHARE = 90
_ARTIFACTS_MAX = 64


class OverallLimit:
    """A token bucket over all jobs' progress writes."""

    def __init__(self, rate: float = OVERALL_RATE) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = -math.inf

    def take(self, now: float) -> float:
        """0 and a token is gone, or the seconds until there is one."""
        if self._at > -math.inf:
            passed = max(0.0, now - self._at)  # none, if the clock was set back
            self._tokens = min(self._rate, self._tokens + passed * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


def checked(text: str | bytes, uid: str) -> Report | None:
    """The Report in `text` if it is one, and of this job; a pod's word is checked like any input."""
    try:
        report = Report.model_validate_json(text)
    except ValidationError:
        return None
    if report.uid != uid:
        return None
    return report.model_copy(
        update={
            "metrics": _sane_metrics(report.metrics),
            "progress": _sane_progress(report.progress),
            "curve": report.curve if _is_sane(report.curve) else Curve(),
            "label_count": report.label_count if _count(report.label_count) else None,
            "artifacts": dict(list(report.artifacts.items())[:_ARTIFACTS_MAX]),
        }
    )


@lru_cache(maxsize=4096)
def of_ended(text: str, uid: str) -> Report | None:
    """The same for a termination message, which does not change: parsed once."""
    return checked(text, uid) if text.startswith("{") else None


def of_pod(pod: Pod, live: Mapping[str, Report], uid: str) -> Report | None:
    """The latest that this pod has said."""
    final = of_ended(pod.ended.message, uid) if pod.ended else None
    return final or live.get(pod.uid)


def of_shards(reports: Iterable[Report], shards: int) -> Progress:
    """The progress of a sharded job: counts added up, percent over all shards, heard of or not.

    Each shard counts its own share of the images; of a shard that was computed twice (its first pod
    died) the report that got further stands.
    """
    best: dict[int, Report] = {}
    for report in reports:
        known = best.get(report.shard)
        if known is None or _done(report.progress) >= _done(known.progress):
            best[report.shard] = report
    done = sum(_fraction(r.progress) for r in best.values())
    heard = [r.progress for r in best.values()]
    remaining = [p.remaining_seconds for p in heard if p.remaining_seconds is not None]
    return Progress(
        percent=int(_SHARDS_SHARE * done / shards),
        remaining_seconds=max(remaining, default=None),
        images_total=_sum(p.images_total for p in heard),
        images_cached=_sum(p.images_cached for p in heard),
        images_computed=_sum(p.images_computed for p in heard),
        images_rejected=_sum(p.images_rejected for p in heard),
    )


def merged(job: RetrainJob, old: Progress | None, new: Progress, task: str) -> Progress:
    """`new`, its percent never less than `old`'s, and shards' images counted as computed.

    The train pod of a sharded job finds everything in the cache; that the job's own shards put it
    there is known here only.
    """
    percent = max((p.percent for p in (old, new) if p and p.percent is not None), default=None)
    update: dict[str, int | None] = {"percent": percent}
    if job.spec.shards > 1 and task != TASK_BOTTLENECKS and old and new.images_cached is not None:
        by_shards = min(old.images_computed or 0, new.images_cached)
        if new.images_total is not None and (new.images_computed or 0) < by_shards:
            update["images_computed"] = by_shards
            update["images_cached"] = new.images_cached + (new.images_computed or 0) - by_shards
    # Made anew, since cachedPercent follows from the counts.
    return Progress(**{**new.model_dump(exclude={"cached_percent"}), **update})


def curve(report: Report) -> list[CurvePoint]:
    """At most 20 points, evenly spread, the first and the last among them."""
    return report.curve.thinned(CURVE_MAX).points()


def words(
    pod: Pod, progress: Progress | None, stage: Phase, last: str
) -> tuple[reasons.Reason, str]:
    """Reason and sentence of a running job; `last` is the reason that its pod gives itself."""
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
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _sane_metrics(metrics: Metrics) -> Metrics:
    def share(value: float | None) -> bool:
        return value is None or 0 <= value <= 1

    def entropy(value: float | None) -> bool:
        return value is None or (math.isfinite(value) and value >= 0)

    sane: dict[str, Callable[[float | None], bool]] = {
        "training_accuracy": share,
        "validation_accuracy": share,
        "test_accuracy": share,
        "cross_entropy": entropy,
        "validation_cross_entropy": entropy,
        "test_images": _count,
    }
    wrong = [name for name, fits in sane.items() if not fits(getattr(metrics, name))]
    return metrics.model_copy(update=dict.fromkeys(wrong)) if wrong else metrics


_COUNT_MAX = 2**53
"""Above it, a JSON number is no whole number to the API server, which then takes no status at all."""


def _count(value: float | None) -> bool:
    return value is None or 0 <= value <= _COUNT_MAX


def _is_sane(curve: Curve) -> bool:
    values = (
        *curve.training_accuracy,
        *curve.validation_accuracy,
        *curve.cross_entropy,
        *curve.validation_cross_entropy,
    )
    return all(map(_count, curve.step)) and all(v is None or math.isfinite(v) for v in values)


def _sane_progress(progress: Progress) -> Progress:
    counts = progress.model_dump()
    wrong = [n for n, v in counts.items() if not _count(v)]
    if counts["percent"] is not None and counts["percent"] > 100:
        wrong.append("percent")
    return progress.model_copy(update=dict.fromkeys(wrong)) if wrong else progress
