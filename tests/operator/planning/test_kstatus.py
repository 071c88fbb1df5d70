"""What kstatus, and so Flux and Helm 4's --wait, makes of a RetrainJob."""

from typing import Any

import pytest
from tests.operator.deciding import RUNNING, decide
from tests.operator.objects import (
    FINAL,
    make_child,
    make_complete_child,
    make_failed_child,
    make_job,
    make_job_body,
    make_observed,
    make_pod,
    status_after,
)

from retrainer_operator.planning.snapshots import Observed

Body = dict[str, Any]


def kstatus(resource: Body) -> tuple[str, str]:
    """The algorithm of kstatus for a kind that it does not know: its Compute, in this order.

    1. Being deleted: Terminating.
    2. A status of another generation than the spec: InProgress.
    3. Condition Reconciling is True: InProgress; Stalled is True: Failed. Both with its message.
    4. Condition Ready: Current if True, else InProgress.
    5. Else Current.
    """
    metadata, status = resource["metadata"], resource.get("status", {})
    if "deletionTimestamp" in metadata:
        return "Terminating", ""
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress", ""
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    for kind, result in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if kind in conditions and conditions[kind]["status"] == "True":
            return result, conditions[kind]["message"]
    if "Ready" in conditions and conditions["Ready"]["status"] != "True":
        return "InProgress", conditions["Ready"]["message"]
    return "Current", ""


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (make_observed(make_job()), ("Current", "")),
        (
            make_observed(make_job(), make_child(), pods=(make_pod(running=True),)),
            ("Current", ""),
        ),
        (
            make_observed(
                make_job(RUNNING),
                make_complete_child(),
                pods=(make_pod(ended=(0, "Completed", FINAL)),),
            ),
            ("Current", ""),
        ),
        (
            make_observed(
                make_job(RUNNING),
                make_failed_child("BackoffLimitExceeded", failures=2),
                pods=(make_pod(ended=(1, "Error", "boom")),),
            ),
            ("Failed", "Failed 2 times; the last pod: exit code 1: boom."),
        ),
        (
            make_observed(make_job(shards="many")),
            ("Failed", "spec.shards: must be a whole number, got 'many'."),
        ),
    ],
    ids=["new", "running", "succeeded", "failed", "invalid"],
)
def test_a_failed_job_is_seen_as_failed_with_its_sentence(
    observed: Observed, expected: tuple[str, str]
) -> None:
    assert observed.job is not None
    status = status_after(observed.job, decide(observed).status)
    assert kstatus({**make_job_body(), "status": status}) == expected


def test_an_edit_is_in_progress_until_the_operator_has_acted_on_it() -> None:
    body = make_job_body({**RUNNING, "observedGeneration": 1})
    body["metadata"]["generation"] = 2
    assert kstatus(body) == ("InProgress", "")
