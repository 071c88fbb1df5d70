"""Rival: Keras as its guides have it. tf.data decodes in parallel, batches of 32, `predict`.

    python tests/bench/rivals/keras_predict.py IMAGES WEIGHTS SIZE ALPHA [MOST]

prints images/s; importing, building and one batch to compile the function are left out.
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

BATCH = 32


def images_per_second(images: Path, weights: Path, size: int, alpha: float, most: int) -> float:
    """Rate over the first `most` images of the folder."""
    network = keras.applications.MobileNet(
        input_shape=(size, size, 3),
        alpha=alpha,
        include_top=False,
        weights=str(weights),
        pooling="avg",
    )
    paths = [str(p) for p in sorted(images.glob("*/*.jpg"))[:most]]

    def pixels(path: tf.Tensor) -> tf.Tensor:
        image = tf.image.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, [size, size]) / 127.5 - 1.0

    def batches(of: list[str]) -> tf.data.Dataset:
        read = tf.data.Dataset.from_tensor_slices(of).map(
            pixels, num_parallel_calls=tf.data.AUTOTUNE
        )
        return read.batch(BATCH).prefetch(tf.data.AUTOTUNE)

    network.predict(batches(paths[:BATCH]), verbose=0)
    begun = time.perf_counter()
    network.predict(batches(paths), verbose=0)
    return len(paths) / (time.perf_counter() - begun)


if __name__ == "__main__":
    folder, file, side, width, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 1_000_000
    print(f"{images_per_second(Path(folder), Path(file), int(side), float(width), count):.1f}")
