"""The page's section on corrections: which were applied, and what they changed."""

from html import escape

from retrainer.api.evaluation import AppliedCorrections, HeadBefore
from retrainer_trainer.page.html import percent, section, table

MOST_CORRECTIONS = 50
SIGNIFICANT = 0.05


def corrections_section(corrections: AppliedCorrections | None) -> str:
    """Write the section as HTML; empty where the job names no corrections."""
    if corrections is None:
        return ""
    rows = [
        (escape(one.path), one.action, escape(one.was), escape(one.label))
        for one in corrections.applied[:MOST_CORRECTIONS]
    ]
    left = len(corrections.applied) - MOST_CORRECTIONS
    more = f'<p class="note">and {left:,} more in evaluation.json</p>' if left > 0 else ""
    listed = table(("image", "action", "was", "is"), rows) if rows else ""
    return section(
        "Corrections", f"<p>{_changed(corrections)}</p>{listed}{more}", _counts(corrections)
    )


def _counts(corrections: AppliedCorrections) -> str:
    text = (
        f"Images relabelled: {corrections.relabelled:,}, dropped: {corrections.dropped:,}, kept as they "
        f"are: {corrections.kept:,}."
    )
    if corrections.absent:
        text += f" Corrections of images that are not there: {corrections.absent:,}."
    return text


def _changed(corrections: AppliedCorrections) -> str:
    """Say what the corrections changed, the labels' part and the head's part apart."""
    before = corrections.before
    if before is None:
        return (
            "The corrections name no run that can be read, so what they changed is not measured: their "
            "column <code>run</code> has the name of its folder beside this one."
        )
    if not before.images:
        return f"{escape(before.run)} and this run have no test image in common."
    return f"{_labels(before)} {_head(before)}"


def _labels(before: HeadBefore) -> str:
    return (
        f"On the {before.images:,} test images that this run has in common with {escape(before.run)}, "
        f"the head before had an accuracy of {percent(before.accuracy_then)}. {before.relabelled:,} of "
        "them have another label now: by the labels of now the same head has "
        f"{percent(before.accuracy_by_corrected_labels)}. That part comes from the test labels alone."
    )


def _head(before: HeadBefore) -> str:
    better = "may be chance" if before.p >= SIGNIFICANT else "is hardly chance"
    return (
        f"This head has {percent(before.accuracy)}: {before.only_now:,} images are right only now, "
        f"{before.only_before:,} were right only before, which {better} (McNemar's exact test, p = "
        f"{before.p:.2g})."
    )
