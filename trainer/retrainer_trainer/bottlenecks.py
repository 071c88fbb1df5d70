"""The `bottlenecks` task, and what the `train` task needs of it: list, compute what is missing, load.

    job = open_job(spec, reporter, stop)              # images listed, backbone and cache opened
    filled = fill(job, reporter, stop)                # what the cache lacks is computed
    ready = load(job, filled)                         # one float32 matrix

or all three, with the checks between them: `prepare(spec, reporter, stop, run)`.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrainer.api import Phase, RetrainJobSpec, Task, layout, reasons
from retrainer.errors import Interrupted, RetrainerError, StorageError
from retrainer_trainer.backbone.compute import OpenJob, Want, computed
from retrainer_trainer.backbone.engine import gpu
from retrainer_trainer.backbone.network import Backbone, FindGpu, open_backbone
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import (
    Catalog,
    check_labels,
    list_catalog,
    rejected_csv,
    shown,
)
from retrainer_trainer.dataset.distort import view_identity
from retrainer_trainer.dataset.identity import IDENTITY_BYTES, Identities, shard_of
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.store import Store

# A killed pod loses at most this much.
FLUSH_IMAGES = 4000
FLUSH_SECONDS = 20.0
_REPORT_SECONDS = 0.25
# Of the whole job's percent: computing takes most of a first run's time.
TRAIN_TASK_SHARE = 80

Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Filled:
    """What `fill` did.

    Attributes:
        identities: (N, 16) of the catalog, with those of images replaced since they were listed.
        rejected: index in the catalog of each image that cannot be used, and why.
        cached: images (of this shard) whose bottlenecks were all in the cache.
        computed: images of which a bottleneck was computed.
    """

    identities: Identities
    rejected: dict[int, str]
    cached: int
    computed: int


@dataclass(frozen=True)
class Bottlenecks:
    """Everything that the head is trained on. N images, V = `spec.distortions.views` or 0.

    Attributes:
        catalog: of the job, N images in the order of their paths, by which all of this is indexed.
        backbone: that computed them.
        matrix: (N + rows of views, width) float32; row i is image i of the catalog.
        views: (N, V) the rows of `matrix` that hold an image's distorted views; -1 for an image that
            is not a training image or is rejected.
        usable: (N,) False for rejected images, whose rows in `matrix` mean nothing.
        rejected: index and reason of each rejected image.
        warnings: about labels that became too small by rejections.
    """

    catalog: Catalog
    backbone: Backbone
    matrix: npt.NDArray[np.float32]
    views: Longs
    usable: npt.NDArray[np.bool_]
    rejected: dict[int, str]
    warnings: tuple[str, ...] = ()

    def rows(self, which: int) -> Longs:
        """Indices of the usable images of one set (split.TRAINING, ...), ascending."""
        return np.flatnonzero((self.catalog.sets == which) & self.usable)


def run(task: Task, shard: int, reporter: Reporter, stop: Stop) -> None:
    """The `bottlenecks` task: compute this shard's share of what the cache lacks.

    Raises:
        RetrainerError: as `open_job` and `fill`.
    """
    job = open_job(task.spec, reporter, stop)
    filled = fill(job, reporter, stop, shard=shard, shards=task.shards)
    _log_rejected(job.catalog, filled, reporter)
    reporter.update(
        stage=Phase.SUCCEEDED,
        reason=reasons.BOTTLENECKS.name,
        message=f"{filled.computed} computed, {filled.cached} were in the cache, "
        f"{len(filled.rejected)} rejected.",
        progress={"percent": 100, "remaining_seconds": 0},
    )


def prepare(spec: RetrainJobSpec, reporter: Reporter, stop: Stop, run: Store) -> Bottlenecks:
    """The bottlenecks of all images of a job, computed where the cache has none.

    Args:
        spec: of the job.
        reporter: told how far it is.
        stop: looked at between images.
        run: the run's folder; rejected.csv is written there if there are too many.

    Raises:
        UserError: the images cannot be trained on; the message says what to mend.
        StorageError: the store stopped answering.
        Interrupted: asked to stop; what was computed is in the cache.
    """
    return complete(open_job(spec, reporter, stop), reporter, stop, run)


def complete(job: OpenJob, reporter: Reporter, stop: Stop, run: Store) -> Bottlenecks:
    """The rest of `prepare`, for a job that is open."""
    filled = fill(job, reporter, stop)
    check_rejected(job, filled, run)
    ready, missing = load(job, filled)
    # A damaged segment shows itself only now; and of equal images, the one that was to stand for all
    # may have vanished.
    while missing:
        again = fill(job, reporter, stop, known=filled)
        filled = replace(again, cached=filled.cached, computed=filled.computed + again.computed)
        check_rejected(job, filled, run)
        before, (ready, missing) = missing, load(job, filled)
        if missing >= before:
            raise RetrainerError(
                f"{missing} bottlenecks just written to {job.spec.cache_url} cannot be read back."
            )
    _log_rejected(job.catalog, filled, reporter)
    warnings = check_labels(job.catalog, job.spec, ready.usable) if filled.rejected else []
    new = tuple(w for w in warnings if w not in job.catalog.warnings)
    for warning in new:
        reporter.warn(warning)
    return replace(ready, warnings=new)


def open_job(
    spec: RetrainJobSpec, reporter: Reporter, stop: Stop, *, find_gpu: FindGpu = gpu
) -> OpenJob:
    """List the images, and open the backbone and the cache.

    Raises:
        UserError: the images, the weights or the storage are not as the spec says.
        RetrainerError: the GPU cannot be used.
    """
    reporter.update(stage=Phase.BOTTLENECKS, message="Listing images.")
    images = Store.open(spec.images, spec.storage, "spec.images", reporter.log, stop)
    catalog = list_catalog(images, spec, reporter.log)
    for warning in catalog.warnings:
        reporter.warn(warning)
    reporter.update(label_count=len(catalog.labels), progress={"images_total": len(catalog)})
    store = Store.open(spec.cache_url, spec.storage, "spec.cache", reporter.log, stop)
    backbone = open_backbone(spec, store, reporter.log, reporter.warn, find_gpu)
    cache = Cache(store, backbone.fingerprint, backbone.architecture.bottleneck, reporter.warn)
    return OpenJob(spec, images, catalog, backbone, cache)


# --- computing ---
def fill(
    job: OpenJob,
    reporter: Reporter,
    stop: Stop,
    *,
    shard: int = 0,
    shards: int = 1,
    known: Filled | None = None,
) -> Filled:
    """Compute the bottlenecks that the cache lacks of one shard's images, and write them to it.

    Args:
        job: opened.
        reporter: told how far it is, with counts of this shard's images.
        stop: looked at between images.
        shard: which share of the images, by their identities.
        shards: number of shares.
        known: what an earlier call found of the same images; those that it rejected are left out.

    Raises:
        Interrupted: asked to stop; what was computed is in the cache.
        StorageError: the store stopped answering; what could be written is in the cache.
    """
    catalog, cache = job.catalog, job.cache
    identities = (known.identities if known else catalog.identities).copy()
    rejected = dict(known.rejected) if known else {}
    mine = shard_of(identities, shards) == shard
    mine[list(rejected)] = False
    cache.refresh()
    wants = _missing(job, identities, mine)
    total, cached = int(mine.sum()), int(mine.sum()) - len(wants)
    tally = _Tally(reporter, total + len(rejected), cached, len(wants))
    if known is None:
        reporter.log(f"{cached} of {total} images are in the cache, {len(wants)} to compute.")
    count = 0
    unusable: dict[bytes, str] = {}
    flushed = time.monotonic()
    with stop.deferred():
        try:
            for done in computed(job, wants, stop):
                if done.identity is not None:
                    identities[done.row] = np.frombuffer(done.identity, np.uint8)
                if done.rejected is not None:
                    rejected[done.row] = done.rejected
                    if done.copies:
                        unusable[identities[done.row].tobytes()] = done.rejected
                else:
                    count += 1
                for name, bottleneck in done.found:
                    cache.add(name, bottleneck)
                now = time.monotonic()
                if cache.pending >= FLUSH_IMAGES or now - flushed > FLUSH_SECONDS:
                    cache.flush()
                    flushed = time.monotonic()
                tally.show(count, len(rejected), now)
        finally:
            _flush_last(cache, stop)
            tally.show(count, len(rejected), None)
    if unusable:  # of equal images only one was looked at
        for row in np.flatnonzero(mine).tolist():
            if (reason := unusable.get(identities[row].tobytes())) is not None:
                rejected[row] = reason
    tally.show(count, len(rejected), None)
    return Filled(identities, rejected, cached, count)


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
    """Shows how far the computing is, at most a few times a second."""

    def __init__(self, reporter: Reporter, total: int, cached: int, wanted: int) -> None:
        self._reporter, self._cached, self._wanted = reporter, cached, wanted
        self._total = total
        self._begun = time.monotonic()
        self._due = 0.0
        self._share = TRAIN_TASK_SHARE if reporter.report.task == "train" else 100
        self.show(0, 0, None)

    def show(self, computed: int, rejected: int, now: float | None) -> None:
        if now is not None and now < self._due:
            return
        clock = time.monotonic()
        self._due = clock + _REPORT_SECONDS
        seconds = clock - self._begun
        done = computed + rejected
        rate = done / seconds if done and seconds > 0 else None
        left = max(0, self._wanted - done)
        share = (self._cached + done) / self._total if self._total else 1.0
        self._reporter.update(
            stage=Phase.BOTTLENECKS,
            reason=reasons.BOTTLENECKS.name,
            message=reasons.BOTTLENECKS(
                done=self._cached + done, total=self._total, cached=self._cached
            ),
            images_per_second=rate,
            progress={
                "percent": min(self._share, int(self._share * share)),
                "remaining_seconds": round(left / rate) if rate else None,
                "images_total": self._total,
                "images_cached": self._cached,
                "images_computed": computed,
                "images_rejected": rejected,
            },
        )


def _missing(job: OpenJob, identities: Identities, mine: npt.NDArray[np.bool_]) -> list[Want]:
    """What the cache lacks: for each image, in path order, the parts (-1 itself, else views)."""
    names, rows, parts = _names(job, identities, mine)
    lacking = np.flatnonzero(job.cache.find(names) < 0)
    if not len(lacking):
        return []
    # An image that is there twice is computed once.
    _, first = np.unique(names[lacking].view(f"S{IDENTITY_BYTES}")[:, 0], return_index=True)
    lacking = lacking[np.sort(first)]
    wants: dict[int, list[int]] = {}
    for row, part in zip(rows[lacking].tolist(), parts[lacking].tolist(), strict=True):
        wants.setdefault(row, []).append(part)
    return [Want(row, tuple(wants[row])) for row in sorted(wants)]


def _names(
    job: OpenJob, identities: Identities, among: npt.NDArray[np.bool_]
) -> tuple[Identities, Longs, Longs]:
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
    """The matrix of all bottlenecks of the job, and how many of them the cache lacks."""
    # What is known of the images from now on is what was computed, not what was listed.
    catalog = replace(job.catalog, identities=filled.identities)
    job.cache.refresh()
    usable = np.ones(len(catalog), bool)
    usable[list(filled.rejected)] = False
    names, rows, parts = _names(job, filled.identities, usable)
    plain = int((parts < 0).sum())
    target = np.concatenate([rows[:plain], len(catalog) + np.arange(len(names) - plain)])
    views = np.full((len(catalog), job.spec.distortions.views if job.spec.distortions else 0), -1)
    views[rows[plain:], parts[plain:]] = target[plain:]
    width = job.backbone.architecture.bottleneck
    # Zeros are not touched until they are written: rejected rows cost no memory.
    matrix = np.zeros((len(catalog) + len(names) - plain, width), np.float32)
    places = job.cache.find(names)
    there = places >= 0
    failed = job.cache.read(places[there], matrix, target[there])
    ready = Bottlenecks(catalog, job.backbone, matrix, views, usable, filled.rejected)
    return ready, int((~there).sum()) + len(failed)


# --- rejected images ---
def check_rejected(job: OpenJob, filled: Filled, run: Store) -> None:
    """Refuse to go on with more unreadable images than `maxRejectedFraction` allows.

    Raises:
        UserError: there are; rejected.csv, in the run's folder, lists them.
    """
    total, rejected = len(job.catalog), len(filled.rejected)
    if rejected <= job.spec.max_rejected_fraction * total:
        return
    run.put(layout.REJECTED, rejected_csv(job.catalog, filled.rejected).encode())
    first = min(filled.rejected)
    raise reasons.TOO_MANY_REJECTED.error(
        rejected=rejected,
        total=total,
        limit=f"{job.spec.max_rejected_fraction:g}",
        first=f"{shown(job.catalog.paths[first])} ({filled.rejected[first]})",
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
