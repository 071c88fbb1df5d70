"""Pixels and numbers of preprocessor_config.json are those of Hugging Face's image processors.

`reference` states anew, with Pillow and numpy, what those processors do one step after the other; the
configurations are those that they write by default.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests.support.trainer_engine import encoded, photo, picture

from retrainer.api import BackboneSource, Channels, Crop, Layout
from retrainer.errors import UserError
from retrainer.inference.preprocessing import Preprocessing, read_preprocessing

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SWITCHES = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}

VIT = {
    **SWITCHES, **HALF, "image_processor_type": "ViTImageProcessor", "resample": 2,
    "size": {"height": 224, "width": 224},
}  # fmt: skip
DINOV2 = {
    **SWITCHES, **IMAGENET, "image_processor_type": "BitImageProcessor", "resample": 3,
    "do_center_crop": True, "do_convert_rgb": True, "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
CLIP = {
    **SWITCHES, "image_processor_type": "CLIPImageProcessor", "resample": 3, "do_convert_rgb": True,
    "do_center_crop": True, "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
OLD_CLIP = {
    "feature_extractor_type": "CLIPFeatureExtractor", "do_center_crop": True, "do_resize": True,
    "do_normalize": True, "crop_size": 224, "size": 224, "resample": 3,
    "image_mean": CLIP["image_mean"], "image_std": CLIP["image_std"],
}  # fmt: skip
SIGLIP = {
    **SWITCHES, **HALF, "image_processor_type": "SiglipImageProcessor", "resample": 3,
    "size": {"height": 256, "width": 256},
}  # fmt: skip
CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor", **IMAGENET, "do_resize": True,
    "do_normalize": True, "crop_pct": 0.875, "resample": 3, "size": 224,
}  # fmt: skip
CONVNEXT_LARGE = {
    **SWITCHES, **IMAGENET, "image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875,
    "resample": 2, "size": {"shortest_edge": 384},
}  # fmt: skip
MOBILENET_V2 = {
    **SWITCHES, **HALF, "image_processor_type": "MobileNetV2ImageProcessor", "resample": 2,
    "do_center_crop": True, "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
EFFICIENTNET = {
    **SWITCHES, "image_processor_type": "EfficientNetImageProcessor", "resample": 0,
    "do_center_crop": False, "crop_size": {"height": 289, "width": 289}, "include_top": True,
    "rescale_offset": False, "size": {"height": 346, "width": 346},
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.47853944, 0.4732864, 0.47434163],
}  # fmt: skip
DEIT = {
    "feature_extractor_type": "DeiTFeatureExtractor", **IMAGENET, "do_center_crop": True,
    "do_normalize": True, "do_resize": True, "crop_size": 224, "size": 256, "resample": 3,
}  # fmt: skip

PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": VIT, "DINOv2": DINOV2, "CLIP": CLIP, "an old CLIP": OLD_CLIP, "SigLIP": SIGLIP,
    "ConvNeXt": CONVNEXT, "ConvNeXt 384": CONVNEXT_LARGE, "MobileNetV2": MOBILENET_V2,
    "EfficientNet": EFFICIENTNET, "DeiT": DEIT,
}  # fmt: skip

Steps = tuple[str, int, int]
"""How the processor resizes (squash or shorter), to how many pixels, and what it cuts from that."""

STEPS: dict[str, Steps] = {
    "ViT": ("squash", 224, 224),
    "DINOv2": ("shorter", 256, 224),
    "CLIP": ("shorter", 224, 224),
    "an old CLIP": ("shorter", 224, 224),
    "SigLIP": ("squash", 256, 256),
    "ConvNeXt": ("shorter", 256, 224),
    "ConvNeXt 384": ("squash", 384, 384),
    "MobileNetV2": ("shorter", 256, 224),
    "EfficientNet": ("squash", 346, 346),
    "DeiT": ("squash", 256, 224),
}


def reference(body: bytes, config: dict[str, Any], steps: Steps) -> npt.NDArray[np.uint8]:
    """The image resized as a whole, then cut."""
    how, edge, side = steps
    image = Image.open(io.BytesIO(body)).convert("RGB")
    wide, tall = edge, edge
    if how == "shorter":
        short = min(image.size)
        wide, tall = int(edge * image.width / short), int(edge * image.height / short)
    resized = np.asarray(image.resize((wide, tall), Image.Resampling(config["resample"])))
    top, left = (tall - side) // 2, (wide - side) // 2
    return resized[top : top + side, left : left + side]


def read(config: dict[str, Any] | None, **fields: Any) -> Preprocessing:
    source = BackboneSource(url="s3://networks/some", **fields)
    return read_preprocessing(config, source, size=None, layout=Layout.NCHW, file="model.onnx")


def refusal(config: dict[str, Any] | None, **fields: Any) -> str:
    with pytest.raises(UserError) as error:
        read(config, **fields)
    return str(error.value)


def detailed(seed: int, width: int, height: int) -> bytes:
    """A photo with detail of all sizes, as real ones have."""
    image = picture(seed, width, height).astype(float)
    random = np.random.default_rng(seed)
    for block in (2, 6, 20):
        grain = random.normal(0, 12, (height // block + 1, width // block + 1, 3))
        image += grain.repeat(block, 0).repeat(block, 1)[:height, :width]
    return encoded(image.clip(0, 255).astype(np.uint8), quality=90)


# A small photo, a large one that is decoded at half its size, and one that is long.
PHOTOS = {
    "small": detailed(1, 227, 227), "large": detailed(2, 1203, 901), "long": detailed(3, 900, 260),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_processor(name: str) -> None:
    config = PROCESSORS[name]
    preprocessing = read(config)
    for size, body in PHOTOS.items():
        ours = preprocessing.pixels(body).astype(int)
        theirs = reference(body, config, STEPS[name])
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 1, (size, "levels of 255")


@pytest.mark.parametrize("name", PROCESSORS)
def test_numbers_are_those_of_the_processor(name: str) -> None:
    config = PROCESSORS[name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    expected = pixels * np.float64(1 / 255)
    expected = (expected - config["image_mean"]) / config["image_std"]
    if name == "EfficientNet":  # include_top: normalised once more, without the mean
        expected = expected / config["image_std"]
    np.testing.assert_allclose(
        read(config).numbers(pixels), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5
    )


def test_switches_that_are_off_leave_their_step_out() -> None:
    pixels = np.full((1, 2, 2, 3), 51, np.uint8)
    assert read({**VIT, "do_normalize": False}).numbers(pixels) == pytest.approx(51 / 255)
    assert read({**VIT, "do_rescale": False}).numbers(pixels) == pytest.approx((51 - 0.5) / 0.5)
    other = read({**VIT, "rescale_factor": 1 / 127.5, "do_normalize": False})
    assert other.numbers(pixels) == pytest.approx(51 / 127.5)
    offset = {**EFFICIENTNET, "rescale_offset": True, "include_top": False, "do_normalize": False}
    assert read({**offset, "rescale_factor": 1 / 127.5}).numbers(pixels) == pytest.approx(
        51 / 127.5 - 1
    )


def test_a_distorted_view_is_cut_from_a_larger_square_of_the_same_part() -> None:
    preprocessing = read(DINOV2)
    body = photo(4, 700, 500)
    large = preprocessing.pixels(body, 448)
    assert large.shape == (448, 448, 3)
    small = Image.fromarray(large).resize((224, 224), Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - preprocessing.pixels(body)).mean() < 3


def test_an_image_of_extreme_sides_costs_no_more_than_the_square() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (60_000, 2), "red").save(buffer, "PNG")
    assert read(DINOV2).pixels(buffer.getvalue()).shape == (224, 224, 3)


def test_the_job_overrides_the_configuration() -> None:
    changed = read(
        DINOV2, size=448, mean=[0.0, 0.5, 1.0], std=[1, 2, 4], channels="BGR", crop="squash"
    )
    assert (changed.size, changed.edge, changed.crop) == (448, 448, Crop.SQUASH)
    assert (changed.mean, changed.std) == ((0, 0.5, 1), (1, 2, 4))
    assert changed.channels is Channels.BGR
    assert read(DINOV2, size=112).edge == 128  # the margin keeps its share
    centred = read(VIT, crop="center")
    assert (centred.crop, centred.edge, centred.size) == (Crop.CENTER, 224, 224)
    pixels = np.zeros((1, 1, 1, 3), np.uint8)
    pixels[..., 0] = 255
    assert changed.numbers(pixels)[0, :, 0, 0] == pytest.approx([-0.25, -0.25, 1])


def test_without_a_configuration_mean_and_std_and_an_open_size_are_asked_for() -> None:
    assert refusal(None) == (
        "model.onnx has no preprocessor_config.json beside it, and nothing else says what its images "
        "must be: put that file there, or set spec.backbone.size and spec.backbone.mean and "
        "spec.backbone.std."
    )
    alone = read(None, size=96, mean=[0.5] * 3, std=[0.5] * 3)
    assert (alone.size, alone.crop, alone.scale) == (96, Crop.SQUASH, 1 / 255)


def test_what_does_not_fit_the_network_is_refused_by_the_field_to_set() -> None:
    source = BackboneSource(url="s3://networks/some")
    for size, layout, expected in (
        (256, Layout.NHWC, "set spec.backbone.size to 256"),
        (224, None, "set spec.backbone.layout to NCHW or NHWC"),
    ):
        with pytest.raises(UserError, match=expected):
            read_preprocessing(VIT, source, size=size, layout=layout, file="model.onnx")
    other = BackboneSource(url="s3://networks/some", layout="NHWC")
    with pytest.raises(UserError, match=r"spec\.backbone\.layout says NHWC"):
        read_preprocessing(VIT, other, size=224, layout=Layout.NCHW, file="model.onnx")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": {"height": 224, "width": 336}}, "size is .*made squares"),
        ({"size": {"longest_edge": 224}}, "size is"),
        ({"size": "224"}, "size is"),
        ({"size": -3}, "size is"),
        ({"size": 100_000}, "1 to 1024"),
        ({"do_center_crop": True, "crop_size": 300}, "crop_size is 300"),
        ({"crop_pct": 0}, "crop_pct is 0"),
        ({"resample": 9}, "resample is 9"),
        ({"rescale_factor": "much"}, "rescale_factor is much"),
        ({"image_std": [0, 1, 1]}, "image_std is"),
        ({"image_mean": None}, r"set spec\.backbone\.mean"),
        ({"image_mean": [0.5]}, r"set spec\.backbone\.mean"),
        ({"do_pad": True}, "do_pad is True"),
        ({"do_thumbnail": True}, "do_thumbnail is True"),
        ({"size_divisor": 32}, "size_divisor is 32"),
        ({"size": None}, r"set spec\.backbone\.size"),
    ],
)
def test_a_configuration_that_is_not_read_names_its_key(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read({**VIT, **change})


def test_it_can_be_written_down_and_read_again() -> None:
    preprocessing = read(DINOV2, channels="BGR")
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
