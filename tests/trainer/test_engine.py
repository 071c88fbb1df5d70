"""Both engines, the GPU's on the CPU device: all of it but the device itself."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.trainer_engine import Recorder, photo, photos, prepared, spec

from retrainer.api import architecture
from retrainer.errors import Interrupted, RetrainerError, StorageError
from retrainer.inference import pixels as images
from retrainer.inference.silence import quiet_environment
from retrainer_trainer import bottlenecks
from retrainer_trainer.backbone.engine import BATCH, KERAS_GPU, LITERT, Keras, LiteRT, gpu
from retrainer_trainer.backbone.layers import folded, read_layers
from retrainer_trainer.backbone.network import keras_network
from retrainer_trainer.backbone.tflite import backbone_tflite
from retrainer_trainer.backbone.weights import Weights
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.local import LocalStore

quiet_environment()
pytestmark = pytest.mark.slow  # TensorFlow

TOLERANCE = 1e-4
"""Largest difference of both engines' bottlenecks, relative to the image's largest value. Measured on
300 flower photos with five MobileNets of ImageNet: at most 1.4e-5."""


def cpu(_warn: Callable[[str], None]) -> str:
    """The CPU, given as if it were the GPU."""
    return "/CPU:0"


def on_device(wanted: Any, recorder: Recorder | None = None) -> bottlenecks.Bottlenecks:
    recorder = recorder or Recorder(wanted)
    job = bottlenecks.open_job(wanted, recorder, Stop(), find_gpu=cpu)
    return bottlenecks.compute_and_load(
        job, recorder, Stop(), LocalStore(Path(wanted.output), "run", "x")
    )


def apart(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float((np.abs(one - other).max(axis=1) / np.abs(other).max(axis=1)).max())


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", {"daisy": 70, "roses": 70})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


# --- the same numbers ---
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_0.25_224", "mobilenet_2_5_224_tf_no_top.h5"),
        ("mobilenet_1.0_224", "mobilenet_1_0_224_tf_no_top.weights.h5"),
    ],
)
def test_keras_gives_the_bottlenecks_of_litert_on_real_photos(
    flowers: Path, imagenet_weights: Path, name: str, file: str
) -> None:
    chosen = architecture(name)
    weights = Weights.of(file, (imagenet_weights / file).read_bytes())
    paths = sorted(flowers.glob("*/*.jpg"))[::15]
    pixels = [images.pixels(path.read_bytes(), chosen.size) for path in paths]
    assert len(pixels) > BATCH  # the last batch is not full
    layers = read_layers(chosen, weights)
    ours = Keras(keras_network(chosen, layers), "/CPU:0", pytest.fail)(pixels)
    theirs = LiteRT(backbone_tflite(chosen, folded(layers)))(pixels)
    assert apart(np.array(ours), np.array(theirs)) < TOLERANCE


def test_an_image_s_bottleneck_does_not_depend_on_those_beside_it() -> None:
    import tensorflow as tf

    engine = Keras(lambda x, training: tf.reduce_mean(x, (1, 2)), "/CPU:0", pytest.fail)
    pixels = [images.pixels(photo(seed), 64) for seed in range(3)]
    together = engine(pixels)
    assert all(
        (engine([one])[0] == bottleneck).all()
        for one, bottleneck in zip(pixels, together, strict=True)
    )
    assert engine([]) == []


def test_tensorfloat_32_is_off() -> None:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(True)
    Keras(lambda x, training: x, "/CPU:0", pytest.fail)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


# --- a whole job ---
def test_a_job_on_the_device_fills_a_cache_of_its_own_with_the_same_bottlenecks(
    photo_folder: Path, output: Path
) -> None:
    (photo_folder / "daisy/broken.jpg").write_bytes(photo(1)[:200])
    wanted = spec(photo_folder, output, distortions={"flipLeftRight": True, "views": 3})
    on_cores, recorder = prepared(wanted), Recorder(wanted)
    ready = on_device(wanted, recorder)
    assert (on_cores.backbone.runs_on, ready.backbone.runs_on) == (LITERT, KERAS_GPU)
    assert ready.backbone.fingerprint != on_cores.backbone.fingerprint
    assert recorder.report.progress.images_cached == 0
    assert recorder.report.progress.images_computed == 140
    assert ready.rejected == on_cores.rejected
    rows = np.flatnonzero(on_cores.matrix.any(axis=1))
    assert len(rows) > 140 * 3
    assert apart(ready.matrix[rows], on_cores.matrix[rows]) < TOLERANCE
    assert "Bottlenecks are computed on TensorFlow's /CPU:0, in batches of 64." in recorder.lines
    second = Recorder(wanted)
    on_device(wanted, second)
    assert second.report.progress.images_computed == 0


def test_a_stop_keeps_what_the_device_has_computed(photo_folder: Path, output: Path) -> None:
    class Stopping(Recorder):
        def update(self, **fields: Any) -> None:
            super().update(**fields)
            if (self.report.progress.images_computed or 0) > 0:
                stop.ask()

    stop = Stop()
    photos(photo_folder, {"tulips": 600}, first=1000)
    wanted = spec(photo_folder, output)
    recorder = Stopping(wanted)
    job = bottlenecks.open_job(wanted, recorder, stop, find_gpu=cpu)
    with pytest.raises(Interrupted):
        bottlenecks.compute_missing(job, recorder, stop)
    computed = recorder.report.progress.images_computed or 0
    assert 0 < computed < 740
    second = Recorder(wanted)
    on_device(wanted, second)
    assert second.report.progress.images_cached == computed


def test_a_store_that_dies_in_the_middle_loses_nothing_that_was_read(
    photo_folder: Path, output: Path
) -> None:
    class Dying(LocalStore):
        reads = 0

        def get(self, path: str, if_match: str | None = None) -> bytes:
            self.reads += 1
            if self.reads > 100:
                raise StorageError("Cannot reach the store.")
            return super().get(path, if_match)

    wanted = spec(photo_folder, output)
    job = bottlenecks.open_job(wanted, Recorder(wanted), Stop(), find_gpu=cpu)
    dying = Dying(photo_folder, "dying", "spec.images")
    recorder = Recorder(wanted)
    with pytest.raises(StorageError, match=r"^Cannot reach the store\.$"):
        bottlenecks.compute_missing(replace(job, images=dying), recorder, Stop())
    assert recorder.report.progress.images_computed == 100


# --- out of memory ---
def greedy(most: int) -> Any:
    """A network that asks for more memory than any machine has for each image above `most`."""
    import tensorflow as tf

    def network(pixels: Any, training: bool) -> Any:
        above = tf.maximum(tf.shape(pixels, tf.int64)[0] - most, 0)
        return tf.reduce_mean(pixels, (1, 2)) + tf.reduce_sum(tf.random.normal([above * 2**44]))

    return network


def test_too_little_memory_for_a_batch_makes_smaller_ones() -> None:
    warned: list[str] = []
    engine = Keras(greedy(16), "/CPU:0", warned.append)
    pixels = [images.pixels(photo(seed), 8) for seed in range(70)]
    computed = engine(pixels)
    assert warned == [
        "The memory of /CPU:0 is too small for batches of 64; from now on they have 16 images."
    ]
    means = [one.astype(np.float32).mean(axis=(0, 1)) / 127.5 - 1 for one in pixels]
    np.testing.assert_allclose(computed, means, atol=1e-5)


def test_too_little_memory_for_the_smaller_batch_is_an_error_that_says_what_to_do() -> None:
    warned: list[str] = []
    engine = Keras(greedy(0), "/CPU:0", warned.append)
    with pytest.raises(RetrainerError) as raised:
        engine([images.pixels(photo(1), 8)])
    assert str(raised.value) == (
        "The memory of /CPU:0 is too small for this architecture, even in batches of 16: ask for a "
        "GPU with more memory or one that nobody shares, or for none in spec.pod.resources."
    )
    assert raised.value.exit_code == 1
    assert len(warned) == 1


def test_a_device_that_fails_is_an_error_in_one_line() -> None:
    import tensorflow as tf

    def network(pixels: Any, training: bool) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(pixels, -9.0, "DNN is broken")]):
            return tf.reduce_mean(pixels, (1, 2))

    with pytest.raises(RetrainerError, match=r"^/CPU:0 fails \(.*DNN is broken.*\): check that"):
        Keras(network, "/CPU:0", pytest.fail)([images.pixels(photo(1), 8)])


# --- which one ---
def looked(devices: Path) -> tuple[str | None, Sequence[str]]:
    warned: list[str] = []
    return gpu(warned.append, devices), warned


def test_a_gpu_that_tensorflow_cannot_use_is_told_and_the_cores_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert looked(tmp_path) == (
        None,
        [
            "There is a GPU, but this TensorFlow cannot use it, for it is built for CPUs or the driver "
            "does not fit; bottlenecks are computed on the CPU."
        ],
    )


def test_a_gpu_without_tensorflow_is_told_and_the_cores_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    warned: list[str] = []
    assert gpu(warned.append, tmp_path, find=lambda _name: None) is None
    assert warned == [
        "There is a GPU, but TensorFlow, which would use it, is not installed here; bottlenecks are "
        "computed on the CPU. To use it: pip install 'retrainer[tensorflow]'."
    ]


@pytest.mark.parametrize(
    ("device", "visible"), [("nvidiactl", "0"), ("nvidia0", ""), ("nvidia0", "-1")]
)
def test_without_a_gpu_tensorflow_is_not_even_imported(
    tmp_path: Path, device: str, visible: str
) -> None:
    (tmp_path / device).touch()
    program = (
        "import sys; from pathlib import Path; from retrainer_trainer import bottlenecks; "
        "from retrainer_trainer.backbone import engine; "
        "assert engine.gpu(print, Path(sys.argv[1])) is None; "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={"CUDA_VISIBLE_DEVICES": visible},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
