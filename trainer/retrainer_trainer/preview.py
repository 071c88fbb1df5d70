"""The `check` and `plan` tasks: what can be told of a job without doing it. They write nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retrainer.api import Phase, Task, reasons
from retrainer.api.layout import INDEX_RECORD_BYTES
from retrainer.api.names import TASK_CHECK
from retrainer.api.preview import Inspection, LabelCount, Plan, Rejection
from retrainer.errors import NotFound, UserError
from retrainer.inference import pixels as images
from retrainer.inference.headers import Header, RejectedError, header
from retrainer_trainer.arrays import Bools, Longs
from retrainer_trainer.backbone.compute import OpenJob
from retrainer_trainer.bottlenecks import find_missing, open_job
from retrainer_trainer.cache.speed import recall
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import Catalog, check_labels, list_catalog
from retrainer_trainer.dataset.identity import IDENTITY_BYTES
from retrainer_trainer.dataset.listing import NO_FILE
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.export import formats as export
from retrainer_trainer.findings.stage import kept_findings
from retrainer_trainer.head import cost
from retrainer_trainer.outputs.artifacts import artifacts
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
    look = inspect if task.task == TASK_CHECK else plan
    reporter.answer(look(task, reporter, stop))
    reporter.update(stage=Phase.SUCCEEDED, reason=reasons.SUCCEEDED.name)


# --- check ---
def inspect(task: Task, reporter: Reporter, stop: Stop) -> Inspection:
    """List a job's images and read the header of each, or decode it if `spec` asks for that."""
    spec = task.spec
    store = open_store(spec.images, spec.storage, "spec.images", reporter.log, stop)
    catalog = list_catalog(store, spec, reporter.log)
    looked = list(looked_at(store, catalog, decode=task.decode))
    usable = np.array([not isinstance(each, str) for each in looked], bool)
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
        size=_bytes(catalog.sizes),
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


def looked_at(store: Store, catalog: Catalog, *, decode: bool) -> Iterator[Header | str | None]:
    """Look at each image, in the catalog's order.

    Gives its header, or the reason why it cannot be read; None if only a manifest knows the image, so
    that nothing but the cache can have its bottleneck.
    """

    def look(row: int) -> Header | str | None:
        path, size = catalog.paths[row], int(catalog.sizes[row])
        if size == NO_FILE:
            return None
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


def _bytes(sizes: Longs) -> int:
    """Add up the sizes of the images that have files."""
    return int(sizes[sizes != NO_FILE].sum())


def _sides(by_size: Sequence[Header], place: int) -> tuple[int, int] | None:
    return (by_size[place].width, by_size[place].height) if by_size else None


# --- plan ---
def plan(task: Task, reporter: Reporter, stop: Stop) -> Plan:
    """Say what a job would compute, read, take and write."""
    spec = task.spec
    job = open_job(spec, reporter, stop, read_only=True)
    catalog, width = job.catalog, job.backbone.width
    everything = np.ones(len(catalog), bool)
    job.cache.refresh()
    requests, lacking = find_missing(job, catalog.identities, everything)
    parts = sum(len(request.parts) for request in requests)
    training, validation = (
        int((catalog.sets == which).sum()) for which in (split.TRAINING, split.VALIDATION)
    )
    views = spec.distortions.views if spec.distortions else 0
    rows = len(catalog) + training * views
    amounts: dict[str, float] = {
        "listing": len(catalog),
        "computing": parts,
        "loading": rows,
        cost.stage(spec.training): cost.multiply_adds(
            spec.training,
            images=training * (1 + views),
            validation=validation,
            width=width,
            labels=len(catalog.labels),
        ),
        "findings": 0 if _has_findings(task, job) else len(catalog),
    }
    formats = export.formats_of(spec.export, job.backbone)
    speed, here = recall(job.cache.store, job.backbone.fingerprint)
    return Plan(
        backbone=job.backbone.name,
        images=len(catalog),
        size=_bytes(catalog.sizes),
        labels=label_counts(catalog, everything),
        cached=int((~lacking).sum()),
        missing=int(lacking.sum()),
        bytes_to_read=_bytes(catalog.sizes[[request.row for request in requests]]),
        seconds=speed.predict(amounts) if speed else None,
        memory=speed.bytes_for(4 * rows * width) if speed else None,
        measured_on=f"{speed.processor}, cores: {speed.cores}" if speed else "",
        here=here,
        run=task.run_url[: -len(task.uid[:8])] + "********",
        files=sorted(artifacts(formats, swept=spec.training.sweep is not None).values()),
        cache=spec.cache_url,
        bytes_to_cache=parts * (4 * width + IDENTITY_BYTES + INDEX_RECORD_BYTES),
        warnings=list(catalog.warnings),
    )


def _has_findings(task: Task, job: OpenJob) -> bool:
    """Say whether the findings need no computing, as those of an earlier run are in the cache."""
    if not task.spec.findings.enabled:
        return True
    catalog = job.catalog
    rows = np.arange(len(catalog), dtype=np.intp)
    kept = kept_findings(task, catalog, rows, job.backbone.fingerprint, job.cache.store)
    return kept.read() is not None
