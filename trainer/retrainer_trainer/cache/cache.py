"""Bottlenecks already computed: segments in the store, written once and never changed.

A segment is an ordinary Parquet file (columns `image` and `bottleneck`) for everyone else. Retrainer
itself finds rows by the index beside it, which says where each row's floats lie in the file and their
checksum: so a few rows out of a million cost a few reads, and a damaged row is noticed.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api.layout import INDEX_SUFFIX, SEGMENT_SUFFIX, SEGMENTS
from retrainer.errors import NotFound
from retrainer_trainer.dataset.identity import IDENTITY_BYTES
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import Entry, Store, UnreadableError

ROW_GROUP = 1000
"""Rows per row group: at 512 floats, 2 MB, a good size for one read of other tools."""

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]

_MAGIC = b"RTINDEX1"
_HEADER = struct.Struct("<8sIIQ")  # magic, floats per row, rows, bytes of the segment
_RECORD = np.dtype([("image", "V16"), ("offset", "<u8"), ("crc", "<u4")])
_CHECK_BYTES = 16


class DamagedError(ValueError):
    """A segment or an index that is not as it was written."""


@dataclass(frozen=True)
class _Index:
    path: str
    records: npt.NDArray[np.void]


class Cache:
    """The bottlenecks of one fingerprint: the union of its readable segments.

    Not for several threads at a time, but for `find`.

    Args:
        store: of `spec.cache`.
        fingerprint: of the backbone.
        width: floats per bottleneck.
        warn: told of damaged segments.
    """

    def __init__(
        self, store: Store, fingerprint: str, width: int, warn: Callable[[str], None]
    ) -> None:
        self._store = store
        self._folder = f"{fingerprint}/{SEGMENTS}"
        self._width = width
        self._warn = warn
        self._paths: list[str] = []
        self._bad: set[str] = set()
        self._segment = np.empty(0, np.int32)
        self._records = np.empty(0, _RECORD)
        self._keys = np.empty(0, np.uint64)
        self._order = np.empty(0, np.int64)
        self._new: list[tuple[bytes, Floats]] = []

    def __len__(self) -> int:
        return len(self._records)

    # --- reading ---
    def refresh(self) -> None:
        """Read the indexes of all segments that are there now."""
        listed = {e.path: e for e in self._store.list(self._folder)}
        segments = [
            e
            for p, e in sorted(listed.items())
            if p.endswith(SEGMENT_SUFFIX) and p not in self._bad
        ]
        with ThreadPoolExecutor(max(cores(), self._store.parallel)) as pool:
            found = list(pool.map(lambda e: self._index(e, listed), segments))
        indexes = [index for index in found if index is not None]
        self._paths = [index.path for index in indexes]
        lengths = [len(index.records) for index in indexes]
        self._segment = np.repeat(np.arange(len(indexes), dtype=np.int32), lengths)
        self._records = np.concatenate([np.empty(0, _RECORD), *(i.records for i in indexes)])
        keys = _keys(np.ascontiguousarray(self._records["image"]))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, identities: npt.NDArray[np.uint8]) -> Longs:
        """(M,) where the bottleneck of each identity (M, 16) is, for `read`; -1 where it is not."""
        found = np.full(len(identities), -1, np.int64)
        if not len(self._keys) or not len(identities):
            return found
        wanted = np.ascontiguousarray(identities).view("V16")[:, 0]
        place = np.searchsorted(self._keys, _keys(wanted))
        place[place == len(self._keys)] = 0
        candidate = self._order[place]
        # Two identities alike in their first 8 bytes: not found, so it is merely computed again.
        hit = self._records["image"][candidate] == wanted
        found[hit] = candidate[hit]
        return found

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

        with ThreadPoolExecutor(max(cores(), self._store.parallel)) as pool:
            failed = list(pool.map(fetch, parts))
        bad = [int(segments[p[0]]) for p, f in zip(parts, failed, strict=True) if len(f)]
        if bad:
            self._forget(bad)
        return np.concatenate([np.empty(0, np.int64), *failed])

    def _read_segment(self, places: Longs, out: Floats, rows: Longs) -> Longs:
        """Rows of one segment, ascending in the file; returns those that are damaged."""
        records = self._records[places]
        size = self._width * 4
        starts = records["offset"].astype(np.int64)
        edges = np.flatnonzero(np.diff(starts) != size) + 1
        firsts = np.concatenate([[0], edges])
        lasts = np.concatenate([edges, [len(starts)]])
        path = self._paths[int(self._segment[places[0]])]
        bodies = self._store.get_ranges(
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
            if path in listed:
                try:
                    return _Index(
                        segment.path, unpack_index(self._store.get(path), self._width, segment.size)
                    )
                except DamagedError:
                    pass
            # A run that ended between the two writes, or a damaged index: the segment has it all.
            body = self._store.get(segment.path)
            records = index_records(body, self._width, segment.path)
            self._store.put(path, pack_index(records, self._width, len(body)))
        except (NotFound, UnreadableError):
            return None  # removed by someone since it was listed
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
        self._store.put(name + SEGMENT_SUFFIX, body)
        self._store.put(name + INDEX_SUFFIX, pack_index(records, self._width, len(body)))
        self._new = []


def _keys(images: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each identity as a number."""
    words = images.view("<u8").reshape(-1, 2)
    return np.ascontiguousarray(words[:, 0])


# --- the two files of a segment ---
def pack_segment(identities: npt.NDArray[np.uint8], bottlenecks: Floats) -> bytes:
    """A Parquet file of identities (N, 16) and bottlenecks (N, width)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, width = bottlenecks.shape
    # From buffers: pyarrow.array() would import pandas, which takes a second.
    image_type, float_type = pa.binary(IDENTITY_BYTES), pa.float32()
    image = pa.Array.from_buffers(image_type, count, [None, pa.py_buffer(identities.tobytes())])
    flat = pa.Array.from_buffers(
        float_type, count * width, [None, pa.py_buffer(bottlenecks.tobytes())]
    )
    rows = pa.FixedSizeListArray.from_arrays(flat, width)
    table = pa.Table.from_arrays([image, rows], names=["image", "bottleneck"])
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP,
        use_dictionary=False,
        compression="none",
        write_statistics=False,
        write_page_checksum=True,
        # One page per row group and column, so that its floats lie in one piece.
        data_page_size=1 << 30,
        write_batch_size=1 << 30,
        max_rows_per_page=1 << 30,
    )
    return bytes(sink.getvalue())


def index_records(body: bytes, width: int, path: str) -> npt.NDArray[np.void]:
    """Identity, place and checksum of each row of the segment at `path`, named by its SHA-256.

    Raises:
        DamagedError: not a segment, or its floats do not lie in one piece.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if hashlib.sha256(body).hexdigest() not in path:
        raise DamagedError(path)
    try:
        # In this thread alone: one of pyarrow's own may take a program down as it ends.
        source = pa.BufferReader(body)
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            table: Any = file.read(use_threads=False)
            groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
        images = table.column("image").combine_chunks()
        lists = table.column("bottleneck").combine_chunks()
        # By their buffers: numpy's asarray() of an Arrow array imports pandas.
        count = len(images)
        flat = np.frombuffer(lists.values.buffers()[1], np.float32, count * width)
        raw = np.frombuffer(images.buffers()[1], np.uint8, count * IDENTITY_BYTES)
        values, identities = flat.reshape(-1, width), raw.reshape(-1, IDENTITY_BYTES)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedError(str(error)) from error
    records = np.empty(len(values), _RECORD)
    records["image"] = np.ascontiguousarray(identities).view("V16")[:, 0]
    row = 0
    for group in groups:
        column = group.column(1)
        size = group.num_rows * width * 4
        # Plain and uncompressed, the values are the end of the only page (parquet-format, Data Pages).
        start = column.data_page_offset + column.total_compressed_size - size
        slab = body[start : start + size]
        if slab != values[row : row + group.num_rows].tobytes():
            raise DamagedError("its floats do not lie in one piece")
        for k in range(group.num_rows):
            crc = zlib.crc32(slab[k * width * 4 : (k + 1) * width * 4])
            records[row + k] = (records["image"][row + k], start + k * width * 4, crc)
        row += group.num_rows
    return records


def pack_index(records: npt.NDArray[np.void], width: int, segment_bytes: int) -> bytes:
    """The file beside a segment: header, records, and a digest of both."""
    body = _HEADER.pack(_MAGIC, width, len(records), segment_bytes) + records.tobytes()
    return body + hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()


def unpack_index(body: bytes, width: int, segment_bytes: int) -> npt.NDArray[np.void]:
    """The records of an index.

    Raises:
        DamagedError: it is not whole, or not of this segment.
    """
    content, check = body[:-_CHECK_BYTES], body[-_CHECK_BYTES:]
    if hashlib.blake2b(content, digest_size=_CHECK_BYTES).digest() != check:
        raise DamagedError("the index is not whole")
    magic, floats, rows, size = _HEADER.unpack_from(content)
    if magic != _MAGIC or floats != width or size != segment_bytes:
        raise DamagedError("the index is of another segment")
    return np.frombuffer(content, _RECORD, rows, _HEADER.size)
