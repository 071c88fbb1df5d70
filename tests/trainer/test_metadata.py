"""TensorFlow Lite files as phones load them: by MediaPipe Tasks, with the labels in the file."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import REPOSITORY
from tests.support.trainer_engine import prepared, spec

import retrainer
from retrainer.api import Export, Training
from retrainer.api.layout import EXPORT_PATHS, LABELS, RESULT
from retrainer.inference import pixels as images
from retrainer_trainer.backbone.network import ListedBackbone
from retrainer_trainer.export import formats
from retrainer_trainer.export.formats import Network
from retrainer_trainer.head.softmax import Examples, train

FOLDERS = {
    "daisy": "daisy",
    "dandelion": "dandelion",
    "roses": "roses",
    "sunflowers": "sunflowers",
    "tulips": "tülips",
}
"""Labels of the photos, and what they are called here: one is not of ASCII alone."""
NAMES = list(FOLDERS.values())
SIZE = 128
EACH = 30
ASKED = 10

PROGRAM = """
import json, sys, mediapipe, numpy as np
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in np.load(sys.argv[2]):
        photo = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        (found,) = classifier.classify(photo).classifications
        print(json.dumps({c.category_name: c.score for c in found.categories}))
    for path in sys.argv[3:]:
        (found,) = classifier.classify(mediapipe.Image.create_from_file(path)).classifications
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
def run(tmp_path_factory: pytest.TempPathFactory, flowers: Path, imagenet_weights: Path) -> Path:
    """A run's folder with both TensorFlow Lite files and a head for real photos."""
    folder = tmp_path_factory.mktemp("run")
    for kind, name in FOLDERS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for photo in sorted((flowers / kind).iterdir())[:EACH]:
            shutil.copy(photo, folder / "photos" / name)
    weights = str(imagenet_weights / "mobilenet_2_5_128_tf_no_top.weights.h5")
    ready = prepared(spec(folder / "photos", folder / "out", weights=weights))
    label = np.repeat(np.arange(len(NAMES)), EACH)
    rows = np.arange(len(label))
    examples = Examples(ready.matrix, label, rows[:, None], rows[:0], len(NAMES))
    head = train(examples, Training(steps=300)).head
    backbone = ready.backbone
    assert isinstance(backbone, ListedBackbone)
    network = Network(backbone.architecture, backbone.layers, head, NAMES)
    paths = sorted((folder / "photos").glob("*/*"))
    pixels = np.stack([images.pixels(path.read_bytes(), SIZE) for path in paths])
    formats.write(network, [Export.TFLITE, Export.TFLITE_INT8], folder, lambda: pixels)
    (folder / LABELS).write_text("".join(f"{name}\n" for name in NAMES))
    (folder / RESULT).write_text("{}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", [Export.TFLITE, Export.TFLITE_INT8])
def test_mediapipe_labels_50_photos_as_predict_does(
    run: Path, mediapipe: Path, form: Export, tmp_path: Path
) -> None:
    paths = [path for name in NAMES for path in sorted((run / "photos" / name).iterdir())[:ASKED]]
    alone = tmp_path / "run"  # predict takes the float file where there are both
    alone.mkdir()
    for name in (EXPORT_PATHS[form], LABELS, RESULT):
        (alone / name).write_bytes((run / name).read_bytes())
    ours = retrainer.predict(alone, [str(path) for path in paths])
    pixels = np.stack([images.pixels(path.read_bytes(), SIZE) for path in paths])
    np.save(tmp_path / "pixels.npy", pixels)
    done = subprocess.run(
        [mediapipe, "-c", PROGRAM, alone / EXPORT_PATHS[form], tmp_path / "pixels.npy", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    scored, whole = theirs[:50], theirs[50:]
    assert len(scored) == len(whole) == len(ours) == 50
    for guess, scores in zip(ours, scored, strict=True):
        assert set(scores) == set(NAMES)
        for label, score in scores.items():
            assert score == pytest.approx(guess.scores[label], abs=1e-3)
    guesses = [guess.label for guess in ours]
    assert [max(scores, key=scores.__getitem__) for scores in scored] == guesses
    # Read and resized by MediaPipe itself.
    assert [max(scores, key=scores.__getitem__) for scores in whole] == guesses
    right = [guess == path.parent.name for guess, path in zip(guesses, paths, strict=True)]
    assert np.mean(right) > 0.9  # the head was trained on these photos


@pytest.mark.parametrize("form", [Export.TFLITE, Export.TFLITE_INT8])
@pytest.mark.slow
def test_the_labels_are_packed_to_the_end_of_the_file(run: Path, form: Export) -> None:
    with zipfile.ZipFile(run / EXPORT_PATHS[form]) as packed:
        assert packed.namelist() == [LABELS]
        assert packed.read(LABELS).decode().splitlines() == NAMES
