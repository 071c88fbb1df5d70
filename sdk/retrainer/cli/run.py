"""`retrainer run`: its options, and how a run is shown from start to end."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.text import Text

from retrainer import jobfile
from retrainer.api import (
    ARCHITECTURES,
    BackboneSource,
    Channels,
    Crop,
    Distortions,
    EarlyStopping,
    Export,
    Layout,
    Optimizer,
    RetrainJob,
    RetrainJobSpec,
    Solver,
    Split,
    Storage,
    Token,
    Training,
    parse_job,
)
from retrainer.api.layout import parent
from retrainer.api.names import API_VERSION, KIND, NAME_MAX
from retrainer.errors import Interrupted, InvalidJob, UserError
from retrainer.local import display as _display
from retrainer.local import places, process
from retrainer.views.text import console, near, one_line

WHAT = "What and where"
_BACKBONE = "A network of your own"

# Options that set a field of the job are named as the field is: (heading, place, type, fields).
_GROUPS: tuple[tuple[str, str, type[BaseModel], tuple[str, ...]], ...] = (
    (WHAT, "spec", RetrainJobSpec, (
        "images", "manifest", "corrections", "output", "architecture", "weights", "cache", "export",
        "max_rejected_fraction",
    )),
    ("Training", "spec.training", Training, (
        "solver", "steps", "learning_rate", "l2", "sweep", "batch_size", "validation_batch_size",
        "eval_interval", "seed", "optimizer",
    )),
    ("Training", "spec.training.earlyStopping", EarlyStopping, ("patience",)),
    ("Training", "spec.split", Split, (
        "testing_percentage", "validation_percentage", "group_duplicates",
    )),
    ("Distortions", "spec.distortions", Distortions, (
        "flip_left_right", "random_crop", "random_scale", "random_brightness", "views",
    )),
    ("Storage", "spec.storage", Storage, ("endpoint", "region", "insecure")),
)  # fmt: skip

# Said otherwise than in the job's reference: a pod takes URLs only, this machine has paths as well.
_HELP = {
    "images": "The same as FOLDER.",
    "manifest": "Path or URL of a list of images with path and label (CSV, JSON Lines, Parquet, ...), "
    "instead of label folders.",
    "corrections": "Path or URL of a corrections.csv, as the page of a run gives it.",
    "architecture": "Network to retrain; `retrainer architectures` lists them.",
    "backbone": "Instead of --architecture: folder or file (.onnx, .tflite) of a frozen network of your "
    "own, path or URL.",
    "backbone_mean": "Subtracted from red, green and blue once they are scaled, such as 0.5,0.5,0.5.",
    "backbone_std": "What red, green and blue are then divided by, such as 0.5,0.5,0.5.",
    "output": "Path or URL under which the run's folder is written.",
    "cache": "Path or URL of the bottleneck cache; OUTPUT/.bottlenecks if not given.",
    "sweep": "Values to choose from on the validation images, such as "
    "learningRate=0.01,0.1 or l2=0,0.001; may be given for both.",
    "weights": "imagenet (downloaded), builtin (only for mobilenet_0.25_128), or path or URL of a "
    "Keras weights file or of a folder of them.",
}


# The values that a run without a job file takes where no option gives one.
_WITHOUT_FILE = {
    "architecture": jobfile.DEFAULT_ARCHITECTURE,
    "output": jobfile.DEFAULT_OUTPUT,
}


@dataclass(frozen=True)
class _Field:
    """A field of the job that an option sets."""

    path: str
    heading: str
    help: str


def _fields() -> dict[str, _Field]:
    name_help = "Name of the job; made from that of the images if not given."
    fields = {"name": _Field("metadata.name", WHAT, name_help)}
    for heading, place, kind, names in _GROUPS:
        for name in names:
            info = kind.model_fields[name]
            text = _HELP.get(name) or info.description or ""
            default = _WITHOUT_FILE.get(name) or info.get_default(call_default_factory=True)
            if name in _WITHOUT_FILE:
                text += f" Without a file: {default}."
            elif not info.is_required() and default not in (None, False):
                text += f" Default: {_shown(default)}."
            fields[name] = _Field(f"{place}.{to_camel(name)}", heading, text)
    for name, info in BackboneSource.model_fields.items():
        option = "backbone" if name == "url" else f"backbone_{name}"
        text = _HELP.get(option) or info.description or ""
        fields[option] = _Field(f"spec.backbone.{name}", _BACKBONE, text)
    return fields


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_FIELDS = _fields()
_METAVARS = {
    **dict.fromkeys(("images", "manifest", "corrections", "output", "cache", "weights"), "PATH"),
    "export": "FORMAT",
    "architecture": "NETWORK",
    "backbone": "FOLDER_OR_FILE",
    "backbone_output": "NAME",
    "backbone_size": "PIXELS",
    "backbone_mean": "R,G,B",
    "backbone_std": "R,G,B",
    "endpoint": "URL",
    "sweep": "VALUES",
}


def architecture_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    return [name for name in ARCHITECTURES if name.startswith(incomplete)]


def option(name: str, *spelled: str) -> Any:
    """Make the option that sets this field of the job, spelled as the field is or as given."""
    field = _FIELDS[name]
    complete = architecture_names if name == "architecture" else None
    return typer.Option(
        *spelled,
        help=field.help,
        rich_help_panel=field.heading,
        autocompletion=complete,
        metavar=_METAVARS.get(name),
    )


def run(
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER",
            help="Path or URL of your photos: a folder per label.",
            show_default=False,
        ),
    ] = None,
    *,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="Job file; - is standard input."),
    ] = None,
    name: Annotated[str | None, option("name")] = None,
    images: Annotated[str | None, option("images")] = None,
    manifest: Annotated[str | None, option("manifest")] = None,
    corrections: Annotated[str | None, option("corrections")] = None,
    output: Annotated[str | None, option("output")] = None,
    architecture: Annotated[str | None, option("architecture")] = None,
    backbone: Annotated[str | None, option("backbone")] = None,
    backbone_output: Annotated[str | None, option("backbone_output")] = None,
    backbone_token: Annotated[Token | None, option("backbone_token")] = None,
    backbone_size: Annotated[int | None, option("backbone_size")] = None,
    backbone_layout: Annotated[Layout | None, option("backbone_layout")] = None,
    backbone_channels: Annotated[Channels | None, option("backbone_channels")] = None,
    backbone_mean: Annotated[str | None, option("backbone_mean")] = None,
    backbone_std: Annotated[str | None, option("backbone_std")] = None,
    backbone_crop: Annotated[Crop | None, option("backbone_crop")] = None,
    weights: Annotated[str | None, option("weights")] = None,
    cache: Annotated[str | None, option("cache")] = None,
    export: Annotated[list[Export] | None, option("export")] = None,
    max_rejected_fraction: Annotated[float | None, option("max_rejected_fraction")] = None,
    solver: Annotated[Solver | None, option("solver")] = None,
    steps: Annotated[int | None, option("steps")] = None,
    learning_rate: Annotated[float | None, option("learning_rate")] = None,
    l2: Annotated[float | None, option("l2")] = None,
    sweep: Annotated[list[str] | None, option("sweep")] = None,
    batch_size: Annotated[int | None, option("batch_size")] = None,
    validation_batch_size: Annotated[int | None, option("validation_batch_size")] = None,
    eval_interval: Annotated[int | None, option("eval_interval")] = None,
    seed: Annotated[int | None, option("seed")] = None,
    optimizer: Annotated[Optimizer | None, option("optimizer")] = None,
    patience: Annotated[int | None, option("patience")] = None,
    testing_percentage: Annotated[int | None, option("testing_percentage")] = None,
    validation_percentage: Annotated[int | None, option("validation_percentage")] = None,
    group_duplicates: Annotated[
        bool | None, option("group_duplicates", "--group-duplicates")
    ] = None,
    flip_left_right: Annotated[bool | None, option("flip_left_right")] = None,
    random_crop: Annotated[int | None, option("random_crop")] = None,
    random_scale: Annotated[int | None, option("random_scale")] = None,
    random_brightness: Annotated[int | None, option("random_brightness")] = None,
    views: Annotated[int | None, option("views")] = None,
    endpoint: Annotated[str | None, option("endpoint")] = None,
    region: Annotated[str | None, option("region")] = None,
    insecure: Annotated[bool | None, option("insecure")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for every evaluation.")
    ] = False,
) -> None:
    """Retrain on this machine, on a folder of photos or by a job file.

    Options override what the file says.
    Bottlenecks are cached: a second run with another learning rate takes seconds.
    Ctrl-C saves what was computed.

    [dim]retrainer run flower_photos[/]

    [dim]retrainer run flower_photos --architecture mobilenet_0.50_160 --steps 500[/]

    [dim]retrainer run --manifest flower_photos/metadata.csv[/]

    [dim]retrainer run -f job.yaml --learning-rate 0.02[/]
    """
    given = {option: value for option, value in locals().items() if option in _FIELDS}
    given["images"] = images_of(folder, images, file or manifest)
    if file:
        documents = jobfile.documents(jobfile.read(file), file)
        jobs = [job_with(document, given, where=where) for where, document in documents]
    else:
        jobs = [job_with(None, given)]
    show(jobs, again=["retrainer", *sys.argv[1:]], every_step=verbose, s3_endpoint=endpoint)


def images_of(
    folder: str | None, images: str | None, instead: str | None, *, command: str = "run"
) -> str | None:
    """Find the one place of the images that the command line names.

    None leaves it to the job file or to the manifest, which is `instead`.

    Raises:
        UserError: two are named, or none where there is no file, or a job file takes their place.
    """
    if folder and images and folder != images:
        raise UserError(f"The images are named twice: {folder} and --images {images}.")
    if not (folder or images or instead):
        raise UserError(
            f"Name the folder of your photos (retrainer {command} FOLDER) or a job file "
            f"(retrainer {command} -f job.yaml)."
        )
    if folder and folder.endswith((".yaml", ".yml", ".json")) and not Path(folder).is_dir():
        raise UserError(f"{folder} is a job file: retrainer {command} -f {shlex.quote(folder)}")
    return folder or images


def job_with(
    document: Any, given: Mapping[str, Any], *, where: str = "", here: bool = True
) -> RetrainJob:
    """Make the job of a document, in which the given options replace fields.

    Args:
        document: a YAML document; None if there is no file.
        given: option, as `run` names it, to value; None is not given.
        where: the file's name, for errors.
        here: the job is to run on this machine, so its places here are looked at.

    Raises:
        InvalidJob: one sentence per wrong field, or per place that is not there; the option is named
            where it set the field, or could.
    """
    alone = document is None
    job = {"apiVersion": API_VERSION, "kind": KIND, "spec": {}} if alone else document
    if not isinstance(job, dict):
        return parse_job(job, where=where)
    values = {option: value for option, value in given.items() if value is not None}
    if alone:
        named = values.get("images") or parent(values.get("manifest", ""))[0]
        values = {"name": name_of(named), **_WITHOUT_FILE, **values}
    # The option that names a network takes the place of the other kind.
    if "backbone" in values and given.get("architecture") is None:
        values.pop("architecture", None)
        job = _without(job, "architecture")
    elif given.get("architecture") is not None and "backbone" not in values:
        job = _without(job, "backbone")
    if "sweep" in values:
        values["sweep"] = sweep_of(values["sweep"])
    for option in ("backbone_mean", "backbone_std"):
        if option in values:
            values[option] = _colours_of(option, values[option])
    for option, value in values.items():
        job = _set(job, _FIELDS[option].path.split("."), value)
    named = _FIELDS if alone else values
    options = {_FIELDS[o].path: f"--{o.replace('_', '-')}" for o in named}
    try:
        parsed = parse_job(job)
    except InvalidJob as error:
        raise InvalidJob([_with_option(p, options) for p in error.problems], where=where) from error
    if wrong := places.problems(parsed) if here else []:
        raise InvalidJob([_with_option(p, options) for p in wrong], where=where)
    return parsed


def sweep_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read `--sweep learningRate=0.01,0.1 --sweep l2=0,0.001` as the job's `spec.training.sweep`.

    Raises:
        InvalidJob: one is not FIELD=VALUE,... with numbers.
    """
    values: dict[str, list[Any]] = {}
    for text in texts:
        field, equals, listed = text.partition("=")
        try:
            numbers = [float(number) for number in listed.split(",")]
        except ValueError:
            numbers = []
        if not equals or not numbers:
            raise InvalidJob(
                [f"--sweep: must be FIELD=VALUE,... such as learningRate=0.003,0.01, got {text!r}"]
            )
        values.setdefault(to_camel(field.replace("-", "_")), []).extend(numbers)
    return values


def _colours_of(option: str, text: str) -> list[float]:
    """Read the numbers of `--backbone-mean 0.5,0.5,0.5`.

    Raises:
        InvalidJob: it is not three numbers.
    """
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError:
        name = f"--{option.replace('_', '-')}"
        raise InvalidJob(
            [f"{name}: must be three numbers such as 0.5,0.5,0.5, got {text!r}"]
        ) from None
    return [red, green, blue]


def _without(job: dict[str, Any], field: str) -> dict[str, Any]:
    """Copy a job without a field of its spec."""
    spec = job.get("spec")
    if not isinstance(spec, dict):
        return job
    return {**job, "spec": {name: value for name, value in spec.items() if name != field}}


def _set(mapping: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """Copy `mapping` with the field at `path` set."""
    copy = dict(mapping) if isinstance(mapping, dict) else {}
    first, *rest = path
    copy[first] = _set(copy.get(first), rest, value) if rest else value
    return copy


def _with_option(problem: str, options: Mapping[str, str]) -> str:
    field, colon, sentence = problem.partition(": ")
    return f"{options[field]} ({field}): {sentence}" if field in options and colon else problem


def name_of(place: str) -> str:
    """Make a job's name of a path or URL, from its last part: flower-photos of `s3://b/Flower_Photos/`."""
    path = place if "://" in place else str(Path(place).expanduser().absolute())
    last = Path(path.rstrip("/")).name.lower()
    parts = "".join(c if c.isascii() and c.isalnum() else " " for c in last).split()
    return "-".join(parts)[:NAME_MAX].strip("-") or "job"


def show(
    jobs: Sequence[RetrainJob],
    *,
    again: Sequence[str],
    every_step: bool = False,
    s3_endpoint: str | None = None,
    program: Sequence[str] = process.TRAINER,
    out: Console | None = None,
) -> None:
    """Run jobs one after the other, showing each from start to end.

    Args:
        jobs: as in a file.
        again: the command line that goes on after Ctrl-C, word by word.
        every_step: print a line for every evaluation.
        s3_endpoint: goes before what the environment says.
        program: the trainer's command line.
        out: where to print.

    Raises:
        RetrainerError: as `retrainer.run`; a wrong job ends the others as well.
    """
    out = out or console()
    for job in jobs:
        if len(jobs) > 1:
            out.print(Text(job.name, style="bold"))
        try:
            with terminated_as_ctrl_c(), _display.Display(out, every_step=every_step) as display:
                result = process.run_program(
                    job, progress=display, s3_endpoint=s3_endpoint, program=program
                )
        except Interrupted as error:
            stopped = Interrupted(f"{error}\n  {shlex.join(again)}")
            stopped.exit_code = error.exit_code
            raise stopped from error
        finish(out, result)


@contextlib.contextmanager
def terminated_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a closed terminal, stop what was started as Ctrl-C does."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    # What nohup has the program ignore stays ignored.
    ends = (signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in ends if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def finish(out: Console, result: process.Result) -> None:
    """Print the accuracy, where everything is, and what to do next."""
    out.print()
    out.print(Text(one_line(str(result)), style="bold green"), soft_wrap=True)
    for word, what in _display.summary(result):
        out.print(Text(f"  {word:<10}{one_line(what)}"), soft_wrap=True)
    next_command = shlex.join(["retrainer", "predict", near(result.url)])
    out.print(Text(f"  {'try it':<10}{next_command} IMAGE..."), soft_wrap=True)
