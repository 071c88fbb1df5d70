"""Passes over jobs: observe, plan, write. Children first, then the status; only while leading."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.actions import (
    JOB_CREATED,
    RETRY_NAME,
    RETRY_REFUSED,
    CreateChild,
    DeleteChild,
    DeleteLeft,
    Event,
    Look,
    PatchChild,
    RestoreChild,
    Write,
)
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.plan import Plan, plan
from retrainer_operator.planning.snapshots import (
    ChildEvents,
    ChildSnapshot,
    Key,
    Refusal,
    RetrainJobSnapshot,
    is_own,
)
from retrainer_operator.reconciling.memory import Memory
from retrainer_operator.reconciling.queue import RetryLater
from retrainer_operator.reconciling.rate import OverallLimit
from retrainer_operator.settings import Settings

_ROUNDS = 6
"""Decisions in one pass: each read or write that changes what was decided from needs another."""
_STATUSES = (400, 403, 422)

_logger = logging.getLogger(__name__)

Body = dict[str, Any]


class Api(Protocol):
    """Requests that a pass needs of the API server."""

    async def get(self, path: str, **params: str) -> Body:
        """Read one object or list."""

    async def create(self, path: str, body: Body) -> Body:
        """Create an object."""

    async def patch(self, path: str, body: Body) -> Body:
        """Change an object by a JSON merge patch."""

    async def delete(self, path: str, uid: str, version: int | None = None) -> Body:
        """Delete an object if it has this uid."""


class Reconciler:
    """Does one pass over a job after the other: observe, plan, apply."""

    def __init__(
        self,
        api: Api,
        memory: Memory,
        settings: Settings,
        *,
        leads: Callable[[], bool],
        on_question: Callable[[RetrainJobSnapshot, str], None] = lambda _job, _child_uid: None,
        on_event: Callable[[RetrainJobSnapshot, Event], None] = lambda _job, _event: None,
        on_finished: Callable[[str, str], None] = lambda _phase, _reason: None,
        on_refused: Callable[[], None] = lambda: None,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._memory = memory
        self._settings = settings
        self._leads = leads
        self._on_finished = on_finished
        self._on_refused = on_refused
        self._clock = clock
        self._on_event = on_event
        self._on_question = on_question
        self._limit = OverallLimit()

    async def __call__(self, key: Key) -> float | None:
        """Do one pass; returns the seconds until the next, if one is due by the clock.

        Raises:
            RetryLater: what was planned on has changed meanwhile.
            ClusterError: the API server could not be reached, or refused what it should not.
        """
        for _ in range(_ROUNDS):
            now = self._clock()
            observed = self._memory.observe(key)
            decision = plan(observed, self._settings, now)
            if observed.job is None:
                if not await self._delete_left(decision.writes):
                    continue
                return None
            if decision.look is not None:
                await self._look(observed.job, decision.look, now)
                continue
            again_at = decision.again_at
            if not await self._write_children(observed.job, decision.writes):
                continue
            if any(isinstance(write, CreateChild) for write in decision.writes):
                # The status is written in a pass at the end of the queue: of a thousand jobs that come
                # at once, each gets its Job before the first gets its status.
                return 0.0
            waits = await self._write_status(observed.job, decision, now)
            if decision.delete:
                await self._delete_job(observed.job)
            if decision.outcome is not None and decision.status:
                return 0.0  # its time to live begins
            times = [t for t in (again_at and again_at - now, waits) if t is not None]
            return max(0.0, min(times)) if times else None
        raise RetryLater

    # --- look ---

    async def _look(self, job: RetrainJobSnapshot, look: Look, now: float) -> None:
        namespace = job.namespace
        if look.at == "child":
            await self._read_holder(job, look.child)
            self._memory.note_read(job.uid, look.child)
            return
        if look.at == "pods":
            pods = await self._api.get(
                f"/api/v1/namespaces/{namespace}/pods",
                labelSelector=f"batch.kubernetes.io/controller-uid={look.uid}",
            )
            for body in pods.get("items") or ():
                self._memory.put(read_pod(body))
            self._memory.note_listed(job.uid, look.uid)
            return
        # Until the answer comes, the earlier warning counts; the answer makes the next pass due.
        before = self._memory.observe(job.key).child_events.get(look.uid, ChildEvents("", now))
        self._memory.note_events(job.uid, look.uid, ChildEvents(before.message, now))
        self._on_question(job, look.uid)

    # --- write ---

    async def _write_children(self, job: RetrainJobSnapshot, writes: tuple[Write, ...]) -> bool:
        """Say whether the plan is still right; if not, the pass decides again."""
        for write in writes:
            self._check_lead()
            stands = True
            if isinstance(write, CreateChild):
                stands = await self._create(job, write.body)
            elif isinstance(write, PatchChild):
                stands = await self._change(job, write)
            elif isinstance(write, DeleteChild):
                stands = await self._remove(job, write.child)
            elif isinstance(write, DeleteLeft):
                stands = await self._delete_left((write,))
            elif isinstance(write, RestoreChild):
                stands = await self._restore(job, write)
            if not stands:
                return False
        return True

    async def _create(self, job: RetrainJobSnapshot, body: Body) -> bool:
        name = body["metadata"]["name"]
        try:
            answer = await self._api.create(_children(job.namespace), body)
        except ApiError as error:
            if error.code == 409 and error.cause == "AlreadyExists":
                await self._read_holder(job, name)
            elif error.code == 404 or "being terminated" in str(error):
                # The namespace is being deleted, and the job with it.
                raise RetryLater(RETRY_REFUSED) from error
            elif error.code in _STATUSES:
                refusal = Refusal(error.code, str(error), self._clock())
                self._memory.note_refusal(job.uid, name, refusal)
            else:
                raise
            return False
        self._memory.put(read_child(answer))
        self._on_event(job, Event("Normal", JOB_CREATED, f"Created Job {name}."))
        return True

    async def _read_holder(self, job: RetrainJobSnapshot, name: str) -> str | None:
        """Read which Job has this name: one of this job's own, by a write of ours, or another's.

        Returns:
            Its uid; None if there is none.
        """
        try:
            holder = read_child(await self._api.get(f"{_children(job.namespace)}/{name}"))
        except ApiError as error:
            if error.code != 404:
                raise
            return None
        if is_own(holder, job) or holder.unowned:
            self._memory.put(holder)
        else:
            self._memory.note_holder(job.uid, holder, RETRY_NAME)
        return holder.uid

    async def _change(self, job: RetrainJobSnapshot, write: PatchChild) -> bool:
        child = write.child
        body = {"metadata": {"uid": child.uid}, "spec": write.spec}
        try:
            answer = await self._api.patch(_child_path(child), body)
        except ApiError as error:
            await self._after_refusal(job, child, error)
            return False
        self._memory.put(read_child(answer))
        return True

    async def _restore(self, job: RetrainJobSnapshot, write: RestoreChild) -> bool:
        """Read the child as it is, since its owner references can only be written as a whole."""
        try:
            body = await self._api.get(_child_path(write.child))
            current = read_child(body)
            if current.uid != write.child.uid or not is_own(current, job):
                self._memory.put(current)
                return False
            metadata: Body = {
                "uid": current.uid,
                "resourceVersion": str(current.version),
                "labels": write.labels,
            }
            owners = body["metadata"].get("ownerReferences") or []
            if not any(owner.get("controller") for owner in owners):
                others = [owner for owner in owners if owner.get("uid") != job.uid]
                metadata["ownerReferences"] = [*others, write.owner]
            answer = await self._api.patch(_child_path(write.child), {"metadata": metadata})
        except ApiError as error:
            await self._after_refusal(job, write.child, error)
            return False
        self._memory.put(read_child(answer))
        return True

    async def _remove(self, job: RetrainJobSnapshot, child: ChildSnapshot) -> bool:
        try:
            # Not if it has changed since: it may have just completed, and its log is worth keeping.
            answer = await self._api.delete(_child_path(child), child.uid, child.version)
        except ApiError as error:
            await self._after_refusal(job, child, error)
            return False
        if answer.get("kind") == "Job":  # it has finalizers, and goes once they are done
            self._memory.put(read_child(answer))
        else:
            self._memory.remove(child.uid)
        return True

    async def _delete_left(self, writes: tuple[Write, ...]) -> bool:
        """Delete Jobs whose RetrainJob is gone, as Kubernetes does of those that are still owned."""
        for write in writes:
            if not isinstance(write, DeleteLeft):
                continue
            self._check_lead()
            child = write.child
            # Memory may be behind: the job that it was made for may be the one that is there now.
            job = await self._read_job(child.namespace, child.template_job)
            if job is not None and is_own(child, job):
                self._memory.put(job)
                return False
            try:
                await self._api.delete(_child_path(child), child.uid, child.version)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                if error.code == 409:
                    self._memory.put(read_child(await self._api.get(_child_path(child))))
                    return False
            _logger.info(
                "Job %s/%s is deleted: its RetrainJob is gone, and nobody owned it",
                child.namespace,
                child.name,
            )
            self._memory.remove(child.uid)
        return True

    async def _read_job(self, namespace: str, name: str) -> RetrainJobSnapshot | None:
        try:
            return read_job(await self._api.get(_job_path(namespace, name)))
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    async def _after_refusal(
        self, job: RetrainJobSnapshot, child: ChildSnapshot, error: ApiError
    ) -> None:
        """Find out what became of a child that a write was refused for.

        Raises:
            RetryLater: it is still the same one, and the conflict passes.
            ApiError: the refusal was for another reason.
        """
        if error.code not in (404, 409):
            raise error
        if error.code == 409 and await self._read_holder(job, child.name) == child.uid:
            raise RetryLater from error
        self._memory.remove(child.uid)

    async def _write_status(
        self, job: RetrainJobSnapshot, decision: Plan, now: float
    ) -> float | None:
        """Seconds after which a status that must wait its turn may be written."""
        if not decision.status:
            return None
        if decision.figures_only and (wait := self._limit.take(now)):
            return wait
        self._check_lead()
        body = {
            # The write is refused if the job has changed since it was observed.
            "metadata": {"uid": job.uid, "resourceVersion": str(job.version)},
            "status": decision.status,
        }
        try:
            answer = await self._api.patch(f"{job_path(job)}/status", body)
        except ApiError as error:
            if error.code == 404:
                self._memory.remove(job.uid)
                return None
            if error.code == 409:
                raise RetryLater from error
            if error.code == 422:
                self._on_refused()
            raise
        self._memory.put(read_job(answer))
        self._memory.note_progress(job.uid, now)
        if decision.outcome is not None:
            self._on_finished(*decision.outcome)
        for event in decision.events:
            self._on_event(job, event)
        return None

    async def _delete_job(self, job: RetrainJobSnapshot) -> None:
        self._check_lead()
        try:
            await self._api.delete(job_path(job), job.uid)
        except ApiError as error:
            if error.code == 409:
                raise RetryLater from error
            if error.code != 404:
                raise

    def _check_lead(self) -> None:
        if not self._leads():
            raise RetryLater(2.0)


def job_path(job: RetrainJobSnapshot) -> str:
    """Write the path of the RetrainJob."""
    return _job_path(job.namespace, job.name)


def _job_path(namespace: str, name: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}"


def _children(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def _child_path(child: ChildSnapshot) -> str:
    return f"{_children(child.namespace)}/{child.name}"
