"""The images that a job names, as its label folders or its manifest list them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Bools, Longs
from retrainer_trainer.dataset.identity import IDENTITY_BYTES, Identities
from retrainer_trainer.dataset.manifest import NONE, BadRow
from retrainer_trainer.dataset.texts import Texts

NO_FILE = -1
"""Stands for the size of an image that a manifest identifies and whose file is not there."""

# An error names at most so many labels or folders: a pod's message has room for no more.
_MOST_NAMED = 60


@dataclass(frozen=True)
class Listing:
    """The listed images, N of them, in the order of their paths (as bytes of UTF-8).

    Attributes:
        labels: names, sorted.
        paths: relative to `spec.images`.
        etags: to send as If-Match; empty where the store gives none that is strong.
        sizes: (N,) bytes; NO_FILE for an image without a file.
        label: (N,) index into `labels`.
        sets: (N,) split.TRAINING, VALIDATION or TESTING.
        identities: (N, 16) of the images without a file.
        groups: names of the groups that stay in one set.
        group: (N,) index into `groups`; NONE for an image of no group.
        fixed: (N,) whether a manifest names the image's set.
        bad: rows of a manifest that are left out.
    """

    labels: tuple[str, ...]
    paths: Texts
    etags: Texts
    sizes: Longs
    label: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int8]
    identities: Identities
    groups: tuple[str, ...]
    group: npt.NDArray[np.int32]
    fixed: Bools
    bad: tuple[BadRow, ...] = ()

    @property
    def absent(self) -> Bools:
        """Which images have no file (N,)."""
        return np.equal(self.sizes, NO_FILE)


def no_groups(count: int) -> npt.NDArray[np.int32]:
    """Give the groups of images of which none is in one."""
    return np.full(count, NONE, np.int32)


def no_identities(count: int) -> Identities:
    """Give the identities of images of which all have a file."""
    return np.zeros((count, IDENTITY_BYTES), np.uint8)


def listed_names(names: Sequence[str]) -> str:
    """List names of labels or folders, as many as an error has room for."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
