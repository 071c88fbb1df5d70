"""Retrainer on a full node, once for all end-to-end tests."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import installation
from tests.support.devcluster_client import DevCluster, ensure
from tests.support.installation import SECRET, Installation


@pytest.fixture(scope="session")
def node() -> Iterator[DevCluster]:
    """A node with Retrainer's chart installed; that of `make cluster-up` if it runs."""
    with ensure("node", name="dev", images=("operator", "trainer")) as cluster:
        installation.install(cluster)
        yield cluster


@pytest.fixture(scope="session")
def photos_bucket(node: DevCluster, flowers: Path, imagenet_weights: Path) -> installation.Bucket:
    """A bucket with the flower photos and the ImageNet weights."""
    assert node.s3 is not None, "the given cluster needs RETRAINER_TEST_S3 for these tests"
    bucket = installation.bucket_of(node.s3, "photos")
    if not bucket.keys("weights/"):
        bucket.upload(flowers, "flower_photos")
        bucket.upload(imagenet_weights, "weights")
    return bucket


@pytest.fixture
def here(node: DevCluster, photos_bucket: installation.Bucket) -> Iterator[Installation]:
    """A fresh restricted namespace with the Secret; gone, with its jobs, after the test."""
    assert node.s3 is not None
    name = f"team-{uuid.uuid4().hex[:6]}"
    installation.namespace(node, name)
    node.apply(node.s3.secret(SECRET, name))
    yield Installation(node, name, photos_bucket, node.s3.for_pods)
    node.kubectl("delete", "namespace", name, "--wait=false")
