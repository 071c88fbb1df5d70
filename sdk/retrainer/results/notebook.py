"""How a learning curve, a confusion matrix and a comparison look in a notebook."""

import base64
from collections.abc import Sequence
from html import escape

from retrainer.api.status import CurvePoint
from retrainer.results.rows import Row, accuracy_words
from retrainer.views.html import sparkline, table
from retrainer.views.text import short_number


def history(points: Sequence[CurvePoint]) -> str:
    """Show the last figures of a learning curve and a small picture of it."""
    if not points:
        return "<div>no evaluation yet</div>"
    last = points[-1]
    figures = [
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in last.model_dump(exclude={"step"}).items()
        if value is not None
    ]
    curve = sparkline([point.validation_accuracy for point in points])
    return f"<div>{curve}<div>step {last.step:,}: {', '.join(figures)}</div></div>"


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Show the counts of a confusion matrix, shaded by their share of the row."""
    head = ["label \\ guess", *map(escape, labels)]
    rows = []
    for label, row in zip(labels, counts, strict=True):
        total = sum(row) or 1
        rows.append((f"<b>{escape(label)}</b>", *(_shaded(count, count / total) for count in row)))
    return table(head, rows, numbers=set(range(1, len(head))))


def comparison(rows: Sequence[Row], sentences: Sequence[str], picture: bytes | None) -> str:
    """Show jobs side by side: a table, sentences, and a picture (PNG, embedded) if there is one."""
    head = (
        "name",
        "architecture",
        "test accuracy (95% interval)",
        "multiply-adds",
        "parameters",
        "images/s",
        "differs",
    )
    cells = [
        (
            f"<b>{escape(row.name)}</b>",
            escape(row.architecture),
            accuracy_words(row),
            short_number(row.multiply_adds),
            short_number(row.parameters),
            "cached" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
            escape(row.differs),
        )
        for row in rows
    ]
    notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    image = ""
    if picture:
        encoded = base64.b64encode(picture).decode()
        alt = "test accuracy against multiply-adds, one bubble per job"
        image = f'<img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{encoded}">'
    return f"<section>{image}{table(head, cells, numbers={3, 4, 5})}<ul>{notes}</ul></section>"


def _shaded(count: int, share: float) -> str:
    # The notebook's own ink, dark or light, is read on all but the full blue.
    ink = "#fff" if share > 0.85 else "inherit"
    style = f"background:rgba(9,105,218,{share:.2f});color:{ink};padding:0 6px"
    return f'<span style="{style}">{count:,}</span>'
