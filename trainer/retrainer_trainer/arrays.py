"""The kinds of arrays that pass between the stages of a task."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
"""Bottlenecks, scores, weights."""

Doubles = npt.NDArray[np.float64]
"""Sums over many images, and strengths."""

Longs = npt.NDArray[np.int64]
"""Places in the cache, and images of the catalog."""

Rows = npt.NDArray[np.intp]
"""Numbers of rows of the matrix, or of labels: what numpy indexes with."""

Bools = npt.NDArray[np.bool_]
"""Which of the images."""
