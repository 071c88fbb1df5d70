"""`spec.pod`: where and with what the trainer pods run, as in a Pod of Kubernetes."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from retrainer.api import rules
from retrainer.api.fields import Annotations, Labels, Model, ObjectName, Quantities, Whole


class Resources(Model):
    """Compute resources, as in a container of a Pod."""

    limits: Quantities = Field(default_factory=dict, description="At most this much.")
    requests: Quantities = Field(default_factory=dict, description="At least this much.")

    @property
    def gpu(self) -> str | None:
        """Name of the GPU that is asked for, such as nvidia.com/gpu; None if there is none."""
        names = sorted(name for name, amount in self.limits.items() if rules.amount(amount) > 0)
        return next((n for n in names if n.startswith("nvidia.com/") or n.endswith("/gpu")), None)

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Self:
        for name, request in self.requests.items():
            limit = self.limits.get(name, request)
            if rules.amount(request) > rules.amount(limit):
                raise rules.REQUESTS.refusal(f"{name} {request} above {limit}")
        return self


class TolerationOperator(StrEnum):
    """How a toleration's key is matched."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A toleration, with the fields that a Pod's has."""

    key: Annotated[str, Field(max_length=317)] | None = Field(None, description="Key of the taint.")
    operator: TolerationOperator | None = Field(None, description="Exists or Equal.")
    value: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Value of the taint."
    )
    effect: TaintEffect | None = Field(None, description="Effect of the taint; all if not given.")
    toleration_seconds: Annotated[Whole, Field(ge=-(2**31), le=2**31 - 1)] | None = Field(
        None, description="For NoExecute: how long to stay."
    )

    @model_validator(mode="after")
    def _as_in_a_pod(self) -> Self:
        if self.value and self.operator is TolerationOperator.EXISTS:
            raise ValueError(rules.TOLERATION_VALUE.message)
        if not self.key and self.operator is not TolerationOperator.EXISTS:
            raise ValueError(rules.TOLERATION_KEY.message)
        if self.toleration_seconds is not None and self.effect is not TaintEffect.NO_EXECUTE:
            raise ValueError(rules.TOLERATION_SECONDS.message)
        return self


class Pod(Model):
    """Where and with what the trainer pods run; nothing here changes what they run."""

    resources: Resources | None = Field(
        None,
        description="Requests and limits; the operator's defaults for what neither names.",
    )
    node_selector: Labels = Field(
        default_factory=dict,
        description="Labels a node must have; the operator's defaults if not given.",
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=32,
        description="Taints that the pods tolerate, with keys of the operator's allowedTolerationKeys; "
        "its defaults if not given.",
    )
    affinity: dict[str, Any] | None = Field(
        None,
        description="As in a Pod; the operator's default if not given.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )
    priority_class_name: ObjectName | None = Field(
        None,
        description="One of the operator's allowedPriorityClasses; its default if not given.",
    )
    service_account_name: ObjectName | None = Field(
        None, description="One of the operator's allowedServiceAccounts; its default if not given."
    )
    labels: Labels = Field(
        default_factory=dict,
        description="Added to the pods; keys need a prefix the operator allows.",
    )
    annotations: Annotations = Field(
        default_factory=dict,
        description="Added to the pods; keys need a prefix the operator allows.",
    )
