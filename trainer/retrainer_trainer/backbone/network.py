"""A network of the list: its numbers from a weights file, ready to run on the cores or on a GPU."""

import hashlib
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrainer.api import Architecture, RetrainJobSpec, architecture
from retrainer.inference import pixels as images
from retrainer.inference.silence import quiet, quiet_environment
from retrainer_trainer.backbone.backbone import Backbone, Engine, bottleneck_of_grey, name_folder
from retrainer_trainer.backbone.engine import BATCH, KERAS_GPU, LITERT, Keras, LiteRT, gpu
from retrainer_trainer.backbone.layers import Layer, folded, read_layers, unreadable
from retrainer_trainer.backbone.tflite import backbone_tflite
from retrainer_trainer.backbone.weights import Weights, find_weights
from retrainer_trainer.store.store import Store

FindGpu = Callable[[Callable[[str], None]], str | None]
"""`engine.gpu`, or what tests put in its place."""


@dataclass(frozen=True, kw_only=True)
class ListedBackbone(Backbone):
    """A network of `spec.architecture`: its exports are templates filled with its numbers.

    Attributes:
        architecture: what it is.
        weights: the file that its numbers come from.
        layers: those numbers.
    """

    architecture: Architecture
    weights: Weights
    layers: list[Layer]


def open_listed(
    spec: RetrainJobSpec,
    cache: Store,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    find_gpu: FindGpu = gpu,
) -> ListedBackbone:
    """The network on a GPU, through TensorFlow, where there is one; else on the cores, without it.

    Raises:
        UserError: there are no weights for the architecture, or they cannot be read.
        RetrainerError: the GPU fails, or its memory is too small.
    """
    network = architecture(spec.architecture or "")
    weights = find_weights(spec, cache, log, warn)
    layers = read_layers(network, weights)
    device = find_gpu(warn)
    start: Callable[[], Engine]
    if device is None:
        runs_on, start, batch = LITERT, _OnCores(network, weights, layers), 1
    else:
        log(f"Bottlenecks are computed on TensorFlow's {device}, in batches of {BATCH}.")
        runs_on, start, batch = KERAS_GPU, _on_device(network, weights, layers, device, warn), BATCH
    digest = fingerprint(network, weights, runs_on)
    name_folder(cache, digest, network.backbone)
    return ListedBackbone(
        name=network.name,
        origin=weights.origin,
        field="spec.weights",
        size=network.size,
        width=network.bottleneck,
        multiply_adds=network.multiply_adds,
        parameters=network.parameters,
        pixels=images.pixels,
        fingerprint=digest,
        runs_on=runs_on,
        start=start,
        batch=batch,
        architecture=network,
        weights=weights,
        layers=layers,
    )


def fingerprint(network: Architecture, weights: Weights, runs_on: str) -> str:
    """Digest of all that decides a bottleneck's value, but for the image: 32 hex digits.

    A `_quantized` architecture has its twin's: its backbone runs in float32 all the same, and only
    an export of it is int8.
    """
    parts = (network.backbone, weights.sha256, images.VERSION, runs_on)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class _OnCores:
    """Gives each thread a LiteRT of its own; the file that all of them run is written by the first."""

    def __init__(self, network: Architecture, weights: Weights, layers: Sequence[Layer]) -> None:
        self._network, self._weights, self._layers = network, weights, layers
        self._lock = threading.Lock()
        self._tflite: bytes | None = None

    def __call__(self) -> Engine:
        with self._lock:
            if self._tflite is None:
                body = backbone_tflite(self._network, folded(self._layers))
                _check_finite(LiteRT(body), self._network, self._weights)
                self._tflite = body
        return LiteRT(self._tflite)


# --- with TensorFlow ---
def _on_device(
    network: Architecture,
    weights: Weights,
    layers: list[Layer],
    device: str,
    warn: Callable[[str], None],
) -> Callable[[], Engine]:
    with quiet():
        import tensorflow as tf

        with tf.device(device):  # its numbers lie in the device's memory
            built = keras_network(network, layers)
    engine = Keras(built, device, warn)
    _check_finite(engine, network, weights)
    return lambda: engine


def keras_network(network: Architecture, layers: Sequence[Layer]) -> Any:
    """The network in Keras: float32 (n, size, size, 3) in [-1, 1] to (n, bottleneck width)."""
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
        norms = (n for n in built.layers if isinstance(n, keras.layers.BatchNormalization))
        convolutions = (c for c in built.layers if len(c.get_weights()) == 1)
        for layer, convolution, norm in zip(layers, convolutions, norms, strict=True):
            convolution.set_weights([layer.kernel])
            norm.set_weights([array for array in layer[2:] if array is not None])
    return built


def _check_finite(engine: Engine, network: Architecture, weights: Weights) -> None:
    if not np.isfinite(bottleneck_of_grey(engine, network.size)).all():
        raise unreadable(network, weights, "they give infinite numbers")
