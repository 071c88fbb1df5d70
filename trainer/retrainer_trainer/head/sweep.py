"""Every combination of learning rate and L2 at once, to choose the one that the head is trained with.

All heads of a group start from one head and see one sequence of batches, so that a step of all is one
product of matrices: a hundred heads cost a tenth of a hundred trainings. The chosen one is then trained
alone, so that it is equal to the bit to a job with its values. Only validation images choose.

Groups have a fixed size, whatever the number of cores, which share them: the choice is the same.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from threadpoolctl import threadpool_limits

from retrainer.api import CurvePoint, Optimizer, Solver, Training
from retrainer_trainer.arrays import Doubles, Floats, Rows
from retrainer_trainer.head import lbfgs
from retrainer_trainer.head.softmax import (
    ADAM_DECAYS,
    ADAM_EPSILON,
    DIVERGED_NATS,
    MOMENTUM,
    Diverged,
    Examples,
    Trained,
    draw_batches,
    initial_head,
    lbfgs_problem,
    train,
)
from retrainer_trainer.runtime.cores import cores

L2_PATH = tuple(float(f"{value:.2e}") for value in np.logspace(-6, 0, 20))
"""What lbfgs tries where no L2 is given: from hardly any to far too much, each twice the one before."""

# At five labels and 512 floats, the weights of 50 heads are 400 kB: they stay in a core's own cache.
# Of 25 each costs 1.3 times as much, of 100 0.9 times.
_GROUP = 50
_LBFGS_GROUP = 10
_CHUNK = 4096


@dataclass(frozen=True)
class Candidate:
    """One combination, and how its head does on the validation images.

    Attributes:
        learning_rate: None with solver lbfgs.
        l2: strength of the weight decay.
        accuracy: share of the validation images guessed right.
        cross_entropy: on the validation images, nats; None if it diverged.
        diverged_step: the evaluation at which it was no longer sound; None if it is.
    """

    learning_rate: float | None
    l2: float
    accuracy: float
    cross_entropy: float | None
    diverged_step: int | None = None


@dataclass(frozen=True)
class Choice:
    """What a sweep tried, and the head of the combination that it chose.

    Attributes:
        trained: alone, with the chosen values.
        training: the parameters with the chosen values.
        candidates: every combination; empty if there was nothing to choose.
        chosen: index of the chosen one.
    """

    trained: Trained
    training: Training
    candidates: list[Candidate]
    chosen: int = 0


def train_best(
    examples: Examples,
    training: Training,
    on_point: Callable[[CurvePoint], None] = lambda _: None,
    on_share: Callable[[float], None] = lambda _: None,
) -> Choice:
    """Train a head with `training`, its sweep, if there is one, decided first.

    Args:
        examples: as of `train`; with a sweep there are validation images.
        training: the parameters, `spec.training`.
        on_point: called with each evaluation of the head that is trained alone.
        on_share: called with the share of the sweep that is done, 0 to 1, from any thread.

    Raises:
        Diverged: every combination did.
    """
    if not training.chooses:
        return Choice(train(examples, training, on_point), training, [])
    candidates = sweep(examples, training, on_share)
    finite = [i for i, c in enumerate(candidates) if c.cross_entropy is not None]
    ranking = sorted(finite, key=lambda i: (candidates[i].cross_entropy, i))
    if not ranking:  # the smallest rate says where it diverges, and what to try
        ranking = [min(range(len(candidates)), key=lambda i: candidates[i].learning_rate or 0)]
    for place, chosen in enumerate(ranking):
        alone = with_values(training, candidates[chosen])
        try:
            return Choice(train(examples, alone, on_point), alone, candidates, chosen)
        except Diverged:
            # Beside the others its products are added up in another order: at the very edge, the one
            # may stay below the bound and the other not.
            if place == len(ranking) - 1:
                raise
    raise AssertionError("there is at least one candidate")


def combinations(training: Training) -> list[tuple[float | None, float]]:
    """List (learning rate, L2) of a sweep, the rates outside."""
    sweep_of = training.sweep
    strengths = list(sweep_of.l2 or ()) if sweep_of else []
    if training.solver is Solver.LBFGS:
        default = L2_PATH if training.l2 is None else (training.l2,)
        return [(None, l2) for l2 in strengths or default]
    rates = list(sweep_of.learning_rate or ()) if sweep_of else []
    return list(product(rates or [training.learning_rate], strengths or [training.l2 or 0.0]))


def with_values(training: Training, candidate: Candidate) -> Training:
    """Give the parameters of a job that trains with this combination only."""
    values: dict[str, object] = {"l2": candidate.l2, "sweep": None}
    if candidate.learning_rate is not None:
        values["learning_rate"] = candidate.learning_rate
    return training.model_copy(update=values)


def sweep(
    examples: Examples, training: Training, on_share: Callable[[float], None] = lambda _: None
) -> list[Candidate]:
    """Train every combination, and measure it on the validation images."""
    pairs = combinations(training)
    size = _LBFGS_GROUP if training.solver is Solver.LBFGS else _GROUP
    count = -(-len(pairs) // size)
    # Each group has some of every kind, so that the groups take about as long as each other.
    groups = [range(first, len(pairs), count) for first in range(count)]
    shares = [0.0] * count

    def run(number: int, problem: lbfgs.Problem | None) -> list[Candidate]:
        def on_group_share(share: float) -> None:
            shares[number] = share
            on_share(sum(shares) / count)

        chosen = [pairs[i] for i in groups[number]]
        # A thread has settings of its own for numpy.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if problem:
                return _solved(examples, problem, [l2 for _, l2 in chosen])
            return _Group(examples, training, chosen).train(on_group_share)

    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(min(cores(), count)) as pool,
    ):
        problem = lbfgs_problem(examples) if training.solver is Solver.LBFGS else None
        results = list(pool.map(run, range(count), [problem] * count))
    ordered: list[Candidate | None] = [None] * len(pairs)
    for places, candidates in zip(groups, results, strict=True):
        for place, candidate in zip(places, candidates, strict=True):
            ordered[place] = candidate
    return [candidate for candidate in ordered if candidate is not None]


def _solved(
    examples: Examples, problem: lbfgs.Problem, strengths: Sequence[float]
) -> list[Candidate]:
    l2 = np.array(strengths, np.float64)
    solved = lbfgs.solve(problem, l2, tolerance=lbfgs.CHOICE_TOLERANCE)
    weights, bias = solved.weights.swapaxes(0, 1), solved.bias.T[:, :, None]
    accuracy, nats = _figures(examples, weights, bias, examples.validation)
    return [
        Candidate(None, strength, float(accuracy[i]), float(nats[i]))
        for i, strength in enumerate(strengths)
    ]


class _Group:
    """Heads that are trained at once by gradient descent: n of them, L labels, D floats.

    Labels come first: a sum or a maximum over them is then one of whole rows. Softmax depends only on
    how far the labels' weights differ from the last label's, and so do the steps of plain descent and
    of momentum: there M = L - 1 differences are kept, which saves one label's products. Adam divides by
    the size of each label's own gradient: M = L.
    """

    def __init__(
        self, examples: Examples, training: Training, pairs: Sequence[tuple[float | None, float]]
    ) -> None:
        self._examples, self._training = examples, training
        self._pairs = [(rate or training.learning_rate, l2) for rate, l2 in pairs]
        # The streams of a single training: the same first head, the same batches.
        init, batches, _ = np.random.default_rng(training.seed).spawn(3)
        first = initial_head(init, examples)
        self._draw = draw_batches(
            examples, examples.training, training.sampling, training.batch_size, batches
        )
        count, labels, width = len(pairs), *first.weights.shape
        self._labels = labels
        rows = first.weights
        if training.optimizer is not Optimizer.ADAM:
            rows = rows[:-1] - rows[-1]
        self._weights = np.repeat(rows[:, None], count, axis=1)  # (M, n, D)
        self._bias = np.zeros((len(rows), count, 1), np.float32)
        per_head = np.array(self._pairs, np.float32)
        self._rate, self._l2 = per_head[:, :1], per_head[:, 1:]  # (n, 1)
        self._decays = bool((self._l2 > 0).any())
        self._keep = 1 - self._rate * self._l2
        whole = len(examples.training)
        batch = min(_CHUNK, whole if training.batch_size == -1 else training.batch_size)
        self._gathered = np.empty((batch, width), np.float32)
        self._errors = np.empty(labels * count * batch, np.float32)
        self._gradient = np.empty_like(self._weights)
        if training.optimizer is not Optimizer.SGD:
            states = 2 if training.optimizer is Optimizer.ADAM else 1
            self._moments = [np.zeros_like(self._weights) for _ in range(states)]
            self._bias_moments = [np.zeros_like(self._bias) for _ in range(states)]
        self._diverged = np.full(count, -1)

    def train(self, on_share: Callable[[float], None]) -> list[Candidate]:
        """Do all steps, and measure every head on the validation images."""
        training, examples = self._training, self._examples
        for step in range(1, training.steps + 1):
            looks = step % training.eval_interval == 0 or step == training.steps
            before = self._step(step, next(self._draw), looks)
            if before is not None:
                # Not below any bound, too, once a weight is infinite or no number.
                self._diverged[~(before <= DIVERGED_NATS) & (self._diverged < 0)] = step
                on_share(step / training.steps)
        last = [(0, self._labels - len(self._bias)), (0, 0), (0, 0)]
        weights, bias = np.pad(self._weights, last), np.pad(self._bias, last)
        accuracy, nats = _figures(examples, weights, bias, examples.validation)
        candidates = []
        for i, (rate, l2) in enumerate(self._pairs):
            step = int(self._diverged[i])
            measured = float(nats[i]) if step < 0 and nats[i] <= DIVERGED_NATS else None
            broken = None if measured is not None else max(step, 0) or training.steps
            candidates.append(Candidate(rate, l2, float(accuracy[i]), measured, broken))
        return candidates

    def _step(self, step: int, rows: Rows, looks: bool) -> Doubles | None:
        """Do one step of all; if it `looks`, give each head's cross entropy on the batch before."""
        labels, (kept, count, width) = self._labels, self._weights.shape
        weights = self._weights.reshape(-1, width)
        gradient = self._gradient.reshape(-1, width)
        plain = self._training.optimizer is Optimizer.SGD
        # Of plain descent the rate goes into the errors, which are few, not into the gradient.
        scale = (self._rate if plain else np.float32(1)) * np.float32(1 / len(rows))
        by_bias: Floats | None = None
        nats = np.zeros(count) if looks else None
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            label = self._examples.label[part]
            gathered = self._gathered[: len(part)]
            np.take(self._examples.matrix, part, axis=0, out=gathered, mode="clip")
            errors = self._errors[: labels * count * len(part)].reshape(labels, count, -1)
            own, last = errors[:kept], errors[kept:]  # the last label's, if it is not kept
            np.matmul(weights, gathered.T, out=own.reshape(kept * count, -1))
            own += self._bias
            last.fill(0)
            sums = _exponentials(errors, label, nats)
            np.reciprocal(sums, out=sums)
            errors *= sums
            errors -= (np.arange(labels)[:, None] == label)[:, None, :]
            if len(last):
                own -= last
            own *= scale
            if by_bias is None:
                np.matmul(own.reshape(kept * count, -1), gathered, out=gradient)
                by_bias = own.sum(axis=2, keepdims=True)
            else:
                gradient += own.reshape(kept * count, -1) @ gathered
                by_bias += own.sum(axis=2, keepdims=True)
        if by_bias is None:
            return nats
        if plain:
            if self._decays:
                self._weights *= self._keep
            self._weights -= self._gradient
            self._bias -= by_bias
        else:
            if self._decays:
                self._gradient += self._l2 * self._weights
            self._apply(step, self._weights, self._gradient, self._moments)
            self._apply(step, self._bias, by_bias, self._bias_moments)
        return nats if nats is None else nats / len(rows)

    def _apply(self, step: int, value: Floats, gradient: Floats, moments: list[Floats]) -> None:
        """Do one step of momentum or Adam, as for a head that is trained alone."""
        rate = self._rate
        first = moments[0]
        if self._training.optimizer is Optimizer.MOMENTUM:
            first *= np.float32(MOMENTUM)
            first += gradient
            value -= rate * first
            return
        second = moments[1]
        first *= np.float32(ADAM_DECAYS[0])
        first += np.float32(1 - ADAM_DECAYS[0]) * gradient
        second *= np.float32(ADAM_DECAYS[1])
        second += np.float32(1 - ADAM_DECAYS[1]) * gradient * gradient
        ours, squares = (1 - decay**step for decay in ADAM_DECAYS)
        value -= (
            rate * np.float32(np.sqrt(squares) / ours) * first
            / (np.sqrt(second) + np.float32(ADAM_EPSILON))
        )  # fmt: skip


def _exponentials(logits: Floats, label: Rows, nats: Doubles | None) -> Floats:
    """Put the exponentials of these logits, (L, n, rows), in their place; give their sums, (n, rows).

    The largest of each row becomes 1. The cross entropies with the true labels, (rows,), are added to
    `nats`, (n,).
    """
    logits -= logits.max(axis=0)
    true = logits[label, :, np.arange(len(label))] if nats is not None else None  # (rows, n)
    np.exp(logits, out=logits)
    sums: Floats = logits.sum(axis=0)
    if nats is not None and true is not None:
        nats += (np.log(sums) - true.T).sum(axis=1, dtype=np.float64)
    return sums


def _figures(
    examples: Examples, weights: Floats, bias: Floats, rows: Rows
) -> tuple[Floats, Floats]:
    """Measure heads, (L, n, D) and (L, n, 1), on these rows: accuracy and mean cross entropy, (n,)."""
    labels, count, width = weights.shape
    right, nats = np.zeros(count), np.zeros(count)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        logits = weights.reshape(-1, width) @ examples.matrix[part].T
        logits = logits.reshape(labels, count, len(part))
        logits += bias
        right += (logits.argmax(axis=0) == examples.label[part]).sum(axis=1)
        _exponentials(logits, examples.label[part], nats)
    images = max(1, len(rows))
    return (right / images).astype(np.float32), (nats / images).astype(np.float32)
