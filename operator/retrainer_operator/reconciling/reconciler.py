"""Carry a plan out: children first, then the status; nothing unless this replica leads."""

import time
from collections.abc import Callable
from typing import Any, Protocol

from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.case import Change, Create, Look, Remove, Write
from retrainer_operator.planning.checks import RETRY_NAME, RETRY_REFUSED
from retrainer_operator.planning.plan import Plan, plan
from retrainer_operator.planning.progress import OverallLimit
from retrainer_operator.planning.snapshots import (
    Child,
    ChildEvents,
    Job,
    Key,
    Refusal,
    child_of,
    is_own,
    job_of,
    pod_of,
    seconds,
)
from retrainer_operator.planning.status import JOB_CREATED, Notice
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.reconciling.queue import RetryLater
from retrainer_operator.settings import Settings

_ROUNDS = 6
"""Decisions in one pass: each read or write that changes what is known asks for another."""
_LOOK_MAX = 64
_STATUSES = (400, 403, 422)

Body = dict[str, Any]


class Api(Protocol):
    """What is asked of the API server."""

    async def get(self, path: str, **params: str) -> Body:
        """One object or list."""

    async def create(self, path: str, body: Body) -> Body:
        """Create it."""

    async def patch(self, path: str, body: Body) -> Body:
        """JSON merge patch."""

    async def delete(self, path: str, uid: str) -> Body:
        """Delete it if it has this uid."""


class Reconciler:
    """One pass over a job: observe, plan, apply."""

    def __init__(
        self,
        api: Api,
        memory: Memory,
        settings: Settings,
        *,
        leads: Callable[[], bool],
        tell: Callable[[Job, Notice], None] = lambda _job, _notice: None,
        on_finished: Callable[[str, str], None] = lambda _phase, _reason: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._memory = memory
        self._settings = settings
        self._leads = leads
        self._on_finished = on_finished
        self._clock = clock
        self._tell = tell
        self._limit = OverallLimit()

    async def __call__(self, key: Key) -> float | None:
        """One pass; seconds until the next, if one is due by the clock.

        Raises:
            RetryLater: what was planned on has changed meanwhile.
            ClusterError: the API server could not be reached, or refused what it should not.
        """
        for _ in range(_ROUNDS):
            now = self._clock()
            observed = self._memory.observe(key)
            if observed.job is None:
                self._memory.forget(key)
                return None
            made = plan(observed, self._settings, now)
            if made.look is not None:
                await self._look(key, made.look, now)
                continue
            again_at = made.again_at
            if not await self._write_children(key, observed.job, made.writes):
                continue
            if any(isinstance(write, Create) for write in made.writes):
                # The words wait for the end of the queue: of a thousand jobs that come at once, each
                # gets its Job before the first is told so.
                return 0.0
            waits = await self._write_status(key, observed.job, made, now)
            if made.delete:
                await self._delete_job(observed.job)
            if made.outcome is not None and made.status:
                return 0.0  # its time to live begins
            times = [t for t in (again_at and again_at - now, waits) if t is not None]
            return max(0.0, min(times)) if times else None
        raise RetryLater

    # --- look ---

    async def _look(self, key: Key, look: Look, now: float) -> None:
        namespace = key[0]
        if look.at == "pods":
            pods = await self._api.get(
                f"/api/v1/namespaces/{namespace}/pods",
                labelSelector=f"batch.kubernetes.io/controller-uid={look.uid}",
            )
            for body in pods.get("items") or ():
                self._memory.saw(key, pod_of(body))
            self._memory.listed(key, look.uid)
            return
        try:
            events = await self._api.get(
                f"/api/v1/namespaces/{namespace}/events",
                fieldSelector=f"involvedObject.uid={look.uid},type=Warning",
                limit=str(_LOOK_MAX),
            )
        except ApiError as error:
            if error.code != 403:
                raise
            events = {}  # it goes without: they only say why
        latest = max(events.get("items") or (), key=_event_time, default=None)
        message = str(latest.get("message") or "") if latest else ""
        self._memory.warned(key, look.uid, ChildEvents(message, now))

    # --- write ---

    async def _write_children(self, key: Key, job: Job, writes: tuple[Write, ...]) -> bool:
        """Whether the plan still stands; if not, decide anew."""
        for write in writes:
            self._check_lead()
            stands = True
            if isinstance(write, Create):
                stands = await self._create(key, job, write.body)
            elif isinstance(write, Change):
                stands = await self._change(key, write)
            elif isinstance(write, Remove):
                await self._remove(key, write.child)
            if not stands:
                return False
        return True

    async def _create(self, key: Key, job: Job, body: Body) -> bool:
        name = body["metadata"]["name"]
        try:
            made = await self._api.create(_children(key[0]), body)
        except ApiError as error:
            if error.code == 409 and error.cause == "AlreadyExists":
                await self._find_holder(key, job, name)
            elif error.code == 404 or "being terminated" in str(error):
                # The namespace goes, and the job with it.
                raise RetryLater(RETRY_REFUSED) from error
            elif error.code in _STATUSES:
                refusal = Refusal(error.code, str(error), self._clock())
                self._memory.refused(key, name, refusal)
            else:
                raise
            return False
        self._memory.saw(key, child_of(made))
        self._tell(job, Notice("Normal", JOB_CREATED, f"Created Job {name}."))
        return True

    async def _find_holder(self, key: Key, job: Job, name: str) -> None:
        """Somebody has the name: we, by a write whose answer was lost, or another."""
        try:
            holder = child_of(await self._api.get(f"{_children(key[0])}/{name}"))
        except ApiError as error:
            if error.code != 404:
                raise
            return
        if is_own(holder, job):
            self._memory.saw(key, holder)
        else:
            self._memory.held(key, holder, RETRY_NAME)

    async def _change(self, key: Key, write: Change) -> bool:
        child = write.child
        body = {"metadata": {"uid": child.uid}, "spec": write.spec}
        try:
            made = await self._api.patch(f"{_children(key[0])}/{child.name}", body)
        except ApiError as error:
            if error.code == 404:
                self._memory.gone(key, child.uid)
                return False
            if error.code == 409:
                raise RetryLater from error
            raise
        self._memory.saw(key, child_of(made))
        return True

    async def _remove(self, key: Key, child: Child) -> None:
        try:
            made = await self._api.delete(f"{_children(key[0])}/{child.name}", child.uid)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            made = {}
        if made.get("kind") == "Job":
            self._memory.saw(key, child_of(made))
        else:
            self._memory.gone(key, child.uid)

    async def _write_status(self, key: Key, job: Job, made: Plan, now: float) -> float | None:
        """Seconds after which a status that must wait its turn may be written."""
        if not made.status:
            return None
        if made.figures_only and (wait := self._limit.take(now)):
            return wait
        self._check_lead()
        body = {
            # What was decided on is what is changed, or nothing is.
            "metadata": {"uid": job.uid, "resourceVersion": str(job.version)},
            "status": made.status,
        }
        try:
            answer = await self._api.patch(f"{job_path(job)}/status", body)
        except ApiError as error:
            if error.code == 404:
                self._memory.gone(key, job.uid)
                return None
            if error.code == 409:
                raise RetryLater from error
            raise
        self._memory.saw(key, job_of(answer))
        self._memory.wrote_progress(key, now)
        if made.outcome is not None:
            self._on_finished(*made.outcome)
        for notice in made.notices:
            self._tell(job, notice)
        return None

    async def _delete_job(self, job: Job) -> None:
        self._check_lead()
        try:
            await self._api.delete(job_path(job), job.uid)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def _check_lead(self) -> None:
        if not self._leads():
            raise RetryLater(2.0)


def job_path(job: Job) -> str:
    """Where the RetrainJob is."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{job.namespace}/{PLURAL}/{job.name}"


def _children(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def _event_time(event: Body) -> float:
    for field in ("lastTimestamp", "eventTime", "firstTimestamp"):
        if event.get(field):
            return seconds(event[field]) or 0.0
    return 0.0
