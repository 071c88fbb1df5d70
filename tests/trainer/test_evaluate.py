"""The final figures, against scikit-learn and by hand."""

import json

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from retrainer.api import CommonestLabel
from retrainer_trainer.head.evaluate import accuracy, commonest_label, evaluate, per_label

LABELS = ["daisy", "rose", "tulip"]


def scores_of(guesses: list[int]) -> npt.NDArray[np.float32]:
    scores = np.full((len(guesses), len(LABELS)), 0.1, np.float32)
    scores[np.arange(len(guesses)), guesses] = 0.8
    return scores


def test_precision_recall_f1_and_confusion_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(3, size=200)
    guess = np.where(generator.random(200) < 0.7, truth, generator.integers(3, size=200))
    evaluation = evaluate(scores_of(guess.tolist()), truth, LABELS, np.zeros(200, bool), truth)
    assert evaluation.confusion == confusion_matrix(truth, guess).tolist()
    precision, recall, f1, images = precision_recall_fscore_support(truth, guess)
    for i, row in enumerate(evaluation.labels):
        assert row.label == LABELS[i]
        assert row.images == images[i]
        assert row.precision == pytest.approx(precision[i])
        assert row.recall == pytest.approx(recall[i])
        assert row.f1 == pytest.approx(f1[i])
    assert evaluation.accuracy == pytest.approx((truth == guess).mean())


def test_the_interval_is_wilsons() -> None:
    # Worked example: 8 of 10, z = 1.96: 0.490 to 0.943.
    truth = np.zeros(10, np.intp)
    guess = np.array([0] * 8 + [1] * 2)
    low, high = accuracy(truth, guess).interval or (0, 0)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)


def test_no_test_images_give_no_accuracy() -> None:
    evaluation = evaluate(
        np.empty((0, 3), np.float32), np.empty(0, np.intp), LABELS, np.empty(0, bool), np.array([1])
    )
    assert evaluation.accuracy is None
    assert evaluation.interval is None
    assert evaluation.images == 0
    assert evaluation.cross_entropy is None
    assert evaluation.confusion == [[0] * 3] * 3
    json.dumps(json.loads(evaluation.to_json()), allow_nan=False)


def test_a_label_that_is_never_guessed_has_no_precision_and_one_without_images_no_recall() -> None:
    matrix = np.array([[2, 0, 1], [3, 0, 0], [0, 0, 0]])
    rows = per_label(matrix, LABELS)
    assert rows[1].precision is None
    assert rows[1].recall == 0
    assert rows[2].recall is None
    assert rows[2].precision == 0


def test_f1_is_0_for_a_label_whose_images_are_never_found_and_none_without_images() -> None:
    rows = per_label(np.array([[2, 0, 0], [3, 0, 0], [0, 0, 0]]), LABELS)
    assert [row.f1 for row in rows] == [pytest.approx(4 / 7), 0, None]


def test_the_accuracy_without_duplicates_leaves_them_out() -> None:
    truth = np.array([0, 0, 1, 1])
    evaluation = evaluate(
        scores_of([0, 1, 1, 1]), truth, LABELS, np.array([False, True, False, False]), truth
    )
    assert evaluation.accuracy == 0.75
    assert evaluation.without_duplicates.accuracy == 1.0
    assert evaluation.without_duplicates.images == 3


def test_a_score_of_0_for_the_true_label_gives_a_finite_cross_entropy() -> None:
    scores = np.array([[1.0, 0.0, 0.0]], np.float32)
    evaluation = evaluate(scores, np.array([1]), LABELS, np.zeros(1, bool), np.array([1]))
    assert evaluation.cross_entropy == pytest.approx(149 * np.log(2))


def test_always_guessing_the_commonest_training_label_is_measured_on_the_test_images() -> None:
    truth = np.array([0, 1, 1, 2, 2, 2])
    training = np.array([1, 1, 1, 2, 0])
    evaluation = evaluate(scores_of([0, 1, 1, 2, 2, 0]), truth, LABELS, np.zeros(6, bool), training)
    assert evaluation.commonest_label == CommonestLabel(label="rose", accuracy=2 / 6)
    assert commonest_label(truth[:0], training, LABELS) == CommonestLabel(label="rose")
