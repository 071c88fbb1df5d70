"""Many softmax heads trained at once on parts of one matrix of bottlenecks.

Cross-validation and learning curves need some twenty heads that see different images of the same
matrix. Trained together, they share every product with the matrix.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from retrainer_trainer.arrays import Floats

STEPS = 30
"""Accelerated gradient steps; 60 changed no figure of 1,498 flowers beyond its third digit."""
RELATIVE_L2 = 1e-3
"""Weight decay, as a share of the bottlenecks' mean squared distance from their mean: so it means the
same for networks whose numbers are larger. Of 0.0001 to 0.003, the best for finding wrong labels."""

_CHUNK = 8192
"""Number of rows whose scores are in memory at a time."""


@dataclass(frozen=True)
class Rotated:
    """Bottlenecks in the axes of their covariance, in which the curvature of the loss is diagonal.

    Attributes:
        rows: float32, (images, axes).
        curvature: float32, (axes,): a bound of the loss's curvature along each axis: half of the
            variance (Boehning 1992, "Multinomial logistic regression algorithm").
        l2: weight decay for heads trained on these rows.
    """

    rows: Floats
    curvature: Floats
    l2: float


def rotate(matrix: Floats) -> Rotated:
    """Bottlenecks (images, width) float32, centred and in the axes of their covariance.

    Axes without variance are left out.
    """
    mean = matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
    width = matrix.shape[1]
    covariance = np.zeros((width, width))
    for start in range(0, len(matrix), _CHUNK):
        centred = matrix[start : start + _CHUNK] - mean
        covariance += centred.T @ centred
    covariance /= len(matrix)
    variance, axes = np.linalg.eigh(covariance)
    kept = variance > 1e-7 * max(variance[-1], np.finfo(np.float32).tiny)
    axes = axes[:, kept].astype(np.float32)
    rows = np.empty((len(matrix), axes.shape[1]), np.float32)
    for start in range(0, len(matrix), _CHUNK):
        rows[start : start + _CHUNK] = (matrix[start : start + _CHUNK] - mean) @ axes
    spread = float(variance[kept].sum())
    return Rotated(rows, (variance[kept] / 2).astype(np.float32), RELATIVE_L2 * spread)


@dataclass(frozen=True)
class Heads:
    """Several heads on the same rotated bottlenecks.

    Attributes:
        weights: float32, (heads, labels, axes).
        bias: float32, (heads, labels).
    """

    weights: Floats
    bias: Floats

    def scores(self, rotated: Rotated, head: int, rows: npt.NDArray[np.intp]) -> Floats:
        """Compute the softmax scores (rows, labels) of one head."""
        logits: Floats = rotated.rows[rows] @ self.weights[head].T + self.bias[head]
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits


def train_heads(
    rotated: Rotated,
    label: npt.NDArray[np.intp],
    label_count: int,
    takes_part: npt.NDArray[np.bool_],
    steps: int = STEPS,
) -> Heads:
    """Train one softmax head for each row of `takes_part`, all at once.

    Minimises for each head the mean cross entropy over its images plus l2/2 times the squared weights,
    by Nesterov's accelerated gradient with the inverse of the curvature's bound as step size.

    Args:
        rotated: all images.
        label: (images,) number of each image's label.
        label_count: number of labels.
        takes_part: (heads, images) which images each head is trained on; at least one for each head.
        steps: of accelerated gradient.
    """
    heads, images = takes_part.shape
    axes = rotated.rows.shape[1]
    share = takes_part / takes_part.sum(axis=1, dtype=np.float32)[:, None]
    share = np.ascontiguousarray(share, np.float32)
    # The variance of a part of the images is a little larger along some axes than that of all.
    decay = np.float32(rotated.l2)
    step_size: Floats = np.float32(1) / (np.float32(1.2) * rotated.curvature + decay)
    weights: Floats = np.zeros((heads, label_count, axes), np.float32)
    bias: Floats = np.zeros((heads, label_count), np.float32)
    ahead: Floats = weights.copy()
    bias_ahead: Floats = bias.copy()
    with threadpool_limits(limits=1, user_api="blas"):
        for step in range(steps):
            gradient = decay * ahead
            bias_gradient = np.zeros_like(bias)
            for start in range(0, images, _CHUNK):
                part = slice(start, start + _CHUNK)
                error = _errors(rotated.rows[part], label[part], ahead, bias_ahead)
                error *= share[:, None, part]
                gradient += (error.reshape(heads * label_count, -1) @ rotated.rows[part]).reshape(
                    weights.shape
                )
                bias_gradient += error.sum(axis=2)
            next_weights: Floats = ahead - gradient * step_size
            # The curvature along the bias is at most 1/2.
            next_bias: Floats = bias_ahead - np.float32(2) * bias_gradient
            momentum = np.float32(step / (step + 3))
            ahead = next_weights + momentum * (next_weights - weights)
            bias_ahead = next_bias + momentum * (next_bias - bias)
            weights, bias = next_weights, next_bias
    return Heads(weights, bias)


def _errors(
    rows: Floats, label: npt.NDArray[np.intp], weights: Floats, bias: Floats
) -> npt.NDArray[np.float32]:
    """Compute score minus truth, (heads, labels, rows)."""
    heads, labels, axes = weights.shape
    scores = (weights.reshape(heads * labels, axes) @ rows.T).reshape(heads, labels, len(rows))
    scores += bias[:, :, None]
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    scores[:, label, np.arange(len(rows))] -= 1
    return scores
