"""Label one image with the frozen graph of a run, by TensorFlow 1's own means.

    python examples/label_image.py --graph RUN/frozen_graph.pb --labels RUN/labels.txt \
        --input_height 160 --input_width 160 --image rose.jpg

prints the five best labels, best first:

    roses (score=0.98712)
    tulips (score=0.01176)
    ...

TensorFlow reads the image as it is stored: give it a JPEG or PNG that is not turned by EXIF and has
nothing transparent; `retrainer predict` takes every kind. The graph is what retrain.py writes: `input`
takes pixels in [-1, 1], `final_result` gives scores. An export named `frozenGraph` in `spec.export`
makes it.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow.compat.v1 as tf

TOP = 5


def load_graph(path: str) -> tf.Graph:
    """The frozen graph in the file."""
    definition = tf.GraphDef()
    definition.ParseFromString(Path(path).read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition)
    return graph


def read_image(path: str, height: int, width: int, mean: float, std: float) -> np.ndarray:
    """The image as the network takes it: float32 (1, height, width, 3)."""
    with tf.Graph().as_default(), tf.Session() as session:
        decoded = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        pixels = tf.expand_dims(tf.cast(decoded, tf.float32), 0)
        # Antialiased, as Retrainer trains: without it large photos are guessed worse.
        small = tf.image.resize_images(pixels, [height, width], method="area")
        return np.asarray(session.run((small - mean) / std))


def label_image(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """Labels and scores of the image, best first."""
    graph = load_graph(arguments.graph)
    source = graph.get_operation_by_name(f"import/{arguments.input_layer}").outputs[0]
    result = graph.get_operation_by_name(f"import/{arguments.output_layer}").outputs[0]
    image = read_image(
        arguments.image,
        arguments.input_height,
        arguments.input_width,
        arguments.input_mean,
        arguments.input_std,
    )
    with tf.Session(graph=graph) as session:
        scores = np.squeeze(session.run(result, {source: image}))
    labels = Path(arguments.labels).read_text(encoding="utf-8").splitlines()
    return [(labels[i], float(scores[i])) for i in scores.argsort()[::-1][:TOP]]


def main() -> None:
    """Read the command line, print the labels."""
    parser = argparse.ArgumentParser(description="Label one image with a frozen graph.")
    parser.add_argument("--image", required=True, help="JPEG, PNG, BMP or GIF file")
    parser.add_argument("--graph", default="frozen_graph.pb", help="frozen_graph.pb of a run")
    parser.add_argument("--labels", default="labels.txt", help="labels.txt of the run")
    parser.add_argument("--input_height", type=int, default=224, help="pixels; of the architecture")
    parser.add_argument("--input_width", type=int, default=224, help="pixels; of the architecture")
    parser.add_argument("--input_mean", type=float, default=127.5)
    parser.add_argument("--input_std", type=float, default=127.5)
    parser.add_argument("--input_layer", default="input")
    parser.add_argument("--output_layer", default="final_result")
    for label, score in label_image(parser.parse_args()):
        print(f"{label} (score={score:.5f})")


if __name__ == "__main__":
    main()
