"""The real trainer, run and asked on this machine: files, predictions, TensorBoard, a real S3 server."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.support.devcluster_s3 import S3Server
from tests.support.ports import free_port

import retrainer
from retrainer.cli import main
from retrainer.errors import NotFound, UserError

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("retrainer"))
PER_LABEL = 30


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels with 30 handwritten digits each."""
    everything = tmp_path_factory.mktemp("all")
    subprocess.run([sys.executable, REPOSITORY / "tools" / "digits.py", everything], check=True)
    chosen = tmp_path_factory.mktemp("photos") / "digits"
    for label in "017":
        (chosen / label).mkdir(parents=True)
        for image in sorted((everything / label).iterdir())[:PER_LABEL]:
            image.rename(chosen / label / image.name)
    return chosen


def job(images: str, output: str, **training: Any) -> dict[str, Any]:
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": "digits"},
        "spec": {
            "architecture": "mobilenet_0.25_128",
            "weights": "builtin",
            "images": images,
            "output": output,
            "training": {"steps": 100, **training},
            "export": ["tflite"],
        },
    }


@pytest.fixture(scope="module")
def done(digits: Path) -> retrainer.Result:
    """A finished run."""
    return retrainer.run(job(str(digits), str(digits.parent / "out")), progress=False)


def test_result_json_is_the_report_of_the_run(done: retrainer.Result) -> None:
    written = json.loads((Path(done.url) / "result.json").read_text())
    assert written["metrics"]["testAccuracy"] == pytest.approx(done.test_accuracy, abs=1e-4)
    assert written["stage"] == "Succeeded"
    for place in done.artifacts().values():
        assert Path(place).exists(), place
    assert Path(done.page).read_text().startswith("<!")


def test_the_result_reads_what_the_run_has_left(digits: Path, done: retrainer.Result) -> None:
    assert done.labels == ["0", "1", "7"]
    assert done.history()[-1].step == 100
    matrix = done.confusion_matrix()
    assert matrix.counts.sum() == done.test_images
    assert matrix.accuracy == pytest.approx(done.test_accuracy, abs=1e-4)
    assert done.predict(digits / "1", top=1)[0].label == "1"


def test_a_second_run_computes_nothing(digits: Path, done: retrainer.Result) -> None:
    second = retrainer.run(
        job(str(digits), str(digits.parent / "out"), learningRate=0.02), progress=False
    )
    progress = second.report.progress
    assert (progress.images_cached, progress.images_computed) == (3 * PER_LABEL, 0)
    assert second.url != done.url


def test_a_replaced_test_photo_is_not_taken_for_the_same(
    digits: Path, done: retrainer.Result, tmp_path: Path
) -> None:
    photos = shutil.copytree(digits, tmp_path / "elsewhere")
    tested, *_ = done.predictions()
    replaced = photos / tested.path
    replaced.write_bytes(replaced.read_bytes() + b"other bytes, the same picture")
    other = retrainer.run(job(str(photos), str(tmp_path / "out")), progress=False)
    comparison = retrainer.compare([done, other])
    images = done.test_images
    assert comparison.differences[0].images == images - 1
    assert [d.p for d in comparison.differences] == [1.0]
    assert f"{images - 1} in both, 1 in " in comparison.notes[0]
    assert "under the same path with another identity: 1 (" in comparison.notes[0]


def test_images_are_labelled_by_the_newest_run(digits: Path, done: retrainer.Result) -> None:
    predictions = retrainer.predict(done.output, digits / "7", top=2)
    assert len(predictions) == PER_LABEL
    assert sum(p.label == "7" for p in predictions) >= 0.9 * PER_LABEL
    for prediction in predictions:
        assert len(prediction.scores) == 2
        assert prediction.score == max(prediction.scores.values()) <= 1
    (bare,) = retrainer.predict(done.output, next((digits / "7").iterdir()), top=0)
    assert bare.scores == {}


def test_a_path_its_bytes_and_a_list_give_the_same(digits: Path, done: retrainer.Result) -> None:
    image = next((digits / "1").iterdir())
    (by_path,) = retrainer.predict(done.url, str(image))
    (by_bytes,) = retrainer.predict(done.url, [image.read_bytes()])
    assert by_path.scores == by_bytes.scores
    assert (by_path.image, by_bytes.image) == (str(image), "bytes")
    assert sum(by_path.scores.values()) == pytest.approx(1, abs=1e-4)


def test_an_image_that_is_none_is_named(done: retrainer.Result, tmp_path: Path) -> None:
    wrong = tmp_path / "text.jpg"
    wrong.write_text("no image")
    with pytest.raises(UserError, match=r"text\.jpg: .*not a JPEG, PNG, WebP, BMP or GIF"):
        retrainer.predict(done.url, wrong)
    with pytest.raises(NotFound, match=r"There is no file .*gone\.jpg"):
        retrainer.predict(done.url, tmp_path / "gone.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="There are no files directly in the folder"):
        retrainer.predict(done.url, tmp_path / "empty")


def test_one_bad_file_of_a_folder_costs_no_other_image_its_answer(
    digits: Path, done: retrainer.Result, tmp_path: Path
) -> None:
    wrong = tmp_path / "text.jpg"
    wrong.write_text("no image")
    images = sorted((digits / "7").iterdir())[:2]
    for predictions in (
        retrainer.predict(done.url, [images[0], wrong, images[1]]),
        done.predict([images[0], wrong, images[1]]),
    ):
        assert [p.image for p in predictions] == [str(images[0]), str(wrong), str(images[1])]
        assert [bool(p.scores) for p in predictions] == [True, False, True]
        assert predictions[1].error.startswith(f"{wrong}: not a JPEG")
        assert [p.error for p in (predictions[0], predictions[2])] == ["", ""]
    with pytest.raises(UserError, match=r"(?s)text\.jpg: .*gone\.jpg"):
        retrainer.predict(done.url, [wrong, tmp_path / "gone.jpg"])


def test_the_command_prints_what_it_can_and_names_the_rest(
    digits: Path, done: retrainer.Result, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = next((digits / "0").iterdir())
    wrong = tmp_path / "empty.png"
    wrong.touch()
    arguments = ["predict", done.url, str(image), str(wrong)]
    assert main.run(main.build(), arguments) == 64
    out, err = capfd.readouterr()
    assert out.splitlines()[0].split() == ["IMAGE", "LABEL", "SCORE", "THEN"]
    assert out.splitlines()[1].startswith(f"{image}   0 ")
    labelled, error = err.splitlines()
    assert labelled == f"Labelled by {done.url}."
    assert error == f"error: {wrong}: 0 bytes"
    assert main.run(main.build(), [*arguments, "-o", "json"]) == 64
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["image"], row["label"]) == (str(image), "0")
    assert set(row["scores"]) == {"0", "1", "7"}


def test_a_run_that_is_not_whole_is_not_used(digits: Path, done: retrainer.Result) -> None:
    newer = Path(done.output) / "digits-ffffffff"
    newer.mkdir()
    (newer / "model.tflite").write_bytes(b"half")
    assert len(retrainer.predict(done.output, digits / "0")) == PER_LABEL
    with pytest.raises(NotFound, match="There is no finished run in"):
        retrainer.predict(newer, digits / "0")


def test_without_a_lite_export_it_is_said_what_to_add(
    digits: Path, done: retrainer.Result, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_bytes((Path(done.url) / "result.json").read_bytes())
    with pytest.raises(NotFound, match=r"has no model\.tflite: run the job with tflite in spec"):
        retrainer.predict(tmp_path, digits / "0")


def test_the_command_of_the_readme_prints_the_figure_of_result_json(
    digits: Path, tmp_path: Path
) -> None:
    command = [
        COMMAND, "run", "--images", str(digits), "--output", str(tmp_path / "out"), "--architecture",
        "mobilenet_0.25_128", "--weights", "builtin", "--steps", "100", "--seed", "1",
        "--export", "tflite",
    ]  # fmt: skip
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert completed.stderr == ""
    printed = re.findall(r"^test accuracy (\d+\.\d%) ", completed.stdout, re.MULTILINE)
    (result,) = (tmp_path / "out").glob("digits-*/result.json")
    accuracy = json.loads(result.read_text())["metrics"]["testAccuracy"]
    assert printed == [f"{accuracy:.1%}"]
    assert len(re.findall(r"^ +[\d,]+ +[\d.]+%", completed.stdout, re.MULTILINE)) == 11
    for chatter in ("WARNING", "INFO", "TensorFlow", "oneDNN", "Traceback"):
        assert chatter not in completed.stdout


def test_a_mistake_is_one_sentence_and_64(digits: Path, tmp_path: Path) -> None:
    command = [
        COMMAND, "run", "--images", str(digits / "7"), "--output", str(tmp_path / "out"),
        "--architecture", "mobilenet_0.25_128", "--weights", "builtin",
    ]  # fmt: skip
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 64
    assert len(completed.stderr.splitlines()) == 1
    assert "it has files but no label folders" in completed.stderr
    assert "Traceback" not in completed.stdout + completed.stderr


def shown_by_tensorboard(
    place: str, environment: dict[str, str], end: signal.Signals = signal.SIGINT
) -> str:
    """The runs that TensorBoard offers to its own page; the signal `end` stops it then."""
    port = free_port()
    with subprocess.Popen(
        [COMMAND, "tensorboard", place, "--port", str(port)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as board:
        try:
            answer = answered(f"http://localhost:{port}/data/runs", board)
        finally:
            board.send_signal(end)
        assert board.wait(timeout=30) == 0
    return answer


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
def test_tensorboard_shows_the_runs_of_an_output_and_leaves_nothing(
    done: retrainer.Result, tmp_path: Path, end: signal.Signals
) -> None:
    runs = json.loads(shown_by_tensorboard(done.output, {"TMPDIR": str(tmp_path)}, end))
    assert list(tmp_path.iterdir()) == []
    name = Path(done.url).name
    assert {f"{name}/summaries/train", f"{name}/summaries/validation"} <= set(runs)


def answered(url: str, board: subprocess.Popen[bytes]) -> str:
    """What a server says once it is up."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert board.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text: str = answer.read().decode()
                if "train" in text and "validation" in text:  # it finds them one after the other
                    return text
        except OSError:
            continue
    raise AssertionError(f"{url} did not answer")


# --- a real S3 server ---
@pytest.fixture(scope="module")
def s3(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that has the digits in a bucket."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        client = boto3.client("s3", **server.client_options())  # type: ignore[call-overload]
        for bucket in ("photos", "models"):
            client.create_bucket(Bucket=bucket)
        for image in digits.rglob("*.png"):
            client.upload_file(str(image), "photos", f"digits/{image.parent.name}/{image.name}")
        yield server


def with_s3(server: S3Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **server.environment()}
    return subprocess.run(
        [COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_a_job_on_s3_gives_the_same_accuracy_and_predicts_from_there(
    s3: S3Server, digits: Path, done: retrainer.Result
) -> None:
    arguments = [
        "run", "--images", "s3://photos/digits", "--output", "s3://models/digits", "--architecture",
        "mobilenet_0.25_128", "--weights", "builtin", "--steps", "100", "--export", "tflite",
    ]  # fmt: skip
    completed = with_s3(s3, *arguments)
    assert completed.returncode == 0, completed.stderr
    assert f"\ntest accuracy {done.test_accuracy:.1%} " in completed.stdout
    run = re.findall(r"^  run +(\S+)$", completed.stdout, re.MULTILINE)[0]
    assert run.startswith("s3://models/digits/digits-")
    image = next((digits / "7").iterdir())
    for place in ("s3://models/digits", run):
        rows = json.loads(with_s3(s3, "predict", place, str(image), "-o", "json").stdout)
        assert rows[0]["label"] == "7"
    runs = json.loads(shown_by_tensorboard(run, s3.environment()))
    assert set(runs) >= {"summaries/train", "summaries/validation"}


def test_a_bucket_that_is_not_there_is_told(s3: S3Server, digits: Path) -> None:
    completed = with_s3(s3, "predict", "s3://nowhere/digits", str(digits / "7"))
    assert completed.returncode == 64
    assert "nowhere" in completed.stderr
    assert "Traceback" not in completed.stderr
