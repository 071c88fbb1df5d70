"""From an image's bytes to the pixels that a network sees: one definition, for every use.

Exports repeat this in their own graph and are compared with it. Anything that changes a pixel needs
a new VERSION, which is part of the cache's fingerprint.
"""

import struct
import zlib
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

VERSION = "pixels-1"

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 50_000_000

# Shrinking by less than this needs no averaging, and linear is five times faster. At 227 to 224 pixels
# bottlenecks of both agree with an antialiased filter's to cosine 0.9998; at 227 to 160 linear falls to
# 0.992, area stays at 0.998 (150 flower photos, MobileNet 0.50).
_NEARLY = 1.125

Pixels = npt.NDArray[np.uint8]

# Threads are one per core already; OpenCV's own would only compete with them.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class RejectedError(ValueError):
    """The bytes are no image that can be used; the message says why, without the path."""


class Header(NamedTuple):
    """What the first bytes of an image say: its format, and its size in pixels as stored."""

    format: str
    width: int
    height: int


def pixels(body: bytes, size: int) -> Pixels:
    """The image as the network sees it: (size, size, 3) RGB, 0 to 255.

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
    seen = header(body)
    if seen.width * seen.height > MAX_PIXELS:
        raise RejectedError(
            f"{seen.width} x {seen.height} pixels, at most {MAX_PIXELS // 1_000_000} million are read"
        )
    if seen.width < 1 or seen.height < 1:
        raise RejectedError("its header says that it has no pixels")
    image = _jpeg(body, seen, least) if seen.format == "JPEG" else _by_opencv(body, seen)
    return upright(image, orientation(body, seen.format))


def too_large(size: int) -> str:
    """Why a file of `size` bytes, more than MAX_BYTES, is rejected."""
    return f"{size} bytes, at most {MAX_BYTES // 1024 // 1024} MiB are read"


def resized(image: Pixels, height: int, width: int) -> Pixels:
    """The image in exactly this size: averaged over areas where it shrinks, linear where it grows."""
    shrunk = (min(height, image.shape[0]), min(width, image.shape[1]))
    for shape in (shrunk, (height, width)):
        if image.shape[:2] != shape:
            most = max(image.shape[0] / shape[0], image.shape[1] / shape[1])
            how = cv2.INTER_AREA if most > _NEARLY else cv2.INTER_LINEAR
            image = cv2.resize(image, (shape[1], shape[0]), interpolation=how)  # type: ignore[assignment]
    return image


# --- formats ---
def header(body: bytes) -> Header:
    """Format and size of an image, told by its content.

    Raises:
        RejectedError: none of the known formats, or cut off within the header.
    """
    if not body:
        raise RejectedError("0 bytes")
    try:
        if body.startswith(b"\xff\xd8\xff"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(body, strict=False)
            return Header("JPEG", width, height)
        if body.startswith(b"\x89PNG\r\n\x1a\n") and body[12:16] == b"IHDR":
            return Header("PNG", *struct.unpack_from(">II", body, 16))
        if body.startswith((b"GIF87a", b"GIF89a")):
            return Header("GIF", *struct.unpack_from("<HH", body, 6))
        if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
            return _webp(body)
        if body.startswith(b"BM") and len(body) > 26:
            width, height = struct.unpack_from("<ii", body, 18)
            return Header("BMP", width, abs(height))
    except (
        struct.error,
        ValueError,
        KeyError,
    ) as error:  # KeyError: simplejpeg, if there is no frame
        raise RejectedError("the header cannot be read") from error
    raise RejectedError("not a JPEG, PNG, WebP, BMP or GIF image")


def _webp(body: bytes) -> Header:
    kind = body[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(body[24:27], "little") + 1
        height = int.from_bytes(body[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", body, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", body, 26))
    return Header("WebP", width, height)


def _jpeg(body: bytes, seen: Header, least: int) -> Pixels:
    # 1/8, 1/4 and 1/2 are the scales at which libjpeg-turbo's inverse DCT is fast.
    scale = next(
        (k for k in (8, 4, 2) if seen.width // k >= least and seen.height // k >= least), 1
    )
    options = {
        "min_height": seen.height // scale if scale > 1 else 0,
        "min_width": seen.width // scale if scale > 1 else 0,
    }
    _, _, colours, _ = simplejpeg.decode_jpeg_header(body, strict=False)
    ink = colours in ("CMYK", "YCCK")
    space = "CMYK" if ink else "RGB"
    try:
        image = simplejpeg.decode_jpeg(body, space, **options)
    except ValueError as error:
        # Bytes too many at the end do no harm and are common; missing ones do.
        if "extraneous bytes" not in str(error):
            raise RejectedError(f"JPEG: {_short(error)}") from error
        try:
            image = simplejpeg.decode_jpeg(body, space, strict=False, **options)
        except ValueError as again:
            raise RejectedError(f"JPEG: {_short(again)}") from again
    return _from_ink(image, inverted=b"Adobe" in body[:65536]) if ink else image


def _from_ink(image: Pixels, *, inverted: bool) -> Pixels:
    """RGB of CMYK. Adobe stores ink inverted (255 is none), and marks that in its own segment."""
    light = image.astype(np.uint16) if inverted else 255 - image.astype(np.uint16)
    return ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)


def _by_opencv(body: bytes, seen: Header) -> Pixels:
    if seen.format == "PNG":
        _check_png(body)
    try:
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RejectedError(f"{seen.format}: damaged") from error
    if image is None:
        raise RejectedError(f"{seen.format}: truncated or damaged")
    if image.dtype == np.uint16:  # 65,535 becomes 255
        image = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.dtype != np.uint8:
        raise RejectedError(f"{seen.format}: pixels of type {image.dtype} are not read")
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    if image.shape[2] == 4:
        return _over_white(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))  # type: ignore[arg-type]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _over_white(image: Pixels) -> Pixels:
    """RGB of RGBA, laid on white paper."""
    if image[..., 3].min() == 255:
        return np.ascontiguousarray(image[..., :3])
    alpha = image[..., 3:].astype(np.uint16)
    mixed = image[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _check_png(body: bytes) -> None:
    """Refuse a PNG whose chunks are cut off or damaged: libpng would complain on the terminal."""
    place = 8
    while place + 12 <= len(body):
        length = int.from_bytes(body[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(body):
            break
        if zlib.crc32(memoryview(body)[place + 4 : end]) != int.from_bytes(
            body[end : end + 4], "big"
        ):
            raise RejectedError("PNG: damaged (a checksum is wrong)")
        if body[place + 4 : place + 8] == b"IEND":
            return
        place = end + 4
    raise RejectedError("PNG: truncated")


# --- orientation ---
def orientation(body: bytes, kind: str) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or it makes no sense."""
    block = b""
    if kind == "JPEG":
        block = _jpeg_exif(body)
    elif kind == "PNG":
        place = body.find(b"eXIf", 8, 1 << 20)
        if place >= 0:
            block = body[place + 4 : place + 4 + int.from_bytes(body[place - 4 : place], "big")]
    elif kind == "WebP" and body[12:16] == b"VP8X" and body[20] & 0x08:
        place = body.rfind(b"EXIF")
        if place >= 0:
            block = body[place + 8 :].removeprefix(b"Exif\0\0")
    try:
        return _orientation(block)
    except struct.error:
        return 1


def _jpeg_exif(body: bytes) -> bytes:
    place = 2
    while place + 4 <= len(body) and body[place] == 0xFF and body[place + 1] not in (0xDA, 0xD9):
        length = int.from_bytes(body[place + 2 : place + 4], "big")
        if body[place + 1] == 0xE1 and body[place + 4 : place + 10] == b"Exif\0\0":
            return body[place + 10 : place + 2 + length]
        place += 2 + length
    return b""


def _orientation(block: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block (EXIF 2.3, section 4.6.4)."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    (place,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, place)
    for i in range(min(count, 512)):
        tag, _kind, _n, value = struct.unpack_from(order + "HHIH", block, place + 2 + 12 * i)
        if tag == 0x0112:
            return int(value) if 1 <= value <= 8 else 1
    return 1


def upright(image: Pixels, turned: int) -> Pixels:
    """The image turned and mirrored as its EXIF orientation (1 to 8) says."""
    if turned in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if turned in (3, 4, 7, 8):
        # 3: half a turn, 4: upside down; transposed, 7 and 8 read from below.
        image = image[::-1]
    if turned in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
