"""What kopf is given: three watches, and how to log in; nothing is decided here.

No handler but on.event, so that kopf writes nothing to any object: no annotation, no
finalizer, nothing that would block a deletion while the operator is away.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import kopf

from retrainer.api.names import GROUP, LABEL_JOB, LABEL_MANAGED_BY, MANAGED_BY, PLURAL, VERSION
from retrainer_operator.api_server.client import connection
from retrainer_operator.planning.snapshots import Child, Key, Pod, child_of, job_of, pod_of
from retrainer_operator.reconciling.memory import Memory

SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_JOB}"
"""Of children and their pods: the API server filters, other people's pods cost nothing."""


class Backoffs:
    """Seconds between a watch's tries: 1, 2, 4, 8, then 15 without end, each with jitter.

    An object and not a list, because kopf gives up at the end of one; each iteration starts anew.
    """

    def __iter__(self) -> Iterator[float]:
        for seconds in itertools.chain((1, 2, 4, 8), itertools.repeat(15)):
            yield seconds * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret


class _NoDiffs(kopf.DiffBaseStorage):
    """No essence of an object is kept or compared: half of kopf's time per event, for nothing here."""

    def build(self, **_: Any) -> Any:
        """Nothing."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Nothing."""

    def store(self, **_: Any) -> None:
        """Nowhere."""


class _NoProgress(kopf.ProgressStorage):
    """No handler here has any progress to keep."""

    def fetch(self, **_: Any) -> Any:
        """Nothing."""

    def store(self, **_: Any) -> None:
        """Nowhere."""

    def purge(self, **_: Any) -> None:
        """Nothing."""

    def touch(self, **_: Any) -> None:
        """Nothing."""

    def clear(self, *, essence: Any) -> Any:
        """As it is."""
        return essence


def settings() -> kopf.OperatorSettings:
    """kopf's own settings."""
    made = kopf.OperatorSettings()
    made.watching.server_timeout = 300
    made.watching.inactivity_timeout = 70  # the API server sends a bookmark every minute
    made.watching.chunk_size = 500
    made.watching.label_selectors["batch", "v1", "jobs"] = SELECTOR
    made.watching.label_selectors["", "v1", "pods"] = SELECTOR
    made.scanning.disabled = True
    made.peering.standalone = True
    made.posting.enabled = False
    made.networking.enforce_retry_after = True
    made.networking.error_backoffs = Backoffs()
    # A task per object lives this long after its last event: thousands at once while all are listed.
    made.queueing.idle_timeout = 0.05
    made.persistence.diffbase_storage = _NoDiffs()
    made.persistence.progress_storage = _NoProgress()
    # kopf would kill the process ten minutes after its own end; we start it again instead.
    made.process.ultimate_exiting_timeout = None
    return made


def registry(
    memory: Memory,
    due: Callable[[Key], None],
    soon: Callable[[Key], None],
    deleted: Callable[[Key, str], None],
) -> kopf.OperatorRegistry:
    """The handlers.

    `due` is called for each change of a job, `soon` for each of its Jobs and pods, which come in
    bursts, `deleted` once a job is no more.
    """
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=made, id="job")
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:
        job = job_of(event["object"])
        if event["type"] == "DELETED":
            deleted(job.key, job.uid)
        elif not memory.saw(job.key, job):
            return
        due(job.key)

    @kopf.on.event("batch", "v1", "jobs", registry=made, id="child")
    async def on_child(event: kopf.RawEvent, **_: Any) -> None:
        dependent(event, child_of(event["object"]))

    @kopf.on.event("", "v1", "pods", registry=made, id="pod")
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        dependent(event, pod_of(event["object"]))

    def dependent(event: kopf.RawEvent, seen: Child | Pod) -> None:
        meta = event["object"]["metadata"]
        key = (meta["namespace"], (meta.get("labels") or {}).get(LABEL_JOB, ""))
        if event["type"] == "DELETED":
            memory.gone(key, seen.uid)
        elif not memory.saw(key, seen):
            return
        soon(key)

    return made
