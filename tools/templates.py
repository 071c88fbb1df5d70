"""Make the templates of the exports: weightless graphs that a run fills without TensorFlow.

    python tools/templates.py            make anew those whose recipe has changed (all: 2 minutes)
    python tools/templates.py --check    only say whether there are such

The source of truth is Keras' own network, with seeded random numbers, and what TensorFlow and its
converters write for it; each array is then found again by its value, named by its place, and left
out. The recipe is a digest of this program, of what it takes from the trainer and of the versions of
the libraries; making all of them anew would take too long for `make check`.
"""

import ast
import hashlib
import io
import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrainer.api import ARCHITECTURES, Architecture
from retrainer.inference.silence import quiet, quiet_environment
from retrainer_trainer.backbone import templates
from retrainer_trainer.backbone.layers import Arrays, Layer, folded
from retrainer_trainer.backbone.templates import (
    FROZEN_GRAPH,
    HALF_RANGE,
    LABELS,
    NAMES,
    ONNX,
    PLACE_PREFIX,
    SAVED_MODEL,
    TFLITE,
    VARIABLES,
)
from retrainer_trainer.backbone.tflite import lay_out, on_pixels, pack, unpack
from retrainer_trainer.export.protobuf import onnx_layout

REPOSITORY = Path(__file__).parents[1]
TRAINER = REPOSITORY / "trainer" / "retrainer_trainer"
RECIPE = templates.FOLDER / "recipe.json"

ONNX_OPSET = 17  # the newest that tf2onnx writes without warnings and every current runtime reads

# What decides the bytes of every template, and of those of one format beside it.
SOURCES = (Path(__file__), Path(templates.__file__))
SOURCES_OF: dict[str, tuple[Path, ...]] = {
    TFLITE: (),
    FROZEN_GRAPH: (),
    SAVED_MODEL: (TRAINER / "export" / "graph.py",),
    ONNX: (),
}
LIBRARIES = ("tensorflow-cpu", "keras")
LIBRARIES_OF = {ONNX: ("tf2onnx", "onnx")}


class Classifier(NamedTuple):
    """A network with seeded numbers, its batch normalisation folded, and a head.

    Attributes:
        network: which it is.
        graph: GraphDef of the backbone, `input` in [-1, 1] to `output`, arrays named by their places.
        output: name of the tensor that holds the bottlenecks.
        arrays: by their places.
    """

    network: Architecture
    graph: Any
    output: str
    arrays: Arrays


def main() -> int:
    """Make or check."""
    recipes = json.loads(RECIPE.read_text()) if RECIPE.is_file() else {}
    stale = [form for form in SOURCES_OF if recipes.get(form) != recipe(form)]
    if "--check" in sys.argv[1:]:
        for form in stale:
            print(f"The {form} templates are not what tools/templates.py makes: run make generate.")
        return 1 if stale else 0
    if not stale:
        return 0
    quiet_environment()
    backbones = [a for a in ARCHITECTURES.values() if not a.quantized]
    lines: list[str] = []
    packed: dict[str, dict[str, bytes]] = {form: {} for form in stale}
    for backbone in backbones:
        print(backbone.name, flush=True)
        with quiet():
            network = keras_network(backbone)
            layers = layers_of(network)
            rows = json.dumps([[layer.name, layer.kernel.shape] for layer in layers])
            lines.append(f"{json.dumps(backbone.name)}: {rows}")
            classifier = make(backbone, network, layers)
            for form in stale:
                packed[form][backbone.name] = WRITERS[form](classifier)
    if SAVED_MODEL in stale:
        packed[SAVED_MODEL] |= no_variables()
    templates.LAYERS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for form, bodies in packed.items():
        templates.archive(form).write_bytes(archived(bodies))
    RECIPE.write_text(json.dumps({form: recipe(form) for form in SOURCES_OF}, indent=1) + "\n")
    return 0


def recipe(form: str) -> str:
    """Digest of what decides a format's templates, and of the templates."""
    digest = hashlib.sha256()
    for path in (*SOURCES, *SOURCES_OF[form]):  # comments and layout make no difference
        digest.update(ast.dump(ast.parse(path.read_text())).encode())
    for path in (templates.LAYERS, templates.archive(form)):
        digest.update(path.read_bytes() if path.is_file() else b"none")
    locked = (REPOSITORY / "requirements" / "dev.txt").read_text()
    for library in (*LIBRARIES, *LIBRARIES_OF.get(form, ())):
        (version,) = re.findall(rf"^{re.escape(library)}==([^ ;]+)", locked, re.MULTILINE)
        digest.update(f"{library}=={version}\n".encode())
    return digest.hexdigest()


def archived(bodies: dict[str, bytes]) -> bytes:
    """The templates of a format packed together."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", preset=9) as packed:
        for name, body in bodies.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    return out.getvalue()


# --- Keras ---
def keras_network(backbone: Architecture) -> Any:
    """Keras' own network with seeded random weights and statistics."""
    import keras

    keras.backend.clear_session()
    shape = (backbone.size, backbone.size, 3)
    if backbone.is_mobilenet:
        network = keras.applications.MobileNet(
            input_shape=shape,
            alpha=backbone.width,
            include_top=False,
            weights=None,
            pooling="avg",
        )
    else:
        network = keras.applications.InceptionV3(
            input_shape=shape, include_top=False, weights=None, pooling="avg"
        )
    generator = np.random.default_rng(1)
    for layer in network.layers:
        layer.set_weights(
            [generator.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()]
        )
    return network


def layers_of(network: Any) -> list[Layer]:
    """The convolutions in Keras' order, each with the batch normalisation that takes its output."""
    import keras

    norms = {
        id(layer.input): layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    layers_read = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            (kernel,) = layer.get_weights()
            *gamma, beta, mean, variance = norms[id(layer.output)].get_weights()
            layers_read.append(
                Layer(layer.name, kernel, gamma[0] if gamma else None, beta, mean, variance)
            )
    return layers_read


def make(backbone: Architecture, network: Any, layers: list[Layer]) -> Classifier:
    """The network with its batch normalisation folded, frozen, and a seeded head."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    class Same(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, **_options: Any) -> Any:
            return x

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.layers.BatchNormalization):
            return Same(name=layer.name)
        biased = isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
        config = layer.get_config() | ({"use_bias": True} if biased else {})
        return type(layer).from_config(config)

    arrays = folded(layers)
    same = keras.models.clone_model(network, clone_function=clone)
    for layer in layers:
        places = (f"{layer.name}/kernel", f"{layer.name}/bias")
        same.get_layer(layer.name).set_weights([arrays[place] for place in places])
    spec = tf.TensorSpec((None, backbone.size, backbone.size, 3), tf.float32, name="input")
    function = tf.function(lambda x: same(x, training=False), input_signature=[spec])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    graph, output = named(frozen.graph.as_graph_def(), frozen.outputs[0].name, arrays)
    generator = np.random.default_rng(2)
    arrays["head/weights"] = generator.uniform(0, 1, (backbone.bottleneck, LABELS)).astype("f4")
    arrays["head/bias"] = generator.uniform(0, 1, LABELS).astype("f4")
    return Classifier(backbone, graph, output, arrays)


def named(graph: Any, output: str, arrays: Arrays) -> tuple[Any, str]:
    """The graph with its arrays as constants named by their places, and Keras' own prefix gone."""
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}

    def source(name: str) -> Any:
        """The node that a value comes from, past those that only hand it on."""
        node = nodes[name.partition(":")[0]]
        while node.op in ("Identity", "Reshape", "Squeeze"):
            node = nodes[node.input[0].partition(":")[0]]
        return node

    takers = {"Conv2D": "kernel", "DepthwiseConv2dNative": "kernel", "BiasAdd": "bias"}
    new = []
    for node in graph.node:
        if node.op in takers:
            value = tf.make_ndarray(source(node.input[1]).attr["value"].tensor)
            place = place_of(value, arrays, takers[node.op])
            constant = type(node)(name=place, op="Const")
            constant.attr["dtype"].type = 1  # DT_FLOAT
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(arrays[place]))
            node.input[1] = place
            new.append(constant)
    graph.node.extend(new)
    last = source(output).name
    kept = tf.compat.v1.graph_util.extract_sub_graph(graph, [last])
    (prefix,) = {n.name.split("/")[0] for n in kept.node if n.op == "Conv2D"}
    for node in kept.node:
        node.name = node.name.removeprefix(f"{prefix}/")
        node.input[:] = [name.removeprefix(f"{prefix}/") for name in node.input]
    kept.ClearField("library")
    return kept, last.removeprefix(f"{prefix}/")


def place_of(value: Any, arrays: Arrays, kind: str) -> str:
    """The one place of this kind whose array this is."""
    (place,) = (
        place
        for place, array in arrays.items()
        if place.endswith(f"/{kind}") and array.shape == value.shape and (array == value).all()
    )
    return place


# --- the formats ---
def scores(classifier: Classifier, scaled: Any, name: str) -> Any:
    """Softmax scores, a tensor of this name, of images already in [-1, 1]."""
    import tensorflow as tf

    (bottleneck,) = tf.graph_util.import_graph_def(
        classifier.graph,
        input_map={"input:0": scaled},
        return_elements=[f"{classifier.output}:0"],
        name=PLACE_PREFIX.rstrip("/"),
    )
    weights = tf.constant(classifier.arrays["head/weights"], name="head/weights")
    bias = tf.constant(classifier.arrays["head/bias"], name="head/bias")
    logits = tf.nn.bias_add(tf.matmul(bottleneck, weights, name="head/matmul"), bias, name="logits")
    return tf.nn.softmax(logits, name=name)


def graph_def(classifier: Classifier, source: str, scale: Callable[[Any], Any], result: str) -> Any:
    """GraphDef from the placeholder `source`, scaled, to `result`."""
    import tensorflow as tf

    size = classifier.network.size
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, (None, size, size, 3), name=source)
        scores(classifier, scale(pixels), result)
    kept = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), [result])
    kept.ClearField("library")
    return kept


def to_range(pixels: Any) -> Any:
    """Pixels 0..255 in [-1, 1]."""
    return pixels / HALF_RANGE - 1.0


def frozen_graph(classifier: Classifier) -> bytes:
    """As retrain.py writes it: `input` to `final_result`."""
    graph = graph_def(classifier, "input", lambda scaled: scaled, "final_result")
    empty_nodes([graph.node], classifier)
    return bytes(graph.SerializeToString(deterministic=True))


def empty_nodes(lists: Iterable[Any], classifier: Classifier) -> None:
    """Take the arrays out of constants; each place must be filled by exactly one of them."""
    left = dict(classifier.arrays)
    for nodes in lists:
        for node in nodes:
            for attribute in ("_output_shapes", "_has_manual_control_dependencies"):
                node.attr.pop(attribute, None)
            place = node.name.removeprefix(PLACE_PREFIX)
            if node.op == "Const" and place in left:
                node.attr["value"].tensor.ClearField("tensor_content")
                del left[place]
            assert node.ByteSize() < 10_000, f"{node.name} still has numbers"
    assert not left, sorted(left)


def saved_model(classifier: Classifier) -> bytes:
    """Signatures on pixels and on image bytes; the latter is the default one."""
    import tensorflow as tf

    from retrainer_trainer.export.graph import decoded

    size = classifier.network.size
    pixel_spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="pixels")
    byte_spec = tf.TensorSpec((None,), tf.string, name="image_bytes")

    @tf.function(input_signature=[pixel_spec])  # type: ignore[untyped-decorator]
    def pixels(pixels: Any) -> dict[str, Any]:
        shares = scores(classifier, to_range(pixels), "scores")
        # Each output has one row per image: TensorFlow Serving's row format refuses anything else.
        names = tf.constant([str(i).encode() for i in range(LABELS)], name=NAMES)
        return {
            "scores": shares,
            "labels": tf.tile(names[None, :], [tf.shape(shares)[0], 1]),
            "label": tf.gather(names, tf.argmax(shares, axis=1)),
        }

    # Traced once and called as traced: else the other function carries the constants again.
    by_pixels = pixels.get_concrete_function()

    @tf.function(input_signature=[byte_spec])  # type: ignore[untyped-decorator]
    def image_bytes(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(
            lambda one: decoded(one, size),
            image_bytes,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32),
        )
        result: dict[str, Any] = by_pixels(images)
        return result

    by_bytes = image_bytes.get_concrete_function()
    signatures = {"pixels": by_pixels, "image_bytes": by_bytes, "serving_default": by_bytes}
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)
        body = (Path(folder) / "saved_model.pb").read_bytes()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    (meta,) = SavedModel.FromString(body).meta_graphs
    lists = [meta.graph_def.node, *(f.node_def for f in meta.graph_def.library.function)]
    for nodes in lists:
        for node in nodes:
            if node.op == "Const" and node.name == NAMES:
                node.attr["value"].tensor.ClearField("string_val")
    empty_nodes(lists, classifier)
    return bytes(meta.SerializeToString(deterministic=True))


def no_variables() -> dict[str, bytes]:
    """The files of a SavedModel without variables, which TensorFlow's loader opens all the same."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder)
        return {name: (Path(folder) / name).read_bytes() for name in VARIABLES}


def tflite(classifier: Classifier) -> bytes:
    """As TensorFlow's converter writes it."""
    import tensorflow as tf

    size = classifier.network.size
    spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="pixels")

    @tf.function(input_signature=[spec])  # type: ignore[untyped-decorator]
    def classify(pixels: Any) -> Any:
        return {"scores": scores(classifier, to_range(pixels), "scores")}

    concrete = classify.get_concrete_function()
    model = unpack(bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()))
    (graph,) = model.subgraphs
    left = set(classifier.arrays)
    arrays = classifier.arrays | on_pixels(
        classifier.arrays, next(iter(classifier.arrays)).partition("/")[0]
    )
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or len(data) < 32 or tensor.type != 0:
            continue
        value = np.asarray(data, np.uint8).view("<f4").reshape(tensor.shape)
        place = laid_out_place(value, arrays)
        tensor.name = place.encode()
        model.buffers[tensor.buffer].data = None
        left.remove(place.replace("/pixels/", "/"))
    assert not left, sorted(left)
    graph.tensors[graph.inputs[0]].name = b"pixels"
    graph.tensors[graph.outputs[0]].name = b"scores"
    return pack(model)


def laid_out_place(value: Any, arrays: Arrays) -> str:
    """The one place whose array this is; to rounding where the converter has computed it."""
    (place,) = (
        place
        for place, array in arrays.items()
        if (laid := lay_out(place, array)).shape == value.shape
        and np.allclose(laid, value, rtol=1e-5 if "/pixels/" in place else 0, atol=0)
    )
    return place


def onnx(classifier: Classifier) -> bytes:
    """As tf2onnx writes it."""
    import tf2onnx.convert

    graph = graph_def(classifier, "pixels", to_range, "scores")
    model, _ = tf2onnx.convert.from_graph_def(
        graph, input_names=["pixels:0"], output_names=["scores:0"], opset=ONNX_OPSET
    )
    left = dict(classifier.arrays)
    names = {}
    for tensor in model.graph.initializer:
        if tensor.data_type != 1 or len(tensor.raw_data) < 32:
            continue
        value = np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))
        places = [
            place
            for place in left
            if (laid := onnx_layout(classifier.arrays[place])).shape == value.shape
            and (laid == value).all()
        ]
        assert len(places) == 1 or np.ptp(value) == 0, tensor.name
        for place in places:
            names[tensor.name] = place
            tensor.name = place
            tensor.ClearField("raw_data")
            del left[place]
    assert not left, sorted(left)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    assert not model.graph.value_info
    return bytes(model.SerializeToString(deterministic=True))


WRITERS = {TFLITE: tflite, FROZEN_GRAPH: frozen_graph, SAVED_MODEL: saved_model, ONNX: onnx}


if __name__ == "__main__":
    sys.exit(main())
