"""Windows bitmaps (BMP) of every header and depth.

Decoded here: OpenCV takes the unused byte of 32 bits for alpha behind some headers, refuses 16 bits
behind others, and widens 5 bits to 8 by zeros, so that white is 248. Run-length encoded ones, which
are rare, are left to it.
"""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.inference.headers import RejectedError

Pixels = npt.NDArray[np.uint8]

_FILE_HEADER = 14
_CORE, _INFO, _WITH_ALPHA_MASK = 12, 40, 56  # bytes of information headers
_PLAIN, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 3, 6  # kinds of compression
_DEPTHS = (1, 4, 8, 16, 24, 32)
_MASKS = {16: (0x7C00, 0x03E0, 0x001F), 32: (0xFF0000, 0x00FF00, 0x0000FF)}


def decode_bitmap(body: bytes) -> Pixels | None:
    """Decode the pixels of a bitmap, (height, width, 3) RGB or (height, width, 4) with alpha.

    Returns:
        None if it is compressed.

    Raises:
        RejectedError: cut off, or of a depth that does not exist.
    """
    try:
        (start,) = struct.unpack_from("<I", body, 10)
        (info,) = struct.unpack_from("<I", body, _FILE_HEADER)
        compression, colours = _PLAIN, 0
        if info == _CORE:
            width, height, _, bits = struct.unpack_from("<HHHH", body, 18)
        else:
            width, height, _, bits, compression = struct.unpack_from("<iiHHI", body, 18)
            (colours,) = struct.unpack_from("<I", body, 46)
        masks = _masks(body, info, bits, compression)
    except struct.error as error:
        raise RejectedError("BMP: the header cannot be read") from error
    if compression not in (_PLAIN, _BIT_FIELDS, _ALPHA_BIT_FIELDS):
        return None
    if bits not in _DEPTHS:
        raise RejectedError(f"BMP: {bits} bits for a pixel are not read")
    lines = _lines(body, start, width, abs(height), bits)
    if height > 0:  # the usual case: from the bottom up
        lines = lines[::-1]
    if bits <= 8:
        size = 3 if info == _CORE else 4
        palette = _palette(body[_FILE_HEADER + info : start], size, min(colours or 256, 2**bits))
        return palette[_indices(lines, width, bits)]
    if bits == 24:
        return lines[:, : width * 3].reshape(abs(height), width, 3)[..., ::-1]
    numbers = np.ascontiguousarray(lines).view(f"<u{bits // 8}")[:, :width]
    return np.stack([_channel(numbers, mask) for mask in masks], axis=-1)


def _lines(body: bytes, start: int, width: int, height: int, bits: int) -> Pixels:
    """(height, bytes of a line) as stored; the padding of the last line may be missing."""
    stride = (width * bits + 31) // 32 * 4
    padding = stride - (width * bits + 7) // 8
    if len(body) < start + stride * height - padding:
        raise RejectedError("BMP: truncated")
    stored = body[start : start + stride * height].ljust(stride * height, b"\0")
    return np.frombuffer(stored, np.uint8).reshape(height, stride)


def _palette(stored: bytes, size: int, count: int) -> Pixels:
    """(256, 3) RGB of a table of blue, green, red and perhaps a byte that says nothing."""
    count = min(count, len(stored) // size)
    palette = np.zeros((256, 3), np.uint8)
    table = np.frombuffer(stored, np.uint8, count * size).reshape(count, size)
    palette[:count] = table[:, 2::-1]
    return palette


def _indices(lines: Pixels, width: int, bits: int) -> Pixels:
    if bits == 8:
        return lines[:, :width]
    if bits == 4:
        halves = np.stack([lines >> 4, lines & 15], axis=-1)
        return halves.reshape(len(lines), -1)[:, :width]
    return np.unpackbits(lines, axis=1)[:, :width]


def _masks(body: bytes, info: int, bits: int, compression: int) -> tuple[int, ...]:
    """Which bits of a pixel are red, green, blue and, if it has it, alpha."""
    if compression == _PLAIN:
        return _MASKS.get(bits, ())
    has_alpha = info >= _WITH_ALPHA_MASK or compression == _ALPHA_BIT_FIELDS
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", body, _FILE_HEADER + _INFO)
    return masks if masks[-1] else masks[:3]


def _channel(numbers: npt.NDArray[Any], mask: int) -> Pixels:
    """Take the bits under the mask, scaled so that all of them set give 255."""
    shift = (mask & -mask).bit_length() - 1 if mask else 0
    width = (mask >> shift).bit_length()
    shift += max(0, width - 16)
    most = mask >> shift
    values = (numbers.astype(np.uint32) & np.uint32(mask)) >> np.uint32(shift)
    if most in (0, 255):
        return values.astype(np.uint8)
    return ((values * np.uint32(255) + np.uint32(most // 2)) // np.uint32(most)).astype(np.uint8)
