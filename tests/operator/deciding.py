"""Short ways to decide a case and to read the plan."""

from __future__ import annotations

from typing import Any

from tests.operator import objects as o

from retrainer_operator.planning.case import Create
from retrainer_operator.planning.plan import Plan, plan
from retrainer_operator.planning.snapshots import Observed, timestamp

KUEUE = {"kueue.x-k8s.io/queue-name": "gpus", "team": "a"}
RUNNING = {"phase": "Bottlenecks", "reason": "Running", "startTime": timestamp(o.NOW)}


def decide(seen: Observed, now: float = o.NOW, **settings: Any) -> Plan:
    return plan(seen, o.settings(**settings), now)


def told(made: Plan) -> tuple[str, str, str]:
    assert made.status is not None
    status = {**o.UNSEEN_STATUS, **made.status}  # the patch says only what is new
    return status["phase"], status["reason"], status["message"]


def created(made: Plan) -> list[str]:
    return [w.body["metadata"]["name"] for w in made.writes if isinstance(w, Create)]
