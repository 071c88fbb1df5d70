"""Reads an image's format, size and EXIF orientation from its bytes, before a pixel is decoded.

Told by content, never by the file's name. `tests/trainer/test_images.py` holds each format beside
Pillow.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg

NOT_AN_IMAGE = "not a JPEG, PNG, WebP, BMP or GIF image"

# Formats of photos that neither TensorFlow nor LiteRT's users could read after the training.
_OTHER_FORMATS = (
    (re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "a HEIC photo"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "an AVIF image"),
    (re.compile(rb"....ftypcrx |FUJIFILM", re.DOTALL), "a raw photo"),
    (re.compile(rb"II\*\0|MM\0\*|II\x2b\0|IIRO|IIU\0"), "a TIFF image or a raw photo"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL image"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", re.DOTALL), "an SVG drawing"),
)
_CONVERT = "which is not read: convert it to JPEG or PNG"

PNG_START = b"\x89PNG\r\n\x1a\n"

# Markers of a JPEG (ITU T.81, table B.1): its beginning, its end, a scan, what EXIF and Adobe say.
EOI, SOS, APP1, APP14 = 0xD9, 0xDA, 0xE1, 0xEE
# A marker that a segment follows, or the end; the last 0xFF of it where fill bytes stand before.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Where the bits of a scan end: any marker but a restart, and a stuffed zero is none.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EXIF = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4


class RejectedError(ValueError):
    """The bytes are no image that can be used; the message says why, without the path."""


class Header(NamedTuple):
    """An image's format, and its size in pixels as stored."""

    format: str
    width: int
    height: int


class Part(NamedTuple):
    """A segment of a JPEG, or a chunk of a PNG or WebP: its name, and where its content lies."""

    name: bytes
    start: int
    end: int


def header(body: bytes) -> Header:
    """Read the format and size of an image.

    Raises:
        RejectedError: none of the formats that are read, or cut off within the header.
    """
    if not body:
        raise RejectedError("0 bytes")
    try:
        if body.startswith(b"\xff\xd8\xff"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(body, strict=False)
            return Header("JPEG", width, height)
        if body.startswith(PNG_START) and body[12:16] == b"IHDR":
            return Header("PNG", *struct.unpack_from(">II", body, 16))
        if body.startswith((b"GIF87a", b"GIF89a")):
            return Header("GIF", *struct.unpack_from("<HH", body, 6))
        if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
            return _webp(body)
        if body.startswith(b"BM") and len(body) > 26:
            return _bmp(body)
    except (struct.error, ValueError, KeyError) as error:
        # KeyError: simplejpeg, if there is no frame.
        raise RejectedError("the header cannot be read") from error
    other = next((name for pattern, name in _OTHER_FORMATS if pattern.match(body)), None)
    raise RejectedError(NOT_AN_IMAGE if other is None else f"{other}, {_CONVERT}")


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


def _bmp(body: bytes) -> Header:
    # The oldest header, of 12 bytes, has 16 bits for what all later ones have 32 for.
    form = "<HH" if struct.unpack_from("<I", body, 14)[0] == 12 else "<ii"
    width, height = struct.unpack_from(form, body, 18)
    return Header("BMP", width, abs(height))


# --- the parts of a file ---
def jpeg_segments(body: bytes) -> Iterator[Part]:
    """Go through the segments of a JPEG, scans included, as far as they can be recognised.

    Bytes between segments that are no marker are passed over, as decoders do; so are the fill bytes
    (0xFF) that may stand before any marker. The last part is named EOI, if the file has its end.
    """
    place = 2
    while marker := _MARKER.search(body, place):
        name, place = marker[0][1:], marker.end()
        if name == bytes([EOI]):
            yield Part(name, place, place)
            return
        end = place + int.from_bytes(body[place : place + 2], "big")
        if end < place + 2 or end > len(body):
            return
        yield Part(name, place + 2, end)
        place = end
        if name == bytes([SOS]):
            place = scan_end(body, place)


def scan_end(body: bytes, start: int) -> int:
    """Find where the bits of a JPEG's scan end that begin at `start`."""
    end = _SCAN_END.search(body, start)
    return len(body) if end is None else end.start()


def png_chunks(body: bytes) -> Iterator[Part]:
    """Go through the chunks of a PNG, whole ones only; checksums are not looked at."""
    place = len(PNG_START)
    while place + 12 <= len(body):
        end = place + 8 + int.from_bytes(body[place : place + 4], "big")
        if end + 4 > len(body):
            return
        yield Part(body[place + 4 : place + 8], place + 8, end)
        place = end + 4


def webp_chunks(body: bytes) -> Iterator[Part]:
    """Go through the chunks of a WebP; the last may be cut off."""
    place = 12
    while place + 8 <= len(body):
        length = int.from_bytes(body[place + 4 : place + 8], "little")
        yield Part(body[place : place + 4], place + 8, min(place + 8 + length, len(body)))
        place += 8 + length + length % 2


# --- orientation ---
def orientation(body: bytes, kind: str) -> int:
    """Read the EXIF orientation, 1 to 8; 1 (upright) where there is none or it makes no sense."""
    try:
        return _orientation(_exif(body, kind))
    except struct.error:
        return 1


def _exif(body: bytes, kind: str) -> bytes:
    """Find the TIFF block in which EXIF is kept; empty where there is none."""
    if kind == "JPEG":
        for part in jpeg_segments(body):
            if part.name == bytes([SOS]):
                break
            if part.name == bytes([APP1]) and body.startswith(_EXIF, part.start):
                return body[part.start + len(_EXIF) : part.end]
    chunks = {"PNG": (png_chunks, b"eXIf"), "WebP": (webp_chunks, b"EXIF")}
    if kind in chunks:
        go_through, name = chunks[kind]
        for part in go_through(body):
            if part.name == name:
                return body[part.start : part.end].removeprefix(_EXIF)
    return b""


def _orientation(block: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block (EXIF 2.3, section 4.6.4).

    It should be a SHORT; there are programs that write a LONG, which in big endian has the number
    two bytes further on.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    (place,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, place)
    for i in range(min(count, 512)):
        entry = place + 2 + 12 * i
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == _ORIENTATION_TAG:
            form = {_SHORT: "H", _LONG: "I"}.get(kind)
            value = struct.unpack_from(order + form, block, entry + 8)[0] if form else 1
            return int(value) if 1 <= value <= 8 else 1
    return 1
