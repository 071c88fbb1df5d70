"""The head: its numbers against formulas written out anew, its draws, its end."""

import tracemalloc
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from retrainer.api import CurvePoint, EarlyStopping, Optimizer, Sampling, Training
from retrainer_trainer.head import softmax
from retrainer_trainer.head.softmax import Diverged, Examples, Trained, draw_batches, train

WIDTH = 64
Doubles = npt.NDArray[np.float64]


def bottlenecks(
    counts: Sequence[int] = (40, 40, 40),
    *,
    validation: int = 10,
    views: int = 0,
    spread: float = 1.0,
    validation_labels: Sequence[int] | None = None,
) -> Examples:
    """Clouds of points, one per label, as wide and as positive as a network's last features."""
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(len(counts)), counts)
    centre = generator.uniform(0, 2, (len(counts), WIDTH))
    matrix = np.abs(centre[label] + spread * generator.standard_normal((len(label), WIDTH)))
    rows = generator.permutation(len(label))
    allowed = range(len(counts)) if validation_labels is None else validation_labels
    watched = np.array([r for r in rows if label[r] in allowed][:validation], np.intp)
    training = np.setdiff1d(rows, watched)
    extra = len(training) * views
    matrix = np.concatenate([matrix, generator.uniform(0, 2, (extra, WIDTH))])
    view_rows = len(label) + np.arange(extra).reshape(len(training), views)
    return Examples(
        matrix.astype(np.float32),
        np.concatenate([label, np.repeat(label[training], views)]).astype(np.intp),
        np.column_stack([training, view_rows]).astype(np.intp),
        watched,
        len(counts),
    )


def number(value: float | None) -> float:
    assert value is not None
    return value


def same(a: Trained, b: Trained) -> bool:
    return (
        a.head.weights.tobytes() == b.head.weights.tobytes()
        and a.head.bias.tobytes() == b.head.bias.tobytes()
        and a.curve == b.curve
    )


def reference(examples: Examples, training: Training, steps: int) -> tuple[Doubles, Doubles]:
    """Full-batch training in float64, from the same initial head, one formula per optimizer."""
    generator = np.random.default_rng(training.seed).spawn(3)[0]
    first = softmax.initial_head(generator, examples)
    weights, bias = first.weights.astype(float), first.bias.astype(float)
    x = examples.matrix[examples.training[:, 0]].astype(float)
    one_hot = np.eye(examples.label_count)[examples.label[examples.training[:, 0]]]
    m = [np.zeros_like(weights), np.zeros_like(bias)]
    v = [np.zeros_like(weights), np.zeros_like(bias)]
    for step in range(1, steps + 1):
        logits = x @ weights.T + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = (p - one_hot) / len(x)
        for i, (value, gradient) in enumerate(((weights, error.T @ x), (bias, error.sum(0)))):
            if training.optimizer is Optimizer.SGD:
                change = training.learning_rate * gradient
            elif training.optimizer is Optimizer.MOMENTUM:
                m[i] = 0.9 * m[i] + gradient
                change = training.learning_rate * m[i]
            else:
                m[i] = 0.9 * m[i] + 0.1 * gradient
                v[i] = 0.999 * v[i] + 0.001 * gradient**2
                change = (
                    training.learning_rate
                    * (m[i] / (1 - 0.9**step))
                    / (np.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
                )
            np.subtract(value, change, out=value)
    return weights, bias


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_each_optimizer_follows_its_formula(optimizer: Optimizer) -> None:
    # Clouds that overlap: gradients that stay far above float32's rounding.
    examples = bottlenecks(spread=4.0)
    training = Training(steps=20, batch_size=-1, optimizer=optimizer, learning_rate=0.001)
    trained = train(examples, training)
    weights, bias = reference(examples, training, 20)
    np.testing.assert_allclose(trained.head.weights, weights, atol=2e-5)
    np.testing.assert_allclose(trained.head.bias, bias, atol=2e-5)


def test_a_batch_larger_than_a_chunk_is_added_up_to_the_same_gradient() -> None:
    examples = bottlenecks(counts=(4000, 3000, 2600))
    assert len(examples.training) > 2 * 4096
    training = Training(steps=3, batch_size=-1)
    weights, _ = reference(examples, training, 3)
    np.testing.assert_allclose(train(examples, training).head.weights, weights, atol=2e-5)


def test_the_first_head_is_a_normal_truncated_at_two_deviations_with_bias_0() -> None:
    examples = bottlenecks(counts=(10,) * 200)
    first = softmax.initial_head(np.random.default_rng(0), examples)
    assert np.abs(first.weights).max() <= 0.002
    # A standard normal truncated at 2 has a standard deviation of 0.8796.
    assert first.weights.std() == pytest.approx(0.8796e-3, rel=0.02)
    assert not first.bias.any()


def test_equal_seeds_give_equal_heads_to_the_bit_and_other_seeds_do_not() -> None:
    examples = bottlenecks(spread=3.0)
    assert same(
        train(examples, Training(steps=200, seed=3)), train(examples, Training(steps=200, seed=3))
    )
    other = train(examples, Training(steps=200, seed=4))
    assert not same(train(examples, Training(steps=200, seed=3)), other)


def test_the_number_of_blas_threads_does_not_change_a_bit() -> None:
    examples = bottlenecks(counts=(3000, 3000), validation=500)
    training = Training(steps=5, batch_size=-1, validation_batch_size=-1)
    with threadpool_limits(1):
        one = train(examples, training)
    with threadpool_limits(8):
        many = train(examples, training)
    assert same(one, many)


def test_evaluating_more_often_does_not_change_the_head() -> None:
    examples = bottlenecks(spread=3.0)
    seldom = train(examples, Training(steps=100, eval_interval=50))
    often = train(examples, Training(steps=100, eval_interval=1))
    assert seldom.head.weights.tobytes() == often.head.weights.tobytes()


def test_step_0_every_interval_and_the_last_step_are_evaluated() -> None:
    points: list[CurvePoint] = []
    trained = train(bottlenecks(), Training(steps=25, eval_interval=10), points.append)
    assert [p.step for p in trained.curve] == [0, 10, 20, 25]
    assert points == trained.curve
    assert trained.curve[0].cross_entropy == pytest.approx(np.log(3), abs=0.05)


def test_training_figures_are_of_the_batch_that_the_step_was_made_on() -> None:
    examples = bottlenecks(spread=4.0)
    training = Training(steps=7, batch_size=5, eval_interval=7, seed=1)
    point = train(examples, training).curve[-1]
    batches = np.random.default_rng(1).spawn(3)[1]
    draw = draw_batches(examples, examples.training, training.sampling, 5, batches)
    rows = [next(draw) for _ in range(7)][-1]
    trained = train(examples, training).head
    scores = trained.scores(examples.matrix, rows)
    label = examples.label[rows]
    assert point.training_accuracy == (scores.argmax(1) == label).mean()
    assert point.cross_entropy == pytest.approx(
        -np.log(scores[np.arange(5), label]).mean(), rel=1e-4
    )


def test_the_matrix_is_neither_copied_nor_written() -> None:
    examples = bottlenecks(counts=(20_000, 20_000), validation=4000)
    examples.matrix.flags.writeable = False
    tracemalloc.start()
    train(examples, Training(steps=3, batch_size=-1, validation_batch_size=-1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * examples.matrix.nbytes


def drawn(examples: Examples, sampling: Sampling, count: int) -> npt.NDArray[np.intp]:
    draw = draw_batches(examples, examples.training, sampling, 100, np.random.default_rng(0))
    return np.concatenate([next(draw) for _ in range(count // 100)])


def test_per_label_sampling_draws_a_rare_label_as_often_as_a_common_one() -> None:
    examples = bottlenecks(counts=(1000, 20, 100), validation=0)
    share = np.bincount(examples.label[drawn(examples, Sampling.PER_LABEL, 30_000)]) / 30_000
    np.testing.assert_allclose(share, 1 / 3, atol=0.01)


def test_uniform_sampling_draws_every_image_alike() -> None:
    examples = bottlenecks(counts=(1000, 20, 100), validation=0)
    share = np.bincount(examples.label[drawn(examples, Sampling.UNIFORM, 30_000)]) / 30_000
    np.testing.assert_allclose(share, np.array([1000, 20, 100]) / 1120, atol=0.01)


@pytest.mark.parametrize("sampling", list(Sampling))
def test_an_image_and_its_views_are_drawn_alike(sampling: Sampling) -> None:
    examples = bottlenecks(counts=(50, 50), validation=0, views=3)
    times = Counter(drawn(examples, sampling, 200_000).tolist())
    rows = examples.training.ravel()
    assert set(times) == set(rows.tolist())
    # 400 rows, 500 draws each: five standard deviations of a Poisson count.
    assert all(abs(times[int(r)] - 500) < 5 * np.sqrt(500) for r in rows)


def test_every_training_row_is_drawn_and_no_validation_row() -> None:
    examples = bottlenecks(validation=30)
    rows = set(drawn(examples, Sampling.PER_LABEL, 20_000).tolist())
    assert rows == set(examples.training.ravel().tolist())


def test_a_label_without_validation_images_is_skipped_by_the_draws() -> None:
    examples = bottlenecks(validation=12, validation_labels=[0, 2])
    trained = train(examples, Training(steps=200, validation_batch_size=1000))
    assert trained.curve[-1].validation_accuracy is not None
    rows = next(
        draw_batches(
            examples,
            examples.validation[:, None],
            Sampling.PER_LABEL,
            1000,
            np.random.default_rng(0),
        )
    )
    assert set(examples.label[rows].tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("batch", "validation_batch"), [(-1, 100), (100, -1), (-1, -1), (-1, 1), (7, -1), (3, 9)]
)
def test_a_whole_set_may_be_smaller_or_larger_than_the_other_sets_batch(
    batch: int, validation_batch: int
) -> None:
    examples = bottlenecks(counts=(12, 12), validation=5)
    trained = train(
        examples,
        Training(steps=20, batch_size=batch, validation_batch_size=validation_batch),
    )
    assert 0 <= number(trained.curve[-1].validation_accuracy) <= 1


def test_validation_is_on_the_whole_set_unless_a_draw_is_asked_for() -> None:
    examples = bottlenecks(validation=30, spread=4.0)
    trained = train(examples, Training(steps=20))
    scores = trained.head.scores(examples.matrix, examples.validation)
    right = (scores.argmax(1) == examples.label[examples.validation]).mean()
    assert trained.curve[-1].validation_accuracy == right
    drawn = train(examples, Training(steps=20, validation_batch_size=7))
    shares = {round(7 * number(p.validation_accuracy), 6) for p in drawn.curve}
    assert shares <= set(range(8))


def test_no_validation_images_give_no_validation_figures() -> None:
    trained = train(bottlenecks(validation=0), Training(steps=20))
    assert trained.curve[-1].training_accuracy is not None
    assert {p.validation_accuracy for p in trained.curve} == {None}
    assert {p.validation_cross_entropy for p in trained.curve} == {None}


def test_early_stopping_keeps_the_best_head_and_stops_after_its_patience() -> None:
    # Clouds that overlap: the head soon knows its few training images and stops getting better.
    examples = bottlenecks(counts=(20, 20, 20), validation=30, spread=6.0)
    training = Training(
        steps=5000, eval_interval=10, early_stopping=EarlyStopping(patience=5), learning_rate=0.003
    )
    trained = train(examples, training)
    assert trained.steps < 5000
    assert trained.steps == trained.step + 5 * 10
    ranks = [
        (number(p.validation_accuracy), -number(p.validation_cross_entropy), -p.step)
        for p in trained.curve
    ]
    assert -max(ranks)[2] == trained.step
    scores = trained.head.scores(examples.matrix, examples.validation)
    right = (scores.argmax(1) == examples.label[examples.validation]).mean()
    assert right == max(number(p.validation_accuracy) for p in trained.curve)


def test_early_stopping_prefers_the_lower_cross_entropy_of_two_equal_accuracies() -> None:
    # Clouds far apart: the accuracy is 1 at once, and only the cross entropy gets better.
    examples = bottlenecks(spread=0.05, validation=30)
    training = Training(steps=100, early_stopping=EarlyStopping(patience=3))
    trained = train(examples, training)
    assert trained.curve[1].validation_accuracy == 1.0
    assert trained.step == trained.steps == 100


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_a_diverging_rate_is_told_with_its_step_and_a_rate_that_works(optimizer: Optimizer) -> None:
    examples = bottlenecks(spread=6.0)
    rate = 1e6
    with pytest.raises(Diverged) as caught:
        train(examples, Training(steps=100, learning_rate=rate, optimizer=optimizer))
    error = caught.value
    assert error.exit_code == 64
    assert error.reason == "Diverged"
    assert f"The training diverged at step {error.step} with learningRate 1e+06; try " in str(error)
    assert error.head.is_finite()
    assert number(error.curve[-1].cross_entropy) <= softmax.DIVERGED_NATS
    suggestion = float(str(error).split("try ")[1].split(". ")[0])
    trained = train(examples, Training(steps=400, learning_rate=suggestion, optimizer=optimizer))
    assert number(trained.curve[-1].cross_entropy) < number(trained.curve[0].cross_entropy)


def test_scores_are_shares_that_add_up_to_1_in_any_number_of_rows() -> None:
    examples = bottlenecks(counts=(3000, 3000, 3000))
    trained = train(examples, Training(steps=50))
    rows = np.arange(9000)
    scores = trained.head.scores(examples.matrix, rows)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(
        scores[5000:5003], trained.head.scores(examples.matrix, rows[5000:5003]), atol=1e-6
    )
    assert trained.head.scores(examples.matrix, rows[:0]).shape == (0, 3)
