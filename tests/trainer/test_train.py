"""The train task on real photos: what a run leaves, and what it refuses."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support import trainer_engine as engine
from tests.support.trainer_engine import Recorder

from retrainer import jobfile
from retrainer.api import (
    CurvePoint,
    EarlyStopping,
    Export,
    Report,
    RetrainJobSpec,
    Solver,
    Sweep,
    Task,
    Training,
    layout,
)
from retrainer.api.interval import wilson
from retrainer.errors import UserError
from retrainer.results.run import Run
from retrainer_trainer import bottlenecks, train
from retrainer_trainer.dataset import split
from retrainer_trainer.head.softmax import Diverged
from retrainer_trainer.runtime.stop import Stop

pytestmark = pytest.mark.slow

EACH = 30
ODD = "tulips <b>&\n\tñ"
SHOWN = "tulips <b>&\\n\\tñ"


def some_flowers(flowers: Path, root: Path) -> Path:
    """30 photos of each of three labels; one has a name that is hard to write down."""
    for label, name in (("daisy", "daisy"), ("roses", "roses"), ("tulips", ODD)):
        (root / name).mkdir(parents=True)
        for path in sorted((flowers / label).iterdir())[:EACH]:
            shutil.copy(path, root / name / path.name)
    return root


@pytest.fixture(scope="module")
def photos(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return some_flowers(flowers, tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def spec(photos: Path, cache: Path, output: Path, **fields: Any) -> RetrainJobSpec:
    training = {"steps": 300, **fields.pop("training", {})}
    values: dict[str, Any] = {
        "cache": str(cache),
        "training": training,
        "export": ["tflite"],
        "split": {"testingPercentage": 20, "validationPercentage": 15},
        **fields,
    }
    return engine.spec(photos, output, **values)


def task_of(wanted: RetrainJobSpec, uid: str = engine.UID) -> Task:
    return Task(task="train", name="t", uid=uid, spec=wanted)


def trained(wanted: RetrainJobSpec, uid: str = engine.UID) -> tuple[Path, Recorder]:
    """Do the task in this process; its run's folder and what was said."""
    recorder = Recorder(wanted, "train")
    recorder.report = recorder.report.model_copy(update={"uid": uid})
    task = task_of(wanted, uid)
    train.run(task, recorder, Stop())
    return Path(task.run_url), recorder


@pytest.fixture(scope="module")
def whole(
    flowers: Path, imagenet_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole run in a process of its own, with a broken photo and one that is there twice."""
    root = some_flowers(flowers, tmp_path_factory.mktemp("whole"))
    body = min((root / "daisy").iterdir()).read_bytes()
    (root / "daisy" / "truncated.jpg").write_bytes(body[: len(body) // 2])
    (root / "roses" / "a daisy again.jpg").write_bytes(body)
    output = tmp_path_factory.mktemp("output")
    cache = tmp_path_factory.mktemp("imagenet-cache")
    wanted = spec(
        root, cache, output, export=["savedModel", "tflite"], weights=str(imagenet_weights)
    )
    done = subprocess.run(
        [sys.executable, "-m", "retrainer_trainer"],
        env={**os.environ, "RETRAINER_TASK": task_of(wanted).to_json(), "RETRAINER_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output / f"t-{engine.UID[:8]}", done


def test_the_run_keeps_the_job_that_gave_it(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    job = jobfile.load(run / "job.yaml")
    assert job.name == "t"
    assert job.spec.training.steps == 300
    assert job.spec.split.testing_percentage == 20


def test_every_artifact_that_the_report_names_is_there(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    report = Report.model_validate_json((run / layout.RESULT).read_bytes())
    assert {"savedModel", "tflite", "labels", "page", "summaries"} <= set(report.artifacts)
    for path in report.artifacts.values():
        assert (run / path).exists(), path
    assert report.stage == "Succeeded"
    assert report.progress.percent == 100
    assert report.progress.step == report.progress.steps == 300
    assert len(report.termination_message().encode()) <= 4096


def test_result_evaluation_and_predictions_give_one_accuracy(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, done = whole
    report = json.loads((run / layout.RESULT).read_bytes())
    evaluation = json.loads((run / layout.EVALUATION).read_bytes())
    rows = pq.read_table(run / layout.PREDICTIONS).to_pylist()
    right = sum(row["label"] == row["guess"] for row in rows)
    assert evaluation["images"] == report["metrics"]["testImages"] == len(rows) > 10
    assert evaluation["accuracy"] == right / len(rows)
    assert report["metrics"]["testAccuracy"] == round(right / len(rows), 4)
    assert evaluation["interval"] == list(wilson(right / len(rows), len(rows)))
    assert f"Final test accuracy = {100 * right / len(rows):.1f}% (N={len(rows)})" in done.stdout
    commonest = evaluation["commonestLabel"]
    share = sum(row["label"] == commonest["label"] for row in rows) / len(rows)
    assert commonest["accuracy"] == share
    assert f"Always guessing {commonest['label']} would give {share:.1%}." in done.stdout
    assert report["message"].startswith(
        f"Test accuracy {right / len(rows):.1%} on {len(rows)} images;"
    )
    assert right / len(rows) >= 0.7, "ImageNet's network tells three kinds of flowers apart"
    exports = evaluation["exports"]
    assert exports["tflite"]["check"] == "images"
    assert exports["tflite"]["images"] == len(rows)
    assert exports["tflite"]["accuracy"] == pytest.approx(right / len(rows), abs=0.1)
    assert exports["savedModel"]["check"] == "constants"
    assert exports["savedModel"]["accuracy"] is None


def test_the_test_images_are_retrain_pys(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    for row in pq.read_table(run / layout.PREDICTIONS).to_pylist():
        if ODD.split(maxsplit=1)[0] not in row["path"]:
            assert 15 <= split.hashed(row["path"]) < 35, "after 15% validation come 20% test"


def test_rejected_and_repeated_images_are_listed_and_shown(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    rejected = list(csv.DictReader(io.StringIO((run / layout.REJECTED).read_text())))
    assert [row["path"] for row in rejected] == ["daisy/truncated.jpg"]
    assert rejected[0]["reason"].startswith("JPEG: ")
    duplicates = list(csv.DictReader(io.StringIO((run / layout.DUPLICATES).read_text())))
    assert {row["label"] for row in duplicates} == {"daisy", "roses"}
    page = (run / layout.REPORT_PAGE).read_text()
    assert "daisy/truncated.jpg" in page
    assert "roses/a daisy again.jpg" in page


def test_a_label_with_markup_and_line_breaks_is_one_line_everywhere(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    assert (run / layout.LABELS).read_text().splitlines() == ["daisy", "roses", SHOWN]
    assert "<b>&" not in (run / layout.REPORT_PAGE).read_text()
    with np.load(run / layout.HEAD, allow_pickle=False) as head:
        assert head["labels"].tolist() == ["daisy", "roses", SHOWN]
        assert head["weights"].shape == (3, engine.WIDTH)
        assert head["weights"].dtype == np.float32


def test_steps_are_told_as_retrain_py_tells_them_and_tensorflow_tells_nothing(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = whole
    assert done.stderr == ""
    line = re.compile(
        r"step (\d+): training accuracy \d+\.\d%, validation \d+\.\d%, cross entropy \d+\.\d{4}"
    )
    assert re.search(
        r"^Training on \d+ images, validating on all \d+\.$", done.stdout, re.MULTILINE
    )
    steps = [int(m[1]) for text in done.stdout.splitlines() if (m := line.fullmatch(text))]
    assert steps == list(range(0, 301, 10))
    for text in done.stdout.splitlines():
        assert not re.search(r"[Tt]ensor[Ff]low|WARNING|INFO|XNNPACK|oneDNN|I0000|absl", text)


def test_the_history_is_the_reports_curve(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    report = Report.model_validate_json((run / layout.RESULT).read_bytes())
    rows = pq.read_table(run / layout.HISTORY).to_pylist()
    assert [CurvePoint(**row).step for row in rows] == report.curve.step
    assert rows[-1]["validation_accuracy"] == pytest.approx(
        report.metrics.validation_accuracy, abs=1e-4
    )


def test_tensorboard_finds_scalars_and_graph(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = whole
    events = EventAccumulator(str(run / layout.SUMMARIES / "train"))
    events.Reload()
    assert [e.step for e in events.Scalars("accuracy")] == list(range(0, 301, 10))
    assert "final_result" in {node.name for node in events.Graph().node}


def test_a_run_that_is_whole_is_told_again_and_left_as_it_is(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = spec(photos, cache, tmp_path)
    run, first = trained(wanted)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*")}
    capsys.readouterr()
    _, second = trained(wanted)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*")} == before
    assert second.report.metrics == Report.model_validate_json(first.report.to_json()).metrics
    assert second.report.stage == "Succeeded"
    assert json.loads(capsys.readouterr().out)["uid"] == engine.UID


def test_a_result_of_another_job_in_the_folder_is_no_result_of_this_one(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    wanted = spec(photos, cache, tmp_path)
    run, _ = trained(wanted, engine.UID)
    other = engine.UID[:8] + "-another"
    _, recorder = trained(wanted, other)
    assert Report.model_validate_json((run / layout.RESULT).read_bytes()).uid == other
    assert recorder.report.progress.images_computed == 0


def test_shards_then_train_give_the_head_of_one_pod_to_the_bit(
    photos: Path, tmp_path: Path
) -> None:
    alone, _ = trained(spec(photos, tmp_path / "c1", tmp_path / "o1"))
    wanted = spec(photos, tmp_path / "c2", tmp_path / "o2", shards=3)
    computed = []
    for shard in (2, 0, 1):
        recorder = Recorder(wanted)
        task = Task(task="bottlenecks", name="t", uid=engine.UID, shards=3, spec=wanted)
        bottlenecks.run(task, shard, recorder, Stop())
        computed.append(recorder.report.progress.images_computed)
    assert sum(filter(None, computed)) == 3 * EACH
    assert all(computed)
    together, recorder = trained(wanted)
    assert recorder.report.progress.images_computed == 0
    heads = [np.load(run / layout.HEAD) for run in (alone, together)]
    assert heads[0]["weights"].tobytes() == heads[1]["weights"].tobytes()
    assert heads[0]["bias"].tobytes() == heads[1]["bias"].tobytes()


def test_views_are_trained_on_under_their_images_labels(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    wanted = spec(photos, cache, tmp_path, distortions={"flipLeftRight": True, "views": 2})
    ready = engine.prepared(wanted)
    examples = train.examples_of(ready)
    assert examples.training.shape == (len(ready.rows(split.TRAINING)), 3)
    label = examples.label[examples.training]
    assert (label == label[:, :1]).all()
    assert (label[:, 0] == ready.catalog.label[ready.rows(split.TRAINING)]).all()
    assert not set(examples.validation) & set(examples.training.ravel())


def test_a_diverging_rate_ends_with_its_head_kept_and_no_result(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    wanted = spec(photos, cache, tmp_path, training={"learningRate": 1e9})
    with pytest.raises(
        Diverged, match=r"The training diverged at step \d+ with learningRate 1e\+09"
    ):
        trained(wanted)
    run = tmp_path / f"t-{engine.UID[:8]}"
    assert not (run / layout.RESULT).exists()
    with np.load(run / layout.HEAD) as head:
        assert np.isfinite(head["weights"]).all()
    assert (run / layout.HISTORY).exists()


def test_without_test_images_there_is_no_accuracy_and_exports_are_run_all_the_same(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    only = {"testingPercentage": 0, "validationPercentage": 15}
    run, recorder = trained(spec(photos, cache, tmp_path, split=only))
    assert recorder.report.metrics.test_accuracy is None
    assert recorder.report.metrics.test_images == 0
    assert recorder.report.message.startswith("Trained; no test images")
    evaluation = json.loads((run / layout.EVALUATION).read_bytes())
    assert evaluation["accuracy"] is None
    assert evaluation["exports"]["tflite"]["accuracy"] is None
    assert evaluation["exports"]["tflite"]["images"] > 0
    assert "No test images" in (run / layout.REPORT_PAGE).read_text()


def test_a_quantized_architecture_also_exports_int8_and_measures_it(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    wanted = spec(photos, cache, tmp_path, architecture="mobilenet_0.25_128_quantized")
    run, recorder = trained(wanted)
    assert set(recorder.report.artifacts) >= {"tflite", "tfliteInt8"}
    exports = json.loads((run / layout.EVALUATION).read_bytes())["exports"]
    assert exports["tfliteInt8"]["accuracy"] == pytest.approx(
        exports["tflite"]["accuracy"], abs=0.25
    )
    assert (run / layout.EXPORT_PATHS[Export.TFLITE_INT8]).stat().st_size > 100_000


def test_a_line_of_the_log_fits_80_columns_at_its_longest() -> None:
    point = CurvePoint(
        step=10_000_000,
        training_accuracy=1.0,
        validation_accuracy=1.0,
        cross_entropy=103.9712,
        validation_cross_entropy=1.0,
    )
    line = train.step_line(point)
    assert line.startswith("step 10000000: training accuracy 100.0%, validation 100.0%, cross")
    assert len(line) <= 80


@pytest.mark.parametrize(
    ("training", "field"),
    [
        (Training(early_stopping=EarlyStopping(patience=3)), "earlyStopping"),
        (Training(sweep=Sweep(l2=[0, 1])), "sweep"),
        (Training(solver=Solver.LBFGS), "solver"),
    ],
)
def test_choosing_without_an_image_to_choose_by_is_refused_by_its_field(
    photos: Path, cache: Path, tmp_path: Path, training: Training, field: str
) -> None:
    ready = engine.prepared(spec(photos, cache, tmp_path))
    examples = replace(train.examples_of(ready), validation=np.empty(0, np.intp))
    with pytest.raises(UserError, match=rf"^spec\.training\.{field}: none of the images"):
        train.check_validation(training, examples)
    for harmless in (Training(), Training(solver=Solver.LBFGS, l2=0.1)):
        train.check_validation(harmless, examples)


def test_the_log_says_what_is_validated_on(photos: Path, cache: Path, tmp_path: Path) -> None:
    examples = train.examples_of(engine.prepared(spec(photos, cache, tmp_path)))
    count = len(examples.validation)
    assert train.measured_on(Training(), examples).endswith(f"validating on all {count}.")
    drawn = train.measured_on(Training(validation_batch_size=7), examples)
    assert drawn.endswith(f"validating on 7 drawn from {count} each time.")
    nothing = replace(examples, validation=np.empty(0, np.intp))
    assert train.measured_on(Training(), nothing).endswith("there are none to validate on.")


def test_a_sweep_leaves_its_table_its_picture_and_the_head_of_a_job_with_its_values(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    rates, strengths = [0.003, 0.03, 1e6], [0.0, 0.01]
    swept = {"sweep": {"learningRate": rates, "l2": strengths}}
    run, recorder = trained(spec(photos, cache, tmp_path / "sweep", training=swept))
    rows = pq.read_table(run / layout.SWEEP).to_pylist()
    assert [(row["learning_rate"], row["l2"]) for row in rows] == [
        (rate, l2) for rate in rates for l2 in strengths
    ]
    (chosen,) = [row for row in rows if row["chosen"]]
    sound = [row for row in rows if row["diverged_step"] is None]
    assert len(sound) == 4
    assert chosen["validation_cross_entropy"] == min(r["validation_cross_entropy"] for r in sound)
    assert all(row["validation_cross_entropy"] is None for row in rows[4:])
    report = Report.model_validate_json((run / layout.RESULT).read_bytes())
    assert report.sweep is not None
    assert (report.sweep.candidates, report.sweep.diverged) == (6, 2)
    assert report.sweep.chosen is not None
    assert report.sweep.chosen.learning_rate == chosen["learning_rate"]
    assert report.artifacts["sweep"] == layout.SWEEP
    assert [asdict(one) for one in Run(run).sweep()] == rows
    assert any("2 of 6 combinations diverged" in warning for warning in recorder.warnings)
    page = (run / layout.REPORT_PAGE).read_text()
    assert "What was tried" in page
    assert page.count("diverged at step") == 2
    assert page.count('class="chosen"') == 1
    values = {"learningRate": chosen["learning_rate"], "l2": chosen["l2"]}
    alone, _ = trained(spec(photos, cache, tmp_path / "alone", training=values))
    assert (run / layout.HEAD).read_bytes() == (alone / layout.HEAD).read_bytes()


def test_lbfgs_without_l2_chooses_it_and_leaves_a_whole_run(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    run, recorder = trained(spec(photos, cache, tmp_path, training={"solver": "lbfgs"}))
    report = Report.model_validate_json((run / layout.RESULT).read_bytes())
    assert report.sweep is not None
    assert report.sweep.candidates == 20
    assert report.sweep.chosen is not None
    assert report.sweep.chosen.learning_rate is None
    assert report.sweep.chosen.l2 > 0
    assert report.progress.step == report.progress.steps == report.curve.step[-1] < 1000
    assert "L-BFGS to the minimum, L2 " in (run / layout.REPORT_PAGE).read_text()
    assert any(line.startswith("Of 20 combinations l2 ") for line in recorder.lines)


def test_a_test_batch_is_drawn_by_the_seed(photos: Path, cache: Path, tmp_path: Path) -> None:
    ready = engine.prepared(spec(photos, cache, tmp_path))
    drawn = []
    for seed in (1, 1, 2):
        wanted = spec(photos, cache, tmp_path, training={"testBatchSize": 7, "seed": seed})
        drawn.append(train.test_rows(task_of(wanted), ready).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 7
    assert set(drawn[0]) <= set(ready.rows(split.TESTING).tolist())


def test_bottlenecks_that_are_no_numbers_are_laid_to_the_weights(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    ready = engine.prepared(spec(photos, cache, tmp_path))
    ready.matrix[4, 7] = np.nan
    with pytest.raises(
        UserError, match=r"spec.weights: builtin gives infinite numbers, the first for daisy/"
    ):
        train.examples_of(ready)


def test_the_pages_spec_is_a_job_that_can_be_run_again(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    import yaml

    from retrainer.api import parse_job
    from retrainer_trainer.page.contents import spec_yaml

    wanted = spec(photos, cache, tmp_path)
    job = parse_job(yaml.safe_load(spec_yaml(task_of(wanted))))
    assert job.spec == wanted
