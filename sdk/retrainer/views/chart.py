"""Draws a learning curve in the terminal."""

from collections.abc import Sequence

WIDTH, HEIGHT = 64, 14
BOTH = "#"


def chart(
    steps: Sequence[int],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> str:
    """Draw lines of text with one mark per evaluation.

    Args:
        steps: ascending, one per evaluation.
        series: of each its mark (one character), its name, its shares (one per evaluation; None is
            left out). Where two series meet stands `#`.
        width, height: of the field, characters.
    """
    values = [v for _, _, each in series for v in each if v is not None]
    if not steps or not values:
        return "no evaluation yet"
    high = max(values)
    span = high - min(values) or 1.0
    low = high - span
    reach = max(1, steps[-1] - steps[0])
    field = [[" "] * width for _ in range(height)]
    for mark, _, each in series:
        for step, value in zip(steps, each, strict=True):
            if value is None:
                continue
            column = round((step - steps[0]) / reach * (width - 1))
            row = height - 1 - round((value - low) / span * (height - 1))
            earlier = field[row][column]
            field[row][column] = mark if earlier in {" ", mark} else BOTH
    lines = []
    for i, row_cells in enumerate(field):
        label = high - span * i / (height - 1) if i % 4 == 0 or i == height - 1 else None
        side = f"{label:8.1%} |" if label is not None else " " * 8 + " |"
        lines.append(side + "".join(row_cells).rstrip())
    lines.append(" " * 9 + "+" + "-" * width)
    first, last = f"{steps[0]:,}", f"{steps[-1]:,}"
    lines.append(" " * 10 + first + "steps".center(width - len(first) - len(last)) + last)
    lines.append(" " * 10 + "   ".join(f"{mark} {name}" for mark, name, _ in series))
    return "\n".join(lines)
