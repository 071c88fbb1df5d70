"""What `tests/bench/bottlenecks.py` measures, each in a process of its own.

    python -m tests.support.trainer_bench fill|ready|wanted|catalogued|train ARGUMENTS

Each prints one line of JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # noqa: F401 - imports are not measured, here as in the rivals
from ai_edge_litert import interpreter  # noqa: F401

from retrainer.api import RetrainJobSpec, Task
from retrainer_trainer import bottlenecks
from retrainer_trainer.backbone.compute import OpenJob
from retrainer_trainer.backbone.network import open_listed
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.dataset.catalog import list_catalog
from retrainer_trainer.dataset.identity import identity
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.local import LocalStore
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Entry

WIDTH = 512


class _Quiet(Reporter):
    def __init__(self, spec: RetrainJobSpec, kind: str = "bottlenecks") -> None:
        task = Task.model_validate({"task": kind, "name": "bench", "uid": "0" * 12, "spec": spec})
        super().__init__(task, port=0, events=-1)

    def log(self, text: str) -> None:
        pass

    warn = log


def fill(fields: str) -> dict[str, Any]:
    """Compute everything once; return the seconds of computing and writing, and of listing before it."""
    spec = RetrainJobSpec.model_validate_json(fields)
    reporter = _Quiet(spec)
    begun = time.perf_counter()
    job = bottlenecks.open_job(spec, reporter, Stop())
    opened = time.perf_counter()
    filled = bottlenecks.compute_missing(job, reporter, Stop())
    ended = time.perf_counter()
    assert not filled.rejected
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images": filled.computed_count,
        "rate": filled.computed_count / (ended - opened),
        "listing": opened - begun,
        "cpu": used.ru_utime + used.ru_stime,
    }


def ready(fields: str) -> dict[str, Any]:
    """Load the matrix from nothing but the spec, when everything is cached."""
    spec = RetrainJobSpec.model_validate_json(fields)
    reporter = _Quiet(spec)
    begun = time.perf_counter()
    job = bottlenecks.open_job(spec, reporter, Stop())
    filled = bottlenecks.compute_missing(job, reporter, Stop())
    loaded, missing = bottlenecks.load(job, filled)
    seconds = time.perf_counter() - begun
    assert missing == 0
    return {"computed": filled.computed_count, "images": len(loaded.catalog), "seconds": seconds}


# --- a million ---
def listed_identity(number: int) -> tuple[str, int, bytes]:
    """ETag, size and identity of a made-up image."""
    etag = f'"{number:032x}"'
    return etag, 50_000 + number % 1000, identity(etag, 50_000 + number % 1000)


def make_million(folder: str, count: str) -> dict[str, Any]:
    """Write a cache of so many made-up bottlenecks, in segments as a run writes them."""
    generator = np.random.default_rng(0)
    cache = Cache(LocalStore(Path(folder), folder, "spec.cache"), "million", WIDTH, print)
    rows = np.empty((0, WIDTH), np.float32)
    for number in range(int(count)):
        if number % bottlenecks.FLUSH_IMAGES == 0:
            cache.flush()
            rows = generator.random((bottlenecks.FLUSH_IMAGES, WIDTH), dtype=np.float32)
        cache.add(listed_identity(number)[2], rows[number % bottlenecks.FLUSH_IMAGES])
    cache.flush()
    return {"written": int(count)}


def wanted(folder: str, count: str, how: str) -> dict[str, Any]:
    """Find and read 4,000 of them: scattered over all segments, or computed together."""
    every = int(count) // 4000 if how == "scattered" else 1
    names = b"".join(listed_identity(i * every)[2] for i in range(4000))
    identities = np.frombuffer(names, np.uint8).reshape(-1, 16)
    begun = time.perf_counter()
    cache = Cache(LocalStore(Path(folder), folder, "spec.cache"), "million", WIDTH, print)
    cache.refresh()
    out = np.zeros((4000, WIDTH), np.float32)
    failed = cache.read(cache.find(identities), out, np.arange(4000))
    seconds = time.perf_counter() - begun
    assert not len(failed)
    return {"seconds": seconds}


class _Listing(LocalStore):
    """A store that lists made-up images."""

    def __init__(self, count: int) -> None:
        super().__init__(Path("/nonexistent"), "made-up", "spec.images")
        self._count = count

    def list(self, prefix: str = "") -> Iterator[Entry]:
        for number in range(self._count):
            etag, size, _ = listed_identity(number)
            yield Entry(f"label{number % 100:03}/photo-{number:08}-of-a-flower.jpg", size, etag)


def catalogued(fields: str, folder: str, count: str, kind: str) -> dict[str, Any]:
    """Measure the peak memory for so many images: in bottlenecks, or in train up to its matrix."""
    spec = RetrainJobSpec.model_validate_json(fields)
    reporter = _Quiet(spec)
    images = _Listing(int(count))
    begun = time.perf_counter()
    catalog = list_catalog(images, spec, reporter.log)
    listed = time.perf_counter()
    store = open_store(spec.cache_url, spec.storage, "spec.cache")
    backbone = open_listed(spec, store, reporter.log, reporter.warn)
    cache = Cache(LocalStore(Path(folder), folder, "spec.cache"), "million", WIDTH, print)
    job = OpenJob(spec, images, catalog, backbone, cache)
    filled = bottlenecks.compute_missing(job, reporter, Stop())
    matrix = 0
    if kind == "train":
        loaded, missing = bottlenecks.load(job, filled)
        assert missing == 0
        matrix = loaded.matrix.nbytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "peak": peak,
        "matrix": matrix,
        "listing": listed - begun,
        "seconds": time.perf_counter() - begun,
        "computed": filled.computed_count,
    }


if __name__ == "__main__":
    what = {f.__name__: f for f in (fill, ready, make_million, wanted, catalogued)}
    print(json.dumps(what[sys.argv[1]](*sys.argv[2:])))
