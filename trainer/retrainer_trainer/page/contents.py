"""What the page shows besides the evaluation: the worst mistakes, counts, the spec, versions."""

import platform
import sys
from importlib import metadata

import numpy as np
import yaml

from retrainer import __version__
from retrainer.api import Report, Solver, Task, Training
from retrainer.api.findings import FindingKind
from retrainer.api.names import API_VERSION, KIND
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.backbone.backbone import Backbone
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import reading, split
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.findings.stage import FindingsOfRun
from retrainer_trainer.head.softmax import Trained
from retrainer_trainer.page.findings import MOST_FINDINGS, FindingCard
from retrainer_trainer.page.page import MOST_MISTAKES, THUMBNAIL, Mistake
from retrainer_trainer.store.store import Store


def mistakes(
    ready: Bottlenecks, test: Rows, scores: Floats, labels: list[str], pictures: Store
) -> list[Mistake]:
    """Gather the test images that were guessed wrong with the highest scores, with their pictures."""
    if not len(test):
        return []
    guess, truth = scores.argmax(axis=1), ready.catalog.label[test]
    wrong = np.flatnonzero(guess != truth)
    worst = wrong[np.argsort(-scores[wrong, guess[wrong]], kind="stable")][:MOST_MISTAKES]
    thumbnails = reading.thumbnails(pictures, ready.catalog, test[worst].tolist(), THUMBNAIL)
    return [
        Mistake(
            path=shown(ready.catalog.paths[int(test[i])]),
            label=labels[truth[i]],
            guess=labels[guess[i]],
            score=float(scores[i, guess[i]]),
            true_score=float(scores[i, truth[i]]),
            jpeg=jpeg,
        )
        for i, jpeg in zip(worst.tolist(), thumbnails, strict=True)
    ]


def findings(ready: Bottlenecks, of_run: FindingsOfRun, labels: list[str]) -> list[FindingCard]:
    """Gather the most telling findings of each kind, with their pictures."""
    listed = [
        row
        for kind in FindingKind
        for row in [row for row in of_run.rows if row.kind is kind][:MOST_FINDINGS]
    ]
    rows = sorted({r for f in listed for r in (f.row, f.other_row) if r is not None})
    thumbnails = reading.thumbnails(ready.images, ready.catalog, rows, THUMBNAIL)
    pictures = dict(zip(rows, thumbnails, strict=True))
    return [
        FindingCard(
            kind=finding.kind,
            path=shown(ready.catalog.paths[finding.row]),
            label=labels[ready.catalog.label[finding.row]],
            suggested=None if finding.suggested is None else labels[finding.suggested],
            jpeg=pictures[finding.row],
            other=""
            if finding.other_row is None
            else shown(ready.catalog.paths[finding.other_row]),
            other_jpeg=None if finding.other_row is None else pictures[finding.other_row],
            sets=tuple(
                split.SETS[ready.catalog.sets[row]]
                for row in (finding.row, finding.other_row)
                if row is not None
            ),
        )
        for finding in listed
    ]


def counts(
    report: Report, ready: Bottlenecks, trained: Trained, training: Training, seconds: float
) -> list[tuple[str, str, str]]:
    """Gather the small figures beside the accuracy: name, value, and what it was measured on."""
    last = trained.curve[-1]
    whole = training.batch_size == -1 or training.solver is Solver.LBFGS
    progress = report.progress
    sets = ", ".join(
        f"{len(ready.rows(which)):,} {name}"
        for which, name in (
            (split.TRAINING, "training"),
            (split.VALIDATION, "validation"),
            (split.TESTING, "test"),
        )
    )
    stopped = f"stopped early, best at {trained.step:,}; " if trained.step < trained.steps else ""
    computed = progress.images_computed and report.images_per_second
    rate = f"{report.images_per_second:,.0f} images/s" if computed else ""

    def share(value: float | None) -> str:
        return "none" if value is None else f"{100 * value:.1f}%"

    return [
        (
            "Training accuracy",
            share(last.training_accuracy),
            "all images" if whole else "last batch",
        ),
        ("Validation accuracy", share(last.validation_accuracy), "last evaluation"),
        ("Steps", f"{trained.steps:,}", f"{stopped}{_solver(training)}"),
        ("Images", f"{len(ready.catalog):,}", sets),
        (
            "Bottlenecks",
            f"{progress.images_computed or 0:,} computed",
            f"{progress.images_cached or 0:,} from the cache, "
            f"{progress.images_rejected or 0:,} images rejected",
        ),
        ("Time", f"{seconds:.1f} s", rate),
    ]


def _solver(training: Training) -> str:
    l2 = f", L2 {training.l2:g}" if training.l2 else ""
    if training.solver is Solver.LBFGS:
        return f"L-BFGS to the minimum{l2}"
    return f"learning rate {training.learning_rate:g}{l2}"


def spec_yaml(task: Task) -> str:
    """Write the job as YAML, with every default filled in, so that it means the same later."""
    spec = task.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for field in ("suspend", "backoffLimit", "pod"):
        spec.pop(field, None)
    job = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": task.name},
        "spec": spec,
    }
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def versions(backbone: Backbone) -> dict[str, str]:
    """List the versions of this program and of the libraries that decide its numbers."""
    # The container image holds the source, not the installed distribution.
    parts = {"retrainer": __version__, "Python": platform.python_version()}
    parts |= {"numpy": np.__version__, "LiteRT": metadata.version("ai-edge-litert")}
    for name, module in (("ONNX Runtime", "onnxruntime"), ("TensorFlow", "tensorflow")):
        if library := sys.modules.get(module):  # imported only if this run needed it
            parts[name] = library.__version__
    parts["Bottlenecks by"] = backbone.runs_on
    parts["Machine"] = f"{platform.system()} {platform.machine()}"
    return parts
