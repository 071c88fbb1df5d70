"""Runs a TensorFlow Lite file: the same code checks an export and labels people's photos."""

import io
import os
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""(images, size, size, 3), 0..255, as `pixels.pixels` gives them."""

Scores = npt.NDArray[np.float32]
"""(images, labels)."""

MOST_TEXT_BYTES = 2**24
"""Of a text beside a graph; a longer one is left out."""


class TfliteNetwork:
    """A network from pixels to scores, float or int8, ready to run through LiteRT.

    Attributes:
        size: height and width of its input, pixels.
        label_count: how many scores it gives.
        texts: what is written beside the graph, by name.
    """

    def __init__(self, file: bytes) -> None:
        """Load the file's content.

        Raises:
            ValueError: it is damaged, or no network from images to scores.
        """
        from ai_edge_litert.interpreter import Interpreter

        from retrainer.inference.silence import quiet

        try:
            with quiet():
                self._interpreter = Interpreter(model_content=file, num_threads=os.cpu_count() or 1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError("it is damaged, or no TensorFlow Lite file") from error
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if not (len(inputs) == len(outputs) == 1 and _takes_images(inputs[0]["shape"])):
            raise ValueError("it is no network from an image to scores")
        self._input, self._output = inputs[0], outputs[0]
        self.size = int(self._input["shape"][1])
        self.label_count = int(self._output["shape"][-1])
        self.texts = _texts(file)
        # A network of one image at a time has its 1 in the shapes of other operators too.
        self._one_by_one = int(self._input["shape_signature"][0]) == 1

    def scores(self, pixels: Pixels) -> Scores:
        """Scores (images, labels), each row adding up to 1, of pixels (images, size, size, 3)."""
        if self._one_by_one:
            return np.concatenate([self._scores(pixels[i : i + 1]) for i in range(len(pixels))])
        return self._scores(pixels)

    def _scores(self, pixels: Pixels) -> Scores:
        interpreter = self._interpreter
        if tuple(interpreter.get_input_details()[0]["shape"]) != pixels.shape:
            interpreter.resize_tensor_input(self._input["index"], pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(self._input["index"], _encoded(pixels, self._input))
        interpreter.invoke()
        return _decoded(interpreter.get_tensor(self._output["index"]), self._output)


def _texts(file: bytes) -> dict[str, str]:
    """The files that are packed to the end of a TensorFlow Lite file, such as its labels."""
    try:
        with zipfile.ZipFile(io.BytesIO(file)) as packed:
            return {
                entry.filename: packed.read(entry).decode()
                for entry in packed.infolist()
                if entry.file_size <= MOST_TEXT_BYTES
            }
    except (zipfile.BadZipFile, ValueError):
        return {}


def _takes_images(shape: npt.NDArray[np.int32]) -> bool:
    return len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3


def _encoded(pixels: Pixels, tensor: dict[str, Any]) -> npt.NDArray[Any]:
    """Pixels 0..255 as the tensor's type; a quantized one says its scale and zero point."""
    kind = tensor["dtype"]
    scale, zero = tensor["quantization"]
    if kind == np.float32 or not scale:
        return pixels.astype(kind)
    limits = np.iinfo(kind)
    rounded: npt.NDArray[Any] = np.rint(pixels / scale) + zero
    return rounded.clip(limits.min, limits.max).astype(kind)


def _decoded(values: npt.NDArray[Any], tensor: dict[str, Any]) -> Scores:
    scale, zero = tensor["quantization"]
    if tensor["dtype"] == np.float32 or not scale:
        return values.astype(np.float32)
    shares: Scores = (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return shares
