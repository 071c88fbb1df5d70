"""The files that a run leaves, by the names that its report has for them."""

from collections.abc import Iterable

from retrainer.api import Export, layout


def artifacts(formats: Iterable[Export], *, swept: bool) -> dict[str, str]:
    """Give name and path of every file of the run."""
    named = {form.value: layout.EXPORT_PATHS[form] for form in formats}
    named |= {
        "job": layout.JOB,
        "labels": layout.LABELS,
        "head": layout.HEAD,
        "evaluation": layout.EVALUATION,
        "history": layout.HISTORY,
        "predictions": layout.PREDICTIONS,
        "catalog": layout.CATALOG,
        "rejected": layout.REJECTED,
        "duplicates": layout.DUPLICATES,
        "findings": layout.FINDINGS,
        "summaries": layout.SUMMARIES,
        "page": layout.REPORT_PAGE,
    }
    if swept:
        named["sweep"] = layout.SWEEP
    return named
