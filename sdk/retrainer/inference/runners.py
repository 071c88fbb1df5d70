"""Runs exported files: one function for each format, with whatever library it takes.

The trainer checks its exports with these, and `retrainer verify` runs them on a person's own images.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrainer.api import Export
from retrainer.api.layout import EXPORT_PATHS
from retrainer.inference.onnx_network import OnnxNetwork
from retrainer.inference.silence import import_tensorflow
from retrainer.inference.tflite import Pixels, Scores, TfliteNetwork

Runner = Callable[[Pixels, Sequence[bytes]], Scores]
"""Scores of an exported file, for the same images as pixels and as bytes."""

SAVED_MODEL_BYTES = "savedModelBytes"
"""The SavedModel's signature on image bytes, run beside `savedModel`, the one on pixels."""

LIBRARIES = {
    Export.SAVED_MODEL: "tensorflow",
    Export.TFLITE: "ai_edge_litert",
    Export.TFLITE_INT8: "ai_edge_litert",
    Export.KERAS: "keras",
    Export.FROZEN_GRAPH: "tensorflow",
    Export.ONNX: "onnxruntime",
}
"""Library that must be installed to run each format."""

_HALF_RANGE = 127.5  # pixels 0..255 become x / 127.5 - 1


def open_runners(folder: Path, form: Export) -> dict[str, Runner]:
    """An export below a run's folder, ready to run: name to function; a SavedModel has two.

    Raises:
        ImportError: the library of `LIBRARIES` is not installed.
    """
    path = folder / EXPORT_PATHS[form]
    match form:
        case Export.SAVED_MODEL:
            return _saved_model_runners(path)
        case Export.TFLITE | Export.TFLITE_INT8:
            return {form.value: _tflite_runner(path)}
        case Export.KERAS:
            return {form.value: _keras_runner(path)}
        case Export.FROZEN_GRAPH:
            return {form.value: _frozen_graph_runner(path)}
        case Export.ONNX:
            return {form.value: _onnx_runner(path)}


def _saved_model_runners(path: Path) -> dict[str, Runner]:
    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(path))
    by_pixels, by_bytes = loaded.signatures["pixels"], loaded.signatures["image_bytes"]
    label_count = by_pixels.structured_outputs["scores"].shape[1]

    def from_pixels(batch: Pixels, _: Sequence[bytes]) -> Scores:
        return np.asarray(by_pixels(pixels=tf.constant(batch.astype(np.float32)))["scores"])

    def from_bytes(_: Pixels, bodies: Sequence[bytes]) -> Scores:
        try:
            return np.asarray(by_bytes(image_bytes=tf.constant(list(bodies)))["scores"])
        except tf.errors.InvalidArgumentError:  # TensorFlow does not read every BMP
            if len(bodies) == 1:
                return np.full((1, label_count), np.nan, np.float32)
            return np.concatenate([from_bytes(_, [body]) for body in bodies])

    return {Export.SAVED_MODEL.value: from_pixels, SAVED_MODEL_BYTES: from_bytes}


def _tflite_runner(path: Path) -> Runner:
    network = TfliteNetwork(path.read_bytes())
    return lambda batch, _: network.scores(batch)


def _keras_runner(path: Path) -> Runner:
    import_tensorflow()
    import keras

    network: Any = keras.models.load_model(path, compile=False)
    return lambda batch, _: np.asarray(network(batch.astype(np.float32), training=False))


def _frozen_graph_runner(path: Path) -> Runner:
    tf = import_tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)

    def run(batch: Pixels, _: Sequence[bytes]) -> Scores:
        scaled = batch.astype(np.float32) / np.float32(_HALF_RANGE) - np.float32(1)
        return np.asarray(session.run("final_result:0", {"input:0": scaled}))

    return run


def _onnx_runner(path: Path) -> Runner:
    network = OnnxNetwork(path.read_bytes())
    return lambda batch, _: network.scores(batch)
