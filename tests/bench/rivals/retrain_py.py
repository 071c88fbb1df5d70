"""Rival: retrain.py's way. One image at a time through a TensorFlow session, a text file for each.

    python tests/bench/rivals/retrain_py.py IMAGES WEIGHTS SIZE ALPHA [MOST]

prints images/s; importing, building the graph and the first image are left out. The same two
`session.run` as the original: one decodes and resizes, one gives the bottleneck.

TensorFlow runs its own kernels, as the 1.x releases did that retrain.py was written for. With
TF_ENABLE_ONEDNN_OPTS=1 in the environment it uses oneDNN's, as it does by default since 2.9.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def images_per_second(images: Path, weights: Path, size: int, alpha: float, most: int) -> float:
    """Rate over the first `most` images of the folder."""
    network = tf.keras.applications.MobileNet(
        input_shape=(size, size, 3),
        alpha=alpha,
        include_top=False,
        weights=str(weights),
        pooling="avg",
    )
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    call = tf.function(lambda x: network(x, training=False))
    frozen = convert_variables_to_constants_v2(
        call.get_concrete_function(tf.TensorSpec([1, size, size, 3], tf.float32))
    )
    graph = tf.Graph()
    with graph.as_default():
        v1.import_graph_def(frozen.graph.as_graph_def(), name="")
        body = v1.placeholder(tf.string, name="DecodeJPGInput")
        decoded = tf.cast(tf.image.decode_jpeg(body, channels=3), tf.float32)
        resized = v1.image.resize_bilinear(tf.expand_dims(decoded, 0), [size, size])
        scaled = (resized - 127.5) / 127.5
    source = frozen.inputs[0].name
    target = frozen.outputs[0].name
    paths = sorted(images.glob("*/*.jpg"))[:most]
    with v1.Session(graph=graph) as session, tempfile.TemporaryDirectory() as folder:

        def one(path: Path) -> None:
            pixels = session.run(scaled, {body: path.read_bytes()})
            values = np.squeeze(session.run(target, {source: pixels}))
            text = Path(folder) / f"{path.parent.name}_{path.name}.txt"
            text.write_text(",".join(str(x) for x in values))
            [float(x) for x in text.read_text().split(",")]  # the original reads back what it wrote

        one(paths[0])
        begun = time.perf_counter()
        for path in paths:
            one(path)
        return len(paths) / (time.perf_counter() - begun)


if __name__ == "__main__":
    folder, file, side, width, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 1_000_000
    print(f"{images_per_second(Path(folder), Path(file), int(side), float(width), count):.1f}")
