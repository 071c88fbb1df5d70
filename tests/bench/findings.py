"""What findings find of errors that were planted on purpose, and how long they take.

    python tests/bench/findings.py [IMAGES WEIGHTS]     a folder per label, and ImageNet weights

Figures are medians of five seeds. Beside each stands what is asked of it; it returns 1 if one is missed.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from retrainer.api import RetrainJobSpec, Task
from retrainer.inference import pixels
from retrainer_trainer import bottlenecks
from retrainer_trainer.findings.duplicates import near_duplicates
from retrainer_trainer.findings.findings import FOLDS, find
from retrainer_trainer.findings.folds import assign_folds, folds_interval, out_of_fold_scores
from retrainer_trainer.findings.forecast import forecast
from retrainer_trainer.findings.heads import Rotated, rotate, train_heads
from retrainer_trainer.findings.labels import SHOWN_ABOVE, margins, neighbour_votes
from retrainer_trainer.findings.neighbours import nearest
from retrainer_trainer.findings.pictures import small_picture
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.local import LocalStore

ARCHITECTURE = "mobilenet_0.50_160"
SIZE = 160
SEEDS = range(5)
FLIPPED = 0.05
COPIED = 300

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
Picture = npt.NDArray[np.uint8]


class Photos:
    """The photos of a folder, and the engine that computes bottlenecks of changed copies of them."""

    def __init__(self, images: Path, weights: Path, scratch: Path) -> None:
        self.spec = RetrainJobSpec(
            images=str(images),
            output=str(scratch),
            architecture=ARCHITECTURE,
            weights=str(weights),
        )
        task = Task.model_validate(
            {"task": "train", "name": "bench", "uid": "0" * 12, "spec": self.spec}
        )
        reporter = Reporter(task, port=0, events=-1)
        folder = LocalStore(scratch, str(scratch), "spec.output")
        ready = bottlenecks.prepare(self.spec, reporter, Stop(), folder)
        self.folder = images
        self.paths = ready.catalog.paths
        self.sets = ready.catalog.sets
        self.label = ready.catalog.label.astype(np.intp)
        self.label_count = len(ready.catalog.labels)
        self.matrix = ready.matrix
        self._engine = ready.backbone.start()

    def read(self, row: int) -> Picture:
        """The picture of a row, BGR."""
        return np.asarray(cv2.imread(str(self.folder / self.paths[row])), np.uint8)

    def bottleneck(self, body: bytes) -> Floats:
        """The bottleneck of an encoded picture."""
        return self._engine([pixels.pixels(body, SIZE)])[0]

    def small(self, rows: Iterable[int]) -> Mapping[int, Picture]:
        """Small pictures by row."""
        return {row: small_picture(self.read(row)) for row in rows}


def encoded(picture: Picture, quality: int = 92) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def turned(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), 5, 1)
    view = cv2.warpAffine(picture, move, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(view, np.uint8)


def smaller_and_brighter(picture: Picture) -> Picture:
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.convertScaleAbs(half, beta=25), np.uint8)


def cropped(picture: Picture) -> Picture:
    height, width = picture.shape[0] // 20, picture.shape[1] // 20
    return picture[height:-height, width:-width]


COPIES: dict[str, tuple[Callable[[Picture], bytes], float]] = {
    "JPEG of quality 40": (lambda picture: encoded(picture, 40), 0.95),
    "mirror": (lambda picture: encoded(np.ascontiguousarray(picture[:, ::-1])), 0.95),
    "half size, brighter": (lambda picture: encoded(smaller_and_brighter(picture)), 0.95),
    "10% cropped": (lambda picture: encoded(cropped(picture)), 0.85),
    "turned by 5 degrees": (lambda picture: encoded(turned(picture)), 0.8),
}


class Table:
    """Prints a line per figure and remembers whether all were reached."""

    def __init__(self) -> None:
        self.missed = False

    def row(self, what: str, value: float, asked: float, *, most: bool = False) -> None:
        """Print one figure; `most`: what is asked is an upper bound."""
        reached = value <= asked if most else value >= asked
        self.missed |= not reached
        bound = "at most" if most else "at least"
        print(
            f"{what:<58}{value:8.3f}  {bound} {asked:g}{'' if reached else '  MISSED'}", flush=True
        )


def cross_validated(photos: Photos, rows: Rows, seed: int) -> tuple[int, Rotated, Rows]:
    """Images that the folds guess right, the rotated bottlenecks, and the folds."""
    rotated = rotate(photos.matrix[rows])
    fold = assign_folds(photos.label[rows], rows, FOLDS, seed)
    scores = out_of_fold_scores(rotated, photos.label[rows], photos.label_count, fold, FOLDS)
    return int((scores.argmax(axis=1) == photos.label[rows]).sum()), rotated, fold


def flipped_labels(photos: Photos, table: Table) -> None:
    """5% of the labels are changed: how many of as many suspects are changed ones."""
    images, count = len(photos.label), round(FLIPPED * len(photos.label))
    rotated, neighbours = rotate(photos.matrix), nearest(photos.matrix)
    precision, area, alarms = [], [], []
    for seed in SEEDS:
        generator = np.random.default_rng(seed)
        label = photos.label.copy()
        rows = generator.choice(images, count, replace=False)
        other = generator.integers(1, photos.label_count, count)
        label[rows] = (label[rows] + other) % photos.label_count
        fold = assign_folds(label, np.arange(images), FOLDS, seed)
        scores = out_of_fold_scores(rotated, label, photos.label_count, fold, FOLDS)
        margin, _ = margins(scores, neighbour_votes(neighbours, label, photos.label_count), label)
        changed = np.zeros(images, np.bool_)
        changed[rows] = True
        precision.append(float(changed[np.argsort(-margin, kind="stable")[:count]].mean()))
        area.append(float(roc_auc_score(changed, margin)))
        alarms.append(float((margin[~changed] > SHOWN_ABOVE).mean()))
    table.row(
        "labels changed: precision among as many suspects", statistics.median(precision), 0.72
    )
    table.row("labels changed: AUROC", statistics.median(area), 0.96)
    table.row("suspects shown among unchanged images", statistics.median(alarms), 0.02, most=True)


def changed_copies(photos: Photos, table: Table) -> None:
    """Copies of 300 photos: how many are found, and how many other pairs."""
    images = len(photos.label)
    rows = np.sort(np.random.default_rng(0).choice(images, min(COPIED, images), replace=False))
    originals = {row: small_picture(photos.read(row)) for row in range(images)}
    real = {
        (pair.row, pair.other)
        for pair in near_duplicates(nearest(photos.matrix), lambda wanted: originals)
    }
    for name, (change, asked) in COPIES.items():
        bodies = [change(photos.read(int(row))) for row in rows]
        matrix = np.concatenate([photos.matrix, np.stack([photos.bottleneck(b) for b in bodies])])
        pictures = dict(originals)
        for number, body in enumerate(bodies):
            decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
            pictures[images + number] = small_picture(np.asarray(decoded, np.uint8))
        pairs = near_duplicates(nearest(matrix), lambda wanted, pictures=pictures: pictures)  # type: ignore[misc]
        copies = {(int(row), images + number) for number, row in enumerate(rows)}
        listed = {(pair.row, pair.other) for pair in pairs}
        # What is real among the originals is no false pair, nor is a copy of one beside the other.
        false = {
            (a, b)
            for a, b in listed - copies - real
            if b < images or tuple(sorted((a, int(rows[b - images])))) not in real
        }
        table.row(f"copies found: {name}", len(listed & copies) / len(copies), asked)
        table.row("  other pairs per 1,000 images", 1000 * len(false) / len(matrix), 1, most=True)
    print(f"  {len(real)} real pairs among the {images:,} photos:")
    for row, other in sorted(real):
        print(f"    {photos.paths[row]}  {photos.paths[other]}")


def accuracy(photos: Photos, table: Table) -> None:
    """The forecast from half of the photos, and how often the interval holds on the other half."""
    images = len(photos.label)
    truth = cross_validated(photos, np.arange(images), 0)[0] / images
    errors = []
    for seed in SEEDS:
        half = np.sort(np.random.default_rng(seed).choice(images, images // 2, replace=False))
        _, rotated, fold = cross_validated(photos, half, seed)
        law = forecast(rotated, photos.label[half], photos.label_count, fold, seed=seed)
        if law is not None:
            errors.append(abs(law.accuracy(images * (FOLDS - 1) / FOLDS) - truth))
    table.row("forecast from half of the photos: error", statistics.median(errors), 0.02, most=True)
    inside = 0
    everything = rotate(photos.matrix)
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(images)
        half, other = np.sort(order[: images // 2]), np.sort(order[images // 2 :])
        right, _, _ = cross_validated(photos, half, seed)
        low, high = folds_interval(right, len(half), FOLDS)
        part = np.zeros((1, images), np.bool_)
        part[0, half] = True
        head = train_heads(everything, photos.label, photos.label_count, part)
        guess = head.scores(everything, 0, other).argmax(axis=1)
        inside += low <= float((guess == photos.label[other]).mean()) <= high
    table.row("the other half's accuracy inside the interval", inside / 40, 0.9)


def seconds(photos: Photos, table: Table) -> None:
    """The time of all findings, of the photos and of made-up bottlenecks."""
    begun = time.perf_counter()
    find(photos.matrix, photos.label, photos.sets, photos.label_count, read_small=photos.small)
    table.row(f"seconds, {len(photos.label):,} photos", time.perf_counter() - begun, 1, most=True)
    for images, labels, asked in ((4000, 5, 3.0), (100_000, 20, 90.0)):
        generator = np.random.default_rng(0)
        label = generator.integers(labels, size=images)
        centres = generator.uniform(0, 1, (labels, 512))
        matrix = np.abs(generator.standard_normal((images, 512), np.float32))
        matrix += centres[label].astype(np.float32)
        sets = np.zeros(images, np.int8)
        begun = time.perf_counter()
        find(matrix, label, sets, labels, read_small=lambda rows: {})
        table.row(f"seconds, {images:,} made-up", time.perf_counter() - begun, asked, most=True)


def main() -> int:
    """Print the table; 1 if a figure is missed."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = Path(os.environ.get("RETRAINER_TEST_DATA") or beside)
    folders = [Path(argument) for argument in sys.argv[1:3]]
    images, weights = folders if len(folders) == 2 else (data / "flower_photos", data / "weights")
    table = Table()
    with tempfile.TemporaryDirectory(prefix="retrainer-bench-") as scratch:
        photos = Photos(images, weights, Path(scratch))
        flipped_labels(photos, table)
        changed_copies(photos, table)
        accuracy(photos, table)
        seconds(photos, table)
    return int(table.missed)


if __name__ == "__main__":
    sys.exit(main())
