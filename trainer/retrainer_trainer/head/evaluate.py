"""The final figures: how well the head does on the test images, as `evaluation.json` says them."""

from collections.abc import Sequence

import numpy as np

from retrainer.api import Accuracy, CommonestLabel, Evaluation, LabelFigures
from retrainer.api.interval import wilson
from retrainer_trainer.arrays import Bools, Floats, Rows


def accuracy(truth: Rows, guess: Rows) -> Accuracy:
    """Count the share of right guesses, with its 95% interval.

    Args:
        truth: (images,) true labels.
        guess: (images,) guessed labels.
    """
    images = len(truth)
    if not images:
        return Accuracy()
    share = float((truth == guess).mean())
    return Accuracy(accuracy=share, interval=wilson(share, images), images=images)


def confusion(truth: Rows, guess: Rows, label_count: int) -> Rows:
    """Count pairs, (labels, labels): row is the true label, column the guess."""
    pairs = np.bincount(truth * label_count + guess, minlength=label_count * label_count)
    return pairs.reshape(label_count, label_count)


def per_label(matrix: Rows, labels: Sequence[str]) -> list[LabelFigures]:
    """Give the figures of each label; None where undefined.

    Precision is the share of the guesses of a label that are right, recall the share of its images
    that are guessed right, F1 their harmonic mean: 0 for a label whose images are never guessed right.

    Args:
        matrix: (labels, labels), as of `confusion`.
        labels: names.
    """
    figures = []
    for number, label in enumerate(labels):
        right = int(matrix[number, number])
        images, guesses = int(matrix[number].sum()), int(matrix[:, number].sum())
        figures.append(
            LabelFigures(
                label=label,
                images=images,
                guesses=guesses,
                precision=right / guesses if guesses else None,
                recall=right / images if images else None,
                f1=2 * right / (images + guesses) if images else None,
            )
        )
    return figures


def commonest_label(truth: Rows, training: Rows, labels: Sequence[str]) -> CommonestLabel:
    """Measure a head that always guesses the commonest label.

    Args:
        truth: (test images,) true labels.
        training: (training images,) true labels; the one that most of them have is guessed.
        labels: names.
    """
    guess = int(np.bincount(training, minlength=len(labels)).argmax())
    share = float((truth == guess).mean()) if len(truth) else None
    return CommonestLabel(label=labels[guess], accuracy=share)


def evaluate(
    scores: Floats, truth: Rows, labels: Sequence[str], duplicate: Bools, training: Rows
) -> Evaluation:
    """Give everything in `evaluation.json` but the architecture, the step and the exports.

    Args:
        scores: float32, (test images, labels).
        truth: (test images,) true labels.
        labels: names.
        duplicate: (test images,) whether the same image also occurs elsewhere in the set.
        training: (training images,) true labels.
    """
    guess = scores.argmax(axis=1) if len(scores) else np.empty(0, np.intp)
    matrix = confusion(truth, guess, len(labels))
    true_scores = scores[np.arange(len(truth)), truth].astype(np.float64)
    # A float32 softmax can be exactly 0; its smallest positive number stands for that.
    nats = -np.log(np.maximum(true_scores, 2.0**-149))
    total = accuracy(truth, guess)
    return Evaluation(
        accuracy=total.accuracy,
        interval=total.interval,
        images=total.images,
        cross_entropy=float(nats.mean()) if len(truth) else None,
        commonest_label=commonest_label(truth, training, labels),
        without_duplicates=accuracy(truth[~duplicate], guess[~duplicate]),
        labels=per_label(matrix, labels),
        confusion=matrix.tolist(),
    )
