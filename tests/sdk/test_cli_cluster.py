"""The command line for clusters, over real HTTP, against an API server in memory."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.support.fake_apiserver import FakeApiServer, refused
from tests.support.fake_apiserver_http import serve
from tests.support.run_folder import write_run

from retrainer.api.names import LABEL_UID
from retrainer.cli import main

JOB = """\
apiVersion: retrainer.dev/v1alpha1
kind: RetrainJob
metadata: {name: flowers, labels: {team: birds}}
spec:
  architecture: mobilenet_0.50_160
  images: s3://photos/flowers
  output: s3://models/flowers
"""


@dataclass
class Shell:
    """Runs commands in this process, and reads what they print."""

    capture: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        code = main.run(main.build(), arguments)
        self.out, self.err = self.capture.readouterr()
        return code


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    fake = FakeApiServer()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with serve(fake, tmp_path / "kubeconfig"):
        yield fake


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


@pytest.fixture
def submitted(server: FakeApiServer, shell: Shell, file: str) -> FakeApiServer:
    assert shell("submit", "-f", file) == 0
    return server


def test_submit_prints_the_name_as_kubectl_does_and_may_be_repeated(
    server: FakeApiServer, shell: Shell, file: str
) -> None:
    for _ in range(2):
        assert shell("submit", "-f", file) == 0
        assert shell.out == "retrainjob.retrainer.dev/flowers\n"


def test_submit_with_wait_ends_with_the_operators_sentence(
    server: FakeApiServer, shell: Shell, file: str
) -> None:
    def operate() -> None:
        server.wait_for_watch()
        server.status("flowers", phase="Succeeded", message="Test accuracy 0.9 on 100 images.")

    operator = threading.Thread(target=operate)
    operator.start()
    assert shell("submit", "-f", file, "--wait") == 0
    operator.join()
    assert shell.err.splitlines()[-1] == "flowers: Test accuracy 0.9 on 100 images."


def test_a_failed_job_is_exit_code_1_and_its_sentence(
    submitted: FakeApiServer, shell: Shell
) -> None:
    submitted.status(
        "flowers", phase="Failed", reason="BucketNotFound", message="Bucket x is missing."
    )
    assert shell("wait", "flowers") == 1
    assert shell.err.splitlines()[-1] == "error: flowers: Bucket x is missing."
    assert "Traceback" not in shell.err


def test_several_jobs_are_all_waited_for(submitted: FakeApiServer, shell: Shell, file: str) -> None:
    Path(file).write_text(JOB.replace("name: flowers,", "name: birds,"))
    assert shell("submit", "-f", file) == 0
    submitted.status("flowers", phase="Failed", message="One.")
    submitted.status("birds", phase="Failed", message="Two.")
    assert shell("wait", "flowers", "birds") == 1
    assert "error: 2 jobs failed:\n  flowers: One.\n  birds: Two." in shell.err


def test_a_wait_that_is_over_says_so(submitted: FakeApiServer, shell: Shell) -> None:
    assert shell("wait", "flowers", "--timeout", "0.2") == 1
    assert "error: flowers was not finished after 0.2 s; it goes on" in shell.err


def test_get_prints_the_columns_of_kubectl_and_never_cuts_them(
    submitted: FakeApiServer, shell: Shell
) -> None:
    submitted.status(
        "flowers", phase="Succeeded", message="Done " + "x" * 100,
        progress={"percent": 100, "imagesTotal": 10, "imagesCached": 5},
        metrics={"testAccuracy": 0.8875, "testImages": 160},
    )  # fmt: skip
    assert shell("get") == 0
    head, row = shell.out.splitlines()
    assert head.split() == ["NAME", "PHASE", "PROGRESS", "ACCURACY", "CACHED", "AGE"]
    assert row.split()[:5] == ["flowers", "Succeeded", "100%", "88.8%", "50%"]
    assert shell("get", "-o", "wide", "-A") == 0
    assert "x" * 100 in shell.out
    assert shell.out.startswith("NAMESPACE")


def test_get_in_every_form(submitted: FakeApiServer, shell: Shell) -> None:
    assert shell("get", "-o", "name") == 0
    assert shell.out == "retrainjob.retrainer.dev/flowers\n"
    assert shell("get", "flowers", "-o", "json") == 0
    assert json.loads(shell.out)["metadata"]["name"] == "flowers"
    assert shell("get", "-o", "yaml") == 0
    assert yaml.safe_load(shell.out)["items"][0]["spec"]["images"] == "s3://photos/flowers"
    assert "managedFields" not in shell.out


def test_a_name_may_be_written_as_kubectl_and_get_print_it(
    submitted: FakeApiServer, shell: Shell
) -> None:
    shell("get", "-o", "name")
    named = shell.out.strip()
    for name in (named, "rj/flowers", "retrainjobs/flowers"):
        assert shell("get", name, "-o", "name") == 0
        assert shell.out.strip() == named
    assert shell("describe", named) == 0
    assert shell("delete", named) == 0
    assert shell("delete", named) == 64
    assert shell.err == "error: No RetrainJob flowers in namespace default.\n"


def test_get_filters(submitted: FakeApiServer, shell: Shell) -> None:
    assert shell("get", "-l", "team=cats") == 0
    assert (shell.out, shell.err) == ("", "No RetrainJobs found in namespace default.\n")
    assert shell("get", "--phase", "Pending", "-o", "name") == 0
    assert shell.out
    assert shell("get", "-n", "zoo") == 0
    assert shell.err == "No RetrainJobs found in namespace zoo.\n"


def test_get_watch_prints_a_line_per_change_until_it_is_interrupted(
    submitted: FakeApiServer, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-u",
        "-c",
        "from retrainer.cli.main import main; main()",
        "get",
        "-w",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout
    assert process.stdout.readline().startswith("NAME")
    assert process.stdout.readline().split()[:2] == ["flowers", "Pending"]
    submitted.wait_for_watch()
    submitted.status("flowers", phase="Training")
    assert process.stdout.readline().split()[:2] == ["flowers", "Training"]
    submitted.remove("retrainjobs", "flowers")
    assert process.stdout.readline().split() == ["flowers", "(deleted)"]
    process.send_signal(2)
    assert process.wait(20) == 130
    process.stdout.close()


def test_describe_tells_everything_and_what_to_do(submitted: FakeApiServer, shell: Shell) -> None:
    submitted.status(
        "flowers", phase="Failed", reason="OOMKilled", message="Pod p was killed.",
        metrics={"testAccuracy": 0.8909, "testImages": 165},
        conditions=[{"type": "Failed", "status": "True", "reason": "OOMKilled",
                     "message": "Pod p was killed.", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    )  # fmt: skip
    submitted.put("events", {
        "metadata": {"name": "e"}, "type": "Warning", "reason": "OOMKilled", "message": "killed",
        "involvedObject": {"kind": "Job", "name": "flowers-train"}, "count": 2,
        "lastTimestamp": "2026-01-01T00:00:00Z",
    })  # fmt: skip
    assert shell("describe", "flowers") == 0
    for line in (
        "Phase:                Failed (OOMKilled)",
        "Message:              Pod p was killed.",
        "What to do:           Create the job again with a larger spec.pod.resources.limits.memory.",
        "Images:               s3://photos/flowers",
        "Test accuracy:        89.1% (95% interval 83.4 to 93.0%, 165 images)",
        "Logs:                 retrainer logs flowers -n default",
    ):
        assert line in shell.out.splitlines()
    assert "Job/flowers-train   killed (x2)" in shell.out


def test_describe_tells_what_a_sweep_chose_and_what_stands_out(
    submitted: FakeApiServer, shell: Shell
) -> None:
    submitted.status(
        "flowers", phase="Succeeded", metrics={"testAccuracy": 0.8909, "testImages": 165},
        sweep={"candidates": 1000, "diverged": 3, "chosen": {"learningRate": 0.03, "l2": 0.0001}},
        findings={"labels": 26, "leaks": 1, "duplicates": 0, "strangers": 2},
    )  # fmt: skip
    assert shell("describe", "flowers") == 0
    lines = shell.out.splitlines()
    assert (
        "Sweep:                1,000 combinations, 3 of them diverged; chosen: learningRate 0.03, "
        "l2 0.0001"
    ) in lines
    assert (
        "Findings:             26 wrong labels, 1 leak, 2 strangers "
        "(retrainer findings rj/flowers -n default)"
    ) in lines
    (metrics,) = (line for line in lines if line.startswith("Metrics:"))
    assert metrics.split(maxsplit=1)[1] == "test accuracy 89.1%, test images 165"
    submitted.status("flowers", phase="Succeeded", findings={})
    assert shell("describe", "flowers") == 0
    assert "Findings:             none" in shell.out.splitlines()


def test_the_advice_on_a_failed_child_finds_it_by_its_label(
    submitted: FakeApiServer, shell: Shell
) -> None:
    submitted.status("flowers", phase="Failed", reason="ChildFailed", message="Job x failed: y")
    assert shell("describe", "flowers") == 0
    assert "kubectl describe job -l retrainer.dev/job=flowers" in shell.out


def test_logs_are_printed_with_their_pods_and_control_characters_as_escapes(
    submitted: FakeApiServer, shell: Shell
) -> None:
    uid = submitted.objects["retrainjobs"]["default", "flowers"]["metadata"]["uid"]
    submitted.put("pods", {
        "metadata": {"name": "flowers-train-x", "labels": {LABEL_UID: uid}},
        "status": {"containerStatuses": [{"name": "trainer", "state": {"terminated": {}}}]},
    })  # fmt: skip
    submitted.logs["flowers-train-x"] = [
        b"2026-01-01T00:00:00Z one",
        b"2026-01-01T00:00:00Z \x1b[2J",
    ]
    assert shell("logs", "flowers") == 0
    assert shell.out == "[flowers-train-x] one\n[flowers-train-x] \\x1b[2J\n"
    assert shell("logs", "flowers", "--no-prefix") == 0
    assert shell.out.startswith("one\n")


def test_logs_without_pods_say_where_the_job_is(submitted: FakeApiServer, shell: Shell) -> None:
    assert shell("logs", "flowers") == 0
    assert shell.err == "flowers has no pods (Pending: No operator has taken this job up yet.)\n"


def test_suspend_resume_and_delete(submitted: FakeApiServer, shell: Shell) -> None:
    assert shell("suspend", "flowers") == 0
    assert submitted.objects["retrainjobs"]["default", "flowers"]["spec"]["suspend"] is True
    assert shell("resume", "flowers") == 0
    assert shell.out == "flowers resumed\n"
    assert shell("delete", "flowers") == 0
    assert shell("delete", "flowers") == 64
    assert shell.err == "error: No RetrainJob flowers in namespace default.\n"
    assert shell("delete", "flowers", "--ignore-not-found") == 0


def test_delete_takes_the_names_from_a_file(
    submitted: FakeApiServer, shell: Shell, file: str
) -> None:
    assert shell("delete", "-f", file) == 0
    assert submitted.objects["retrainjobs"] == {}
    assert shell("delete") == 64
    assert shell.err == "error: Name the jobs to delete, or give -f FILE.\n"


def test_delete_takes_a_files_jobs_from_the_namespace_into_which_submit_puts_them(
    submitted: FakeApiServer, shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "there.yaml"
    path.write_text(JOB.replace("name: flowers", "name: flowers, namespace: team"))
    assert shell("submit", "-f", str(path)) == 0
    assert len(submitted.objects["retrainjobs"]) == 2
    assert shell("delete", "-f", str(path)) == 0
    assert list(submitted.objects["retrainjobs"]) == [("default", "flowers")]
    assert shell("delete", "-f", str(path), "-n", "default") == 0
    assert submitted.objects["retrainjobs"] == {}


def test_metrics_and_plot(submitted: FakeApiServer, shell: Shell, tmp_path: Path) -> None:
    submitted.status(
        "flowers", phase="Training", metrics={"validationAccuracy": 0.8},
        curve=[{"step": s, "validationAccuracy": s / 100} for s in range(0, 100, 10)],
    )  # fmt: skip
    assert shell("metrics", "flowers", "-o", "json") == 0
    assert json.loads(shell.out)["validationAccuracy"] == 0.8
    assert shell("plot", "flowers") == 0
    assert "o validation accuracy" in shell.out
    picture = tmp_path / "curve.png"
    assert shell("plot", "flowers", str(picture)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert shell("plot", "flowers", str(tmp_path / "curve.doc")) == 64
    assert "Cannot write" in shell.err
    assert "Traceback" not in shell.err


def test_compare_jobs_and_runs(submitted: FakeApiServer, shell: Shell, tmp_path: Path) -> None:
    run = write_run(tmp_path / "flowers-12345678", range(3))
    other = write_run(tmp_path / "other", range(20), name="other")
    submitted.status("flowers", phase="Succeeded", run=str(run))
    page, picture = tmp_path / "page.html", tmp_path / "both.png"
    assert shell(
        "compare", "flowers", str(other), "--html", str(page), "--plot", str(picture)
    ) == 0  # fmt: skip
    lines = shell.out.splitlines()
    assert lines[0].split()[:2] == ["NAME", "ACCURACY"]
    assert lines[1].split()[:2] == ["flowers", "95.0%"]
    assert lines[3].startswith("All: mobilenet_0.50_160, 60 test images, ")
    assert lines[4].startswith(
        "flowers is better than other (of 60 common test images, 17 right in flowers only, 0 in other"
    )
    assert page.read_text().startswith("<!doctype html>")
    assert picture.exists()
    assert shell("compare", "flowers", str(other), "-o", "json") == 0
    assert json.loads(shell.out)["differences"][0]["significant"] is True


def test_one_name_means_the_same_to_every_command_on_results(
    submitted: FakeApiServer, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    submitted.status("flowers", phase="Training", metrics={"validationAccuracy": 0.25})
    (tmp_path / "flowers").mkdir()  # of photos: a job's name all the same
    for word in ("flowers", "rj/flowers"):
        assert shell("metrics", word, "-o", "json") == 0
        assert json.loads(shell.out)["validationAccuracy"] == 0.25
        assert shell("describe", word) == 0
        assert "Phase:                Training" in shell.out
    write_run(tmp_path / "out" / "birds-12345678", name="birds")
    for word in ("out", "./out", "out/birds-12345678", str(tmp_path / "out")):
        assert shell("metrics", word, "-o", "json") == 0
        assert json.loads(shell.out)["testImages"] == 60
        assert shell("describe", word) == 0
        assert "Run:                  out/birds-12345678" in shell.out
        assert "Test accuracy:        100.0% (95% interval" in shell.out
        assert shell("metrics", word) == 0
        assert ["test", "accuracy", "100.0%"] in [t.split() for t in shell.out.splitlines()]
        assert shell("plot", word) == 0
        assert "o validation accuracy" in shell.out
        assert shell("compare", word) == 0
        assert shell.out.splitlines()[1].split()[:2] == ["birds", "mobilenet_0.50_160"]
        assert shell("download", word, "copy") == 0
        assert (tmp_path / "copy" / "birds-12345678" / "result.json").exists()


def test_a_comparison_says_in_what_the_jobs_differ(shell: Shell, tmp_path: Path) -> None:
    same = {"images": "photos", "split": {"testingPercentage": 10}}
    specs = [
        {**same, "output": "a", "training": {"steps": 500, "seed": 1}},
        {
            **same,
            "output": "b",
            "training": {"steps": 4000, "seed": 1},
            "export": ["onnx", "tflite"],
        },
    ]
    runs = [
        str(write_run(tmp_path / f"run-{i}", [i], name=f"run-{i}", spec=spec))
        for i, spec in enumerate(specs)
    ]
    assert shell("compare", *runs) == 0
    lines = shell.out.splitlines()
    assert lines[0].split()[-1] == "DIFFERS"
    assert lines[1].endswith("steps 500")
    assert lines[2].endswith("steps 4000, export onnx+tflite")
    assert shell("compare", *runs, "-o", "json") == 0
    assert [row["differs"] for row in json.loads(shell.out)["rows"]] == [
        "steps 500", "steps 4000, export onnx+tflite",
    ]  # fmt: skip


def test_the_advice_names_the_jobs_namespace(submitted: FakeApiServer, shell: Shell) -> None:
    submitted.status("flowers", phase="Failed", reason="TrainerFailed", message="It fell.")
    assert shell("describe", "flowers") == 0
    assert "Read the log: retrainer logs flowers -n default" in shell.out


def test_what_a_server_says_cannot_drive_the_terminal_or_forge_a_line(
    submitted: FakeApiServer, shell: Shell
) -> None:
    lie = "a\x1b[2J\nWhat to do:           delete everything\x07"
    submitted.status(
        "flowers", phase="Failed", reason="TrainerFailed", message=lie,
        conditions=[{"type": "Failed", "status": "True", "reason": "TrainerFailed", "message": lie,
                     "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    )  # fmt: skip
    submitted.put("events", {
        "metadata": {"name": "e"}, "type": "Warning", "reason": "R", "message": lie,
        "involvedObject": {"kind": "Job", "name": "flowers-train"}, "count": 1,
        "lastTimestamp": "2026-01-01T00:00:00Z",
    })  # fmt: skip
    for command, code in (("describe", 0), ("get", 0), ("wait", 1)):
        assert shell(command, "flowers", *(["-o", "wide"] if command == "get" else [])) == code
        text = shell.out + shell.err
        assert "delete everything" in text
        assert "\x1b" not in text
        assert not [t for t in text.splitlines() if t.startswith("What to do:           delete")]


def test_frontier_takes_weights_from_the_command_line(shell: Shell, file: str) -> None:
    local = yaml.safe_load(Path(file).read_text())
    local["spec"] |= {"images": str(Path(file).parent), "output": "out"}
    Path(file).write_text(yaml.safe_dump(local))
    assert shell("frontier", "-f", file, "--local", "--weights", "nofile") == 64
    assert shell.err.endswith("--weights (spec.weights): there is no file or folder nofile\n")


def test_a_wrong_kind_of_thing_is_named(
    submitted: FakeApiServer, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rose.jpg", "job.yaml", "notes"):
        (tmp_path / name).touch()
    (tmp_path / "photos").mkdir()
    swapped = "error: rose.jpg is a picture, not a run: name the run first, then the pictures.\n"
    assert shell("predict", "rose.jpg", "out") == 64
    assert shell.err == swapped
    for command in (["describe"], ["metrics"], ["plot"], ["compare"], ["download"]):
        assert shell(*command, "rose.jpg") == 64
        assert shell.err == swapped
        assert shell(*command, "job.yaml") == 64
        assert shell.err == "error: job.yaml is a file, not a run or the name of a job.\n"
        assert shell(*command, "./notes") == 64
        assert shell.err == "error: notes is a file, not the folder of a run.\n"
        assert shell(*command, "nothing") == 64
        assert shell.err == (
            "error: No RetrainJob nothing in namespace default. There is no folder nothing here "
            "either.\n"
        )
        assert shell(*command, "photos") == 64
        assert "no finished run in photos" in shell.err
    for command in (["wait"], ["logs"], ["suspend"], ["resume"], ["delete"], ["get"]):
        assert shell(*command, "out/birds-12345678") == 64
        assert shell.err == (
            "error: out/birds-12345678 is a path or URL, not the name of a job: retrainer get lists "
            "them.\n"
        )


def test_runs_alone_are_compared_without_a_cluster(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    runs = [str(write_run(tmp_path / n, name=n)) for n in "ab"]
    assert shell("compare", *runs) == 0
    assert "No difference between a and b is shown" in shell.out


def test_download_prints_where_it_is(
    submitted: FakeApiServer, shell: Shell, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "flowers-12345678")
    submitted.status("flowers", phase="Succeeded", run=str(run))
    assert shell("download", "flowers", str(tmp_path / "here")) == 0
    assert shell.out.strip() == str(tmp_path / "here" / "flowers-12345678")
    assert (tmp_path / "here" / "flowers-12345678" / "result.json").exists()


def test_the_frontier_fails_on_a_pattern_that_matches_nothing(
    server: FakeApiServer, shell: Shell, file: str
) -> None:
    assert shell("frontier", "-f", file, "--architectures", "vgg*") == 64
    assert "error: No architecture matches 'vgg*'" in shell.err


def test_a_refusal_is_one_sentence_and_its_exit_code(server: FakeApiServer, shell: Shell) -> None:
    server.fail("GET", refused(403, 'User "ann" cannot list resource "retrainjobs"'))
    assert shell("get") == 1
    assert shell.err == (
        "error: Not allowed to list retrainjobs.retrainer.dev in namespace default: "
        'User "ann" cannot list resource "retrainjobs".\n'
    )


def test_without_a_cluster_every_command_says_what_to_do(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for command in (["get"], ["logs", "x"], ["wait", "x"], ["download", "x"], ["describe", "x"]):
        assert shell(*command) == 64
        assert "No kubeconfig at " in shell.err
        assert "set KUBECONFIG" in shell.err
        assert "kubeconfig=" not in shell.err


def test_prune_is_refused_while_a_job_uses_the_cache(
    submitted: FakeApiServer, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    place = "s3://models/flowers/.bottlenecks"
    assert shell("cache", "prune", place, "--older-than", "1d") == 64
    assert "is in use by default/flowers: wait until they end, or give --force" in shell.err


def test_predict_takes_a_job_of_the_cluster(
    submitted: FakeApiServer, shell: Shell, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "flowers-12345678")
    submitted.status("flowers", phase="Succeeded", run=str(run))
    assert shell("predict", "rj/flowers", "rose.jpg") == 64
    assert "flowers-12345678 has no model.tflite" in shell.err
    assert shell("predict", "rj/nothing", "rose.jpg") == 64
    assert shell.err == "error: No RetrainJob nothing in namespace default.\n"


def test_a_malformed_endpoint_is_told_without_a_traceback(shell: Shell, tmp_path: Path) -> None:
    for command in (["predict", str(tmp_path), "x.jpg"], ["cache", "stats", str(tmp_path)]):
        assert shell(*command, "--endpoint", "s3.storage") == 64
        assert shell.err.startswith("error: --endpoint: must ")
