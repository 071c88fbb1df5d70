"""The watches of all kinds in all namespaces that we have the rights in; new ones when those change."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from retrainer.api.names import GROUP, PLURAL
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import Kube
from retrainer_operator.watching.intake import KINDS, Intake
from retrainer_operator.watching.stream import ROUND, Stream

_JOBS = f"{PLURAL}.{GROUP}"
RIGHTS = (
    ("list", _JOBS),
    ("watch", _JOBS),
    ("patch", f"{_JOBS}/status"),
    ("list", "jobs.batch"),
    ("watch", "jobs.batch"),
    ("create", "jobs.batch"),
    ("patch", "jobs.batch"),
    ("delete", "jobs.batch"),
    ("list", "pods"),
    ("watch", "pods"),
)
"""A namespace without all of these rights is left out; those for Events and TTLs may be missing."""
_CHECK_INTERVAL = 60.0
"""Seconds after which the rights in a namespace that is left out are checked again, at most."""
_BACKOFF_MAX = 10.0
_RECHECK = 2.0
_STUCK = 180.0
"""Seconds without a turn after which a watch is stuck: a page may take 30 s, a round takes 6."""

_logger = logging.getLogger(__name__)


class Watches:
    """Keeps a stream for each kind in each namespace.

    `on_start` is told the namespaces each time the streams are begun (None is all), `on_listed` once all
    of them have listed what there is. `longest` is the most seconds that what nobody tells of may stay
    unnoticed.
    """

    def __init__(
        self,
        kube: Kube,
        intake: Intake,
        wanted: Sequence[str],
        *,
        longest: float,
        on_start: Callable[[Sequence[str | None]], None],
        on_listed: Callable[[], None],
        on_skipped: Callable[[int], None],
    ) -> None:
        self._kube = kube
        self._intake = intake
        self._wanted: Sequence[str | None] = wanted or (None,)
        self._check_seconds = min(_CHECK_INTERVAL, longest)
        self._on_start = on_start
        self._on_listed = on_listed
        self._on_skipped = on_skipped
        self._streams: list[Stream] = []
        self._doubt = asyncio.Event()
        self._reported: set[tuple[str | None, str]] = set()

    @property
    def listed(self) -> bool:
        """Whether everything that exists has been taken in once."""
        return bool(self._streams) and all(stream.listed for stream in self._streams)

    def stuck(self) -> bool:
        """Whether a stream has stopped turning: a defect of ours, since every request has an end."""
        now = time.monotonic()
        return any(now > stream.turned_at + _STUCK for stream in self._streams)

    def doubt(self) -> None:
        """Check the rights again, for a request was forbidden."""
        self._doubt.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            try:
                allowed = await self._allowed()
            except ClusterError as error:
                _logger.warning("The rights could not be checked: %s", error)
                failures += 1
                wait = min(_BACKOFF_MAX, 2.0 ** min(failures, 10) / 4)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
                continue
            failures = 0
            await self._watch(allowed)

    async def _watch(self, allowed: list[str | None]) -> None:
        """Watch until the namespaces that we have the rights in are others."""
        self._intake.leave(allowed)
        # Many namespaces are watched in longer rounds, so that all ask for no more than three a second.
        seconds = max(ROUND, len(allowed))
        self._streams = [
            Stream(
                self._kube,
                self._intake,
                kind,
                namespace,
                on_listed=self._stream_listed,
                on_forbidden=self.doubt,
                seconds=seconds,
            )
            for namespace in allowed
            for kind in KINDS
        ]
        self._on_start(allowed)
        tasks = [asyncio.create_task(stream.run()) for stream in self._streams]
        checker = asyncio.create_task(self._until_others(allowed))
        try:
            await asyncio.wait([*tasks, checker], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, checker):
                task.cancel()
            ends = await asyncio.gather(*tasks, checker, return_exceptions=True)
            self._streams = []
        for end in ends:
            if isinstance(end, Exception):
                raise end  # a stream's own defect: the process ends and says so

    def _stream_listed(self) -> None:
        if self.listed:
            self._on_listed()

    async def _until_others(self, allowed: list[str | None]) -> None:
        while True:
            await self._doubtful(complete=len(allowed) == len(self._wanted))
            try:
                if await self._allowed() != allowed:
                    return
            except ClusterError as error:
                _logger.warning("The rights could not be checked: %s", error)
                await asyncio.sleep(_RECHECK)
                self._doubt.set()

    async def _doubtful(self, *, complete: bool) -> None:
        """Wait for a reason to check: a refusal or, with namespaces left out, that time has passed."""
        try:
            async with asyncio.timeout(None if complete else self._check_seconds):
                await self._doubt.wait()
        except TimeoutError:
            return
        self._doubt.clear()

    async def _allowed(self) -> list[str | None]:
        allowed: list[str | None] = []
        for namespace in self._wanted:
            answers = await asyncio.gather(
                *(self._kube.may(verb, resource, namespace) for verb, resource in RIGHTS)
            )
            missing = [right for right, may in zip(RIGHTS, answers, strict=True) if not may]
            if not missing:
                allowed.append(namespace)
            self._report(namespace, missing)
        self._on_skipped(len(self._wanted) - len(allowed))
        return allowed

    def _report(self, namespace: str | None, missing: list[tuple[str, str]]) -> None:
        where = f"namespace {namespace}" if namespace else "the whole cluster"
        text = ", ".join(f"{verb} {resource}" for verb, resource in missing)
        if missing and (namespace, text) not in self._reported:
            _logger.error("No right to %s in %s: it is left out until there is one", text, where)
        elif not missing and any(n == namespace for n, _ in self._reported):
            _logger.info("All rights in %s are granted now", where)
        self._reported = {t for t in self._reported if t[0] != namespace}
        if missing:
            self._reported.add((namespace, text))
