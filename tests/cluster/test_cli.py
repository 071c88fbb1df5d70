"""Every command of `retrainer`, as a program, on a full node with jobs that really train."""

import ast
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from PIL import Image
from tests.support.installation import Installation
from tests.support.ports import free_port
from tests.support.terminal import Output, Terminal

from retrainer.cli import main

pytestmark = pytest.mark.cluster


def job(team: Installation, name: str, **spec: Any) -> dict[str, Any]:
    """A job on the digits that takes seconds."""
    digits = {
        "architecture": "mobilenet_0.25_128",
        "weights": "builtin",
        "images": f"s3://{team.bucket.name}/digits",
        "cache": cache(team),
        "split": {"testingPercentage": 20, "validationPercentage": 20},
        "training": {"steps": 200, "learningRate": 0.1},
        "export": ["tflite"],
    }
    document = team.manifest(name, digits | spec)
    document["metadata"] = {"name": name, "labels": {"pictures": "digits"}}
    return document


def cache(team: Installation) -> str:
    return f"s3://{team.bucket.name}/cache/{team.namespace}"


def untrained(team: Installation) -> dict[str, Any]:
    """A job that hardly moves its head, so that another one is really better."""
    return job(team, "untrained", training={"steps": 10, "learningRate": 1e-6})


@pytest.fixture(scope="module")
def submitted(shell: Terminal, team: Installation) -> Output:
    """Two finished jobs: `digits`, and `untrained` over the same pictures."""
    file = shell.write("jobs.yaml", job(team, "digits"), untrained(team))
    return shell("submit", "-f", file, "--wait", "--timeout", "600")


@pytest.fixture
def jobs(submitted: Output, shell: Terminal) -> Terminal:
    """A terminal where both have ended."""
    return shell


def commands(group: Any = None) -> Iterator[tuple[str, ...]]:
    """What `retrainer --help` lists, down to the last word."""
    group = group or typer.main.get_command(main.build())
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((name, *rest) for rest in commands(command))
        else:
            yield (name,)


def test_these_files_run_every_command() -> None:
    command_lines = [
        tuple(a.value for a in call.args if isinstance(a, ast.Constant))
        for file in Path(__file__).parent.glob("test_cli*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in {"jobs", "shell", "jobs.start", "shell.start"}
    ]
    for command in commands():
        assert any(line[: len(command)] == command for line in command_lines), " ".join(command)


# --- from a file to the end of its jobs ---
def test_init_writes_a_file_that_validate_accepts_here_and_refuses_for_a_cluster(
    shell: Terminal,
) -> None:
    assert shell("init", "first.yaml", "--images", "photos").lines == [
        "There is no folder photos yet: put one folder of pictures per label there.",
        "Wrote first.yaml. Edit it, then: retrainer run -f first.yaml",
    ]
    (shell.folder / "photos").mkdir()
    assert (
        shell("validate", "-f", "first.yaml").lines[0] == "photos is valid, for this machine only:"
    )
    refused = shell("validate", "-f", "first.yaml", "--cluster", code=64)
    assert "spec.images" in refused.err


def test_submit_with_wait_tells_the_phases_and_how_each_job_ended(
    submitted: Output, jobs: Terminal, team: Installation
) -> None:
    lines = submitted.err.splitlines()
    assert lines[0].startswith("digits: Pending: ")
    assert lines[-2].startswith("digits: Test accuracy ")
    assert lines[-1].startswith("untrained: Test accuracy ")
    output = jobs("submit", "-f", jobs.write("same.yaml", job(team, "digits")))
    assert output.lines == ["retrainjob.retrainer.dev/digits"]
    other = jobs.write("other.yaml", job(team, "digits", training={"steps": 7}))
    refused = jobs("submit", "-f", other, code=64)
    assert "spec.training.steps is 200, not 7" in refused.err


def test_wait_on_jobs_that_have_ended_returns_at_once(jobs: Terminal) -> None:
    waited = jobs("wait", "digits", "untrained", "--timeout", "5")
    assert [line.split(": ")[0] for line in waited.lines] == ["digits", "untrained"]


def test_run_stays_on_this_machine_and_gives_the_same_guesses(
    jobs: Terminal, team: Installation
) -> None:
    assert team.cluster.s3 is not None
    endpoint = ["--endpoint", team.cluster.s3.for_host]
    file = jobs.write("here.yaml", job(team, "here"))
    output = jobs("run", "-f", file, "--output", "out", *endpoint)
    assert "test accuracy" in output.out
    assert "300 of 300 images are in the cache" in output.out, "the cache is the pods' own"
    assert jobs("get", "here", code=64).err.startswith("error: No RetrainJob here in namespace")
    (run,) = (jobs.folder / "out").glob("here-*")
    compared = jobs("compare", "digits", f"out/{run.name}")
    assert "No difference between digits and here is shown" in compared.out
    assert "0 right in digits only, 0 in here only" in compared.out


# --- looking ---
def test_get_in_every_form_and_by_every_filter(jobs: Terminal, team: Installation) -> None:
    head, row, *_ = jobs("get", "digits").lines
    assert head.split() == ["NAME", "PHASE", "PROGRESS", "ACCURACY", "CACHED", "AGE"]
    assert row.split()[:3] == ["digits", "Succeeded", "100%"]
    assert float(row.split()[3].rstrip("%")) > 90
    assert f"run in s3://{team.bucket.name}/out/" in jobs("list", "-o", "wide").out
    document = json.loads(jobs("get", "digits", "-o", "json").out)
    assert document["status"]["metrics"]["testImages"] > 20
    items = yaml.safe_load(jobs("get", "-o", "yaml", "-l", "pictures=digits").out)["items"]
    assert {"digits", "untrained"} <= {item["metadata"]["name"] for item in items}
    named = jobs("get", "-o", "name", "--phase", "Succeeded")
    assert "retrainjob.retrainer.dev/digits" in named.lines
    assert jobs("get", "-l", "pictures=cats").err == (
        f"No RetrainJobs found in namespace {team.namespace}.\n"
    )
    everywhere = jobs("get", "-A").lines
    assert any(line.split()[:2] == [team.namespace, "digits"] for line in everywhere)
    elsewhere = {"KUBECONFIG": str(team.cluster.kubeconfig)}
    named = jobs("get", "digits", "-n", team.namespace, variables=elsewhere)
    assert named.lines[1].split()[0] == "digits", "of no context of ours"


def test_describe_tells_the_figures_the_conditions_and_the_events(jobs: Terminal) -> None:
    output = jobs("describe", "digits")
    facts = dict(line.split(":", 1) for line in output.lines if ":" in line)
    assert facts["Phase"].strip() == "Succeeded (Succeeded)"
    assert "images total 300" in facts["Progress"]
    assert all(facts[title].endswith("Z") for title in ("Created", "Started", "Ended"))
    assert "test accuracy" in facts["Metrics"]
    assert any(line.split()[:2] == ["Complete", "True"] for line in output.lines)
    assert any("Job/digits-train" in line for line in output.lines), "the child's Events"
    assert yaml.safe_load(jobs("describe", "digits", "-o", "yaml").out)["kind"] == "RetrainJob"


def test_logs_are_those_of_the_trainer(jobs: Terminal) -> None:
    lines = jobs("logs", "digits").lines
    assert all(line.startswith("[digits-train-") for line in lines)
    assert any("300 images of 10 labels" in line for line in lines)
    assert any(
        "Final test accuracy" in line for line in jobs("logs", "digits", "--no-prefix").lines
    )


def test_metrics_are_the_final_ones(jobs: Terminal) -> None:
    table = {
        line.rsplit(maxsplit=1)[0]: line.split()[-1] for line in jobs("metrics", "digits").lines
    }
    figures = json.loads(jobs("metrics", "digits", "-o", "json").out)
    assert float(table["test accuracy"].rstrip("%")) > 90
    assert figures["testAccuracy"] > 0.9
    assert figures["validationCrossEntropy"] < 1


def test_plot_draws_in_the_terminal_and_into_a_file(jobs: Terminal) -> None:
    drawn = jobs("plot", "digits").out
    assert "o validation accuracy" in drawn
    assert drawn.splitlines()[-2].split() == ["0", "steps", "200"]
    assert jobs("plot", "digits", "curve.png", "--whole").err == "Wrote curve.png.\n"
    with Image.open(jobs.folder / "curve.png") as picture:
        assert picture.size == (1350, 510)
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 100, "nothing was drawn"
    jobs("plot", "digits", "curve.svg")
    assert "<svg" in (jobs.folder / "curve.svg").read_text()
    refused = jobs("plot", "digits", "curve.docx", code=64)
    assert refused.err.startswith("error: Cannot write curve.docx: ")


# --- results ---
def test_findings_lists_what_stands_out_among_the_images(jobs: Terminal) -> None:
    rows = json.loads(jobs("findings", "digits", "-o", "json").out)
    assert {row["kind"] for row in rows} <= {"label", "leak", "duplicate", "stranger"}
    wide = jobs("get", "digits", "-o", "wide").lines
    assert wide[0].split()[-2:] == ["FINDINGS", "MESSAGE"]
    status = json.loads(jobs("get", "digits", "-o", "json").out)["status"]
    assert status["findings"]["total"] == len(rows)
    labels = jobs("findings", "digits", "--kind", "label").lines
    assert labels[0].split()[0] in {"KIND", "Nothing"}


def test_verify_runs_every_export_of_a_job(jobs: Terminal) -> None:
    table = [line.split() for line in jobs("verify", "digits").lines]
    assert table[0][:2] == ["EXPORT", "FILE"]
    assert [row[:2] for row in table[1:]] == [["tflite", "model.tflite"]]


def test_compare_says_which_job_is_better_in_every_form(jobs: Terminal) -> None:
    output = jobs("compare", "untrained", "digits", "--plot", "both.png", "--html", "both.html")
    assert output.lines[0].split()[:4] == ["NAME", "ACCURACY", "95%", "INTERVAL"]
    assert output.lines[1].split()[0] == "digits", "the best first"
    assert any(line.startswith("digits is better than untrained (") for line in output.lines)
    with Image.open(jobs.folder / "both.png") as picture:
        assert picture.size == (1350, 840)
    assert "digits is better than untrained" in (jobs.folder / "both.html").read_text()
    comparison = json.loads(jobs("compare", "untrained", "digits", "-o", "json").out)
    assert comparison["rows"][0]["name"] == "digits"
    assert comparison["differences"][0]["significant"] is True


def test_compare_reads_runs_by_their_urls_from_the_store_that_is_given(
    jobs: Terminal, team: Installation
) -> None:
    assert team.cluster.s3 is not None
    items = json.loads(jobs("get", "digits", "untrained", "-o", "json").out)["items"]
    runs = [item["status"]["run"] for item in items]
    endpoint = ["--s3-endpoint", team.cluster.s3.for_host]
    without = {"RETRAINER_S3_ENDPOINT": ""}
    for names in (runs, ["digits", runs[1]]):
        output = jobs("compare", *names, *endpoint, variables=without)
        assert any(line.startswith("digits is better than untrained (") for line in output.lines)


def test_predict_labels_a_picture_by_job_and_by_url(jobs: Terminal, team: Installation) -> None:
    key = team.bucket.keys("digits/7/")[0]
    (jobs.folder / "seven.png").write_bytes(team.bucket.read(key))
    assert jobs("predict", "rj/digits", "seven.png").lines[1].split()[:2] == ["seven.png", "7"]
    run = json.loads(jobs("get", "digits", "-o", "json").out)["status"]["run"]
    assert team.cluster.s3 is not None
    endpoint = ["--endpoint", team.cluster.s3.for_host]
    (guess,) = json.loads(jobs("predict", run, "seven.png", "-o", "json", *endpoint).out)
    assert guess["label"] == "7"
    assert sum(guess["scores"].values()) == pytest.approx(1, abs=0.01)
    missing = jobs("predict", "rj/digits", "eight.png", code=64)
    assert missing.err == f"Labelled by {run}.\nerror: There is no file eight.png.\n"


def test_download_brings_the_whole_run(jobs: Terminal) -> None:
    folder = jobs.folder / jobs("download", "digits", "fetched").out.strip()
    assert folder.parent.name == "fetched"
    result = json.loads((folder / "result.json").read_text())
    assert result["name"] == "digits"
    assert (folder / "model.tflite").stat().st_size > 100_000
    assert (folder / "labels.txt").read_text().split() == list("0123456789")
    assert "<svg" in (folder / "report.html").read_text()


def test_tensorboard_serves_the_curves_of_a_job_until_ctrl_c(
    jobs: Terminal, team: Installation
) -> None:
    port = free_port()

    def runs() -> list[str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
                names: list[str] = json.load(answer)
                return names
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return []

    with jobs.start("tensorboard", "rj/digits", "--port", str(port)) as board:
        names = team.eventually(runs, lambda names: len(names) == 2, 240)
        assert board.interrupt() == 0
    assert board.lines()[0].startswith("Fetched 2 files, ")
    assert board.lines()[1] == f"http://localhost:{port}/  (Ctrl-C ends it)"
    assert [Path(run).name for run in names] == ["train", "validation"]


# --- before a job ---
def test_check_and_plan_look_at_a_jobs_photos_and_at_its_pods_cache(
    jobs: Terminal, team: Installation
) -> None:
    assert team.cluster.s3 is not None
    endpoint = ["--endpoint", team.cluster.s3.for_host]
    file = jobs.write("look.yaml", job(team, "look"))
    inspection = json.loads(jobs("check", "-f", file, *endpoint, "-o", "json").out)
    assert (inspection["images"], inspection["problem"]) == (300, None)
    plan = json.loads(jobs("plan", "-f", file, *endpoint, "-o", "json").out)
    assert (plan["cached"], plan["missing"]) == (300, 0)
    assert plan["seconds"] > 0, "the pods left how long they took"


# --- a network of one's own ---
def test_a_network_that_is_added_to_a_bucket_is_retrained_on_the_cluster(
    jobs: Terminal, team: Installation
) -> None:
    networks = f"s3://{team.bucket.name}/networks/{team.namespace}"
    place = f"{networks}/mobilenet"
    jobs("backbone", "add", "MobileNet", "--to", place, "--weights", "none", "--size", "32")
    facts = json.loads(jobs("backbone", "show", place, "-o", "json").out)
    assert (facts["size"], facts["bottleneck"]) == (32, 1024)
    (listed,) = jobs("backbone", "list", networks).lines[1:]
    assert "mobilenet" in listed
    document = job(team, "own", backbone={"url": place}, cache=f"{networks}/cache")
    for field in ("architecture", "weights", "export"):
        del document["spec"][field]
    waited = jobs("submit", "-f", jobs.write("own.yaml", document), "--wait", "--timeout", "600")
    assert waited.err.splitlines()[-1].startswith("own: Test accuracy ")
    assert place in jobs("describe", "own").out
    folder = jobs.folder / jobs("download", "own", "fetched").out.strip()
    assert (folder / "model.tflite").stat().st_size > 1e6


# --- the cache ---
def test_the_caches_contents_are_counted_and_the_old_ones_pruned(
    jobs: Terminal, team: Installation
) -> None:
    (row,) = jobs("cache", "stats", cache(team)).lines[1:]
    assert row.split()[0] == "mobilenet_0.25_128"
    assert int(row.split()[2]) >= 300
    (part,) = json.loads(jobs("cache", "stats", cache(team), "-o", "json").out)
    assert part["fingerprint"].startswith(row.split()[1])

    copy = f"copy/{team.namespace}"
    for key in team.bucket.keys(f"cache/{team.namespace}/"):
        team.bucket.client.copy_object(
            Bucket=team.bucket.name,
            Key=copy + key.removeprefix(f"cache/{team.namespace}"),
            CopySource={"Bucket": team.bucket.name, "Key": key},
        )
    place = f"s3://{team.bucket.name}/{copy}"
    kept = jobs("cache", "prune", place, "--older-than", "1d")
    assert kept.err == "Deleted: segments 0, bottlenecks 0, 0 B.\n"
    would = jobs("cache", "prune", place, "--older-than", "0m", "--dry-run").err
    assert would.startswith("Would delete: ")
    done = jobs("cache", "prune", place, "--older-than", "0m").err
    assert done == would.replace("Would delete", "Deleted")
    assert not [key for key in team.bucket.keys(copy) if "/segments/" in key]


def test_a_cache_in_use_is_not_pruned(jobs: Terminal, team: Installation) -> None:
    own = f"{cache(team)}-own"
    jobs("submit", "-f", jobs.write("held.yaml", job(team, "held", suspend=True, cache=own)))
    try:
        refused = jobs("cache", "prune", own, "--older-than", "0m", code=64)
        assert f"is in use by {team.namespace}/held: wait until they end" in refused.err
    finally:
        jobs("delete", "held")


# --- a job's life ---
def test_a_job_is_watched_suspended_resumed_followed_and_deleted(
    shell: Terminal, team: Installation
) -> None:
    # So long that it is not whole before it is suspended: its next pod would only say so.
    file = shell.write("short.yaml", job(team, "short", training={"steps": 20_000}))
    with shell.start("get", "-w", "-l", "pictures=digits") as watch:
        shell("submit", "-f", file)
        assert shell("suspend", "short").lines == [
            "short suspended; retrainer resume short lets it go on"
        ]
        team.until("short", lambda status: status.get("phase") == "Suspended")
        assert shell("resume", "short").lines == ["short resumed"]
        followed = shell("logs", "short", "-f").lines
        assert any("Final test accuracy" in line for line in followed)
        assert shell("wait", "short", "--timeout", "60").lines[0].startswith("short: Test accuracy")
        ended = shell("suspend", "short", code=64)
        assert ended.err == "error: short has ended (Succeeded) and cannot be suspended.\n"
        assert shell("delete", "-f", file).lines == [
            "short deleted; what it wrote stays in the store"
        ]
        phases = team.eventually(
            lambda: [line.split()[1] for line in watch.lines() if line.startswith("short ")],
            lambda phases: "(deleted)" in phases,
            30,
        )
        assert watch.interrupt() == 130
    assert watch.lines()[0].split()[:2] == ["NAME", "PHASE"]
    assert phases.index("Suspended") < phases.index("Succeeded") < phases.index("(deleted)")
    assert shell("delete", "short", code=64).err.startswith("error: No RetrainJob short in namesp")
    assert shell("delete", "short", "--ignore-not-found").out == ""


# --- what the shell and the person are told ---
def test_the_networks_are_listed(shell: Terminal) -> None:
    assert len(json.loads(shell("architectures", "-o", "json").out)) == 33


def test_the_shell_completes_commands_and_networks(shell: Terminal) -> None:
    assert "_RETRAINER_COMPLETE" in shell("completion", "bash").out
    ask = {"_RETRAINER_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "retrainer sub"}
    assert shell(variables=ask).out.split() == ["submit"]
    ask |= {"COMP_CWORD": "3", "COMP_WORDS": "retrainer run --architecture inc"}
    assert shell(variables=ask).out.split() == ["inception_v3"]
