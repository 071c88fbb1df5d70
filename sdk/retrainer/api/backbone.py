"""`spec.backbone`: a frozen network of one's own, and what its files do not say themselves."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from retrainer.api import rules
from retrainer.api.fields import URL_MAX, Model, Number, Whole

SIZE_MAX = 1024
"""Pixels of the side of the largest input."""

ONNX_SUFFIX, TFLITE_SUFFIX = ".onnx", ".tflite"

_USUAL_FILES = frozenset({"model", "backbone"})


class Token(StrEnum):
    """What becomes the bottleneck of an output with a vector for each of many tokens."""

    CLS = "cls"
    MEAN = "mean"


class Layout(StrEnum):
    """The order of an input's axes: images, channels, height, width."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Channels(StrEnum):
    """The order of an input's colours."""

    RGB = "RGB"
    BGR = "BGR"


class Crop(StrEnum):
    """How an image that is no square becomes one."""

    SQUASH = "squash"
    CENTER = "center"


_url = Field(min_length=1, max_length=URL_MAX, json_schema_extra=rules.S3_BACKBONE.text)
BackboneUrl = Annotated[str, _url, AfterValidator(rules.BACKBONE.check)]
Means = Annotated[
    list[Annotated[Number, Field(ge=-1e6, le=1e6)]], Field(min_length=3, max_length=3)
]
Deviations = Annotated[list[Annotated[Number, Field(le=1e6)]], Field(min_length=3, max_length=3)]


class BackboneSource(Model):
    """A frozen network of your own; what is not given is read from its files."""

    url: BackboneUrl = Field(
        description="URL of a folder as Hugging Face lays one out (model.onnx or onnx/model.onnx, else "
        "backbone.tflite, with preprocessor_config.json), or of one .onnx or .tflite file."
    )
    output: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None,
        description="Output of the network that is the bottleneck; the only one with two axes if not "
        "given.",
    )
    token: Token | None = Field(
        None,
        description="Of an output with a vector for each token: cls takes the first one, mean the mean "
        "of all.",
    )
    size: Annotated[Whole, Field(ge=8, le=SIZE_MAX)] | None = Field(
        None, description="Height and width of the input, pixels."
    )
    layout: Layout | None = Field(
        None, description="Order of the input's axes: images, channels (C), height, width."
    )
    channels: Channels | None = Field(None, description="Order of the input's colours.")
    mean: Means | None = Field(
        None,
        description="Subtracted from red, green and blue once they are scaled, as image_mean of "
        "preprocessor_config.json.",
    )
    std: Deviations | None = Field(
        None, description="What red, green and blue are then divided by, as image_std."
    )
    crop: Crop | None = Field(
        None,
        description="squash squeezes the whole image to a square, center cuts the square in its middle.",
    )

    @field_validator("std")
    @classmethod
    def _above_zero(cls, value: list[float] | None) -> list[float] | None:
        for number in value or ():
            if number < rules.DEVIATION_LEAST:
                raise rules.DEVIATION.refusal(f"{number:g}")
        return value

    @property
    def name(self) -> str:
        """Short name for people: that of its folder, or of a file that has one of its own."""
        return backbone_name(self.url)


def backbone_name(url: str) -> str:
    """Make a short name of a backbone's URL: dinov2-small of `s3://networks/dinov2-small/model.onnx`."""
    parts = [part for part in url.rsplit("://", maxsplit=1)[-1].split("/") if part not in ("", ".")]
    *folders, last = parts or [url]
    stem = last
    for suffix in (ONNX_SUFFIX, TFLITE_SUFFIX):
        stem = stem.removesuffix(suffix)
    if stem == last or stem not in _USUAL_FILES:
        return stem
    named = [folder for folder in folders if folder != "onnx"]
    return named[-1] if named else stem
