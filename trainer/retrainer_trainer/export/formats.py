"""Exports: the finished network in each format, from templates where no TensorFlow is needed.

Every export but the frozen graph (whose input in [-1, 1] is retrain.py's) takes pixels 0..255 and
scales them inside, so that nobody can feed it wrongly.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retrainer.api import Architecture, Export
from retrainer.api.layout import EXPORT_PATHS
from retrainer.api.v1alpha1 import USUAL_EXPORTS
from retrainer.inference.silence import import_tensorflow, quiet
from retrainer.inference.tflite import Pixels
from retrainer_trainer.backbone.given import GivenBackbone
from retrainer_trainer.backbone.layers import Arrays, Layer, folded
from retrainer_trainer.backbone.network import keras_network
from retrainer_trainer.backbone.opening import OpenedBackbone
from retrainer_trainer.backbone.templates import HALF_RANGE, SAVED_MODEL, VARIABLES, template
from retrainer_trainer.backbone.tflite import network_tflite
from retrainer_trainer.export import protobuf
from retrainer_trainer.export.metadata import with_metadata
from retrainer_trainer.head.softmax import Head

ANNOUNCED = {
    Export.TFLITE_INT8: "calibrating and writing the int8 TensorFlow Lite file, up to a minute",
}
"""What is said in the log before the slow ones."""


def formats_of(formats: Iterable[Export] | None, backbone: OpenedBackbone) -> list[Export]:
    """What to write: the formats given, or the usual ones; a network of one's own has one alone.

    A `_quantized` architecture adds the int8 file to the float ones.
    """
    if isinstance(backbone, GivenBackbone):
        return [backbone.export]
    listed = list(formats or USUAL_EXPORTS)
    if backbone.architecture.quantized and Export.TFLITE_INT8 not in listed:
        listed.append(Export.TFLITE_INT8)
    return listed


@dataclass(frozen=True)
class Network:
    """What is exported.

    Attributes:
        architecture: of the backbone.
        layers: the backbone's numbers.
        head: the trained last layer.
        labels: names, in the order of the head's outputs.
    """

    architecture: Architecture
    layers: Sequence[Layer]
    head: Head
    labels: list[str]

    @cached_property
    def arrays(self) -> Arrays:
        """Every array by its place in a template."""
        return folded(self.layers) | {
            "head/weights": np.ascontiguousarray(self.head.weights.T),
            "head/bias": self.head.bias,
        }


def write(
    network: Network,
    formats: Sequence[Export],
    folder: Path,
    calibration: Callable[[], Pixels],
    log: Callable[[str], None] = lambda _: None,
) -> None:
    """Write each format to its path of `EXPORT_PATHS` under `folder`.

    Args:
        network: the finished network.
        formats: what to write.
        folder: an existing local folder.
        calibration: gives pixels of training images, (images, size, size, 3); called for int8 only.
        log: told, before a slow format is written, what it is.
    """
    for form in formats:
        if form in ANNOUNCED:
            log(ANNOUNCED[form])
        _write_one(network, form, folder / EXPORT_PATHS[form], calibration)


def graph_for_tensorboard(network: Network) -> bytes:
    """The network's graph without its numbers: a serialised GraphDef, for looking at."""
    return protobuf.frozen_graph(network.architecture, None, len(network.labels))


def _write_one(
    network: Network, form: Export, path: Path, calibration: Callable[[], Pixels]
) -> None:
    chosen, arrays, labels = network.architecture, network.arrays, network.labels
    match form:
        case Export.SAVED_MODEL:
            (path / "variables").mkdir(parents=True)
            body = protobuf.saved_model(chosen, arrays, labels)
            (path / protobuf.SAVED_MODEL_FILE).write_bytes(body)
            for name in VARIABLES:
                (path / name).write_bytes(template(name, SAVED_MODEL))
        case Export.TFLITE:
            body = network_tflite(chosen, arrays)
            path.write_bytes(with_metadata(body, chosen.name, labels))
        case Export.FROZEN_GRAPH:
            path.write_bytes(protobuf.frozen_graph(chosen, arrays, len(labels)))
        case Export.ONNX:
            path.write_bytes(protobuf.onnx_file(chosen, arrays, len(labels)))
        case Export.TFLITE_INT8:
            body = _int8(network, calibration())
            path.write_bytes(with_metadata(body, chosen.name, labels))
        case Export.KERAS:
            _write_keras(network, path)


# --- with TensorFlow ---
def _int8(network: Network, pixels: Pixels) -> bytes:
    tf = import_tensorflow()
    size = network.architecture.size
    body = protobuf.frozen_graph(network.architecture, network.arrays, len(network.labels))
    graph = tf.compat.v1.GraphDef.FromString(body)
    spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="pixels")

    @tf.function(input_signature=[spec])  # type: ignore[untyped-decorator]
    def classify(pixels: Any) -> Any:
        scaled = {"input:0": pixels / HALF_RANGE - 1.0}
        (scores,) = tf.graph_util.import_graph_def(graph, scaled, ["final_result:0"], name="")
        return {"scores": scores}

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        concrete = classify.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([p[None].astype(np.float32)] for p in pixels)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        # Bytes in, bytes out, as the published quantized MobileNets: pixels go in as they are.
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
        return bytes(converter.convert())


def _write_keras(network: Network, path: Path) -> None:
    import_tensorflow()
    size = network.architecture.size
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        pixels = keras.Input((size, size, 3), name="pixels")
        scaled = keras.layers.Rescaling(1 / HALF_RANGE, offset=-1.0)(pixels)
        backbone = keras_network(network.architecture, network.layers)
        last = keras.layers.Dense(len(network.labels), activation="softmax", name="scores")
        whole = keras.Model(pixels, last(backbone(scaled)))
        last.set_weights([network.head.weights.T, network.head.bias])
        whole.save(path)
