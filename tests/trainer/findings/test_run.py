"""Findings of whole runs on real photos, with errors planted on purpose."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.support import trainer_engine as engine
from tests.support.trainer_engine import Recorder

from retrainer.api import Evaluation, RetrainJobSpec, Task, layout
from retrainer.results.run import Run
from retrainer_trainer import train
from retrainer_trainer.runtime.stop import Stop

pytestmark = pytest.mark.slow

EACH = 40


@pytest.fixture(scope="module")
def photos(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels; a rose among the daisies, and the mirror image of a tulip beside it."""
    root = tmp_path_factory.mktemp("photos")
    for label in ("daisy", "roses", "tulips"):
        (root / label).mkdir()
        for path in sorted((flowers / label).iterdir())[:EACH]:
            shutil.copy(path, root / label / path.name)
    wrong = sorted((flowers / "roses").iterdir())[EACH]
    shutil.copy(wrong, root / "daisy" / "wrong.jpg")
    tulip = min((root / "tulips").iterdir())
    mirrored = np.ascontiguousarray(np.asarray(cv2.imread(str(tulip)), np.uint8)[:, ::-1])
    cv2.imwrite(str(root / "tulips" / "mirror.jpg"), mirrored)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(
    photos: Path, cache: Path, output: Path, imagenet_weights: Path, **fields: object
) -> tuple[Run, Recorder]:
    spec: RetrainJobSpec = engine.spec(
        photos,
        output,
        cache=str(cache),
        weights=str(imagenet_weights),
        architecture="mobilenet_0.50_160",
        training={"steps": 100},
        export=["tflite"],
        **fields,
    )
    recorder = Recorder(spec, "train")
    task = Task(task="train", name="t", uid=recorder.report.uid, spec=spec)
    train.run(task, recorder, Stop())
    return Run(task.run_url), recorder


def test_planted_errors_are_found_told_and_taken_from_the_cache_by_the_next_run(
    photos: Path, cache: Path, tmp_path: Path, imagenet_weights: Path
) -> None:
    first, recorder = run(photos, cache, tmp_path / "one", imagenet_weights)
    findings = first.findings()
    labels = [one for one in findings if one.kind == "label"]
    assert "daisy/wrong.jpg" in {one.path for one in labels[:5]}
    pairs = [one for one in findings if one.kind in {"duplicate", "leak"}]
    tulip = min(path for path in (photos / "tulips").iterdir() if path.name != "mirror.jpg")
    copies = {f"tulips/{tulip.name}", "tulips/mirror.jpg"}
    assert any({one.path, one.other} == copies for one in pairs)

    counts = first.report.findings
    assert counts is not None
    assert counts.total == len(findings)
    assert counts.labels == len(labels)
    assert any(line.startswith("Findings: ") for line in recorder.lines)
    folds = first.evaluation.folds
    assert folds is not None
    assert folds.images == 3 * EACH + 2
    page = (Path(first.url) / layout.REPORT_PAGE).read_text()
    assert "Labels that are probably wrong" in page
    assert "daisy/wrong.jpg" in page

    # Another learning rate: the same findings, without looking again.
    kept = list(cache.rglob(f"{layout.KEPT_FINDINGS}/*.json"))
    assert len(kept) == 1
    changed = kept[0].stat().st_mtime_ns
    second, _ = run(photos, cache, tmp_path / "two", imagenet_weights)
    assert second.findings() == findings
    assert kept[0].stat().st_mtime_ns == changed


def test_a_job_that_wants_no_findings_gets_none(
    photos: Path, cache: Path, tmp_path: Path, imagenet_weights: Path
) -> None:
    without, recorder = run(
        photos, cache, tmp_path / "none", imagenet_weights, findings={"enabled": False}
    )
    assert without.findings() == []
    assert without.evaluation.folds is None
    assert not any("Findings" in line for line in recorder.lines)
    assert "What the images tell" not in (Path(without.url) / layout.REPORT_PAGE).read_text()


def test_a_damaged_file_of_kept_findings_is_looked_for_again(
    photos: Path, cache: Path, tmp_path: Path, imagenet_weights: Path
) -> None:
    first, _ = run(photos, cache, tmp_path / "one", imagenet_weights)
    (kept,) = cache.rglob(f"{layout.KEPT_FINDINGS}/*.json")
    kept.write_text('{"right": 3')
    second, _ = run(photos, cache, tmp_path / "two", imagenet_weights)
    assert second.findings() == first.findings()
    assert isinstance(second.evaluation, Evaluation)
