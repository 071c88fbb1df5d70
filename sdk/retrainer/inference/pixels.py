"""From an image's bytes to the pixels that a network sees: one definition, for every use.

Exports repeat this in their own graph and are compared with it. Anything that changes a pixel needs
a new VERSION, which is part of the cache's fingerprint.
"""

import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from retrainer.inference import headers
from retrainer.inference.bitmaps import decode_bitmap
from retrainer.inference.headers import Header, RejectedError, header, orientation

__all__ = [
    "MAX_BYTES", "MAX_PIXELS", "VERSION", "Pixels", "RejectedError", "decoded", "is_nearly_black",
    "pixels", "resized", "too_large", "upright",
]  # fmt: skip

VERSION = "pixels-2"

MAX_BYTES = 64 * 1024 * 1024
# What phones sell as 50 megapixels is 8160 x 6144, a little more.
MAX_PIXELS = 2**26

# Shrinking by less than this needs no averaging, and linear is five times faster. At 227 to 224 pixels
# bottlenecks of both agree with an antialiased filter's to cosine 0.9998; at 227 to 160 linear falls to
# 0.992, area stays at 0.998 (150 flower photos, MobileNet 0.50).
_NEARLY = 1.125

Pixels = npt.NDArray[np.uint8]

# Threads are one per core already; OpenCV's own would only compete with them.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def pixels(body: bytes, size: int) -> Pixels:
    """Decode an image as the network sees it: (size, size, 3) RGB, 0 to 255.

    Upright by its EXIF orientation, alpha over white, 16 bits scaled to 8, the first frame of a GIF,
    squeezed to a square as retrain.py does, and antialiased: JPEG is decoded at 1/8, 1/4, 1/2 or full
    size (the smallest that has `size` pixels each way), then area-averaged.

    Raises:
        RejectedError: not an image, truncated, too large.
    """
    return resized(decoded(body, size), size, size)


def decoded(body: bytes, least: int) -> Pixels:
    """The upright image, (height, width, 3) RGB; JPEG may come smaller than stored, but with at
    least `least` pixels each way if it has them.

    Raises:
        RejectedError: not an image, truncated, too large.
    """
    if len(body) > MAX_BYTES:
        raise RejectedError(too_large(len(body)))
    head = header(body)
    if head.width * head.height > MAX_PIXELS:
        raise RejectedError(
            f"{head.width} x {head.height} pixels, at most {MAX_PIXELS // 1_000_000} million are read"
        )
    if head.width < 1 or head.height < 1:
        raise RejectedError("its header says that it has no pixels")
    match head.format:
        case "JPEG":
            image = _jpeg(body, head, least)
        case "PNG":
            image = _png(body)
        case "BMP":
            bitmap = decode_bitmap(body)
            image = _by_opencv(body, "BMP") if bitmap is None else _opaque(bitmap)
        case _:
            image = _by_opencv(body, head.format)
    return upright(image, orientation(body, head.format))


def too_large(size: int) -> str:
    """Why a file of `size` bytes, more than MAX_BYTES, is rejected."""
    return f"{size} bytes, at most {MAX_BYTES // 1024 // 1024} MiB are read"


def resized(image: Pixels, height: int, width: int) -> Pixels:
    """Resize to exactly this size: averaged over areas where it shrinks, linear where it grows."""
    shrunk = (min(height, image.shape[0]), min(width, image.shape[1]))
    for shape in (shrunk, (height, width)):
        if image.shape[:2] != shape:
            most = max(image.shape[0] / shape[0], image.shape[1] / shape[1])
            how = cv2.INTER_AREA if most > _NEARLY else cv2.INTER_LINEAR
            image = cv2.resize(image, (shape[1], shape[0]), interpolation=how)  # type: ignore[assignment]
    return image


# --- formats ---
# Warnings of libjpeg-turbo after which a picture is whole all the same.
_HARMLESS = ("extraneous bytes", "Inconsistent progression")
# Frames of baseline and extended sequential JPEG, by Huffman's and by arithmetic coding.
_SEQUENTIAL = (b"\xc0", b"\xc1", b"\xc9")


def _jpeg(body: bytes, head: Header, least: int) -> Pixels:
    # 1/8, 1/4 and 1/2 are the scales at which libjpeg-turbo's inverse DCT is fast.
    scale = next(
        (k for k in (8, 4, 2) if head.width // k >= least and head.height // k >= least), 1
    )
    shape = (head.height // scale, head.width // scale) if scale > 1 else (0, 0)
    _, _, colours, _ = simplejpeg.decode_jpeg_header(body, strict=False)
    ink = colours in ("CMYK", "YCCK")
    space = "CMYK" if ink else "RGB"
    try:
        image = simplejpeg.decode_jpeg(body, space, min_height=shape[0], min_width=shape[1])
    except ValueError:
        image = _mended_jpeg(body, space, shape)
    return _from_ink(image) if ink else image


def _mended_jpeg(body: bytes, space: str, shape: tuple[int, int]) -> Pixels:
    """Decode a JPEG that the decoder warns of, if nothing of the picture is missing.

    Only the first warning of a file is told. So what decoders overlook is first put right in the
    bytes; a warning that is left then tells of the picture.
    """
    mended, ends = _without_oddities(body)
    for strict in (True, False):
        try:
            image: Pixels = simplejpeg.decode_jpeg(
                mended, space, min_height=shape[0], min_width=shape[1], strict=strict
            )
        except ValueError as error:
            if not (strict and ends and any(text in str(error) for text in _HARMLESS)):
                raise RejectedError(f"JPEG: {_cause(error) if ends else 'truncated'}") from error
        else:
            return image
    raise AssertionError("the last try returns or raises")


def _without_oddities(body: bytes) -> tuple[bytes, bool]:
    """Mend what cameras and programs get wrong in a JPEG; returns it, and whether it had its end.

    Bytes between segments are dropped, segments that change no pixel too. An unknown version of JFIF
    becomes 1; Adobe's unknown transform the usual one; the scan of a sequential frame covers all 64
    coefficients, as it always does, whatever its header says. Where only the end mark is missing,
    it is set: a picture that is cut off still lacks data.
    """
    parts = [b"\xff\xd8"]
    sequential, ends = False, False
    components = 3
    for part in headers.jpeg_segments(body):
        name, content = part.name, bytearray(body[part.start : part.end])
        if name == bytes([headers.EOI]):
            ends = True
            break
        if 0xC0 <= name[0] <= 0xCF and name not in (b"\xc4", b"\xc8", b"\xcc"):
            sequential = name in _SEQUENTIAL
            components = content[5] if len(content) > 5 else 3
        if name == b"\xe0" and content.startswith(b"JFIF\0") and len(content) > 5:
            content[5] = 1
        elif name == bytes([headers.APP14]) and content.startswith(b"Adobe") and len(content) > 11:
            content[11] = content[11] if content[11] <= 2 else (2 if components == 4 else 1)
        elif 0xE0 <= name[0] <= 0xEF or name == b"\xfe":
            continue
        if name == bytes([headers.SOS]) and sequential and len(content) > 3:
            content[-3:] = b"\0\x3f\0"
        parts.append(b"\xff" + name + struct.pack(">H", len(content) + 2) + bytes(content))
        if name == bytes([headers.SOS]):
            parts.append(body[part.end : headers.scan_end(body, part.end)])
    if ends or sequential:
        parts.append(b"\xff\xd9")
    return b"".join(parts), ends


def _from_ink(image: Pixels) -> Pixels:
    """RGB of CMYK, stored as everyone stores it in JPEG: inverted, 255 is no ink.

    Adobe's mark says nothing of it: files without the mark come from the same programs.
    """
    light = image.astype(np.uint16)
    return ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)


# Chunks of a PNG that decide its pixels. Others make decoders show the animation of an APNG, or
# print what is wrong with a colour profile.
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def _png(body: bytes) -> Pixels:
    grey_key: int | None = None
    transparent = next((p for p in headers.png_chunks(body) if p.name == b"tRNS"), None)
    bits, colour = body[24], body[25]
    if transparent is not None and colour == 0:  # OpenCV knows no alpha of grey
        grey_key = int.from_bytes(body[transparent.start : transparent.start + 2])
        grey_key = grey_key * 255 // (2**bits - 1) if bits < 8 else grey_key
    return _by_opencv(_pixel_chunks(body), "PNG", grey_key)


def _pixel_chunks(body: bytes) -> bytes:
    """Copy a PNG with the chunks that decide its pixels, and no others."""
    parts = [headers.PNG_START]
    for name, start, end in headers.png_chunks(body):
        if name not in _PIXEL_CHUNKS:
            continue
        if zlib.crc32(memoryview(body)[start - 4 : end]) != int.from_bytes(body[end : end + 4]):
            raise RejectedError("PNG: damaged (a checksum is wrong)")
        parts.append(body[start - 8 : end + 4])
        if name == b"IEND":
            return b"".join(parts)
    raise RejectedError("PNG: truncated")


def is_nearly_black(body: bytes) -> bool:
    """Say whether an image that can be read is a PNG of 16 bits which uses at most 14 of them.

    X-ray, thermal and depth cameras write 12 bits so: white is then 15 of 255. Nothing tells such a
    picture from one that is meant to be dark, so it is left as it is, and a warning says so.
    """
    if not body.startswith(headers.PNG_START) or body[24] != 16:
        return False
    image = cv2.imdecode(np.frombuffer(_pixel_chunks(body), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return False
    colours = image if image.ndim == 2 else image[..., :3]
    return bool(colours.max() < 2**14)


def _by_opencv(body: bytes, kind: str, clear: int | None = None) -> Pixels:
    """Decode with OpenCV; `clear` is the grey that is transparent, if one is."""
    try:
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RejectedError(f"{kind}: damaged") from error
    if image is None:
        raise RejectedError(f"{kind}: truncated or damaged")
    paper = image == clear if clear is not None and image.ndim == 2 else None
    if image.dtype == np.uint16:  # 65,535 becomes 255
        image = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.dtype != np.uint8:
        raise RejectedError(f"{kind}: pixels of type {image.dtype} are not read")
    if image.ndim == 2:
        if paper is not None:
            image[paper] = 255
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    if image.shape[2] == 4:
        return _opaque(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))  # type: ignore[arg-type]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _opaque(image: Pixels) -> Pixels:
    """RGB of RGB or RGBA, laid on white paper."""
    if image.shape[2] == 3 or image[..., 3].min() == 255:
        return np.ascontiguousarray(image[..., :3])
    alpha = image[..., 3:].astype(np.uint16)
    mixed = image[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def upright(image: Pixels, turned: int) -> Pixels:
    """Turn and mirror the image as its EXIF orientation (1 to 8) says."""
    if turned in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if turned in (3, 4, 7, 8):
        # 3: half a turn, 4: upside down; transposed, 7 and 8 read from below.
        image = image[::-1]
    if turned in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _cause(error: Exception) -> str:
    return "of a kind that is not read; save it anew" if "nsupported" in str(error) else "damaged"
