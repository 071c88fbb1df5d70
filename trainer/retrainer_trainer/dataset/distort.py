"""Distorted copies of training images: retrain.py's crop, scale, flip and brightness.

The image's identity and the view's number alone decide how each copy (view) is distorted, so any pod
can compute it at any time, and its bottleneck is cached like any other.
"""

import hashlib
import math

import numpy as np

from retrainer.api import Distortions
from retrainer.inference import pixels

VERSION = "distort-1"
_BYTES = 8


def view_identity(identity: bytes, distortions: Distortions, view: int) -> bytes:
    """Identify one view of an image: 16 bytes that depend on the image, the distortions and the view."""
    d = distortions
    text = (
        f"{VERSION} {d.flip_left_right:d} {d.random_crop} {d.random_scale} "
        f"{d.random_brightness} {view}"
    )
    return hashlib.blake2b(identity + text.encode(), digest_size=len(identity)).digest()


def source_size(size: int, distortions: Distortions) -> int:
    """Side, in pixels, of a square so large that no view cut from it has to be enlarged."""
    most = (1 + distortions.random_crop / 100) * (1 + distortions.random_scale / 100)
    return math.ceil(size * most)


def distorted(
    source: pixels.Pixels, size: int, identity: bytes, distortions: Distortions, view: int
) -> pixels.Pixels:
    """Make one view of an image, (size, size, 3) RGB, 0 to 255.

    Works like add_input_distortions of retrain.py: the image is scaled up by the crop's margin times a
    random scale in [1, 1 + randomScale %], a square of `size` is cut from it at a random place, mirrored
    in half of the cases, and its brightness multiplied by 1 plus or minus randomBrightness %.

    Args:
        source: the upright image squeezed to a square of `source_size(size, distortions)`.
        size: pixels of the side of the network's input.
        identity: 16 bytes of the image.
        distortions: which of them, and how strong.
        view: number of the copy, from 0.
    """
    scale, left, top, mirror, bright = _randoms(identity, view)
    d = distortions
    zoom = (1 + d.random_crop / 100) * (1 + scale * d.random_scale / 100)
    side = min(source.shape[0], max(1, round(source.shape[0] / zoom)))
    x, y = (round(r * (source.shape[0] - side)) for r in (left, top))
    image = pixels.resized(np.ascontiguousarray(source[y : y + side, x : x + side]), size, size)
    if d.flip_left_right and mirror < 0.5:
        image = image[:, ::-1]
    if d.random_brightness:
        factor = 1 + (2 * bright - 1) * d.random_brightness / 100
        image = np.clip(np.rint(image * np.float32(factor)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)


def _randoms(identity: bytes, view: int) -> list[float]:
    """Draw five numbers in [0, 1) from a digest, so that no version of a library changes them."""
    digest = hashlib.blake2b(identity, digest_size=5 * _BYTES, salt=view.to_bytes(8, "little"))
    numbers = np.frombuffer(digest.digest(), "<u8")
    return [int(number) / 2.0**64 for number in numbers]
