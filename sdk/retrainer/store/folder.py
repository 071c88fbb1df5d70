"""Reads, lists, downloads and prunes folders on this machine and in S3, for the SDK.

Errors of obstore are mapped here to `retrainer.errors`.
"""

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from retrainer.api.v1alpha1 import Storage
from retrainer.errors import (
    BucketNotFound,
    NotFound,
    RetrainerError,
    StorageDenied,
    StorageError,
    UserError,
)
from retrainer.store import s3
from retrainer.store.s3 import ENV_ENDPOINT, Access

PARALLEL = 16
"""Objects fetched at the same time."""
_RETRY_SECONDS = 10


@dataclass(frozen=True)
class Entry:
    """One object: its path in the folder, its size in bytes, when it was last written."""

    path: str
    size: int
    modified: datetime


class _Place(Protocol):
    """The disk or the bucket that a folder is in."""

    def open(self) -> Any:
        """Give obstore's store of the folder."""

    def fault(self, error: Exception, where: str) -> RetrainerError:
        """Say what an error of obstore at `where` means."""


class _OnDisk:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> Any:
        from obstore.store import LocalStore

        if not self._path.is_dir():
            raise NotFound(f"There is no folder {self._path}.")
        return LocalStore(self._path, mkdir=False)

    def fault(self, error: Exception, where: str) -> RetrainerError:
        if isinstance(error, FileNotFoundError):
            return NotFound(f"There is no {where}.")
        number = re.search(r"os error (\d+)", str(error))
        cause = os.strerror(int(number[1])) if number else "it is damaged or changed meanwhile"
        kind = StorageDenied if "ermission denied" in cause else StorageError
        return kind(f"Cannot read {where}: {cause}.")


class _InS3:
    def __init__(self, bucket: str, prefix: str, storage: Storage, access: Access | None) -> None:
        self._server = s3.Server(storage, access)
        self._for_pods = self._server.given is not None and self._server.given == storage.endpoint
        self._store = self._server.open(
            bucket,
            prefix=prefix.strip("/") or None,
            # An hour for an answer that goes on: at 50 kB/s an export of 90 MB takes half of it.
            client={"connect_timeout": "5s", "read_timeout": "30s", "timeout": "1h"},
            retries={"max_retries": 4, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        )

    def open(self) -> Any:
        return self._store

    def fault(self, error: Exception, where: str) -> RetrainerError:
        from botocore.exceptions import BotoCoreError

        endpoint = self._server.endpoint
        if isinstance(error, BotoCoreError):  # a login that has expired since
            return UserError(
                "The S3 credentials can no longer be read; see AWS_PROFILE and ~/.aws."
            )
        failure = s3.failure(error)
        if failure.code == "NoSuchBucket":
            return BucketNotFound(f"There is no bucket for {where} at {endpoint}.")
        if isinstance(error, FileNotFoundError):
            return NotFound(f"There is no {where}.")
        if failure.denied:
            return StorageDenied(
                f"{endpoint} refused to show {where} to access key {self._server.key} "
                f"({failure.cause}): {self._advice()}."
            )
        return StorageError(f"Cannot read {where} at {endpoint}: {failure.cause}.{self._forward()}")

    def _advice(self) -> str:
        if self._server.key != s3.NO_KEY:
            return "check the credentials and the bucket's policy"
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws in "
            "AWS_PROFILE"
        )

    def _forward(self) -> str:
        """Tell how to reach an endpoint that may be one for pods only."""
        if not self._for_pods:
            return ""
        url = urlsplit(self._server.endpoint)
        service, _, namespace = (url.hostname or "s3").partition(".")
        if not namespace or ":" in service or service.isdecimal():  # localhost, or an address
            return ""
        port = url.port or (443 if url.scheme == "https" else 80)
        return (
            f" If only pods reach that endpoint, forward a port (kubectl port-forward -n "
            f"{namespace.split('.')[0]} service/{service} {port}) and set "
            f"{ENV_ENDPOINT}={url.scheme}://localhost:{port}."
        )


class Folder:
    """A folder of a store: `s3://bucket/prefix`, or a path of this machine."""

    def __init__(
        self, url: str, storage: Storage | None = None, access: Access | None = None
    ) -> None:
        """Name the folder; nothing is read yet.

        Raises:
            UserError: the URL is of another kind, or the credentials that are named cannot be read.
        """
        if not isinstance(url, str):
            raise TypeError(f"Give a path or URL as a text, not {url!r}.")
        self.url = url.rstrip("/") or "/"
        parts = urlsplit(url)
        self._place: _Place
        if parts.scheme == "s3":
            self._place = _InS3(parts.netloc, parts.path, storage or Storage(), access)
        elif parts.scheme in {"", "file"}:
            path = parts.path if parts.scheme else url
            self._place = _OnDisk(Path(path).expanduser().absolute())
        else:
            raise UserError(f"{url} is neither an s3:// URL nor a path of this machine.")

    # --- reading ---
    def read(self, path: str) -> bytes:
        """Read the bytes of one object.

        Raises:
            NotFound: there is no such object.
            BucketNotFound: there is no such bucket.
            StorageDenied, StorageError: the store refused, or cannot be reached.
        """
        import obstore

        with self._mapped(path):
            return bytes(obstore.get(self._place.open(), path).bytes())

    def exists(self, path: str) -> bool:
        """Say whether there is such an object."""
        import obstore

        try:
            with self._mapped(path):
                obstore.head(self._place.open(), path)
        except NotFound:
            return False
        return True

    def entries(self, under: str = "") -> list[Entry]:
        """List everything in the folder, or in one of it, by path; paths are relative to it."""
        import obstore

        with self._mapped(under):
            entries = [
                Entry(str(meta["path"]), int(meta["size"]), meta["last_modified"])
                for page in obstore.list(self._place.open(), prefix=under or None)
                for meta in page
            ]
        return sorted(entries, key=lambda entry: entry.path)

    def folders(self) -> list[str]:
        """List the names of the folders directly in it."""
        import obstore

        with self._mapped(""):
            listing = obstore.list_with_delimiter(self._place.open())
        return sorted(str(p).rsplit("/", 1)[-1] for p in listing["common_prefixes"])

    def download(self, to: Path, entries: Iterable[Entry]) -> int:
        """Write objects under `to` with the paths they have here; returns how many bytes.

        Each appears under its name only when it is whole.
        """
        chosen = list(entries)
        root = to.resolve()
        for entry in chosen:
            if not (root / entry.path).resolve().is_relative_to(root):
                raise UserError(f"{self.url} holds {entry.path!r}, which leads out of {to}.")
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda entry: self._fetch(entry, root / entry.path), chosen))
        return sum(entry.size for entry in chosen)

    def _fetch(self, entry: Entry, target: Path) -> None:
        part = target.with_name(f"{target.name}.part-{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    file.writelines(self._pieces(entry.path))
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write {target}: {error.strerror}.") from error

    def _pieces(self, path: str) -> Iterator[Any]:
        import obstore

        with self._mapped(path):
            yield from obstore.get(self._place.open(), path).stream()

    # --- writing ---
    def delete(self, paths: list[str]) -> None:
        """Delete these objects; those that are gone already are no error."""
        import obstore

        with self._mapped(""):
            obstore.delete(self._place.open(), paths)

    @contextmanager
    def _mapped(self, path: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError
        from obstore import exceptions

        try:
            yield
        except (exceptions.BaseError, BotoCoreError, FileNotFoundError) as error:
            raise self._place.fault(error, f"{self.url}/{path}".rstrip("/")) from error
