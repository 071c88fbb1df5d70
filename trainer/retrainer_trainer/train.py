"""The `train` task, from the listing to `result.json`, read top to bottom.

It is right on its own: pods that computed bottlenecks before only warmed its cache.
"""

import csv
import errno
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from retrainer.api import CurvePoint, Export, Phase, Report, Task, conditions, layout
from retrainer.errors import NotFound, RetrainerError, UserError
from retrainer_trainer import export, reread, split, tables
from retrainer_trainer.backbone import keras_network
from retrainer_trainer.bottlenecks import TRAIN_TASK_SHARE, Bottlenecks, prepare
from retrainer_trainer.catalog import duplicates_csv, rejected_csv, shown
from retrainer_trainer.evaluate import evaluate
from retrainer_trainer.head import Diverged, Examples, Floats, Head, Trained, train
from retrainer_trainer.page import MOST_MISTAKES, THUMBNAIL, Mistake, Page, render
from retrainer_trainer.quiet import quiet
from retrainer_trainer.report import Reporter
from retrainer_trainer.stop import Stop
from retrainer_trainer.store import Store
from retrainer_trainer.summaries import Summaries

Rows = np.ndarray[tuple[int], np.dtype[np.intp]]

# Of the whole job's percent; bottlenecks have those below.
_TRAINED_SHARE = 90

# Each export is run on the test images, or on this many of them, evenly spread: 1% of them, the
# most that may differ, is then still 10 images.
CHECKED_IMAGES = 1000
CALIBRATION_IMAGES = 128  # a usual number for int8 (TensorFlow's guide: "100 to 500")

# A line per evaluation, as retrain.py; of a very long training every so many.
_MOST_STEP_LINES = 1000


def run(task: Task, reporter: Reporter, stop: Stop) -> None:
    """Do the whole job of `task` and leave its run's folder.

    Raises:
        UserError: the spec or the images are wrong, or the training diverged.
        StorageError: the store does not answer.
        Interrupted: asked to stop; computed bottlenecks are in the cache.
    """
    spec = task.spec
    started = time.monotonic()
    folder = Store.open(task.run_url, spec.storage, "spec.output", reporter.log)

    # --- done already? A pod that is started again after its work must not change it ---
    if (done := finished(folder, task)) is not None:
        again(done, reporter)
        return

    # --- bottlenecks: list, compute what the cache lacks, load ---
    ready = prepare(spec, reporter, stop, folder)
    labels = [shown(label) for label in ready.catalog.labels]
    examples = examples_of(ready)
    forget_summaries(folder)

    # --- train. TensorFlow, which the exports need, is imported meanwhile: not before, since a backbone
    # that is converted imports it itself, and two threads must not import it at the same time ---
    importing = export.import_ahead()
    reporter.update(stage=Phase.TRAINING, progress={"step": 0, "steps": spec.training.steps})
    summaries = Summaries(folder.put)
    try:
        trained = train(examples, spec.training, follow(task, reporter, summaries))
    except Diverged as diverged:
        # The last good head and the curve show what happened.
        keep(folder, diverged.head, labels, diverged.curve)
        summaries.flush()
        raise
    keep(folder, trained.head, labels, trained.curve)

    # --- evaluate ---
    test = test_rows(task, ready)
    scores = trained.head.scores(ready.matrix, test)
    truth = ready.catalog.label[test].astype(np.intp)
    twice = np.concatenate([np.empty(0, np.int64), *ready.catalog.duplicates()])
    evaluation = {
        "architecture": spec.architecture,
        "step": trained.step,
        **evaluate(scores, truth, labels, np.isin(test, twice)),
    }
    accuracy, images = evaluation["accuracy"], evaluation["images"]
    reporter.update(
        reason=conditions.EXPORTING.name,
        message=conditions.EXPORTING(),
        metrics={"test_accuracy": accuracy, "test_images": images},
        progress={"percent": _TRAINED_SHARE, "step": trained.steps},
    )
    if accuracy is not None:
        reporter.log(f"Final test accuracy = {100 * accuracy:.1f}% (N={images})")
    paths = [shown(ready.catalog.paths[int(row)]) for row in test]
    folder.put(layout.PREDICTIONS, tables.predictions_parquet(paths, truth, scores, labels))
    files = {
        layout.REJECTED: rejected_csv(ready.catalog, ready.rejected),
        layout.DUPLICATES: duplicates_csv(ready.catalog),
    }
    for path, text in files.items():
        folder.put(path, text.encode())

    # --- export, and run what was exported ---
    importing.join()
    formats = export.wanted(spec.export, ready.backbone.architecture)
    pictures = Store.open(spec.images, spec.storage, "spec.images", reporter.log)
    exports, graph = exported(ready, trained.head, formats, reporter, pictures, folder)
    evaluation["exports"] = exports
    folder.put(layout.EVALUATION, json.dumps(evaluation, indent=1, ensure_ascii=False).encode())
    summaries.graph(graph)
    summaries.flush()

    # --- the page ---
    reporter.update(message="Writing the page.", progress={"percent": 98})
    page = Page(
        name=task.name,
        architecture=spec.architecture,
        run=task.run_url,
        finished=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        labels=labels,
        evaluation=evaluation,
        curve=trained.curve,
        counts=counts(reporter.report, ready, trained, task, time.monotonic() - started),
        mistakes=mistakes(ready, test, scores, labels, pictures),
        mistake_count=int((scores.argmax(axis=1) != truth).sum()) if images else 0,
        duplicates=[[row[0][:8], *row[1:]] for row in rows_of(files[layout.DUPLICATES])],
        rejected=rows_of(files[layout.REJECTED]),
        warnings=reporter.report.warnings,
        spec=spec_yaml(task),
        versions=versions(),
    )
    folder.put(layout.REPORT_PAGE, render(page).encode("utf-8", "backslashreplace"))

    # --- result.json last: where it is, the folder is whole ---
    reporter.update(
        stage=Phase.SUCCEEDED,
        reason=conditions.SUCCEEDED.name,
        message=sentence(task, accuracy, images),
        progress={"percent": 100, "remaining_seconds": 0},
        artifacts=artifacts(formats),
    )
    folder.put(layout.RESULT, reporter.report.to_json().encode("utf-8", "backslashreplace"))
    reporter.log(reporter.report.message)


# --- done already? ---
def finished(folder: Store, task: Task) -> Report | None:
    """The report of this very job (same uid) in the run's folder, if it is whole."""
    try:
        report = Report.model_validate_json(folder.get(layout.RESULT))
    except (NotFound, ValueError):
        return None
    return report if report.uid == task.uid else None


def again(done: Report, reporter: Reporter) -> None:
    """Give the report of a run that is whole once more."""
    parts = {"progress", "metrics"}
    fields = {name: getattr(done, name) for name in type(done).model_fields if name not in parts}
    reporter.update(
        progress=done.progress.model_dump(), metrics=done.metrics.model_dump(), **fields
    )
    reporter.log(f"{done.run} is already whole: {done.message}")
    print(done.to_json(), flush=True)


# --- train ---
def examples_of(ready: Bottlenecks) -> Examples:
    """The matrix and which of its rows are what."""
    count = len(ready.catalog)
    training = ready.rows(split.TRAINING)
    label = np.zeros(len(ready.matrix), np.intp)
    label[:count] = ready.catalog.label
    if ready.views.shape[1]:
        label[ready.views[training]] = ready.catalog.label[training][:, None]
    check_finite(ready)
    return Examples(
        matrix=ready.matrix,
        label=label,
        training=np.column_stack([training, ready.views[training]]).astype(np.intp),
        validation=ready.rows(split.VALIDATION).astype(np.intp),
        label_count=len(ready.catalog.labels),
    )


def check_finite(ready: Bottlenecks) -> None:
    """Refuse bottlenecks that are no numbers: the weights are broken, not the learning rate.

    Raises:
        UserError: naming the first such image.
    """
    step = 8192
    for start in range(0, len(ready.matrix), step):
        good = np.isfinite(ready.matrix[start : start + step]).all(axis=1)
        if not good.all():
            row = start + int(np.argmin(good))
            where = shown(ready.catalog.paths[row]) if row < len(ready.catalog) else "a view"
            raise UserError(
                f"{ready.backbone.weights.origin} gives infinite numbers, the first for {where}.",
                reason=conditions.WEIGHTS_UNREADABLE.name,
            )


def forget_summaries(folder: Store) -> None:
    """Remove event files of an earlier attempt: TensorBoard would draw both curves as one."""
    for entry in list(folder.list(layout.SUMMARIES)):
        if not entry.path.endswith("/"):
            folder.delete(entry.path)


def follow(task: Task, reporter: Reporter, summaries: Summaries) -> Callable[[CurvePoint], None]:
    """What is done with each evaluation: report, summaries, and a line as retrain.py prints it."""
    training = task.spec.training
    begun = time.monotonic()
    every = max(1, training.steps // training.eval_interval // _MOST_STEP_LINES)
    seen = 0

    def on_point(point: CurvePoint) -> None:
        nonlocal seen
        share = point.step / training.steps
        spent = time.monotonic() - begun
        left = round(spent * (1 - share) / share) if share else None
        reporter.point(point)
        reporter.update(
            reason=conditions.TRAINING.name,
            message=conditions.TRAINING(step=point.step, steps=training.steps),
            progress={
                "percent": TRAIN_TASK_SHARE + int((_TRAINED_SHARE - TRAIN_TASK_SHARE) * share),
                "remaining_seconds": left,
            },
        )
        summaries.point(point)
        if seen % every == 0 or point.step == training.steps:
            # Only for the pod's log: who runs this here draws the points of the report.
            print(step_line(point, task), flush=True)
        seen += 1

    return on_point


def step_line(point: CurvePoint, task: Task) -> str:
    """One evaluation as a line of the log."""
    text = f"step {point.step}: train accuracy = {100 * (point.training_accuracy or 0):.1f}%"
    text += f", cross entropy = {point.cross_entropy or 0:.4f}"
    if point.validation_accuracy is None:
        return text
    size = task.spec.training.validation_batch_size
    whole = size == -1 or task.spec.training.early_stopping is not None
    number = "all" if whole else str(size)
    return text + f", validation accuracy = {100 * point.validation_accuracy:.1f}% (N={number})"


def keep(folder: Store, head: Head, labels: list[str], curve: list[CurvePoint]) -> None:
    """Write the head, its labels and its learning curve."""
    folder.put(layout.HEAD, tables.head_npz(head, labels))
    folder.put(layout.LABELS, tables.labels_txt(labels))
    folder.put(layout.HISTORY, tables.history_parquet(curve))


# --- evaluate ---
def test_rows(task: Task, ready: Bottlenecks) -> Rows:
    """Rows of the test images, or `testBatchSize` of them drawn by the seed, ascending."""
    rows = ready.rows(split.TESTING).astype(np.intp)
    most = task.spec.training.test_batch_size
    if most == -1 or most >= len(rows):
        return rows
    generator = np.random.default_rng(task.spec.training.seed)
    return np.sort(generator.choice(rows, most, replace=False))


# --- export ---
def exported(  # noqa: PLR0917 - a stage: what it takes of the ones before
    ready: Bottlenecks,
    head: Head,
    formats: list[Export],
    reporter: Reporter,
    pictures: Store,
    folder: Store,
) -> tuple[dict[str, Any], bytes]:
    """Write all formats, run them, copy them to the run; what `evaluation.json` says, and the graph.

    Raises:
        RetrainerError: an export guesses otherwise than the head.
    """
    size = ready.backbone.architecture.size
    labels = [shown(label) for label in ready.catalog.labels]
    training = reread.spread(ready.rows(split.TRAINING).astype(np.intp), CALIBRATION_IMAGES)
    rows = checked_rows(ready)

    def calibration() -> export.Pixels:
        return np.concatenate(
            [b.pixels for b in reread.batches(pictures, ready.catalog, training, size)]
        )

    with tempfile.TemporaryDirectory(prefix="retrainer-export-") as name:
        local = Path(name)
        reporter.log(f"Exporting {', '.join(formats)}.")
        network = export.Network(
            keras_network(ready.backbone.architecture, ready.backbone.weights), head, labels, size
        )
        try:
            graph = export.write(network, formats, local, calibration, reporter.log)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RetrainerError(
                    conditions.DISK_FULL(url=name), reason=conditions.DISK_FULL.name
                ) from error
            raise
        reporter.update(message="Running the exports.", progress={"percent": 95})
        guess = dict(
            zip(rows.tolist(), head.scores(ready.matrix, rows).argmax(axis=1).tolist(), strict=True)
        )
        found = reread.batches(pictures, ready.catalog, rows, size)
        with quiet():
            counted = reread.compared(
                export.runners(local, formats), found, ready.catalog.label, guess
            )
        measured = bool(len(ready.rows(split.TESTING)))
        for form, count in counted.items():
            tell_difference(form, count, reporter)
        folder.put_folder(local, "")
    return {
        form: {
            "path": layout.EXPORT_PATHS[form.removesuffix("Bytes")],
            "accuracy": count.right / count.images if measured and count.images else None,
            "images": count.images,
            "different": count.different,
        }
        for form, count in counted.items()
    }, graph


def checked_rows(ready: Bottlenecks) -> Rows:
    """Images to run the exports on: test images; where there are none, others."""
    for which in (split.TESTING, split.VALIDATION, split.TRAINING):
        if len(rows := ready.rows(which)):
            return reread.spread(rows.astype(np.intp), CHECKED_IMAGES)
    return np.empty(0, np.intp)


def tell_difference(form: str, count: export.Comparison, reporter: Reporter) -> None:
    """Say how an export did; refuse one that is not the head's network.

    Raises:
        RetrainerError: it guesses otherwise on more than 1% of the images.
    """
    share = f"{100 * count.right / count.images:.1f}%" if count.images else "not measured"
    reporter.log(f"{form}: accuracy {share} on {count.images} images, {count.different} differ.")
    if not count.differs:
        return
    text = conditions.EXPORT_DIFFERS(export=form, differ=count.different, total=count.images)
    if form in export.LENIENT:
        reporter.warn(
            f"{form} guesses otherwise than the head on {count.different} of {count.images} images."
        )
    else:
        raise RetrainerError(text, reason=conditions.EXPORT_DIFFERS.name)


# --- the page ---
def mistakes(
    ready: Bottlenecks, test: Rows, scores: Floats, labels: list[str], pictures: Store
) -> list[Mistake]:
    """The test images that were guessed wrong with the highest scores, with their pictures."""
    if not len(test):
        return []
    guess, truth = scores.argmax(axis=1), ready.catalog.label[test]
    wrong = np.flatnonzero(guess != truth)
    worst = wrong[np.argsort(-scores[wrong, guess[wrong]], kind="stable")][:MOST_MISTAKES]
    found = reread.thumbnails(pictures, ready.catalog, test[worst].tolist(), THUMBNAIL)
    return [
        Mistake(
            path=shown(ready.catalog.paths[int(test[i])]),
            label=labels[truth[i]],
            guess=labels[guess[i]],
            score=float(scores[i, guess[i]]),
            true_score=float(scores[i, truth[i]]),
            jpeg=jpeg,
        )
        for i, jpeg in zip(worst.tolist(), found, strict=True)
    ]


def counts(
    report: Report, ready: Bottlenecks, trained: Trained, task: Task, seconds: float
) -> list[tuple[str, str, str]]:
    """The small figures beside the accuracy: name, value, what it is of."""
    last = trained.curve[-1]
    progress, training = report.progress, task.spec.training
    sets = ", ".join(
        f"{len(ready.rows(which)):,} {name}"
        for which, name in ((0, "training"), (1, "validation"), (2, "test"))
    )
    stopped = f"stopped early, best at {trained.step:,}; " if trained.step < trained.steps else ""
    rate = f"{report.images_per_second:,.0f} images/s" if progress.images_computed else ""

    def share(value: float | None) -> str:
        return "none" if value is None else f"{100 * value:.1f}%"

    return [
        ("Training accuracy", share(last.training_accuracy), "last batch"),
        ("Validation accuracy", share(last.validation_accuracy), "last evaluation"),
        ("Steps", f"{trained.steps:,}", f"{stopped}learning rate {training.learning_rate:g}"),
        ("Images", f"{len(ready.catalog):,}", sets),
        (
            "Bottlenecks",
            f"{progress.images_computed or 0:,} computed",
            f"{progress.images_cached or 0:,} from the cache, "
            f"{progress.images_rejected or 0:,} images rejected",
        ),
        ("Time", f"{seconds:.1f} s", rate),
    ]


def rows_of(text: str) -> list[list[str]]:
    """The rows of a CSV file, without its header."""
    return list(csv.reader(io.StringIO(text)))[1:]


def spec_yaml(task: Task) -> str:
    """The job as YAML, with every default filled in, so that it means the same later."""
    spec = task.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for field in ("suspend", "backoffLimit", "pod"):
        spec.pop(field, None)
    job = {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": task.name},
        "spec": spec,
    }
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def versions() -> dict[str, str]:
    """Of this program and of the libraries that decide the numbers."""
    import tensorflow as tf

    found = {"retrainer": metadata.version("retrainer"), "Python": platform.python_version()}
    found |= {"TensorFlow": tf.__version__, "numpy": np.__version__}
    found["LiteRT"] = metadata.version("ai-edge-litert")
    found["Machine"] = f"{platform.system()} {platform.machine()}"
    return found


# --- the end ---
def artifacts(formats: list[Export]) -> dict[str, str]:
    """Name and path of every file of the run."""
    named = {form.value: layout.EXPORT_PATHS[form] for form in formats}
    named |= {
        "labels": layout.LABELS,
        "head": layout.HEAD,
        "evaluation": layout.EVALUATION,
        "history": layout.HISTORY,
        "predictions": layout.PREDICTIONS,
        "rejected": layout.REJECTED,
        "duplicates": layout.DUPLICATES,
        "summaries": layout.SUMMARIES,
        "page": layout.REPORT_PAGE,
    }
    return named


def sentence(task: Task, accuracy: float | None, images: int) -> str:
    """How the job ended."""
    if accuracy is None:
        return conditions.SUCCEEDED_UNTESTED(run=task.run_url)
    return conditions.SUCCEEDED(accuracy=f"{100 * accuracy:.1f}%", images=images, run=task.run_url)
