"""TensorFlow Lite files as phones load them: by MediaPipe Tasks, with the labels in the file."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import REPOSITORY
from tests.support.trainer_engine import photos, prepared, spec

import retrainer
from retrainer.api import Export
from retrainer.api.layout import EXPORT_PATHS, LABELS, RESULT
from retrainer.inference import pixels as images
from retrainer_trainer.export import formats
from retrainer_trainer.export.formats import Network
from retrainer_trainer.head.softmax import Head

NAMES = ["daisy", "roses", "tülips"]
SIZE = 128

PROGRAM = """
import json, sys, mediapipe, numpy as np
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in np.load(sys.argv[2]):
        photo = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        (found,) = classifier.classify(photo).classifications
        print(json.dumps({c.category_name: c.score for c in found.categories}))
"""


@pytest.fixture(scope="module")
def mediapipe() -> Path:
    """A Python with MediaPipe, installed once per lock file: its OpenCV must not replace ours."""
    lock = REPOSITORY / "requirements" / "mediapipe.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrainer"
    folder = cache / f"mediapipe-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r"]
        subprocess.run([*command, str(lock)], check=True)
        (folder / "installed").touch()
    return python


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with both TensorFlow Lite files, their head random but not undecided."""
    folder = tmp_path_factory.mktemp("run")
    taken = photos(folder / "photos", {"daisy": 20, "roses": 20, "tülips": 20})
    ready = prepared(spec(taken, folder / "out"))
    generator = np.random.default_rng(0)
    weights = generator.normal(0, 1, (3, ready.matrix.shape[1])).astype(np.float32)
    centred = ready.matrix - ready.matrix.mean(axis=0)
    weights *= 3 / (centred @ weights.T).std()
    head = Head(weights, -(weights @ ready.matrix.mean(axis=0)))
    backbone = ready.backbone
    network = Network(backbone.architecture, backbone.layers, head, NAMES)
    pixels = np.stack([images.pixels(p.read_bytes(), SIZE) for p in sorted(taken.glob("*/*"))])
    formats.write(network, [Export.TFLITE, Export.TFLITE_INT8], folder, lambda: pixels)
    (folder / LABELS).write_text("".join(f"{name}\n" for name in NAMES))
    (folder / RESULT).write_text("{}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", [Export.TFLITE, Export.TFLITE_INT8])
def test_mediapipe_labels_50_photos_as_predict_does(
    run: Path, mediapipe: Path, form: Export, tmp_path: Path
) -> None:
    paths = sorted((run / "photos").glob("*/*"))[:50]
    alone = tmp_path / "run"  # predict takes the float file where there are both
    alone.mkdir()
    for name in (EXPORT_PATHS[form], LABELS, RESULT):
        (alone / name).write_bytes((run / name).read_bytes())
    ours = retrainer.predict(alone, [str(path) for path in paths])
    pixels = np.stack([images.pixels(path.read_bytes(), SIZE) for path in paths])
    np.save(tmp_path / "pixels.npy", pixels)
    done = subprocess.run(
        [mediapipe, "-c", PROGRAM, alone / EXPORT_PATHS[form], tmp_path / "pixels.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(theirs) == 50
    for guess, scores in zip(ours, theirs, strict=True):
        assert set(scores) == set(NAMES)
        assert max(scores, key=scores.__getitem__) == guess.label
        for label, score in scores.items():
            assert score == pytest.approx(guess.scores[label], abs=1e-3)
    assert len({guess.label for guess in ours}) > 1


@pytest.mark.parametrize("form", [Export.TFLITE, Export.TFLITE_INT8])
@pytest.mark.slow
def test_the_labels_are_packed_to_the_end_of_the_file(run: Path, form: Export) -> None:
    with zipfile.ZipFile(run / EXPORT_PATHS[form]) as packed:
        assert packed.namelist() == [LABELS]
        assert packed.read(LABELS).decode().splitlines() == NAMES
