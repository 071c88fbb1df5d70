"""A trainer that only writes the events of one scenario, for tests of what reads them.

    python fake_trainer.py SCENARIO

It is started as the real one is (RETRAINER_TASK, RETRAINER_EVENTS_FD) and ends as the real one would.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from retrainer.api import CurvePoint, Metrics, Phase, Progress, Report, Task

IMAGES, STEPS = 1498, 500
TASK = Task.model_validate_json(os.environ["RETRAINER_TASK"])
EVENTS = os.fdopen(int(os.environ["RETRAINER_EVENTS_FD"]), "w", buffering=1)
REPORT = Report(task=TASK.task, name=TASK.name, uid=TASK.uid, run=TASK.run_url)


def tell(**event: Any) -> None:
    """Write one event to the pipe."""
    EVENTS.write(json.dumps(event) + "\n")


def report(**fields: Any) -> None:
    """Change the report and send it."""
    global REPORT  # noqa: PLW0603
    REPORT = REPORT.model_copy(update=fields)
    EVENTS.write('{"report":' + REPORT.to_json() + "}\n")


def images(done: int, cached: int = 0) -> Progress:
    """The counts of images while bottlenecks are computed."""
    return Progress(
        images_total=IMAGES, images_cached=cached, images_computed=done - cached, images_rejected=0
    )


def bottlenecks(cached: int = 0) -> None:
    """Report everything from the listing to the last bottleneck."""
    report()
    for done in range(cached, IMAGES, 107):
        report(progress=images(done, cached))
    report(progress=images(IMAGES, cached))


def training() -> None:
    """Report every evaluation of 500 steps."""
    for step in (*range(0, STEPS, 10), STEPS):
        accuracy = 1 - 0.8 * 0.98**step
        point = CurvePoint(
            step=step, training_accuracy=accuracy, validation_accuracy=accuracy - 0.05,
            cross_entropy=2 - accuracy, validation_cross_entropy=2.1 - accuracy,
        )  # fmt: skip
        REPORT.curve.add(point)
        report(
            stage=Phase.TRAINING,
            progress=REPORT.progress.model_copy(update={"step": step, "steps": STEPS}),
            metrics=Metrics(**point.model_dump(exclude={"step"})),
        )


def succeed(test_images: int = 165) -> None:
    """Report the end of a run that succeeded."""
    accuracy = 147 / 165 if test_images else None
    report(
        stage=Phase.SUCCEEDED,
        reason="Succeeded",
        metrics=REPORT.metrics.model_copy(
            update={"test_accuracy": accuracy, "test_images": test_images}
        ),
        artifacts={"labels": "labels.txt", "tflite": "model.tflite", "page": "report.html"},
        seconds=6.25,
    )


def fail(code: int, reason: str, message: str) -> NoReturn:
    """Report the end of a run that failed, and exit with `code`."""
    stage = Phase.FAILED if code == 64 else REPORT.stage
    report(stage=stage, reason=reason, message=message)
    tell(log=f"Error: {message}")
    EVENTS.close()
    sys.exit(code)


def until_stopped() -> NoReturn:
    """Compute half, say that it is done, and wait for SIGTERM as one that has more to do."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    report(progress=images(749))
    tell(log=f"half way, process {os.getpid()}")
    signal.sigwait({signal.SIGTERM})
    report(progress=images(856))
    fail(143, "Interrupted", "Stopped before the end; what was computed is in the cache.")


def deaf() -> NoReturn:
    """Answer SIGTERM with a report, and go on for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    tell(log=f"process {os.getpid()}")
    while True:
        signal.sigwait({signal.SIGTERM})
        report(progress=images(856))


def chatter() -> None:
    """Print what TensorFlow prints, on both descriptors, and leave its temporary files."""
    tempfile.mkstemp(prefix="__autograph_generated_file")
    os.write(2, b"E0000 cuda_dnn.cc:8310] Unable to register cuDNN factory\n")
    os.write(1, b"WARNING: All log messages before absl::InitializeLog() is called\n")


def main(scenario: str) -> None:
    """Play one scenario."""
    chatter()
    match scenario:
        case "well":
            tell(log="Converting the backbone, once per cache.")
            tell(warning="Label \x1b[31mtulips\x1b[0m [bold] has 12 images, fewer than 20.")
            bottlenecks()
            training()
            report(reason="Exporting", message="Evaluating and exporting.")
            succeed()
        case "cached":
            bottlenecks(cached=IMAGES)
            training()
            succeed()
        case "untested":
            bottlenecks()
            training()
            succeed(test_images=0)
        case "one-label":
            fail(
                64,
                "TooFewLabels",
                "At least 2 labels are needed in /photos, which has 1: roses.",
            )
        case "no-folder":
            fail(64, "ImagesNotFound", "No images under /photos: there is no such folder.")
        case "many-bad-photos":
            fail(
                64,
                "TooManyRejected",
                "200 of 1498 images cannot be read, more than maxRejectedFraction 0.05 allows; the "
                "first: a.jpg: 0 bytes.",
            )
        case "some-bad-photos":
            counts = images(IMAGES).model_copy(update={"images_rejected": 12})
            report(progress=counts)
            training()
            succeed()
        case "denied":
            fail(64, "StorageDenied", "http://s3:7070 refused access to bucket b (spec.images).")
        case "unreachable":
            fail(1, "StorageUnavailable", "Cannot reach http://s3:7070: connection refused.")
        case "crash":
            bottlenecks()
            raise ImportError("libtensorflow.so.2: cannot open shared object file")
        case "killed":
            report(reason="Exporting", message="Evaluating and exporting.")
            os.kill(os.getpid(), signal.SIGKILL)
        case "terminated":
            fail(143, "Interrupted", "Stopped before the end.")
        case "silent":
            pass
        case "broken-lines":
            EVENTS.write('[]\nnull\n3\n{"report": {"task": 1}}\n{"repo\n{"new": 1}\n')
            bottlenecks()
            training()
            succeed()
        case "stop":
            until_stopped()
        case "deaf":
            deaf()
        case "environment":
            tell(log=json.dumps({"cwd": str(Path.cwd()), "task": TASK.model_dump(mode="json"),
                                 "port": os.environ["RETRAINER_PORT"]}))  # fmt: skip
            succeed()
        case _:
            raise ValueError(scenario)


main(sys.argv[1])
