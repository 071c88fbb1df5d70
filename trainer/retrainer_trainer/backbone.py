"""The frozen network: built by Keras once, converted to TensorFlow Lite, run by LiteRT."""

import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api import Architecture, RetrainJobSpec, architecture, conditions
from retrainer.api.layout import BACKBONE_PREFIX
from retrainer.errors import RetrainerError, UserError
from retrainer_trainer import images
from retrainer_trainer.quiet import quiet, quiet_environment
from retrainer_trainer.store import Store
from retrainer_trainer.weights import Weights, find_weights

ENGINE = "litert-f32"
"""Part of the fingerprint: other engines or precisions round otherwise."""

_SUFFIX = ".tflite"

Bottleneck = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Backbone:
    """A frozen network, ready to run.

    Attributes:
        architecture: what it is.
        weights: the file that its numbers come from; `keras_network` takes both.
        fingerprint: name of its folder in the cache; equal for whatever gives equal bottlenecks.
        tflite: float32 (1, size, size, 3) pixels 0..255 to (1, bottleneck width).
    """

    architecture: Architecture
    weights: Weights
    fingerprint: str
    tflite: bytes


class Engine:
    """The backbone on one thread: not to be shared between threads."""

    def __init__(self, tflite: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet():  # LiteRT announces its XNNPACK delegate on standard error
            self._interpreter = Interpreter(model_content=tflite, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.tensor(self._interpreter.get_input_details()[0]["index"])
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, pixels: images.Pixels) -> Bottleneck:
        """The bottleneck (width,) of pixels (size, size, 3), 0..255."""
        np.copyto(self._input()[0], pixels)
        self._interpreter.invoke()
        found: Bottleneck = self._interpreter.get_tensor(self._output)[0]
        return found


def open_backbone(
    spec: RetrainJobSpec, cache: Store, log: Callable[[str], None], warn: Callable[[str], None]
) -> Backbone:
    """The backbone from the cache; if nobody has converted it yet, it is converted and left there.

    Only then is TensorFlow imported. A damaged file in the cache is replaced.

    Raises:
        UserError: there are no weights for the architecture, or they cannot be read.
    """
    network = architecture(spec.architecture)
    weights = find_weights(spec, cache, log, warn)
    known = fingerprint(network, weights)
    for entry in sorted(cache.list(known)):
        name = entry.path.removeprefix(f"{known}/")
        if not (name.startswith(BACKBONE_PREFIX) and name.endswith(_SUFFIX)):
            continue
        body = cache.get(entry.path)
        if _name(body) == name:
            return Backbone(network, weights, known, body)
        warn(f"{entry.path} in the cache is damaged; it is converted again.")
        cache.delete(entry.path)
    log(f"Converting {network.backbone} from {weights.origin}, once for this cache (some 10 s).")
    body = convert(network, weights)
    cache.put(f"{known}/{_name(body)}", body, create_only=True)
    return Backbone(network, weights, known, body)


def fingerprint(network: Architecture, weights: Weights) -> str:
    """Digest of all that decides a bottleneck's value, but for the image: 32 hex digits."""
    parts = (network.backbone, weights.sha256, images.VERSION, ENGINE)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _name(body: bytes) -> str:
    return f"{BACKBONE_PREFIX}{hashlib.sha256(body).hexdigest()}{_SUFFIX}"


# --- with TensorFlow ---
def keras_network(network: Architecture, weights: Weights) -> Any:
    """The network in Keras: float32 (n, size, size, 3) in [-1, 1] to (n, bottleneck width).

    Only numbers are taken from the file: no code or configuration in it is ever run or loaded.

    Raises:
        UserError: the file holds no weights for this network.
    """
    quiet_environment()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        shape = (network.size, network.size, 3)
        if network.is_mobilenet:
            built = keras.applications.MobileNet(
                input_shape=shape,
                alpha=network.width,
                include_top=False,
                weights=None,
                pooling="avg",
            )
        else:
            built = keras.applications.InceptionV3(
                input_shape=shape, include_top=False, weights=None, pooling="avg"
            )
        with _keras_file(network, weights) as path:
            try:
                built.load_weights(path)
            except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
                raise _unreadable(network, weights, _first_line(error)) from error
    return built


def convert(network: Architecture, weights: Weights) -> bytes:
    """The backbone as TensorFlow Lite: pixels 0..255 in, the pooled last features out.

    Raises:
        UserError: the file holds no weights for this network.
    """
    built = keras_network(network, weights)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        shape = [1, network.size, network.size, 3]
        graph = tf.function(lambda pixels: built(pixels / 127.5 - 1.0, training=False))
        concrete = graph.get_concrete_function(tf.TensorSpec(shape, tf.float32))
        # Constants instead of variables: a converter that only sees the function misses those.
        frozen = convert_variables_to_constants_v2(concrete)
        body = bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    grey = np.full(shape[1:], 127, np.uint8)
    if not np.isfinite(Engine(body)(grey)).all():
        raise _unreadable(network, weights, "they give infinite numbers")
    return body


@contextlib.contextmanager
def _keras_file(network: Architecture, weights: Weights) -> Iterator[Path]:
    """The weights in a temporary file, with the suffix by which Keras tells its two formats."""
    import h5py

    with tempfile.TemporaryDirectory(prefix="retrainer-") as folder:
        path = Path(folder) / "weights"
        path.write_bytes(weights.body)
        try:
            with h5py.File(path, "r") as file:
                _refuse_links(file, network, weights)
                suffix = ".weights.h5" if "layers" in file else ".h5"
        except OSError as error:
            raise _unreadable(network, weights, "not an HDF5 file, or a damaged one") from error
        yield path.rename(path.with_name("network" + suffix))


def _refuse_links(file: Any, network: Architecture, weights: Weights) -> None:
    """HDF5 can point at other files of the machine: a weights file has no reason to."""
    import h5py

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise _unreadable(network, weights, "it points at other files")
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
            elif item.external or item.is_virtual:
                raise _unreadable(network, weights, "it points at other files")

    try:
        look(file)
    except (RuntimeError, KeyError, RecursionError) as error:
        raise _unreadable(network, weights, "a damaged HDF5 file") from error


def _unreadable(network: Architecture, weights: Weights, detail: str) -> RetrainerError:
    text = conditions.WEIGHTS_UNREADABLE(
        url=weights.origin, architecture=network.backbone, detail=detail
    )
    return UserError(text, reason=conditions.WEIGHTS_UNREADABLE.name)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
