"""`retrainer check` and `retrainer plan`: look at images, or at a job, before anything is computed."""

import contextlib
import sys
import time
from typing import Annotated

import typer

from retrainer import jobfile
from retrainer.api import RetrainJob, Solver
from retrainer.api.preview import Inspection, Plan
from retrainer.cli.output import (
    Format,
    FormatOption,
    echo,
    print_document,
    print_facts,
    print_table,
)
from retrainer.cli.run import images_of, job_with, option
from retrainer.errors import UserError
from retrainer.views.text import duration, one_line

LABELS = 10
"""Labels that a plan names."""
NAMED = 5
"""Rejected images, and groups of copies, that are printed; `-o json` has more."""

Folder = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER", help="Path or URL of your photos: a folder per label.", show_default=False
    ),
]
Images = Annotated[str | None, typer.Option("--images", metavar="PATH", help="The same as FOLDER.")]
Manifest = Annotated[str | None, option("manifest")]
File = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Job file; - is standard input."),
]
Endpoint = Annotated[str | None, option("endpoint")]


def check(
    folder: Folder = None,
    *,
    images: Images = None,
    manifest: Manifest = None,
    file: File = None,
    decode: Annotated[
        bool,
        typer.Option(
            "--decode", help="Decode every image: finds damage inside, but takes far longer."
        ),
    ] = False,
    endpoint: Endpoint = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Look at a folder of photos before training: labels, split, bad files, copies.

    Nothing is written. Exits with 64 if a run would be refused.

    [dim]retrainer check flower_photos[/]

    [dim]retrainer check -f job.yaml --decode[/]
    """
    from retrainer.local.preview import check as look

    where, document = jobfile.only_document(file) if file else ("", None)
    given = {
        "images": images_of(folder, images, file, command="check"),
        "manifest": manifest,
        "endpoint": endpoint,
    }
    job = job_with(document, given, where=where)
    with _waiting("Looking at the images"):
        inspection = look(job, decode=decode, s3_endpoint=endpoint)
    if output_format != Format.TABLE:
        print_document(inspection.model_dump(mode="json", by_alias=True), output_format)
    else:
        _print_inspection(job.spec.images, inspection)
    if inspection.problem:
        raise UserError(inspection.problem)


def _waiting(text: str) -> "contextlib.AbstractContextManager[object]":
    """Show that something is going on, where stderr is a terminal."""
    if not sys.stderr.isatty():
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(f"{text} ...")


def _print_inspection(images: str, inspection: Inspection) -> None:
    from rich.filesize import decimal

    echo(
        f"{one_line(images)}: {inspection.images:,} images of {len(inspection.labels)} labels, "
        f"{decimal(inspection.size)}."
    )
    any_rejected = any(label.rejected for label in inspection.labels)
    columns = ["LABEL", "IMAGES", "TRAINING", "VALIDATION", "TEST"]
    print_table(
        [*columns, *(["UNREADABLE"] if any_rejected else [])],
        [
            (each.label, f"{each.images:,}", f"{each.training:,}", f"{each.validation:,}",
             f"{each.test:,}", *([f"{each.rejected:,}"] if any_rejected else []))
            for each in inspection.labels
        ],
        right="IMAGES TRAINING VALIDATION TEST UNREADABLE",
    )  # fmt: skip
    if inspection.median and inspection.smallest and inspection.largest:
        formats = ", ".join(f"{name} {count:,}" for name, count in inspection.formats.items())
        small, middle, large = (
            f"{width} x {height}"
            for width, height in (inspection.smallest, inspection.median, inspection.largest)
        )
        echo(f"Formats: {formats}.")
        echo(
            f"Pixels: all {middle}."
            if small == large
            else f"Pixels: {middle} in the middle, from {small} to {large}."
        )
    if inspection.rejected:
        listed = [f"{each.path} ({each.reason})" for each in inspection.rejections[:NAMED]]
        echo(
            f"Unreadable: {inspection.rejected:,}, {'; '.join(listed)}{_more(inspection.rejected)}."
        )
    elif inspection.decoded:
        echo("Every image can be read.")
    else:
        echo("Every header can be read; --decode looks further.")
    for warning in inspection.warnings:
        echo(f"Warning: {one_line(warning)}")
    if not inspection.problem:
        echo("A run can train on these images.")


def _more(count: int) -> str:
    return f"; and {count - NAMED:,} more" if count > NAMED else ""


def plan(
    folder: Folder = None,
    *,
    images: Images = None,
    manifest: Manifest = None,
    file: File = None,
    architecture: Annotated[str | None, option("architecture")] = None,
    weights: Annotated[str | None, option("weights")] = None,
    cache: Annotated[str | None, option("cache")] = None,
    solver: Annotated[Solver | None, option("solver")] = None,
    steps: Annotated[int | None, option("steps")] = None,
    sweep: Annotated[list[str] | None, option("sweep")] = None,
    endpoint: Endpoint = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Say what a run would compute, read, take and write; nothing is computed.

    Time and memory are expected from the last run with the same network and cache.

    [dim]retrainer plan -f job.yaml[/]

    [dim]retrainer plan flower_photos --architecture inception_v3[/]
    """
    from retrainer.local.preview import plan as look

    # What this command line took to start is what `retrainer run` takes as well.
    started = time.process_time()
    where, document = jobfile.only_document(file) if file else ("", None)
    given = {
        "images": images_of(folder, images, file, command="plan"),
        "manifest": manifest,
        "architecture": architecture,
        "weights": weights,
        "cache": cache,
        "solver": solver,
        "steps": steps,
        "sweep": sweep,
        "endpoint": endpoint,
    }
    job = job_with(document, given, where=where)
    with _waiting("Looking at the job"):
        answer = look(job, s3_endpoint=endpoint)
    if answer.seconds is not None:
        answer = answer.model_copy(update={"seconds": answer.seconds + started})
    if output_format != Format.TABLE:
        print_document(answer.model_dump(mode="json", by_alias=True), output_format)
    else:
        _print_plan(job, answer)


def _print_plan(job: RetrainJob, plan: Plan) -> None:
    from rich.filesize import decimal

    labels = ", ".join(f"{one_line(each.label)} {each.images:,}" for each in plan.labels[:LABELS])
    more = len(plan.labels) - LABELS
    time_, memory = "unknown: no run with this cache and network yet", ""
    if plan.seconds is not None and plan.memory is not None:
        where = "here" if plan.here else f"on another machine ({plan.measured_on})"
        time_ = f"about {duration(plan.seconds)}, by the last run {where}"
        memory = f"about {decimal(plan.memory)}"
    facts = [
        ("Job", job.name),
        ("Network", plan.backbone),
        ("Images", f"{plan.images:,}, {decimal(plan.size)}"),
        ("Labels", labels + (f" and {more:,} more" if more > 0 else "")),
        ("In the cache", f"{plan.cached:,} of {plan.images:,} images"),
        ("To compute", f"{plan.missing:,} images, {decimal(plan.bytes_to_read)} to read"),
        ("Time", time_),
        ("Memory", memory),
        ("Run", plan.run),
        ("Files", ", ".join(plan.files)),
        ("Cache", f"{plan.cache}, {decimal(plan.bytes_to_cache)} more"),
    ]
    print_facts([(title, value) for title, value in facts if value])
    for warning in plan.warnings:
        echo(f"Warning: {one_line(warning)}")
