"""The trainer as a pod runs it: a process, its exit code, its output and its report."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from tests.support.devcluster_s3 import S3Server
from tests.support.trainer_engine import (
    ARCHITECTURE,
    Recorder,
    command,
    ended,
    photos,
    prepared,
    run,
    small_disk,
    spec,
)
from tests.support.trainer_s3 import TinyS3, bucket, upload

from retrainer.errors import Interrupted
from retrainer_trainer.runtime.stop import Stop

GRACE_SECONDS = 30
"""What a pod is given between SIGTERM and SIGKILL, if it asks for nothing else."""


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_a_task_says_what_it_does_in_plain_lines_and_nothing_else(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 30, "b": 30})
    done = run(spec(images, tmp_path / "out"), tmp_path)
    assert done.code == 0
    assert done.stderr == ""
    assert lines(done.stdout) == [
        f"60 images of 2 labels under {images}.",
        "60 images are told apart by their content, so each is read.",
        "0 of 60 images are in the cache, 60 to compute.",
    ]
    assert done.report.message == "60 computed, 0 were in the cache, 0 rejected."
    assert done.report.progress.images_computed == 60


@pytest.mark.slow
def test_tensorflow_s_chatter_never_reaches_the_terminal(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 30, "b": 30})
    done = run(spec(images, tmp_path / "out"), tmp_path)
    assert done.code == 0
    assert done.stderr == ""
    assert lines(done.stdout)[2:] == [
        "0 of 60 images are in the cache, 60 to compute.",
    ]


def test_a_user_s_mistake_ends_with_64_and_one_sentence(tmp_path: Path) -> None:
    done = run(spec(tmp_path / "gone", tmp_path / "out"), tmp_path)
    assert done.code == 64
    assert done.stderr == ""
    text = f"No images under {tmp_path / 'gone'}: there is no such folder."
    assert done.stdout == f"Error: {text}\n"
    assert done.report.message == text
    assert done.report.reason == "ImagesNotFound"
    assert done.report.stage == "Failed"


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_ends_with_1_to_be_tried_again(tmp_path: Path) -> None:
    wanted = spec("s3://photos/in", tmp_path / "out", storage={"endpoint": "http://127.0.0.1:9"})
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-value"}
    done = run(wanted, tmp_path, env=keys)
    assert done.code == 1
    assert done.report.message == "Cannot reach http://127.0.0.1:9: connection refused."
    assert "secret-value" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_full_temporary_folder_is_told_with_its_place(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 30, "b": 30})
    with small_disk(tmp_path / "small", "64k") as small:
        wanted = spec(images, tmp_path / "out")
        done = run(wanted, tmp_path, kind="train", env={"TMPDIR": str(small)})
    assert done.code == 1
    assert done.report.reason == "DiskFull"
    assert done.report.message == f"No space left writing {small}."
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.needs("versitygw")
def test_a_missing_bucket_for_the_output_is_told_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    images = photos(tmp_path / "in", {"a": 30, "b": 30})
    cache = tmp_path / "cache"
    cache.mkdir()
    before = sorted(cache.rglob("*"))
    with S3Server(tmp_path / "s3") as server:
        storage = {"endpoint": server.endpoint}
        wanted = spec(images, "s3://nosuch/out", cache=str(cache), storage=storage)
        done = run(wanted, tmp_path, kind="train", env=server.environment())
    assert done.code == 64
    text = f"Bucket nosuch (spec.output) does not exist at {server.endpoint}."
    assert done.report.message == text
    assert sorted(cache.rglob("*")) == before


@pytest.mark.parametrize("task", ["", "{", '{"task": "bottlenecks"}', '{"task": "dance"}'])
def test_a_task_that_is_none_ends_with_64(task: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retrainer_trainer"],
        check=False,
        env={**os.environ, "RETRAINER_TASK": task},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 64
    assert done.stderr.startswith("RETRAINER_TASK is not a task: ")
    assert "Traceback" not in done.stderr


def test_the_shard_comes_from_the_environment(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 30, "b": 30})
    wanted = spec(images, tmp_path / "out", shards=2)
    counts = []
    for shard in range(2):
        done = run(wanted, tmp_path / f"pod{shard}", shard=shard)
        assert done.code == 0
        assert done.report.shard == shard
        counts.append(done.report.progress.images_computed)
    assert sum(c or 0 for c in counts) == 60
    recorder = Recorder(wanted)
    prepared(wanted, recorder)
    assert recorder.report.progress.images_computed == 0


@contextmanager
def started(
    wanted: Any, folder: Path, env: dict[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """A task that has computed something and is in the middle of more, and its events."""
    read, write = os.pipe()
    variables = {"RETRAINER_EVENTS_FD": str(write), "RETRAINER_THREADS": "1", **(env or {})}
    process = subprocess.Popen(**command(wanted, folder, env=variables), pass_fds=[write])
    os.close(write)
    with os.fdopen(read) as events:
        for line in events:
            report = json.loads(line).get("report", {})
            if report.get("progress", {}).get("imagesComputed", 0) > 5:
                break
        else:
            raise AssertionError(f"it ended before: {process.communicate()}")
        yield process, events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_task_that_is_asked_to_stop_keeps_what_it_has(tmp_path: Path, number: int) -> None:
    images = photos(tmp_path / "in", {"a": 1500, "b": 1500})
    wanted = spec(images, tmp_path / "out")
    with started(wanted, tmp_path) as (process, _):
        process.send_signal(number)
        done = ended(process, tmp_path)
    assert done.code == 143
    assert done.report.reason == "Interrupted"
    assert lines(done.stdout)[-1] == (
        "Stopped before the end; what was computed is in the cache: run it again to go on."
    )
    computed = done.report.progress.images_computed or 0
    assert 5 < computed < 3000
    recorder = Recorder(wanted)
    prepared(wanted, recorder)
    assert recorder.report.progress.images_cached == computed


def test_a_task_whose_events_nobody_reads_any_more_stops_and_keeps_what_it_has(
    tmp_path: Path,
) -> None:
    images = photos(tmp_path / "in", {"a": 1500, "b": 1500})
    wanted = spec(images, tmp_path / "out")
    with started(wanted, tmp_path) as (process, events):
        events.close()
        done = ended(process, tmp_path)
    assert done.code == 143
    assert done.report.reason == "Interrupted"
    assert done.stderr == ""
    recorder = Recorder(wanted)
    prepared(wanted, recorder)
    assert recorder.report.progress.images_cached == done.report.progress.images_computed
    assert recorder.report.progress.images_computed != 0


def test_the_trainer_of_a_run_that_is_killed_stops_and_keeps_what_it_has(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 1500, "b": 1500})
    os.mkfifo(tmp_path / "ended")
    end = os.open(tmp_path / "ended", os.O_RDONLY | os.O_NONBLOCK)
    # What the killed process can no longer tell: how its trainer ended.
    shell = 'exec 9>ended; "$0" -m retrainer_trainer; echo $? >&9'
    program = f"""
import sys
from retrainer.local.process import run_program
from retrainer.watcher import Silent

class Watch(Silent):
    def report(self, report):
        if (report.progress.images_computed or 0) > 5:
            print("computing", flush=True)

job = {{
    "metadata": {{"name": "t"}},
    "spec": {{
        "architecture": "{ARCHITECTURE}", "weights": "builtin", "images": "in", "output": "out",
    }},
}}
run_program(job, progress=Watch(), program=["sh", "-c", {shell!r}, sys.executable])
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={
            **os.environ,
            "RETRAINER_THREADS": "1",
            "RETRAINER_TERMINATION_LOG": str(tmp_path / "termination-log"),
            "TMPDIR": str(tmp_path),
        },
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"computing\n"
    parent.kill()
    parent.communicate()
    assert select.select([end], [], [], GRACE_SECONDS)[0], "the trainer runs on"
    assert os.read(end, 10) == b"143\n"
    os.close(end)
    report = json.loads((tmp_path / "termination-log").read_text())
    assert report["reason"] == "Interrupted"
    wanted = spec(images, tmp_path / "out")
    recorder = Recorder(wanted)
    prepared(wanted, recorder)
    assert recorder.report.progress.images_cached == report["progress"]["imagesComputed"] > 5
    assert recorder.report.progress.images_computed != 0


def test_a_task_that_is_killed_leaves_a_cache_that_is_whole(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 300, "b": 300})
    wanted = spec(images, tmp_path / "out")
    with started(wanted, tmp_path) as (process, _):
        process.kill()
        process.communicate()
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    assert recorder.warnings == []
    assert ready.usable.all()
    assert (ready.matrix != 0).any(1).all()


def test_a_task_stops_while_it_waits_for_a_store(tmp_path: Path) -> None:
    with TinyS3().running() as tiny:
        tiny.silent.set()
        wanted = spec("s3://photos/in", tmp_path / "out", storage={"endpoint": tiny.endpoint})
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        process = subprocess.Popen(**command(wanted, tmp_path, env=keys))
        begun = time.monotonic()
        while not tiny.asked.wait(0.1):
            assert time.monotonic() - begun < 60
        process.terminate()
        done = ended(process, tmp_path, 40)
    assert done.code == 143


@pytest.mark.needs("versitygw")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "where"), [("kill", "the cache"), ("freeze", "the cache and the images")]
)
def test_a_task_asked_to_stop_while_its_store_is_dead_ends_in_time_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, where: str
) -> None:
    images = photos(tmp_path / "in", {"a": 1000, "b": 1000})
    with S3Server(tmp_path / "s3") as server:
        client = bucket(server, "photos")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        place: Path | str = images
        if where == "the cache and the images":
            upload(client, "photos", "in", images)
            place = "s3://photos/in"
        storage = {"endpoint": server.endpoint}
        wanted = spec(place, tmp_path / "out", cache="s3://photos/cache", storage=storage)
        with started(wanted, tmp_path) as (process, _):
            server.kill() if end == "kill" else server.freeze()
            process.terminate()
            done = ended(process, tmp_path, GRACE_SECONDS)
        server.kill()
    assert done.code == 143
    assert done.report.reason == "Interrupted"
    assert done.stderr == ""
    match = re.fullmatch(
        r"Stopped before the end, and (\d+) bottlenecks that were computed are lost, because they could "
        rf"not be written to the cache \(Cannot reach {server.endpoint}: .+\); run it again to go on\.",
        done.report.message,
    )
    assert match, done.report.message
    assert int(match[1]) >= (done.report.progress.images_computed or 0) > 5
    assert lines(done.stdout)[-1] == done.report.message


def test_a_stop_raises_at_once_unless_it_is_deferred() -> None:
    stop = Stop()
    stop.check()
    reached = []

    def work() -> None:
        with stop.deferred():
            stop.ask()
            reached.append("the end of the block")

    with pytest.raises(Interrupted):
        work()
    assert reached == ["the end of the block"]
    with pytest.raises(Interrupted):
        stop.check()
