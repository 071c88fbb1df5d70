"""Corrections that findings suggest, for people to look at one by one."""

from retrainer.api.corrections import Action, Correction
from retrainer.api.findings import FindingKind
from retrainer.results.rows import Finding


def suggested(finding: Finding, run: str) -> Correction:
    """Suggest what to do about a finding: relabel it, drop the second of a pair, drop a stranger.

    Args:
        finding: of the run.
        run: name of its folder.
    """
    if finding.kind == FindingKind.LABEL:
        return Correction(finding.path, Action.RELABEL, finding.suggested or "", run)
    return Correction(finding.other or finding.path, Action.DROP, "", run)
