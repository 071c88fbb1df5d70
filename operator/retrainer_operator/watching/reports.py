"""Ask running trainer pods for their reports, those that answer every two seconds."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import aiohttp

from retrainer.api.names import REPORT_PORT
from retrainer_operator.planning.reports import parse_report
from retrainer_operator.planning.snapshots import Key, PodSnapshot
from retrainer_operator.reconciling.memory import Memory

INTERVAL = 2.0
"""Seconds between two rounds."""
TIMEOUT = 2.0
"""Seconds one pod has to answer."""
SIZE_MAX = 64 * 1024
"""Bytes of an answer; a whole curve of 4,000 steps takes 20 KiB."""
_CONNECT = 1.0
"""Seconds a pod has to take the connection: within a cluster that takes milliseconds."""
_AT_ONCE = 50
_ROUND_MAX = 500
"""Pods asked per round: of ten thousand shards, each is heard every 40 s."""
_SILENCE_MAX = 60.0
"""Seconds until even a pod that has never answered is asked again."""

_logger = logging.getLogger(__name__)


def session_of_pods() -> aiohttp.ClientSession:
    """How pods are asked: without a proxy, and with nothing unpacked, which would have no bound."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=_CONNECT),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    )


class Standing(Enum):
    """What is known of a pod; those of one standing are asked in rounds of their own."""

    NEW = auto()
    """It has not been asked yet."""
    ANSWERING = auto()
    """It answered when it was last asked."""
    SILENT = auto()
    """It did not."""


@dataclass
class _Silence:
    """A pod that has not answered: how often in a row, and when it is asked again."""

    failures: int
    until: float


class Reports:
    """Polls pods, and calls `on_news` with each job that a pod has new figures of.

    Pods that answered when last asked, those that did not, and those that have never been asked have
    rounds of their own: a silent pod takes the whole timeout, and 600 of them made each round of all
    pods take 20 s, and the first report of a pod that came after them wait for 10 to 18 s. Who stays
    silent is asked less and less often, at least once a minute.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        leads: Callable[[], bool],
        on_news: Callable[[Key], None],
        port: int = REPORT_PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._leads = leads
        self._on_news = on_news
        self._port = port
        self._clock = clock
        self._answering: set[str] = set()
        self._silences: dict[str, _Silence] = {}
        self._turns = dict.fromkeys(Standing, 0)

    async def run(self) -> None:
        """Poll until cancelled."""
        async with session_of_pods() as session, asyncio.TaskGroup() as group:
            for standing in Standing:
                group.create_task(self._rounds(session, standing))

    async def _rounds(self, session: aiohttp.ClientSession, standing: Standing) -> None:
        while True:
            started = time.monotonic()
            if self._leads():
                await self.poll(session, standing)
            await asyncio.sleep(max(0.1, started + INTERVAL - time.monotonic()))

    async def poll(self, session: aiohttp.ClientSession, standing: Standing) -> int:
        """Ask once the pods of this standing whose time has come.

        Returns:
            How many were asked.
        """
        due = self._due(standing)
        turn = self._turns[standing] % len(due) if due else 0
        pods = (due[turn:] + due[:turn])[:_ROUND_MAX]
        self._turns[standing] = turn + len(pods)
        at_once = asyncio.Semaphore(_AT_ONCE)
        asking = (self._ask(session, pod, at_once) for pod in pods)
        for end in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(end, Exception):  # of one pod, and no reason to ask no other
                _logger.error("A pod's report could not be taken in", exc_info=end)
        return len(pods)

    def _due(self, standing: Standing) -> list[PodSnapshot]:
        running = [p for p in self._memory.pods() if p.running and p.ip and not p.deleting]
        uids = {pod.uid for pod in running}
        self._answering &= uids
        self._silences = {uid: s for uid, s in self._silences.items() if uid in uids}
        now = self._clock()
        return [
            pod
            for pod in running
            if self._standing(pod) == standing
            and (pod.uid not in self._silences or self._silences[pod.uid].until <= now)
        ]

    def _standing(self, pod: PodSnapshot) -> Standing:
        if pod.uid in self._silences:
            return Standing.SILENT
        return Standing.ANSWERING if pod.uid in self._answering else Standing.NEW

    def _note(self, pod: PodSnapshot, *, answered: bool) -> None:
        if answered:
            self._answering.add(pod.uid)
            self._silences.pop(pod.uid, None)
            return
        self._answering.discard(pod.uid)
        failures = self._silences[pod.uid].failures + 1 if pod.uid in self._silences else 1
        pause = min(_SILENCE_MAX, INTERVAL * 2.0 ** min(failures, 10))
        self._silences[pod.uid] = _Silence(failures, self._clock() + pause)

    async def _ask(
        self, session: aiohttp.ClientSession, pod: PodSnapshot, at_once: asyncio.Semaphore
    ) -> None:
        job = self._memory.job_of_pod(pod)
        if job is None:  # anybody may give a pod our labels
            return
        async with at_once:
            text = await self._read(session, pod.ip)
        self._note(pod, answered=text is not None)
        if text is None:
            return
        report = parse_report(text)
        if report and report.uid == job.uid and self._memory.put_report(job.uid, pod.uid, report):
            self._on_news(job.key)

    async def _read(self, session: aiohttp.ClientSession, ip: str) -> bytes | None:
        host = f"[{ip}]" if ":" in ip else ip
        try:
            url = f"http://{host}:{self._port}/report"
            # A redirect would send our request to somebody else.
            async with session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                text = await response.content.read(SIZE_MAX + 1)
                while len(text) <= SIZE_MAX and (more := await response.content.read(SIZE_MAX)):
                    text += more
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return text if len(text) <= SIZE_MAX else None
