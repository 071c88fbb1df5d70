"""What a network's file says of itself, whatever its format, and what is refused of it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt

from retrainer.api import reasons

Format = Literal["onnx", "tflite"]
Layout = Literal["NCHW", "NHWC"]
Shape = tuple[int | None, ...]
"""Sizes of a tensor's axes; None where the file leaves one open."""

MOST_BYTES = 9 * 2**30 // 5
"""Of a network with its external data. A file of protocol buffers or flatbuffers ends at 2 GiB, and an
export has the head in it as well."""

MOST_NODES = 100_000
MOST_AXES = 8
MOST_ELEMENTS = 2**28
"""Of one tensor while one image is computed, 1 GiB in float32."""

SMALLEST_INPUT, LARGEST_INPUT = 8, 1024
"""Height and width, pixels."""

WIDEST_BOTTLENECK = 2**16

FLOATS = ("float32", "float16", "float64")
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}

_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        name: as the file's signature says, or as the tensor is called where it has none.
        shape: images first, None where the file leaves a size open.
        dtype: as numpy calls it, such as float32.
    """

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Graph:
    """What a network's file says of itself.

    Attributes:
        format: of the file.
        input: the pixels.
        layout: where the channels stand; None where neither shape nor operators tell.
        size: height and width of the input, pixels; None where the file takes any and none was given.
        outputs: in the file's order.
        opset: of ONNX' own operators; 0 of a TensorFlow Lite file.
        parameters: numbers that were trained.
        multiply_adds: of one image; None where the shapes of some operator cannot be told.
    """

    format: Format
    input: Tensor
    layout: Layout | None
    size: int | None
    outputs: tuple[Tensor, ...]
    opset: int
    parameters: int
    multiply_adds: int | None

    @property
    def batch(self) -> int | None:
        """How many images the file takes at once; None for any number."""
        return self.input.shape[0]


def check_finite(bottleneck: npt.NDArray[np.floating], name: str) -> None:
    """Refuse a network whose first bottleneck is not all numbers.

    Raises:
        UserError: it has infinite or undefined ones.
    """
    if not np.isfinite(bottleneck).all():
        refuse(
            name,
            "it gives infinite or undefined numbers for a plain grey picture: its weights are damaged, "
            "or were rounded to float16 where that is too coarse; take the float32 file",
        )


def refuse(name: str, detail: str) -> NoReturn:
    """Raise the error that says why a file cannot be a backbone."""
    raise reasons.BACKBONE_REFUSED.error(file=name, detail=detail)


def check_file(path: Path, name: str) -> None:
    """Refuse a file that is a link, too large, or no network by its first bytes.

    Raises:
        UserError: which of these.
    """
    if path.is_symlink():
        refuse(name, "it is a symbolic link: put the file itself in its place (cp -L copies it)")
    if not path.is_file():
        refuse(name, "there is no such file")
    size = path.stat().st_size
    check_bytes(size, name)
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        refuse(
            name,
            "it is the pointer that Git LFS leaves where the file itself was not fetched: "
            "run git lfs pull in its repository and copy it again",
        )
    if size == 0:
        refuse(name, "it is empty: copy it again")


def check_bytes(size: int, name: str) -> None:
    """Refuse a network that is too large.

    Raises:
        UserError: it has more than `MOST_BYTES`.
    """
    if size > MOST_BYTES:
        refuse(
            name,
            f"it has {size / 2**30:.1f} GiB, at most 1.8 GiB are read (with external data): "
            "take a smaller network, or the same one in float16",
        )


def check_input(source: Tensor, name: str) -> None:
    """Refuse a network whose input cannot be pixels.

    Raises:
        UserError: it takes something else than one image, or any number of them, of floats.
    """
    if source.dtype not in {"float32", "float16"}:
        refuse(
            name,
            f"its input {source.name} takes {source.dtype}, where float32 or float16 is needed: "
            "export it with an input of floats (8-bit weights inside are taken)",
        )
    if len(source.shape) != 4:
        refuse(
            name,
            f"its input {source.name} has {len(source.shape)} axes, and pixels have 4 (images, and "
            "height, width and channels): take a network that sees images",
        )
    if source.shape[0] not in {None, 1}:
        refuse(
            name,
            f"it takes exactly {source.shape[0]} images at once: export it with an open number of "
            "images, or with 1",
        )


def checked_graph(graph: Graph, name: str) -> Graph:
    """Give the graph if it can be a backbone: square photos in, at least one output of numbers.

    Raises:
        UserError: it cannot.
    """
    _check_square(graph, name)
    floats = [output for output in graph.outputs if output.dtype in FLOATS]
    if not floats:
        types = ", ".join(sorted({output.dtype for output in graph.outputs}))
        refuse(
            name,
            f"none of its outputs are floats (they are {types}): export it with float outputs "
            "(8-bit weights inside are taken)",
        )
    for output in floats:
        if len(output.shape) == 2 and (output.shape[1] or 1) > WIDEST_BOTTLENECK:
            refuse(
                name,
                f"its output {output.name} has {output.shape[1]:,} numbers an image, at most "
                f"{WIDEST_BOTTLENECK:,} are taken: pool it first",
            )
    return graph


def _check_square(graph: Graph, name: str) -> None:
    axes = {"NCHW": (2, 3, 1), "NHWC": (1, 2, 3)}.get(graph.layout or "")
    if axes is None:
        return
    height, width, channels = (graph.input.shape[axis] for axis in axes)
    if channels not in {None, 3}:
        refuse(
            name, f"its pixels have {channels} channels, and photos have 3: take another network"
        )
    if None not in {height, width} and height != width:
        refuse(
            name,
            f"it takes {height} x {width} pixels, and only squares are given: export it for one",
        )
    if graph.size is not None and not SMALLEST_INPUT <= graph.size <= LARGEST_INPUT:
        refuse(
            name,
            f"it takes {graph.size} x {graph.size} pixels, where {SMALLEST_INPUT} to "
            f"{LARGEST_INPUT} are taken",
        )


def chosen_size(shape: Shape, layout: Layout | None, size: int | None, name: str) -> int | None:
    """Height and width of the input: the file's own, or `size` where it leaves them open.

    Raises:
        UserError: the file has another than `size`.
    """
    if layout is None:
        return size
    own = shape[2 if layout == "NCHW" else 1]
    if own is None:
        return size
    if size not in {None, own}:
        refuse(
            name,
            f"it takes {own} x {own} pixels, but the size asked for is {size}: leave out "
            "spec.backbone.size, or export the network for that size",
        )
    return own


def layout_of(shape: Shape) -> Layout | None:
    """Tell from the shape of the input where its channels stand."""
    if len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return None
    return "NCHW" if shape[1] == 3 else "NHWC"


def elements(shape: Shape) -> int | None:
    """Count the elements of a tensor; None if a size is open."""
    sizes = [size for size in shape if size is not None]
    return math.prod(sizes) if len(sizes) == len(shape) else None


def check_tensor(shape: Shape, where: str, name: str) -> None:
    """Refuse a tensor whose shape cannot be meant.

    Raises:
        UserError: too many axes, a negative size, or too many elements.
    """
    sizes = [size for size in shape if size is not None]
    if len(shape) > MOST_AXES or any(size < 0 for size in sizes):
        refuse(name, f"{where} has the shape {list(sizes)}, which no network has: copy it again")
    if math.prod(sizes) > MOST_ELEMENTS:
        refuse(
            name,
            f"{where} has {math.prod(sizes):,} numbers (shape {list(sizes)}), at most "
            f"{MOST_ELEMENTS:,} are taken: take a smaller network or a smaller spec.backbone.size",
        )


def total(costs: Iterable[int | None]) -> int | None:
    """Add up what operators cost; None if the cost of one of them cannot be told."""
    counted = 0
    for cost in costs:
        if cost is None:
            return None
        counted += cost
    return counted
