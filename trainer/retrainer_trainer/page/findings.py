"""The page's section on the images: what stands out among them, with pictures and what to do."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from retrainer.api import Evaluation
from retrainer.api.corrections import Action, Correction, csv_lines
from retrainer.api.findings import FindingKind
from retrainer_trainer.page.html import percent, section

MOST_FINDINGS = 12
"""Findings of each kind that are shown; findings.parquet has all."""

_TITLES_AND_ADVICE = {
    FindingKind.LABEL: (
        "Labels that are probably wrong",
        "Heads that had not seen these images, and the images most like them, agree on another label. "
        "Look at each: move it to the folder of its label, delete it, or leave it if it is right.",
    ),
    FindingKind.LEAK: (
        "The same in two sets",
        "One image of each pair was trained on and the other measures the result, so the accuracy looks "
        "better than it is. Drop one of them, or set <code>split.groupDuplicates</code>, which keeps "
        "such images in one set.",
    ),
    FindingKind.DUPLICATE: (
        "The same more than once",
        "Both images of a pair are in one set: harmless, but they count twice. Delete one of them.",
    ),
    FindingKind.STRANGER: (
        "Unlike all others",
        "Far from every other image: often a wrong file. An image that is only a little strange is not "
        "found this way.",
    ),
}


_SAVE = (
    '<p id="save" hidden><a id="corrections" download="corrections.csv">Save corrections.csv</a> '
    '<span id="ticked" class="soft"></span> Then: <code>retrainer run PHOTOS --corrections '
    "corrections.csv</code>, or <code>corrections</code> in the spec of the next job.</p>"
    '<noscript><p class="note">Without scripts: <code>retrainer findings RUN --write '
    "corrections.csv</code></p></noscript>"
)
"""Shown once a box is ticked; the page's script fills it."""


@dataclass(frozen=True)
class FindingCard:
    """One finding as the page shows it.

    Attributes:
        kind: label, leak, duplicate or stranger.
        path: of the image, relative to `spec.images`.
        label: the name of its folder.
        suggested: the label that fits better; None for other kinds.
        jpeg: its thumbnail; None if it could not be read again.
        other: path of the image that shows the same; "" for other kinds.
        other_jpeg: its thumbnail.
        sets: the set of the image, or of both images.
    """

    kind: FindingKind
    path: str
    label: str
    suggested: str | None
    jpeg: bytes | None
    other: str = ""
    other_jpeg: bytes | None = None
    sets: tuple[str, ...] = ()


def findings_section(cards: Sequence[FindingCard], evaluation: Evaluation, run: str) -> str:
    """Write the section as HTML; empty if findings were left out.

    Args:
        cards: the most telling findings.
        evaluation: of the run.
        run: name of its folder, which the corrections name.
    """
    folds = evaluation.folds
    if folds is None or folds.interval is None:
        return ""
    parts = [_accuracy(evaluation)]
    for kind, (title, advice) in _TITLES_AND_ADVICE.items():
        of_kind = [card for card in cards if card.kind is kind]
        if of_kind:
            figures = "".join(
                _figure(card, _boxes(card, f"{kind}-{number}", run))
                for number, card in enumerate(of_kind)
            )
            parts.append(
                f'<h3>{title}</h3><p class="soft">{advice}</p><div class="mistakes">{figures}</div>'
            )
    if not cards:
        parts.append("<p>Nothing stands out among the images.</p>")
    elif len(cards) >= MOST_FINDINGS:
        parts.append(
            f'<p class="note">At most {MOST_FINDINGS} of each kind; findings.parquet has all.</p>'
        )
    if cards:
        parts.append(_SAVE)
    return section("What the images tell", "".join(parts))


def _accuracy(evaluation: Evaluation) -> str:
    """Write what cross-validation says of the accuracy, and what more images would bring."""
    folds, forecast, clean = evaluation.folds, evaluation.forecast, evaluation.without_leaks
    if folds is None or folds.interval is None:
        return ""
    low, high = folds.interval
    sentences = [
        f"Measured on all {folds.images:,} images instead of the test images alone, the accuracy is "
        f"<b>{percent(folds.accuracy)}</b> (95% interval {100 * low:.1f} to {100 * high:.1f}%): "
        f"{folds.folds} heads, each tested on the part that it has not seen. It says how well this way "
        "of training does on these images, not how good the exported head is; the interval is widened, "
        "since the heads share most of their images."
    ]
    if clean.accuracy is not None and clean.images < evaluation.images:
        sentences.append(
            "Without test images that look like one of another set the test accuracy is "
            f"{percent(clean.accuracy)} on {clean.images:,} images."
        )
    if forecast is not None and forecast.twice is not None:
        last = forecast.points[-1]
        sentences.append(
            f"With twice as many images ({forecast.twice.images:,} instead of {last.images:,}) expect "
            f"about {percent(forecast.twice.accuracy)}, if they are like these."
        )
    return f"<p>{' '.join(sentences)}</p>"


def _boxes(card: FindingCard, name: str, run: str) -> str:
    """Write the boxes of one finding: what can be done about it, each with its rows of CSV."""

    def rows(action: Action, *paths: str, label: str = "") -> list[Correction]:
        return [Correction(path, action, label, run) for path in paths]

    if card.other:
        choices = {
            "drop the first": rows(Action.DROP, card.path),
            "drop the second": rows(Action.DROP, card.other),
            "keep both": rows(Action.KEEP, card.path, card.other),
        }
    else:
        choices = {
            "drop it": rows(Action.DROP, card.path),
            "right as it is": rows(Action.KEEP, card.path),
        }
    if card.suggested is not None:
        relabelled = rows(Action.RELABEL, card.path, label=card.suggested)
        choices = {f"it is {card.suggested}": relabelled, **choices}
    return "".join(
        f'<label><input type="checkbox" name="{name}" '
        f'data-rows="{escape(json.dumps(csv_lines(corrections)))}"> {escape(text)}</label>'
        for text, corrections in choices.items()
    )


def _figure(card: FindingCard, boxes: str) -> str:
    pictures = _picture(card.path, card.jpeg)
    if card.other:
        pictures += _picture(card.other, card.other_jpeg)
    if card.suggested is not None:
        caption = (
            f'<span class="guess">{escape(card.suggested)}?</span><br>is in {escape(card.label)}'
        )
    elif card.other:
        caption = f"{escape(' and '.join(dict.fromkeys(card.sets)))}, {escape(card.label)}"
    else:
        caption = f"is in {escape(card.label)}"
    paths = "".join(
        f'<span class="path" title="{escape(path)}">{escape(path)}</span>'
        for path in (card.path, card.other)
        if path
    )
    return f"<figure>{pictures}<figcaption>{caption}{paths}{boxes}</figcaption></figure>"


def _picture(path: str, jpeg: bytes | None) -> str:
    if jpeg is None:
        return '<div class="gone">not readable</div>'
    code = base64.b64encode(jpeg).decode()
    return f'<img alt="{escape(path)}" src="data:image/jpeg;base64,{code}">'
