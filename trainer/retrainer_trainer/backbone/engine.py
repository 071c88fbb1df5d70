"""What runs the frozen network: LiteRT on each core, or Keras on a GPU."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrainer.api import reasons
from retrainer.inference import pixels as images
from retrainer.inference.silence import quiet, quiet_environment
from retrainer_trainer.backbone.backbone import Bottleneck

LITERT = "litert-f32-folded"
KERAS_GPU = "keras-gpu-f32"
"""Engine and precision; part of the fingerprint, for each rounds in its own way."""

BATCH = 64
"""Images that a GPU is given at a time: at 299 pixels the largest layer's output is then 0.4 GB."""
_SMALLER = 4


class LiteRT:
    """The converted backbone on the thread that calls it, image by image."""

    def __init__(self, tflite: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet():  # LiteRT announces its XNNPACK delegate on standard error
            self._interpreter = Interpreter(model_content=tflite, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.tensor(self._interpreter.get_input_details()[0]["index"])
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, pixels: Sequence[images.Pixels]) -> list[Bottleneck]:
        """Give the bottleneck of each image."""
        return [self._bottleneck(image) for image in pixels]

    def _bottleneck(self, pixels: images.Pixels) -> Bottleneck:
        np.copyto(self._input()[0], pixels)
        self._interpreter.invoke()
        bottleneck: Bottleneck = self._interpreter.get_tensor(self._output)[0]
        return bottleneck


class Keras:
    """The backbone on one of TensorFlow's devices, in batches.

    Args:
        network: the Keras network that `network.keras_network` builds, on `device`.
        device: TensorFlow's name of the device.
        warn: called with a sentence when batches become smaller.
    """

    def __init__(self, network: Any, device: str, warn: Callable[[str], None]) -> None:
        import tensorflow as tf

        # TensorFloat-32, a GPU's default, keeps 10 of each factor's 23 bits.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self._tf, self._device, self._warn = tf, device, warn
        self._batch = BATCH
        self._run = tf.function(
            lambda pixels: network(tf.cast(pixels, tf.float32) / 127.5 - 1.0, training=False),
            autograph=False,
        )

    def __call__(self, pixels: Sequence[images.Pixels]) -> list[Bottleneck]:
        """Give the bottleneck of each image, in batches of as many as fit into the device's memory.

        Raises:
            RetrainerError: the device's memory is too small, or the device fails.
        """
        bottlenecks: list[Bottleneck] = []
        while len(bottlenecks) < len(pixels):
            try:
                bottlenecks += self._computed(
                    pixels[len(bottlenecks) : len(bottlenecks) + self._batch]
                )
            except self._tf.errors.ResourceExhaustedError as error:
                if self._batch < BATCH:
                    raise reasons.INTERNAL_ERROR.error(
                        detail=f"The memory of {self._device} is too small for this architecture, even "
                        f"in batches of {self._batch}: ask for a GPU with more memory or one that "
                        "nobody shares, or for none in spec.pod.resources."
                    ) from error
                self._batch = BATCH // _SMALLER
                self._warn(
                    f"The memory of {self._device} is too small for batches of {BATCH}; "
                    f"from now on they have {self._batch} images."
                )
            except self._tf.errors.OpError as error:
                raise reasons.INTERNAL_ERROR.error(
                    detail=f"{self._device} fails ({_first_line(error)}): check that the node's driver "
                    "fits the container image's CUDA, or ask for no GPU in spec.pod.resources."
                ) from error
        return bottlenecks

    def _computed(self, pixels: Sequence[images.Pixels]) -> list[Bottleneck]:
        # Always a whole batch: for each new shape TensorFlow traces the network again, and the GPU's
        # library chooses an algorithm again, and another algorithm rounds in another way.
        whole = np.zeros((self._batch, *pixels[0].shape), np.uint8)
        whole[: len(pixels)] = pixels
        with self._tf.device(self._device):
            return list(self._run(whole).numpy()[: len(pixels)])


def has_gpu(devices: Path) -> bool:
    """Look for the device file of a GPU; `CUDA_VISIBLE_DEVICES=` (empty) hides it.

    The device files are looked at before a library is asked: TensorFlow's import takes seconds and
    400 MB, and a pod that computes bottlenecks on a CPU needs it for nothing else. /proc/driver/nvidia
    would not do: it shows the GPUs of the whole node in every pod. dxg is a GPU under WSL 2.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any((*devices.glob("nvidia[0-9]*"), *devices.glob("dxg")))


def gpu(
    warn: Callable[[str], None],
    devices: Path = Path("/dev"),
    find: Callable[[str], object] = importlib.util.find_spec,
) -> str | None:
    """Look for a GPU that TensorFlow can use: its name, such as /GPU:0, or None.

    `CUDA_VISIBLE_DEVICES=` (empty) hides the GPU from this function as it does from TensorFlow.

    Args:
        warn: called with a sentence on a GPU that TensorFlow cannot use.
        devices: the folder in which the kernel shows what this container was given.
        find: as `importlib.util.find_spec`, None for a library that is not installed.
    """
    if not has_gpu(devices):
        return None
    if find("tensorflow") is None:
        warn(
            "There is a GPU, but TensorFlow, which would use it, is not installed here; bottlenecks are "
            "computed on the CPU. To use it: pip install 'retrainer[tensorflow]'."
        )
        return None
    quiet_environment()
    with quiet():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        for device in gpus:
            # Otherwise TensorFlow takes all of the memory, also where others share the GPU.
            tf.config.experimental.set_memory_growth(device, True)
    if not gpus:
        warn(
            "There is a GPU, but this TensorFlow cannot use it, for it is built for CPUs or the driver "
            "does not fit; bottlenecks are computed on the CPU."
        )
        return None
    return "/GPU:0"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
