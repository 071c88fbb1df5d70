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
from retrainer_trainer.backbone.backbone import Engine
from retrainer_trainer.backbone.opening import OpenedBackbone
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.dataset.catalog import Catalog
from retrainer_trainer.dataset.distort import distorted, source_size, view_identity
from retrainer_trainer.dataset.reading import Fetched, fetch
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.store import Store

T = TypeVar("T")

WHOLE = -1
"""The part of an image that is the image as it is; 0 and more are numbers of distorted views."""

# Results are handed to the main thread several at a time: each time it wakes, the threads that compute
# may have to wait for the interpreter's lock.
_RESULTS_PER_HANDOVER = 16
_HANDOVER_S = 0.25
_QUEUED = 16
# After a stop was asked, threads that have handed over nothing for so long wait for a store and are left
# behind: the segment must be written within the pod's grace period (see s3.STOPPED_PATIENCE_S).
_STOPPED_S = 5.0


@dataclass(frozen=True)
class OpenJob:
    """A job whose images are listed and whose backbone and cache are at hand."""

    spec: RetrainJobSpec
    images: Store
    catalog: Catalog
    backbone: OpenedBackbone
    cache: Cache


class Request(NamedTuple):
    """An image (its row in the catalog) and the parts of it to compute."""

    row: int
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """What came of one Request.

    Attributes:
        row: of the image in the catalog.
        bottlenecks: identity and bottleneck of each part.
        rejected: why the image cannot be used; None if it can.
        copies: whether the reason lies in the content, and so holds for every copy of the image.
        nearly_black: whether `pixels.is_nearly_black` says so.
        identity: 16 bytes, if the image was replaced since it was listed; else None.
    """

    row: int
    bottlenecks: list[tuple[bytes, npt.NDArray[np.float32]]] = field(default_factory=list)
    rejected: str | None = None
    copies: bool = False
    nearly_black: bool = False
    identity: bytes | None = None


def compute(job: OpenJob, requests: Sequence[Request], stop: Stop) -> Iterator[Result]:
    """Answer all requests, in no particular order, on a thread per core and the GPU if there is one.

    Ends early once `stop` was asked; the results of what is under way are still given. An error that is
    not one image's own (the store does not answer) is raised after the results that came before it.
    """
    if not requests:
        return
    threads = min(cores(), len(requests))
    halt = threading.Event()
    source = _Source(job.images, job.catalog, requests, threads)

    def decoded() -> Iterator[_Decoded]:
        while not halt.is_set() and not stop.asked and (item := source.next()) is not None:
            yield _decode(job, *item)

    def on_a_core() -> Iterator[Result]:
        engine = job.backbone.start()
        for image in decoded():
            yield from _run(engine, [image])

    def on_the_gpu() -> Iterator[Result]:
        engine = job.backbone.start()
        size = job.backbone.batch
        most = max(len(request.parts) for request in requests)
        ahead = _on_threads(
            threads, decoded, halt, stop, per_handover=1, queued=max(1, size // most)
        )
        for batch in _batches(ahead, size):
            yield from _run(engine, batch)

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
    per_handover: int = _RESULTS_PER_HANDOVER,
    queued: int = _QUEUED,
) -> Iterator[T]:
    """Give what `work` gives on each of the threads, in no particular order.

    The first error sets `halt`, which `work` looks at, and is raised once all threads have ended.
    After a stop, those that wait for a store are left behind.

    Args:
        per_handover: how many results a thread hands over at a time.
        queued: how many handovers may wait to be taken; a thread with one more waits.
    """
    results: queue.Queue[list[T] | BaseException | None] = queue.Queue(queued)

    def go() -> None:
        ready: list[T] = []
        due = time.monotonic() + _HANDOVER_S
        try:
            for item in work():
                ready.append(item)
                if len(ready) == per_handover or time.monotonic() > due:
                    results.put(ready)
                    ready, due = [], time.monotonic() + _HANDOVER_S
        except BaseException as error:  # raised again where the results are taken
            results.put(error)
        finally:
            results.put(ready)
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
    """Gather images into batches of at most `most` parts; an image with more is a batch of its own."""
    batch: list[_Decoded] = []
    parts = 0
    failure: RetrainerError | None = None
    try:
        for image in decoded:
            if batch and parts + len(image.pixels) > most:
                yield batch
                batch, parts = [], 0
            batch.append(image)
            parts += len(image.pixels)
    except RetrainerError as error:  # of the store: what came before it is still computed
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure


class _Source:
    """Gives each worker the next image's bytes; from a network, several are fetched ahead."""

    def __init__(
        self, store: Store, catalog: Catalog, requests: Sequence[Request], threads: int
    ) -> None:
        self._store, self._catalog = store, catalog
        self._left = iter(requests)
        self._lock = threading.Lock()
        ahead = store.parallel > 1
        self._pool = ThreadPoolExecutor(store.parallel, "fetch") if ahead else None
        self._depth = store.parallel + threads
        self._ahead: deque[tuple[Request, Future[Fetched]]] = deque()

    def next(self) -> tuple[Request, Fetched] | None:
        if self._pool is None:
            with self._lock:
                request = next(self._left, None)
            return None if request is None else (request, self._fetch(request))
        with self._lock:
            while (
                len(self._ahead) < self._depth and (request := next(self._left, None)) is not None
            ):
                self._ahead.append((request, self._pool.submit(self._fetch, request)))
            if not self._ahead:
                return None
            request, future = self._ahead.popleft()
        return request, future.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, request: Request) -> Fetched:
        return fetch(self._store, self._catalog, request.row)


class _Decoded(NamedTuple):
    """An image before its bottlenecks are computed: the identity and the pixels of each part."""

    result: Result
    names: list[bytes]
    pixels: list[images.Pixels]


def _decode(job: OpenJob, request: Request, fetched: Fetched) -> _Decoded:
    result = Result(request.row, identity=fetched.identity, rejected=fetched.rejected)
    if fetched.rejected is not None:
        return _Decoded(result, [], [])
    distortions = job.spec.distortions
    identity = fetched.identity or job.catalog.identities[request.row].tobytes()
    backbone = job.backbone
    names: list[bytes] = []
    pixels: list[images.Pixels] = []
    try:
        if WHOLE in request.parts:
            names.append(identity)
            pixels.append(backbone.pixels(fetched.body, backbone.size))
        views = [part for part in request.parts if part != WHOLE]
        if views and distortions is not None:
            square = backbone.pixels(fetched.body, source_size(backbone.size, distortions))
            for view in views:
                names.append(view_identity(identity, distortions, view))
                pixels.append(distorted(square, backbone.size, identity, distortions, view))
    except images.RejectedError as error:
        return _Decoded(replace(result, rejected=str(error), copies=True), [], [])
    result = replace(result, nearly_black=images.is_nearly_black(fetched.body))
    return _Decoded(result, names, pixels)


def _run(engine: Engine, batch: Sequence[_Decoded]) -> list[Result]:
    bottlenecks = iter(engine([pixels for image in batch for pixels in image.pixels]))
    return [
        replace(image.result, bottlenecks=[(name, next(bottlenecks)) for name in image.names])
        for image in batch
    ]
