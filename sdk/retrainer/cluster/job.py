"""The handle of a RetrainJob on a cluster."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retrainer.api import Metrics, Phase, RetrainJobStatus
from retrainer.api.layout import join
from retrainer.api.names import LABEL_UID, TASK_BOTTLENECKS, TASK_TRAIN, child
from retrainer.cluster import logs
from retrainer.cluster.events import Event, in_order
from retrainer.cluster.progress import watching
from retrainer.cluster.refusals import Conflict
from retrainer.cluster.requests import EVENTS, JOBS, PODS, Cluster, Document
from retrainer.cluster.snapshot import JobSnapshot
from retrainer.cluster.stop import Stop
from retrainer.errors import Interrupted, JobFailed, NotFound, UserError, WaitTimeout
from retrainer.results.history import History
from retrainer.store.s3 import Access
from retrainer.watcher import Watcher

if TYPE_CHECKING:
    from retrainer.api.corrections import Correction
    from retrainer.inference.classifier import Image, Prediction
    from retrainer.results.comparison import Comparison
    from retrainer.results.rows import CatalogRow, Combination, Finding, TestPrediction
    from retrainer.results.run import ConfusionMatrix, Run


class Job(JobSnapshot):
    """One RetrainJob on a cluster, as it was last read.

    Attributes and properties are of that moment; methods ask the cluster or the store anew. `Client`
    makes these. Every method may raise `ClusterError` (server unreachable), `Forbidden` (the message
    names the verb and the resource) and `NotFound` (the job was deleted); those that read the run's
    folder `StorageError`, `StorageDenied`, and `NotFound` while there is no such file yet.
    """

    def __init__(self, document: Document, cluster: Cluster, access: Access) -> None:
        self._latest = document
        self._cluster = cluster
        self._access = access

    def __repr__(self) -> str:
        return f"<Job {self.namespace}/{self.name}: {self.phase}, {self.sentence}>"

    def _repr_html_(self) -> str:
        from retrainer.cluster import notebook

        return notebook.job(self)

    @property
    def _document(self) -> Document:
        return self._latest

    @cached_property
    def _status(self) -> RetrainJobStatus:
        return RetrainJobStatus.model_validate(self._document.get("status") or {})

    @property
    def status(self) -> RetrainJobStatus:
        """What the operator has written."""
        return self._status

    def _take(self, document: Document) -> None:
        self._latest = document
        self.__dict__.pop("_status", None)

    # --- the job on the cluster ---
    def refresh(self) -> "Job":
        """Read the job again; returns itself.

        Raises:
            NotFound: it was deleted (a new job of its name is another job).
        """
        document = self._cluster.get(JOBS, self.namespace, self.name)
        if document["metadata"]["uid"] != self.uid:
            raise self._deleted()
        self._take(document)
        return self

    def wait(
        self,
        timeout: float | None = None,
        progress: bool | Watcher | None = None,
        *,
        stop: Stop | None = None,
    ) -> "Job":
        """Wait until the job has ended, by a watch; returns itself, succeeded.

        A restart of the API server, a cut connection or an expired watch does not end the wait.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.
            progress: True shows how it is going (a bar in a terminal, the job's page in a notebook,
                else a line per change on stderr); None the same but silent where neither is there;
                False nothing; or a `retrainer.Watcher`, whose `report` is called at each change.
            stop: a `retrainer.Stop`, whose `set()` ends the wait from another thread.

        Raises:
            JobFailed: it failed; the message is the operator's own sentence.
            WaitTimeout: not finished in time; the job goes on.
            NotFound: it was deleted.
            Interrupted: `stop` was set.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with watching(self, progress) as watcher:
            self._follow(watcher, deadline, stop)
        if self.phase == Phase.FAILED:
            raise JobFailed(f"{self.name}: {self.sentence}", reason=self.reason or None)
        if self.finished:
            return self
        if stop and stop.is_set():
            raise Interrupted(f"Stopped waiting for {self.name}; the job goes on.")
        raise WaitTimeout(
            f"{self.name} was not finished after {round(timeout or 0, 1):g} s; it goes on "
            f"({self.phase}: {self.sentence})."
        )

    def _follow(self, watcher: Watcher, deadline: float | None, stop: Stop | None) -> None:
        """Take every change of the job until it has ended or the time is over."""
        exists = False
        for change in self._cluster.follow(
            JOBS,
            self.namespace,
            fields=f"metadata.name={self.name}",
            deadline=deadline,
            stop=stop,
        ):
            if change.kind == "Synced":
                if not exists:
                    raise self._deleted()
            elif change.document["metadata"]["uid"] == self.uid:
                exists = True
                self._take(change.document)
                if change.kind != "Deleted":
                    watcher.report(self.report)
                if self.finished:
                    return
                if change.kind == "Deleted":
                    raise self._deleted()

    def _deleted(self) -> NotFound:
        return NotFound(
            f"RetrainJob {self.name} (uid {self.uid}) in namespace {self.namespace} was deleted; what "
            f"it wrote stays in {self.run_url}."
        )

    def suspend(self) -> "Job":
        """Stop its pods; finished bottlenecks are kept. Returns itself.

        Raises:
            UserError: it has ended already.
        """
        return self._set_suspend(True)

    def resume(self) -> "Job":
        """Let it go on after `suspend`. Returns itself.

        Raises:
            UserError: it has ended already.
        """
        return self._set_suspend(False)

    def _set_suspend(self, suspend: bool) -> "Job":
        self.refresh()
        if self.finished:
            word = "suspended" if suspend else "resumed"
            raise UserError(f"{self.name} has ended ({self.phase}) and cannot be {word}.")
        change = {"spec": {"suspend": suspend}}
        self._take(self._cluster.patch(JOBS, self.namespace, self.name, change))
        return self

    def delete(self) -> None:
        """Delete it and its pods. The run's folder and the cache stay.

        Raises:
            NotFound: it was deleted before; a new job of its name is left alone.
        """
        try:
            self._cluster.delete(JOBS, self.namespace, self.name, self.uid)
        except Conflict as error:  # the name now has another uid
            raise self._deleted() from error

    def logs(
        self, follow: bool = False, *, prefix: bool = True, stop: Stop | None = None
    ) -> Iterator[str]:
        """Give the lines of the logs of all its pods, oldest pod first.

        Args:
            follow: go on with new lines and new pods until the job has ended; lines of pods that
                run at the same time then come mixed, each whole.
            prefix: start each line with `[<pod>] `.
            stop: a `retrainer.Stop`, whose `set()` ends a followed log from another thread.
        """
        if not follow:
            return logs.recorded(self._cluster, self.namespace, self.uid, prefix)
        return logs.followed(
            self._cluster,
            self.namespace,
            self.name,
            self.uid,
            prefix=prefix,
            stop=stop or Stop(),
        )

    def pods(self) -> list[Document]:
        """List its pods as Kubernetes has them, oldest first."""
        pods, _ = self._cluster.find(PODS, self.namespace, labels=f"{LABEL_UID}={self.uid}")
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def events(self) -> list[Event]:
        """List events of the job, its child Jobs and pods, oldest first. Kubernetes keeps an hour."""
        fields = [f"involvedObject.uid={self.uid}"]
        children = [child(self.name, task) for task in (TASK_BOTTLENECKS, TASK_TRAIN)]
        fields += [f"involvedObject.kind=Job,involvedObject.name={name}" for name in children]
        documents: list[Document] = []
        for selector in fields:
            documents += self._cluster.find(EVENTS, self.namespace, fields=selector)[0]
        # A field selector cannot ask for a prefix, so all events of the namespace's pods are read, and
        # those of the job's own pods kept.
        pods, _ = self._cluster.find(EVENTS, self.namespace, fields="involvedObject.kind=Pod")
        prefixes = tuple(f"{name}-" for name in children)
        documents += [e for e in pods if e["involvedObject"]["name"].startswith(prefixes)]
        return in_order(documents)

    # --- how good it is ---
    def metrics(self) -> Metrics:
        """Read the latest figures, at the end the final ones: shares (0 to 1), nats; None if not yet."""
        return self.refresh().status.metrics or Metrics.model_construct(**_NO_METRICS)

    def history(self, whole: bool = False) -> History:
        """Read the learning curve.

        Args:
            whole: every evaluation, read from the run's folder at the end of the job; otherwise at
                most 20 points, from the status, also while the job runs.
        """
        if whole:
            return self.run.history()
        self.refresh()
        return History(self.status.curve, self.name)

    @property
    def run(self) -> "Run":
        """Its run's folder in the store; whole once the job has succeeded."""
        from retrainer.results.run import Run

        storage = self._document["spec"].get("storage") or {}
        return Run(
            self.run_url,
            name=self.name,
            architecture=self.architecture,
            storage=storage,
            access=self._access,
        )

    def artifacts(self) -> dict[str, str]:
        """List the files of the run, name to URL; empty before the end."""
        self.refresh()
        return {name: join(self.run_url, path) for name, path in self.status.artifacts.items()}

    def download(self, path: str | Path = ".") -> Path:
        """Download the run's folder to `<path>/<name>-<uid8>`; returns that path."""
        return self.run.download(path)

    def confusion_matrix(self) -> "ConfusionMatrix":
        """Read the counts of test images: rows are what they are, columns what was guessed."""
        return self.run.confusion_matrix()

    def misclassified(self) -> "list[TestPrediction]":
        """List the test images guessed wrong, the surest guess first."""
        return self.run.misclassified()

    def catalog(self) -> "list[CatalogRow]":
        """List every image with its label and set, and what was rejected. See `Run.catalog`."""
        return self.run.catalog()

    def findings(self) -> "list[Finding]":
        """List what stands out among the images: wrong labels, leaks, near-duplicates, strangers."""
        return self.run.findings()

    def suggested_corrections(self) -> "list[Correction]":
        """Suggest a correction for each finding. See `Run.suggested_corrections`."""
        return self.run.suggested_corrections()

    def sweep(self) -> "list[Combination]":
        """List every combination of values that the job's sweep tried. See `Run.sweep`."""
        return self.run.sweep()

    def predict(
        self, images: "Image | Iterable[Image]", top: int | None = None
    ) -> "list[Prediction]":
        """Label images with this job's network, on this machine. See `Run.predict`."""
        return self.run.predict(images, top)

    def compare(self, others: "Sequence[Job | Run | str | Path]") -> "Comparison":
        """Compare this job with others: accuracy with its interval, cost, whether they really differ.

        Args:
            others: handles, runs, or texts as for `Client.compare`, names of this namespace.
        """
        from retrainer.results.comparison import compare, runs_of

        return compare([self, *runs_of(others, self._access, self._named)])

    def _named(self, name: str) -> "Job":
        document = self._cluster.get(JOBS, self.namespace, name)
        return Job(document, self._cluster, self._access)


_NO_METRICS: Mapping[str, None] = dict.fromkeys(Metrics.model_fields)
