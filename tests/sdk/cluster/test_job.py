"""Job: waiting through every kind of interruption, logs, events."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.fake_apiserver import CUT, END, FakeApiServer, refused
from tests.support.submitted import submitted
from tests.support.watching import OnReport

from retrainer.api import Report
from retrainer.api.names import LABEL_UID
from retrainer.cluster.aio import AsyncClient
from retrainer.cluster.events import in_order
from retrainer.cluster.job import Job
from retrainer.cluster.requests import Cluster
from retrainer.cluster.stop import Stop
from retrainer.errors import Forbidden, Interrupted, JobFailed, NotFound, WaitTimeout


@pytest.fixture
def server() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def job(server: FakeApiServer) -> Job:
    return submitted(server)


def succeed(server: FakeApiServer) -> None:
    server.status("flowers", phase="Succeeded", metrics={"testAccuracy": 0.9, "testImages": 100})


def waiting(
    pool: ThreadPoolExecutor, server: FakeApiServer, work: Callable[[], Any]
) -> "Future[Any]":
    """Start `work` in a thread, and return once it has a watch open."""
    future = pool.submit(work)
    server.wait_for_watch()
    return future


# --- wait ---
def test_wait_returns_the_job_once_it_has_succeeded(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    server.status("flowers", phase="Training")
    succeed(server)
    assert future.result(60) is job
    assert job.test_accuracy == 0.9


def test_wait_watches_and_does_not_poll(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    before = len(server.requests)
    for step in range(50):
        server.status("flowers", phase="Training", progress={"step": step})
    succeed(server)
    future.result(60)
    assert len(server.requests) == before, "every change came by the one watch"


def test_wait_on_a_finished_job_returns_at_once(server: FakeApiServer, job: Job) -> None:
    succeed(server)
    assert job.wait(timeout=10).finished


def test_a_failed_job_raises_the_operators_sentence(server: FakeApiServer, job: Job) -> None:
    sentence = "Pod flowers-train-x was killed for using more memory than its limit of 1Gi."
    server.status("flowers", phase="Failed", reason="OOMKilled", message=sentence)
    with pytest.raises(JobFailed) as error:
        job.wait()
    assert str(error.value) == f"flowers: {sentence}"
    assert error.value.reason == "OOMKilled"


def test_wait_gives_up_after_its_timeout_and_says_how_far_the_job_is(
    server: FakeApiServer, job: Job
) -> None:
    server.status("flowers", phase="Training", message="Step 10 of 500.")
    with pytest.raises(WaitTimeout) as error:
        job.wait(timeout=0.3)
    assert str(error.value) == (
        "flowers was not finished after 0.3 s; it goes on (Training: Step 10 of 500.)."
    )


def test_wait_goes_on_after_a_cut_connection(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    server.cut()
    server.wait_for_watch()
    succeed(server)
    assert future.result(60).finished


def test_what_happened_while_the_server_was_away_is_not_missed(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    stages: list[str] = []
    future = waiting(
        pool, server, lambda: job.wait(progress=OnReport(lambda r: stages.append(r.stage)))
    )
    server.status("flowers", phase="Training")
    server.fail("GET", refused(503, "apiserver is shutting down"), times=3)
    server.expire()
    succeed(server)
    assert future.result(60).finished
    assert stages == ["Pending", "Training", "Succeeded"]


def test_an_expired_version_is_listed_again(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    server.expire()
    server.wait_for_watch()
    succeed(server)
    assert future.result(60).finished


def test_an_error_event_in_the_watch_is_survived(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    server.send({"type": "ERROR", "object": gone})
    succeed(server)
    assert future.result(60).finished


def test_bookmarks_are_no_news(server: FakeApiServer, job: Job, pool: ThreadPoolExecutor) -> None:
    reports: list[Report] = []
    future = waiting(pool, server, lambda: job.wait(progress=OnReport(reports.append)))
    server.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}})
    succeed(server)
    future.result(60)
    assert len(reports) == 2


def test_a_server_that_starts_and_still_refuses_everyone_is_believed_for_a_while(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    server.fail("GET", refused(403, "RBAC: clusterrole not found"), times=2)
    server.expire()
    succeed(server)
    assert future.result(60).finished


def test_forbidden_at_the_first_request_is_told_at_once(server: FakeApiServer, job: Job) -> None:
    server.fail("GET", refused(403, "no"))
    with pytest.raises(Forbidden, match=r"Not allowed to list retrainjobs\.retrainer\.dev"):
        job.wait()


def test_a_job_deleted_during_the_wait_is_told(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    server.remove("retrainjobs", "flowers")
    with pytest.raises(
        NotFound, match="was deleted; what it wrote stays in s3://models/flowers/flowers-"
    ):
        future.result(60)


def test_another_job_of_the_same_name_is_not_waited_for(server: FakeApiServer, job: Job) -> None:
    server.remove("retrainjobs", "flowers")
    submitted(server)
    with pytest.raises(NotFound, match=f"uid {job.uid}.*was deleted"):
        job.wait(timeout=10)
    with pytest.raises(NotFound):
        job.refresh()


def test_a_job_that_its_ttl_deletes_as_it_ends_has_succeeded(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    future = waiting(pool, server, job.wait)
    with server._lock:
        succeed(server)
        server.remove("retrainjobs", "flowers")
    assert future.result(60).test_accuracy == 0.9


def test_another_thread_can_stop_a_wait(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    stop = Stop()
    future = waiting(pool, server, lambda: job.wait(stop=stop))
    stop.set()
    with pytest.raises(Interrupted, match="Stopped waiting for flowers; the job goes on"):
        future.result(60)


async def test_a_cancelled_wait_ends_its_thread(server: FakeApiServer, job: Job) -> None:
    client = AsyncClient._on(Cluster(server))
    handle = await client.get("flowers")
    task = asyncio.create_task(handle.wait())
    await asyncio.to_thread(server.wait_for_watch)
    threads = threading.active_count()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert threading.active_count() <= threads


async def test_the_asynchronous_wait_returns_its_own_handle(
    server: FakeApiServer, job: Job
) -> None:
    handle = await AsyncClient._on(Cluster(server)).get("flowers")
    task = asyncio.create_task(handle.wait(timeout=20))
    await asyncio.to_thread(server.wait_for_watch)
    succeed(server)
    assert await task is handle
    assert handle.test_accuracy == 0.9


def test_wait_reports_a_job_as_a_run_here_does(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    reports: list[Report] = []
    future = waiting(pool, server, lambda: job.wait(progress=OnReport(reports.append)))
    server.status(
        "flowers",
        phase="Training",
        reason="TrainingHead",
        message="Training the head: \x1b[2Jstep 10.",
        progress={"imagesTotal": 60, "step": 10, "steps": 500, "percent": 40},
        metrics={"validationAccuracy": 0.8},
        curve=[{"step": 0, "validationAccuracy": 0.2}, {"step": 10, "validationAccuracy": 0.8}],
    )
    succeed(server)
    future.result(60)
    first, training, last = reports
    assert (first.stage, last.stage) == ("Pending", "Succeeded")
    assert (training.name, training.uid, training.reason) == ("flowers", job.uid, "TrainingHead")
    assert training.message == "Training the head: \\x1b[2Jstep 10.", "nothing drives the terminal"
    assert (training.progress.step, training.progress.percent) == (10, 40)
    assert training.metrics.validation_accuracy == 0.8
    assert [point.step for point in training.curve.points()] == [0, 10]


def test_progress_as_lines_tells_each_change_once(
    server: FakeApiServer,
    job: Job,
    pool: ThreadPoolExecutor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    future = waiting(pool, server, lambda: job.wait(progress=True))
    for step in (1, 2, 3):
        server.status(
            "flowers", phase="Training", reason="TrainingHead", message=f"step {step}.",
        )  # fmt: skip
    server.status("flowers", phase="Succeeded", reason="Succeeded", message="Test accuracy 0.9.")
    future.result(60)
    assert capsys.readouterr().err.splitlines() == [
        "flowers: Pending: No operator has taken this job up yet.",
        "flowers: Training: step 1.",
        "flowers: Succeeded: Test accuracy 0.9.",
    ]


# --- logs ---
def pod(server: FakeApiServer, job: Job, name: str, state: str | None = "running") -> None:
    states = [{"name": "trainer", "state": {state: {}}}] if state else []
    server.put(
        "pods",
        {
            "metadata": {"name": name, "labels": {LABEL_UID: job.uid}},
            "status": {"containerStatuses": states},
        },
    )


def line(second: int, text: str) -> bytes:
    return f"2026-01-01T00:00:{second:02d}.000000001Z {text}".encode()


def test_logs_of_all_pods_come_with_their_names(server: FakeApiServer, job: Job) -> None:
    server.now = "2026-01-01T00:00:01Z"
    pod(server, job, "flowers-bottlenecks-0-a", "terminated")
    server.now = "2026-01-01T00:00:09Z"
    pod(server, job, "flowers-train-b")
    pod(server, job, "flowers-train-waiting", None)
    server.logs["flowers-bottlenecks-0-a"] = [line(1, "listing"), line(2, "done")]
    server.logs["flowers-train-b"] = [line(9, "step 10")]
    assert list(job.logs()) == [
        "[flowers-bottlenecks-0-a] listing",
        "[flowers-bottlenecks-0-a] done",
        "[flowers-train-b] step 10",
    ]
    assert list(job.logs(prefix=False))[-1] == "step 10"


def test_a_followed_log_takes_in_new_pods_and_ends_with_the_job(
    server: FakeApiServer, job: Job, pool: ThreadPoolExecutor
) -> None:
    first: queue.Queue[Any] = queue.Queue()
    server.logs["flowers-bottlenecks-0-a"] = first
    pod(server, job, "flowers-bottlenecks-0-a")
    lines = job.logs(follow=True)
    first.put(line(1, "listing"))
    assert next(lines) == "[flowers-bottlenecks-0-a] listing"
    server.wait_for_watch(2)
    server.logs["flowers-train-b"] = [line(9, "step 10")]
    pod(server, job, "flowers-train-b", "terminated")
    assert next(lines) == "[flowers-train-b] step 10"
    pod(server, job, "flowers-bottlenecks-0-a", "terminated")
    server.logs["flowers-bottlenecks-0-a"] = [line(1, "listing"), line(2, "done")]
    first.put(END)
    succeed(server)
    assert list(lines) == ["[flowers-bottlenecks-0-a] done"]


def test_a_cut_log_goes_on_without_telling_a_line_twice(server: FakeApiServer, job: Job) -> None:
    live: queue.Queue[Any] = queue.Queue()
    server.logs["flowers-train-b"] = live
    pod(server, job, "flowers-train-b")
    lines = job.logs(follow=True, prefix=False)
    live.put(line(1, "one"))
    live.put(line(2, "two"))
    assert [next(lines), next(lines)] == ["one", "two"]
    # The server gives again what it has since that second.
    server.logs["flowers-train-b"] = [line(2, "two"), line(2, "also two"), line(3, "three")]
    pod(server, job, "flowers-train-b", "terminated")
    live.put(CUT)
    assert [next(lines), next(lines)] == ["also two", "three"]
    succeed(server)
    assert list(lines) == []
    since = [q.get("sinceTime") for _, path, q in server.requests if path.endswith("/log")]
    assert since == [None, "2026-01-01T00:00:02.000000001Z"]


async def test_asynchronous_logs_can_be_left_in_the_middle(server: FakeApiServer, job: Job) -> None:
    live: queue.Queue[Any] = queue.Queue()
    server.logs["flowers-train-b"] = live
    pod(server, job, "flowers-train-b")
    handle = await AsyncClient._on(Cluster(server)).get("flowers")
    live.put(line(1, "one"))
    async for text in handle.logs(follow=True):
        assert text == "[flowers-train-b] one"
        break


# --- what it has found ---
def test_events_of_the_job_its_children_and_their_pods_in_order(
    server: FakeApiServer, job: Job
) -> None:
    def event(name: str, kind: str, of: str, when: str, uid: str = "") -> None:
        involved = {"kind": kind, "name": of, "uid": uid}
        server.put("events", {
            "metadata": {"name": name}, "involvedObject": involved, "lastTimestamp": when,
            "type": "Normal", "reason": name.upper(), "message": " said\n", "count": 3,
        })  # fmt: skip

    event("pod", "Pod", "flowers-train-x", "2026-01-01T00:00:03Z")
    event("other", "Pod", "flowers-2-train-x", "2026-01-01T00:00:03Z")
    event("child", "Job", "flowers-train", "2026-01-01T00:00:02Z")
    event("own", "RetrainJob", "flowers", "2026-01-01T00:00:01Z", job.uid)
    events = job.events()
    assert [e.reason for e in events] == ["OWN", "CHILD", "POD"]
    assert (events[2].object, events[2].message, events[2].count) == (
        "Pod/flowers-train-x",
        "said",
        3,
    )


def test_events_of_one_second_are_in_the_order_of_the_nanoseconds_in_their_names() -> None:
    def event(name: str, **when: str) -> dict[str, Any]:
        involved = {"kind": "Pod", "name": "flowers-train-x"}
        return {"metadata": {"name": name}, "involvedObject": involved, "reason": name, **when}

    second = "2026-01-01T00:00:03Z"
    events = in_order([
        event("x.18f0000000000003", lastTimestamp=second),
        event("x.18f0000000000002", eventTime="2026-01-01T00:00:03.900000Z"),
        event("x.18f0000000000004", lastTimestamp="2026-01-01T00:00:02Z"),
        event("x.18f0000000000001", lastTimestamp=second),
    ])  # fmt: skip
    assert [e.reason[-1] for e in events] == ["4", "1", "2", "3"]
