"""Settings, read once at start from the environment, which the chart sets.

| variable | default | meaning |
|---|---|---|
| RETRAINER_TRAINER_IMAGE | required | container image of the trainer pods |
| RETRAINER_TRAINER_TENSORFLOW_IMAGE | that of the others | the same with \
TensorFlow, for jobs that need it |
| RETRAINER_IMAGE_PULL_POLICY | IfNotPresent | Always, IfNotPresent or Never |
| RETRAINER_IMAGE_PULL_SECRETS | none | names, comma between them; in the job's namespace |
| RETRAINER_TRAINER_SERVICE_ACCOUNT | the namespace's default | ServiceAccount of the trainer pods |
| RETRAINER_ALLOWED_SERVICE_ACCOUNTS | none | further ones that `spec.pod.serviceAccountName` may name |
| RETRAINER_ALLOWED_POD_METADATA_PREFIXES | none | prefixes that keys of `spec.pod.labels` and \
`annotations` may have, such as `example.com/` |
| RETRAINER_ALLOWED_PRIORITY_CLASSES | none | further ones that `spec.pod.priorityClassName` may name |
| RETRAINER_ALLOWED_TOLERATION_KEYS | none | further keys in `spec.pod.tolerations`; `*`: any |
| RETRAINER_MAX_SHARDS | 100 | most that `spec.shards` may ask for |
| RETRAINER_TRAINER_RESOURCES | 1 CPU, 2Gi asked; 4Gi at most | JSON: `{"requests": {}, "limits": {}}`, \
each for what a job's `spec.pod.resources` does not name |
| RETRAINER_TRAINER_SCHEDULING | none | JSON: `{"nodeSelector": {}, "tolerations": [], "affinity": {}, \
"priorityClassName": ""}`, each for jobs whose `spec.pod` does not say its own |
| RETRAINER_NAMESPACES | all | namespaces to serve, comma between them; empty is cluster-wide |
| POD_NAME | host name and a random part | this replica's identity on the Lease; must be its alone |
| POD_NAMESPACE | default | where the Lease is |
| RETRAINER_LEASE_NAME | retrainer-operator | name of the Lease |
| RETRAINER_BIND_ADDRESS | all | address that /metrics and the probes listen on |
| RETRAINER_METRICS_PORT | 8080 | /metrics |
| RETRAINER_PROBE_PORT | 8081 | /healthz and /readyz |
| RETRAINER_LOG_LEVEL | info | debug, info, warning or error |
| RETRAINER_LOG_FORMAT | text | text or json |
| RETRAINER_RESYNC_SECONDS | 300 | between two full lists at most; every 15 s where one takes little. \
Rights in namespaces left out are checked as often, at least each minute |

Lists are given with commas; blanks around their entries are dropped. The API server is the pod's own,
or, outside a cluster, that of KUBECONFIG.
"""

import json
import secrets
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from retrainer.api import Pod, Resources
from retrainer.errors import UserError

# A MobileNet job needs about 0.8 GiB with TensorFlow imported for the export, since images are streamed;
# the limit leaves room for Inception V3 and the bottlenecks of 100,000 images.
_DEFAULT_RESOURCES = Resources(
    requests={"cpu": "1", "memory": "2Gi"}, limits={"memory": "4Gi", "ephemeral-storage": "8Gi"}
)


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (p.strip() for p in value.split(",")) if part)
    return value


def _parse(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _drop_empty(value: Any) -> Any:
    """Drop empty fields: the chart gives every field."""
    value = _parse(value)
    return {k: v for k, v in value.items() if v} if isinstance(value, dict) else value


def _unique_identity() -> str:
    """An identity that no other process has: two of them on one host would take each other's Lease."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """Everything that can be set from outside; never changed after start."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    trainer_image: Annotated[str, Field(min_length=1)] = Field(alias="RETRAINER_TRAINER_IMAGE")
    trainer_tensorflow_image: str = Field("", alias="RETRAINER_TRAINER_TENSORFLOW_IMAGE")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", alias="RETRAINER_IMAGE_PULL_POLICY"
    )
    image_pull_secrets: Names = Field((), alias="RETRAINER_IMAGE_PULL_SECRETS")
    trainer_service_account: str = Field("", alias="RETRAINER_TRAINER_SERVICE_ACCOUNT")
    allowed_service_accounts: Names = Field((), alias="RETRAINER_ALLOWED_SERVICE_ACCOUNTS")
    allowed_pod_metadata_prefixes: Names = Field(
        (), alias="RETRAINER_ALLOWED_POD_METADATA_PREFIXES"
    )
    allowed_priority_classes: Names = Field((), alias="RETRAINER_ALLOWED_PRIORITY_CLASSES")
    allowed_toleration_keys: Names = Field((), alias="RETRAINER_ALLOWED_TOLERATION_KEYS")
    max_shards: Annotated[int, Field(ge=1)] = Field(100, alias="RETRAINER_MAX_SHARDS")
    trainer_resources: Annotated[Resources, BeforeValidator(_parse)] = Field(
        _DEFAULT_RESOURCES, alias="RETRAINER_TRAINER_RESOURCES"
    )
    trainer_scheduling: Annotated[Pod, BeforeValidator(_drop_empty)] = Field(
        Pod(), alias="RETRAINER_TRAINER_SCHEDULING"
    )
    namespaces: Names = Field((), alias="RETRAINER_NAMESPACES")
    identity: str = Field(default_factory=_unique_identity, alias="POD_NAME")
    namespace: str = Field("default", alias="POD_NAMESPACE")
    lease: Annotated[str, Field(min_length=1)] = Field(
        "retrainer-operator", alias="RETRAINER_LEASE_NAME"
    )
    bind_address: str | None = Field(None, alias="RETRAINER_BIND_ADDRESS")
    metrics_port: Port = Field(8080, alias="RETRAINER_METRICS_PORT")
    probe_port: Port = Field(8081, alias="RETRAINER_PROBE_PORT")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="RETRAINER_LOG_LEVEL"
    )
    log_format: Literal["text", "json"] = Field("text", alias="RETRAINER_LOG_FORMAT")
    resync_seconds: Annotated[float, Field(ge=1)] = Field(300, alias="RETRAINER_RESYNC_SECONDS")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from `environment`, such as os.environ; an empty variable counts as unset.

        Raises:
            UserError: one sentence per wrong variable, naming it.
        """
        names = {field.alias for field in cls.model_fields.values()}
        given = {n: v for n, v in environment.items() if n in names and v.strip()}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc']))}: "
                + ("must be set" if e["type"] == "missing" else f"{e['msg']}, got {e['input']!r}")
                for e in error.errors()
            ]
            raise UserError("Wrong settings: " + "; ".join(dict.fromkeys(problems))) from error

    @property
    def priority_classes(self) -> frozenset[str]:
        """The names that `spec.pod.priorityClassName` may have."""
        usual = self.trainer_scheduling.priority_class_name or ""
        return frozenset({usual, *self.allowed_priority_classes} - {""})

    @property
    def toleration_keys(self) -> frozenset[str]:
        """The keys that `spec.pod.tolerations` may have; `*` stands for all, and for none."""
        usual = {toleration.key or "*" for toleration in self.trainer_scheduling.tolerations}
        return frozenset({*usual, *self.allowed_toleration_keys})

    @property
    def service_accounts(self) -> frozenset[str]:
        """The names that `spec.pod.serviceAccountName` may have."""
        return frozenset({self.trainer_service_account, *self.allowed_service_accounts} - {""})
