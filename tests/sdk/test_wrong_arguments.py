"""What the SDK says where it is given something else than it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.fake_apiserver import FakeApiServer
from tests.support.run_folder import write_run
from tests.support.submitted import submitted

import retrainer
from retrainer.cluster.client import Client
from retrainer.cluster.requests import Cluster
from retrainer.errors import UserError

NOTHING: Any = None
FIVE: Any = 5
JOB: dict[str, Any] = {
    "apiVersion": "retrainer.dev/v1alpha1",
    "kind": "RetrainJob",
    "metadata": {"name": "flowers"},
    "spec": {"architecture": "mobilenet_0.25_128", "images": "photos", "output": "out"},
}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: retrainer.run(NOTHING), "job: must be a mapping with apiVersion, kind, metadata"),
        (lambda: retrainer.run("photos"), "photos is a folder, not a job file."),
        (lambda: retrainer.predict(NOTHING, "rose.jpg"), "Give a path or URL as a text, not None."),
        (
            lambda: retrainer.predict("rose.jpg", "out"),
            "rose.jpg is a picture, not a run: name the run first, then the pictures.",
        ),
        (lambda: retrainer.compare(NOTHING), "Give a list of jobs, not None."),
        (
            lambda: retrainer.compare([FIVE]),
            "Give jobs, runs, or their names, paths or URLs, not 5.",
        ),
        (lambda: retrainer.Run(NOTHING), "Give the path or URL of a run, not None."),
        (
            lambda: retrainer.Run("out", storage={"endpoint": 5}),
            "storage.endpoint: must be text, got 5",
        ),
    ],
)
def test_a_wrong_argument_is_told_with_what_to_give(
    call: Callable[[], Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "rose.jpg").touch()
    with pytest.raises((TypeError, UserError)) as caught:
        call()
    assert str(caught.value).startswith(sentence)


def test_what_is_no_watcher_is_told_before_a_job_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "b").mkdir()
    server = FakeApiServer()
    job = submitted(server)
    calls: list[Callable[[Any], Any]] = [
        lambda progress: retrainer.run(JOB, progress=progress),
        lambda progress: job.wait(1, progress),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"methods report, log and warning .* has no report\.$"):
            call(print)


@pytest.mark.parametrize("images", [None, 5, [5], np.zeros((2, 3, 3)), [np.zeros((3, 3, 3))]])
def test_what_is_no_image_is_told(images: Any) -> None:
    from retrainer.inference.classifier import files

    with pytest.raises(TypeError, match=r"^Give the paths of images, or what their files hold as"):
        files(images)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_empty_name_deletes_and_changes_nothing(name: str) -> None:
    server = FakeApiServer()
    submitted(server)
    client = Client._on(Cluster(server))
    for call in (client.get, client.delete, client.suspend, client.resume, client.wait):
        with pytest.raises(UserError, match=r"^Give the name of a job, not "):
            call(name)
    with pytest.raises(TypeError, match=r"^Give the name of a job as a text, not None"):
        client.delete(NOTHING)
    assert [job.name for job in client.list()] == ["flowers"]


def test_fewer_labels_than_none_are_refused(tmp_path: Path) -> None:
    from retrainer.inference.classifier import Classifier

    classifier = Classifier.__new__(Classifier)
    with pytest.raises(UserError, match=r"^Give 0 or more as top, not -1\.$"):
        classifier.each([str(write_run(tmp_path / "run"))], top=-1)
