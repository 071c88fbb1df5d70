"""Reads an ONNX file: what it wants and gives, what is refused of it, and what one image costs."""

import functools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from retrainer_trainer.backbone.facts import (
    MOST_NODES,
    Graph,
    Layout,
    Shape,
    Tensor,
    check_bytes,
    check_input,
    check_tensor,
    checked_graph,
    chosen_size,
    elements,
    layout_of,
    refuse,
    total,
)
from retrainer_trainer.backbone.onnx_shapes import DTYPES, OWN_DOMAINS, SMALL, Shapes, attribute

# com.microsoft holds the operators that ONNX Runtime's optimiser and quantiser write.
_DOMAINS = (*OWN_DOMAINS, "ai.onnx.ml", "com.microsoft")

# What may never end, is another each time, or reads another file.
_REFUSED = {
    "Loop": "loops",
    "Scan": "loops",
    "EPContext": "reads a compiled file",
    "RandomNormal": "draws at random",
    "RandomNormalLike": "draws at random",
    "RandomUniform": "draws at random",
    "RandomUniformLike": "draws at random",
    "Bernoulli": "draws at random",
    "Multinomial": "draws at random",
}
_DEEPEST = 8  # graphs within graphs

# Every runtime that is supported takes these (ONNX Runtime 1.20); a newer one is tried.
_OLDEST_RUNTIME_OPSET, _OLDEST_RUNTIME_IR = 21, 10
_OLDEST_OPSET = 7  # older ones have operators that ONNX Runtime does not run

_BITS = {
    "float32": 32, "uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "int32": 32, "int64": 64,
    "bool": 8, "float16": 16, "float64": 64, "uint32": 32, "uint64": 64, "bfloat16": 16,
}  # fmt: skip


def read_onnx(path: Path, size: int | None, name: str) -> Graph:
    """Read and check an ONNX file; see `graphs.read_graph`."""
    model = _parsed(path)
    graph = model.graph
    if not (graph.node and graph.output):
        refuse(name, "it holds no graph: it is no ONNX file, or was not copied whole")
    opset = _checked_opset(model, name)
    _check_operators(model, name)
    _check_tensors(path, model, name)
    _drop_numbers(model)
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
        graph = model.graph
    source = _only_input(graph, name)
    shape = _shape(source.type.tensor_type)
    pixels = Tensor(source.name, shape, _dtype(source.type.tensor_type.elem_type))
    check_input(pixels, name)
    layout = layout_of(shape) or _layout_by_operators(graph, source.name)
    size = chosen_size(shape, layout, size, name)
    shapes = Shapes(model, source.name, _one_image(shape, layout, size), name)
    outputs = tuple(
        _output(output, shapes.of(output.name), open_batch=shape[:1] != (1,))
        for output in graph.output
    )
    facts = Graph(
        format="onnx",
        input=pixels,
        layout=layout,
        size=size,
        outputs=outputs,
        opset=opset,
        parameters=_parameters(graph),
        multiply_adds=total(_cost(node, shapes) for node in graph.node),
    )
    return checked_graph(facts, name)


def external_files(path: Path, name: str = "") -> list[str]:
    """List the files beside an ONNX file that hold numbers of its, by their paths below its folder.

    Raises:
        UserError: one of them would lie outside that folder.
    """
    name = name or str(path)
    places = {_location(tensor, name) for tensor in _tensors(_parsed(path)) if _is_external(tensor)}
    return sorted(places)


def whole_file(path: Path) -> bytes:
    """The bytes of an ONNX file that `read_graph` has taken, with its external data put in."""
    body = path.read_bytes()
    model = _model(body)
    external = [tensor for tensor in _tensors(model) if _is_external(tensor)]
    if not external:
        return body
    for tensor in external:
        file, start, length = _external(path, tensor, str(path))
        with file.open("rb") as stream:
            stream.seek(start)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.data_location = 0
    return bytes(model.SerializeToString(deterministic=True))


def _parsed(path: Path) -> Any:
    return _model(path.read_bytes())


def _model(body: bytes) -> Any:
    import onnx

    return onnx.ModelProto.FromString(body)


# --- what is refused ---
def _checked_opset(model: Any, name: str) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = next((versions[domain] for domain in OWN_DOMAINS if domain in versions), 0)
    if not opset:
        refuse(name, "it does not say which version of ONNX' operators it uses: copy it again")
    if opset < _OLDEST_OPSET:
        refuse(
            name,
            f"it uses version {opset} of ONNX' operators (opset), and {_OLDEST_OPSET} is the oldest "
            "that is run: export it again, with opset 17 say",
        )
    newer = opset > _OLDEST_RUNTIME_OPSET or model.ir_version > _OLDEST_RUNTIME_IR
    if newer and not _runtime_takes(opset, model.ir_version):
        import onnxruntime

        refuse(
            name,
            f"it uses version {opset} of ONNX' operators (opset) in a file of version "
            f"{model.ir_version}, which ONNX Runtime {onnxruntime.__version__} does not take: "
            "export it with opset 17, or update onnxruntime",
        )
    return int(opset)


@functools.cache
def _runtime_takes(opset: int, ir_version: int) -> bool:
    """Ask the runtime that is installed, by a graph of nothing: it has no function that tells."""
    import onnxruntime
    from onnx import TensorProto, helper

    pair = [helper.make_tensor_value_info(place, TensorProto.FLOAT, [1]) for place in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", pair[:1], pair[1:])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # of classes that only its compiled module names
        return False
    return True


def _check_operators(model: Any, name: str) -> None:
    functions = {(f.domain, f.name): f for f in model.functions}
    nodes = list(_all_nodes(model, name))
    foreign = {
        f"{node.domain}.{node.op_type}"
        for node in nodes
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in functions
    }
    if foreign:
        refuse(
            name,
            f"it has operators that are not ONNX' own ({', '.join(sorted(foreign)[:5])}), and no "
            "foreign code is run: export it with ONNX' operators alone",
        )
    for node in nodes:
        if (what := _REFUSED.get(node.op_type)) and (node.domain, node.op_type) not in functions:
            refuse(
                name,
                f"its operator {node.op_type} {what}, and a bottleneck must be the same each time: "
                "export the network without it",
            )
    _check_circles(functions, name)


def _all_nodes(model: Any, name: str) -> Iterator[Any]:
    """Every node, those of functions and of graphs within nodes too."""
    waiting = [(model.graph.node, 0), *((function.node, 0) for function in model.functions)]
    count = 0
    while waiting:
        nodes, depth = waiting.pop()
        count += len(nodes)
        if count > MOST_NODES or depth > _DEEPEST:
            refuse(
                name,
                f"it has more than {MOST_NODES:,} operators, or graphs within graphs more than "
                f"{_DEEPEST} deep: take a smaller network",
            )
        for node in nodes:
            yield node
            waiting += [
                (graph.node, depth + 1)
                for entry in node.attribute
                for graph in (*entry.graphs, *([entry.g] if entry.HasField("g") else ()))
            ]


def _check_circles(functions: dict[tuple[str, str], Any], name: str) -> None:
    """Refuse functions that call each other in a circle: putting them in would never end."""
    calls = {
        key: {(n.domain, n.op_type) for n in function.node} & functions.keys()
        for key, function in functions.items()
    }
    while calls:
        leaves = {key for key, called in calls.items() if not called & calls.keys()}
        if not leaves:
            refuse(name, "its functions call each other in a circle: export it again")
        calls = {key: called for key, called in calls.items() if key not in leaves}


def _check_tensors(path: Path, model: Any, name: str) -> None:
    outside = 0
    for tensor in _tensors(model):
        shape = tuple(tensor.dims)
        where = f"its tensor {tensor.name or '(without a name)'}"
        check_tensor(shape, where, name)
        bits = _BITS.get(_dtype(tensor.data_type), 0)
        expected = math.prod(shape) * bits // 8
        if _is_external(tensor):
            _, _, length = _external(path, tensor, name)
            outside += length
        elif tensor.raw_data:
            length = len(tensor.raw_data)
        else:
            continue  # numbers written one by one, of which the runtime counts what there is
        if bits and length != expected:
            refuse(
                name,
                f"{where} has {length:,} bytes where its shape {list(shape)} needs {expected:,}: "
                "it was not copied whole, copy it again",
            )
    check_bytes(path.stat().st_size + outside, name)


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor with numbers: initializers, and those in attributes of nodes."""
    yield from model.graph.initializer
    nodes = [model.graph.node, *(function.node for function in model.functions)]
    while nodes:
        for node in nodes.pop():
            for entry in node.attribute:
                if entry.HasField("t"):
                    yield entry.t
                yield from entry.tensors
                for graph in (*entry.graphs, *([entry.g] if entry.HasField("g") else ())):
                    yield from graph.initializer
                    nodes.append(graph.node)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == 1)


def _location(tensor: Any, name: str) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = str(entries.get("location", ""))
    parts = location.split("/")
    bad = not location or location.startswith("/") or "\\" in location or ":" in location
    if bad or any(part in {"", ".", ".."} for part in parts) or not location.isprintable():
        refuse(
            name,
            f"it keeps numbers in {location or 'a file without a name'}, which is not below its own "
            "folder: save the network with all its data in one file, or beside it",
        )
    return location


def _external(path: Path, tensor: Any, name: str) -> tuple[Path, int, int]:
    """File, start and length of a tensor's numbers outside the ONNX file."""
    location = _location(tensor, name)
    file = path.parent
    for part in location.split("/"):
        file /= part
        if file.is_symlink():
            refuse(
                name,
                f"its data file {location} is a symbolic link: put the file itself in its place "
                "(cp -L copies it)",
            )
    if not file.is_file():
        refuse(name, f"its data file {location} is not beside it: copy that too")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    start = int(entries.get("offset", "0"))
    length = int(entries.get("length", file.stat().st_size - start))
    if start < 0 or length < 0 or start + length > file.stat().st_size:
        refuse(
            name, f"its data file {location} is too short: it was not copied whole, copy it again"
        )
    return file, start, length


# --- shapes ---
def _drop_numbers(model: Any) -> None:
    """Empty the large tensors: shapes are inferred without them, and in a tenth of the time."""
    for tensor in _tensors(model):
        if math.prod(tensor.dims) > SMALL or _is_external(tensor):
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def _only_input(graph: Any, name: str) -> Any:
    numbers = {tensor.name for tensor in graph.initializer}
    inputs = [source for source in graph.input if source.name not in numbers]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        names = ", ".join(source.name for source in inputs) or "none"
        refuse(
            name,
            f"it has {len(inputs)} inputs ({names}), and only pixels can be given: take the part that "
            "sees images, such as onnx/vision_model.onnx of a network for images and texts",
        )
    return inputs[0]


def _dtype(number: int) -> str:
    return DTYPES.get(number) or f"type {number}"


def _shape(tensor_type: Any) -> Shape:
    return tuple(
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
        for axis in tensor_type.shape.dim
    )


def _layout_by_operators(graph: Any, source: str) -> Layout | None:
    """Tell where channels stand by the first convolution, which wants them first."""
    reached = {source}
    for node in graph.node:
        if not reached & set(node.input):
            continue
        if node.op_type == "Conv":
            return "NCHW"
        if node.op_type == "Transpose":
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
            return {(0, 3, 1, 2): "NHWC", (0, 2, 3, 1): "NCHW"}.get(tuple(order))  # type: ignore[return-value]
        reached |= set(node.output)
    return None


def _one_image(shape: Shape, layout: Layout | None, size: int | None) -> Shape:
    full = {"NCHW": (1, 3, size, size), "NHWC": (1, size, size, 3)}.get(
        layout or "", (1, *shape[1:])
    )
    return tuple(own or given for own, given in zip(shape, full, strict=True))


def _output(output: Any, shape: Shape | None, *, open_batch: bool) -> Tensor:
    tensor_type = output.type.tensor_type
    written = _shape(tensor_type)
    shape = shape if shape is not None else written
    if open_batch and shape and shape[0] == 1:
        shape = (None, *shape[1:])
    return Tensor(output.name, shape, _dtype(tensor_type.elem_type))


# --- cost ---
def _parameters(graph: Any) -> int:
    tensors = list(graph.initializer)
    tensors += [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    trained = {"float32", "float16", "bfloat16", "float64", "int8", "uint8"}
    return sum(math.prod(tensor.dims) for tensor in tensors if _dtype(tensor.data_type) in trained)


_MATRIX_PRODUCTS = (
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "QLinearMatMul",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "MatMulNBits",
)  # fmt: skip
# Where the second factor stands among the inputs.
_SECOND = {"QLinearMatMul": 3, "QLinearConv": 3, "QGemm": 3}
_CONVOLUTIONS = (
    "Conv", "FusedConv", "ConvInteger", "QLinearConv", "NhwcFusedConv", "ConvTranspose",
)  # fmt: skip
_UNCOUNTED = (
    "Attention",
    "MultiHeadAttention",
    "If",
)  # they cost something, but their shapes hide it


def _cost(node: Any, shapes: Shapes) -> int | None:
    """Multiply-adds of a node: those of products and convolutions, as they are usually counted."""
    kind = node.op_type
    if kind in _CONVOLUTIONS:
        return _convolution_cost(node, shapes)
    if kind in _MATRIX_PRODUCTS:
        return _product_cost(node, shapes)
    if kind == "Einsum":
        return _einsum_cost(node, [shapes.of(place) for place in node.input])
    return None if kind in _UNCOUNTED else 0


def _convolution_cost(node: Any, shapes: Shapes) -> int | None:
    # Each number of the output comes from one kernel; of a transposed one, each of the input goes
    # into one.
    many = shapes.of(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
    kernel = shapes.of(node.input[_SECOND.get(node.op_type, 1)])
    if many is None or kernel is None:
        return None
    return _multiplied(elements(many), elements(kernel[1:]))


def _product_cost(node: Any, shapes: Shapes) -> int | None:
    many, factor = shapes.of(node.output[0]), shapes.of(node.input[_SECOND.get(node.op_type, 1)])
    if node.op_type == "MatMulNBits":  # its second factor is packed
        factor = (attribute(node, "K", None), 1)
    if many is None or not factor:
        return None
    turned = bool(attribute(node, "transB", 0)) or len(factor) == 1
    return _multiplied(elements(many), factor[-1] if turned else factor[-2])


def _einsum_cost(node: Any, factors: Iterable[Shape | None]) -> int | None:
    letters = attribute(node, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int | None] = {}
    for term, shape in zip(letters, factors, strict=False):
        if shape is None or len(shape) != len(term):
            return None
        sizes |= dict(zip(term, shape, strict=True))
    return elements(tuple(sizes.values()))


def _multiplied(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one * other
