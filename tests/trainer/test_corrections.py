"""Corrections: what people say of a run's images, applied to the next, and what that changed."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.trainer_engine import Recorder, photo, photos, spec

from retrainer.api import Task, layout
from retrainer.api.corrections import Correction, csv_text, parsed
from retrainer.api.evaluation import HeadBefore
from retrainer.errors import UserError
from retrainer.results.run import Run
from retrainer_trainer import train
from retrainer_trainer.dataset.catalog import Catalog, list_catalog
from retrainer_trainer.head.before import Guess, compare
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corrections")
    photos(root / "flowers", {"daisy": 20, "roses": 20, "=tulips": 20})
    return root


def listed(root: Path, corrections: str | bytes) -> tuple[Catalog, list[str]]:
    body = corrections if isinstance(corrections, bytes) else corrections.encode()
    (root / "corrections.csv").write_bytes(body)
    wanted = spec(root / "flowers", root / "out", corrections=str(root / "corrections.csv"))
    lines: list[str] = []
    return list_catalog(open_store(wanted.images, wanted.storage), wanted, lines.append), lines


def test_what_is_written_is_read_the_same_and_no_cell_is_a_formula() -> None:
    rows = [
        Correction("daisy/a, b.jpg", "relabel", 'the "rose"', "flowers-1a2b"),
        Correction("=cmd/x.jpg", "drop"),
        Correction("-a/x.jpg", "relabel", "@b"),
    ]
    text = csv_text(rows)
    assert [row for _, row in parsed(text)] == rows
    assert "\n=cmd" not in text
    assert ",@b" not in text


def test_images_are_relabelled_dropped_and_kept(root: Path) -> None:
    text = csv_text(
        [
            Correction("daisy/0000.jpg", "relabel", "=tulips"),
            Correction("roses/0001.jpg", "drop"),
            Correction("=tulips/0002.jpg", "keep", run="flowers-1"),
            Correction("roses/gone.jpg", "drop"),
        ]
    )
    whole, _ = listed(root, "path,action\n")
    catalog, lines = listed(root, text.replace("\n", "\r\n"))
    labels = dict(zip(catalog.paths, catalog.label.tolist(), strict=True))
    assert catalog.labels[labels["daisy/0000.jpg"]] == "=tulips"
    assert set(whole.paths) - set(catalog.paths) == {"roses/0001.jpg"}
    sets = dict(zip(whole.paths, whole.sets.tolist(), strict=True))
    assert [sets[path] for path in catalog.paths] == catalog.sets.tolist()
    assert catalog.corrections.kept == {"=tulips/0002.jpg"}
    assert catalog.corrections.run == "flowers-1"
    sentence = (
        "Corrections: 1 relabelled, 1 dropped, 1 kept; images that are not there: "
        "line 5 (roses/gone.jpg)."
    )
    assert sentence in lines
    assert sentence in catalog.warnings


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "it is empty"),
        ("path,label\n", "line 1: its columns are path, label, and none is called action"),
        ("path,action\nx,delete\n", "line 2: its action is 'delete'; use relabel, drop or keep"),
        ("path,action,label\nx,keep\ny,relabel,rosse\n", "line 3: there is no label 'rosse'"),
        ("path,action,label\nx,relabel,roses\nx,drop,\n", "line 3: line 2 corrects the same image"),
        ('path,action\n"x,drop\n', "line 2: its quotes are wrong"),
        ("path,action,label,run\nx,drop,,../other\n", "line 2: '../other' is no name of a run"),
        (b"path,action\n\xff,drop\n", "it is not UTF-8 text"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_line(
    text: str | bytes, detail: str, root: Path
) -> None:
    with pytest.raises(UserError) as raised:
        listed(root, text)
    assert f"(spec.corrections) cannot be applied: {detail}" in str(raised.value)
    assert raised.value.reason == "CorrectionsUnreadable"


def test_what_corrected_labels_change_is_told_apart_from_a_better_head() -> None:
    before = {
        "relabelled": Guess("a", "b"),  # wrong then, right by the label of now
        "better": Guess("a", "b"),
        "worse": Guess("a", "a"),
        "same": Guess("a", "a"),
        "gone": Guess("a", "a"),
    }
    now = {
        "relabelled": Guess("b", "b"),
        "better": Guess("a", "a"),
        "worse": Guess("a", "b"),
        "same": Guess("a", "a"),
        "new": Guess("a", "b"),
    }
    assert compare("flowers-1", before, now) == HeadBefore(
        run="flowers-1",
        images=4,
        relabelled=1,
        accuracy_then=0.5,
        accuracy_by_corrected_labels=0.75,
        accuracy=0.75,
        only_before=1,
        only_now=1,
        p=1.0,
    )


def run(root: Path, uid: str, **fields: Any) -> tuple[Run, Recorder]:
    values = {
        "training": {"steps": 50},
        "export": ["tflite"],
        "cache": str(root / "cache"),
        **fields,
    }
    wanted = spec(root / "flowers", root / "out", **values)
    recorder = Recorder(wanted, "train")
    task = Task(task="train", name="t", uid=uid, spec=wanted)
    train.run(task, recorder, Stop())
    return Run(task.run_url), recorder


@pytest.mark.slow
def test_the_next_run_says_which_corrections_were_applied_and_what_they_changed(
    tmp_path: Path,
) -> None:
    root = tmp_path
    photos(root / "flowers", {"daisy": 40, "roses": 40})
    (root / "flowers" / "daisy" / "copy.jpg").write_bytes(photo(3))
    first, _ = run(root, "00000001-0")
    pair = ("daisy/0003.jpg", "daisy/copy.jpg")
    assert pair in {(one.path, one.other) for one in first.findings()}
    assert Correction("daisy/copy.jpg", "drop", "", "t-00000001") in first.suggested_corrections()
    tested = first.predictions()[0].path
    label = "roses" if tested.startswith("daisy") else "daisy"
    corrections = [
        Correction(tested, "relabel", label, "t-00000001"),
        Correction("daisy/0003.jpg", "keep", "", "t-00000001"),
        Correction("daisy/copy.jpg", "keep", "", "t-00000001"),
        Correction("roses/0007.jpg", "drop", "", "t-00000001"),
    ]
    (root / "corrections.csv").write_text(csv_text(corrections))
    second, _ = run(root, "00000002-0", corrections=str(root / "corrections.csv"))
    assert pair not in {(one.path, one.other) for one in second.findings()}
    applied = second.evaluation.corrections
    assert applied is not None
    assert (applied.relabelled, applied.dropped, applied.kept) == (1, 1, 2)
    assert (applied.applied[0].path, applied.applied[0].label) == (tested, label)
    assert applied.applied[0].was != label
    assert applied.before is not None
    assert applied.before.run == "t-00000001"
    assert applied.before.relabelled == 1
    assert applied.before.images >= first.evaluation.images - 1
    page = (Path(second.url) / layout.REPORT_PAGE).read_text()
    assert "Images relabelled: 1, dropped: 1, kept as they are: 2." in page
    assert "McNemar" in page
    # Without the run before, the corrections are applied all the same.
    (root / "corrections.csv").write_text(csv_text([Correction(tested, "keep", "", "t-none")]))
    third, recorder = run(root, "00000003-0", corrections=str(root / "corrections.csv"))
    assert third.evaluation.corrections is not None
    assert third.evaluation.corrections.before is None
    assert any("The corrections are of t-none" in warning for warning in recorder.warnings)
