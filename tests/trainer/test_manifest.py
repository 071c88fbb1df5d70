"""Manifests: every form gives the same catalog and head, and each bad row is named by its line."""

import csv
import io
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support import manifests
from tests.support.manifests import FORMS, json_lines, parquet, table
from tests.support.trainer_engine import Recorder, photos, prepared, spec

from retrainer.api import Solver, Training, layout
from retrainer.errors import UserError
from retrainer_trainer import train
from retrainer_trainer.bottlenecks import Bottlenecks
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import Catalog, list_catalog
from retrainer_trainer.dataset.manifest import read
from retrainer_trainer.dataset.matching import match
from retrainer_trainer.dataset.rows import ManifestError
from retrainer_trainer.dataset.texts import Texts
from retrainer_trainer.head.sweep import train_best
from retrainer_trainer.outputs import tables
from retrainer_trainer.store.opening import open_store

LABELS = {"daisy": 12, "röses": 12, "tulips": 12}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three labels, and where the runs' cache is."""
    root = tmp_path_factory.mktemp("manifests")
    photos(root / "flowers", LABELS)
    return root


@pytest.fixture(scope="module")
def pairs(root: Path) -> list[manifests.Pair]:
    """Path and label of each photo, in no order."""
    paths = [path.relative_to(root / "flowers").as_posix() for path in root.rglob("*.jpg")]
    mixed = np.random.default_rng(0).permutation(sorted(paths)).tolist()
    return [(path, path.partition("/")[0]) for path in mixed]


def ready_of(root: Path, body: bytes | None, **fields: Any) -> Bottlenecks:
    """What is trained on, of a manifest or of the folders."""
    if body is not None:
        (root / "manifest").write_bytes(body)
        fields["manifest"] = str(root / "manifest")
    wanted = spec(root / "flowers", root / "out", cache=str(root / "cache"), **fields)
    return prepared(wanted)


def catalog_of(root: Path, body: bytes, **fields: Any) -> Catalog:
    (root / "manifest").write_bytes(body)
    wanted = spec(
        fields.pop("images", root / "flowers"),
        root / "out",
        manifest=str(root / "manifest"),
        **fields,
    )
    return list_catalog(open_store(wanted.images, wanted.storage), wanted, lambda _: None)


def contents(catalog: Catalog) -> list[tuple[object, ...]]:
    labels = [catalog.labels[i] for i in catalog.label.tolist()]
    identities = [row.tobytes() for row in catalog.identities]
    return list(zip(catalog.paths, labels, catalog.sets.tolist(), identities, strict=True))


def head_of(ready: Bottlenecks) -> bytes:
    training = Training(solver=Solver.LBFGS, l2=0.001)
    choice = train_best(train.examples_of(ready), training, lambda _: None, lambda _: None)
    return tables.head_npz(choice.trained.head, ready.catalog.labels)


@pytest.fixture(scope="module")
def of_folders(root: Path) -> tuple[list[tuple[object, ...]], bytes]:
    ready = ready_of(root, None)
    return contents(ready.catalog), head_of(ready)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_any_form_give_the_catalog_and_the_head_of_label_folders(
    form: str,
    root: Path,
    pairs: list[manifests.Pair],
    of_folders: tuple[list[tuple[object, ...]], bytes],
) -> None:
    ready = ready_of(root, FORMS[form](pairs))
    assert not ready.catalog.bad
    assert (contents(ready.catalog), head_of(ready)) == of_folders


def test_images_are_relative_to_the_manifest_where_no_folder_is_named(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    manifest = root / "flowers" / "metadata.csv"
    manifest.write_bytes(FORMS["Hugging Face's metadata.csv"](pairs))
    try:
        wanted = spec(root / "flowers", root / "out", manifest=str(manifest))
        bare = type(wanted).model_validate(wanted.model_dump(exclude={"images"}))
        assert bare.images == str(root / "flowers")
        store = open_store(bare.images, bare.storage)
        assert len(list_catalog(store, bare, lambda _: None)) == len(pairs)
    finally:
        manifest.unlink()


def test_originals_of_uploads_to_label_studio_are_found_by_their_names(
    root: Path, pairs: list[manifests.Pair], tmp_path: Path
) -> None:
    for i, (path, _) in enumerate(pairs):
        source = root / "flowers" / path
        target = tmp_path / "flowers" / path.replace(".jpg", f"-{i}.jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    rows = [
        (f"/data/upload/7/0a1b2c3d-{Path(path).stem}-{i}.jpg", label)
        for i, (path, label) in enumerate(pairs)
    ]
    assert len(catalog_of(tmp_path, table([("image", "choice"), *rows]))) == len(pairs)
    again = table([("image", "choice"), ("/data/upload/7/0a1b2c3d-0000.jpg", "daisy"), *rows])
    (tmp_path / "flowers" / "0000.jpg").write_bytes(b"one")
    (tmp_path / "flowers" / "more").mkdir()
    (tmp_path / "flowers" / "more" / "0000.jpg").write_bytes(b"two")
    (bad,) = catalog_of(tmp_path, again).bad
    assert bad.reason == "2 files in the folder of images are called 0000.jpg"


# --- sets and groups ---
def sets_of(catalog: Catalog) -> dict[str, str]:
    return dict(zip(catalog.paths, (split.SETS[i] for i in catalog.sets.tolist()), strict=True))


def test_the_set_that_a_row_names_is_the_image_s_and_others_follow_their_path(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    named = ["train", "Validation", "TEST", "dev", ""]
    rows = [(*pair, named[i % 5]) for i, pair in enumerate(pairs)]
    sets = sets_of(catalog_of(root, table([("path", "label", "split"), *rows])))
    of_path = dict(
        zip((p for p, _ in pairs), split.assign((p for p, _ in pairs), 10, 10), strict=True)
    )
    expected = {
        "train": "training",
        "Validation": "validation",
        "TEST": "testing",
        "dev": "validation",
    }
    for path, _, name in rows:
        assert sets[path] == expected.get(name, split.SETS[of_path[path]])


@pytest.mark.parametrize("form", ["Vertex AI's CSV", "Vertex AI's JSON"])
def test_vertex_ai_s_ml_use_is_the_set(form: str, root: Path, pairs: list[manifests.Pair]) -> None:
    use = ["training", "validation", "test"]
    if form.endswith("CSV"):
        body = table([(use[i % 3], f"gs://b/{p}", label) for i, (p, label) in enumerate(pairs)])
    else:
        key = "aiplatform.googleapis.com/ml_use"
        body = json_lines(
            [
                {
                    "imageGcsUri": f"gs://b/{p}",
                    "classificationAnnotation": {"displayName": label},
                    "dataItemResourceLabels": {key: use[i % 3]},
                }
                for i, (p, label) in enumerate(pairs)
            ]
        )
    sets = sets_of(catalog_of(root, body))
    expected = {"test": "testing"}
    assert all(sets[p] == expected.get(use[i % 3], use[i % 3]) for i, (p, _) in enumerate(pairs))


def test_rows_of_one_group_are_in_one_set(root: Path, pairs: list[manifests.Pair]) -> None:
    rows = [(*pair, f"plant {i % 9}") for i, pair in enumerate(pairs)]
    catalog = catalog_of(root, table([("path", "label", "group"), *rows]))
    sets = sets_of(catalog)
    by_group: dict[str, set[str]] = {}
    for path, _, group in rows:
        by_group.setdefault(group, set()).add(sets[path])
    assert all(len(names) == 1 for names in by_group.values())
    assert len({min(names) for names in by_group.values()}) > 1
    # The set of a group is that of its name, so that further rows of it change nothing.
    more = catalog_of(root, table([("path", "label", "group"), *rows[: len(rows) // 2]]))
    assert all(sets[path] == name for path, name in sets_of(more).items())


# --- bad rows ---
def bad_of(root: Path, body: bytes) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in catalog_of(root, body).bad]


def with_rows(pairs: Sequence[Sequence[object]], *rows: tuple[object, ...]) -> bytes:
    """A CSV whose first rows are these; they begin at line 2."""
    return table([("path", "label", "split", "group"), *rows, *pairs])


def test_each_bad_row_is_named_by_its_line_and_reason(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    out = "its path leads out of the folder of images"
    gone = "there is no such file in the folder of images"
    kept = [pair for pair in pairs if pair[0] not in {"daisy/0000.jpg", "tulips/0000.jpg"}]
    body = with_rows(
        kept,
        ("daisy/none.jpg", "daisy"),
        ("../manifest", "daisy"),
        ("daisy/../../x.jpg", "daisy"),
        ("/etc/passwd", "daisy"),
        ("daisy/0000.jpg", ""),
        ("", "daisy"),
        ("tulips/0000.jpg", "tulips"),
        ("tulips/../tulips//0000.jpg", "roses"),
        ("daisy/0000.jpg", "daisy", "holdout"),
    )
    assert bad_of(root, body) == [
        (2, gone),
        (3, out),
        (4, out),
        (5, gone),
        (6, "it names no label"),
        (7, "it names no image"),
        (8, "line 9 says that it is roses"),
        (9, "line 8 says that it is tulips"),
        (10, "its split is 'holdout'; use train, validation or test"),
    ]


def test_another_set_for_the_same_group_or_image_is_named_by_both_lines(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    body = table(
        [
            ("path", "label", "split", "group"),
            ("daisy/0000.jpg", "daisy", "train", "{line}"),
            ("daisy/0001.jpg", "daisy", "", "{line}"),
            ("daisy/0002.jpg", "daisy", "test", "{line}"),
            ("daisy/0003.jpg", "daisy", "test"),
            ("daisy/0003.jpg", "daisy", "train"),
            ("daisy/0003.jpg", "daisy"),
            *(pair for pair in pairs if not pair[0].startswith("daisy/000")),
        ]
    )
    catalog = catalog_of(root, body)
    assert [(row.line, row.reason) for row in catalog.bad] == [
        (4, "line 2 puts its group {line} into the training set"),
        (6, "line 5 puts it into the testing set"),
    ]
    sets = sets_of(catalog)
    assert (sets["daisy/0001.jpg"], sets["daisy/0003.jpg"]) == ("training", "testing")


def test_a_file_of_another_encoding_is_named_by_line_and_paths_in_the_disk_s_own_bytes_are_found(
    root: Path, pairs: list[manifests.Pair], tmp_path: Path
) -> None:
    body = table([("path", "label"), *pairs]).decode().encode("latin-1")
    wrong = [i for i, (_, label) in enumerate(pairs, 2) if label == "röses"]
    reason = "its label is not UTF-8; save the file as UTF-8"
    assert bad_of(root, body) == [(line, reason) for line in wrong]
    photos(tmp_path / "flowers", {"a": 9, "b": 9})
    odd = tmp_path / "flowers" / "a" / "\udcff.jpg"
    odd.write_bytes((tmp_path / "flowers" / "a" / "0000.jpg").read_bytes())
    listed = [f"{path.parent.name}/{path.name}" for path in tmp_path.rglob("*.jpg")]
    rows = "".join(f"{path},{path[0]}\n" for path in listed)
    text = f"path,label\n{rows}".encode(errors="surrogateescape")
    assert not catalog_of(tmp_path, text).bad


def test_json_that_is_broken_or_of_another_form_is_named_by_line(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    good = [{"path": path, "label": label} for path, label in pairs]
    lines = [*json_lines(good[:2]).decode().splitlines(), "", "{", "[1]", '{"a": 1}']
    lines += [
        '{"path": "daisy/0000.jpg", "label": ["a", "b"]}',
        '{"path": "\\ud800", "label": "a"}',
    ]
    body = "\r\n".join([*lines, json_lines(good[2:]).decode()]).encode()
    assert [(line, reason[:29]) for line, reason in bad_of(root, body)] == [
        (4, "it is not JSON (Expecting pro"),
        (5, "it is no JSON object"),
        (6, "its columns are a, and none i"),
        (7, "it has 2 labels, and one is n"),
        (8, "its path is no Unicode text"),
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"path,label\n", "it has no rows"),
        (b"[]", "it has no rows"),
        (b"PAR1 and nothing more",
         "it is no Parquet file that can be read"),
        (b"Pfad;Etikett\na;daisy\n",
         "line 1: its columns are Pfad, Etikett, and none is called path or label; name"),
        ("ファイル,ラベル\n".encode(), "line 1: its columns are ファイル, ラベル, and none"),
        (b"path,name\na.jpg,daisy\n", "line 1: its columns are path, name, and none is called label"),
        (b'path,label\n"a.jpg,daisy\nb.jpg,daisy\n',
         "line 2: its quotes are wrong, or one is never closed"),
        (b'[{"path": "a.jpg", "label": "a"},\n\n {"path": ', "line 3: it is not JSON from here on"),
        (b'[{"id": 1, "annotations": []}]', "line 1: it is Label Studio's whole JSON; export"),
        (parquet(pickled=["a.jpg"], label=["a"]),
         "its columns are pickled, label, and none is called path"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_with_the_line_and_what_to_do(
    body: bytes, reason: str
) -> None:
    with pytest.raises(ManifestError) as raised:
        read(body)
    assert str(raised.value).startswith(reason)


def test_a_manifest_that_is_not_there_or_is_none_is_refused_by_its_name(root: Path) -> None:
    with pytest.raises(UserError) as raised:
        catalog_of(root, b"a;b\n")
    text = str(raised.value)
    assert text.startswith(
        f"{root / 'manifest'} (spec.manifest) cannot be read as a list of images: "
    )
    assert raised.value.reason == "ManifestUnreadable"
    wanted = spec(root / "flowers", root / "out", manifest=str(root / "none.csv"))
    with pytest.raises(UserError, match="there is no such file"):
        list_catalog(open_store(wanted.images, wanted.storage), wanted, lambda _: None)


def test_few_bad_rows_go_on_and_more_than_the_fraction_end_the_job_with_a_list(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    body = with_rows(pairs, ("daisy/none.jpg", "daisy"), ("=x.jpg", ""))
    with pytest.raises(UserError) as raised:
        ready_of(root, body, max_rejected_fraction=0.01)
    assert raised.value.reason == "TooManyRejected"
    assert "daisy/none.jpg (line 2 of the manifest: there is no such file" in str(raised.value)
    text = (root / "out" / "run" / layout.REJECTED).read_text()
    assert list(csv.reader(io.StringIO(text))) == [
        ["path", "reason"],
        ["daisy/none.jpg", "line 2 of the manifest: there is no such file in the folder of images"],
        ["'=x.jpg", "line 3 of the manifest: it names no label"],
    ]
    ready = ready_of(root, body, max_rejected_fraction=0.06)
    assert ready.catalog.warnings[0] == (
        "Rows of the manifest that are left out: 2, line 2 (there is no such file in the folder of "
        "images); line 3 (it names no label)."
    )


# --- the catalog of a run ---
def test_the_catalog_of_a_run_is_a_manifest_that_gives_the_same_sets(
    root: Path, pairs: list[manifests.Pair]
) -> None:
    rows = [(*pair, "", f"plant {i % 9}") for i, pair in enumerate(pairs)]
    (root / "flowers" / "daisy" / "broken.jpg").write_bytes(b"broken")
    try:
        first = ready_of(root, with_rows(rows, ("daisy/broken.jpg", "daisy"), ("x", "y")),
                         max_rejected_fraction=0.1)  # fmt: skip
        body = tables.catalog_parquet(first.catalog, first.rejected)
        listed = pq.read_table(io.BytesIO(body)).to_pylist()
        assert set(listed[0]) == {"path", "identity", "label", "set", "group", "reason"}
        reasons = {row["path"]: row["reason"] for row in listed if row["reason"]}
        assert set(reasons) == {"daisy/broken.jpg", "x"}
        second = ready_of(root, body, max_rejected_fraction=0.1)
        assert contents(second.catalog) == contents(first.catalog)
        groups = [[c.groups[i] if i >= 0 else "" for i in c.group.tolist()]
                  for c in (first.catalog, second.catalog)]  # fmt: skip
        assert groups[0] == groups[1]
    finally:
        (root / "flowers" / "daisy" / "broken.jpg").unlink()


def test_a_label_is_added_when_the_old_photos_are_gone(tmp_path: Path) -> None:
    photos(tmp_path / "flowers", {"daisy": 12, "roses": 12})
    old = ready_of(tmp_path, None)
    catalog = pq.read_table(io.BytesIO(tables.catalog_parquet(old.catalog, {}))).to_pylist()
    for photo in (tmp_path / "flowers").rglob("*.jpg"):
        photo.unlink()
    photos(tmp_path / "flowers", {"tulips": 12}, first=100)
    new: dict[str, list[object]] = {
        "path": [*(f"tulips/{i:04}.jpg" for i in range(12)), "daisy/never.jpg"],
        "label": [*["tulips"] * 12, "daisy"],
        "identity": [None] * 12 + ["00" * 16],
        "set": [None] * 13,
    }
    columns = {name: [row[name] for row in catalog] + column for name, column in new.items()}
    (tmp_path / "manifest").write_bytes(parquet(**columns))
    wanted = spec(tmp_path / "flowers", tmp_path / "out", cache=str(tmp_path / "cache"),
                  manifest=str(tmp_path / "manifest"))  # fmt: skip
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    assert ready.catalog.labels == ("daisy", "roses", "tulips")
    assert ready.usable.sum() == 36
    before = dict(zip(old.catalog.paths, old.matrix, strict=True))
    for path, row in zip(ready.catalog.paths, ready.matrix, strict=True):
        if path in before:
            assert np.array_equal(row, before[path])
    assert list(ready.rejected.values()) == [
        "its file is gone, and the cache has no bottleneck of its identity"
    ]
    assert any(
        warning == "24 images have no file any more: their bottlenecks come from the cache alone."
        for warning in recorder.warnings
    )


# --- size ---
@pytest.mark.slow
def test_many_rows_take_memory_by_the_hundred_bytes_each() -> None:
    count = 200_000
    paths = [f"label{i % 50}/{i:07}.jpg" for i in range(count)]
    body = table([("path", "label"), *((path, path.partition("/")[0]) for path in paths)])
    files = Texts.of(paths)
    del paths
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    matched = match(read(body), files, 10, 10)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (len(matched.row), len(matched.labels)) == (count, 50)
    assert grown * 1024 / count < 1000  # measured: 200 with a million rows
