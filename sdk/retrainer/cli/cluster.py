"""Commands on RetrainJobs of a cluster: submit, get, describe, wait, logs, suspend, resume, delete."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer.api import Phase
from retrainer.cli import cache, results
from retrainer.cli.describe import describe
from retrainer.cli.output import (
    ListFormat,
    ListFormatOption,
    Timeout,
    cell,
    cells,
    columns,
    echo,
    print_jobs,
    say,
)
from retrainer.cli.reach import (
    Context,
    Name,
    Names,
    Namespace,
    bare_all,
    client,
)
from retrainer.errors import JobFailed, NotFound, UserError
from retrainer.views.text import Columns, one_line, terminal_width

if TYPE_CHECKING:
    from retrainer.cluster.client import Client
    from retrainer.cluster.job import Job

CLUSTER = "On a cluster"
"""Heading of these commands in `retrainer --help`."""

File = Annotated[str, typer.Option("--file", "-f", help="Job file; - is standard input.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module, and those on results and the cache, to `app`."""
    for command in (submit, get, describe, wait, logs, suspend, resume, delete):
        app.command(rich_help_panel=CLUSTER)(command)
    app.command("list", hidden=True)(get)  # the word of Client.list
    results.register(app)
    cache.register(app)


def submit(
    file: File,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended.")] = False,
    timeout: Timeout = None,
    output_format: ListFormatOption = ListFormat.NAME,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Create the jobs of a file; those already there with the same spec are left alone.

    [dim]retrainer submit -f job.yaml --wait[/]
    """
    from retrainer import jobfile

    cluster = client(namespace, context)
    jobs = [cluster.submit(job, namespace=namespace) for job in jobfile.load_all(file)]
    if not wait:
        print_jobs(jobs, output_format, one=len(jobs) == 1)
        return
    _wait_for(jobs, timeout)
    for job in jobs:
        say(f"{job.name}: {one_line(job.message)}")
    if output_format != ListFormat.NAME:
        print_jobs(jobs, output_format, one=len(jobs) == 1)


def get(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of jobs; all if none.", callback=bare_all)
    ] = None,
    *,
    selector: Annotated[
        str, typer.Option("--selector", "-l", help="Label selector, such as team=birds.")
    ] = "",
    phase: Annotated[Phase | None, typer.Option(help="Only jobs in this phase.")] = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Jobs of every namespace.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Then print a line per change, until Ctrl-C.")
    ] = False,
    output_format: ListFormatOption = ListFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List jobs; `retrainer list` is the same.

    [dim]retrainer get[/]

    [dim]retrainer get flowers -o yaml[/]

    [dim]retrainer get -w -l team=birds[/]
    """
    cluster = client(namespace, context)
    if watch:
        if output_format not in {ListFormat.TABLE, ListFormat.WIDE}:
            raise UserError("--watch prints lines: give it with -o table or -o wide.")
        _print_changes(
            cluster,
            set(names or ()),
            selector,
            phase,
            wide=output_format == ListFormat.WIDE,
            everywhere=everywhere,
        )
        return
    if names:
        jobs = [cluster.get(name) for name in names]
        print_jobs(jobs, output_format, one=len(jobs) == 1)
        return
    listed = cluster.list(phase, selector, all_namespaces=everywhere)
    if not listed and output_format in {ListFormat.TABLE, ListFormat.WIDE}:
        where = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        say(f"No RetrainJobs found in {where}.")
        return
    print_jobs(listed, output_format, namespaces=everywhere)


def _print_changes(
    cluster: "Client",
    names: set[str],
    selector: str,
    phase: Phase | None,
    *,
    wide: bool,
    everywhere: bool,
) -> None:
    """Print a line per change, in columns wide enough for most names: the next one is not known yet."""
    head = columns(wide=wide, namespaces=everywhere)
    table = Columns(head, width=terminal_width(sys.stdout))
    table.fit([[_USUAL.get(title, "") for title in head]])
    for line in table.head():
        typer.echo(line)
    for change in cluster.watch(selector, all_namespaces=everywhere):
        job = change.job
        if (names and job.name not in names) or (phase and job.phase != phase):
            continue
        row = cells(job, wide=wide, namespaces=everywhere)
        if change.kind == "Deleted":
            row = [
                text if title in {"NAMESPACE", "NAME"} else ""
                for text, title in zip(row, head, strict=True)
            ]
            row[head.index("PHASE")] = "(deleted)"
        for line in table.lines([cell(text) for text in row]):
            typer.echo(line)


_USUAL = {
    "NAMESPACE": "n" * 12,
    "NAME": "n" * 24,
    "PHASE": "Bottlenecks",
    "AGE": "100m",
    "ARCHITECTURE": "mobilenet_0.50_224",
    "OUTPUT": "o" * 24,
}
"""Texts about as long as the cells of each column."""


def wait(
    names: Names, *, timeout: Timeout = None, namespace: Namespace = None, context: Context = None
) -> None:
    """Wait until jobs have ended; exit code 1 if one failed or the time ran out.

    [dim]retrainer wait flowers --timeout 600[/]
    """
    cluster = client(namespace, context)
    jobs = [cluster.get(name) for name in names]
    _wait_for(jobs, timeout)
    for job in jobs:
        echo(f"{job.name}: {one_line(job.sentence)}")


def _wait_for(jobs: "list[Job]", timeout: float | None) -> None:
    """Wait for all of them, then print which have failed."""
    import time

    deadline = None if timeout is None else time.monotonic() + timeout
    failed = []
    for job in jobs:
        left = None if deadline is None else max(0.1, deadline - time.monotonic())
        try:
            job.wait(left, progress=True)
        except JobFailed as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise JobFailed(f"{len(failed)} jobs failed:" + "".join(f"\n  {e}" for e in failed))


def logs(
    name: Name,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    prefix: Annotated[bool, typer.Option(help="Start each line with its pod's name.")] = True,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the logs of all pods of a job.

    [dim]retrainer logs flowers -f[/]
    """
    job = client(namespace, context).get(name)
    any_line = False
    for line in job.logs(follow, prefix=prefix):
        any_line = True
        typer.echo(one_line(line))
    if not any_line:
        say(f"{name} has no logs: {job.sentence}" if job.pods() else _no_pods(job))


def _no_pods(job: "Job") -> str:
    where = f"; the run is in {job.run_url}" if job.finished else ""
    return f"{job.name} has no pods ({job.phase.value}: {job.sentence}){where}"


def suspend(names: Names, *, namespace: Namespace = None, context: Context = None) -> None:
    """Stop jobs' pods; finished bottlenecks are kept."""
    cluster = client(namespace, context)
    for name in names:
        cluster.suspend(name)
        typer.echo(f"{name} suspended; retrainer resume {name} lets it go on")


def resume(names: Names, *, namespace: Namespace = None, context: Context = None) -> None:
    """Let suspended jobs go on."""
    cluster = client(namespace, context)
    for name in names:
        cluster.resume(name)
        typer.echo(f"{name} resumed")


def delete(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of jobs.", callback=bare_all)
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Instead: the jobs of this file.")
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-not-found", help="A job that is not there is no error.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Delete jobs and their pods. Their runs and the cache stay.

    [dim]retrainer delete flowers[/]
    """
    from retrainer import jobfile

    wanted = [(name, namespace) for name in names or ()]
    if file:
        # Where submit would put them.
        jobs = jobfile.load_all(file)
        wanted += [(job.name, namespace or job.metadata.namespace) for job in jobs]
    if not wanted:
        raise UserError("Name the jobs to delete, or give -f FILE.")
    cluster = client(namespace, context)
    for name, where in wanted:
        try:
            cluster.get(name, namespace=where).delete()
        except NotFound:
            if not ignore_missing:
                raise
            continue
        typer.echo(f"{name} deleted; what it wrote stays in the store")
