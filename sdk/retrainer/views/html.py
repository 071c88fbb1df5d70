"""Tables, bars and small curves in plain HTML, for notebooks and pages; cells come escaped."""

from collections.abc import Collection, Sequence
from html import escape

from retrainer.api.interval import percent

BLUE = "#0969da"
CELL = "padding:2px 14px 2px 0;text-align:left;vertical-align:top;white-space:nowrap"
_TEXT = "padding:2px 0;text-align:left;vertical-align:top;white-space:normal"
_NUMBER = (
    "padding:2px 14px 2px 0;text-align:right;vertical-align:top;white-space:nowrap;"
    "font-variant-numeric:tabular-nums"
)


def page(title: str, part: str) -> str:
    """Write a whole page around one part."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        '<body style="font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;'
        'padding:0 1em">'
        f"<h1>{escape(title)}</h1>{part}</body></html>"
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[int],
    texts: Collection[int] = (),
) -> str:
    """Write a table; `numbers` and `texts` are columns set right and columns whose lines may break."""
    styles = [_NUMBER if i in numbers else _TEXT if i in texts else CELL for i in range(len(head))]
    top = "".join(f'<th style="{s}">{name}</th>' for s, name in zip(styles, head, strict=True))
    lines = (
        "".join(f'<td style="{s}">{cell}</td>' for s, cell in zip(styles, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="border-collapse:collapse"><tr>{top}</tr>{body}</table>'


def bar(percent: int | None) -> str:
    """Draw a bar with its percentage; nothing for None."""
    if percent is None:
        return ""
    return (
        '<div style="display:inline-block;width:120px;height:9px;background:#d0d7de;border-radius:5px">'
        f'<div style="width:{percent}%;height:9px;background:{BLUE};border-radius:5px"></div></div>'
        f" {percent}%"
    )


def sparkline(values: Sequence[float | None]) -> str:
    """Draw a small line, its bottom 0 and its top 1; nothing for fewer than two values."""
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
        f'<polyline points="{places}" fill="none" stroke="{BLUE}" stroke-width="1.5"/></svg>'
        f" {percent(points[-1])}"
    )
