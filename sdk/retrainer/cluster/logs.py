"""Logs of all pods of one job as one stream of lines."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from retrainer.api.names import CONTAINER, LABEL_UID
from retrainer.api.status import FINISHED
from retrainer.cluster.requests import JOBS, PODS, Cluster, Document
from retrainer.cluster.stop import Stop
from retrainer.errors import ClusterError, NotFound

READERS = 32
"""Logs followed at the same time; with more pods than that, the later ones wait for the earlier."""
_RETRY_SECONDS = 1.0


def recorded(cluster: Cluster, namespace: str, uid: str, prefix: bool) -> Iterator[str]:
    """Give what the pods of the job with this uid have written so far, pod after pod, oldest first."""
    pods, _ = cluster.find(PODS, namespace, labels=f"{LABEL_UID}={uid}")
    for pod in sorted(pods, key=_age):
        if not _started(pod):
            continue
        name = pod["metadata"]["name"]
        front = f"[{name}] " if prefix else ""
        try:
            for _, text in cluster.log(namespace, name):
                yield front + text
        except NotFound:
            continue  # deleted since it was listed


def followed(
    cluster: Cluster, namespace: str, name: str, uid: str, *, prefix: bool, stop: Stop
) -> Iterator[str]:
    """Give what they have written, then what they write until the job ends or `stop` is set."""
    follower = _Follower(cluster, namespace, name, uid, prefix=prefix, stop=stop)
    try:
        yield from follower.lines()
    finally:
        follower.end()


class _Follower:
    """Follows a job's logs: a thread for its pods, one for the job, one a log; all fill one queue."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, uid: str, *, prefix: bool, stop: Stop
    ) -> None:
        self._cluster, self._namespace, self._name, self._uid = cluster, namespace, name, uid
        self._prefix, self._stop = prefix, stop
        self._queue: SimpleQueue[str | Exception | None] = SimpleQueue()
        self._pool = ThreadPoolExecutor(READERS, "retrainer-log")
        self._lock = threading.Lock()
        self._readers: dict[str, Future[None]] = {}

    def lines(self) -> Iterator[str]:
        for work in (self._watch_pods, self._watch_job):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def end(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._queue.put(error)

    def _watch_pods(self) -> None:
        labels = f"{LABEL_UID}={self._uid}"
        for change in self._cluster.follow(PODS, self._namespace, labels=labels, stop=self._stop):
            if change.kind in {"Added", "Modified"}:
                self._read_once(change.document)

    def _watch_job(self) -> None:
        fields = f"metadata.name={self._name}"
        for change in self._cluster.follow(JOBS, self._namespace, fields=fields, stop=self._stop):
            document = change.document
            if change.kind == "Synced":
                if not self._cluster.find(JOBS, self._namespace, fields=fields)[0]:
                    break
            elif change.kind == "Deleted" or document.get("status", {}).get("phase") in FINISHED:
                break
        # The watch of the pods may be late: list them once more, so that each log is read to its end.
        pods, _ = self._cluster.find(PODS, self._namespace, labels=f"{LABEL_UID}={self._uid}")
        for pod in sorted(pods, key=_age):
            self._read_once(pod)
        with self._lock:
            readers = list(self._readers.values())
        for reader in readers:
            reader.result()
        self._queue.put(None)

    def _read_once(self, pod: Document) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            if uid not in self._readers and _started(pod) and not self._stop.is_set():
                self._readers[uid] = self._pool.submit(self._read, pod["metadata"]["name"])

    def _read(self, pod: str) -> None:
        """Read one pod's log; after a cut connection go on where it was, giving no line twice."""
        front = f"[{pod}] " if self._prefix else ""
        since, passed_on = "", set[tuple[str, str]]()
        while not self._stop.is_set():
            try:
                ended = _ended(self._cluster.get(PODS, self._namespace, pod))
                for line in self._cluster.log(
                    self._namespace, pod, follow=True, since=since, stop=self._stop
                ):
                    if line in passed_on:
                        continue
                    when, text = line
                    if when[:19] != since[:19]:
                        passed_on.clear()
                    since = when
                    passed_on.add(line)
                    self._queue.put(front + text)
                if ended:
                    return
            except NotFound:
                return
            except ClusterError:
                self._stop.wait(_RETRY_SECONDS)


def _age(pod: Document) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]


def _state(pod: Document) -> Document:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    state: Document = next((s["state"] for s in statuses if s["name"] == CONTAINER), {})
    return state


def _started(pod: Document) -> bool:
    return bool({"running", "terminated"} & _state(pod).keys())


def _ended(pod: Document) -> bool:
    return "terminated" in _state(pod)
