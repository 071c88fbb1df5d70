"""`corrections.csv`: what people say about the findings of a run, for the next run.

```
path,action,label,run
daisy/wrong.jpg,relabel,roses,flowers-1a2b3c4d
tulips/copy.jpg,drop,,flowers-1a2b3c4d
```
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum

COLUMNS = ("path", "action", "label", "run")

# A cell that begins so is a formula to spreadsheets (OWASP, CSV injection); a folder's or a file's name
# can begin with anything.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Action(StrEnum):
    """What is done about an image."""

    RELABEL = "relabel"
    """It gets another label."""
    DROP = "drop"
    """It is left out."""
    KEEP = "keep"
    """It is right as it is: its finding is not shown again."""


@dataclass(frozen=True)
class Correction:
    """One row of `corrections.csv`.

    Attributes:
        path: of the image, as the findings have it.
        action: relabel, drop or keep.
        label: the new one; "" with other actions.
        run: name of the run's folder whose finding it is; "" if it is of none.
    """

    path: str
    action: str
    label: str = ""
    run: str = ""


def harmless(cell: str) -> str:
    """Keep a spreadsheet from running a cell: an apostrophe makes a text of what is a formula there."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def csv_lines(corrections: Iterable[Correction]) -> list[str]:
    """Write each correction as a line of CSV, without the line's end."""
    lines = []
    for correction in corrections:
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(map(harmless, astuple(correction)))
        lines.append(out.getvalue())
    return lines


def csv_text(corrections: Iterable[Correction]) -> str:
    """Write `corrections.csv`."""
    return "".join(f"{line}\n" for line in [",".join(COLUMNS), *csv_lines(corrections)])


def parsed(text: str) -> Iterator[tuple[int, Correction]]:
    """Read `corrections.csv`: the number of each row's line, and what it says.

    Raises:
        ValueError: it is no CSV, or has no columns path and action; the message says where.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    places: list[int | None] = []
    number = 1
    try:
        for cells in reader:
            if not any(cells):
                pass
            elif not places:
                places = _places([cell.strip().casefold() for cell in cells], number)
            else:
                yield number, Correction(*(_cell(cells, place) for place in places))
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {number}: its quotes are wrong ({error})") from error
    if not places:
        raise ValueError("it is empty")


def _places(names: Sequence[str], number: int) -> list[int | None]:
    for name in COLUMNS[:2]:
        if name not in names:
            raise ValueError(
                f"line {number}: its columns are {', '.join(names)}, and none is called {name}"
            )
    return [names.index(name) if name in names else None for name in COLUMNS]


def _cell(cells: Sequence[str], place: int | None) -> str:
    cell = "" if place is None or place >= len(cells) else cells[place].strip()
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_STARTS) else cell
