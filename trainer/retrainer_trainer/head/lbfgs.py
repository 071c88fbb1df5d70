"""Softmax regression solved to convergence, for any number of L2 strengths at once.

With N training rows x_i of label y_i, L labels and D floats per bottleneck, a head of weights W (L, D)
and bias b (L) minimises

    f(W, b) = 1/N sum_i -log softmax(W x_i + b)[y_i]  +  l2/2 sum(W^2)

(scikit-learn's LogisticRegression with C = 1 / (l2 N); the bias is not held small there either). The
steps, for K strengths at once:

1. Centre the bottlenecks (the bias takes that up) and turn W into the eigenvectors of their
   covariance C. There 1/2 C + l2 I, which bounds the curvature of f from above (Boehning 1992,
   "Multinomial logistic regression algorithm"), is diagonal: its inverse is a first guess of the
   inverse curvature.
2. Go by limited-memory BFGS (Nocedal & Wright, "Numerical Optimization", algorithm 7.4) from there.
3. Halve a step until f falls enough (Armijo's rule).
4. A head is done once half the product of gradient and step, which estimates how much f can still
   fall, is less than the tolerance, a share of f.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from retrainer_trainer.arrays import Doubles, Floats, Rows

TOLERANCE = 1e-6
"""Share of the loss: a hundredth of the 1e-4 to which two solvers agree, since it is an estimate."""
CHOICE_TOLERANCE = 1e-5
"""The same where heads are only compared to choose among them: a third fewer iterations."""
MOST_ITERATIONS = 1000
"""A bound that is reached only with next to no L2, where no training image is labelled wrongly."""

_MEMORY = 10  # pairs of steps and gradients: between 3 and 20 by Nocedal & Wright, section 7.2
_ARMIJO = 1e-4  # their section 3.1
_HALVINGS = 8
# Rows gathered at a time.
_CHUNK = 4096


@dataclass(frozen=True)
class Solved:
    """K heads at the minimum of f.

    Attributes:
        weights: (K, labels, width).
        bias: (K, labels).
        loss: (K,) the value of f, its L2 part included.
        iterations: the number that the slowest of the heads took.
    """

    weights: Floats
    bias: Floats
    loss: Doubles
    iterations: int


def solve(
    problem: "Problem",
    l2: Doubles,
    *,
    on_iteration: Callable[[int, Callable[[], tuple[Floats, Floats]]], None] = lambda *_: None,
    tolerance: float = TOLERANCE,
) -> Solved:
    """Minimise f for each strength of `l2`.

    Args:
        problem: the bottlenecks and labels of f; several threads may use one.
        l2: (K,) strengths.
        on_iteration: called with the number of iterations done, and a function that gives the heads
            of that moment, (K, L, D) and (K, L).
        tolerance: the share of f, by estimate, by which it may still fall when a head is done.
    """
    stuck = np.zeros(len(l2), bool)
    done = np.zeros((len(l2), *problem.shape), np.float32)
    losses = np.zeros(len(l2))
    active = np.arange(len(l2))
    point = done.copy()
    loss, gradient = problem.loss(point, l2)
    memory: list[tuple[Floats, Floats, Floats]] = []
    on_iteration(0, partial(problem.heads, point))
    iteration = 0
    while True:
        inverse = problem.inverse(l2[active])
        step = -_times_inverse(gradient, memory, inverse)
        slope = _dot(gradient, step)
        going = (-0.5 * slope > tolerance * loss) & ~stuck
        if iteration == MOST_ITERATIONS:
            going[:] = False
        if not going.all():
            done[active[~going]], losses[active[~going]] = point[~going], loss[~going]
            active, point, loss, gradient = (
                active[going],
                point[going],
                loss[going],
                gradient[going],
            )
            step, slope = step[going], slope[going]
            memory = [(s[going], y[going], r[going]) for s, y, r in memory]
            if not len(active):
                break
        scale = np.ones(len(active), np.float32)
        moved = point + step
        moved_loss, moved_gradient = problem.loss(moved, l2[active])
        for _ in range(_HALVINGS):
            short = ~(moved_loss <= loss + _ARMIJO * scale * slope)
            if not short.any():
                break
            scale[short] /= 2
            moved[short] = point[short] + scale[short, None, None] * step[short]
            moved_loss[short], moved_gradient[short] = problem.loss(moved[short], l2[active[short]])
        change, difference = moved - point, moved_gradient - gradient
        curvature = _dot(change, difference)
        usable = curvature > 0
        weight = np.where(usable, 1 / np.where(usable, curvature, 1), 0).astype(np.float32)
        memory = [*memory[-_MEMORY + 1 :], (change, difference, weight)]
        # What no step brings down has come to what float32 can tell apart.
        stuck = ~(moved_loss < loss)
        moved[stuck], moved_loss[stuck] = point[stuck], loss[stuck]
        point, loss, gradient = moved, moved_loss, moved_gradient
        iteration += 1
        on_iteration(iteration, partial(problem.heads, point))
    weights, bias = problem.heads(done)
    return Solved(weights, bias, losses, iteration)


class Problem:
    """Computes f and its gradient at points in the coordinates of step 1.

    A point is (K, L, D + 1): turned weights, and the bias last. Bottlenecks that fit one piece are
    turned once; of more, the weights are turned at each evaluation, so that the matrix is not copied.

    Attributes:
        shape: the shape of a point without K, (L, D + 1).
    """

    def __init__(self, matrix: Floats, rows: Rows, label: Rows, label_count: int) -> None:
        """Compute the mean and the eigenvectors of the training rows.

        Args:
            matrix: bottlenecks of all images.
            rows: (N,) the rows of `matrix` to train on.
            label: (N,) their labels.
            label_count: the number of labels, L.
        """
        self._matrix, self._rows, self._label = matrix, rows, label
        width = matrix.shape[1]
        self.shape = (label_count, width + 1)
        self._turned: Floats | None = None
        total, squares = np.zeros(width), np.zeros((width, width))
        for part, _ in self._chunks():
            total += part.sum(axis=0, dtype=np.float64)
            squares += part.T @ part
        self._mean = (total / len(rows)).astype(np.float32)
        covariance = squares / len(rows) - np.outer(total, total) / len(rows) ** 2
        values, vectors = np.linalg.eigh(covariance.astype(np.float32))
        # Of the bias, whose input is always 1, the bound is 1/2.
        self._curvature = np.maximum(values, 0) / 2
        self._vectors = vectors.astype(np.float32)
        if len(rows) <= _CHUNK:
            turned = (matrix[rows] - self._mean) @ self._vectors
            self._turned = turned.astype(np.float32, copy=False)

    def _chunks(self) -> Iterator[tuple[Floats, Rows]]:
        if self._turned is not None:
            yield self._turned, self._label
            return
        gathered = np.empty((min(len(self._rows), _CHUNK), self._matrix.shape[1]), np.float32)
        for start in range(0, len(self._rows), _CHUNK):
            rows = self._rows[start : start + _CHUNK]
            part = gathered[: len(rows)]
            np.take(self._matrix, rows, axis=0, out=part, mode="clip")
            yield part, self._label[start : start + _CHUNK]

    def inverse(self, l2: Doubles) -> Floats:
        """Invert the bound of the curvature, (K, 1, D + 1)."""
        bound = self._curvature[None, :] + l2[:, None]
        floor = 1e-7 * max(self._curvature.max(), 1e-30)
        bound = np.concatenate([np.maximum(bound, floor), np.full((len(l2), 1), 0.5)], axis=1)
        return (1 / bound)[:, None, :].astype(np.float32)

    def heads(self, point: Floats) -> tuple[Floats, Floats]:
        """Turn a point back: weights (K, L, D) and bias (K, L) for bottlenecks as they come."""
        weights = point[:, :, :-1].reshape(-1, len(self._mean)) @ self._vectors.T
        bias = point[:, :, -1].reshape(-1) - weights @ self._mean
        shape = (len(point), self.shape[0], -1)
        return weights.reshape(shape), bias.reshape(shape[:2]).astype(np.float32, copy=False)

    def loss(self, point: Floats, l2: Doubles) -> tuple[Doubles, Floats]:
        """Compute f, (K,), and its gradient, (K, L, D + 1)."""
        count, labels, _ = point.shape
        images, width = len(self._rows), len(self._mean)
        weights, bias = point[:, :, :-1], point[:, :, -1]
        if self._turned is None:
            weights, bias = self.heads(point)
        flat = np.ascontiguousarray(weights).reshape(-1, width)
        nats = np.zeros(count)
        gradient = np.zeros((count * labels, width + 1), np.float32)
        by_weights, by_bias = gradient[:, :-1], gradient[:, -1:]
        for part, label in self._chunks():
            scores = (flat @ part.T).reshape(count, labels, len(part))
            scores += bias[:, :, None]
            scores -= scores.max(axis=1, keepdims=True)
            places = np.arange(len(part))
            true = scores[:, label, places]
            np.exp(scores, out=scores)
            sums = scores.sum(axis=1, keepdims=True)
            nats += (np.log(sums[:, 0]) - true).sum(axis=1, dtype=np.float64)
            scores /= sums
            scores[:, label, places] -= 1
            errors = scores.reshape(count * labels, -1)
            by_weights += errors @ part
            by_bias += errors.sum(axis=1, keepdims=True)
        if self._turned is None:
            by_weights[:] = (by_weights - by_bias * self._mean) @ self._vectors
        gradient /= np.float32(images)
        gradient = gradient.reshape(point.shape)
        gradient[:, :, :-1] += l2.astype(np.float32)[:, None, None] * point[:, :, :-1]
        squared = np.einsum("kld,kld->k", point[:, :, :-1], point[:, :, :-1], dtype=np.float64)
        return nats / images + l2 / 2 * squared, gradient


def _dot(one: Floats, other: Floats) -> Doubles:
    """Multiply each of K arrays with its partner: their scalar products, (K,)."""
    flat = one.reshape(len(one), 1, -1) @ other.reshape(len(other), -1, 1)
    return flat[:, 0, 0].astype(np.float64)


def _times_inverse(
    gradient: Floats, memory: list[tuple[Floats, Floats, Floats]], inverse: Floats
) -> Floats:
    """Multiply the gradient by the estimated inverse curvature: the two loops of algorithm 7.4."""
    result = gradient.copy()
    shares = []
    for change, difference, weight in reversed(memory):
        share = (weight * _dot(change, result)).astype(np.float32)[:, None, None]
        result -= share * difference
        shares.append(share)
    if memory:
        change, difference, weight = memory[-1]
        length = _dot(difference, inverse * difference)
        scale = np.where((weight > 0) & (length > 0), 1 / np.maximum(weight * length, 1e-30), 1)
        inverse = inverse * scale.astype(np.float32)[:, None, None]
    result *= inverse
    for (change, difference, weight), share in zip(memory, reversed(shares), strict=True):
        back = (weight * _dot(difference, result)).astype(np.float32)[:, None, None]
        result += (share - back) * change
    return result
