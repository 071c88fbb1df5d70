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
from retrainer.errors import UserError
from retrainer.views.text import Columns, facts, one_line, paragraph, printable, terminal_width

if TYPE_CHECKING:
    from retrainer.api import Storage
    from retrainer.cluster.client import Client
    from retrainer.cluster.job import Job
    from retrainer.store.s3 import Access

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace of the jobs; the context's if not given."),
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig; the current one if not given.")
]
S3Endpoint = Annotated[
    str | None,
    typer.Option(
        "--s3-endpoint",
        help="URL of the S3 server as this machine reaches it; RETRAINER_S3_ENDPOINT, else the job's.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds to wait at most; as long as it takes if not given."),
]
JOB_PREFIXES = ("rj/", "retrainjob/", "retrainjobs/", f"{KIND.lower()}.{GROUP}/")
"""What kubectl and `-o name` write before a job's name; where a path may stand too, it makes the word
a job's name."""


def bare(name: str) -> str:
    """The job's name without what kubectl may write before it."""
    return name.partition("/")[2] if name.startswith(JOB_PREFIXES) else name


def bare_all(names: list[str] | None) -> list[str]:
    """`bare` of each name."""
    return [bare(name) for name in names or ()]


Name = Annotated[str, typer.Argument(help="Name of the job.", callback=bare)]
Names = Annotated[list[str], typer.Argument(help="Names of jobs.", callback=bare_all)]
Endpoint = Annotated[
    str | None,
    typer.Option(help="URL of the S3 server; RETRAINER_S3_ENDPOINT, AWS_ENDPOINT_URL, else AWS."),
]
Region = Annotated[str | None, typer.Option(help="Region of the bucket.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Do not verify the server's TLS certificate.")
]


class Form(StrEnum):
    """How jobs are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Shape(StrEnum):
    """How anything else is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


_FORM = typer.Option("--output", "-o", help="Form of what is printed.")
Printed = Annotated[Form, _FORM]
Shaped = Annotated[Shape, _FORM]


def client(namespace: str | None, context: str | None, s3_endpoint: str | None = None) -> "Client":
    """The client that the common options ask for."""
    from retrainer.cluster.client import Client

    return Client(namespace, context, s3_endpoint=s3_endpoint)


def located(
    given: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    insecure: bool = False,
    namespace: str | None = None,
    context: str | None = None,
) -> "tuple[str, Storage, Access]":
    """Where an argument points, and how its store is reached.

    Args:
        given: a path, a URL, or `rj/NAME`, the run of a job of the cluster.
        endpoint, region, insecure: options; they go before what the job says.
        namespace, context: of the cluster, for `rj/NAME`.

    Raises:
        UserError: the endpoint or region is malformed.
        NotFound: there is no such job.
    """
    from pydantic import ValidationError

    from retrainer.api import Storage
    from retrainer.api.parsing import problems
    from retrainer.store.s3 import Access

    options = {"endpoint": endpoint, "region": region, "insecure": insecure or None}
    fields: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if given.startswith(JOB_PREFIXES):
        job = client(namespace, context).get(bare(given))
        given, fields = job.run_url, (job.to_dict()["spec"].get("storage") or {}) | fields
    try:
        storage = Storage.model_validate(fields)
    except ValidationError as error:
        raise UserError("\n".join(f"--{text}" for text in problems(error, Storage))) from error
    return given, storage, Access(endpoint)


COLUMNS = ("NAME", "PHASE", "PROGRESS", "ACCURACY", "CACHED", "AGE")
WIDE = ("ARCHITECTURE", "OUTPUT", "MESSAGE")


def columns(*, wide: bool, namespaces: bool) -> list[str]:
    """Headings of a list of jobs, those of `kubectl get retrainjobs`."""
    return [*(("NAMESPACE",) if namespaces else ()), *COLUMNS, *(WIDE if wide else ())]


def cells(job: "Job", *, wide: bool, namespaces: bool) -> list[str]:
    """The row of one job."""
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
    more = [job.architecture, str(spec.get("output", "")), job.message]
    return [*((job.namespace,) if namespaces else ()), *row, *(more if wide else ())]


def print_jobs(
    jobs: Sequence["Job"], form: Form, *, one: bool = False, namespaces: bool = False
) -> None:
    """Print jobs in a form.

    Args:
        one: a single object was asked for by its name, so JSON and YAML are no list.
        namespaces: show whose they are.
    """
    if form == Form.NAME:
        for job in jobs:
            typer.echo(f"{KIND.lower()}.{GROUP}/{job.name}")
    elif form in {Form.JSON, Form.YAML}:
        documents = [shown(job) for job in jobs]
        print_document(
            documents[0] if one else {"apiVersion": "v1", "kind": "List", "items": documents}, form
        )
    else:
        wide = form == Form.WIDE
        head = columns(wide=wide, namespaces=namespaces)
        rows = [cells(job, wide=wide, namespaces=namespaces) for job in jobs]
        print_table(head, rows)


def shown(job: "Job") -> dict[str, Any]:
    """The object without `managedFields`, as kubectl shows it."""
    document = job.to_dict()
    metadata = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    return {**document, "metadata": metadata}


def print_document(document: Any, form: Form | Shape) -> None:
    """Print JSON-ready values as JSON or YAML."""
    if form == "json":
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
    """A value on one line, in the characters that the terminal has."""
    return "" if value is None else printable(one_line(str(value)), sys.stdout.encoding)


def print_facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print pairs of a title and a value, as `kubectl describe` does."""
    for line in facts([(t, cell(value)) for t, value in pairs], terminal_width(sys.stdout)):
        typer.echo(line)


def echo(text: str) -> None:
    """Print sentences to stdout, wrapped between words where it is a terminal."""
    typer.echo(paragraph(text, terminal_width(sys.stdout)))


def say(text: str) -> None:
    """Print sentences to stderr: what is told beside the output proper."""
    typer.echo(paragraph(text, terminal_width(sys.stderr)), err=True)
