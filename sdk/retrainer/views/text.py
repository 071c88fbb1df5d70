"""Text for a terminal: control characters made harmless, durations, ages, short numbers.

Names of files and answers of servers come from strangers: control characters in them do nothing.
"""

import itertools
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


GAP = "   "
"""Between two columns of a table."""
NARROW_GAP = "  "
"""The same where the terminal is too narrow."""
NARROWEST = 12
"""Columns of words are not made narrower than that to fit a table into a terminal."""


def printable(text: str, encoding: str = "utf-8") -> str:
    """Show control characters, and what `encoding` lacks, as escapes.

    A file's name cannot drive the terminal then, and a terminal that knows ASCII only shows the rest.
    """
    safe = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    """Make a text `printable`, and its line breaks escapes, so that it cannot add lines of its own."""
    return printable(text).replace("\n", "\\n")


def paragraph(text: str, width: int | None = None) -> str:
    """Wrap `printable` text between words; every line after the first is indented.

    A long word, such as a path, stays whole so that it can be copied. By the indent, a line break in
    a file's name or in a server's answer cannot begin a line that looks like ours.

    Args:
        width: columns of the terminal; None wraps nothing.
    """
    first, *rest = printable(text).split("\n")
    lines = _wrap(first, width, "  ")
    for line in rest:
        bare = line.lstrip(" ")
        indent = " " * max(2, len(line) - len(bare))
        lines += _wrap(indent + bare, width, indent + "  ")
    return "\n".join(lines)


def _wrap(line: str, width: int | None, indent: str) -> list[str]:
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def terminal_width(stream: TextIO) -> int | None:
    """Count the columns of the terminal that `stream` writes to; None for a file, pipe or notebook."""
    if not stream.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


TITLES = 22
"""Least columns of the titles of facts."""


WORD = 24
"""A longer word, such as a path, may be broken to fit a table into a terminal."""


def _pieces(text: str) -> list[str]:
    """Split a text into what is kept whole if possible: words, and parts of words up to a dash."""
    return re.split(r"(?<=-)|\s+", text)


class Columns:
    """A table without borders, as kubectl prints them, for a terminal of some width.

    Cells that do not fit take several lines; where even narrow columns do not fit, each row is a list
    of titles and values.
    """

    def __init__(self, head: Sequence[str], *, right: str = "", width: int | None = None) -> None:
        """Begin with columns as wide as their titles.

        Args:
            head: titles.
            right: titles, with spaces between them, of columns that are numbers.
            width: of the terminal; None never breaks a cell, so that lines can be searched.
        """
        self._head = head
        self._numbers = {title for title in head if title in right.split()}
        self._width = width
        self._widths = [len(title) for title in head]
        self._gap = GAP
        self._fits = True

    def fit(self, rows: Iterable[Sequence[str]]) -> None:
        """Make the columns wide enough for these rows; where the terminal is not, narrow the widest.

        Words stay whole as long as that is possible, numbers always.
        """
        floors = [max(map(len, _pieces(title))) for title in self._head]
        for row in rows:
            self._widths = list(map(max, self._widths, map(len, row)))
            for column, (title, text) in enumerate(zip(self._head, row, strict=True)):
                whole = [text] if title in self._numbers else _pieces(text)
                floors[column] = max(floors[column], *map(len, whole))
        if self._width is None or self._total() <= self._width:
            return
        self._gap = NARROW_GAP
        if not self._narrow([min(floor, WORD) for floor in floors]):
            self._fits = self._narrow(
                [
                    floor if title in self._numbers else min(floor, NARROWEST)
                    for title, floor in zip(self._head, floors, strict=True)
                ]
            )

    def _narrow(self, floors: Sequence[int]) -> bool:
        """Narrow the columns, the widest first, none below its floor; returns whether they fit then."""
        while self._total() > (self._width or sys.maxsize):
            spare = [width - floor for width, floor in zip(self._widths, floors, strict=True)]
            wide = [column for column, left in enumerate(spare) if left > 0]
            if not wide:
                return False
            self._widths[max(wide, key=lambda column: self._widths[column])] -= 1
        return True

    def _total(self) -> int:
        return sum(self._widths) + len(self._gap) * (len(self._widths) - 1)

    def head(self) -> Iterator[str]:
        """Give the line of titles; none where each row repeats them."""
        if self._fits:
            yield from self.lines(self._head)

    def lines(self, row: Sequence[str]) -> Iterator[str]:
        """Give the lines of one row."""
        if not self._fits:
            yield from facts(zip(self._head, row, strict=True), self._width)
            yield ""
            return
        cells = [
            textwrap.wrap(cell, width) if self._width and len(cell) > width else [cell]
            for cell, width in zip(row, self._widths, strict=True)
        ]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            padded = (
                cell.rjust(width) if title in self._numbers else cell.ljust(width)
                for title, cell, width in zip(self._head, line, self._widths, strict=True)
            )
            yield self._gap.join(padded).rstrip()


def facts(pairs: Iterable[tuple[str, str]], width: int | None = None) -> Iterator[str]:
    """Give lines of a title and a value, as `kubectl describe` prints them; long values are wrapped."""
    rows = list(pairs)
    left = max(TITLES, max(len(title) for title, _ in rows) + 1 + len(GAP))
    room = max(20, width - left) if width else sys.maxsize
    for title, value in rows:
        lines = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False)
        yield f"{title + ':':<{left}}{lines[0] if lines else ''}".rstrip()
        for line in lines[1:]:
            yield " " * left + line


def console(*, stderr: bool = False) -> "Console":
    """Make a console that prints text as it is: no markup, no highlighting, no emoji names."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def duration(seconds: float) -> str:
    """Write a number of seconds such as `12 s`, `3 min 5 s` or `2 h 4 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def age(since: datetime) -> str:
    """Write the time since a moment as kubectl does: 45s, 12m, 3h, 5d."""
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, size, upto in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < upto:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"


def short_number(value: int | None) -> str:
    """Write a large count such as 150M or 1.32M; nothing for None."""
    if value is None:
        return ""
    return f"{value / 1e6:,.0f}M" if value >= 1e8 else f"{value / 1e6:.3g}M"


def near(place: str) -> str:
    """Write a path as one would type it: relative where it is below the current folder."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
