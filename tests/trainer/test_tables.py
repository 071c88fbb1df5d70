"""Files of a run that other programs read."""

import io

import numpy as np
import pyarrow.parquet as pq

from retrainer.api import CurvePoint
from retrainer_trainer.head.softmax import Head
from retrainer_trainer.outputs import tables


def test_the_head_is_read_back_to_the_bit_without_pickle() -> None:
    generator = np.random.default_rng(0)
    head = Head(generator.random((3, 8), np.float32), generator.random(3, np.float32))
    labels = ["daisy", "ほうき草", "two words"]
    with np.load(io.BytesIO(tables.head_npz(head, labels)), allow_pickle=False) as arrays:
        assert arrays["weights"].tobytes() == head.weights.tobytes()
        assert arrays["bias"].tobytes() == head.bias.tobytes()
        assert arrays["labels"].tolist() == labels


def test_the_history_has_a_row_per_evaluation_and_nulls_where_nothing_was_measured() -> None:
    curve = [
        CurvePoint(step=0, training_accuracy=0.5, cross_entropy=1.6),
        CurvePoint(step=10, training_accuracy=0.75, validation_accuracy=0.5, cross_entropy=1.0),
    ]
    table = pq.read_table(io.BytesIO(tables.history_parquet(curve)))
    assert table.to_pylist() == [point.model_dump() for point in curve]


def test_an_empty_history_and_empty_predictions_keep_their_columns() -> None:
    assert pq.read_table(io.BytesIO(tables.history_parquet([]))).num_columns == 5
    body = tables.predictions_parquet(
        [],
        np.empty((0, 16), np.uint8),
        np.empty(0, np.intp),
        np.empty((0, 2), np.float32),
        ["a", "b"],
    )
    table = pq.read_table(io.BytesIO(body))
    assert table.column_names == ["path", "label", "guess", "score", "label_score", "identity"]
    assert table.num_rows == 0


def test_predictions_name_the_guess_both_scores_and_the_identity_of_the_image() -> None:
    scores = np.array([[0.75, 0.25], [0.625, 0.375]], np.float32)
    identities = np.arange(32, dtype=np.uint8).reshape(2, 16)
    body = tables.predictions_parquet(
        ["a/1.jpg", "b/2.jpg"], identities, np.array([0, 1]), scores, ["a", "b"]
    )
    first, second = pq.read_table(io.BytesIO(body)).to_pylist()
    assert first == {
        "path": "a/1.jpg", "label": "a", "guess": "a", "score": 0.75, "label_score": 0.75,
        "identity": "000102030405060708090a0b0c0d0e0f",
    }  # fmt: skip
    assert second == {
        "path": "b/2.jpg", "label": "b", "guess": "a", "score": 0.625, "label_score": 0.375,
        "identity": "101112131415161718191a1b1c1d1e1f",
    }  # fmt: skip


def test_labels_are_a_line_each() -> None:
    assert tables.labels_txt(["daisy", "rosé"]) == "daisy\nrosé\n".encode()
