"""kopf's handlers: three watches that fill the memory, and how to log in. Nothing is decided here.

There is no handler but on.event, so that kopf writes nothing to any object: no annotation and no
finalizer, which would block a deletion while the operator is away.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import kopf
from typing_extensions import override

from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer_operator.api_server.client import connection
from retrainer_operator.api_server.selectors import SELECTOR
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.snapshots import Key
from retrainer_operator.reconciling.memory import Memory, Watched


class Backoffs:
    """Seconds between a watch's tries: 1, 2, 4, 8, then 15 without end, each with jitter.

    An object and not a list, because kopf gives up at the end of one; each iteration starts anew.
    """

    def __iter__(self) -> Iterator[float]:
        for seconds in itertools.chain((1, 2, 4, 8), itertools.repeat(15)):
            yield seconds * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps and compares no essence of an object: that took half of kopf's time per event."""

    @override
    def build(self, **_: Any) -> Any:
        return {}

    @override
    def fetch(self, **_: Any) -> Any:
        return None

    @override
    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers: none here has any."""

    @override
    def fetch(self, **_: Any) -> Any:
        return None

    @override
    def store(self, **_: Any) -> None:
        pass

    @override
    def purge(self, **_: Any) -> None:
        pass

    @override
    def touch(self, **_: Any) -> None:
        pass

    @override
    def clear(self, *, essence: Any) -> Any:
        return essence


def settings() -> kopf.OperatorSettings:
    """Make kopf's own settings."""
    configuration = kopf.OperatorSettings()
    configuration.watching.server_timeout = 300
    configuration.watching.inactivity_timeout = 70  # the API server sends a bookmark every minute
    configuration.watching.chunk_size = 500
    configuration.watching.label_selectors["batch", "v1", "jobs"] = SELECTOR
    configuration.watching.label_selectors["", "v1", "pods"] = SELECTOR
    configuration.scanning.disabled = True
    configuration.peering.standalone = True
    configuration.posting.enabled = False
    configuration.networking.enforce_retry_after = True
    configuration.networking.error_backoffs = Backoffs()
    # A task per object lives this long after its last event: thousands at once while all are listed.
    configuration.queueing.idle_timeout = 0.05
    configuration.persistence.diffbase_storage = _NoDiffs()
    configuration.persistence.progress_storage = _NoProgress()
    # kopf would kill the process ten minutes after its own end; we start it again instead.
    configuration.process.ultimate_exiting_timeout = None
    return configuration


def registry(
    memory: Memory,
    due: Callable[[Key], None],
    soon: Callable[[Key], None],
) -> kopf.OperatorRegistry:
    """Register the handlers.

    `due` is called for each change of a job, `soon` for each of its Jobs and pods, which come in bursts.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers, id="job")
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:
        for key in take(event, read_job(event["object"])):
            due(key)

    @kopf.on.event("batch", "v1", "jobs", registry=handlers, id="child")
    async def on_child(event: kopf.RawEvent, **_: Any) -> None:
        for key in take(event, read_child(event["object"])):
            soon(key)

    @kopf.on.event("", "v1", "pods", registry=handlers, id="pod")
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        for key in take(event, read_pod(event["object"])):
            soon(key)

    def take(event: kopf.RawEvent, snapshot: Watched) -> set[Key]:
        if event["type"] == "DELETED":
            return memory.remove(snapshot.uid, snapshot.version)
        return memory.put(snapshot)

    return handlers
