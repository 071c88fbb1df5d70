"""An API server in memory, and what the Job controller and the kubelet would do to its objects.

The operator's own code runs against it unchanged: `FakeCluster` answers the reconciler's requests, and
`Run.sync` puts into its memory what the watches would have brought, as late as a test wants.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any

from tests.operator import objects

from retrainer.api.names import LABEL_JOB, LABEL_MANAGED_BY, MANAGED_BY
from retrainer.errors import ClusterError
from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.snapshots import RetrainJobSnapshot
from retrainer_operator.planning.times import format_time
from retrainer_operator.reconciling.memory import Memory, Watched
from retrainer_operator.reconciling.reconciler import Reconciler
from retrainer_operator.settings import Settings

Body = dict[str, Any]
JOB = "/apis/retrainer.dev/v1alpha1/namespaces/team/retrainjobs/flowers"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
PODS = "/api/v1/namespaces/team/pods"
KEY = ("team", "flowers")
# The fields of a child's spec that the operator may change after its creation.
MUTABLE = {"suspend", "activeDeadlineSeconds"}


class FakeCluster:
    """Objects by path; `now` moves when a test says so."""

    def __init__(self) -> None:
        self.now = objects.NOW
        self.objects: dict[str, Body] = {}
        self.writes: list[tuple[str, str]] = []
        self.fault = ""
        self.created = 0
        self._numbers = itertools.count(1000)
        self._gone: dict[str, int] = {}

    # --- requests of the reconciler ---

    async def get(self, path: str, **params: str) -> Body:
        self._maybe_fail("refused")
        if path == PODS:
            uid = params["labelSelector"].partition("=")[2]
            mine = [p for p in self.pods() if p["metadata"]["ownerReferences"][0]["uid"] == uid]
            return {"items": copy.deepcopy(mine)}
        if path.endswith("/events"):
            return {"items": []}
        return copy.deepcopy(self._existing(path))

    async def create(self, path: str, body: Body) -> Body:
        name = body["metadata"].get("name") or f"event-{next(self._numbers)}"
        where = f"{path}/{name}"
        self.writes.append(("create", where))
        self._maybe_fail("refused")
        if where in self.objects:
            raise ApiError(409, "AlreadyExists", f"{name} already exists", None)
        created = copy.deepcopy(body)
        created["metadata"] |= {
            "uid": f"uid-{next(self._numbers)}",
            "creationTimestamp": self._stamp(),
        }
        return self._answer(self.put(where, created))

    async def patch(self, path: str, body: Body) -> Body:
        self.writes.append(("patch", path))
        self._maybe_fail("refused")
        where = path.removesuffix("/status")
        current = self._existing(where)
        asked = body.get("metadata", {})
        for field in ("uid", "resourceVersion"):
            if field in asked and asked[field] != current["metadata"][field]:
                raise ApiError(409, "Conflict", f"{field} differs", None)
        if where.startswith(JOBS):
            assert set(body.get("spec", {})) <= MUTABLE, body
        changed = copy.deepcopy(current)
        for field in ("labels", "ownerReferences"):
            if field in asked:
                changed["metadata"][field] = objects.merge(
                    current["metadata"].get(field), asked[field]
                )
        for part in ("spec", "status"):
            if part in body:
                changed[part] = objects.merge(current.get(part), body[part])
        return self._answer(self.put(where, changed))

    async def delete(self, path: str, uid: str, version: int | None = None) -> Body:
        self.writes.append(("delete", path))
        self._maybe_fail("refused")
        current = self._existing(path)
        if current["metadata"]["uid"] != uid:
            raise ApiError(409, "Conflict", "uid differs", None)
        if version is not None and str(version) != current["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "resourceVersion differs", None)
        self.remove(path)
        return self._answer({"kind": "Status"})

    def _answer(self, body: Body) -> Body:
        self._maybe_fail("unanswered")
        return body

    def _maybe_fail(self, how: str) -> None:
        """Once, if a test wants the next request refused, or the next write done but not answered."""
        if self.fault == how:
            self.fault = ""
            raise ClusterError(how)

    # --- what users and controllers do ---

    def apply_job(self, **options: Any) -> None:
        """`options` are those of `make_job_body`."""
        body = objects.make_job_body(**options)
        # A job that is created again under its name has another uid.
        self.created += 1
        uid = objects.UID if self.created == 1 else f"{objects.UID[:-4]}{self.created:04}"
        body["metadata"] |= {"uid": uid, "creationTimestamp": self._stamp()}
        self.put(JOB, body)

    def collect_garbage(self) -> None:
        """Remove what is owned by an object that is gone."""
        uids = {body["metadata"]["uid"] for body in self.objects.values()}
        for path, body in list(self.objects.items()):
            owners = body["metadata"].get("ownerReferences") or ()
            if path in self.objects and owners and not any(o["uid"] in uids for o in owners):
                self.remove(path)

    def snapshot(self) -> dict[str, Body]:
        """Everything as it is now, for a list that is served late."""
        return copy.deepcopy(self.objects)

    def edit_job(self, spec: Body) -> None:
        """Set these fields of the spec; None drops one."""
        if JOB in self.objects:
            body = copy.deepcopy(self.objects[JOB])
            for field, value in spec.items():
                body["spec"].pop(field, None)
                if value is not None:
                    body["spec"][field] = value
            body["metadata"]["generation"] += 1
            self.put(JOB, body)

    def set(self, path: str, **status: Any) -> None:
        """Change some of an object's status."""
        body = copy.deepcopy(self.objects[path])
        body.setdefault("status", {}).update(status)
        self.put(path, body)

    def control_jobs(self) -> None:
        """The Job controller: start and stop what is to be, and make the pods that lack."""
        for path, body in list(self.objects.items()):
            if not path.startswith(JOBS) or ended(body):
                continue
            status, suspended = body.get("status", {}), body["spec"].get("suspend")
            if suspended and status.get("startTime"):
                stopped = copy.deepcopy(body)
                del stopped["status"]["startTime"]
                self.put(path, stopped)
                for pod, of in self._pods_of(body):
                    if of["status"]["phase"] in ("Pending", "Running"):
                        self.remove(pod)
            elif not suspended:
                if not status.get("startTime"):
                    self.set(path, startTime=self._stamp())
                self._make_pods(body)

    def _make_pods(self, body: Body) -> None:
        pods = [pod for _, pod in self._pods_of(body)]
        for shard in range(body["spec"].get("completions", 1)):
            mine = [p for p in pods if _shard(p) == shard]
            if any(p["status"]["phase"] != "Failed" for p in mine):
                continue
            name = f"{body['metadata']['name']}-{shard}-{next(self._numbers)}"
            pod = objects.make_pod_body(
                name,
                shard=shard,
                child_uid=body["metadata"]["uid"],
                created=self.now,
                uid=f"uid-{name}",
            )
            self.put(f"{PODS}/{name}", pod)

    def finish(self, body: Body, kind: str, reason: str) -> None:
        """The Job controller ends a Job."""
        path = f"{JOBS}/{body['metadata']['name']}"
        condition = {"type": kind, "status": "True", "reason": reason, "message": reason}
        self.set(path, conditions=[condition], failed=len(self._pods_of(body)))

    def end_pod(self, path: str, code: int, reason: str = "Error", message: str = "") -> None:
        terminated = {"exitCode": code, "reason": reason, "message": message,
                      "finishedAt": self._stamp()}  # fmt: skip
        state = [{"name": "trainer", "state": {"terminated": terminated}}]
        self.set(path, phase="Failed" if code else "Succeeded", containerStatuses=state)

    def run_pod(self, path: str) -> None:
        state = [{"name": "trainer", "state": {"running": {}}}]
        self.set(path, phase="Running", containerStatuses=state)

    def remove(self, path: str) -> None:
        body = self.objects.pop(path)
        self._gone[body["metadata"]["uid"]] = next(self._numbers)
        for other, of in list(self.objects.items()):
            owners = of["metadata"].get("ownerReferences", ())
            if any(owner["uid"] == body["metadata"]["uid"] for owner in owners):
                self.remove(other)

    # --- read ---

    @property
    def job(self) -> Body | None:
        return self.objects.get(JOB)

    @property
    def phase(self) -> str:
        return str((self.job or {}).get("status", {}).get("phase", ""))

    def children(self) -> list[Body]:
        return [body for path, body in self.objects.items() if path.startswith(JOBS)]

    def pods(self) -> list[Body]:
        return [body for path, body in self.objects.items() if path.startswith(PODS)]

    def pod_paths(self, *phases: str) -> list[str]:
        return sorted(
            path
            for path, body in self.objects.items()
            if path.startswith(PODS) and body["status"]["phase"] in phases
        )

    def _pods_of(self, body: Body) -> list[tuple[str, Body]]:
        uid = body["metadata"]["uid"]
        return [
            (f"{PODS}/{p['metadata']['name']}", p)
            for p in self.pods()
            if p["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def gone_at(self, uid: str) -> int:
        """The version of a watch's event that an object is deleted, or has lost its labels."""
        left = (b["metadata"] for b in self.objects.values() if b["metadata"]["uid"] == uid)
        return next((int(meta["resourceVersion"]) for meta in left), self._gone.get(uid, 0))

    def _existing(self, path: str) -> Body:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found", None)
        return self.objects[path]

    def put(self, path: str, body: Body) -> Body:
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[path] = body
        return copy.deepcopy(body)

    def _stamp(self) -> str:
        return format_time(self.now)


class Run:
    """One process of the operator: it may be replaced by another, which remembers nothing."""

    def __init__(
        self, cluster: FakeCluster, settings: Settings, stale: dict[str, Body] | None = None
    ) -> None:
        """Start with the lists as they are, or as they were (`stale`)."""
        self.cluster = cluster
        self._lost: set[tuple[str, int]] = set()
        self.memory = Memory()
        self.finished: list[tuple[str, str]] = []
        self.refused = 0
        self.reconciler = Reconciler(
            cluster,
            self.memory,
            settings,
            leads=lambda: True,
            on_finished=lambda phase, reason: self.finished.append((phase, reason)),
            on_refused=self._count_refusal,
            clock=lambda: cluster.now,
        )
        if stale is None:
            self.sync()
        else:
            self.take(stale)
        for job in self.memory.jobs():
            self.memory.doubt_children(job)

    def _count_refusal(self) -> None:
        self.refused += 1

    def sync(self) -> None:
        """Let the watches catch up: they show what has our labels, and that anything else went."""
        snapshots = [
            s for s in _snapshots(self.cluster.objects) if (s.uid, s.version) not in self._lost
        ]
        for snapshot in snapshots:
            if _is_watched(snapshot, self.cluster.objects):
                self.memory.put(snapshot)
        shown = {s.uid for s in snapshots if _is_watched(s, self.cluster.objects)}
        for uid in {s.uid for s in self.memory.snapshots()} - shown:
            version = self.cluster.gone_at(uid)
            if (uid, version) not in self._lost:
                self.memory.remove(uid, version)

    def lose(self, uid: str) -> None:
        """Lose the event of the latest change to this object, or of its deletion."""
        self._lost.add((uid, self.cluster.gone_at(uid)))

    def take(self, listed: dict[str, Body]) -> None:
        """Take in a list, which may be older than what is here."""
        for snapshot in _snapshots(listed):
            if _is_watched(snapshot, listed):
                self.memory.put(snapshot)

    def resync(self) -> None:
        """Read what is here and in no list, and what is listed and not here."""
        self._lost.clear()
        here = {snapshot.uid for snapshot in self.memory.snapshots()}
        for snapshot in _snapshots(self.cluster.objects):
            # A list has what the watches' selector finds; what is here and in no list is read by name.
            if snapshot.uid in here or _is_watched(snapshot, self.cluster.objects):
                self.memory.put(snapshot)
        uids = {body["metadata"]["uid"] for body in self.cluster.objects.values()}
        for uid in {s.uid for s in self.memory.snapshots()} - uids:
            self.memory.remove(uid)
        of_pods = {pod.child_uid for pod in self.memory.pods_without_child()}
        for snapshot in _snapshots(self.cluster.objects):
            if snapshot.uid in of_pods:
                self.memory.put(snapshot)

    async def make_pass(self) -> float | None:
        return await self.reconciler(KEY)


def ended(body: Body) -> bool:
    return bool(body.get("status", {}).get("conditions"))


def _snapshots(bodies: dict[str, Body]) -> list[Watched]:
    """Each object as the operator reads it, RetrainJobs first."""
    readers: dict[str, Callable[[Body], Watched]] = {
        JOB: read_job,
        JOBS: read_child,
        PODS: read_pod,
    }
    return [
        read(body)
        for start, read in readers.items()
        for path, body in bodies.items()
        if path.startswith(start)
    ]


def _is_watched(snapshot: Watched, bodies: dict[str, Body]) -> bool:
    """Whether the watches' selector finds it."""
    (body,) = (b for b in bodies.values() if b["metadata"]["uid"] == snapshot.uid)
    labels = body["metadata"].get("labels") or {}
    return isinstance(snapshot, RetrainJobSnapshot) or (
        labels.get(LABEL_MANAGED_BY) == MANAGED_BY and LABEL_JOB in labels
    )


def _shard(pod: Body) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
