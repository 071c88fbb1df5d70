"""A RetrainJob as the API server gave it last: what `Job`, its table and its progress show."""

from datetime import datetime
from functools import cached_property

from retrainer.api import (
    FINISHED,
    Phase,
    RetrainJobSpec,
    RetrainJobStatus,
    architecture,
    parse_job,
)
from retrainer.api.layout import DEFAULT_CACHE, join
from retrainer.api.names import run_name
from retrainer.api.status import UNSEEN
from retrainer.cluster.events import moment
from retrainer.cluster.requests import Document


class JobSnapshot:
    """What a RetrainJob was when it was last read."""

    def __init__(self, document: Document) -> None:
        self._document = document

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return str(self._document["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """`metadata.namespace`."""
        return str(self._document["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """`metadata.uid`; another job of the same name has another one."""
        return str(self._document["metadata"]["uid"])

    @property
    def created(self) -> datetime:
        """When it was created, UTC."""
        return moment(self._document["metadata"].get("creationTimestamp"))

    @property
    def labels(self) -> dict[str, str]:
        """`metadata.labels`."""
        return dict(self._document["metadata"].get("labels") or {})

    @property
    def architecture(self) -> str:
        """`spec.architecture`."""
        return str(self._document["spec"].get("architecture", ""))

    @property
    def spec(self) -> RetrainJobSpec:
        """The spec, checked.

        Raises:
            InvalidJob: this version of Retrainer does not know all of it.
        """
        return parse_job(self._without_status(), where=self.name).spec

    @cached_property
    def _status(self) -> RetrainJobStatus:
        return RetrainJobStatus.model_validate(self._document.get("status") or {})

    @property
    def status(self) -> RetrainJobStatus:
        """What the operator has written."""
        return self._status

    @property
    def phase(self) -> Phase:
        """Pending until the operator has written one."""
        return self.status.phase or Phase.PENDING

    @property
    def reason(self) -> str:
        """Why it is in this phase, one word; "" before the operator saw it."""
        return self.status.reason or ""

    @property
    def message(self) -> str:
        """Why it is in this phase, one sentence; "" before the operator saw it."""
        return self.status.message or ""

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.phase in FINISHED

    @property
    def test_accuracy(self) -> float | None:
        """Final accuracy on the test images, 0 to 1; None before the end or without test images."""
        return self.status.metrics.test_accuracy if self.status.metrics else None

    @property
    def run_url(self) -> str:
        """URL of the run's folder, whether anything is in it yet or not."""
        output = str(self._document["spec"]["output"])
        return self.status.run or join(output, run_name(self.name, self.uid))

    @property
    def cache_url(self) -> str:
        """URL of its cache of bottlenecks."""
        spec = self._document["spec"]
        return str(spec.get("cache") or join(str(spec.get("output", "")), DEFAULT_CACHE))

    @property
    def said(self) -> str:
        """The operator's sentence, or what is missing for one."""
        return self.message or self.reason or str(UNSEEN.message)

    def to_dict(self) -> Document:
        """The whole object as Kubernetes has it; changing it changes nothing."""
        return dict(self._document)

    @property
    def multiply_adds(self) -> int | None:
        """Of the frozen network, for one image; None for an architecture not known here."""
        try:
            return architecture(self.architecture).multiply_adds
        except ValueError:
            return None

    def _without_status(self) -> Document:
        return {key: value for key, value in self._document.items() if key != "status"}
