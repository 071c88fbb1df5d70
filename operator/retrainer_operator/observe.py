"""What is in memory, and one job's part of it as one value.

The watches' indices (kopf's) are behind by the time a write takes to come back, and kopf does not learn
what was deleted while a watch was broken. Both are mended here: our own writes' answers are kept until
the watch has caught up, and what a full list no longer has is left out.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from retrainer.api import Report
from retrainer_operator.state import Child, ChildEvents, Job, Key, Observed, Pod, Refusal

Seen = Job | Child | Pod
T = TypeVar("T", Job, Child, Pod)
KEPT = 30.0
"""Seconds for which an answer is believed where the watch shows nothing: no watch is later."""


@dataclass
class _Notes:
    """What is known of one job beside the watches."""

    answers: dict[str, tuple[Seen, float]] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    child_events: dict[str, ChildEvents] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    progress_written: float | None = None


class Memory:
    """The watches' indices, and notes beside them."""

    def __init__(self) -> None:
        self._jobs: Mapping[Key, Iterable[Job]] = {}
        self._children: Mapping[Key, Iterable[Child]] = {}
        self._pods: Mapping[Key, Iterable[Pod]] = {}
        self._notes: dict[Key, _Notes] = {}
        self._gone: set[str] = set()
        self.attached = False

    def attach(
        self,
        jobs: Mapping[Key, Iterable[Job]],
        children: Mapping[Key, Iterable[Child]],
        pods: Mapping[Key, Iterable[Pod]],
    ) -> None:
        """Read from these indices (kopf's) from now on: each start of the watches makes new ones."""
        self._jobs, self._children, self._pods = jobs, children, pods
        self._gone.clear()
        self.attached = True

    # --- read ---

    def every_key(self) -> list[Key]:
        """Of all jobs."""
        return list(self._jobs)

    def jobs(self) -> Iterator[Job]:
        """All jobs, as watched."""
        for key in list(self._jobs):
            yield from self._jobs.get(key, ())

    def pods(self) -> Iterator[Pod]:
        """All pods of all children, as watched."""
        for key in list(self._pods):
            yield from list(self._pods.get(key, ()))

    def versions(self) -> dict[str, int]:
        """Resource version of every watched object by uid."""
        indices: tuple[Mapping[Key, Iterable[Seen]], ...] = (
            self._jobs, self._children, self._pods,
        )  # fmt: skip
        return {seen.uid: seen.version for i in indices for key in i for seen in i[key]}

    def keys_by_uid(self) -> dict[str, Key]:
        """Of which job every watched object is."""
        indices: tuple[Mapping[Key, Iterable[Seen]], ...] = (
            self._jobs, self._children, self._pods,
        )  # fmt: skip
        return {seen.uid: key for i in indices for key in i for seen in i[key]}

    def reports(self, key: Key) -> Iterable[Report]:
        """The latest live reports of all pods of a job."""
        notes = self._notes.get(key)
        return tuple(notes.reports.values()) if notes else ()

    def is_echo(self, key: Key, uid: str, version: int) -> bool:
        """Whether a watch only tells what our own write was answered with."""
        notes = self._notes.get(key)
        known = notes.answers.get(uid) if notes else None
        return known is not None and known[0].version == version

    def observe(self, key: Key) -> Observed:
        """Everything about one job."""
        notes = self._notes.get(key, _NO_NOTES)
        jobs = self._merged(self._jobs.get(key, ()), notes, Job)
        children = self._merged(self._children.get(key, ()), notes, Child)
        return Observed(
            job=max(jobs, key=lambda j: j.version, default=None),
            children=tuple(children),
            pods=tuple(self._merged(self._pods.get(key, ()), notes, Pod)),
            reports=notes.reports,
            refusals=notes.refusals,
            child_events=notes.child_events,
            listed=frozenset(notes.listed),
            progress_written=notes.progress_written,
        )

    def _merged(self, watched: Iterable[T], notes: _Notes, kind: type[T]) -> list[T]:
        best = {seen.uid: seen for seen in watched if seen.uid not in self._gone}
        now = time.monotonic()
        for uid, (answer, until) in list(notes.answers.items()):
            if not isinstance(answer, kind):
                continue
            known = best.get(uid)
            if (known is None and now > until) or (known and known.version >= answer.version):
                del notes.answers[uid]
            elif uid not in self._gone:
                best[uid] = answer
        return list(best.values())

    # --- note ---

    def answered(self, key: Key, seen: Seen, *, keep: float = KEPT) -> None:
        """The API server's answer to a write, or to a read of our own."""
        notes = self._of(key)
        notes.answers[seen.uid] = (seen, time.monotonic() + keep)
        if isinstance(seen, Child):
            notes.refusals.pop(seen.name, None)

    def deleted(self, key: Key, uid: str) -> None:
        """The watch, a full list or our own deletion says that this object is no more."""
        notes = self._notes.get(key)
        if notes is not None:
            notes.answers.pop(uid, None)
            notes.reports.pop(uid, None)
            notes.child_events.pop(uid, None)
            notes.listed.discard(uid)

    def gone(self, key: Key, uid: str) -> None:
        """The same where the watch does not know it (yet)."""
        self._gone.add(uid)
        self.deleted(key, uid)

    def forget(self, key: Key) -> None:
        """The job is deleted."""
        self._notes.pop(key, None)

    def refused(self, key: Key, child: str, refusal: Refusal) -> None:
        """A child was not taken."""
        self._of(key).refusals[child] = refusal

    def warned(self, key: Key, child_uid: str, events: ChildEvents) -> None:
        """A child's Events were read."""
        self._of(key).child_events[child_uid] = events

    def listed(self, key: Key, child_uid: str) -> None:
        """A child's pods were read, and are among the answers."""
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


_NO_NOTES = _Notes()
