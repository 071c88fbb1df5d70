"""Commands of this machine: what they print, what they refuse, how they exit."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from tests.support.run_folder import write_run

from retrainer import __version__, jobfile
from retrainer.api import (
    ARCHITECTURES,
    Channels,
    Crop,
    Export,
    Layout,
    Optimizer,
    Solver,
    Token,
    parse_job,
)
from retrainer.cli import main
from retrainer.cli import run as _cli_run
from retrainer.errors import Interrupted, InvalidJob, UserError


class Output(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Output]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The current folder of the test."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


@pytest.fixture
def invoke(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run `retrainer` with these arguments, where there is no cluster."""
    monkeypatch.setenv("KUBECONFIG", str(folder / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    def run(*arguments: str) -> Output:
        code = main.run(main.build(), arguments)
        return Output(code, *capsys.readouterr())

    return run


# --- the app ---
def test_the_version_is_printed(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"retrainer {__version__}\n", "")


def test_no_words_at_all_are_answered_with_help(invoke: Invoke) -> None:
    output = invoke()
    assert "Usage: retrainer" in output.out + output.err
    assert "init" in output.out + output.err


@pytest.mark.parametrize(
    "command", ["init", "validate", "run", "predict", "tensorboard", "architectures"]
)
def test_every_command_has_help_with_an_example(invoke: Invoke, command: str) -> None:
    output = invoke(command, "--help")
    assert output.code == 0
    assert f"retrainer {command}" in output.out.replace("Usage: retrainer", "")


@pytest.mark.parametrize(
    "arguments", [["trian"], ["run", "--stepps", "3"], ["run", "--steps", "many"], ["validate"]]
)
def test_a_wrong_command_line_exits_with_64(invoke: Invoke, arguments: list[str]) -> None:
    output = invoke(*arguments)
    assert output.code == 64
    assert "Error" in output.err


def test_an_error_is_one_sentence_on_stderr_and_no_traceback(invoke: Invoke) -> None:
    assert invoke("run", "-f", "job.yaml") == (
        64,
        "",
        "error: There is no file job.yaml. retrainer init job.yaml writes one to start from.\n",
    )


def raising(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def command() -> None:
        raise error

    return app


def test_exit_codes_are_those_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = Interrupted("stopped")
    stopped.exit_code = 130
    for error, code in (
        (UserError("wrong"), 64),
        (stopped, 130),
        (Interrupted("terminated"), 143),
        (KeyboardInterrupt(), 130),
        (typer.Exit(3), 3),
        (SystemExit("text"), 1),
    ):
        assert main.run(raising(error), []) == code


def test_a_fault_of_ours_is_no_users_mistake() -> None:
    with pytest.raises(ZeroDivisionError):
        main.run(raising(ZeroDivisionError()), [])


# Python writes at once where PYTHONUNBUFFERED is set, and otherwise once more while it ends.
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["architectures"], ["--version"]])
def test_a_full_disk_is_one_sentence(
    arguments: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "retrainer.cli.main", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_a_reader_that_closes_the_pipe_sees_no_error() -> None:
    command = [sys.executable, "-m", "retrainer.cli.main", "architectures"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""


# --- init and validate ---
def test_init_writes_a_job_that_validate_finds_right(invoke: Invoke, folder: Path) -> None:
    output = invoke(
        "init", "--images", "s3://photos/Garden_Birds/", "--output", "s3://models/birds"
    )
    assert output == (
        0,
        "Images: s3://photos/Garden_Birds/.\n"
        "Wrote job.yaml. Edit it, then: retrainer run -f job.yaml\n",
        "",
    )
    assert invoke("validate", "-f", "job.yaml") == (0, "garden-birds is valid\n", "")
    assert jobfile.load("job.yaml").spec.images == "s3://photos/Garden_Birds/"


def test_init_finds_the_label_folders_and_counts_them(invoke: Invoke, folder: Path) -> None:
    for label, count in (("jay", 2), ("robin", 3), ("empty", 0), (".thumbnails", 1)):
        (folder / "birds" / label).mkdir(parents=True)
        for i in range(count):
            (folder / "birds" / label / f"{i}.JPG").touch()
        (folder / "birds" / label / "notes.txt").touch()
    (folder / "albums" / "one").mkdir(parents=True)
    output = invoke("init")
    assert output.out == (
        "Images: birds, 2 labels, 5 pictures (jay 2, robin 3).\n"
        "Wrote job.yaml. Edit it, then: retrainer run -f job.yaml\n"
    )
    job = jobfile.load("job.yaml")
    assert (job.name, job.spec.images) == ("birds", "birds")
    assert invoke("init", "--force", "--images", "albums").out.startswith(
        "albums has no folders of pictures yet: put one per label there.\n"
    )
    assert invoke("init", "--force", "--images", "nowhere").out.startswith(
        "There is no folder nowhere yet: put one folder of pictures per label there.\n"
    )


def test_init_does_not_write_over_a_file(invoke: Invoke, folder: Path) -> None:
    Path("job.yaml").write_text("mine")
    output = invoke("init")
    assert (output.code, output.err) == (
        64,
        "error: job.yaml already exists; --force overwrites it.\n",
    )
    assert Path("job.yaml").read_text() == "mine"
    assert invoke("init", "--force").code == 0
    assert jobfile.load("job.yaml").name == "flower-photos"


def test_init_refuses_what_would_be_no_valid_job(invoke: Invoke, folder: Path) -> None:
    output = invoke("init", "--architecture", "mobilenet_0.5_224")
    assert output.code == 64
    assert "did you mean mobilenet_0.50_224?" in output.err
    assert not Path("job.yaml").exists()


def test_init_says_where_it_cannot_write(invoke: Invoke) -> None:
    output = invoke("init", "nowhere/job.yaml")
    assert (output.code, output.err) == (
        64,
        "error: Cannot write nowhere/job.yaml: No such file or directory.\n",
    )


def test_validate_names_every_wrong_field_by_its_path(invoke: Invoke, folder: Path) -> None:
    text = jobfile.template().replace("steps: 500", "stepps: 500").replace("output:", "outptu:")
    Path("job.yaml").write_text(text)
    assert invoke("validate", "-f", "job.yaml") == (
        64,
        "",
        "error: job.yaml: 3 problems\n"
        "  spec.output: is required\n"
        "  spec.training.stepps: unknown field; did you mean steps?\n"
        "  spec.outptu: unknown field; did you mean output?\n",
    )


def test_validate_looks_at_every_document(invoke: Invoke, folder: Path) -> None:
    one, two = jobfile.template(name="one"), jobfile.template(name="two")
    Path("job.yaml").write_text(f"{one}---\n{two.replace('steps: 500', 'steps: 0')}")
    output = invoke("validate", "-f", "job.yaml")
    assert output.code == 64
    assert "job.yaml, document 2: spec.training.steps: must be at least 1, got 0" in output.err


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order-mark"])
def test_a_job_is_read_from_standard_input_whatever_the_locale(before: bytes) -> None:
    text = jobfile.template(images="s3://photos/blümchen", output="s3://models/flowers")
    output = validate_input(
        before + text.replace("\n", "\r\n").encode(), PYTHONIOENCODING="latin-1"
    )
    assert (output.code, output.out, output.err) == (0, "flowers is valid\n", "")


def test_what_is_no_text_on_standard_input_is_told() -> None:
    output = validate_input(b"\xff\xfe\x00")
    assert output == (64, "", "error: standard input is not UTF-8 text: is it a job file?\n")


def validate_input(body: bytes, **environment: str) -> Output:
    """Run `retrainer validate -f -` with this standard input."""
    command = [sys.executable, "-m", "retrainer.cli.main", "validate", "-f", "-"]
    done = subprocess.run(
        command, input=body, capture_output=True, env={**os.environ, **environment}, check=False
    )
    return Output(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_validate_says_what_keeps_a_job_from_a_cluster(invoke: Invoke, folder: Path) -> None:
    Path("job.yaml").write_text(jobfile.template(output="s3://models/flowers"))
    sentence = "spec.images: must be s3://BUCKET/FOLDER in a cluster, got 'flower_photos'"
    assert invoke("validate", "-f", "job.yaml") == (
        0,
        f"flowers is valid, for this machine only:\n  {sentence}\n",
        "",
    )
    assert invoke("validate", "-f", "job.yaml", "--cluster") == (
        64,
        "",
        f"error: job.yaml: flowers: {sentence}\n",
    )


@pytest.mark.parametrize("spelled", ["out", "photos/../out", "link/out"])
def test_an_output_inside_the_images_is_one_sentence_of_run_and_validate(
    invoke: Invoke, folder: Path, spelled: str
) -> None:
    for name in ("daisy", "roses", "photos"):
        (folder / name).mkdir()
    (folder / "link").symlink_to(folder)
    text = jobfile.template(images=".", output=spelled)
    Path("job.yaml").write_text(text)
    sentence = f"must not lie inside images, where it would be taken for a label, got '{spelled}'"
    error = f"error: --output (spec.output): {sentence}\n"
    assert invoke("run", "--images", ".", "--output", spelled) == (64, "", error)
    assert invoke("run", ".", "--output", spelled) == (64, "", error)
    output = invoke("validate", "-f", "job.yaml")
    assert output == (64, "", f"error: job.yaml: flowers: spec.output: {sentence}\n")


def test_places_that_are_not_there_are_named_with_their_options(invoke: Invoke) -> None:
    assert invoke("run", "nowhere", "--weights", "nofile") == (
        64,
        "",
        "error: 2 problems\n"
        "  --images (spec.images): the folder nowhere does not exist\n"
        "  --weights (spec.weights): there is no file or folder nofile\n",
    )


def test_suggested_corrections_are_written_for_people_to_look_at(
    invoke: Invoke, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "out" / "flowers-1a2b3c4d")
    rows = [
        ("label", "daisy/a.jpg", None, "daisy", "roses", 0.9),
        ("duplicate", "roses/a.jpg", "roses/b.jpg", "roses", None, 0.99),
        ("stranger", "=x/a.jpg", None, "=x", None, 0.7),
    ]
    columns = dict(
        zip(
            ("kind", "path", "other", "label", "suggested", "score"),
            zip(*rows, strict=True),
            strict=True,
        )
    )
    pq.write_table(
        pa.table({name: list(column) for name, column in columns.items()}), run / "findings.parquet"
    )
    output = invoke("findings", str(run), "--write", "corrections.csv")
    assert output.out == (
        "corrections.csv: 3 suggestions. Look at each photo; delete the rows that are wrong, or\n"
        "write keep as their action. Then: retrainer run PHOTOS --corrections corrections.csv\n"
    )
    assert (tmp_path / "corrections.csv").read_text() == (
        "path,action,label,run\n"
        "daisy/a.jpg,relabel,roses,flowers-1a2b3c4d\n"
        "roses/b.jpg,drop,,flowers-1a2b3c4d\n"
        "'=x/a.jpg,drop,,flowers-1a2b3c4d\n"
    )
    assert invoke("findings", str(run), "--write", "no/where.csv") == (
        64, "", "error: Cannot write no/where.csv: No such file or directory.\n"
    )  # fmt: skip


def test_a_manifest_is_enough_to_name_the_photos(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "Garden Birds").mkdir()
    (tmp_path / "Garden Birds" / "list.csv").touch()
    job = _cli_run.job_with(None, {"manifest": "Garden Birds/list.csv"})
    assert (job.name, job.spec.images) == ("garden-birds", "Garden Birds")
    assert job.spec.manifest == "Garden Birds/list.csv"
    assert invoke("run", "--manifest", "nofile.csv") == (
        64,
        "",
        "error: --manifest (spec.manifest): the file nofile.csv does not exist\n",
    )


def test_a_job_file_in_place_of_the_photos_is_told_how_to_be_run(invoke: Invoke) -> None:
    error = "error: job.yaml is a job file: retrainer run -f job.yaml\n"
    assert invoke("run", "job.yaml") == (64, "", error)


def test_images_that_are_named_twice_are_refused(invoke: Invoke) -> None:
    error = "error: The images are named twice: a and --images b.\n"
    assert invoke("run", "a", "--images", "b") == (64, "", error)


# --- run: options over the file ---
@pytest.fixture(autouse=True)
def _places(folder: Path) -> None:
    """What the jobs here name."""
    for name in ("flower_photos", "a"):
        (folder / name).mkdir()
    (folder / "w").touch()


def document() -> object:
    return jobfile.documents(jobfile.template(), "job.yaml")[0][1]


def test_options_set_fields_over_what_the_file_says() -> None:
    options = {
        "name": "roses", "images": "a", "output": "b", "architecture": "inception_v3", "weights": "w",
        "cache": "c", "export": [Export.ONNX], "max_rejected_fraction": 0.5, "steps": 7,
        "learning_rate": 0.5, "batch_size": -1, "validation_batch_size": 50, "eval_interval": 3,
        "seed": 9, "optimizer": Optimizer.ADAM, "patience": 4, "testing_percentage": 20,
        "validation_percentage": 30, "flip_left_right": True, "random_crop": 1, "random_scale": 2,
        "random_brightness": 3, "views": 5, "endpoint": "http://s3:7070", "region": "eu-west-1",
        "insecure": True, "solver": Solver.SGD, "l2": 0.25, "sweep": None, "manifest": None,
        "corrections": None, "group_duplicates": None,
    }  # fmt: skip
    backbone = {name for name in _cli_run._FIELDS if name.startswith("backbone")}
    assert set(options) == set(_cli_run._FIELDS) - backbone
    spec = _cli_run.job_with(document(), options).spec
    training, distortions, storage = spec.training, spec.distortions, spec.storage
    assert (spec.images, spec.output, spec.cache, spec.weights) == ("a", "b", "c", "w")
    assert (spec.architecture, spec.export) == ("inception_v3", [Export.ONNX])
    assert spec.max_rejected_fraction == 0.5
    assert (training.steps, training.learning_rate, training.batch_size) == (7, 0.5, -1)
    assert (training.eval_interval, training.seed) == (3, 9)
    assert training.validation_batch_size == 50
    assert training.optimizer == Optimizer.ADAM
    assert (training.solver, training.l2) == (Solver.SGD, 0.25)
    assert training.early_stopping is not None
    assert training.early_stopping.patience == 4
    assert (spec.split.testing_percentage, spec.split.validation_percentage) == (20, 30)
    assert distortions is not None
    assert distortions.model_dump() == {
        "flip_left_right": True, "random_crop": 1, "random_scale": 2, "random_brightness": 3,
        "views": 5,
    }  # fmt: skip
    assert (storage.endpoint, storage.region) == ("http://s3:7070", "eu-west-1")
    assert storage.insecure


def test_a_backbone_takes_the_place_of_the_architecture_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    options = {
        "backbone": str(tmp_path), "backbone_output": "last_hidden_state",
        "backbone_token": Token.MEAN, "backbone_size": 384, "backbone_layout": Layout.NHWC,
        "backbone_channels": Channels.BGR, "backbone_mean": "0.5,0.4,0.3", "backbone_std": "1,2,3",
        "backbone_crop": Crop.CENTER,
    }  # fmt: skip
    assert set(options) == {name for name in _cli_run._FIELDS if name.startswith("backbone")}
    for start in (document(), None):
        spec = _cli_run.job_with(start, {"images": "flower_photos", **options}, here=False).spec
        assert spec.architecture is None
        assert spec.backbone is not None
        assert spec.backbone.dump() == {
            "url": str(tmp_path), "output": "last_hidden_state", "token": "mean", "size": 384,
            "layout": "NHWC", "channels": "BGR", "mean": [0.5, 0.4, 0.3], "std": [1, 2, 3],
            "crop": "center",
        }  # fmt: skip
    job = document()
    assert isinstance(job, dict)
    spec_of_file = {"backbone": {"url": "net"}, "images": "i", "output": "o"}
    again = _cli_run.job_with(
        {**job, "spec": spec_of_file}, {"architecture": "inception_v3"}, here=False
    ).spec
    assert (again.architecture, again.backbone) == ("inception_v3", None)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"backbone_mean": "0.5"}, "--backbone-mean: must be three numbers such as 0.5,0.5,0.5"),
        ({"backbone_size": 4}, "--backbone-size (spec.backbone.size): must be at least 8, got 4"),
        ({"weights": "w"}, "--weights (spec.weights): weights goes with architecture only"),
        ({"export": [Export.KERAS]}, "--export (spec.export): a backbone is exported in its own"),
    ],
)
def test_a_wrong_option_of_a_backbone_is_named(options: dict[str, Any], problem: str) -> None:
    given = {"images": "i", "backbone": "net", **options}
    with pytest.raises(InvalidJob, match=re.escape(problem)):
        _cli_run.job_with(None, given, here=False)


def test_a_backbone_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    given = {"images": str(tmp_path), "backbone": str(tmp_path / "none.onnx")}
    expected = f"--backbone (spec.backbone.url): there is no file or folder {tmp_path}/none.onnx"
    with pytest.raises(InvalidJob, match=re.escape(expected)):
        _cli_run.job_with(None, given)


def test_what_is_not_given_stays_as_in_the_file() -> None:
    before = parse_job(document())
    assert _cli_run.job_with(document(), dict.fromkeys(_cli_run._FIELDS)) == before


def test_sweep_takes_the_values_of_both_fields_and_names_what_is_wrong(invoke: Invoke) -> None:
    swept = {"sweep": ["learningRate=0.003,0.1", "l2=0", "l2=0.001"], "solver": None}
    training = _cli_run.job_with(document(), swept).spec.training
    assert training.sweep is not None
    assert training.sweep.learning_rate == [0.003, 0.1]
    assert training.sweep.l2 == [0, 0.001]
    for wrong in ("learningRate", "l2=", "l2=a,b"):
        with pytest.raises(InvalidJob, match=r"^--sweep: must be FIELD=VALUE,\.\.\. such as"):
            _cli_run.job_with(document(), {"sweep": [wrong]})
    with pytest.raises(InvalidJob, match="unknown field"):
        _cli_run.job_with(document(), {"sweep": ["steps=3"]})


def test_the_document_itself_is_not_changed() -> None:
    original = document()
    _cli_run.job_with(original, {"steps": 7})
    assert original == document()


def test_without_a_file_the_name_is_made_from_the_images() -> None:
    options = {"images": "s3://photos/Flower_Photos/", "output": "o",
             "architecture": "mobilenet_0.50_224"}  # fmt: skip
    assert _cli_run.job_with(None, options).name == "flower-photos"


@pytest.mark.parametrize(
    ("place", "name"),
    [("~/Größe 2/", "gr-e-2"), ("/", "job"), ("___", "job"), ("x" * 80, "x" * 46), ("a.b", "a-b"),
     ("a" * 45 + "-b", "a" * 45), ("..", "job")],
)  # fmt: skip
def test_a_name_made_from_a_path_is_a_valid_one(place: str, name: str) -> None:
    assert _cli_run.name_of(place) == name


def test_a_wrong_option_is_named_as_it_was_typed(invoke: Invoke, folder: Path) -> None:
    Path("job.yaml").write_text(jobfile.template())
    output = invoke("run", "-f", "job.yaml", "--steps", "0")
    assert output == (
        64,
        "",
        "error: job.yaml: --steps (spec.training.steps): must be at least 1, got 0\n",
    )


def test_a_folder_of_photos_is_enough(invoke: Invoke) -> None:
    job = _cli_run.job_with(None, {"images": "flower_photos"})
    spec = job.spec
    assert (job.name, spec.images, spec.output) == ("flower-photos", "flower_photos", "out")
    assert spec.architecture == "mobilenet_0.50_224"
    help_text = " ".join(invoke("run", "--help").out.replace("│", " ").split())
    assert "Without a file: out." in help_text
    assert "Without a file: mobilenet_0.50_224." in help_text


def test_without_photos_and_without_a_file_both_ways_are_told(invoke: Invoke) -> None:
    assert invoke("run") == (
        64,
        "",
        "error: Name the folder of your photos (retrainer run FOLDER) or a job file "
        "(retrainer run -f job.yaml).\n",
    )


def test_a_mistake_in_the_file_is_not_blamed_on_an_option() -> None:
    wrong = jobfile.documents(jobfile.template().replace("steps: 500", "steps: 0"), "x")[0][1]
    with pytest.raises(InvalidJob) as caught:
        _cli_run.job_with(wrong, {"seed": 1}, where="job.yaml")
    assert str(caught.value) == "job.yaml: spec.training.steps: must be at least 1, got 0"


def test_a_document_that_is_no_mapping_is_told_so() -> None:
    with pytest.raises(InvalidJob, match="must be a mapping"):
        _cli_run.job_with([], {"steps": 3})


# --- cache ---
def test_cache_stats_of_an_output_says_where_the_cache_is(invoke: Invoke, folder: Path) -> None:
    write_run(folder / "flowers-12345678")
    output = invoke("cache", "stats", str(folder))
    assert (output.code, output.out) == (0, "")
    assert output.err.startswith(f"No bottlenecks in {folder}; ")


def test_cache_stats_and_prune_of_a_folder(invoke: Invoke, folder: Path) -> None:
    segments = folder / "fp1" / "segments"
    segments.mkdir(parents=True)
    (folder / "fp1" / "network-mobilenet_0.50_160").touch()
    for name, size in (("a.parquet", 4096), ("a.index", 40 + 28 * 10)):
        (segments / name).write_bytes(b"x" * size)
        os.utime(segments / name, (1_600_000_000, 1_600_000_000))
    stats = invoke("cache", "stats", str(folder))
    assert stats.out.splitlines()[1].split()[:6] == [
        "mobilenet_0.50_160", "fp1", "10", "1", "4.3", "KiB",
    ]  # fmt: skip
    prune = ("cache", "prune", str(folder), "--older-than")
    error = "error: --older-than soon: give a number and m, h or d, such as 90d.\n"
    assert invoke(*prune, "soon") == (64, "", error)
    counted = "Would delete: segments 1, bottlenecks 10, 4.3 KiB.\n"
    assert invoke(*prune, "1d", "--dry-run") == (0, "", counted)
    assert invoke(*prune, "1d").code == 0
    assert not list(segments.iterdir())


# --- the rest ---
def test_architectures_are_listed_with_what_an_image_costs(invoke: Invoke) -> None:
    lines = invoke("architectures").out.splitlines()
    assert lines[0].split() == ["NAME", "INPUT", "BOTTLENECK", "MULTIPLY-ADDS", "PARAMETERS"]
    assert [line.split()[0] for line in lines[1:]] == list(ARCHITECTURES)
    assert lines[1].split() == ["mobilenet_1.0_224", "224", "px", "1,024", "568", "M", "3.20", "M"]


def test_architectures_are_given_as_json(invoke: Invoke) -> None:
    rows = json.loads(invoke("architectures", "-o", "json").out)
    assert len(rows) == 33
    assert rows[-1]["name"] == "inception_v3"
    assert rows[-1]["bottleneck"] == 2048


def test_predicting_without_a_run_is_told(invoke: Invoke, folder: Path) -> None:
    (folder / "out" / "flowers-1").mkdir(parents=True)
    output = invoke("predict", "out", "rose.jpg")
    assert output.code == 64
    assert output.err == (
        "error: There is no finished run in out; unfinished or something else: flowers-1.\n"
    )
    output = invoke("predict", "nowhere", "rose.jpg")
    assert output.code == 64
    assert output.err.startswith(
        "error: There is no folder nowhere here, and no cluster to ask for a job of that name: "
    )
    output = invoke("predict", "./nowhere", "rose.jpg")
    assert output.err == f"error: There is no folder {folder}/nowhere.\n"


def test_tensorboard_without_summaries_is_told(invoke: Invoke, folder: Path) -> None:
    (folder / "out").mkdir()
    output = invoke("tensorboard", "out")
    assert output.code == 64
    assert "There are no summaries in out" in output.err
