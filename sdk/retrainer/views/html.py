"""How jobs, lists and comparisons look in a notebook. Plain HTML; text is always escaped."""

import base64
import io
from collections.abc import Collection, Sequence
from html import escape
from typing import TYPE_CHECKING

from retrainer.api.interval import in_words
from retrainer.api.status import Phase
from retrainer.views.text import age, short_number

if TYPE_CHECKING:
    from retrainer.cluster.job import Job
    from retrainer.results.comparison import Comparison
    from retrainer.results.history import History
    from retrainer.results.run import ConfusionMatrix

_COLOURS = {
    Phase.SUCCEEDED: "#1a7f37",
    Phase.FAILED: "#cf222e",
    Phase.SUSPENDED: "#9a6700",
    Phase.PENDING: "#6e7781",
}
_RUNNING = "#0969da"
_CELL = "padding:2px 14px 2px 0;text-align:left;vertical-align:top;white-space:nowrap"
_TEXT = "padding:2px 0;text-align:left;vertical-align:top;white-space:normal"
_NUMBER = (
    "padding:2px 14px 2px 0;text-align:right;vertical-align:top;white-space:nowrap;"
    "font-variant-numeric:tabular-nums"
)


def job(job: "Job") -> str:
    """One job: phase, sentence, bar, figures, curve."""
    status = job.status
    rows = [
        ("architecture", escape(job.architecture)),
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
        rows.append(("progress", _bar(progress.percent) + f"<div>{shown}</div>"))
    if (metrics := status.metrics) and metrics.validation_accuracy is not None:
        rows.append(("validation accuracy", f"{metrics.validation_accuracy:.3f}"))
    if job.test_accuracy is not None:
        images = metrics.test_images if metrics else None
        accuracy, _, interval = in_words(job.test_accuracy, images).partition(" ")
        rows.append(("test accuracy", f"<b>{accuracy}</b> {interval}"))
    if len(status.curve) > 1:
        rows.append(("validation curve", _spark([p.validation_accuracy for p in status.curve])))
    table = "".join(
        f'<tr><td style="{_CELL};color:#6e7781">{name}</td><td style="{_CELL}">{cell}</td></tr>'
        for name, cell in rows
    )
    return (
        f'<div><div style="font-size:1.1em"><b>{escape(job.name)}</b> '
        f'<span style="color:#6e7781">in {escape(job.namespace)}</span> {_phase(job.phase)}</div>'
        f"<div>{escape(job.said)}</div>"
        f'<table style="border-collapse:collapse;margin-top:4px">{table}</table></div>'
    )


def jobs(jobs: "Sequence[Job]") -> str:
    """A table, one row per job."""
    head = ("name", "phase", "progress", "test accuracy", "architecture", "age", "message")
    rows = [
        (
            f"<b>{escape(j.name)}</b>",
            _phase(j.phase),
            _bar(j.status.progress.percent if j.status.progress else None),
            "" if j.test_accuracy is None else f"{j.test_accuracy:.3f}",
            escape(j.architecture),
            age(j.created),
            escape(j.message),
        )
        for j in jobs
    ]
    return _table(head, rows, numbers={3}, texts={6}) if rows else "<div>no RetrainJobs</div>"


def history(history: "History") -> str:
    """The last figures and a small curve."""
    if not len(history):
        return "<div>no evaluation yet</div>"
    last = history[-1]
    figures = [
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in last.model_dump(exclude={"step"}).items()
        if value is not None
    ]
    curve = _spark(history.column("validation_accuracy"))
    return f"<div>{curve}<div>step {last.step:,}: {', '.join(figures)}</div></div>"


def confusion(matrix: "ConfusionMatrix") -> str:
    """The counts, shaded by their share of the row."""
    head = ["label \\ guess", *map(escape, matrix.labels)]
    rows = []
    for label, counts in zip(matrix.labels, matrix.counts.tolist(), strict=True):
        total = sum(counts) or 1
        cells = (_shaded(count, count / total) for count in counts)
        rows.append((f"<b>{escape(label)}</b>", *cells))
    return _table(head, rows, numbers=set(range(1, len(head))))


def comparison(comparison: "Comparison", picture: bool) -> str:
    """The table, the sentences, and the picture as an embedded PNG."""
    from retrainer.results.comparison import accuracy_words

    head = (
        "name",
        "architecture",
        "test accuracy (95% interval)",
        "multiply-adds",
        "parameters",
        "images/s",
    )
    rows = [
        (
            f"<b>{escape(row.name)}</b>",
            escape(row.architecture),
            accuracy_words(row),
            short_number(row.multiply_adds),
            short_number(row.parameters),
            "cached" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
        )
        for row in comparison.rows
    ]
    sentences = [*map(str, comparison.differences), *comparison.notes]
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    image = ""
    if picture:
        out = io.BytesIO()
        comparison.plot().savefig(out, format="png")
        encoded = base64.b64encode(out.getvalue()).decode()
        alt = "test accuracy against multiply-adds, one bubble per job"
        image = f'<img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{encoded}">'
    return f"<section>{image}{_table(head, rows, numbers={3, 4, 5})}<ul>{said}</ul></section>"


def page(title: str, part: str) -> str:
    """A whole page around one part."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        '<body style="font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;'
        'padding:0 1em">'
        f"<h1>{escape(title)}</h1>{part}</body></html>"
    )


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[int],
    texts: Collection[int] = (),
) -> str:
    styles = [_NUMBER if i in numbers else _TEXT if i in texts else _CELL for i in range(len(head))]
    top = "".join(f'<th style="{s}">{name}</th>' for s, name in zip(styles, head, strict=True))
    lines = (
        "".join(f'<td style="{s}">{cell}</td>' for s, cell in zip(styles, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="border-collapse:collapse"><tr>{top}</tr>{body}</table>'


def _phase(phase: Phase) -> str:
    colour = _COLOURS.get(phase, _RUNNING)
    return (
        f'<span style="background:{colour};color:#fff;border-radius:9px;padding:1px 8px;'
        f'font-size:.85em">{phase.value}</span>'
    )


def _bar(percent: int | None) -> str:
    if percent is None:
        return ""
    return (
        '<div style="display:inline-block;width:120px;height:9px;background:#d0d7de;border-radius:5px">'
        f'<div style="width:{percent}%;height:9px;background:{_RUNNING};border-radius:5px"></div></div>'
        f" {percent}%"
    )


def _spark(values: Sequence[float | None]) -> str:
    """A small line, its bottom 0 and its top 1."""
    points = [v for v in values if v is not None]
    if len(points) < 2:
        return ""
    width, height = 160, 36
    places = " ".join(
        f"{i * width / (len(points) - 1):.1f},{height - height * v:.1f}"
        for i, v in enumerate(points)
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="validation accuracy, 0 to 1">'
        f'<rect width="{width}" height="{height}" fill="#f6f8fa"/>'
        f'<polyline points="{places}" fill="none" stroke="{_RUNNING}" stroke-width="1.5"/></svg>'
        f" {points[-1]:.3f}"
    )


def _shaded(count: int, share: float) -> str:
    # The notebook's own ink, dark or light, is read on all but the full blue.
    ink = "#fff" if share > 0.85 else "inherit"
    style = f"background:rgba(9,105,218,{share:.2f});color:{ink};padding:0 6px"
    return f'<span style="{style}">{count:,}</span>'
