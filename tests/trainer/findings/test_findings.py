"""Findings on made-up bottlenecks and drawn pictures, where the truth is known."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from retrainer_trainer.findings import findings as whole
from retrainer_trainer.findings.duplicates import groups_of, near_duplicates
from retrainer_trainer.findings.folds import assign_folds, folds_interval, out_of_fold_scores
from retrainer_trainer.findings.forecast import forecast
from retrainer_trainer.findings.heads import rotate, train_heads
from retrainer_trainer.findings.labels import margins, neighbour_votes
from retrainer_trainer.findings.neighbours import Neighbours, nearest
from retrainer_trainer.findings.pictures import SIDE, small_picture

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.intp]
Picture = npt.NDArray[np.uint8]


def clusters(
    images: int = 300, labels: int = 3, width: int = 16, spread: float = 1.0, seed: int = 0
) -> tuple[Floats, Longs]:
    """Bottlenecks around one centre for each label, all positive as after a ReLU6."""
    generator = np.random.default_rng(seed)
    label = np.arange(images) % labels
    centres = 3 + 2 * generator.standard_normal((labels, width))
    matrix = centres[label] + spread * generator.standard_normal((images, width))
    return np.maximum(matrix, 0).astype(np.float32), label.astype(np.intp)


def drawn(seed: int) -> Picture:
    """A picture of some thirty coloured ellipses."""
    generator = np.random.default_rng(seed)
    picture = np.full((240, 240, 3), generator.integers(0, 255, 3), np.uint8)
    for _ in range(30):
        centre, size = generator.integers(0, 240, 2), generator.integers(8, 60, 2)
        colour = generator.integers(0, 255, 3).tolist()
        cv2.ellipse(
            picture,
            centre.tolist(),
            size.tolist(),
            float(generator.integers(180)),
            0,
            360,
            colour,
            -1,
        )
    return picture


def no_pictures(_: Iterable[int]) -> dict[int, Picture]:
    return {}


def test_heads_trained_together_are_those_that_scikit_learn_trains_one_by_one() -> None:
    matrix, label = clusters(spread=2.5)
    rotated = rotate(matrix)
    parts = np.stack([np.arange(300) % 5 != k for k in range(5)])
    heads = train_heads(rotated, label, 3, parts, steps=300)
    for number, part in enumerate(parts):
        # scikit-learn weighs the sum of the losses, not their mean.
        rival = LogisticRegression(C=1 / (rotated.l2 * part.sum()), tol=1e-8, max_iter=2000)
        rival.fit(rotated.rows[part], label[part])
        ours = heads.scores(rotated, number, np.arange(300))
        assert np.abs(ours - rival.predict_proba(rotated.rows)).max() < 2e-3


def test_the_same_seed_gives_the_same_findings_to_the_bit() -> None:
    matrix, label = clusters()
    sets = np.zeros(300, np.int8)
    assert whole.find(matrix, label, sets, 3, read_small=no_pictures, seed=7) == whole.find(
        matrix, label, sets, 3, read_small=no_pictures, seed=7
    )


def test_images_of_one_group_are_in_one_fold_and_labels_in_all_evenly() -> None:
    label = np.repeat(np.arange(3), 100)
    group = np.arange(300)
    group[[1, 2, 3]] = 0
    fold = assign_folds(label, group, 10, seed=1)
    assert len(set(fold[:4].tolist())) == 1
    counts = np.array([np.bincount(fold[label == k], minlength=10) for k in range(3)])
    assert counts[1:].min() == counts[1:].max() == 10


def test_no_image_is_scored_by_a_head_that_has_seen_it() -> None:
    # Labels by chance: whoever remembered them would be right far more often than chance.
    matrix, _ = clusters(images=200, width=150)
    label = np.random.default_rng(3).integers(0, 2, 200)
    fold = assign_folds(label, np.arange(200), 10, seed=0)
    scores = out_of_fold_scores(rotate(matrix), label, 2, fold, 10)
    assert 0.35 < (scores.argmax(axis=1) == label).mean() < 0.65


def test_the_interval_of_folds_is_wider_than_that_of_so_many_independent_images() -> None:
    low, high = folds_interval(right=900, images=1000, folds=10)
    # Wilson's interval for 900 of 1,000 is 0.880 to 0.917.
    assert low == pytest.approx(0.870, abs=0.002)
    assert high == pytest.approx(0.924, abs=0.002)


def test_the_nearest_images_are_those_of_all_cosines() -> None:
    matrix, _ = clusters(images=700, width=12)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    neighbours = nearest(matrix, 10)
    assert neighbours.cosine == pytest.approx(np.sort(cosine, axis=1)[:, :-11:-1], abs=1e-5)
    assert np.take_along_axis(cosine, neighbours.rows, axis=1) == pytest.approx(
        neighbours.cosine, abs=1e-5
    )


def test_one_image_has_no_neighbours() -> None:
    assert nearest(np.ones((1, 4), np.float32)).rows.shape == (1, 0)


def test_labels_changed_on_purpose_come_first_and_get_back_their_label() -> None:
    matrix, truth = clusters()
    label = truth.copy()
    changed = np.array([10, 100, 200])
    label[changed] = (label[changed] + 1) % 3
    fold = assign_folds(label, np.arange(300), 10, seed=0)
    scores = out_of_fold_scores(rotate(matrix), label, 3, fold, 10)
    margin, suggested = margins(scores, neighbour_votes(nearest(matrix), label, 3), label)
    assert set(np.argsort(-margin)[:3].tolist()) == set(changed.tolist())
    assert suggested[changed].tolist() == truth[changed].tolist()


def compressed(picture: Picture) -> Picture:
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


def turned(picture: Picture) -> Picture:
    move = cv2.getRotationMatrix2D((120, 120), 5, 1)
    view = cv2.warpAffine(picture, move, (240, 240), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(view, np.uint8)


def smaller_and_brighter(picture: Picture) -> Picture:
    return np.asarray(cv2.convertScaleAbs(cv2.resize(picture, (120, 120)), beta=25), np.uint8)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "JPEG of quality 40": compressed,
    "mirror": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "half size, brighter": smaller_and_brighter,
    "10% cropped": lambda picture: picture[12:-12, 12:-12],
    "turned by 5 degrees": turned,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_changed_copy_is_a_near_duplicate_and_another_picture_is_none(name: str) -> None:
    pictures = [small_picture(drawn(seed)) for seed in range(6)]
    pictures.append(small_picture(COPIES[name](drawn(2))))
    # All are near enough to be looked at: only the pictures tell.
    others = np.array([[j for j in range(7) if j != i] for i in range(7)])
    close = Neighbours(others, np.full((7, 6), 0.9, np.float32))
    pairs = near_duplicates(close, lambda rows: {row: pictures[row] for row in rows})
    assert [(pair.row, pair.other) for pair in pairs] == [(2, 6)]


def test_a_photo_of_the_same_scene_from_a_step_aside_is_a_near_duplicate() -> None:
    scene = np.hstack([drawn(1), drawn(2)])
    views = [small_picture(scene[:, start : start + 240]) for start in (60, 90)]
    near = Neighbours(np.array([[1], [0]]), np.full((2, 1), 0.95, np.float32))
    far = Neighbours(np.array([[1], [0]]), np.full((2, 1), 0.88, np.float32))
    assert len(near_duplicates(near, lambda rows: {row: views[row] for row in rows})) == 1
    assert near_duplicates(far, lambda rows: {row: views[row] for row in rows}) == []


def test_pictures_that_are_gone_are_no_duplicates() -> None:
    close = Neighbours(np.array([[1], [0]]), np.full((2, 1), 0.99, np.float32))
    assert near_duplicates(close, no_pictures) == []


def test_a_chain_of_pairs_is_one_group() -> None:
    assert groups_of(6, [(4, 5), (0, 1), (1, 4)]).tolist() == [0, 0, 2, 3, 0, 0]


def test_near_duplicates_of_two_sets_are_leaks() -> None:
    matrix, label = clusters(images=60)
    matrix[40], label[40] = matrix[4], label[4]
    sets = np.zeros(60, np.int8)
    sets[40] = 2
    pictures = [small_picture(drawn(seed)) for seed in range(60)]
    pictures[40] = pictures[4]
    findings = whole.find(
        matrix, label, sets, 3, read_small=lambda rows: {row: pictures[row] for row in rows}
    )
    assert [(pair.row, pair.other) for pair in findings.leaks] == [(4, 40)]
    assert findings.duplicates == []


def test_an_image_unlike_all_others_is_a_stranger() -> None:
    matrix, label = clusters(images=120)
    matrix[7] = np.abs(np.random.default_rng(9).standard_normal(16)) ** 4
    findings = whole.find(matrix, label, np.zeros(120, np.int8), 3, read_small=no_pictures)
    assert [stranger.row for stranger in findings.strangers] == [7]


def test_the_forecast_carries_the_measured_curve_on() -> None:
    matrix, label = clusters(images=1600, width=64, spread=4.0)
    half = np.arange(800)
    fold = assign_folds(label[half], half, 10, seed=0)
    law = forecast(rotate(matrix[half]), label[half], 3, fold, seed=0)
    assert law is not None
    every = assign_folds(label, np.arange(1600), 10, seed=0)
    scores = out_of_fold_scores(rotate(matrix), label, 3, every, 10)
    measured = (scores.argmax(axis=1) == label).mean()
    assert law.accuracy(1440) == pytest.approx(measured, abs=0.02)
    assert [point.images for point in law.points] == sorted(point.images for point in law.points)


def test_no_forecast_where_nothing_is_guessed_wrong() -> None:
    matrix, label = clusters(spread=0.01)
    fold = assign_folds(label, np.arange(300), 10, seed=0)
    assert forecast(rotate(matrix), label, 3, fold, seed=0) is None


def test_too_few_images_of_a_label_and_too_many_images_are_told() -> None:
    assert whole.why_not(np.array([0] * 9 + [1] * 4), 2).startswith("Findings are left out: each")
    assert "more than 100,000" in whole.why_not(np.zeros(100_001, np.intp), 1)
    assert whole.why_not(np.array([0, 1] * 5), 2) == ""


def test_small_pictures_have_one_size() -> None:
    assert small_picture(drawn(0)).shape == (SIDE, SIDE, 3)
