"""The operator's page of metrics: what is on it, and how large it gets."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retrainer.api import Curve, CurvePoint, Report, reasons
from retrainer.api.prometheus import METRICS
from retrainer_operator.planning.objects import read_job
from retrainer_operator.planning.snapshots import RetrainJobSnapshot
from retrainer_operator.serving.metrics import (
    CURVES_FINISHED,
    CURVES_RUNNING,
    Live,
    OperatorMetrics,
)

CREATED, ENDED = "2026-01-05T10:00:00Z", "2026-01-05T10:00:04Z"
CREATED_UNIX, ENDED_UNIX = 1767607200.0, 1767607204.0


def point(step: int) -> CurvePoint:
    return CurvePoint(
        step=step,
        training_accuracy=0.9,
        validation_accuracy=0.8765,
        cross_entropy=0.3210,
        validation_cross_entropy=0.4567,
    )


def job(
    name: str,
    *,
    status: dict[str, Any],
    version: int = 1,
    spec: dict[str, Any] | None = None,
    **metadata: Any,
) -> RetrainJobSnapshot:
    return read_job(
        {
            "metadata": {
                "namespace": "photo-archive",
                "name": name,
                "uid": f"uid-of-{name}",
                "resourceVersion": str(version),
                "creationTimestamp": CREATED,
                **metadata,
            },
            "spec": spec or {"architecture": "mobilenet_0.50_224"},
            "status": status,
        }
    )


def succeeded(*, ended: str = ENDED) -> dict[str, Any]:
    return {
        "phase": "Succeeded",
        "reason": "Succeeded",
        "completionTime": ended,
        "progress": {
            "percent": 100,
            "imagesTotal": 4064,
            "imagesCached": 4000,
            "imagesComputed": 60,
            "imagesRejected": 4,
            "step": 4000,
            "steps": 4000,
        },
        "metrics": {
            "trainingAccuracy": 0.95,
            "validationAccuracy": 0.91,
            "crossEntropy": 0.1234,
            "validationCrossEntropy": 0.2345,
            "testAccuracy": 0.9034,
            "testImages": 411,
        },
        "curve": [point(200 * i).dump() for i in range(20)],
    }


def minute(number: int) -> str:
    return f"2026-01-{5 + number // 1440:02d}T{number // 60 % 24:02d}:{number % 60:02d}:00Z"


def training(points: int) -> Report:
    curve = Curve()
    for i in range(points):
        curve.add(point(10 * i))
    return Report(task="train", name="runs", uid="uid-of-runs", curve=curve)


def series(page: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and value of every sample, by its name; Prometheus's own parser reads the page."""
    by_name: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            by_name.setdefault(sample.name, []).append((sample.labels, sample.value))
    return by_name


def steps(page: bytes) -> set[int]:
    return {int(labels["step"]) for labels, _ in series(page)["retrainer_job_curve"]}


def rendered(lives: list[Live]) -> bytes:
    """Render the page twice, without a change between; print the seconds of each, return the second."""
    metrics = OperatorMetrics()
    page = b""
    for what in ("first", "next"):
        began = time.perf_counter()
        page = metrics.render(lives)
        print(f"{what} scrape: {len(page):,} bytes in {time.perf_counter() - began:.3f} s")
    return page


def test_five_thousand_finished_jobs_take_less_than_5_mb_a_scrape() -> None:
    lives = [
        Live(job(f"flowers-of-the-{i:05d}", status=succeeded(ended=minute(i))), ())
        for i in range(5000)
    ]
    page = rendered(lives)
    assert len(page) < 5_000_000
    shown = series(page)
    for lasting in ("test_accuracy", "phase", "reason", "info", "finished_timestamp_seconds"):
        assert len(shown[f"retrainer_job_{lasting}"]) == 5000
    # What is left out for want of room are figures of those that ended first.
    names = {labels["name"] for labels, _ in shown["retrainer_job_validation_accuracy"]}
    assert names == {f"flowers-of-the-{i:05d}" for i in range(5000 - len(names), 5000)}
    assert len(names) > 1000


def test_five_thousand_running_jobs_of_the_longest_names_take_less_than_5_mb_a_scrape() -> None:
    status = succeeded() | {"phase": "Training", "reason": "TrainingHead"}
    reports = (training(20),)
    lives = [
        Live(job(f"{i:046d}", status=status, namespace="n" * 63), reports) for i in range(5000)
    ]
    assert len(rendered(lives)) < 5_000_000


def test_a_thousand_jobs_are_told_in_full() -> None:
    lives = [Live(job(f"flowers-{i}", status=succeeded()), ()) for i in range(1000)]
    shown = series(rendered(lives))
    assert len(shown["retrainer_job_images"]) == 4000
    assert len(shown["retrainer_job_created_timestamp_seconds"]) == 1000


def test_a_finished_job_tells_when_it_began_and_ended() -> None:
    shown = series(OperatorMetrics().render([Live(job("done", status=succeeded()), ())]))
    who = {"namespace": "photo-archive", "name": "done"}
    assert shown["retrainer_job_created_timestamp_seconds"] == [(who, CREATED_UNIX)]
    assert shown["retrainer_job_finished_timestamp_seconds"] == [(who, ENDED_UNIX)]


def test_a_job_tells_its_architecture_or_the_url_of_its_backbone() -> None:
    own = job("own", status=succeeded(), spec={"backbone": {"url": "s3://networks/vit"}})
    lives = [Live(job("listed", status=succeeded()), ()), Live(own, ())]
    shown = series(OperatorMetrics().render(lives))["retrainer_job_info"]
    assert [(labels["architecture"], labels["backbone"]) for labels, _ in shown] == [
        ("mobilenet_0.50_224", ""), ("", "s3://networks/vit"),
    ]  # fmt: skip


def test_a_running_job_has_not_ended() -> None:
    shown = series(OperatorMetrics().render([Live(job("runs", status={"phase": "Training"}), ())]))
    assert "retrainer_job_finished_timestamp_seconds" not in shown
    assert shown["retrainer_job_phase"][0][0]["phase"] == "Training"


def test_curves_are_of_the_jobs_that_run_and_of_those_that_ended_last() -> None:
    running = [
        Live(job(f"runs-{i:03d}", status={"phase": "Training"}), (training(3),))
        for i in range(CURVES_RUNNING + 7)
    ]
    ended = [
        Live(job(f"done-{i:03d}", status=succeeded(ended=f"2026-01-05T10:{i:02d}:00Z")), ())
        for i in range(CURVES_FINISHED + 9)
    ]
    shown = series(OperatorMetrics().render([*ended, *running]))["retrainer_job_curve"]
    names = {labels["name"] for labels, _ in shown}
    assert len([n for n in names if n.startswith("runs-")]) == CURVES_RUNNING
    assert {n for n in names if n.startswith("done-")} == {
        f"done-{i:03d}" for i in range(9, CURVES_FINISHED + 9)
    }


def test_a_growing_curve_keeps_its_series_instead_of_making_new_ones_at_each_evaluation() -> None:
    metrics = OperatorMetrics()
    pages = [
        metrics.render([Live(job("runs", status={"phase": "Training"}), (training(n),))])
        for n in range(1, 402)
    ]
    every_page = [steps(page) for page in pages]
    assert max(map(len, every_page)) == 20
    for n, page_steps in enumerate(every_page, start=1):
        assert {0, 10 * (n - 1)} <= page_steps
    # Only the latest point moves; at a doubling, every second point goes and none comes.
    for before, after in itertools.pairwise(every_page):
        assert len(after - before) == 1


def test_a_broken_curve_hides_no_other_figure() -> None:
    broken = Report(task="train", name="runs", uid="u", curve=Curve(step=[0, 10]))
    shown = series(
        OperatorMetrics().render([Live(job("runs", status={"phase": "Training"}), (broken,))])
    )
    assert "retrainer_job_curve" not in shown
    assert shown["retrainer_job_phase"][0][1] == 1


def test_a_status_that_cannot_be_read_hides_no_other_job() -> None:
    foreign = job("foreign", status={"phase": "Training", "progress": {"step": "many"}})
    page = OperatorMetrics().render([Live(foreign, ()), Live(job("done", status=succeeded()), ())])
    shown = series(page)
    assert {labels["name"] for labels, _ in shown["retrainer_job_phase"]} == {"foreign", "done"}


@pytest.mark.parametrize(
    ("annotation", "exported"),
    [("0.9", [0.9]), ("1", [1.0]), ("90%", []), ("1.5", []), ("nan", []), ("", [])],
)
def test_min_accuracy_is_exported_when_it_is_a_share(
    annotation: str, exported: list[float]
) -> None:
    done = job("done", status=succeeded(), annotations={"retrainer.dev/min-accuracy": annotation})
    shown = series(OperatorMetrics().render([Live(done, ())]))
    assert [value for _, value in shown.get("retrainer_job_min_accuracy", [])] == exported


def test_the_series_of_a_deleted_job_go() -> None:
    metrics = OperatorMetrics()
    lives = [Live(job(name, status=succeeded()), ()) for name in ("kept", "gone")]
    assert b'name="gone"' in metrics.render(lives)
    assert b'name="gone"' not in metrics.render(lives[:1])


def test_outcomes_are_counted_from_0_so_that_the_first_one_is_an_increase() -> None:
    shown = series(OperatorMetrics().render(()))["retrainer_jobs_finished_total"]
    assert all(value == 0 for _, value in shown)
    outcomes = {(labels["outcome"], labels["reason"]) for labels, _ in shown}
    assert {("Succeeded", "Succeeded"), ("Failed", "OOMKilled")} <= outcomes
    final = (reasons.Kind.SUCCEEDED, reasons.Kind.FAILED)
    assert {reason for _, reason in outcomes} == {
        r.name for r in reasons.REASONS if r.kind in final
    }


def test_every_family_on_the_page_is_one_that_the_reference_lists() -> None:
    metrics = OperatorMetrics()
    metrics.pass_seconds.observe(0.01)
    metrics.count_write("patch", "retrainjobs/status", "200")
    lives = [Live(job("done", status=succeeded()), ())]
    page = metrics.render(lives).decode()
    families = {f.name: f.type for f in text_string_to_metric_families(page)}
    kinds = {m.name: m.kind for m in METRICS}
    assert {
        n: k for n, k in families.items() if not n.startswith("process_")
    }.items() <= kinds.items()


def test_the_operators_own_memory_is_exported() -> None:
    shown = series(OperatorMetrics().render(()))
    assert shown["process_resident_memory_bytes"][0][1] > 1e6


def test_what_a_label_may_hold_is_escaped() -> None:
    strange = job("strange", status={"phase": "Failed", "reason": 'says "no"\\\nagain'})
    shown = series(OperatorMetrics().render([Live(strange, ())]))
    assert shown["retrainer_job_reason"][0][0]["reason"] == 'says "no"\\\nagain'
    assert json.dumps(shown["retrainer_job_reason"][0][0])
