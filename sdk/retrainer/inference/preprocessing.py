"""What a frozen network of one's own wants its images to be: pixels first, then numbers.

`preprocessor_config.json`, as Hugging Face's image processors write it, says most of it; the job's
`spec.backbone` says the rest or says otherwise. Pixels are those of Hugging Face's processors: the
same filters (Pillow's), the same rounding to whole sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from retrainer.api import BackboneSource, Channels, Crop, Layout, reasons
from retrainer.api.backbone import SIZE_MAX
from retrainer.errors import RetrainerError
from retrainer.inference import headers
from retrainer.inference.pixels import MAX_PIXELS, Pixels, decoded

VERSION = "preprocessing-1"
"""Part of the cache's fingerprint: anything that changes a pixel needs a new one."""

CONFIG_FILE = "preprocessor_config.json"

Numbers = npt.NDArray[np.float32]
"""(images, 3, size, size) or (images, size, size, 3): what a network is given."""

Colours = tuple[float, float, float]
"""A number for red, one for green, one for blue."""

# Pillow numbers its filters so: nearest, Lanczos, bilinear, bicubic, box, Hamming.
_FILTERS = 6
_NEAREST, _BILINEAR = 0, 2
# A JPEG is decoded at 1/2, 1/4 or 1/8 if it then still has so many times the pixels that are needed.
_OVERSIZE = 2
# ConvNextImageProcessor: where it cuts by default, and from which size on it squeezes instead.
_CONVNEXT_PCT, _CONVNEXT_SQUASH = 224 / 256, 384


@dataclass(frozen=True)
class Preprocessing:
    """From an image's bytes to pixels 0..255, and from those to the numbers that a network is given.

    The number of a pixel's colour is (pixel * scale - mean) / std.

    Attributes:
        size: height and width of the input, pixels.
        scale: what pixels are multiplied by first.
        mean: subtracted from red, green and blue then.
        std: what the rest is divided by.
        layout: order of the input's axes.
        channels: order of the input's colours.
        crop: SQUASH squeezes the image to a square of `edge`, CENTER makes its shorter side `edge` long;
            a square of `size` is cut from the middle of either.
        edge: at least `size`.
        resample: number of Pillow's filter, such as 2 (bilinear) or 3 (bicubic).
    """

    size: int
    scale: float = 1 / 255
    mean: Colours = (0.0, 0.0, 0.0)
    std: Colours = (1.0, 1.0, 1.0)
    layout: Layout = Layout.NCHW
    channels: Channels = Channels.RGB
    crop: Crop = Crop.SQUASH
    edge: int = 0
    resample: int = _BILINEAR

    def __post_init__(self) -> None:
        object.__setattr__(self, "edge", max(self.edge, self.size))

    def pixels(self, body: bytes, side: int | None = None) -> Pixels:
        """Decode an image as the network sees it: (side, side, 3) RGB, 0 to 255.

        Args:
            body: the image file's bytes.
            side: of the result, if not `size`; the same part of the image is then shown.

        Raises:
            RejectedError: not an image, truncated, too large.
        """
        from PIL import Image

        side = side or self.size
        edge = max(side, round(self.edge * side / self.size))
        # Of an image that is averaged already, the nearest pixel is another one.
        image = decoded(body, MAX_PIXELS if self.resample == _NEAREST else _OVERSIZE * edge)
        height, width, scale = _stored_size(body, image)
        if self.crop is Crop.CENTER:
            short = min(height, width)
            tall, wide = int(edge * height / short), int(edge * width / short)
        else:
            tall = wide = edge
        # The square that would be cut from the resized image, in the image as it is decoded: what
        # lies outside of it, however long the image, is never computed.
        left, top = (wide - side) // 2, (tall - side) // 2
        box = (
            left * width / wide / scale,
            top * height / tall / scale,
            min((left + side) * width / wide / scale, image.shape[1]),
            min((top + side) * height / tall / scale, image.shape[0]),
        )
        square = Image.fromarray(image).resize((side, side), Image.Resampling(self.resample), box)
        return np.asarray(square)

    def numbers(self, pixels: Pixels) -> Numbers:
        """Give what the network is given for pixels (images, size, size, 3)."""
        gain, offset = self.affine
        values: Numbers = pixels.astype(np.float32)
        values *= np.array(gain, np.float32)
        values += np.array(offset, np.float32)
        if self.channels is Channels.BGR:
            values = values[..., ::-1]
        if self.layout is Layout.NCHW:
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the numbers of one image."""
        if self.layout is Layout.NCHW:
            return 1, 3, self.size, self.size
        return 1, self.size, self.size, 3

    @property
    def affine(self) -> tuple[Colours, Colours]:
        """Gain and offset by which red, green and blue become numbers: pixel * gain + offset."""
        gain = tuple(self.scale / std for std in self.std)
        offset = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return _colours(gain), _colours(offset)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON can hold them."""
        return {**vars(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Make it of what `to_dict` gave."""
        return cls(
            size=int(fields["size"]),
            scale=float(fields["scale"]),
            mean=_colours(fields["mean"]),
            std=_colours(fields["std"]),
            layout=Layout(fields["layout"]),
            channels=Channels(fields["channels"]),
            crop=Crop(fields["crop"]),
            edge=int(fields["edge"]),
            resample=int(fields["resample"]),
        )


def _stored_size(body: bytes, image: Pixels) -> tuple[int, int, int]:
    """Give height and width of an upright image as it is stored, and by how much it was shrunk.

    libjpeg rounds a shrunken image up: its own size would shift and stretch what is cut from it.
    """
    head = headers.header(body)
    height, width = head.height, head.width
    if headers.orientation(body, head.format) in (5, 6, 7, 8):
        height, width = width, height
    scale = next((k for k in (8, 4, 2) if -(-width // k) == image.shape[1]
                  and -(-height // k) == image.shape[0]), 1)  # fmt: skip
    if scale == 1:
        return image.shape[0], image.shape[1], 1
    return height, width, scale


def _colours(values: Any) -> Colours:
    red, green, blue = map(float, values)
    return red, green, blue


# --- preprocessor_config.json and spec.backbone ---
def read_preprocessing(
    config: Mapping[str, Any] | None,
    source: BackboneSource,
    *,
    size: int | None,
    layout: Layout | None,
    file: str,
) -> Preprocessing:
    """Put together what the configuration, the job and the network's own file say.

    Args:
        config: of CONFIG_FILE; None if there is none.
        source: the job's `spec.backbone`, which overrides the configuration.
        size: height and width that the network's input has; None if it takes any.
        layout: that the network's input has by its shape; None if that does not say.
        file: name of the network's file, for messages.

    Raises:
        UserError: something has no safe default, is in a form that is not read, or does not fit the
            network; the message names the field to set.
    """
    if config is None:
        preprocessing = _without_config(source, size, file)
    else:
        preprocessing = _of_config(config, source, size)
    preprocessing = _overridden(preprocessing, source)
    if size is not None and preprocessing.size != size:
        named = "spec.backbone.size" if source.size else CONFIG_FILE
        raise _incomplete(
            f"{named} says {preprocessing.size} pixels, but {file} takes {size} x {size}: "
            f"set spec.backbone.size to {size}, or name the file for {preprocessing.size}."
        )
    if not 1 <= preprocessing.size <= SIZE_MAX:
        raise _incomplete(
            f"{CONFIG_FILE} of {file} asks for {preprocessing.size} pixels, 1 to {SIZE_MAX} are read: "
            "set spec.backbone.size."
        )
    if layout is not None and source.layout not in (None, layout):
        raise _incomplete(
            f"spec.backbone.layout says {source.layout}, but the input of {file} is {layout}: leave it "
            "out."
        )
    chosen = layout or source.layout
    if chosen is None:
        raise _incomplete(
            f"The input of {file} does not say which of its axes are the channels: set "
            "spec.backbone.layout to NCHW or NHWC."
        )
    return replace(preprocessing, layout=chosen)


def _without_config(source: BackboneSource, size: int | None, file: str) -> Preprocessing:
    missing = [name for name in ("mean", "std") if getattr(source, name) is None]
    if size is None and source.size is None:
        missing.insert(0, "size")
    if missing:
        fields = " and ".join(f"spec.backbone.{name}" for name in missing)
        raise _incomplete(
            f"{file} has no {CONFIG_FILE} beside it, and nothing else says what its images must be: put "
            f"that file there, or set {fields}."
        )
    return Preprocessing(size=source.size or size or 0)


def _overridden(preprocessing: Preprocessing, source: BackboneSource) -> Preprocessing:
    """Replace what the job says otherwise; a margin around a centre crop keeps its share."""
    if source.crop is not None and source.crop is not preprocessing.crop:
        preprocessing = replace(preprocessing, crop=source.crop, edge=preprocessing.size)
    if source.size is not None:
        edge = round(preprocessing.edge * source.size / preprocessing.size)
        preprocessing = replace(preprocessing, size=source.size, edge=edge)
    return replace(
        preprocessing,
        mean=preprocessing.mean if source.mean is None else _colours(source.mean),
        std=preprocessing.std if source.std is None else _colours(source.std),
        channels=source.channels or preprocessing.channels,
    )


# Switches that may be on, and are looked at; of any other that is on, nothing is known.
_SWITCHES = {
    "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb",
    "do_flip_channel_order",
}  # fmt: skip
# Of processors whose images are no squares of one size.
_OF_OTHER_SHAPES = ("size_divisor", "ensure_multiple_of", "keep_aspect_ratio")
# Processors that take `size: 224` for the shorter side; the others take it for both.
_BY_SHORTER_SIDE = ("Bit", "CLIP", "ChineseCLIP", "ConvNext", "MobileNet", "MobileViT")


def _of_config(
    config: Mapping[str, Any], source: BackboneSource, size: int | None
) -> Preprocessing:
    unread = (k for k in config if k.startswith("do_") and k not in _SWITCHES)
    for key in (*_OF_OTHER_SHAPES, *unread):
        value = config.get(key)
        if value is True or value not in (None, 0, 1):
            _refuse(key, value)
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    crop, edge, side = _geometry(config, kind, source.size or size)
    mean, std = _normalisation(config, kind, source)
    resample = config.get("resample", _BILINEAR)
    if resample not in range(_FILTERS) or isinstance(resample, bool):
        _refuse("resample", resample)
    scale = float(_number(config, "rescale_factor", 1 / 255)) if _is_on(config, "do_rescale") else 1
    return Preprocessing(
        size=side,
        scale=scale,
        mean=mean,
        std=std,
        channels=Channels.BGR if config.get("do_flip_channel_order") else Channels.RGB,
        crop=crop,
        edge=edge,
        resample=int(resample),
    )


def _geometry(
    config: Mapping[str, Any], kind: str, input_size: int | None
) -> tuple[Crop, int, int]:
    """Read how an image becomes a square: the crop, the edge before it, the square's side."""
    size, crop_size = config.get("size"), config.get("crop_size")
    if not _is_on(config, "do_resize") or size is None:
        if input_size is None:
            raise _incomplete(
                f"{CONFIG_FILE} does not say the size of images (size, do_resize): set "
                "spec.backbone.size."
            )
        return Crop.SQUASH, input_size, input_size
    cuts = bool(config.get("do_center_crop", "crop_size" in config and "size" in config))
    if isinstance(size, Mapping):
        by_shorter_side = "shortest_edge" in size
    else:
        by_shorter_side = kind.startswith(_BY_SHORTER_SIDE) or (cuts and not kind)
    edge = _side(config, "size")
    if "crop_pct" in config or kind.startswith("ConvNext"):
        if kind.startswith("ConvNext") and edge >= _CONVNEXT_SQUASH:
            return Crop.SQUASH, edge, edge
        share = _number(config, "crop_pct", _CONVNEXT_PCT)
        if not 0 < share <= 1:
            _refuse("crop_pct", share)
        return Crop.CENTER, int(edge / share), edge
    crop = Crop.CENTER if by_shorter_side else Crop.SQUASH
    if not cuts:
        return crop, edge, edge
    side = edge if crop_size is None else _side(config, "crop_size")
    if side > edge:
        _refuse("crop_size", crop_size)
    return crop, edge, side


def _side(config: Mapping[str, Any], key: str) -> int:
    """Read a size: 224, {"shortest_edge": 224} or {"height": 224, "width": 224}."""
    value = config[key]
    sides = {"height": value, "width": value}
    if isinstance(value, Mapping):
        sides = {name: pixels for name, pixels in value.items() if pixels is not None}
    numbers = list(sides.values())
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    if not whole or set(sides) not in ({"shortest_edge"}, {"height", "width"}):
        _refuse(key, value)
    if len(set(numbers)) > 1:
        _refuse(key, value, "images are made squares")
    return int(numbers[0])


def _normalisation(
    config: Mapping[str, Any], kind: str, source: BackboneSource
) -> tuple[Colours, Colours]:
    if source.mean is not None and source.std is not None:  # of the job, whatever is said here
        return _colours(source.mean), _colours(source.std)
    mean: Colours = (0.0, 0.0, 0.0)
    std: Colours = (1.0, 1.0, 1.0)
    if _is_on(config, "do_normalize"):
        mean, std = _three(config, "image_mean"), _three(config, "image_std")
    if kind.startswith("EfficientNet") and config.get("rescale_offset"):
        mean = _colours(number + 1 for number in mean)
    if kind.startswith("EfficientNet") and config.get("include_top", True):
        # EfficientNetImageProcessor then divides by the standard deviation once more.
        again = _three(config, "image_std")
        std = _colours(number * more for number, more in zip(std, again, strict=True))
    return mean, std


def _three(config: Mapping[str, Any], key: str) -> Colours:
    value = config.get(key)
    many = [value] * 3 if isinstance(value, (int, float)) else value
    good = isinstance(many, list) and len(many) == 3
    if not good or not all(
        isinstance(n, (int, float)) and not isinstance(n, bool) and np.isfinite(n)
        for n in many or ()
    ):
        field = key.removeprefix("image_")
        raise _incomplete(
            f"{CONFIG_FILE} gives no {key} of three numbers: set spec.backbone.{field}."
        )
    if key == "image_std" and not all(n > 0 for n in many or ()):
        _refuse(key, value)
    return _colours(many)


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        _refuse(key, value)
    return float(value)


def _incomplete(detail: str) -> RetrainerError:
    """The error of something without a safe default that is said nowhere, or in no form that is read."""
    return reasons.BACKBONE_INCOMPLETE.error(detail=detail)


def _is_on(config: Mapping[str, Any], key: str) -> bool:
    return bool(config.get(key, True))


def _refuse(key: str, value: object, why: str = "it is not read") -> NoReturn:
    raise _incomplete(
        f"{CONFIG_FILE}: {key} is {str(value)[:60]}, and {why}: write the file anew with size, "
        "crop_size, image_mean and image_std alone."
    )
