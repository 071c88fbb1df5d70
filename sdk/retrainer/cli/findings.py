"""`retrainer findings`: what stands out among the images of a run."""

from dataclasses import asdict
from typing import Annotated

import typer

from retrainer.api.findings import FindingKind
from retrainer.cli.output import Format, FormatOption, print_document, print_table
from retrainer.cli.reach import Reach, RunOrJob, reaching

COLUMNS = ("KIND", "IMAGE", "SCORE", "WHAT")


@reaching
def findings(
    run: RunOrJob,
    *,
    kind: Annotated[
        list[FindingKind] | None,
        typer.Option("--kind", help="Only findings of this kind; may be given several times."),
    ] = None,
    output_format: FormatOption = Format.TABLE,
    reach: Reach,
) -> None:
    """Images that stand out: wrong labels, leaks between sets, near-duplicates, strangers.

    [dim]retrainer findings out[/]

    [dim]retrainer findings rj/flowers --kind label[/]
    """
    rows = [row for row in reach.find(run).findings() if not kind or row.kind in kind]
    if output_format != Format.TABLE:
        print_document([asdict(row) for row in rows], output_format)
        return
    if not rows:
        typer.echo("Nothing stands out among the images.")
        return
    cells = [
        (row.kind, row.path, f"{row.score:.2f}", _remark(row.suggested, row.other)) for row in rows
    ]
    print_table(COLUMNS, cells, right="SCORE")


def _remark(suggested: str | None, other: str | None) -> str:
    if suggested is not None:
        return f"rather {suggested}"
    return "" if other is None else f"like {other}"
