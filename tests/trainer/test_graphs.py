"""Files of networks: what they say, and that whatever is wrong with one is a sentence about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.support.small_networks import SIZE, WIDTH, kernel, onnx_network, tflite_network

from retrainer.errors import UserError
from retrainer_trainer.backbone.facts import Graph, check_finite
from retrainer_trainer.backbone.graphs import read_graph
from retrainer_trainer.backbone.onnx_graphs import external_files, whole_file

PATCHES = (SIZE // 4) ** 2
MULTIPLY_ADDS = PATCHES * WIDTH * 4 * 4 * 3


def written(folder: Path, model: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as refused:
        read_graph(path, name="the file", **options)
    assert refused.value.reason == "BackboneRefused"
    assert str(refused.value).startswith("the file cannot be the backbone: ")
    return str(refused.value)


def test_an_onnx_file_says_what_it_takes_and_gives_and_costs(tmp_path: Path) -> None:
    graph = read_graph(written(tmp_path, onnx_network()))
    assert (graph.format, graph.layout, graph.size, graph.opset) == ("onnx", "NCHW", SIZE, 17)
    assert graph.input.name == "pixel_values"
    assert graph.input.shape == (None, 3, SIZE, SIZE)
    (output,) = graph.outputs
    assert (output.name, output.shape, output.dtype) == ("pooler_output", (None, WIDTH), "float32")
    assert graph.parameters == kernel().size
    assert graph.multiply_adds == MULTIPLY_ADDS


def test_a_tensorflow_lite_file_says_the_same(tmp_path: Path) -> None:
    graph = read_graph(written(tmp_path, tflite_network(), "backbone.tflite"))
    assert (graph.format, graph.layout, graph.size) == ("tflite", "NHWC", SIZE)
    assert graph.outputs[0].shape == (1, WIDTH)
    assert graph.parameters == kernel().size + WIDTH
    assert graph.multiply_adds == MULTIPLY_ADDS


def test_the_number_of_tokens_is_worked_out_where_the_graph_computes_it(tmp_path: Path) -> None:
    path = written(tmp_path, onnx_network(tokens=True, size="side"))
    assert read_graph(path, size=SIZE).outputs[0].shape == (None, PATCHES, WIDTH)
    open_sized = read_graph(path)
    assert (open_sized.size, open_sized.multiply_adds) == (None, None)


def test_a_matrix_product_costs_its_three_sizes(tmp_path: Path) -> None:
    model = onnx_network()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((WIDTH, 5), np.float32), "w"))
    model.graph.node.append(helper.make_node("MatMul", ["pooler_output", "w"], ["wider"]))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("wider", TensorProto.FLOAT, ["batch", 5])
    )
    assert read_graph(written(tmp_path, model)).multiply_adds == MULTIPLY_ADDS + WIDTH * 5


def test_where_no_shape_tells_the_layout_the_first_convolution_does(tmp_path: Path) -> None:
    model = onnx_network()
    for place in model.graph.input[0].type.tensor_type.shape.dim:
        place.dim_param = "any"
    graph = read_graph(written(tmp_path, model), size=SIZE)
    assert (graph.layout, graph.size, graph.multiply_adds) == ("NCHW", SIZE, MULTIPLY_ADDS)


def test_weights_in_float16_count_like_any_others(tmp_path: Path) -> None:
    graph = read_graph(written(tmp_path, onnx_network(halved=True)))
    assert (graph.parameters, graph.multiply_adds) == (kernel().size, MULTIPLY_ADDS)


def test_functions_of_the_file_itself_are_gone_into(tmp_path: Path) -> None:
    model = onnx_network(extra=[], domains=["own"])
    conv = model.graph.node[0]
    function = helper.make_function(
        "own", "Patches", ["x", "k"], ["y"],
        [helper.make_node("Conv", ["x", "k"], ["y"], kernel_shape=[4, 4], strides=[4, 4])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model.functions.append(function)
    conv.CopyFrom(helper.make_node("Patches", list(conv.input), list(conv.output), domain="own"))
    assert read_graph(written(tmp_path, model)).multiply_adds == MULTIPLY_ADDS
    model.functions[0].node.append(helper.make_node("Patches", ["x", "k"], ["z"], domain="own"))
    assert "call each other in a circle" in refusal(written(tmp_path, model))


# --- external data ---
def split_network(folder: Path, location: str = "model.onnx_data") -> Path:
    model = onnx_network()
    (tensor,) = model.graph.initializer
    body, tensor.raw_data = tensor.raw_data, b""
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "16"), ("length", str(len(body)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if "/" not in location.strip("/"):
        (folder / location.strip("/")).write_bytes(bytes(16) + body)
    return written(folder, model)


def test_data_beside_the_file_is_read_with_it(tmp_path: Path) -> None:
    path = split_network(tmp_path)
    assert external_files(path) == ["model.onnx_data"]
    assert read_graph(path).parameters == kernel().size
    whole = onnx.ModelProto.FromString(whole_file(path))
    assert np.array_equal(numpy_helper.to_array(whole.graph.initializer[0]), kernel())


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "a/../../b", "C:\\data", "a//b", ""])
def test_data_outside_of_the_folder_is_never_opened(tmp_path: Path, place: str) -> None:
    path = split_network(tmp_path, place or "x")
    if not place:
        model = onnx.ModelProto.FromString(path.read_bytes())
        model.graph.initializer[0].external_data[0].value = ""
        written(tmp_path, model)
    assert "not below its own folder" in refusal(path)
    with pytest.raises(UserError, match="not below its own folder"):
        external_files(path)


def test_links_are_refused_and_so_is_data_that_is_missing_or_short(tmp_path: Path) -> None:
    path = split_network(tmp_path)
    data = tmp_path / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:-1])
    assert "model.onnx_data is too short" in refusal(path)
    data.rename(tmp_path / "elsewhere")
    assert "model.onnx_data is not beside it" in refusal(path)
    data.symlink_to(tmp_path / "elsewhere")
    assert "model.onnx_data is a symbolic link" in refusal(path)
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    assert "it is a symbolic link" in refusal(link)


# --- what is refused, each with its sentence ---
def changed(change: Callable[[onnx.ModelProto], object], **options: Any) -> onnx.ModelProto:
    model = onnx_network(**options)
    change(model)
    return model


def output_of(kind: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Cast", ["pooler_output"], ["bytes"], to=kind))
        model.graph.output[0].name = "bytes"
        model.graph.output[0].type.tensor_type.elem_type = kind

    return change


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n"]))


def input_shape(*sizes: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(
            helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, sizes)
        )

    return change


def bomb(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([70_000, 70_000]), "huge"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["much"]))


def nested(model: onnx.ModelProto) -> None:
    node = helper.make_node("Evil", ["pixel_values"], ["z"], domain="com.evil")
    inner = helper.make_graph([node], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=inner))


FOREIGN = helper.make_node("Steal", ["pixel_values"], ["x"], domain="com.evil")
LOOP = helper.make_node("Loop", ["pixel_values", "pixel_values"], ["x"])
RANDOM = helper.make_node("RandomNormalLike", ["pixel_values"], ["x"])
EPCONTEXT = helper.make_node("EPContext", ["pixel_values"], ["x"], domain="com.microsoft")

WRONG: dict[str, tuple[onnx.ModelProto, str]] = {
    "operators of its own": (onnx_network(extra=[FOREIGN], domains=["com.evil"]), "com.evil.Steal"),
    "the same within a branch": (changed(nested), "com.evil.Evil"),
    "a loop": (onnx_network(extra=[LOOP]), "operator Loop loops"),
    "chance": (onnx_network(extra=[RANDOM]), "RandomNormalLike draws at random"),
    "compiled": (onnx_network(extra=[EPCONTEXT], domains=["com.microsoft"]), "reads a compiled file"),
    "a newer opset": (onnx_network(opset=999), "version 999 of ONNX' operators"),
    "an old opset": (onnx_network(opset=3), "7 is the oldest"),
    "a newer file": (changed(lambda m: setattr(m, "ir_version", 99)), "a file of version 99"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), "which version of ONNX' operators"),
    "no graph": (changed(lambda m: m.ClearField("graph")), "it holds no graph"),
    "bytes out": (changed(output_of(TensorProto.UINT8)), "outputs are floats (they are uint8)"),
    "two inputs": (changed(second_input), "2 inputs (pixel_values, input_ids)"),
    "batches": (onnx_network(batch=8), "exactly 8 images at once"),
    "no square": (changed(input_shape(1, 3, 32, 64)), "it takes 32 x 64 pixels, and only squares"),
    "grey": (changed(input_shape(1, 32, 32, 1), size=32), "its pixels have"),
    "a vector": (changed(input_shape(1, 3)), "has 2 axes, and pixels have 4"),
    "absurdly large": (changed(input_shape(1, 3, 100_000, 100_000)), "at most"),
    "a bomb": (changed(bomb), "its operator ConstantOfShape has 4,900,000,000 numbers"),
    "negative": (
        changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -3)), "the shape [-3, 3, 4, 4]",
    ),
    "numbers missing": (
        changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, 9)), "needs 1,728",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_onnx_file_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path, case: str
) -> None:
    model, sentence = WRONG[case]
    assert sentence in refusal(written(tmp_path, model))


def test_a_tensorflow_lite_file_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    def refused(body: bytes) -> str:
        return refusal(written(tmp_path, body, "backbone.tflite"))

    assert "not TensorFlow Lite's own (Steal)" in refused(tflite_network(custom="Steal"))
    assert "made with SELECT_TF_OPS" in refused(tflite_network(custom="FlexErf"))
    assert "none of its outputs are floats (they are uint8)" in refused(
        tflite_network(result_type="UINT8")
    )
    assert "no TensorFlow Lite file" in refused(b"something else altogether")


def test_files_that_are_no_networks_are_refused_in_a_sentence(tmp_path: Path) -> None:
    assert "neither an .onnx nor a .tflite file" in refusal(written(tmp_path, b"", "x.bin"))
    assert "there is no such file" in refusal(tmp_path / "none.onnx")
    assert "it is empty" in refusal(written(tmp_path, b""))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    assert "run git lfs pull" in refusal(written(tmp_path, pointer))
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(5 * 2**30)  # a hole: it takes no space
    assert "it has 5.0 GiB, at most 1.8 GiB are read" in refusal(tmp_path / "huge.onnx")


def test_a_size_that_is_not_the_files_own_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, onnx_network())
    assert f"it takes {SIZE} x {SIZE} pixels, but the size asked for is 64" in refusal(
        path, size=64
    )


def test_a_bottleneck_that_is_no_number_is_refused() -> None:
    check_finite(np.zeros(3, np.float32), "the file")
    with pytest.raises(UserError, match="infinite or undefined numbers for a plain grey picture"):
        check_finite(np.array([0, np.nan], np.float32), "the file")


# --- damage ---
BODIES = {
    "model.onnx": onnx_network(tokens=True, halved=True).SerializeToString(),
    "backbone.tflite": tflite_network(),
}


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    body = bytearray(BODIES[name])
    if data.draw(st.booleans(), "cut"):
        del body[data.draw(st.integers(0, len(body) - 1), "length") :]
    for _ in range(data.draw(st.integers(0, 4), "flips")):
        if body:
            place = data.draw(st.integers(0, len(body) - 1), "place")
            body[place] = data.draw(st.integers(0, 255), "byte")
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(body)
    try:
        assert isinstance(read_graph(path, name="the file"), Graph)
    except UserError as refused:
        assert refused.reason == "BackboneRefused"  # noqa: PT017 - either outcome is right


# --- real networks ---
def test_real_networks_are_read_as_their_papers_count_them(test_data: Path) -> None:
    backbones = test_data / "backbones"
    lite = read_graph(backbones / "efficientnet_lite0" / "model.onnx")
    same = read_graph(backbones / "efficientnet_lite0" / "backbone.tflite")
    assert lite.multiply_adds == same.multiply_adds == 383_907_552
    assert lite.outputs[0].shape == same.outputs[0].shape == (None, 1280)
    vit = read_graph(backbones / "vit_s" / "model.onnx", size=224)
    # 257 tokens of 384 through 12 blocks: 12 * 257 * (12 * 384**2 + 2 * 257 * 384) and the patches.
    assert vit.multiply_adds == 12 * 257 * (12 * 384**2 + 2 * 257 * 384) + 256 * 384 * 588
    assert vit.outputs[0].shape == (None, 257, 384)
    assert 21_900_000 < vit.parameters < 22_100_000
