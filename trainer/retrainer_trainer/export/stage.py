"""The export stage: write every format, check what was written, copy it to the run."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retrainer.api import Export, layout
from retrainer.api.evaluation import Check, ExportCheck
from retrainer.inference.runners import Runner, open_runners
from retrainer.inference.silence import quiet
from retrainer.inference.tflite import Pixels
from retrainer_trainer.backbone.given import GivenBackbone
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import reading, split
from retrainer_trainer.export import check, formats
from retrainer_trainer.export.append import appended
from retrainer_trainer.export.metadata import with_metadata
from retrainer_trainer.head.softmax import Head
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.store.store import Store

CALIBRATION_IMAGES = 128  # a usual number for int8 (TensorFlow's guide: "100 to 500")


def exported(
    ready: Bottlenecks,
    head: Head,
    wanted: list[Export],
    reporter: Reporter,
    folder: Store,
) -> tuple[dict[str, ExportCheck], bytes | None]:
    """Write all formats, check them and copy them to the run.

    Returns:
        What `evaluation.json` says of each format, and the graph for TensorBoard, of which a
        network of one's own has none.

    Raises:
        RetrainerError: an export disagrees with the head, or does not hold its numbers.
    """
    labels = list(ready.catalog.printable_labels)
    with tempfile.TemporaryDirectory(prefix="retrainer-export-") as name:
        local = Path(name)
        reporter.log(f"Exporting {', '.join(wanted)}.")
        checks: dict[str, ExportCheck] = {}
        graph: bytes | None = None
        backbone = ready.backbone
        if isinstance(backbone, GivenBackbone):
            _write_given(backbone, head, labels, local)
        else:
            network = formats.Network(backbone.architecture, backbone.layers, head, labels)
            graph = formats.graph_for_tensorboard(network)
            formats.write(network, wanted, local, _calibration(ready), reporter.log)
            checks = _read_back(network, wanted, reporter, local)
        reporter.update(message="Checking the exports.", progress={"percent": 95})
        checks |= _run_on_images(ready, head, wanted, reporter, local)
        folder.put_folder(local, "")
    return {form.value: checks[form.value] for form in wanted}, graph


def _write_given(backbone: GivenBackbone, head: Head, labels: list[str], local: Path) -> None:
    body = appended(backbone.network, head, labels)
    if backbone.export is Export.TFLITE:
        body = with_metadata(body, backbone.name, labels, backbone.network.preprocessing)
    (local / layout.EXPORT_PATHS[backbone.export]).write_bytes(body)


def _calibration(ready: Bottlenecks) -> Callable[[], Pixels]:
    """Make what gives pixels of training images."""
    backbone = ready.backbone
    training = reading.spread(ready.rows(split.TRAINING).astype(np.intp), CALIBRATION_IMAGES)

    def pixels() -> Pixels:
        batches = reading.batches(
            ready.images, ready.catalog, training, backbone.size, backbone.pixels
        )
        return np.concatenate([batch.pixels for batch in batches])

    return pixels


def _read_back(
    network: formats.Network, wanted: list[Export], reporter: Reporter, local: Path
) -> dict[str, ExportCheck]:
    """Compare the numbers in the files of formats that are not run with those that were trained."""
    checks: dict[str, ExportCheck] = {}
    for form in wanted:
        if form in check.READ_BACK:
            check.check_constants(local, form, network.arrays, network.labels)
            reporter.log(f"{form}: its file holds the numbers that were trained.")
            path = layout.EXPORT_PATHS[form]
            checks[form.value] = ExportCheck(path=path, check=Check.CONSTANTS)
    return checks


def _run_on_images(
    ready: Bottlenecks, head: Head, wanted: list[Export], reporter: Reporter, local: Path
) -> dict[str, ExportCheck]:
    runners: dict[str, Runner] = {}
    with quiet():
        for form in wanted:
            if form not in check.READ_BACK:
                runners |= open_runners(local, form)
    if not runners:
        return {}
    rows = check.checked_rows(ready)
    guesses = head.scores(ready.matrix, rows).argmax(axis=1).tolist()
    guess = dict(zip(rows.tolist(), guesses, strict=True))
    backbone = ready.backbone
    batches = reading.batches(ready.images, ready.catalog, rows, backbone.size, backbone.pixels)
    with quiet():
        counts = check.compare(runners, batches, ready.catalog.label, guess)
    measured = bool(len(ready.rows(split.TESTING)))
    for name, count in counts.items():
        check.tell_difference(name, count, reporter)
    return {
        name: ExportCheck(
            path=layout.EXPORT_PATHS[name],
            check=Check.IMAGES,
            accuracy=count.right / count.images if measured and count.images else None,
            images=count.images,
            different=count.different,
        )
        for name, count in counts.items()
    }
