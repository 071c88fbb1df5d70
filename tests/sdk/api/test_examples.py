"""Every RetrainJob in examples/ is a valid one."""

from pathlib import Path

import pytest

from retrainer import jobfile

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
HERE = sorted((EXAMPLES / "local").glob("*.yaml"))
CLUSTER = sorted(EXAMPLES.glob("*.yaml"))


def test_there_are_examples() -> None:
    assert len(HERE) >= 3
    assert EXAMPLES / "job.yaml" in CLUSTER


@pytest.mark.parametrize("file", HERE, ids=lambda f: f.name)
def test_an_example_for_this_machine_is_right_and_says_how_to_run_it(file: Path) -> None:
    jobs = jobfile.load_all(file)
    assert all(jobfile.only_here(job) for job in jobs)
    assert f"retrainer run -f examples/local/{file.name}" in file.read_text()


@pytest.mark.parametrize("file", CLUSTER, ids=lambda f: f.name)
def test_an_example_for_a_cluster_is_right_there_too(file: Path) -> None:
    for job in jobfile.load_all(file):
        assert jobfile.only_here(job) == []
