"""Text for a terminal: control characters made harmless, durations, ages, short numbers.

Names of files and answers of servers come from strangers: what they hold is shown, never obeyed.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def printable(text: str) -> str:
    """Show control characters as escapes, so that a file's name cannot drive the terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


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
