"""A run as the extra `trainer` installs it: no TensorFlow, no Keras, no converter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.light import light_python
from tests.support.trainer_engine import photos, spec

from retrainer.api import Export, RetrainJobSpec
from retrainer.api.layout import EVALUATION, EXPORT_PATHS, REPORT_PAGE
from retrainer.errors import UserError
from retrainer.inference.runners import open_runners
from retrainer_trainer.__main__ import check_tensorflow

FORMATS = ("savedModel", "tflite", "frozenGraph", "onnx")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    return light_python(tmp_path_factory.mktemp("light") / "site-packages")


def retrainer(
    light: tuple[list[str], dict[str, str]], *arguments: str
) -> subprocess.CompletedProcess[str]:
    command, environment = light
    return subprocess.run(
        [*command, "-m", "retrainer.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def newest(output: Path) -> Path:
    return max((p.parent for p in output.glob("*/result.json")), key=lambda p: p.stat().st_mtime)


@pytest.mark.slow
def test_a_run_cold_and_warm_needs_no_tensorflow(
    light: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    command, environment = light
    for name in ("tensorflow", "keras", "tf2onnx"):
        imported = subprocess.run(
            [*command, "-c", f"import {name}"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ModuleNotFoundError" in imported.stderr, name
    images = photos(tmp_path / "photos", {"daisy": 30, "roses": 30})
    arguments = ["run", str(images), "--output", str(tmp_path / "out"), "--weights", "builtin"]
    arguments += ["--architecture", "mobilenet_0.25_128", "--steps", "50"]
    for form in FORMATS:
        arguments += ["--export", form]
    for computed in (60, 0):
        done = retrainer(light, *arguments)
        assert done.returncode == 0, done.stderr
        run = newest(tmp_path / "out")
        result = json.loads((run / "result.json").read_bytes())
        assert result["progress"]["imagesComputed"] == computed
    run = newest(tmp_path / "out")
    exports = json.loads((run / EVALUATION).read_bytes())["exports"]
    assert {name: one["check"] for name, one in exports.items()} == {
        "savedModel": "constants",
        "tflite": "images",
        "frozenGraph": "constants",
        "onnx": "images",
    }
    assert "TensorFlow</td>" not in (run / REPORT_PAGE).read_text()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    scores = [open_runners(run, form)[form.value](pixels, []) for form in map(Export, FORMATS)]
    for each in scores[1:]:
        np.testing.assert_allclose(each, scores[0], atol=1e-4)
    assert all((run / EXPORT_PATHS[form]).exists() for form in map(Export, FORMATS))


@pytest.mark.slow
def test_verify_runs_what_can_be_run_here_and_says_what_cannot(
    light: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    images = photos(tmp_path / "photos", {"daisy": 30, "roses": 30})
    arguments = ["run", str(images), "--output", str(tmp_path / "out"), "--weights", "builtin"]
    arguments += ["--architecture", "mobilenet_0.25_128", "--steps", "50"]
    for form in FORMATS:
        arguments += ["--export", form]
    assert retrainer(light, *arguments).returncode == 0

    without = retrainer(light, "verify", str(tmp_path / "out"))
    assert without.returncode == 0, without.stderr
    rows = {line.split()[0]: line for line in without.stdout.splitlines()[1:]}
    assert set(rows) == set(FORMATS)
    assert "tensorflow is not installed" in rows["savedModel"]
    assert rows["frozenGraph"].endswith("not run")
    assert "onnxruntime" in rows["onnx"]
    assert rows["onnx"].endswith("0 of 16")

    here = ([sys.executable], dict(os.environ))
    whole = retrainer(here, "verify", str(tmp_path / "out"), str(images / "daisy"))
    assert whole.returncode == 0, whole.stderr
    rows = {line.split()[0]: line for line in whole.stdout.splitlines()[1:]}
    assert set(rows) == {*FORMATS, "savedModelBytes"}
    assert all(rows[form].endswith("0 of 30") for form in FORMATS)

    run = newest(tmp_path / "out")
    onnx = run / EXPORT_PATHS[Export.ONNX]
    body = onnx.read_bytes()
    bias = np.load(run / "head.npz")["bias"].astype("<f4").tobytes()
    ends = []
    for always in ([50, -50], [-50, 50]):  # one label for every image: one of both is another
        onnx.write_bytes(body.replace(bias, np.array(always, "<f4").tobytes()))
        ends.append(retrainer(light, "verify", str(tmp_path / "out")))
    wrong = next(end for end in ends if end.returncode)
    assert wrong.returncode == 1
    assert "onnx guesses otherwise than tflite" in " ".join(wrong.stderr.split())


@pytest.mark.slow
def test_what_needs_tensorflow_is_refused_before_anything_is_computed(
    light: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    images = photos(tmp_path / "photos", {"daisy": 30, "roses": 30})
    arguments = ["run", str(images), "--output", str(tmp_path / "out"), "--weights", "builtin"]
    arguments += ["--architecture", "mobilenet_0.25_128", "--export", "keras"]
    done = retrainer(light, *arguments)
    assert done.returncode == 64
    text = "spec.export: keras needs TensorFlow, which is not installed here: pip install"
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, None),
        ({"export": list(FORMATS)}, None),
        ({"export": ["tflite", "keras"]}, "spec.export: keras"),
        ({"export": ["tfliteInt8"]}, "spec.export: tfliteInt8"),
        (
            {"architecture": "mobilenet_0.25_128_quantized"},
            "spec.architecture: mobilenet_0.25_128_quantized",
        ),
        (
            {"pod": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
            "spec.pod.resources: nvidia.com/gpu",
        ),
        ({"pod": {"resources": {"limits": {"nvidia.com/gpu": "0", "cpu": "4"}}}}, None),
    ],
)
def test_the_field_that_needs_tensorflow_is_named(
    fields: dict[str, Any], field: str | None
) -> None:
    wanted: RetrainJobSpec = spec("in", "out", **fields)
    assert wanted.tensorflow_field == field
    if field is None:
        check_tensorflow(wanted, find=lambda _name: None)
        return
    check_tensorflow(wanted, find=lambda name: name)
    with pytest.raises(UserError) as raised:
        check_tensorflow(wanted, find=lambda _name: None)
    assert str(raised.value) == (
        f"{field} needs TensorFlow, which is not installed here: pip install 'retrainer[tensorflow]'."
    )


@pytest.mark.slow
def test_a_trainer_does_not_import_pandas_where_it_is_installed(tmp_path: Path) -> None:
    images = photos(tmp_path / "photos", {"daisy": 20, "roses": 20})
    job = spec(images, tmp_path / "out", training={"steps": 10}).model_dump(
        mode="json", by_alias=True
    )
    task = {"task": "train", "name": "light", "uid": "0123456789abcdef", "spec": job}
    environment = {**os.environ, "RETRAINER_TASK": json.dumps(task), "RETRAINER_PORT": "0"}
    command = [sys.executable, "-X", "importtime", "-m", "retrainer_trainer"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pyarrow.parquet" in imported
    assert not imported & {"pandas._config", "tensorflow", "keras"}
