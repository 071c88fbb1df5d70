"""What the task tells while it runs: its report, its log, its metrics."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO, TypedDict

from pydantic import BaseModel

from retrainer.api import CurvePoint, Phase, Report, SweepStatus, Task, prometheus
from retrainer.api.findings import FindingCounts
from retrainer.api.names import ENV_EVENTS, ENV_PORT, REPORT_PORT, TASK_TRAIN
from retrainer.api.task import rounded
from retrainer_trainer.runtime.clock import Clock

ENV_TERMINATION = "RETRAINER_TERMINATION_LOG"
_TERMINATION_LOG = "/dev/termination-log"
_EVENT_INTERVAL_S = 0.1


class ProgressChange(TypedDict, total=False):
    """Fields of `retrainer.api.Progress` that the trainer sets."""

    percent: int
    remaining_seconds: int | None
    images_total: int
    images_cached: int
    images_computed: int
    images_rejected: int
    step: int
    steps: int


class MetricsChange(TypedDict, total=False):
    """Fields of `retrainer.api.Metrics`."""

    training_accuracy: float | None
    validation_accuracy: float | None
    cross_entropy: float | None
    validation_cross_entropy: float | None
    test_accuracy: float | None
    test_images: int


class Reporter:
    """Holds the live Report of one task; every method may be called from any thread.

    Attributes:
        clock: where the time of the task goes.

    Args:
        task: whose report it is.
        shard: which of `task.shards` this process computes.
        port: where `/report` and `/metrics` are served; 0 serves nothing. RETRAINER_PORT if None.
        events: file descriptor to which each change is written as a line of JSON, one of
            `{"report": {...}}`, `{"log": "..."}`, `{"warning": "..."}`, `{"answer": {...}}`.
            RETRAINER_EVENTS_FD if None.
    """

    def __init__(
        self, task: Task, shard: int = 0, *, port: int | None = None, events: int | None = None
    ) -> None:
        self.report = Report(
            task=task.task,
            name=task.name,
            namespace=task.namespace,
            uid=task.uid,
            shard=shard,
            run=task.run_url if task.task == TASK_TRAIN else None,
        )
        self._lock = threading.RLock()
        self._begun = time.monotonic()
        self.clock = Clock()
        # A copy, so that lines are still seen while `quiet` mutes the process's own descriptor.
        self._out = _copy(sys.__stdout__) if sys.__stdout__ is not None else None
        if events is None:
            events = int(os.environ.get(ENV_EVENTS, "-1"))
        self._events = events
        self._event_due = 0.0
        self._event_late = False
        if port is None:
            port = int(os.environ.get(ENV_PORT, str(REPORT_PORT)))
        self._server = _serve(self, port) if port else None

    @property
    def port(self) -> int:
        """The port on which `/report` and `/metrics` are served; 0 if they are not."""
        return int(self._server.server_address[1]) if self._server else 0

    def to_json(self) -> str:
        """Write the whole report, as it is now, as JSON."""
        with self._lock:
            return self.report.to_json()

    # --- changing the report ---
    def update(
        self,
        *,
        stage: Phase | None = None,
        reason: str | None = None,
        message: str | None = None,
        progress: ProgressChange | None = None,
        metrics: MetricsChange | None = None,
        sweep: SweepStatus | None = None,
        label_count: int | None = None,
        findings: FindingCounts | None = None,
        artifacts: dict[str, str] | None = None,
        images_per_second: float | None = None,
    ) -> None:
        """Change the report. What is not given stays as it is.

        Args:
            stage: of the job.
            reason: one word for scripts.
            message: one sentence for people.
            progress: fields of `retrainer.api.Progress` to change; the others stay.
            metrics: fields of `retrainer.api.Metrics` to change; the others stay.
            sweep: what a sweep tried and chose.
            label_count: number of labels.
            findings: how many there are among the images.
            artifacts: name and path of each file of the run.
            images_per_second: rate at which bottlenecks are computed.
        """
        changes = {
            "stage": stage,
            "reason": reason,
            "message": message,
            "sweep": sweep,
            "label_count": label_count,
            "findings": findings,
            "artifacts": artifacts,
            "images_per_second": images_per_second,
        }
        fields: dict[str, Any] = {k: v for k, v in changes.items() if v is not None}
        with self._lock:
            if progress is not None:
                fields["progress"] = _changed(self.report.progress, progress)
            if metrics is not None:
                fields["metrics"] = _changed(self.report.metrics, metrics)
            fields["seconds"] = time.monotonic() - self._begun
            self.report = self.report.model_copy(update=fields)
        self._report_event()

    def replace(self, report: Report) -> None:
        """Take over the whole report of a task that is done."""
        with self._lock:
            self.report = report
        self._report_event()

    def point(self, point: CurvePoint) -> None:
        """Add one evaluation to the learning curve, and make it the latest metrics."""
        with self._lock:
            self.report.curve.add(point)
            self.update(
                progress={"step": point.step},
                metrics={
                    "training_accuracy": point.training_accuracy,
                    "validation_accuracy": point.validation_accuracy,
                    "cross_entropy": point.cross_entropy,
                    "validation_cross_entropy": point.validation_cross_entropy,
                },
            )

    def log(self, text: str) -> None:
        """Write one plain line for people on standard output."""
        with self._lock:
            if self._out is not None:
                self._out.write(text + "\n")
        self._event({"log": text})

    def warn(self, text: str) -> None:
        """Keep a warning in the report, and log it."""
        with self._lock:
            self.report.warnings.append(text)
            if self._out is not None:
                self._out.write(f"Warning: {text}\n")
        self._event({"warning": text})
        self._report_event()

    def answer(self, document: BaseModel) -> None:
        """Give what a task that only looks at a job was asked for."""
        text = json.dumps(rounded(document.model_dump(mode="json", by_alias=True)))
        self._write_event('{"answer":' + text + "}")

    def finish(self) -> None:
        """Write the last event and the pod's termination message; events end with it."""
        self.update()
        self._report_event(last=True)
        with self._lock:
            self._events = -1
        given = os.environ.get(ENV_TERMINATION)
        path = Path(given or _TERMINATION_LOG)
        if given or path.is_file():
            try:
                path.write_text(self.report.termination_message(), encoding="utf-8")
            except OSError as error:
                self.log(f"The termination message was not written to {path}: {error.strerror}.")

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    # --- events ---
    def _report_event(self, *, last: bool = False) -> None:
        if self._events < 0:
            return
        with self._lock:
            now = time.monotonic()
            if not last and now < self._event_due:
                if not self._event_late:  # the latest state is sent when it is due
                    self._event_late = True
                    timer = threading.Timer(self._event_due - now, self._late_event)
                    timer.daemon = True
                    timer.start()
                return
            self._event_due, self._event_late = now + _EVENT_INTERVAL_S, False
            text = self.report.to_json()
        self._write_event('{"report":' + text + "}")

    def _late_event(self) -> None:
        with self._lock:
            if self._event_late:  # otherwise a line that was logged meanwhile has sent it already
                self._event_late = False
                self._report_event()

    def _event(self, event: dict[str, Any]) -> None:
        if self._events < 0:
            return
        with self._lock:
            if self._event_late:  # a line that is logged after a change must not arrive before it
                self._report_event(last=True)
            self._write_event(json.dumps(event))

    def _write_event(self, line: str) -> None:
        body = line.encode(errors="backslashreplace") + b"\n"
        with self._lock:
            try:
                while body and self._events >= 0:
                    body = body[os.write(self._events, body) :]
            except OSError:  # the reader is gone: see Stop.install
                self._events = -1


def _copy(stream: TextIO) -> TextIO:
    return os.fdopen(
        os.dup(stream.fileno()), "w", encoding="utf-8", errors="backslashreplace", buffering=1
    )


def _changed(part: Any, values: Mapping[str, Any]) -> Any:
    wrong = set(values) - set(type(part).model_fields)
    if wrong:
        raise ValueError(f"{type(part).__name__} has no field {', '.join(sorted(wrong))}")
    return type(part)(
        **{**part.model_dump(), **values}
    )  # not a copy: some fields follow from others


class _Families:
    """The report as Prometheus metrics, made anew at each scrape."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        report = self._reporter.report
        progress, latest = report.progress, report.metrics
        images = GaugeMetricFamily(
            prometheus.TASK_IMAGES.name,
            prometheus.TASK_IMAGES.help,
            labels=prometheus.TASK_IMAGES.labels,
        )
        for state in ("total", "cached", "computed", "rejected"):
            images.add_metric([state], getattr(progress, f"images_{state}") or 0)
        yield images
        for metric, value in (
            (prometheus.TASK_IMAGES_PER_SECOND, report.images_per_second),
            (prometheus.TASK_STEP, progress.step),
            (prometheus.TASK_TRAINING_ACCURACY, latest.training_accuracy),
            (prometheus.TASK_VALIDATION_ACCURACY, latest.validation_accuracy),
            (prometheus.TASK_CROSS_ENTROPY, latest.cross_entropy),
            (prometheus.TASK_VALIDATION_CROSS_ENTROPY, latest.validation_cross_entropy),
        ):
            if value is not None:
                yield GaugeMetricFamily(metric.name, metric.help, value=value)


def _serve(reporter: Reporter, port: int) -> ThreadingHTTPServer | None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(reporter))

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/report":
                body, kind = reporter.to_json().encode(errors="replace"), "application/json"
            elif self.path == "/metrics":
                body, kind = generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            """Requests are not logged."""

    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except OSError as error:
        reporter.log(f"Port {port} cannot be used for /report and /metrics: {error.strerror}.")
        return None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="report", daemon=True).start()
    return server
