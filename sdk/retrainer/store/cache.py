"""Lists what a bottleneck cache holds, and deletes what is old."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from retrainer.api import Storage
from retrainer.api.layout import (
    BACKBONE_PREFIX,
    INDEX_CHECK_BYTES,
    INDEX_HEADER_BYTES,
    INDEX_RECORD_BYTES,
    INDEX_SUFFIX,
    NETWORK_PREFIX,
    SEGMENT_SUFFIX,
    SEGMENTS,
)
from retrainer.store.folder import Entry, Folder
from retrainer.store.s3 import Access


@dataclass(frozen=True)
class Part:
    """The bottlenecks of one fingerprint (network, weights, preprocessing), or some of them.

    Attributes:
        fingerprint: name of its folder.
        segments: number of segments.
        bottlenecks: in all of them; one that two jobs computed at the same time counts twice.
        size: bytes, indexes and the network included.
        oldest, newest: when the first and the last segment were written.
        networks: whose bottlenecks they are; none in a cache of an older version.
    """

    fingerprint: str
    segments: int
    bottlenecks: int
    size: int
    oldest: datetime
    newest: datetime
    networks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give a JSON-ready dict."""
        times = {"oldest": self.oldest.isoformat(), "newest": self.newest.isoformat()}
        return {**vars(self), **times, "networks": list(self.networks)}


@dataclass(frozen=True)
class Pruned:
    """The numbers of segments, bottlenecks and bytes that `prune` deleted or would delete."""

    segments: int
    bottlenecks: int
    size: int


class Cache:
    """The cache at a URL or path; every method lists it again."""

    def __init__(
        self, url: str, storage: Storage | None = None, access: Access | None = None
    ) -> None:
        self._folder = Folder(url, storage, access)

    def parts(self) -> list[Part]:
        """List what it holds, by fingerprint.

        Raises:
            NotFound, StorageDenied, StorageError: it cannot be listed.
        """
        by_fingerprint: dict[str, list[Entry]] = {}
        for entry in self._folder.entries():
            fingerprint, _, rest = entry.path.partition("/")
            if rest.startswith((f"{SEGMENTS}/", BACKBONE_PREFIX, NETWORK_PREFIX)):
                by_fingerprint.setdefault(fingerprint, []).append(entry)
        return [_part(name, entries) for name, entries in by_fingerprint.items()]

    def prune(self, older_than: timedelta, *, dry_run: bool = False) -> Pruned:
        """Delete the segments that were written longer ago than that.

        Safe while jobs run: an index is deleted before its segment, so that no other job finds the
        segment, and a job that has read the index computes again what it misses.
        """
        before = datetime.now(UTC) - older_than
        entries = {e.path: e for e in self._folder.entries() if f"/{SEGMENTS}/" in f"/{e.path}"}
        old = [
            e for e in entries.values() if e.path.endswith(SEGMENT_SUFFIX) and e.modified < before
        ]
        indexes = [i for e in old if (i := entries.get(_index_of(e.path)))]
        if not dry_run:
            self._folder.delete([e.path for e in indexes])
            self._folder.delete([e.path for e in old])
        return Pruned(len(old), sum(map(_rows, indexes)), sum(e.size for e in [*old, *indexes]))


def _part(fingerprint: str, entries: list[Entry]) -> Part:
    segments = [e for e in entries if e.path.endswith(SEGMENT_SUFFIX)]
    times = [e.modified for e in segments] or [e.modified for e in entries]
    rows = sum(_rows(e) for e in entries if e.path.endswith(INDEX_SUFFIX))
    size = sum(e.size for e in entries)
    names = [e.path.partition("/")[2] for e in entries]
    networks = tuple(
        name.removeprefix(NETWORK_PREFIX) for name in names if name.startswith(NETWORK_PREFIX)
    )
    return Part(fingerprint, len(segments), rows, size, min(times), max(times), networks)


def _rows(index: Entry) -> int:
    rows = index.size - INDEX_HEADER_BYTES - INDEX_CHECK_BYTES
    return max(0, rows) // INDEX_RECORD_BYTES


def _index_of(segment: str) -> str:
    return segment.removesuffix(SEGMENT_SUFFIX) + INDEX_SUFFIX
