"""Checks of what was exported: files are run on images, or their numbers are read back.

TensorFlow Lite, Keras and ONNX are run in every job. SavedModel and frozen graph are not, since that
takes TensorFlow: their graph was run when the template was made, so what may be wrong is the numbers
that were filled in, and those are compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrainer.api import Export, reasons
from retrainer.api.layout import EXPORT_PATHS
from retrainer.inference.runners import Runner
from retrainer.inference.tflite import Scores
from retrainer_trainer.arrays import Rows
from retrainer_trainer.backbone.layers import Arrays
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import reading, split
from retrainer_trainer.dataset.reading import Batch
from retrainer_trainer.export.protobuf import frozen_graph_constants, saved_model_constants
from retrainer_trainer.runtime.report import Reporter

# Each export is run on the test images, or on this many of them, evenly spread: 1% of them, the
# most that may differ, is then still 10 images.
CHECKED_IMAGES = 1000

LENIENT = frozenset({Export.TFLITE_INT8.value})
"""Exports that may disagree with the head, since they are rounded to 8 bits."""

READ_BACK = {
    Export.SAVED_MODEL: saved_model_constants,
    Export.FROZEN_GRAPH: frozen_graph_constants,
}
"""For each export that is not run, the function that reads the arrays and labels in its file."""


@dataclass
class Comparison:
    """Counts of how one exported file and the head did on the same images.

    Attributes:
        images: images that the file was run on.
        right: its guesses that are the true label.
        different: its guesses that are not the head's.
    """

    images: int = 0
    right: int = 0
    different: int = 0

    def add(self, scores: Scores, truth: npt.NDArray[np.intp], guess: npt.NDArray[np.intp]) -> None:
        """Count a batch: scores (images, labels), true labels, the head's guesses.

        Of an image that the file could not read the scores are no numbers: a wrong guess that differs.
        """
        ours = np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))
        self.images += len(ours)
        self.right += int((ours == truth).sum())
        self.different += int((ours != guess).sum())

    @property
    def differs(self) -> bool:
        """Whether more than 1% of the guesses are not the head's."""
        return self.different > 0.01 * self.images


def compare(
    runners: Mapping[str, Runner],
    batches: Iterable[Batch],
    truth: npt.NDArray[np.integer],
    guess: Mapping[int, int],
) -> dict[str, Comparison]:
    """Run every exported file on every image and count what they guess.

    Args:
        runners: the function that runs each exported file, by its name.
        batches: the images.
        truth: the label of every row of the catalog.
        guess: the head's guess for each of the images, by row.
    """
    counts = {name: Comparison() for name in runners}
    for batch in batches:
        ours = np.array([guess[row] for row in batch.rows.tolist()], np.intp)
        for name, run in runners.items():
            # Exports that take image files, not pixels, are not run here: they are read back.
            scores = run(batch.pixels, ())
            counts[name].add(scores, truth[batch.rows].astype(np.intp), ours)
    return counts


def check_constants(folder: Path, form: Export, arrays: Arrays, labels: list[str]) -> None:
    """Read an export's numbers back from its file and compare them with those that went in.

    Raises:
        RetrainerError: the file does not hold exactly these arrays and labels.
    """
    in_file, names = READ_BACK[form](folder / EXPORT_PATHS[form])
    equal = all(
        place in in_file and np.array_equal(in_file[place], a) for place, a in arrays.items()
    )
    if not equal or (names and names != labels):
        raise reasons.EXPORT_DAMAGED.error(export=form.value)


def checked_rows(ready: Bottlenecks) -> Rows:
    """Choose the images that exports are run on: test images; where there are none, others."""
    for which in (split.TESTING, split.VALIDATION, split.TRAINING):
        if len(rows := ready.rows(which)):
            return reading.spread(rows.astype(np.intp), CHECKED_IMAGES)
    return np.empty(0, np.intp)


def tell_difference(form: str, count: Comparison, reporter: Reporter) -> None:
    """Log how an export did; refuse one that is not the head's network.

    Raises:
        RetrainerError: it guesses another label on more than 1% of the images.
    """
    share = f"{100 * count.right / count.images:.1f}%" if count.images else "not measured"
    reporter.log(
        f"{form}: accuracy {share} on {count.images} images, {count.different} guesses differ."
    )
    if not count.differs:
        return
    error = reasons.EXPORT_DIFFERS.error(export=form, differ=count.different, total=count.images)
    if form not in LENIENT:
        raise error
    reporter.warn(str(error))
