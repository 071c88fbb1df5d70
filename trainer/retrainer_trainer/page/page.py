"""`report.html`: one file that shows a finished run, with nothing to load from anywhere else.

Labels, paths and reasons come from other people's folders: everything is escaped, and the page's own
policy forbids requests, and all scripts but the one in its template.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from retrainer.api import CommonestLabel, CurvePoint, Evaluation, LabelFigures
from retrainer.api.evaluation import Check
from retrainer_trainer.head.sweep import Candidate
from retrainer_trainer.page import charts
from retrainer_trainer.page.corrections import corrections_section
from retrainer_trainer.page.findings import FindingCard, findings_section
from retrainer_trainer.page.html import percent, section, table

MOST_MISTAKES = 24
MOST_LISTED = 50
THUMBNAIL = 192
"""Height and width of a mistake's picture, pixels."""

WIDE = 0.2
"""From this width on the page says of an interval that it is wide."""

# Labels whose counted confusion matrix leaves room for a table beside it.
_BESIDE = 6

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Mistake:
    """One test image guessed wrong.

    Attributes:
        path: relative to `spec.images`.
        label: what it is.
        guess: what was guessed.
        score: of the guess, 0 to 1.
        true_score: of the label, 0 to 1.
        jpeg: its thumbnail; None if it could not be read again.
    """

    path: str
    label: str
    guess: str
    score: float
    true_score: float
    jpeg: bytes | None


@dataclass(frozen=True)
class Page:
    """Everything that the page shows.

    Attributes:
        name: of the job.
        network: its name.
        run: URL of the run's folder.
        finished: when, ISO 8601.
        labels: names.
        evaluation: what `evaluation.json` holds.
        curve: every evaluation.
        candidates: what a sweep tried; none if there was none.
        chosen: index of the one that was chosen.
        validation_images: how many images each of them was validated on.
        counts: heading and value of the small figures under the accuracy.
        mistakes: the worst, worst first.
        mistake_count: how many there are in all.
        findings: the most telling of each kind.
        duplicates: rows of duplicates.csv: identity, path, label, set.
        rejected: rows of rejected.csv: path, reason.
        warnings: sentences.
        spec: the job's spec as YAML.
        versions: names and versions of the programs and libraries that made the run.
    """

    name: str
    network: str
    run: str
    finished: str
    labels: Sequence[str]
    evaluation: Evaluation
    curve: Sequence[CurvePoint]
    validation_images: int
    candidates: Sequence[Candidate] = ()
    chosen: int = 0
    counts: Sequence[tuple[str, str, str]] = ()
    mistakes: Sequence[Mistake] = ()
    mistake_count: int = 0
    findings: Sequence[FindingCard] = ()
    duplicates: Sequence[Sequence[str]] = ()
    rejected: Sequence[Sequence[str]] = ()
    warnings: Sequence[str] = ()
    spec: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """Write the page as HTML."""
    sections = [
        _hero(page),
        _warnings(page),
        _curves(page),
        _sweep(page),
        _confusion(page),
        _labels(page),
        _mistakes(page),
        corrections_section(page.evaluation.corrections),
        findings_section(page.findings, page.evaluation, page.run.rstrip("/").rpartition("/")[2]),
        _exports(page),
        _lists(page),
        _spec(page),
    ]
    template = _TEMPLATE.read_text(encoding="utf-8")
    return Template(template).substitute(
        script_hash=_script_hash(template),
        title=escape(page.name),
        subtitle=f"{escape(page.network)} retrained on {len(page.labels)} labels, "
        f"{escape(page.finished)}",
        sections="\n".join(s for s in sections if s),
        footer=f"Retrainer {escape(page.versions.get('retrainer', ''))} &middot; {escape(page.run)}",
    )


def _script_hash(template: str) -> str:
    """Compute what the policy names the page's one script by, so that no other runs."""
    script = template.partition("<script>")[2].partition("</script>")[0]
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _hero(page: Page) -> str:
    evaluation = page.evaluation
    if evaluation.accuracy is None or evaluation.interval is None:
        figure = (
            '<div><h2>Test accuracy</h2><div class="big">&ndash;</div>'
            '<p class="soft note">No test images, so nothing to measure it on.</p></div>'
        )
    else:
        low, high = evaluation.interval
        images = evaluation.images
        figure = (
            f'<div><h2>Test accuracy</h2><div class="big">{100 * evaluation.accuracy:.1f}'
            "<small>%</small></div>"
            f'<div class="whisker"><i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%">'
            f'</i><b style="left:{100 * evaluation.accuracy:.2f}%"></b></div>'
            f'<p class="soft note">95% interval {100 * low:.1f} to {100 * high:.1f}%, on {images:,} '
            f"test image{'' if images == 1 else 's'}.{_few(high - low)}</p>"
            f'<p class="soft note">{_commonest(evaluation.commonest_label)}</p></div>'
        )
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in page.counts
    )
    return f'<section class="hero">{figure}<dl class="facts">{facts}</dl></section>'


def _commonest(commonest: CommonestLabel) -> str:
    """Write the accuracy of always guessing the commonest label, to compare the head's with."""
    label, accuracy = escape(commonest.label), percent(commonest.accuracy)
    return f"Always guessing {label}, the commonest label, would give {accuracy}."


def _few(width: float) -> str:
    """Write what a wide interval (its width is 0 to 1) means; "" for a narrow one."""
    text = " <b>That is wide: a few points more or less may be chance.</b>"
    return text if width > WIDE else ""


def _warnings(page: Page) -> str:
    if not page.warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in page.warnings[:MOST_LISTED])
    return f'<section class="warnings"><ul>{items}</ul></section>'


def _curves(page: Page) -> str:
    pictures = []
    for title, fields, is_share in (
        ("Accuracy", ("training_accuracy", "validation_accuracy"), True),
        ("Cross entropy, nats", ("cross_entropy", "validation_cross_entropy"), False),
    ):
        series = [
            (name, points)
            for name, field_name in zip(("training", "validation"), fields, strict=True)
            if (points := charts.points_of(page.curve, field_name))
        ]
        pictures.append(
            f"<div><h3>{title}</h3>{charts.curves(series, title, percent=is_share)}</div>"
        )
    key = (
        '<p class="key"><span style="--c:var(--training)">training batch</span>'
        '<span style="--c:var(--validation)">validation images</span></p>'
    )
    body = f'{key}<div class="two">{"".join(pictures)}</div>'
    return section(
        "Learning curves", body, escape(charts.verdict(page.curve, page.validation_images))
    )


def _sweep(page: Page) -> str:
    if not page.candidates:
        return ""
    diverged = sum(candidate.cross_entropy is None for candidate in page.candidates)
    ended = f" {diverged:,} diverged." if diverged else ""
    intro = (
        f"{len(page.candidates):,} combinations were trained at once.{ended} The one with the lowest "
        "cross entropy on the validation images, framed, was trained alone."
    )
    return section("What was tried", charts.sweep(page.candidates, page.chosen), intro)


def _confusion(page: Page) -> str:
    matrix = np.array(page.evaluation.confusion, np.intp)
    pairs = charts.confused(matrix, page.labels)
    body = f"<div>{charts.confusion(matrix, page.labels)}</div>"
    if pairs:
        beside = len(page.labels) <= _BESIDE or len(page.labels) > charts.MOST_COUNTED
        layout = "two" if beside else "one"
        body = f'<div class="{layout}">{body}<div><h3>Mistaken most often</h3>{pairs}</div></div>'
    return section("What is taken for what", body, "Each row is a label, each column a guess.")


def _labels(page: Page) -> str:
    def rank(row: LabelFigures) -> tuple[float, str]:
        return (2.0 if row.f1 is None else row.f1, row.label)

    rows = [
        (
            escape(row.label),
            f"{row.images:,}",
            percent(row.precision),
            percent(row.recall),
            f"{percent(row.f1)}"
            f'<span class="bar"><i style="width:{100 * (row.f1 or 0):.0f}%"></i></span>',
        )
        for row in sorted(page.evaluation.labels, key=rank)
    ]
    head = ("label", "test images", "precision", "recall", "F1")
    return section(
        "Label by label",
        table(head, rows, numbers=4),
        "Worst first. Precision: how many of the guesses of a label are right. Recall: how many of "
        "its images are found. F1: both in one.",
    )


def _mistakes(page: Page) -> str:
    if not page.mistake_count:
        return ""
    cards = []
    for mistake in page.mistakes[:MOST_MISTAKES]:
        if mistake.jpeg is None:
            picture = '<div class="gone">not readable</div>'
        else:
            code = base64.b64encode(mistake.jpeg).decode()
            picture = (
                f'<img alt="{escape(mistake.path)}" width="{THUMBNAIL}" height="{THUMBNAIL}" '
                f'src="data:image/jpeg;base64,{code}">'
            )
        cards.append(
            f'<figure>{picture}<figcaption><span class="guess">{escape(mistake.guess)} '
            f"{percent(mistake.score)}</span><br>is {escape(mistake.label)} "
            f"({percent(mistake.true_score)})"
            f'<span class="path" title="{escape(mistake.path)}">{escape(mistake.path)}</span>'
            "</figcaption></figure>"
        )
    shown = min(len(page.mistakes), MOST_MISTAKES)
    if shown < page.mistake_count:
        intro = f"The {shown} surest of {page.mistake_count:,}; predictions.parquet has them all."
    else:
        intro = "All of them, the surest guess first."
    intro += " A label that looks right here may be wrong in its folder."
    return section("Worst mistakes", f'<div class="mistakes">{"".join(cards)}</div>', intro)


def _exports(page: Page) -> str:
    rows = [
        (
            escape(name),
            escape(export.path),
            percent(export.accuracy),
            f"{export.different:,} of {export.images:,}"
            if export.check == Check.IMAGES
            else "not run; it holds the head's numbers",
        )
        for name, export in page.evaluation.exports.items()
    ]
    if not rows:
        return ""
    head = ("format", "file", "accuracy", "guesses unlike the head's")
    return section(
        "Exports",
        table(head, rows, numbers=2),
        "Each file was checked before the end: run on images, or its numbers read back and compared. "
        "retrainer verify runs all of them.",
    )


def _lists(page: Page) -> str:
    sections = []
    for title, head, rows, file in (
        ("Rejected images", ("path", "reason"), page.rejected, "rejected.csv"),
        (
            "The same image more than once",
            ("identity", "path", "label", "set"),
            page.duplicates,
            "duplicates.csv",
        ),
    ):
        if not rows:
            continue
        cells = ([escape(cell) for cell in row] for row in rows[:MOST_LISTED])
        left = len(rows) - MOST_LISTED
        more = f'<p class="note">and {left:,} more in {file}</p>' if left > 0 else ""
        intro = ""
        without = page.evaluation.without_duplicates
        if file == "duplicates.csv" and without.accuracy is not None:
            intro = (
                f"Without the test images among them the accuracy is {percent(without.accuracy)} "
                f"on {without.images:,} images."
            )
        sections.append(section(title, table(head, cells) + more, intro))
    return "\n".join(sections)


def _spec(page: Page) -> str:
    versions = table(
        ("part", "version"), ((escape(k), escape(v)) for k, v in page.versions.items())
    )
    return section(
        "How to repeat it",
        f"<pre>{escape(page.spec)}</pre><details><summary>Versions</summary>{versions}</details>",
        "Equal seeds give equal heads on one CPU type and container image.",
    )
