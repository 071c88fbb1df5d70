"""The stage of a run that looks for findings, and the rows that its files and its page show."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from retrainer.api import Task
from retrainer.api.evaluation import Folds, Forecast, ForecastPoint
from retrainer.api.findings import FindingCounts, FindingKind
from retrainer_trainer.arrays import Rows
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import reading
from retrainer_trainer.dataset.catalog import Catalog
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.findings.duplicates import Pair, ReadSmall
from retrainer_trainer.findings.findings import FOLDS, Findings, find, why_not
from retrainer_trainer.findings.kept import KeptFindings
from retrainer_trainer.findings.pictures import Small, small_picture
from retrainer_trainer.outputs.rows import FindingRow
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.store.store import Store

_READ_SIDE = 192
"""Pixels to which a picture is decoded before it is made small: decoding at a fraction is faster."""


@dataclass(frozen=True)
class FindingsOfRun:
    """The findings of a run, and what they say of its accuracy.

    Attributes:
        rows: of all kinds, the most telling first within each.
        counts: of each kind.
        folds: the accuracy by cross-validation; None if findings were left out.
        forecast: what more images would bring; None if unknown.
    """

    rows: list[FindingRow] = field(default_factory=list)
    counts: FindingCounts = field(default_factory=FindingCounts)
    folds: Folds | None = None
    forecast: Forecast | None = None

    def leaked(self) -> Rows:
        """List the catalog's rows of images that show the same as one of another set, ascending."""
        rows = {
            row
            for finding in self.rows
            if finding.kind is FindingKind.LEAK
            for row in (finding.row, finding.other_row)
            if row is not None
        }
        return np.array(sorted(rows), np.intp)


def look(task: Task, ready: Bottlenecks, cache: Store, reporter: Reporter) -> FindingsOfRun:
    """Look for findings, or take those that an earlier run with the same images left in the cache.

    A job that wants none, or images that allow none, give an empty result; the log says why.
    """
    if not task.spec.findings.enabled:
        return FindingsOfRun()
    catalog = ready.catalog
    rows = np.flatnonzero(ready.usable)
    label = catalog.label[rows].astype(np.intp)
    if why := why_not(label, len(catalog.labels)):
        reporter.log(why)
        return FindingsOfRun()
    kept = kept_findings(task, catalog, rows, ready.backbone.fingerprint, cache)
    findings = kept.read()
    if findings is None:
        findings = find(
            ready.matrix[rows],
            label,
            catalog.sets[rows],
            len(catalog.labels),
            read_small=small_reader(ready, rows),
            seed=task.spec.training.seed,
        )
        kept.write(findings)
        reporter.clock.lap("findings", len(rows))
    of_run = _without_kept(_of_run(findings, rows), catalog)
    reporter.log(sentence(of_run))
    return of_run


def small_reader(ready: Bottlenecks, rows: Rows) -> ReadSmall:
    """Make what reads small pictures of images; `rows` are those of the catalog."""

    def read_small(wanted: Iterable[int]) -> dict[int, Small]:
        number = {int(rows[row]): row for row in wanted}
        listed = np.array(list(number), np.intp)
        batches = reading.batches(ready.images, ready.catalog, listed, _READ_SIDE)
        return {
            number[int(row)]: small_picture(pixels)
            for batch in batches
            for row, pixels in zip(batch.rows.tolist(), batch.pixels, strict=True)
        }

    return read_small


def kept_findings(
    task: Task, catalog: Catalog, rows: Rows, fingerprint: str, cache: Store
) -> KeptFindings:
    """Name the place in the cache of the findings of these rows of the catalog."""
    return KeptFindings(
        cache,
        fingerprint,
        catalog.identities[rows],
        catalog.label[rows].astype(np.intp),
        catalog.sets[rows],
        labels=catalog.labels,
        seed=task.spec.training.seed,
    )


def _without_kept(of_run: FindingsOfRun, catalog: Catalog) -> FindingsOfRun:
    """Leave out findings of which people said that all of their images are right as they are."""
    kept = catalog.corrections.kept
    if not kept:
        return of_run

    def is_kept(finding: FindingRow) -> bool:
        rows = (finding.row, finding.other_row)
        return all(shown(catalog.paths[row]) in kept for row in rows if row is not None)

    rows = [finding for finding in of_run.rows if not is_kept(finding)]
    of_kind = Counter(finding.kind for finding in rows)
    counts = FindingCounts(
        labels=of_kind[FindingKind.LABEL],
        leaks=of_kind[FindingKind.LEAK],
        duplicates=of_kind[FindingKind.DUPLICATE],
        strangers=of_kind[FindingKind.STRANGER],
    )
    return replace(of_run, rows=rows, counts=counts)


def _of_run(findings: Findings, rows: Rows) -> FindingsOfRun:
    """Translate findings from the matrix's row numbers to those of the catalog."""

    def pair(kind: FindingKind, pair: Pair) -> FindingRow:
        return FindingRow(kind, int(rows[pair.row]), pair.cosine, int(rows[pair.other]))

    listed = [
        *(
            FindingRow(FindingKind.LABEL, int(rows[s.row]), s.margin, suggested=s.suggested)
            for s in findings.suspects
        ),
        *(pair(FindingKind.LEAK, leak) for leak in findings.leaks),
        *(pair(FindingKind.DUPLICATE, copy) for copy in findings.duplicates),
        *(
            FindingRow(FindingKind.STRANGER, int(rows[s.row]), s.distance)
            for s in findings.strangers
        ),
    ]
    counts = FindingCounts(
        labels=len(findings.suspects),
        leaks=len(findings.leaks),
        duplicates=len(findings.duplicates),
        strangers=len(findings.strangers),
    )
    folds = Folds(
        accuracy=findings.accuracy, interval=findings.interval, images=findings.images, folds=FOLDS
    )
    forecast = None
    if findings.forecast is not None:
        law = findings.forecast
        points = [ForecastPoint(images=p.images, accuracy=p.accuracy) for p in law.points]
        twice = 2 * points[-1].images
        forecast = Forecast(
            points=points, twice=ForecastPoint(images=twice, accuracy=law.accuracy(twice))
        )
    return FindingsOfRun(listed, counts, folds, forecast)


def sentence(of_run: FindingsOfRun) -> str:
    """Say how many findings of each kind there are, for the log."""
    counts = of_run.counts
    parts = (
        (counts.labels, "label that is probably wrong", "labels that are probably wrong"),
        (counts.leaks, "pair of images in different sets", "pairs of images in different sets"),
        (counts.duplicates, "pair of near-duplicates", "pairs of near-duplicates"),
        (counts.strangers, "image unlike all others", "images unlike all others"),
    )
    counted = [f"{count:,} {one if count == 1 else many}" for count, one, many in parts if count]
    return f"Findings: {', '.join(counted)}." if counted else "Findings: nothing that stands out."
