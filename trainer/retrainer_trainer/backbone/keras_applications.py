"""Makes a backbone's folder of a network of Keras Applications; needs TensorFlow.

Which networks there are, and what each wants its pixels to be, is asked of the Keras that is installed:
nothing of it is written down here.
"""

import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.errors import StorageError, UserError
from retrainer.inference.silence import import_tensorflow, quiet
from retrainer_trainer.backbone.facts import Graph
from retrainer_trainer.backbone.graphs import read_graph
from retrainer_trainer.backbone.tflite import pack, unpack

FILE, CONFIG, README = "backbone.tflite", "preprocessor_config.json", "README.md"
INPUT, OUTPUT = "pixel_values", "pooler_output"

IMAGENET, NONE = "imagenet", "none"
"""Weights that are no file: the download, and random numbers (to try things with)."""

_USUAL_SIZE = 224  # of ImageNet's pictures for networks that take any size, such as MobileNetV3
_BILINEAR = 2  # Pillow's number, which Hugging Face's configurations use
_HDF5 = b"\x89HDF\r\n\x1a\n"

# What Keras says of the weights that it publishes, by the module of its networks.
_LICENCES = {
    "vgg16": "ported from those of the Visual Geometry Group, Oxford (CC BY 4.0)",
    "vgg19": "ported from those of the Visual Geometry Group, Oxford (CC BY 4.0)",
    "resnet": "ported from those of Kaiming He (MIT)",
    "densenet": "ported from those of Zhuang Liu (BSD 3-clause)",
}
_OTHER_LICENCE = "published with Keras (Apache-2.0)"


@dataclass(frozen=True)
class Added:
    """What `make_folder` has written.

    Attributes:
        name: of the network, as Keras has it.
        size: height and width of its input, pixels.
        graph: what its file says of itself.
        files: name and content.
    """

    name: str
    size: int
    graph: Graph
    files: dict[str, bytes]


def names() -> list[str]:
    """List the networks that the installed Keras has."""
    import_tensorflow()
    import keras

    return sorted(
        name
        for name, build in vars(keras.applications).items()
        if name[0].isupper() and callable(build)
    )


def make_files(name: str, weights: str, size: int | None, log: Callable[[str], None]) -> Added:
    """Make the files of a backbone's folder.

    Args:
        name: of a network, as Keras has it, in any case.
        weights: `IMAGENET`, `NONE`, or the path of a file of weights without the classifier (.h5).
        size: height and width of the input; the network's own if None.
        log: called with a sentence before what takes long.

    Raises:
        UserError: there is no such network, or the weights are not its own.
        StorageError: the weights cannot be downloaded.
    """
    exact = _named(name)
    side = size or default_size(exact)
    log(f"Building {exact} for {side} x {side} pixels.")
    network = build(exact, side, weights)
    log("Converting it, up to some minutes.")
    body = convert(network, side)
    config = preprocessor_config(exact, side)
    with tempfile.TemporaryDirectory(prefix="retrainer-") as folder:
        path = Path(folder, FILE)
        path.write_bytes(body)
        graph = read_graph(path)
    origin = _origin(exact, weights)
    files = {
        FILE: body,
        CONFIG: f"{json.dumps(config, indent=2)}\n".encode(),
        README: _readme(exact, side, graph, origin, body).encode(),
    }
    return Added(exact, side, graph, files)


def _named(name: str) -> str:
    available = names()
    exact = next((other for other in available if other.lower() == name.lower()), None)
    if exact is None:
        import keras

        raise UserError(
            f"Keras {keras.__version__} has no network {name}; it has {', '.join(available)}."
        )
    return exact


def default_size(name: str) -> int:
    """Height and width that a network was made for."""
    return _refused_size(name, "should be", include_top=True, weights=IMAGENET) or _USUAL_SIZE


def smallest_size(name: str) -> int:
    """Smallest height and width that a network takes."""
    size = _refused_size(name, "at least", include_top=False, weights=None)
    return size or default_size(name)


def _refused_size(name: str, phrase: str, **options: Any) -> int | None:
    """The size that Keras names when it refuses another one; it has no function that tells."""
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(keras.applications, name)(input_shape=(1, 1, 3), **options)
    except ValueError as refused:
        if size := re.search(rf"{phrase} \(?(\d+)", str(refused)):
            return int(size[1])
    return None


def build(name: str, size: int, weights: str) -> Any:
    """The network in Keras without its classifier, the average of its last map as its output."""
    import keras

    function = getattr(keras.applications, name)
    published = IMAGENET if weights == IMAGENET else None
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network = function(
                input_shape=(size, size, 3), include_top=False, weights=published, pooling="avg"
            )
        except ValueError as error:
            raise UserError(
                f"{name} cannot be built for {size} x {size} pixels: {error}."
            ) from error
        except Exception as error:  # Keras raises plain ones where a download fails
            if published is None:
                raise
            raise StorageError(
                f"The weights of {name} cannot be downloaded ({error}): put the file that Keras "
                "publishes beside you and name it with --weights."
            ) from error
    if weights not in {IMAGENET, NONE}:
        _load(network, name, weights)
    return network


def _load(network: Any, name: str, path: str) -> None:
    """Read a file of weights into the network; a file of Keras' own format is not, which holds code."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(_HDF5))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if start != _HDF5 or not path.endswith(".h5"):
        raise UserError(
            f"{path} is no HDF5 file of weights: give the .h5 file that Keras publishes for {name}."
        )
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} holds no weights of {name} without its classifier ({detail}): give the file whose "
            "name ends in notop.h5."
        ) from error


def convert(network: Any, size: int) -> bytes:
    """The network as a TensorFlow Lite file, of any number of images.

    Raises:
        UserError: it needs operators that TensorFlow Lite has not.
    """
    tf = import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    spec = tf.TensorSpec((None, size, size, 3), tf.float32, name=INPUT)

    @tf.function(input_signature=[spec])  # type: ignore[untyped-decorator]
    def bottlenecks(pixel_values: Any) -> Any:
        return network(pixel_values, training=False)

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Keras' variables would become variables of the file, which a backbone may not have.
        frozen = convert_variables_to_constants_v2(bottlenecks.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            body = converter.convert()
        except Exception as error:  # of classes that only its compiled module names
            detail = " ".join(str(error).split())[:300]
            raise UserError(
                f"This network cannot be converted to TensorFlow Lite ({detail}): export it as ONNX."
            ) from error
    model = unpack(body)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = INPUT.encode()
    graph.tensors[graph.outputs[0]].name = OUTPUT.encode()
    return pack(model)


# --- pixels ---
def preprocessor_config(name: str, size: int) -> dict[str, Any]:
    """What the network wants its pixels to be, in Hugging Face's convention.

    Keras has a function for it, which is asked with black, red, green and blue: all of them scale and
    shift each colour, and some turn their order.
    """
    import importlib

    import keras

    module = importlib.import_module(getattr(keras.applications, name).__module__)
    colours = np.zeros((4, 1, 1, 3), np.float32)
    for i in range(3):
        colours[1 + i, 0, 0, i] = 255
    given = np.asarray(module.preprocess_input(colours.copy())).reshape(4, 3).astype(np.float64)
    slopes = (given[1:] - given[0]) / 255  # (colour, place): where each colour goes
    turned = bool(abs(slopes[0, 2]) > abs(slopes[0, 0]))
    order = [2, 1, 0] if turned else [0, 1, 2]
    gain = np.array([slopes[i, place] for i, place in enumerate(order)])
    offset = given[0][order]
    config: dict[str, Any] = {
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": _BILINEAR,
        **_normalisation(gain, offset),
    }
    if turned:
        config["do_flip_channel_order"] = True
    return config


def _normalisation(
    gain: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Gain and offset of each colour as (x * rescale_factor - mean) / std."""
    plain = bool(np.allclose(gain, 1))
    factor = 1.0 if plain else 1 / 255
    std = factor / gain
    mean = -offset * std
    numbers: dict[str, Any] = {"do_rescale": not plain}
    if not plain:
        numbers["rescale_factor"] = factor
    identity = bool(np.allclose(mean, 0) and np.allclose(std, 1))
    numbers["do_normalize"] = not identity
    if not identity:
        numbers |= {"image_mean": _rounded(mean), "image_std": _rounded(std)}
    return numbers


def _rounded(numbers: npt.NDArray[np.float64]) -> list[float]:
    """Numbers without the dust of float32: 0.485 and not 0.48499998."""
    return [float(f"{number:.6g}") for number in numbers]


# --- the README ---
def _origin(name: str, weights: str) -> str:
    import keras

    if weights == NONE:
        return "Weights: random numbers, to try things with. They know nothing of any picture."
    if weights == IMAGENET:
        module = getattr(keras.applications, name).__module__.rpartition(".")[2]
        licence = _LICENCES.get(module, _OTHER_LICENCE)
        return f"Weights: ImageNet, as Keras downloads them (it checks their digest); {licence}."
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return (
        f"Weights: `{Path(weights).name}`, SHA-256 `{digest}`. Their licence is that of whoever gave "
        "that file; Keras publishes its own under Apache-2.0, MIT, BSD or CC BY 4.0 (VGG)."
    )


def _readme(name: str, size: int, graph: Graph, origin: str, body: bytes) -> str:
    import keras

    (output,) = graph.outputs
    adds = "unknown" if graph.multiply_adds is None else f"{graph.multiply_adds:,}"
    digest = hashlib.sha256(body).hexdigest()
    return f"""# {name} without its classifier

A frozen network for Retrainer: `spec.backbone.url` names this folder.

| | |
|---|---|
| input | `{graph.input.name}`, {size} x {size} pixels; `{CONFIG}` says how they are scaled |
| output | `{output.name}`, {output.shape[1]:,} numbers an image |
| multiply-adds of one image | {adds} |
| parameters | {graph.parameters:,} |
| `{FILE}` | {len(body):,} bytes, SHA-256 `{digest}` |

Made by `retrainer backbone add` from Keras Applications {keras.__version__} (code: Apache-2.0).
{origin}
"""
