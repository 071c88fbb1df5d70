import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import pictures
from tests.support.trainer_engine import (
    WIDTH,
    Recorder,
    photo,
    photos,
    prepared,
    spec,
)

from retrainer.errors import RetrainerError, UserError
from retrainer.inference import pixels as images
from retrainer_trainer import bottlenecks
from retrainer_trainer.cache.cache import Cache
from retrainer_trainer.cache.segments import unpack_index
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.distort import distorted, source_size, view_identity
from retrainer_trainer.dataset.identity import content_identity
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.local import LocalStore


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", {"daisy": 40, "roses": 40})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def segments(output: Path) -> list[Path]:
    return sorted((output / ".bottlenecks").glob("*/segments/*.parquet"))


# --- the matrix ---
def test_each_row_is_the_bottleneck_of_that_path_s_image(photo_folder: Path, output: Path) -> None:
    ready = prepared(spec(photo_folder, output))
    assert ready.matrix.shape == (80, WIDTH)
    assert ready.matrix.dtype == np.float32
    engine = ready.backbone.start()
    for row, path in enumerate(ready.catalog.paths):
        (expected,) = engine([images.pixels((photo_folder / path).read_bytes(), 128)])
        assert (ready.matrix[row] == expected).all(), path
    assert ready.usable.all()
    assert ready.views.shape == (80, 0)


def test_the_second_run_computes_nothing(photo_folder: Path, output: Path) -> None:
    wanted = spec(photo_folder, output)
    first = prepared(wanted)
    recorder = Recorder(wanted)
    second = prepared(wanted, recorder)
    assert "80 of 80 images are in the cache, 0 to compute." in recorder.lines
    assert recorder.report.progress.images_computed == 0
    assert recorder.report.progress.images_cached == 80
    assert (first.matrix == second.matrix).all()
    assert len(segments(output)) == 1


def test_only_what_is_new_is_computed(photo_folder: Path, output: Path) -> None:
    wanted = spec(photo_folder, output)
    prepared(wanted)
    (photo_folder / "daisy/new.jpg").write_bytes(photo(5000))
    (photo_folder / "roses/0003.jpg").write_bytes(photo(5001))
    (photo_folder / "roses/0004.jpg").unlink()
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    assert recorder.report.progress.images_computed == 2
    assert len(ready.matrix) == 80


def test_a_moved_folder_is_found_in_the_cache(
    photo_folder: Path, output: Path, tmp_path: Path
) -> None:
    prepared(spec(photo_folder, output))
    shutil.move(photo_folder, tmp_path / "elsewhere")
    recorder = Recorder(spec(tmp_path / "elsewhere", output))
    prepared(spec(tmp_path / "elsewhere", output), recorder)
    assert recorder.report.progress.images_computed == 0


def test_progress_counts_to_the_end(photo_folder: Path, output: Path) -> None:
    wanted = spec(photo_folder, output)
    recorder = Recorder(wanted)
    prepared(wanted, recorder)
    progress = recorder.report.progress
    assert (progress.images_total, progress.images_cached, progress.images_computed) == (80, 0, 80)
    assert progress.percent == 100
    assert recorder.report.message == "Computing bottlenecks: 80 of 80 images, 0 from the cache."
    assert recorder.report.images_per_second is not None


# --- shards ---
def test_shards_together_compute_each_image_once_and_the_matrix_is_the_same(
    photo_folder: Path, output: Path, tmp_path: Path
) -> None:
    whole = prepared(spec(photo_folder, output))
    wanted = spec(photo_folder, tmp_path / "sharded", shards=3)
    computed = []
    for shard in range(3):
        recorder = Recorder(wanted)
        job = bottlenecks.open_job(wanted, recorder, Stop())
        filled = bottlenecks.compute_missing(job, recorder, Stop(), shard=shard, shards=3)
        assert filled.cached_count == 0
        assert recorder.report.progress.images_total == filled.computed_count
        computed.append(filled.computed_count)
    assert sum(computed) == 80
    assert min(computed) > 0
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    assert recorder.report.progress.images_computed == 0
    assert (ready.matrix == whole.matrix).all()


# --- distortions ---
DISTORTIONS = {
    "flipLeftRight": True,
    "randomCrop": 10,
    "randomScale": 20,
    "randomBrightness": 10,
    "views": 3,
}


def test_training_images_get_their_views_and_no_others(photo_folder: Path, output: Path) -> None:
    wanted = spec(photo_folder, output, distortions=DISTORTIONS)
    ready = prepared(wanted)
    training = ready.catalog.sets == split.TRAINING
    assert ready.views.shape == (80, 3)
    assert (ready.views[~training] == -1).all()
    rows = ready.views[training].ravel()
    assert sorted(rows.tolist()) == list(range(80, 80 + 3 * int(training.sum())))
    assert len(ready.matrix) == 80 + len(rows)
    row = int(np.flatnonzero(training)[5])
    assert wanted.distortions is not None
    body = (photo_folder / ready.catalog.paths[row]).read_bytes()
    square = images.pixels(body, source_size(128, wanted.distortions))
    identity = ready.catalog.identities[row].tobytes()
    for view in range(3):
        pixels = distorted(square, 128, identity, wanted.distortions, view)
        (expected,) = ready.backbone.start()([pixels])
        assert (ready.matrix[ready.views[row, view]] == expected).all()
    assert (ready.matrix[row] == prepared(spec(photo_folder, output)).matrix[row]).all()


def test_views_are_cached_like_any_bottleneck(photo_folder: Path, output: Path) -> None:
    prepared(spec(photo_folder, output))
    wanted = spec(photo_folder, output, distortions=DISTORTIONS)
    first = Recorder(wanted)
    ready = prepared(wanted, first)
    training = len(ready.rows(split.TRAINING))
    second = Recorder(wanted)
    prepared(wanted, second)
    assert first.report.progress.images_computed == training
    assert second.report.progress.images_computed == 0
    more = spec(photo_folder, output, distortions={**DISTORTIONS, "views": 4})
    recorder = Recorder(more)
    prepared(more, recorder)
    assert recorder.report.progress.images_computed == training


def test_views_are_decided_by_the_image_and_the_number() -> None:
    wanted = spec("in", "out", distortions=DISTORTIONS).distortions
    assert wanted is not None
    square = images.pixels(photo(1, 300, 300), source_size(128, wanted))
    one = [distorted(square, 128, b"i" * 16, wanted, v) for v in range(8)]
    second = [distorted(square, 128, b"i" * 16, wanted, v) for v in range(8)]
    assert all((a == b).all() for a, b in zip(one, second, strict=True))
    assert len({a.tobytes() for a in one}) == 8
    assert (distorted(square, 128, b"j" * 16, wanted, 0) != one[0]).any()
    other = wanted.model_copy(update={"random_crop": 11})
    names = {view_identity(b"i" * 16, d, v) for d in (wanted, other) for v in range(8)}
    assert len(names) == 16


def test_each_distortion_does_what_it_says() -> None:
    left_to_right = np.tile(np.linspace(0, 200, 128).astype(np.uint8)[None, :, None], (128, 1, 3))

    def views(**fields: Any) -> list[Any]:
        d = spec("in", "out", distortions={**fields, "views": 40}).distortions
        assert d is not None
        side = source_size(128, d)
        square = images.resized(left_to_right, side, side)
        return [distorted(square, 128, b"x" * 16, d, v).astype(int) for v in range(40)]

    mirrored = [v[64, 0, 0] > v[64, -1, 0] for v in views(flipLeftRight=True)]
    assert 8 < sum(mirrored) < 32
    spans = [v[64, -1, 0] - v[64, 0, 0] for v in views(randomCrop=50)]
    assert all(120 < s < 146 for s in spans)  # two thirds of the width
    starts = [v[64, 0, 0] for v in views(randomCrop=50)]
    assert min(starts) < 15
    assert max(starts) > 50
    spans = [v[64, -1, 0] - v[64, 0, 0] for v in views(randomScale=100)]
    assert min(spans) < 115
    assert max(spans) > 180
    bright = [v[64, 64, 0] / left_to_right[64, 64, 0] for v in views(randomBrightness=30)]
    assert 0.69 < min(bright) < 0.8
    assert 1.2 < max(bright) < 1.31


# --- images that cannot be used ---
def test_bad_files_are_rejected_with_path_and_reason_and_the_job_goes_on(
    photo_folder: Path, output: Path
) -> None:
    bad = {
        "daisy/text.jpg": b"this is a text",
        "daisy/tab\tnew\nline.jpg": b"",
        "roses/cut.jpg": photo(1)[:-100],
    }
    for path, body in bad.items():
        (photo_folder / path).write_bytes(body)
    (photo_folder / "roses/png.jpg").write_bytes(_png())
    (photo_folder / "roses/nowhere.jpg").symlink_to("/nowhere")
    (photo_folder / "roses/circle.jpg").symlink_to("circle.jpg")
    wanted = spec(photo_folder, output, max_rejected_fraction=0.1)
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    reasons = {ready.catalog.paths[i]: reason for i, reason in ready.rejected.items()}
    assert reasons == {
        "daisy/text.jpg": "not a JPEG, PNG, WebP, BMP or GIF image",
        "daisy/tab\tnew\nline.jpg": "0 bytes",
        "roses/circle.jpg": "it was listed, but is no longer there",
        "roses/cut.jpg": "JPEG: truncated",
        "roses/nowhere.jpg": "it was listed, but is no longer there",
    }
    assert int(ready.usable.sum()) == 81
    assert not ready.usable[list(ready.rejected)].any()
    assert (
        len(ready.rows(split.TRAINING))
        + len(ready.rows(split.VALIDATION))
        + len(ready.rows(split.TESTING))
        == 81
    )
    assert recorder.report.progress.images_rejected == 5
    (warning,) = recorder.warnings
    assert warning.startswith(
        "Images rejected: 5, daisy/tab\\tnew\\nline.jpg (0 bytes); daisy/text"
    )


def _png() -> bytes:
    from tests.support.trainer_engine import encoded, picture

    return encoded(picture(9), "PNG")


def test_pictures_of_twelve_bits_in_sixteen_are_told_in_every_run(
    photo_folder: Path, output: Path
) -> None:
    deep = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64)
    for name, most in (("twelve", 2**12), ("fourteen", 2**14), ("sixteen", 2**16)):
        rows = deep * (most - 1) // deep.max()
        (photo_folder / f"daisy/{name}.png").write_bytes(pictures.png(rows, bits=16, colour=0))
    shutil.copy(photo_folder / "daisy/twelve.png", photo_folder / "roses/copy.png")
    for computed_count in (84, 0):
        wanted = spec(photo_folder, output)
        recorder = Recorder(wanted)
        prepared(wanted, recorder)
        (warning,) = [w for w in recorder.warnings if "black" in w]
        assert warning.startswith(
            "Nearly black: 3 of 84 images, such as daisy/fourteen.png. They are "
        )
        assert "use at most 14 of them" in warning
        assert recorder.report.progress.images_computed == computed_count


def test_more_rejected_than_allowed_fails_and_lists_them_in_the_run(
    photo_folder: Path, output: Path
) -> None:
    for i in range(20):
        (photo_folder / f"daisy/bad{i:02}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError) as raised:
        prepared(spec(photo_folder, output))
    assert str(raised.value) == (
        "20 of 100 images cannot be read, more than maxRejectedFraction 0.05 allows; "
        "the first: daisy/bad00.jpg (not a JPEG, PNG, WebP, BMP or GIF image)."
    )
    assert raised.value.reason == "TooManyRejected"
    rows = list(csv.DictReader(io.StringIO((output / "run/rejected.csv").read_text())))
    assert len(rows) == 20
    assert len(segments(output)) == 1  # the good ones are kept


def test_a_label_of_unreadable_images_only_is_refused(photo_folder: Path, output: Path) -> None:
    for i in range(5):
        (photo_folder / "tulips").mkdir(exist_ok=True)
        (photo_folder / f"tulips/{i}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="Labels without a training image: tulips") as raised:
        prepared(spec(photo_folder, output, max_rejected_fraction=0.5))
    assert "no file can be read as an image" in str(raised.value)


def test_the_same_image_twice_is_computed_once(photo_folder: Path, output: Path) -> None:
    shutil.copy(photo_folder / "daisy/0001.jpg", photo_folder / "roses/copy.jpg")
    wanted = spec(photo_folder, output)
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    progress = recorder.report.progress
    assert (progress.images_total, progress.images_computed, progress.images_cached) == (81, 81, 0)
    assert "0 of 81 images are in the cache, 81 to compute." in recorder.lines
    index = segments(output)[0].with_suffix(".index").read_bytes()
    assert len(unpack_index(index, WIDTH, segments(output)[0].stat().st_size)) == 80
    paths = list(ready.catalog.paths)
    one, other = paths.index("daisy/0001.jpg"), paths.index("roses/copy.jpg")
    assert (ready.matrix[one] == ready.matrix[other]).all()


def test_counts_add_up_when_a_broken_image_is_there_twice_and_a_segment_is_damaged(
    photo_folder: Path, output: Path
) -> None:
    broken = photo(1)[:600]
    for name in ("daisy/broken.jpg", "roses/broken too.jpg"):
        (photo_folder / name).write_bytes(broken)
    shutil.copy(photo_folder / "daisy/0001.jpg", photo_folder / "roses/copy.jpg")

    def counts(recorder: Recorder) -> tuple[int | None, ...]:
        progress = recorder.report.progress
        return (
            progress.images_total,
            progress.images_cached,
            progress.images_computed,
            progress.images_rejected,
        )

    wanted = spec(photo_folder, output, max_rejected_fraction=0.1)
    first, second, third = Recorder(wanted), Recorder(wanted), Recorder(wanted)
    before = prepared(wanted, first)
    assert counts(first) == (83, 0, 81, 2)
    prepared(wanted, second)
    assert counts(second) == (83, 81, 0, 2)
    (path,) = segments(output)
    body = path.read_bytes()
    place = body.index(before.matrix[7].tobytes())
    path.write_bytes(body[:place] + bytes([body[place] ^ 255]) + body[place + 1 :])
    prepared(wanted, third)
    assert counts(third) == (83, 0, 81, 2)


@pytest.mark.parametrize("images", [1, 4])
def test_a_damaged_segment_is_mended_in_the_same_run_whatever_its_size(
    photo_folder: Path, output: Path, images: int
) -> None:
    wanted = spec(photo_folder, output)
    prepared(wanted)
    for i in range(images):  # a segment of these images alone
        (photo_folder / f"daisy/new{i}.jpg").write_bytes(photo(500 + i))
    before = prepared(wanted)
    (path,) = [p for p in segments(output) if p.stat().st_size < 20_000]
    whole = path.read_bytes()
    index = path.with_suffix(".index")
    records = unpack_index(index.read_bytes(), WIDTH, len(whole))
    place = int(records["offset"][0])
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    recorder = Recorder(wanted)
    after = prepared(wanted, recorder)
    assert (after.matrix == before.matrix).all()
    assert recorder.report.progress.images_computed == images
    assert len(recorder.warnings) == 1


def test_an_image_replaced_after_it_was_listed_is_never_stale(
    photo_folder: Path, output: Path
) -> None:
    wanted = spec(photo_folder, output)
    recorder = Recorder(wanted)
    job = bottlenecks.open_job(wanted, recorder, Stop())
    (photo_folder / "daisy/0005.jpg").write_bytes(photo(9999))
    filled = bottlenecks.compute_missing(job, recorder, Stop())
    ready, missing = bottlenecks.load(job, filled)
    assert missing == 0
    row = list(ready.catalog.paths).index("daisy/0005.jpg")
    (expected,) = ready.backbone.start()([images.pixels(photo(9999), 128)])
    assert (ready.matrix[row] == expected).all()
    assert ready.catalog.identities[row].tobytes() == content_identity(photo(9999))
    second = Recorder(wanted)
    prepared(wanted, second)
    assert second.report.progress.images_computed == 0


# --- a damaged cache ---
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "index", "no index"])
def test_a_damaged_segment_is_computed_again_and_the_result_is_the_same(
    photo_folder: Path, output: Path, damage: str
) -> None:
    wanted = spec(photo_folder, output)
    before = prepared(wanted)
    (path,) = segments(output)
    body = path.read_bytes()
    index = path.with_suffix(".index")
    if damage == "flip":
        place = body.index(before.matrix[7].tobytes())
        path.write_bytes(body[:place] + bytes([body[place] ^ 255]) + body[place + 1 :])
    elif damage == "cut":
        path.write_bytes(body[: len(body) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:100])
    else:
        index.unlink()
    recorder = Recorder(wanted)
    after = prepared(wanted, recorder)
    assert (after.matrix == before.matrix).all()
    if damage in ("flip", "cut", "empty"):
        assert any("is damaged; its images are computed again" in w for w in recorder.warnings)
    else:
        assert recorder.warnings == []


def test_a_cache_that_loses_what_is_written_is_an_error_not_a_loop(
    photo_folder: Path, output: Path
) -> None:
    class Losing(LocalStore):
        def put(self, path: str, body: bytes, *, create_only: bool = False) -> bool:
            return True

    wanted = spec(photo_folder, output)
    job = bottlenecks.open_job(wanted, Recorder(wanted), Stop())
    store = Losing(output / ".bottlenecks", "lost", "spec.cache")
    cache = Cache(store, job.backbone.fingerprint, WIDTH, lambda _text: None)
    with pytest.raises(
        RetrainerError, match=r"^80 bottlenecks just written to .* cannot be read back\.$"
    ):
        bottlenecks.compute_and_load(replace(job, cache=cache), Recorder(wanted), Stop(), store)
