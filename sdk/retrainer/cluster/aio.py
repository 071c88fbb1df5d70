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
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from retrainer.api import Metrics, Phase, RetrainJob, RetrainJobSpec, RetrainJobStatus
from retrainer.cluster.client import Client
from retrainer.cluster.events import Event
from retrainer.cluster.job import Job
from retrainer.cluster.requests import Cluster, Document
from retrainer.cluster.stop import Stop
from retrainer.results.history import History

if TYPE_CHECKING:
    import boto3

    from retrainer.inference.classifier import Image, Prediction
    from retrainer.results.comparison import Comparison
    from retrainer.results.rows import Guess
    from retrainer.results.run import ConfusionMatrix, Run

T = TypeVar("T")


async def _stopping(function: Callable[..., T], *args: Any, stop: Stop, **named: Any) -> T:
    """`function(..., stop=stop)` in a thread; cancelling this ends it before it is left alone."""
    thread = asyncio.create_task(
        asyncio.to_thread(functools.partial(function, *args, stop=stop, **named))
    )
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        # Its end is waited for, its result no longer: nobody would see an exception of it.
        await asyncio.wait([thread])
        if not thread.cancelled():
            thread.exception()
        raise


async def _items(iterator: Iterator[T], stop: Stop) -> AsyncIterator[T]:
    """The items of a blocking iterator, each awaited."""
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


class AsyncJob:
    """One RetrainJob on a cluster, as it was last read. See `Job`."""

    def __init__(self, job: Job) -> None:
        self._job = job

    # --- what was last read ---
    @property
    def sync(self) -> Job:
        """The handle for code that is not asynchronous."""
        return self._job

    @property
    def name(self) -> str:
        """See `Job.name`."""
        return self._job.name

    @property
    def namespace(self) -> str:
        """See `Job.namespace`."""
        return self._job.namespace

    @property
    def uid(self) -> str:
        """See `Job.uid`."""
        return self._job.uid

    @property
    def created(self) -> datetime:
        """See `Job.created`."""
        return self._job.created

    @property
    def labels(self) -> dict[str, str]:
        """See `Job.labels`."""
        return self._job.labels

    @property
    def architecture(self) -> str:
        """See `Job.architecture`."""
        return self._job.architecture

    @property
    def spec(self) -> RetrainJobSpec:
        """See `Job.spec`."""
        return self._job.spec

    @property
    def status(self) -> RetrainJobStatus:
        """See `Job.status`."""
        return self._job.status

    @property
    def phase(self) -> Phase:
        """See `Job.phase`."""
        return self._job.phase

    @property
    def reason(self) -> str:
        """See `Job.reason`."""
        return self._job.reason

    @property
    def message(self) -> str:
        """See `Job.message`."""
        return self._job.message

    @property
    def said(self) -> str:
        """See `Job.said`."""
        return self._job.said

    @property
    def finished(self) -> bool:
        """See `Job.finished`."""
        return self._job.finished

    @property
    def test_accuracy(self) -> float | None:
        """See `Job.test_accuracy`."""
        return self._job.test_accuracy

    @property
    def run_url(self) -> str:
        """See `Job.run_url`."""
        return self._job.run_url

    @property
    def multiply_adds(self) -> int | None:
        """See `Job.multiply_adds`."""
        return self._job.multiply_adds

    @property
    def run(self) -> "Run":
        """See `Job.run`; its methods are synchronous."""
        return self._job.run

    def to_dict(self) -> Document:
        """See `Job.to_dict`."""
        return self._job.to_dict()

    def __repr__(self) -> str:
        return f"<Async{repr(self._job)[1:]}"

    def _repr_html_(self) -> str:
        return self._job._repr_html_()

    # --- the job on the cluster ---
    async def refresh(self) -> "AsyncJob":
        """See `Job.refresh`."""
        await asyncio.to_thread(self._job.refresh)
        return self

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  the same arguments as Job.wait
        progress: "bool | Callable[[Job], None] | None" = None,
    ) -> "AsyncJob":
        """See `Job.wait`. A function given as `progress` is called in another thread."""
        await _stopping(self._job.wait, timeout, progress, stop=Stop())
        return self

    async def suspend(self) -> "AsyncJob":
        """See `Job.suspend`."""
        await asyncio.to_thread(self._job.suspend)
        return self

    async def resume(self) -> "AsyncJob":
        """See `Job.resume`."""
        await asyncio.to_thread(self._job.resume)
        return self

    async def delete(self) -> None:
        """See `Job.delete`."""
        await asyncio.to_thread(self._job.delete)

    def logs(self, follow: bool = False, *, prefix: bool = True) -> AsyncIterator[str]:
        """See `Job.logs`; read it with `async for`."""
        stop = Stop()
        return _items(self._job.logs(follow, prefix=prefix, stop=stop), stop)

    async def pods(self) -> list[Document]:
        """See `Job.pods`."""
        return await asyncio.to_thread(self._job.pods)

    async def events(self) -> list[Event]:
        """See `Job.events`."""
        return await asyncio.to_thread(self._job.events)

    # --- how good it is ---
    async def metrics(self) -> Metrics:
        """See `Job.metrics`."""
        return await asyncio.to_thread(self._job.metrics)

    async def history(self, whole: bool = False) -> History:
        """See `Job.history`."""
        return await asyncio.to_thread(self._job.history, whole)

    async def artifacts(self) -> dict[str, str]:
        """See `Job.artifacts`."""
        return await asyncio.to_thread(self._job.artifacts)

    async def download(self, path: str | Path = ".") -> Path:
        """See `Job.download`."""
        return await asyncio.to_thread(self._job.download, path)

    async def confusion_matrix(self) -> "ConfusionMatrix":
        """See `Job.confusion_matrix`."""
        return await asyncio.to_thread(self._job.confusion_matrix)

    async def misclassified(self) -> "list[Guess]":
        """See `Job.misclassified`."""
        return await asyncio.to_thread(self._job.misclassified)

    async def predict(
        self, images: "Image | Iterable[Image]", top: int | None = None
    ) -> "list[Prediction]":
        """See `Job.predict`."""
        return await asyncio.to_thread(self._job.predict, images, top)

    async def compare(
        self, others: "Sequence[AsyncJob | Job | Run | str | Path] | Path"
    ) -> "Comparison":
        """See `Job.compare`."""
        return await asyncio.to_thread(self._job.compare, _synchronous(others))


class AsyncJobChange:
    """One change that `AsyncClient.watch` saw. See `JobChange`."""

    def __init__(self, kind: Literal["Added", "Modified", "Deleted"], job: AsyncJob) -> None:
        self.kind = kind
        self.job = job


class AsyncClient:
    """RetrainJobs on a cluster, for asyncio. See `Client`."""

    def __init__(
        self,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        *,
        s3_endpoint: str | None = None,
        session: "boto3.Session | None" = None,
        cluster: Cluster | None = None,
    ) -> None:
        """See `Client`."""
        self._client = Client(
            namespace,
            context,
            kubeconfig,
            s3_endpoint=s3_endpoint,
            session=session,
            cluster=cluster,
        )
        self.namespace = self._client.namespace
        self.server = self._client.server

    def __repr__(self) -> str:
        return f"<Async{repr(self._client)[1:]}"

    async def submit(
        self, job: "RetrainJob | Mapping[str, Any] | str | Path", *, namespace: str | None = None
    ) -> AsyncJob:
        """See `Client.submit`."""
        return AsyncJob(await asyncio.to_thread(self._client.submit, job, namespace=namespace))

    async def get(self, name: str, *, namespace: str | None = None) -> AsyncJob:
        """See `Client.get`."""
        return AsyncJob(await asyncio.to_thread(self._client.get, name, namespace=namespace))

    async def list(
        self,
        phase: "Phase | str | None" = None,
        label_selector: str = "",
        *,
        all_namespaces: bool = False,
    ) -> "Sequence[AsyncJob]":
        """See `Client.list`."""
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
        """See `Client.watch`; read it with `async for`."""
        stop = Stop()
        changes = self._client.watch(
            label_selector, all_namespaces=all_namespaces, timeout=timeout, stop=stop
        )
        async for change in _items(changes, stop):
            yield AsyncJobChange(change.kind, AsyncJob(change.job))

    async def delete(self, name: str) -> None:
        """See `Client.delete`."""
        await asyncio.to_thread(self._client.delete, name)

    async def suspend(self, name: str) -> AsyncJob:
        """See `Client.suspend`."""
        return AsyncJob(await asyncio.to_thread(self._client.suspend, name))

    async def resume(self, name: str) -> AsyncJob:
        """See `Client.resume`."""
        return AsyncJob(await asyncio.to_thread(self._client.resume, name))

    async def wait(
        self,
        name: str,
        timeout: float | None = None,  # noqa: ASYNC109  the same arguments as Client.wait
        progress: bool | None = None,
    ) -> AsyncJob:
        """See `Client.wait`."""
        return await (await self.get(name)).wait(timeout, progress)

    async def compare(
        self, jobs: "Sequence[AsyncJob | Job | Run | str | Path] | Path"
    ) -> "Comparison":
        """See `Client.compare`."""
        return await asyncio.to_thread(self._client.compare, _synchronous(jobs))


def _synchronous(
    jobs: "Sequence[AsyncJob | Job | Run | str | Path] | Path",
) -> "list[Job | Run | str]":
    from retrainer.results.comparison import listed

    return [job.sync if isinstance(job, AsyncJob) else job for job in listed(jobs)]
