"""Reads a TensorFlow Lite file: its operators, its shapes and what one image costs.

Through the accessors that LiteRT ships, which read a table when they are asked for it. They are
Python, so that a damaged file gives an exception and never reads past the file's end.
"""

import math
from functools import cache
from typing import Any

from retrainer_trainer.backbone.facts import (
    MOST_AXES,
    MOST_NODES,
    Graph,
    Shape,
    Tensor,
    check_input,
    check_tensor,
    checked_graph,
    chosen_size,
    layout_of,
    refuse,
    total,
)

_IDENTIFIER = b"TFL3"

# What may never end, is another each time, or keeps something from one image to the next.
_REFUSED = (
    "CUSTOM", "DELEGATE", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CUSTOM_CALL",
    "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM",
    "STABLEHLO_RNG_BIT_GENERATOR", "MULTINOMIAL",
)  # fmt: skip

_MOST_INPUTS = 4096  # of one operator, a concatenation say

_DTYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "INT32": "int32",
    "UINT8": "uint8", "INT8": "int8", "INT16": "int16", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip


def read_tflite(body: bytes, size: int | None, name: str) -> Graph:
    """Read and check a TensorFlow Lite file; see `graphs.read_graph`."""
    from ai_edge_litert import schema_py_generated as schema

    if body[4:8] != _IDENTIFIER:
        refuse(name, "it is no TensorFlow Lite file: copy it again, or take another")
    model = schema.Model.GetRootAs(body, 0)
    if model.SubgraphsLength() < 1:
        refuse(name, "it holds no graph: it was not copied whole, copy it again")
    graph = model.Subgraphs(0)
    _check_counts(model, graph, name)
    tensors = _Tensors(model, graph, name)
    codes = [_operator(model.OperatorCodes(i), name) for i in range(model.OperatorCodesLength())]
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    kinds = [codes[operator.OpcodeIndex()] for operator in operators]
    if graph.InputsLength() != 1:
        refuse(
            name,
            f"it has {graph.InputsLength()} inputs, and only pixels can be given: take the part that "
            "sees images",
        )
    sources, results = _signature(model)
    source = tensors.at(graph.Inputs(0), sources.get(graph.Inputs(0)))
    check_input(source, name)
    layout = layout_of(source.shape)
    outputs = tuple(
        tensors.at(place, results.get(place))
        for place in (graph.Outputs(i) for i in range(graph.OutputsLength()))
    )
    own = chosen_size(source.shape, layout, size, name)
    # Where the file takes any size, the shapes in it are those of no image.
    fixed = None not in source.shape[1:]
    costs = (_cost(kind, op, tensors) for kind, op in zip(kinds, operators, strict=True))
    return checked_graph(
        Graph(
            format="tflite",
            input=source,
            layout=layout,
            size=own,
            outputs=outputs,
            opset=0,
            parameters=tensors.parameters(),
            multiply_adds=total(costs) if fixed else None,
        ),
        name,
    )


def _check_counts(model: Any, graph: Any, name: str) -> None:
    """Refuse lists longer than any network's, before anything goes through them."""
    lists = (
        model.OperatorCodesLength(), model.SubgraphsLength(), model.BuffersLength(),
        graph.TensorsLength(), graph.OperatorsLength(), graph.InputsLength(), graph.OutputsLength(),
        model.SignatureDefsLength(),
    )  # fmt: skip
    if max(lists) > MOST_NODES:
        refuse(
            name,
            f"it has more than {MOST_NODES:,} operators or tensors, or is damaged: copy it again, or "
            "take a smaller network",
        )


@cache
def _names(kind: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    members = vars(getattr(schema, kind)).items()
    return {number: member for member, number in members if isinstance(number, int)}


def _operator(code: Any, name: str) -> str:
    # Numbers above 126 stand in the newer field; older files have the older one alone.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kind = _names("BuiltinOperator").get(number)
    if kind is None:
        refuse(
            name,
            f"it has an operator that this version of LiteRT does not have (number {number}): "
            "update ai-edge-litert, or convert the network with an older TensorFlow",
        )
    if kind == "CUSTOM" or code.CustomCode():
        own = (code.CustomCode() or b"").decode(errors="replace")
        flex = (
            " (TensorFlow's own, of a file made with SELECT_TF_OPS)"
            if own.startswith("Flex")
            else ""
        )
        refuse(
            name,
            f"it has operators that are not TensorFlow Lite's own ({own or 'CUSTOM'}{flex}), and no "
            "foreign code is run: convert the network with the built-in operators alone",
        )
    if kind in _REFUSED:
        refuse(
            name,
            f"its operator {kind} may loop, draw at random or remember, and a bottleneck must be the "
            "same each time: convert the network without it",
        )
    return kind


def _signature(model: Any) -> tuple[dict[int, str], dict[int, str]]:
    """What the file's one signature calls its inputs and outputs, by their tensors."""
    if model.SignatureDefsLength() != 1:
        return {}, {}
    signature = model.SignatureDefs(0)
    pairs = (
        (signature.Inputs, signature.InputsLength()),
        (signature.Outputs, signature.OutputsLength()),
    )
    sources, results = (
        {
            entry.TensorIndex(): (entry.Name() or b"").decode()
            for entry in (at(i) for i in range(min(count, _MOST_INPUTS)))
        }
        for at, count in pairs
    )
    return sources, results


class _Tensors:
    """The tensors of a graph by their numbers.

    Raises:
        UserError: one of them is larger than any network's, or lacks some of its numbers.
    """

    def __init__(self, model: Any, graph: Any, name: str) -> None:
        self._tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        self._full = [_full_buffer(model, i) for i in range(model.BuffersLength())]
        for i, tensor in enumerate(self._tensors):
            if max(tensor.ShapeLength(), tensor.ShapeSignatureLength()) > MOST_AXES:
                refuse(name, f"its tensor {i} has more than {MOST_AXES} axes: copy it again")
            check_tensor(self.shape(i), f"its tensor {i}", name)
            if tensor.ExternalBuffer():
                refuse(
                    name,
                    "it keeps numbers in another file: convert the network into one file",
                )
            if not 0 <= tensor.Buffer() < len(self._full):
                refuse(name, f"its tensor {i} names a buffer that is not there: copy it again")

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of one image."""
        at = self._tensors[tensor]
        return tuple(at.Shape(i) for i in range(at.ShapeLength()))

    def at(self, tensor: int, name: str | None) -> Tensor:
        """A tensor with its open sizes."""
        at = self._tensors[tensor]
        shape: Shape = self.shape(tensor)
        if at.ShapeSignatureLength() == len(shape):
            signature = [at.ShapeSignature(i) for i in range(len(shape))]
            shape = tuple(
                None if opened < 0 else size for opened, size in zip(signature, shape, strict=True)
            )
        kind = _names("TensorType").get(at.Type(), str(at.Type()))
        return Tensor(name or (at.Name() or b"").decode(), shape, _DTYPES.get(kind, kind.lower()))

    def parameters(self) -> int:
        """Count the numbers of all tensors that the file holds, but for integers, which are shapes."""
        names = _names("TensorType")
        return sum(
            math.prod(self.shape(i))
            for i, tensor in enumerate(self._tensors)
            if self._full[tensor.Buffer()]
            and names.get(tensor.Type()) in {"FLOAT32", "FLOAT16", "INT8", "UINT8", "INT4"}
        )


def _full_buffer(model: Any, index: int) -> bool:
    """Say whether a buffer has bytes."""
    buffer = model.Buffers(index)
    return bool(buffer.DataLength() or buffer.Size())


def _cost(kind: str, operator: Any, tensors: _Tensors) -> int | None:
    if kind not in {
        "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV",
    }:  # fmt: skip
        return 0
    inputs = [operator.Inputs(i) for i in range(min(operator.InputsLength(), _MOST_INPUTS))]
    count = math.prod(tensors.shape(operator.Outputs(0)))
    factor = tensors.shape(inputs[1])
    match kind:
        case "CONV_2D":  # (outputs, height, width, inputs)
            return count * math.prod(factor[1:])
        case "DEPTHWISE_CONV_2D":  # (1, height, width, channels)
            return count * math.prod(factor[1:3])
        case "FULLY_CONNECTED":
            return count * factor[-1]
        case "BATCH_MATMUL":
            # The inner size is the one of the first factor that the second shares.
            one = tensors.shape(inputs[0])
            columns = tensors.shape(operator.Outputs(0))[-1]
            inner = factor[-2] if factor[-1] == columns else factor[-1]
            return count * (inner if inner in one[-2:] else one[-1])
        case _:  # TRANSPOSE_CONV: (outputs, height, width, inputs), each input goes into a kernel
            return math.prod(tensors.shape(inputs[2])) * math.prod(factor[:3])
