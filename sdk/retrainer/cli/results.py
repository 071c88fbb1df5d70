"""Commands on what jobs have found: metrics, plot, compare, frontier, download."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer.api import RetrainJob
from retrainer.api.interval import percent_range
from retrainer.cli import run
from retrainer.cli.output import (
    Context,
    Name,
    Names,
    Namespace,
    S3Endpoint,
    Shape,
    Shaped,
    Timeout,
    client,
    print_document,
    print_table,
    say,
)
from retrainer.errors import UserError

if TYPE_CHECKING:
    from retrainer.results.comparison import Comparison
    from retrainer.results.history import History

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
    for command in (metrics, plot, compare, frontier, download):
        app.command(rich_help_panel=RESULTS)(command)


def metrics(
    name: Name, *, form: Shaped = Shape.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """Accuracies and cross entropies of a job: the latest, at the end the final ones."""
    found = client(namespace, context).get(name).metrics()
    figures = found.model_dump(by_alias=True)
    if form != Shape.TABLE:
        print_document(figures, form)
        return
    rows = [(k, "" if v is None else f"{v:,}") for k, v in figures.items()]
    print_table(("METRIC", "VALUE"), rows, right="VALUE")


def plot(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Write the picture there (.png, .svg, .pdf); in the terminal if not given."
        ),
    ] = None,
    *,
    whole: Annotated[
        bool, typer.Option("--whole", help="Every evaluation, from the run's folder.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    s3_endpoint: S3Endpoint = None,
) -> None:
    """Draw a job's learning curve.

    [dim]retrainer plot flowers[/]

    [dim]retrainer plot flowers curve.png --whole[/]
    """
    history = client(namespace, context, s3_endpoint).get(name).history(whole)
    if file:
        _written(history.plot, file)
        return
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


def compare(
    names: Names,
    *,
    form: Shaped = Shape.TABLE,
    picture: Picture = None,
    page: Page = None,
    namespace: Namespace = None,
    context: Context = None,
    s3_endpoint: S3Endpoint = None,
) -> None:
    """Jobs side by side, and whether they really differ (McNemar's exact test).

    A name with / or :// in it is the path or URL of a run's folder; with such only, no cluster is
    needed.

    [dim]retrainer compare flowers flowers-fast --plot both.png[/]
    """
    from retrainer.results.comparison import compare as compared
    from retrainer.results.run import Run
    from retrainer.store.s3 import Access

    if all("/" in name for name in names):
        found = compared([Run(name, access=Access(s3_endpoint)) for name in names])
    else:
        found = client(namespace, context, s3_endpoint).compare(names)
    _show(found, form, picture, page, "Comparison")


def frontier(
    file: Annotated[str, typer.Option("--file", "-f", help="Job file; - is standard input.")],
    architectures: Annotated[
        str, typer.Option(help="Names or patterns, with commas: 'mobilenet_*'.")
    ] = "mobilenet_*",
    *,
    local: Annotated[
        bool, typer.Option("--local", help="Run them here, one after another; no cluster.")
    ] = False,
    timeout: Timeout = None,
    form: Shaped = Shape.TABLE,
    picture: Picture = None,
    page: Page = None,
    namespace: Namespace = None,
    context: Context = None,
    s3_endpoint: S3Endpoint = None,
) -> None:
    """One job per architecture over the same images: what accuracy costs.

    Draws test accuracy with its interval against multiply-adds, one bubble per job.

    [dim]retrainer frontier -f job.yaml --architectures 'mobilenet_*_160' --plot frontier.png[/]
    """
    from retrainer.sweep import frontier as run_all

    cluster = None if local else client(namespace, context, s3_endpoint)
    with run.terminated_as_ctrl_c():
        found = run_all(_job(file), architectures, cluster, timeout=timeout, told=say)
    _show(found, form, picture, page, "Accuracy and cost")


def _job(file: str) -> RetrainJob:
    from retrainer import jobfile

    return jobfile.load(file)


def _show(
    found: "Comparison", form: Shape, picture: Path | None, page: Path | None, title: str
) -> None:
    if form != Shape.TABLE:
        print_document(found.to_dict(), form)
    else:
        print_table(
            ("NAME", "ARCHITECTURE", "ACCURACY", "95% INTERVAL", "IMAGES", "MULTIPLY-ADDS",
             "PARAMETERS", "IMAGES/S"),
            _rows(found),
            right="ACCURACY IMAGES MULTIPLY-ADDS PARAMETERS IMAGES/S",
        )  # fmt: skip
        for sentence in [*map(str, found.differences), *found.notes]:
            typer.echo(sentence)
    if picture:
        _written(found.plot, picture)
    if page:
        from retrainer.views import html

        text = html.page(title, found.to_html())
        _written(lambda path: Path(path).write_text(text, encoding="utf-8"), page)


def _written(write: Callable[[str], object], file: Path) -> None:
    """Call `write` with the path; a folder that is not there or an unknown ending is told."""
    try:
        write(str(file))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error
    except ValueError as error:  # matplotlib's, which lists the endings it knows
        raise UserError(f"cannot write {file}: {error}") from error
    say(f"wrote {file}")


def _rows(found: "Comparison") -> Sequence[Sequence[str]]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        (
            row.name,
            row.architecture,
            number(row.accuracy, ".1%"),
            "" if row.low is None or row.high is None else percent_range(row.low, row.high),
            f"{row.images:,}",
            number(row.multiply_adds and row.multiply_adds / 1e6, ",.1f") + " M",
            number(row.parameters and row.parameters / 1e6, ",.2f") + " M",
            number(row.images_per_second, ",.0f"),
        )
        for row in found.rows
    ]


def download(
    name: Name,
    path: Annotated[Path, typer.Argument(help="Folder to put the run's folder in.")] = Path(),
    *,
    namespace: Namespace = None,
    context: Context = None,
    s3_endpoint: S3Endpoint = None,
) -> None:
    """Download everything a job has written: networks, labels, figures, page.

    [dim]retrainer download flowers networks/[/]
    """
    typer.echo(client(namespace, context, s3_endpoint).get(name).download(path))
