"""Rival of the head: Keras' own way, Sequential, compile, fit, on the same matrix.

    python tests/bench/rivals/keras_fit.py [steps]

prints the seconds of `fit` alone (import, building and a first step left out) for 4,000 steps of 100
on 3,000 x 512, as `tests/bench/head.py` trains it.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np

IMAGES, WIDTH, LABELS, BATCH = 3000, 512, 5, 100


def seconds(steps: int) -> float:
    """Time of `steps` steps in `fit`, seconds."""
    generator = np.random.default_rng(0)
    label = generator.integers(LABELS, size=IMAGES)
    matrix = np.abs(generator.standard_normal((IMAGES, WIDTH)))
    matrix = (matrix + generator.uniform(0, 1, (LABELS, WIDTH))[label]).astype(np.float32)
    network = keras.Sequential(
        [keras.Input((WIDTH,)), keras.layers.Dense(LABELS, activation="softmax")]
    )
    network.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    network.fit(matrix[:BATCH], label[:BATCH], batch_size=BATCH, epochs=1, verbose=0)
    epochs = round(steps * BATCH / IMAGES)
    begun = time.perf_counter()
    network.fit(matrix, label, batch_size=BATCH, epochs=epochs, verbose=0)
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(f"{seconds(int(sys.argv[1]) if len(sys.argv) > 1 else 4000):.2f}")
