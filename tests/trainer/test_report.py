import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.ports import free_port
from tests.support.trainer_engine import spec

from retrainer.api import CurvePoint, Report, Task
from retrainer_trainer.runtime.report import Reporter


def task(kind: str = "train") -> Task:
    return Task.model_validate(
        {"task": kind, "name": "flowers", "uid": "u" * 12, "spec": spec("in", "out")}
    )


def events(read: int, write: int) -> list[dict[str, Any]]:
    os.close(write)
    with os.fdopen(read) as pipe:
        return [json.loads(line) for line in pipe]


def test_report_and_metrics_are_served() -> None:
    # Port 0 would serve nothing: a free one is found by asking for it.
    reporter = Reporter(task(), port=free_port())
    reporter.update(
        images_per_second=12.5,
        progress={
            "images_total": 30,
            "images_cached": 10,
            "images_computed": 4,
            "images_rejected": 1,
        },
    )
    reporter.point(
        CurvePoint(step=10, training_accuracy=0.9, validation_accuracy=0.8, cross_entropy=0.3)
    )
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{reporter.port}/report", timeout=30
        ) as answer:
            report = Report.model_validate_json(answer.read())
        with urllib.request.urlopen(
            f"http://127.0.0.1:{reporter.port}/metrics", timeout=30
        ) as answer:
            text = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{reporter.port}/etc/passwd", timeout=30)
    finally:
        reporter.close()
    assert report.progress.images_total == 30
    assert report.metrics.validation_accuracy == 0.8
    assert report.progress.step == 10
    samples = {
        (s.name, s.labels.get("state")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples == {
        ("retrainer_task_images", "total"): 30,
        ("retrainer_task_images", "cached"): 10,
        ("retrainer_task_images", "computed"): 4,
        ("retrainer_task_images", "rejected"): 1,
        ("retrainer_task_images_per_second", None): 12.5,
        ("retrainer_task_step", None): 10,
        ("retrainer_task_training_accuracy", None): 0.9,
        ("retrainer_task_validation_accuracy", None): 0.8,
        ("retrainer_task_cross_entropy", None): 0.3,
    }


def test_a_port_that_is_taken_does_not_stop_the_task(capfd: Any) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        reporter = Reporter(task(), port=taken.getsockname()[1])
    assert reporter.port == 0
    assert "cannot be used for /report and /metrics" in capfd.readouterr().out


def test_each_change_is_an_event_and_the_last_is_never_left_out() -> None:
    read, write = os.pipe()
    reporter = Reporter(task(), port=0, events=write)
    for step in range(2000):
        reporter.update(progress={"step": step})
    reporter.log("a line")
    reporter.warn("look out")
    reporter.finish()
    got = events(read, write)
    assert {"log": "a line"} in got
    assert {"warning": "look out"} in got
    reports = [Report.model_validate(e["report"]) for e in got if "report" in e]
    assert reports[-1].progress.step == 1999
    assert reports[-1].warnings == ["look out"]
    assert len(reports) < 200  # at most ten a second


def test_a_change_that_came_too_soon_is_sent_when_it_is_due() -> None:
    read, write = os.pipe()
    reporter = Reporter(task(), port=0, events=write)
    reporter.update(progress={"step": 1})
    reporter.update(progress={"step": 2})
    with os.fdopen(read) as pipe:
        steps = [json.loads(pipe.readline())["report"]["progress"]["step"] for _ in range(2)]
    assert steps == [1, 2]
    os.close(write)


def test_a_line_is_never_heard_before_the_change_that_it_was_said_after() -> None:
    read, write = os.pipe()
    reporter = Reporter(task(), port=0, events=write)
    for step in range(50):
        reporter.update(progress={"step": step})
        reporter.log(f"at {step}")
    reporter.finish()
    step = -1
    for event in events(read, write):
        if "report" in event:
            step = event["report"]["progress"]["step"]
        else:
            assert event == {"log": f"at {step}"}
    assert step == 49


def test_a_listener_that_is_gone_is_no_error() -> None:
    read, write = os.pipe()
    reporter = Reporter(task(), port=0, events=write)
    os.close(read)
    reporter.log("nobody hears this")
    reporter.log("nor this")
    reporter.finish()


def test_the_termination_message_is_written_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAINER_TERMINATION_LOG", str(tmp_path / "log"))
    reporter = Reporter(task(), port=0, events=-1)
    for step in range(500):
        reporter.point(CurvePoint(step=step, training_accuracy=0.123456789))
    reporter.update(message="x" * 5000)
    reporter.finish()
    body = (tmp_path / "log").read_bytes()
    assert len(body) <= 4096
    report = Report.model_validate_json(body)
    assert len(report.curve.step) == 20
    assert report.curve.training_accuracy[0] == 0.1235


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="Progress has no field stepp"):
        Reporter(task(), port=0).update(progress={"stepp": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="mesage"):
        Reporter(task(), port=0).update(mesage="lost")  # type: ignore[call-arg]


def test_log_lines_are_plain_lines_on_standard_output(capfd: Any) -> None:
    reporter = Reporter(task(), port=0)
    reporter.log("ünï \udcff")
    reporter.warn("look out")
    assert capfd.readouterr().out == "ünï \\udcff\nWarning: look out\n"
