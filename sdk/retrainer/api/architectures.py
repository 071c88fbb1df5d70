"""The networks that Retrainer can retrain: their names, input sizes, and what one image costs.

Names are those of TensorFlow's retrain.py: `mobilenet_<width>_<size>`, the same with `_quantized`,
and `inception_v3`.
"""

import difflib
import re
from dataclasses import dataclass

WIDTHS = ("1.0", "0.75", "0.50", "0.25")
SIZES = (224, 192, 160, 128)
NAMES = (
    f"mobilenet_<{'|'.join(WIDTHS)}>_<{'|'.join(map(str, SIZES))}>, the same with _quantized, "
    "or inception_v3"
)
"""All names in one phrase, for messages."""

# Depthwise-separable blocks of MobileNet v1: (stride, output channels at width 1.0).
# Source: Howard et al. 2017, "MobileNets", table 1.
_BLOCKS = (
    (1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512),
    (1, 512), (1, 512), (1, 512), (1, 512), (1, 512), (2, 1024), (1, 1024),
)  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """One network of the list.

    Attributes:
        name: as in `spec.architecture`.
        size: height and width of the input, pixels.
        width: channels of MobileNet relative to the full network; 1.0 for Inception V3.
        bottleneck: number of float32 values per image before the last layer.
        multiply_adds: of the frozen part, for one image.
        parameters: of the frozen part (weights of convolutions; batch norm folded into them).
        quantized: an int8 TensorFlow Lite file is exported beside the float ones.
    """

    name: str
    size: int
    width: float
    bottleneck: int
    multiply_adds: int
    parameters: int
    quantized: bool = False

    @property
    def backbone(self) -> str:
        """Name of the frozen network, shared by an architecture and its `_quantized` twin."""
        return self.name.removesuffix("_quantized")

    @property
    def is_mobilenet(self) -> bool:
        """Whether this is a MobileNet v1 (else Inception V3)."""
        return self.name.startswith("mobilenet_")


def _mobilenet(width: str, size: int, *, quantized: bool) -> Architecture:
    alpha = float(width)
    side, channels = (size + 1) // 2, int(32 * alpha)
    multiply_adds = side * side * 27 * channels
    parameters = 27 * channels + channels
    for stride, full in _BLOCKS:
        side = (side + stride - 1) // stride
        out = int(full * alpha)
        multiply_adds += side * side * channels * (9 + out)
        parameters += channels * (9 + out) + channels + out
        channels = out
    name = f"mobilenet_{width}_{size}" + ("_quantized" if quantized else "")
    return Architecture(name, size, alpha, channels, multiply_adds, parameters, quantized)


# Inception V3 without its top: figures of Szegedy et al. 2015 (5.7 billion multiply-adds for the
# whole network) and of Keras Applications' parameter count (21,802,784, notop).
_INCEPTION = Architecture("inception_v3", 299, 1.0, 2048, 5_713_000_000, 21_802_784)

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        *(_mobilenet(w, s, quantized=q) for q in (False, True) for w in WIDTHS for s in SIZES),
        _INCEPTION,
    )
}


def architecture(name: str) -> Architecture:
    """Look up the architecture called `name`.

    Raises:
        ValueError: there is none; the message names the nearest one.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        near = _nearest(name)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"must be {NAMES}, got {name!r}{hint}") from None


def _nearest(name: str) -> str | None:
    """Find the name most like `name`: by its numbers if it has them (0.5 is 0.50), else by letters."""
    numbers = re.fullmatch(r"mobilenet_([0-9]([.][0-9]{1,9})?)[_-]([0-9]{1,9})(_quant.*)?", name)
    if numbers is None:
        return next(iter(difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.5)), None)
    width = min(WIDTHS, key=lambda w: abs(float(w) - float(numbers[1])))
    size = min(SIZES, key=lambda s: abs(s - int(numbers[3])))
    return f"mobilenet_{width}_{size}" + ("_quantized" if numbers[4] else "")
