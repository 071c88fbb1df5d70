"""From an image's bytes to pixels in TensorFlow's graph operations, for the SavedModel's template."""

from functools import partial
from typing import Any

# Segments and chunks of a file that are gone through: a PNG of 64 MiB has 8,192 as libpng writes it.
_MOST_PARTS = 20_000
_EXIF = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4

# What Adobe's programs put into a JPEG of CMYK (Adobe Technical Note 5116): transform 0 is plain CMYK.
_ADOBE_MARK = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"

_BMP_REFUSED = "Only BMP of 24 or 32 bits without compression is read: convert it to PNG."
_GIF_REFUSED = "A GIF whose first frame is transparent or partial is not read: convert it to PNG."


def decoded(data: Any, size: int) -> Any:
    """One image's bytes to pixels 0..255, float32 (size, size, 3): upright, antialiased.

    Sees what `retrainer.inference.pixels` sees, or refuses: TensorFlow takes the palette of a bitmap
    for its pixels, and the transparent parts of a GIF for black.
    """
    import tensorflow as tf

    file = _File(data)
    is_png = file.has(0, b"\x89PNG")
    is_webp = file.has(0, b"RIFF") & file.has(8, b"WEBP")
    is_bmp, is_gif = file.has(0, b"BM"), file.has(0, b"GIF8")
    is_jpeg = file.has(0, b"\xff\xd8\xff")

    def jpeg() -> Any:
        # As pixels.decoded: the smallest of the fast DCT scales that still has `size` pixels.
        shape = tf.image.extract_jpeg_shape(data)
        enough = [tf.reduce_all(shape[:2] // k >= size) for k in (2, 4, 8)]
        halvings = tf.reduce_sum(tf.cast(tf.stack(enough), tf.int32))
        # Ink without Adobe's mark is inverted like any other, which TensorFlow knows by the mark.
        adobe = _jpeg_segment_at(file, 0xEE, b"Adobe") >= 0
        marked = tf.strings.join([tf.strings.substr(data, 0, 2), _ADOBE_MARK, file.rest(2)])
        body = tf.where((shape[2] == 4) & ~adobe, marked, data)
        return tf.switch_case(halvings, [partial(scaled_jpeg, body, 2**n) for n in range(4)])

    def scaled_jpeg(body: Any, ratio: int) -> Any:
        return tf.io.decode_jpeg(body, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    def png() -> Any:
        # TensorFlow makes alpha of a tRNS chunk for four channels only, and puts nonsense there if
        # there is none to make of less than 8 bits.
        four = _png_chunk_at(file, b"tRNS") >= 0
        return tf.cond(
            tf.equal(file.byte(24), 16),
            lambda: png_of(four, tf.uint16),
            lambda: png_of(four, tf.uint8),
        )

    def png_of(four: Any, kind: Any) -> Any:
        return tf.cond(
            four,
            lambda: coloured(tf.io.decode_png(data, channels=4, dtype=kind)),
            lambda: coloured(tf.io.decode_png(data, channels=0, dtype=kind)),
        )

    def webp() -> Any:
        # TensorFlow puts four channels of an animation where it has room for three, unless the header
        # says that there is alpha (0x10 beside 0x02, animation): the process would die of it.
        animated = file.has(12, b"VP8X") & (file.byte(20) & 2 > 0)
        marked = tf.strings.join([tf.strings.substr(data, 0, 20), b"\x12", file.rest(21)])
        return coloured(tf.io.decode_webp(tf.where(animated, marked, data), channels=0)[0])

    def bmp() -> Any:
        bits, compression = file.short(28), file.short(30)
        plain = (file.short(14) >= 40) & (compression == 0) & ((bits == 24) | (bits == 32))
        with tf.control_dependencies([tf.debugging.Assert(plain, [_BMP_REFUSED])]):
            # The fourth byte of a pixel is reserved: no alpha.
            return tf.io.decode_bmp(tf.identity(data), channels=0)[..., :3]

    def gif() -> Any:  # its first frame
        with tf.control_dependencies([tf.debugging.Assert(_is_whole_gif(file), [_GIF_REFUSED])]):
            return tf.io.decode_gif(tf.identity(data))[0]

    def other() -> Any:
        # Never without an error: TensorFlow itself says that it knows no such format.
        return tf.io.decode_image(data, channels=3, expand_animations=False)

    def coloured(image: Any) -> Any:
        if image.dtype == tf.uint16:  # 65,535 becomes 255
            image = tf.cast((tf.cast(image, tf.int32) * 255 + 32767) // 65535, tf.uint8)
        channels = tf.shape(image)[-1]
        flat = tf.cond((channels == 2) | (channels == 4), lambda: _on_white(image), lambda: image)
        return tf.cond(
            tf.equal(tf.shape(flat)[-1], 1), lambda: tf.tile(flat, (1, 1, 3)), lambda: flat
        )

    kinds = [(is_jpeg, jpeg), (is_png, png), (is_webp, webp), (is_bmp, bmp), (is_gif, gif)]
    image = tf.ensure_shape(tf.case(kinds, default=other), (None, None, 3))
    rows, columns = _resampling(tf.shape(image)[0], size), _resampling(tf.shape(image)[1], size)
    small = tf.einsum("oh,hwc->owc", rows, tf.cast(image, tf.float32))
    small = tf.round(tf.einsum("pw,owc->opc", columns, small))
    # Turned after the resize: the result is square either way, and there is less to turn.
    return _upright(tf.ensure_shape(small, (size, size, 3)), exif_orientation(data))


def _resampling(length: Any, size: int) -> Any:
    """Weights (size, length) that resize one axis as pixels.resized does: the mean of an area where
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
    """The last channel, alpha, laid on white paper, as `pixels.decoded` does."""
    import tensorflow as tf

    most = float(image.dtype.max)
    colour, alpha = (
        tf.cast(image[..., :-1], tf.float32),
        tf.cast(image[..., -1:], tf.float32) / most,
    )
    return tf.cast(tf.round(colour * alpha + most * (1 - alpha)), image.dtype)


def _upright(image: Any, orientation: Any) -> Any:
    """Turned and mirrored by the EXIF orientation, 1 to 8 (EXIF 2.3, tag 0x0112)."""
    import tensorflow as tf

    turned = tf.where(orientation >= 5, tf.transpose(image, (1, 0, 2)), image)
    left_right = tf.reduce_any(tf.equal(orientation, (2, 3, 6, 7)))
    top_bottom = tf.reduce_any(tf.equal(orientation, (3, 4, 7, 8)))
    turned = tf.where(left_right, tf.reverse(turned, (1,)), turned)
    return tf.where(top_bottom, tf.reverse(turned, (0,)), turned)


def exif_orientation(data: Any) -> Any:
    """EXIF orientation of an image's bytes, in graph operations: int32, 1 where there is none."""
    import tensorflow as tf

    file = _File(data)
    start, end = tf.case(
        [
            (file.has(0, b"\xff\xd8\xff"), lambda: _jpeg_exif(file)),
            (file.has(0, b"\x89PNG"), lambda: _chunk(file, _png_chunk_at(file, b"eXIf"), 12)),
            (file.has(0, b"RIFF"), lambda: _webp_exif(file)),
        ],
        default=lambda: (tf.constant(-1), tf.constant(-1)),
    )
    start = tf.where(file.has(start, _EXIF), start + len(_EXIF), start)
    inside = (start >= 0) & (end > start)
    return tf.cond(
        inside, lambda: _orientation_of(file.between(start, end)), lambda: tf.constant(1)
    )


def _orientation_of(block: Any) -> Any:
    """The orientation in a TIFF block, as `headers.orientation` reads it."""
    import tensorflow as tf

    tiff = _File(block)
    is_little, is_big = tiff.has(0, b"II"), tiff.has(0, b"MM")

    def short(at: Any) -> Any:
        return tf.where(is_little, tiff.short(at), tiff.byte(at) * 256 + tiff.byte(at + 1))

    def long(at: Any) -> Any:
        """Numbers above 65,535, which no place or orientation here is, come as -1."""
        low, high = tf.where(is_little, at, at + 2), tf.where(is_little, at + 2, at)
        return tf.where(short(high) > 0, -1, short(low))

    directory = long(4)
    count = tf.where(directory < 0, 0, tf.minimum(short(directory), 512))

    def is_other(entry: Any) -> Any:
        return (entry < count) & (short(directory + 2 + 12 * entry) != _ORIENTATION_TAG)

    (entry,) = tf.while_loop(is_other, lambda entry: (entry + 1,), (tf.constant(0),))
    place = directory + 2 + 12 * entry
    number = tf.where(short(place + 2) == _LONG, long(place + 8), 1)
    value = tf.where(short(place + 2) == _SHORT, short(place + 8), number)
    whole = (entry < count) & (place + 12 <= tiff.length)
    good = (is_little | is_big) & whole & (value >= 1) & (value <= 8)
    return tf.where(good, value, 1)


# --- the parts of a file, as retrainer.inference.headers finds them ---
class _File:
    """The bytes of a file in the graph; behind its end there are zeros."""

    def __init__(self, data: Any) -> None:
        import tensorflow as tf

        self.data = data
        self.length = tf.strings.length(data)
        self._padded = tf.strings.join([data, bytes(16)])

    def text(self, at: Any, length: int) -> Any:
        import tensorflow as tf

        return tf.strings.substr(self._padded, tf.clip_by_value(at, 0, self.length), length)

    def has(self, at: Any, text: bytes) -> Any:
        return self.text(at, len(text)) == text

    def byte(self, at: Any) -> Any:
        import tensorflow as tf

        return tf.cast(tf.io.decode_raw(self.text(at, 1), tf.uint8)[0], tf.int32)

    def short(self, at: Any) -> Any:
        """A little-endian number of two bytes."""
        return self.byte(at) + 256 * self.byte(at + 1)

    def rest(self, at: Any) -> Any:
        import tensorflow as tf

        return tf.strings.substr(self.data, at, self.length)

    def between(self, start: Any, end: Any) -> Any:
        import tensorflow as tf

        start = tf.clip_by_value(start, 0, self.length)
        return tf.strings.substr(
            self.data, start, tf.clip_by_value(end, start, self.length) - start
        )


def _jpeg_segment_at(file: _File, name: int, text: bytes) -> Any:
    """Where the first segment before the scan with this marker and beginning lies, or -1."""
    import tensorflow as tf

    def size(at: Any) -> Any:
        return file.byte(at + 2) * 256 + file.byte(at + 3)

    def is_marker(at: Any) -> Any:
        kind = file.byte(at + 1)
        is_bare = tf.reduce_any(tf.equal(kind, (0x00, 0x01, *range(0xD0, 0xD9), 0xFF)))
        return tf.equal(file.byte(at), 0xFF) & ~is_bare

    def is_wanted(at: Any) -> Any:
        return file.has(at, bytes([0xFF, name])) & file.has(at + 4, text)

    def goes_on(at: Any) -> Any:
        is_last = file.has(at, b"\xff\xda") | file.has(at, b"\xff\xd9")
        is_cut = is_marker(at) & ((at + 2 + size(at) > file.length) | (size(at) < 2))
        return (at < file.length) & ~is_last & ~is_cut & ~is_wanted(at)

    def go_on(at: Any) -> tuple[Any]:
        return (tf.where(is_marker(at), at + 2 + size(at), at + 1),)

    (at,) = tf.while_loop(goes_on, go_on, (tf.constant(2),), maximum_iterations=_MOST_PARTS)
    is_whole = (size(at) >= 2) & (at + 2 + size(at) <= file.length)
    return tf.where(is_wanted(at) & is_whole, at, -1)


def _jpeg_exif(file: _File) -> tuple[Any, Any]:
    """Where the TIFF block of a JPEG's EXIF begins and ends; -1 if there is none."""
    import tensorflow as tf

    at = _jpeg_segment_at(file, 0xE1, _EXIF)
    size = file.byte(at + 2) * 256 + file.byte(at + 3)
    return tf.where(at < 0, -1, at + 4), at + 2 + size


def _png_chunk_at(file: _File, name: bytes) -> Any:
    """Where the first chunk of this name begins, or -1."""
    return _chunk_at(file, name, start=8, around=12, padded=False)


def _chunk_at(file: _File, name: bytes, *, start: int, around: int, padded: bool) -> Any:
    import tensorflow as tf

    def length(at: Any) -> Any:
        return _chunk_length(file, at, around)

    def goes_on(at: Any) -> Any:
        is_wanted = file.has(at + (4 if around == 12 else 0), name)
        return (at + 8 < file.length) & ~is_wanted

    def next_chunk(at: Any) -> tuple[Any]:
        size = length(at) + (length(at) % 2 if padded else 0)
        # What lies behind the end of the file is behind it, and does not overflow.
        return (at + around + tf.minimum(size, file.length - at),)

    (at,) = tf.while_loop(
        goes_on, next_chunk, (tf.constant(start),), maximum_iterations=_MOST_PARTS
    )
    return tf.where(at + 8 < file.length, at, -1)


def _chunk_length(file: _File, at: Any, around: int) -> Any:
    """The number of a chunk's bytes; one of 2 GiB or more is longer than any file here."""
    import tensorflow as tf

    octets = [file.byte(at + i) for i in range(4)]
    if around != 12:
        octets = [file.byte(at + 4 + i) for i in (3, 2, 1, 0)]
    small = tf.minimum(octets[0], 127)
    return small * 2**24 + octets[1] * 2**16 + octets[2] * 2**8 + octets[3]


def _chunk(file: _File, at: Any, around: int) -> tuple[Any, Any]:
    """Where the content of the chunk at `at` begins and ends; -1 if there is none."""
    import tensorflow as tf

    start = tf.where(at < 0, -1, at + 8)
    size = tf.minimum(_chunk_length(file, at, around), file.length)
    return start, tf.where(at < 0, -1, at + 8 + size)


def _webp_exif(file: _File) -> tuple[Any, Any]:
    return _chunk(file, _chunk_at(file, b"EXIF", start=12, around=8, padded=True), 8)


def _is_whole_gif(file: _File) -> Any:
    """Whether the first frame covers the picture, and nothing of it is transparent."""
    import tensorflow as tf

    flags = file.byte(10)
    colours = tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def goes_on(at: Any, in_blocks: Any, _clear: Any) -> Any:
        return (at < file.length) & (in_blocks | file.has(at, b"\x21"))

    def go_on(at: Any, in_blocks: Any, clear: Any) -> tuple[Any, Any, Any]:
        is_control = ~in_blocks & file.has(at, b"\x21\xf9")
        size = file.byte(at)
        return (
            tf.where(in_blocks, at + 1 + size, at + 2),
            tf.where(in_blocks, size > 0, True),
            clear | (is_control & (file.byte(at + 3) % 2 > 0)),
        )

    at, _, clear = tf.while_loop(
        goes_on,
        go_on,
        (13 + colours, tf.constant(False), tf.constant(False)),
        maximum_iterations=_MOST_PARTS,
    )
    covers = (
        file.has(at, b"\x2c\0\0\0\0")
        & (file.short(at + 5) >= file.short(6))
        & (file.short(at + 7) >= file.short(8))
    )
    return covers & ~clear
