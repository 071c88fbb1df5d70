"""One kind of object in one namespace: listed once, then watched in short rounds that overlap.

A round lasts some seconds, and each begins where the one before it began, not where it ended: an event
that one round lost comes again with the next, and what came already is told by its bytes. A watch that
has gone silent ends with its round, since the API server ends each with a bookmark. So whatever happens
to one watch is mended within two rounds, at three requests in six seconds, without a list.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError, Kube
from retrainer_operator.watching.intake import CHILDREN, RETRAINJOBS, Intake, Kind

ROUND = 6
"""Seconds of a watch; two seconds before its end the API server says how far it is."""
_SLACK = 2.0
"""Seconds after a round's time at which a watch that has not ended is given up."""
_FIRST_RETRY = 0.25
_LAST_RETRY = 5.0
_RETRY_AFTER_MAX = 30.0
_FAILURES_MAX = 5
"""Rounds that fail in a row before everything is listed anew: the version may be one of another etcd."""
_WARN_EVERY = 20

_logger = logging.getLogger(__name__)


class Stream:
    """Lists, watches and lists again, until cancelled."""

    def __init__(
        self,
        kube: Kube,
        intake: Intake,
        kind: Kind,
        namespace: str | None,
        *,
        on_listed: Callable[[], None],
        on_forbidden: Callable[[], None],
        seconds: int = ROUND,
    ) -> None:
        self._kube = kube
        self._intake = intake
        self._kind = kind
        self._namespace = namespace
        self._on_listed = on_listed
        self._on_forbidden = on_forbidden
        self._seconds = seconds
        self._reached = 0
        self._begin = 0
        self._came: set[int] = set()
        self.listed = False
        self.turned_at = time.monotonic()
        """When the last page or round ended, well or not: a stream without any for long is stuck."""

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        failures = 0
        while True:
            self.turned_at = time.monotonic()
            try:
                if not self._reached:
                    await self._list()
                await self._round()
            except ClusterError as error:
                failures += 1
                await self._wait(error, failures)
            else:
                failures = 0

    async def _wait(self, error: ClusterError, failures: int) -> None:
        code = error.code if isinstance(error, ApiError) else 0
        if code == 410 or failures >= _FAILURES_MAX:
            self._reached = 0
        if code == 403:
            self._on_forbidden()
        if code != 410 and failures % _WARN_EVERY == 1:
            where = self._namespace or "all namespaces"
            _logger.warning("The watch of %s in %s: %s", self._kind.resource, where, error)
        wait = min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(failures - 1, 10))
        asked = getattr(error, "retry_after", None) or 0.0
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        await asyncio.sleep(max(wait * jitter, min(asked, _RETRY_AFTER_MAX)))

    async def _list(self) -> None:
        """Take in everything there is, and read what memory has and the list has not."""
        before = self._intake.snapshots(self._kind, self._namespace)
        version = 0
        listed: set[str] = set()
        async for page in self._kube.pages(self._path, self._kind.selector):
            self.turned_at = time.monotonic()
            version = int(page["metadata"]["resourceVersion"])
            for body in page["items"]:
                listed.add(body["metadata"]["uid"])
                self._intake.put(self._kind, body)
        missing = [(s.namespace, s.name, s.uid) for s in before.values() if s.uid not in listed]
        await self._intake.read(self._kind, missing)
        if self._kind in (RETRAINJOBS, CHILDREN):
            self._intake.doubt_children(self._namespace)
        self._reached = self._begin = version
        self._came = set()
        if not self.listed:
            self.listed = True
            self._on_listed()

    async def _round(self) -> None:
        """Watch for one round, from where the round before this one began."""
        started = time.monotonic()
        reached, came = self._reached, set[int]()
        try:
            async with asyncio.timeout(self._seconds + _SLACK), aclosing(self._watch()) as lines:
                async for line in lines:
                    digest = hash(line)
                    came.add(digest)
                    if digest not in self._came or line.startswith(b'{"type":"DELETED"'):
                        self._take(line)
        except TimeoutError:
            _logger.info("The watch of %s is silent; it is begun anew", self._kind.resource)
        except ClusterError:
            self._came |= came
            raise
        self._begin, self._came = reached, came
        if time.monotonic() - started < _FIRST_RETRY:
            # A server that ends each watch at once is not asked again at once.
            await asyncio.sleep(_FIRST_RETRY)

    def _watch(self) -> AsyncGenerator[bytes, None]:
        return self._kube.watch(
            self._path, self._kind.selector, since=self._begin, seconds=self._seconds
        )

    def _take(self, line: bytes) -> None:
        """Take in one event of the watch.

        Raises:
            ClusterError: it is none, or tells of an error.
        """
        try:
            event = json.loads(line)
            change, body = event["type"], event["object"]
            if change == "ERROR":
                code = int(body.get("code") or 500)
                text = f"an error in the watch: {body.get('message') or body.get('reason')}"
                raise ApiError(code, str(body.get("reason")), text, None)
            version = int(body["metadata"]["resourceVersion"])
            if change == "DELETED":
                self._intake.remove(self._kind, body)
            elif change in ("ADDED", "MODIFIED"):
                self._intake.put(self._kind, body)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ClusterError("The watch sent what is no event.") from error
        self._reached = max(self._reached, version)

    @property
    def _path(self) -> str:
        return self._kind.path(self._namespace)
