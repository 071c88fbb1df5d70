"""Networks of one's own: which file of a folder, what of it is the bottleneck, and who shares it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.small_networks import SIZE, WIDTH, onnx_network, tflite_network
from tests.support.trainer_engine import UID, Recorder, photo, photos, prepared

from retrainer.api import BackboneSource, RetrainJobSpec, Storage, Task, Token
from retrainer.errors import UserError
from retrainer.inference.classifier import predict
from retrainer.inference.preprocessing import CONFIG_FILE, Preprocessing
from retrainer.results.comparison import compare
from retrainer.results.run import Run
from retrainer_trainer import train
from retrainer_trainer.backbone.engine import BATCH
from retrainer_trainer.backbone.given import GivenBackbone, open_given
from retrainer_trainer.backbone.graphs import read_graph
from retrainer_trainer.backbone.runtimes import CPU, CUDA, GivenNetwork, OnnxRuntime, onnx_providers
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store

CONFIG = {
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": 32, "width": 32},
    "resample": 3,
}  # fmt: skip
MEAN = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, onnx.ModelProto):
            path.write_bytes(content.SerializeToString())
        elif isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            path.write_bytes(content)
    return folder


def job(
    place: Path | str, out: Path, images: Path | str = "unused", /, **fields: Any
) -> RetrainJobSpec:
    spec = {
        name: fields.pop(name) for name in ("export", "distortions", "training") if name in fields
    }
    source = BackboneSource(url=str(place), **fields)
    return RetrainJobSpec(backbone=source, images=str(images), output=str(out), **spec)


def opened(place: Path | str, folder: Path, /, **fields: Any) -> GivenBackbone:
    spec = job(place, folder / "out", **fields)
    assert spec.backbone is not None
    cache = open_store(str(folder / "cache"), Storage(), "spec.cache")
    return open_given(spec, spec.backbone, cache, lambda _: None, lambda _: None)


def refusal(place: Path | str, folder: Path, /, **fields: Any) -> UserError:
    with pytest.raises(UserError) as error:
        opened(place, folder, **fields).start()
    return error.value


def bottleneck(backbone: GivenBackbone, body: bytes) -> npt.NDArray[np.float32]:
    (result,) = backbone.start()([backbone.pixels(body, backbone.size)])
    return result


def by_hand(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The network's only output for one image, its numbers made as the configuration says."""
    numbers = ((pixels / 255 - MEAN["mean"]) / MEAN["std"]).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (source,) = session.get_inputs()
    (output,) = session.run(None, {source.name: numbers.transpose(2, 0, 1)[None]})
    return np.asarray(output[0])


# --- which file ---
def test_a_folder_is_read_as_hugging_face_lays_one_out(tmp_path: Path) -> None:
    network, lite = onnx_network(), tflite_network()
    layouts: dict[str, dict[str, Any]] = {
        "model.onnx": {"model.onnx": network, "backbone.tflite": lite},
        "onnx/model.onnx": {
            "onnx/model.onnx": network,
            "onnx/model_fp16.onnx": b"",
            "model.tflite": lite,
        },
        "backbone.tflite": {"backbone.tflite": lite, "model.tflite": b""},
        "model.tflite": {"model.tflite": lite},
    }
    for i, (expected, files) in enumerate(layouts.items()):
        folder = write(tmp_path / str(i), {**files, CONFIG_FILE: CONFIG, "config.json": {}})
        assert opened(folder, tmp_path).origin == f"{folder}/{expected}"


def test_a_file_is_taken_by_its_name_with_the_configuration_of_its_repository(
    tmp_path: Path,
) -> None:
    folder = write(
        tmp_path / "net", {"onnx/vision_model.onnx": onnx_network(), CONFIG_FILE: CONFIG}
    )
    backbone = opened(folder / "onnx" / "vision_model.onnx", tmp_path)
    assert (backbone.name, backbone.width, backbone.size) == ("vision_model", WIDTH, SIZE)
    assert backbone.network.preprocessing.mean == (0.5, 0.4, 0.3)
    (tmp_path / "cache" / backbone.fingerprint / "network-vision_model").stat()


def test_a_folder_without_a_network_is_told_with_what_it_has(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"onnx/vision_model.onnx": b"x", "config.json": {}})
    error = refusal(folder, tmp_path)
    assert error.reason == "BackboneNotFound"
    assert str(error) == (
        f"No backbone in {folder}: name one of its files itself: onnx/vision_model.onnx."
    )
    other = write(tmp_path / "other", {"README.md": b"x"})
    assert "it holds README.md." in str(refusal(other, tmp_path))
    assert "there is no such folder." in str(refusal(tmp_path / "none", tmp_path))
    assert "there is no such file." in str(refusal(tmp_path / "none.onnx", tmp_path))


@pytest.mark.parametrize("content", [b"{", b"[]", b" " * 2**20 + b"{}", b"[" * 10_000])
def test_a_configuration_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "net", {"model.onnx": onnx_network(), CONFIG_FILE: content})
    error = refusal(tmp_path / "net", tmp_path)
    assert error.reason == "BackboneIncomplete"
    assert f"{tmp_path}/net/{CONFIG_FILE} cannot be read" in str(error)


def test_what_no_file_says_is_asked_for_by_its_field(tmp_path: Path) -> None:
    write(tmp_path, {"model.onnx": onnx_network(size="side")})
    assert "set spec.backbone.size and spec.backbone.mean and spec.backbone.std." in str(
        refusal(tmp_path, tmp_path)
    )
    assert opened(tmp_path, tmp_path, size=48, **MEAN).size == 48


def test_a_pointer_of_git_lfs_says_to_pull(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    write(tmp_path, {"model.onnx": pointer, CONFIG_FILE: CONFIG})
    assert "run git lfs pull" in str(refusal(tmp_path, tmp_path))


def test_numbers_that_onnx_keeps_in_another_file_are_read_with_it(tmp_path: Path) -> None:
    write(tmp_path / "net", {CONFIG_FILE: CONFIG})
    onnx.save_model(
        onnx_network(), tmp_path / "net" / "model.onnx", save_as_external_data=True,
        location="model.onnx_data", size_threshold=0,
    )  # fmt: skip
    apart = opened(tmp_path / "net", tmp_path)
    whole = opened(
        write(tmp_path / "one", {"model.onnx": onnx_network(), CONFIG_FILE: CONFIG}), tmp_path
    )
    np.testing.assert_array_equal(bottleneck(apart, photo(1)), bottleneck(whole, photo(1)))
    (tmp_path / "net" / "model.onnx_data").unlink()
    assert "its file model.onnx_data is not there" in str(refusal(tmp_path / "net", tmp_path))


def test_a_link_to_a_file_elsewhere_is_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "elsewhere", {"model.onnx": onnx_network()}) / "model.onnx"
    write(tmp_path / "net", {CONFIG_FILE: CONFIG})
    (tmp_path / "net" / "model.onnx").symlink_to(secret)
    assert "symbolic link" in str(refusal(tmp_path / "net", tmp_path))


# --- what becomes the bottleneck ---
@pytest.mark.parametrize("change", [{}, {"halved": True}, {"batch": 1}, {"size": "side"}])
def test_bottlenecks_are_the_networks_output(tmp_path: Path, change: dict[str, Any]) -> None:
    network = onnx_network(**change)
    write(tmp_path, {"model.onnx": network, CONFIG_FILE: CONFIG})
    backbone = opened(tmp_path, tmp_path)
    expected = by_hand(network, backbone.pixels(photo(1, 90, 60), SIZE))
    np.testing.assert_allclose(
        bottleneck(backbone, photo(1, 90, 60)), expected, rtol=1e-4, atol=1e-5
    )


def test_of_tokens_the_first_or_their_mean_is_taken(tmp_path: Path) -> None:
    network = onnx_network(tokens=True)
    write(tmp_path, {"model.onnx": network, CONFIG_FILE: CONFIG})
    assert "set spec.backbone.token to cls (the first one) or mean" in str(
        refusal(tmp_path, tmp_path)
    )
    cls, mean = (opened(tmp_path, tmp_path, token=token) for token in Token)
    expected = by_hand(network, cls.pixels(photo(1), SIZE))
    np.testing.assert_allclose(bottleneck(cls, photo(1)), expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        bottleneck(mean, photo(1)), expected.mean(axis=0), rtol=1e-4, atol=1e-5
    )
    lite = opened(write(tmp_path / "lite", {"model.tflite": tflite_network(tokens=True)}), tmp_path,
                  token="mean", **MEAN)  # fmt: skip
    assert lite.width == WIDTH


def test_both_runtimes_give_the_same_bottlenecks_of_the_same_network(tmp_path: Path) -> None:
    files = {"model.onnx": onnx_network(), "backbone.tflite": tflite_network(), CONFIG_FILE: CONFIG}
    folder = write(tmp_path / "net", files)
    one, other = opened(folder, tmp_path), opened(folder / "backbone.tflite", tmp_path)
    assert one.runs_on != other.runs_on
    assert one.fingerprint != other.fingerprint
    for seed in range(3):
        np.testing.assert_allclose(
            bottleneck(one, photo(seed)), bottleneck(other, photo(seed)), atol=1e-3
        )


def test_of_several_outputs_the_one_that_the_job_names_is_used(tmp_path: Path) -> None:
    network = onnx_network()
    network.graph.node.append(helper.make_node("Neg", ["pooler_output"], ["negative"]))
    network.graph.output.append(
        helper.make_tensor_value_info("negative", TensorProto.FLOAT, ["batch", WIDTH])
    )
    write(tmp_path, {"model.onnx": network, CONFIG_FILE: CONFIG})
    assert "set spec.backbone.output to one of pooler_output, negative." in str(
        refusal(tmp_path, tmp_path)
    )
    assert (
        "has no output pooled: set spec.backbone.output to one of pooler_output, negative."
        in str(refusal(tmp_path, tmp_path, output="pooled"))
    )
    usual, negative = (opened(tmp_path, tmp_path, output=o) for o in ("pooler_output", "negative"))
    np.testing.assert_array_equal(bottleneck(usual, photo(1)), -bottleneck(negative, photo(1)))
    assert usual.fingerprint != negative.fingerprint


def test_a_network_without_a_vector_is_refused_with_its_outputs(tmp_path: Path) -> None:
    network = onnx_network()
    network.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", WIDTH, 8, 8])
    )
    write(tmp_path, {"model.onnx": network, CONFIG_FILE: CONFIG})
    error = refusal(tmp_path, tmp_path)
    assert error.reason == "BackboneRefused"
    assert f"(map (any, {WIDTH}, 8, 8)): export the network with a pooled output" in str(error)


def test_a_network_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    kernel = np.full((WIDTH, 3, 4, 4), np.nan, np.float32)
    write(tmp_path, {"model.onnx": onnx_network(numbers=kernel), CONFIG_FILE: CONFIG})
    assert "infinite or undefined numbers" in str(refusal(tmp_path, tmp_path))


def test_formats_that_it_cannot_give_are_refused_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"model.onnx": onnx_network(), CONFIG_FILE: CONFIG})
    error = refusal(tmp_path, tmp_path, export=["tflite"])
    assert str(error).endswith(
        f"spec.export: tflite: the backbone {tmp_path}/model.onnx is exported as onnx only; leave "
        "spec.export out for that."
    )


# --- the cache ---
def test_two_jobs_on_one_file_from_two_places_share_all_bottlenecks(tmp_path: Path) -> None:
    images = photos(tmp_path / "images", {"a": 12, "b": 12})
    for place in ("one", "two/onnx"):
        write(tmp_path / place, {"model.onnx": onnx_network()})
        write(tmp_path / place.split("/", 1)[0], {CONFIG_FILE: CONFIG})
    first = job(tmp_path / "one", tmp_path / "out", images)
    ready = prepared(first)
    assert ready.matrix.shape == (24, WIDTH)
    recorder = Recorder(first)
    prepared(job(tmp_path / "two", tmp_path / "out", images), recorder)
    assert recorder.report.progress.images_cached == 24
    other = Recorder(first)
    prepared(job(tmp_path / "two", tmp_path / "out", images, mean=[0.1] * 3), other)
    assert other.report.progress.images_cached == 0


def test_distorted_views_are_computed_of_a_network_of_ones_own(tmp_path: Path) -> None:
    images = photos(tmp_path / "images", {"a": 15, "b": 15})
    write(tmp_path / "net", {"model.onnx": onnx_network(), CONFIG_FILE: CONFIG})
    distortions = {"flip_left_right": True, "random_crop": 10, "views": 2}
    ready = prepared(job(tmp_path / "net", tmp_path / "out", images, distortions=distortions))
    assert ready.views.shape == (30, 2)
    assert np.isfinite(ready.matrix).all()


# --- a whole run ---
@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_a_run_exports_the_network_with_its_head_and_says_what_it_was(
    tmp_path: Path, form: str
) -> None:
    images = photos(tmp_path / "images", {"a": 15, "b": 15})
    files: dict[str, Any] = {"onnx/model.onnx": onnx_network(), CONFIG_FILE: CONFIG}
    if form == "tflite":
        files = {"backbone.tflite": tflite_network(), CONFIG_FILE: CONFIG}
    write(tmp_path / "small_net", files)
    spec = job(tmp_path / "small_net", tmp_path / "out", images, training={"steps": 20})
    task = Task(task="train", name="t", uid=UID, spec=spec)
    train.run(task, Recorder(spec, "train"), Stop())
    run = Run(task.run_url)
    evaluation = run.evaluation
    assert (evaluation.network, evaluation.architecture) == ("small_net", "")
    assert evaluation.backbone == str(tmp_path / "small_net")
    assert (evaluation.size, evaluation.bottleneck) == (SIZE, WIDTH)
    assert evaluation.multiply_adds == 8 * 8 * WIDTH * 3 * 16
    assert list(evaluation.exports) == [form]
    assert evaluation.exports[form].different == 0
    assert evaluation.exports[form].images == evaluation.images
    assert "small_net retrained on 2 labels" in (Path(task.run_url) / "report.html").read_text()
    (row,) = compare([run]).rows
    assert (row.architecture, row.multiply_adds) == ("small_net", evaluation.multiply_adds)
    assert row.parameters == (evaluation.parameters or 0) + (WIDTH + 1) * 2
    for guess in run.predictions():
        (prediction,) = predict(task.run_url, images / guess.path)
        assert prediction.label == guess.guess
        assert prediction.score == pytest.approx(guess.score, abs=1e-4)


# --- on a GPU ---
def test_cuda_is_chosen_where_there_is_a_gpu_that_onnx_runtime_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    warned: list[str] = []
    assert onnx_providers(warned.append, tmp_path, lambda: [CUDA, CPU]) == [CPU]
    (tmp_path / "nvidia0").touch()
    assert onnx_providers(warned.append, tmp_path, lambda: [CUDA, CPU]) == [CUDA, CPU]
    assert not warned
    assert onnx_providers(warned.append, tmp_path, lambda: [CPU]) == [CPU]
    assert "pip install onnxruntime-gpu" in warned[0]


def test_a_gpu_that_fails_leaves_the_bottlenecks_to_the_cpu(tmp_path: Path) -> None:
    write(tmp_path, {"model.onnx": onnx_network(), CONFIG_FILE: CONFIG})
    spec = job(tmp_path, tmp_path / "out")
    assert spec.backbone is not None
    warned: list[str] = []
    cache = open_store(str(tmp_path / "cache"), Storage(), "spec.cache")
    backbone = open_given(
        spec, spec.backbone, cache, lambda _: None, warned.append,
        find_providers=lambda _: [CUDA, CPU],
    )  # fmt: skip
    assert backbone.batch == 1
    assert "the driver or CUDA does not fit" in warned[0]
    assert backbone.fingerprint == opened(tmp_path, tmp_path).fingerprint


def test_a_tensorflow_lite_file_beside_a_gpu_says_what_would_use_it(tmp_path: Path) -> None:
    write(tmp_path, {"model.tflite": tflite_network(), CONFIG_FILE: CONFIG})
    spec = job(tmp_path, tmp_path / "out")
    assert spec.backbone is not None
    warned: list[str] = []
    cache = open_store(str(tmp_path / "cache"), Storage(), "spec.cache")
    open_given(
        spec, spec.backbone, cache, lambda _: None, warned.append,
        find_providers=lambda _: [CUDA, CPU],
    )  # fmt: skip
    assert "name the network's ONNX file in spec.backbone.url to use it." in warned[0]


@pytest.mark.parametrize("batch", ["batch", 1])
def test_a_batch_gives_each_image_its_own_bottleneck(tmp_path: Path, batch: int | str) -> None:
    write(tmp_path, {"model.onnx": onnx_network(batch=batch), CONFIG_FILE: CONFIG})
    backbone = opened(tmp_path, tmp_path)
    engine = OnnxRuntime(backbone.network, "model.onnx", [CPU])
    pixels = [backbone.pixels(photo(seed), SIZE) for seed in range(BATCH + 1)]
    alone = backbone.start()
    for one, image in zip(engine(pixels), pixels, strict=True):
        np.testing.assert_allclose(one, alone([image])[0], rtol=1e-5, atol=1e-6)


def test_a_batch_that_fails_is_computed_in_smaller_ones(tmp_path: Path) -> None:
    network = onnx_network()
    network.graph.initializer.append(numpy_helper.from_array(np.array([16, 3, SIZE, SIZE]), "few"))
    network.graph.node.insert(0, helper.make_node("Reshape", ["pixel_values", "few"], ["sixteen"]))
    network.graph.node[1].input[0] = "sixteen"
    path = write(tmp_path, {"model.onnx": onnx_network()}) / "model.onnx"
    prepared_as = Preprocessing(SIZE)
    given = GivenNetwork(path.read_bytes(), read_graph(path), "pooler_output", None, prepared_as)
    engine = OnnxRuntime(given._replace(body=network.SerializeToString()), "model.onnx", [CPU])
    usual = OnnxRuntime(given, "model.onnx", [CPU])
    pixels = [prepared_as.pixels(photo(seed)) for seed in range(BATCH)]
    np.testing.assert_allclose(engine(pixels), usual(pixels), rtol=1e-5, atol=1e-6)


def test_a_file_that_is_too_large_is_not_copied(tmp_path: Path) -> None:
    write(tmp_path, {CONFIG_FILE: CONFIG})
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(5 * 2**30)  # sparse
    assert "it has 5.0 GiB, at most 1.8 GiB are read" in str(refusal(tmp_path, tmp_path))
