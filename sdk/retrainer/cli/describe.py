"""`retrainer describe`: everything there is to know about a job or a run."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel

from retrainer.api import SweepStatus
from retrainer.api.findings import FindingCounts
from retrainer.api.interval import in_words
from retrainer.api.layout import REPORT_PAGE, join
from retrainer.api.reasons import ConditionType
from retrainer.api.status import FOR_KUBECTL
from retrainer.cli.output import (
    Format,
    FormatOption,
    figure,
    print_document,
    print_facts,
    print_table,
    shown,
)
from retrainer.cli.reach import Reach, RunOrJob, reaching
from retrainer.results.run import Run
from retrainer.views.text import age, near

if TYPE_CHECKING:
    from retrainer.cluster.job import Job


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
