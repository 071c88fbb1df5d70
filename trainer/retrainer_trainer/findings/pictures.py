"""Whether two pictures show the same: compared pixel by pixel, small and grey."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Floats

SIDE = 64
"""Pixels of a small picture's side."""

SAME_PICTURE = 0.96
"""Correlation from which two pictures are copies: of JPEG, mirror, half size, 10% crop and 5 degrees'
turn 98 of 100 lie above 0.99; of 1,498 flower photos no two different ones above 0.955."""
SAME_SCENE = 0.87
"""The same for a shifted view: two photos of one scene from a step aside."""
SCENE_COSINE = 0.92
"""Cosine of the bottlenecks below which a shifted view is not looked for: shifted grass and sky match
anything."""

_TURNS = (-5.0, -2.5, 0.0, 2.5, 5.0)
_SCALES = (0.9, 0.95, 1.0, 1.05, 1.11)
_CORE = 24
"""Pixels of the side to which the middle three quarters of a picture are reduced."""
_SHIFTED_EDGE = 16

Small = npt.NDArray[np.uint8]


class Comparer:
    """Compares small pictures (SIDE, SIDE, 3), BGR; keeps the views of the last first picture."""

    def __init__(self) -> None:
        self._row = -1
        self._views: Floats = np.empty((0, _CORE * _CORE), np.float32)

    def same(self, row: int, first: Small, second: Small, cosine: float) -> bool:
        """Say whether the two show the same picture, or the same scene from a step to the side.

        Args:
            row: number of `first`; comparisons with one first picture in a row are cheap.
            first: a small picture.
            second: another.
            cosine: of their bottlenecks.
        """
        if row != self._row:
            self._row, self._views = row, np.stack(list(_views(_grey(first, 1.5))))
        other = _unit(_middle(_grey(second, 1.5)))
        if float((self._views @ other).max()) >= SAME_PICTURE:
            return True
        return cosine >= SCENE_COSINE and _shifted(first, second) >= SAME_SCENE


def small_picture(image: npt.NDArray[np.uint8]) -> Small:
    """Reduce a picture (height, width, 3) to what `Comparer` takes."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _grey(picture: Small, blur: float) -> Floats:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), blur), np.float32)


def _views(grey: Floats) -> Iterator[Floats]:
    """Cut the middles of a picture and its mirror image, turned and scaled a little: unit vectors."""
    for mirrored in (grey, np.ascontiguousarray(grey[:, ::-1])):
        for turn in _TURNS:
            for scale in _SCALES:
                yield _unit(_middle(mirrored, turn, scale))


def _middle(grey: Floats, turn: float = 0.0, scale: float = 1.0) -> Floats:
    """Cut the middle three quarters of a picture, turned (degrees) and enlarged: (_CORE, _CORE)."""
    pixel = 0.75 * SIDE / _CORE / scale
    cosine, sine = pixel * math.cos(math.radians(turn)), pixel * math.sin(math.radians(turn))
    centre, core = (SIDE - 1) / 2, (_CORE - 1) / 2
    move = np.array(
        [
            [cosine, -sine, centre - core * (cosine - sine)],
            [sine, cosine, centre - core * (sine + cosine)],
        ]
    )
    view = cv2.warpAffine(
        grey,
        move,
        (_CORE, _CORE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(view, np.float32)


def _unit(picture: Floats) -> Floats:
    centred = picture.ravel() - picture.mean()
    length = float(np.linalg.norm(centred))
    return np.asarray(centred / np.float32(max(length, 1e-6)), np.float32)


def _shifted(first: Small, second: Small) -> float:
    """Correlate one picture's middle with the place in the other that fits best."""
    pictures = _grey(first, 1.0), _grey(second, 1.0)
    best = -1.0
    for picture, other in (pictures, pictures[::-1]):
        inner = np.ascontiguousarray(
            picture[_SHIFTED_EDGE:-_SHIFTED_EDGE, _SHIFTED_EDGE:-_SHIFTED_EDGE]
        )
        if inner.std() < 1:
            continue  # a plain patch fits everywhere
        fit = cv2.matchTemplate(other, inner, cv2.TM_CCOEFF_NORMED)
        best = max(best, float(fit.max()))
    return best
