"""The queue: what waits, what comes again, and what is logged."""

import asyncio
import logging

import pytest

from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.queue import Queue, backoff

KEY = ("team", "flowers")


async def test_a_replica_that_does_not_lead_keeps_no_keys() -> None:
    """It may wait for weeks, while thousands of jobs come and go."""
    done = asyncio.Queue[Key]()

    async def work(key: Key) -> float | None:
        done.put_nowait(key)
        return None

    queue = Queue(work)
    for number in range(1000):
        queue.add(("team", f"job-{number}"))
    assert len(queue) == 0
    queue.opened.set()
    queue.add(KEY)
    worker = asyncio.create_task(queue.run(1))
    assert await done.get() == KEY
    worker.cancel()
    assert done.empty()


@pytest.mark.parametrize(
    ("failures", "asked", "least", "most"),
    [
        (0, None, 0.05, 0.1),
        (3, 0.0, 0.4, 0.8),
        (0, 30.0, 30, 30),
        (0, 86400.0, 60, 60),
        (5000, None, 60, 60),
    ],
)
def test_a_failed_pass_comes_again_as_the_api_server_asks_within_reason(
    failures: int, asked: float | None, least: float, most: float
) -> None:
    assert least <= backoff(failures, asked) <= most


async def test_a_refused_pass_is_one_line_of_log_and_a_fault_of_ours_is_traced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = [ValueError("ours"), ApiError(429, "TooManyRequests", "too many requests", 60.0)]
    results = asyncio.Queue[str]()

    async def work(_: Key) -> float | None:
        raise errors.pop()

    queue = Queue(work, on_result=results.put_nowait)
    queue.opened.set()
    queue.add(KEY)
    queue.add(("team", "other"))
    with caplog.at_level(logging.WARNING):
        worker = asyncio.create_task(queue.run(1))
        assert [await results.get(), await results.get()] == ["error", "error"]
        worker.cancel()
    refused, ours = caplog.records
    assert refused.getMessage() == "A pass over team/flowers failed: too many requests"
    assert refused.exc_info is None
    assert ours.exc_info is not None
