"""The watched objects in memory, and one job's part of them as one value.

Filled by the watches and by the answers to our own writes: of two versions of one object the newer
stands, whichever came first, so a pass never sees the world before its own last write. Not kopf's
index: it holds every watched object's first event until all are indexed and wakes all of them for each,
which with 15,000 objects took minutes; and kopf does not learn what was deleted while a watch was
broken, which a full list mends here.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from retrainer.api import Report
from retrainer_operator.planning.snapshots import (
    ChildEvents,
    ChildSnapshot,
    Key,
    Observed,
    PodSnapshot,
    Refusal,
    RetrainJobSnapshot,
)

Watched = RetrainJobSnapshot | ChildSnapshot | PodSnapshot
T = TypeVar("T", RetrainJobSnapshot, ChildSnapshot, PodSnapshot)


@dataclass
class _Notes:
    """What the operator notes about one job beside the watched objects."""

    refusals: dict[str, Refusal] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    child_events: dict[str, ChildEvents] = field(default_factory=dict)
    holders: dict[str, tuple[ChildSnapshot, float]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    progress_written: float | None = None


class Memory:
    """Watched objects by job, and notes beside them."""

    def __init__(self) -> None:
        self._jobs: dict[Key, dict[str, RetrainJobSnapshot]] = {}
        self._children: dict[Key, dict[str, ChildSnapshot]] = {}
        self._pods: dict[Key, dict[str, PodSnapshot]] = {}
        self._notes: dict[Key, _Notes] = {}

    # --- read ---

    def job_keys(self) -> list[Key]:
        """Namespace and name of all jobs."""
        return list(self._jobs)

    def jobs(self) -> Iterator[RetrainJobSnapshot]:
        """All jobs; safe in a thread of its own."""
        for of_key in list(self._jobs.values()):
            yield from list(of_key.values())

    def pods(self) -> Iterator[PodSnapshot]:
        """All pods of all children."""
        for of_key in list(self._pods.values()):
            yield from list(of_key.values())

    def versions(self) -> dict[str, tuple[Key, int]]:
        """The job and the resource version of every watched object, by uid."""
        indices: tuple[dict[Key, dict[str, RetrainJobSnapshot]] | dict[Key, dict[str, ChildSnapshot]]
                       | dict[Key, dict[str, PodSnapshot]], ...] = (
            self._jobs, self._children, self._pods,
        )  # fmt: skip
        return {
            uid: (key, snapshot.version)
            for index in indices
            for key, of_key in index.items()
            for uid, snapshot in of_key.items()
        }

    def reports(self, key: Key) -> Iterable[Report]:
        """The latest live reports of all pods of a job."""
        notes = self._notes.get(key)
        return tuple(notes.reports.values()) if notes else ()

    def observe(self, key: Key) -> Observed:
        """Everything about one job."""
        notes = self._notes.get(key, _NO_NOTES)
        jobs = self._jobs.get(key, {}).values()
        now = time.monotonic()
        holders = (child for child, until in notes.holders.values() if now < until)
        return Observed(
            job=max(jobs, key=lambda job: job.version, default=None),
            children=(*self._children.get(key, {}).values(), *holders),
            pods=tuple(self._pods.get(key, {}).values()),
            reports=notes.reports,
            refusals=notes.refusals,
            child_events=notes.child_events,
            listed=frozenset(notes.listed),
            progress_written=notes.progress_written,
        )

    # --- note ---

    def put(self, key: Key, snapshot: Watched) -> bool:
        """Take an object from a watch or from the answer to a request; whether it changes anything.

        It does not if it is here already, or older, or differs in nothing that is decided from.
        """
        if isinstance(snapshot, RetrainJobSnapshot):
            return _put(self._jobs, key, snapshot)
        if isinstance(snapshot, ChildSnapshot):
            if notes := self._notes.get(key):
                notes.refusals.pop(snapshot.name, None)
                notes.holders.pop(snapshot.name, None)
            return _put(self._children, key, snapshot)
        return _put(self._pods, key, snapshot)

    def remove(self, key: Key, uid: str) -> None:
        """Drop an object that, by a watch, a full list or an answer to a request, no longer exists."""
        if _drop(self._jobs, key, uid):
            # A later job of this name must not inherit what was noted of this one.
            self.forget(key)
        _drop(self._children, key, uid)
        _drop(self._pods, key, uid)
        if notes := self._notes.get(key):
            notes.reports.pop(uid, None)
            notes.child_events.pop(uid, None)
            notes.listed.discard(uid)

    def forget(self, key: Key) -> None:
        """Drop the notes about a job that is deleted."""
        self._notes.pop(key, None)

    def note_holder(self, key: Key, holder: ChildSnapshot, seconds: float) -> None:
        """Note somebody else's Job that has a child's name; it is not watched, so only for a while."""
        self._of(key).holders[holder.name] = (holder, time.monotonic() + seconds)

    def note_refusal(self, key: Key, child: str, refusal: Refusal) -> None:
        """Note that the API server refused to create a child."""
        self._of(key).refusals[child] = refusal

    def note_events(self, key: Key, child_uid: str, events: ChildEvents) -> None:
        """Note what a child's Events say."""
        self._of(key).child_events[child_uid] = events

    def note_listed(self, key: Key, child_uid: str) -> None:
        """Note that a child's pods were read from the API server."""
        self._of(key).listed.add(child_uid)

    def put_report(self, key: Key, pod: str, report: Report) -> bool:
        """Take a pod's live report; whether it differs from the one before."""
        notes = self._of(key)
        if notes.reports.get(pod) == report:
            return False
        notes.reports[pod] = report
        return True

    def note_progress(self, key: Key, now: float) -> None:
        """Note that progress was written at this time."""
        self._of(key).progress_written = now

    def _of(self, key: Key) -> _Notes:
        return self._notes.setdefault(key, _Notes())


def _put(index: dict[Key, dict[str, T]], key: Key, new: T) -> bool:
    of_key = index.setdefault(key, {})
    old = of_key.get(new.uid)
    if old is not None and old.version >= new.version:
        return False
    of_key[new.uid] = new
    return old is None or replace(old, version=new.version) != new


def _drop(index: dict[Key, dict[str, T]], key: Key, uid: str) -> bool:
    """Whether it was there."""
    of_key = index.get(key)
    if of_key is None or of_key.pop(uid, None) is None:
        return False
    if not of_key:
        del index[key]
    return True


_NO_NOTES = _Notes()
