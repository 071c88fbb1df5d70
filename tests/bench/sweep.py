"""How much cheaper heads are at once than one by one.

    python tests/bench/sweep.py            the median of 5
    python tests/bench/sweep.py --quick    once, 400 steps

100 combinations (10 learning rates with 10 L2 strengths), 4,000 steps of 100 on 1,198 x 512 with five
labels: at once, and in turn (ten of them are measured, spread over all, and counted ten times). L-BFGS
with 20 L2 strengths at once on the same rows, against scikit-learn's LogisticRegression one by one, with
a tolerance at which its loss is about ours. Ours and theirs alternate.

Wall time is what counts. Beside it stands the CPU time, a core's share of it for what uses all cores:
other programs on the machine slow that more than what needs one.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from retrainer.api import Solver, Sweep, Training
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.head.lbfgs import solve
from retrainer_trainer.head.softmax import Examples, lbfgs_problem, train
from retrainer_trainer.head.sweep import L2_PATH, sweep, with_values
from retrainer_trainer.runtime.cores import cores

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import machine

IN_TURN_TARGET = 12.0
SCIKIT_LEARN_TARGET = 10.0
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


@dataclass(frozen=True)
class Times:
    """How long something took.

    Attributes:
        wall: seconds.
        cpu: seconds of all threads together.
    """

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Times:
    """How long `work` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def median(times: list[Times]) -> Times:
    """The medians of both."""
    walls, cpus = [each.wall for each in times], [each.cpu for each in times]
    return Times(statistics.median(walls), statistics.median(cpus))


def compare(what: str, one_by_one: list[Times], together: list[Times]) -> float:
    """Print both; returns the ratio of wall times."""
    slow, fast = median(one_by_one), median(together)
    wall, cpu = slow.wall / fast.wall, slow.cpu / (fast.cpu / cores())
    print(
        f"{what} {slow.wall:.2f} s, "
        f"at once {fast.wall:.2f} s on {cores()} cores: {wall:.1f} times less\n"
        f"  CPU time {slow.cpu:.2f} s and {fast.cpu:.2f} s, on each core: {cpu:.1f} times less",
        flush=True,
    )
    return wall


def at_once_and_in_turn(dataset: Examples, steps: int, repeats: int) -> float:
    """Print both; how many times less the sweep takes."""
    training = Training(steps=steps, sweep=Sweep(learning_rate=RATES, l2=STRENGTHS))
    candidates = sweep(dataset, training.model_copy(update={"steps": 1}))
    alone = [with_values(training, one) for one in candidates[::11]]
    train(dataset, alone[0])  # the first touches the matrix and loads BLAS
    together, in_turn = [], []
    for _ in range(repeats):
        together.append(timed(lambda: sweep(dataset, training)))
        measured = [timed(partial(train, dataset, one)) for one in alone]
        counted = len(candidates) / len(alone)
        wall, cpu = sum(each.wall for each in measured), sum(each.cpu for each in measured)
        in_turn.append(Times(wall * counted, cpu * counted))
    ratio = compare(f"{len(candidates)} combinations, {steps:,} steps: in turn", in_turn, together)
    flops = len(candidates) * steps * 100 * 512 * 5 * 4
    share = flops / median(together).cpu / 1e9 / machine.sgemm_gflops()
    print(f"  {share:.0%} of a core's sgemm rate, counted as the products of heads in turn")
    return ratio


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
        together.append(timed(lambda: sweep(dataset, training)))
        with threadpool_limits(1, user_api="blas"):  # faster than more, for products this small
            one_by_one.append(timed(theirs))
    solved = solve(lbfgs_problem(dataset), strengths)
    for number, fitted in enumerate(theirs()):
        worse = loss(x, y, solved.weights[number], solved.bias[number], strengths[number])
        worse /= loss(x, y, fitted.coef_, fitted.intercept_, strengths[number])
        assert worse < 1 + 1e-4, f"L2 {strengths[number]}: {worse}"
    what = f"L-BFGS, {len(L2_PATH)} L2 strengths on {x.shape[0]:,} x {x.shape[1]}"
    return compare(f"{what}: scikit-learn one by one", one_by_one, together)


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
    repeats = 1 if quick else 5
    solver = lbfgs_and_scikit_learn(dataset, repeats)
    ratio = at_once_and_in_turn(dataset, 400 if quick else 4000, repeats)
    print(f"at least {IN_TURN_TARGET:.0f} and {SCIKIT_LEARN_TARGET:.0f} times")
    return int(ratio < IN_TURN_TARGET or solver < SCIKIT_LEARN_TARGET)


if __name__ == "__main__":
    sys.exit(main())
