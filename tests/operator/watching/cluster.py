"""An API server of RetrainJobs for the watches: it answers as a test has written down."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, cast

from retrainer_operator.api_server.client import ApiError, Kube
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.watching.intake import Intake

Body = dict[str, Any]
KEY = ("team", "flowers")
SILENCE = object()
"""In a round of a watch: from here on it sends nothing and does not end."""


class ScriptedApi:
    """Has `objects`, lists them (or `listed`), and plays `rounds` of watches, then empty ones."""

    def __init__(self) -> None:
        self.objects: list[Body] = []
        self.listed: list[Body] | None = None
        self.rounds: list[list[Any]] = []
        self.begun_at: list[int] = []
        self.lists = 0
        self.error: ApiError | None = None

    @property
    def kube(self) -> Kube:
        return cast(Kube, self)

    async def get(self, path: str, **_: str) -> Body:
        if self.error is not None:
            raise self.error
        name = path.rpartition("/")[2]
        for body in self.objects:
            if body["metadata"]["name"] == name:
                return body
        raise ApiError(404, "NotFound", path, None)

    async def pages(self, path: str, selector: str = "") -> AsyncIterator[Body]:
        self.lists += 1
        items = self.objects if self.listed is None else self.listed
        if not path.endswith("/retrainjobs"):
            items = []
        yield {"metadata": {"resourceVersion": "1000"}, "items": items}

    async def metadata(self, path: str, selector: str = "") -> AsyncIterator[Body]:
        async for page in self.pages(path, selector):
            for item in page["items"]:
                yield item["metadata"]

    async def watch(
        self, path: str, selector: str, *, since: int, seconds: int
    ) -> AsyncGenerator[bytes, None]:
        self.begun_at.append(since)
        for line in self.rounds.pop(0) if self.rounds else [SILENCE]:
            if line is SILENCE:
                await asyncio.Event().wait()
            if isinstance(line, Exception):
                raise line
            yield line if isinstance(line, bytes) else json.dumps(line).encode()


def event(change: str, body: Body) -> bytes:
    """A line of a watch as the API server writes it."""
    return json.dumps({"type": change, "object": body}, separators=(",", ":")).encode()


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def make_intake(
    api: ScriptedApi, memory: Memory, due: Callable[[Key], None] = lambda _: None
) -> Intake:
    return Intake(api.kube, memory, due=due, soon=due)
