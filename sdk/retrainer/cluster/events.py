"""Kubernetes Events of a job and of what belongs to it, as values."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from retrainer.cluster.requests import Document


@dataclass(frozen=True)
class Event:
    """A notice of Kubernetes or the operator about a job, its child Jobs or their pods.

    Attributes:
        time: when it happened last, UTC.
        type: Normal or Warning.
        reason: one word.
        message: one sentence.
        object: such as `RetrainJob/flowers` or `Pod/flowers-train-x7k2p`.
        count: how often it happened.
    """

    time: datetime
    type: str
    reason: str
    message: str
    object: str
    count: int


def in_order(documents: Iterable[Document]) -> list[Event]:
    """Sort Event objects of Kubernetes, oldest first.

    Most give their time in whole seconds. Within a second they are sorted by the nanoseconds that
    client-go and the operator write behind the last point of an Event's name.
    """
    events = [(event(document), document["metadata"].get("name", "")) for document in documents]
    events.sort(key=lambda e: (e[0].time.replace(microsecond=0), _nanoseconds(e[1])))
    return [e for e, _ in events]


def _nanoseconds(name: str) -> int:
    try:
        return int(name.rpartition(".")[2], 16)
    except ValueError:
        return 0


def moment(text: str | None) -> datetime:
    """Parse a Kubernetes time; the epoch for None, so that it sorts first."""
    return datetime.fromisoformat(text or "1970-01-01T00:00:00+00:00").astimezone(UTC)


def event(document: Document) -> Event:
    """Read an Event object of Kubernetes, whichever of its four fields has the time."""
    series = document.get("series") or {}
    when = (
        series.get("lastObservedTime")
        or document.get("lastTimestamp")
        or document.get("eventTime")
        or document["metadata"].get("creationTimestamp")
    )
    involved = document["involvedObject"]
    return Event(
        moment(when),
        document.get("type") or "Normal",
        document.get("reason") or "",
        (document.get("message") or "").strip(),
        f"{involved.get('kind', '')}/{involved.get('name', '')}",
        int(series.get("count") or document.get("count") or 1),
    )
