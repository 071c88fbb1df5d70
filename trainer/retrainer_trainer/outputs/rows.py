"""One finding, as a run's files and its page show it."""

from dataclasses import dataclass

from retrainer.api.findings import FindingKind


@dataclass(frozen=True)
class FindingRow:
    """One finding, as `findings.parquet` and the page have it.

    Attributes:
        kind: what it says.
        row: of the image in the catalog.
        other_row: of the image that shows the same; None for other kinds.
        suggested: number of the label that fits better; None for other kinds.
        score: margin of the labels, cosine of the pair, or distance of the stranger.
    """

    kind: FindingKind
    row: int
    score: float
    other_row: int | None = None
    suggested: int | None = None
