"""Networks of one's own on this machine: listing them, and the sentences of what cannot be done."""

from pathlib import Path

import pytest
from tests.support import pictures
from tests.support.small_networks import onnx_network, tflite_network
from typer.testing import CliRunner

from retrainer import add_backbone, list_backbones, show_backbone
from retrainer.cli.main import build
from retrainer.errors import NotFound, UserError

RUNNER = CliRunner()


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    for name, body in {
        "dinov2/onnx/model.onnx": onnx_network().SerializeToString(),
        "dinov2/onnx/model_fp16.onnx": b"another form of it",
        "dinov2/preprocessor_config.json": b"{}",
        "lite/backbone.tflite": tflite_network(),
        "lite/README.md": b"",
        "clip/onnx/text_model.onnx": b"",
        "clip/onnx/vision_model.onnx": b"",
        "clip/preprocessor_config.json": b"{}",
        "alone.onnx": b"",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return tmp_path


def test_networks_are_listed_by_their_folders_and_single_files_by_their_names(
    networks: Path,
) -> None:
    listed = {
        network.name: (network.file, network.configured) for network in list_backbones(networks)
    }
    assert listed == {
        "alone.onnx": ("alone.onnx", False),
        "clip/onnx/text_model.onnx": ("clip/onnx/text_model.onnx", True),
        "clip/onnx/vision_model.onnx": ("clip/onnx/vision_model.onnx", True),
        "dinov2": ("dinov2/onnx/model.onnx", True),
        "lite": ("lite/backbone.tflite", False),
    }
    assert list_backbones(networks / "dinov2")[0].name == "."


def test_the_command_prints_the_list(networks: Path) -> None:
    result = RUNNER.invoke(build(), ["backbone", "list", str(networks)])
    assert result.exit_code == 0
    assert result.output.splitlines()[0].split() == ["NAME", "FILE", "SIZE", "CONFIGURED"]
    assert "dinov2/onnx/model.onnx" in result.output
    empty = RUNNER.invoke(build(), ["backbone", "list", str(networks / "lite" / "..")])
    assert empty.exit_code == 0


def test_a_file_of_weights_that_is_not_there_is_named_before_anything_is_started(
    tmp_path: Path,
) -> None:
    with pytest.raises(NotFound, match=r"There is no file .*none\.h5: give a \.h5 file"):
        add_backbone("MobileNet", tmp_path, weights=tmp_path / "none.h5")


@pytest.mark.slow
def test_a_network_is_shown_with_what_it_gives_for_a_photo(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_network(tokens=True).SerializeToString())
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}'
    )
    photo = tmp_path / "photo.png"
    photo.write_bytes(pictures.saved(pictures.smooth(), "PNG"))
    facts = show_backbone(tmp_path, photo, token="cls")
    assert (facts.format, facts.size, facts.layout, facts.bottleneck) == ("onnx", 32, "NCHW", 8)
    assert (facts.output, facts.outputs[0].shape) == ("last_hidden_state", [None, 64, 8])
    assert facts.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert facts.seconds is not None
    assert len(facts.start) == 5

    shown = RUNNER.invoke(build(), ["backbone", "show", str(tmp_path), "--token", "mean"])
    assert "last_hidden_state (any x 64 x 8, used)" in shown.output
    with pytest.raises(UserError, match=r"set spec\.backbone\.token to cls"):
        show_backbone(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="run git lfs pull"):
        show_backbone(tmp_path, token="cls")
