"""Reads the images of a job: as they are now, and once more after the training, to run and show."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from retrainer.errors import NotFound
from retrainer.inference import pixels as images
from retrainer_trainer.arrays import Rows
from retrainer_trainer.dataset.catalog import Catalog
from retrainer_trainer.dataset.identity import content_identity, identity
from retrainer_trainer.dataset.listing import NO_FILE
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import ChangedError, Store, UnreadableError

BATCH = 32
"""Images given to an export at a time."""

_JPEG_QUALITY = 82
# How often an image that is replaced while it is read is read again.
_TRIES = 3
_GONE = "it was listed, but is no longer there"
_ONLY_IN_CACHE = "its file is gone, and the cache has no bottleneck of its identity"


class Batch(NamedTuple):
    """Some images: their rows in the catalog, their pixels (n, size, size, 3)."""

    rows: Rows
    pixels: images.Pixels


class Fetched(NamedTuple):
    """The bytes of an image as it is now.

    Attributes:
        body: empty if it is rejected.
        identity: 16 bytes, if the image was replaced since it was listed; else None.
        rejected: why it cannot be read; None if it can.
    """

    body: bytes
    identity: bytes | None = None
    rejected: str | None = None


def fetch(store: Store, catalog: Catalog, row: int) -> Fetched:
    """Read an image as it is now, with its identity if that is no longer the listed one.

    Raises:
        RetrainerError: the store does not answer, or refuses.
    """
    path, size, etag = catalog.paths[row], int(catalog.sizes[row]), catalog.etags[row]
    listed = catalog.identities[row].tobytes()
    if size == NO_FILE:
        return Fetched(b"", rejected=_ONLY_IN_CACHE)
    try:
        for _ in range(_TRIES):
            if size > images.MAX_BYTES:
                return Fetched(b"", rejected=images.too_large(size))
            try:
                body = store.get(path, etag or None)
            except ChangedError:
                body = None
            if body is not None and (not etag or len(body) == size):
                now = identity(etag, size) if etag else content_identity(body) if body else listed
                return Fetched(body, now if now != listed else None)
            entry = store.head(path)
            size, etag = entry.size, entry.etag or ""
    except UnreadableError as error:
        return Fetched(b"", rejected=str(error))
    except NotFound:
        return Fetched(b"", rejected=_GONE)
    return Fetched(b"", rejected="it is replaced again and again while it is read")


def read(store: Store, catalog: Catalog, row: int) -> bytes | None:
    """Read the image's bytes; None if it was deleted or replaced since it was listed."""
    if catalog.sizes[row] == NO_FILE:
        return None
    try:
        return store.get(catalog.paths[row], catalog.etags[row] or None)
    except (NotFound, ChangedError, UnreadableError):
        return None


def batches(
    store: Store,
    catalog: Catalog,
    rows: Rows,
    side: int,
    make_pixels: Callable[[bytes, int], images.Pixels] = images.pixels,
) -> Iterator[Batch]:
    """Read the images of these rows and decode them on all cores, `BATCH` at a time.

    Those that were replaced or removed since they were listed are left out. Of an image's file nothing
    is kept once it is decoded: 32 files of 36 MB would not fit into a small pod.
    """

    def one(row: int) -> tuple[int, images.Pixels] | None:
        body = read(store, catalog, row)
        try:
            return None if body is None else (row, make_pixels(body, side))
        except images.RejectedError:
            return None

    with ThreadPoolExecutor(max(cores(), store.parallel)) as pool:
        for start in range(0, len(rows), BATCH):
            read_images = [i for i in pool.map(one, rows[start : start + BATCH].tolist()) if i]
            if read_images:
                numbers, pixels = zip(*read_images, strict=True)
                yield Batch(np.array(numbers, np.intp), np.stack(pixels))


def spread(rows: Rows, most: int) -> Rows:
    """Choose at most `most` of the rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.intp)]


def thumbnail(body: bytes | None, side: int) -> bytes | None:
    """Cut the middle square of an image, a JPEG of `side` pixels; None if it cannot be read."""
    try:
        image = images.decoded(body or b"", side)
    except images.RejectedError:
        return None
    least = min(image.shape[:2])
    top, left = (image.shape[0] - least) // 2, (image.shape[1] - least) // 2
    square = np.ascontiguousarray(image[top : top + least, left : left + least])
    small = cv2.cvtColor(images.resized(square, side, side), cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return jpeg.tobytes() if done else None


def thumbnails(
    store: Store, catalog: Catalog, rows: Sequence[int], side: int
) -> list[bytes | None]:
    """Make a thumbnail of each row's image."""
    with ThreadPoolExecutor(max(cores(), store.parallel)) as pool:
        return list(pool.map(lambda row: thumbnail(read(store, catalog, row), side), rows))
