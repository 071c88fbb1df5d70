"""The images of a job: where they are, which label and set each has, and what identifies it."""

import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retrainer.api import RetrainJobSpec, reasons
from retrainer.errors import NotFound
from retrainer.inference.pixels import MAX_BYTES
from retrainer.local.places import lies_inside
from retrainer_trainer.arrays import Bools, Longs, Rows
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.corrections import NO_CORRECTIONS, Corrections
from retrainer_trainer.dataset.corrections import apply as apply_corrections
from retrainer_trainer.dataset.folders import list_folders
from retrainer_trainer.dataset.identity import (
    IDENTITY_BYTES,
    Identities,
    content_identity,
    identity,
    same,
)
from retrainer_trainer.dataset.listed_manifest import list_manifest
from retrainer_trainer.dataset.listed_manifest import sentence as bad_rows_sentence
from retrainer_trainer.dataset.listing import NO_FILE, Listing, listed_names
from retrainer_trainer.dataset.manifest import BadRow
from retrainer_trainer.dataset.texts import Texts, shown
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import Store, UnreadableError

# Under this many images a label's accuracy says little (retrain.py warns at the same number).
SMALL_LABEL = 20
_CHUNK = 50_000
_NAMED = 5


@dataclass(frozen=True)
class Catalog:
    """The listed images, N of them, in the order of their paths (as bytes of UTF-8).

    Attributes:
        labels: names, sorted.
        paths: N paths relative to `spec.images`.
        etags: N ETags to send as If-Match; empty where the store gives none that is strong.
        sizes: (N,) bytes, as listed; listing.NO_FILE for an image that only the manifest knows.
        identities: (N, 16) bytes that stand for each image's content.
        label: (N,) index into `labels`.
        sets: (N,) split.TRAINING, VALIDATION or TESTING.
        warnings: sentences for people.
        groups: names of the groups that a manifest keeps in one set.
        group: (N,) index into `groups`; manifest.NONE for an image of no group.
        fixed: (N,) whether a manifest names the image's set.
        bad: rows of the manifest that are left out.
        corrections: that were applied.
    """

    labels: tuple[str, ...]
    paths: Texts
    etags: Texts
    sizes: Longs
    identities: Identities
    label: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int8]
    warnings: tuple[str, ...]
    groups: tuple[str, ...]
    group: npt.NDArray[np.int32]
    fixed: Bools
    bad: tuple[BadRow, ...] = ()
    corrections: Corrections = NO_CORRECTIONS

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def printable_labels(self) -> tuple[str, ...]:
        """The labels, each on one line."""
        return tuple(shown(label) for label in self.labels)

    def duplicates(self) -> list[Longs]:
        """Group the images that are the same under several paths, each group ascending."""
        return same(self.identities)


def list_catalog(
    store: Store, spec: RetrainJobSpec, log: Callable[[str], None], *, threads: int | None = None
) -> Catalog:
    """List the images of a job and put each into its label and its set.

    Without a manifest the first folder of a path is the label; images may lie deeper. Files beside the
    label folders, hidden ones, and those that by their names are no images are left out.

    Args:
        store: of `spec.images`.
        spec: its split is used.
        log: told what was listing.
        threads: that read the images where the listing has no ETags; all cores if not given.

    Raises:
        UserError: no such folder or bucket, no image, fewer than two labels, or a label without a
            training image; the message says which.
    """
    _refuse_nested(spec)
    listing = (list_manifest if spec.manifest else list_folders)(store, spec, log)
    listing, corrections = apply_corrections(listing, spec, log)
    identities = _identities(store, listing, log=log, threads=threads or cores())
    catalog = Catalog(
        labels=listing.labels,
        paths=listing.paths,
        etags=listing.etags,
        sizes=listing.sizes,
        identities=identities,
        label=listing.label,
        sets=listing.sets,
        warnings=(),
        groups=listing.groups,
        group=listing.group,
        fixed=listing.fixed,
        bad=listing.bad,
        corrections=corrections,
    )
    warnings = [bad_rows_sentence(listing.bad)] if listing.bad else []
    warnings += [corrections.sentence()] if corrections.absent else []
    warnings += check_labels(catalog, spec, np.ones(len(catalog), bool))
    twice = catalog.duplicates()
    if twice:
        first = " and ".join(shown(catalog.paths[int(i)]) for i in twice[0][:2])
        warnings.append(
            f"Images that are there more than once: {len(twice)}, such as {first}; "
            "duplicates.csv in the run lists them."
        )
    return replace(catalog, warnings=tuple(warnings))


def _identities(
    store: Store, listing: Listing, *, log: Callable[[str], None], threads: int
) -> Identities:
    """Identify images by their ETags, or by the bytes of those that have none.

    Those without a file have the identity that the manifest gives.
    """
    sizes, paths = listing.sizes, listing.paths
    raw = bytearray()
    unidentified: list[int] = []
    for i, (etag, size) in enumerate(zip(listing.etags, sizes.tolist(), strict=True)):
        if size == NO_FILE:
            raw += listing.identities[i].tobytes()
            continue
        raw += identity(etag, size)
        if not etag:
            unidentified.append(i)
    identities = np.frombuffer(raw, np.uint8).reshape(-1, IDENTITY_BYTES)
    if unidentified:
        log(f"{len(unidentified)} images are told apart by their content, so each is read.")

        def read(i: int) -> None:
            try:
                # One that is too large will be rejected by its size, without being read.
                body = store.get(paths[i]) if sizes[i] <= MAX_BYTES else b""
            except (NotFound, UnreadableError):
                body = b""  # rejected by name when its turn comes
            digest = content_identity(body) if body else identity(paths[i], int(sizes[i]))
            identities[i] = np.frombuffer(digest, np.uint8)

        with ThreadPoolExecutor(max(threads, store.parallel)) as pool:
            for start in range(0, len(unidentified), _CHUNK):
                for _ in pool.map(read, unidentified[start : start + _CHUNK]):
                    pass
    return identities


def _refuse_nested(spec: RetrainJobSpec) -> None:
    """Refuse an output or a cache inside the images, however the place is spelled.

    The API refuses an output whose text says so; a link, a dot or another spelling is looked at here.
    """
    if spec.manifest:
        return  # which names each image, so that no folder is taken for a label
    for field, place in (("output", spec.output), ("cache", spec.cache_url)):
        if lies_inside(place, spec.images):
            raise reasons.INVALID_SPEC.error(
                detail=f"spec.{field}: {place} lies inside spec.images ({spec.images}), where its "
                "folders would be taken for labels; choose another place."
            )


def check_labels(catalog: Catalog, spec: RetrainJobSpec, usable: Bools) -> list[str]:
    """Refuse labels that cannot be trained; warn of those that cannot be measured well.

    Args:
        catalog: of the job.
        spec: for its split and for messages.
        usable: (N,) which images count (before any was read: all).

    Returns:
        Warnings, a sentence each.

    Raises:
        UserError: fewer than two labels, or one without a training image.
    """
    names = catalog.printable_labels
    if len(names) < 2:
        raise reasons.TOO_FEW_LABELS.error(
            url=spec.manifest or spec.images, count=len(names), detail=", ".join(names) or "none"
        )
    counts = np.zeros((3, len(names)), np.int64)
    np.add.at(counts, (catalog.sets[usable], catalog.label[usable]), 1)
    total = counts.sum(0)
    untrained = np.flatnonzero(counts[split.TRAINING] == 0)
    if len(untrained):
        listed = np.bincount(catalog.label, minlength=len(names))
        raise reasons.LABEL_WITHOUT_TRAINING.error(
            labels=_untrained(names, untrained, listed=listed, usable=total)
        )
    warnings = []
    for which, share, word in (
        (split.VALIDATION, spec.split.validation_percentage, "validation"),
        (split.TESTING, spec.split.testing_percentage, "test"),
    ):
        missing = np.flatnonzero(counts[which] == 0)
        if share and len(missing):
            warnings.append(f"No {word} images of {_some(names, missing)}: not measured.")
    small = np.flatnonzero(total < SMALL_LABEL)
    if len(small):
        warnings.append(f"Fewer than {SMALL_LABEL} images of {_some(names, small)}.")
    return warnings + _alike(names)


def _untrained(names: Sequence[str], labels: Rows, *, listed: Longs, usable: Longs) -> str:
    """List the labels without a training image, by the cause."""
    causes: dict[str, list[str]] = {}
    for i in labels.tolist():
        if not listed[i]:
            cause = "the folder is empty"
        elif not usable[i]:
            cause = "no file can be read as an image"
        else:
            cause = "all images fall into the validation and test sets"
        causes.setdefault(cause, []).append(names[i])
    return "; ".join(f"{listed_names(group)} ({cause})" for cause, group in causes.items())


def _alike(names: Sequence[str]) -> list[str]:
    spellings: dict[str, str] = {}
    warnings = []
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in spellings:
            warnings.append(
                f"Labels {spellings[key]} and {name} differ only in case or accents' encoding; "
                "they are kept apart."
            )
        spellings[key] = name
    return warnings


def _some(names: Sequence[str], which: Rows) -> str:
    listed = ", ".join(names[i] for i in which[:_NAMED])
    more = len(which) - _NAMED
    return listed + (f" and {more} more" if more > 0 else "")
