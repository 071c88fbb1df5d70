"""`status` of a RetrainJob: what the operator has observed."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from retrainer.api import reasons
from retrainer.api.fields import URL_MAX, Model
from retrainer.api.findings import FindingCounts


class Phase(StrEnum):
    """Where a job is, in one word."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    BOTTLENECKS = "Bottlenecks"
    TRAINING = "Training"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


FINISHED = frozenset({Phase.SUCCEEDED, Phase.FAILED})


class ConditionStatus(StrEnum):
    """The status of a condition, with the three values that Kubernetes has."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class _StatusModel(Model):
    """Base of what a status holds: what a later version writes is left alone, not refused."""

    model_config = ConfigDict(extra="ignore")


class Condition(_StatusModel):
    """A condition, with the fields of meta/v1 Condition."""

    # The API server asks for all of them, as of any condition; older ones without are read as well.
    model_config = ConfigDict(
        json_schema_extra={
            "required": ["type", "status", "reason", "message", "lastTransitionTime"]
        }
    )

    type: str = Field(
        max_length=64, description="Suspended, BottlenecksReady, Complete, Failed or Stalled."
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field("", max_length=128, description="One word for scripts.")
    message: str = Field("", max_length=1024, description="One sentence for people.")
    last_transition_time: str = Field(
        "", json_schema_extra={"format": "date-time"}, description="When status last changed."
    )
    observed_generation: int | None = Field(
        None, description="Generation of the spec it refers to."
    )


class Progress(_StatusModel):
    """How far the job is; counts are images unless said otherwise."""

    percent: int | None = Field(None, description="Of the whole job, 0 to 100.")
    remaining_seconds: int | None = Field(None, description="Estimate of the time left, seconds.")
    images_total: int | None = Field(None, description="Images listed.")
    images_cached: int | None = Field(None, description="Bottlenecks found in the cache.")
    cached_percent: int | None = Field(
        None, description="Share of the readable images found in the cache, percent."
    )
    images_computed: int | None = Field(None, description="Bottlenecks computed by this job.")
    images_rejected: int | None = Field(None, description="Images that could not be read.")
    step: int | None = Field(None, description="Training steps done.")
    steps: int | None = Field(None, description="Training steps in all.")

    @model_validator(mode="after")
    def _share_cached(self) -> Self:
        """Compute the share from the counts, so that no writer has to; kubectl cannot divide."""
        readable = (self.images_total or 0) - (self.images_rejected or 0)
        if readable > 0 and self.images_cached is not None:
            self.cached_percent = min(100, 100 * self.images_cached // readable)
        return self


FOR_KUBECTL = frozenset({"complete", "cached", "accuracy"})
"""Fields that say for kubectl what others say: it can neither put a % behind a number nor divide."""


class JobProgress(Progress):
    """How far a job on a cluster is, with what kubectl prints."""

    complete: str | None = Field(
        None, max_length=8, description="`percent` as kubectl prints it, such as 87%."
    )
    cached: str | None = Field(
        None, max_length=8, description="`cachedPercent` as kubectl prints it, such as 12%."
    )

    @model_validator(mode="after")
    def _printed(self) -> Self:
        self.complete = None if self.percent is None else f"{self.percent}%"
        self.cached = None if self.cached_percent is None else f"{self.cached_percent}%"
        return self

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Add what kubectl prints."""
        return cls(**progress.model_dump(exclude={"cached_percent", *FOR_KUBECTL}))


class Metrics(_StatusModel):
    """Accuracies are shares (0 to 1), cross entropies in nats; all of the latest evaluation."""

    training_accuracy: float | None = Field(
        None, description="On the step's training batch, 0 to 1."
    )
    validation_accuracy: float | None = Field(None, description="On validation images, 0 to 1.")
    cross_entropy: float | None = Field(None, description="On the step's training batch, nats.")
    validation_cross_entropy: float | None = Field(None, description="On validation images, nats.")
    test_accuracy: float | None = Field(None, description="Final, on the test images, 0 to 1.")
    test_images: int | None = Field(None, description="Number of test images.")


class JobMetrics(Metrics):
    """The figures of a job on a cluster, with what kubectl prints."""

    accuracy: str | None = Field(
        None, max_length=8, description="`testAccuracy` as kubectl prints it, such as 89.7%."
    )

    @model_validator(mode="after")
    def _printed(self) -> Self:
        self.accuracy = None if self.test_accuracy is None else f"{self.test_accuracy:.1%}"
        return self

    @classmethod
    def of(cls, metrics: Metrics) -> Self:
        """Add what kubectl prints."""
        return cls(**metrics.model_dump(exclude=set(FOR_KUBECTL)))


class CurvePoint(_StatusModel):
    """One evaluation of the learning curve."""

    step: int = Field(description="Training steps done.")
    training_accuracy: float | None = Field(None, description="0 to 1.")
    validation_accuracy: float | None = Field(None, description="0 to 1.")
    cross_entropy: float | None = Field(None, description="Nats.")
    validation_cross_entropy: float | None = Field(None, description="Nats.")


class SweepChoice(Model):
    """The values that a sweep chose."""

    learning_rate: float | None = Field(None, description="With solver sgd.")
    l2: float = Field(0, description="Strength of the weight decay.")


class SweepStatus(Model):
    """What a sweep tried and chose."""

    candidates: int | None = Field(None, description="Combinations that were trained.")
    diverged: int | None = Field(None, description="Those of them that diverged.")
    chosen: SweepChoice | None = Field(
        None, description="The combination with the lowest cross entropy on the validation images."
    )


CURVE_MAX = 20
"""Points of the learning curve kept in a job's status."""


CONDITIONS_MAX = 16
"""Conditions of a job, those of other controllers included."""


class RetrainJobStatus(_StatusModel):
    """What the operator has seen."""

    observed_generation: int | None = Field(
        None, description="Generation of the spec last acted on."
    )
    phase: Phase | None = Field(None, description="Where the job is, in one word.")
    reason: str | None = Field(None, max_length=128, description="Why it is there, one word.")
    message: str | None = Field(None, max_length=1024, description="Why it is there, one sentence.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=CONDITIONS_MAX,
        description="Suspended, BottlenecksReady, Complete, Failed, Stalled (with Failed: for kstatus).",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    start_time: str | None = Field(
        None,
        json_schema_extra={"format": "date-time"},
        description="When a pod was first allowed to run; cleared by suspend.",
    )
    completion_time: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="When the job ended."
    )
    progress: JobProgress | None = Field(None, description="How far the job is.")
    metrics: JobMetrics | None = Field(None, description="Accuracies and cross entropies.")
    curve: list[CurvePoint] = Field(
        default_factory=list, max_length=CURVE_MAX, description="The learning curve, thinned."
    )
    sweep: SweepStatus | None = Field(
        None, description="What a sweep tried and chose; only where the spec asks for one."
    )
    label_count: int | None = Field(None, description="Number of labels.")
    findings: FindingCounts | None = Field(
        None, description="How many findings there are among the images; findings.parquet has them."
    )
    run: Annotated[str, Field(max_length=URL_MAX + 128)] | None = Field(
        None, description="URL of the run's folder."
    )
    artifacts: dict[str, Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=dict,
        max_length=64,
        description="Files of the run: name to path in the run's folder.",
    )

    def condition(self, kind: str) -> Condition | None:
        """Find the condition of this type, if it was ever set."""
        return next((c for c in self.conditions if c.type == kind), None)


UNSEEN = RetrainJobStatus(
    phase=Phase.PENDING,
    reason=reasons.WAITING_FOR_OPERATOR.name,
    message=reasons.WAITING_FOR_OPERATOR(),
)
"""The status that the API server gives a new job, until an operator writes one."""
