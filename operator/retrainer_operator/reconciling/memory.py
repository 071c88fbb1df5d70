"""What is in memory, and one job's part of it as one value.

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
    Child,
    ChildEvents,
    Job,
    Key,
    Observed,
    Pod,
    Refusal,
)

Seen = Job | Child | Pod
T = TypeVar("T", Job, Child, Pod)


@dataclass
class _Notes:
    """What is known of one job beside the watched objects."""

    refusals: dict[str, Refusal] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    child_events: dict[str, ChildEvents] = field(default_factory=dict)
    holders: dict[str, tuple[Child, float]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    progress_written: float | None = None


class Memory:
    """Watched objects by job, and notes beside them."""

    def __init__(self) -> None:
        self._jobs: dict[Key, dict[str, Job]] = {}
        self._children: dict[Key, dict[str, Child]] = {}
        self._pods: dict[Key, dict[str, Pod]] = {}
        self._notes: dict[Key, _Notes] = {}

    # --- read ---

    def every_key(self) -> list[Key]:
        """Of all jobs."""
        return list(self._jobs)

    def jobs(self) -> Iterator[Job]:
        """All jobs; safe in a thread of its own."""
        for of_key in list(self._jobs.values()):
            yield from list(of_key.values())

    def pods(self) -> Iterator[Pod]:
        """All pods of all children."""
        for of_key in list(self._pods.values()):
            yield from list(of_key.values())

    def versions(self) -> dict[str, tuple[Key, int]]:
        """Of which job every watched object is, and its resource version, by uid."""
        indices: tuple[dict[Key, dict[str, Job]] | dict[Key, dict[str, Child]]
                       | dict[Key, dict[str, Pod]], ...] = (
            self._jobs, self._children, self._pods,
        )  # fmt: skip
        return {
            uid: (key, seen.version)
            for index in indices
            for key, of_key in index.items()
            for uid, seen in of_key.items()
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
        held = (child for child, until in notes.holders.values() if now < until)
        return Observed(
            job=max(jobs, key=lambda job: job.version, default=None),
            children=(*self._children.get(key, {}).values(), *held),
            pods=tuple(self._pods.get(key, {}).values()),
            reports=notes.reports,
            refusals=notes.refusals,
            child_events=notes.child_events,
            listed=frozenset(notes.listed),
            progress_written=notes.progress_written,
        )

    # --- note ---

    def saw(self, key: Key, seen: Seen) -> bool:
        """A watch, or the answer to our own request, shows this object; whether that is news.

        No news is what is known already, or older, or differs in nothing that is decided from.
        """
        if isinstance(seen, Job):
            return _put(self._jobs, key, seen)
        if isinstance(seen, Child):
            if notes := self._notes.get(key):
                notes.refusals.pop(seen.name, None)
                notes.holders.pop(seen.name, None)
            return _put(self._children, key, seen)
        return _put(self._pods, key, seen)

    def gone(self, key: Key, uid: str) -> None:
        """A watch, a full list or an answer to ourselves says that this object is no more."""
        if _drop(self._jobs, key, uid):
            # Before the next job of this name is looked at: what was refused is not its own.
            self.forget(key)
        _drop(self._children, key, uid)
        _drop(self._pods, key, uid)
        if notes := self._notes.get(key):
            notes.reports.pop(uid, None)
            notes.child_events.pop(uid, None)
            notes.listed.discard(uid)

    def forget(self, key: Key) -> None:
        """The job is deleted."""
        self._notes.pop(key, None)

    def held(self, key: Key, holder: Child, seconds: float) -> None:
        """Somebody else's Job has a child's name; it is not watched, so believed for a while only."""
        self._of(key).holders[holder.name] = (holder, time.monotonic() + seconds)

    def refused(self, key: Key, child: str, refusal: Refusal) -> None:
        """A child was not taken."""
        self._of(key).refusals[child] = refusal

    def warned(self, key: Key, child_uid: str, events: ChildEvents) -> None:
        """A child's Events were read."""
        self._of(key).child_events[child_uid] = events

    def listed(self, key: Key, child_uid: str) -> None:
        """A child's pods were read from the API server."""
        self._of(key).listed.add(child_uid)

    def reported(self, key: Key, pod: str, report: Report) -> bool:
        """A pod's live report; whether it says anything new."""
        notes = self._of(key)
        if notes.reports.get(pod) == report:
            return False
        notes.reports[pod] = report
        return True

    def wrote_progress(self, key: Key, now: float) -> None:
        """Progress was written."""
        self._of(key).progress_written = now

    def _of(self, key: Key) -> _Notes:
        return self._notes.setdefault(key, _Notes())


def _put(index: dict[Key, dict[str, T]], key: Key, seen: T) -> bool:
    of_key = index.setdefault(key, {})
    known = of_key.get(seen.uid)
    if known is not None and known.version >= seen.version:
        return False
    of_key[seen.uid] = seen
    return known is None or replace(known, version=seen.version) != seen


def _drop(index: dict[Key, dict[str, T]], key: Key, uid: str) -> bool:
    """Whether it was there."""
    of_key = index.get(key)
    if of_key is None or of_key.pop(uid, None) is None:
        return False
    if not of_key:
        del index[key]
    return True


_NO_NOTES = _Notes()
