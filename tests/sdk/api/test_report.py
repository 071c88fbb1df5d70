"""Task and Report: what goes into a pod and comes out, and that it fits."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrainer.api import (
    ARCHITECTURES,
    Curve,
    CurvePoint,
    Export,
    Metadata,
    Metrics,
    Phase,
    Progress,
    Report,
    RetrainJob,
    RetrainJobSpec,
    Task,
    Training,
)
from retrainer.api.interval import wilson
from retrainer.api.layout import EXPORT_PATHS
from retrainer.api.task import MESSAGE_MAX_BYTES, TERMINATION_MAX_BYTES, rounded, shorten

UID = "0f5a2f0e-3a61-4b1d-8e1c-9f7c1f1b2a3d"


def largest_report() -> Report:
    """A report with every field as long as its writer can make it."""
    curve = Curve()
    for step in range(0, 10_000_001, 10_000):
        curve.add(
            CurvePoint(
                step=step, training_accuracy=0.12345678, validation_accuracy=0.12345678,
                cross_entropy=1234.12345678, validation_cross_entropy=1234.12345678,
            )
        )  # fmt: skip
    return Report(
        task="train",
        name="n" * 46,
        namespace="n" * 63,
        uid=UID,
        shard=9999,
        stage=Phase.SUCCEEDED,
        reason="LabelWithoutTraining",
        message="ä" * 8000,
        progress=Progress(
            percent=100, remaining_seconds=10**7, images_total=10**8, images_cached=10**8,
            images_computed=10**8, images_rejected=10**8, step=10**7, steps=10**7,
        ),
        metrics=Metrics(
            training_accuracy=0.12345, validation_accuracy=0.12345, cross_entropy=1234.12345,
            validation_cross_entropy=1234.12345, test_accuracy=0.12345, test_images=10**7,
        ),
        curve=curve,
        label_count=20_000,
        run="s3://" + "b" * 63 + "/" + "o" * 955 + "/" + "n" * 46 + "-0f5a2f0e",
        artifacts={**EXPORT_PATHS, **{f"file{i}": f"some_file_{i}.parquet" for i in range(9)}},
        images_per_second=1234567.12345,
        seconds=1234567.12345,
        warnings=["w" * 8000] * 100,
    )  # fmt: skip


def test_the_largest_termination_message_fits_what_a_kubelet_keeps() -> None:
    message = largest_report().termination_message()
    assert len(message.encode()) <= TERMINATION_MAX_BYTES
    parsed = Report.model_validate_json(message)
    assert len(parsed.curve.points()) == 20
    assert parsed.curve.step[0] == 0
    assert parsed.curve.step[-1] == 10_000_000
    assert len(parsed.message.encode()) <= MESSAGE_MAX_BYTES
    assert parsed.message.endswith("...")
    assert parsed.metrics.test_accuracy == pytest.approx(0.1235, abs=1e-4)
    assert parsed.artifacts == largest_report().artifacts


def test_result_json_keeps_the_whole_curve_and_the_warnings() -> None:
    report = largest_report()
    parsed = Report.model_validate_json(report.to_json())
    assert len(parsed.curve.points()) == 1001
    assert parsed.warnings == report.warnings


def test_a_report_has_no_nan_for_json_has_none() -> None:
    report = Report(task="train", name="n", uid=UID, metrics=Metrics(cross_entropy=math.nan))
    fields = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert fields["metrics"] == {"crossEntropy": None}
    assert Report.model_validate(fields).metrics.cross_entropy is None


def test_a_report_of_a_newer_trainer_is_still_read() -> None:
    report = Report.model_validate({"task": "train", "name": "n", "uid": UID, "colour": "red"})
    assert report.name == "n"


def test_an_uneven_curve_is_cut_to_its_shortest_array() -> None:
    curve = Curve(step=[0, 10], training_accuracy=[0.1], validation_accuracy=[0.1, 0.2],
                  cross_entropy=[1, 2], validation_cross_entropy=[1, 2])  # fmt: skip
    assert [p.step for p in curve.points()] == [0]


@given(st.integers(1, 500), st.integers(2, 50))
def test_a_thinned_curve_keeps_its_ends_and_its_order(points: int, most: int) -> None:
    curve = Curve()
    for step in range(points):
        curve.add(CurvePoint(step=step, training_accuracy=step / 1000))
    thin = curve.thinned(most)
    assert len(thin.step) == min(points, most)
    assert (thin.step[0], thin.step[-1]) == (0, points - 1)
    assert thin.step == sorted(set(thin.step))
    assert thin.training_accuracy == [step / 1000 for step in thin.step]


@given(st.text(), st.integers(3, 60))
def test_a_shortened_text_fits_and_is_whole_characters(text: str, most: int) -> None:
    short = shorten(text, most)
    assert len(short.encode()) <= most
    assert short == text or (short.endswith("...") and text.startswith(short[:-3]))


@given(st.recursive(st.floats() | st.none() | st.text(), st.lists))
def test_rounding_leaves_four_decimals_and_no_nan(value: object) -> None:
    json.dumps(rounded(value), allow_nan=False)


def job(architecture: str = "mobilenet_0.50_224", **training: object) -> RetrainJob:
    return RetrainJob(
        metadata=Metadata(name="flowers", namespace="team", uid=UID),
        spec=RetrainJobSpec(
            architecture=architecture,
            images="s3://photos/flowers",
            output="s3://models/flowers/",
            training=Training.model_validate(training),
            suspend=True,
            backoff_limit=7,
        ),
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(ARCHITECTURES)),
    st.integers(1, 10**7),
    st.floats(1e-9, 1e9),
    st.sampled_from(["bottlenecks", "train"]),
)
def test_a_task_survives_json_and_says_nothing_of_what_only_the_operator_does(
    architecture: str, steps: int, rate: float, kind: str
) -> None:
    original = job(architecture, steps=steps, learning_rate=rate)
    task = Task.of(original, "train" if kind == "train" else "bottlenecks")
    parsed = Task.model_validate_json(task.to_json())
    assert parsed.spec.training == original.spec.training
    assert parsed.spec.architecture == architecture
    assert (parsed.spec.suspend, parsed.spec.backoff_limit) == (False, 3)
    assert parsed.run_url == "s3://models/flowers/flowers-0f5a2f0e"


def test_a_job_without_a_uid_has_no_task() -> None:
    bare = job().model_copy(update={"metadata": Metadata(name="flowers")})
    with pytest.raises(ValueError, match="once it has a uid"):
        Task.of(bare, "train")


def test_every_export_has_its_place() -> None:
    assert set(EXPORT_PATHS) == {e.value for e in Export}
    assert len(set(EXPORT_PATHS.values())) == len(EXPORT_PATHS)


def test_wilson_intervals_are_those_of_the_literature() -> None:
    # R. G. Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    for right, images, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right / images, images) == pytest.approx((low, high), abs=5e-5)


def test_an_accuracy_on_no_images_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no interval"):
        wilson(0.5, 0)


def test_a_small_number_keeps_its_digits() -> None:
    assert rounded({"l2": 1.23456e-6, "share": 0.123456}) == {"l2": 1.235e-6, "share": 0.1235}
