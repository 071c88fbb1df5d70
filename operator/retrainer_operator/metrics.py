"""What Prometheus reads: one job's figures as text made once per change, the operator's own as usual.

prometheus_client holds an object per series and renders 5,000 jobs in seconds; here a job's lines are
strings that are kept until the job changes, so a scrape of thousands of jobs is a join.
"""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from pydantic import ValidationError

from retrainer.api import FINISHED, Curve, Phase, Report, RetrainJobStatus, conditions
from retrainer.api import metrics as names
from retrainer.api.metrics import Metric
from retrainer.api.v1alpha1 import CURVE_MAX, CurvePoint
from retrainer_operator.state import Job, Key, seconds

CURVES_RUNNING = 50
CURVES_FINISHED = 50
"""Jobs whose curves are shown: each point is a series, 80 for one job."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_JOB_FAMILIES = (
    names.JOB_TRAINING_ACCURACY,
    names.JOB_VALIDATION_ACCURACY,
    names.JOB_CROSS_ENTROPY,
    names.JOB_VALIDATION_CROSS_ENTROPY,
    names.JOB_TEST_ACCURACY,
    names.JOB_MIN_ACCURACY,
    names.JOB_STEP,
    names.JOB_STEPS,
    names.JOB_IMAGES,
    names.JOB_IMAGES_PER_SECOND,
    names.JOB_PHASE,
    names.JOB_REASON,
    names.JOB_INFO,
    names.JOB_CREATED,
    names.JOB_FINISHED,
)
# Every outcome is there with 0 from the start: Prometheus sees no increase in a series that begins at 1.
_OUTCOMES = {conditions.Kind.SUCCEEDED: Phase.SUCCEEDED, conditions.Kind.FAILED: Phase.FAILED}
# A pass takes milliseconds, a wait in the queue up to a minute behind a thousand others.
_PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_WAIT_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass(frozen=True)
class Live:
    """One job at the moment of a scrape: as watched, and what its pods say."""

    job: Job
    reports: tuple[Report, ...]


@dataclass(frozen=True)
class _Lines:
    """A job's lines by family, and what they were made from."""

    version: int
    reports: tuple[Report, ...]
    text: dict[str, str]
    ended: float | None
    running: bool


class OperatorMetrics:
    """The operator's own metrics, and the text of all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.finished = Counter(*_own(names.JOBS_FINISHED), registry=self.registry)
        for reason in conditions.REASONS:
            if reason.kind in _OUTCOMES:
                self.finished.labels(_OUTCOMES[reason.kind], reason.name)
        self.passes = Counter(*_own(names.RECONCILES), registry=self.registry)
        self.pass_seconds = Histogram(
            *_own(names.RECONCILE_SECONDS), registry=self.registry, buckets=_PASS_BUCKETS
        )
        self.queue_depth = Gauge(*_own(names.QUEUE_DEPTH), registry=self.registry)
        self.queue_seconds = Histogram(
            *_own(names.QUEUE_SECONDS), registry=self.registry, buckets=_WAIT_BUCKETS
        )
        self.writes = Counter(*_own(names.API_WRITES), registry=self.registry)
        self.leader = Gauge(*_own(names.LEADER), registry=self.registry)
        self.last_resync = Gauge(*_own(names.LAST_RESYNC), registry=self.registry)
        self.namespaces_skipped = Gauge(*_own(names.NAMESPACES_SKIPPED), registry=self.registry)
        self._lines: dict[Key, _Lines] = {}
        self._one_scrape = threading.Lock()

    def wrote(self, verb: str, resource: str, code: str) -> None:
        """One write to the API server; asking for one's own rights is none."""
        if not resource.endswith("reviews"):
            self.writes.labels(verb, resource, code).inc()

    def render(self, jobs: Iterable[Live]) -> bytes:
        """The whole page; meant for a thread. Series of jobs that are no more go."""
        with self._one_scrape:
            lines = {live.job.key: self._of(live) for live in jobs}
            self._lines = lines
        pages = [generate_latest(self.registry).decode()]
        for family in _JOB_FAMILIES:
            parts = [of.text[family.name] for of in lines.values() if family.name in of.text]
            if parts:
                pages.append(_head(family) + "".join(parts))
        if curves := "".join(_shown_curves(lines.values())):
            pages.append(_head(names.JOB_CURVE) + curves)
        return "".join(pages).encode()

    def _of(self, live: Live) -> _Lines:
        known = self._lines.get(live.job.key)
        if known and known.version == live.job.version and known.reports == live.reports:
            return known
        return _lines(live)


def _lines(live: Live) -> _Lines:
    job = live.job
    status = _status(job)
    latest = live.reports[-1] if live.reports else None
    running = job.phase not in FINISHED
    use = latest if running and latest is not None else None
    metrics = use.metrics if use and use.task == "train" else status.metrics
    progress = use.progress if use and len(live.reports) == 1 else status.progress
    who = f'{{namespace="{job.namespace}",name="{job.name}"'
    text: dict[str, str] = {}

    def put(family: Metric, value: float | None, labels: str = "") -> None:
        if value is not None:
            line = f"{family.name}{who}{labels}}} {value:.10g}\n"
            text[family.name] = text.get(family.name, "") + line

    if metrics is not None:
        put(names.JOB_TRAINING_ACCURACY, metrics.training_accuracy)
        put(names.JOB_VALIDATION_ACCURACY, metrics.validation_accuracy)
        put(names.JOB_CROSS_ENTROPY, metrics.cross_entropy)
        put(names.JOB_VALIDATION_CROSS_ENTROPY, metrics.validation_cross_entropy)
        put(names.JOB_TEST_ACCURACY, metrics.test_accuracy)
    put(names.JOB_MIN_ACCURACY, _share(job.min_accuracy))
    if progress is not None:
        put(names.JOB_STEP, progress.step)
        put(names.JOB_STEPS, progress.steps)
        for state in ("total", "cached", "computed", "rejected"):
            count = getattr(progress, f"images_{state}")
            put(names.JOB_IMAGES, count, f',state="{state}"')
    if running and live.reports:
        rates = [r.images_per_second for r in live.reports if r.images_per_second is not None]
        put(names.JOB_IMAGES_PER_SECOND, sum(rates) if rates else None)
    put(names.JOB_PHASE, 1, f',phase="{_escaped(job.phase or "Pending")}"')
    if status.reason:
        put(names.JOB_REASON, 1, f',reason="{_escaped(status.reason)}"')
    architecture = json.loads(job.spec).get("architecture", "")
    put(names.JOB_INFO, 1, f',architecture="{_escaped(str(architecture))}"')
    put(names.JOB_CREATED, job.created)
    points = _steady(use.curve) if use and use.curve.step else status.curve
    if points:
        text[names.JOB_CURVE.name] = "".join(_curve(who, points))
    ended = None if running else seconds(status.completion_time)
    put(names.JOB_FINISHED, ended)
    return _Lines(job.version, live.reports, text, ended, running)


def _status(job: Job) -> RetrainJobStatus:
    """What was last written; one that somebody else wrote and cannot be read hides no other job."""
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


def _shown_curves(jobs: Iterable[_Lines]) -> list[str]:
    """Of the running jobs and those that ended last: a job of five seconds is seen as well."""
    with_curve = [of for of in jobs if names.JOB_CURVE.name in of.text]
    running = [of for of in with_curve if of.running][:CURVES_RUNNING]
    finished = sorted(
        (of for of in with_curve if not of.running), key=lambda of: of.ended or 0.0, reverse=True
    )
    shown = running + finished[:CURVES_FINISHED]
    return [of.text[names.JOB_CURVE.name] for of in shown]


def _curve(who: str, points: Iterable[CurvePoint]) -> list[str]:
    lines = []
    for point in points:
        for name, value in point.model_dump(exclude={"step"}).items():
            if value is not None:
                labels = f',metric="{name}",step="{point.step}"'
                lines.append(f"{names.JOB_CURVE.name}{who}{labels}}} {value:.10g}\n")
    return lines


def _head(family: Metric) -> str:
    return f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"


def _share(text: str | None) -> float | None:
    """The annotation's number; one that is none is not exported."""
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value <= 1 else None


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _own(metric: Metric) -> tuple[str, str, tuple[str, ...]]:
    return metric.name, metric.help, metric.labels
