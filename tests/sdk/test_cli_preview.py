"""`retrainer check` as a person types it, with the real trainer."""

import json
from pathlib import Path

import pytest
from tests.support.trainer_engine import photos

import retrainer
from retrainer.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return photos(tmp_path / "flowers", {"daisy": 24, "roses": 26})


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.run(main.build(), arguments)
    return code, *capsys.readouterr()


def test_a_folder_is_counted_by_label_and_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "roses" / "notes.jpg").write_bytes(b"Buy bread.")
    code, out, _ = typed(capsys, "check", "flowers")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("flowers: 51 images of 2 labels, ")
    assert lines[1].split() == ["LABEL", "IMAGES", "TRAINING", "VALIDATION", "TEST", "UNREADABLE"]
    assert [lines[i].split()[:2] for i in (2, 3)] == [["daisy", "24"], ["roses", "27"]]
    assert "Formats: JPEG 50." in lines
    assert "Pixels: all 64 x 48." in lines
    assert "Unreadable: 1, roses/notes.jpg (not a JPEG, PNG, WebP, BMP or GIF image)." in lines
    assert lines[-1] == "A run can train on these images."
    assert sorted(path.name for path in folder.parent.iterdir()) == ["flowers"]


def test_what_a_run_would_refuse_exits_with_64_after_all_that_is_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "roses").iterdir():
        path.write_bytes(b"Buy bread.")
    code, out, err = typed(capsys, "check", "flowers")
    assert code == 64
    assert "roses" in out
    assert "A run can train" not in out
    assert "notes" not in err
    assert "roses/0000.jpg" in err


def test_a_place_that_is_no_folder_is_refused_before_the_trainer_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = typed(capsys, "check", "flwers")
    assert code == 64
    assert "flwers does not exist" in " ".join(err.split())


def test_a_job_s_own_split_is_used_and_everything_is_there_as_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = (
        "apiVersion: retrainer.dev/v1alpha1\nkind: RetrainJob\nmetadata: {name: flowers}\n"
        "spec: {architecture: mobilenet_0.25_128, images: flowers, output: out,\n"
        "  split: {testingPercentage: 50}}\n"
    )
    Path("job.yaml").write_text(job)
    code, out, _ = typed(capsys, "check", "-f", "job.yaml", "--decode", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["images"] == 50
    assert document["decoded"]
    assert sum(label["test"] for label in document["labels"]) > 15
    assert retrainer.check(folder).labels != []


def test_a_plan_says_what_is_left_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ("--architecture", "mobilenet_0.25_128", "--weights", "builtin")
    code, out, _ = typed(capsys, "plan", "flowers", *network)
    facts = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    shown = {title: value.strip() for title, value in facts.items()}
    assert code == 0
    assert shown["Network"] == "mobilenet_0.25_128"
    assert shown["Labels"] == "daisy 24, roses 26"
    assert shown["In the cache"] == "0 of 50 images"
    assert shown["To compute"].startswith("50 images, ")
    assert shown["Time"] == "unknown: no run with this cache and network yet"
    assert shown["Run"] == f"{folder.parent}/out/flowers-********"
    assert retrainer.plan({
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": "flowers"},
        "spec": {
            "architecture": "mobilenet_0.25_128", "weights": "builtin", "images": "flowers",
            "output": "out",
        },
    }).missing == 50  # fmt: skip
    assert not Path("out").exists()
