import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits
from tools.digits import SIDE, write_digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("digits")
    assert write_digits(written) == 1797
    return written


def test_each_label_has_a_folder_with_all_its_digits(folder: Path) -> None:
    counts = {label.name: len(list(label.iterdir())) for label in folder.iterdir()}
    assert counts == {
        "0": 178, "1": 182, "2": 177, "3": 183, "4": 181,
        "5": 182, "6": 181, "7": 179, "8": 174, "9": 180,
    }  # fmt: skip


def test_a_file_is_named_after_the_digits_place_in_the_data_set(folder: Path) -> None:
    assert (folder / "0" / "digit-0000.png").is_file()
    assert (folder / "8" / "digit-1796.png").is_file()


def test_a_picture_averaged_back_to_its_cells_is_the_digit(folder: Path) -> None:
    image = cv2.imread(str(folder / "0" / "digit-0000.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (SIDE, SIDE)
    cells = cv2.resize(image, (10, 10), interpolation=cv2.INTER_AREA)[1:-1, 1:-1] * (16 / 255)
    assert np.corrcoef(cells.ravel(), load_digits().images[0].ravel())[0, 1] > 0.99


def test_writing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_digits(tmp_path)

    def digest(root: Path) -> str:
        content = hashlib.sha256()
        for path in sorted(root.rglob("*.png")):
            content.update(str(path.relative_to(root)).encode() + path.read_bytes())
        return content.hexdigest()

    assert digest(tmp_path) == digest(folder)
