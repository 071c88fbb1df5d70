"""Takes what watches, lists and single reads show into memory, and wakes the jobs concerned.

What the API server shows of an object is taken, whichever way it comes; memory keeps the newest. That
an object is gone is believed of a watch, whose events are in order, and of a 404 to the object's own
path. A list without it proves nothing: it may be older than the object.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError, Kube
from retrainer_operator.api_server.selectors import SELECTOR
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.snapshots import (
    ChildSnapshot,
    Key,
    PodSnapshot,
    RetrainJobSnapshot,
)
from retrainer_operator.reconciling.memory import Memory, Watched

Body = dict[str, Any]

_READS = 8
"""Objects read one by one at the same time."""
_STRAYS = 100
"""Jobs read at a time because only their pods are shown: anybody may label pods."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """One kind of watched object: where it is, which of them, and what is kept of each."""

    root: str
    resource: str
    selector: str
    of: type[Watched]
    snapshot: Callable[[Body], Watched]

    def path(self, namespace: str | None, name: str = "") -> str:
        """The path of the list in this namespace (None is all), or of one object in it."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.root}{scope}/{self.resource}" + (f"/{name}" if name else "")


RETRAINJOBS = Kind(f"/apis/{GROUP}/{VERSION}", PLURAL, "", RetrainJobSnapshot, read_job)
CHILDREN = Kind("/apis/batch/v1", "jobs", SELECTOR, ChildSnapshot, read_child)
PODS = Kind("/api/v1", "pods", SELECTOR, PodSnapshot, read_pod)
KINDS = (RETRAINJOBS, CHILDREN, PODS)


class Intake:
    """The one way by which the cluster's objects come into memory.

    `due` is called for each change of a job, `soon` for each of its Jobs and pods, which come in bursts.
    """

    def __init__(
        self,
        kube: Kube,
        memory: Memory,
        *,
        due: Callable[[Key], None],
        soon: Callable[[Key], None],
    ) -> None:
        self._kube = kube
        self._memory = memory
        self._due = due
        self._soon = soon
        self._removals: set[asyncio.Task[None]] = set()
        self.unreadable: set[str] = set()

    def snapshots(self, kind: Kind, namespace: str | None) -> dict[str, Watched]:
        """Give all that memory has of this kind in a namespace, by uid."""
        return {
            snapshot.uid: snapshot
            for snapshot in self._memory.snapshots()
            if isinstance(snapshot, kind.of) and namespace in (None, snapshot.namespace)
        }

    def put(self, kind: Kind, body: Body) -> None:
        """Take in an object as the API server shows it."""
        snapshot = self._read(kind, body)
        if snapshot is not None:
            self._wake(kind, self._memory.put(snapshot))

    def remove(self, kind: Kind, body: Body) -> None:
        """Drop an object of whose deletion a watch has told."""
        metadata = body["metadata"]
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        child = self._memory.get(uid)
        key = self._memory.key_of(child) if isinstance(child, ChildSnapshot) else None
        job = None if key is None else self._memory.observe(key).job
        if job is None:
            self._wake(kind, self._memory.remove(uid, version))
            return
        # Most likely the job is deleted, and its own event lost: its child must not be made anew.
        task = asyncio.create_task(self._remove_after_job(job, uid, version))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _remove_after_job(self, job: RetrainJobSnapshot, uid: str, version: int) -> None:
        try:
            await self.read(RETRAINJOBS, [(job.namespace, job.name, job.uid)])
        except ClusterError as error:
            _logger.warning("RetrainJob %s/%s could not be read: %s", *job.key, error)
        self._wake(CHILDREN, self._memory.remove(uid, version))

    def _read(self, kind: Kind, body: Body) -> Watched | None:
        try:
            return kind.snapshot(body)
        except Exception:
            # Anybody may have written it: it must not stop what is shown after it.
            uid = str((body.get("metadata") or {}).get("uid"))
            if uid not in self.unreadable:
                self.unreadable.add(uid)
                _logger.exception("An object of %s cannot be read: %s", kind.resource, uid)
            return None

    def _wake(self, kind: Kind, keys: Iterable[Key]) -> None:
        for key in keys:
            (self._due if kind is RETRAINJOBS else self._soon)(key)

    async def read(self, kind: Kind, objects: Iterable[tuple[str, str, str]]) -> None:
        """Read these objects (namespace, name, uid) and take in what they are, or that they are gone.

        Raises:
            ClusterError: an object could not be read for another reason than that it is not there.
        """
        gate = asyncio.Semaphore(_READS)

        async def read_one(namespace: str, name: str, uid: str) -> None:
            async with gate:
                try:
                    body = await self._kube.get(kind.path(namespace, name))
                except ApiError as error:
                    if error.code != 404:
                        raise
                    body = {}
            if (body.get("metadata") or {}).get("uid") != uid:
                self._wake(kind, self._memory.remove(uid))
            if body:
                self.put(kind, body)

        await asyncio.gather(*(read_one(*each) for each in objects))

    def doubt_children(self, namespace: str | None) -> None:
        """Have the children read that no list of this namespace shows, before anything is decided."""
        for job in self.snapshots(RETRAINJOBS, namespace).values():
            if isinstance(job, RetrainJobSnapshot) and self._memory.doubt_children(job):
                self._due(job.key)

    async def read_children_of_pods(self) -> None:
        """Read the Jobs that no watch shows, for they have lost their labels, but whose pods do."""
        pods = self._memory.pods_without_child()[:_STRAYS]
        await self.read(CHILDREN, [(p.namespace, p.child_name, p.child_uid) for p in pods])

    def leave(self, namespaces: Iterable[str | None]) -> None:
        """Forget what is in no namespace of these: there are no rights in the others any more."""
        served = set(namespaces)
        if None in served:
            return
        for snapshot in self._memory.snapshots():
            if snapshot.namespace not in served:
                self._memory.remove(snapshot.uid, snapshot.version)
