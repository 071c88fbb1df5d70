"""TensorFlow Lite files from templates: the backbone alone, and the whole network.

Written with the schema that LiteRT ships, without TensorFlow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from retrainer.api import Architecture
from retrainer_trainer.arrays import Floats
from retrainer_trainer.backbone.layers import Arrays
from retrainer_trainer.backbone.templates import (
    HALF_RANGE,
    LABELS,
    TFLITE,
    convolutions,
    template,
)

# The schema wants it of every buffer (schema.fbs, table Buffer: force_align), and the generated
# Python code leaves it out: kernels of some processors read 16 bytes at a time.
_ALIGNMENT = 16

_HEAD_OPERATORS = 2  # FULLY_CONNECTED and SOFTMAX, the last of a template


def backbone_tflite(network: Architecture, arrays: Arrays) -> bytes:
    """Write the backbone's file: pixels 0..255, (1, size, size, 3), to the bottleneck, (1, width)."""
    model = unpack(template(network.backbone, TFLITE))
    (graph,) = model.subgraphs
    bottleneck = graph.operators[-_HEAD_OPERATORS].inputs[0]
    del graph.operators[-_HEAD_OPERATORS:]
    graph.outputs = np.array([bottleneck], np.int32)
    model.signatureDefs = None
    _fill(model, arrays, convolutions(network.backbone)[0].name)
    return pack(model)


def network_tflite(network: Architecture, arrays: Arrays) -> bytes:
    """Write the network's file: pixels 0..255, (images, size, size, 3), to scores, (images, labels).

    `arrays` has those of the head as well.
    """
    label_count = len(arrays["head/bias"])
    model = unpack(template(network.backbone, TFLITE))
    for tensor in model.subgraphs[0].tensors:
        for shape in (tensor.shape, tensor.shapeSignature):
            if shape is not None:
                shape[shape == LABELS] = label_count
    _fill(model, arrays, convolutions(network.backbone)[0].name)
    return pack(model)


def lay_out(place: str, array: Floats) -> Floats:
    """Transpose an array for TensorFlow Lite: outputs first; those of a depthwise kernel come last."""
    if place == "head/weights":
        return array.T
    return array.transpose(3, 0, 1, 2) if array.ndim == 4 else array


def on_pixels(arrays: Arrays, first: str) -> Arrays:
    """Put x / 127.5 - 1 into the numbers of the first convolution, which then takes pixels 0..255.

    TensorFlow's converter does so where that convolution pads nothing (Inception V3). Kernel / 127.5,
    and bias - the sum of each output's kernel, in float64, rounded once.
    """
    kernel = arrays[f"{first}/kernel"].astype(np.float64)
    bias = arrays[f"{first}/bias"] - kernel.sum(axis=(0, 1, 2))
    return {
        f"{first}/pixels/kernel": (kernel / HALF_RANGE).astype(np.float32),
        f"{first}/pixels/bias": bias.astype(np.float32),
    }


def _fill(model: Any, arrays: Arrays, first: str) -> None:
    arrays = arrays | on_pixels(arrays, first)
    for tensor in model.subgraphs[0].tensors:
        place = tensor.name.decode()
        if place in arrays:
            array = np.ascontiguousarray(lay_out(place, arrays[place]), np.float32)
            model.buffers[tensor.buffer].data = array.reshape(-1).view(np.uint8)


def unpack(body: bytes) -> Any:
    """Read a TensorFlow Lite file into its object."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(body), 0))


def pack(model: Any) -> bytes:
    """Write such an object as a file, its buffers aligned."""
    import flatbuffers

    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + (1 << 17))
    model.buffers = [_Aligned(buffer) for buffer in model.buffers]
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Aligned:
    """A buffer of a model that is written at a multiple of `_ALIGNMENT`."""

    def __init__(self, buffer: Any) -> None:
        self.data: Sequence[int] | None = buffer.data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - called by the generated code
        """Write the buffer as the generated `BufferT.Pack` does, but aligned."""
        from ai_edge_litert import schema_py_generated as schema

        vector = None
        if self.data is not None and len(self.data):
            body = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(body), _ALIGNMENT)
            builder.head -= len(body)
            builder.Bytes[builder.head : builder.head + len(body)] = body
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)
