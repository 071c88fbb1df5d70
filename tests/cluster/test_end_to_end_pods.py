"""Pods as a real scheduler, kubelet and kernel place and end them, and what their job says of it."""

import pytest
from tests.support.installation import Installation

pytestmark = pytest.mark.cluster


def test_a_pod_that_the_kernel_kills_for_its_memory_is_told_with_its_limit(
    here: Installation,
) -> None:
    memory = {"memory": "96Mi"}
    here.submit("small", backoffLimit=0, pod={"resources": {"limits": memory, "requests": memory}})
    status = here.until("small", lambda s: s.get("phase") == "Failed")
    assert status["reason"] == "OOMKilled", here.story("small")
    assert "was killed for using more memory than its limit of 96Mi." in status["message"]


def test_a_pod_that_no_node_has_room_for_waits_and_says_for_what(here: Installation) -> None:
    here.submit("huge", pod={"resources": {"requests": {"cpu": "500"}}})
    status = here.until("huge", lambda s: s.get("reason") == "Unschedulable")
    assert "Insufficient cpu" in status["message"]
    assert status["phase"] == "Pending"
