"""`retrainer backbone add`: networks of Keras Applications as folders that a job can name."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from tools.keras_applications import MOST, difference

from retrainer.errors import UserError
from retrainer_trainer.backbone import keras_applications as applications
from retrainer_trainer.backbone.graphs import read_graph

pytestmark = pytest.mark.slow

SMALL = "MobileNet"


def test_a_network_that_was_added_gives_keras_own_bottlenecks() -> None:
    assert difference(SMALL) <= MOST


def test_its_folder_holds_the_file_what_its_pixels_are_and_where_it_comes_from(
    tmp_path: Path,
) -> None:
    size = 32
    network = applications.build(SMALL, size, applications.NONE)
    file = tmp_path / "mobilenet_notop.weights.h5"
    network.save_weights(str(file))
    folder = applications.make_files(SMALL.lower(), str(file), size, lambda _: None)
    assert set(folder.files) == {"backbone.tflite", "preprocessor_config.json", "README.md"}
    (tmp_path / "backbone.tflite").write_bytes(folder.files["backbone.tflite"])
    graph = read_graph(tmp_path / "backbone.tflite")
    assert (graph.size, graph.outputs[0].shape) == (size, (None, 1024))
    assert json.loads(folder.files["preprocessor_config.json"]) == {
        "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }  # fmt: skip
    readme = folder.files["README.md"].decode()
    assert f"| multiply-adds of one image | {graph.multiply_adds:,} |" in readme
    assert "mobilenet_notop.weights.h5`, SHA-256 `" in readme


def test_what_keras_cannot_use_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no network MobileNetV9; it has .*MobileNetV2"):
        applications.make_files("MobileNetV9", "none", None, lambda _: None)
    wrong = tmp_path / "other.h5"
    with h5py.File(wrong, "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(UserError, match="holds no weights of MobileNet without its classifier"):
        applications.build(SMALL, 32, str(wrong))
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is no HDF5 file of weights"):
        applications.build(SMALL, 32, str(tmp_path / "model.keras"))


def test_sizes_and_pixels_are_those_that_keras_says() -> None:
    assert applications.default_size("EfficientNetB3") == 300
    assert applications.smallest_size("Xception") == 71
    caffe = applications.preprocessor_config("ResNet50", 224)
    assert caffe["do_flip_channel_order"]
    assert not caffe["do_rescale"]
    assert caffe["image_mean"] == [123.68, 116.779, 103.939]
    own = applications.preprocessor_config("EfficientNetB0", 224)
    assert (own["do_rescale"], own["do_normalize"]) == (False, False), "it scales pixels itself"
    torch = applications.preprocessor_config("DenseNet121", 224)
    assert torch["image_std"] == [0.229, 0.224, 0.225]
    assert len(applications.names()) >= 38
    assert keras.applications.MobileNet.__name__ in applications.names()
