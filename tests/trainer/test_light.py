"""A run as the extra `trainer` installs it: no TensorFlow, no Keras, no converter."""

import json
import subprocess
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
