"""Each fault of the store and of the photos once, as `make faults` plays them with longer outages."""

from collections.abc import Iterator

import pytest
from tests.faults.store import MENU, Bench, Entry
from tests.support.devcluster_s3 import S3Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def bench(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), s3, seconds_away=3)


@pytest.mark.parametrize("fault", MENU, ids=lambda fault: fault.name)
def test_a_run_comes_to_the_same_head_after(fault: Entry, bench: Bench) -> None:
    with bench.scene() as scene:
        fault.play(scene)
