"""`Client`: RetrainJobs on a cluster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from retrainer.api import Phase, RetrainJob, RetrainJobSpec, parse_job
from retrainer.api.names import API_VERSION, KIND
from retrainer.cluster.connection import Connection
from retrainer.cluster.job import Job
from retrainer.cluster.refusals import Conflict
from retrainer.cluster.requests import JOBS, Cluster, Document
from retrainer.cluster.stop import Stop
from retrainer.errors import AlreadyExists, InvalidJob, UserError
from retrainer.store.s3 import Access
from retrainer.watcher import Watcher

if TYPE_CHECKING:
    import boto3

    from retrainer.results.comparison import Comparison
    from retrainer.results.run import Run


class JobList(Sequence[Job]):
    """Jobs in the order of their creation; a sequence that a notebook shows as a table."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = list(jobs)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> "JobList": ...
    def __getitem__(self, index: int | slice) -> "Job | JobList":
        return JobList(self._jobs[index]) if isinstance(index, slice) else self._jobs[index]

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._jobs)) or "no RetrainJobs"

    def _repr_html_(self) -> str:
        from retrainer.cluster import notebook

        return notebook.jobs(self)


@dataclass(frozen=True)
class JobChange:
    """One change that `Client.watch` saw: a job was Added, Modified or Deleted."""

    kind: Literal["Added", "Modified", "Deleted"]
    job: Job


class Client:
    """RetrainJobs on a cluster.

    Every method may raise `ClusterError` when the API server cannot be reached (the message names
    it), and `Forbidden` when it refuses (the message names the verb and the resource).
    """

    def __init__(
        self,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        *,
        s3_endpoint: str | None = None,
        session: "boto3.Session | None" = None,
    ) -> None:
        """Read the kubeconfig (or a pod's own credentials); nothing is sent yet.

        Args:
            namespace: of the jobs; the context's own if None.
            context: of the kubeconfig; the current one if None.
            kubeconfig: path; `$KUBECONFIG` or `~/.kube/config` if None, else the pod's own identity.
            s3_endpoint: URL of the S3 server as this machine reaches it, where pods use another one;
                `$RETRAINER_S3_ENDPOINT` if None, else the job's own.
            session: S3 credentials and region; boto3's own search (environment, ~/.aws) if None.

        Raises:
            UserError: there is no usable kubeconfig, or no such context in it.
        """
        self._use(Cluster(Connection(context, kubeconfig)), namespace, Access(s3_endpoint, session))

    @classmethod
    def _on(cls, cluster: Cluster) -> Self:
        """Make a client of a server that is reached in another way than by a kubeconfig."""
        client = cls.__new__(cls)
        client._use(cluster, None, Access())
        return client

    def _use(self, cluster: Cluster, namespace: str | None, access: Access) -> None:
        self._cluster = cluster
        self._access = access
        self.namespace = namespace or cluster.namespace
        self.server = cluster.server

    def __repr__(self) -> str:
        return f"<Client of {self.server}, namespace {self.namespace}>"

    def submit(
        self, job: "RetrainJob | Mapping[str, Any] | str | Path", *, namespace: str | None = None
    ) -> Job:
        """Create the job on the cluster.

        Submitting the same job again is no error: when one of its name with an equal spec is there,
        that one is returned (its labels and annotations are not compared).

        Args:
            job: a RetrainJob, a dict, or the path of a YAML file with one.
            namespace: where; else the job's `metadata.namespace`, else the client's.

        Raises:
            InvalidJob: the job is wrong, by the checks here or the server's; one sentence per field.
            UserError: a place in it is a path of this machine, which no pod can read.
            AlreadyExists: a job of its name has another spec; the message names the fields.
        """
        from retrainer.jobfile import as_job, only_here

        wanted = as_job(job)
        if paths := only_here(wanted):
            raise InvalidJob(paths, where=wanted.name)
        where = namespace or wanted.metadata.namespace or self.namespace
        try:
            created = self._cluster.create(JOBS, where, _document(wanted, where))
        except Conflict:
            return self._same(wanted, where)
        return self._job(created)

    def _same(self, wanted: RetrainJob, namespace: str) -> Job:
        """Give the job of this name that exists, if its spec is the wanted one."""
        existing = self.get(wanted.name, namespace=namespace)
        if existing.to_dict()["metadata"].get("deletionTimestamp"):
            raise AlreadyExists(
                f"RetrainJob {wanted.name} in namespace {namespace} is still being deleted: "
                "submit it again once it is gone."
            )
        differing = differences(existing.to_dict()["spec"], wanted.spec)
        if differing:
            raise AlreadyExists(
                f"RetrainJob {wanted.name} exists in namespace {namespace} with another spec: "
                f"{'; '.join(differing)}. Delete it, or give this one another name."
            )
        return existing

    def get(self, name: str, *, namespace: str | None = None) -> Job:
        """Read the job of this name.

        Raises:
            NotFound: there is none.
        """
        return self._job(self._cluster.get(JOBS, namespace or self.namespace, name))

    def list(
        self,
        phase: "Phase | str | None" = None,
        label_selector: str = "",
        *,
        all_namespaces: bool = False,
    ) -> JobList:
        """List the jobs, oldest first.

        Args:
            phase: only those in it (Pending, Suspended, Bottlenecks, Training, Succeeded, Failed).
            label_selector: as in kubectl, such as `team=birds,season!=winter`.
            all_namespaces: of every namespace, not only the client's.

        Raises:
            UserError: there is no such phase.
        """
        wanted = _phase(phase)
        namespace = "" if all_namespaces else self.namespace
        documents, _ = self._cluster.find(JOBS, namespace, labels=label_selector)
        jobs = [self._job(document) for document in documents]
        jobs.sort(key=lambda job: (job.created, job.namespace, job.name))
        return JobList([job for job in jobs if wanted in {None, job.phase}])

    def watch(
        self,
        label_selector: str = "",
        *,
        all_namespaces: bool = False,
        timeout: float | None = None,
        stop: Stop | None = None,
    ) -> Iterator[JobChange]:
        """Give every job there is as Added, then every change.

        Args:
            label_selector: as in kubectl.
            all_namespaces: of every namespace, not only the client's.
            timeout: seconds after which it ends; None goes on for ever.
            stop: a `retrainer.Stop`, whose `set()` ends it from another thread.
        """
        import time

        deadline = None if timeout is None else time.monotonic() + timeout
        namespace = "" if all_namespaces else self.namespace
        for change in self._cluster.follow(
            JOBS, namespace, labels=label_selector, deadline=deadline, stop=stop
        ):
            if change.kind != "Synced":
                yield JobChange(change.kind, self._job(change.document))

    def delete(self, name: str) -> None:
        """Delete a job and its pods. Its run's folder and the cache stay.

        Raises:
            NotFound: there is none.
        """
        self._cluster.delete(JOBS, self.namespace, name)

    def suspend(self, name: str) -> Job:
        """Stop a job's pods; finished bottlenecks are kept. See `Job.suspend`."""
        return self.get(name).suspend()

    def resume(self, name: str) -> Job:
        """Let a suspended job go on. See `Job.resume`."""
        return self.get(name).resume()

    def wait(
        self, name: str, timeout: float | None = None, progress: bool | Watcher | None = None
    ) -> Job:
        """Wait until the job has ended. See `Job.wait`."""
        return self.get(name).wait(timeout, progress)

    def compare(self, jobs: "Sequence[Job | Run | str | Path]") -> "Comparison":
        """Put jobs side by side.

        Args:
            jobs: handles, runs, or texts, as the command line takes them: `rj/NAME` is a job; what has
                a / in it, or begins with . or ~, is the path or URL of a run, or of an output, whose
                newest run is taken; a plain word is a folder of this machine if that holds a run, else
                a job. Stores are reached by this client's `s3_endpoint` and `session`.
        """
        from retrainer.results.comparison import compare, runs_of

        return compare(runs_of(jobs, self._access, self.get))

    def _job(self, document: Document) -> Job:
        return Job(document, self._cluster, self._access)


def _phase(phase: "Phase | str | None") -> Phase | None:
    if phase is None:
        return None
    try:
        return Phase(phase)
    except ValueError:
        raise UserError(
            f"There is no phase {phase!r}: give one of {', '.join(p.value for p in Phase)}."
        ) from None


def _document(job: RetrainJob, namespace: str) -> Document:
    """Make the object to send: defaults are left out, for the server's version may have others."""
    body: Document = job.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude={"status"}
    )
    metadata = {k: body["metadata"][k] for k in ("name", "labels", "annotations")
                if body["metadata"].get(k)}  # fmt: skip
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**metadata, "namespace": namespace},
        "spec": body["spec"],
    }


def differences(existing: Document, wanted: RetrainJobSpec) -> list[str]:
    """List the fields in which a spec on the server differs from the wanted one, defaults filled in.

    Returns:
        Phrases such as `spec.training.steps is 500, not 4000`: on the server 500, wanted 4000.
    """
    try:
        probe = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "x"},
            "spec": existing,
        }
        now: Document = parse_job(probe).spec.dump()
    except InvalidJob:
        now = existing  # written by another version: compared as it is
    return list(_differing("spec", now, wanted.dump()))


def _differing(path: str, now: Any, wanted: Any) -> Iterator[str]:
    if isinstance(now, dict) and isinstance(wanted, dict):
        for key in sorted(now.keys() | wanted.keys()):
            yield from _differing(f"{path}.{key}", now.get(key), wanted.get(key))
    elif now != wanted:
        yield f"{path} is {_word(now)}, not {_word(wanted)}"


def _word(value: Any) -> str:
    return "unset" if value is None else str(value)
