"""Trainers played where there is no kubelet: a running one with its reporter, or an ended one."""

from __future__ import annotations

import http.server
import threading
from typing import Any

from tests.operator.harness import Namespace
from tests.support.ports import free_port

from retrainer.api import Curve, CurvePoint, Metrics, Phase, Progress, Report, Task, parse_job
from retrainer_trainer.runtime.report import Reporter

POD_ADDRESS = "127.0.77.1"
"""Where the running pod answers, on port 9464."""
STEPS = [0, 210, 420, 630, 840, 1050, 1260, 1470, 1680, 1890, 2100, 2310, 2520, 2730, 2940, 3150,
         3360, 3570, 3780, 3999]  # fmt: skip
"""The steps of the curve: 4,000 in 20 points."""


def report(job: dict[str, Any], *, rejected: int = 0, accuracy: float = 0.91) -> Report:
    """The report that a train pod of this job leaves."""
    meta = job["metadata"]
    curve = Curve()
    for step in STEPS:
        curve.add(
            CurvePoint(
                step=step,
                training_accuracy=round(1 - 0.8 / (1 + step / 100), 4),
                validation_accuracy=round(0.9 - 0.7 / (1 + step / 100), 4),
                cross_entropy=round(1.6 / (1 + step / 100), 4),
                validation_cross_entropy=round(0.2 + 1.4 / (1 + step / 100), 4),
            )
        )
    return Report(
        task="train",
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        stage=Phase.TRAINING,
        progress=Progress(
            percent=100, images_total=1000, images_cached=600, images_computed=400 - rejected,
            images_rejected=rejected, step=4000, steps=4000,
        ),
        metrics=Metrics(
            training_accuracy=0.98, validation_accuracy=0.89, cross_entropy=0.04,
            validation_cross_entropy=0.24, test_accuracy=accuracy, test_images=100,
        ),
        curve=curve,
        label_count=5,
        run=f"s3://models/flowers/{meta['name']}-{meta['uid'][:8]}",
    )  # fmt: skip


def finish(team: Namespace, job: dict[str, Any], final_report: Report, code: int = 0) -> None:
    """End the job's pod with this report, and wait until the job's status shows it."""
    name = job["metadata"]["name"]
    team.end_pods(name, code=code, message=final_report.termination_message())
    team.until(name, phase="Failed" if code else "Succeeded")


class Trainer:
    """A running train pod: a trainer's reporter that trains a little further a few times a second."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._stop = threading.Event()
        task = Task.of(parse_job(job), "train")
        self.reporter = Reporter(task, port=free_port())
        self.reporter.update(
            stage=Phase.TRAINING,
            images_per_second=321.5,
            progress={"images_total": 1000, "images_cached": 700, "images_computed": 298,
                      "images_rejected": 2, "steps": 100_000},
        )  # fmt: skip
        reporter = self.reporter

        class Handler(http.server.BaseHTTPRequestHandler):
            """The pod's address: the operator asks port 9464 of it."""

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(reporter.to_json().encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer((POD_ADDRESS, 9464), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        threading.Thread(target=self._train, daemon=True).start()

    def _train(self) -> None:
        step = 0
        while not self._stop.wait(0.3):
            step += 10
            self.reporter.point(
                CurvePoint(
                    step=step, training_accuracy=0.9, validation_accuracy=0.8,
                    cross_entropy=1 / step, validation_cross_entropy=2 / step,
                )
            )  # fmt: skip

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self.reporter.close()
