"""How fast the head trains: 4,000 steps of 100 on 3,000 x 512, evaluations included.

    python tests/bench/head.py            the median of 3, and Keras fit in the same run
    python tests/bench/head.py --alone    without Keras

Judged by the ratio to Keras, which does not evaluate every tenth step as the head does, and is given
its warm-up; without Keras by the share of the machine's rate of multiplying matrices.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from retrainer.api import Training
from retrainer_trainer.head.softmax import Examples, train

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import machine

RIVAL = Path(__file__).parent / "rivals" / "keras_fit.py"
REPEATS = 3
TARGET_RATIO = 10.0
TARGET_SHARE = 0.02
# Of the products of the steps alone: forth and back, 100 x 512 with five labels.
GFLOPS = 4000 * 2 * 2 * 100 * 512 * 5 / 1e9


def examples() -> Examples:
    """3,000 made-up images of five labels: 2,400 to train on, 300 to validate."""
    generator = np.random.default_rng(0)
    label = generator.integers(5, size=3000)
    matrix = np.abs(generator.standard_normal((3000, 512)))
    matrix = (matrix + generator.uniform(0, 1, (5, 512))[label]).astype(np.float32)
    rows = np.arange(3000)
    return Examples(matrix, label, rows[:2400, None], rows[2400:2700], 5)


def seconds(dataset: Examples) -> float:
    """One training."""
    begun = time.perf_counter()
    train(dataset, Training(steps=4000, batch_size=100))
    return time.perf_counter() - begun


def main() -> int:
    """Print the table; 1 if the target is missed."""
    dataset = examples()
    seconds(dataset)  # the first touches the matrix and loads BLAS
    ours, rivals = [], []
    for _ in range(REPEATS):
        ours.append(seconds(dataset))
        if "--alone" not in sys.argv:
            done = subprocess.run(
                [sys.executable, str(RIVAL)], capture_output=True, text=True, check=True
            )
            rivals.append(float(done.stdout))
    mine = statistics.median(ours)
    share = GFLOPS / mine / machine.sgemm_gflops()
    print(machine.described())
    print(f"head, 4,000 steps of 100 on 3,000 x 512: {mine:.2f} s, {share:.0%} of the sgemm rate")
    if not rivals:
        print(f"at least {TARGET_SHARE:.0%}")
        return int(share < TARGET_SHARE)
    rival = statistics.median(rivals)
    print(
        f"Keras fit, the same steps, no evaluation: {rival:.2f} s, {rival / mine:.1f} times "
        f"(at least {TARGET_RATIO:.0f})"
    )
    return int(rival / mine < TARGET_RATIO)


if __name__ == "__main__":
    sys.exit(main())
