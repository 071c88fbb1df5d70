"""Running the trainer as a process: what it is given, what its events and its end become."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrainer import jobfile
from retrainer.api import Phase, Report, RetrainJob, Storage, parse_job
from retrainer.api.interval import wilson
from retrainer.errors import (
    Interrupted,
    InvalidJob,
    JobFailed,
    MissingExtra,
    NotFound,
    RetrainerError,
    StorageDenied,
    StorageError,
    UserError,
)
from retrainer.extras import require_trainer
from retrainer.local import places
from retrainer.local import process as local

FAKE = Path(__file__).resolve().parent.parent / "support" / "fake_trainer.py"
NOBODY = 2**22 + 1
"""A number above every process id."""


@pytest.fixture(autouse=True)
def _photos(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The folder of photos that the jobs name, in the current folder."""
    here = tmp_path_factory.mktemp("here")
    (here / "photos").mkdir()
    monkeypatch.chdir(here)


def fake(scenario: str) -> list[str]:
    return [sys.executable, str(FAKE), scenario]


def job(images: str = "photos", output: str = "out") -> RetrainJob:
    text = jobfile.template(images=images, output=output)
    return parse_job(jobfile.documents(text, "job.yaml")[0][1])


class Recorder:
    """A Watcher that remembers, and may do something at a log line."""

    def __init__(self, on_log: int = 0) -> None:
        self.reports: list[Report] = []
        self.logs: list[str] = []
        self.warnings: list[str] = []
        self._signal = on_log

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def log(self, text: str) -> None:
        self.logs.append(text)
        if self._signal and len(self.logs) == 1:
            os.kill(os.getpid(), self._signal)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    """Where the trainer's logs go in this test: the folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


def test_a_run_that_goes_well_gives_its_accuracy_and_its_places(tmp_path: Path) -> None:
    result = local.run_program(job(output=str(tmp_path)), progress=False, program=fake("well"))
    assert result.test_accuracy == 0.8909
    assert result.test_images == 165
    assert result.interval == wilson(147 / 165, 165)
    assert str(result) == "test accuracy 89.1% (95% interval 83.4 to 93.0%, 165 images)"
    assert result.report.stage == Phase.SUCCEEDED
    assert result.url.startswith(f"{tmp_path}/flowers-")
    assert result.page == f"{result.url}/report.html"
    assert result.artifacts()["tflite"] == f"{result.url}/model.tflite"


def test_each_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = {
        local.run_program(job(output=str(tmp_path)), progress=False, program=fake("cached")).url
        for _ in range(2)
    }
    assert len(runs) == 2


def test_reports_logs_and_warnings_are_passed_on_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    local.run_program(job(output=str(tmp_path)), progress=recorder, program=fake("well"))
    assert recorder.logs == ["Converting the backbone, once per cache."]
    assert len(recorder.warnings) == 1
    steps = [r.progress.step for r in recorder.reports if r.progress.step is not None]
    assert steps == sorted(steps)
    assert [r.stage for r in recorder.reports][-1] == Phase.SUCCEEDED


def test_the_trainer_is_given_the_task_of_a_pod_with_absolute_paths(tmp_path: Path) -> None:
    recorder = Recorder()
    Path("w.h5").touch()
    original = job("photos", str(tmp_path / "out"))
    home = original.model_copy(
        update={"spec": original.spec.model_copy(update={"cache": "~/cache", "weights": "w.h5"})}
    )
    local.run_program(home, progress=recorder, program=fake("environment"))
    environment = json.loads(recorder.logs[0])
    spec = environment["task"]["spec"]
    assert environment["task"]["task"] == "train"
    assert environment["port"] == "0"
    assert environment["cwd"] == str(Path.cwd())
    assert spec["images"] == str(Path("photos").absolute())
    assert spec["cache"] == str(Path("~/cache").expanduser())
    assert spec["weights"] == str(Path("w.h5").absolute())
    assert len(environment["task"]["uid"]) == 36


def test_the_store_is_reached_as_this_machine_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = job("s3://photos/flowers", "s3://models/flowers")
    storage = Storage(endpoint="http://s3.storage:7070", region="eu-west-1")
    urls = urls.model_copy(update={"spec": urls.spec.model_copy(update={"storage": storage})})

    def endpoint(s3_endpoint: str | None = None) -> str:
        recorder = Recorder()
        local.run_program(
            urls, progress=recorder, s3_endpoint=s3_endpoint, program=fake("environment")
        )
        task_storage = json.loads(recorder.logs[0])["task"]["spec"]["storage"]
        assert task_storage["region"] == "eu-west-1"
        return str(task_storage["endpoint"])

    monkeypatch.delenv("RETRAINER_S3_ENDPOINT", raising=False)
    assert endpoint() == "http://s3.storage:7070"
    monkeypatch.setenv("RETRAINER_S3_ENDPOINT", "http://localhost:7070")
    assert endpoint() == "http://localhost:7070"
    assert endpoint("http://localhost:9999") == "http://localhost:9999"
    monkeypatch.setenv("RETRAINER_S3_ENDPOINT", "localhost")
    with pytest.raises(
        UserError, match=r"^RETRAINER_S3_ENDPOINT: endpoint: must be http://HOST:PORT"
    ):
        endpoint()


def test_urls_and_the_words_for_weights_are_left_as_they_are() -> None:
    recorder = Recorder()
    urls = job("s3://photos/flowers", "s3://models/flowers")
    local.run_program(urls, progress=recorder, program=fake("environment"))
    spec = json.loads(recorder.logs[0])["task"]["spec"]
    assert (spec["images"], spec["output"]) == ("s3://photos/flowers", "s3://models/flowers")
    assert spec["weights"] == "imagenet"


def test_without_test_images_there_is_no_accuracy(tmp_path: Path) -> None:
    result = local.run_program(job(output=str(tmp_path)), progress=False, program=fake("untested"))
    assert result.test_accuracy is None
    assert result.interval is None
    assert str(result) == f"trained, no test images; run in {result.url}"


ENDS: list[tuple[str, type[RetrainerError], str, int]] = [
    (
        "one-label",
        UserError,
        "At least 2 labels are needed in /photos, which has 1: roses. Put one folder per label "
        "there, with the images inside; in a manifest, list images of both.",
        64,
    ),
    (
        "many-bad-photos",
        UserError,
        "the first: a.jpg: 0 bytes. Fix or remove them (/models/flowers-00000000/rejected.csv lists "
        "them all), or raise maxRejectedFraction.",
        64,
    ),
    ("no-folder", NotFound, "No images under /photos: there is no such folder.", 64),
    ("denied", StorageDenied, "refused access to bucket b (spec.images).", 64),
    ("unreachable", StorageError, "Cannot reach http://s3:7070: connection refused. The tr", 1),
    ("crash", JobFailed, "exit code 1: ImportError: libtensorflow.so.2: cannot open shared", 1),
    ("killed", JobFailed, "The trainer was killed (SIGKILL), most often because memory ran out", 1),
    ("silent", JobFailed, "The trainer ended without a result. The trainer's log: ", 1),
    ("terminated", Interrupted, "The trainer was stopped from outside (SIGTERM)", 143),
]


@pytest.mark.parametrize(("scenario", "kind", "sentence", "code"), ENDS, ids=[e[0] for e in ENDS])
def test_every_end_of_the_trainer_has_its_error(
    scenario: str, kind: type[RetrainerError], sentence: str, code: int, logs: Path
) -> None:
    recorder = Recorder()
    with pytest.raises(RetrainerError) as caught:
        local.run_program(job(), progress=recorder, program=fake(scenario))
    assert recorder.logs == [], "the sentence would be shown twice"
    assert type(caught.value) is kind
    shown = re.sub(r"/\S+/flowers-[0-9a-f]{8}", "/models/flowers-00000000", str(caught.value))
    assert sentence in shown
    assert caught.value.exit_code == code
    assert len(list(logs.iterdir())) == ("The trainer's log: " in str(caught.value))


def test_the_trainers_reason_is_kept_for_scripts() -> None:
    with pytest.raises(UserError) as caught:
        local.run_program(job(), progress=False, program=fake("one-label"))
    assert caught.value.reason == "TooFewLabels"


def test_what_libraries_print_goes_to_a_log_that_stays_only_after_a_failure(
    tmp_path: Path, logs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local.run_program(job(output=str(tmp_path)), progress=False, program=fake("well"))
    assert list(logs.iterdir()) == []
    with pytest.raises(JobFailed) as caught:
        local.run_program(job(), progress=False, program=fake("crash"))
    (kept,) = logs.iterdir()
    assert str(kept) in str(caught.value)
    assert "cuDNN" in kept.read_text()
    assert "absl" in kept.read_text()
    out, err = capfd.readouterr()
    assert out == err == ""


def test_a_users_mistake_leaves_no_log(logs: Path) -> None:
    with pytest.raises(UserError):
        local.run_program(job(), progress=False, program=fake("one-label"))
    assert list(logs.iterdir()) == []


def test_broken_lines_in_the_pipe_do_not_end_the_run(tmp_path: Path) -> None:
    result = local.run_program(
        job(output=str(tmp_path)), progress=False, program=fake("broken-lines")
    )
    assert result.test_images == 165


def test_a_trainer_that_cannot_be_started_is_told() -> None:
    with pytest.raises(RetrainerError, match=r"Cannot start /nowhere/python: No such file"):
        local.run_program(job(), progress=False, program=["/nowhere/python"])


def test_no_file_descriptor_is_left_open(tmp_path: Path) -> None:
    local.run_program(job(output=str(tmp_path)), progress=False, program=fake("cached"))
    before = sorted(Path("/proc/self/fd").iterdir())
    local.run_program(job(output=str(tmp_path)), progress=False, program=fake("cached"))
    with pytest.raises(RetrainerError):
        local.run_program(job(), progress=False, program=["/nowhere/python"])
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_ctrl_c_stops_the_trainer_in_order_and_says_what_is_in_the_cache(
    tmp_path: Path, logs: Path
) -> None:
    recorder = Recorder(on_log=signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        local.run_program(job(output=str(tmp_path)), progress=recorder, program=fake("stop"))
    # 749 when Ctrl-C came, 856 once the trainer had saved what it had.
    assert str(caught.value) == (
        f"Stopped; the cache {tmp_path}/.bottlenecks holds at least 856 of 1,498 bottlenecks. "
        "Run it again to go on."
    )
    assert caught.value.exit_code == 130
    assert recorder.logs[1].startswith("Stopping once what was computed is saved")
    assert gone(int(recorder.logs[0].split()[-1]))
    assert list(logs.iterdir()) == []


def test_an_error_of_the_watcher_stops_the_trainer_and_leaves_nothing(
    tmp_path: Path, logs: Path
) -> None:
    class Closed(Recorder):
        def log(self, text: str) -> None:
            super().log(text)
            raise BrokenPipeError

    recorder = Closed()
    with pytest.raises(BrokenPipeError):
        local.run_program(job(output=str(tmp_path)), progress=recorder, program=fake("stop"))
    assert gone(int(recorder.logs[0].split()[-1]))
    assert list(logs.iterdir()) == []


def gone(process: int) -> bool:
    """Whether the process has ended."""
    assert process < NOBODY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_second_ctrl_c_ends_a_trainer_that_does_not_stop(tmp_path: Path) -> None:
    class Twice(Recorder):
        def report(self, report: Report) -> None:
            super().report(report)
            if self.logs and len(self.warnings) < 1:
                self.warnings.append("second")
                os.kill(os.getpid(), signal.SIGINT)

    recorder = Twice(on_log=signal.SIGINT)
    with pytest.raises(Interrupted):
        local.run_program(job(output=str(tmp_path)), progress=recorder, program=fake("deaf"))
    assert recorder.warnings == ["second"]
    assert gone(int(recorder.logs[0].split()[-1]))


def test_a_run_works_from_a_thread_that_gets_no_signals(tmp_path: Path) -> None:
    results: list[local.Result] = []

    def work() -> None:
        cached_job = job(output=str(tmp_path))
        results.append(local.run_program(cached_job, progress=False, program=fake("cached")))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=60)
    assert results[0].test_images == 165


def test_a_wrong_job_is_refused_before_anything_is_started() -> None:
    with pytest.raises(InvalidJob, match=r"spec\.training\.steps: must be at least 1, got 0"):
        local.run_program(
            {**job().dump(), "spec": {**job().dump()["spec"], "training": {"steps": 0}}},
            program=["/nowhere/python"],
        )


def apart(folder: Path, images: str, output: str, **spec: str) -> list[str]:
    """What is wrong with a job's places where `folder` has photos, a link to them, and a file."""
    (folder / "photos" / "roses").mkdir(parents=True, exist_ok=True)
    (folder / "file").touch()
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to(folder / "photos", target_is_directory=True)
    original = job(images, output)
    changed = original.model_copy(update={"spec": original.spec.model_copy(update=spec)})
    return places.problems(changed)


INSIDE = "must not lie inside images, where it would be taken for a label, got "


@pytest.mark.parametrize(
    ("images", "output"),
    [(".", "out"), ("photos", "./photos/../photos/out"), ("photos", "link/out"), ("link", "photos"),
     ("photos/../photos", "photos/roses"), ("link/.", "photos/out/deep"), ("photos", "link")],
)  # fmt: skip
def test_an_output_inside_the_images_is_refused_however_it_is_spelled(
    images: str, output: str
) -> None:
    assert apart(Path.cwd(), images, output) == [f"spec.output: {INSIDE}{output!r}"]
    absolute = apart(Path.cwd(), str(Path(images).absolute()), output)
    assert absolute == [f"spec.output: {INSIDE}{output!r}"]


def test_an_output_beside_the_images_is_right() -> None:
    for output in ("out", ".", "photos-out", "s3://models/flowers"):
        assert apart(Path.cwd(), "photos", output) == []
        assert apart(Path.cwd(), "link", output) == []
    assert apart(Path.cwd(), "s3://photos/flowers", "out") == []


def test_every_place_that_is_not_there_is_named_before_anything_is_started() -> None:
    wrong = apart(Path.cwd(), "nowhere", "file", cache="file/deep", weights="imagnet")
    assert wrong == [
        "spec.images: the folder nowhere does not exist",
        "spec.output: file is no folder",
        "spec.weights: there is no file or folder imagnet",
    ]
    assert apart(Path.cwd(), "file", "out") == ["spec.images: the folder file is no folder"]
    assert apart(Path.cwd(), "photos", "out", cache="link/cache") == [
        f"spec.cache: {INSIDE}'link/cache'"
    ]
    with pytest.raises(InvalidJob) as caught:
        local.run_program(job(".", "out"), program=["/nowhere/python"])
    assert str(caught.value) == f"flowers: spec.output: {INSIDE}'out'"
    assert caught.value.exit_code == 64


def test_a_missing_part_says_how_to_install_it() -> None:
    with pytest.raises(MissingExtra) as caught:
        require_trainer(lambda _: None)
    assert str(caught.value) == (
        "This needs h5py, which is not installed here: pip install 'retrainer[trainer]'."
    )
    assert caught.value.exit_code == 64


def test_a_file_of_the_current_folder_does_not_take_a_librarys_place(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    command = [*local.TRAINER[:-2], "-c", "import json; print(json.dumps(1))"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n"
