"""Keeps images that show the same in one set, so that none is tested that was trained on."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Bools, Rows
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset.catalog import Catalog
from retrainer_trainer.dataset.manifest import NONE
from retrainer_trainer.findings.duplicates import Pair, groups_of, near_duplicates
from retrainer_trainer.findings.findings import MOST_IMAGES
from retrainer_trainer.findings.kept import KeptPairs
from retrainer_trainer.findings.neighbours import nearest
from retrainer_trainer.findings.stage import small_reader
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.store.store import Store


def group_duplicates(ready: Bottlenecks, cache: Store, reporter: Reporter) -> Catalog:
    """Put near-duplicates, and the groups of a manifest that they join, into one set.

    Args:
        ready: the images' bottlenecks.
        cache: keeps the pairs for later runs with the same images.
        reporter: told what was moved.
    """
    catalog = ready.catalog
    rows = np.flatnonzero(ready.usable)
    if len(rows) > MOST_IMAGES:
        reporter.warn(
            f"split.groupDuplicates has no effect: there are more than {MOST_IMAGES:,} images."
        )
        return catalog
    reporter.update(message="Looking for images that show the same.")
    pairs = _pairs(ready, rows, cache)
    joined = [(int(rows[pair.row]), int(rows[pair.other])) for pair in pairs]
    group = groups_of(len(catalog), [*joined, *_of_manifest(catalog.group)])
    sets = one_set(group, catalog.sets, catalog.fixed)
    moved = int((sets != catalog.sets).sum())
    images = len({row for pair in joined for row in pair})
    reporter.log(f"{images:,} images show the same as another; {moved:,} changed their set for it.")
    return replace(catalog, sets=sets)


def _pairs(ready: Bottlenecks, rows: Rows, cache: Store) -> list[Pair]:
    kept = KeptPairs(cache, ready.backbone.fingerprint, ready.catalog.identities[rows])
    pairs = kept.read()
    if pairs is None:
        pairs = near_duplicates(nearest(ready.matrix[rows]), small_reader(ready, rows))
        kept.write(pairs)
    return pairs


def _of_manifest(group: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
    """Give each image of a manifest's group with the one before it of the same group."""
    grouped = np.flatnonzero(group != NONE)
    order = grouped[np.argsort(group[grouped], kind="stable")]
    same = np.flatnonzero(group[order[1:]] == group[order[:-1]])
    return list(zip(order[same].tolist(), order[same + 1].tolist(), strict=True))


def one_set(group: Rows, sets: npt.NDArray[np.int8], fixed: Bools) -> npt.NDArray[np.int8]:
    """Put all images of a group into the set of its first one; what is fixed decides, and stays.

    Args:
        group: (images,) number of each image's group: that of its first image.
        sets: (images,) the set of each.
        fixed: (images,) which may not change their set.
    """
    deciding = sets.copy()
    for row in np.flatnonzero(fixed)[::-1].tolist():
        deciding[group[row]] = sets[row]
    return np.where(fixed, sets, deciding[group]).astype(np.int8)
