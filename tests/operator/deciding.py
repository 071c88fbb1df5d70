"""Short ways to decide a case and to read the plan."""

from typing import Any

from tests.operator.objects import NOW, UNSEEN_STATUS, make_settings

from retrainer_operator.planning.actions import CreateChild
from retrainer_operator.planning.plan import Plan, plan
from retrainer_operator.planning.snapshots import Observed
from retrainer_operator.planning.times import format_time

KUEUE = {"kueue.x-k8s.io/queue-name": "gpus", "team": "a"}
RUNNING = {"phase": "Bottlenecks", "reason": "Running", "startTime": format_time(NOW)}


def decide(observed: Observed, now: float = NOW, **settings: Any) -> Plan:
    """The plan; `settings` are fields of Settings, which refuses others."""
    return plan(observed, make_settings(**settings), now)


def summary(decision: Plan) -> tuple[str, str, str]:
    """Phase, reason and message that the job has after this plan."""
    assert decision.status is not None
    status = {**UNSEEN_STATUS, **decision.status}  # the patch has only what is new
    return status["phase"], status["reason"], status["message"]


def created_names(decision: Plan) -> list[str]:
    """The names of the children that the plan creates."""
    return [w.body["metadata"]["name"] for w in decision.writes if isinstance(w, CreateChild)]
