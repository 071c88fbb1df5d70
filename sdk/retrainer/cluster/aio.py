"""`AsyncClient` and `AsyncJob`: the same methods for asyncio.

Each one runs the synchronous method in a thread and adds nothing: what is decided is written once, in
`client.py` and `job.py`. Threads were chosen over a second, asynchronous core (or a synchronous one
that drives an event loop of its own): all requests but waits and logs take milliseconds, the store
(obstore), Parquet and the network's interpreter are synchronous anyway, and an event loop hidden in a
library misbehaves in notebooks and forks. What may take long, `wait`, `logs` and `watch`, ends at once
when its task is cancelled: a `Stop` shuts down the connection that its thread reads.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from retrainer.api import Metrics, Phase, RetrainJob, RetrainJobStatus
from retrainer.cluster.client import Client
from retrainer.cluster.events import Event
from retrainer.cluster.job import Job
from retrainer.cluster.requests import Cluster, Document
from retrainer.cluster.snapshot import JobSnapshot
from retrainer.cluster.stop import Stop
from retrainer.results.history import History
from retrainer.watcher import Watcher

if TYPE_CHECKING:
    import boto3

    from retrainer.api.corrections import Correction
    from retrainer.inference.classifier import Image, Prediction
    from retrainer.results.comparison import Comparison
    from retrainer.results.rows import CatalogRow, Combination, Finding, TestPrediction
    from retrainer.results.run import ConfusionMatrix, Run

T = TypeVar("T")


async def _stopping(function: Callable[..., T], *args: Any, stop: Stop, **named: Any) -> T:
    """Run `function(..., stop=stop)` in a thread; cancelling this ends the function first."""
    thread = asyncio.create_task(
        asyncio.to_thread(functools.partial(function, *args, stop=stop, **named))
    )
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        # Wait until the function has ended. Nobody needs its exception, but asyncio would complain if it
        # were not taken.
        await asyncio.wait([thread])
        if not thread.cancelled():
            thread.exception()
        raise


async def _items(iterator: Iterator[T], stop: Stop) -> AsyncIterator[T]:
    """Give the items of a blocking iterator, each awaited."""
    end = object()
    try:
        while True:
            item: Any = await _stopping(_next, iterator, end, stop=stop)
            if item is end:
                return
            yield item
    finally:
        stop.set()


def _next(iterator: Iterator[Any], end: object, *, stop: Stop) -> Any:  # noqa: ARG001
    return next(iterator, end)


class AsyncJob(JobSnapshot):
    """One RetrainJob on a cluster, as it was last read: the methods of `Job`, to be awaited."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def _document(self) -> Document:
        return self._job._document

    @property
    def status(self) -> RetrainJobStatus:
        """What the operator has written."""
        return self._job.status

    @property
    def sync(self) -> Job:
        """The handle for code that is not asynchronous."""
        return self._job

    @property
    def run(self) -> "Run":
        """Its run's folder in the store, as `Job.run`; the methods of the run are synchronous."""
        return self._job.run

    def __repr__(self) -> str:
        return f"<Async{repr(self._job)[1:]}"

    def _repr_html_(self) -> str:
        return self._job._repr_html_()

    # --- the job on the cluster ---
    async def refresh(self) -> "AsyncJob":
        """Read the job again, as `Job.refresh`; returns itself."""
        await asyncio.to_thread(self._job.refresh)
        return self

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  the same arguments as Job.wait
        progress: bool | Watcher | None = None,
    ) -> "AsyncJob":
        """Wait until the job has ended, as `Job.wait`; returns itself.

        A watcher given as `progress` is called in another thread.
        """
        await _stopping(self._job.wait, timeout, progress, stop=Stop())
        return self

    async def suspend(self) -> "AsyncJob":
        """Stop its pods, as `Job.suspend`; returns itself."""
        await asyncio.to_thread(self._job.suspend)
        return self

    async def resume(self) -> "AsyncJob":
        """Let it go on after `suspend`, as `Job.resume`; returns itself."""
        await asyncio.to_thread(self._job.resume)
        return self

    async def delete(self) -> None:
        """Delete it and its pods, as `Job.delete`."""
        await asyncio.to_thread(self._job.delete)

    def logs(self, follow: bool = False, *, prefix: bool = True) -> AsyncIterator[str]:
        """Give the lines of its pods' logs, as `Job.logs`; read them with `async for`."""
        stop = Stop()
        return _items(self._job.logs(follow, prefix=prefix, stop=stop), stop)

    async def pods(self) -> list[Document]:
        """List its pods, as `Job.pods`."""
        return await asyncio.to_thread(self._job.pods)

    async def events(self) -> list[Event]:
        """List its events, as `Job.events`."""
        return await asyncio.to_thread(self._job.events)

    # --- how good it is ---
    async def metrics(self) -> Metrics:
        """Read the latest figures, as `Job.metrics`."""
        return await asyncio.to_thread(self._job.metrics)

    async def history(self, whole: bool = False) -> History:
        """Read the learning curve, as `Job.history`."""
        return await asyncio.to_thread(self._job.history, whole)

    async def artifacts(self) -> dict[str, str]:
        """List the files of the run, as `Job.artifacts`."""
        return await asyncio.to_thread(self._job.artifacts)

    async def download(self, path: str | Path = ".") -> Path:
        """Download the run's folder into `path`, as `Job.download`; returns where it is now."""
        return await asyncio.to_thread(self._job.download, path)

    async def confusion_matrix(self) -> "ConfusionMatrix":
        """Read the counts of test images by label and guess, as `Job.confusion_matrix`."""
        return await asyncio.to_thread(self._job.confusion_matrix)

    async def misclassified(self) -> "list[TestPrediction]":
        """List the test images guessed wrong, as `Job.misclassified`."""
        return await asyncio.to_thread(self._job.misclassified)

    async def catalog(self) -> "list[CatalogRow]":
        """List every image with its label and set, as `Job.catalog`."""
        return await asyncio.to_thread(self._job.catalog)

    async def findings(self) -> "list[Finding]":
        """List what stands out among the images, as `Job.findings`."""
        return await asyncio.to_thread(self._job.findings)

    async def suggested_corrections(self) -> "list[Correction]":
        """Suggest a correction for each finding, as `Job.suggested_corrections`."""
        return await asyncio.to_thread(self._job.suggested_corrections)

    async def sweep(self) -> "list[Combination]":
        """List every combination that the job's sweep tried, as `Job.sweep`."""
        return await asyncio.to_thread(self._job.sweep)

    async def predict(
        self, images: "Image | Iterable[Image]", top: int | None = None
    ) -> "list[Prediction]":
        """Label images with this job's network on this machine, as `Job.predict`."""
        return await asyncio.to_thread(self._job.predict, images, top)

    async def compare(self, others: "Sequence[AsyncJob | Job | Run | str | Path]") -> "Comparison":
        """Put this job beside others, as `Job.compare`."""
        return await asyncio.to_thread(self._job.compare, _synchronous(others))


@dataclass(frozen=True)
class AsyncJobChange:
    """One change that `AsyncClient.watch` saw: a job was Added, Modified or Deleted."""

    kind: Literal["Added", "Modified", "Deleted"]
    job: AsyncJob


class AsyncClient:
    """RetrainJobs on a cluster, for asyncio: the methods of `Client`, to be awaited."""

    def __init__(
        self,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        *,
        s3_endpoint: str | None = None,
        session: "boto3.Session | None" = None,
    ) -> None:
        """Read the kubeconfig; the arguments are those of `Client`."""
        self._use(Client(namespace, context, kubeconfig, s3_endpoint=s3_endpoint, session=session))

    @classmethod
    def _on(cls, cluster: Cluster) -> Self:
        """Make a client of a server that is reached in another way than by a kubeconfig."""
        client = cls.__new__(cls)
        client._use(Client._on(cluster))
        return client

    def _use(self, client: Client) -> None:
        self._client = client
        self.namespace = client.namespace
        self.server = client.server

    def __repr__(self) -> str:
        return f"<Async{repr(self._client)[1:]}"

    async def submit(
        self, job: "RetrainJob | Mapping[str, Any] | str | Path", *, namespace: str | None = None
    ) -> AsyncJob:
        """Create the job on the cluster, as `Client.submit`."""
        return AsyncJob(await asyncio.to_thread(self._client.submit, job, namespace=namespace))

    async def get(self, name: str, *, namespace: str | None = None) -> AsyncJob:
        """Read the job of this name, as `Client.get`."""
        return AsyncJob(await asyncio.to_thread(self._client.get, name, namespace=namespace))

    async def list(
        self,
        phase: "Phase | str | None" = None,
        label_selector: str = "",
        *,
        all_namespaces: bool = False,
    ) -> "Sequence[AsyncJob]":
        """List the jobs, oldest first, as `Client.list`."""
        jobs = await asyncio.to_thread(
            self._client.list, phase, label_selector, all_namespaces=all_namespaces
        )
        return [AsyncJob(job) for job in jobs]

    async def watch(
        self,
        label_selector: str = "",
        *,
        all_namespaces: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  the same arguments as Client.watch
    ) -> AsyncIterator[AsyncJobChange]:
        """Give every job as Added, then every change, as `Client.watch`; read with `async for`."""
        stop = Stop()
        changes = self._client.watch(
            label_selector, all_namespaces=all_namespaces, timeout=timeout, stop=stop
        )
        async for change in _items(changes, stop):
            yield AsyncJobChange(change.kind, AsyncJob(change.job))

    async def delete(self, name: str) -> None:
        """Delete a job and its pods, as `Client.delete`."""
        await asyncio.to_thread(self._client.delete, name)

    async def suspend(self, name: str) -> AsyncJob:
        """Stop a job's pods, as `Client.suspend`."""
        return AsyncJob(await asyncio.to_thread(self._client.suspend, name))

    async def resume(self, name: str) -> AsyncJob:
        """Let a suspended job go on, as `Client.resume`."""
        return AsyncJob(await asyncio.to_thread(self._client.resume, name))

    async def wait(
        self,
        name: str,
        timeout: float | None = None,  # noqa: ASYNC109  the same arguments as Client.wait
        progress: bool | Watcher | None = None,
    ) -> AsyncJob:
        """Wait until the job has ended, as `Client.wait`."""
        return await (await self.get(name)).wait(timeout, progress)

    async def compare(self, jobs: "Sequence[AsyncJob | Job | Run | str | Path]") -> "Comparison":
        """Put jobs side by side, as `Client.compare`."""
        return await asyncio.to_thread(self._client.compare, _synchronous(jobs))


def _synchronous(
    jobs: "Sequence[AsyncJob | Job | Run | str | Path]",
) -> "list[Job | Run | str | Path]":
    from retrainer.results.comparison import several

    return [job.sync if isinstance(job, AsyncJob) else job for job in several(jobs)]
