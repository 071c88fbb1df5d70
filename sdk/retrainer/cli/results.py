"""Commands on what runs and jobs gave: metrics, plot, compare, frontier, download, verify."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer import jobfile
from retrainer.api.interval import percent, percent_range
from retrainer.api.status import FOR_KUBECTL
from retrainer.cli.findings import findings
from retrainer.cli.output import (
    Format,
    FormatOption,
    Timeout,
    echo,
    figure,
    print_document,
    print_table,
    say,
)
from retrainer.cli.reach import Reach, RunOrJob, RunsOrJobs, reaching
from retrainer.cli.run import job_with, terminated_as_ctrl_c
from retrainer.cli.verify import verify
from retrainer.errors import UserError
from retrainer.results.run import Run

if TYPE_CHECKING:
    from retrainer.results.comparison import Comparison
    from retrainer.results.history import History
    from retrainer.results.rows import Row

RESULTS = "Results"
"""Heading of these commands in `retrainer --help`."""

Picture = Annotated[
    Path | None, typer.Option("--plot", help="Write the picture there (.png, .svg, .pdf).")
]
Page = Annotated[
    Path | None, typer.Option("--html", help="Write a page with picture and table there.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    for command in (metrics, plot, compare, findings, frontier, download, verify):
        app.command(rich_help_panel=RESULTS)(command)


@reaching
def metrics(run: RunOrJob, *, output_format: FormatOption = Format.TABLE, reach: Reach) -> None:
    """Accuracies and cross entropies of a run or a job: the latest, at the end the final ones.

    [dim]retrainer metrics out[/]
    """
    run_or_job = reach.find(run)
    figures = run_or_job.report.metrics if isinstance(run_or_job, Run) else run_or_job.metrics()
    if output_format != Format.TABLE:
        document = figures.model_dump(by_alias=True, exclude=set(FOR_KUBECTL))
        print_document(document, output_format)
        return
    named = figures.model_dump(exclude=set(FOR_KUBECTL)).items()
    rows = [(name.replace("_", " "), figure(name, value)) for name, value in named]
    print_table(("METRIC", "VALUE"), rows, right="VALUE")


@reaching
def plot(
    run: RunOrJob,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Write the picture there (.png, .svg, .pdf); in the terminal if not given."
        ),
    ] = None,
    *,
    whole: Annotated[
        bool, typer.Option("--whole", help="Every evaluation of a job, from its run's folder.")
    ] = False,
    reach: Reach,
) -> None:
    """Draw the learning curve of a run or a job.

    [dim]retrainer plot out[/]

    [dim]retrainer plot rj/flowers curve.png --whole[/]
    """
    run_or_job = reach.find(run)
    history = run_or_job.history() if isinstance(run_or_job, Run) else run_or_job.history(whole)
    if file:
        _write(history.plot, file)
    else:
        typer.echo(_drawn(history))


def _drawn(history: "History") -> str:
    from retrainer.views.chart import chart

    return chart(
        history.column("step"),
        [
            (".", "training accuracy", history.column("training_accuracy")),
            ("o", "validation accuracy", history.column("validation_accuracy")),
        ],
    )


@reaching
def compare(
    runs: RunsOrJobs,
    *,
    output_format: FormatOption = Format.TABLE,
    picture: Picture = None,
    page: Page = None,
    reach: Reach,
) -> None:
    """Runs and jobs side by side, and whether they really differ (McNemar's exact test).

    [dim]retrainer compare out/flowers-*[/]

    [dim]retrainer compare flowers rj/flowers-fast --plot both.png[/]
    """
    from retrainer.results.comparison import compare as compare_runs

    comparison = compare_runs([reach.find(run) for run in runs])
    _show(comparison, output_format, picture, page, "Comparison")


@reaching
def frontier(
    file: Annotated[str, typer.Option("--file", "-f", help="Job file; - is standard input.")],
    architectures: Annotated[
        str | None,
        typer.Option(
            help="Names or patterns, with commas; 'mobilenet_*' if neither these nor backbones are "
            "given."
        ),
    ] = None,
    *,
    backbones: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            metavar="FOLDER_OR_FILE",
            help="A network of your own, with fields of spec.backbone behind commas, such as "
            "vit_s,token=cls; may be given several times.",
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run them here, one after another; no cluster.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Instead of the job's: a folder of Keras weights files."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUES",
            help="Values of which each network takes its best, such as learningRate=0.01,0.1.",
        ),
    ] = None,
    timeout: Timeout = None,
    output_format: FormatOption = Format.TABLE,
    picture: Picture = None,
    page: Page = None,
    reach: Reach,
) -> None:
    """One job per network over the same images: what accuracy costs.

    Draws test accuracy with its interval against multiply-adds, one bubble per job.

    [dim]retrainer frontier -f job.yaml --architectures 'mobilenet_*_160' --plot frontier.png[/]
    """
    from retrainer.sweep import frontier as run_all

    where, document = jobfile.only_document(file)
    job = job_with(document, {"weights": weights, "sweep": sweep}, where=where, here=local)
    if architectures is None:
        architectures = "" if backbones else "mobilenet_*"
    cluster = None if local else reach.client()
    with terminated_as_ctrl_c():
        comparison = run_all(
            job, architectures or (), cluster, backbones=backbones or (), timeout=timeout, log=say
        )
    _show(comparison, output_format, picture, page, "Accuracy and cost")


def _show(
    comparison: "Comparison",
    output_format: Format,
    picture: Path | None,
    page: Path | None,
    title: str,
) -> None:
    if output_format != Format.TABLE:
        print_document(comparison.to_dict(), output_format)
    else:
        _print_rows(comparison.rows)
        for sentence in [*map(str, comparison.differences), *comparison.notes]:
            echo(sentence)
    if picture:
        _write(comparison.plot, picture)
    if page:
        from retrainer.views import html

        text = html.page(title, comparison.to_html())
        _write(lambda path: Path(path).write_text(text, encoding="utf-8"), page)


_HEAD = ("NAME", "ARCHITECTURE", "ACCURACY", "95% INTERVAL", "IMAGES", "MULTIPLY-ADDS", "PARAMETERS",
         "DIFFERS")  # fmt: skip
_ONCE = {"ARCHITECTURE": "", "IMAGES": " test images", "MULTIPLY-ADDS": " multiply-adds",
         "PARAMETERS": " parameters"}  # fmt: skip
"""Columns that, where all rows have the same, are written once under the table, with these words."""


def _print_rows(rows: "Sequence[Row]") -> None:
    """Print a table of the runs; what is the same for all of them is written under it."""
    columns = dict(zip(_HEAD, zip(*map(_cells, rows), strict=True), strict=True))
    if not any(columns["DIFFERS"]):
        del columns["DIFFERS"]
    same = [title for title in _ONCE if len(rows) > 1 and len(set(columns[title])) == 1]
    shared = [columns[title][0] + _ONCE[title] for title in same if columns[title][0]]
    shown = [title for title in columns if title not in same]
    print_table(
        shown,
        zip(*(columns[title] for title in shown), strict=True),
        right="ACCURACY IMAGES MULTIPLY-ADDS PARAMETERS",
    )
    if shared:
        echo(f"All: {', '.join(shared)}.")


def _cells(row: "Row") -> tuple[str, ...]:
    interval = "" if row.low is None or row.high is None else percent_range(row.low, row.high)
    return (
        row.name,
        row.architecture,
        "" if row.accuracy is None else percent(row.accuracy),
        interval,
        f"{row.images:,}",
        "" if row.multiply_adds is None else f"{row.multiply_adds / 1e6:,.1f} M",
        "" if row.parameters is None else f"{row.parameters / 1e6:,.2f} M",
        row.differs,
    )


def _write(write: Callable[[str], object], file: Path) -> None:
    """Call `write` with the path; refuse a folder that does not exist and an unknown ending."""
    try:
        write(str(file))
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error.strerror}.") from error
    except ValueError as error:  # matplotlib's, which lists the endings it knows
        raise UserError(f"Cannot write {file}: give it the ending .png, .svg or .pdf.") from error
    say(f"Wrote {file}.")


@reaching
def download(
    run: RunOrJob,
    path: Annotated[Path, typer.Argument(help="Folder to put the run's folder in.")] = Path(),
    *,
    reach: Reach,
) -> None:
    """Download everything a run or a job has written: networks, labels, figures, page.

    [dim]retrainer download rj/flowers networks/[/]
    """
    typer.echo(reach.run(run).download(path))
