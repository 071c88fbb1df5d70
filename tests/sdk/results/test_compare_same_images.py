"""compare: which test images of two runs are the same, and what is said where they are not."""

from pathlib import Path

import pyarrow.parquet as pq
from tests.support.run_folder import write_run

from retrainer.results.comparison import Comparison, compare
from retrainer.results.run import Run


def compared(*runs: Path) -> Comparison:
    return compare([str(run) for run in runs])


def without_identities(run: Path) -> Path:
    """Rewrite the run as runs were before predictions.parquet had that column."""
    path = run / "predictions.parquet"
    pq.write_table(pq.read_table(path).drop_columns("identity"), path)
    return run


def test_photos_in_a_moved_folder_are_the_same_test_images(tmp_path: Path) -> None:
    good = write_run(tmp_path / "a", [0], name="good")
    bad = write_run(tmp_path / "b", range(20), name="bad", prefix="moved/")
    comparison = compared(good, bad)
    assert comparison.notes == []
    (difference,) = comparison.differences
    assert (difference.images, difference.only_better, difference.only_worse) == (60, 19, 0)


def test_a_photo_replaced_under_its_path_is_told_and_left_out_of_the_test(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", [0, 1], name="before")
    other = {2: "another photo", 3: "one more"}
    after = write_run(tmp_path / "b", [2, 3, 4, 5, 6], name="after", contents=other)
    comparison = compared(before, after)
    assert str(comparison.differences[0]) == (
        "No difference between before and after is shown (of 58 common test images, 3 right in before "
        "only, 2 in after only, p = 1)."
    )
    assert comparison.notes == [
        "The test images of before and after differ: 58 in both, 2 in before only, 2 in after only; "
        "under the same path with another identity: 2 (another photo, or the same one uploaded in "
        "another way, such as in parts). The test is made on those in both, the accuracies are each "
        "job's own."
    ]


def test_of_a_set_that_grew_the_common_images_are_tested(tmp_path: Path) -> None:
    small = write_run(tmp_path / "a", range(12), name="small", images=60)
    large = write_run(tmp_path / "b", [0], name="large", images=90)
    comparison = compared(small, large)
    assert str(comparison.differences[0]) == (
        "large is better than small (of 60 common test images, 11 right in large only, 0 in small only, "
        "p = 0.00098)."
    )
    assert comparison.notes == [
        "The test images of large and small differ: 60 in both, 30 in large only, 0 in small only. "
        "The test is made on those in both, the accuracies are each job's own."
    ]


def test_no_common_test_image_no_test(tmp_path: Path) -> None:
    other = {i: f"other {i}" for i in range(60)}
    one = write_run(tmp_path / "a", [], name="one")
    two = write_run(tmp_path / "b", [0], name="two", contents=other, prefix="elsewhere/")
    comparison = compared(one, two)
    assert comparison.differences == []
    assert comparison.notes == [
        "The test images of one and two differ: 0 in both, 60 in one only, 60 in two only. "
        "No test is made: compare their intervals with care."
    ]


def test_a_photo_under_another_label_is_not_the_same_question(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", [], name="one")
    two = write_run(tmp_path / "b", [1], name="two", labels={0: "tulips"})
    comparison = compared(one, two)
    assert comparison.differences[0].images == 59
    assert comparison.notes == [
        "The test images of one and two differ: 59 in both, 1 in one only, 1 in two only; in both under "
        "another label: 1. The test is made on those in both, the accuracies are each job's own."
    ]


def test_copies_of_a_photo_in_one_test_set_count_once(tmp_path: Path) -> None:
    # Photos 3, 6 and 9 of "twice" are photo 0 again, under the same label: all guessed wrong.
    copies = dict.fromkeys([3, 6, 9], "photo 0")
    twice = write_run(tmp_path / "a", [0, 3, 6, 9], name="twice", contents=copies)
    plain = write_run(tmp_path / "b", [1, 2], name="plain")
    comparison = compared(twice, plain)
    (difference,) = comparison.differences
    assert (difference.better, difference.worse) == ("twice", "plain")
    assert (difference.images, difference.only_better, difference.only_worse) == (57, 2, 1)
    assert comparison.notes[0] == (
        "twice has test photos that are there more than once: each counts once in the test, which "
        "leaves out 3 of its 60 rows."
    )
    assert "57 in both, 3 in plain only, 0 in twice only" in comparison.notes[1]


def test_a_copy_under_another_label_pairs_with_its_own_label(tmp_path: Path) -> None:
    # Photo 1 is photo 0 again, but among the roses: two questions, which both runs were asked.
    both = {1: "photo 0"}
    one = write_run(tmp_path / "a", [1], name="one", contents=both)
    two = write_run(tmp_path / "b", [0, 2], name="two", contents=both)
    comparison = compared(one, two)
    (difference,) = comparison.differences
    assert (difference.images, difference.only_better, difference.only_worse) == (60, 2, 1)
    assert comparison.notes == []


def test_a_run_without_identities_is_matched_by_path_and_says_so(tmp_path: Path) -> None:
    new = write_run(tmp_path / "a", [0], name="new")
    old = without_identities(write_run(tmp_path / "b", range(20), name="old"))
    comparison = compared(new, old)
    (difference,) = comparison.differences
    assert (difference.images, difference.only_better, difference.only_worse) == (60, 19, 0)
    assert comparison.notes == [
        "old has no image identities in its predictions.parquet (an older run): its test images are "
        "matched by path and label, so a photo replaced by another goes unnoticed."
    ]
    assert {guess.identity for guess in Run(str(old)).predictions()} == {""}


def test_a_run_without_test_images_is_told_and_not_tested(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", [0], name="one")
    none = write_run(tmp_path / "b", [], name="none", images=0)
    comparison = compared(one, none)
    assert comparison.differences == []
    assert comparison.notes == ["none has no test images and cannot be tested against the others."]
