"""Whether two heads really differ: guesses paired image by image, McNemar's test, Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retrainer.results.rows import Difference, TestPrediction


def against_best(
    guesses: Mapping[str, Sequence[TestPrediction]],
) -> tuple[list[Difference], list[str]]:
    """Test the first job against each other one, on the test images that both have.

    Two images count as the same if their identities and labels are equal; where a run has no
    identities, if their paths and labels are.

    Args:
        guesses: of each job by its name, the best job first.

    Returns:
        A difference for each other job that has an image in common with the first; and sentences
        on what was left out and why.
    """
    if len(guesses) < 2:
        return [], []
    notes = [note for name, predictions in guesses.items() for note in _doubts(name, predictions)]
    (best, reference), *others = guesses.items()
    differences: list[Difference] = []
    for name, predictions in others:
        by_identity = _has_identities(reference) and _has_identities(predictions)
        ours, theirs = _keyed(reference, by_identity), _keyed(predictions, by_identity)
        if common := ours.keys() & theirs.keys():
            only_best = sum(ours[k].right and not theirs[k].right for k in common)
            only_other = sum(theirs[k].right and not ours[k].right for k in common)
            differences.append(_ordered(best, name, only_best, only_other, len(common)))
        if ours.keys() != theirs.keys():
            notes.append(_not_the_same(best, name, ours, theirs))
    adjusted = holm([d.p for d in differences])
    return [replace(d, p=p) for d, p in zip(differences, adjusted, strict=True)], notes


Keyed = Mapping[tuple[str, str], TestPrediction]
"""Guesses by the identity (in an older run: the path) and the label of their image."""


def _keyed(guesses: Sequence[TestPrediction], by_identity: bool) -> Keyed:
    # Copies of one photo become one entry: the head guesses the same for all of them, so a second copy
    # is not a second observation.
    return {(g.identity if by_identity else g.path, g.label): g for g in guesses}


def _has_identities(guesses: Sequence[TestPrediction]) -> bool:
    return all(g.identity for g in guesses)


def _doubts(name: str, guesses: Sequence[TestPrediction]) -> list[str]:
    """Write a sentence on what weakens any comparison with this job's test images, if anything does."""
    if not _has_identities(guesses):
        return [
            f"{name} has no image identities in its predictions.parquet (an older run): its test images "
            "are matched by path and label, so a photo replaced by another goes unnoticed."
        ]
    copies = len(guesses) - len(_keyed(guesses, by_identity=True))
    if copies:
        return [
            f"{name} has test photos that are there more than once: each counts once in the test, "
            f"which leaves out {copies:,} of its {len(guesses):,} rows."
        ]
    return []


def _not_the_same(best: str, other: str, ours: Keyed, theirs: Keyed) -> str:
    """Write how far two test sets overlap, how the rest differ, and which images were tested on."""
    common = len(ours.keys() & theirs.keys())
    only_ours = [guess for key, guess in ours.items() if key not in theirs]
    only_theirs = [guess for key, guess in theirs.items() if key not in ours]
    text = (
        f"The test images of {best} and {other} differ: {common:,} in both, {len(only_ours):,} in "
        f"{best} only, {len(only_theirs):,} in {other} only"
    )
    their_identities = {key for key, _ in theirs}
    relabelled = sum(key in their_identities for key, _ in ours.keys() - theirs.keys())
    if relabelled:
        text += f"; in both under another label: {relabelled:,}"
    names = {(g.path, g.label) for g in only_theirs}
    replaced = sum((g.path, g.label) in names for g in only_ours)
    if replaced:
        # Identities come from ETags, and an ETag is the MD5 of the bytes only after a plain upload.
        text += (
            f"; under the same path with another identity: {replaced:,} (another photo, or the same "
            "one uploaded in another way, such as in parts)"
        )
    if not common:
        return f"{text}. No test is made: compare their intervals with care."
    return f"{text}. The test is made on those in both, the accuracies are each job's own."


def _ordered(best: str, other: str, only_best: int, only_other: int, images: int) -> Difference:
    p = mcnemar(only_best, only_other)
    if only_other > only_best:
        return Difference(other, best, only_other, only_best, images, p)
    return Difference(best, other, only_best, only_other, images, p)


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test.

    Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions";
    exact: the binomial distribution with one half, the tail doubled.

    Args:
        only_first, only_second: numbers of images that only the first, only the second guessed right.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0 or 2 * least == n:
        return 1.0
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)
        for k in range(least + 1)
    )
    return min(1.0, 2 * tail)


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number; returns them in the order given.

    S. Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = highest
    return corrected
