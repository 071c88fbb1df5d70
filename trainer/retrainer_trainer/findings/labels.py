"""Images whose label is probably wrong."""

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Floats
from retrainer_trainer.findings.neighbours import Neighbours

Longs = npt.NDArray[np.intp]

SHOWN_ABOVE = 0.5
"""Margin from which an image is shown as a suspect: of 1,498 flower photos as published 1.3% lie above
it (some of them are wrong), of labels changed on purpose two thirds to three quarters."""


def neighbour_votes(neighbours: Neighbours, label: Longs, label_count: int) -> Floats:
    """Weigh the labels of each image's neighbours by cosine: (images, labels), rows sum to 1."""
    weight = np.maximum(neighbours.cosine, np.finfo(np.float32).tiny)
    votes: Floats = np.zeros((len(label), label_count), np.float32)
    images = np.arange(len(label))
    for rank in range(weight.shape[1]):
        votes[images, label[neighbours.rows[:, rank]]] += weight[:, rank]
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return votes


def margins(scores: Floats, votes: Floats, label: Longs) -> tuple[Floats, Longs]:
    """Compute how much more another label is believed than the image's own, and which label that is.

    The normalised margin of confident learning (Northcutt, Jiang and Chuang 2021): the largest score of
    another label minus that of the given one, from -1 (surely right) to 1 (surely wrong). Scores are the
    mean of the out-of-fold scores and of the neighbours' votes: the two err on different images.
    """
    belief = (scores + votes) / 2
    images = np.arange(len(label))
    own = belief[images, label]
    belief[images, label] = -1
    suggested = belief.argmax(axis=1)
    return belief[images, suggested] - own, suggested
