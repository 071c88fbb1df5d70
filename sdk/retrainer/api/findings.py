"""What a run finds out about its images, as `findings.parquet` and the status say it."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from retrainer.api.fields import Flag, Model


class FindingKind(StrEnum):
    """What a row of `findings.parquet` says about its image."""

    LABEL = "label"
    """Its label is probably wrong."""
    LEAK = "leak"
    """It shows the same as an image of another set, so that the test is easier than it looks."""
    DUPLICATE = "duplicate"
    """It shows the same as another image of its set."""
    STRANGER = "stranger"
    """It is unlike all other images."""


class Findings(Model):
    """What is looked for among the images after the training."""

    enabled: Flag = Field(
        True,
        description="Look for wrong labels, near-duplicates, leaks and strangers, and measure what "
        "more images would bring.",
    )


class FindingCounts(Model):
    """How many findings there are of each kind."""

    labels: int = Field(0, description="Images whose label is probably wrong.")
    leaks: int = Field(0, description="Pairs of images in different sets that show the same.")
    duplicates: int = Field(0, description="Pairs of images in one set that show the same.")
    strangers: int = Field(0, description="Images unlike all others.")
    total: int = Field(0, description="All of them together.")

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        """Follows from the counts, so that no writer needs to care; kubectl cannot add."""
        self.total = self.labels + self.leaks + self.duplicates + self.strangers
        return self
