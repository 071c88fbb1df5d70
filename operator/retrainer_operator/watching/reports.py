"""Ask running trainer pods for their reports, all of them every two seconds."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable

import aiohttp

from retrainer.api.names import REPORT_PORT
from retrainer_operator.planning import progress
from retrainer_operator.planning.snapshots import Key, Pod, is_own
from retrainer_operator.reconciling.memory import Memory

INTERVAL = 2.0
"""Seconds between two rounds."""
TIMEOUT = 2.0
"""Seconds one pod has to answer."""
SIZE_MAX = 64 * 1024
"""Bytes of an answer; a whole curve of 4,000 steps takes 20 KiB."""
_AT_ONCE = 50
_ROUND_MAX = 500
"""Pods asked per round: of ten thousand shards, each is heard every 40 s."""

_logger = logging.getLogger(__name__)


def session_of_pods() -> aiohttp.ClientSession:
    """How pods are asked: without a proxy, and with nothing unpacked, which would have no bound."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    )


class Reports:
    """Polls pods, and tells `on_news` which job has something new to say."""

    def __init__(
        self,
        memory: Memory,
        *,
        leads: Callable[[], bool],
        on_news: Callable[[Key], None],
        port: int = REPORT_PORT,
    ) -> None:
        self._memory = memory
        self._leads = leads
        self._on_news = on_news
        self._port = port
        self._turn = 0
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Poll until cancelled."""
        async with session_of_pods() as session:
            while True:
                started = time.monotonic()
                if self._leads():
                    await self.poll(session)
                await asyncio.sleep(max(0.1, started + INTERVAL - time.monotonic()))

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """One round."""
        running = [p for p in self._memory.pods() if p.running and p.ip and not p.deleting]
        self._turn = self._turn % len(running) if running else 0
        turn = itertools.islice(itertools.cycle(running), self._turn, self._turn + len(running))
        asked = list(itertools.islice(turn, _ROUND_MAX))
        self._turn += len(asked)
        asking = (self._ask(session, pod) for pod in asked)
        for end in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(end, Exception):  # of one pod, and no reason to ask no other
                _logger.error("A pod's report could not be taken in", exc_info=end)

    async def _ask(self, session: aiohttp.ClientSession, pod: Pod) -> None:
        key = (pod.namespace, pod.job)
        observed = self._memory.observe(key)
        job = observed.job
        # A label can be set by anybody; what counts is that our own Job controls the pod.
        if job is None or not any(
            c.uid == pod.child_uid and is_own(c, job) for c in observed.children
        ):
            return
        async with self._at_once:
            text = await self._read(session, pod.ip)
        if text is None:
            return
        report = progress.checked(text, job.uid)
        if report is not None and self._memory.reported(key, pod.uid, report):
            self._on_news(key)

    async def _read(self, session: aiohttp.ClientSession, ip: str) -> bytes | None:
        host = f"[{ip}]" if ":" in ip else ip
        try:
            url = f"http://{host}:{self._port}/report"
            # A redirect would ask somebody else in our name.
            async with session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                text = await response.content.read(SIZE_MAX + 1)
                while len(text) <= SIZE_MAX and (more := await response.content.read(SIZE_MAX)):
                    text += more
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return text if len(text) <= SIZE_MAX else None
