"""The exports that are protocol buffers, from templates: frozen graph, SavedModel and ONNX.

Written with TensorBoard's and ONNX' own messages, without TensorFlow. What was written is read back
by `constants`, to be compared with the arrays that went in.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrainer.api import Architecture
from retrainer_trainer.arrays import Floats
from retrainer_trainer.backbone.layers import Arrays
from retrainer_trainer.backbone.templates import (
    FROZEN_GRAPH,
    LABELS,
    NAMES,
    ONNX,
    PLACE_PREFIX,
    SAVED_MODEL,
    template,
)

SAVED_MODEL_FILE = "saved_model.pb"

# saved_model.proto: schema version 1 in field 1, then the graphs in field 2.
_SAVED_MODEL_START = b"\x08\x01\x12"


def frozen_graph(network: Architecture, arrays: Arrays | None, label_count: int) -> bytes:
    """Write a GraphDef as retrain.py's: `input` (images, size, size, 3) in [-1, 1], `final_result`.

    Args:
        network: the architecture whose template is filled.
        arrays: those of backbone and head; None leaves their places empty, to look at the graph only.
        label_count: the number of labels.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef.FromString(template(network.backbone, FROZEN_GRAPH))
    _set_label_count(graph, label_count)
    if arrays is not None:
        _fill_nodes(graph.node, arrays)
    return bytes(graph.SerializeToString(deterministic=True))


def saved_model(network: Architecture, arrays: Arrays, labels: Sequence[str]) -> bytes:
    """Write a SavedModel's one file, with signatures on pixels and on image bytes."""
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    meta = MetaGraphDef.FromString(template(network.backbone, SAVED_MODEL))
    _set_label_count(meta, len(labels))
    for nodes in _node_lists(meta):
        _fill_nodes(nodes, arrays)
        for node in nodes:
            if _place(node.name) == NAMES and node.op == "Const":
                names = node.attr["value"].tensor.string_val
                del names[:]
                names.extend(label.encode() for label in labels)
    body = bytes(meta.SerializeToString(deterministic=True))
    return _SAVED_MODEL_START + _varint(len(body)) + body


def onnx_file(network: Architecture, arrays: Arrays, label_count: int) -> bytes:
    """Write an ONNX file: `pixels:0` (images, size, size, 3), 0..255, to `scores:0` (images, labels)."""
    import onnx

    model = onnx.ModelProto.FromString(template(network.backbone, ONNX))
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            if dimension.dim_value == LABELS:
                dimension.dim_value = label_count
    for tensor in model.graph.initializer:
        if tensor.name in arrays:
            array = np.ascontiguousarray(onnx_layout(arrays[tensor.name]), np.float32)
            tensor.dims[:] = array.shape
            tensor.raw_data = array.tobytes()
    return bytes(model.SerializeToString(deterministic=True))


def onnx_layout(array: Floats) -> Floats:
    """Transpose an array for ONNX: outputs (of a depthwise kernel, channels) first, pixels last."""
    if array.ndim != 4:
        return array
    return array.transpose(2, 3, 0, 1) if array.shape[3] == 1 else array.transpose(3, 2, 0, 1)


def frozen_graph_constants(path: Path) -> tuple[Arrays, list[str]]:
    """Read the arrays in a frozen graph's file, and no names of labels, since it has none."""
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    return _constants(GraphDef.FromString(path.read_bytes()).node), []


def saved_model_constants(path: Path) -> tuple[Arrays, list[str]]:
    """Read the arrays in a SavedModel's folder, and the names of its labels."""
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    body = (path / SAVED_MODEL_FILE).read_bytes()
    start = len(_SAVED_MODEL_START)
    while body[start] & 0x80:
        start += 1
    meta = MetaGraphDef.FromString(body[start + 1 :])
    arrays: Arrays = {}
    labels: list[str] = []
    for nodes in _node_lists(meta):
        arrays |= _constants(nodes)
        for node in nodes:
            if _place(node.name) == NAMES and node.op == "Const":
                labels = [name.decode() for name in node.attr["value"].tensor.string_val]
    return arrays, labels


def _node_lists(meta: Any) -> Iterator[Any]:
    yield meta.graph_def.node
    for function in meta.graph_def.library.function:
        yield function.node_def


def _place(node_name: str) -> str:
    return node_name.removeprefix(PLACE_PREFIX)


def _fill_nodes(nodes: Any, arrays: Arrays) -> None:
    for node in nodes:
        if node.op == "Const" and (array := arrays.get(_place(node.name))) is not None:
            tensor = node.attr["value"].tensor
            for dimension, size in zip(tensor.tensor_shape.dim, array.shape, strict=True):
                dimension.size = size
            tensor.tensor_content = np.ascontiguousarray(array, np.float32).tobytes()


def _constants(nodes: Any) -> Arrays:
    arrays = {}
    for node in nodes:
        tensor = node.attr["value"].tensor
        if node.op == "Const" and tensor.dtype == 1 and tensor.tensor_content:  # DT_FLOAT
            shape = [dimension.size for dimension in tensor.tensor_shape.dim]
            arrays[_place(node.name)] = np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)
    return arrays


def _set_label_count(message: Any, count: int) -> None:
    """Replace the template's number of labels in every shape below `message`."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            children = value.values()
        else:
            children = value if field.is_repeated else [value]
        for child in children:
            if not hasattr(child, "ListFields"):  # a map of plain values
                continue
            if child.DESCRIPTOR.name == "TensorShapeProto":
                for dimension in child.dim:
                    if dimension.size == LABELS:
                        dimension.size = count
            else:
                _set_label_count(child, count)


def _varint(value: int) -> bytes:
    """Encode a number as protocol buffers do: seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
