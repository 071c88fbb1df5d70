"""`retrainer check`: looks at images, or at a job, before anything is computed."""

import contextlib
import sys
from typing import Annotated

import typer

from retrainer import jobfile
from retrainer.api.preview import Inspection
from retrainer.cli.output import Format, FormatOption, echo, print_document, print_table
from retrainer.cli.run import images_of, job_with
from retrainer.errors import UserError
from retrainer.views.text import one_line

NAMED = 5
"""Rejected images, and groups of copies, that are printed; `-o json` has more."""

Folder = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER", help="Path or URL of your photos: a folder per label.", show_default=False
    ),
]
Images = Annotated[str | None, typer.Option("--images", metavar="PATH", help="The same as FOLDER.")]
File = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Job file; - is standard input."),
]
Endpoint = Annotated[str | None, typer.Option(metavar="URL", help="URL of the S3 server.")]


def check(
    folder: Folder = None,
    *,
    images: Images = None,
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
    given = {"images": images_of(folder, images, file, command="check"), "endpoint": endpoint}
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

    found = inspection
    echo(
        f"{one_line(images)}: {found.images:,} images of {len(found.labels)} labels, "
        f"{decimal(found.size)}."
    )
    any_rejected = any(label.rejected for label in found.labels)
    columns = ["LABEL", "IMAGES", "TRAINING", "VALIDATION", "TEST"]
    print_table(
        [*columns, *(["UNREADABLE"] if any_rejected else [])],
        [
            (each.label, f"{each.images:,}", f"{each.training:,}", f"{each.validation:,}",
             f"{each.test:,}", *([f"{each.rejected:,}"] if any_rejected else []))
            for each in found.labels
        ],
        right="IMAGES TRAINING VALIDATION TEST UNREADABLE",
    )  # fmt: skip
    if found.median and found.smallest and found.largest:
        formats = ", ".join(f"{name} {count:,}" for name, count in found.formats.items())
        small, middle, large = (
            f"{width} x {height}" for width, height in (found.smallest, found.median, found.largest)
        )
        echo(f"Formats: {formats}.")
        echo(
            f"Pixels: all {middle}."
            if small == large
            else f"Pixels: {middle} in the middle, from {small} to {large}."
        )
    if found.rejected:
        listed = [f"{each.path} ({each.reason})" for each in found.rejections[:NAMED]]
        echo(f"Unreadable: {found.rejected:,}, {'; '.join(listed)}{_more(found.rejected)}.")
    elif found.decoded:
        echo("Every image can be read.")
    else:
        echo("Every header can be read; --decode looks further.")
    for warning in found.warnings:
        echo(f"Warning: {one_line(warning)}")
    if not found.problem:
        echo("A run can train on these images.")


def _more(count: int) -> str:
    return f"; and {count - NAMED:,} more" if count > NAMED else ""
