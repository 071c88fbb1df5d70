"""A job on a fake API server, as its user submitted it."""

from tests.support.fake_apiserver import FakeApiServer

from retrainer.cluster.client import Client
from retrainer.cluster.job import Job
from retrainer.cluster.requests import Cluster


def submitted(server: FakeApiServer, name: str = "flowers") -> Job:
    return Client._on(Cluster(server)).submit(
        {
            "apiVersion": "retrainer.dev/v1alpha1",
            "kind": "RetrainJob",
            "metadata": {"name": name},
            "spec": {
                "architecture": "mobilenet_0.50_160",
                "images": "s3://photos/flowers",
                "output": "s3://models/flowers",
            },
        }
    )
