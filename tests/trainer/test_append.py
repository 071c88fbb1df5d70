"""Heads put on given networks: the file gives what network and head gave apart."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper
from tests.support.small_networks import SIZE, WIDTH, onnx_network, tflite_network

from retrainer.api import Channels, Layout, Token
from retrainer.inference.onnx_network import OnnxNetwork
from retrainer.inference.preprocessing import Preprocessing
from retrainer.inference.tflite import TfliteNetwork
from retrainer_trainer.backbone.graphs import read_graph
from retrainer_trainer.backbone.runtimes import GivenNetwork
from retrainer_trainer.export.append import appended
from retrainer_trainer.head.softmax import Head

LABELS = ["daisy", "roses", "tulips"]
RANDOM = np.random.default_rng(1)
HEAD = Head(
    RANDOM.normal(0, 2, (len(LABELS), WIDTH)).astype(np.float32),
    RANDOM.normal(0, 1, len(LABELS)).astype(np.float32),
)
PIXELS = RANDOM.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def given(folder: Path, body: bytes, token: Token | None, prepared: Preprocessing) -> GivenNetwork:
    path = folder / ("network.onnx" if body[4:8] != b"TFL3" else "network.tflite")
    path.write_bytes(body)
    graph = read_graph(path, size=SIZE)
    return GivenNetwork(body, graph, graph.outputs[0].name, token, prepared)


def expected(outputs: npt.NDArray[Any], token: Token | None) -> npt.NDArray[np.float32]:
    bottlenecks = outputs.astype(np.float32)
    if token is Token.CLS:
        bottlenecks = bottlenecks[:, 0]
    elif token is Token.MEAN:
        bottlenecks = bottlenecks.mean(axis=1)
    bottlenecks = bottlenecks.reshape(len(outputs), WIDTH)
    return HEAD.scores(bottlenecks, np.arange(len(outputs)))


def run_onnx(body: bytes, numbers: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    numbers = numbers.astype(np.float16) if "16" in source.type else numbers
    return np.concatenate([session.run(None, {source.name: n[None]})[0] for n in numbers])


def run_tflite(body: bytes, numbers: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    interpreter = Interpreter(model_content=body)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in numbers:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result["index"]))
    return np.concatenate(outputs)


def all_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with float16 outside as well as inside."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    kernel = model.graph.initializer[0]
    halves = onnx.numpy_helper.to_array(kernel).astype(np.float16)
    kernel.CopyFrom(onnx.numpy_helper.from_array(halves, kernel.name))
    return model


def numbers_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """As files of version 3 are: each initializer is an input as well."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return model


def one_pixel_map(model: onnx.ModelProto) -> onnx.ModelProto:
    """(batch, WIDTH, 1, 1), as ResNet's pooler_output in Hugging Face."""
    del model.graph.node[-1]
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", WIDTH, 1, 1])
    )
    return model


ONNX: dict[str, tuple[onnx.ModelProto, Token | None]] = {
    "pooled": (onnx_network(), None),
    "cls": (onnx_network(tokens=True), Token.CLS),
    "mean before opset 18": (onnx_network(tokens=True), Token.MEAN),
    "mean since opset 18": (onnx_network(tokens=True, opset=18), Token.MEAN),
    "float16 weights": (onnx_network(halved=True), None),
    "float16 outside too": (all_float16(onnx_network()), None),
    "one image at a time": (onnx_network(batch=1, tokens=True), Token.CLS),
    "any size": (onnx_network(size="side"), None),
    "an old file": (numbers_as_inputs(onnx_network(opset=8)), None),
    "our names already": (onnx_network(source="pixels:0"), None),
    "a map of one pixel": (one_pixel_map(onnx_network()), None),
}


@pytest.mark.parametrize("case", ONNX)
@pytest.mark.parametrize("channels", Channels)
def test_an_onnx_network_with_its_head_takes_pixels_and_gives_the_heads_scores(
    tmp_path: Path, case: str, channels: Channels
) -> None:
    model, token = ONNX[case]
    body = model.SerializeToString()
    prepared = Preprocessing(size=SIZE, mean=MEAN, std=STD, channels=channels)
    network = given(tmp_path, body, token, prepared)
    whole = OnnxNetwork(appended(network, HEAD, LABELS))
    assert (whole.size, whole.label_count) == (SIZE, len(LABELS))
    wanted = expected(run_onnx(body, prepared.numbers(PIXELS)), token)
    tolerance = 2e-3 if "outside" in case else 1e-5
    np.testing.assert_allclose(whole.scores(PIXELS), wanted, atol=tolerance)
    assert whole.texts["labels.txt"] == "daisy\nroses\ntulips\n"


TFLITE: dict[str, tuple[bytes, Token | None]] = {
    "pooled": (tflite_network(), None),
    "cls": (tflite_network(tokens=True), Token.CLS),
    "mean": (tflite_network(tokens=True), Token.MEAN),
}


@pytest.mark.parametrize("case", TFLITE)
@pytest.mark.parametrize("channels", Channels)
def test_a_tensorflow_lite_network_with_its_head_does_too(
    tmp_path: Path, case: str, channels: Channels
) -> None:
    body, token = TFLITE[case]
    prepared = Preprocessing(size=SIZE, mean=MEAN, std=STD, channels=channels, layout=Layout.NHWC)
    network = given(tmp_path, body, token, prepared)
    whole = TfliteNetwork(appended(network, HEAD, LABELS))
    assert (whole.size, whole.label_count) == (SIZE, len(LABELS))
    wanted = expected(run_tflite(body, prepared.numbers(PIXELS)), token)
    np.testing.assert_allclose(whole.scores(PIXELS), wanted, atol=1e-5)


def test_real_networks_with_heads_give_the_heads_scores_in_both_formats(
    tmp_path: Path, test_data: Path
) -> None:
    backbones = test_data / "backbones" / "efficientnet_lite0"
    pixels = RANDOM.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    head = Head(RANDOM.normal(0, 1, (3, 1280)).astype(np.float32), HEAD.bias)
    scores = []
    for name, layout in (("model.onnx", Layout.NCHW), ("backbone.tflite", Layout.NHWC)):
        prepared = Preprocessing(
            size=224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, layout=layout
        )
        graph = read_graph(backbones / name)
        body = (backbones / name).read_bytes()
        network = GivenNetwork(body, graph, "pooler_output", None, prepared)
        runner = OnnxNetwork if name == "model.onnx" else TfliteNetwork
        scores.append(runner(appended(network, head, LABELS)).scores(pixels))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
