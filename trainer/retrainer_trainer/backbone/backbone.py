"""The frozen network as the rest of the trainer sees it, whatever it is made of and runs on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrainer.api.layout import NETWORK_PREFIX
from retrainer.inference.pixels import Pixels
from retrainer.inference.silence import quiet
from retrainer_trainer.store.store import Store

Bottleneck = npt.NDArray[np.float32]

Engine = Callable[[Sequence[Pixels]], Sequence[Bottleneck]]
"""From pixels (size, size, 3), 0..255, to the bottleneck (width,) of each; on one thread only."""

MakePixels = Callable[[bytes, int], Pixels]
"""From an image's bytes and a side to its pixels (side, side, 3), 0..255."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen network, ready to run.

    Attributes:
        name: for people.
        origin: what was read, a path or URL, for messages.
        field: the field of the spec that named it.
        size: height and width of its input, pixels.
        width: numbers of a bottleneck.
        multiply_adds: for one image; None where they cannot be counted.
        parameters: numbers that were trained.
        pixels: decodes an image as this network sees it; with a larger side, for distorted views.
        fingerprint: name of its folder in the cache; equal for whatever gives equal bottlenecks.
        runs_on: engine and precision, part of the fingerprint.
        start: gives an Engine for one thread. On a GPU it is the same one each time.
        batch: images to give it at a time; 1 if each thread has its own.
    """

    name: str
    origin: str
    field: str
    size: int
    width: int
    multiply_adds: int | None
    parameters: int
    pixels: MakePixels
    fingerprint: str
    runs_on: str
    start: Callable[[], Engine]
    batch: int = 1


def name_folder(cache: Store, digest: str, name: str) -> None:
    """Leave the network's name in its folder of the cache, for `retrainer cache stats`."""
    cache.put(f"{digest}/{NETWORK_PREFIX}{name}", b"", create_only=True)


def bottleneck_of_grey(engine: Engine, size: int) -> Bottleneck:
    """Run a network on a plain grey picture, to learn whether it gives numbers, and how many."""
    grey = np.full((size, size, 3), 127, np.uint8)
    with quiet():  # a GPU is announced by its first use
        (bottleneck,) = engine([grey])
    return bottleneck
