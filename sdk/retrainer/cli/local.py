"""Commands that need no cluster: init, validate, run, predict, tensorboard, architectures."""

import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from retrainer import jobfile
from retrainer.api import ARCHITECTURES, Storage, parse_job
from retrainer.api.layout import SUMMARIES
from retrainer.api.names import JOB_PREFIXES
from retrainer.cli import preview
from retrainer.cli import run as _cli_run
from retrainer.cli.output import Format, FormatOption, echo, print_document, print_table, say
from retrainer.cli.reach import Reach, RunOrJob, reaching
from retrainer.errors import InvalidJob, NotFound, UserError
from retrainer.extras import require_trainer
from retrainer.local import places
from retrainer.views.text import near, one_line

HERE = "On this machine"
"""Heading of these commands in `retrainer --help`."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    for command in (
        init,
        validate,
        preview.check,
        preview.plan,
        _cli_run.run,
        predict,
        tensorboard,
        architectures,
    ):
        app.command(rich_help_panel=HERE)(command)


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("job.yaml"),
    *,
    name: Annotated[
        str, typer.Option(help="Name of the job; made from that of the images if not given.")
    ] = "",
    images: Annotated[
        str | None,
        typer.Option(
            help="Path or URL of the images; the folder of photos found here if not given."
        ),
    ] = None,
    output: Annotated[
        str, typer.Option(help="Path or URL of the result.")
    ] = jobfile.DEFAULT_OUTPUT,
    architecture: Annotated[
        str,
        typer.Option(help="Network to retrain.", autocompletion=_cli_run.architecture_names),
    ] = jobfile.DEFAULT_ARCHITECTURE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Write a commented job.yaml to start from, for the photos that are here.

    A folder with a folder of pictures per label is found, and its labels are counted.

    [dim]retrainer init[/]

    [dim]retrainer init birds.yaml --images ~/birds --output ~/networks[/]
    """
    photos = places.find_photos(Path.cwd()) if images is None else None
    images = images or (photos.name if photos else "flower_photos")
    text = jobfile.template(
        file=shlex.quote(str(file)),
        name=name or _cli_run.name_of(images),
        architecture=architecture,
        images=images,
        output=output,
    )
    parse_job(jobfile.documents(text, str(file))[0][1])
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UserError(f"{file} already exists; --force overwrites it.") from None
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error.strerror}.") from error
    echo(_labels_found(images))
    echo(f"Wrote {file}. Edit it, then: retrainer run -f {shlex.quote(str(file))}")


def _labels_found(images: str) -> str:
    """Write a sentence on the label folders of the images and how many pictures each has."""
    folder = places.local_path(images)
    if folder is None:
        return f"Images: {images}."
    if not folder.is_dir():
        return f"There is no folder {images} yet: put one folder of pictures per label there."
    counts = places.label_counts(folder)
    if not counts:
        return f"{images} has no folders of pictures yet: put one per label there."
    labels = ", ".join(f"{one_line(label)} {count:,}" for label, count in counts.items())
    pictures = sum(counts.values())
    return f"Images: {images}, {len(counts)} labels, {pictures:,} pictures ({labels})."


def validate(
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="Job file; - is standard input.")
    ],
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also refuse what runs on this machine only.")
    ] = False,
) -> None:
    """Check a job file, and that its folders are there, without running it.

    Exits with 64 if a field is wrong, naming each by its path in the file.

    [dim]retrainer validate -f job.yaml[/]
    """
    jobs = jobfile.load_all(file)
    refusals = [(job.name, jobfile.only_here(job)) for job in jobs]
    wrong = refusals if cluster else [(job.name, places.problems(job)) for job in jobs]
    if any(problems for _, problems in wrong):
        raise InvalidJob([f"{name}: {p}" for name, problems in wrong for p in problems], where=file)
    for name, refused in refusals:
        typer.echo(f"{name} is valid" + (", for this machine only:" if refused else ""))
        for problem in refused:
            typer.echo(f"  {problem}")


@reaching
def predict(
    run: RunOrJob,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    *,
    output_format: FormatOption = Format.TABLE,
    reach: Reach,
) -> None:
    """Label images with a finished run, and say which run that was.

    [dim]retrainer predict out rose.jpg[/]

    [dim]retrainer predict s3://models/flowers photos/ -o json[/]

    [dim]retrainer predict rj/flowers rose.jpg[/]
    """
    from retrainer.inference.classifier import Classifier, files

    chosen = reach.run(run)
    classifier = Classifier.open(chosen.url, *chosen.reached_by)
    say(f"Labelled by {near(classifier.run)}.")
    done, failed = [], []
    for image in files(images):
        try:
            done.append(classifier.one(image))
        except UserError as error:
            failed.append(str(error))
    if output_format != Format.TABLE:
        rows = [
            {"image": p.image, "label": p.label, "score": round(p.score, 4),
             "scores": {label: round(s, 4) for label, s in p.scores.items()}}
            for p in done
        ]  # fmt: skip
        print_document(rows, output_format)
    elif done:
        cells = []
        for p in done:
            others = list(p.scores.items())[1:3]
            rest = ", ".join(f"{label} {score:.2f}" for label, score in others)
            cells.append((p.image, p.label, f"{p.score:.2f}", rest))
        print_table(("IMAGE", "LABEL", "SCORE", "THEN"), cells, right="SCORE")
    if failed:
        raise UserError("\n".join(failed))


@reaching
def tensorboard(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Path or URL of a run, or of an output to compare its runs, or rj/NAME of a job.",
        ),
    ],
    *,
    port: Annotated[int, typer.Option(help="Port to serve it on.")] = 6006,
    reach: Reach,
) -> None:
    """Look at learning curves in TensorBoard; Ctrl-C ends it.

    [dim]retrainer tensorboard out[/]

    [dim]retrainer tensorboard s3://models/flowers/flowers-1a2b3c4d[/]
    """
    require_trainer(what="tensorboard")
    from retrainer.store.folder import Folder
    from retrainer.store.s3 import Access

    reached_by: tuple[Storage | None, Access | None] = reach.storage()
    if run.startswith(JOB_PREFIXES):
        job_run = reach.run(run)
        run, reached_by = job_run.url, job_run.reached_by
    folder = Folder(run, *reached_by)
    with ExitStack() as stack:
        stack.enter_context(_cli_run.terminated_as_ctrl_c())
        wanted = [e for e in folder.entries() if f"/{SUMMARIES}/" in f"/{e.path}"]
        if not wanted:
            raise NotFound(f"There are no summaries in {run}: is it a run, or an output with runs?")
        # TensorBoard leaves files among the temporary ones as well.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="retrainer-"))
        place = str(Path(run).expanduser())
        if "://" in run:
            place = f"{scratch}/runs"
            size = folder.download(Path(place), wanted)
            typer.echo(f"Fetched {len(wanted)} files, {size / 1e6:.1f} MB, from {run}.")
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", place, "--port", str(port)]
        typer.echo(f"http://localhost:{port}/  (Ctrl-C ends it)")
        environment = {**os.environ, "TMPDIR": scratch}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as board:
            try:
                code = board.wait()
            except KeyboardInterrupt:
                board.terminate()
                return
    if code:
        raise UserError(
            f"TensorBoard ended with {code}; is port {port} taken? Try --port {port + 1}."
        )


def architectures(output_format: FormatOption = Format.TABLE) -> None:
    """List the networks that can be retrained, and what an image costs in each.

    [dim]retrainer architectures[/]
    """

    if output_format != Format.TABLE:
        rows = [
            {"name": a.name, "size": a.size, "bottleneck": a.bottleneck,
             "multiplyAdds": a.multiply_adds, "parameters": a.parameters}
            for a in ARCHITECTURES.values()
        ]  # fmt: skip
        print_document(rows, output_format)
        return
    columns = ("NAME", "INPUT", "BOTTLENECK", "MULTIPLY-ADDS", "PARAMETERS")
    cells = [
        (a.name, f"{a.size} px", f"{a.bottleneck:,}", f"{a.multiply_adds / 1e6:,.0f} M",
         f"{a.parameters / 1e6:.2f} M")
        for a in ARCHITECTURES.values()
    ]  # fmt: skip
    print_table(columns, cells, right="INPUT BOTTLENECK MULTIPLY-ADDS PARAMETERS")
