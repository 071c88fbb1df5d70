"""A run of a network of one's own: predict decodes photos as the file says, in either format."""

from pathlib import Path

import numpy as np
import pytest
from tests.support import pictures
from tests.support.small_networks import SIZE, WIDTH, onnx_network, tflite_network

from retrainer.api import Crop, Layout
from retrainer.api.layout import EXPORT_PATHS
from retrainer.errors import UserError
from retrainer.inference.classifier import Classifier, predict
from retrainer.inference.preprocessing import Preprocessing
from retrainer_trainer.backbone.graphs import read_graph
from retrainer_trainer.backbone.runtimes import GivenNetwork
from retrainer_trainer.export.append import appended
from retrainer_trainer.export.metadata import with_metadata
from retrainer_trainer.head.softmax import Head

LABELS = ["left", "right"]
HEAD = Head(
    np.random.default_rng(3).normal(0, 3, (2, WIDTH)).astype(np.float32), np.zeros(2, np.float32)
)


def run_folder(folder: Path, form: str, prepared: Preprocessing) -> Path:
    """A run as the trainer leaves it, as far as predict reads it."""
    body = onnx_network().SerializeToString() if form == "onnx" else tflite_network()
    file = folder / f"network.{form}"
    file.write_bytes(body)
    graph = read_graph(file)
    whole = appended(GivenNetwork(body, graph, "pooler_output", None, prepared), HEAD, LABELS)
    if form == "tflite":
        whole = with_metadata(whole, "small", LABELS, prepared)
    (folder / EXPORT_PATHS[form]).write_bytes(whole)
    (folder / "labels.txt").write_text("left\nright\n")
    (folder / "result.json").write_text("{}")
    return folder


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_predict_cuts_and_filters_a_photo_as_the_bottlenecks_were_made(
    tmp_path: Path, form: str
) -> None:
    prepared = Preprocessing(
        size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, crop=Crop.CENTER, edge=40, resample=3,
        layout=Layout.NCHW if form == "onnx" else Layout.NHWC,
    )  # fmt: skip
    run = run_folder(tmp_path, form, prepared)
    wide = pictures.saved(pictures.smooth(300, 100), "PNG")
    (prediction,) = predict(run, wide)
    classifier = Classifier.open(str(run))
    wanted = classifier._network.scores(prepared.pixels(wide)[None])[0]
    squashed = classifier._network.scores(Preprocessing(size=SIZE).pixels(wide)[None])[0]
    assert [prediction.scores[label] for label in LABELS] == pytest.approx(wanted.tolist())
    assert abs(wanted - squashed).max() > 0.01, "another crop gives other scores"


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_a_damaged_export_of_either_format_is_refused_in_a_sentence(
    tmp_path: Path, form: str
) -> None:
    layout = Layout.NCHW if form == "onnx" else Layout.NHWC
    run = run_folder(tmp_path, form, Preprocessing(size=SIZE, layout=layout))
    file = run / EXPORT_PATHS[form]
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"^The network in .* cannot be loaded: it is damaged"):
        Classifier.open(str(run))
