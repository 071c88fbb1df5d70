"""The SDK on a full node, from submit to predict: a notebook's way through a real job."""

import threading
from pathlib import Path

import boto3
import pytest
from tests.support.installation import Installation
from tests.support.watching import OnReport

from retrainer.cluster.aio import AsyncClient
from retrainer.cluster.client import Client
from retrainer.errors import JobFailed, StorageError

pytestmark = pytest.mark.cluster


def client_of(here: Installation) -> Client:
    """As on a data scientist's machine: S3 is reached by another URL than in pods."""
    s3 = here.cluster.s3
    assert s3 is not None
    session = boto3.Session(
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
    )
    return Client(
        here.namespace,
        kubeconfig=here.cluster.kubeconfig,
        s3_endpoint=s3.for_host,
        session=session,
    )


def test_submit_follow_wait_read_and_predict(
    here: Installation, flowers: Path, tmp_path: Path
) -> None:
    client = client_of(here)
    job = client.submit(here.manifest("flowers", {"shards": 2}))
    assert client.submit(here.manifest("flowers", {"shards": 2})).uid == job.uid

    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(job.logs(follow=True)), daemon=True)
    reader.start()
    phases: list[str] = []
    done = client.get("flowers").wait(
        timeout=420, progress=OnReport(lambda report: phases.append(report.stage))
    )
    assert done.test_accuracy is not None
    assert done.test_accuracy > 0.8
    assert phases[-1] == "Succeeded"
    assert "Training" in phases

    reader.join(60)
    assert not reader.is_alive(), "the followed log ends with the job"
    pods = {line.split("]")[0].lstrip("[") for line in lines}
    assert {pod.rsplit("-", 1)[0] for pod in pods} == {
        "flowers-bottlenecks-0", "flowers-bottlenecks-1", "flowers-train",
    }  # fmt: skip
    assert any("Final test accuracy" in line for line in lines)
    assert list(job.logs()), "finished pods' logs are still there"
    assert len(set(lines)) == len(lines), "no line is told twice"

    reasons = {event.reason for event in done.events()}
    assert "Scheduled" in reasons, "of the pods"
    assert "SuccessfulCreate" in reasons, "of the child Jobs"
    assert done.metrics().test_images == 165
    assert 2 <= len(done.history()) <= 20
    assert len(done.history(whole=True)) == 51
    assert done.confusion_matrix().counts.sum() == 165
    wrong = done.misclassified()
    assert len(wrong) == round((1 - done.test_accuracy) * 165)
    folder = done.download(tmp_path)
    assert (folder / "saved_model" / "saved_model.pb").exists()
    assert (folder / "report.html").exists()

    photos = sorted((flowers / "sunflowers").glob("*.jpg"))[:20]
    guesses = [prediction.label for prediction in done.predict(photos)]
    assert guesses.count("sunflowers") >= 15

    second = client.submit(
        here.manifest("slower", {"training": {"steps": 500, "learningRate": 0.001}})
    )
    second.wait(timeout=300)
    comparison = done.compare([second])
    assert len(comparison.differences) == 1
    assert comparison.notes == []


def test_a_failed_job_says_why_and_where_its_files_are_not(here: Installation) -> None:
    client = client_of(here)
    job = client.submit(here.manifest("nowhere", {"images": "s3://no-such-bucket/photos"}))
    with pytest.raises(JobFailed, match="no-such-bucket"):
        job.wait(timeout=180)
    assert job.reason == "BucketNotFound"


def test_without_the_other_endpoint_the_error_says_how_to_reach_the_store(
    here: Installation,
) -> None:
    s3 = here.cluster.s3
    assert s3 is not None
    if s3.for_host == s3.for_pods:
        return  # a given cluster whose store has one URL for all
    session = boto3.Session("key", "secret")
    client = Client(here.namespace, kubeconfig=here.cluster.kubeconfig, session=session)
    job = client.submit(here.manifest("held", {"suspend": True}))
    with pytest.raises(StorageError, match="RETRAINER_S3_ENDPOINT="):
        job.history(whole=True)


async def test_the_asynchronous_way(here: Installation) -> None:
    sync = client_of(here)
    client = AsyncClient(
        here.namespace,
        kubeconfig=here.cluster.kubeconfig,
        s3_endpoint=sync._access.endpoint,
        session=sync._access.session,
    )
    job = await client.submit(here.manifest("flowers", {}))
    lines = [line async for line in job.logs(follow=True)]
    await job.wait(timeout=300)
    assert any("Final test accuracy" in line for line in lines)
    assert len(await job.history(whole=True)) == 51
