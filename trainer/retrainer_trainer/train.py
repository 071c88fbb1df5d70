"""The `train` task, from the listing to `result.json`, read top to bottom.

It needs nothing done before it: pods that computed bottlenecks earlier only filled its cache.
"""

import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from retrainer.api import (
    CurvePoint,
    Evaluation,
    Phase,
    Report,
    RetrainJobSpec,
    Solver,
    SweepChoice,
    SweepStatus,
    Task,
    Training,
    layout,
    reasons,
)
from retrainer.api.corrections import Action
from retrainer.api.evaluation import AppliedCorrections, CorrectedImage, HeadBefore
from retrainer.api.interval import percent
from retrainer.errors import NotFound, UserError
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.bottlenecks import TRAIN_TASK_SHARE, Bottlenecks, Regroup, prepare
from retrainer_trainer.cache import speed
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.export import formats as export
from retrainer_trainer.export import stage
from retrainer_trainer.findings.grouping import group_duplicates
from retrainer_trainer.findings.stage import FindingsOfRun, look
from retrainer_trainer.head import cost
from retrainer_trainer.head.before import Guess, compare, guesses_of
from retrainer_trainer.head.evaluate import accuracy as share_right
from retrainer_trainer.head.evaluate import evaluate
from retrainer_trainer.head.lbfgs import MOST_ITERATIONS
from retrainer_trainer.head.softmax import Diverged, Examples, Head
from retrainer_trainer.head.sweep import Choice, combinations, train_best
from retrainer_trainer.outputs import tables
from retrainer_trainer.outputs.artifacts import artifacts
from retrainer_trainer.outputs.summaries import Summaries
from retrainer_trainer.page import contents
from retrainer_trainer.page.page import Page, render
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Store

# Of the whole job's percent; bottlenecks have those below.
_TRAINED_SHARE = 90

# Lines of the log, one per evaluation as retrain.py prints them; a longer training prints fewer.
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
    folder = open_store(task.run_url, spec.storage, "spec.output", reporter.log, stop)

    # --- done already? A pod that is started again after its work must not change it ---
    if (done := finished_report(folder, task)) is not None:
        repeat_report(done, reporter)
        return

    # --- bottlenecks: list, compute what the cache lacks, load ---
    ready = prepare(spec, reporter, stop, folder, regrouping(task, reporter, stop))
    labels = list(ready.catalog.printable_labels)
    examples = examples_of(ready)
    check_validation(spec.training, examples)
    forget_summaries(folder)

    # --- train ---
    reporter.update(stage=Phase.TRAINING, progress={"step": 0, "steps": steps_of(spec.training)})
    reporter.log(measured_on(spec.training, examples))
    summaries = Summaries(folder.put)
    try:
        choice = train_best(
            examples,
            spec.training,
            progress_callback(spec.training, reporter, summaries),
            sweep_callback(spec.training, reporter),
        )
    except Diverged as diverged:
        # The last good head and the curve show what happened.
        write_head(folder, diverged.head, labels, diverged.curve)
        summaries.flush()
        raise
    trained = choice.trained
    write_head(folder, trained.head, labels, trained.curve)
    write_sweep(folder, choice, reporter)
    reporter.clock.lap(cost.stage(spec.training), training_cost(spec.training, examples))

    # --- evaluate ---
    test = test_rows(task, ready)
    scores = trained.head.scores(ready.matrix, test)
    truth = ready.catalog.label[test].astype(np.intp)
    evaluation = evaluated(spec, trained.step, scores, ready, test)
    # How many steps L-BFGS takes is known only at its end.
    steps = trained.steps if spec.training.solver is Solver.LBFGS else spec.training.steps
    reporter.update(
        reason=reasons.EXPORTING.name,
        message=reasons.EXPORTING(),
        metrics={"test_accuracy": evaluation.accuracy, "test_images": evaluation.images},
        progress={"percent": _TRAINED_SHARE, "step": trained.steps, "steps": steps},
    )
    log_accuracy(evaluation, reporter)
    write_predictions(folder, ready, test, scores)
    rejected, duplicates = write_lists(folder, ready)

    # --- findings: what the bottlenecks tell of the images ---
    findings = look_at_images(task, ready, folder, reporter, stop)
    add_findings(evaluation, findings, test, truth, scores)
    evaluation.corrections = corrections_of(task, ready, test, scores, reporter)

    # --- export, and check what was exported ---
    formats = export.formats_of(spec.export, ready.backbone)
    evaluation.exports, graph = stage.exported(ready, trained.head, formats, reporter, folder)
    folder.put(layout.EVALUATION, evaluation.to_json().encode())
    if graph is not None:
        summaries.graph(graph)
    summaries.flush()

    # --- the page ---
    reporter.update(message="Writing the page.", progress={"percent": 98})
    page = Page(
        name=task.name,
        network=spec.network,
        run=task.run_url,
        finished=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        labels=labels,
        evaluation=evaluation,
        curve=trained.curve,
        candidates=choice.candidates,
        chosen=choice.chosen,
        validation_images=validated_on(spec.training, examples),
        counts=contents.counts(
            reporter.report, ready, trained, choice.training, time.monotonic() - started
        ),
        mistakes=contents.mistakes(ready, test, scores, labels, ready.images),
        mistake_count=int((scores.argmax(axis=1) != truth).sum()) if len(test) else 0,
        findings=contents.findings(ready, findings, labels),
        duplicates=[(identity[:8], *rest) for identity, *rest in duplicates],
        rejected=rejected,
        warnings=reporter.report.warnings,
        spec=contents.spec_yaml(task),
        versions=contents.versions(ready.backbone),
    )
    folder.put(layout.REPORT_PAGE, render(page).encode("utf-8", "backslashreplace"))

    folder.put(layout.JOB, contents.spec_yaml(task).encode())

    remember_speed(task, ready, reporter, stop)

    # --- result.json last: where it is, the folder is whole ---
    reporter.update(
        stage=Phase.SUCCEEDED,
        reason=reasons.SUCCEEDED.name,
        message=success_message(task, evaluation),
        progress={"percent": 100, "remaining_seconds": 0},
        artifacts=artifacts(formats, swept=bool(choice.candidates)),
    )
    folder.put(layout.RESULT, reporter.report.to_json().encode("utf-8", "backslashreplace"))
    reporter.log(reporter.report.message)


# --- done already? ---
def finished_report(folder: Store, task: Task) -> Report | None:
    """Read the report of this very job (same uid) from the run's folder, if that is whole."""
    try:
        report = Report.model_validate_json(folder.get(layout.RESULT))
    except (NotFound, ValueError):
        return None
    return report if report.uid == task.uid else None


def repeat_report(done: Report, reporter: Reporter) -> None:
    """Give the report of a run that is whole once more."""
    reporter.replace(done)
    reporter.log(f"{done.run} is already whole: {done.message}")
    print(done.to_json(), flush=True)


# --- bottlenecks ---
def regrouping(task: Task, reporter: Reporter, stop: Stop) -> Regroup | None:
    """Make what keeps near-duplicates in one set; None where the job does not ask for it."""
    spec = task.spec
    if not spec.split.group_duplicates:
        return None
    cache = open_store(spec.cache_url, spec.storage, "spec.cache", reporter.log, stop)
    return lambda ready: group_duplicates(ready, cache, reporter)


# --- train ---
def examples_of(ready: Bottlenecks) -> Examples:
    """Sort the rows of the matrix into the training set, with its views, and the validation set."""
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
                f"{ready.backbone.field}: {ready.backbone.origin} gives infinite numbers, the first for "
                f"{where}: name another file there.",
                reason=reasons.WEIGHTS_UNREADABLE.name,
            )


def check_validation(training: Training, examples: Examples) -> None:
    """Refuse to choose by validation images when the split happens to leave none.

    Raises:
        UserError: there is none.
    """
    chooses = (
        "earlyStopping" if training.early_stopping else "sweep" if training.sweep else "solver"
    )
    if (training.early_stopping or training.chooses) and not len(examples.validation):
        raise UserError(
            reasons.INVALID_SPEC(
                detail=f"spec.training.{chooses}: none of the images falls into the validation set, by "
                "which it chooses; add images, raise validationPercentage, or leave it out."
            ),
            reason=reasons.INVALID_SPEC.name,
        )


def forget_summaries(folder: Store) -> None:
    """Remove event files of an earlier attempt: TensorBoard would draw both curves as one."""
    for entry in list(folder.list(layout.SUMMARIES)):
        if not entry.path.endswith("/"):
            folder.delete(entry.path)


def training_cost(training: Training, examples: Examples) -> float:
    """Estimate the multiply-adds of the training."""
    return cost.multiply_adds(
        training,
        images=examples.training.size,
        validation=len(examples.validation),
        width=examples.matrix.shape[1],
        labels=examples.label_count,
    )


def steps_of(training: Training) -> int:
    """Give the largest number of steps that the training may take."""
    return MOST_ITERATIONS if training.solver is Solver.LBFGS else training.steps


def sweep_callback(training: Training, reporter: Reporter) -> Callable[[float], None]:
    """Make what is called with the share of a sweep that is done: it reports."""
    count = len(combinations(training))

    def on_share(share: float) -> None:
        reporter.update(message=f"Trying {count:,} combinations: {100 * share:.0f}% done.")

    return on_share


def progress_callback(
    training: Training, reporter: Reporter, summaries: Summaries
) -> Callable[[CurvePoint], None]:
    """Make what is called with each evaluation: it reports, adds to the summaries, prints a line."""
    steps = steps_of(training)
    begun = time.monotonic()
    every = max(1, steps // training.eval_interval // _MOST_STEP_LINES)
    evaluations = 0

    def on_point(point: CurvePoint) -> None:
        nonlocal evaluations
        share = point.step / steps
        spent = time.monotonic() - begun
        left = round(spent * (1 - share) / share) if share else None
        reporter.point(point)
        reporter.update(
            reason=reasons.TRAINING.name,
            message=reasons.TRAINING(step=point.step, steps=steps),
            progress={
                "percent": TRAIN_TASK_SHARE + int((_TRAINED_SHARE - TRAIN_TASK_SHARE) * share),
                "remaining_seconds": left,
            },
        )
        summaries.point(point)
        if evaluations % every == 0 or point.step == steps:
            # Only for the pod's log: a run on this machine prints its own lines from the report.
            print(step_line(point), flush=True)
        evaluations += 1

    return on_point


def step_line(point: CurvePoint) -> str:
    """Write one evaluation as a line of the log, short enough for 80 columns."""
    text = f"step {point.step}: training accuracy {percent(point.training_accuracy or 0)}"
    if point.validation_accuracy is not None:
        text += f", validation {percent(point.validation_accuracy)}"
    # Six characters, whether 0.0412 or 103.97.
    return f"{text}, cross entropy {f'{point.cross_entropy or 0:.4f}'[:6]}"


def validated_on(training: Training, examples: Examples) -> int:
    """Count the images that each evaluation is validated on; an image may be drawn more than once."""
    images = len(examples.validation)
    if training.validation_batch_size == -1 or training.early_stopping:
        return images
    return min(images, training.validation_batch_size)


def measured_on(training: Training, examples: Examples) -> str:
    """Write a sentence on how many images the head is trained on, and how many validate it."""
    counts = f"Training on {len(examples.training):,} images"
    validation = len(examples.validation)
    if not validation:
        return f"{counts}; there are none to validate on."
    size = training.validation_batch_size
    if size == -1 or training.early_stopping:
        return f"{counts}, validating on all {validation:,}."
    return f"{counts}, validating on {size:,} drawn from {validation:,} each time."


def write_head(folder: Store, head: Head, labels: list[str], curve: list[CurvePoint]) -> None:
    """Write the head, its labels and its learning curve."""
    folder.put(layout.HEAD, tables.head_npz(head, labels))
    folder.put(layout.LABELS, tables.labels_txt(labels))
    folder.put(layout.HISTORY, tables.history_parquet(curve))


def write_sweep(folder: Store, choice: Choice, reporter: Reporter) -> None:
    """Write what was tried, and say what was chosen."""
    candidates = choice.candidates
    if not candidates:
        return
    folder.put(layout.SWEEP, tables.sweep_parquet(candidates, choice.chosen))
    chosen = candidates[choice.chosen]
    diverged = sum(candidate.cross_entropy is None for candidate in candidates)
    reporter.update(
        sweep=SweepStatus(
            candidates=len(candidates),
            diverged=diverged,
            chosen=SweepChoice(learning_rate=chosen.learning_rate, l2=chosen.l2),
        )
    )
    rate = "" if chosen.learning_rate is None else f"learningRate {chosen.learning_rate:g}, "
    reporter.log(
        f"Of {len(candidates):,} combinations {rate}l2 {chosen.l2:g} is the best, with a validation "
        f"cross entropy of {chosen.cross_entropy or 0:.4f}."
    )
    if diverged:
        lowest = min(c.learning_rate or 0 for c in candidates if c.cross_entropy is None)
        reporter.warn(
            f"{diverged:,} of {len(candidates):,} combinations diverged, the lowest learningRate among "
            f"them is {lowest:g}; sweep.parquet has them all."
        )


# --- evaluate ---
def test_rows(task: Task, ready: Bottlenecks) -> Rows:
    """Choose the rows of the test images, or `testBatchSize` of them drawn by the seed, ascending."""
    rows = ready.rows(split.TESTING).astype(np.intp)
    most = task.spec.training.test_batch_size
    if most == -1 or most >= len(rows):
        return rows
    generator = np.random.default_rng(task.spec.training.seed)
    return np.sort(generator.choice(rows, most, replace=False))


def evaluated(
    spec: RetrainJobSpec, step: int, scores: Floats, ready: Bottlenecks, test: Rows
) -> Evaluation:
    """Evaluate the scores of the test images: all that `evaluation.json` holds but the exports."""
    labels = [shown(label) for label in ready.catalog.labels]
    copies = np.concatenate([np.empty(0, np.int64), *ready.catalog.duplicates()])
    label = ready.catalog.label.astype(np.intp)
    training = label[ready.rows(split.TRAINING)]
    evaluation = evaluate(scores, label[test], labels, np.isin(test, copies), training)
    backbone = ready.backbone
    return evaluation.model_copy(
        update={
            "architecture": spec.architecture or "",
            "backbone": spec.backbone.url if spec.backbone else "",
            "network": spec.network,
            "size": backbone.size,
            "bottleneck": backbone.width,
            "multiply_adds": backbone.multiply_adds,
            "parameters": backbone.parameters,
            "step": step,
        }
    )


def write_predictions(folder: Store, ready: Bottlenecks, test: Rows, scores: Floats) -> None:
    """Write what the head makes of each test image."""
    catalog = ready.catalog
    body = tables.predictions_parquet(
        [shown(catalog.paths[int(row)]) for row in test],
        catalog.identities[test],
        catalog.label[test].astype(np.intp),
        scores,
        list(catalog.printable_labels),
    )
    folder.put(layout.PREDICTIONS, body)


def log_accuracy(evaluation: Evaluation, reporter: Reporter) -> None:
    """Log the test accuracy as retrain.py does, and that of always guessing the commonest label."""
    commonest = evaluation.commonest_label
    if evaluation.accuracy is None or commonest.accuracy is None:
        return
    reporter.log(f"Final test accuracy = {percent(evaluation.accuracy)} (N={evaluation.images})")
    reporter.log(f"Always guessing {commonest.label} would give {percent(commonest.accuracy)}.")


def write_lists(
    folder: Store, ready: Bottlenecks
) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]]:
    """Write catalog.parquet, rejected.csv and duplicates.csv, and give the rows of the CSV files."""
    catalog = ready.catalog
    rejected = tables.rejected_rows(catalog, ready.rejected)
    duplicates = tables.duplicate_rows(catalog)
    folder.put(layout.CATALOG, tables.catalog_parquet(catalog, ready.rejected))
    folder.put(layout.REJECTED, tables.rejected_csv(rejected))
    folder.put(layout.DUPLICATES, tables.duplicates_csv(duplicates))
    return rejected, duplicates


# --- findings ---
def look_at_images(
    task: Task, ready: Bottlenecks, folder: Store, reporter: Reporter, stop: Stop
) -> FindingsOfRun:
    """Look for what stands out among the images, write it, and report how much there is."""
    reporter.update(message="Looking at the images.")
    reporter.clock.lap("evaluating")
    spec = task.spec
    cache = open_store(spec.cache_url, spec.storage, "spec.cache", reporter.log, stop)
    findings = look(task, ready, cache, reporter)
    table = tables.findings_parquet(findings.rows, ready.catalog, ready.catalog.printable_labels)
    folder.put(layout.FINDINGS, table)
    reporter.update(findings=findings.counts)
    return findings


def add_findings(
    evaluation: Evaluation, findings: FindingsOfRun, test: Rows, truth: Rows, scores: Floats
) -> None:
    """Add to the evaluation what the findings say of the accuracy."""
    evaluation.folds, evaluation.forecast = findings.folds, findings.forecast
    clean = ~np.isin(test, findings.leaked())
    evaluation.without_leaks = share_right(truth[clean], scores[clean].argmax(axis=1))


# --- corrections: what people said of the run before ---
def corrections_of(
    task: Task, ready: Bottlenecks, test: Rows, scores: Floats, reporter: Reporter
) -> AppliedCorrections | None:
    """Say which corrections were applied and what they changed; None where the job names none."""
    if not task.spec.corrections:
        return None
    corrections = ready.catalog.corrections
    return AppliedCorrections(
        relabelled=corrections.count(Action.RELABEL),
        dropped=corrections.count(Action.DROP),
        kept=corrections.count(Action.KEEP),
        absent=len(corrections.absent),
        applied=[
            CorrectedImage(path=c.path, action=c.action, was=one.was, label=c.label)
            for one in corrections.applied
            for c in [one.correction]
        ],
        before=head_before(task, ready, test, scores, reporter),
    )


def head_before(
    task: Task, ready: Bottlenecks, test: Rows, scores: Floats, reporter: Reporter
) -> HeadBefore | None:
    """Compare the head with that of the run that the corrections are of; None if it is not there."""
    run = ready.catalog.corrections.run
    if not run:
        return None
    folder = open_store(task.spec.output, task.spec.storage, "spec.output", reporter.log)
    try:
        guesses = guesses_of(folder.get(f"{run}/{layout.PREDICTIONS}"))
    except (NotFound, ValueError) as error:
        reporter.warn(
            f"The corrections are of {run}, whose {layout.PREDICTIONS} cannot be read beside this run "
            f"({error}): what they changed is not measured."
        )
        return None
    catalog, names = ready.catalog, ready.catalog.printable_labels
    identities = [row.tobytes().hex() for row in catalog.identities[test]]
    rows = zip(identities, catalog.label[test], scores.argmax(axis=1), strict=True)
    now = {identity: Guess(names[label], names[guess]) for identity, label, guess in rows}
    return compare(run, guesses, now)


# --- the end ---
def remember_speed(task: Task, ready: Bottlenecks, reporter: Reporter, stop: Stop) -> None:
    """Leave in the cache how fast this machine was, for `retrainer plan`."""
    spec = task.spec
    reporter.clock.lap("ending")
    cache = open_store(spec.cache_url, spec.storage, "spec.cache", reporter.log, stop)
    # Linux counts the largest resident set in kilobytes (getrusage(2)).
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed.remember(
        cache,
        ready.backbone.fingerprint,
        reporter.clock,
        memory=memory,
        matrix=ready.matrix.nbytes,
    )


def success_message(task: Task, evaluation: Evaluation) -> str:
    """Write how the job ended."""
    if evaluation.accuracy is None:
        return reasons.SUCCEEDED_UNTESTED(run=task.run_url)
    return reasons.SUCCEEDED(
        accuracy=percent(evaluation.accuracy), images=evaluation.images, run=task.run_url
    )
