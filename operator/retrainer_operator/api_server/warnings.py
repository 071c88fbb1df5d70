"""Reads the warnings about children in the background: no pass waits for them, they only say why.

The Job controller tells in Events alone why a Job has no pods. The API server looks through all Events
of a namespace for each such question (with 4,363 of them, questions asked within the passes kept all
workers busy for 22 s), so one list answers for all children of a namespace, and few are read at a time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.snapshots import RetrainJobSnapshot
from retrainer_operator.planning.times import parse_time

Body = dict[str, Any]

_READERS = 2
_PAUSE = 5.0
"""Seconds between two lists of one namespace, and until one that failed is tried again."""
_OF_JOBS = "involvedObject.kind=Job,type=Warning"

_logger = logging.getLogger(__name__)


class Api(Protocol):
    """Requests that the warnings need of the API server."""

    def pages(self, path: str, selector: str = "", *, fields: str = "") -> AsyncIterator[Body]:
        """Read a list page by page."""


@dataclass(frozen=True)
class Question:
    """A question: which is the latest warning about this child of a job?"""

    job: RetrainJobSnapshot
    child_uid: str


class WarningReader:
    """Takes questions at any rate; `on_answer` gets each with its message, empty if there is none."""

    def __init__(
        self, api: Api, *, on_answer: Callable[[Question, str], None], pause: float = _PAUSE
    ) -> None:
        self._api = api
        self._on_answer = on_answer
        self._pause = pause
        self._questions: dict[str, dict[str, Question]] = {}
        self._namespaces: asyncio.Queue[str] = asyncio.Queue()

    def ask(self, job: RetrainJobSnapshot, child_uid: str) -> None:
        """Read the latest warning about this child soon."""
        questions = self._questions.get(job.namespace)
        if questions is None:
            questions = self._questions[job.namespace] = {}
            self._namespaces.put_nowait(job.namespace)
        questions[child_uid] = Question(job, child_uid)

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_READERS):
                group.create_task(self._reader())

    async def _reader(self) -> None:
        while True:
            namespace = await self._namespaces.get()
            questions = self._questions[namespace]
            self._questions[namespace] = {}
            try:
                messages = await self._read(namespace)
            except Exception as error:
                if not isinstance(error, ClusterError):
                    _logger.exception("The Events of namespace %s could not be read", namespace)
                # A newer question about the same child is kept.
                self._questions[namespace] = {**questions, **self._questions[namespace]}
            else:
                for question in questions.values():
                    self._on_answer(question, messages.get(question.child_uid, ""))
            asyncio.get_running_loop().call_later(self._pause, self._turn, namespace)

    def _turn(self, namespace: str) -> None:
        """Let the namespace be read again, if there are questions by now."""
        if self._questions[namespace]:
            self._namespaces.put_nowait(namespace)
        else:
            del self._questions[namespace]

    async def _read(self, namespace: str) -> dict[str, str]:
        """Read the latest message about each Job, by uid."""
        latest: dict[str, tuple[float, str]] = {}
        path = f"/api/v1/namespaces/{namespace}/events"
        try:
            async for page in self._api.pages(path, fields=_OF_JOBS):
                for event in page["items"]:
                    uid = str((event.get("involvedObject") or {}).get("uid") or "")
                    entry = _event_time(event), str(event.get("message") or "")
                    latest[uid] = max(latest.get(uid, entry), entry, key=lambda e: e[0])
        except ApiError as error:
            if error.code != 403:  # without the right to read Events the jobs still go on
                raise
        return {uid: message for uid, (_, message) in latest.items()}


def _event_time(event: Body) -> float:
    for field in ("lastTimestamp", "eventTime", "firstTimestamp"):
        if event.get(field):
            return parse_time(event[field]) or 0.0
    return 0.0
