"""The SDK's store calls: folders on this machine and in S3, read, listed, downloaded, pruned.

Errors of obstore and boto3 are mapped here to `retrainer.errors`.
"""

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from retrainer.api.v1alpha1 import Storage
from retrainer.errors import BucketNotFound, NotFound, StorageDenied, StorageError, UserError

if TYPE_CHECKING:
    import boto3

ENV_ENDPOINT = "RETRAINER_S3_ENDPOINT"
"""URL of the S3 server as this machine reaches it, where pods use another one."""
_ENV_AWS_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
DEFAULT_REGION = "us-east-1"
PARALLEL = 16
"""Objects fetched at the same time."""
_RETRY_SECONDS = 10


@dataclass(frozen=True)
class Access:
    """How this machine reaches S3.

    Attributes:
        endpoint: URL of the S3 server; instead of the job's own and of the environment's.
        session: whose credentials and region to use; boto3's own search if None.
    """

    endpoint: str | None = None
    session: "boto3.Session | None" = None


@dataclass(frozen=True)
class Entry:
    """One object: its path in the folder, its size in bytes, when it was last written."""

    path: str
    size: int
    modified: datetime


class Folder:
    """A folder of a store: `s3://bucket/prefix`, or a path of this machine."""

    def __init__(
        self, url: str, storage: Storage | None = None, access: Access | None = None
    ) -> None:
        """Nothing is read yet.

        Raises:
            UserError: the URL is of another kind, or there are no credentials.
        """
        self.url = url.rstrip("/") or "/"
        self._place, self._key, self._inside = "", "", False
        parts = urlsplit(url)
        if parts.scheme == "s3":
            self._store = self._s3(parts.netloc, parts.path, storage or Storage(), access)
        elif parts.scheme in {"", "file"}:
            from obstore.store import LocalStore

            path = Path(parts.path if parts.scheme else url).expanduser().absolute()
            self._missing = None if path.is_dir() else path
            self._store = LocalStore(path, mkdir=False) if path.is_dir() else None
            self._place = str(path)
        else:
            raise UserError(f"{url} is neither an s3:// URL nor a path of this machine.")

    def _s3(self, bucket: str, path: str, storage: Storage, access: Access | None) -> Any:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        access = access or Access()
        try:
            session = access.session or boto3.Session()
            provider = Boto3CredentialProvider(session)
            self._key = provider().get("access_key_id", "")
        except BotoCoreError as error:  # a profile that is not there, a login that has expired
            why = str(error).rstrip(".")
            raise UserError(
                f"No S3 credentials to read {self.url} with: {why}; see AWS_PROFILE and ~/.aws."
            ) from error
        except ValueError:
            raise UserError(
                f"No S3 credentials to read {self.url} with: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws in AWS_PROFILE."
            ) from None
        self._missing = None
        endpoint = endpoint_for(storage, access)
        self._place = endpoint or "AWS S3"
        self._inside = bool(endpoint) and endpoint == storage.endpoint
        options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        client: Any = {
            "allow_http": bool(endpoint and endpoint.startswith("http:")),
            "allow_invalid_certificates": storage.insecure,
            "connect_timeout": "5s",
            "timeout": "120s",
        }
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            client["root_certificate"] = Path(bundle).read_bytes()
        return S3Store(
            bucket,
            prefix=path.strip("/") or None,
            region=storage.region or session.region_name or DEFAULT_REGION,
            credential_provider=provider,
            client_options=client,
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
            **options,
        )

    # --- reading ---
    def read(self, path: str) -> bytes:
        """The bytes of one object.

        Raises:
            NotFound: there is no such object.
            StorageDenied, StorageError: the store refused, or cannot be reached.
        """
        import obstore

        with self._mapped(path):
            return bytes(obstore.get(self._open(), path).bytes())

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        import obstore

        try:
            with self._mapped(path):
                obstore.head(self._open(), path)
        except NotFound:
            return False
        return True

    def entries(self, under: str = "") -> list[Entry]:
        """Everything in the folder, or in one of it, sorted by path; paths are relative to it."""
        import obstore

        with self._mapped(under):
            listed = [
                Entry(str(meta["path"]), int(meta["size"]), meta["last_modified"])
                for page in obstore.list(self._open(), prefix=under or None)
                for meta in page
            ]
        return sorted(listed, key=lambda entry: entry.path)

    def folders(self) -> list[str]:
        """Names of the folders directly in it."""
        import obstore

        with self._mapped(""):
            found = obstore.list_with_delimiter(self._open())
        return sorted(str(p).rsplit("/", 1)[-1] for p in found["common_prefixes"])

    def download(self, to: Path, entries: Iterable[Entry]) -> int:
        """Write objects under `to` with the paths they have here; how many bytes.

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
        import obstore

        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part-{os.getpid()}")
        try:
            with self._mapped(entry.path), part.open("wb") as file:
                for piece in obstore.get(self._open(), entry.path).stream():
                    file.write(piece)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    # --- writing ---
    def delete(self, paths: list[str]) -> None:
        """Delete these objects; those that are gone already are no error."""
        import obstore

        with self._mapped(""):
            obstore.delete(self._open(), paths)

    def _open(self) -> Any:
        if self._missing:
            raise NotFound(f"There is no folder {self._missing}.")
        return self._store

    @contextmanager
    def _mapped(self, path: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError
        from obstore import exceptions

        where = f"{self.url}/{path}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket(where) from error
            raise NotFound(f"There is no {where}.") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise StorageDenied(
                f"{self._place} refused to show {where} to access key {self._key or 'none'}"
                f"{_code(error)}: check the credentials and the bucket's policy."
            ) from error
        except PermissionError as error:
            raise StorageDenied(f"No permission to read {error.filename or where}.") from error
        except (exceptions.BaseError, BotoCoreError) as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket(where) from error
            raise StorageError(self._unreachable(where, error)) from error

    def _no_bucket(self, where: str) -> BucketNotFound:
        return BucketNotFound(f"There is no bucket for {where} at {self._place}.")

    def _unreachable(self, where: str, error: Exception) -> str:
        text = str(error)
        why = next((words for sign, words in _SIGNS if sign in text), _innermost(text))
        sentence = f"Cannot read {where} at {self._place}: {why}."
        if not self._inside:
            return sentence
        url = urlsplit(self._place)
        service, _, namespace = (url.hostname or "s3").partition(".")
        port = url.port or (443 if url.scheme == "https" else 80)
        return (
            f"{sentence} If only pods reach that endpoint, forward a port (kubectl port-forward -n "
            f"{namespace.split('.')[0] or 'NAMESPACE'} service/{service} {port}) and set "
            f"{ENV_ENDPOINT}={url.scheme}://localhost:{port}, or give s3_endpoint to Client."
        )


def endpoint_for(storage: Storage, access: Access) -> str | None:
    """URL of the S3 server for this machine; None is AWS.

    The argument, RETRAINER_S3_ENDPOINT, the job's own, then what AWS's tools read.

    Raises:
        UserError: it is not a URL.
    """
    own = (access.endpoint, os.environ.get(ENV_ENDPOINT), storage.endpoint)
    endpoint = next(filter(None, [*own, *map(os.environ.get, _ENV_AWS_ENDPOINTS)]), None)
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise UserError(f"The S3 server's URL must be http(s)://HOST:PORT, got {endpoint!r}.")
    return endpoint


_SIGNS = (
    ("dns error", "its host name is not known on this machine"),
    ("Connection refused", "connection refused"),
    ("timed out", "no answer in time"),
    ("Certificate", "its certificate is not trusted (name its authority's file in AWS_CA_BUNDLE)"),
)


def _innermost(text: str) -> str:
    """The last of the `source` messages that obstore nests."""
    found: list[str] = re.findall(r'"([^"]{4,200})"', text)
    return found[-1] if found else text.splitlines()[0].rpartition(" - ")[2][:200].rstrip(":. ")


def _code(error: Exception) -> str:
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return f" ({found[1]})" if found else ""
