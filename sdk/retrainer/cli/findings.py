"""`retrainer findings`: what stands out among the images of a run."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrainer.api.corrections import Correction, csv_text
from retrainer.api.findings import FindingKind
from retrainer.cli.output import Format, FormatOption, print_document, print_table
from retrainer.cli.reach import Reach, RunOrJob, reaching
from retrainer.errors import UserError

COLUMNS = ("KIND", "IMAGE", "SCORE", "WHAT")


@reaching
def findings(
    run: RunOrJob,
    *,
    kind: Annotated[
        list[FindingKind] | None,
        typer.Option("--kind", help="Only findings of this kind; may be given several times."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FILE",
            help="Write a corrections.csv with a suggestion for each; look at each before use.",
        ),
    ] = None,
    output_format: FormatOption = Format.TABLE,
    reach: Reach,
) -> None:
    """Images that stand out: wrong labels, leaks between sets, near-duplicates, strangers.

    [dim]retrainer findings out[/]

    [dim]retrainer findings rj/flowers --kind label[/]

    [dim]retrainer findings out --write corrections.csv[/]
    """
    results = reach.find(run)
    every_row = results.findings()
    if write is not None:
        suggestions = zip(every_row, results.suggested_corrections(), strict=True)
        wanted = [one for row, one in suggestions if not kind or row.kind in kind]
        write_corrections(wanted, write)
        return
    rows = [row for row in every_row if not kind or row.kind in kind]
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


def write_corrections(corrections: Sequence[Correction], file: Path) -> None:
    """Write `corrections.csv` and say what to do with it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        file.write_text(csv_text(corrections), encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error.strerror}.") from error
    typer.echo(
        f"{file}: {len(corrections)} suggestions. Look at each photo; delete the rows that are "
        f"wrong, or\nwrite keep as their action. Then: retrainer run PHOTOS --corrections {file}"
    )


def _remark(suggested: str | None, other: str | None) -> str:
    if suggested is not None:
        return f"rather {suggested}"
    return "" if other is None else f"like {other}"
