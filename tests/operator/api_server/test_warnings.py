"""Warnings about children: one list for all of a namespace, and nothing lost by a failure."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.operator.objects import make_job

from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.api_server.warnings import Question, WarningReader

Body = dict[str, Any]


class _Server:
    def __init__(self, *errors: ClusterError) -> None:
        self.errors = list(errors)
        self.lists = 0

    async def pages(
        self, path: str, selector: str = "", *, fields: str = ""
    ) -> AsyncIterator[Body]:
        self.lists += 1
        assert path == "/api/v1/namespaces/team/events"
        assert fields == "involvedObject.kind=Job,type=Warning"
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        yield {"items": [_warning("a", "2026-01-01T00:00:02Z", "exceeded quota: later")]}
        yield {"items": [_warning("a", "2026-01-01T00:00:01Z", "earlier"), _warning("b", "", "b")]}


def _warning(uid: str, at: str, message: str) -> Body:
    return {"involvedObject": {"uid": uid}, "lastTimestamp": at or None, "message": message}


async def _answers(server: _Server, *uids: str) -> dict[str, str]:
    answers: asyncio.Queue[tuple[Question, str]] = asyncio.Queue()
    reader = WarningReader(
        server, on_answer=lambda question, text: answers.put_nowait((question, text)), pause=0
    )
    for uid in uids:
        reader.ask(make_job(), uid)
    reading = asyncio.create_task(reader.run())
    async with asyncio.timeout(10):
        messages = [await answers.get() for _ in set(uids)]
    reading.cancel()
    await asyncio.wait([reading])
    return {question.child_uid: text for question, text in messages}


async def test_one_list_answers_for_all_children_of_a_namespace() -> None:
    server = _Server()
    answers = await _answers(server, "a", "b", "c", "a")
    assert answers == {"a": "exceeded quota: later", "b": "b", "c": ""}
    assert server.lists == 1


@pytest.mark.parametrize("error", [ClusterError("away"), ApiError(429, "TooMany", "later", None)])
async def test_a_list_that_fails_is_tried_again(error: ClusterError) -> None:
    server = _Server(error, error)
    assert await _answers(server, "b") == {"b": "b"}
    assert server.lists == 3


async def test_without_the_right_to_read_events_there_is_no_warning() -> None:
    assert await _answers(_Server(ApiError(403, "Forbidden", "no", None)), "a") == {"a": ""}
