"""Bottlenecks already computed: segments in the store, written once and never changed.

A segment is an ordinary Parquet file (columns `image` and `bottleneck`) for everyone else. Retrainer
itself looks rows up in the index beside it, which says where each row's floats lie in the file and
their checksum: so a few rows out of a million cost a few reads, and a damaged row is noticed.
"""

import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrainer.api.layout import INDEX_SUFFIX, SEGMENT_SUFFIX, SEGMENTS
from retrainer.errors import NotFound
from retrainer_trainer.arrays import Floats, Longs
from retrainer_trainer.cache.segments import (
    RECORD,
    DamagedError,
    check_size,
    index_bytes,
    index_records,
    pack_index,
    pack_segment,
    unpack_index,
)
from retrainer_trainer.dataset.identity import IDENTITY_BYTES
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import Entry, Store, UnreadableError


@dataclass(frozen=True)
class _Index:
    path: str
    records: npt.NDArray[np.void]


class Cache:
    """The bottlenecks of one fingerprint: the union of its readable segments.

    Not for several threads at a time, but for `find`.

    Attributes:
        store: of `spec.cache`.

    Args:
        store: of `spec.cache`.
        fingerprint: of the backbone.
        width: floats per bottleneck.
        warn: called with a sentence on each damaged segment.
    """

    def __init__(
        self, store: Store, fingerprint: str, width: int, warn: Callable[[str], None]
    ) -> None:
        self.store = store
        self._folder = f"{fingerprint}/{SEGMENTS}"
        self._width = width
        self._warn = warn
        self._paths: list[str] = []
        self._bad: set[str] = set()
        self._segment = np.empty(0, np.int32)
        self._records = np.empty(0, RECORD)
        self._keys = np.empty(0, np.uint64)
        self._order = np.empty(0, np.int64)
        self._new: list[tuple[bytes, Floats]] = []

    def __len__(self) -> int:
        return len(self._records)

    # --- reading ---
    def refresh(self) -> None:
        """Read the indexes of all segments that are there now."""
        listed = {e.path: e for e in self.store.list(self._folder)}
        segments = [
            e
            for p, e in sorted(listed.items())
            if p.endswith(SEGMENT_SUFFIX) and p not in self._bad
        ]
        with ThreadPoolExecutor(max(cores(), self.store.parallel)) as pool:
            read = list(pool.map(lambda e: self._index(e, listed), segments))
        indexes = [index for index in read if index is not None]
        self._paths = [index.path for index in indexes]
        lengths = [len(index.records) for index in indexes]
        self._segment = np.repeat(np.arange(len(indexes), dtype=np.int32), lengths)
        self._records = np.concatenate([np.empty(0, RECORD), *(i.records for i in indexes)])
        keys = _keys(np.ascontiguousarray(self._records["image"]))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, identities: npt.NDArray[np.uint8]) -> Longs:
        """(M,) where the bottleneck of each identity (M, 16) is, for `read`; -1 where it is not."""
        places = np.full(len(identities), -1, np.int64)
        if not len(self._keys) or not len(identities):
            return places
        wanted = np.ascontiguousarray(identities).view("V16")[:, 0]
        place = np.searchsorted(self._keys, _keys(wanted))
        place[place == len(self._keys)] = 0
        candidate = self._order[place]
        # Of two identities with equal first 8 bytes one is not found, and is merely computed again.
        hit = self._records["image"][candidate] == wanted
        places[hit] = candidate[hit]
        return places

    def read(self, places: Longs, out: Floats, rows: Longs) -> Longs:
        """Copy the bottleneck at `places[i]` into `out[rows[i]]`.

        Returns:
            Those of `rows` that could not be read; their segments count as absent from now on.
        """
        order = np.lexsort((self._records["offset"][places], self._segment[places]))
        places, rows = places[order], rows[order]
        segments = self._segment[places]
        edges = np.flatnonzero(np.diff(segments)) + 1
        parts = [p for p in np.split(np.arange(len(places)), edges) if len(p)]

        def fetch(part: Longs) -> Longs:
            try:
                return self._read_segment(places[part], out, rows[part])
            except (NotFound, UnreadableError, DamagedError):
                return rows[part]

        with ThreadPoolExecutor(max(cores(), self.store.parallel)) as pool:
            failed = list(pool.map(fetch, parts))
        bad = [int(segments[p[0]]) for p, f in zip(parts, failed, strict=True) if len(f)]
        if bad:
            self._forget(bad)
        return np.concatenate([np.empty(0, np.int64), *failed])

    def _read_segment(self, places: Longs, out: Floats, rows: Longs) -> Longs:
        """Read rows of one segment, ascending in the file; returns those that are damaged."""
        records = self._records[places]
        size = self._width * 4
        starts = records["offset"].astype(np.int64)
        edges = np.flatnonzero(np.diff(starts) != size) + 1
        firsts = np.concatenate([[0], edges])
        lasts = np.concatenate([edges, [len(starts)]])
        path = self._paths[int(self._segment[places[0]])]
        bodies = self.store.get_ranges(
            path, starts[firsts].tolist(), (starts[lasts - 1] + size).tolist()
        )
        failed = []
        for first, last, body in zip(firsts.tolist(), lasts.tolist(), bodies, strict=True):
            if len(body) != (last - first) * size:
                raise DamagedError(path)
            view = memoryview(body)
            for k, crc in enumerate(records["crc"][first:last].tolist()):
                if zlib.crc32(view[k * size : (k + 1) * size]) != crc:
                    failed.append(first + k)
            values = np.frombuffer(body, np.float32).reshape(-1, self._width)
            out[rows[first:last]] = values
        return rows[failed]

    def _forget(self, segments: list[int]) -> None:
        for number in segments:
            path = self._paths[number]
            self._bad.add(path)
            self._warn(f"{path} in the cache is damaged; its images are computed again.")
        gone = np.isin(self._segment[self._order], segments)
        self._order, self._keys = self._order[~gone], self._keys[~gone]

    def _index(self, segment: Entry, listed: dict[str, Entry]) -> _Index | None:
        path = segment.path.removesuffix(SEGMENT_SUFFIX) + INDEX_SUFFIX
        try:
            check_size(segment.size)
            if path in listed and listed[path].size <= index_bytes(self._width, segment.size):
                try:
                    return _Index(
                        segment.path, unpack_index(self.store.get(path), self._width, segment.size)
                    )
                except DamagedError:
                    pass
            # A run ended between the two writes, or the index is damaged: make it from the segment.
            body = self.store.get(segment.path)
            records = index_records(body, self._width, segment.path)
            self.store.put(path, pack_index(records, self._width, len(body)))
        except (NotFound, UnreadableError):
            return None  # deleted since it was listed
        except DamagedError:
            self._bad.add(segment.path)
            self._warn(f"{segment.path} in the cache is damaged; its images are computed again.")
            return None
        return _Index(segment.path, records)

    # --- writing ---
    def add(self, identity: bytes, bottleneck: Floats) -> None:
        """Keep one bottleneck for the next segment."""
        self._new.append((identity, bottleneck))

    @property
    def pending(self) -> int:
        """Bottlenecks added since the last `flush`."""
        return len(self._new)

    def flush(self) -> None:
        """Write what was added as one segment; what was not written stays pending."""
        if not self._new:
            return
        new = self._new
        identities = np.frombuffer(b"".join(i for i, _ in new), np.uint8).reshape(
            -1, IDENTITY_BYTES
        )
        body = pack_segment(
            identities, np.stack([b for _, b in new]).astype(np.float32, copy=False)
        )
        name = f"{self._folder}/{hashlib.sha256(body).hexdigest()}"
        records = index_records(body, self._width, name)
        # The segment first: a reader that sees it alone makes the index from it.
        self.store.put(name + SEGMENT_SUFFIX, body)
        self.store.put(name + INDEX_SUFFIX, pack_index(records, self._width, len(body)))
        # Equal bottlenecks in equal order make an equal segment, which replaces the damaged one; with
        # one core, or of a single image, the order is always equal.
        self._bad.discard(name + SEGMENT_SUFFIX)
        self._new = []


def _keys(images: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Read the first 8 bytes of each identity as a number."""
    halves = images.view("<u8").reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0])
