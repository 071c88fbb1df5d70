"""Finds the job or run that an argument names, and how its cluster and store are reached."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from retrainer.api.names import JOB_PREFIXES
from retrainer.errors import UserError

if TYPE_CHECKING:
    from retrainer.api import Storage
    from retrainer.cluster.client import Client
    from retrainer.cluster.job import Job
    from retrainer.results.run import Run
    from retrainer.store.s3 import Access

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace of the jobs; the context's if not given."),
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig; the current one if not given.")
]


def bare(name: str) -> str:
    """Take off the prefix that kubectl may write before a job's name.

    Raises:
        UserError: it is the path or URL of something, not a name.
    """
    if name.startswith(JOB_PREFIXES):
        return name.partition("/")[2]
    if "/" in name:
        raise UserError(
            f"{name} is a path or URL, not the name of a job: retrainer get lists them."
        )
    return name


def bare_all(names: list[str] | None) -> list[str]:
    """`bare` of each name."""
    return [bare(name) for name in names or ()]


Name = Annotated[str, typer.Argument(help="Name of the job.", callback=bare)]
Names = Annotated[list[str], typer.Argument(help="Names of jobs.", callback=bare_all)]
RunOrJob = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Path or URL of a run, or of an output (its newest run is used), or the name of a job.",
    ),
]
RunsOrJobs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Paths or URLs of runs or of outputs (their newest run is used), or names of jobs.",
    ),
]


def client(namespace: str | None, context: str | None) -> "Client":
    """Make the client that the common options ask for."""
    return Reach(namespace=namespace, context=context).client()


_STORE = "Store"
"""Heading of these options: beside the others their names would be cut at 80 columns."""


@dataclass(frozen=True)
class Reach:
    """The options of every command that takes a run or a job: how stores and clusters are reached."""

    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            "--s3-endpoint",
            help="URL of the S3 server as this machine reaches it; RETRAINER_S3_ENDPOINT, the job's, "
            "AWS_ENDPOINT_URL, else AWS.",
            rich_help_panel=_STORE,
        ),
    ] = None
    region: Annotated[
        str | None, typer.Option(help="Region of the bucket.", rich_help_panel=_STORE)
    ] = None
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Do not verify the S3 server's TLS certificate.",
            rich_help_panel=_STORE,
        ),
    ] = False
    namespace: Namespace = None
    context: Context = None

    def client(self) -> "Client":
        """Make the client for the cluster."""
        from retrainer.cluster.client import Client

        return Client(self.namespace, self.context, s3_endpoint=self.endpoint)

    def storage(self, of_job: Mapping[str, Any] | None = None) -> "tuple[Storage, Access]":
        """Say how a URL is reached: as the options say, else as the job's own `storage` does.

        Raises:
            UserError: the endpoint or region is malformed.
        """
        from pydantic import ValidationError

        from retrainer.api import Storage
        from retrainer.api.parsing import problems
        from retrainer.store.s3 import Access

        given = {"endpoint": self.endpoint, "region": self.region, "insecure": self.insecure}
        options = {name: value for name, value in given.items() if value}
        try:
            return Storage.model_validate({**(of_job or {}), **options}), Access(self.endpoint)
        except ValidationError as error:
            raise UserError("\n".join(f"--{p}" for p in problems(error, Storage))) from error

    def find(self, word: str) -> "Job | Run":
        """Open the job or the run that an argument names. See `naming.named`."""
        from retrainer.results.naming import named

        return named(word, job=lambda name: self.client().get(name), run=self.run_at)

    def run(self, word: str) -> "Run":
        """Open the run that an argument names, or the run of the job that it names."""
        from retrainer.results.run import Run

        run_or_job = self.find(word)
        if isinstance(run_or_job, Run):
            return run_or_job
        storage, access = self.storage(run_or_job.to_dict()["spec"].get("storage"))
        return Run(run_or_job.run_url, name=run_or_job.name, storage=storage, access=access)

    def run_at(self, place: str) -> "Run":
        """Open the run at a path or URL, or the newest one under it. See `naming.run_at`."""
        from retrainer.results.naming import run_at

        return run_at(place, *self.storage())


def reaching(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Reach` in place of its parameter `reach`."""
    signature = inspect.signature(command)
    hints = get_type_hints(Reach, include_extras=True)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(Reach)
    ]
    own = [p for p in signature.parameters.values() if p.name != "reach"]

    @functools.wraps(command)
    def with_options(*arguments: Any, **values: Any) -> None:
        reach = Reach(**{field.name: values.pop(field.name) for field in fields(Reach)})
        command(*arguments, reach=reach, **values)

    del with_options.__wrapped__  # typer would read the signature from there
    with_options.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
    return with_options
