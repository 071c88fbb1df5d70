import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.trainer_engine import ARCHITECTURE, photo, spec

from retrainer.api import ARCHITECTURES, Storage, architecture
from retrainer.errors import StorageError, UserError
from retrainer.inference import pixels as images
from retrainer.inference.silence import quiet_environment
from retrainer_trainer.backbone.backbone import Engine
from retrainer_trainer.backbone.engine import KERAS_GPU, LITERT, LiteRT
from retrainer_trainer.backbone.layers import folded, read_layers
from retrainer_trainer.backbone.network import (
    ListedBackbone,
    fingerprint,
    keras_network,
    open_listed,
)
from retrainer_trainer.backbone.tflite import backbone_tflite
from retrainer_trainer.backbone.weights import BUILTIN, Weights, download, file_stems, find_weights
from retrainer_trainer.store.opening import open_store

quiet_environment()
pytestmark = pytest.mark.slow  # TensorFlow


def opened(folder: Path) -> tuple[ListedBackbone, list[str], list[str]]:
    lines: list[str] = []
    warned: list[str] = []
    store = open_store(str(folder), Storage(), "spec.cache")
    backbone = open_listed(spec("unused", folder), store, lines.append, warned.append)
    return backbone, lines, warned


def apart(engine: Engine, network: Any, size: int) -> float:
    """Largest relative difference of LiteRT's and Keras' bottlenecks over a few photos."""
    worst = 0.0
    for seed in range(4):
        pixels = images.pixels(photo(seed, 400, 300), size)
        (ours,) = engine([pixels])
        theirs = network(pixels[None].astype(np.float32) / 127.5 - 1.0, training=False).numpy()[0]
        assert ours.shape == theirs.shape
        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return worst


# --- the network ---
def test_the_backbone_gives_what_keras_gives(tmp_path: Path) -> None:
    backbone, _, _ = opened(tmp_path)
    network = keras_network(backbone.architecture, backbone.layers)
    assert apart(backbone.start(), network, 128) < 1e-4


def test_real_imagenet_weights_in_both_formats_give_what_keras_gives(
    imagenet_weights: Path,
) -> None:
    for name, file in (
        ("mobilenet_0.25_224", "mobilenet_2_5_224_tf_no_top.h5"),
        ("mobilenet_0.50_160", "mobilenet_5_0_160_tf_no_top.weights.h5"),
    ):
        import keras

        chosen = architecture(name)
        weights = Weights.of(file, (imagenet_weights / file).read_bytes())
        theirs = keras.applications.MobileNet(
            input_shape=(chosen.size, chosen.size, 3),
            alpha=chosen.width,
            include_top=False,
            weights=str(imagenet_weights / file),
            pooling="avg",
        )
        engine = LiteRT(backbone_tflite(chosen, folded(read_layers(chosen, weights))))
        assert apart(engine, theirs, chosen.size) < 1e-4


# --- the cache ---
def test_a_backbone_is_opened_without_a_word_and_leaves_nothing_in_the_cache(
    tmp_path: Path,
) -> None:
    backbone, lines, warned = opened(tmp_path)
    backbone.start()
    assert (lines, warned) == ([], [])
    assert backbone.architecture.name == ARCHITECTURE
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [
        "network-mobilenet_0.25_128"  # for `retrainer cache stats`
    ]


def test_the_fingerprint_tells_networks_weights_and_engines_apart_but_not_quantized_twins() -> None:
    one, other = Weights.of("a", b"1"), Weights.of("a", b"2")
    prints = {
        fingerprint(a, w, engine)
        for a in ARCHITECTURES.values()
        for w in (one, other)
        for engine in (LITERT, KERAS_GPU)
    }
    assert len(prints) == 2 * 2 * 17
    plain, twin = architecture("mobilenet_1.0_224"), architecture("mobilenet_1.0_224_quantized")
    for engine in (LITERT, KERAS_GPU):
        assert fingerprint(plain, one, engine) == fingerprint(twin, one, engine)


# --- files that hold no weights for the network ---
def unreadable(body: bytes, name: str = ARCHITECTURE) -> str:
    with pytest.raises(UserError) as raised:
        read_layers(architecture(name), Weights.of("s3://w/x.h5", body))
    assert raised.value.reason == "WeightsUnreadable"
    return str(raised.value)


def test_a_file_that_is_no_hdf5_is_refused() -> None:
    assert unreadable(b"no weights at all") == (
        "s3://w/x.h5 holds no weights for mobilenet_0.25_128: not an HDF5 file, or a damaged one."
    )


def test_a_truncated_weights_file_is_refused() -> None:
    body = BUILTIN.read_bytes()
    for share in (0.1, 0.5, 0.9):
        assert "holds no weights for mobilenet_0.25_128" in unreadable(
            body[: int(len(body) * share)]
        )


def test_weights_of_another_width_are_refused() -> None:
    text = unreadable(BUILTIN.read_bytes(), "mobilenet_0.50_128")
    assert text.startswith("s3://w/x.h5 holds no weights for mobilenet_0.50_128: ")


def test_weights_of_another_network_are_refused() -> None:
    assert "holds no weights for inception_v3" in unreadable(BUILTIN.read_bytes(), "inception_v3")


def test_a_whole_keras_file_is_refused_without_loading_it(tmp_path: Path) -> None:
    import keras

    network = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    network.save(tmp_path / "x.keras")
    assert "not an HDF5 file" in unreadable((tmp_path / "x.keras").read_bytes())


def test_a_weights_file_that_points_at_other_files_is_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
    assert "it points at other files" in unreadable((tmp_path / "x.h5").read_bytes())


def changed(tmp_path: Path, change: Callable[[Any], None]) -> bytes:
    """The builtin weights after a change to their file."""
    import h5py

    path = tmp_path / "changed.weights.h5"
    path.write_bytes(BUILTIN.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path.read_bytes()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        file["layers/conv2d_3/vars/0"][...] = np.nan

    assert unreadable(changed(tmp_path, change)).endswith("they give infinite numbers.")


def test_numbers_that_only_together_are_infinite_are_refused_before_an_image_is_computed(
    tmp_path: Path,
) -> None:
    def change(file: Any) -> None:
        for layer in ("conv2d_12", "conv2d_13", "batch_normalization_26"):
            for name in file[f"layers/{layer}/vars"]:
                file[f"layers/{layer}/vars/{name}"][...] = 3e38

    path = tmp_path / "huge.weights.h5"
    path.write_bytes(changed(tmp_path, change))
    wanted = spec("unused", tmp_path, weights=str(path))
    cache = open_store(str(tmp_path / "cache"), Storage(), "spec.cache")
    backbone = open_listed(wanted, cache, lambda _: None, lambda _: None)
    with pytest.raises(UserError, match="they give infinite numbers"):
        backbone.start()


def test_a_layer_of_another_shape_is_named_before_it_is_read(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        del file["layers/conv2d_5/vars/0"]
        # Announced only: 4 TB of which nothing lies in the file.
        file["layers/conv2d_5/vars"].create_dataset(
            "0", (1_000_000, 1_000_000), "f4", chunks=(1000, 1000)
        )

    text = unreadable(changed(tmp_path, change))
    assert "conv_pw_5 has the shape (1000000, 1000000), not (1, 1, 64, 64)" in text


def test_numbers_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        shape = file["layers/conv2d_5/vars/0"].shape
        del file["layers/conv2d_5/vars/0"]
        file["layers/conv2d_5/vars/0"] = np.zeros(shape, "S4")

    assert "conv_pw_5 has numbers of type |S4" in unreadable(changed(tmp_path, change))


def test_a_file_with_more_paths_than_can_be_walked_is_read_at_once(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        group = file.create_group("doubled")
        for _ in range(30):  # 2 ** 30 paths through 30 groups
            inner = group.create_group("a")
            group["b"] = inner
            group = inner

    def seconds(body: bytes) -> float:
        begun = time.process_time()
        assert len(read_layers(architecture(ARCHITECTURE), Weights.of("x", body))) == 27
        return time.process_time() - begun

    usual = [seconds(BUILTIN.read_bytes()) for _ in range(3)]
    assert seconds(changed(tmp_path, change)) < 20 * max(usual)


def test_a_file_with_endless_layers_is_refused(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        for i in range(2500):
            file["layers"].create_group(f"conv2d_{100 + i}")

    assert "layers" in unreadable(changed(tmp_path, change))


# --- where weights come from ---
def find(
    tmp_path: Path, weights: str, name: str = "mobilenet_0.50_224"
) -> tuple[Weights, list[str]]:
    warned: list[str] = []
    wanted = spec("in", tmp_path / "out", weights=weights, architecture=name)
    cache = open_store(wanted.cache_url, wanted.storage, "spec.cache")
    return find_weights(wanted, cache, lambda _text: None, warned.append), warned


def mirror(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_gives_the_file_of_the_size_in_either_format(tmp_path: Path) -> None:
    folder = mirror(
        tmp_path,
        "mobilenet_5_0_224_tf_no_top.h5",
        "mobilenet_5_0_160_tf_no_top.weights.h5",
        "mobilenet_1_0_224_tf_no_top.h5",
    )
    assert find(tmp_path, str(folder))[0].body == b"mobilenet_5_0_224_tf_no_top.h5"
    weights, warned = find(tmp_path, f"file://{folder}/", "mobilenet_0.50_160_quantized")
    assert weights.body == b"mobilenet_5_0_160_tf_no_top.weights.h5"
    assert warned == []


def test_another_size_of_the_same_width_is_used_with_a_warning(tmp_path: Path) -> None:
    folder = mirror(
        tmp_path, "mobilenet_5_0_160_tf_no_top.weights.h5", "mobilenet_1_0_224_tf_no_top.h5"
    )
    weights, warned = find(tmp_path, str(folder))
    assert weights.body == b"mobilenet_5_0_160_tf_no_top.weights.h5"
    assert warned == [
        f"{folder} has no weights of mobilenet_0.50_224: mobilenet_5_0_160_tf_no_top.weights.h5, "
        "trained at another size, is used instead; it is a little less accurate."
    ]


def test_a_folder_without_the_width_lists_what_it_has(tmp_path: Path) -> None:
    folder = mirror(tmp_path, "mobilenet_1_0_224_tf_no_top.h5", "notes.txt")
    with pytest.raises(UserError) as raised:
        find(tmp_path, str(folder))
    assert str(raised.value) == (
        f"No weights for mobilenet_0.50_224 in {folder}; it has: mobilenet_1_0_224_tf_no_top.h5."
    )
    assert raised.value.reason == "WeightsNotFound"


@pytest.mark.parametrize("name", ["gone", "gone/x.weights.h5"])
def test_weights_that_are_not_there_are_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=rf"No weights for mobilenet_0\.50_224 in .*{name}; it has: no such"
    ):
        find(tmp_path, str(tmp_path / name))


def test_imagenet_is_taken_from_the_cache_where_another_pod_left_it(tmp_path: Path) -> None:
    left = tmp_path / "out/.bottlenecks/weights/mobilenet_5_0_224_tf_no_top.h5"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left there")
    assert find(tmp_path, "imagenet")[0].body == b"left there"


def test_imagenet_is_taken_from_keras_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras/models").mkdir(parents=True)
    (tmp_path / "keras/models/mobilenet_5_0_224_tf_no_top.h5").write_bytes(b"downloaded before")
    assert find(tmp_path, "imagenet")[0].body == b"downloaded before"


def test_without_internet_imagenet_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        StorageError, match=r"put the file into a folder and name that in spec\.weights"
    ):
        find(tmp_path, "imagenet")


def test_a_damaged_file_in_the_cache_is_named_by_its_place(tmp_path: Path) -> None:
    left = tmp_path / "out/.bottlenecks/weights/mobilenet_5_0_224_tf_no_top.h5"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left there")
    weights, _ = find(tmp_path, "imagenet")
    with pytest.raises(UserError, match=rf"^{re.escape(str(left))} holds no weights for"):
        read_layers(architecture("mobilenet_0.50_224"), weights)


@contextlib.contextmanager
def answering(body: bytes, length: int) -> Iterator[str]:
    """URL of a server that announces `length` bytes and sends `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x.h5"
        thread.join()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:1/x.h5", "Connection refused"),
        ("http://nowhere.invalid/x.h5", "its host name is not known on this machine"),
    ],
)
def test_why_a_download_fails_is_told_in_words(url: str, cause: str) -> None:
    with pytest.raises(StorageError, match=rf" cannot be downloaded from {url} \({cause}\);"):
        download(url)


def test_a_download_is_kept_only_if_it_is_whole_and_a_file_of_weights() -> None:
    whole = BUILTIN.read_bytes()
    with answering(whole, len(whole)) as url:
        assert download(url) == whole
    with (
        answering(whole[:1000], len(whole)) as url,
        pytest.raises(
            StorageError, match=r"cannot be downloaded from .+ \(the connection was cut\)"
        ),
    ):
        download(url)
    page = b"<html>Please log in</html>"
    with (
        answering(page, len(page)) as url,
        pytest.raises(
            StorageError, match=r"\(what came is not an HDF5 file, perhaps a proxy's page"
        ),
    ):
        download(url)


def test_every_architecture_has_a_file_name_that_keras_publishes() -> None:
    names = {a: file_stems(architecture(a))[0] for a in ARCHITECTURES}
    assert names["mobilenet_0.75_192"] == "mobilenet_7_5_192_tf_no_top"
    assert names["inception_v3"] == "inception_v3_weights_tf_dim_ordering_tf_kernels_notop"
    assert len(set(names.values())) == 17
