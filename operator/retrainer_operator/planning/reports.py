"""Reports as pods give them: checked like any input, since anybody may run a pod."""

import math
from collections.abc import Callable

from pydantic import ValidationError

from retrainer.api import Curve, Metrics, Progress, Report, SweepStatus
from retrainer.api.findings import FindingCounts

_ARTIFACTS_MAX = 64


def parse_report(text: str | bytes) -> Report | None:
    """Read a Report; None if the document is none. Impossible values are left out."""
    try:
        report = Report.model_validate_json(text)
    except ValidationError:
        return None
    return report.model_copy(
        update={
            "metrics": _sane_metrics(report.metrics),
            "progress": _sane_progress(report.progress),
            "curve": report.curve if _is_sane(report.curve) else Curve(),
            "sweep": _sane_sweep(report.sweep),
            "label_count": report.label_count if _count(report.label_count) else None,
            "findings": _sane_findings(report.findings),
            "artifacts": dict(list(report.artifacts.items())[:_ARTIFACTS_MAX]),
        }
    )


def _sane_sweep(sweep: SweepStatus | None) -> SweepStatus | None:
    if sweep is None or not (_count(sweep.candidates) and _count(sweep.diverged)):
        return None
    chosen = sweep.chosen
    values = (chosen.learning_rate or 0, chosen.l2) if chosen else ()
    return sweep if all(math.isfinite(value) and value >= 0 for value in values) else None


def _sane_metrics(metrics: Metrics) -> Metrics:
    def share(value: float | None) -> bool:
        return value is None or 0 <= value <= 1

    def entropy(value: float | None) -> bool:
        return value is None or (math.isfinite(value) and value >= 0)

    sane: dict[str, Callable[[float | None], bool]] = {
        "training_accuracy": share,
        "validation_accuracy": share,
        "test_accuracy": share,
        "cross_entropy": entropy,
        "validation_cross_entropy": entropy,
        "test_images": _count,
    }
    wrong = [name for name, fits in sane.items() if not fits(getattr(metrics, name))]
    return metrics.model_copy(update=dict.fromkeys(wrong)) if wrong else metrics


_COUNT_MAX = 2**53
"""Largest whole number that the API server reads as one; it refuses a whole status for a larger one."""


def _count(value: float | None) -> bool:
    return value is None or 0 <= value <= _COUNT_MAX


def _is_sane(curve: Curve) -> bool:
    values = (
        *curve.training_accuracy,
        *curve.validation_accuracy,
        *curve.cross_entropy,
        *curve.validation_cross_entropy,
    )
    return all(map(_count, curve.step)) and all(v is None or math.isfinite(v) for v in values)


def _sane_findings(findings: FindingCounts | None) -> FindingCounts | None:
    return findings if findings and all(map(_count, findings.model_dump().values())) else None


def _sane_progress(progress: Progress) -> Progress:
    counts = progress.model_dump()
    wrong = [n for n, v in counts.items() if not _count(v)]
    if counts["percent"] is not None and counts["percent"] > 100:
        wrong.append("percent")
    return progress.model_copy(update=dict.fromkeys(wrong)) if wrong else progress
