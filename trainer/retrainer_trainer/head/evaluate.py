"""The final figures: how well the head does on the test images, as `evaluation.json` says them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from retrainer.api.interval import wilson
from retrainer_trainer.arrays import Bools, Floats, Rows


def accuracy(truth: Rows, guess: Rows) -> dict[str, Any]:
    """Share of right guesses: `accuracy` (None without images), its 95% `interval`, `images`.

    Args:
        truth: (images,) true labels.
        guess: (images,) guessed labels.
    """
    images = len(truth)
    if not images:
        return {"accuracy": None, "interval": None, "images": 0}
    share = float((truth == guess).mean())
    return {"accuracy": share, "interval": list(wilson(share, images)), "images": images}


def confusion(truth: Rows, guess: Rows, label_count: int) -> Rows:
    """Counts, (labels, labels): row is the true label, column the guess."""
    pairs = np.bincount(truth * label_count + guess, minlength=label_count * label_count)
    return pairs.reshape(label_count, label_count)


def per_label(matrix: Rows, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Of each label: `images`, `guesses`, `precision`, `recall`, `f1`; None where undefined.

    Precision is the share of the guesses of a label that are right, recall the share of its images
    that are found, F1 their harmonic mean: 0 for a label whose images are never found.
    """
    found = []
    for number, label in enumerate(labels):
        right = int(matrix[number, number])
        images, guesses = int(matrix[number].sum()), int(matrix[:, number].sum())
        found.append(
            {
                "label": label,
                "images": images,
                "guesses": guesses,
                "precision": right / guesses if guesses else None,
                "recall": right / images if images else None,
                "f1": 2 * right / (images + guesses) if images else None,
            }
        )
    return found


def commonest_label(truth: Rows, training: Rows, labels: Sequence[str]) -> dict[str, Any]:
    """What a head that always guesses the commonest label would be right on.

    Args:
        truth: (test images,) true labels.
        training: (training images,) true labels; the label that most of them have is guessed.
        labels: names.

    Returns:
        `label`, and `accuracy` on the test images; None without any.
    """
    guess = int(np.bincount(training, minlength=len(labels)).argmax())
    share = float((truth == guess).mean()) if len(truth) else None
    return {"label": labels[guess], "accuracy": share}


def evaluate(
    scores: Floats,
    truth: Rows,
    labels: Sequence[str],
    duplicate: Bools,
    training: Rows,
) -> dict[str, Any]:
    """Everything in `evaluation.json` but what the exports add.

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
    return {
        **accuracy(truth, guess),
        "crossEntropy": float(nats.mean()) if len(truth) else None,
        "commonestLabel": commonest_label(truth, training, labels),
        "withoutDuplicates": accuracy(truth[~duplicate], guess[~duplicate]),
        "labels": per_label(matrix, labels),
        "confusion": matrix.tolist(),
        "exports": {},
    }
