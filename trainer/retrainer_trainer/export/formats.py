"""Exports: writes the finished network in each format, and runs each file that was written.

Every export but the frozen graph (whose input in [-1, 1] is retrain.py's) takes pixels 0..255 and
scales them inside, so that nobody can feed it wrongly.
"""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api import Architecture, Export
from retrainer.api.layout import EXPORT_PATHS
from retrainer.inference.silence import quiet, quiet_environment
from retrainer_trainer.arrays import Floats
from retrainer_trainer.export import graph as export_graph
from retrainer_trainer.head.softmax import Head

Pixels = npt.NDArray[np.uint8]
"""(images, size, size, 3), 0..255, as `images.pixels` gives them."""

Runner = Callable[[Pixels, Sequence[bytes]], Floats]
"""Scores (images, labels) of an exported file, for the same images as pixels and as bytes."""

SAVED_MODEL_BYTES = "savedModelBytes"
"""The SavedModel's signature on image bytes, measured beside `savedModel`, the one on pixels."""

LENIENT = frozenset({Export.TFLITE_INT8.value, SAVED_MODEL_BYTES})
"""These may disagree with the head: one is rounded to 8 bits, the other decodes by itself."""

ONNX_OPSET = 17  # the newest that tf2onnx writes without warnings and every current runtime reads

ANNOUNCED = {
    Export.TFLITE_INT8: "calibrating and writing the int8 TensorFlow Lite file, up to a minute",
    Export.ONNX: "writing ONNX, some 10 s",
}
"""What is said in the log before the slow ones."""


# Keras imports these only to offer wrappers for them, where they are installed: half of its time.
_NOT_NEEDED = ("IPython", "matplotlib", "pandas", "sklearn")


class _Hidden:
    """Within, importing one of these that is not imported yet fails as if it were not installed."""

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(self, name: str, *_: object) -> None:
        """As importlib.abc.MetaPathFinder."""
        if name in _NOT_NEEDED:
            raise ModuleNotFoundError(f"{name} is not needed here", name=name)


def import_tensorflow() -> Any:
    """TensorFlow, without its chatter."""
    quiet_environment()
    with warnings.catch_warnings(), _Hidden():
        warnings.simplefilter("ignore")
        import tensorflow as tf
    tf.get_logger().setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    return tf


def import_ahead() -> threading.Thread:
    """Import TensorFlow (seconds) on a thread of its own, while something else is done."""
    quiet_environment()
    thread = threading.Thread(target=import_tensorflow, name="import-tensorflow", daemon=True)
    thread.start()
    return thread


def wanted(formats: Iterable[Export], architecture: Architecture) -> list[Export]:
    """What to write: a `_quantized` architecture adds the int8 file to the float ones."""
    listed = list(formats)
    if architecture.quantized and Export.TFLITE_INT8 not in listed:
        listed.append(Export.TFLITE_INT8)
    return listed


@dataclass(frozen=True)
class Network:
    """What is exported.

    Attributes:
        backbone: Keras, float32 (images, size, size, 3) in [-1, 1] to (images, bottleneck width).
        head: the trained last layer.
        labels: names, in the order of the head's outputs.
        size: height and width of the input, pixels.
    """

    backbone: Any
    head: Head
    labels: list[str]
    size: int


def write(
    network: Network,
    formats: Sequence[Export],
    folder: Path,
    calibration: Callable[[], Pixels],
    say: Callable[[str], None] = lambda _: None,
) -> bytes:
    """Write each format to its path of `EXPORT_PATHS` under `folder`.

    Args:
        network: the finished network.
        formats: what to write.
        folder: an existing local folder.
        calibration: gives pixels of training images, (images, size, size, 3); called for int8 only.
        say: told, before a slow format is written, what it is.

    Returns:
        The graph of the network for TensorBoard: a serialised GraphDef without the weights.
    """
    import_tensorflow()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = export_graph.frozen_backbone(network.backbone)
        for form in formats:
            if form in ANNOUNCED:
                say(ANNOUNCED[form])
            _write_one(network, frozen, form, folder / EXPORT_PATHS[form], calibration)
        graph = export_graph.classify_graph(frozen, network.size, network.head)
        return export_graph.without_weights(graph)


def _write_one(
    network: Network, frozen: Any, form: Export, path: Path, calibration: Callable[[], Pixels]
) -> None:
    import tensorflow as tf

    match form:
        case Export.SAVED_MODEL:
            found = export_graph.signatures(frozen, network.size, network.head, network.labels)
            found["serving_default"] = found["image_bytes"]
            tf.saved_model.save(tf.Module(), str(path), signatures=found)
        case Export.TFLITE:
            path.write_bytes(_converter(frozen, network).convert())
        case Export.TFLITE_INT8:
            path.write_bytes(_int8(frozen, network, calibration()))
        case Export.KERAS:
            _write_keras(network, path)
        case Export.FROZEN_GRAPH:
            graph = export_graph.classify_graph(frozen, network.size, network.head)
            path.write_bytes(graph.SerializeToString(deterministic=True))
        case Export.ONNX:
            _write_onnx(frozen, network, path)


def _converter(frozen: Any, network: Network) -> Any:
    import tensorflow as tf

    size = network.size
    spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="pixels")

    @tf.function(input_signature=[spec])  # type: ignore[untyped-decorator]
    def classify(pixels: Any) -> Any:
        scaled = pixels / export_graph.HALF_RANGE - 1.0
        return export_graph.scores(frozen, scaled, network.head, "scores")

    return tf.lite.TFLiteConverter.from_concrete_functions([classify.get_concrete_function()])


def _int8(frozen: Any, network: Network, pixels: Pixels) -> bytes:
    import tensorflow as tf

    converter = _converter(frozen, network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([p[None].astype(np.float32)] for p in pixels)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # Bytes in, bytes out, as the published quantized MobileNets: pixels go in as they are.
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    return bytes(converter.convert())


def _write_keras(network: Network, path: Path) -> None:
    import keras

    pixels = keras.Input((network.size, network.size, 3), name="pixels")
    scaled = keras.layers.Rescaling(1 / export_graph.HALF_RANGE, offset=-1.0)(pixels)
    last = keras.layers.Dense(len(network.labels), activation="softmax", name="scores")
    whole = keras.Model(pixels, last(network.backbone(scaled)))
    last.set_weights([network.head.weights.T, network.head.bias])
    whole.save(path)


def _write_onnx(frozen: Any, network: Network, path: Path) -> None:
    import tf2onnx.convert

    graph = export_graph.pixel_graph(frozen, network.size, network.head)
    tf2onnx.convert.from_graph_def(
        graph,
        input_names=["pixels:0"],
        output_names=["scores:0"],
        opset=ONNX_OPSET,
        output_path=str(path),
    )


def runners(folder: Path, formats: Sequence[Export]) -> dict[str, Runner]:
    """Each written file, ready to run: name to a function that gives scores."""
    found: dict[str, Runner] = {}
    for form in formats:
        path = folder / EXPORT_PATHS[form]
        match form:
            case Export.SAVED_MODEL:
                found[form.value], found[SAVED_MODEL_BYTES] = _saved_model_runners(path)
            case Export.TFLITE | Export.TFLITE_INT8:
                found[form.value] = tflite_runner(path)
            case Export.KERAS:
                found[form.value] = _keras_runner(path)
            case Export.FROZEN_GRAPH:
                found[form.value] = _frozen_graph_runner(path)
            case Export.ONNX:
                found[form.value] = _onnx_runner(path)
    return found


def _saved_model_runners(path: Path) -> tuple[Runner, Runner]:
    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(path))
    by_pixels, by_bytes = loaded.signatures["pixels"], loaded.signatures["image_bytes"]
    label_count = by_pixels.structured_outputs["scores"].shape[1]

    def pixels(batch: Pixels, _: Sequence[bytes]) -> Floats:
        return np.asarray(by_pixels(pixels=tf.constant(batch.astype(np.float32)))["scores"])

    def from_bytes(_: Pixels, data: Sequence[bytes]) -> Floats:
        try:
            return np.asarray(by_bytes(image_bytes=tf.constant(list(data)))["scores"])
        except tf.errors.InvalidArgumentError:  # TensorFlow does not read every BMP
            if len(data) == 1:
                return np.full((1, label_count), np.nan, np.float32)
            return np.concatenate([from_bytes(_, [one]) for one in data])

    return pixels, from_bytes


def tflite_runner(path: Path) -> Runner:
    """Runs a TensorFlow Lite file, float or int8, batch by batch."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = result["quantization"]

    def run(batch: Pixels, _: Sequence[bytes]) -> Floats:
        if tuple(interpreter.get_input_details()[0]["shape"]) != batch.shape:
            interpreter.resize_tensor_input(source["index"], batch.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], batch.astype(source["dtype"]))
        interpreter.invoke()
        raw = interpreter.get_tensor(result["index"])
        if raw.dtype == np.float32:
            return np.asarray(raw, np.float32)
        return np.asarray((raw.astype(np.float32) - np.float32(zero)) * np.float32(scale))

    return run


def _keras_runner(path: Path) -> Runner:
    import keras

    whole = keras.models.load_model(path, compile=False)
    return lambda batch, _: np.asarray(whole(batch.astype(np.float32), training=False))


def _frozen_graph_runner(path: Path) -> Runner:
    tf = import_tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)

    def run(batch: Pixels, _: Sequence[bytes]) -> Floats:
        scaled = batch.astype(np.float32) / np.float32(export_graph.HALF_RANGE) - np.float32(1)
        return np.asarray(session.run("final_result:0", {"input:0": scaled}))

    return run


def _onnx_runner(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: Pixels, _: Sequence[bytes]) -> Floats:
        return np.asarray(session.run(["scores:0"], {"pixels:0": batch.astype(np.float32)})[0])

    return run


@dataclass
class Comparison:
    """One exported file beside the head, on the same images.

    Attributes:
        images: images run.
        right: guesses that are the true label.
        different: guesses that are not the head's.
    """

    images: int = 0
    right: int = 0
    different: int = 0

    def add(self, scores: Floats, truth: npt.NDArray[np.intp], guess: npt.NDArray[np.intp]) -> None:
        """Count a batch: scores (images, labels), true labels, the head's guesses.

        An image whose scores are no numbers was not read: its guess is neither.
        """
        ours = np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))
        self.images += len(ours)
        self.right += int((ours == truth).sum())
        self.different += int((ours != guess).sum())

    @property
    def differs(self) -> bool:
        """Whether more than 1% of the guesses are not the head's."""
        return self.different > 0.01 * self.images
