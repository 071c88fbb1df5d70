"""How a job and a list of jobs look in a notebook."""

from collections.abc import Sequence
from html import escape

from retrainer.api.interval import in_words, percent
from retrainer.api.status import Phase
from retrainer.cluster.snapshot import JobSnapshot
from retrainer.views.html import BLUE, CELL, bar, sparkline, table
from retrainer.views.text import age

_COLOURS = {
    Phase.SUCCEEDED: "#1a7f37",
    Phase.FAILED: "#cf222e",
    Phase.SUSPENDED: "#9a6700",
    Phase.PENDING: "#6e7781",
}


def job(job: JobSnapshot) -> str:
    """One job: phase, sentence, bar, figures, curve."""
    status = job.status
    rows = [
        ("network", escape(job.network)),
        ("images", escape(str(job.to_dict()["spec"].get("images", "")))),
        ("run", escape(job.run_url)),
    ]
    if progress := status.progress:
        counts = (
            ("images", progress.images_total),
            ("cached", progress.images_cached),
            ("computed", progress.images_computed),
            ("rejected", progress.images_rejected),
        )
        parts = [f"{name} {count:,}" for name, count in counts if count is not None]
        if progress.step is not None and progress.steps:
            parts.append(f"step {progress.step:,} of {progress.steps:,}")
        shown = ", ".join(parts)
        rows.append(("progress", bar(progress.percent) + f"<div>{shown}</div>"))
    if (metrics := status.metrics) and metrics.validation_accuracy is not None:
        rows.append(("validation accuracy", percent(metrics.validation_accuracy)))
    if job.test_accuracy is not None:
        images = metrics.test_images if metrics else None
        accuracy, _, interval = in_words(job.test_accuracy, images).partition(" ")
        rows.append(("test accuracy", f"<b>{accuracy}</b> {interval}"))
    if len(status.curve) > 1:
        rows.append(("validation curve", sparkline([p.validation_accuracy for p in status.curve])))
    table = "".join(
        f'<tr><td style="{CELL};color:#6e7781">{name}</td><td style="{CELL}">{cell}</td></tr>'
        for name, cell in rows
    )
    return (
        f'<div><div style="font-size:1.1em"><b>{escape(job.name)}</b> '
        f'<span style="color:#6e7781">in {escape(job.namespace)}</span> {_phase(job.phase)}</div>'
        f"<div>{escape(job.sentence)}</div>"
        f'<table style="border-collapse:collapse;margin-top:4px">{table}</table></div>'
    )


def jobs(jobs: Sequence[JobSnapshot]) -> str:
    """A table, one row per job."""
    head = ("name", "phase", "progress", "test accuracy", "network", "age", "message")
    rows = [
        (
            f"<b>{escape(j.name)}</b>",
            _phase(j.phase),
            bar(j.status.progress.percent if j.status.progress else None),
            "" if j.test_accuracy is None else percent(j.test_accuracy),
            escape(j.network),
            age(j.created),
            escape(j.message),
        )
        for j in jobs
    ]
    return table(head, rows, numbers={3}, texts={6}) if rows else "<div>no RetrainJobs</div>"


def _phase(phase: Phase) -> str:
    colour = _COLOURS.get(phase, BLUE)
    return (
        f'<span style="background:{colour};color:#fff;border-radius:9px;padding:1px 8px;'
        f'font-size:.85em">{phase.value}</span>'
    )
