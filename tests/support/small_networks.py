"""Small networks as files, ONNX and TensorFlow Lite: what frozen networks of other people look like."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 8
SIZE = 32


def kernel(seed: int = 0) -> npt.NDArray[np.float32]:
    """(outputs, channels, height, width), as ONNX has it."""
    numbers = np.random.default_rng(seed).normal(0, 0.3, (WIDTH, 3, 4, 4))
    return numbers.astype(np.float32)


def onnx_network(
    *,
    tokens: bool = False,
    batch: int | str = "batch",
    size: int | str = SIZE,
    halved: bool = False,
    opset: int = 17,
    extra: Sequence[Any] = (),
    domains: Sequence[str] = (),
    source: str = "pixel_values",
    numbers: npt.NDArray[Any] | None = None,
) -> onnx.ModelProto:
    """A convolution of 4 x 4 patches, then the mean of all or a token for each.

    Args:
        tokens: give (batch, patches, WIDTH) instead of (batch, WIDTH), its shape computed in the graph
            as PyTorch's exporter writes it.
        batch: images, a number or a name.
        size: height and width, a number or a name.
        halved: weights in float16 and a Cast to float32.
        opset: of ONNX' operators.
        extra: nodes put before the others.
        domains: of those nodes.
        source: name of the input.
        numbers: the convolution's kernel.
    """
    weights = kernel() if numbers is None else numbers
    stored = numpy_helper.from_array(
        weights.astype(np.float16 if halved else weights.dtype), "kernel"
    )
    nodes = [*extra]
    used = "kernel"
    if halved:
        nodes.append(helper.make_node("Cast", ["kernel"], ["wide"], to=TensorProto.FLOAT))
        used = "wide"
    nodes.append(
        helper.make_node("Conv", [source, used], ["map"], kernel_shape=[4, 4], strides=[4, 4])
    )
    initializers = [stored]
    if tokens:
        initializers += [
            numpy_helper.from_array(np.array(0), "zero"),
            numpy_helper.from_array(np.array([WIDTH, -1]), "rest"),
            numpy_helper.from_array(np.array([0]), "front"),
        ]
        nodes += [
            helper.make_node("Shape", ["map"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "zero"], ["images"], axis=0),
            helper.make_node("Unsqueeze", ["images", "front"], ["first"]),
            helper.make_node("Concat", ["first", "rest"], ["shape"], axis=0),
            helper.make_node("Reshape", ["map", "shape"], ["flat"]),
            helper.make_node("Transpose", ["flat"], ["last_hidden_state"], perm=[0, 2, 1]),
        ]
        result = helper.make_tensor_value_info(
            "last_hidden_state", TensorProto.FLOAT, [batch, "tokens", WIDTH]
        )
    else:
        nodes += [
            helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["pooler_output"]),
        ]
        result = helper.make_tensor_value_info("pooler_output", TensorProto.FLOAT, [batch, WIDTH])
    pixels = helper.make_tensor_value_info(source, TensorProto.FLOAT, [batch, 3, size, size])
    graph = helper.make_graph(nodes, "network", [pixels], [result], initializers)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def tflite_network(
    *, tokens: bool = False, result_type: str = "FLOAT32", custom: str = ""
) -> bytes:
    """The same network in TensorFlow Lite: (1, SIZE, SIZE, 3) to (1, WIDTH), or to tokens."""
    from ai_edge_litert import schema_py_generated as schema

    from retrainer_trainer.backbone.tflite import pack

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers = [schema.BufferT()]
    graph.tensors, graph.operators, model.operatorCodes = [], [], []

    def tensor(name: str, shape: list[int], array: Any = None, kind: str = "FLOAT32") -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type = name.encode(), shape, getattr(schema.TensorType, kind)
        one.buffer = 0
        if array is not None:
            one.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(array.tobytes(), np.uint8)
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    def operator(kind: str, inputs: list[int], output: int, options: Any = None) -> None:
        code, one = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        code.customCode = custom.encode() if kind == "CUSTOM" else None
        one.opcodeIndex, one.inputs, one.outputs = len(model.operatorCodes), inputs, [output]
        if options is not None:
            one.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            one.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        model.operatorCodes.append(code)
        graph.operators.append(one)

    patches = SIZE // 4
    pixels = tensor("pixel_values", [1, SIZE, SIZE, 3])
    weights = tensor(
        "kernel", [WIDTH, 4, 4, 3], np.ascontiguousarray(kernel().transpose(0, 2, 3, 1))
    )
    bias = tensor("bias", [WIDTH], np.zeros(WIDTH, np.float32))
    features = tensor("map", [1, patches, patches, WIDTH])
    convolution = schema.Conv2DOptionsT()
    convolution.padding, convolution.strideH, convolution.strideW = 1, 4, 4  # VALID
    operator("CONV_2D", [pixels, weights, bias], features, convolution)
    if tokens:
        shape = tensor("shape", [3], np.array([1, patches**2, WIDTH], np.int32), "INT32")
        result = tensor("last_hidden_state", [1, patches**2, WIDTH])
        operator("RESHAPE", [features, shape], result, schema.ReshapeOptionsT())
    else:
        axes = tensor("axes", [2], np.array([1, 2], np.int32), "INT32")
        result = tensor("pooler_output", [1, WIDTH], kind=result_type)
        operator("CUSTOM" if custom else "MEAN", [features, axes], result,
                 None if custom else schema.ReducerOptionsT())  # fmt: skip
    graph.inputs, graph.outputs = [pixels], [result]
    return pack(model)
