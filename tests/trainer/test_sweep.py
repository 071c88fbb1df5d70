"""Solver, L2 and sweep: against scikit-learn, against single trainings, and what may choose."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from tests.trainer.test_head import bottlenecks, number

from retrainer.api import CurvePoint, Optimizer, Solver, Sweep, Training
from retrainer_trainer.head.softmax import Diverged, Examples, Head, train
from retrainer_trainer.head.sweep import (
    L2_PATH,
    Candidate,
    combinations,
    sweep,
    train_best,
    with_values,
)

Doubles = npt.NDArray[np.float64]


def loss(examples: Examples, weights: Doubles, bias: Doubles, l2: float) -> float:
    """The formula of the head's docstring, in float64."""
    rows = examples.training.ravel()
    logits = examples.matrix[rows].astype(float) @ weights.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(rows)), examples.label[rows]]
    return float(nats.mean() + l2 / 2 * (weights**2).sum())


def loss_of(examples: Examples, head: Head, l2: float) -> float:
    return loss(examples, head.weights.astype(float), head.bias.astype(float), l2)


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_lbfgs_is_scikit_learns_logistic_regression(labels: int, l2: float) -> None:
    examples = bottlenecks(counts=(80,) * labels, spread=3.0, validation=20)
    rows = examples.training[:, 0]
    x, y = examples.matrix[rows], examples.label[rows]
    theirs = LogisticRegression(C=1 / (l2 * len(rows)), max_iter=10_000, tol=1e-9).fit(
        x.astype(float), y
    )
    weights, bias = theirs.coef_, theirs.intercept_
    if labels == 2:  # they keep one row for two labels, which has the same guesses but half the L2
        weights, bias = (
            np.stack([-weights[0] / 2, weights[0] / 2]),
            np.array([-bias[0], bias[0]]) / 2,
        )
        two = LogisticRegression(C=2 / (l2 * len(rows)), max_iter=10_000, tol=1e-9)
        theirs = two.fit(x.astype(float), y)
        weights = np.stack([-theirs.coef_[0] / 2, theirs.coef_[0] / 2])
        bias = np.array([-theirs.intercept_[0], theirs.intercept_[0]]) / 2
    ours = train(examples, Training(solver=Solver.LBFGS, l2=l2)).head
    assert loss_of(examples, ours, l2) == pytest.approx(loss(examples, weights, bias, l2), rel=1e-4)
    guesses = ours.scores(examples.matrix, rows).argmax(axis=1)
    assert (guesses == theirs.predict(x.astype(float))).mean() >= 0.99


def test_lbfgs_is_equal_to_the_bit_on_repetition_and_has_a_curve_to_its_end() -> None:
    examples = bottlenecks(spread=3.0)
    points: list[CurvePoint] = []
    one = train(examples, Training(solver=Solver.LBFGS, l2=1e-3), points.append)
    other = train(examples, Training(solver=Solver.LBFGS, l2=1e-3))
    assert one.head.weights.tobytes() == other.head.weights.tobytes()
    assert one.head.bias.tobytes() == other.head.bias.tobytes()
    assert points == one.curve
    assert one.curve[-1].step == one.step == one.steps
    assert [point.step for point in one.curve[:2]] == [0, 10]
    assert number(one.curve[-1].cross_entropy) < number(one.curve[0].cross_entropy)
    scores = one.head.scores(examples.matrix, examples.validation)
    right = (scores.argmax(1) == examples.label[examples.validation]).mean()
    assert one.curve[-1].validation_accuracy == right


def test_lbfgs_on_rows_in_pieces_is_that_on_all_of_them_together() -> None:
    examples = bottlenecks(counts=(4000, 4000), spread=4.0)
    assert len(examples.training) > 4096
    rows = examples.training[:, 0]
    theirs = LogisticRegression(C=2 / (0.01 * len(rows)), max_iter=5000, tol=1e-9).fit(
        examples.matrix[rows].astype(float), examples.label[rows]
    )
    weights = np.stack([-theirs.coef_[0] / 2, theirs.coef_[0] / 2])
    bias = np.array([-theirs.intercept_[0], theirs.intercept_[0]]) / 2
    ours = train(examples, Training(solver=Solver.LBFGS, l2=0.01)).head
    assert loss_of(examples, ours, 0.01) == pytest.approx(
        loss(examples, weights, bias, 0.01), rel=1e-4
    )


@pytest.mark.parametrize("l2", [0.0, 1e-9])
def test_lbfgs_ends_where_there_is_nothing_that_holds_the_weights(l2: float) -> None:
    trained = train(bottlenecks(spread=0.05), Training(solver=Solver.LBFGS, l2=l2))
    assert trained.head.is_finite()
    assert trained.curve[-1].training_accuracy == 1.0
    assert number(trained.curve[-1].cross_entropy) < 1e-3


def test_a_constant_or_empty_column_does_no_harm_to_lbfgs() -> None:
    examples = bottlenecks(spread=2.0)
    examples.matrix[:, 3] = 0
    examples.matrix[:, 4] = 7
    trained = train(examples, Training(solver=Solver.LBFGS, l2=1e-3))
    assert trained.head.is_finite()
    assert np.abs(trained.head.weights[:, 3:5]).max() < 0.01


@pytest.mark.parametrize("optimizer", [Optimizer.SGD, Optimizer.MOMENTUM])
def test_l2_pulls_the_weights_of_sgd_to_where_lbfgs_has_them(optimizer: Optimizer) -> None:
    examples = bottlenecks(spread=2.0)
    rate = 0.02 if optimizer is Optimizer.SGD else 0.002
    training = Training(
        steps=6000,
        batch_size=-1,
        learning_rate=rate,
        l2=0.3,
        optimizer=optimizer,
        eval_interval=6000,
    )
    stepped = train(examples, training).head
    solved = train(examples, Training(solver=Solver.LBFGS, l2=0.3)).head
    assert loss_of(examples, stepped, 0.3) == pytest.approx(
        loss_of(examples, solved, 0.3), rel=0.01
    )


def test_no_l2_leaves_every_bit_of_the_head_as_it_is() -> None:
    examples = bottlenecks(spread=3.0)
    plain = train(examples, Training(steps=100)).head
    assert (
        plain.weights.tobytes() == train(examples, Training(steps=100, l2=0)).head.weights.tobytes()
    )
    assert (
        plain.weights.tobytes() != train(examples, Training(steps=100, l2=1)).head.weights.tobytes()
    )


# --- the sweep ---
def test_combinations_are_all_rates_with_all_strengths_or_what_the_job_has() -> None:
    both = Training(sweep=Sweep(learning_rate=[0.1, 0.2], l2=[0, 1]))
    assert combinations(both) == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    rates = Training(l2=0.5, sweep=Sweep(learning_rate=[0.1, 0.2]))
    assert combinations(rates) == [(0.1, 0.5), (0.2, 0.5)]
    strengths = Training(learning_rate=0.3, sweep=Sweep(l2=[0, 1]))
    assert combinations(strengths) == [(0.3, 0), (0.3, 1)]
    assert combinations(Training(solver=Solver.LBFGS)) == [(None, l2) for l2 in L2_PATH]
    assert len(L2_PATH) == 20
    assert combinations(Training(solver=Solver.LBFGS, sweep=Sweep(l2=[1, 2]))) == [
        (None, 1), (None, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("batch", [7, -1])
def test_heads_trained_at_once_are_those_trained_one_by_one(
    optimizer: Optimizer, batch: int
) -> None:
    examples = bottlenecks(spread=3.0, views=1)
    training = Training(
        steps=60, batch_size=batch, optimizer=optimizer, seed=5,
        sweep=Sweep(learning_rate=[0.0005, 0.002], l2=[0, 0.1]),
    )  # fmt: skip
    for candidate in sweep(examples, training):
        alone = train(examples, with_values(training, candidate)).curve[-1]
        assert candidate.cross_entropy == pytest.approx(
            number(alone.validation_cross_entropy), rel=1e-3
        )
        assert candidate.accuracy == pytest.approx(number(alone.validation_accuracy), abs=0.11)


@pytest.mark.parametrize(
    "training",
    [
        Training(steps=80, sweep=Sweep(learning_rate=[0.001, 0.01, 0.1], l2=[0, 0.01])),
        Training(solver=Solver.LBFGS),
        Training(solver=Solver.LBFGS, sweep=Sweep(l2=[1e-4, 1e-2, 1])),
    ],
)
def test_the_chosen_head_is_that_of_a_job_with_its_values_to_the_bit(training: Training) -> None:
    examples = bottlenecks(spread=4.0, validation=40)
    choice = train_best(examples, training)
    best = choice.candidates[choice.chosen]
    assert best.cross_entropy == min(number(one.cross_entropy) for one in choice.candidates)
    values: dict[str, object] = {"l2": best.l2, "solver": training.solver, "steps": training.steps}
    if best.learning_rate is not None:
        values["learning_rate"] = best.learning_rate
    alone = train(examples, Training.model_validate(values))
    assert choice.trained.head.weights.tobytes() == alone.head.weights.tobytes()
    assert choice.trained.head.bias.tobytes() == alone.head.bias.tobytes()


def test_the_choice_is_the_same_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = bottlenecks(spread=4.0, validation=40)
    rates = [0.001 * 1.2**i for i in range(60)]
    training = Training(steps=50, sweep=Sweep(learning_rate=rates))
    results: list[list[Candidate]] = []
    for count in ("1", "3"):
        monkeypatch.setenv("RETRAINER_THREADS", count)
        results.append(sweep(examples, training))
    assert results[0] == results[1]


def test_only_training_and_validation_rows_are_read() -> None:
    # The test images are rows of the matrix too: whatever they and their labels are, the choice stays.
    examples = bottlenecks(counts=(60, 60, 60), spread=4.0, validation=40)
    training = Training(steps=60, sweep=Sweep(learning_rate=[0.001, 0.01], l2=[0, 0.1]))
    test = examples.training[-30:, 0]
    kept = Examples(
        examples.matrix.copy(),
        examples.label.copy(),
        examples.training[:-30],
        examples.validation,
        3,
    )
    before = train_best(kept, training)
    kept.label[test] = (kept.label[test] + 1) % 3
    kept.matrix[test] = np.nan
    after = train_best(kept, training)
    assert before.candidates == after.candidates
    assert before.chosen == after.chosen
    assert before.trained.head.weights.tobytes() == after.trained.head.weights.tobytes()


def test_combinations_that_diverge_are_named_and_the_others_go_on() -> None:
    examples = bottlenecks(spread=6.0, validation=20)
    training = Training(steps=50, sweep=Sweep(learning_rate=[1e-4, 1e-3, 1e5, 1e8]))
    choice = train_best(examples, training)
    assert [one.cross_entropy is None for one in choice.candidates] == [False, False, True, True]
    assert all(one.diverged_step for one in choice.candidates[2:])
    assert choice.candidates[choice.chosen].learning_rate in {1e-4, 1e-3}
    assert choice.trained.head.is_finite()


def test_a_sweep_of_which_every_combination_diverges_says_what_to_try() -> None:
    examples = bottlenecks(spread=6.0, validation=20)
    training = Training(steps=50, sweep=Sweep(learning_rate=[1e8, 1e5]))
    with pytest.raises(Diverged, match=r"with learningRate 100000; try "):
        train_best(examples, training)


def test_a_sweep_tells_how_far_it_is() -> None:
    shares: list[float] = []
    training = Training(steps=40, sweep=Sweep(l2=[0.0, *(0.1 / i for i in range(1, 40))]))
    train_best(bottlenecks(), training, on_share=shares.append)
    assert shares[-1] == pytest.approx(1)
    assert len(shares) >= 4
