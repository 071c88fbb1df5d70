"""Exports: each file, loaded anew, gives the head's own scores on real photos."""

import io
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests.conftest import REPOSITORY
from tests.support import pictures
from tests.support.trainer_engine import Recorder, spec

from retrainer.api import Export, Training, architecture
from retrainer.api.layout import EXPORT_PATHS
from retrainer.errors import RetrainerError, UserError
from retrainer.inference import pixels as images
from retrainer.inference.classifier import Classifier
from retrainer.inference.headers import orientation
from retrainer.inference.runners import SAVED_MODEL_BYTES, open_runners
from retrainer_trainer.backbone.layers import read_layers
from retrainer_trainer.backbone.network import keras_network
from retrainer_trainer.backbone.weights import BUILTIN, Weights
from retrainer_trainer.export import check, formats
from retrainer_trainer.export import graph as export_graph
from retrainer_trainer.export.check import Comparison
from retrainer_trainer.export.formats import Network
from retrainer_trainer.head.softmax import Examples, Head
from retrainer_trainer.head.softmax import train as train_head

pytestmark = pytest.mark.slow

LABELS = ["daisy", "roses", "tulips"]
EACH = 40
SIZE = 128
FLOATS = [e for e in Export if e is not Export.TFLITE_INT8]


@dataclass(frozen=True)
class Exported:
    """One network in every format, and what its head says of some photos."""

    folder: Path
    network: Network
    bodies: list[bytes]
    pixels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    graph: bytes
    lines: list[str]


@pytest.fixture(scope="module")
def exported(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    paths = [p for label in LABELS for p in sorted((flowers / label).iterdir())[:EACH]]
    bodies = [p.read_bytes() for p in paths]
    pixels = np.stack([images.pixels(b, SIZE) for b in bodies])
    weights = Weights.of("builtin", BUILTIN.read_bytes())
    chosen = architecture("mobilenet_0.25_128")
    layers = read_layers(chosen, weights)
    backbone = keras_network(chosen, layers)
    matrix = np.asarray(backbone(pixels.astype(np.float32) / 127.5 - 1, training=False))
    rows = np.arange(len(paths))
    label = np.repeat(np.arange(len(LABELS)), EACH)
    examples = Examples(matrix, label, rows[:, None], rows[:0], len(LABELS))
    head = train_head(examples, Training(steps=1500, learning_rate=0.02)).head
    network = Network(chosen, layers, head, LABELS)
    folder = tmp_path_factory.mktemp("exports")
    lines: list[str] = []
    formats.write(network, list(Export), folder, lambda: pixels[::3], lines.append)
    graph = formats.graph_for_tensorboard(network)
    return Exported(folder, network, bodies, pixels, head.scores(matrix, rows), graph, lines)


@pytest.mark.parametrize("form", FLOATS)
def test_each_float_export_gives_the_heads_scores(exported: Exported, form: Export) -> None:
    run = open_runners(exported.folder, form)[form.value]
    scores = np.concatenate([run(exported.pixels[s : s + 32], []) for s in (0, 32, 64, 96)])
    assert exported.scores.max(1).mean() > 0.5, "the head has learned something to agree on"
    np.testing.assert_allclose(scores, exported.scores, atol=2e-3)


def test_the_int8_file_takes_and_gives_bytes_and_nearly_agrees(exported: Exported) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = exported.folder / EXPORT_PATHS["tfliteInt8"]
    interpreter = Interpreter(str(path))
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    assert interpreter.get_output_details()[0]["dtype"] == np.uint8
    assert path.stat().st_size < 0.5 * (exported.folder / EXPORT_PATHS["tflite"]).stat().st_size
    scores = open_runners(exported.folder, Export.TFLITE_INT8)["tfliteInt8"](exported.pixels, [])
    assert (scores.argmax(1) == exported.scores.argmax(1)).mean() > 0.85
    np.testing.assert_allclose(scores.sum(1), 1, atol=0.05)


def test_predict_and_the_check_of_an_export_give_the_same_scores(exported: Exported) -> None:
    for form in (Export.TFLITE, Export.TFLITE_INT8):
        path = exported.folder / EXPORT_PATHS[form]
        checked = open_runners(exported.folder, form)[form.value](exported.pixels[:4], [])
        classifier = Classifier("a run", path.read_bytes(), LABELS)
        for body, scores in zip(exported.bodies[:4], checked, strict=True):
            prediction = classifier.one(body)
            assert [prediction.scores[label] for label in LABELS] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_a_tflite_file_that_is_cut_off_is_refused_in_a_sentence(
    exported: Exported, share: float
) -> None:
    whole = (exported.folder / EXPORT_PATHS["tflite"]).read_bytes()
    with pytest.raises(UserError, match=r"^The network in RUN cannot be loaded: it is damaged"):
        Classifier("RUN", whole[: int(len(whole) * share)], LABELS)


def test_the_bytes_signature_gives_scores_and_labels_of_photos(exported: Exported) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(exported.folder / "saved_model"))
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(exported.bodies))
    np.testing.assert_allclose(answer["scores"], exported.scores, atol=0.03)
    best = [LABELS[i].encode() for i in answer["scores"].numpy().argmax(1)]
    assert answer["label"].numpy().tolist() == best
    assert answer["labels"].numpy()[5].tolist() == [label.encode() for label in LABELS]
    assert answer["labels"].shape == answer["scores"].shape


def test_the_bytes_signature_sees_the_pixels_that_the_trainer_sees_or_refuses() -> None:
    import tensorflow as tf

    spec = tf.TensorSpec((), tf.string)
    decode = tf.function(lambda body: export_graph.decoded(body, SIZE), input_signature=[spec])
    kinds = {name: body for name, (body, _) in pictures.kinds().items()}
    for name, shape in (("large", (1900, 1100)), ("tall", (90, 700)), ("tiny", (20, 31))):
        kinds[f"{name} JPEG"] = pictures.saved(pictures.smooth(*shape), "JPEG", quality=95)
    wrong, refused = {}, set()
    for name, body in kinds.items():
        try:
            theirs = decode(tf.constant(body)).numpy()
        except tf.errors.InvalidArgumentError:
            refused.add(name)
            continue
        difference = np.abs(theirs - images.pixels(body, SIZE).astype(np.float32))
        if difference.mean() >= 0.6 or np.percentile(difference, 99) > 3:
            wrong[name] = difference.mean()
    assert not wrong
    assert len(refused & set(kinds)) < 0.2 * len(kinds)
    plain = {
        "24 bits, header 40",
        "24 bits, header 108",
        "24 bits, header 124",
        "24 bits, top down",
    }
    plain |= {"32 bits, reserved 0", "32 bits, reserved random"}
    assert refused == {
        *(f"BMP, {name}" for name in pictures.bitmaps() if name not in plain),
        "GIF, with a clear colour",
        "JPEG, no end mark",
    }


def test_what_the_bytes_signature_does_not_read_it_refuses_with_advice() -> None:
    import tensorflow as tf

    palette = pictures.bitmaps()["8 bits, header 40"]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"Only BMP of 24 .* convert it to PNG"
    ):
        export_graph.decoded(tf.constant(palette), SIZE)


def test_a_file_that_tensorflow_does_not_read_is_a_different_guess_and_no_end(
    exported: Exported,
) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(exported.bodies[0])).convert("1").save(out, "BMP")
    pixels = np.stack([images.pixels(out.getvalue(), SIZE), exported.pixels[1]])
    truth = exported.scores[:2].argmax(1)
    run = open_runners(exported.folder, Export.SAVED_MODEL)[SAVED_MODEL_BYTES]
    count = Comparison()
    count.add(run(pixels, [out.getvalue(), exported.bodies[1]]), truth, truth)
    assert (count.images, count.right, count.different) == (2, 1, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_a_damaged_exif_block_is_read_alike_by_the_export(kind: str) -> None:
    import tensorflow as tf

    plain = pictures.saved(pictures.smooth(), kind)
    whole = pictures.with_exif(plain, pictures.tiff(6, order="II", number="LONG"))
    assert export_graph.exif_orientation(tf.constant(whole)).numpy() == 6
    generator = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(whole)
        for at in generator.integers(2, 80, 4):
            broken[at] = generator.integers(256)
        ours = orientation(bytes(broken), kind) if broken[:4] == whole[:4] else 1
        theirs = int(export_graph.exif_orientation(tf.constant(bytes(broken))))
        assert theirs == ours


def test_the_codelabs_label_image_reads_the_frozen_graph(exported: Exported, flowers: Path) -> None:
    labels = exported.folder / "labels.txt"
    labels.write_text("".join(f"{label}\n" for label in LABELS))
    sure = int(exported.scores.max(1).argmax())
    path = [p for label in LABELS for p in sorted((flowers / label).iterdir())[:EACH]][sure]
    command = [
        sys.executable,
        str(REPOSITORY / "examples/label_image.py"),
        *("--graph", str(exported.folder / "frozen_graph.pb"), "--labels", str(labels)),
        *("--input_height", str(SIZE), "--input_width", str(SIZE), "--image", str(path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    best = LABELS[int(exported.scores[sure].argmax())]
    assert lines[0].startswith(f"{best} (score=")
    score = float(lines[0].split("=")[1].rstrip(")"))
    assert score == pytest.approx(float(exported.scores[sure].max()), abs=0.05)
    assert len(lines) == len(LABELS)


def test_the_frozen_graph_has_retrain_pys_names_and_no_variables(exported: Exported) -> None:
    import tensorflow as tf

    body = (exported.folder / "frozen_graph.pb").read_bytes()
    graph = tf.compat.v1.GraphDef.FromString(body)
    operations = {node.name: node.op for node in graph.node}
    assert operations["input"] == "Placeholder"
    assert operations["final_result"] == "Softmax"
    assert not {op for op in operations.values() if "Variable" in op or op == "PartitionedCall"}


def test_the_graph_for_tensorboard_is_whole_but_for_its_weights(exported: Exported) -> None:
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef.FromString(exported.graph)
    assert {"input", "final_result"} <= {node.name for node in graph.node}
    assert len(exported.graph) < 200_000


def test_an_export_of_another_head_is_noticed(exported: Exported, tmp_path: Path) -> None:
    wrong = Head(exported.network.head.weights[::-1].copy(), exported.network.head.bias)
    network = replace(exported.network, head=wrong)
    formats.write(network, [Export.TFLITE], tmp_path, lambda: exported.pixels)
    run = open_runners(tmp_path, Export.TFLITE)["tflite"]
    count = Comparison()
    guess = exported.scores.argmax(1)
    count.add(run(exported.pixels, []), np.repeat(np.arange(3), EACH), guess)
    assert count.differs
    recorder = Recorder(spec("images", "output"), "train")
    with pytest.raises(
        RetrainerError, match="The exported tflite disagrees with the head"
    ) as caught:
        check.tell_difference("tflite", count, recorder)
    assert caught.value.reason == "ExportDiffers"


def test_one_percent_may_differ_and_a_lenient_export_only_warns() -> None:
    assert not Comparison(images=300, right=200, different=3).differs
    bad = Comparison(images=300, right=200, different=4)
    assert bad.differs
    recorder = Recorder(spec("images", "output"), "train")
    check.tell_difference("tfliteInt8", bad, recorder)
    assert recorder.warnings == [
        "The exported tfliteInt8 disagrees with the head on 4 of 300 images."
    ]


def test_slow_formats_are_announced(exported: Exported) -> None:
    assert exported.lines == [formats.ANNOUNCED[e] for e in Export if e in formats.ANNOUNCED]


def test_a_file_that_holds_other_numbers_than_those_trained_is_refused(
    exported: Exported, tmp_path: Path
) -> None:
    network = exported.network
    for form, file in (
        (Export.SAVED_MODEL, "saved_model/saved_model.pb"),
        (Export.FROZEN_GRAPH, "frozen_graph.pb"),
    ):
        check.check_constants(exported.folder, form, network.arrays, LABELS)
        formats.write(network, [form], tmp_path, lambda: exported.pixels)
        path = tmp_path / file
        body = bytearray(path.read_bytes())
        body[body.index(network.arrays["conv_pw_9/kernel"].tobytes()) + 100] ^= 1
        path.write_bytes(body)
        with pytest.raises(RetrainerError) as caught:
            check.check_constants(tmp_path, form, network.arrays, LABELS)
        assert caught.value.reason == "ExportDamaged"
        assert str(caught.value) == (
            f"The exported {form} does not hold the numbers that were trained."
        )
    with pytest.raises(RetrainerError, match="savedModel does not hold"):
        check.check_constants(exported.folder, Export.SAVED_MODEL, network.arrays, LABELS[::-1])


QUIET = """
import sys, pathlib, numpy as np
from retrainer_trainer.export import formats
from retrainer_trainer.backbone.layers import read_layers
from retrainer_trainer.head.softmax import Head
from retrainer_trainer.backbone.weights import BUILTIN, Weights
from retrainer.inference.runners import SAVED_MODEL_BYTES, open_runners
from retrainer.inference.silence import quiet
from retrainer.api import Export, architecture
chosen = architecture("mobilenet_0.25_128")
layers = read_layers(chosen, Weights.of("", BUILTIN.read_bytes()))
head = Head(np.eye(2, 256, dtype=np.float32), np.zeros(2, np.float32))
folder = pathlib.Path(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
network = formats.Network(chosen, layers, head, ["a", "b"])
formats.write(network, list(Export), folder, lambda: pixels)
with quiet():
    for form in Export:
        for name, run in open_runners(folder, form).items():
            if name != SAVED_MODEL_BYTES:
                run(pixels, [])
"""


def test_nothing_of_tensorflow_or_its_converters_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
