"""Every public method of the SDK, synchronous and asynchronous alike, on a job that really trained."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.support.installation import Installation

import retrainer
from retrainer import AsyncClient, AsyncJob, Client, Job, Run, Storage
from retrainer.errors import NotFound

pytestmark = pytest.mark.cluster
TEST_IMAGES = range(30, 91)
"""About a fifth of 300."""


class Called:
    """A client or a handle; its calls are awaited where they have to be, and noted."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.names: set[str] = set()

    async def __call__(self, name: str, *arguments: Any, **named: Any) -> Any:
        self.names.add(name)
        result = getattr(self.inner, name)(*arguments, **named)
        if inspect.isawaitable(result):
            return await result
        if hasattr(result, "__aiter__"):
            return [item async for item in result]
        return list(result) if inspect.isgenerator(result) else result


def methods(kind: type) -> set[str]:
    """Public ones; properties say only what was read before."""
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}


def spec(team: Installation, **more: Any) -> dict[str, Any]:
    return {
        "architecture": "mobilenet_0.25_128",
        "weights": "builtin",
        "images": f"s3://{team.bucket.name}/digits",
        "cache": f"s3://{team.bucket.name}/cache/{team.namespace}",
        "split": {"testingPercentage": 20, "validationPercentage": 20},
        "training": {"steps": 100, "learningRate": 0.1},
        "export": ["tflite"],
        **more,
    }


@pytest.fixture(scope="module")
def places(team: Installation) -> dict[str, Any]:
    """Arguments of a client on this machine, where the store has another URL than in pods."""
    s3 = team.cluster.s3
    assert s3 is not None
    session = boto3.Session(
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
    )
    return {
        "namespace": team.namespace,
        "kubeconfig": team.cluster.kubeconfig,
        "s3_endpoint": s3.for_host,
        "session": session,
    }


@pytest.fixture(scope="module")
def digits(team: Installation, places: dict[str, Any]) -> Job:
    """A finished job."""
    return Client(**places).submit(team.manifest("digits", spec(team))).wait(600)


@pytest.fixture
def seven(team: Installation, tmp_path: Path) -> Path:
    """A picture of a 7."""
    file = tmp_path / "seven.png"
    file.write_bytes(team.bucket.read(team.bucket.keys("digits/7/")[0]))
    return file


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_every_method_of_a_client(
    kind: Callable[..., Any], digits: Job, team: Installation, places: dict[str, Any]
) -> None:
    client = Called(kind(**places))
    assert (await client("submit", team.manifest("digits", spec(team)))).uid == digits.uid
    assert (await client("wait", "digits", 30)).phase == "Succeeded"
    assert (await client("get", "digits")).test_accuracy == digits.test_accuracy
    assert "digits" in [job.name for job in await client("list", "Succeeded")]

    document = team.manifest("held", spec(team, suspend=True))
    assert (await client("submit", document)).spec.suspend is True
    assert (await client("resume", "held")).spec.suspend is False
    assert (await client("suspend", "held")).spec.suspend is True
    changes = await client("watch", timeout=1)
    assert {"digits", "held"} <= {change.job.name for change in changes if change.kind == "Added"}
    await client("delete", "held")
    with pytest.raises(NotFound, match="No RetrainJob held in namespace"):
        await client("get", "held")

    # By its name, by its URL, and as a run: each read from the store as the client was told to.
    comparison = await client("compare", ["digits", digits.run_url, digits.run])
    assert len({row.name for row in comparison.rows}) == 3
    assert {row.images for row in comparison.rows} == {
        (await client("get", "digits")).status.metrics.test_images
    }
    assert [d.p for d in comparison.differences] == [1.0, 1.0]
    assert client.names == methods(type(client.inner))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["Job", "AsyncJob"])
async def test_every_method_of_a_handle(
    asynchronous: bool, digits: Job, seven: Path, team: Installation, places: dict[str, Any]
) -> None:
    job = Called(AsyncJob(digits) if asynchronous else digits)
    assert (await job("refresh")).finished
    assert (await job("wait", 30)).phase == "Succeeded"
    assert (await job("to_dict"))["status"]["phase"] == "Succeeded"
    assert any("Final test accuracy" in line for line in await job("logs"))
    assert [pod["status"]["phase"] for pod in await job("pods")] == ["Succeeded"]
    assert {"JobCreated", "Scheduled", "Succeeded"} <= {e.reason for e in await job("events")}

    metrics = await job("metrics")
    assert metrics.test_images in TEST_IMAGES
    assert metrics.test_accuracy > 0.8
    assert [point.step for point in await job("history", whole=True)] == list(range(0, 101, 10))
    matrix = await job("confusion_matrix")
    assert matrix.counts.sum() == metrics.test_images
    wrong = await job("misclassified")
    assert len(wrong) == metrics.test_images - matrix.counts.trace()
    assert digits.status.findings is not None
    assert len(await job("findings")) == digits.status.findings.total
    assert len(await job("suggested_corrections")) == digits.status.findings.total
    assert digits.status.progress is not None
    assert len(await job("catalog")) == digits.status.progress.images_total
    with pytest.raises(NotFound, match="its job had no sweep"):
        await job("sweep")
    assert (await job("artifacts"))["tflite"] == f"{digits.run_url}/model.tflite"
    assert ((await job("download", seven.parent)) / "result.json").exists()
    assert [guess.label for guess in await job("predict", seven)] == ["7"]
    assert len((await job("compare", [digits.run_url])).differences) == 1
    done = job.names

    name = "held-async" if asynchronous else "held-sync"
    handle = Client(**places).submit(team.manifest(name, spec(team, suspend=True)))
    job = Called(AsyncJob(handle) if asynchronous else handle)
    assert (await job("resume")).spec.suspend is False
    assert (await job("suspend")).spec.suspend is True
    await job("delete")
    with pytest.raises(NotFound, match=f"No RetrainJob {name} in namespace"):
        await job("refresh")
    assert done | job.names == methods(type(job.inner))


def test_a_handle_says_the_same_of_itself_sync_and_async(digits: Job) -> None:
    properties = {n for n, v in inspect.getmembers(Job) if isinstance(v, property)} - {"run"}
    assert {"phase", "run_url", "test_accuracy"} <= properties
    other = AsyncJob(digits)
    for name in properties:
        assert getattr(other, name) == getattr(digits, name), name
    assert other.run.url == digits.run.url == digits.run_url
    assert digits.name in digits._repr_html_()
    assert other._repr_html_() == digits._repr_html_()


def test_a_run_is_read_and_used_by_its_url_alone(
    digits: Job, seven: Path, team: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = team.cluster.s3
    assert s3 is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("RETRAINER_S3_ENDPOINT", s3.for_host)
    run = Run(digits.run_url)
    assert run.test_accuracy == digits.test_accuracy
    assert run.labels == list("0123456789")
    low, high = run.interval or (1.0, 0.0)
    assert low < (digits.test_accuracy or 0.0) <= high
    assert len(run.predictions()) in TEST_IMAGES
    (guess,) = retrainer.predict(digits.run_url, seven, storage=Storage(endpoint=s3.for_host))
    assert guess.label == "7"
    assert retrainer.compare([digits.run_url]).rows[0].accuracy == pytest.approx(run.test_accuracy)
