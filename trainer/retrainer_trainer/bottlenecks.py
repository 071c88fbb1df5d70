"""The `bottlenecks` task, and what the `train` task needs of it: list, compute what is missing, load.

    job = open_job(spec, reporter, stop)              # images listed, backbone and cache opened
    filled = compute_missing(job, reporter, stop)     # what the cache lacks is computed
    ready = load(job, filled)                         # one float32 matrix

or all three, with the checks between them: `prepare(spec, reporter, stop, folder)`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from retrainer.api import Phase, RetrainJobSpec, Task, layout, reasons
from retrainer.api.names import TASK_TRAIN
from retrainer.errors import Interrupted, RetrainerError, StorageError
from retrainer_trainer.arrays import Bools, Floats, Longs
from retrainer_trainer.backbone.compute import OpenJob, Request, Result, compute
from retrainer_trainer.backbone.engine import gpu
from retrainer_trainer.backbone.network import FindGpu
from retrainer_trainer.backbone.opening import OpenedBackbone, open_backbone
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import (
    Catalog,
    check_labels,
    list_catalog,
)
from retrainer_trainer.dataset.distort import view_identity
from retrainer_trainer.dataset.identity import IDENTITY_BYTES, Identities, nearly_black, shard_of
from retrainer_trainer.dataset.listing import NO_FILE
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.outputs import tables
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Store
from retrainer_trainer.store.unwritten import Unwritten

# A segment is written after so many images or seconds: a killed pod loses no more than that.
FLUSH_IMAGES = 4000
FLUSH_SECONDS = 20.0
_REPORT_SECONDS = 0.25
# Of the whole job's percent: computing takes most of a first run's time.
TRAIN_TASK_SHARE = 80


@dataclass(frozen=True)
class Filled:
    """What `compute_missing` left: each usable image of its shard was either cached or computed.

    Attributes:
        identities: (N, 16) of the catalog, with those of images replaced since they were listed.
        rejected: index in the catalog of each image that cannot be used, and why.
        cached: (N,) images whose bottlenecks were all in the cache.
        computed: (N,) images of which a bottleneck was computed, here or for an equal image.
    """

    identities: Identities
    rejected: dict[int, str]
    cached: Bools
    computed: Bools

    @property
    def cached_count(self) -> int:
        """How many images were in the cache."""
        return int(self.cached.sum())

    @property
    def computed_count(self) -> int:
        """How many images were computed."""
        return int(self.computed.sum())


@dataclass(frozen=True)
class Bottlenecks:
    """Everything that the head is trained on. N images, V = `spec.distortions.views` or 0.

    Attributes:
        catalog: of the job, N images in the order of their paths; its rows index all the arrays.
        images: the store of `spec.images`.
        backbone: the network that computed them.
        matrix: (N + rows of views, width) float32; row i is image i of the catalog.
        views: (N, V) the rows of `matrix` that hold an image's distorted views; -1 for an image that
            is not a training image or is rejected.
        usable: (N,) False for rejected images, whose rows in `matrix` mean nothing.
        rejected: index and reason of each rejected image.
        warnings: about labels that became too small by rejections.
    """

    catalog: Catalog
    images: Store
    backbone: OpenedBackbone
    matrix: Floats
    views: Longs
    usable: Bools
    rejected: dict[int, str]
    warnings: tuple[str, ...] = ()

    def rows(self, which: int) -> Longs:
        """Indices of the usable images of one set (split.TRAINING, ...), ascending."""
        return np.flatnonzero((self.catalog.sets == which) & self.usable)


def run(task: Task, shard: int, reporter: Reporter, stop: Stop) -> None:
    """Do the `bottlenecks` task: compute this shard's share of what the cache lacks.

    Raises:
        RetrainerError: as `open_job` and `compute_missing`.
    """
    job = open_job(task.spec, reporter, stop)
    filled = compute_missing(job, reporter, stop, shard=shard, shards=task.shards)
    _log_rejected(job.catalog, filled, reporter)
    reporter.update(
        stage=Phase.SUCCEEDED,
        reason=reasons.BOTTLENECKS.name,
        message=f"{filled.computed_count} computed, {filled.cached_count} were in the cache, "
        f"{len(filled.rejected)} rejected.",
        progress={"percent": 100, "remaining_seconds": 0},
    )


Regroup = Callable[["Bottlenecks"], Catalog]
"""Gives the catalog with other sets, once the images are known by their bottlenecks."""


def prepare(
    spec: RetrainJobSpec,
    reporter: Reporter,
    stop: Stop,
    folder: Store,
    regroup: Regroup | None = None,
) -> Bottlenecks:
    """Give the bottlenecks of all images of a job, computed where the cache has none.

    Args:
        spec: of the job.
        reporter: gets the progress.
        stop: ends it between two images.
        folder: of the run; rejected.csv is written there if there are too many.
        regroup: chooses the sets anew by the bottlenecks, before views of the training images are made.

    Raises:
        UserError: the images cannot be trained on; the message says what to mend.
        StorageError: the store stopped answering.
        Interrupted: asked to stop; what was computed is in the cache.
    """
    return compute_and_load(open_job(spec, reporter, stop), reporter, stop, folder, regroup)


def compute_and_load(
    job: OpenJob,
    reporter: Reporter,
    stop: Stop,
    folder: Store,
    regroup: Regroup | None = None,
) -> Bottlenecks:
    """Do the rest of `prepare`, for a job that is open."""
    if regroup is None:
        ready, filled = _whole(job, reporter, stop, folder)
    else:
        undistorted = job.spec.model_copy(update={"distortions": None})
        plain = replace(job, spec=undistorted)
        ready, filled = _whole(plain, reporter, stop, folder)
        job = replace(job, catalog=regroup(ready))
        ready = replace(ready, catalog=job.catalog)
        if job.spec.distortions is not None:  # views of the images that are for training now
            ready, filled = _whole(job, reporter, stop, folder, filled)
    _log_rejected(job.catalog, filled, reporter)
    _warn_of_gone_files(ready, reporter)
    _warn_of_nearly_black(job, ready, reporter)
    checked = bool(filled.rejected) or regroup is not None
    warnings = check_labels(job.catalog, job.spec, ready.usable) if checked else []
    new = tuple(w for w in warnings if w not in job.catalog.warnings)
    for warning in new:
        reporter.warn(warning)
    reporter.clock.lap("warning")
    return replace(ready, warnings=new)


def _whole(
    job: OpenJob, reporter: Reporter, stop: Stop, folder: Store, earlier: Filled | None = None
) -> tuple[Bottlenecks, Filled]:
    """Compute what the cache lacks until all of it can be read."""
    filled = compute_missing(job, reporter, stop, earlier=earlier)
    check_rejected(job, filled, folder)
    ready, missing = load(job, filled)
    # Bottlenecks can still be missing: a damaged segment is noticed only when it is read, and of equal
    # images, the one that was computed for all may have been deleted.
    while missing:
        filled = compute_missing(job, reporter, stop, earlier=filled)
        check_rejected(job, filled, folder)
        before, (ready, missing) = missing, load(job, filled)
        if missing >= before:
            raise RetrainerError(
                f"{missing} bottlenecks just written to {job.spec.cache_url} cannot be read back."
            )
    reporter.clock.lap("loading", len(ready.matrix))
    return ready, filled


def open_job(
    spec: RetrainJobSpec,
    reporter: Reporter,
    stop: Stop,
    *,
    find_gpu: FindGpu = gpu,
    read_only: bool = False,
) -> OpenJob:
    """List the images, and open the backbone and the cache.

    Args:
        spec: of the job.
        reporter: gets warnings and counts.
        stop: ends the waiting for a store.
        find_gpu: says whether there is a GPU.
        read_only: write nothing to the cache.

    Raises:
        UserError: the images, the weights or the storage are not as the spec says.
        RetrainerError: the GPU cannot be used.
    """
    reporter.update(stage=Phase.BOTTLENECKS, message="Listing images.")
    images = open_store(spec.images, spec.storage, "spec.images", reporter.log, stop)
    catalog = list_catalog(images, spec, reporter.log)
    for warning in catalog.warnings:
        reporter.warn(warning)
    reporter.update(label_count=len(catalog.labels), progress={"images_total": len(catalog)})
    reporter.clock.lap("listing", len(catalog))
    store = open_store(spec.cache_url, spec.storage, "spec.cache", reporter.log, stop)
    if read_only:
        store = Unwritten(store)
    backbone = open_backbone(spec, store, reporter.log, reporter.warn, stop, find_gpu=find_gpu)
    cache = Cache(store, backbone.fingerprint, backbone.width, reporter.warn)
    return OpenJob(spec, images, catalog, backbone, cache)


# --- computing ---
def compute_missing(
    job: OpenJob,
    reporter: Reporter,
    stop: Stop,
    *,
    shard: int = 0,
    shards: int = 1,
    earlier: Filled | None = None,
) -> Filled:
    """Compute the bottlenecks that the cache lacks of one shard's images, and write them to it.

    Args:
        job: opened.
        reporter: gets the progress, with counts of this shard's images.
        stop: ends it between two images.
        shard: which share of the images, by their identities.
        shards: number of shares.
        earlier: what an earlier call gave for the same images; those that it rejected are left out.

    Raises:
        Interrupted: asked to stop; what was computed is in the cache.
        StorageError: the store stopped answering; what could be written is in the cache.
    """
    catalog, cache = job.catalog, job.cache
    identities = (earlier.identities if earlier else catalog.identities).copy()
    rejected = dict(earlier.rejected) if earlier else {}
    mine = shard_of(identities, shards) == shard
    total = int(mine.sum())
    mine[list(rejected)] = False
    cache.refresh()
    requests, lacking = find_missing(job, identities, mine)
    reporter.clock.lap("opening")
    # What this run computed a moment ago is in the cache now, but was not there before the run.
    computed_rows = earlier.computed & ~lacking if earlier else np.zeros_like(mine)
    cached = mine & ~lacking & ~computed_rows
    tally = _Tally(
        reporter,
        Filled(identities, rejected, cached, computed_rows),
        copies=_copies(identities, requests, lacking),
        total=total,
        wanted=len(requests),
    )
    if earlier is None:
        reporter.log(
            f"{int(cached.sum())} of {total} images are in the cache, {int(lacking.sum())} to compute."
        )
    flushed = time.monotonic()
    with stop.deferred():
        try:
            for result in compute(job, requests, stop):
                tally.take(result)
                for name, bottleneck in result.bottlenecks:
                    cache.add(name, bottleneck)
                if result.nearly_black:
                    mark = nearly_black(identities[result.row]).tobytes()
                    cache.add(mark, np.zeros(job.backbone.width, np.float32))
                now = time.monotonic()
                if cache.pending >= FLUSH_IMAGES or now - flushed > FLUSH_SECONDS:
                    cache.flush()
                    flushed = time.monotonic()
                if now > tally.due:
                    tally.show()
        finally:
            _flush_last(cache, stop)
            tally.show()
    reporter.clock.lap("computing", sum(len(request.parts) for request in requests))
    return tally.end(mine)


def _copies(
    identities: Identities, requests: list[Request], lacking: Bools
) -> dict[int, list[int]]:
    """Map the row of each requested image to those of its copies, which get its bottlenecks too."""
    stand_ins = {identities[request.row].tobytes(): request.row for request in reversed(requests)}
    requested = {request.row for request in requests}
    copies: dict[int, list[int]] = {}
    for row in np.flatnonzero(lacking).tolist():
        if row not in requested:
            copies.setdefault(stand_ins[identities[row].tobytes()], []).append(row)
    return copies


def _flush_last(cache: Cache, stop: Stop) -> None:
    try:
        cache.flush()
    except StorageError as error:
        if not stop.asked:
            raise
        raise Interrupted(
            f"Stopped before the end, and {cache.pending} bottlenecks that were computed are lost, "
            f"because they could not be written to the cache ({error}); run it again to go on."
        ) from error


class _Tally:
    """Counts what was computed, and shows it a few times a second.

    Args:
        reporter: gets the counts.
        filled: as it is before anything is computed; its arrays are written.
        copies: of an image that is computed, the equal ones that it is computed for as well.
        total: images of this shard.
        wanted: images to compute.
    """

    def __init__(
        self,
        reporter: Reporter,
        filled: Filled,
        *,
        copies: dict[int, list[int]],
        total: int,
        wanted: int,
    ) -> None:
        self.due = 0.0
        self._reporter, self._filled, self._copies = reporter, filled, copies
        self._total, self._wanted = total, wanted
        self._cached, self._computed = filled.cached_count, filled.computed_count
        self._unusable: dict[bytes, str] = {}
        self._begun = time.monotonic()
        self._done = 0
        self._share = TRAIN_TASK_SHARE if reporter.report.task == TASK_TRAIN else 100
        self.show()

    def take(self, result: Result) -> None:
        """Count one image."""
        filled, row = self._filled, result.row
        self._done += 1
        if result.identity is not None:
            filled.identities[row] = np.frombuffer(result.identity, np.uint8)
        if result.rejected is not None:
            filled.rejected[row] = result.rejected
            if result.copies:
                self._unusable[filled.identities[row].tobytes()] = result.rejected
            return
        rows = [row] if result.identity is not None else [row, *self._copies.get(row, ())]
        filled.computed[rows] = True
        self._computed += len(rows)

    def end(self, mine: Bools) -> Filled:
        """Give what came of it; `mine` are the images of this shard."""
        filled = self._filled
        if self._unusable:  # of equal images only one was looked at
            for row in np.flatnonzero(mine).tolist():
                reason = self._unusable.get(filled.identities[row].tobytes())
                if reason is not None:
                    filled.rejected[row] = reason
        rejected = list(filled.rejected)
        filled.cached[rejected] = filled.computed[rejected] = False
        self._cached, self._computed = filled.cached_count, filled.computed_count
        self.show()
        return filled

    def show(self) -> None:
        """Report how far the computing is."""
        now = time.monotonic()
        self.due = now + _REPORT_SECONDS
        seconds = now - self._begun
        done = self._cached + self._computed + len(self._filled.rejected)
        rate = self._done / seconds if self._done and seconds > 0 else None
        share = done / self._total if self._total else 1.0
        left = max(0, self._wanted - self._done)
        self._reporter.update(
            stage=Phase.BOTTLENECKS,
            reason=reasons.BOTTLENECKS.name,
            message=reasons.BOTTLENECKS(
                done=self._cached + self._computed, total=self._total, cached=self._cached
            ),
            images_per_second=rate,
            progress={
                "percent": min(self._share, int(self._share * share)),
                "remaining_seconds": round(left / rate) if rate else None,
                "images_total": self._total,
                "images_cached": self._cached,
                "images_computed": self._computed,
                "images_rejected": len(self._filled.rejected),
            },
        )


def find_missing(job: OpenJob, identities: Identities, mine: Bools) -> tuple[list[Request], Bools]:
    """Find what the cache lacks.

    Returns:
        A request per image, in path order; and (N,) which images lack a part, those included for which
        an equal image is computed.
    """
    names, rows, parts = _names(job, identities, mine)
    missing = np.flatnonzero(job.cache.find(names) < 0)
    lacking = np.zeros(len(mine), bool)
    lacking[rows[missing]] = True
    if not len(missing):
        return [], lacking
    # An image that is there twice is computed once.
    _, first = np.unique(names[missing].view(f"S{IDENTITY_BYTES}")[:, 0], return_index=True)
    missing = missing[np.sort(first)]
    parts_by_row: dict[int, list[int]] = {}
    for row, part in zip(rows[missing].tolist(), parts[missing].tolist(), strict=True):
        parts_by_row.setdefault(row, []).append(part)
    return [Request(row, tuple(parts_by_row[row])) for row in sorted(parts_by_row)], lacking


def _names(job: OpenJob, identities: Identities, among: Bools) -> tuple[Identities, Longs, Longs]:
    """Identity, image and part of each bottleneck of the images `among`: first the images
    themselves (part -1), then the views of the training images, image by image."""
    plain = np.flatnonzero(among)
    distortions = job.spec.distortions
    if distortions is None:
        return identities[plain], plain, np.full(len(plain), -1, np.int64)
    distorted = np.flatnonzero(among & (job.catalog.sets == split.TRAINING))
    count = distortions.views
    raw = bytearray()
    for row in distorted.tolist():
        identity = identities[row].tobytes()
        for view in range(count):
            raw += view_identity(identity, distortions, view)
    views = np.frombuffer(bytes(raw), np.uint8).reshape(-1, IDENTITY_BYTES)
    return (
        np.concatenate([identities[plain], views]),
        np.concatenate([plain, np.repeat(distorted, count)]),
        np.concatenate([np.full(len(plain), -1), np.tile(np.arange(count), len(distorted))]),
    )


# --- loading ---
def load(job: OpenJob, filled: Filled) -> tuple[Bottlenecks, int]:
    """Read the matrix of all bottlenecks of the job; returns it and how many the cache lacks."""
    # From now on an image's identity is that of the bytes that were read, not of those that were listed.
    catalog = replace(job.catalog, identities=filled.identities)
    job.cache.refresh()
    usable = np.ones(len(catalog), bool)
    usable[list(filled.rejected)] = False
    names, rows, parts = _names(job, filled.identities, usable)
    plain = int((parts < 0).sum())
    target = np.concatenate([rows[:plain], len(catalog) + np.arange(len(names) - plain)])
    views = np.full((len(catalog), job.spec.distortions.views if job.spec.distortions else 0), -1)
    views[rows[plain:], parts[plain:]] = target[plain:]
    width = job.backbone.width
    # Zeros are not touched until they are written: rejected rows cost no memory.
    matrix = np.zeros((len(catalog) + len(names) - plain, width), np.float32)
    places = job.cache.find(names)
    is_cached = places >= 0
    failed = job.cache.read(places[is_cached], matrix, target[is_cached])
    ready = Bottlenecks(catalog, job.images, job.backbone, matrix, views, usable, filled.rejected)
    return ready, int((~is_cached).sum()) + len(failed)


# --- rejected images ---
def check_rejected(job: OpenJob, filled: Filled, folder: Store) -> None:
    """Refuse to go on with more unreadable images than `maxRejectedFraction` allows.

    Raises:
        UserError: there are; rejected.csv, in the run's folder, lists them.
    """
    bad = len(job.catalog.bad)
    total, rejected = len(job.catalog) + bad, len(filled.rejected) + bad
    if rejected <= job.spec.max_rejected_fraction * total:
        return
    rows = tables.rejected_rows(job.catalog, filled.rejected)
    folder.put(layout.REJECTED, tables.rejected_csv(rows))
    path, reason = rows[0]
    raise reasons.TOO_MANY_REJECTED.error(
        rejected=rejected,
        total=total,
        limit=f"{job.spec.max_rejected_fraction:g}",
        first=f"{path} ({reason})",
    )


def _warn_of_gone_files(ready: Bottlenecks, reporter: Reporter) -> None:
    gone = int(((ready.catalog.sizes == NO_FILE) & ready.usable).sum())
    if gone:
        reporter.warn(
            f"{gone} images have no file any more: their bottlenecks come from the cache alone."
        )


def _warn_of_nearly_black(job: OpenJob, ready: Bottlenecks, reporter: Reporter) -> None:
    marks = job.cache.find(nearly_black(ready.catalog.identities)) >= 0
    rows = np.flatnonzero(marks & ready.usable)
    if len(rows):
        reporter.warn(
            f"Nearly black: {len(rows)} of {len(ready.catalog)} images, such as "
            f"{shown(ready.catalog.paths[int(rows[0])])}. They are PNGs of 16 bits that use at most 14 "
            "of them (cameras for X-rays, heat and depth write 12), so the network sees next to "
            "nothing; stretch their values to the whole range of 0 to 65,535."
        )


_SHOWN = 10


def _log_rejected(catalog: Catalog, filled: Filled, reporter: Reporter) -> None:
    if not filled.rejected:
        return
    rows: Iterable[int] = sorted(filled.rejected)[:_SHOWN]
    listed = [f"{shown(catalog.paths[i])} ({filled.rejected[i]})" for i in rows]
    more = len(filled.rejected) - len(listed)
    reporter.warn(
        f"Images rejected: {len(filled.rejected)}, {'; '.join(listed)}"
        + (f"; and {more} more." if more else ".")
    )
