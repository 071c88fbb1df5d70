"""What the trainer tells of a job before it is run, on real files."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support.trainer_engine import UID, encoded, photo, photos, picture, spec

from retrainer.api import Task
from retrainer.api.preview import Inspection, Plan
from retrainer.errors import UserError
from retrainer_trainer import preview, train
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop


def answered(task: dict[str, Any]) -> Any:
    """The answer of a task, as it comes through the pipe."""
    read, write = os.pipe()
    reporter = Reporter(
        Task.model_validate({"name": "t", "uid": UID, **task}), port=0, events=write
    )
    try:
        preview.run(Task.model_validate({"name": "t", "uid": UID, **task}), reporter, Stop())
    finally:
        reporter.close()
        os.close(write)
        with os.fdopen(read) as events:
            lines = [json.loads(line) for line in events]
    (answer,) = [line["answer"] for line in lines if "answer" in line]
    return answer


def checked(images: Path, *, decode: bool = False, **fields: Any) -> Inspection:
    task = {
        "task": "check",
        "decode": decode,
        "spec": spec(images, images.parent / "out", **fields),
    }
    return Inspection.model_validate(answered(task))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", {"daisy": 30, "roses": 30})


def test_labels_sets_formats_and_sizes_are_counted(folder: Path) -> None:
    (folder / "daisy" / "tall.png").write_bytes(encoded(picture(1, 40, 90), "PNG"))
    (folder / "daisy" / "small.gif").write_bytes(encoded(picture(2, 8, 6), "GIF"))
    inspection = checked(folder)
    assert inspection.images == 62
    assert inspection.size == sum(p.stat().st_size for p in folder.rglob("*.*"))
    assert [(each.label, each.images) for each in inspection.labels] == [
        ("daisy", 32),
        ("roses", 30),
    ]
    for each in inspection.labels:
        assert each.training + each.validation + each.test == each.images
    assert inspection.formats == {"JPEG": 60, "PNG": 1, "GIF": 1}
    assert (inspection.smallest, inspection.median, inspection.largest) == (
        (8, 6),
        (64, 48),
        (40, 90),
    )
    assert inspection.problem is None
    assert not (folder.parent / "out").exists()


def test_the_sets_are_those_of_a_run(folder: Path) -> None:
    inspection = checked(folder, split={"testingPercentage": 0, "validationPercentage": 0})
    assert [(each.training, each.validation, each.test) for each in inspection.labels] == [
        (30, 0, 0), (30, 0, 0),
    ]  # fmt: skip


def test_what_cannot_be_read_is_named_with_its_reason(folder: Path) -> None:
    (folder / "roses" / "empty.jpg").write_bytes(b"")
    (folder / "roses" / "notes.jpg").write_bytes(b"Buy bread.")
    inspection = checked(folder, maxRejectedFraction=0.1)
    assert inspection.rejected == 2
    assert {each.path: each.reason for each in inspection.rejections} == {
        "roses/empty.jpg": "0 bytes",
        "roses/notes.jpg": "not a JPEG, PNG, WebP, BMP or GIF image",
    }
    assert inspection.labels[1].rejected == 2
    assert inspection.problem is None


def test_more_bad_images_than_allowed_are_a_problem(folder: Path) -> None:
    (folder / "roses" / "empty.jpg").write_bytes(b"")
    problem = checked(folder, maxRejectedFraction=0).problem
    assert problem is not None
    assert "roses/empty.jpg (0 bytes)" in problem


def test_a_label_without_a_readable_image_is_a_problem(folder: Path) -> None:
    (folder / "tulips").mkdir()
    for number in range(3):
        (folder / "tulips" / f"{number}.jpg").write_bytes(b"no picture")
    problem = checked(folder, maxRejectedFraction=1).problem
    assert problem is not None
    assert "tulips (no file can be read as an image)" in problem


def test_damage_inside_is_found_by_decoding_only(folder: Path) -> None:
    body = photo(99, 400, 300)
    (folder / "roses" / "cut.jpg").write_bytes(body[: len(body) // 2])
    assert checked(folder).rejected == 0
    inspection = checked(folder, decode=True, maxRejectedFraction=0.1)
    assert [(each.path, each.reason) for each in inspection.rejections] == [
        ("roses/cut.jpg", "JPEG: truncated")
    ]


def test_a_header_far_into_the_file_is_read(folder: Path) -> None:
    body = photo(7)
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    (folder / "daisy" / "long.jpg").write_bytes(body[:2] + 2 * comment + body[2:])
    inspection = checked(folder)
    assert (inspection.rejected, inspection.formats) == (0, {"JPEG": 61})


def test_copies_are_listed(folder: Path) -> None:
    shutil.copy(folder / "daisy" / "0003.jpg", folder / "roses" / "again.jpg")
    assert checked(folder).copies == [["daisy/0003.jpg", "roses/again.jpg"]]


def test_a_folder_without_labels_is_refused_as_by_a_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="it is empty"):
        checked(tmp_path / "photos")


# --- plan ---
def planned(images: Path, output: Path, **fields: Any) -> Plan:
    task = {"task": "plan", "spec": spec(images, output, **fields)}
    return Plan.model_validate(answered(task))


TRAINING = {"steps": 20, "evalInterval": 10}


@pytest.fixture(scope="module")
def run_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, and an output in which a run has left its cache."""
    folder = tmp_path_factory.mktemp("planned")
    photos(folder / "photos", {"daisy": 30, "roses": 30})
    wanted = spec(folder / "photos", folder / "out", training=TRAINING, export=["tflite"])
    task = Task.model_validate({"task": "train", "name": "t", "uid": UID, "spec": wanted})
    reporter = Reporter(task, port=0, events=-1)
    train.run(task, reporter, Stop())
    return folder


def test_a_plan_for_an_empty_cache_computes_everything_and_writes_nothing(folder: Path) -> None:
    output = folder.parent / "out"
    plan = planned(folder, output, training=TRAINING)
    assert (plan.images, plan.cached, plan.missing) == (60, 0, 60)
    assert plan.bytes_to_read == plan.size == sum(p.stat().st_size for p in folder.rglob("*.jpg"))
    assert (plan.seconds, plan.memory, plan.measured_on) == (None, None, "")
    assert plan.backbone == "mobilenet_0.25_128"
    assert plan.run == f"{output}/t-********"
    assert {"report.html", "saved_model", "model.tflite"} <= set(plan.files)
    assert not output.exists()


def test_a_plan_after_a_run_knows_what_is_cached_and_how_long_it_took(run_before: Path) -> None:
    before = sorted(run_before.rglob("*"))
    plan = planned(run_before / "photos", run_before / "out", training=TRAINING)
    assert (plan.cached, plan.missing, plan.bytes_to_read, plan.bytes_to_cache) == (60, 0, 0, 0)
    assert plan.here
    assert plan.seconds is not None
    assert plan.memory is not None
    assert plan.memory > 50e6
    million, two_millions = (
        planned(
            run_before / "photos", run_before / "out", training={**TRAINING, "steps": count}
        ).seconds
        for count in (1_000_000, 2_000_000)
    )
    assert million is not None
    assert two_millions is not None
    assert million > plan.seconds
    assert two_millions - million == pytest.approx(million - plan.seconds, rel=0.01)
    assert sorted(run_before.rglob("*")) == before


def test_what_is_unknown_of_a_training_makes_the_time_unknown(run_before: Path) -> None:
    plan = planned(run_before / "photos", run_before / "out", training={"solver": "lbfgs"})
    assert plan.seconds is None
