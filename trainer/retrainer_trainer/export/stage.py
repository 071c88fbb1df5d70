"""The export stage: write every format, run what was written, copy it to the run."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api import Export, layout, reasons
from retrainer.inference.silence import quiet
from retrainer_trainer.backbone.network import keras_network
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import reading, split
from retrainer_trainer.export import formats as export
from retrainer_trainer.head.softmax import Head
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.store.store import Store

Rows = npt.NDArray[np.intp]

# Each export is run on the test images, or on this many of them, evenly spread: 1% of them, the
# most that may differ, is then still 10 images.
CHECKED_IMAGES = 1000
CALIBRATION_IMAGES = 128  # a usual number for int8 (TensorFlow's guide: "100 to 500")


def exported(  # noqa: PLR0917 - a stage: what it takes of the ones before
    ready: Bottlenecks,
    head: Head,
    formats: list[Export],
    reporter: Reporter,
    pictures: Store,
    folder: Store,
) -> tuple[dict[str, Any], bytes]:
    """Write all formats, run them, copy them to the run; what `evaluation.json` says, and the graph.

    Raises:
        RetrainerError: an export disagrees with the head.
    """
    size = ready.backbone.architecture.size
    labels = list(ready.catalog.printable_labels)
    training = reading.spread(ready.rows(split.TRAINING).astype(np.intp), CALIBRATION_IMAGES)
    rows = checked_rows(ready)

    def calibration() -> export.Pixels:
        return np.concatenate(
            [b.pixels for b in reading.batches(pictures, ready.catalog, training, size)]
        )

    with tempfile.TemporaryDirectory(prefix="retrainer-export-") as name:
        local = Path(name)
        reporter.log(f"Exporting {', '.join(formats)}.")
        network = export.Network(
            keras_network(ready.backbone.architecture, ready.backbone.weights), head, labels, size
        )
        graph = export.write(network, formats, local, calibration, reporter.log)
        reporter.update(message="Running the exports.", progress={"percent": 95})
        guess = dict(
            zip(rows.tolist(), head.scores(ready.matrix, rows).argmax(axis=1).tolist(), strict=True)
        )
        found = reading.batches(pictures, ready.catalog, rows, size)
        with quiet():
            counted = reading.compared(
                export.runners(local, formats), found, ready.catalog.label, guess
            )
        measured = bool(len(ready.rows(split.TESTING)))
        for form, count in counted.items():
            tell_difference(form, count, reporter)
        folder.put_folder(local, "")
    return {
        form: {
            "path": layout.EXPORT_PATHS[form.removesuffix("Bytes")],
            "accuracy": count.right / count.images if measured and count.images else None,
            "images": count.images,
            "different": count.different,
        }
        for form, count in counted.items()
    }, graph


def checked_rows(ready: Bottlenecks) -> Rows:
    """Images to run the exports on: test images; where there are none, others."""
    for which in (split.TESTING, split.VALIDATION, split.TRAINING):
        if len(rows := ready.rows(which)):
            return reading.spread(rows.astype(np.intp), CHECKED_IMAGES)
    return np.empty(0, np.intp)


def tell_difference(form: str, count: export.Comparison, reporter: Reporter) -> None:
    """Say how an export did; refuse one that is not the head's network.

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
    if form not in export.LENIENT:
        raise error
    reporter.warn(str(error))
