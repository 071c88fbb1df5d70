"""The images of a job: where they are, which label and set each has, and what identifies it."""

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from retrainer.api import RetrainJobSpec, reasons
from retrainer.errors import NotFound
from retrainer.inference.pixels import MAX_BYTES
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.identity import (
    IDENTITY_BYTES,
    Identities,
    content_identity,
    identity,
    same,
)
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import Entry, Store, UnreadableError

# Under this many images a label's accuracy says little (retrain.py warns at the same number).
SMALL_LABEL = 20
_CHUNK = 50_000
_NAMED = 5
_IGNORED = {"Thumbs.db", "desktop.ini", "__MACOSX"}

Bools = npt.NDArray[np.bool_]


class Texts(Sequence[str]):
    """Many strings in little memory: one block of bytes and where each ends."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self._block = b"".join(values)
        self._ends = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=self._ends[1:])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return _text(self._block[self._ends[index] : self._ends[index + 1]])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            ends = self._ends[start : start + _CHUNK + 1].tolist()
            for low, high in pairwise(ends):
                yield _text(self._block[low:high])

    def raw(self) -> list[bytes]:
        """The same as bytes of UTF-8."""
        return [self._block[low:high] for low, high in pairwise(self._ends.tolist())]


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def shown(path: str) -> str:
    """`path` on one line: control characters and bytes that are no UTF-8 as escapes."""
    safe = path.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


@dataclass(frozen=True)
class Catalog:
    """The listed images, N of them, in the order of their paths (as bytes of UTF-8).

    Attributes:
        labels: names of the label folders, sorted.
        paths: N paths relative to `spec.images`.
        etags: N ETags to send as If-Match; empty where the store gives none that is strong.
        sizes: (N,) bytes, as listed.
        identities: (N, 16) what each image's content is known by.
        label: (N,) index into `labels`.
        sets: (N,) split.TRAINING, VALIDATION or TESTING.
        warnings: sentences for people.
    """

    labels: tuple[str, ...]
    paths: Texts
    etags: Texts
    sizes: npt.NDArray[np.int64]
    identities: Identities
    label: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int8]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def duplicates(self) -> list[npt.NDArray[np.int64]]:
        """Groups of images that are the same under several paths, each group ascending."""
        return same(self.identities)


def list_catalog(
    store: Store, spec: RetrainJobSpec, log: Callable[[str], None], *, threads: int | None = None
) -> Catalog:
    """List the images of a job and put each into its label and its set.

    The first folder of a path is the label; images may lie deeper. Files beside the label folders,
    and hidden ones, are left out.

    Args:
        store: of `spec.images`.
        spec: its split is used.
        log: told what was found.
        threads: that read the images where the listing has no ETags; all cores if not given.

    Raises:
        UserError: no such folder or bucket, no image, fewer than two labels, or a label without a
            training image; the message says which.
    """
    _refuse_nested(spec)
    found = _listed(store)
    names = sorted(found.labels)
    if not found.count:
        raise reasons.NO_IMAGES.error(url=spec.images, detail=found.nothing())
    raw = [path for chunk in found.paths for path in chunk.raw()]
    order = sorted(range(len(raw)), key=raw.__getitem__)
    texts = Texts([raw[i] for i in order])
    raw = [etag for chunk in found.etags for etag in chunk.raw()]
    tags = Texts([raw[i] for i in order])
    del raw
    places = np.array(order)
    sizes = np.concatenate(found.sizes)[places]
    index = {name: i for i, name in enumerate(names)}
    to_sorted = np.array([index[name] for name in found.labels], np.int32)
    label = to_sorted[np.concatenate(found.label)[places]]
    sets = split.assign(texts, spec.split.testing_percentage, spec.split.validation_percentage)
    log(f"{len(sizes)} images of {len(names)} labels under {spec.images}.")
    if found.beside:
        log(f"{found.beside} files are left out: hidden, or beside the label folders.")
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
    """What was listed so far, in compact pieces."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.paths: list[Texts] = []
        self.etags: list[Texts] = []
        self.sizes: list[npt.NDArray[np.int64]] = []
        self.label: list[npt.NDArray[np.int32]] = []
        self.count = 0
        self.beside = 0

    def add(self, entries: list[Entry]) -> None:
        kept = []
        labels = []
        for entry in entries:
            parts = entry.path.split("/")
            if any(p.startswith(".") or p in _IGNORED for p in parts):
                self.beside += not entry.path.endswith("/")
            elif len(parts) == 1:
                self.beside += 1
            else:
                number = self.labels.setdefault(parts[0], len(self.labels))
                if not entry.path.endswith("/"):
                    kept.append(entry)
                    labels.append(number)
        strong = (e.etag if e.etag and not e.etag.startswith("W/") else "" for e in kept)
        self.paths.append(_compact(e.path for e in kept))
        self.etags.append(_compact(strong))
        self.sizes.append(np.array([e.size for e in kept], np.int64))
        self.label.append(np.array(labels, np.int32))
        self.count += len(kept)

    def nothing(self) -> str:
        if self.labels:
            return "all of its label folders are empty"
        if self.beside:
            return "it has files but no label folders"
        return "it is empty"


def _listed(store: Store) -> _Listing:
    found = _Listing()
    pending: list[Entry] = []
    for entry in store.list():
        pending.append(entry)
        if len(pending) == _CHUNK:
            found.add(pending)
            pending = []
    found.add(pending)
    return found


def _compact(texts: Iterable[str]) -> Texts:
    return Texts([t.encode(errors="surrogateescape") for t in texts])


def _identities(
    store: Store,
    paths: Texts,
    etags: Texts,
    sizes: npt.NDArray[np.int64],
    *,
    log: Callable[[str], None],
    threads: int,
) -> Identities:
    """By the ETags, or by the bytes of images that have none."""
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
            known = content_identity(body) if body else identity(paths[i], int(sizes[i]))
            identities[i] = np.frombuffer(known, np.uint8)

        with ThreadPoolExecutor(max(threads, store.parallel)) as pool:
            for start in range(0, len(unknown), _CHUNK):
                for _ in pool.map(read, unknown[start : start + _CHUNK]):
                    pass
    return identities


def _refuse_nested(spec: RetrainJobSpec) -> None:
    """For the output, the API says so itself."""
    if (spec.cache_url.rstrip("/") + "/").startswith(spec.images.rstrip("/") + "/"):
        raise reasons.INVALID_SPEC.error(
            detail=f"spec.cache: {spec.cache_url} lies inside spec.images ({spec.images}), where its "
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
    names = [shown(name) for name in catalog.labels]
    if len(names) < 2:
        raise reasons.TOO_FEW_LABELS.error(
            url=spec.images, count=len(names), detail=", ".join(names) or "none"
        )
    counts = np.zeros((3, len(names)), np.int64)
    np.add.at(counts, (catalog.sets[usable], catalog.label[usable]), 1)
    total = counts.sum(0)
    for i in np.flatnonzero(counts[split.TRAINING] == 0):
        listed = int((catalog.label == i).sum())
        if not listed:
            detail = "the folder is empty"
        elif not total[i]:
            detail = f"none of its {listed} files can be read as an image"
        else:
            detail = f"all of its {total[i]} images fall into the validation and test sets"
        raise reasons.LABEL_WITHOUT_TRAINING.error(label=names[i], detail=detail)
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


def _alike(names: list[str]) -> list[str]:
    seen: dict[str, str] = {}
    warnings = []
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            warnings.append(
                f"Labels {seen[key]} and {name} differ only in case or accents' encoding; "
                "they are kept apart."
            )
        seen[key] = name
    return warnings


def _some(names: list[str], which: npt.NDArray[np.intp]) -> str:
    listed = ", ".join(names[i] for i in which[:_NAMED])
    more = len(which) - _NAMED
    return listed + (f" and {more} more" if more > 0 else "")


def duplicates_csv(catalog: Catalog) -> str:
    """Content of duplicates.csv: a row per path, rows of the same image with the same identity."""
    return _csv(
        ("identity", "path", "label", "set"),
        (
            (
                catalog.identities[i].tobytes().hex(),
                shown(catalog.paths[int(i)]),
                shown(catalog.labels[catalog.label[i]]),
                split.SETS[catalog.sets[i]],
            )
            for group in catalog.duplicates()
            for i in group
        ),
    )


def rejected_csv(catalog: Catalog, rejected: dict[int, str]) -> str:
    """Content of rejected.csv: path (escaped) and reason of each rejected image, in path order."""
    rows = ((shown(catalog.paths[i]), rejected[i]) for i in sorted(rejected))
    return _csv(("path", "reason"), rows)


def _csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
