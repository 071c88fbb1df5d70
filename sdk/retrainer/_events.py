"""Events that Kubernetes and the operator have noted."""

from dataclasses import dataclass
from datetime import UTC, datetime

from retrainer._cluster import Document


@dataclass(frozen=True)
class Event:
    """Something Kubernetes or the operator said of a job, its child Jobs or their pods.

    Attributes:
        time: when it was last seen, UTC.
        type: Normal or Warning.
        reason: one word.
        message: one sentence.
        object: such as `RetrainJob/flowers` or `Pod/flowers-train-x7k2p`.
        count: how often it was seen.
    """

    time: datetime
    type: str
    reason: str
    message: str
    object: str
    count: int


def moment(text: str | None) -> datetime:
    """A Kubernetes time; the epoch if there is none, so that it sorts first."""
    return datetime.fromisoformat(text or "1970-01-01T00:00:00+00:00").astimezone(UTC)


def event(document: Document) -> Event:
    """An Event object of Kubernetes, whichever of its three ways to tell the time it uses."""
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
