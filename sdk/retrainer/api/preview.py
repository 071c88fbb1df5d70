"""What can be told of a job before it runs: the answers of `retrainer check` and `retrainer plan`."""

from pydantic import Field

from retrainer.api.fields import Wire


class LabelCount(Wire):
    """One label's images, and the sets that they fall into."""

    label: str = Field(description="Name of the label.")
    images: int = Field(description="Images listed.")
    rejected: int = Field(0, description="Those of them that cannot be read.")
    training: int = Field(description="Images to train on.")
    validation: int = Field(description="Images to validate on.")
    test: int = Field(description="Images to test on.")


class Rejection(Wire):
    """An image that a run would leave out."""

    path: str = Field(description="Relative to the images' folder.")
    reason: str = Field(description="Why it cannot be used.")


class Inspection(Wire):
    """What `retrainer check` finds in a folder of images, without any network."""

    images: int = Field(0, description="Images listed.")
    size: int = Field(0, description="Bytes of all of them.")
    labels: list[LabelCount] = Field(default_factory=list, description="One entry per label.")
    formats: dict[str, int] = Field(
        default_factory=dict, description="Number of images by format, told by their content."
    )
    smallest: tuple[int, int] | None = Field(
        None, description="Width and height of the image with the fewest pixels."
    )
    median: tuple[int, int] | None = Field(
        None, description="Width and height of the image in the middle, by number of pixels."
    )
    largest: tuple[int, int] | None = Field(
        None, description="Width and height of the image with the most pixels."
    )
    decoded: bool = Field(
        False, description="Whether every image was decoded, or only its header was read."
    )
    rejected: int = Field(0, description="Images that cannot be read.")
    rejections: list[Rejection] = Field(
        default_factory=list, description="The first 1,000 of those, with the reason of each."
    )
    copies: list[list[str]] = Field(
        default_factory=list,
        description="Paths of images with the same bytes, a list for each; at most 1,000 lists.",
    )
    warnings: list[str] = Field(
        default_factory=list, description="Sentences, as a run prints them."
    )
    problem: str | None = Field(
        None, description="Why a run would be refused; null if nothing is in its way."
    )


class Plan(Wire):
    """What `retrainer plan` tells of a job: what it would compute, read, take and write."""

    backbone: str = Field(description="Name of the network.")
    images: int = Field(description="Images listed.")
    size: int = Field(description="Bytes of all of them.")
    labels: list[LabelCount] = Field(default_factory=list, description="One entry per label.")
    cached: int = Field(description="Images whose bottlenecks are all in the cache.")
    missing: int = Field(description="Images of which bottlenecks have to be computed.")
    bytes_to_read: int = Field(description="Bytes of the images to compute.")
    seconds: float | None = Field(
        None, description="Seconds expected; null if no earlier run with this cache tells."
    )
    memory: int | None = Field(
        None, description="Bytes of memory expected; null if no earlier run with this cache tells."
    )
    measured_on: str = Field(
        "", description="Processor and cores of the earlier run that both are expected from."
    )
    here: bool = Field(
        False, description="Whether that was a machine like this one; else take both with care."
    )
    run: str = Field(
        description="Folder of the run; its last 8 characters are made anew each time."
    )
    files: list[str] = Field(
        default_factory=list, description="Files and folders that are written into it."
    )
    cache: str = Field(description="Path or URL of the cache.")
    bytes_to_cache: int = Field(description="Bytes of bottlenecks that are added to the cache.")
    warnings: list[str] = Field(
        default_factory=list, description="Sentences, as a run prints them."
    )
