"""A bucket of an S3-compatible store, by obstore (boto3 for credentials and for odd keys)."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import botocore.exceptions
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PreconditionError,
)
from typing_extensions import override

from retrainer.api import Storage, reasons
from retrainer.errors import NotFound, RetrainerError, StorageError, UserError
from retrainer.store import s3
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.store import ChangedError, Entry, Log, Store, UnreadableError

T = TypeVar("T")

# A wrong endpoint is reported in under 30 s: two tries, each with up to 10 s until the first byte.
FIRST_PATIENCE_S = 12.0
# A server that has answered before may be restarting: it is given two minutes.
LATER_PATIENCE_S = 120.0
# After a SIGTERM a pod has 30 s by default. One of its threads may still have to wait for two requests,
# each up to 10 s without an answer; with this patience both have ended by then.
STOPPED_PATIENCE_S = 5.0
_CONNECT_S = 5
# Without a byte for so long, a server counts as silent. Of a request that sends much, an answer can come
# only when all is sent: it is given as long as a line of this speed takes. At 50 kB/s, which is the
# slowest that is promised, a segment of 8 MB is sent in 160 s.
_READ_S = 10
_SLOWEST_BYTES_PER_S = 25_000
# An answer that goes on is waited for this long: at 50 kB/s that 16 reads share, 11 MB each.
_REQUEST_S = 3600
_PAUSE_S = (0.2, 2.0)
_MULTIPART_BYTES = 64 * 1024 * 1024
# Ranges nearer than this are fetched together: at 100 MB/s the gap takes 2.5 ms, about one request.
_GAP_BYTES = 256 * 1024
_PARALLEL = 16

_ODD_KEY = re.compile(r"[\x00-\x1f\x7f]|//|^/|(^|/)\.{1,2}(/|$)")

_LIBRARY_ERRORS = (
    BaseError,
    OSError,
    ValueError,
    RecursionError,  # boto3 raises it where a server redirects to itself
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
)

_reached: set[str] = set()
_reached_lock = threading.Lock()


class S3Store(Store):
    """Objects of one bucket, under the prefix that the URL names."""

    parallel = _PARALLEL

    def __init__(
        self,
        url: str,
        storage: Storage,
        field: str,
        log: Log | None = None,
        stop: Stop | None = None,
    ) -> None:
        parts = urlsplit(url)
        if not parts.netloc:
            raise UserError(f"{field}: {url} names no bucket.", reason="InvalidSpec")
        self.url, self.field, self.bucket = url, field, parts.netloc
        prefix = url.split("://", 1)[1][len(parts.netloc) :].strip("/")
        self._prefix = prefix + "/" if prefix else ""
        self._log = log or (lambda _text: None)
        self._stop = stop or Stop()
        self._server = s3.Server(storage)
        self._store = self._open(_READ_S)
        self._patient_stores: dict[int, obstore.store.S3Store] = {}
        self._accepted = False

    @property
    def endpoint(self) -> str:
        """The URL of the server, for messages."""
        return self._server.endpoint

    def _open(self, read_seconds: int) -> obstore.store.S3Store:
        # Retries are this class's own: obstore's cannot tell a first contact from a later one.
        return self._server.open(
            self.bucket,
            client={
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "read_timeout": timedelta(seconds=read_seconds),
                "timeout": timedelta(seconds=_REQUEST_S),
                "pool_max_idle_per_host": str(_PARALLEL * 2),
            },
            retries={"max_retries": 0},
        )

    def _store_for(self, sent_bytes: int) -> obstore.store.S3Store:
        """Give the client for sending so much: one whose patience is enough on a slow line."""
        seconds = _READ_S
        # Doubled, so that few clients are opened. After a SIGTERM there is no time to wait for.
        while seconds * _SLOWEST_BYTES_PER_S < sent_bytes and not self._stop.asked:
            seconds *= 2
        if seconds == _READ_S:
            return self._store
        if seconds not in self._patient_stores:
            self._patient_stores[seconds] = self._open(seconds)
        return self._patient_stores[seconds]

    @cached_property
    def _boto(self) -> Any:
        return self._server.boto_client(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_PARALLEL,
        )

    # --- reading ---
    @override
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects with obstore, or with boto3 where it refuses one of the keys."""
        below = (self._prefix + prefix.strip("/")).rstrip("/")
        stream: Any = None
        last: str | None = None

        def step() -> Any:
            # A stream that failed once claims to be at its end: begin a new one after the last key.
            nonlocal stream
            if stream is None:
                stream = iter(
                    obstore.list(self._store, below or None, offset=last, chunk_size=1000)
                )
            try:
                return next(stream, None)
            except BaseException:
                stream = None
                raise

        count = 0
        try:
            while chunk := self._call("list", "", step):
                for meta in chunk:
                    count += 1
                    last = meta["path"]
                    entry = Entry(
                        self._relative(meta["path"]), meta["size"], _strong(meta["e_tag"])
                    )
                    # Size 0 may be that of a folder's marker, whose closing slash obstore takes away.
                    yield entry if entry.size else self._marker(entry)
        except InvalidPathError:
            yield from self._list_by_boto(f"{below}/" if below else "", skip=count)

    def _list_by_boto(self, prefix: str, skip: int) -> Iterator[Entry]:
        more: dict[str, str] = {}
        while True:
            ask = partial(self._boto.list_objects_v2, Bucket=self.bucket, Prefix=prefix, **more)
            page = self._call("list", "", ask)
            for item in page.get("Contents", ()):
                if skip > 0:  # obstore gave it already: both list in the order of the keys
                    skip -= 1
                    continue
                yield Entry(self._relative(item["Key"]), item["Size"], _strong(item.get("ETag")))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    @override
    def head(self, path: str) -> Entry:
        if _ODD_KEY.search(path):
            answer = self._call("read", path, lambda: self._boto.head_object(
                Bucket=self.bucket, Key=self._prefix + path
            ))  # fmt: skip
            return Entry(path, answer["ContentLength"], _strong(answer.get("ETag")))
        meta = self._call("read", path, lambda: obstore.head(self._store, self._prefix + path))
        return Entry(path, meta["size"], _strong(meta["e_tag"]))

    @override
    def get(self, path: str, if_match: str | None = None) -> bytes:
        key = self._prefix + path
        if _ODD_KEY.search(path):
            return self._call("read", path, lambda: self._get_by_boto(key, if_match))
        options: Any = {"if_match": if_match} if if_match else None
        return self._call(
            "read", path, lambda: bytes(obstore.get(self._store, key, options=options).bytes())
        )

    def _get_by_boto(self, key: str, if_match: str | None) -> bytes:
        match = {"IfMatch": if_match} if if_match else {}
        answer = self._boto.get_object(Bucket=self.bucket, Key=key, **match)
        return bytes(answer["Body"].read())

    @override
    def get_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[bytes]:
        """Read the ranges; near ones in one request, several requests at a time."""
        if not starts:
            return []
        order = sorted(range(len(starts)), key=starts.__getitem__)
        groups: list[list[int]] = [[order[0]]]
        reach = ends[order[0]]
        for i in order[1:]:
            if starts[i] - reach > _GAP_BYTES:
                groups.append([])
            groups[-1].append(i)
            reach = max(reach, ends[i])
        key = self._prefix + path
        bodies: list[bytes] = [b""] * len(starts)

        def fetch(group: list[int]) -> None:
            low, high = starts[group[0]], max(ends[i] for i in group)
            body = memoryview(self._call(
                "read", path, lambda: obstore.get_range(self._store, key, start=low, end=high)
            ))  # fmt: skip
            for i in group:
                bodies[i] = bytes(body[starts[i] - low : ends[i] - low])

        if len(groups) == 1:
            fetch(groups[0])
        else:
            with ThreadPoolExecutor(min(_PARALLEL, len(groups))) as pool:
                for _ in pool.map(fetch, groups):
                    pass
        return bodies

    @override
    def exists(self, path: str) -> bool:
        try:
            self.head(path)
        except NotFound:
            return False
        return True

    # --- writing ---
    @override
    def put(self, path: str, body: bytes, *, create_only: bool = False) -> bool:
        """Write the object; `create_only` is sent to the server as If-None-Match."""
        key = self._prefix + path
        try:
            self._call("write", path, lambda: obstore.put(
                self._store_for(len(body)),
                key,
                body,
                mode="create" if create_only else "overwrite",
                use_multipart=len(body) > _MULTIPART_BYTES and not create_only,
            ))  # fmt: skip
        except ChangedError:
            return False
        return True

    @override
    def delete(self, path: str) -> None:
        self._call("delete", path, lambda: obstore.delete(self._store, self._prefix + path))

    # --- errors ---
    def _relative(self, key: str) -> str:
        return key.removeprefix(self._prefix)

    def _marker(self, entry: Entry) -> Entry:
        """Give a listed object its closing slash back if it is a folder's marker."""
        key = self._prefix + entry.path
        answer = self._call("list", "", lambda: self._boto.list_objects_v2(
            Bucket=self.bucket, Prefix=key, MaxKeys=1
        ))  # fmt: skip
        keys = [item["Key"] for item in answer.get("Contents", ())]
        return entry if key in keys else entry._replace(path=entry.path + "/")

    def _call(self, verb: str, path: str, operation: Callable[[], T]) -> T:
        """Run the operation; a failure that may pass is tried again within the patience above."""
        begun, pause, logged = time.monotonic(), _PAUSE_S[0], False
        while True:
            try:
                result = operation()
            except _LIBRARY_ERRORS as error:
                if isinstance(error, InvalidPathError):
                    raise
                fault = self._fault(error, verb, path)
                if not isinstance(fault, StorageError):
                    raise fault from error
                has_answered = self.endpoint in _reached
                waited = time.monotonic() - begun
                patience = LATER_PATIENCE_S if has_answered else FIRST_PATIENCE_S
                if self._stop.asked:
                    patience = STOPPED_PATIENCE_S
                if waited + pause > patience:
                    raise fault from error
                if has_answered and not logged and not self._stop.asked:
                    self._log(f"{self.endpoint} does not answer; trying again for "
                                 f"{LATER_PATIENCE_S:.0f} s.")  # fmt: skip
                    logged = True
                time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                pause = min(pause * 2, _PAUSE_S[1])
            else:
                with _reached_lock:
                    _reached.add(self.endpoint)
                self._accepted = True
                return result

    def _fault(  # noqa: PLR0911 - a flat list, one kind of answer after the other
        self, error: Exception, verb: str, path: str
    ) -> RetrainerError | ChangedError | UnreadableError:
        failure = s3.failure(error)
        status = failure.status
        if isinstance(error, (PreconditionError, AlreadyExistsError)) or status == 412:
            return ChangedError(path)
        if failure.code == "NoSuchBucket":
            return reasons.BUCKET_NOT_FOUND.error(
                bucket=self.bucket, field=self.field, endpoint=self.endpoint
            )
        if failure.denied:
            return self._denied(failure, verb)
        if isinstance(error, FileNotFoundError) or (path and status == 404):
            self._accepted = True
            return NotFound(f"{self.url.rstrip('/')}/{path} does not exist.")
        if status is not None and 300 <= status < 500 and status not in (408, 429):
            return UserError(
                f"{self.endpoint} ({self.field}) answers {status}: {failure.cause}; check "
                f"storage.endpoint, storage.region and {self.url}.",
                reason=reasons.STORAGE_UNAVAILABLE.name,
            )
        if isinstance(error, ValueError) and not isinstance(error, BaseError):
            return UnreadableError("the store refuses this name")
        return reasons.STORAGE_UNAVAILABLE.error(endpoint=self.endpoint, detail=failure.cause)

    def _denied(self, failure: s3.Failure, verb: str) -> RetrainerError:
        """Make the error of a refusal, to be tried again if the keys were changed meanwhile."""
        denied: dict[str, str] = {"endpoint": self.endpoint, "bucket": self.bucket,
                                  "field": self.field, "key": self._server.key}  # fmt: skip
        cause = f"{failure.cause} (to {verb} it)"
        if self._accepted and not failure.by_policy:
            # Another pod reads the Secret anew; this one has the keys that it was started with.
            cause += "; it took this key before, so the keys were changed meanwhile"
            text = reasons.STORAGE_DENIED(**denied, detail=cause)
            return RetrainerError(text, reason=reasons.STORAGE_DENIED.name)
        return reasons.STORAGE_DENIED.error(**denied, detail=cause)


def _strong(etag: str | None) -> str | None:
    """Give an ETag that tells one content from another; None for a weak one and one without a letter."""
    return None if not etag or etag.startswith("W/") or not etag.strip('"') else etag
