"""What anybody may write into the objects that the operator reads: it harms no other job."""

from __future__ import annotations

import json

import pytest
from tests.operator import objects as o
from tests.operator.deciding import decide

from retrainer_operator.planning import progress
from retrainer_operator.planning.snapshots import job_of, pod_of, seconds
from retrainer_operator.serving.metrics import Live, OperatorMetrics

# Each passes the API server's check of a date-time, or Go's of a time.
NO_TIMES = (
    "2026-01-01T00:00:00Ztomorrow",
    "2026-01-01T00:00:00x5Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "2026-01-01T00:00:00+99:99",
)
HUGE = 10**30


@pytest.mark.parametrize("index", ["9" * 5000, "many", "-1"])
def test_a_pod_with_any_index_is_read(index: str) -> None:
    """One that cannot be read would never be seen, and the operator never be ready."""
    body = o.pod_body()
    body["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = index
    assert pod_of(body).shard == 0


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_time_that_is_none_is_not_there(text: str) -> None:
    assert seconds(text) is None


def test_a_status_with_such_times_is_mended_and_hides_no_metrics() -> None:
    running = o.job({"phase": "Training", "reason": "Running", "startTime": NO_TIMES[0]})
    made = decide(o.observed(running, o.child(), pods=(o.pod(running=True),)))
    assert made.status is not None
    assert seconds(made.status["startTime"]) == o.NOW
    ended = {"phase": "Failed", "completionTime": NO_TIMES[0]}
    body = o.job_body(ended, ttlSecondsAfterFinished=60)
    assert not decide(o.observed(job_of(body))).delete
    body["metadata"]["name"] = "hostile"
    page = OperatorMetrics().render([Live(job_of(body), ()), Live(o.job(), ())]).decode()
    assert 'retrainer_job_phase{namespace="team",name="flowers",phase="Pending"} 1' in page


def test_figures_that_the_api_server_would_not_take_are_left_out() -> None:
    curve: dict[str, list[float]] = {"step": [HUGE], "trainingAccuracy": [1], "validationAccuracy": [1],
             "crossEntropy": [1], "validationCrossEntropy": [1]}  # fmt: skip
    said = {"task": "train", "name": "flowers", "uid": o.UID, "labelCount": HUGE,
            "metrics": {"testAccuracy": 0.9, "testImages": HUGE}, "curve": curve}  # fmt: skip
    report = progress.checked(json.dumps(said), o.UID)
    assert report is not None
    assert report.metrics.test_accuracy == 0.9
    assert report.metrics.test_images is None
    assert report.label_count is None
    assert report.curve.step == []
    curve |= {"step": [1], "crossEntropy": [float("nan")]}
    report = progress.checked(json.dumps({**said, "curve": curve}), o.UID)
    assert report is not None
    assert report.curve.step == []
