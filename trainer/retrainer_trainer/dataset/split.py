"""Which set an image belongs to: retrain.py's rule, so that an image stays where it is.

The SHA-1 of the image's path decides, not chance: adding images to a label, or moving the folder,
never moves an image from one set to another.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

TRAINING, VALIDATION, TESTING = 0, 1, 2
SETS = ("training", "validation", "testing")

# retrain.py's MAX_NUM_IMAGES_PER_CLASS, about 134 million: how finely the hash is cut.
_MOST = 2**27 - 1
_NOHASH = re.compile(r"_nohash_.*$")


def hashed(path: str) -> float:
    """Where `path` falls between 0 (included) and 100 (included), by its SHA-1.

    Text after `_nohash_` is ignored, so that near duplicates can be kept in one set.
    """
    name = _NOHASH.sub("", path) if "_nohash_" in path else path
    digest = hashlib.sha1(name.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    # The remainder of the whole hash by 2**27 is its last 27 bits.
    return (int.from_bytes(digest[-4:], "big") % (_MOST + 1)) * (100.0 / _MOST)


def assign(
    paths: Iterable[str], testing_percentage: int, validation_percentage: int
) -> npt.NDArray[np.int8]:
    """TRAINING, VALIDATION or TESTING for each path, which is relative to `spec.images`."""
    places = np.fromiter((hashed(path) for path in paths), np.float64)
    sets = np.full(len(places), TRAINING, np.int8)
    sets[places < testing_percentage + validation_percentage] = TESTING
    sets[places < validation_percentage] = VALIDATION
    return sets
