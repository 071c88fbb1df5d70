"""What `retrainer backbone` says of networks of one's own."""

from pydantic import Field

from retrainer.api.fields import Wire


class NetworkOutput(Wire):
    """An output of a network's file."""

    name: str = Field(description="As spec.backbone.output names it.")
    shape: list[int | None] = Field(description="Images first; null where the file leaves it open.")
    dtype: str = Field(description="Such as float32.")


class NetworkFacts(Wire):
    """A network of one's own: what its files say, and what it gives for an image."""

    name: str = Field(description="Short name, for people.")
    url: str = Field(description="The folder or file.")
    files: dict[str, int] = Field(default_factory=dict, description="Files and their bytes.")
    format: str = Field("", description="onnx or tflite; its exports have the same.")
    size: int = Field(0, description="Height and width of its input, pixels.")
    layout: str = Field("", description="Order of the input's axes.")
    outputs: list[NetworkOutput] = Field(default_factory=list, description="All outputs.")
    output: str = Field("", description="The one that is used.")
    bottleneck: int = Field(0, description="Numbers that it makes of an image.")
    multiply_adds: int | None = Field(
        None, description="For one image; null where they cannot be counted."
    )
    parameters: int = Field(0, description="Numbers that were trained.")
    preprocessing: dict[str, object] = Field(
        default_factory=dict, description="How a photo becomes what the network takes."
    )
    runs_on: str = Field("", description="Engine and precision.")
    seconds: float | None = Field(
        None, description="For the image, on one core; null if none was given."
    )
    start: list[float] = Field(
        default_factory=list, description="First numbers of the image's bottleneck."
    )
    norm: float | None = Field(None, description="Length of the image's bottleneck.")


class ListedNetwork(Wire):
    """A network that lies under a URL, by its file alone."""

    name: str = Field(description="Its folder, or its file, below the URL.")
    file: str = Field(description="Path of its file below the URL.")
    size: int = Field(description="Bytes of that file.")
    configured: bool = Field(description="Whether preprocessor_config.json lies beside it.")
