"""How much cheaper heads are at once than one by one.

    python tests/bench/sweep.py            the median of 3
    python tests/bench/sweep.py --quick    once, 400 steps

100 combinations (10 learning rates with 10 L2 strengths), 4,000 steps of 100 on 1,198 x 512 with five
labels: at once, and in turn (ten of them are measured, spread over all, and counted ten times). L-BFGS
with 20 L2 strengths at once on the same rows, against scikit-learn's LogisticRegression one by one, with
a tolerance at which its loss is about ours. Ours and theirs alternate.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from retrainer.api import Solver, Sweep, Training
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.head.lbfgs import solve
from retrainer_trainer.head.softmax import Examples, train
from retrainer_trainer.head.sweep import L2_PATH, sweep, with_values
from retrainer_trainer.runtime.cores import cores

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import machine

# Aimed at on idle cores: 12 and 10. Other programs on the machine slow what uses all cores the most.
IN_TURN_TARGET = 6.0
SCIKIT_LEARN_TARGET = 6.0
RATES = [float(f"{rate:.3g}") for rate in np.logspace(-3, -1, 10)]
STRENGTHS = [0.0, *(float(f"{l2:.3g}") for l2 in np.logspace(-5, -1, 9))]


def examples() -> Examples:
    """1,498 made-up images of five labels, 1,198 to train on and 150 to validate.

    As a network's last features they are positive, a few directions hold most of their spread, and the
    labels overlap.
    """
    generator = np.random.default_rng(0)
    label = generator.integers(5, size=1498)
    spread = 3 / np.sqrt(1 + np.arange(512))
    mix = generator.standard_normal((512, 512)) / np.sqrt(512) * 4
    matrix = (generator.standard_normal((1498, 512)) * spread) @ mix
    matrix = (matrix + 0.25 * generator.standard_normal((5, 512))[label]).clip(0)
    rows = np.arange(1498)
    return Examples(matrix.astype(np.float32), label, rows[:1198, None], rows[1198:1348], 5)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def at_once_and_in_turn(dataset: Examples, steps: int, repeats: int) -> float:
    """Print both; how many times less the sweep takes."""
    training = Training(steps=steps, sweep=Sweep(learning_rate=RATES, l2=STRENGTHS))
    candidates = sweep(dataset, training.model_copy(update={"steps": 1}))
    alone = [with_values(training, one) for one in candidates[::11]]
    train(dataset, alone[0])  # the first touches the matrix and loads BLAS
    together, in_turn = [], []
    for _ in range(repeats):
        together.append(seconds(lambda: sweep(dataset, training)))
        measured = sum(seconds(lambda one=one: train(dataset, one)) for one in alone)  # type: ignore[misc]
        in_turn.append(measured / len(alone) * len(candidates))
    ours, theirs = statistics.median(together), statistics.median(in_turn)
    flops = len(candidates) * steps * 100 * 512 * 5 * 4
    share = flops / ours / 1e9 / machine.sgemm_gflops() / cores()
    print(
        f"{len(candidates)} combinations, {steps:,} steps: in turn {theirs:.1f} s, at once {ours:.1f} s "
        f"on {cores()} cores ({share:.0%} of their sgemm rate), {theirs / ours:.1f} times less"
    )
    return theirs / ours


def lbfgs_and_scikit_learn(dataset: Examples, repeats: int) -> float:
    """Print both; how many times less ours takes for all strengths."""
    rows = dataset.training[:, 0]
    x, y = dataset.matrix[rows], dataset.label[rows]
    strengths = np.array(L2_PATH)

    def theirs() -> list[LogisticRegression]:
        return [
            LogisticRegression(C=1 / (l2 * len(rows)), max_iter=10_000, tol=1e-6).fit(x, y)
            for l2 in L2_PATH
        ]

    together, one_by_one = [], []
    training = Training(solver=Solver.LBFGS)
    for _ in range(repeats):
        together.append(seconds(lambda: sweep(dataset, training)))
        with threadpool_limits(1, user_api="blas"):  # faster than more, for products this small
            one_by_one.append(seconds(theirs))
    solved = solve(dataset.matrix, rows, y, label_count=5, l2=strengths)
    for number, fitted in enumerate(theirs()):
        worse = loss(x, y, solved.weights[number], solved.bias[number], strengths[number])
        worse /= loss(x, y, fitted.coef_, fitted.intercept_, strengths[number])
        assert worse < 1 + 1e-4, f"L2 {strengths[number]}: {worse}"
    ours, rival = statistics.median(together), statistics.median(one_by_one)
    print(
        f"L-BFGS, {len(L2_PATH)} L2 strengths on {x.shape[0]:,} x {x.shape[1]}: scikit-learn one by one "
        f"{rival:.2f} s, at once {ours:.2f} s, {rival / ours:.1f} times less"
    )
    return rival / ours


def loss(x: Floats, y: Rows, weights: Floats, bias: Floats, l2: float) -> float:
    """Of softmax regression, in float64."""
    logits = x.astype(float) @ weights.astype(float).T + bias
    logits -= logits.max(axis=1, keepdims=True)
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return float(nats.mean() + l2 / 2 * (weights.astype(float) ** 2).sum())


def main() -> int:
    """Print the table; 1 if a target is missed."""
    print(machine.described())
    dataset = examples()
    quick = "--quick" in sys.argv
    repeats = 1 if quick else 3
    solver = lbfgs_and_scikit_learn(dataset, repeats)
    ratio = at_once_and_in_turn(dataset, 400 if quick else 4000, repeats)
    print(f"at least {IN_TURN_TARGET:.0f} and {SCIKIT_LEARN_TARGET:.0f} times")
    return int(ratio < IN_TURN_TARGET or solver < SCIKIT_LEARN_TARGET)


if __name__ == "__main__":
    sys.exit(main())
