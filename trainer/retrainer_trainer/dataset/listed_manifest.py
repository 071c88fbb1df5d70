"""Lists the images of a job by its manifest."""

from collections.abc import Callable

import numpy as np

from retrainer.api import RetrainJobSpec, reasons
from retrainer.api.layout import parent
from retrainer.errors import NotFound
from retrainer_trainer.arrays import Longs
from retrainer_trainer.dataset.listing import NO_FILE, Listing
from retrainer_trainer.dataset.manifest import MOST_BYTES, BadRow, read
from retrainer_trainer.dataset.matching import match
from retrainer_trainer.dataset.rows import ManifestError
from retrainer_trainer.dataset.texts import Texts, shown
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Entry, Store

_CHUNK = 50_000
_NAMED = 3


def list_manifest(store: Store, spec: RetrainJobSpec, log: Callable[[str], None]) -> Listing:
    """List the images that the rows of `spec.manifest` name.

    Args:
        store: of `spec.images`.
        spec: its split is used where the manifest names no set.
        log: told how many rows there are.

    Raises:
        UserError: the manifest is not there, or is none, or too many of its rows cannot be used.
    """
    url = spec.manifest or ""
    body = _body(spec)
    try:
        manifest = read(body, (store.url, *_spellings(store)))
    except ManifestError as error:
        raise reasons.MANIFEST_UNREADABLE.error(url=url, detail=error) from error
    del body
    paths, etags, sizes = _files(store)
    shares = (spec.split.testing_percentage, spec.split.validation_percentage)
    matched = match(manifest, paths, *shares)
    there = matched.file >= 0
    tags = etags.raw()
    listing = Listing(
        labels=matched.labels,
        paths=matched.paths,
        etags=Texts([tags[i] if i >= 0 else b"" for i in matched.file.tolist()]),
        sizes=_sizes_of(sizes, matched.file),
        label=matched.label,
        sets=matched.sets,
        identities=np.where(there[:, None], np.uint8(0), manifest.identities[matched.row]),
        groups=matched.groups,
        group=matched.group,
        fixed=matched.fixed,
        bad=matched.bad,
    )
    log(f"{len(matched.row)} images of {len(matched.labels)} labels in {url}.")
    if absent := int(listing.absent.sum()):
        log(f"{absent} of them have no file and are looked for in the cache by their identities.")
    return listing


def _spellings(store: Store) -> list[str]:
    """List how an absolute path into the folder of images may begin."""
    root = getattr(store, "root", None)
    return [] if root is None else [str(root.absolute()), str(root.resolve())]


def _body(spec: RetrainJobSpec) -> bytes:
    url = spec.manifest or ""
    folder, name = parent(url)
    store = open_store(folder, spec.storage, "spec.manifest")
    try:
        size = store.head(name).size
        if size > MOST_BYTES:
            detail = f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read"
            raise reasons.MANIFEST_UNREADABLE.error(url=url, detail=detail)
        return store.get(name)
    except NotFound as error:
        raise reasons.MANIFEST_UNREADABLE.error(url=url, detail="there is no such file") from error


def _files(store: Store) -> tuple[Texts, Texts, Longs]:
    """List the files of the folder of images: paths, ETags, sizes."""
    paths: list[Texts] = []
    etags: list[Texts] = []
    sizes: list[Longs] = []
    chunk: list[Entry] = []

    def pack() -> None:
        paths.append(Texts.of(entry.path for entry in chunk))
        etags.append(Texts.of(entry.etag or "" for entry in chunk))
        sizes.append(np.array([entry.size for entry in chunk], np.int64))
        chunk.clear()

    for entry in store.list():
        if not entry.path.endswith("/"):
            chunk.append(entry)
        if len(chunk) == _CHUNK:
            pack()
    pack()
    return Texts.joined(paths), Texts.joined(etags), np.concatenate(sizes)


def _sizes_of(sizes: Longs, file: Longs) -> Longs:
    chosen = np.full(len(file), NO_FILE, np.int64)
    chosen[file >= 0] = sizes[file[file >= 0]]
    return chosen


def rejected_lines(bad: tuple[BadRow, ...]) -> list[tuple[str, str]]:
    """List path and reason of each row that is left out, in the order of their lines."""
    return [(shown(row.path), f"line {row.line} of the manifest: {row.reason}") for row in bad]


def sentence(bad: tuple[BadRow, ...]) -> str:
    """Say which rows are left out, the first of them by number and reason."""
    named = "; ".join(f"line {row.line} ({row.reason})" for row in bad[:_NAMED])
    more = len(bad) - _NAMED
    return f"Rows of the manifest that are left out: {len(bad)}, {named}" + (
        f"; and {more} more in rejected.csv." if more > 0 else "."
    )
