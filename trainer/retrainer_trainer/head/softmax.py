"""The head: softmax regression on bottlenecks, in numpy float32 on one matrix that is never copied.

With N rows x_i (D floats) of label y_i in a batch, weights W (L, D) and bias b (L), a step follows the
gradient of

    f(W, b) = 1/N sum_i -log softmax(W x_i + b)[y_i]  +  l2/2 sum(W^2)

which is, with the errors E = softmax(W x_i + b) - onehot(y_i), (N, L):

    df/dW = 1/N E^T X + l2 W    (L, D)        df/db = 1/N sum_i E_i    (L)

Equal seeds give equal heads to the bit, whatever the number of cores: one seeded generator, a fixed
order of additions, and BLAS held to one thread (which is also the fastest for products this small).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from retrainer.api import CurvePoint, Optimizer, Sampling, Solver, Training
from retrainer.api.reasons import DIVERGED
from retrainer.errors import UserError
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.head import lbfgs

INIT_STDDEV = 0.001  # retrain.py, add_final_training_ops: tf.truncated_normal(stddev=0.001)
MOMENTUM = 0.9
ADAM_DECAYS = (0.9, 0.999)  # Kingma & Ba 2014, "Adam", algorithm 1
ADAM_EPSILON = 1e-8

# Rows gathered at a time. A larger batch (up to the whole set) is added up piece by piece.
_CHUNK = 4096
# Draws made at a time: many small batches in one call of the generator.
_DRAWS = 16_384

# A float32 softmax gives a label the score 0 once its logit lies this far below the largest one
# (-ln of the smallest positive float32, 2**-149). When the average image of a batch is that wrong,
# every score is 0 or 1 and the rate is far above what the bottlenecks allow.
DIVERGED_NATS = 103.97


class Diverged(UserError):
    """The training diverged; `head` is the last one from before.

    Attributes:
        head: the last head whose cross entropy was finite and below `DIVERGED_NATS`.
        step: training steps done when it was seen.
        curve: the evaluations until then.
    """

    reason = DIVERGED.name

    def __init__(
        self, message: str, head: "Head", step: int, curve: list[CurvePoint] | None = None
    ) -> None:
        super().__init__(message)
        self.head = head
        self.step = step
        self.curve = curve or []


@dataclass(frozen=True)
class Head:
    """The trained last layer.

    Attributes:
        weights: float32, (labels, bottleneck width).
        bias: float32, (labels,).
    """

    weights: Floats
    bias: Floats

    def copy(self) -> "Head":
        """Copy the head, so that later training steps do not change it."""
        return Head(self.weights.copy(), self.bias.copy())

    def is_finite(self) -> bool:
        """Say whether every number is finite."""
        return bool(np.isfinite(self.weights).all() and np.isfinite(self.bias).all())

    def scores(self, matrix: Floats, rows: Rows) -> Floats:
        """Compute the softmax scores of these rows: float32, (rows, labels), each row sums to 1."""
        out = np.empty((len(rows), len(self.bias)), np.float32)
        with threadpool_limits(limits=1, user_api="blas"):
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                logits = self.weights @ matrix[part].T + self.bias[:, None]
                out[start : start + _CHUNK] = _softmax(logits).T
        return out


@dataclass(frozen=True)
class Examples:
    """What a head is trained on: one matrix, and index arrays that say which rows are what.

    Attributes:
        matrix: bottlenecks, float32, (rows, width).
        label: integer, (rows,): the label's number of each row of the matrix.
        training: (training images, 1 + views): the row of the image itself, then of its views.
        validation: (validation images,): their rows.
        label_count: number of labels.
    """

    matrix: Floats
    label: npt.NDArray[np.intp]
    training: npt.NDArray[np.intp]
    validation: Rows
    label_count: int


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        head: the last one, or with early stopping the best one.
        step: training steps after which `head` was that.
        steps: training steps done.
        curve: every evaluation.
    """

    head: Head
    step: int
    steps: int
    curve: list[CurvePoint] = field(default_factory=list)


def train(
    examples: Examples,
    training: Training,
    on_point: Callable[[CurvePoint], None] = lambda _: None,
) -> Trained:
    """Train a head on bottlenecks.

    Evaluates at step 0, every `eval_interval` and at the last step: the training accuracy and cross
    entropy are those of the step's own batch after the step, as retrain.py prints them; validation
    draws `validation_batch_size` images by the same sampling, or takes the whole set with early
    stopping.

    Args:
        examples: the matrix and its index arrays; at least one training image per label.
        training: the parameters, `spec.training`.
        on_point: called with each evaluation as it is made; what it raises ends the training.

    Raises:
        Diverged: the cross entropy left the range of float32's softmax.
    """
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        if training.solver is Solver.LBFGS:
            return _solve(examples, training, on_point)
        return _train(examples, training, on_point)


def _solve(
    examples: Examples, training: Training, on_point: Callable[[CurvePoint], None]
) -> Trained:
    """Go to the minimum by L-BFGS."""
    rows = examples.training.ravel()
    watching = _Network(examples, _zero_head(examples), training, max(len(rows), 1))
    curve: list[CurvePoint] = []

    def evaluate(iteration: int, weights: Floats, bias: Floats) -> None:
        watching.head = Head(weights[0], bias[0])
        curve.append(watching.evaluate(iteration, rows, examples.validation))
        on_point(curve[-1])

    def on_iteration(iteration: int, heads: Callable[[], tuple[Floats, Floats]]) -> None:
        if iteration % training.eval_interval == 0:
            evaluate(iteration, *heads())

    strength = np.array([training.l2 or 0.0])
    solved = lbfgs.solve(lbfgs_problem(examples), strength, on_iteration=on_iteration)
    if curve[-1].step != solved.iterations:
        evaluate(solved.iterations, solved.weights, solved.bias)
    head = Head(solved.weights[0], solved.bias[0])
    return Trained(head, solved.iterations, solved.iterations, curve)


def lbfgs_problem(examples: Examples) -> lbfgs.Problem:
    """Set up what L-BFGS minimises; all images and their views count alike."""
    rows = examples.training.ravel()
    return lbfgs.Problem(examples.matrix, rows, examples.label[rows], examples.label_count)


def _zero_head(examples: Examples) -> Head:
    shape = (examples.label_count, examples.matrix.shape[1])
    return Head(np.zeros(shape, np.float32), np.zeros(examples.label_count, np.float32))


def _train(
    examples: Examples, training: Training, on_point: Callable[[CurvePoint], None]
) -> Trained:
    # Three streams of one seed: evaluating more often must not change the head.
    init, batches, checks = np.random.default_rng(training.seed).spawn(3)
    drawn = [
        (training.batch_size, len(examples.training)),
        (training.validation_batch_size, len(examples.validation)),
    ]
    if training.early_stopping:
        drawn.append((-1, len(examples.validation)))
    # The whole set may be smaller than a batch, which is drawn with replacement.
    largest = max(whole if size == -1 else size for size, whole in drawn)
    network = _Network(examples, initial_head(init, examples), training, largest)
    draw = draw_batches(
        examples, examples.training, training.sampling, training.batch_size, batches
    )
    patience = training.early_stopping.patience if training.early_stopping else None
    size = -1 if patience else training.validation_batch_size
    check = draw_batches(examples, examples.validation[:, None], training.sampling, size, checks)

    curve: list[CurvePoint] = []
    good = best = network.head.copy()
    good_step = best_step = step = 0
    best_rank: tuple[float, float] | None = None
    since_best = 0

    batch = next(draw)
    while True:
        if step % training.eval_interval == 0 or step == training.steps:
            point = network.evaluate(step, batch, next(check))
            if not _sound(point, network.head):
                raise _diverged(examples, training, good, step, curve)
            good, good_step = network.head.copy(), step
            curve.append(point)
            on_point(point)
            if patience and point.validation_accuracy is not None:
                rank = (point.validation_accuracy, -(point.validation_cross_entropy or 0.0))
                if best_rank is None or rank > best_rank:
                    best, best_step, best_rank, since_best = good, step, rank, 0
                else:
                    since_best += 1
        if step == training.steps or (patience and since_best >= patience):
            break
        if step:  # the batch of step 0 was only looked at, so that it is step 1's
            batch = next(draw)
        network.step(batch)
        step += 1
    if best_rank is None:
        best, best_step = good, good_step
    return Trained(best, best_step, step, curve)


def initial_head(generator: np.random.Generator, examples: Examples) -> Head:
    """Draw weights from a normal distribution truncated at two standard deviations; the bias is 0."""
    shape = (examples.label_count, examples.matrix.shape[1])
    weights = generator.standard_normal(shape, np.float32)
    while (far := np.abs(weights) > 2).any():
        weights[far] = generator.standard_normal(int(far.sum()), np.float32)
    return Head(weights * np.float32(INIT_STDDEV), np.zeros(examples.label_count, np.float32))


def draw_batches(
    examples: Examples,
    images: npt.NDArray[np.intp],
    sampling: Sampling,
    size: int,
    generator: np.random.Generator,
) -> Iterator[Rows]:
    """Draw endless batches of row numbers out of `images`, (images, views)."""
    count, views = images.shape
    if not count:
        while True:
            yield np.empty(0, np.intp)
    if size == -1:
        while True:
            view = generator.integers(views, size=count) if views > 1 else 0
            yield images[np.arange(count), view]
    # Images of one label side by side, so that "the k-th image of label j" is one addition. The
    # labels without images in this set are not in `starts`: they are never drawn.
    label = examples.label[images[:, 0]]
    order = np.argsort(label, kind="stable")
    _, starts, counts = np.unique(label[order], return_index=True, return_counts=True)
    flat, block = images[order].ravel(), max(1, _DRAWS // size)
    while True:
        shape = (block, size)
        if sampling is Sampling.PER_LABEL:
            which = generator.integers(len(starts), size=shape)
            image = starts[which] + (generator.random(shape) * counts[which]).astype(np.intp)
        else:
            image = generator.integers(count, size=shape)
        if views > 1:
            yield from flat[image * views + generator.integers(views, size=shape)]
        else:
            yield from flat[image]


class _Network:
    """The head being trained, and the buffers that its steps reuse."""

    def __init__(self, examples: Examples, head: Head, training: Training, largest: int) -> None:
        self.examples = examples
        self.head = head
        self._rate = np.float32(training.learning_rate)
        self._l2 = np.float32(training.l2 or 0)
        self._optimizer = training.optimizer
        width = examples.matrix.shape[1]
        self._gathered = np.empty((max(1, min(largest, _CHUNK)), width), np.float32)
        self._first = Head(np.zeros_like(head.weights), np.zeros_like(head.bias))
        self._second = Head(np.zeros_like(head.weights), np.zeros_like(head.bias))
        self._updates = 0

    def _chunks(self, rows: Rows) -> Iterator[tuple[Floats, npt.NDArray[np.intp], Floats]]:
        """Of each piece of the batch: its bottlenecks, its labels, and its logits (labels, rows)."""
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            gathered = self._gathered[: len(part)]
            # mode="clip": without it numpy gathers into a buffer of its own first.
            np.take(self.examples.matrix, part, axis=0, out=gathered, mode="clip")
            # Labels first: with a handful of labels the sums over them are then whole rows.
            logits = self.head.weights @ gathered.T
            logits += self.head.bias[:, None]
            yield gathered, self.examples.label[part], logits

    def step(self, rows: Rows) -> None:
        """Do one update on this batch."""
        weights = bias = None
        scale = np.float32(1 / len(rows))
        for gathered, label, logits in self._chunks(rows):
            error = _softmax(logits)
            error[label, np.arange(len(label))] -= 1
            error *= scale
            by_weights, by_bias = error @ gathered, error.sum(axis=1)
            if weights is None or bias is None:
                weights, bias = by_weights, by_bias
            else:
                weights += by_weights
                bias += by_bias
        if weights is not None and bias is not None:
            self._updates += 1
            if self._l2:
                weights += self._l2 * self.head.weights
            self._apply(self.head.weights, weights, self._first.weights, self._second.weights)
            self._apply(self.head.bias, bias, self._first.bias, self._second.bias)

    def _apply(self, value: Floats, gradient: Floats, first: Floats, second: Floats) -> None:
        if self._optimizer is Optimizer.ADAM:
            # Subtracted before they are rounded: 1 - float32(0.999) is 0.004% off.
            (keep, take), (keep_squares, take_squares) = (
                (np.float32(d), np.float32(1 - d)) for d in ADAM_DECAYS
            )
            first *= keep
            first += take * gradient
            second *= keep_squares
            second += take_squares * gradient * gradient
            ours, squares = (1 - d**self._updates for d in ADAM_DECAYS)
            rate = self._rate * np.float32(np.sqrt(squares) / ours)
            value -= rate * first / (np.sqrt(second) + np.float32(ADAM_EPSILON))
        elif self._optimizer is Optimizer.MOMENTUM:
            first *= np.float32(MOMENTUM)
            first += gradient
            value -= self._rate * first
        else:
            gradient *= self._rate
            value -= gradient

    def evaluate(self, step: int, batch: Rows, validation: Rows) -> CurvePoint:
        """Accuracy and cross entropy on the step's batch and on these validation rows."""
        accuracy, entropy = self._figures(batch)
        validation_accuracy, validation_entropy = self._figures(validation)
        return CurvePoint(
            step=step,
            training_accuracy=accuracy,
            validation_accuracy=validation_accuracy,
            cross_entropy=entropy,
            validation_cross_entropy=validation_entropy,
        )

    def _figures(self, rows: Rows) -> tuple[float | None, float | None]:
        if not len(rows):
            return None, None
        right, nats = 0, 0.0
        for _, label, logits in self._chunks(rows):
            right += int((logits.argmax(axis=0) == label).sum())
            nats += float(_nats(logits, label).sum(dtype=np.float64))
        return right / len(rows), nats / len(rows)


def _softmax(logits: Floats) -> Floats:
    """Over the first axis, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def _nats(logits: Floats, label: npt.NDArray[np.intp]) -> Floats:
    """Cross entropy of each column of the logits with its true label."""
    logits = logits - logits.max(axis=0)
    true = logits[label, np.arange(len(label))]
    entropy: Floats = np.log(np.exp(logits).sum(axis=0)) - true
    return entropy


def _sound(point: CurvePoint, head: Head) -> bool:
    entropy = point.cross_entropy
    return entropy is None or (entropy <= DIVERGED_NATS and head.is_finite())


def _diverged(
    examples: Examples, training: Training, head: Head, step: int, curve: list[CurvePoint]
) -> Diverged:
    rate = training.learning_rate
    message = DIVERGED(step=step, rate=rate, suggestion=suggested_rate(examples, training))
    return Diverged(message, head, step, curve)


def suggested_rate(examples: Examples, training: Training) -> float:
    """A rate that is safe on these bottlenecks, one digit, at most a tenth of the one that was not.

    Gradient descent on softmax regression cannot diverge below 2 / L, where L is the largest
    curvature; L is at most half the mean squared length of a bottleneck (Boehning 1992,
    "Multinomial logistic regression algorithm"). 1 / L is taken, a tenth of it with momentum, whose
    steps add up to ten times the gradient; Adam's steps do not depend on the gradient's size, and
    0.001 is its authors' own choice.
    """
    rows = examples.training[:_CHUNK, 0]
    squared = float(np.square(examples.matrix[rows], dtype=np.float64).sum(axis=1).mean())
    safe = 2.0 / squared if np.isfinite(squared) and squared > 0 else training.learning_rate
    if training.optimizer is Optimizer.ADAM:
        safe = 0.001
    elif training.optimizer is Optimizer.MOMENTUM:
        safe *= 1 - MOMENTUM
    return float(f"{min(safe, training.learning_rate / 10):.0e}")
