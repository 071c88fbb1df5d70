"""Clusters, each once for all tests that share it: a full node, and two control planes without nodes."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.operator.harness import Bed, bring_up
from tests.support import installation
from tests.support.chart import install_crd
from tests.support.devcluster_client import DevCluster, ensure
from tests.support.installation import SECRET, Installation
from tests.support.terminal import Terminal, terminal
from tools.digits import write_digits

DIGITS_EACH = 30
"""Pictures of each of the ten digits; a job on them takes seconds."""


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A control plane with simulated nodes and the chart's rights, for operators that tests start."""
    bed = bring_up(tmp_path_factory.mktemp("operator"))
    with bed.cluster:
        yield bed


@pytest.fixture(scope="session")
def control_plane() -> Iterator[DevCluster]:
    """A control plane with the CRD and no operator; the test_sdk file kills its API server."""
    with ensure("control-plane", name="sdk") as cluster:
        install_crd(cluster)
        yield cluster


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
    with _namespace(node, photos_bucket) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def team(node: DevCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The same for all tests of a file, with a bucket of a few digits."""
    assert node.s3 is not None, "the given cluster needs RETRAINER_TEST_S3 for these tests"
    bucket = installation.bucket_of(node.s3, "few")
    if not bucket.keys("digits/"):
        folder = tmp_path_factory.mktemp("digits")
        write_digits(folder)
        for label in folder.iterdir():
            for more in sorted(label.iterdir())[DIGITS_EACH:]:
                more.unlink()
        bucket.upload(folder, "digits")
    with _namespace(node, bucket) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shell(team: Installation, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A terminal in that namespace."""
    return terminal(team, tmp_path_factory.mktemp("terminal"))


@contextmanager
def _namespace(node: DevCluster, bucket: installation.Bucket) -> Iterator[Installation]:
    assert node.s3 is not None
    name = f"team-{uuid.uuid4().hex[:6]}"
    installation.namespace(node, name)
    node.apply(node.s3.secret(SECRET, name))
    yield Installation(node, name, bucket, node.s3.for_pods)
    node.kubectl("delete", "namespace", name, "--wait=false")
