"""The frozen network: built by Keras; for CPUs converted to TensorFlow Lite, once per cache."""

import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrainer.api import Architecture, RetrainJobSpec, architecture, reasons
from retrainer.api.layout import BACKBONE_PREFIX, NETWORK_PREFIX
from retrainer.errors import RetrainerError
from retrainer.inference import pixels as images
from retrainer.inference.silence import quiet, quiet_environment
from retrainer_trainer.backbone.engine import BATCH, KERAS_GPU, LITERT, Engine, Keras, LiteRT, gpu
from retrainer_trainer.backbone.weights import Weights, find_weights
from retrainer_trainer.store.store import Store

_SUFFIX = ".tflite"

FindGpu = Callable[[Callable[[str], None]], str | None]
"""`engine.gpu`, or what tests put in its place."""


@dataclass(frozen=True)
class Backbone:
    """A frozen network, ready to run.

    Attributes:
        architecture: what it is.
        weights: the file that its numbers come from; `keras_network` takes both.
        fingerprint: name of its folder in the cache; equal for whatever gives equal bottlenecks.
        runs_on: `engine.LITERT` or `engine.KERAS_GPU`.
        start: gives an Engine for one thread. On a GPU it is the same one each time.
        batch: images to give it at a time; 1 if each thread has its own.
    """

    architecture: Architecture
    weights: Weights
    fingerprint: str
    runs_on: str
    start: Callable[[], Engine]
    batch: int = 1


def open_backbone(
    spec: RetrainJobSpec,
    cache: Store,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    find_gpu: FindGpu = gpu,
) -> Backbone:
    """The backbone on a GPU where there is one, else on the cores.

    For the cores it is taken from the cache; if nobody has converted it yet, it is converted and left
    there. TensorFlow is imported only for that and for a GPU. A damaged file in the cache is replaced.

    Raises:
        UserError: there are no weights for the architecture, or they cannot be read.
        RetrainerError: the GPU fails, or its memory is too small.
    """
    network = architecture(spec.architecture)
    weights = find_weights(spec, cache, log, warn)
    device = find_gpu(warn)
    if device is not None:
        log(f"Bottlenecks are computed on TensorFlow's {device}, in batches of {BATCH}.")
        name_folder(cache, fingerprint(network, weights, KERAS_GPU), network)
        return _on_device(network, weights, device, warn)
    known = fingerprint(network, weights, LITERT)
    name_folder(cache, known, network)
    for entry in sorted(cache.list(known)):
        name = entry.path.removeprefix(f"{known}/")
        if not (name.startswith(BACKBONE_PREFIX) and name.endswith(_SUFFIX)):
            continue
        body = cache.get(entry.path)
        if _name(body) == name:
            return Backbone(network, weights, known, LITERT, partial(LiteRT, body))
        warn(f"{entry.path} in the cache is damaged; it is converted again.")
        cache.delete(entry.path)
    log(f"Converting {network.backbone} from {weights.origin}, once for this cache (some 10 s).")
    body = convert(network, weights)
    cache.put(f"{known}/{_name(body)}", body, create_only=True)
    return Backbone(network, weights, known, LITERT, partial(LiteRT, body))


def name_folder(cache: Store, known: str, network: Architecture) -> None:
    """Leave the network's name in its folder of the cache, for `retrainer cache stats`."""
    cache.put(f"{known}/{NETWORK_PREFIX}{network.backbone}", b"", create_only=True)


def fingerprint(network: Architecture, weights: Weights, runs_on: str) -> str:
    """Digest of all that decides a bottleneck's value, but for the image: 32 hex digits.

    A `_quantized` architecture has its twin's: its backbone runs in float32 all the same, and only
    an export of it is int8.
    """
    parts = (network.backbone, weights.sha256, images.VERSION, runs_on)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _name(body: bytes) -> str:
    return f"{BACKBONE_PREFIX}{hashlib.sha256(body).hexdigest()}{_SUFFIX}"


# --- with TensorFlow ---
def _on_device(
    network: Architecture, weights: Weights, device: str, warn: Callable[[str], None]
) -> Backbone:
    with quiet():
        import tensorflow as tf

        with tf.device(device):  # its numbers lie in the device's memory
            built = keras_network(network, weights)
    engine = Keras(built, device, warn)
    _check_finite(engine, network, weights)
    known = fingerprint(network, weights, KERAS_GPU)
    return Backbone(network, weights, known, KERAS_GPU, lambda: engine, BATCH)


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
    _check_finite(LiteRT(body), network, weights)
    return body


def _check_finite(engine: Engine, network: Architecture, weights: Weights) -> None:
    grey = np.full((network.size, network.size, 3), 127, np.uint8)
    with quiet():  # a GPU is announced by its first use
        (found,) = engine([grey])
    if not np.isfinite(found).all():
        raise _unreadable(network, weights, "they give infinite numbers")


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
    return reasons.WEIGHTS_UNREADABLE.error(
        url=weights.origin, architecture=network.backbone, detail=detail
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
