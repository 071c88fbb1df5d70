"""What the cluster's commands share: their common options, and the forms they print in."""

import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrainer.api.interval import percent
from retrainer.api.names import GROUP, KIND
from retrainer.views.text import Columns, facts, one_line, paragraph, printable, terminal_width

if TYPE_CHECKING:
    from retrainer.cluster.job import Job

Timeout = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="SECONDS", help="Seconds to wait at most; as long as it takes if not given."
    ),
]


class ListFormat(StrEnum):
    """The formats in which jobs are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Format(StrEnum):
    """The formats in which anything else is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


_FORMAT = typer.Option("--output", "-o", help="Format of what is printed.")
ListFormatOption = Annotated[ListFormat, _FORMAT]
FormatOption = Annotated[Format, _FORMAT]


COLUMNS = ("NAME", "PHASE", "PROGRESS", "ACCURACY", "CACHED", "AGE")
WIDE = ("ARCHITECTURE", "OUTPUT", "FINDINGS", "MESSAGE")


def columns(*, wide: bool, namespaces: bool) -> list[str]:
    """Headings of a list of jobs, those of `kubectl get retrainjobs`."""
    return [*(("NAMESPACE",) if namespaces else ()), *COLUMNS, *(WIDE if wide else ())]


def cells(job: "Job", *, wide: bool, namespaces: bool) -> list[str]:
    """Write the row of one job."""
    from retrainer.views.text import age

    progress, spec = job.status.progress, job.to_dict()["spec"]
    done = progress.percent if progress else None
    cached = progress.cached_percent if progress else None
    row = [
        job.name,
        job.phase.value,
        "" if done is None else f"{done}%",
        "" if job.test_accuracy is None else percent(job.test_accuracy),
        "" if cached is None else f"{cached}%",
        age(job.created),
    ]
    findings = job.status.findings
    count = "" if findings is None else f"{findings.total:,}"
    more = [job.network, str(spec.get("output", "")), count, job.message]
    return [*((job.namespace,) if namespaces else ()), *row, *(more if wide else ())]


def print_jobs(
    jobs: Sequence["Job"], output_format: ListFormat, *, one: bool = False, namespaces: bool = False
) -> None:
    """Print jobs in a format.

    Args:
        one: a single object was asked for by its name, so JSON and YAML are no list.
        namespaces: show whose they are.
    """
    if output_format == ListFormat.NAME:
        for job in jobs:
            typer.echo(f"{KIND.lower()}.{GROUP}/{job.name}")
    elif output_format in {ListFormat.JSON, ListFormat.YAML}:
        documents = [shown(job) for job in jobs]
        print_document(
            documents[0] if one else {"apiVersion": "v1", "kind": "List", "items": documents},
            output_format,
        )
    else:
        wide = output_format == ListFormat.WIDE
        head = columns(wide=wide, namespaces=namespaces)
        rows = [cells(job, wide=wide, namespaces=namespaces) for job in jobs]
        print_table(head, rows)


def shown(job: "Job") -> dict[str, Any]:
    """Copy the object without `managedFields`, as kubectl shows it."""
    document = job.to_dict()
    metadata = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    return {**document, "metadata": metadata}


def print_document(document: Any, output_format: ListFormat | Format) -> None:
    """Print JSON-ready values as JSON or YAML."""
    if output_format == "json":
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        import yaml

        typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = "") -> None:
    """Print a table as kubectl does; in a terminal, cells that do not fit take several lines.

    Args:
        head: titles of the columns.
        rows: a cell per column; None is shown as nothing.
        right: titles, with spaces between them, of columns that are numbers.
    """
    columns = Columns(head, right=right, width=terminal_width(sys.stdout))
    cells = [[cell(value) for value in row] for row in rows]
    columns.fit(cells)
    for line in itertools.chain(columns.head(), *map(columns.lines, cells)):
        typer.echo(line)


def cell(value: object) -> str:
    """Write a value on one line, in the characters that the terminal has."""
    return "" if value is None else printable(one_line(str(value)), sys.stdout.encoding)


def print_facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print pairs of a title and a value, as `kubectl describe` does."""
    for line in facts([(t, cell(value)) for t, value in pairs], terminal_width(sys.stdout)):
        typer.echo(line)


def figure(name: str, value: object) -> str:
    """Write a figure for people: accuracies as 89.7%, counts with commas.

    Args:
        name: of the field, such as `training_accuracy`.
        value: the figure; None is shown as nothing.
    """
    if isinstance(value, float):
        return percent(value) if name.endswith("accuracy") else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def echo(text: str) -> None:
    """Print sentences to stdout, wrapped between words where it is a terminal."""
    typer.echo(paragraph(text, terminal_width(sys.stdout)))


def say(text: str) -> None:
    """Print sentences to stderr, beside the output proper."""
    typer.echo(paragraph(text, terminal_width(sys.stderr)), err=True)
