"""Weightless graphs of the networks, one per backbone and format, as tools/templates.py makes them.

A template is what TensorFlow and its converters write for Keras' own network with a head on it, its
batch normalisation folded into the convolutions, but without the numbers: each array's place is
known by its name, `<layer>/kernel`, `<layer>/bias`, `head/weights`, `head/bias` or `head/labels`.
"""

import functools
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import NamedTuple

LABELS = 1009
"""Labels of every template: a number that is no other dimension of it, so that each place where
the number of labels stands is known by its value."""

PLACE_PREFIX = "backbone/"
"""Before an array's place in the names of a graph's nodes."""

NAMES = "head/labels"
"""Place of the labels' names in a SavedModel."""

HALF_RANGE = 127.5
"""Pixels 0..255 become x / 127.5 - 1, what MobileNet and Inception V3 were trained on (Keras
Applications, mode "tf")."""

VARIABLES = ("variables/variables.index", "variables/variables.data-00000-of-00001")
"""Files of every SavedModel, packed beside its templates: they say that there are no variables."""

FOLDER = Path(__file__).parent
LAYERS = FOLDER / "layers.json"

TFLITE, FROZEN_GRAPH, SAVED_MODEL, ONNX = "tflite", "frozenGraph", "savedModel", "onnx"


class Convolution(NamedTuple):
    """A convolution of a network, in Keras' order: its name and its kernel's shape in Keras.

    A depthwise kernel is (height, width, channels, 1), any other (height, width, inputs, outputs).
    """

    name: str
    shape: tuple[int, int, int, int]

    @property
    def depthwise(self) -> bool:
        """Whether each channel has a kernel of its own."""
        return self.shape[3] == 1

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[2] if self.depthwise else self.shape[3]


def archive(form: str) -> Path:
    """Where the templates of a format lie: packed together, since they differ in little but shapes."""
    return FOLDER / f"{form}.tar.xz"


def template(name: str, form: str) -> bytes:
    """The template of a backbone in one format; or one of `VARIABLES`."""
    return _members(form)[name]


@functools.cache
def _members(form: str) -> dict[str, bytes]:
    """Unpack an archive at once: reading it member by member took four times as long."""
    body = lzma.decompress(archive(form).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as packed:
        return {
            member.name: file.read()
            for member in packed
            if (file := packed.extractfile(member)) is not None
        }


@functools.cache
def convolutions(backbone: str) -> tuple[Convolution, ...]:
    """The convolutions of a backbone, each followed in Keras by a batch normalisation of its own."""
    rows = json.loads(LAYERS.read_text())[backbone]
    return tuple(Convolution(name, tuple(shape)) for name, shape in rows)
