"""Job: its figures while it runs, and its run's folder at the end."""

import json
from pathlib import Path

import pytest
from tests.support.fake_apiserver import FakeApiServer
from tests.support.run_folder import write_run
from tests.support.submitted import submitted

from retrainer.cluster.job import Job
from retrainer.errors import NotFound


@pytest.fixture
def server() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
def job(server: FakeApiServer) -> Job:
    return submitted(server)


def test_metrics_and_history_are_the_latest(server: FakeApiServer, job: Job) -> None:
    assert job.metrics().test_accuracy is None
    server.status(
        "flowers",
        phase="Training",
        metrics={"validationAccuracy": 0.8},
        curve=[{"step": 0, "validationAccuracy": 0.2}, {"step": 10, "validationAccuracy": 0.8}],
    )
    assert job.metrics().validation_accuracy == 0.8
    history = job.history()
    assert history.column("step") == [0, 10]
    assert history.to_pandas()["validation_accuracy"].tolist() == [0.2, 0.8]


def test_a_finished_jobs_folder_is_read(server: FakeApiServer, job: Job, tmp_path: Path) -> None:
    run = write_run(tmp_path / "flowers-12345678", wrong=[0, 7, 9])
    server.status("flowers", phase="Succeeded", run=str(run), artifacts={"labels": "labels.txt"})
    job.refresh()
    assert job.artifacts() == {"labels": f"{run}/labels.txt"}
    assert len(job.history(whole=True)) == 51
    assert job.confusion_matrix().accuracy == 57 / 60
    assert [g.path for g in job.misclassified()] == [
        "daisy/009.jpg",
        "roses/007.jpg",
        "daisy/000.jpg",
    ]
    folder = job.download(tmp_path / "copy")
    assert folder == tmp_path / "copy" / "flowers-12345678"
    assert json.loads((folder / "result.json").read_text())["name"] == "flowers"


def test_an_unfinished_jobs_folder_says_so(server: FakeApiServer, job: Job, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    server.status("flowers", phase="Training", run=str(tmp_path / "run"))
    job.refresh()
    with pytest.raises(NotFound, match=r"has no result\.json: the run is not finished"):
        job.download(tmp_path)


def test_an_unfinished_jobs_whole_curve_is_not_there_yet_but_its_points_are(
    server: FakeApiServer, job: Job, tmp_path: Path
) -> None:
    points = [{"step": 0, "validationAccuracy": 0.2}, {"step": 10, "validationAccuracy": 0.8}]
    server.status("flowers", phase="Training", run=str(tmp_path / "run"), curve=points)
    assert len(job.history()) == 2
    for folder_exists in (False, True):  # the pod writes the first file late in its life
        if folder_exists:
            (tmp_path / "run").mkdir()
        with pytest.raises(NotFound) as error:
            job.history(whole=True)
        assert str(error.value) == (
            f"{tmp_path}/run has no history.parquet: the run is not finished, or its folder was deleted."
        )


def test_a_job_that_diverged_has_its_curve_without_a_result(
    server: FakeApiServer, job: Job, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    (run / "result.json").unlink()
    server.status("flowers", phase="Failed", reason="Diverged", run=str(run))
    job.refresh()
    assert len(job.history(whole=True)) == 51
    assert job.run.labels == ["daisy", "roses", "tulips"]
    with pytest.raises(NotFound, match=r"has no result\.json: the run is not finished"):
        job.download(tmp_path)
