"""Shards share the images out: each is computed in exactly one, however many shards there are."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.trainer_engine import Recorder, photo, photos, spec

from retrainer.api import Progress
from retrainer_trainer import bottlenecks
from retrainer_trainer.dataset.identity import Identities, identity, shard_of
from retrainer_trainer.runtime.stop import Stop

MOST_SHARDS = 10_000  # of spec.shards


def listed(count: int) -> Identities:
    """Identities of so many made-up images."""
    names = b"".join(identity(f'"{number:032x}"', 50_000) for number in range(count))
    return np.frombuffer(names, np.uint8).reshape(-1, 16)


LISTED = listed(100_000)


@given(st.integers(1, MOST_SHARDS))
def test_each_image_falls_in_one_shard_and_the_shards_are_of_like_size(shards: int) -> None:
    shard = shard_of(LISTED, shards)
    assert shard.shape == (len(LISTED),)
    assert shard.min() >= 0
    sizes = np.bincount(shard, minlength=shards)
    assert len(sizes) == shards  # none beyond the last
    # As even as chance: the share of each is binomial, and six standard deviations are never seen.
    mean = len(LISTED) / shards
    assert abs(sizes - mean).max() <= 6 * np.sqrt(mean) + 6


def test_the_shards_progress_together_counts_each_image_once(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 30, "roses": 30})
    (images / "roses/copy.jpg").write_bytes((images / "daisy/0003.jpg").read_bytes())
    (images / "roses/broken.jpg").write_bytes(photo(4)[:200])
    before = spec(images, tmp_path / "out", split={"testingPercentage": 20})
    first = bottlenecks.open_job(before, Recorder(before), Stop())
    some = bottlenecks.compute_missing(
        first, Recorder(before), Stop(), shard=1, shards=4
    )  # cached before
    for shards in (40, 3):
        wanted = spec(images, tmp_path / "out", shards=shards)
        progress: list[Progress] = []
        for shard in range(shards):
            recorder = Recorder(wanted)
            job = bottlenecks.open_job(wanted, recorder, Stop())
            bottlenecks.compute_missing(job, recorder, Stop(), shard=shard, shards=shards)
            progress.append(recorder.report.progress)
            assert progress[-1].images_total == _done(progress[-1])
        assert sum(p.images_total or 0 for p in progress) == 62
        assert sum(p.images_rejected or 0 for p in progress) == 1
        computed = sum(p.images_computed or 0 for p in progress)
        assert computed == (61 - some.computed_count if shards == 40 else 0)


def _done(progress: Progress) -> int:
    counts = (progress.images_cached, progress.images_computed, progress.images_rejected)
    return sum(count or 0 for count in counts)
