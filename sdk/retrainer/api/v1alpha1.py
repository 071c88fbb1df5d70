"""`RetrainJob`, retrainer.dev/v1alpha1: its spec and its status, the one source of the CRD.

Field names in YAML are camelCase, in Python snake_case. Defaults are those of TensorFlow's
retrain.py; names follow batch/v1 Job where the idea is the same.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from retrainer.api import rules
from retrainer.api.architectures import NAMES, architecture
from retrainer.api.backbone import ONNX_SUFFIX, TFLITE_SUFFIX, BackboneSource
from retrainer.api.fields import (
    FileUrl,
    Flag,
    MetadataLabels,
    Model,
    Number,
    ObjectName,
    Percentage,
    Url,
    WeightsUrl,
    Whole,
)
from retrainer.api.findings import Findings
from retrainer.api.layout import DEFAULT_CACHE, join, parent
from retrainer.api.names import API_VERSION, KIND, run_name
from retrainer.api.pod import Pod
from retrainer.api.status import RetrainJobStatus


class Storage(Model):
    """How pods reach the S3-compatible store."""

    endpoint: (
        Annotated[
            str,
            Field(max_length=512, json_schema_extra=rules.ENDPOINT.text),
            AfterValidator(rules.ENDPOINT.check),
        ]
        | None
    ) = Field(
        None,
        description="URL of the S3 server, such as http://s3.storage:7070; AWS if not given.",
    )
    region: (
        Annotated[
            str,
            Field(max_length=64, json_schema_extra=rules.REGION.text),
            AfterValidator(rules.REGION.check),
        ]
        | None
    ) = Field(
        None,
        description="Region of the buckets; us-east-1 if neither this nor the environment names it.",
    )
    secret_name: ObjectName | None = Field(
        None,
        description="Secret in the job's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
        "(AWS_SESSION_TOKEN if there is one); without it the pod's own identity is used.",
    )
    insecure: Flag = Field(False, description="Do not verify the S3 server's TLS certificate.")


class Split(Model):
    """How images are divided: a hash of the path decides, so an image stays in its set."""

    testing_percentage: Percentage = Field(
        10, description="Share of images kept for the test, percent."
    )
    validation_percentage: Percentage = Field(
        10, description="Share of images kept for validation during the training, percent."
    )
    group_duplicates: Flag = Field(
        False,
        description="Keep images that show the same in one set, so that none is tested that was trained "
        "on; where a manifest names the set of an image, that stays.",
    )

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.testing_percentage + self.validation_percentage >= 100:
            raise rules.PERCENTAGES.refusal(
                f"{self.testing_percentage} + {self.validation_percentage}"
            )
        return self


class Optimizer(StrEnum):
    """How a step follows the gradient."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    ADAM = "adam"


class Sampling(StrEnum):
    """How a batch is drawn."""

    PER_LABEL = "perLabel"
    UNIFORM = "uniform"


class Solver(StrEnum):
    """How the minimum of the head's loss is searched."""

    SGD = "sgd"
    LBFGS = "lbfgs"


Rates = Annotated[
    list[Annotated[Number, Field(le=1e9)]], Field(min_length=1, max_length=rules.SWEEP_MAX)
]
Strengths = Annotated[
    list[Annotated[Number, Field(ge=0, le=1e6)]], Field(min_length=1, max_length=rules.SWEEP_MAX)
]


class Sweep(Model):
    """Every combination of these values is trained at once, on the one matrix of bottlenecks.

    The one with the lowest cross entropy on the validation images is chosen and trained alone.
    """

    learning_rate: Rates | None = Field(
        None, description="Learning rates to try; training.learningRate if not given."
    )
    l2: Strengths | None = Field(None, description="L2 strengths to try; training.l2 if not given.")

    @field_validator("learning_rate")
    @classmethod
    def _above_zero(cls, value: list[float] | None) -> list[float] | None:
        for rate in value or ():
            if rate < rules.LEARNING_RATE_LEAST:
                raise rules.LEARNING_RATE.refusal(f"{rate:g}")
        return value

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if not self.learning_rate and not self.l2:
            raise ValueError(rules.SWEEP_OF_SOMETHING.message)
        if len(self.learning_rate or " ") * len(self.l2 or " ") > rules.SWEEP_MAX:
            raise ValueError(rules.SWEEP_SIZE.message)
        return self


class EarlyStopping(Model):
    """Stop when the validation accuracy no longer gets better, and keep the best head."""

    patience: Whole = Field(
        ge=1,
        le=100_000,
        description="Stop after this many evaluations without a better validation accuracy.",
    )


BatchSize = Annotated[Whole, Field(ge=-1, le=1_000_000)]


class Training(Model):
    """How the head is trained."""

    solver: Solver = Field(
        Solver.SGD,
        description="sgd takes steps as retrain.py does; lbfgs goes to the minimum of the loss over all "
        "training images, each counted once: learningRate, steps, batchSize, sampling and optimizer are "
        "of sgd only.",
    )
    steps: Whole = Field(4000, ge=1, le=10_000_000, description="Training steps of sgd.")
    learning_rate: Number = Field(0.01, le=1e9, description="Factor on the gradient in each step.")
    batch_size: BatchSize = Field(
        100, description="Images per step, drawn with replacement; -1 is the whole training set."
    )
    eval_interval: Whole = Field(
        10, ge=1, le=10_000_000, description="Steps between two evaluations."
    )
    validation_batch_size: BatchSize = Field(
        -1,
        description="Images per validation, drawn with replacement as retrain.py draws 100; "
        "-1 is the whole validation set.",
    )
    test_batch_size: BatchSize = Field(
        -1, description="Images of the final test; -1 is the whole test set."
    )
    seed: Whole = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Equal seeds give equal heads on one CPU type and container image.",
    )
    optimizer: Optimizer = Field(Optimizer.SGD, description="sgd, momentum (0.9) or adam.")
    sampling: Sampling = Field(
        Sampling.PER_LABEL,
        description="perLabel draws the label first, then an image of it, as retrain.py does; "
        "uniform gives every image the same chance.",
    )
    l2: Annotated[Number, Field(ge=0, le=1e6)] | None = Field(
        None,
        description="Weight decay: l2/2 times the sum of the squared weights is added to the loss. If "
        "not given, 0 with sgd; with lbfgs 20 values from 1e-6 to 1 are tried as by sweep.",
    )
    sweep: Sweep | None = Field(
        None, description="Values to choose from on the validation images; none if not given."
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Off if not given. The whole validation set is then used each time."
    )

    @field_validator("learning_rate")
    @classmethod
    def _above_zero(cls, value: float) -> float:
        if value < rules.LEARNING_RATE_LEAST:
            raise rules.LEARNING_RATE.refusal(f"{value:g}")
        return value

    @model_validator(mode="after")
    def _fits_its_solver(self) -> Self:
        swept = self.sweep.learning_rate if self.sweep else None
        if self.solver is Solver.LBFGS and swept:
            raise ValueError(rules.SWEEP_SOLVER.message)
        if self.early_stopping and (self.solver is Solver.LBFGS or self.sweep):
            raise ValueError(rules.EARLY_STOPPING_ALONE.message)
        return self

    @property
    def chooses(self) -> bool:
        """Whether values are chosen on the validation images."""
        return self.sweep is not None or (self.solver is Solver.LBFGS and self.l2 is None)

    @field_validator("batch_size", "validation_batch_size", "test_batch_size")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise rules.batch_size("").refusal(0)
        return value


class Distortions(Model):
    """Distorted copies of the training images, as retrain.py makes them."""

    flip_left_right: Flag = Field(False, description="Mirror half of the copies.")
    random_crop: Whole = Field(
        0, ge=0, le=90, description="Margin cropped away at random, percent."
    )
    random_scale: Whole = Field(
        0, ge=0, le=500, description="Size scaled up by at most this, percent."
    )
    random_brightness: Whole = Field(
        0,
        ge=0,
        le=100,
        description="Brightness multiplied by 1 plus or minus at most this, percent.",
    )
    views: Whole = Field(4, ge=1, le=64, description="Distorted copies per training image.")

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if not (
            self.flip_left_right or self.random_crop or self.random_scale or self.random_brightness
        ):
            raise ValueError(rules.DISTORTED_VIEWS.message)
        return self


class Export(StrEnum):
    """File formats of the finished network (backbone and head in one)."""

    SAVED_MODEL = "savedModel"
    TFLITE = "tflite"
    TFLITE_INT8 = "tfliteInt8"
    KERAS = "keras"
    FROZEN_GRAPH = "frozenGraph"
    ONNX = "onnx"


def _leave_images_out(schema: dict[str, Any]) -> None:
    """Take `images` off the required fields: a manifest stands for it, as a rule of the CRD says."""
    schema["required"].remove("images")


USUAL_EXPORTS = (Export.SAVED_MODEL, Export.TFLITE)
"""What is exported of a network of the list where the job does not say."""


def backbone_formats(url: str) -> list[Export]:
    """List the formats in which the backbone at `url` may be exported, by what its name says."""
    if url.endswith(ONNX_SUFFIX):
        return [Export.ONNX]
    return [Export.TFLITE] if url.endswith(TFLITE_SUFFIX) else [Export.ONNX, Export.TFLITE]


class RetrainJobSpec(Model):
    """What to retrain, on which images, and where the result goes."""

    model_config = ConfigDict(json_schema_extra=_leave_images_out)

    architecture: (
        Annotated[str, Field(max_length=64, json_schema_extra=rules.ARCHITECTURE.text)] | None
    ) = Field(None, description=f"{NAMES}; or give backbone.")
    backbone: BackboneSource | None = Field(
        None,
        validate_default=True,
        description="A frozen network of your own, instead of architecture.",
    )
    images: Url = Field(
        description="URL of the images: one folder per label. With a manifest its paths are relative to "
        "this; the folder that the manifest lies in if not given."
    )
    manifest: FileUrl | None = Field(
        None,
        description="URL of a list of images with path and label, and perhaps split and group, instead "
        "of label folders: CSV, TSV, JSON Lines or Parquet, or as Vertex AI, SageMaker, Hugging Face or "
        "Label Studio have it.",
    )
    corrections: FileUrl | None = Field(
        None,
        description="URL of a corrections.csv, as the page of a run or `retrainer findings --write` "
        "gives it: images to relabel, drop or keep.",
    )
    output: Url = Field(
        description="URL under which the run's folder <name>-<first 8 of uid> is written."
    )
    cache: Url | None = Field(
        None,
        description="URL of the bottleneck cache, shared by jobs that name the same; "
        "<output>/.bottlenecks if not given.",
    )
    weights: WeightsUrl = Field(
        "imagenet",
        description="imagenet (Keras Applications' download), builtin (only for mobilenet_0.25_128), "
        "or the URL of a Keras weights file or of a folder of them.",
    )
    storage: Storage = Field(default_factory=Storage, description="How pods reach the store.")
    shards: Whole = Field(
        1,
        ge=1,
        le=10_000,
        description="Pods that compute bottlenecks at the same time; at most the operator's maxShards.",
    )
    split: Split = Field(default_factory=Split, description="How images are divided.")
    training: Training = Field(default_factory=Training, description="How the head is trained.")
    distortions: Distortions | None = Field(
        None, description="Distorted copies of training images; none if not given."
    )
    findings: Findings = Field(
        default_factory=Findings, description="What is looked for among the images."
    )
    export: Annotated[list[Export], Field(min_length=1, max_length=6)] | None = Field(
        None,
        description="Formats of the finished network; savedModel and tflite if not given, or of a "
        "backbone its own format.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    max_rejected_fraction: Number = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of unreadable images (0 to 1) above which the job fails.",
    )
    suspend: Flag = Field(False, description="No pod runs while true; finished bottlenecks stay.")
    active_deadline_seconds: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="Seconds, from the first start, after which the job fails."
    )
    ttl_seconds_after_finished: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seconds after the end at which the job is deleted; its run is kept."
    )
    backoff_limit: Whole = Field(
        3, ge=0, le=1000, description="Retries of a failed pod, per shard."
    )
    pod: Pod = Field(default_factory=Pod, description="Where and with what the trainer pods run.")

    @model_validator(mode="before")
    @classmethod
    def _images_beside_the_manifest(cls, value: object) -> object:
        """Take the manifest's folder for `images` where only the manifest is given."""
        if not isinstance(value, Mapping) or value.get("images") is not None:
            return value
        manifest = value.get("manifest")
        return {**value, "images": parent(manifest)[0]} if isinstance(manifest, str) else value

    @field_validator("architecture")
    @classmethod
    def _is_of_the_list(cls, value: str | None) -> str | None:
        if value is not None:
            architecture(value)
        return value

    @field_validator("backbone")
    @classmethod
    def _is_the_only_network(
        cls, value: BackboneSource | None, info: ValidationInfo
    ) -> BackboneSource | None:
        if "architecture" in info.data and (info.data["architecture"] is None) == (value is None):
            raise ValueError(rules.ONE_NETWORK.message)
        return value

    @field_validator("output")
    @classmethod
    def _not_among_the_images(cls, value: str, info: ValidationInfo) -> str:
        images = info.data.get("images", "//").rstrip("/") + "/"
        if not info.data.get("manifest") and f"{value}/".startswith(images):
            raise rules.OUTPUT_APART.refusal(repr(value))
        return value

    @field_validator("export")
    @classmethod
    def _once(cls, value: list[Export] | None) -> list[Export] | None:
        if value and len(set(value)) != len(value):
            raise rules.EXPORT_ONCE.refusal(", ".join(value))
        return value

    @field_validator("export")
    @classmethod
    def _in_its_own_format(
        cls, value: list[Export] | None, info: ValidationInfo
    ) -> list[Export] | None:
        backbone = info.data.get("backbone")
        if value and backbone and not set(value) <= set(backbone_formats(backbone.url)):
            raise rules.EXPORT_OF_BACKBONE.refusal(", ".join(value))
        return value

    @field_validator("weights")
    @classmethod
    def _builtin_has_one_architecture(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("backbone") and value != "imagenet":
            raise ValueError(rules.WEIGHTS_OF_LIST.message)
        name = info.data.get("architecture") or "mobilenet_0.25_128"
        if value == "builtin" and architecture(name).backbone != "mobilenet_0.25_128":
            raise rules.BUILTIN.refusal(name)
        return value

    @field_validator("training")
    @classmethod
    def _watches_something(cls, value: Training, info: ValidationInfo) -> Training:
        split = info.data.get("split")
        watched = value.early_stopping or value.chooses
        if watched and split is not None and not split.validation_percentage:
            raise ValueError(rules.VALIDATION_CHOOSES.message)
        return value

    @property
    def cache_url(self) -> str:
        """URL of the bottleneck cache, the default filled in."""
        return self.cache or join(self.output, DEFAULT_CACHE)

    @property
    def network(self) -> str:
        """The network's name for people: its architecture, or the name of its backbone."""
        return self.architecture or (self.backbone.name if self.backbone else "")

    @property
    def tensorflow_field(self) -> str | None:
        """The first field, with its value, that needs TensorFlow; None if the job needs none."""
        for form in (Export.KERAS, Export.TFLITE_INT8):
            if form in (self.export or ()):
                return f"spec.export: {form}"
        if self.architecture is None:
            return None
        if architecture(self.architecture).quantized:
            return f"spec.architecture: {self.architecture}"
        if self.pod.resources and (gpu := self.pod.resources.gpu):
            return f"spec.pod.resources: {gpu}"
        return None


class Metadata(BaseModel):
    """The part of a Kubernetes object's metadata that Retrainer reads; the rest passes through."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    name: Annotated[str, AfterValidator(rules.NAME_FORM.check)]
    namespace: str | None = None
    uid: str | None = None
    labels: MetadataLabels = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    generation: int | None = None
    resource_version: str | None = None


class RetrainJob(Model):
    """Retrains the last layer of an ImageNet network on labelled images."""

    api_version: str = Field(API_VERSION, pattern=f"^{API_VERSION}$")
    kind: str = Field(KIND, pattern=f"^{KIND}$")
    metadata: Metadata
    spec: RetrainJobSpec
    status: RetrainJobStatus = Field(default_factory=RetrainJobStatus)

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """`metadata.namespace`, `default` if not set."""
        return self.metadata.namespace or "default"

    @property
    def run_url(self) -> str:
        """URL of the run's folder; needs `metadata.uid`."""
        if not self.metadata.uid:
            raise ValueError("a job has a run only once it has a uid")
        return join(self.spec.output, run_name(self.name, self.metadata.uid))
