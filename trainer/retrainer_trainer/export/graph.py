"""TensorFlow graphs of the exports: the frozen backbone, the head on it, and an image's bytes before it.

TensorFlow is imported inside the functions: a run that exports nothing of it never loads it.
"""

from functools import partial
from typing import Any

import numpy as np

from retrainer_trainer.head.softmax import Head

# Pixels 0..255 become x / 127.5 - 1, what MobileNet and Inception V3 were trained on
# (Keras Applications, mode "tf").
HALF_RANGE = 127.5

# Bytes of a file in which the EXIF orientation is looked for. An APP1 segment is at most 64 KiB and
# cameras write it first.
_EXIF_BYTES = 131_072

# A constant larger than this is left out of the graph that TensorBoard draws.
_SHOWN_BYTES = 256


def frozen_backbone(network: Any) -> tuple[Any, str, str]:
    """The Keras network with its weights as constants.

    Freezing first is what makes everything after it fast: saving the same SavedModel took 2.4 s with
    variables and 0.1 s with constants.

    Args:
        network: Keras, float32 (images, size, size, 3) in [-1, 1] to (images, bottleneck width).

    Returns:
        GraphDef, name of its input tensor, name of its output tensor.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    _, height, width, channels = network.input_shape
    spec = tf.TensorSpec((None, height, width, channels), tf.float32, name="input")
    function = tf.function(lambda x: network(x, training=False), input_signature=[spec])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    return frozen.graph.as_graph_def(), frozen.inputs[0].name, frozen.outputs[0].name


def scores(backbone: tuple[Any, str, str], scaled: Any, head: Head, name: str) -> Any:
    """Softmax scores, a tensor of this name, of images already in [-1, 1]."""
    import tensorflow as tf

    graph, source, result = backbone
    (bottleneck,) = tf.graph_util.import_graph_def(
        graph, input_map={source: scaled}, return_elements=[result], name="backbone"
    )
    bottleneck = tf.reshape(bottleneck, (-1, head.weights.shape[1]))
    logits = tf.matmul(bottleneck, np.ascontiguousarray(head.weights.T)) + head.bias
    return tf.nn.softmax(logits, name=name)


def classify_graph(backbone: tuple[Any, str, str], size: int, head: Head) -> Any:
    """GraphDef as retrain.py writes it: `input` (images, size, size, 3) in [-1, 1], `final_result`."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        scaled = tf.compat.v1.placeholder(tf.float32, (None, size, size, 3), name="input")
        scores(backbone, scaled, head, "final_result")
    return graph.as_graph_def()


def pixel_graph(backbone: tuple[Any, str, str], size: int, head: Head) -> Any:
    """GraphDef for ONNX: `pixels` (images, size, size, 3), float 0..255, to `scores`."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, (None, size, size, 3), name="pixels")
        scores(backbone, pixels / HALF_RANGE - 1.0, head, "scores")
    return graph.as_graph_def()


def signatures(
    backbone: tuple[Any, str, str], size: int, head: Head, labels: list[str]
) -> dict[str, Any]:
    """The functions of a SavedModel, traced: `pixels` and `image_bytes`."""
    import tensorflow as tf

    pixel_spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="pixels")
    byte_spec = tf.TensorSpec((None,), tf.string, name="image_bytes")

    @tf.function(input_signature=[pixel_spec])  # type: ignore[untyped-decorator]
    def pixels(pixels: Any) -> dict[str, Any]:
        return _named(scores(backbone, pixels / HALF_RANGE - 1.0, head, "scores"), labels)

    # Traced once and called as traced: else the other function carries the constants again.
    by_pixels = pixels.get_concrete_function()

    @tf.function(input_signature=[byte_spec])  # type: ignore[untyped-decorator]
    def image_bytes(image_bytes: Any) -> dict[str, Any]:
        decoded = tf.map_fn(
            lambda one: _decoded(one, size),
            image_bytes,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32),
        )
        result: dict[str, Any] = by_pixels(decoded)
        return result

    return {"pixels": by_pixels, "image_bytes": image_bytes.get_concrete_function()}


def _named(scores_: Any, labels: list[str]) -> dict[str, Any]:
    # Each output has one row per image: TensorFlow Serving's row format refuses anything else.
    import tensorflow as tf

    names = tf.constant([label.encode() for label in labels])
    return {
        "scores": scores_,
        "labels": tf.tile(names[None, :], [tf.shape(scores_)[0], 1]),
        "label": tf.gather(names, tf.argmax(scores_, axis=1)),
    }


def _decoded(data: Any, size: int) -> Any:
    """One image's bytes to pixels 0..255, float32 (size, size, 3): upright, antialiased."""
    import tensorflow as tf

    def jpeg() -> Any:
        # As images.pixels: the smallest of the fast DCT scales that still has `size` pixels.
        shape = tf.image.extract_jpeg_shape(data)
        enough = [tf.reduce_all(shape[:2] // k >= size) for k in (2, 4, 8)]
        halvings = tf.reduce_sum(tf.cast(tf.stack(enough), tf.int32))
        return tf.switch_case(halvings, [partial(scaled_jpeg, 2**n) for n in range(4)])

    def scaled_jpeg(ratio: int) -> Any:
        return tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    def webp() -> Any:
        # TensorFlow puts four channels of an animation where it has room for three, unless the header
        # says that there is alpha (0x10 beside 0x02, animation): the process would die of it.
        flags = tf.io.decode_raw(tf.strings.substr(data, 20, 1), tf.uint8)[0]
        animated = tf.equal(tf.strings.substr(data, 12, 4), b"VP8X") & (flags & 2 > 0)
        rest = tf.strings.substr(data, 21, tf.strings.length(data))
        marked = tf.strings.join([tf.strings.substr(data, 0, 20), b"\x12", rest])
        return coloured(tf.io.decode_webp(tf.where(animated, marked, data), channels=0)[0])

    def other() -> Any:  # PNG, BMP, GIF (its first frame)
        return coloured(tf.io.decode_image(data, channels=0, expand_animations=False))

    def coloured(image: Any) -> Any:
        channels = tf.shape(image)[-1]
        flat = tf.cond((channels == 2) | (channels == 4), lambda: _on_white(image), lambda: image)
        return tf.cond(
            tf.equal(tf.shape(flat)[-1], 1), lambda: tf.tile(flat, (1, 1, 3)), lambda: flat
        )

    is_webp = (tf.strings.substr(data, 0, 4) == b"RIFF") & (
        tf.strings.substr(data, 8, 4) == b"WEBP"
    )
    image = tf.cond(tf.io.is_jpeg(data), jpeg, lambda: tf.cond(is_webp, webp, other))
    image = tf.ensure_shape(image, (None, None, 3))
    rows, columns = _resampling(tf.shape(image)[0], size), _resampling(tf.shape(image)[1], size)
    small = tf.einsum("oh,hwc->owc", rows, tf.cast(image, tf.float32))
    small = tf.round(tf.einsum("pw,owc->opc", columns, small))
    # Turned after the resize: the result is square either way, and there is less to turn.
    return _upright(tf.ensure_shape(small, (size, size, 3)), exif_orientation(data))


def _resampling(length: Any, size: int) -> Any:
    """Weights (size, length) that resize one axis as images.pixels does: the mean of an area where
    it shrinks, linear where it grows. tf.image.resize has no such area mean, and its antialiasing
    made other guesses on 2% of photos."""
    import tensorflow as tf

    scale = tf.cast(length, tf.float32) / size
    out = tf.range(size, dtype=tf.float32)[:, None]
    source = tf.cast(tf.range(length), tf.float32)[None, :]
    overlap = tf.minimum((out + 1) * scale, source + 1) - tf.maximum(out * scale, source)
    area = tf.maximum(overlap, 0.0) / scale
    place = tf.clip_by_value((out + 0.5) * scale - 0.5, 0.0, tf.cast(length - 1, tf.float32))
    linear = tf.maximum(1.0 - tf.abs(place - source), 0.0)
    return tf.where(scale > 1.0, area, linear)


def _on_white(image: Any) -> Any:
    """The last channel, alpha, laid on white paper, as `images.pixels` does."""
    import tensorflow as tf

    colour, alpha = tf.cast(image[..., :-1], tf.float32), tf.cast(image[..., -1:], tf.float32) / 255
    return tf.cast(tf.round(colour * alpha + 255 * (1 - alpha)), tf.uint8)


def _upright(image: Any, orientation: Any) -> Any:
    """Turned and mirrored by the EXIF orientation, 1 to 8 (EXIF 2.3, tag 0x0112)."""
    import tensorflow as tf

    turned = tf.where(orientation >= 5, tf.transpose(image, (1, 0, 2)), image)
    left_right = tf.reduce_any(tf.equal(orientation, (2, 3, 6, 7)))
    top_bottom = tf.reduce_any(tf.equal(orientation, (3, 4, 7, 8)))
    turned = tf.where(left_right, tf.reverse(turned, (1,)), turned)
    return tf.where(top_bottom, tf.reverse(turned, (0,)), turned)


def exif_orientation(data: Any) -> Any:
    """EXIF orientation of a JPEG's bytes, in graph operations: int32, 1 where there is none."""
    import tensorflow as tf

    head = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, _EXIF_BYTES), tf.uint8), tf.int32)
    length = tf.size(head)

    def byte(at: Any) -> Any:
        return tf.where(at < length, head[tf.minimum(at, length - 1)], 0)

    def segment_goes_on(at: Any, found: Any) -> Any:
        kind = byte(at + 1)
        is_marker = (byte(at) == 0xFF) & (kind != 0xDA) & (kind != 0xD9)
        return (found < 0) & (at + 10 < length) & is_marker

    def next_segment(at: Any, _: Any) -> tuple[Any, Any]:
        signature = tf.strings.substr(data, at + 4, 6)
        is_exif = (byte(at + 1) == 0xE1) & (signature == b"Exif\0\0")
        size = byte(at + 2) * 256 + byte(at + 3)
        return at + 2 + size, tf.where(is_exif, at + 10, -1)

    def search() -> Any:
        end, tiff = tf.while_loop(
            segment_goes_on, next_segment, (tf.constant(2), tf.constant(-1)), maximum_iterations=64
        )
        return tf.cond(tiff >= 0, lambda: read(tiff, end), lambda: tf.constant(1))

    def read(tiff: Any, end: Any) -> Any:
        little = byte(tiff) == ord("I")
        is_tiff = (byte(tiff) == byte(tiff + 1)) & (little | (byte(tiff) == ord("M")))

        def short(at: Any) -> Any:
            first, second = (
                tf.where(at + 1 < end, byte(at), 0),
                tf.where(at + 1 < end, byte(at + 1), 0),
            )
            return tf.where(little, first + 256 * second, 256 * first + second)

        # The offset of the first directory is a 32-bit number; an APP1 is too short for more than 16.
        low, high = (
            short(tf.where(little, tiff + 4, tiff + 6)),
            short(tf.where(little, tiff + 6, tiff + 4)),
        )
        directory = tf.where(high > 0, length, tiff + low)
        entries = directory + 2 + 12 * tf.range(tf.minimum(short(directory), 512))
        tags = tf.map_fn(short, entries, fn_output_signature=tf.int32)
        values = tf.map_fn(lambda at: short(at + 8), entries, fn_output_signature=tf.int32)
        value = tf.reduce_max(tf.where(tf.equal(tags, 0x0112), values, 0))
        return tf.where(is_tiff & (value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.io.is_jpeg(data) & (length > 20), search, lambda: tf.constant(1))


def without_weights(graph: Any) -> bytes:
    """The graph as bytes, large constants left out: for looking at, not for running."""
    shown = type(graph)()
    shown.CopyFrom(graph)
    for node in [*shown.node, *(n for f in shown.library.function for n in f.node_def)]:
        if node.op == "Const" and node.attr["value"].ByteSize() > _SHOWN_BYTES:
            node.attr["value"].tensor.ClearField("tensor_content")
    return bytes(shown.SerializeToString(deterministic=True))
