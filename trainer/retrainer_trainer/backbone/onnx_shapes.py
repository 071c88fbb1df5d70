"""The shape of every tensor of an ONNX graph while one image is computed.

Inferred node by node with ONNX' own rules, and no operator is run. The few integers that decide a
shape (the number of tokens, say), which those rules leave out, are computed here.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer_trainer.backbone.facts import Shape, check_tensor, elements

OWN_DOMAINS = ("", "ai.onnx")
"""Names of the domain of ONNX' own operators."""

SMALL = 1024
"""A tensor of at most this many numbers may decide a shape."""

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
"""Types of ONNX' tensors by their numbers, as numpy calls them."""

Integers = npt.NDArray[Any]


class Shapes:
    """The shape of every tensor of a graph while one image is computed.

    Raises:
        UserError: one of them is larger than any network's.
    """

    def __init__(self, model: Any, source: str, shape: Shape, name: str) -> None:
        import onnx
        from onnx import numpy_helper

        self._types: dict[str, Any] = {}
        self._numbers: dict[str, Any] = {}
        self._opsets = {o.domain.replace("ai.onnx", ""): o.version for o in model.opset_import}
        self._opset_imports = list(model.opset_import)
        self._ir_version = model.ir_version
        self._onnx, self._numpy = onnx, numpy_helper
        for tensor in model.graph.initializer:
            self._put_tensor(tensor.name, tensor)
        own = next(s.type for s in model.graph.input if s.name == source)
        self._types[source] = onnx.helper.make_tensor_type_proto(own.tensor_type.elem_type, shape)
        for node in model.graph.node:
            self._infer(node)
            for output in node.output:
                if (inferred := self.of(output)) is not None:
                    check_tensor(
                        inferred, f"the output {output} of its operator {node.op_type}", name
                    )

    def of(self, tensor: str) -> Shape | None:
        """Its shape; None if even the number of its axes cannot be told."""
        kind = self._types.get(tensor)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return tuple(
            axis.dim_value if axis.HasField("dim_value") else None
            for axis in kind.tensor_type.shape.dim
        )

    def _put_tensor(self, name: str, tensor: Any) -> None:
        kind = self._onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        self._types[name] = kind
        if math.prod(tensor.dims) <= SMALL:
            self._numbers[name] = tensor

    def _infer(self, node: Any) -> None:
        if node.op_type == "Constant" and node.domain in OWN_DOMAINS:
            for entry in node.attribute:
                if entry.name == "value":
                    self._put_tensor(node.output[0], entry.t)
                elif entry.name in {"value_int", "value_ints", "value_float", "value_floats"}:
                    kind = np.int64 if "int" in entry.name else np.float32
                    value = np.asarray(self._onnx.helper.get_attribute_value(entry), kind)
                    self._put_tensor(node.output[0], self._numpy.from_array(value))
            return
        self._infer_types(node)
        number = self._computed(node)
        if number is not None:
            self._put_tensor(node.output[0], self._numpy.from_array(number))

    def _infer_types(self, node: Any) -> None:
        domain = "" if node.domain in OWN_DOMAINS else node.domain
        try:
            schema = self._onnx.defs.get_schema(node.op_type, self._opsets[domain], domain)
            types = {n: self._types[n] for n in node.input if n in self._types}
            numbers = {n: self._numbers[n] for n in node.input if n in self._numbers}
            self._types |= self._onnx.shape_inference.infer_node_outputs(
                schema, node, types, numbers,
                opset_imports=self._opset_imports, ir_version=self._ir_version,
            )  # fmt: skip
        except Exception:  # noqa: S110 - an operator that tells no shape leaves its outputs open
            pass

    def _computed(self, node: Any) -> Integers | None:
        """The numbers of an output that may decide a shape, where all that it comes from is known."""
        shape = self.of(node.output[0]) if node.output else None
        if node.op_type == "Shape" and (whole := self.of(node.input[0])) is not None:
            start, end = (attribute(node, key, None) for key in ("start", "end"))
            part = whole[slice(start, end)]
            return None if None in part else np.array(part, np.int64)
        compute = _INTEGER_OPERATORS.get(node.op_type)
        count = None if shape is None else elements(shape)
        if compute is None or count is None or count > SMALL:
            return None
        values = []
        for place in node.input:
            if place and place not in self._numbers:
                return None
            values.append(self._numpy.to_array(self._numbers[place]) if place else None)
        try:
            with np.errstate(all="ignore"):
                number = np.asarray(compute(node, *values))
        except Exception:  # what the operator itself will refuse
            return None
        return number if number.size <= SMALL else None


def attribute(node: Any, key: str, default: Any) -> Any:
    """The value of a node's attribute, `default` where it has none."""
    import onnx

    for entry in node.attribute:
        if entry.name == key:
            return onnx.helper.get_attribute_value(entry)
    return default


def _cast(node: Any, value: Integers) -> Integers:
    return value.astype(DTYPES[attribute(node, "to", 1)])


def _concat(node: Any, *values: Integers) -> Integers:
    return np.concatenate(values, axis=attribute(node, "axis", 0))


def _divide(_: Any, one: Integers, other: Integers) -> Integers:
    if one.dtype.kind in "iu":
        return (one / other).astype(one.dtype)  # ONNX rounds towards zero
    return one / other


def _gather(node: Any, value: Integers, indices: Integers) -> Integers:
    return np.asarray(np.take(value, indices, axis=attribute(node, "axis", 0)))


def _unsqueeze(node: Any, value: Integers, axes: Integers | None = None) -> Integers:
    places = attribute(node, "axes", None) if axes is None else axes.tolist()
    return np.expand_dims(value, tuple(places))


def _squeeze(node: Any, value: Integers, axes: Integers | None = None) -> Integers:
    places = attribute(node, "axes", None) if axes is None else axes.tolist()
    return np.squeeze(value, None if places is None else tuple(places))


def _slice(node: Any, value: Integers, *limits: Integers | None) -> Integers:
    """Starts, ends, axes and steps are inputs, of which the last two may lack, or attributes."""
    starts, ends, axes, steps = (*(None if n is None else n.tolist() for n in limits), *[None] * 4)[
        :4
    ]
    first = attribute(node, "starts", []) if starts is None else starts
    last = attribute(node, "ends", []) if ends is None else ends
    default = attribute(node, "axes", list(range(len(first))))
    places = default if axes is None else axes
    jumps = [1] * len(first) if steps is None else steps
    ranges = [slice(None)] * value.ndim
    for place, start, end, step in zip(places, first, last, jumps, strict=True):
        ranges[place] = slice(start, end, step)
    return value[tuple(ranges)]


def _reshape(_: Any, value: Integers, shape: Integers) -> Integers:
    return value.reshape([value.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def _filled(node: Any, shape: Integers) -> Integers:
    import onnx

    value = attribute(node, "value", None)
    one = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return np.full(shape.tolist(), one.reshape(-1)[0])


def _product(node: Any, value: Integers, axes: Integers | None = None) -> Integers:
    places = attribute(node, "axes", None) if axes is None else axes.tolist()
    keep = bool(attribute(node, "keepdims", 1))
    return np.asarray(np.prod(value, axis=None if places is None else tuple(places), keepdims=keep))


_INTEGER_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": _cast,
    "Ceil": lambda _, a: np.ceil(a),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": lambda _, a, b: a == b,
    "Expand": lambda _, a, shape: a * np.ones(shape.tolist(), a.dtype),
    "Floor": lambda _, a: np.floor(a),
    "Gather": _gather,
    "Greater": lambda _, a, b: a > b,
    "Identity": lambda _, a: a,
    "Less": lambda _, a, b: a < b,
    "Max": lambda _, *a: functools.reduce(np.maximum, a),
    "Min": lambda _, *a: functools.reduce(np.minimum, a),
    "Mod": lambda _, a, b: np.mod(a, b),
    "Mul": lambda _, a, b: a * b,
    "Neg": lambda _, a: -a,
    "Not": lambda _, a: ~a,
    "Pow": lambda _, a, b: np.power(a, b).astype(a.dtype),
    "Range": lambda _, a, b, c: np.arange(a.item(), b.item(), c.item(), dtype=a.dtype),
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Sqrt": lambda _, a: np.sqrt(a),
    "Squeeze": _squeeze,
    "Sub": lambda _, a, b: a - b,
    "Unsqueeze": _unsqueeze,
    "Where": lambda _, a, b, c: np.where(a, b, c),
}
"""Operators that exporters compute shapes with, in numpy; each takes its node first."""
