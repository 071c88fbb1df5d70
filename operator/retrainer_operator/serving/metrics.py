"""The page that Prometheus reads: each job's lines, kept until it changes, and the operator's own.

prometheus_client holds an object per series and renders 5,000 jobs in seconds; here a job's lines are
strings that are kept until the job changes, so a scrape of thousands of jobs is a join.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from pydantic import ValidationError

from retrainer.api import FINISHED, Curve, Phase, Report, RetrainJobStatus, prometheus, reasons
from retrainer.api.findings import FindingKind
from retrainer.api.names import TASK_TRAIN
from retrainer.api.prometheus import Metric
from retrainer.api.status import CURVE_MAX, CurvePoint
from retrainer_operator.planning.snapshots import Key, RetrainJobSnapshot
from retrainer_operator.planning.times import parse_time

CURVES_RUNNING = 50
CURVES_FINISHED = 50
"""Jobs whose curves are shown: each point is a series, 80 for one job."""
BYTES_MAX = 4_500_000
"""Most bytes of all jobs' lines: 5,000 jobs stay under 5 MB a scrape, however long their names are."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Families of every job; then those that are left out, of jobs that ended long ago, where room is short.
_LASTING = (
    prometheus.JOB_PHASE,
    prometheus.JOB_REASON,
    prometheus.JOB_INFO,
    prometheus.JOB_FINISHED,
    prometheus.JOB_TEST_ACCURACY,
    prometheus.JOB_FINDINGS,
    prometheus.JOB_MIN_ACCURACY,
)
_FIGURES = (
    prometheus.JOB_CREATED,
    prometheus.JOB_TRAINING_ACCURACY,
    prometheus.JOB_VALIDATION_ACCURACY,
    prometheus.JOB_CROSS_ENTROPY,
    prometheus.JOB_VALIDATION_CROSS_ENTROPY,
    prometheus.JOB_STEP,
    prometheus.JOB_STEPS,
    prometheus.JOB_IMAGES,
    prometheus.JOB_IMAGES_PER_SECOND,
)
# Each outcome begins at 0: Prometheus sees no increase in a series that begins at 1.
_OUTCOMES = {reasons.Kind.SUCCEEDED: Phase.SUCCEEDED, reasons.Kind.FAILED: Phase.FAILED}
# A pass takes milliseconds, a wait in the queue up to a minute behind a thousand others.
_PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_WAIT_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass(frozen=True)
class Live:
    """One job at the moment of a scrape: as watched, and the reports of its pods."""

    job: RetrainJobSnapshot
    reports: tuple[Report, ...]


@dataclass(frozen=True)
class _Lines:
    """A job's lines by family, and what they were made from; its curve only when it is shown."""

    live: Live
    text: dict[str, str]
    running: bool
    ended: float
    has_curve: bool

    def size(self, families: Iterable[Metric]) -> int:
        """Bytes of these families' lines."""
        return sum(len(self.text.get(family.name, "")) for family in families)

    def fits(self, live: Live) -> bool:
        """Whether nothing has changed since."""
        return self.live.job.version == live.job.version and self.live.reports == live.reports


class OperatorMetrics:
    """The operator's own metrics, and the text of all."""

    def __init__(self) -> None:
        # In the text format the time of a counter's creation would be one more gauge beside it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.finished = Counter(*_own(prometheus.JOBS_FINISHED), registry=self.registry)
        for reason in reasons.REASONS:
            if reason.kind in _OUTCOMES:
                self.finished.labels(_OUTCOMES[reason.kind], reason.name)
        self.passes = Counter(*_own(prometheus.RECONCILES), registry=self.registry)
        for result in ("ok", "conflict", "error"):
            self.passes.labels(result)
        self.pass_seconds = Histogram(
            *_own(prometheus.RECONCILE_SECONDS), registry=self.registry, buckets=_PASS_BUCKETS
        )
        self.queue_depth = Gauge(*_own(prometheus.QUEUE_DEPTH), registry=self.registry)
        self.queue_seconds = Histogram(
            *_own(prometheus.QUEUE_SECONDS), registry=self.registry, buckets=_WAIT_BUCKETS
        )
        self.writes = Counter(*_own(prometheus.API_WRITES), registry=self.registry)
        self.statuses_refused = Counter(*_own(prometheus.STATUSES_REFUSED), registry=self.registry)
        self.leader = Gauge(*_own(prometheus.LEADER), registry=self.registry)
        self.last_resync = Gauge(*_own(prometheus.LAST_RESYNC), registry=self.registry)
        self.namespaces_skipped = Gauge(
            *_own(prometheus.NAMESPACES_SKIPPED), registry=self.registry
        )
        self.asyncio_tasks = Gauge(*_own(prometheus.ASYNCIO_TASKS), registry=self.registry)
        self._lines: dict[Key, _Lines] = {}
        self._curves: dict[Key, tuple[_Lines, str]] = {}
        self._one_scrape = threading.Lock()

    def count_write(self, verb: str, resource: str, code: str) -> None:
        """Count one write to the API server; asking for one's own rights is none."""
        if not resource.endswith("reviews"):
            self.writes.labels(verb, resource, code).inc()

    def render(self, jobs: Iterable[Live]) -> bytes:
        """Render the whole page, in a thread; series of jobs that no longer exist are dropped."""
        with self._one_scrape:
            self._lines = {live.job.key: self._of(live) for live in jobs}
            # Running jobs first, then those that ended last.
            lines = sorted(self._lines.values(), key=lambda of: (not of.running, -of.ended))
            self._curves = {of.live.job.key: self._curve(of) for of in _with_curve(lines)}
            curves = "".join(text for _, text in self._curves.values())
        pages = [generate_latest(self.registry).decode()]
        pages += _pages(_LASTING, lines)
        room = BYTES_MAX - len(curves) - sum(of.size(_LASTING) for of in lines)
        pages += _pages(_FIGURES, _within(room, lines))
        if curves:
            pages.append(_head(prometheus.JOB_CURVE) + curves)
        return "".join(pages).encode()

    def _of(self, live: Live) -> _Lines:
        kept = self._lines.get(live.job.key)
        return kept if kept and kept.fits(live) else _lines(live)

    def _curve(self, of: _Lines) -> tuple[_Lines, str]:
        kept = self._curves.get(of.live.job.key)
        return kept if kept and kept[0] is of else (of, _curve(of.live))


def _pages(families: Iterable[Metric], lines: Sequence[_Lines]) -> list[str]:
    pages = []
    for family in families:
        parts = [of.text[family.name] for of in lines if family.name in of.text]
        if parts:
            pages.append(_head(family) + "".join(parts))
    return pages


def _within(room: int, lines: Iterable[_Lines]) -> list[_Lines]:
    """Choose the first jobs whose figures take no more than `room` bytes."""
    kept = []
    for of in lines:
        room -= of.size(_FIGURES)
        if room < 0:
            break
        kept.append(of)
    return kept


def _with_curve(lines: Iterable[_Lines]) -> list[_Lines]:
    """Choose jobs that run and those that ended last, so that a job of five seconds shows a curve."""
    curved = [of for of in lines if of.has_curve]
    running = [of for of in curved if of.running][:CURVES_RUNNING]
    return running + [of for of in curved if not of.running][:CURVES_FINISHED]


def _lines(live: Live) -> _Lines:
    job = live.job
    status = _status(job)
    running = job.phase not in FINISHED
    latest = live.reports[-1] if running and live.reports else None
    metrics = latest.metrics if latest and latest.task == TASK_TRAIN else status.metrics
    progress = latest.progress if latest and len(live.reports) == 1 else status.progress
    who = _who(job)
    text: dict[str, str] = {}

    def put(family: Metric, value: float | None, labels: str = "") -> None:
        if value is not None:
            line = f"{family.name}{who}{labels}}} {value:.10g}\n"
            text[family.name] = text.get(family.name, "") + line

    if metrics is not None:
        put(prometheus.JOB_TRAINING_ACCURACY, metrics.training_accuracy)
        put(prometheus.JOB_VALIDATION_ACCURACY, metrics.validation_accuracy)
        put(prometheus.JOB_CROSS_ENTROPY, metrics.cross_entropy)
        put(prometheus.JOB_VALIDATION_CROSS_ENTROPY, metrics.validation_cross_entropy)
        put(prometheus.JOB_TEST_ACCURACY, metrics.test_accuracy)
    findings = (latest.findings if latest else None) or status.findings
    if findings is not None:
        for kind in FindingKind:
            put(prometheus.JOB_FINDINGS, getattr(findings, f"{kind}s"), f',kind="{kind}"')
    put(prometheus.JOB_MIN_ACCURACY, _share(job.min_accuracy))
    if progress is not None:
        put(prometheus.JOB_STEP, progress.step)
        put(prometheus.JOB_STEPS, progress.steps)
        for state in ("total", "cached", "computed", "rejected"):
            count = getattr(progress, f"images_{state}")
            put(prometheus.JOB_IMAGES, count, f',state="{state}"')
    if latest:
        now = [r for r in live.reports if r.task == latest.task]
        rates = [r.images_per_second for r in now if r.images_per_second is not None]
        put(prometheus.JOB_IMAGES_PER_SECOND, sum(rates) if rates else None)
    put(prometheus.JOB_PHASE, 1, f',phase="{_escaped(job.phase or "Pending")}"')
    if status.reason:
        put(prometheus.JOB_REASON, 1, f',reason="{_escaped(status.reason)}"')
    spec = json.loads(job.spec)
    architecture, backbone = spec.get("architecture") or "", spec.get("backbone") or {}
    url = str(backbone.get("url") or "")
    network = f',architecture="{_escaped(str(architecture))}",backbone="{_escaped(url)}"'
    put(prometheus.JOB_INFO, 1, network)
    put(prometheus.JOB_CREATED, job.created)
    ended = None if running else parse_time(status.completion_time)
    put(prometheus.JOB_FINISHED, ended)
    has_curve = bool(status.curve or (latest and latest.curve.step))
    return _Lines(live, text, running, ended or 0.0, has_curve)


def _curve(live: Live) -> str:
    """Write the lines of a job's curve: from its pod's report while it runs, then from the status."""
    latest = live.reports[-1] if live.reports and live.job.phase not in FINISHED else None
    points = _steady(latest.curve) if latest else []
    lines = []
    for point in points or _status(live.job).curve:
        for name, value in point.model_dump(exclude={"step"}).items():
            if value is not None:
                labels = f'{_who(live.job)},metric="{name}",step="{point.step}"'
                lines.append(f"{prometheus.JOB_CURVE.name}{labels}}} {value:.10g}\n")
    return "".join(lines)


def _status(job: RetrainJobSnapshot) -> RetrainJobStatus:
    """Read the status; one that somebody else wrote and cannot be read counts as empty."""
    try:
        return RetrainJobStatus.model_validate_json(job.status)
    except ValidationError:
        return RetrainJobStatus()


def _steady(curve: Curve) -> list[CurvePoint]:
    """At most 20 points of a growing curve: every 2^n-th and the latest.

    Points spread evenly would be others, and so new series, after each evaluation.
    """
    points = curve.points()
    stride = 1
    while len(points) > stride * (CURVE_MAX - 1):
        stride *= 2
    kept = points[::stride]
    return kept if kept[-1:] == points[-1:] else [*kept, points[-1]]


def _who(job: RetrainJobSnapshot) -> str:
    return f'{{namespace="{job.namespace}",name="{job.name}"'


def _head(family: Metric) -> str:
    return f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"


def _share(text: str | None) -> float | None:
    """Read the annotation's number; None, which is not exported, where it is no number."""
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value <= 1 else None


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _own(metric: Metric) -> tuple[str, str, tuple[str, ...]]:
    return metric.name, metric.help, metric.labels
