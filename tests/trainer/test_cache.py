import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrainer.api import Storage
from retrainer.errors import StorageError
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.cache.segments import DamagedError, pack_index, pack_segment, unpack_index
from retrainer_trainer.store.local import LocalStore
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Store

WIDTH = 32
Array = np.ndarray[Any, Any]


def open_cache(
    folder: Path, warnings: list[str] | None = None, store: Store | None = None
) -> Cache:
    recorder = warnings if warnings is not None else []
    return Cache(store or open_store(str(folder), Storage()), "fp", WIDTH, recorder.append)


def some(count: int, seed: int = 0) -> tuple[Array, Array]:
    """Identities (count, 16) and bottlenecks (count, WIDTH)."""
    random = np.random.default_rng(seed)
    return (
        random.integers(0, 256, (count, 16), dtype=np.uint8),
        random.random((count, WIDTH), dtype=np.float32),
    )


def write(folder: Path, identities: Array, rows: Array) -> None:
    cache = open_cache(folder)
    for identity, row in zip(identities, rows, strict=True):
        cache.add(identity.tobytes(), row)
    cache.flush()
    assert cache.pending == 0


def read(cache: Cache, identities: Array) -> tuple[Array, list[int]]:
    """The bottlenecks, zeros where absent; and the rows that are absent or damaged."""
    cache.refresh()
    places = cache.find(identities)
    present = np.flatnonzero(places >= 0)
    out = np.zeros((len(identities), WIDTH), np.float32)
    failed = cache.read(places[present], out, present)
    return out, sorted([*np.flatnonzero(places < 0).tolist(), *failed.tolist()])


def segment(folder: Path, suffix: str = ".parquet") -> Path:
    (path,) = (folder / "fp/segments").glob("*" + suffix)
    return path


def test_what_was_added_is_read_back_to_the_bit(tmp_path: Path) -> None:
    identities, rows = some(2500)
    write(tmp_path, identities, rows)
    order = np.random.default_rng(1).permutation(2500)
    out, absent = read(open_cache(tmp_path), identities[order])
    assert not absent
    assert (out == rows[order]).all()


def test_the_cache_is_the_union_of_its_segments(tmp_path: Path) -> None:
    identities, rows = some(900)
    for low in (0, 300, 600):
        write(tmp_path, identities[low : low + 300], rows[low : low + 300])
    cache = open_cache(tmp_path)
    out, absent = read(cache, identities)
    assert not absent
    assert (out == rows).all()
    assert len(cache) == 900


def test_an_unknown_image_is_not_found(tmp_path: Path) -> None:
    identities, rows = some(100)
    write(tmp_path, identities, rows)
    other = identities.copy()
    other[:, 15] ^= 1  # alike in the first 8 bytes, by which they are searched
    assert read(open_cache(tmp_path), other)[1] == list(range(100))


def test_an_empty_cache_finds_nothing(tmp_path: Path) -> None:
    assert read(open_cache(tmp_path), some(3)[0])[1] == [0, 1, 2]


def test_a_segment_is_a_parquet_file_for_everyone(tmp_path: Path) -> None:
    identities, rows = some(1234)
    write(tmp_path, identities, rows)
    file = pq.ParquetFile(segment(tmp_path))
    assert file.metadata.num_row_groups == 2
    table = file.read()
    assert table.column_names == ["image", "bottleneck"]
    assert table.column("image")[7].as_py() == identities[7].tobytes()
    assert np.allclose(table.column("bottleneck")[7].as_py(), rows[7])


class Counting(LocalStore):
    """A local store that counts the bytes it gives."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, str(root), "spec.cache")
        self.bytes_read = 0

    def get(self, path: str, if_match: str | None = None) -> bytes:
        body = super().get(path, if_match)
        self.bytes_read += len(body)
        return body

    def get_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[bytes]:
        bodies = super().get_ranges(path, starts, ends)
        self.bytes_read += sum(len(b) for b in bodies)
        return bodies


def test_a_few_rows_of_many_cost_a_few_reads(tmp_path: Path) -> None:
    identities, rows = some(4000)
    write(tmp_path, identities, rows)
    store = Counting(tmp_path)
    out, absent = read(open_cache(tmp_path, store=store), identities[[5, 3000]])
    assert not absent
    assert (out == rows[[5, 3000]]).all()
    index = segment(tmp_path, ".index").stat().st_size
    assert store.bytes_read == index + 2 * WIDTH * 4


def test_a_segment_without_its_index_is_read_and_mended(tmp_path: Path) -> None:
    identities, rows = some(50)
    write(tmp_path, identities, rows)
    index = segment(tmp_path, ".index")
    before = index.read_bytes()
    for broken in (None, b"", before[:-1], before[:40] + bytes([before[40] ^ 1]) + before[41:]):
        index.unlink() if broken is None else index.write_bytes(broken)
        out, absent = read(open_cache(tmp_path), identities)
        assert not absent
        assert (out == rows).all()
        assert index.read_bytes() == before


def test_a_damaged_row_is_noticed_and_its_segment_forgotten(tmp_path: Path) -> None:
    identities, rows = some(200)
    write(tmp_path, identities, rows)
    path = segment(tmp_path)
    body = bytearray(path.read_bytes())
    place = body.index(rows[17].tobytes())
    body[place + 5] ^= 0x40
    path.write_bytes(bytes(body))
    warnings: list[str] = []
    cache = open_cache(tmp_path, warnings)
    _, absent = read(cache, identities)
    assert absent == [17]
    assert warnings == [
        f"fp/segments/{path.name} in the cache is damaged; its images are computed again."
    ]
    assert (cache.find(identities) == -1).all()
    cache.refresh()
    assert (cache.find(identities) == -1).all()


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_truncated_segment_is_skipped_and_told(tmp_path: Path, keep: int) -> None:
    identities, rows = some(200)
    write(tmp_path, identities, rows)
    more, their_rows = some(10, seed=1)
    path = segment(tmp_path)
    write(tmp_path, more, their_rows)
    path.write_bytes(path.read_bytes()[:keep])
    warnings: list[str] = []
    out, absent = read(open_cache(tmp_path, warnings), np.concatenate([identities, more]))
    assert absent == list(range(200))
    assert (out[200:] == their_rows).all()
    assert len(warnings) == 1


def test_a_segment_removed_by_someone_is_absent(tmp_path: Path) -> None:
    identities, rows = some(20)
    write(tmp_path, identities, rows)
    cache = open_cache(tmp_path)
    cache.refresh()
    segment(tmp_path).unlink()
    places = cache.find(identities)
    failed = cache.read(places, np.zeros((20, WIDTH), np.float32), np.arange(20))
    assert len(failed) == 20


def test_what_could_not_be_written_stays_to_be_written(tmp_path: Path) -> None:
    class Failing(LocalStore):
        broken = True

        def put(self, path: str, body: bytes, *, create_only: bool = False) -> bool:
            if self.broken:
                raise StorageError("no space")
            return super().put(path, body, create_only=create_only)

    store = Failing(tmp_path, str(tmp_path), "spec.cache")
    cache = open_cache(tmp_path, store=store)
    identities, rows = some(5)
    for identity, row in zip(identities, rows, strict=True):
        cache.add(identity.tobytes(), row)
    with pytest.raises(StorageError):
        cache.flush()
    assert cache.pending == 5
    store.broken = False
    cache.flush()
    assert not read(open_cache(tmp_path), identities)[1]


def test_equal_segments_have_equal_names(tmp_path: Path) -> None:
    identities, rows = some(30)
    write(tmp_path, identities, rows)
    write(tmp_path, identities, rows)
    segment(tmp_path)


def test_an_index_of_another_segment_is_refused() -> None:
    body = pack_index(
        np.empty(0, [("image", "V16"), ("offset", "<u8"), ("crc", "<u4")]), WIDTH, 100
    )
    assert len(unpack_index(body, WIDTH, 100)) == 0
    for width, size in ((WIDTH + 1, 100), (WIDTH, 101)):
        with pytest.raises(DamagedError):
            unpack_index(body, width, size)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_segment_that_is_written_again_with_the_same_content_is_believed_again(
    tmp_path: Path, rows: int
) -> None:
    identities, bottlenecks = some(rows)
    write(tmp_path, identities, bottlenecks)
    path = segment(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(bottlenecks[0].tobytes(), bottlenecks[0].tobytes()[::-1]))
    cache = open_cache(tmp_path)
    assert read(cache, identities)[1] == [0]
    for identity, bottleneck in zip(identities, bottlenecks, strict=True):
        cache.add(identity.tobytes(), bottleneck)
    cache.flush()
    assert path.read_bytes() == whole
    out, absent = read(cache, identities)
    assert not absent
    assert (out == bottlenecks).all()


def put_segment(folder: Path, body: bytes) -> None:
    """A file under its right name, as somebody who can write to the cache could."""
    target = folder / "fp/segments" / f"{hashlib.sha256(body).hexdigest()}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(body)


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


IMAGES = pa.array([bytes(16)] * 4, pa.binary(16))


def lists(count: int, width: int = WIDTH) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array([0.0] * count * width, pa.float32()), width)


@pytest.mark.parametrize(
    "body",
    [
        parquet({"image": IMAGES}),
        parquet({"bottleneck": lists(4), "image": IMAGES}),
        parquet({"image": IMAGES, "bottleneck": pa.array([1.0] * 4, pa.float32())}),
        parquet({"image": pa.array(["a"] * 4), "bottleneck": lists(4)}),
        parquet({"image": IMAGES, "bottleneck": lists(4, 7)}, use_dictionary=False),
        # A hundred thousand rows in a few kilobytes.
        parquet(
            {"image": pa.array([bytes(16)] * 100_000, pa.binary(16)), "bottleneck": lists(100_000)}
        ),
        parquet({"image": IMAGES, "bottleneck": lists(4)}, compression="zstd"),
        b"PAR1" + bytes(40) + b"\xff\xff\xff\x7fPAR1",
    ],
)
def test_a_file_that_is_no_segment_is_told_and_left_out(tmp_path: Path, body: bytes) -> None:
    put_segment(tmp_path, body)
    identities, rows = some(5)
    write(tmp_path, identities, rows)
    warnings: list[str] = []
    out, absent = read(open_cache(tmp_path, warnings), identities)
    assert not absent
    assert (out == rows).all()
    assert len(warnings) == 1
    assert warnings[0].endswith("in the cache is damaged; its images are computed again.")


@pytest.mark.parametrize("offset", [2**64 - 1, 2**63, 10_000_000])
def test_an_index_that_points_outside_its_segment_is_made_anew(tmp_path: Path, offset: int) -> None:
    identities, rows = some(5)
    write(tmp_path, identities, rows)
    index, size = segment(tmp_path, ".index"), segment(tmp_path).stat().st_size
    good = index.read_bytes()
    records = unpack_index(good, WIDTH, size).copy()
    records["offset"][3] = offset
    index.write_bytes(pack_index(records, WIDTH, size))
    out, absent = read(open_cache(tmp_path), identities)
    assert not absent
    assert (out == rows).all()
    assert index.read_bytes() == good


def test_an_index_that_counts_other_rows_than_it_has_or_is_too_large_is_not_believed(
    tmp_path: Path,
) -> None:
    body = pack_segment(*some(5))
    for wrong in (b"", b"RTINDEX1", pack_index(np.empty(0, "V28"), WIDTH, len(body))[:-1]):
        with pytest.raises(DamagedError):
            unpack_index(wrong, WIDTH, len(body))
    header = pack_index(np.empty(0, "V28"), WIDTH, len(body))[:-16]
    lying = header[:16] + (2**60).to_bytes(8, "little") + header[24:]
    lying += hashlib.blake2b(lying, digest_size=16).digest()
    with pytest.raises(DamagedError):
        unpack_index(lying, WIDTH, len(body))
    identities, rows = some(5)
    write(tmp_path, identities, rows)
    segment(tmp_path, ".index").write_bytes(bytes(1_000_000))
    store = Counting(tmp_path)
    assert not read(open_cache(tmp_path, store=store), identities)[1]
    assert store.bytes_read < 100_000
