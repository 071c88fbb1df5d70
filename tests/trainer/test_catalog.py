import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.trainer_engine import photo, photos, spec

from retrainer.errors import UserError
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import Catalog, check_labels, list_catalog
from retrainer_trainer.dataset.identity import content_identity, identity, same, shard_of
from retrainer_trainer.dataset.texts import Texts, shown
from retrainer_trainer.outputs import tables
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.opening import open_store

IDENTITIES = hnp.arrays(np.uint8, st.tuples(st.integers(0, 200), st.just(16)))


def catalog_of(images: Path, tmp_path: Path, **fields: Any) -> tuple[Catalog, list[str]]:
    wanted = spec(images, tmp_path / "out", **fields)
    lines: list[str] = []
    store = open_store(wanted.images, wanted.storage)
    return list_catalog(store, wanted, lines.append, threads=2), lines


def refusal(images: Path | str, tmp_path: Path, **fields: Any) -> str:
    wanted = spec(images, tmp_path / "out", **fields)
    with pytest.raises(UserError) as raised:
        list_catalog(open_store(wanted.images, wanted.storage), wanted, lambda _text: None)
    return str(raised.value)


def test_labels_are_the_folders_names_sorted(tmp_path: Path) -> None:
    catalog, lines = catalog_of(photos(tmp_path / "in", {"rosés": 25, "Daisy": 25}), tmp_path)
    assert catalog.labels == ("Daisy", "rosés")
    assert len(catalog) == 50
    assert catalog.label.tolist() == [0] * 25 + [1] * 25
    assert lines[0] == f"50 images of 2 labels under {tmp_path / 'in'}."


def test_paths_are_sorted_and_relative_whatever_the_store_s_order(tmp_path: Path) -> None:
    root = photos(tmp_path / "in", {"b": 3, "a": 3, "B": 3, "é": 3})
    photos(root, {"a/deeper": 2}, first=50)
    catalog, _ = catalog_of(
        root, tmp_path, split={"testing_percentage": 0, "validation_percentage": 0}
    )
    paths = list(catalog.paths)
    assert paths == sorted(paths)
    assert "a/deeper/0001.jpg" in paths
    assert catalog.labels == ("B", "a", "b", "é")
    for path, label in zip(paths, catalog.label.tolist(), strict=True):
        assert path.split("/")[0] == catalog.labels[label]


def test_sets_are_those_of_the_relative_path_so_a_moved_folder_keeps_them(tmp_path: Path) -> None:
    catalog, _ = catalog_of(photos(tmp_path / "here", {"a": 40, "b": 40}), tmp_path)
    moved, _ = catalog_of(photos(tmp_path / "there/deep", {"a": 40, "b": 40}), tmp_path)
    assert catalog.sets.tolist() == moved.sets.tolist()
    assert catalog.sets.tolist() == split.assign(catalog.paths, 10, 10).tolist()


def test_hidden_files_and_files_beside_the_folders_are_left_out(tmp_path: Path) -> None:
    root = photos(tmp_path / "in", {"a": 30, "b": 30})
    for name in ("LICENSE.txt", "a/.DS_Store", "a/Thumbs.db", ".git/x.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    catalog, lines = catalog_of(root, tmp_path)
    assert len(catalog) == 60
    assert lines[1] == "4 files are left out: hidden, or beside the label folders."


@pytest.mark.parametrize(
    "name",
    ["thumbs.db", "Desktop.ini", "EHTHUMBS.DB", "Icon\r", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
     "$RECYCLE.BIN/x.jpg", "__macosx/x.jpg", "#recycle/x.jpg"],
)  # fmt: skip
def test_what_systems_leave_is_no_image_in_any_case(name: str, tmp_path: Path) -> None:
    root = photos(tmp_path / "in", {"a": 30, "b": 30})
    for place in (root / "a" / name, root / name):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photo(7))
    catalog, logs = catalog_of(root, tmp_path)
    assert (len(catalog), catalog.labels) == (60, ("a", "b"))
    assert logs[1] == "2 files are left out: hidden, or beside the label folders."


def test_files_beside_photos_are_left_out_and_counted(tmp_path: Path) -> None:
    root = photos(tmp_path / "in", {"a": 30, "b": 30})
    for name in ("a/0001.xml", "a/0001.XML", "b/notes.txt", "b/IMG_1.AAE"):
        (root / name).write_text("<annotation/>")
    catalog, logs = catalog_of(root, tmp_path)
    assert len(catalog) == 60
    assert logs[1] == (
        "4 files beside the images are left out (.aae, .txt, .xml), such as a/0001.XML: the label is "
        "the folder's name, nothing else is read."
    )


def test_a_folder_of_annotations_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/x.xml").write_text("<annotation/>")
    assert refusal(tmp_path / "in", tmp_path).endswith("its files are no images, such as a/x.xml.")


def test_odd_names_are_kept_and_shown_on_one_line(tmp_path: Path) -> None:
    root = photos(tmp_path / "in", {"a": 25, "b": 25})
    names = [
        "sp ace.jpg",
        "tab\there.jpg",
        "new\nline.jpg",
        "ünï.jpg",
        "100%25#?.jpg",
        "\udcff.jpg",
    ]
    for i, name in enumerate(names):
        (root / "a" / name).write_bytes(photo(1000 + i))
    catalog, _ = catalog_of(root, tmp_path)
    assert {f"a/{name}" for name in names} <= set(catalog.paths)
    assert shown("a/new\nline.jpg") == "a/new\\nline.jpg"
    assert shown("a/tab\there.jpg") == "a/tab\\there.jpg"
    assert shown("a/\udcff.jpg") == "a/\\udcff.jpg"
    assert shown("a/ünï b.jpg") == "a/ünï b.jpg"


# --- refused ---
def test_no_such_folder_is_refused_by_name(tmp_path: Path) -> None:
    gone = tmp_path / "nowhere"
    assert refusal(gone, tmp_path) == f"No images under {gone}: there is no such folder."


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    assert refusal(tmp_path / "in", tmp_path).endswith("is a file, not a folder.")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert refusal(tmp_path / "in", tmp_path).endswith("it is empty.")


def test_images_without_label_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.jpg").write_bytes(photo(1))
    assert refusal(tmp_path / "in", tmp_path).endswith("it has files but no label folders.")


def test_one_label_is_refused(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 30})
    assert (
        refusal(images, tmp_path)
        == f"At least 2 labels are needed in {images}, which has 1: daisy."
    )


def test_an_empty_label_is_refused_by_name(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 30, "roses": 30, "tulips": 0})
    assert refusal(images, tmp_path) == (
        "Labels without a training image: tulips (the folder is empty)."
    )


def test_every_label_without_a_training_image_is_named_at_once(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 300, "roses": 2, "iris": 1, "moss": 0})
    (images / "iris/0000.jpg").rename(images / "iris/b.jpg")
    text = refusal(images, tmp_path, split={"testing_percentage": 60, "validation_percentage": 39})
    assert text == (
        "Labels without a training image: iris, roses (all images fall into the validation and test "
        "sets); moss (the folder is empty)."
    )


def test_of_very_many_labels_without_a_training_image_the_first_are_named(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 30, **{f"l{i:04}": 0 for i in range(1200)}})
    text = refusal(images, tmp_path)
    assert "l0000, l0001," in text
    assert text.endswith("and 1140 more (the folder is empty).")
    assert len(text) < 1000


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 2, "b": 2})
    (images / "a/again").symlink_to(images)
    assert "leads back to a folder above it" in refusal(images, tmp_path)


def test_a_cache_inside_the_images_is_refused(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 2, "b": 2})
    text = refusal(images, tmp_path, cache=f"{images}/cache")
    assert text.startswith(f"spec.cache: {images}/cache lies inside spec.images")


@pytest.mark.parametrize("spelling", ["link/out", "b/../in/out", "./in/out", "link"])
def test_an_output_inside_the_images_is_refused_however_it_is_spelled(
    spelling: str, tmp_path: Path
) -> None:
    images = photos(tmp_path / "in", {"a": 2, "b": 2})
    (tmp_path / "link").symlink_to(images)
    output = f"{tmp_path}/{spelling}"
    wanted = spec(images, output, cache=f"{tmp_path}/cache")
    with pytest.raises(UserError, match=r"spec\.output: .* lies inside spec\.images"):
        list_catalog(open_store(wanted.images, wanted.storage), wanted, lambda _text: None)


SETS = {"train/cats": 20, "train/dogs": 20, "valid/cats": 5, "valid/dogs": 5, "Test/cats": 5}


def test_sets_above_the_label_folders_are_refused_by_name(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", SETS)
    assert refusal(images, tmp_path) == (
        f"{images} has sets on top, not labels: Test, train, valid. Name one of them, such as "
        f"{images}/Test, or put their label folders together; spec.split makes the sets."
    )


def test_a_label_named_train_is_a_label(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"train/steam": 25, "train/diesel": 25, "test": 25, "bus": 25})
    catalog, _ = catalog_of(images, tmp_path)
    assert catalog.labels == ("bus", "test", "train")


# --- warned of ---
def test_a_small_label_and_one_without_test_images_are_warned_of(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 60, "roses": 3})
    catalog, _ = catalog_of(images, tmp_path)
    assert catalog.warnings == (
        "No validation images of roses: not measured.",
        "No test images of roses: not measured.",
        "Fewer than 20 images of roses.",
    )


def test_a_set_of_zero_percent_is_not_warned_of(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 25, "roses": 25})
    catalog, _ = catalog_of(
        images, tmp_path, split={"testing_percentage": 0, "validation_percentage": 0}
    )
    assert catalog.warnings == ()


def test_labels_that_differ_in_case_are_kept_and_warned_of(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"Roses": 60, "roses": 60})
    catalog, _ = catalog_of(images, tmp_path)
    assert catalog.labels == ("Roses", "roses")
    assert (
        "Labels Roses and roses differ only in case or accents' encoding; they are kept apart."
        in (catalog.warnings)
    )


def test_many_small_labels_give_one_warning(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {f"l{i:02}": 3 for i in range(9)})
    zero = {"testing_percentage": 0, "validation_percentage": 0}
    catalog, _ = catalog_of(images, tmp_path, split=zero)
    assert catalog.warnings == ("Fewer than 20 images of l00, l01, l02, l03, l04 and 4 more.",)


def test_the_same_image_under_two_labels_is_listed(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 60, "roses": 60})
    (images / "roses/copy.jpg").write_bytes((images / "daisy/0007.jpg").read_bytes())
    catalog, _ = catalog_of(images, tmp_path)
    assert catalog.warnings == (
        "Images that are there more than once: 1, such as daisy/0007.jpg and roses/copy.jpg; "
        "duplicates.csv in the run lists them.",
    )
    rows = list(
        csv.DictReader(io.StringIO(tables.duplicates_csv(tables.duplicate_rows(catalog)).decode()))
    )
    assert [(r["path"], r["label"]) for r in rows] == [
        ("daisy/0007.jpg", "daisy"),
        ("roses/copy.jpg", "roses"),
    ]
    assert rows[0]["identity"] == rows[1]["identity"]
    assert {r["set"] for r in rows} <= set(split.SETS)


def test_labels_left_without_images_by_rejections_are_refused(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 30, "roses": 30})
    catalog, _ = catalog_of(images, tmp_path)
    usable = catalog.label == 0
    with pytest.raises(UserError, match=r"roses \(no file can be read as an image\)"):
        check_labels(catalog, spec(images, tmp_path), usable)


def test_rejected_csv_has_a_row_for_each(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"daisy": 30, "roses": 30})
    (images / "daisy/a,\nb.jpg").write_bytes(b"")
    catalog, _ = catalog_of(images, tmp_path)
    row = list(catalog.paths).index("daisy/a,\nb.jpg")
    text = tables.rejected_csv(tables.rejected_rows(catalog, {row: "0 bytes"}))
    assert list(csv.reader(io.StringIO(text.decode()))) == [
        ["path", "reason"],
        ["daisy/a,\\nb.jpg", "0 bytes"],
    ]


def test_a_cell_that_a_spreadsheet_would_run_is_made_a_text() -> None:
    rows = [("=HYPERLINK(0)/1.jpg", "0 bytes"), ("@a/x.jpg", "-1"), ("a/=b.jpg", "+")]
    lines = tables.rejected_csv(rows).decode().splitlines()
    assert lines == [
        "path,reason",
        "'=HYPERLINK(0)/1.jpg,0 bytes",
        "'@a/x.jpg,'-1",
        "a/=b.jpg,'+",
    ]


# --- identities ---
def test_a_local_file_and_its_plain_upload_have_the_same_identity() -> None:
    # An S3 server's ETag of a plain upload is the MD5 of the bytes, in quotes.
    assert content_identity(b"abc") == identity('"900150983cd24fb0d6963f7d28e17f72"', 3)
    assert content_identity(b"abd") != content_identity(b"abc")


def test_an_image_that_changed_has_another_identity(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", {"a": 25, "b": 25})
    before, _ = catalog_of(images, tmp_path)
    (images / "a/0003.jpg").write_bytes(photo(777))
    os.utime(images / "a/0003.jpg", (0, 0))
    after, _ = catalog_of(images, tmp_path)
    changed = np.flatnonzero((before.identities != after.identities).any(1))
    assert [before.paths[int(i)] for i in changed] == ["a/0003.jpg"]


@given(IDENTITIES, st.integers(1, 10_000))
def test_shards_part_the_images_without_gap_or_overlap(
    identities: np.ndarray[Any, np.dtype[np.uint8]], shards: int
) -> None:
    which = shard_of(identities, shards)
    assert which.shape == (len(identities),)
    assert ((which >= 0) & (which < shards)).all()
    reordered = shard_of(identities[::-1], shards)[::-1]
    assert (which == reordered).all()


@given(st.lists(st.integers(0, 20), max_size=60))
def test_groups_of_equal_images_are_found(numbers: list[int]) -> None:
    identities = np.zeros((len(numbers), 16), np.uint8)
    identities[:, 3] = numbers
    got = [group.tolist() for group in same(identities)]
    expected = {n: [i for i, m in enumerate(numbers) if m == n] for n in numbers}
    assert got == sorted(g for g in expected.values() if len(g) > 1)


@given(st.lists(st.text(max_size=10), max_size=30))
def test_compact_texts_are_the_texts(values: list[str]) -> None:
    texts = Texts([v.encode(errors="surrogatepass") for v in values if v.isprintable()])
    kept = [v for v in values if v.isprintable()]
    assert list(texts) == kept
    assert [texts[i] for i in range(len(texts))] == kept
    assert texts[1:5] == kept[1:5]


# --- cores ---
def test_cores_follow_the_cgroup_s_quota(tmp_path: Path) -> None:
    assert "RETRAINER_THREADS" not in os.environ
    free = cores(tmp_path)
    assert free == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores(tmp_path) == free
