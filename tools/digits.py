"""Write scikit-learn's 1,797 handwritten digits as PNG files, one folder per label.

    python tools/digits.py out/digits

gives `out/digits/0/digit-0000.png` and so on: the number is the digit's place in the data set, so
every run writes the same names and bytes. The digits are the test part of the UCI "Optical
Recognition of Handwritten Digits" data (E. Alpaydin, C. Kaynak, 1998; CC BY 4.0): 8 x 8 cells of
0 to 16, the share of ink in each. A PNG shows them as they are, ink white on black, with a margin
of one empty cell, enlarged eight times with cubic interpolation: 80 x 80 pixels.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

CELLS = 10  # 8 cells and a margin of one on each side
SIDE = 80


def picture(cells: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Enlarge one digit, 8 x 8 cells of 0 to 16, to SIDE x SIDE grey pixels."""
    bordered = np.pad(cells, (CELLS - 8) // 2).astype(np.float32) * (255 / 16)
    large = cv2.resize(bordered, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(large), 0, 255).astype(np.uint8)


def write_digits(folder: Path) -> int:
    """Write every digit below `folder`, and return how many there are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (cells, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"digit-{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _, encoded = cv2.imencode(".png", picture(cells))
        path.write_bytes(encoded.tobytes())
    return len(digits.target)


def main() -> None:
    """Write the digits to the folder named on the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tools/digits.py FOLDER")
    folder = Path(sys.argv[1])
    print(f"{write_digits(folder)} digits in {folder}")


if __name__ == "__main__":
    main()
