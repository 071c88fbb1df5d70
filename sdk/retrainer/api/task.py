"""The Task that a pod is given, and the Report that it gives back."""

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from retrainer.api.fields import Wire
from retrainer.api.findings import FindingCounts
from retrainer.api.layout import join
from retrainer.api.names import run_name
from retrainer.api.status import CURVE_MAX, CurvePoint, Metrics, Phase, Progress, SweepStatus
from retrainer.api.v1alpha1 import RetrainJob, RetrainJobSpec

TERMINATION_MAX_BYTES = 4096
"""Bytes that the kubelet keeps of a termination message."""
MESSAGE_MAX_BYTES = 512
DECIMALS = 4
SMALL = 1e-3

# Fields of the spec that only the operator uses; they are left out of a pod's Task.
_OPERATOR_ONLY = {
    "suspend",
    "active_deadline_seconds",
    "ttl_seconds_after_finished",
    "backoff_limit",
    "pod",
}


TaskName = Literal["bottlenecks", "train", "check", "plan"]
"""What a trainer can be asked to do; pods are given the first two only."""


class Task(Wire):
    """One pod's work. The shard comes from the environment (`JOB_COMPLETION_INDEX`)."""

    task: TaskName
    name: str
    namespace: str = "default"
    uid: str
    shards: int = 1
    decode: bool = False
    """Of a check: decode every image, where reading its header would be enough."""
    spec: RetrainJobSpec

    @classmethod
    def of(cls, job: RetrainJob, task: TaskName, *, decode: bool = False) -> Self:
        """Make the task of this kind for `job`, which has a uid."""
        if not job.metadata.uid:
            raise ValueError("a job has tasks only once it has a uid")
        return cls(
            task=task,
            name=job.name,
            namespace=job.namespace,
            uid=job.metadata.uid,
            shards=job.spec.shards,
            decode=decode,
            spec=job.spec,
        )

    @property
    def run_url(self) -> str:
        """URL of the run's folder."""
        return join(self.spec.output, run_name(self.name, self.uid))

    def to_json(self) -> str:
        """Compact JSON, without what only the operator acts on and without defaults."""
        return self.model_dump_json(
            by_alias=True,
            exclude_none=True,
            exclude_defaults=True,
            exclude={"spec": _OPERATOR_ONLY},
        )


class Curve(Wire):
    """The learning curve as parallel arrays, one entry per evaluation."""

    step: list[int] = Field(default_factory=list)
    training_accuracy: list[float | None] = Field(default_factory=list)
    validation_accuracy: list[float | None] = Field(default_factory=list)
    cross_entropy: list[float | None] = Field(default_factory=list)
    validation_cross_entropy: list[float | None] = Field(default_factory=list)

    def add(self, point: CurvePoint) -> None:
        """Append one evaluation."""
        self.step.append(point.step)
        self.training_accuracy.append(point.training_accuracy)
        self.validation_accuracy.append(point.validation_accuracy)
        self.cross_entropy.append(point.cross_entropy)
        self.validation_cross_entropy.append(point.validation_cross_entropy)

    def points(self) -> list[CurvePoint]:
        """Give a list of points; uneven arrays (of a broken report) are cut to the shortest."""
        rows = zip(
            self.step,
            self.training_accuracy,
            self.validation_accuracy,
            self.cross_entropy,
            self.validation_cross_entropy,
            strict=False,
        )
        return [
            CurvePoint(
                step=s,
                training_accuracy=ta,
                validation_accuracy=va,
                cross_entropy=ce,
                validation_cross_entropy=vce,
            )
            for s, ta, va, ce, vce in rows
        ]

    def thinned(self, most: int = CURVE_MAX) -> "Curve":
        """At most `most` points, evenly spread, the first and the last among them."""
        n = len(self.step)
        if n <= most:
            return self
        keep = [round(i * (n - 1) / (most - 1)) for i in range(most)]
        fields = self.model_dump()
        return Curve(**{name: [values[i] for i in keep] for name, values in fields.items()})


class Report(Wire):
    """What a task has done so far, or did.

    Served live as JSON at `:9464/report`, written as `result.json` into the run's folder, and cut to
    fit as the pod's termination message. Accuracies are shares (0 to 1), cross entropies in nats.
    """

    task: TaskName
    name: str = Field(max_length=256)
    namespace: str = Field("default", max_length=256)
    uid: str = Field(max_length=64)
    shard: int = 0
    stage: Phase = Phase.BOTTLENECKS
    reason: str = Field("", max_length=128)
    message: str = Field("", max_length=8192)
    progress: Progress = Field(default_factory=Progress)
    metrics: Metrics = Field(default_factory=Metrics)
    curve: Curve = Field(default_factory=Curve)
    sweep: SweepStatus | None = None
    label_count: int | None = None
    findings: FindingCounts | None = None
    run: str | None = None
    artifacts: dict[str, Annotated[str, Field(max_length=256)]] = Field(default_factory=dict)
    images_per_second: float | None = None
    seconds: float | None = None
    warnings: list[str] = Field(default_factory=list)

    def to_json(self) -> str:
        """Everything, JSON on one line, numbers rounded to 4 decimals."""
        return _compact(self)

    def termination_message(self) -> str:
        """At most 4,096 bytes of JSON: 20 curve points, a message of 512 bytes, no warnings."""
        cut = self.model_copy(
            update={
                "curve": self.curve.thinned(),
                "message": shorten(self.message, MESSAGE_MAX_BYTES),
                "warnings": [],
            }
        )
        return _compact(cut)


def _compact(report: Report) -> str:
    fields = report.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(rounded(fields), separators=(",", ":"), ensure_ascii=False)


def rounded(value: Any) -> Any:
    """Round every float in `value` to 4 decimals, a small one to 4 digits.

    NaN and infinities become None.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # A small one (an L2 of 1e-6) keeps as many digits, not as many decimals.
        return float(f"{value:.{DECIMALS}g}") if abs(value) < SMALL else round(value, DECIMALS)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return value


def shorten(text: str, most: int) -> str:
    """`text` in at most `most` bytes of UTF-8, cut between characters, `...` where it was cut."""
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: most - 3].decode(errors="ignore") + "..."
