"""`evaluation.json`: how well a run's head does on the test images, in all, by label and by export."""

from enum import StrEnum

from pydantic import Field

from retrainer.api.fields import Wire


class Accuracy(Wire):
    """The share of images guessed right, with its interval."""

    accuracy: float | None = Field(
        None, description="Share of the images guessed right, 0 to 1; null without images."
    )
    interval: tuple[float, float] | None = Field(
        None, description="Low and high end of the 95% Wilson interval; null without images."
    )
    images: int = Field(0, description="Number of images.")


class CommonestLabel(Wire):
    """The accuracy of always guessing the commonest label."""

    label: str = Field("", description="The label that most training images have.")
    accuracy: float | None = Field(
        None, description="Share of the test images that have it, 0 to 1; null without test images."
    )


class LabelFigures(Wire):
    """How well one label is recognised; null where there is nothing to divide by."""

    label: str = Field(description="Name of the label.")
    images: int = Field(description="Test images of this label.")
    guesses: int = Field(description="Test images that were guessed to be of this label.")
    precision: float | None = Field(None, description="Share of these guesses that are right.")
    recall: float | None = Field(None, description="Share of its images that are guessed right.")
    f1: float | None = Field(None, description="Harmonic mean of precision and recall.")


class Check(StrEnum):
    """How an exported file was checked."""

    IMAGES = "images"
    CONSTANTS = "constants"


class ExportCheck(Wire):
    """The result of checking an exported file: it was run beside the head, or its numbers read back."""

    path: str = Field("", description="The file or folder, in the run's folder.")
    check: Check = Field(
        Check.IMAGES,
        description="images: it was run on test images. constants: it was not run; its numbers were "
        "read back from the file and are those that were trained. `retrainer verify` runs it.",
    )
    accuracy: float | None = Field(
        None,
        description="Share of the images that the export guesses right; null if it was not run on "
        "test images.",
    )
    images: int = Field(0, description="Images that it was run on.")
    different: int = Field(0, description="Images of which it guesses another label than the head.")


class Folds(Accuracy):
    """The accuracy by cross-validation: every image, guessed by a head that has not seen it.

    It is that of the procedure, not of the exported head, which was trained on more images than any
    of the folds' heads.
    """

    folds: int = Field(0, description="Parts that were left out in turn.")


class ForecastPoint(Wire):
    """The accuracy with a number of training images."""

    images: int = Field(description="Number of training images.")
    accuracy: float = Field(description="Share of unseen images guessed right, 0 to 1.")


class Forecast(Wire):
    """What more images would bring: the accuracy with fewer of them, extrapolated by a power law."""

    points: list[ForecastPoint] = Field(
        default_factory=list, description="As measured, on a tenth of the training images to all."
    )
    twice: ForecastPoint | None = Field(
        None, description="By the law error = scale * images ** -exponent, for twice the images."
    )


class CorrectedImage(Wire):
    """One correction that was applied."""

    path: str = Field(description="Of the image.")
    action: str = Field(description="relabel, drop or keep.")
    was: str = Field("", description="Its label before.")
    label: str = Field("", description="Its label now; empty if it was not relabelled.")


class HeadBefore(Wire):
    """This head and that of the run whose findings were corrected, on the test images of both."""

    run: str = Field(description="Name of that run's folder.")
    images: int = Field(0, description="Test images of both; copies of an image count once.")
    relabelled: int = Field(0, description="Those of them that have another label now.")
    accuracy_then: float | None = Field(
        None, description="Of the head before, by the labels of before, 0 to 1."
    )
    accuracy_by_corrected_labels: float | None = Field(
        None,
        description="Of the head before, by the labels of now; what differs is the labels' doing.",
    )
    accuracy: float | None = Field(None, description="Of this head, by the labels of now.")
    only_before: int = Field(0, description="Images that only the head before guesses right.")
    only_now: int = Field(0, description="Images that only this head guesses right.")
    p: float = Field(
        1, description="Two-sided p-value of McNemar's exact test of these two numbers."
    )


class AppliedCorrections(Wire):
    """What `spec.corrections` came to."""

    relabelled: int = Field(0, description="Images that got another label.")
    dropped: int = Field(0, description="Images that were left out.")
    kept: int = Field(0, description="Images whose findings are not shown again.")
    absent: int = Field(0, description="Corrections of images that are not there.")
    applied: list[CorrectedImage] = Field(default_factory=list, description="One by one.")
    before: HeadBefore | None = Field(
        None, description="What they changed; null if they name no run that can be read."
    )


class Evaluation(Accuracy):
    """Everything that `evaluation.json` says; the accuracy at its top is the one on the test images."""

    architecture: str = Field("", description="As in the spec; empty with a backbone.")
    backbone: str = Field("", description="URL of the backbone; empty with an architecture.")
    network: str = Field("", description="Name of either, for people.")
    size: int | None = Field(None, description="Height and width of its input, pixels.")
    bottleneck: int | None = Field(None, description="Numbers that it makes of an image.")
    multiply_adds: int | None = Field(
        None, description="Of the frozen network for one image; null where they cannot be counted."
    )
    parameters: int | None = Field(None, description="Of the frozen network.")
    step: int | None = Field(None, description="Training steps of the head that was kept.")
    cross_entropy: float | None = Field(
        None, description="Mean over the test images, nats; null without test images."
    )
    commonest_label: CommonestLabel = Field(
        default_factory=CommonestLabel,
        description="What always guessing the commonest label would give.",
    )
    without_duplicates: Accuracy = Field(
        default_factory=Accuracy,
        description="The same without test images of which there is a copy in any set.",
    )
    without_leaks: Accuracy = Field(
        default_factory=Accuracy,
        description="The same without test images that look like an image of another set.",
    )
    folds: Folds | None = Field(
        None, description="The accuracy by cross-validation over all images; null without findings."
    )
    forecast: Forecast | None = Field(
        None, description="What more images would bring; null without findings or with too few."
    )
    corrections: AppliedCorrections | None = Field(
        None, description="Corrections that were applied; null without."
    )
    labels: list[LabelFigures] = Field(
        default_factory=list, description="One entry per label, in the order of labels.txt."
    )
    confusion: list[list[int]] = Field(
        default_factory=list,
        description="Numbers of test images: a row per label, a column per guess.",
    )
    exports: dict[str, ExportCheck] = Field(
        default_factory=dict,
        description="By format.",
    )

    def to_json(self) -> str:
        """Write it as the file has it: names in camelCase, a line per value."""
        return self.model_dump_json(by_alias=True, indent=1)
