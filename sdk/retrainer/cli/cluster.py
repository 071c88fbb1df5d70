"""Commands on RetrainJobs of a cluster: submit, get, describe, wait, logs, suspend, resume, delete."""

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from retrainer.api import Phase, SweepStatus
from retrainer.api.findings import FindingCounts
from retrainer.api.interval import in_words
from retrainer.api.layout import REPORT_PAGE, join
from retrainer.api.reasons import ConditionType
from retrainer.api.status import FOR_KUBECTL
from retrainer.cli import cache, results
from retrainer.cli.output import (
    Format,
    FormatOption,
    ListFormat,
    ListFormatOption,
    Timeout,
    cell,
    cells,
    columns,
    echo,
    figure,
    print_document,
    print_facts,
    print_jobs,
    print_table,
    say,
    shown,
)
from retrainer.cli.reach import (
    Context,
    Name,
    Names,
    Namespace,
    Reach,
    RunOrJob,
    bare_all,
    client,
    reaching,
)
from retrainer.errors import JobFailed, NotFound, UserError
from retrainer.results.run import Run
from retrainer.views.text import Columns, age, near, one_line, terminal_width

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


@reaching
def describe(run: RunOrJob, *, output_format: FormatOption = Format.TABLE, reach: Reach) -> None:
    """Everything there is to know about a job or a run; of a job, its events and what to do next.

    [dim]retrainer describe flowers[/]

    [dim]retrainer describe out[/]
    """
    run_or_job = reach.find(run)
    if isinstance(run_or_job, Run):
        _describe_run(run_or_job, output_format)
        return
    job = run_or_job
    if output_format != Format.TABLE:
        print_document(shown(job), output_format)
        return
    print_facts(_facts(job))
    _print_conditions(job)
    typer.echo("\nEvents:")
    events = job.events()
    if not events:
        typer.echo("  none in the last hour")
        return
    rows = (
        (
            f"  {age(e.time)}",
            e.type,
            e.reason,
            e.object,
            f"{e.message} (x{e.count})" if e.count > 1 else e.message,
        )
        for e in events
    )
    print_table(("  AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"), rows)


def _describe_run(run: Run, output_format: Format) -> None:
    report = run.report
    if output_format != Format.TABLE:
        print_document(
            report.model_dump(mode="json", by_alias=True, exclude_none=True), output_format
        )
        return
    print_facts(_facts_of_run(run))


def _facts_of_run(run: Run) -> Iterator[tuple[str, str]]:
    report, spec = run.report, run.spec
    yield "Name", run.name
    yield "Run", near(run.url)
    yield "Page", near(join(run.url, REPORT_PAGE))
    yield "Phase", report.stage.value
    yield "Message", report.message
    yield from network_facts(run.architecture, spec.get("backbone"))
    for field in ("images", "weights", "cache"):
        if field in spec:
            yield field.capitalize(), str(spec[field])
    yield "Labels", ", ".join(run.labels)
    yield "Progress", _figures(report.progress)
    if run.test_accuracy is not None:
        yield "Test accuracy", in_words(run.test_accuracy, report.metrics.test_images)
    yield "Metrics", _figures(report.metrics)
    yield from _chosen_and_found(report.sweep, report.findings, near(run.url))
    yield "Artifacts", ", ".join(sorted(report.artifacts.values()))
    for warning in report.warnings:
        yield "Warning", warning


def _facts(job: "Job") -> Iterator[tuple[str, str]]:
    status, spec = job.status, job.to_dict()["spec"]
    yield "Name", job.name
    yield "Namespace", job.namespace
    if job.labels:
        yield "Labels", ", ".join(f"{k}={v}" for k, v in sorted(job.labels.items()))
    yield "Phase", f"{job.phase.value}" + (f" ({job.reason})" if job.reason else "")
    yield "Message", job.sentence
    if advice := _advice(job):
        yield "What to do", advice
    yield from network_facts(job.architecture, spec.get("backbone"))
    for field in ("images", "weights", "cache", "shards"):
        if field in spec:
            yield field.capitalize(), str(spec[field])
    yield "Run", job.run_url
    created = job.to_dict()["metadata"].get("creationTimestamp")
    for field, value in (("Created", created), ("Started", status.start_time),
                         ("Ended", status.completion_time)):  # fmt: skip
        if value:
            yield field, value
    if status.progress:
        yield "Progress", _figures(status.progress)
    if status.metrics:
        if job.test_accuracy is not None:
            yield "Test accuracy", in_words(job.test_accuracy, status.metrics.test_images)
        yield "Metrics", _figures(status.metrics)
    yield from _chosen_and_found(status.sweep, status.findings, f"rj/{job.name} -n {job.namespace}")
    if status.artifacts:
        yield "Artifacts", ", ".join(sorted(status.artifacts.values()))
    yield "Logs", f"retrainer logs {job.name} -n {job.namespace}"


def _chosen_and_found(
    sweep: SweepStatus | None, findings: FindingCounts | None, argument: str
) -> Iterator[tuple[str, str]]:
    """Say what a sweep chose and how many findings there are; `argument` names the run to commands."""
    if sweep is not None:
        tried = f"{sweep.candidates or 0:,} combinations"
        if sweep.diverged:
            tried += f", {sweep.diverged:,} of them diverged"
        chosen = sweep.chosen.model_dump(by_alias=True, exclude_none=True) if sweep.chosen else {}
        values = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
        yield "Sweep", f"{tried}; chosen: {values or 'none yet'}"
    if findings is not None:
        counts = {
            "wrong label": findings.labels,
            "leak": findings.leaks,
            "near-duplicate": findings.duplicates,
            "stranger": findings.strangers,
        }
        listed = ", ".join(
            f"{count:,} {name}{'s' * (count != 1)}" for name, count in counts.items() if count
        )
        command = f" (retrainer findings {argument})" if listed else ""
        yield "Findings", f"{listed or 'none'}{command}"


def network_facts(
    architecture: str, backbone: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    """Name the network: of the list, or one's own with what the job says of it."""
    if not backbone:
        yield "Architecture", architecture
        return
    more = ", ".join(f"{name} {value}" for name, value in backbone.items() if name != "url")
    yield "Backbone", f"{backbone['url']} ({more})" if more else str(backbone["url"])


def _figures(figures: BaseModel) -> str:
    named = figures.model_dump(exclude_none=True, exclude=set(FOR_KUBECTL))
    return ", ".join(f"{name.replace('_', ' ')} {figure(name, n)}" for name, n in named.items())


def _advice(job: "Job") -> str:
    from retrainer.api.reasons import REASONS

    advice = next((r.advice for r in REASONS if r.name == job.reason), "")
    # A command that ends with the name goes on with the job's namespace.
    return advice.replace("NAME", f"{job.name} -n {job.namespace}")


def _print_conditions(job: "Job") -> None:
    if not job.status.conditions:
        return
    typer.echo("Conditions:")
    rows = (
        (f"  {c.type}", c.status.value, c.reason, _age(c.last_transition_time), c.message)
        for c in job.status.conditions
        if c.type != ConditionType.STALLED  # says for tools what Failed says
    )
    print_table(("  TYPE", "STATUS", "REASON", "AGE", "MESSAGE"), rows)


def _age(moment: str) -> str:
    """Write the age of a time that Kubernetes wrote; a text that is no time is shown as it is."""
    try:
        return age(datetime.fromisoformat(moment))
    except (TypeError, ValueError):
        return moment


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
