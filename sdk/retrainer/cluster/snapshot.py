"""A RetrainJob as the API server gave it last: what `Job`, its table and its progress show."""

from abc import ABC, abstractmethod
from datetime import datetime

from retrainer.api import (
    FINISHED,
    Curve,
    Metrics,
    Phase,
    Progress,
    Report,
    RetrainJobSpec,
    RetrainJobStatus,
    architecture,
    parse_job,
)
from retrainer.api.backbone import backbone_name
from retrainer.api.layout import DEFAULT_CACHE, join
from retrainer.api.names import TASK_TRAIN, run_name
from retrainer.api.status import UNSEEN
from retrainer.cluster.events import moment
from retrainer.cluster.requests import Document
from retrainer.views.text import one_line


class JobSnapshot(ABC):
    """A RetrainJob as it was when it was last read."""

    @property
    @abstractmethod
    def _document(self) -> Document:
        """The object as the API server gave it last."""

    @property
    @abstractmethod
    def status(self) -> RetrainJobStatus:
        """What the operator has written."""

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
        """`spec.architecture`; "" with a backbone."""
        return str(self._document["spec"].get("architecture", ""))

    @property
    def network(self) -> str:
        """Its architecture, or the name of its backbone."""
        backbone = self._document["spec"].get("backbone") or {}
        return self.architecture or backbone_name(str(backbone.get("url", "")))

    @property
    def spec(self) -> RetrainJobSpec:
        """The spec, checked.

        Raises:
            InvalidJob: this version of Retrainer does not know all of it.
        """
        return parse_job(self._without_status(), where=self.name).spec

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
    def sentence(self) -> str:
        """The operator's sentence, or what is missing for one; on one line, safe to print."""
        return one_line(self.message or self.reason or str(UNSEEN.message))

    @property
    def report(self) -> Report:
        """What the job has done so far, in the form that a run on this machine reports it in."""
        status = self.status
        curve = Curve()
        for point in status.curve:
            curve.add(point)
        return Report(
            task=TASK_TRAIN,
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            stage=self.phase,
            reason=self.reason,
            message=self.sentence,
            progress=status.progress or Progress(),
            metrics=status.metrics or Metrics(),
            curve=curve,
            label_count=status.label_count,
            run=self.run_url,
            artifacts=status.artifacts,
        )

    def to_dict(self) -> Document:
        """Copy the whole object as Kubernetes has it; changing the copy changes nothing."""
        return dict(self._document)

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of the frozen network for one image; None for an unknown architecture."""
        try:
            return architecture(self.architecture).multiply_adds
        except ValueError:
            return None

    def _without_status(self) -> Document:
        return {key: value for key, value in self._document.items() if key != "status"}
