"""Exports of a given network: its own file, with the scaling of pixels before it and the head behind.

As every export: pixels 0..255, (images, size, size, 3) in RGB, to scores, (images, labels). Nothing is
converted, so that the file runs as the network that the bottlenecks came from. How a photo becomes
pixels (squeezed or cut, and by which filter) no graph holds: it is written beside the labels, for
`retrainer predict` and for people.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api import Channels, Layout, Token
from retrainer.api.layout import LABELS
from retrainer.inference.onnx_network import INPUT as ONNX_INPUT
from retrainer.inference.onnx_network import OUTPUT as ONNX_OUTPUT
from retrainer.inference.preparing import PREPROCESSING
from retrainer_trainer.backbone.facts import Shape
from retrainer_trainer.backbone.runtimes import GivenNetwork
from retrainer_trainer.backbone.tflite import pack, unpack
from retrainer_trainer.head.softmax import Head

_PIXELS, _SCORES = "pixels", "scores"
_SIGNATURE = b"serving_default"
_PREFIX = "retrainer/"
_METADATA = b"TFLITE_METADATA"

# Where the inputs of ReduceMean stand: its axes became an input in opset 18.
_AXES_ARE_INPUT = 18
# From this version of the file on, initializers need not be inputs too.
_LEAST_IR_VERSION = 4


def appended(network: GivenNetwork, head: Head, labels: Sequence[str]) -> bytes:
    """The network's file with the head on it, in the format that it has."""
    if network.graph.format == "onnx":
        return _onnx_with_head(network, head, labels)
    return _tflite_with_head(network, head)


# --- ONNX ---
def _onnx_with_head(network: GivenNetwork, head: Head, labels: Sequence[str]) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    model = onnx.ModelProto.FromString(network.body)
    ours = {ONNX_INPUT, ONNX_OUTPUT}
    used = _names(model.graph)
    source, result = network.graph.input.name, model.graph.output[network.place].name
    if ours & used or any(name.startswith(_PREFIX) for name in used):
        # A file that Retrainer or tf2onnx wrote has our names already.
        prefix = "given/"
        model = onnx.compose.add_prefix(model, prefix, rename_functions=False)
        source, result = prefix + source, prefix + result
    graph = model.graph
    size, batch = network.preprocessing.size, network.graph.batch or "images"
    nodes = _Nodes()
    before = _before(nodes, network, source)
    behind = _behind(nodes, network, head, result)
    given = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*before, *given, *behind])
    graph.initializer.extend(nodes.initializers)
    graph.input.append(
        helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, [batch, size, size, 3])
    )
    graph.output.append(
        helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, [batch, len(head.bias)])
    )
    model.ir_version = max(model.ir_version, _LEAST_IR_VERSION)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    texts |= {
        LABELS: "".join(f"{label}\n" for label in labels),
        PREPROCESSING: json.dumps(network.preprocessing.to_dict()),
    }
    helper.set_model_props(model, texts)
    return bytes(model.SerializeToString(deterministic=True))


def _names(graph: Any) -> set[str]:
    names = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names |= {*node.input, *node.output}
    return names


_Node = tuple[str, list[str], dict[str, Any]]
"""A node in a row: its kind, the constants that it takes, its attributes."""


class _Nodes:
    """Makes nodes, and the constants that they take."""

    def __init__(self) -> None:
        self.initializers: list[Any] = []

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep a constant, and give the name that it has in the graph."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(array, _PREFIX + name))
        return _PREFIX + name

    @staticmethod
    def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
        """A node with one output, called by it."""
        from onnx import helper

        return helper.make_node(kind, inputs, [output], name=f"{_PREFIX}{output}", **attributes)


def _before(nodes: _Nodes, network: GivenNetwork, source: str) -> list[Any]:
    """From pixels to what the network takes."""
    from onnx import TensorProto

    preprocessing = network.preprocessing
    gain, offset = (np.array(values, np.float32) for values in preprocessing.affine)
    steps: list[_Node] = [
        ("Mul", [nodes.constant("gain", gain)], {}),
        ("Add", [nodes.constant("offset", offset)], {}),
    ]
    if preprocessing.channels is Channels.BGR:
        order = nodes.constant("bgr", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", [order], {"axis": 3}))
    if preprocessing.layout is Layout.NCHW:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if network.graph.input.dtype == "float16":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT16}))
    return _chain(nodes, steps, ONNX_INPUT, source)


def _behind(nodes: _Nodes, network: GivenNetwork, head: Head, result: str) -> list[Any]:
    """From the output that is used to scores."""
    from onnx import TensorProto

    steps: list[_Node] = []
    if network.graph.outputs[network.place].dtype != "float32":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if network.token is Token.CLS:
        steps.append(("Gather", [nodes.constant("first", np.array(0, np.int64))], {"axis": 1}))
    elif network.token is Token.MEAN and network.graph.opset >= _AXES_ARE_INPUT:
        axes = nodes.constant("tokens", np.array([1], np.int64))
        steps.append(("ReduceMean", [axes], {"keepdims": 0}))
    elif network.token is Token.MEAN:
        steps.append(("ReduceMean", [], {"axes": [1], "keepdims": 0}))
    weights = nodes.constant("weights", head.weights)
    bias = nodes.constant("bias", head.bias)
    steps += [
        ("Flatten", [], {"axis": 1}),
        ("Gemm", [weights, bias], {"transB": 1}),
        ("Softmax", [], {"axis": 1}),
    ]
    return _chain(nodes, steps, result, ONNX_OUTPUT)


def _chain(nodes: _Nodes, steps: list[_Node], first: str, last: str) -> list[Any]:
    """Nodes in a row: each takes what the one before gives, and its own constants."""
    chained, given = [], first
    for i, (kind, constants, attributes) in enumerate(steps):
        output = last if i == len(steps) - 1 else f"{_PREFIX}{last}/{i}"
        chained.append(nodes.node(kind, [given, *constants], output, **attributes))
        given = output
    return chained


# --- TensorFlow Lite ---
def _tflite_with_head(network: GivenNetwork, head: Head) -> bytes:
    model = unpack(network.body)
    graph = model.subgraphs[0]
    editor = _Editor(model)
    preprocessing = network.preprocessing
    size, batch = preprocessing.size, -1 if network.graph.batch is None else 1
    source, result = int(graph.inputs[0]), int(graph.outputs[network.place])
    square = (batch, size, size, 3)

    # --- from pixels to what the network takes ---
    gain, offset = (np.array(values, np.float32) for values in preprocessing.affine)
    before: list[_Step] = [("MUL", [gain], square, {}), ("ADD", [offset], square, {})]
    if preprocessing.channels is Channels.BGR:
        before.append(("GATHER", [np.array([2, 1, 0], np.int32)], square, {"axis": 3}))
    if preprocessing.layout is Layout.NCHW:
        before.append(("TRANSPOSE", [np.array([0, 3, 1, 2], np.int32)], (batch, 3, size, size), {}))
    pixels = editor.tensor(_PIXELS, square)

    # --- from the output that is used to scores ---
    labels, width = head.weights.shape
    behind: list[_Step] = []
    if network.graph.outputs[network.place].dtype != "float32":
        behind.append(("CAST", [], network.graph.outputs[network.place].shape, {}))
    if network.token is Token.CLS:
        first = np.array(0, np.int32)
        behind.append(("GATHER", [first], (batch, width), {"axis": 1}))
    elif network.token is Token.MEAN:
        behind.append(("MEAN", [np.array([1], np.int32)], (batch, width), {}))
    behind += [
        ("RESHAPE", [np.array([-1, width], np.int32)], (batch, width), {}),
        ("FULLY_CONNECTED", [head.weights, head.bias], (batch, labels), {}),
        ("SOFTMAX", [], (batch, labels), {"beta": 1.0}),
    ]
    scores = editor.tensor(_SCORES, (batch, labels))

    graph.operators = [
        *editor.chain(before, pixels, source),
        *graph.operators,
        *editor.chain(behind, result, scores),
    ]
    graph.inputs, graph.outputs = [pixels], [scores]
    model.signatureDefs = [editor.signature(pixels, scores)]
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _METADATA]
    return pack(model)


_Step = tuple[str, list[npt.NDArray[Any]], Shape, dict[str, Any]]
"""An operator in a row: its kind, the constants that it takes, the shape that it gives, its options."""

_OPTIONS = {
    "MUL": "MulOptions", "ADD": "AddOptions", "GATHER": "GatherOptions", "MEAN": "ReducerOptions",
    "TRANSPOSE": "TransposeOptions", "RESHAPE": "ReshapeOptions", "CAST": "CastOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "SOFTMAX": "SoftmaxOptions",
}  # fmt: skip


class _Editor:
    """Puts tensors and operators into a TensorFlow Lite file's first graph."""

    def __init__(self, model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._model, self._graph, self._schema = model, model.subgraphs[0], schema

    def tensor(self, name: str, shape: Shape, array: npt.NDArray[Any] | None = None) -> int:
        """Add a tensor, and give its number; its images are open where the shape says -1."""
        tensor = self._schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = [1 if size in {None, -1} else size for size in shape]
        tensor.shapeSignature = [-1 if size is None else size for size in shape]
        kind = "FLOAT32" if array is None else str(array.dtype).upper()
        tensor.type = getattr(self._schema.TensorType, kind)
        tensor.buffer = 0  # by the format the one that is empty
        if array is not None:
            tensor.shapeSignature = None
            tensor.buffer = len(self._model.buffers)
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def chain(self, steps: Sequence[_Step], first: int, last: int) -> list[Any]:
        """Operators in a row: each takes what the one before gives, and its own constants."""
        operators, given = [], first
        for i, (kind, constants, shape, options) in enumerate(steps):
            name = f"{_PREFIX}{last}/{i}"
            output = last if i == len(steps) - 1 else self.tensor(name, shape)
            numbers = [
                self.tensor(f"{name}/{n}", array.shape, array) for n, array in enumerate(constants)
            ]
            operators.append(self._operator(kind, [given, *numbers], output, options))
            given = output
        return operators

    def _operator(self, kind: str, inputs: list[int], output: int, options: dict[str, Any]) -> Any:
        schema = self._schema
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = code.builtinCode  # all of ours are below 127
        code.version = 1
        operator.opcodeIndex = len(self._model.operatorCodes)
        self._model.operatorCodes.append(code)
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[kind])
        operator.builtinOptions = getattr(schema, f"{_OPTIONS[kind]}T")()
        vars(operator.builtinOptions).update(options)
        return operator

    def signature(self, source: int, result: int) -> Any:
        """The file's signature, by which programs find input and output."""
        schema = self._schema
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
        maps = []
        for name, tensor in ((_PIXELS, source), (_SCORES, result)):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), tensor
            maps.append([entry])
        signature.inputs, signature.outputs = maps
        return signature
