"""The `check` and `plan` tasks: what can be told of a job without doing it. They write nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retrainer.api import Phase, Task, reasons
from retrainer.api.preview import Inspection, LabelCount, Rejection
from retrainer.errors import NotFound, UserError
from retrainer.inference import pixels as images
from retrainer.inference.headers import Header, RejectedError, header
from retrainer_trainer.arrays import Bools
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import Catalog, check_labels, list_catalog
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Store, UnreadableError

HEADER_BYTES = 64 * 1024
"""Bytes of a file in which its header nearly always is; else the whole file is read."""

LISTED = 1000
"""Rejected images, and groups of copies, that an answer lists."""

_CHUNK = 10_000


def run(task: Task, reporter: Reporter, stop: Stop) -> None:
    """Look at the job of `task` and give the answer to `reporter`.

    Raises:
        UserError: the images are not there, or there are too few labels; the message says which.
        Interrupted: asked to stop.
    """
    reporter.answer(inspect(task, reporter, stop))
    reporter.update(stage=Phase.SUCCEEDED, reason=reasons.SUCCEEDED.name)


# --- check ---
def inspect(task: Task, reporter: Reporter, stop: Stop) -> Inspection:
    """List a job's images and read the header of each, or decode it if `spec` asks for that."""
    spec = task.spec
    store = open_store(spec.images, spec.storage, "spec.images", reporter.log, stop)
    catalog = list_catalog(store, spec, reporter.log)
    looked = list(looked_at(store, catalog, decode=task.decode))
    usable = np.array([isinstance(each, Header) for each in looked], bool)
    rejected = [(row, str(each)) for row, each in enumerate(looked) if isinstance(each, str)]
    headers = [each for each in looked if isinstance(each, Header)]
    by_size = sorted(headers, key=lambda each: each.width * each.height)
    warnings, problem = list(catalog.warnings), None
    if len(rejected) > spec.max_rejected_fraction * len(catalog):
        first, why = rejected[0]
        problem = reasons.TOO_MANY_REJECTED(
            rejected=len(rejected),
            total=len(catalog),
            limit=f"{spec.max_rejected_fraction:g}",
            first=f"{shown(catalog.paths[first])} ({why})",
        )
    elif rejected:
        try:
            warnings += [w for w in check_labels(catalog, spec, usable) if w not in warnings]
        except UserError as error:
            problem = str(error)
    return Inspection(
        images=len(catalog),
        size=int(catalog.sizes.sum()),
        labels=label_counts(catalog, usable),
        formats=dict(Counter(each.format for each in headers).most_common()),
        smallest=_sides(by_size, 0),
        median=_sides(by_size, len(by_size) // 2),
        largest=_sides(by_size, -1),
        decoded=task.decode,
        rejected=len(rejected),
        rejections=[
            Rejection(path=shown(catalog.paths[row]), reason=why) for row, why in rejected[:LISTED]
        ],
        copies=[
            [shown(catalog.paths[row]) for row in group.tolist()]
            for group in catalog.duplicates()[:LISTED]
        ],
        warnings=warnings,
        problem=problem,
    )


def looked_at(store: Store, catalog: Catalog, *, decode: bool) -> Iterator[Header | str]:
    """Give each image's header, or the reason why it cannot be read, in the catalog's order."""

    def look(row: int) -> Header | str:
        path, size = catalog.paths[row], int(catalog.sizes[row])
        if size > images.MAX_BYTES:
            return images.too_large(size)
        try:
            if decode:
                body = store.get(path)
                images.decoded(body, 1)
                return header(body)
            return _header_of(store, path, size)
        except (NotFound, UnreadableError, RejectedError) as error:
            return str(error)

    with ThreadPoolExecutor(max(cores(), store.parallel)) as pool:
        for start in range(0, len(catalog), _CHUNK):
            yield from pool.map(look, range(start, min(start + _CHUNK, len(catalog))))


def _header_of(store: Store, path: str, size: int) -> Header:
    (body,) = store.get_ranges(path, [0], [min(size, HEADER_BYTES)]) if size else (b"",)
    try:
        return header(body)
    except RejectedError:
        if size <= HEADER_BYTES:
            raise
        return header(store.get(path))


def label_counts(catalog: Catalog, usable: Bools) -> list[LabelCount]:
    """Count each label's images, and those of each set that can be read."""
    names = catalog.printable_labels
    counts = np.zeros((3, len(names)), np.int64)
    np.add.at(counts, (catalog.sets[usable], catalog.label[usable]), 1)
    listed = np.bincount(catalog.label, minlength=len(names))
    return [
        LabelCount(
            label=name,
            images=int(listed[i]),
            rejected=int(listed[i] - counts[:, i].sum()),
            training=int(counts[split.TRAINING, i]),
            validation=int(counts[split.VALIDATION, i]),
            test=int(counts[split.TESTING, i]),
        )
        for i, name in enumerate(names)
    ]


def _sides(by_size: Sequence[Header], place: int) -> tuple[int, int] | None:
    return (by_size[place].width, by_size[place].height) if by_size else None
