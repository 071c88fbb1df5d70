"""The SDK against a real API server whose operator is the test; with a real one: test_sdk_methods."""

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support import devcluster_tool
from tests.support.devcluster_client import DevCluster, ensure
from tests.support.run_folder import write_run
from tests.support.watching import OnReport

from retrainer.api import Report
from retrainer.api.names import LABEL_UID
from retrainer.cli import main
from retrainer.cluster.aio import AsyncClient
from retrainer.cluster.client import Client
from retrainer.cluster.connection import Connection
from retrainer.cluster.job import Job
from retrainer.cluster.requests import JOBS
from retrainer.errors import (
    AlreadyExists,
    Forbidden,
    InvalidJob,
    JobFailed,
    NotFound,
    WaitTimeout,
)

pytestmark = pytest.mark.cluster


@pytest.fixture(name="cluster")
def _cluster(control_plane: DevCluster) -> DevCluster:
    return control_plane


@pytest.fixture
def namespace(cluster: DevCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "sdk-" + re.sub(r"[^a-z0-9]+", "-", request.node.name)[:40].strip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def client(cluster: DevCluster, namespace: str) -> Client:
    return Client(namespace, kubeconfig=cluster.kubeconfig)


def manifest(
    name: str = "flowers", labels: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "architecture": "mobilenet_0.50_160",
            "images": "s3://photos/flowers",
            "output": "s3://models/flowers",
            **spec,
        },
    }


class Operator:
    """Writes statuses as the operator does: merge patches of the subresource."""

    def __init__(self, cluster: DevCluster) -> None:
        self._connection = Connection(kubeconfig=cluster.kubeconfig)

    def status(self, job: Job, **status: Any) -> None:
        answer = self._connection.open(
            "PATCH",
            JOBS.path(job.namespace, job.name, "status"),
            {},
            body={"status": status},
            content_type="application/merge-patch+json",
        )
        body = answer.read()
        assert answer.status == 200, body


@pytest.fixture
def operator(cluster: DevCluster) -> Operator:
    return Operator(cluster)


# --- submit ---
def test_the_same_job_twice_is_one_and_another_spec_is_refused(client: Client) -> None:
    first = client.submit(manifest(training={"steps": 500}))
    second = client.submit(manifest(training={"steps": 500}, shards=1, weights="imagenet"))
    assert first.uid == second.uid
    with pytest.raises(AlreadyExists, match=r"spec\.training\.steps is 500, not 4000"):
        client.submit(manifest())


def test_what_the_server_alone_refuses_is_one_sentence_per_field(client: Client) -> None:
    broken = manifest(shards=0, split={"testingPercentage": 60, "validationPercentage": 60})
    with pytest.raises(InvalidJob) as error:
        client._cluster.create(JOBS, client.namespace, broken)
    assert [p.split(":")[0] for p in error.value.problems] == ["spec.shards", "spec.split"]
    assert "together less than 100" in error.value.problems[1]
    unknown = manifest(colour="green")
    with pytest.raises(InvalidJob, match=r"spec\.colour: unknown field"):
        client._cluster.create(JOBS, client.namespace, unknown)


def test_a_namespace_that_is_not_there_is_named(cluster: DevCluster) -> None:
    with pytest.raises(NotFound, match="No namespace nowhere at https://"):
        Client("nowhere", kubeconfig=cluster.kubeconfig).submit(manifest())


# --- list ---
def test_two_hundred_jobs_are_listed_in_a_few_times_what_the_server_takes(
    cluster: DevCluster, client: Client
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: client.submit(manifest(f"job-{i:03d}", {"odd": str(i % 2)})), range(200)
            )
        )
    ours, servers = [], []
    for _ in range(3):  # the best counts: what else the machine does is no fault of the list
        started = time.perf_counter()
        jobs = client.list()
        ours.append(time.perf_counter() - started)
        assert len(jobs) == 200
        assert {job.phase for job in jobs} == {"Pending"}
        started = time.perf_counter()
        path = JOBS.path(client.namespace)
        answer = json.loads(Connection(kubeconfig=cluster.kubeconfig).open("GET", path, {}).read())
        servers.append(time.perf_counter() - started)
        assert len(answer["items"]) == 200
    print(f"listed in {min(ours):.3f} s; the server's answer, as JSON, in {min(servers):.3f} s")
    assert min(ours) < 10 * min(servers)
    assert len(client.list(label_selector="odd=1")) == 100
    assert "<table" in client.list()._repr_html_()


def test_list_by_phase_and_in_all_namespaces(client: Client, operator: Operator) -> None:
    client.submit(manifest("a"))
    operator.status(client.submit(manifest("b")), phase="Succeeded")
    assert [job.name for job in client.list("Succeeded")] == ["b"]
    everywhere = client.list(all_namespaces=True)
    assert {"a", "b"} <= {job.name for job in everywhere if job.namespace == client.namespace}


# --- lifecycle ---
def test_suspend_resume_delete(client: Client) -> None:
    job = client.submit(manifest())
    assert job.suspend().spec.suspend is True
    assert client.get("flowers").spec.suspend is True
    assert client.resume("flowers").spec.suspend is False
    job.delete()
    with pytest.raises(NotFound, match=r"No RetrainJob flowers in namespace"):
        client.get("flowers")


def test_delete_by_handle_spares_a_newer_job_of_the_name(client: Client) -> None:
    old = client.submit(manifest())
    client.delete("flowers")
    new = client.submit(manifest())
    with pytest.raises(NotFound, match=f"uid {old.uid}.*was deleted"):
        old.delete()
    assert client.get("flowers").uid == new.uid


# --- wait ---
def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


def test_wait_sees_every_phase_and_the_end(client: Client, operator: Operator) -> None:
    job = client.submit(manifest())
    phases: list[str] = []
    reported = threading.Event()

    def show(report: Report) -> None:
        phases.append(report.stage)
        reported.set()

    thread, result = in_thread(
        lambda: client.get("flowers").wait(timeout=60, progress=OnReport(show))
    )
    for phase in ("Bottlenecks", "Training", "Succeeded"):
        assert reported.wait(20)
        reported.clear()
        operator.status(job, phase=phase, metrics={"testAccuracy": 0.9, "testImages": 100})
    thread.join(20)
    assert result[0].test_accuracy == 0.9
    assert phases == ["Pending", "Bottlenecks", "Training", "Succeeded"]


def test_wait_raises_the_operators_sentence_and_its_timeout(
    client: Client, operator: Operator
) -> None:
    job = client.submit(manifest())
    started = time.monotonic()
    with pytest.raises(WaitTimeout):
        job.wait(timeout=1)
    assert time.monotonic() - started > 0.9
    operator.status(job, phase="Failed", reason="OOMKilled", message="Pod p was killed.")
    with pytest.raises(JobFailed, match=r"^flowers: Pod p was killed\.$"):
        job.wait()


def test_wait_survives_a_killed_api_server(
    cluster: DevCluster, client: Client, operator: Operator
) -> None:
    job = client.submit(manifest())
    reported = threading.Event()
    handle = client.get("flowers")
    thread, result = in_thread(
        lambda: handle.wait(timeout=180, progress=OnReport(lambda _: reported.set()))
    )
    assert reported.wait(20)
    kill_api_server()
    ensure("control-plane", name="sdk")  # starts what has ended
    operator.status(job, phase="Succeeded", message="Test accuracy 0.9.")
    thread.join(120)
    assert result == [handle]
    assert handle.message == "Test accuracy 0.9."


def kill_api_server() -> None:
    status = [*devcluster_tool.COMMAND, "status", "--name", "sdk"]
    printed = subprocess.run(
        status, cwd=devcluster_tool.CHECKOUT, capture_output=True, text=True, check=False
    ).stdout
    match = re.search(r"^kube-apiserver +pid (\d+)", printed, re.MULTILINE)
    assert match, printed
    os.kill(int(match[1]), signal.SIGKILL)


# --- rights ---
def test_a_person_without_rights_is_told_the_verb_and_the_resource(
    cluster: DevCluster, namespace: str
) -> None:
    nobody = Client(namespace, kubeconfig=cluster.user_kubeconfig("ann"))
    with pytest.raises(Forbidden) as error:
        nobody.list()
    message = str(error.value)
    assert f"Not allowed to list retrainjobs.retrainer.dev in namespace {namespace}" in message
    assert 'User "ann"' in message
    with pytest.raises(Forbidden, match=r"create retrainjobs\.retrainer\.dev"):
        nobody.submit(manifest())


def test_a_person_who_may_only_read_is_refused_the_rest(
    cluster: DevCluster, client: Client, namespace: str
) -> None:
    job = client.submit(manifest())
    cluster.kubectl(
        "create", "role", "reader", "-n", namespace, "--verb=get,list,watch",
        "--resource=retrainjobs.retrainer.dev",
    )  # fmt: skip
    cluster.kubectl(
        "create", "rolebinding", "reader", "-n", namespace, "--role=reader", "--user=bob"
    )
    reader = Client(namespace, kubeconfig=cluster.user_kubeconfig("bob"))
    until(lambda: not refused(reader.list), "the API server knows the new role")
    handle = reader.get(job.name)
    assert len(reader.list()) == 1
    for verb, resource, act in (
        ("patch", "retrainjobs", handle.suspend),
        ("delete", "retrainjobs", handle.delete),
        ("list", "pods", lambda: list(handle.logs())),
        ("list", "events", handle.events),
    ):
        with pytest.raises(Forbidden, match=f"Not allowed to {verb} {resource}"):
            act()


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except Forbidden:
        return True
    return False


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Bounded wait on a condition of the cluster."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        pause.wait(0.05)


# --- events, pods, results ---
def test_events_pods_and_results_of_a_finished_job(
    cluster: DevCluster, client: Client, operator: Operator, tmp_path: Path
) -> None:
    job = client.submit(manifest())
    cluster.apply(
        {
            "apiVersion": "v1", "kind": "Event", "type": "Normal", "reason": "Started",
            "metadata": {"name": "flowers.1", "namespace": job.namespace},
            "message": "The first pod runs.", "lastTimestamp": "2026-01-01T00:00:00Z",
            "involvedObject": {"apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob",
                               "name": "flowers", "namespace": job.namespace, "uid": job.uid},
        },
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "flowers-train-x", "namespace": job.namespace,
                         "labels": {LABEL_UID: job.uid}},
            "spec": {"containers": [{"name": "trainer", "image": "none"}]},
        },
    )  # fmt: skip
    assert job.events()[0].message == "The first pod runs."
    assert [p["metadata"]["name"] for p in job.pods()] == ["flowers-train-x"]
    assert list(job.logs()) == [], "its container has not started"
    run = write_run(tmp_path / "flowers-12345678", [1, 2, 3])
    operator.status(
        job, phase="Succeeded", run=str(run), artifacts={"labels": "labels.txt"},
        metrics={"testAccuracy": 0.95, "testImages": 60, "validationAccuracy": 0.9},
        curve=[{"step": 0, "validationAccuracy": 0.1}, {"step": 10, "validationAccuracy": 0.9}],
    )  # fmt: skip
    assert job.metrics().test_images == 60
    assert len(job.history()) == 2
    assert len(job.history(whole=True)) == 51
    assert job.confusion_matrix().counts.sum() == 60
    assert len(job.misclassified()) == 3
    assert job.artifacts() == {"labels": f"{run}/labels.txt"}
    assert (job.download(tmp_path / "copy") / "result.json").exists()
    assert client.compare(["flowers"]).rows[0].accuracy == pytest.approx(0.95)
    assert job.compare([str(run)]).differences[0].p == 1.0
    assert "test accuracy" in job._repr_html_()


async def test_a_cancelled_wait_lets_go_of_its_connection_at_once(
    cluster: DevCluster, namespace: str
) -> None:
    client = AsyncClient(namespace, kubeconfig=cluster.kubeconfig)
    job = await client.submit(manifest())
    reported = threading.Event()
    task = asyncio.create_task(job.wait(progress=OnReport(lambda _: reported.set())))
    assert await asyncio.to_thread(reported.wait, 20)
    task.cancel()
    # Nothing happens to the job: the next event would be the end of the watch, minutes later.
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)


# --- the command line ---
def test_the_commands_of_the_readme(
    cluster: DevCluster,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    file = tmp_path / "job.yaml"
    file.write_text(
        "apiVersion: retrainer.dev/v1alpha1\nkind: RetrainJob\nmetadata: {name: flowers}\n"
        "spec: {architecture: mobilenet_0.50_160, images: 's3://photos/flowers', "
        "output: 's3://models/flowers'}\n"
    )

    def run(*arguments: str) -> tuple[int, str]:
        code = main.run(main.build(), [*arguments, "-n", namespace])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out + printed.err

    assert run("submit", "-f", str(file)) == (0, "retrainjob.retrainer.dev/flowers\n")
    assert run("get", "-o", "name") == (0, "retrainjob.retrainer.dev/flowers\n")
    assert "Pending" in run("get", "flowers")[1]
    assert "No operator has taken this job up yet." in run("describe", "flowers")[1]
    assert run("suspend", "flowers")[0] == 0
    assert run("resume", "flowers") == (0, "flowers resumed\n")
    assert run("wait", "flowers", "--timeout", "0.5")[0] == 1
    assert "has no pods" in run("logs", "flowers")[1]
    assert "test accuracy" in run("metrics", "flowers")[1]
    assert run("plot", "flowers") == (0, "no evaluation yet\n")
    assert run("get", "nothing")[0] == 64
    assert run("delete", "flowers")[0] == 0
