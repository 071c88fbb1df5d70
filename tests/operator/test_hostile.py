"""What anybody may write into the objects that the operator reads: it harms no other job."""

import json

import pytest
from tests.operator.deciding import decide
from tests.operator.objects import (
    NOW,
    UID,
    make_child,
    make_job,
    make_job_body,
    make_observed,
    make_pod,
    make_pod_body,
)

from retrainer_operator.planning.objects import read_job, read_pod
from retrainer_operator.planning.reports import parse_report
from retrainer_operator.planning.times import parse_time
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
    """One that cannot be read would never be observed, and the operator never be ready."""
    body = make_pod_body()
    body["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = index
    assert read_pod(body).shard == 0


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_time_that_is_none_is_not_there(text: str) -> None:
    assert parse_time(text) is None


def test_a_status_with_such_times_is_mended_and_hides_no_metrics() -> None:
    running = make_job({"phase": "Training", "reason": "Running", "startTime": NO_TIMES[0]})
    decision = decide(make_observed(running, make_child(), pods=(make_pod(running=True),)))
    assert decision.status is not None
    assert parse_time(decision.status["startTime"]) == NOW
    ended = {"phase": "Failed", "completionTime": NO_TIMES[0]}
    body = make_job_body(ended, ttl_seconds_after_finished=60)
    assert not decide(make_observed(read_job(body))).delete
    body["metadata"]["name"] = "hostile"
    page = OperatorMetrics().render([Live(read_job(body), ()), Live(make_job(), ())]).decode()
    assert 'retrainer_job_phase{namespace="team",name="flowers",phase="Pending"} 1' in page


def test_figures_that_the_api_server_would_not_take_are_left_out() -> None:
    curve: dict[str, list[float]] = {"step": [HUGE], "trainingAccuracy": [1], "validationAccuracy": [1],
             "crossEntropy": [1], "validationCrossEntropy": [1]}  # fmt: skip
    fields = {"task": "train", "name": "flowers", "uid": UID, "labelCount": HUGE,
            "metrics": {"testAccuracy": 0.9, "testImages": HUGE}, "curve": curve}  # fmt: skip
    report = parse_report(json.dumps(fields))
    assert report is not None
    assert report.metrics.test_accuracy == 0.9
    assert report.metrics.test_images is None
    assert report.label_count is None
    assert report.curve.step == []
    curve |= {"step": [1], "crossEntropy": [float("nan")]}
    report = parse_report(json.dumps({**fields, "curve": curve}))
    assert report is not None
    assert report.curve.step == []
