"""A store that is read and not written, for a task that only looks."""

from collections.abc import Iterator, Sequence

from typing_extensions import override

from retrainer_trainer.store.store import Entry, Store


class Unwritten(Store):
    """Another store, of which everything can be read; what is written or deleted is dropped."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.url, self.field, self.parallel = store.url, store.field, store.parallel

    @override
    def list(self, prefix: str = "") -> Iterator[Entry]:
        return self._store.list(prefix)

    @override
    def head(self, path: str) -> Entry:
        return self._store.head(path)

    @override
    def get(self, path: str, if_match: str | None = None) -> bytes:
        return self._store.get(path, if_match)

    @override
    def get_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[bytes]:
        return self._store.get_ranges(path, starts, ends)

    @override
    def put(self, path: str, body: bytes, *, create_only: bool = False) -> bool:
        return True

    @override
    def delete(self, path: str) -> None:
        """Nothing is deleted."""

    @override
    def exists(self, path: str) -> bool:
        return self._store.exists(path)
