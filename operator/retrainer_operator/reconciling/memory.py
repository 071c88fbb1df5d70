"""The watched objects in memory, and one job's part of them as one value.

Filled by the watches and by the answers to our own requests. There is one index, by uid; whose an object
is follows from its owner reference, since anybody may change its labels. Three rules keep late news out:

1. Of two versions of one object the newer counts, whichever came first: a pass never sees the world
   before its own last write.
2. One name has one object: a newer one of another uid replaces it, even if its deletion was not seen.
3. What is gone stays gone: its uid and version are remembered, so that an answer that was on its way
   when it was deleted does not bring it back.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from retrainer.api import FINISHED, Report
from retrainer.api.names import TASK_BOTTLENECKS, TASK_TRAIN, child
from retrainer_operator.planning.snapshots import (
    ChildEvents,
    ChildSnapshot,
    Key,
    Observed,
    PodSnapshot,
    Refusal,
    RetrainJobSnapshot,
)

LATE = 60.0
"""Seconds after which no answer is still on its way: a request takes at most 30."""

Watched = RetrainJobSnapshot | ChildSnapshot | PodSnapshot
_TASKS = (TASK_BOTTLENECKS, TASK_TRAIN)


@dataclass
class _Notes:
    """What the operator notes about one job beside the watched objects."""

    refusals: dict[str, Refusal] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    child_events: dict[str, ChildEvents] = field(default_factory=dict)
    holders: dict[str, tuple[ChildSnapshot, float]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    progress_written: float | None = None


class Memory:
    """Watched objects by uid, and notes about each job beside them."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._objects: dict[str, Watched] = {}
        # By kind, namespace and name: the uid. By namespace and owner's uid: the uids, in their order.
        self._names: dict[tuple[type[Watched], str, str], str] = {}
        self._owned: dict[tuple[str, str], dict[str, None]] = {}
        # By uid of what is gone: its last version, and when it went.
        self._gone: dict[str, tuple[float, float]] = {}
        self._notes: dict[str, _Notes] = {}

    # --- read ---

    def snapshots(self) -> Iterator[Watched]:
        """Give every watched object; safe in a thread of its own."""
        yield from list(self._objects.values())

    def jobs(self) -> Iterator[RetrainJobSnapshot]:
        """Give every job; safe in a thread of its own."""
        return (s for s in self.snapshots() if isinstance(s, RetrainJobSnapshot))

    def pods(self) -> Iterator[PodSnapshot]:
        """Give every pod of every child."""
        return (s for s in self.snapshots() if isinstance(s, PodSnapshot))

    def job_keys(self) -> set[Key]:
        """List namespace and name of all jobs, and of those that are gone and left a child."""
        snapshots = (s for s in self.snapshots() if not isinstance(s, PodSnapshot))
        return {key for key in map(self.key_of, snapshots) if key is not None}

    def pods_without_child(self) -> list[PodSnapshot]:
        """List pods of Jobs that are not in memory: one pod for each Job."""
        pods = {pod.child_uid: pod for pod in self.pods() if pod.child_uid}
        return [pod for uid, pod in pods.items() if uid not in self._objects]

    def get(self, uid: str) -> Watched | None:
        """Give the object with this uid, if it is in memory."""
        return self._objects.get(uid)

    def key_of(self, snapshot: Watched) -> Key | None:
        """Find the job that an object belongs to, by its owners; None if they are not (yet) in memory.

        A child that nobody controls belongs to the job whose child's name it has, and one that was
        made for a job belongs to whatever has that name now, if only to be deleted.
        """
        if isinstance(snapshot, RetrainJobSnapshot):
            return snapshot.key
        owner = self._owner(snapshot)
        if owner is not None:
            return self.key_of(owner)
        if isinstance(snapshot, ChildSnapshot):
            for task in _TASKS:
                job_name = snapshot.name.removesuffix(child("", task))
                job = self._named(RetrainJobSnapshot, snapshot.namespace, job_name)
                if job is not None and job_name != snapshot.name:
                    return snapshot.namespace, job_name
            if snapshot.unowned:
                return snapshot.namespace, snapshot.template_job
        return None

    def job_of_pod(self, pod: PodSnapshot) -> RetrainJobSnapshot | None:
        """Find the job whose own child controls this pod."""
        owner = self._owner(pod)
        job = None if owner is None else self._owner(owner)
        return job if isinstance(job, RetrainJobSnapshot) else None

    def reports(self, job_uid: str) -> Iterable[Report]:
        """Give the latest live reports of all pods of a job."""
        notes = self._notes.get(job_uid)
        return tuple(notes.reports.values()) if notes else ()

    def observe(self, key: Key) -> Observed:
        """Gather everything about one job."""
        namespace, name = key
        job = self._named(RetrainJobSnapshot, namespace, name)
        named = [self._named(ChildSnapshot, namespace, child(name, task)) for task in _TASKS]
        if not isinstance(job, RetrainJobSnapshot):
            return Observed(job=None, left=tuple(_left(named, None)))
        notes = self._notes.get(job.uid, _NO_NOTES)
        children = {
            c.uid: c
            for c in (*self._of(namespace, job.uid), *named)
            if isinstance(c, ChildSnapshot)
        }
        now = self._clock()
        holders = [holder for holder, until in notes.holders.values() if now < until]
        return Observed(
            job=job,
            children=(*children.values(), *holders),
            left=tuple(_left([*named, *holders], job)),
            pods=tuple(
                p
                for uid in children
                for p in self._of(namespace, uid)
                if isinstance(p, PodSnapshot)
            ),
            reports=notes.reports,
            refusals=notes.refusals,
            child_events=notes.child_events,
            unread=frozenset(notes.unread),
            listed=frozenset(notes.listed),
            progress_written=notes.progress_written,
        )

    # --- objects come and go ---

    def put(self, new: Watched) -> set[Key]:
        """Take an object from a watch or from the answer to a request.

        Returns:
            The jobs whose part of the world has changed: none if the object is here already, is older
            than what is here, or differs in nothing that is decided from.
        """
        old = self._objects.get(new.uid)
        if isinstance(new, PodSnapshot) and self._is_finished(self.job_of_pod(new)):
            new = new.without_message()
        if new.version < self._gone.get(new.uid, _NEVER)[0] or (old and old.version >= new.version):
            return set()
        namesake = self._named(type(new), new.namespace, new.name)
        if namesake is not None and namesake.uid != new.uid:
            if namesake.version > new.version:
                return set()
            self.remove(namesake.uid)
        keys = {self.key_of(old)} if old is not None else set()
        if old is not None:
            self._leave_index(old)
        self._objects[new.uid] = new
        self._gone.pop(new.uid, None)
        self._names[type(new), new.namespace, new.name] = new.uid
        self._owned.setdefault((new.namespace, _owner_uid(new)), {})[new.uid] = None
        keys.add(self.key_of(new))
        if isinstance(new, ChildSnapshot):
            self._forget_name(new)
        self._drop_messages(new)
        if old is not None and replace(old, version=new.version) == new:
            return set()
        return {key for key in keys if key is not None}

    def remove(self, uid: str, version: int | None = None) -> set[Key]:
        """Drop an object that is gone by a watch's event of this version, or for certain (None).

        Returns:
            The job that it belonged to, if it was here.
        """
        old = self._objects.get(uid)
        if version is not None and old is not None and version < old.version:
            return set()  # it left a watch by its labels, and something newer of it is here
        self._gone[uid] = (math.inf if version is None else version, self._clock())
        if old is None:
            return set()
        key = self.key_of(old)
        self._leave_index(old)
        del self._objects[uid]
        self._notes.pop(uid, None)
        job = None if key is None else self._named(RetrainJobSnapshot, *key)
        if job is not None and (notes := self._notes.get(job.uid)):
            notes.reports.pop(uid, None)
            notes.child_events.pop(uid, None)
            notes.listed.discard(uid)
        if job is not None and isinstance(old, ChildSnapshot) and version is not None:
            self._notes_of(job.uid).unread.add(old.name)
        return set() if key is None else {key}

    def forget_gone(self) -> None:
        """Forget objects that are gone for so long that no answer about them can still come."""
        oldest = self._clock() - LATE
        self._gone = {uid: entry for uid, entry in self._gone.items() if entry[1] > oldest}

    # --- notes ---

    def note_holder(self, job_uid: str, holder: ChildSnapshot, seconds: float) -> None:
        """Note somebody else's Job that has a child's name; it is not watched, so only for a while."""
        self._notes_of(job_uid).holders[holder.name] = (holder, self._clock() + seconds)

    def note_refusal(self, job_uid: str, child: str, refusal: Refusal) -> None:
        """Note that the API server refused to create a child."""
        self._notes_of(job_uid).refusals[child] = refusal

    def note_events(self, job_uid: str, child_uid: str, events: ChildEvents) -> None:
        """Note what a child's Events say."""
        self._notes_of(job_uid).child_events[child_uid] = events

    def note_read(self, job_uid: str, child: str) -> None:
        """Note that the child of this name was read; if it exists, it is in memory now."""
        self._notes_of(job_uid).unread.discard(child)

    def doubt_children(self, job: RetrainJobSnapshot) -> bool:
        """Note that a list which shows no child of this job proves nothing: its labels may be lost.

        Returns:
            Whether a child must be read before anything is decided.
        """
        names = (child(job.name, task) for task in _TASKS)
        unread = {n for n in names if self._named(ChildSnapshot, job.namespace, n) is None}
        if self._is_finished(job) or not unread:
            return False
        self._notes_of(job.uid).unread.update(unread)
        return True

    def note_listed(self, job_uid: str, child_uid: str) -> None:
        """Note that a child's pods were read from the API server."""
        self._notes_of(job_uid).listed.add(child_uid)

    def note_progress(self, job_uid: str, now: float) -> None:
        """Note that progress was written at this time."""
        self._notes_of(job_uid).progress_written = now

    def put_report(self, job_uid: str, pod_uid: str, report: Report) -> bool:
        """Take a pod's live report; returns whether it differs from the one before."""
        reports = self._notes_of(job_uid).reports
        if reports.get(pod_uid) == report:
            return False
        reports[pod_uid] = report
        return True

    # --- indices ---

    def _named(self, kind: type[Watched], namespace: str, name: str) -> Watched | None:
        uid = self._names.get((kind, namespace, name))
        return None if uid is None else self._objects.get(uid)

    def _owner(self, snapshot: Watched) -> Watched | None:
        """Find the job of a child or the child of a pod, if it is in memory.

        Owners are of the same namespace: whoever writes the uid of one in another gains nothing.
        """
        kind = ChildSnapshot if isinstance(snapshot, PodSnapshot) else RetrainJobSnapshot
        owner = self._objects.get(_owner_uid(snapshot))
        if isinstance(owner, kind) and owner.namespace == snapshot.namespace:
            return owner
        return None

    def _of(self, namespace: str, owner_uid: str) -> Iterator[Watched]:
        for uid in self._owned.get((namespace, owner_uid), ()):
            yield self._objects[uid]

    def _leave_index(self, old: Watched) -> None:
        self._names.pop((type(old), old.namespace, old.name), None)
        place = (old.namespace, _owner_uid(old))
        owned = self._owned[place]
        del owned[old.uid]
        if not owned:
            del self._owned[place]

    @staticmethod
    def _is_finished(job: Watched | None) -> bool:
        return isinstance(job, RetrainJobSnapshot) and job.phase in FINISHED

    def _drop_messages(self, new: Watched) -> None:
        """Keep no messages of pods whose job has finished: 4 KiB of text, 8 KiB more once it is read."""
        if isinstance(new, RetrainJobSnapshot) and self._is_finished(new):
            for owned in list(self._of(new.namespace, new.uid)):
                self._drop_messages(owned)
        elif isinstance(new, ChildSnapshot) and self._is_finished(self._owner(new)):
            for pod in list(self._of(new.namespace, new.uid)):
                if isinstance(pod, PodSnapshot):
                    self._objects[pod.uid] = pod.without_message()

    def _forget_name(self, new: ChildSnapshot) -> None:
        """Drop what was noted while this child's name had no Job here."""
        key = self.key_of(new)
        job = None if key is None else self._named(RetrainJobSnapshot, *key)
        if job is not None and (notes := self._notes.get(job.uid)):
            notes.refusals.pop(new.name, None)
            notes.holders.pop(new.name, None)
            notes.unread.discard(new.name)

    def _notes_of(self, job_uid: str) -> _Notes:
        if not isinstance(self._objects.get(job_uid), RetrainJobSnapshot):
            return _Notes()  # the job went while the answer was on its way: nobody will ask
        return self._notes.setdefault(job_uid, _Notes())


def _owner_uid(snapshot: Watched) -> str:
    match snapshot:
        case PodSnapshot(child_uid=uid) | ChildSnapshot(owner_uid=uid):
            return uid
    return ""


def _left(
    children: Iterable[Watched | None], job: RetrainJobSnapshot | None
) -> Iterator[ChildSnapshot]:
    """Choose what was made for an earlier job of the name, and that nobody owns any more."""
    for each in children:
        if not isinstance(each, ChildSnapshot) or not each.unowned or each.deleting:
            continue
        if job is None or each.owner_uid != job.uid:
            yield each


_NO_NOTES = _Notes()
_NEVER = (-math.inf, 0.0)
