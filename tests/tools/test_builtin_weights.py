from pathlib import Path

import cv2
import numpy as np
import pytest
from tools import builtin_weights, digits, glyphs

WEIGHTS = Path(__file__).parents[2] / builtin_weights.OUTPUT


@pytest.mark.slow
def test_a_head_on_the_shipped_weights_reads_nine_digits_of_ten_after_500_steps(
    tmp_path: Path,
) -> None:
    from keras.applications import MobileNet

    digits.write_digits(tmp_path)
    pixels, labels, names = builtin_weights.read_images(tmp_path)
    backbone = MobileNet(
        alpha=0.25, input_shape=(128, 128, 3), include_top=False, weights=str(WEIGHTS)
    )
    bottlenecks = backbone.predict(pixels, batch_size=128, verbose=0).mean(axis=(1, 2))
    assert bottlenecks.shape == (1797, builtin_weights.WIDTH)
    for seed in range(3):
        (accuracy,) = builtin_weights.head_accuracy(bottlenecks, labels, names, [500], seed)
        assert accuracy >= 0.90


def test_the_shipped_weights_stay_small() -> None:
    assert WEIGHTS.stat().st_size < 1_200_000


def test_the_split_is_the_one_of_retrain_py() -> None:
    names = [f"0/digit-{number:04d}.png" for number in range(40)]
    parts = {name: builtin_weights.part(name) for name in names}
    # The percentages that retrain.py's expression gives for these names, below 10 and below 20.
    assert [n for n in names if parts[n] == "validation"] == [
        f"0/digit-{number:04d}.png" for number in (19, 21, 24, 33)
    ]
    assert [n for n in names if parts[n] == "testing"] == [
        f"0/digit-{number:04d}.png" for number in (1, 3, 8, 9, 29, 38)
    ]


def test_a_line_enlarged_from_cells_goes_the_way_of_a_written_digit() -> None:
    cells = np.random.default_rng(0).integers(0, 17, (8, 8)).astype(np.float64)
    png = digits.picture(cells)
    expected = cv2.resize(png, (128, 128), interpolation=cv2.INTER_LINEAR) / 255
    field = np.kron(np.pad(cells, 1) / 16, np.ones((4, 4)))
    matrix = builtin_weights.enlarging(4)
    assert np.abs(np.clip(matrix @ field @ matrix.T, 0, 1) - expected).max() < 0.04


def test_pictures_are_the_same_for_a_seed_however_many_processes_draw_them() -> None:
    solid = np.zeros((2, glyphs.GLYPH, glyphs.GLYPH), np.uint8)
    cv2.circle(solid[0], (24, 24), 16, 255, 5)
    cv2.line(solid[1], (8, 8), (40, 40), 255, 5)
    drawn = glyphs.Glyphs(solid, glyphs.thinned(solid), np.array([3, 5]), 1)
    alone, labels = glyphs.many(drawn, 2100, seed=1, workers=1)
    together, labels_together = glyphs.many(drawn, 2100, seed=1, workers=2)
    assert np.array_equal(alone, together)
    assert np.array_equal(labels, labels_together)
    assert set(labels) == {3, 5}
    assert alone.shape == (2100, glyphs.FIELD, glyphs.FIELD)
    assert alone.reshape(2100, -1).max(axis=1).min() > 100  # none is empty


def test_thinning_leaves_a_line_one_pixel_wide() -> None:
    solid = np.zeros((1, glyphs.GLYPH, glyphs.GLYPH), np.uint8)
    cv2.line(solid[0], (24, 8), (24, 40), 255, 7)
    thin = glyphs.thinned(solid)[0] > 0
    assert 25 <= thin.any(axis=1).sum() <= 40
    assert thin.sum(axis=1).max() == 1
