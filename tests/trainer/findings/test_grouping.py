"""Images that show the same stay in one set."""

from pathlib import Path

import numpy as np
import pytest
from tests.support import trainer_engine as engine
from tests.support.manifests import table
from tests.support.trainer_engine import Recorder

from retrainer.api import Task, layout
from retrainer.api.findings import FindingKind
from retrainer.results.run import Run
from retrainer_trainer import train
from retrainer_trainer.findings.grouping import one_set
from retrainer_trainer.runtime.stop import Stop


def test_the_first_image_of_a_group_decides_unless_a_manifest_does() -> None:
    group = np.array([0, 0, 2, 0, 2, 5])
    sets = np.array([0, 2, 1, 1, 2, 2], np.int8)
    fixed = np.zeros(6, bool)
    assert one_set(group, sets, fixed).tolist() == [0, 0, 1, 0, 1, 2]
    fixed[[3, 4]] = True
    assert one_set(group, sets, fixed).tolist() == [1, 1, 2, 1, 2, 2]
    fixed[2] = True  # two fixed ones of one group stay where they are
    assert one_set(group, sets, fixed).tolist() == [1, 1, 1, 1, 2, 2]


def run(root: Path, uid: str, **fields: object) -> tuple[Run, Recorder]:
    spec = engine.spec(
        root / "photos",
        root / "out",
        cache=str(root / "cache"),
        training={"steps": 20},
        export=["tflite"],
        **fields,
    )
    recorder = Recorder(spec, "train")
    task = Task(task="train", name="t", uid=uid, spec=spec)
    train.run(task, recorder, Stop())
    return Run(task.run_url), recorder


@pytest.mark.slow
def test_near_duplicates_are_in_one_set_and_none_leaks_into_the_test(tmp_path: Path) -> None:
    engine.photos(tmp_path / "photos", {"a": 30, "b": 30})
    for number in range(20):
        again = engine.encoded(engine.picture(number), quality=40)
        (tmp_path / "photos" / "a" / f"again-{number}.jpg").write_bytes(again)
    before, _ = run(tmp_path, "00000001-0")
    leaks = [one for one in before.findings() if one.kind == FindingKind.LEAK]
    assert leaks
    assert before.evaluation.without_leaks.images < before.evaluation.images

    # With views, which are made of the training images: of those that became ones too.
    grouped = {
        "split": {"groupDuplicates": True},
        "distortions": {"flipLeftRight": True, "views": 1},
    }
    after, recorder = run(tmp_path, "00000002-0", **grouped)
    assert not [one for one in after.findings() if one.kind == FindingKind.LEAK]
    assert after.evaluation.without_leaks.images == after.evaluation.images
    assert any("images show the same as another" in line for line in recorder.lines)
    sets = {row.path: row.set for row in after.catalog()}
    assert all(sets[one.path] == sets[one.other or ""] for one in leaks)

    # Pairs are kept: other labels, or a catalog with its sets, need no second look.
    kept = sorted((tmp_path / "cache").rglob(f"{layout.KEPT_FINDINGS}/*.json"))
    third, _ = run(tmp_path, "00000003-0", split={"groupDuplicates": True})
    assert {row.path: row.set for row in third.catalog()} == sets
    assert sorted((tmp_path / "cache").rglob(f"{layout.KEPT_FINDINGS}/*.json")) == kept

    # What a manifest says of the sets stays, whatever shows the same.
    one, other = leaks[0].path, leaks[0].other or ""
    rows = [(path, path[0], {one: "train", other: "test"}.get(path, "")) for path in sets]
    (tmp_path / "list.csv").write_bytes(table([("path", "label", "split"), *rows]))
    fourth, _ = run(
        tmp_path, "00000004-0", manifest=str(tmp_path / "list.csv"), split={"groupDuplicates": True}
    )
    named = {row.path: row.set for row in fourth.catalog()}
    assert (named[one], named[other]) == ("training", "testing")
