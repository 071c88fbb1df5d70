"""Pieces of HTML of which the page's sections are made."""

from collections.abc import Iterable, Sequence


def percent(share: float | None) -> str:
    """Write a share as percent with one decimal; a dash for None."""
    return "&ndash;" if share is None else f"{100 * share:.1f}%"


def section(title: str, body: str, intro: str = "") -> str:
    """Write a section under a heading; its parts are HTML already."""
    lead = f'<p class="soft">{intro}</p>' if intro else ""
    return f"<section><h2>{title}</h2>{lead}{body}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Write a table whose last `numbers` columns are numbers; its cells are HTML already."""
    first_number = len(head) - numbers

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="number">{c}</{tag}>' if i >= first_number else f"<{tag}>{c}</{tag}>"
            for i, c in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{cells(head, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
