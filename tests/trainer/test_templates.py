"""Every template, filled with random numbers, against Keras' own network run by TensorFlow."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.conftest import REPOSITORY

from retrainer.api import ARCHITECTURES, Architecture, Export, architecture
from retrainer.inference.runners import open_runners
from retrainer.inference.silence import import_tensorflow
from retrainer_trainer.backbone import templates
from retrainer_trainer.backbone.engine import LiteRT
from retrainer_trainer.backbone.layers import folded, read_layers
from retrainer_trainer.backbone.tflite import backbone_tflite
from retrainer_trainer.backbone.weights import Weights
from retrainer_trainer.export import formats, protobuf
from retrainer_trainer.export.formats import Network
from retrainer_trainer.head.softmax import Head

TOLERANCE = 1e-4
"""Largest difference allowed, as a share of the largest value."""

BACKBONES = [name for name, each in ARCHITECTURES.items() if not each.quantized]
FORMATS = [Export.SAVED_MODEL, Export.TFLITE, Export.FROZEN_GRAPH, Export.ONNX]
LABEL_COUNTS = (2, 5, 1000)
IMAGES = 3

Floats = npt.NDArray[np.float32]


def random_network(chosen: Architecture, generator: np.random.Generator) -> Any:
    """Keras' own network with random kernels and random statistics of every batch normalisation."""
    import_tensorflow()
    import keras

    keras.backend.clear_session()
    build = keras.applications.InceptionV3
    if chosen.is_mobilenet:
        build = partial(keras.applications.MobileNet, alpha=chosen.width)
    network = build(
        input_shape=(chosen.size, chosen.size, 3), include_top=False, weights=None, pooling="avg"
    )
    for layer in network.layers:
        shapes = [array.shape for array in layer.get_weights()]
        if len(shapes) == 1:  # a kernel; scaled so that values neither vanish nor grow
            height, width, inputs, outputs = shapes[0]
            spread = np.sqrt(2 / (height * width * (1 if outputs == 1 else inputs)))
            layer.set_weights([generator.normal(0, spread, shapes[0])])
        elif shapes:
            *gamma, beta, mean, variance = (generator.uniform(-0.3, 0.3, shape) for shape in shapes)
            layer.set_weights([*(1 + g for g in gamma), beta, mean, 1 + variance])
    return network


def saved(network: Any, folder: Path, *, legacy: bool) -> Weights:
    """The network's numbers as a file, in one of Keras' two forms."""
    path = folder / ("network.h5" if legacy else "network.weights.h5")
    if legacy:
        import h5py
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, network)
    else:
        network.save_weights(path)
    return Weights.of(str(path), path.read_bytes())


def softmax(logits: Floats) -> Floats:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return shares


def apart(ours: Floats, theirs: Floats) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_each_export_of_each_backbone_gives_what_keras_gives(name: str, tmp_path: Path) -> None:
    tf = import_tensorflow()
    chosen = architecture(name)
    generator = np.random.default_rng(BACKBONES.index(name))
    network = random_network(chosen, generator)
    layers = read_layers(chosen, saved(network, tmp_path, legacy=BACKBONES.index(name) % 2 == 0))
    pixels = generator.integers(0, 256, (IMAGES, chosen.size, chosen.size, 3), dtype=np.uint8)
    scaled = pixels.astype(np.float32) / 127.5 - 1
    bottlenecks = np.asarray(network(scaled, training=False))
    assert np.ptp(bottlenecks, axis=0).max() > 0.01 * bottlenecks.max(), "images differ"

    engine = LiteRT(backbone_tflite(chosen, folded(layers)))
    assert apart(np.array(engine(list(pixels))), bottlenecks) < TOLERANCE

    for count in LABEL_COUNTS:
        labels = [f"label {i} é" for i in range(count)]
        spread = 3 / np.linalg.norm(bottlenecks, axis=1).mean()
        head = Head(
            generator.normal(0, spread, (count, chosen.bottleneck)).astype(np.float32),
            generator.normal(0, 1, count).astype(np.float32),
        )
        theirs = softmax(bottlenecks @ head.weights.T + head.bias)
        folder = tmp_path / str(count)
        folder.mkdir()
        formats.write(Network(chosen, layers, head, labels), FORMATS, folder, lambda: pixels)
        for form in FORMATS:
            run = open_runners(folder, form)[form.value]
            assert apart(run(pixels, []), theirs) < TOLERANCE, (form, count)
        named = tf.saved_model.load(str(folder / "saved_model")).signatures["pixels"](
            pixels=tf.constant(pixels, tf.float32)
        )
        assert named["labels"].numpy()[0].tolist() == [label.encode() for label in labels]
        best = [labels[i].encode() for i in theirs.argmax(axis=1)]
        assert named["label"].numpy().tolist() == best


@pytest.mark.parametrize("name", BACKBONES)
def test_every_template_is_there_without_its_numbers(name: str) -> None:
    chosen = architecture(name)
    for form in (templates.TFLITE, templates.FROZEN_GRAPH, templates.SAVED_MODEL, templates.ONNX):
        assert 10_000 < len(templates.template(name, form)) < 1_000_000  # unpacked
    assert templates.convolutions(name)[-1].channels in (chosen.bottleneck, 192)
    graph = protobuf.frozen_graph(chosen, None, 7)
    assert b"final_result" in graph


def test_all_templates_together_are_small() -> None:
    total = sum(path.stat().st_size for path in templates.FOLDER.iterdir() if path.is_file())
    assert total < 17 * 4 * 20_000


def test_the_check_says_when_a_template_is_not_what_the_tool_makes() -> None:
    command = [sys.executable, str(REPOSITORY / "tools/templates.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    recipe = templates.FOLDER / "recipe.json"
    before = recipe.read_text()
    try:
        recipe.write_text(json.dumps({**json.loads(before), "onnx": "another"}))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        recipe.write_text(before)
    assert done.returncode == 1
    assert done.stdout == (
        "The onnx templates are not what tools/templates.py makes: run make generate.\n"
    )


def test_arrays_lie_at_multiples_of_16_bytes_in_a_tflite_file() -> None:
    from ai_edge_litert import schema_py_generated as schema

    chosen = architecture("mobilenet_0.25_128")
    arrays: dict[str, Floats] = {}
    for convolution in templates.convolutions(chosen.name):
        arrays[f"{convolution.name}/kernel"] = np.ones(convolution.shape, np.float32)
        arrays[f"{convolution.name}/bias"] = np.ones(convolution.channels, np.float32)
    body = backbone_tflite(chosen, arrays)
    model = schema.Model.GetRootAs(body, 0)
    places = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            places.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert len(places) > 2 * len(templates.convolutions(chosen.name))
    assert {place % 16 for place in places} == {0}
