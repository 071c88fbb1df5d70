"""The page's boxes in a real browser: ticked findings become corrections.csv without a server."""

from pathlib import Path

import pytest
from tests.support.browser import open_tab
from tests.trainer.test_page import EVIL, everything

from retrainer.api.corrections import Correction, parsed
from retrainer.api.evaluation import Folds
from retrainer.api.findings import FindingKind
from retrainer_trainer.page.findings import FindingCard
from retrainer_trainer.page.page import render

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

RUN = "flowers-12345678"


def test_ticked_boxes_are_saved_as_corrections_and_no_other_script_runs(tmp_path: Path) -> None:
    cards = [
        FindingCard(FindingKind.LABEL, f"daisy/{EVIL}.jpg", "daisy", EVIL, None),
        FindingCard(FindingKind.DUPLICATE, "=a/1.jpg", "a", None, None, other="a/ü,2.jpg"),
        FindingCard(FindingKind.STRANGER, "b/3.jpg", "b", None, None),
    ]
    page = everything(["daisy", "roses"], findings=cards, run=f"s3://models/flowers/{RUN}")
    page.evaluation.folds = Folds(accuracy=0.9, interval=(0.8, 0.95), images=300, folds=10)
    (tmp_path / "report.html").write_text(render(page))
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with open_tab(tmp_path / "profile") as tab:
        tab.open(tmp_path / "report.html")
        assert tab.evaluate("document.getElementById('save').hidden") is True
        assert tab.evaluate("boxes.length") == 3 + 3 + 2

        def tick(number: int) -> None:
            tab.evaluate(f"boxes[{number}].click()")

        tick(0)
        tick(1)  # of the same finding: the first is no longer ticked
        assert tab.evaluate("boxes[0].checked") is False
        tick(0)
        tick(5)
        tick(7)
        assert tab.evaluate("document.getElementById('ticked').textContent") == "(3 ticked)"
        assert tab.evaluate("document.getElementById('save').hidden") is False
        # A script that is put into the page is not run, whatever it comes from.
        tab.evaluate(
            "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            " document.body.append(s); })()"
        )
        assert tab.evaluate("window.ran === undefined") is True
        tab.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads),
            eventsEnabled=True,
        )  # fmt: skip
        tab.call(
            "Runtime.evaluate", expression="document.getElementById('corrections').click()",
            userGesture=True, until="Browser.downloadProgress", state="completed",
        )  # fmt: skip
        href = tab.evaluate("decodeURIComponent(document.getElementById('corrections').href)")
    text = href.partition(",")[2]
    assert [row for _, row in parsed(text)] == [
        Correction(f"daisy/{EVIL}.jpg", "relabel", EVIL, RUN),
        Correction("=a/1.jpg", "keep", "", RUN),
        Correction("a/ü,2.jpg", "keep", "", RUN),
        Correction("b/3.jpg", "keep", "", RUN),
    ]
    (saved,) = downloads.iterdir()
    assert saved.name.startswith("corrections.csv")
