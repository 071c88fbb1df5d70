"""Findings kept in the cache, for runs with the same images, labels and backbone."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from retrainer.api.layout import KEPT_FINDINGS
from retrainer.errors import NotFound
from retrainer_trainer.arrays import Rows
from retrainer_trainer.dataset.identity import Identities
from retrainer_trainer.findings.duplicates import Pair
from retrainer_trainer.findings.findings import Findings
from retrainer_trainer.store.store import Store, UnreadableError

_VERSION = b"1"
"""A part of the digest that changes with the arithmetic."""

_FORMAT = TypeAdapter(Findings)
_PAIRS = TypeAdapter(list[Pair])


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(_VERSION, digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


class KeptPairs:
    """The near-duplicates of one set of images in the cache, whatever their labels and sets.

    Args:
        store: of `spec.cache`.
        fingerprint: of the backbone.
        identities: (images, 16) of the images, in the order of the rows.
    """

    def __init__(self, store: Store, fingerprint: str, identities: Identities) -> None:
        self._store = store
        self._images = len(identities)
        digest = _digest(b"pairs", identities.tobytes())
        self._path = f"{fingerprint}/{KEPT_FINDINGS}/{digest}.json"

    def read(self) -> list[Pair] | None:
        """What an earlier run left; None if there is nothing, or nothing that can be read."""
        try:
            pairs = _PAIRS.validate_json(self._store.get(self._path))
        except (NotFound, UnreadableError, ValidationError):
            return None
        return pairs if all(0 <= p.row < p.other < self._images for p in pairs) else None

    def write(self, pairs: list[Pair]) -> None:
        """Keep them for later runs."""
        self._store.put(self._path, _PAIRS.dump_json(pairs))


class KeptFindings:
    """The findings of one set of images in the cache.

    Args:
        store: of `spec.cache`.
        fingerprint: of the backbone.
        identities: (images, 16) of the images, in the order of the rows.
        label: (images,) number of each image's label.
        sets: (images,) which set each is in.
        labels: names.
        seed: of the folds.
    """

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        identities: Identities,
        label: Rows,
        sets: npt.NDArray[np.integer],
        *,
        labels: Sequence[str],
        seed: int,
    ) -> None:
        names = "\0".join(labels).encode("utf-8", "surrogateescape")
        digest = _digest(
            str(seed).encode(),
            names,
            identities.tobytes(),
            label.astype(np.int64).tobytes(),
            sets.astype(np.int8).tobytes(),
        )
        self._store = store
        self._path = f"{fingerprint}/{KEPT_FINDINGS}/{digest}.json"
        self._images = len(label)

    def read(self) -> Findings | None:
        """Read what an earlier run left; None if there is nothing, or nothing that can be read."""
        try:
            findings = _FORMAT.validate_json(self._store.get(self._path))
        except (NotFound, UnreadableError, ValidationError):
            return None
        return findings if findings.images == self._images else None

    def write(self, findings: Findings) -> None:
        """Write findings for later runs."""
        self._store.put(self._path, _FORMAT.dump_json(findings))
