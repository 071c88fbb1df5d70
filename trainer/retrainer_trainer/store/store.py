"""The layer between the trainer and its files, which lie in a local folder or in S3.

Paths are relative to the store's URL, with `/` between their parts. Every error of a library is
mapped here (and in the two files below) to `retrainer.errors`, with the cause kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

Log = Callable[[str], None]


class Entry(NamedTuple):
    """One listed object.

    A path that ends in `/` is a folder that the listing showed by itself; `etag` is None where the
    store gives none that tells one content from another, and for local files.
    """

    path: str
    size: int
    etag: str | None


class ChangedError(Exception):
    """The object is no longer the one that was listed (If-Match failed)."""


class UnreadableError(Exception):
    """This one object cannot be read, whatever is tried; the message says why."""


class Store(ABC):
    """Files under one URL. All methods may be called from several threads at the same time.

    Attributes:
        url: as given.
        field: the field of the spec that named it, for messages.
        parallel: how many reads to keep under way; 1 where a read does not wait for a network.
    """

    url: str
    field: str
    parallel: int = 1

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """List every object under `prefix`, at any depth, in no particular order.

        Raises:
            NotFound: the bucket, or the local folder, does not exist.
            StorageDenied, StorageError: see `get`.
        """

    @abstractmethod
    def head(self, path: str) -> Entry:
        """Read path, size and ETag of the object as it is now.

        Raises:
            NotFound: there is none.
        """

    @abstractmethod
    def get(self, path: str, if_match: str | None = None) -> bytes:
        """Read the whole object.

        Raises:
            NotFound: there is none.
            ChangedError: its ETag is no longer `if_match`.
            UnreadableError: this object alone cannot be read (a local file's permissions).
            StorageDenied: the credentials do not allow it.
            StorageError: the store does not answer.
        """

    @abstractmethod
    def get_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[bytes]:
        """Read the bytes from each start (included) to each end (excluded)."""

    @abstractmethod
    def put(self, path: str, body: bytes, *, create_only: bool = False) -> bool:
        """Write the object, whole or not at all.

        Returns:
            False if `create_only` and it existed; it is then left as it was.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete the object; it is no error if there is none."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Say whether there is such an object."""

    def put_file(self, local: Path, path: str) -> None:
        """Copy a local file to `path`."""
        self.put(path, local.read_bytes())

    def put_folder(self, local: Path, prefix: str) -> None:
        """Copy every file below the local folder `local` to under `prefix`, several at a time."""
        files = sorted(p for p in local.rglob("*") if p.is_file())
        paths = [f"{prefix}/{f.relative_to(local).as_posix()}".lstrip("/") for f in files]
        with ThreadPoolExecutor(self.parallel) as pool:
            for _ in pool.map(self.put_file, files, paths):
                pass
