"""Train `weights: builtin`, a small MobileNet for demos and tests that needs no download.

    python -m tools.builtin_weights --fonts /usr/share/fonts     # train, save, check
    python -m tools.builtin_weights --check                      # only measure the saved weights

It is Keras Applications' MobileNet, alpha 0.25, 128 x 128, without its last layer, trained to tell
characters apart (`tools.glyphs`: letters and signs of many fonts, redrawn as if by hand; no digit
is among them and no foreign image). The check then does what `retrain.py` does, with a new last
layer only, on scikit-learn's handwritten digits as `tools.digits` writes them.

Expected on two cores: 6 minutes, of which one draws the pictures (13 minutes on a busy machine);
test accuracy of the digits 0.98 to 0.99 at 500 steps and at 4,000. That test set is 166 digits: in
the mean of ten other draws of it, 0.977 and 0.981 for the shipped weights, 0.973 and 0.981 for those
of a second run.

Every .ttf, .otf, .pfb and .t1 below the `--fonts` folders is tried, fonts of strange shapes are left
out. They are only rendered: no part of one is stored or shipped, so their licences do not reach the
weights. The shipped weights saw 848 fonts of these Debian 12 packages, each named fonts-...; other
fonts give other weights:

    aenigma averia-gwf averia-sans-gwf averia-serif-gwf breip bwht cabin cantarell comfortaa
    comic-neue dancingscript dejavu-core dejavu-extra dkg-handwriting dosis dustin ecolier-court
    eurofurence fantasque-sans femkeklaver freefont-ttf georgewilliams gfs-neohellenic gfs-olga
    hermit humor-sans inconsolata isabella junicode jura karla kaushanscript klee kristi lato
    leckerli-one levien-typoscript liberation lobster lobstertwo monofur mononoki ocr-a ocr-b
    okolaks open-sans opendyslexic osifont oxygen play quicksand roboto-unhinted routed-gothic
    rufscript sil-andika sjfonts sora staypuft stick summersby tomsontalks tuffy ubuntu-title
    urw-base35 vollkorn yanone-kaffeesatz yusei-magic

The run is seeded: equal fonts and package versions give equal pictures, and weights equal up to
the order in which TensorFlow's threads add.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tools import digits, glyphs

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

OUTPUT = Path("trainer/retrainer_trainer/builtin/mobilenet_0.25_128.weights.h5")
SIDE = 128  # the architecture's input
WIDTH = 256  # the architecture's bottleneck

# Training. Found by trial on two cores.
PICTURES = 160_000  # each is seen once
BATCH = 64
RATE = 2e-3  # AdamW's: rises over the first twentieth, then falls along a cosine to nothing
SMOOTHING = 0.05  # of the labels: some characters are one shape in some fonts
# How finely a picture is seen: pixels of its side averaged into one cell, and how often. Blocks of
# 4 x 4 are what made the UCI digits; the others keep the network from knowing only those.
CELLS = ((4, 0.75), (5, 0.1), (2, 0.1), (1, 0.05))
# A head trained by plain SGD at 0.01 learns in proportion to the square of the bottlenecks' scale.
# So the last normalisation starts at GAMMA, not at 1 (ReLU6 cuts at 6).
GAMMA = 2.0

# The check: retrain.py's defaults.
CHECKED_STEPS = (500, 4000)
HEAD_RATE = 0.01
HEAD_BATCH = 100
HEAD_STDDEV = 0.001


# ---------------------------------------------------------------- training


def network(weights: Path | None = None) -> Any:
    """Return the backbone, with seeded random weights or those of a file."""
    import keras

    return keras.applications.MobileNet(
        alpha=0.25,
        input_shape=(SIDE, SIDE, 3),
        include_top=False,
        pooling="avg",
        weights=None if weights is None else str(weights),
    )


def enlarging(cell: int) -> Floats:
    """Return the matrix that averages `cell` pixels into one and enlarges a line to SIDE.

    The way of a digit: its cells, cubic to the PNG's side, linear to the network's.
    """
    count = glyphs.FIELD // cell
    line = np.kron(np.eye(count), np.full((1, cell), 1 / cell)).astype(np.float32)
    cubic = cv2.resize(line, (glyphs.FIELD, digits.SIDE), interpolation=cv2.INTER_CUBIC)
    linear = cv2.resize(cubic, (glyphs.FIELD, SIDE), interpolation=cv2.INTER_LINEAR)
    return linear.astype(np.float32)


def train(pictures: npt.NDArray[np.uint8], labels: Labels, seed: int) -> Any:
    """Train the backbone to name the pictures' classes, and return it."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    backbone = network()
    last = backbone.get_layer("conv_pw_13_bn")
    last.gamma.assign(tf.fill(last.gamma.shape, GAMMA))
    head = keras.layers.Dense(
        len(glyphs.CLASSES), kernel_initializer=keras.initializers.RandomNormal(stddev=0.01)
    )
    head.build((None, WIDTH))
    steps = len(labels) // BATCH
    warm = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        RATE / 20, max(1, steps - warm), warmup_target=RATE, warmup_steps=warm
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4)
    variables = backbone.trainable_variables + head.trainable_variables
    optimizer.build(variables)
    view = _viewer(seed)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(fields: Any, wanted: Any, variety: Any) -> tuple[Any, Any]:
        images = view(fields, variety)
        with tf.GradientTape() as tape:
            logits = head(backbone(images, training=True))
            target = tf.one_hot(wanted, len(glyphs.CLASSES), 1 - SMOOTHING, 0.0)
            target += SMOOTHING / len(glyphs.CLASSES)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss, tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == wanted, tf.float32))

    order = np.random.default_rng(seed).permutation(len(labels))
    started, kept = time.monotonic(), []
    for number in range(steps):
        rows = order[number * BATCH : (number + 1) * BATCH]
        # White on black first: colours and polarity from the start hold learning up for long.
        variety = np.float32(np.clip(3.3 * number / steps - 0.3, 0, 1))
        loss, right = step(
            tf.constant(pictures[rows]), tf.constant(labels[rows]), tf.constant(variety)
        )
        kept.append((float(loss), float(right)))
        if len(kept) == 200 or number == steps - 1:
            mean, share = np.mean(kept, axis=0)
            took = time.monotonic() - started
            print(
                f"step {number + 1} of {steps}: loss {mean:.3f}, right {share:.3f}, {took:.0f} s",
                flush=True,
            )
            kept = []
    return backbone


def _viewer(seed: int) -> Any:
    """Return a function from kept pictures to what the network sees: RGB in [-1, 1]."""
    import tensorflow as tf

    cells = tf.constant(np.stack([enlarging(cell) for cell, _ in CELLS]))
    shares = tf.math.log([[share for _, share in CELLS]])
    random = tf.random.Generator.from_seed(seed)

    def each(low: float, high: float, channels: int = 1) -> Any:
        return random.uniform((BATCH, 1, 1, channels), low, high)

    def view(fields: Any, variety: Any) -> Any:
        enlarge = tf.gather(cells, tf.random.categorical(shares, BATCH)[0])
        ink = enlarge @ (tf.cast(fields, tf.float32) / 255) @ tf.transpose(enlarge, (0, 2, 1))
        ink = tf.clip_by_value(ink, 0.0, 1.0)[..., None]
        side = tf.where(each(0, 1) < 0.25 * variety, -1.0, 1.0)  # -1: dark on light
        coloured = each(0, 1) < 0.25 * variety
        front, back = side * each(0.6, 1.0), -side * each(0.6, 1.02)
        front = tf.where(coloured, 0.6 * front + each(-0.6, 0.6, 3), front)
        back = tf.where(coloured, 0.6 * back + each(-0.6, 0.6, 3), back)
        image = back + ink * (front - back)
        image += tf.nn.relu(each(-0.1, 0.15)) * random.normal((BATCH, SIDE, SIDE, 1))
        return tf.clip_by_value(image, -1.0, 1.0)

    return view


# ---------------------------------------------------------------- the check


def part(path: str, testing: int = 10, validation: int = 10) -> str:
    """Return the set in which retrain.py's rule puts `label/file` (without `_nohash_` in it)."""
    most = 2**27 - 1
    digest = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    percentage = int(digest, 16) % (most + 1) * (100 / most)
    if percentage < validation:
        return "validation"
    return "testing" if percentage < validation + testing else "training"


def read_images(folder: Path) -> tuple[Floats, Labels, list[str]]:
    """Read `label/file.png` as the product does: pixels in [-1, 1], labels, relative paths."""
    paths = sorted(folder.glob("*/*.png"))
    pixels = np.empty((len(paths), SIDE, SIDE, 3), np.float32)
    for row, path in enumerate(paths):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        assert image is not None, path
        how = cv2.INTER_AREA if max(image.shape) > SIDE else cv2.INTER_LINEAR
        pixels[row] = cv2.resize(image, (SIDE, SIDE), interpolation=how)
    pixels = pixels / np.float32(127.5) - 1
    labels = np.array([int(path.parent.name) for path in paths])
    return pixels, labels, [f"{path.parent.name}/{path.name}" for path in paths]


def head_accuracy(
    bottlenecks: Floats, labels: Labels, names: Sequence[str], steps: Sequence[int], seed: int
) -> list[float]:
    """Train a last layer as retrain.py does; return the test accuracy after each of `steps`."""
    parts = np.array([part(name) for name in names])
    test = np.flatnonzero(parts == "testing")
    count = int(labels.max()) + 1
    members = [np.flatnonzero((parts == "training") & (labels == label)) for label in range(count)]
    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, HEAD_STDDEV, (bottlenecks.shape[1], count))
    while (far := np.abs(kernel) > 2 * HEAD_STDDEV).any():  # a truncated normal
        kernel[far] = rng.normal(0, HEAD_STDDEV, np.count_nonzero(far))
    bias = np.zeros(count)
    reached = []
    for step in range(1, max(steps) + 1):
        drawn = np.bincount(rng.integers(count, size=HEAD_BATCH), minlength=count)
        rows = np.concatenate([rng.choice(m, n) for m, n in zip(members, drawn, strict=True)])
        logits = bottlenecks[rows] @ kernel + bias
        error = np.exp(logits - logits.max(1, keepdims=True))
        error /= error.sum(1, keepdims=True)
        error[np.arange(HEAD_BATCH), labels[rows]] -= 1
        kernel -= HEAD_RATE / HEAD_BATCH * (bottlenecks[rows].T @ error)
        bias -= HEAD_RATE / HEAD_BATCH * error.sum(0)
        if step in steps:
            guess = (bottlenecks[test] @ kernel + bias).argmax(1)
            reached.append(float((guess == labels[test]).mean()))
    return reached


def check(weights: Path, seeds: int = 5) -> Floats:
    """Print and return the digits' test accuracy, one row per seed, one column per step count."""
    with tempfile.TemporaryDirectory() as folder:
        digits.write_digits(Path(folder))
        pixels, labels, names = read_images(Path(folder))
    bottlenecks = network(weights).predict(pixels, batch_size=128, verbose=0)
    # How many a test set of this size gets right is partly luck: the same with other draws of it.
    others = [[f"{draw}/{name}" for name in names] for draw in range(10)]
    rows = [head_accuracy(bottlenecks, labels, names, CHECKED_STEPS, seed) for seed in range(seeds)]
    drawn = [head_accuracy(bottlenecks, labels, o, CHECKED_STEPS, 0) for o in others]
    for column, steps in enumerate(CHECKED_STEPS):
        print(
            f"{steps} steps: test accuracy "
            + " ".join(f"{row[column]:.3f}" for row in rows)
            + f" (seeds 0 to {seeds - 1}), {np.mean(drawn, axis=0)[column]:.3f}"
            f" in the mean of {len(others)} other draws of the test set",
            flush=True,
        )
    return np.array(rows, np.float32)


def main() -> None:
    """Train and check, or only check."""
    parser = argparse.ArgumentParser(description="Train the weights of `weights: builtin`.")
    parser.add_argument("--fonts", type=Path, action="append", help="folder of fonts; repeatable")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--check", action="store_true", help="do not train, measure the output")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not options.check:
        started = time.monotonic()
        rendered = glyphs.read_fonts(options.fonts or [Path("/usr/share/fonts")])
        print(f"{len(rendered.label)} characters of {rendered.fonts} fonts", flush=True)
        pictures, labels = glyphs.many(rendered, options.pictures, options.seed)
        print(f"{len(labels)} pictures, {time.monotonic() - started:.0f} s", flush=True)
        backbone = train(pictures, labels, options.seed)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        backbone.save_weights(str(options.output))
        print(f"{options.output}, {time.monotonic() - started:.0f} s")
    check(options.output)


if __name__ == "__main__":
    main()
