"""Real networks laid out as Hugging Face lays them out: EfficientNet-Lite0 twice, and a ViT."""

from pathlib import Path

import numpy as np
import pytest

from retrainer.api import BackboneSource, RetrainJobSpec, Storage, Token
from retrainer_trainer.backbone.given import GivenBackbone, open_given
from retrainer_trainer.store.opening import open_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backbones(test_data: Path) -> Path:
    return test_data / "backbones"


def opened(place: Path, folder: Path, token: Token | None = None) -> GivenBackbone:
    source = BackboneSource(url=str(place), token=token)
    spec = RetrainJobSpec(backbone=source, images="unused", output=str(folder))
    cache = open_store(str(folder / "cache"), Storage(), "spec.cache")
    return open_given(spec, source, cache, lambda _: None, lambda _: None)


def test_bottlenecks_of_onnx_and_tensorflow_lite_agree(
    backbones: Path, flowers: Path, tmp_path: Path
) -> None:
    folder = backbones / "efficientnet_lite0"
    one, other = opened(folder, tmp_path), opened(folder / "backbone.tflite", tmp_path)
    assert (one.name, one.width, one.size) == ("efficientnet_lite0", 1280, 224)
    engines = one.start(), other.start()
    for label in sorted(flowers.iterdir()):
        if label.is_dir():
            body = min(label.glob("*.jpg")).read_bytes()
            ours, theirs = (engine([one.pixels(body, one.size)])[0] for engine in engines)
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_vit_gives_its_first_token_and_the_mean_of_all(
    backbones: Path, flowers: Path, tmp_path: Path
) -> None:
    cls, mean = (opened(backbones / "vit_s", tmp_path, token) for token in Token)
    assert (cls.width, mean.width, cls.network.output) == (384, 384, "last_hidden_state")
    body = min((flowers / "daisy").glob("*.jpg")).read_bytes()
    pixels = cls.pixels(body, cls.size)
    assert np.abs(cls.start()([pixels])[0] - mean.start()([pixels])[0]).max() > 0.1
