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
    Distortions,
    EarlyStopping,
    Export,
    Optimizer,
    RetrainJob,
    RetrainJobSpec,
    Split,
    Storage,
    Training,
    parse_job,
)
from retrainer.api.names import API_VERSION, KIND, NAME_MAX
from retrainer.errors import Interrupted, InvalidJob
from retrainer.local import display as _display
from retrainer.local import process
from retrainer.views.text import console, near, printable

WHAT = "What and where"

# Options that set a field of the job are named as the field is: (heading, place, type, fields).
_GROUPS: tuple[tuple[str, str, type[BaseModel], tuple[str, ...]], ...] = (
    (WHAT, "spec", RetrainJobSpec, (
        "images", "output", "architecture", "weights", "cache", "export", "max_rejected_fraction",
    )),
    ("Training", "spec.training", Training, (
        "steps", "learning_rate", "batch_size", "eval_interval", "seed", "optimizer",
    )),
    ("Training", "spec.training.earlyStopping", EarlyStopping, ("patience",)),
    ("Training", "spec.split", Split, ("testing_percentage", "validation_percentage")),
    ("Distortions", "spec.distortions", Distortions, (
        "flip_left_right", "random_crop", "random_scale", "random_brightness", "views",
    )),
    ("Storage", "spec.storage", Storage, ("endpoint", "region", "insecure")),
)  # fmt: skip

# A pod takes URLs only; this machine has paths as well.
_ALSO_PATHS = {
    "images": "Path or URL of the images: one folder per label.",
    "output": "Path or URL under which the run's folder is written.",
    "cache": "Path or URL of the bottleneck cache; OUTPUT/.bottlenecks if not given.",
    "weights": "imagenet (downloaded), builtin (only for mobilenet_0.25_128), or path or URL of a "
    "Keras weights file or of a folder of them.",
}


@dataclass(frozen=True)
class _Field:
    """A field of the job that an option sets."""

    path: str
    heading: str
    help: str


def _fields() -> dict[str, _Field]:
    found = {
        "name": _Field("metadata.name", WHAT, "Name of the job; made from --images without -f.")
    }
    for heading, place, kind, names in _GROUPS:
        for name in names:
            info = kind.model_fields[name]
            text = _ALSO_PATHS.get(name) or info.description or ""
            default = info.get_default(call_default_factory=True)
            if not info.is_required() and default not in (None, False):
                text += f" Default: {_shown(default)}."
            found[name] = _Field(f"{place}.{to_camel(name)}", heading, text)
    return found


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_FIELDS = _fields()
_METAVARS = {
    **dict.fromkeys(("images", "output", "cache", "weights"), "PATH"),
    "export": "FORMAT",
    "architecture": "NETWORK",
    "endpoint": "URL",
}


def architecture_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    return [name for name in ARCHITECTURES if name.startswith(incomplete)]


def _option(name: str) -> Any:
    field = _FIELDS[name]
    complete = architecture_names if name == "architecture" else None
    return typer.Option(
        help=field.help,
        rich_help_panel=field.heading,
        autocompletion=complete,
        metavar=_METAVARS.get(name),
    )


def run(
    *,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="Job file; - is standard input."),
    ] = None,
    name: Annotated[str | None, _option("name")] = None,
    images: Annotated[str | None, _option("images")] = None,
    output: Annotated[str | None, _option("output")] = None,
    architecture: Annotated[str | None, _option("architecture")] = None,
    weights: Annotated[str | None, _option("weights")] = None,
    cache: Annotated[str | None, _option("cache")] = None,
    export: Annotated[list[Export] | None, _option("export")] = None,
    max_rejected_fraction: Annotated[float | None, _option("max_rejected_fraction")] = None,
    steps: Annotated[int | None, _option("steps")] = None,
    learning_rate: Annotated[float | None, _option("learning_rate")] = None,
    batch_size: Annotated[int | None, _option("batch_size")] = None,
    eval_interval: Annotated[int | None, _option("eval_interval")] = None,
    seed: Annotated[int | None, _option("seed")] = None,
    optimizer: Annotated[Optimizer | None, _option("optimizer")] = None,
    patience: Annotated[int | None, _option("patience")] = None,
    testing_percentage: Annotated[int | None, _option("testing_percentage")] = None,
    validation_percentage: Annotated[int | None, _option("validation_percentage")] = None,
    flip_left_right: Annotated[bool | None, _option("flip_left_right")] = None,
    random_crop: Annotated[int | None, _option("random_crop")] = None,
    random_scale: Annotated[int | None, _option("random_scale")] = None,
    random_brightness: Annotated[int | None, _option("random_brightness")] = None,
    views: Annotated[int | None, _option("views")] = None,
    endpoint: Annotated[str | None, _option("endpoint")] = None,
    region: Annotated[str | None, _option("region")] = None,
    insecure: Annotated[bool | None, _option("insecure")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for every evaluation.")
    ] = False,
) -> None:
    """Retrain on this machine.

    Options override what the file says.
    Bottlenecks are cached: a second run with another learning rate takes seconds.
    Ctrl-C saves what was computed.

    [dim]retrainer run -f job.yaml[/]

    [dim]retrainer run -f job.yaml --steps 4000 --learning-rate 0.02[/]

    [dim]retrainer run --images flower_photos --output out --architecture mobilenet_0.50_224[/]
    """
    given = {option: value for option, value in locals().items() if option in _FIELDS}
    if file:
        found = jobfile.documents(jobfile.read(file), file)
        jobs = [job_with(document, given, where=where) for where, document in found]
    else:
        jobs = [job_with(None, given)]
    show(jobs, again=["retrainer", *sys.argv[1:]], every_step=verbose, s3_endpoint=endpoint)


def job_with(document: Any, given: Mapping[str, Any], *, where: str = "") -> RetrainJob:
    """The job of a document, with the options that are given set over it.

    Args:
        document: a YAML document; None if there is no file.
        given: option, as `run` names it, to value; None is not given.
        where: the file's name, for errors.

    Raises:
        InvalidJob: one sentence per wrong field; the option is named where it set the field, or could.
    """
    alone = document is None
    job = {"apiVersion": API_VERSION, "kind": KIND, "spec": {}} if alone else document
    if not isinstance(job, dict):
        return parse_job(job, where=where)
    values = {option: value for option, value in given.items() if value is not None}
    if alone:
        values.setdefault("name", name_of(values.get("images", "")))
    for option, value in values.items():
        job = _set(job, _FIELDS[option].path.split("."), value)
    try:
        return parse_job(job)
    except InvalidJob as error:
        named = _FIELDS if alone else values
        options = {_FIELDS[o].path: f"--{o.replace('_', '-')}" for o in named}
        raise InvalidJob([_with_option(p, options) for p in error.problems], where=where) from error


def _set(mapping: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of `mapping` with the field at `path` set."""
    copy = dict(mapping) if isinstance(mapping, dict) else {}
    first, *rest = path
    copy[first] = _set(copy.get(first), rest, value) if rest else value
    return copy


def _with_option(problem: str, options: Mapping[str, str]) -> str:
    field, colon, sentence = problem.partition(": ")
    return f"{options[field]} ({field}): {sentence}" if field in options and colon else problem


def name_of(place: str) -> str:
    """A job's name from the last part of a path or URL: `s3://b/Flower_Photos/` is flower-photos."""
    last = Path(place.rstrip("/")).name.lower()
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in last).split()
    return "-".join(words)[:NAME_MAX].strip("-") or "job"


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
                result = process.run(
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
    out.print(Text(printable(str(result)), style="bold green"), soft_wrap=True)
    for word, what in _display.summary(result):
        out.print(Text(f"  {word:<8}{printable(what)}"), soft_wrap=True)
    next_command = shlex.join(["retrainer", "predict", near(result.url)])
    out.print(Text(f"  {'try it':<8}{next_command} IMAGE..."), soft_wrap=True)
