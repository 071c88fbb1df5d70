"""How much work a training is, so that its time can be told from that of another."""

from retrainer.api import Solver, Training

STEP = 500_000.0
"""Multiply-adds that a step costs beside its products: calls from Python, and the report."""


def stage(training: Training) -> str:
    """Name the kind of training: what is known of one says nothing of another."""
    return "sweep" if training.sweep else f"training-{training.solver.value}"


def multiply_adds(
    training: Training, *, images: int, validation: int, width: int, labels: int
) -> float:
    """Estimate the multiply-adds of a training.

    Args:
        training: of the spec.
        images: to train on, views included.
        validation: images to validate on.
        width: floats per bottleneck.
        labels: number of them.
    """
    per_image = width * labels
    combinations = 1
    if training.sweep is not None:
        rates, values = training.sweep.learning_rate, training.sweep.l2
        combinations = max(1, len(rates or ())) * max(1, len(values or ()))
    if training.solver is Solver.LBFGS:
        # How many iterations it takes is known only at its end; they are alike for like images.
        return combinations * (STEP + 3.0 * images * per_image)
    batch = images if training.batch_size == -1 else min(images, training.batch_size)
    validated = (
        validation
        if training.validation_batch_size == -1
        else min(validation, training.validation_batch_size)
    )
    evaluations = training.steps / training.eval_interval
    steps = training.steps * (STEP + 2.0 * batch * per_image)
    return combinations * (steps + evaluations * (STEP + (batch + validated) * per_image))
