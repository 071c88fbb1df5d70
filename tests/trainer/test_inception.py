"""Inception V3 goes the same way as the MobileNets: compared with Keras' own network."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support import trainer_engine as engine
from tests.support.trainer_engine import Recorder

from retrainer.api import Task, layout
from retrainer.inference import pixels as images
from retrainer.inference.silence import import_tensorflow
from retrainer_trainer import train
from retrainer_trainer.runtime.stop import Stop

pytestmark = pytest.mark.slow


def test_a_whole_run_of_inception_v3_gives_keras_own_features_and_equal_exports(
    flowers: Path, tmp_path: Path
) -> None:
    tf = import_tensorflow()
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(299, 299, 3), pooling="avg"
    )
    weights = tmp_path / "weights" / "seeded.weights.h5"
    weights.parent.mkdir()
    network.save_weights(weights)

    photos = tmp_path / "photos"
    for label in ("daisy", "roses"):
        (photos / label).mkdir(parents=True)
        for path in sorted((flowers / label).iterdir())[:12]:
            (photos / label / path.name).write_bytes(path.read_bytes())

    wanted = engine.spec(
        photos,
        tmp_path / "output",
        architecture="inception_v3",
        weights=str(weights),
        split={"testingPercentage": 25, "validationPercentage": 10},
        training={"steps": 50},
        export=["tflite", "frozenGraph"],
    )
    ready = engine.prepared(wanted)
    assert ready.matrix.shape == (24, 2048)
    paths = [photos / path for path in ready.catalog.paths]
    pixels = np.stack([images.pixels(path.read_bytes(), 299) for path in paths])
    scaled = tf.constant(pixels.astype(np.float32) / 127.5 - 1)
    own = np.asarray(network(scaled, training=False))
    scale = float(np.abs(own).max())
    assert own.std(axis=0).max() > 0.001 * scale, "photos give features that differ"
    np.testing.assert_allclose(ready.matrix, own, atol=1e-4 * scale)

    recorder = Recorder(wanted, "train")
    task = Task(task="train", name="t", uid=engine.UID, spec=wanted)
    train.run(task, recorder, Stop())
    run = Path(task.run_url)
    exports = json.loads((run / layout.EVALUATION).read_bytes())["exports"]
    assert exports["tflite"]["different"] == 0
    assert exports["frozenGraph"]["check"] == "constants"
    assert exports["tflite"]["images"] > 0
