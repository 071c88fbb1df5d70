"""The numbers of a network: read from a Keras weights file, and batch normalisation folded away.

Only arrays of the expected number, type and shape are read, and only by the paths under which Keras
writes them: no code or configuration in a file is ever run or loaded, no link to another file is
followed, and what else a file holds is not looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from retrainer.api import Architecture, reasons
from retrainer.errors import RetrainerError
from retrainer_trainer.arrays import Floats
from retrainer_trainer.backbone.templates import Convolution, convolutions
from retrainer_trainer.backbone.weights import Weights

Arrays = dict[str, Floats]
"""Arrays by their place in a template: `<layer>/kernel`, as Keras lays it out, and `<layer>/bias`."""

# Keras Applications, mobilenet.py (by default) and inception_v3.py (by default).
_EPSILON = 1e-3

# Inception V3 has 311 layers, 94 of them convolutions; a file with many more holds another network.
_MOST_LAYERS = 2000
_MOST_VARIABLES = 5  # one more than a batch normalisation has


class Layer(NamedTuple):
    """A convolution and the batch normalisation after it, as Keras keeps them.

    Attributes:
        name: of the convolution.
        kernel: (height, width, inputs, outputs), or (height, width, channels, 1) if depthwise.
        gamma: (channels,) scale; None where the network has none.
        beta: (channels,) offset.
        mean: (channels,) moving mean.
        variance: (channels,) moving variance.
    """

    name: str
    kernel: Floats
    gamma: Floats | None
    beta: Floats
    mean: Floats
    variance: Floats


def read_layers(network: Architecture, weights: Weights) -> list[Layer]:
    """Read the layers of a network from its weights file, in Keras' order.

    Raises:
        UserError: the file holds no weights for this network.
    """
    import h5py

    try:
        image = h5py.h5f.open_file_image(weights.body)
    except (OSError, RuntimeError, ValueError) as error:
        raise unreadable(network, weights, "not an HDF5 file, or a damaged one") from error
    try:
        with h5py.File(image, "r") as file:
            kernels, norms = _in_order(file, convolutions(network.backbone))
            layers = list(_layers(convolutions(network.backbone), kernels, norms))
    except _MisfitError as error:
        raise unreadable(network, weights, str(error)) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(network, weights, "a damaged HDF5 file") from error
    for layer in layers:
        if not all(np.isfinite(array).all() for array in layer[1:] if array is not None):
            raise unreadable(network, weights, "they give infinite numbers")
    return layers


def folded(layers: Sequence[Layer]) -> Arrays:
    """Fold batch normalisations into the convolutions before them: kernels and biases that do both.

    scale = gamma / sqrt(variance + epsilon); kernel' = kernel * scale; bias = beta - mean * scale, all
    in float64, rounded once.
    """
    arrays: Arrays = {}
    for name, kernel, gamma, beta, mean, variance in layers:
        scale = 1 / np.sqrt(variance.astype(np.float64) + _EPSILON)
        if gamma is not None:
            scale *= gamma
        spread = scale[:, None] if kernel.shape[3] == 1 else scale
        with np.errstate(
            over="ignore"
        ):  # infinite numbers are refused when the network is first run
            arrays[f"{name}/kernel"] = (kernel * spread).astype(np.float32)
            arrays[f"{name}/bias"] = (beta - mean * scale).astype(np.float32)
    return arrays


def unreadable(network: Architecture, weights: Weights, detail: str) -> RetrainerError:
    """Make the error of a file that holds no weights for a network."""
    return reasons.WEIGHTS_UNREADABLE.error(
        url=weights.origin, architecture=network.backbone, detail=detail
    )


class _MisfitError(Exception):
    """Raised of a file that is not what Keras writes for this network; the message says why."""


def _in_order(file: Any, expected: Sequence[Convolution]) -> tuple[list[Any], list[list[Any]]]:
    """Find the datasets of the kernels, and of the batch normalisations, in Keras' order."""
    if "layers" in file:
        variables = _keras_3(file, expected)
    elif "layer_names" in file.attrs:
        variables = _legacy(file)
    elif "model_weights" in file:
        variables = _legacy(_child(file, "model_weights"))
    else:
        raise _MisfitError("it has no layers as Keras writes them")
    kernels = [arrays[0] for arrays in variables if len(arrays) == 1]
    norms = [arrays for arrays in variables if len(arrays) > 1]
    if len(kernels) != len(expected) or len(norms) != len(expected):
        raise _MisfitError(
            f"it has {len(kernels)} convolutions and {len(norms)} batch normalisations, "
            f"not {len(expected)} of each"
        )
    return kernels, norms


def _keras_3(file: Any, expected: Sequence[Convolution]) -> list[list[Any]]:
    """List each layer's variables in a `.weights.h5`, where layers are named by class and number."""
    layers = _child(file, "layers")
    if len(layers) > _MOST_LAYERS:
        raise _MisfitError(f"it has {len(layers)} layers")

    def number(name: str) -> int:
        last = name.rpartition("_")[2]
        return int(last) if last.isdigit() else 0

    kernels: dict[bool, list[list[Any]]] = {True: [], False: []}
    norms = []
    for name in sorted(layers, key=number):
        layer = _child(layers, name)
        if "vars" not in layer:
            continue
        group = _child(layer, "vars")
        variables = [_child(group, str(i)) for i in range(min(len(group), _MOST_VARIABLES))]
        if len(variables) == 1:
            kernels[name.startswith("depthwise")].append(variables)
        else:
            norms.append(variables)
    # Both kinds of convolutions are numbered apart: the network says which one comes next.
    each = {depthwise: iter(variables) for depthwise, variables in kernels.items()}
    ordered = [next(each[convolution.depthwise], None) for convolution in expected]
    left = [variables for rest in each.values() for variables in rest]
    return [*(variables for variables in ordered if variables), *left, *norms]


def _legacy(group: Any) -> list[list[Any]]:
    """List each layer's variables in a `.h5` of Keras 2, which has layers and variables in order."""
    variables = []
    for layer_name in _names(group, "layer_names"):
        layer = _child(group, layer_name)
        names = _names(layer, "weight_names")
        variables.append([_child(layer, name) for name in names[:_MOST_VARIABLES]])
    return variables


def _names(group: Any, attribute: str) -> list[str]:
    shape = group.attrs.get_id(attribute).shape
    if len(shape) != 1 or shape[0] > _MOST_LAYERS:
        raise _MisfitError(f"its {attribute} are not those of Keras")
    return [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs[attribute]]


def _child(group: Any, path: str) -> Any:
    """Open what lies at a path of this file; refuse it where the way there leaves the file."""
    import h5py

    for name in path.split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _MisfitError("it points at other files")
        group = group[name]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise _MisfitError("it points at other files")
    return group


def _layers(
    expected: Sequence[Convolution], kernels: Sequence[Any], norms: Sequence[Sequence[Any]]
) -> Iterator[Layer]:
    for convolution, kernel, norm in zip(expected, kernels, norms, strict=True):
        if len(norm) not in (3, 4):
            raise _MisfitError(
                f"the batch normalisation of {convolution.name} has {len(norm)} arrays"
            )
        read = _array(kernel, convolution.shape, convolution.name)
        *gamma, beta, mean, variance = (
            _array(array, (convolution.channels,), f"the batch normalisation of {convolution.name}")
            for array in norm
        )
        if (variance < 0).any():
            raise _MisfitError(f"{convolution.name} has a negative variance")
        yield Layer(convolution.name, read, gamma[0] if gamma else None, beta, mean, variance)


def _array(dataset: Any, shape: tuple[int, ...], name: str) -> Floats:
    # The shape is looked at before anything is read: a file may announce any size.
    if getattr(dataset, "shape", None) != shape:
        raise _MisfitError(
            f"{name} has the shape {getattr(dataset, 'shape', 'of a group')}, not {shape}"
        )
    if dataset.dtype.kind != "f":
        raise _MisfitError(f"{name} has numbers of type {dataset.dtype}")
    array: Floats = dataset[()].astype(np.float32)
    return array
