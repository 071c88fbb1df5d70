"""The page of a run: what it says, that it escapes, and that it needs nothing from outside."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from retrainer.api import CurvePoint, ExportCheck
from retrainer_trainer.head.evaluate import evaluate
from retrainer_trainer.page import charts
from retrainer_trainer.page.page import MOST_LISTED, Mistake, Page, render

EVIL = "<script>alert('x')</script> & \"rose\""
VOID = {"meta", "link", "br", "img", "line", "rect", "polyline", "input", "hr"}


class Parsed(HTMLParser):
    """Tags that are open, every tag seen, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def curve(
    steps: int = 200, training: float = 1.0, validation: float = 0.9, rise: float = 0.0
) -> list[CurvePoint]:
    """Curves that start together and end at these accuracies; validation's entropy rises at last."""
    points = []
    for i in range(steps):
        done = 1 - np.exp(-6 * i / steps)
        points.append(
            CurvePoint(
                step=10 * i,
                training_accuracy=0.2 + (training - 0.2) * done,
                validation_accuracy=0.2 + (validation - 0.2) * done,
                cross_entropy=1.6 * (1 - done) + 0.05,
                validation_cross_entropy=1.6 * (1 - done) + 0.3 + rise * i / steps,
            )
        )
    return points


def page_of(labels: list[str], images: int = 300, **fields: Any) -> Page:
    generator = np.random.default_rng(0)
    truth = generator.integers(len(labels), size=images)
    guess = np.where(
        generator.random(images) < 0.8, truth, generator.integers(len(labels), size=images)
    )
    scores = np.full((images, len(labels)), 0.1, np.float32)
    scores[np.arange(images), guess] = 0.9
    evaluation = evaluate(scores, truth, labels, np.zeros(images, bool), truth)
    values: dict[str, Any] = {
        "name": "flowers",
        "network": "mobilenet_0.50_160",
        "run": "s3://models/flowers/flowers-12345678",
        "finished": "2026-11-24 17:00 UTC",
        "labels": labels,
        "evaluation": evaluation,
        "curve": curve(),
        "validation_images": 150,
        **fields,
    }
    return Page(**values)


def everything(labels: list[str], **fields: Any) -> Page:
    page = page_of(
        labels,
        name=EVIL,
        counts=[(EVIL, EVIL, EVIL)],
        mistakes=[
            Mistake(EVIL, labels[0], labels[1], 0.98, 0.01, b"\xff\xd8jpeg"),
            Mistake(EVIL, labels[0], labels[1], 0.9, 0.01, None),
        ],
        mistake_count=30,
        duplicates=[[EVIL, EVIL, labels[0], "training"]] * (MOST_LISTED + 7),
        rejected=[[EVIL, EVIL]],
        warnings=[EVIL],
        spec=f"images: {EVIL}",
        versions={"retrainer": EVIL},
        **{"run": EVIL, **fields},
    )
    page.evaluation.exports = {EVIL: ExportCheck(path=EVIL, accuracy=0.8, images=300, different=4)}
    return page


@pytest.mark.parametrize("count", [2, 5, 16, 200])
def test_the_page_is_well_formed_with_any_number_of_labels(count: int) -> None:
    labels = [f"label {i}" for i in range(count)]
    parsed = Parsed(render(everything(labels)))
    assert not parsed.open
    for label in labels:
        assert label in parsed.text


def test_labels_paths_and_reasons_of_others_are_text_and_never_tags() -> None:
    labels = [EVIL, "rose<img src=x onerror=alert(1)>"]
    html = render(everything(labels))
    parsed = Parsed(html)
    assert len([tag for tag, _ in parsed.tags if tag == "script"]) == 1
    assert not [a for _, attrs in parsed.tags for a in attrs if a.startswith("on")]
    images = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    assert len(images) == 1
    assert str(images[0]).startswith("data:image/jpeg;base64,")
    assert parsed.text.count(EVIL) > 10


def test_a_counted_and_a_drawn_confusion_matrix_escape_their_labels() -> None:
    for count in (3, 40):
        labels = [f'<b>{i}"' for i in range(count)]
        matrix = np.full((count, count), 2, np.intp)
        drawn = charts.confusion(matrix, labels) + charts.confused(matrix, labels)
        assert "<b>" not in drawn
        assert "&lt;b&gt;0&quot;" in drawn


def test_nothing_is_requested_from_outside_and_only_the_page_s_own_script_may_run() -> None:
    html = render(everything(["daisy", "rose"]))
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:|//|/)", html)
    assert "@import" not in html
    tags = {tag for tag, _ in Parsed(html).tags}
    assert not tags & {"link", "iframe", "object", "embed", "form", "base"}
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in html
    assert EVIL not in script


def test_the_accuracy_stands_with_its_interval_and_its_number_of_images() -> None:
    page = page_of(["daisy", "rose"])
    text = Parsed(render(page)).text
    assert page.evaluation.accuracy is not None
    assert page.evaluation.interval is not None
    low, high = page.evaluation.interval
    assert f"{page.evaluation.accuracy:.1%}" in text
    assert f"95% interval {100 * low:.1f} to {100 * high:.1f}%, on 300 test images." in text


def test_without_test_images_the_page_says_so_in_place_of_a_figure() -> None:
    text = Parsed(render(page_of(["daisy", "rose"], images=0))).text
    assert "No test images, so nothing to measure it on." in text
    assert "There are no test images." in text


def test_long_lists_are_cut_and_say_where_the_rest_is() -> None:
    text = Parsed(render(everything(["daisy", "rose"]))).text
    assert "and 7 more in duplicates.csv" in text
    assert "The 2 surest of 30; predictions.parquet has them all." in text


def test_the_verdict_says_from_where_curves_part() -> None:
    text = charts.verdict(curve(training=1.0, validation=0.8), 150)
    match = re.match(
        r"The curves part at about step ([\d,]+): at the end the head is right on", text
    )
    assert match, text
    step = int(match[1].replace(",", ""))
    # 0.2 * (1 - exp(-6 x)) is more than 0.05 from x = 0.048 on, so from step 96 of 2,000.
    assert 60 <= step <= 150
    assert "100% of its training images and 80% of the validation images" in text


def test_the_verdict_asks_for_more_steps_while_the_validation_still_gets_better() -> None:
    first = CurvePoint(
        step=0,
        training_accuracy=0.15,
        validation_accuracy=0.17,
        cross_entropy=1.62,
        validation_cross_entropy=1.61,
    )
    second = CurvePoint(
        step=1,
        training_accuracy=0.44,
        validation_accuracy=0.32,
        cross_entropy=1.46,
        validation_cross_entropy=1.52,
    )
    text = charts.verdict([first, second], 150)
    assert "44% of its training images and 32% of the validation images" in text
    assert text.endswith("try more steps first, then more images, or distortions.")
    settled = charts.verdict(curve(training=1.0, validation=0.8, rise=0.1), 150)
    assert settled.endswith("help more than more steps.")


def test_the_verdict_of_a_head_that_only_got_worse_is_that_its_steps_are_too_large() -> None:
    points = [
        p.model_copy(update={"validation_cross_entropy": 1.6 + 8 * (i > 0)})
        for i, p in enumerate(curve(400))
    ]
    text = charts.verdict(points, 150)
    assert text.startswith("The validation cross entropy is lowest at the first evaluation (1.60)")
    assert text.endswith("try a smaller learningRate.")


def test_the_verdict_takes_one_lucky_evaluation_for_no_turn() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 31)
    points = [
        p.model_copy(update={"validation_cross_entropy": 0.6 + float(noise[i])})
        for i, p in enumerate(curve(31, training=0.82, validation=0.8))
    ]
    assert min(noise) < -0.08
    assert charts.verdict(points, 150).startswith("Training and validation stay together")


def test_the_verdict_says_when_curves_stay_together() -> None:
    text = charts.verdict(curve(training=0.92, validation=0.9), 150)
    assert text.startswith("Training and validation stay together (at the end 92% and 90%)")


def test_the_verdict_names_the_step_after_which_more_training_does_harm() -> None:
    text = charts.verdict(curve(rise=1.0), 150)
    assert "The validation cross entropy is lowest at about step" in text
    assert "stop near there" in text


def test_a_handful_of_validation_images_gets_no_verdict() -> None:
    parting = curve(training=1.0, validation=0.8)
    text = charts.verdict(parting, 20)
    assert text.startswith("On 20 validation images one image more or less is 5 points: too few")
    assert "part at about step" not in text
    assert "part at about step" in charts.verdict(parting, charts.FEWEST_JUDGED)
    assert "On 1 validation image one" in render(
        page_of(["daisy", "rose"], curve=parting, validation_images=1)
    )


def test_the_page_says_what_always_guessing_the_commonest_label_gives() -> None:
    page = page_of(["daisy", "rose"])
    commonest = page.evaluation.commonest_label
    assert commonest.accuracy is not None
    assert 0.4 < commonest.accuracy < 0.6
    text = Parsed(render(page)).text
    assert (
        f"Always guessing {commonest.label}, the commonest label, would give "
        f"{commonest.accuracy:.1%}." in text
    )


def test_the_verdict_says_when_there_was_nothing_to_compare_with() -> None:
    points = [CurvePoint(step=i, training_accuracy=0.5, cross_entropy=1.0) for i in range(3)]
    assert charts.verdict(points, 150).startswith("There are no validation images")
    assert "Accuracy" in render(page_of(["daisy", "rose"], curve=points))


def test_a_curve_of_a_hundred_thousand_evaluations_keeps_the_page_small() -> None:
    assert len(render(page_of(["daisy", "rose"], curve=curve(100_000)))) < 200_000


def test_a_curve_of_one_evaluation_is_drawn() -> None:
    point = CurvePoint(step=0, training_accuracy=0.5, cross_entropy=0.0)
    Parsed(render(page_of(["daisy", "rose"], curve=[point])))


def test_the_pair_mistaken_most_often_comes_first() -> None:
    matrix = np.array([[5, 1, 0], [4, 3, 0], [0, 0, 9]])
    text = Parsed(charts.confused(matrix, ["daisy", "rose", "tulip"])).text
    assert text.index("4 of 7") < text.index("1 of 6")
    assert "9" not in text


def test_a_label_that_is_never_guessed_is_the_worst_of_the_list() -> None:
    labels = ["daisy", "rose", "tulip"]
    truth = np.array([0, 1, 1, 2, 2])
    scores = np.eye(3, dtype=np.float32)[[1, 1, 1, 2, 1]]
    page = page_of(labels, evaluation=evaluate(scores, truth, labels, np.zeros(5, bool), truth))
    rows = re.findall(r"<tr><td>(\w+)</td><td class=\"number\">\d+</td>", render(page))
    assert rows == ["daisy", "rose", "tulip"]


@pytest.mark.parametrize(("images", "wide"), [(12, True), (300, False)])
def test_the_page_says_when_the_interval_is_wide(images: int, wide: bool) -> None:
    assert ("That is wide" in render(page_of(["daisy", "rose"], images))) == wide


def test_a_label_that_is_cut_in_the_table_can_be_pointed_at() -> None:
    name = "tulips_and_other_spring_bulbs_without_any_space"
    table = charts.confusion(np.eye(2, dtype=np.intp), [name, "rose"])
    assert f'<th scope="row" title="{name}">' in table
    assert f'<th scope="col" title="{name}">' in table


def rgb(text: str) -> tuple[float, ...]:
    if text.startswith("#"):
        return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))
    return tuple(map(float, text.split()))


def luminance(colour: tuple[float, ...]) -> float:
    shares = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_counts_can_be_read_on_every_shade_of_the_confusion_matrix(kind: str, dark: bool) -> None:
    """Contrast as WCAG 2.2 has it; where a dark page changes from light to dark ink it is least."""
    css = render(page_of(["daisy", "rose"]))
    variables = re.findall(r"--([\w-]+): (#\w{6}|\d+ \d+ \d+);", css.split("@media")[dark])
    colours = {name: rgb(value) for name, value in variables}
    assert ".confusion .strong { color: #000000; }" in css
    strong = (0.0, 0.0, 0.0) if dark else colours["ink"]
    (least, most) = re.findall(rf"--{kind}\) / calc\((\d+)% \+ (\d+)%", css)[0]
    for shade in np.linspace(0, 1, 101):
        alpha = (int(least) + int(most) * shade) / 100
        ground = tuple(
            alpha * c + (1 - alpha) * p
            for c, p in zip(colours[kind], colours["paper"], strict=True)
        )
        ink = strong if shade > charts.STRONG else colours["ink"]
        low, high = sorted((luminance(ground), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) > (3.9 if dark else 4.5), shade
