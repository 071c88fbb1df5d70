"""Computes bottlenecks: fetch and decode on all cores, and run the backbone there or on a GPU.

On the cores each thread does all of it, image by image. For a GPU the threads fetch and decode, about
one batch ahead, and one more thread gives it batches.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from retrainer.api import RetrainJobSpec
from retrainer.errors import RetrainerError
from retrainer.inference import pixels as images
from retrainer_trainer.backbone.engine import Engine
from retrainer_trainer.backbone.network import Backbone
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.dataset.catalog import Catalog
from retrainer_trainer.dataset.distort import distorted, source_size, view_identity
from retrainer_trainer.dataset.reading import Fetched, fetch
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.store import Store

T = TypeVar("T")

WHOLE = -1
"""Part of a Want: the image as it is; 0 and more are numbers of distorted views."""

# Each time the main thread wakes, the workers may have to wait for the interpreter's lock.
_TOGETHER = 16
_TOGETHER_S = 0.25
_QUEUED = 16
# A thread that gives nothing for so long, once a stop was asked, waits for a store. The segment must be
# written within the pod's grace period: see store_s3.STOPPED_PATIENCE_S.
_STOPPED_S = 5.0


@dataclass(frozen=True)
class OpenJob:
    """A job whose images are listed and whose backbone and cache are at hand."""

    spec: RetrainJobSpec
    images: Store
    catalog: Catalog
    backbone: Backbone
    cache: Cache


class Want(NamedTuple):
    """One image (index in the catalog) and the parts of it to compute."""

    row: int
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Done:
    """What came of one Want.

    Attributes:
        row: index in the catalog.
        found: identity and bottleneck of each part.
        rejected: why the image cannot be used; None if it can.
        copies: the reason lies in the content, so that it holds for every copy of the image.
        nearly_black: see `pixels.is_nearly_black`.
        identity: 16 bytes, if the image was replaced since it was listed; else None.
    """

    row: int
    found: list[tuple[bytes, npt.NDArray[np.float32]]] = field(default_factory=list)
    rejected: str | None = None
    copies: bool = False
    nearly_black: bool = False
    identity: bytes | None = None


def computed(job: OpenJob, wants: Sequence[Want], stop: Stop) -> Iterator[Done]:
    """Do all of `wants`, in no particular order, on a thread per core and the GPU if there is one.

    Ends early once `stop` was asked; what is under way is still given. An error that is not one
    image's own (the store does not answer) is raised after what was finished before it.
    """
    if not wants:
        return
    threads = min(cores(), len(wants))
    halt = threading.Event()
    source = _Source(job.images, job.catalog, wants, threads)

    def decoded() -> Iterator[_Decoded]:
        while not halt.is_set() and not stop.asked and (item := source.next()) is not None:
            yield _decode(job, *item)

    def on_a_core() -> Iterator[Done]:
        engine = job.backbone.start()
        for one in decoded():
            yield from _run(engine, [one])

    def on_the_gpu() -> Iterator[Done]:
        engine = job.backbone.start()
        batch = job.backbone.batch
        most = max(len(want.parts) for want in wants)
        ahead = _on_threads(threads, decoded, halt, stop, together=1, queued=max(1, batch // most))
        for some in _batches(ahead, batch):
            yield from _run(engine, some)

    try:
        if job.backbone.batch == 1:
            yield from _on_threads(threads, on_a_core, halt, stop)
        else:
            yield from _on_threads(1, on_the_gpu, halt, stop)
    finally:
        halt.set()
        source.close()


def _on_threads(
    threads: int,
    work: Callable[[], Iterator[T]],
    halt: threading.Event,
    stop: Stop,
    *,
    together: int = _TOGETHER,
    queued: int = _QUEUED,
) -> Iterator[T]:
    """What `work` gives on each of the threads, in no particular order.

    The first error sets `halt`, for `work` to look at, and is raised once all threads have ended.
    After a stop, those that wait for a store are left behind.

    Args:
        together: results handed over at a time.
        queued: times `together` that are kept until they are taken.
    """
    results: queue.Queue[list[T] | BaseException | None] = queue.Queue(queued)

    def go() -> None:
        done: list[T] = []
        due = time.monotonic() + _TOGETHER_S
        try:
            for item in work():
                done.append(item)
                if len(done) == together or time.monotonic() > due:
                    results.put(done)
                    done, due = [], time.monotonic() + _TOGETHER_S
        except BaseException as error:  # raised again where the results are taken
            results.put(error)
        finally:
            results.put(done)
            results.put(None)

    for i in range(threads):
        threading.Thread(target=go, name=f"{work.__name__}-{i}", daemon=True).start()
    failure: BaseException | None = None
    running = threads
    while running:
        try:
            result = results.get(timeout=_STOPPED_S)
        except queue.Empty:
            if stop.asked:
                break
            continue
        if result is None:
            running -= 1
        elif isinstance(result, BaseException):
            failure = failure or result
            halt.set()
        else:
            yield from result
    if failure is not None:
        raise failure


def _batches(decoded: "Iterator[_Decoded]", most: int) -> "Iterator[list[_Decoded]]":
    """As many images together as have at most `most` parts; one with more is alone."""
    some: list[_Decoded] = []
    parts = 0
    failure: RetrainerError | None = None
    try:
        for one in decoded:
            if some and parts + len(one.pixels) > most:
                yield some
                some, parts = [], 0
            some.append(one)
            parts += len(one.pixels)
    except RetrainerError as error:  # of the store: what came before it is still computed
        failure = error
    if some:
        yield some
    if failure is not None:
        raise failure


class _Source:
    """Gives each worker the next image's bytes; from a network, several are fetched ahead."""

    def __init__(self, store: Store, catalog: Catalog, wants: Sequence[Want], threads: int) -> None:
        self._store, self._catalog = store, catalog
        self._left = iter(wants)
        self._lock = threading.Lock()
        ahead = store.parallel > 1
        self._pool = ThreadPoolExecutor(store.parallel, "fetch") if ahead else None
        self._depth = store.parallel + threads
        self._ahead: deque[tuple[Want, Future[Fetched]]] = deque()

    def next(self) -> tuple[Want, Fetched] | None:
        if self._pool is None:
            with self._lock:
                want = next(self._left, None)
            return None if want is None else (want, self._fetch(want))
        with self._lock:
            while len(self._ahead) < self._depth and (want := next(self._left, None)) is not None:
                self._ahead.append((want, self._pool.submit(self._fetch, want)))
            if not self._ahead:
                return None
            want, future = self._ahead.popleft()
        return want, future.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, want: Want) -> Fetched:
        return fetch(self._store, self._catalog, want.row)


class _Decoded(NamedTuple):
    """An image's parts before they are computed: the identity and the pixels of each."""

    done: Done
    names: list[bytes]
    pixels: list[images.Pixels]


def _decode(job: OpenJob, want: Want, fetched: Fetched) -> _Decoded:
    done = Done(want.row, identity=fetched.identity, rejected=fetched.rejected)
    if fetched.rejected is not None:
        return _Decoded(done, [], [])
    distortions = job.spec.distortions
    identity = fetched.identity or job.catalog.identities[want.row].tobytes()
    size = job.backbone.architecture.size
    names: list[bytes] = []
    pixels: list[images.Pixels] = []
    try:
        if WHOLE in want.parts:
            names.append(identity)
            pixels.append(images.pixels(fetched.body, size))
        views = [part for part in want.parts if part != WHOLE]
        if views and distortions is not None:
            square = images.pixels(fetched.body, source_size(size, distortions))
            for view in views:
                names.append(view_identity(identity, distortions, view))
                pixels.append(distorted(square, size, identity, distortions, view))
    except images.RejectedError as error:
        return _Decoded(replace(done, rejected=str(error), copies=True), [], [])
    done = replace(done, nearly_black=images.is_nearly_black(fetched.body))
    return _Decoded(done, names, pixels)


def _run(engine: Engine, some: Sequence[_Decoded]) -> list[Done]:
    bottlenecks = iter(engine([pixels for one in some for pixels in one.pixels]))
    return [
        replace(one.done, found=[(name, next(bottlenecks)) for name in one.names]) for one in some
    ]
