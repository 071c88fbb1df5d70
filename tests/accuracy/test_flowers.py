"""Test accuracy on real photos: MobileNet 0.50 at 160 px on the 1,498 flowers, 4,000 steps."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tests.support import trainer_engine as engine

from retrainer.api import Sampling, Training
from retrainer_trainer import train
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import split
from retrainer_trainer.head.softmax import train as train_head

pytestmark = pytest.mark.slow

SEEDS = range(5)


@pytest.fixture(scope="module")
def ready(
    flowers: Path, imagenet_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bottlenecks:
    """The bottlenecks of all photos, split by retrain.py's rule."""
    output = tmp_path_factory.mktemp("flowers")
    wanted = engine.spec(
        flowers, output, architecture="mobilenet_0.50_160", weights=str(imagenet_weights)
    )
    return engine.prepared(wanted)


def accuracies(ready: Bottlenecks, training: Training) -> list[float]:
    """Test accuracy with each of the seeds."""
    examples = train.examples_of(ready)
    test = ready.rows(split.TESTING)
    truth = ready.catalog.label[test]
    measured = []
    heads = set()
    for seed in SEEDS:
        head = train_head(examples, training.model_copy(update={"seed": seed})).head
        heads.add(head.weights.tobytes())
        measured.append(float((head.scores(ready.matrix, test).argmax(1) == truth).mean()))
    assert len(heads) == len(SEEDS), "each seed gives a head of its own"
    return measured


def by_lbfgs(ready: Bottlenecks) -> float:
    """Test accuracy of scikit-learn's logistic regression, solved to its end, on the same rows."""
    training, test = ready.rows(split.TRAINING), ready.rows(split.TESTING)
    solver = LogisticRegression(C=1.0, max_iter=2000, tol=1e-5)
    solver.fit(ready.matrix[training], ready.catalog.label[training])
    return float(solver.score(ready.matrix[test], ready.catalog.label[test]))


def test_4000_steps_reach_0_86_and_logistic_regression_within_2_points(ready: Bottlenecks) -> None:
    measured = accuracies(ready, Training())
    mean, best = float(np.mean(measured)), by_lbfgs(ready)
    print(f"test accuracy, mean of 5 seeds: {mean:.4f} {measured}; L-BFGS {best:.4f}")
    assert len(ready.catalog) == 1498
    assert len(ready.rows(split.TESTING)) == 165
    assert mean >= 0.86
    assert abs(mean - best) <= 0.02


def test_500_steps_reach_0_85(ready: Bottlenecks) -> None:
    assert np.mean(accuracies(ready, Training(steps=500))) >= 0.85


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_other_optimizers_reach_0_84_at_their_usual_rates(
    ready: Bottlenecks, optimizer: str
) -> None:
    training = Training.model_validate(
        {"steps": 1000, "optimizer": optimizer, "learningRate": 0.001}
    )
    assert np.mean(accuracies(ready, training)) >= 0.84


def test_uniform_sampling_does_as_well_on_labels_of_one_size(ready: Bottlenecks) -> None:
    training = Training(steps=2000, sampling=Sampling.UNIFORM)
    assert np.mean(accuracies(ready, training)) >= 0.85


def test_a_head_on_shuffled_labels_is_no_better_than_chance(ready: Bottlenecks) -> None:
    """The check itself can fail: nothing of the test set leaks into the training."""
    examples = train.examples_of(ready)
    shuffled = np.random.default_rng(0).permutation(examples.label)
    examples.label[:] = shuffled
    head = train_head(examples, Training(steps=1000)).head
    test = ready.rows(split.TESTING)
    right = (head.scores(ready.matrix, test).argmax(1) == ready.catalog.label[test]).mean()
    assert right < 0.35
