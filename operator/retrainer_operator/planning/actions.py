"""What a pass may do to a job's children, and the verdict that asks for it."""

from dataclasses import dataclass
from typing import Any, Literal

from retrainer.api import Phase, Report
from retrainer.api.reasons import Reason
from retrainer_operator.planning.snapshots import ChildSnapshot

RETRY_NAME = 10.0
"""Seconds between two looks at a name that somebody else's Job has."""
RETRY_REFUSED = 15.0
"""Seconds until a child that a quota or RBAC refused is tried again."""
JOB_CREATED = "JobCreated"


@dataclass(frozen=True)
class CreateChild:
    """Create a child."""

    body: dict[str, Any]


@dataclass(frozen=True)
class PatchChild:
    """Set `suspend` or `activeDeadlineSeconds` of a child; nothing else of it is ever written."""

    child: ChildSnapshot
    spec: dict[str, bool | int | None]


@dataclass(frozen=True)
class DeleteChild:
    """Delete a child, if it is still this one."""

    child: ChildSnapshot


@dataclass(frozen=True)
class DeleteLeft:
    """Delete a Job that was made for an earlier job of this name, if that job is really gone."""

    child: ChildSnapshot


@dataclass(frozen=True)
class RestoreChild:
    """Give a child its labels and its owner reference back, which somebody has changed."""

    child: ChildSnapshot
    labels: dict[str, str]
    owner: dict[str, Any]


Write = CreateChild | PatchChild | DeleteChild | DeleteLeft | RestoreChild


@dataclass(frozen=True)
class Look:
    """Read a child, its `events` or its `pods`, which no watch delivers (in time); then decide again."""

    at: Literal["child", "events", "pods"]
    child: str
    uid: str


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event to be written, after the status that it repeats."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """What one check concludes about the job, and what is to be done.

    Attributes:
        phase: the job's phase from now on.
        reason: one of retrainer.api.reasons.
        message: the sentence of that reason.
        writes: to children.
        look: read this first and decide again; nothing else of the verdict is then used.
        again_at: Unix time of the next pass, if nothing happens before.
        code: the reason's name where the trainer gave another than `reason`'s.
        report: the train pod's final report, of a job that has succeeded.
        ended_at: when the child that decides the job's end ended, Unix time.
        silent: the state lasts for a moment only, so no status is written for it.
    """

    phase: Phase
    reason: Reason
    message: str
    writes: tuple[Write, ...] = ()
    look: Look | None = None
    again_at: float | None = None
    code: str = ""
    report: Report | None = None
    ended_at: float | None = None
    silent: bool = False
