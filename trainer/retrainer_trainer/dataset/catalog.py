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
from retrainer.inference.leftovers import is_leftover, is_sidecar
from retrainer.inference.pixels import MAX_BYTES
from retrainer.local.places import lies_inside
from retrainer_trainer.arrays import Bools, Longs, Rows
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.identity import (
    IDENTITY_BYTES,
    Identities,
    content_identity,
    identity,
    same,
)
from retrainer_trainer.dataset.texts import Texts, shown
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import Entry, Store, UnreadableError

# Under this many images a label's accuracy says little (retrain.py warns at the same number).
SMALL_LABEL = 20
_CHUNK = 50_000
_NAMED = 5
# An error names at most so many labels: a pod's message has room for no more.
_MOST_NAMED = 60
# Folders of these names hold sets, not images of one label, if label folders are inside.
_SET_FOLDERS = frozenset({
    "train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval",
})  # fmt: skip


@dataclass(frozen=True)
class Catalog:
    """The listed images, N of them, in the order of their paths (as bytes of UTF-8).

    Attributes:
        labels: names of the label folders, sorted.
        paths: N paths relative to `spec.images`.
        etags: N ETags to send as If-Match; empty where the store gives none that is strong.
        sizes: (N,) bytes, as listed.
        identities: (N, 16) bytes that stand for each image's content.
        label: (N,) index into `labels`.
        sets: (N,) split.TRAINING, VALIDATION or TESTING.
        warnings: sentences for people.
    """

    labels: tuple[str, ...]
    paths: Texts
    etags: Texts
    sizes: Longs
    identities: Identities
    label: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int8]
    warnings: tuple[str, ...]

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

    The first folder of a path is the label; images may lie deeper. Files beside the label folders,
    hidden ones, and those that by their names are no images are left out.

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
    listing = _listed(store)
    names = sorted(listing.labels)
    if not listing.count:
        raise reasons.NO_IMAGES.error(url=spec.images, detail=listing.nothing())
    if sets_on_top := listing.set_folders():
        raise reasons.SETS_ON_TOP.error(
            url=spec.images.rstrip("/"),
            folders=_listed_names(sets_on_top),
            first=shown(sets_on_top[0]),
        )
    raw = [path for chunk in listing.paths for path in chunk.raw()]
    order = sorted(range(len(raw)), key=raw.__getitem__)
    texts = Texts([raw[i] for i in order])
    raw = [etag for chunk in listing.etags for etag in chunk.raw()]
    tags = Texts([raw[i] for i in order])
    del raw
    places = np.array(order)
    sizes = np.concatenate(listing.sizes)[places]
    index = {name: i for i, name in enumerate(names)}
    to_sorted = np.array([index[name] for name in listing.labels], np.int32)
    label = to_sorted[np.concatenate(listing.label)[places]]
    sets = split.assign(texts, spec.split.testing_percentage, spec.split.validation_percentage)
    log(f"{len(sizes)} images of {len(names)} labels under {spec.images}.")
    if listing.beside:
        log(f"{listing.beside} files are left out: hidden, or beside the label folders.")
    if listing.sidecars:
        kinds = ", ".join(sorted(listing.sidecar_kinds))
        log(
            f"{listing.sidecars} files beside the images are left out ({kinds}), such as "
            f"{shown(listing.first_sidecar)}: the label is the folder's name, nothing else is read."
        )
    identities = _identities(store, texts, tags, sizes, log=log, threads=threads or cores())
    catalog = Catalog(tuple(names), texts, tags, sizes, identities, label, sets, ())
    warnings = check_labels(catalog, spec, np.ones(len(sizes), bool))
    twice = catalog.duplicates()
    if twice:
        first = " and ".join(shown(texts[int(i)]) for i in twice[0][:2])
        warnings.append(
            f"Images that are there more than once: {len(twice)}, such as {first}; "
            "duplicates.csv in the run lists them."
        )
    return replace(catalog, warnings=tuple(warnings))


class _Listing:
    """Collects the listed images, in arrays that take little memory."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.paths: list[Texts] = []
        self.etags: list[Texts] = []
        self.sizes: list[Longs] = []
        self.label: list[npt.NDArray[np.int32]] = []
        self.count = 0
        self.beside = 0
        self.sidecars = 0
        self.sidecar_kinds: set[str] = set()
        self.first_sidecar = ""
        # Of folders that may be sets: what is in them.
        self._inside: dict[str, set[str]] = {}

    def add(self, entries: list[Entry]) -> None:
        kept = []
        labels = []
        for entry in entries:
            parts = entry.path.split("/")
            if any(is_leftover(part) for part in parts if part):
                self.beside += not entry.path.endswith("/")
            elif len(parts) == 1:
                self.beside += 1
            elif is_sidecar(parts[-1]):
                self._add_sidecar(entry.path)
            else:
                number = self.labels.setdefault(parts[0], len(self.labels))
                if parts[0].casefold() in _SET_FOLDERS:
                    inside = self._inside.setdefault(parts[0], set())
                    inside.add(parts[1] if len(parts) > 2 else "")
                if not entry.path.endswith("/"):
                    kept.append(entry)
                    labels.append(number)
        strong = (e.etag if e.etag and not e.etag.startswith("W/") else "" for e in kept)
        self.paths.append(Texts.of(entry.path for entry in kept))
        self.etags.append(Texts.of(strong))
        self.sizes.append(np.array([e.size for e in kept], np.int64))
        self.label.append(np.array(labels, np.int32))
        self.count += len(kept)

    def _add_sidecar(self, path: str) -> None:
        self.first_sidecar = self.first_sidecar or path
        self.sidecars += 1
        self.sidecar_kinds.add("." + path.rsplit(".", 1)[1].casefold())

    def set_folders(self) -> list[str]:
        """Find folders on top that are sets (train, test, ...): the same label folders are in them."""
        inside = {top: names - {""} for top, names in self._inside.items()}
        return sorted(
            top
            for top, names in inside.items()
            if any(names & others for other, others in inside.items() if other != top)
        )

    def nothing(self) -> str:
        if self.sidecars:
            return f"its files are no images, such as {shown(self.first_sidecar)}"
        if self.labels:
            return "all of its label folders are empty"
        if self.beside:
            return "it has files but no label folders"
        return "it is empty"


def _listed(store: Store) -> _Listing:
    listing = _Listing()
    pending: list[Entry] = []
    for entry in store.list():
        pending.append(entry)
        if len(pending) == _CHUNK:
            listing.add(pending)
            pending = []
    listing.add(pending)
    return listing


def _identities(
    store: Store,
    paths: Texts,
    etags: Texts,
    sizes: Longs,
    *,
    log: Callable[[str], None],
    threads: int,
) -> Identities:
    """Identify images by their ETags, or by the bytes of those that have none."""
    raw = bytearray()
    unknown: list[int] = []
    for i, (etag, size) in enumerate(zip(etags, sizes.tolist(), strict=True)):
        raw += identity(etag, size)
        if not etag:
            unknown.append(i)
    identities = np.frombuffer(raw, np.uint8).reshape(-1, IDENTITY_BYTES)
    if unknown:
        log(f"{len(unknown)} images are told apart by their content, so each is read.")

        def read(i: int) -> None:
            try:
                # One that is too large will be rejected by its size, without being read.
                body = store.get(paths[i]) if sizes[i] <= MAX_BYTES else b""
            except (NotFound, UnreadableError):
                body = b""  # rejected by name when its turn comes
            digest = content_identity(body) if body else identity(paths[i], int(sizes[i]))
            identities[i] = np.frombuffer(digest, np.uint8)

        with ThreadPoolExecutor(max(threads, store.parallel)) as pool:
            for start in range(0, len(unknown), _CHUNK):
                for _ in pool.map(read, unknown[start : start + _CHUNK]):
                    pass
    return identities


def _refuse_nested(spec: RetrainJobSpec) -> None:
    """Refuse an output or a cache inside the images, however the place is spelled.

    The API refuses an output whose text says so; a link, a dot or another spelling is looked at here.
    """
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
            url=spec.images, count=len(names), detail=", ".join(names) or "none"
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
    return "; ".join(f"{_listed_names(group)} ({cause})" for cause, group in causes.items())


def _listed_names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


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
