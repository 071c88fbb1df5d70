"""Files of pictures as programs and devices write them, also those that Pillow cannot write."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

Array = np.ndarray[Any, Any]

MASKS_565 = (0xF800, 0x07E0, 0x001F)
MASKS_8888 = (0x00FF0000, 0x0000FF00, 0x000000FF)
ALPHA_MASK = 0xFF000000


def smooth(width: int = 300, height: int = 200, seed: int = 1) -> Array:
    """A picture, (height, width, 3) RGB, that looks different however it is turned or mirrored."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image: Image.Image | Array, kind: str, **options: Any) -> bytes:
    """The picture as Pillow writes it."""
    out = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(out, kind, **options)
    return out.getvalue()


# --- EXIF ---
def tiff(orientation: int, *, order: str, number: str) -> bytes:
    """A TIFF block with two tags: the maker, and the orientation as SHORT or LONG."""
    sign = "<" if order == "II" else ">"
    kind, value = {
        "SHORT": (3, struct.pack(sign + "HH", orientation, 0)),
        "LONG": (4, struct.pack(sign + "I", orientation)),
    }[number]
    return (
        order.encode()
        + struct.pack(sign + "HIH", 42, 8, 2)
        + struct.pack(sign + "HHI", 0x010F, 2, 4)
        + b"ACM\0"
        + struct.pack(sign + "HHI", 0x0112, kind, 1)
        + value
        + bytes(4)
    )


def with_exif(body: bytes, block: bytes) -> bytes:
    """The JPEG, PNG or WebP with this TIFF block where its format keeps EXIF."""
    if body.startswith(b"\xff\xd8"):
        segment = b"Exif\0\0" + block
        return body[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + body[2:]
    if body.startswith(b"\x89PNG"):
        return body[:33] + chunk(b"eXIf", block) + body[33:]
    width, height = Image.open(io.BytesIO(body)).size
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    alpha = 0x10 if Image.open(io.BytesIO(body)).mode == "RGBA" else 0
    extended = riff(b"VP8X", bytes([0x08 | alpha, 0, 0, 0]) + size)
    parts = b"WEBP" + extended + body[12:] + riff(b"EXIF", block)
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def riff(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


# --- PNG ---
def chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(
    rows: Array, *, bits: int, colour: int, palette: bytes = b"", transparent: bytes = b""
) -> bytes:
    """A PNG of these samples: (height, width) or (height, width, channels), `bits` each.

    Args:
        rows: the samples, 0 to 2 ** bits - 1.
        bits: 1, 2, 4, 8 or 16.
        colour: the colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        palette: content of PLTE.
        transparent: content of tRNS.
    """
    height, width = rows.shape[:2]
    flat = rows.reshape(height, -1)
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in flat]
    elif bits == 8:
        packed = [row.astype(np.uint8).tobytes() for row in flat]
    else:
        places = np.arange(bits - 1, -1, -1)
        packed = [
            np.packbits((row[:, None] >> places & 1).astype(np.uint8).ravel()).tobytes()
            for row in flat.astype(np.uint8)
        ]
    data = zlib.compress(b"".join(b"\0" + row for row in packed))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparent)] if transparent else []
    parts += [chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated_png(default: Array, frame: Array) -> bytes:
    """An APNG of one frame, whose default image, which all other programs show, is another."""
    still, moving = saved(default, "PNG"), saved(frame, "PNG")
    height, width = frame.shape[:2]
    data = b"".join(content for name, content in _chunks(moving) if name == b"IDAT")
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0)
    head, rest = still[:33], still[33:]
    end = chunk(b"IEND", b"")
    return (
        head
        + chunk(b"acTL", struct.pack(">II", 1, 0))
        + rest.removesuffix(end)
        + chunk(b"fcTL", control)
        + chunk(b"fdAT", struct.pack(">I", 1) + data)
        + end
    )


def _chunks(body: bytes) -> list[tuple[bytes, bytes]]:
    parts, place = [], 8
    while place < len(body):
        (length,) = struct.unpack_from(">I", body, place)
        parts.append((body[place + 4 : place + 8], body[place + 8 : place + 8 + length]))
        place += 12 + length
    return parts


# --- BMP ---
def bmp(
    rows: Array,
    *,
    bits: int,
    palette: Array | None = None,
    header: int = 40,
    masks: tuple[int, ...] = (),
    top_down: bool = False,
) -> bytes:
    """A Windows bitmap.

    Args:
        rows: (height, width) numbers, each a pixel as it is stored: an index, or its colour's bits.
        bits: per pixel: 1, 4, 8, 16, 24 or 32.
        palette: (n, 3) RGB.
        header: bytes of the information header: 12, 40, 56, 108 or 124.
        masks: of red, green, blue and perhaps alpha; makes it BI_BITFIELDS.
        top_down: the first row is the uppermost.
    """
    height, width = rows.shape
    colours = b""
    if palette is not None:
        entry = 3 if header == 12 else 4
        bgrx = np.zeros((len(palette), entry), np.uint8)
        bgrx[:, :3] = palette[:, ::-1]
        colours = bgrx.tobytes()
    if bits < 8:
        places = np.arange(bits - 1, -1, -1)
        lines = [
            np.packbits((row[:, None] >> places & 1).astype(np.uint8).ravel()).tobytes()
            for row in rows.astype(np.uint8)
        ]
    else:
        octets = rows.astype("<u4").reshape(height, width, 1).view(np.uint8)
        lines = [row[:, : bits // 8].tobytes() for row in octets]
    lines = [line + bytes(-len(line) % 4) for line in (lines if top_down else lines[::-1])]
    data = b"".join(lines)
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        count = 0 if palette is None else len(palette)
        info = struct.pack(
            "<IiiHHIIiiII",
            *(header, width, -height if top_down else height, 1, bits, 3 if masks else 0),
            *(len(data), 2835, 2835, count, 0),
        )
        fields = b"".join(struct.pack("<I", mask) for mask in masks)
        if header == 40:
            info += fields  # behind the header, three of them
        else:
            info = (info + fields).ljust(header, b"\0")
            if header >= 108:
                info = info[:56] + b"BGRs" + info[60:]
    start = 14 + len(info) + len(colours)
    return struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + info + colours + data


def bitmaps() -> dict[str, bytes]:
    """A bitmap of every header and depth, of one picture."""
    rgb = smooth(90, 60).astype(np.uint32)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    whole = red << 16 | green << 8 | blue
    five = red >> 3 << 10 | green >> 3 << 5 | blue >> 3
    six = red >> 3 << 11 | green >> 2 << 5 | blue >> 3
    few = Image.fromarray(rgb.astype(np.uint8))
    kinds: dict[str, bytes] = {}
    for bits in (1, 4, 8):
        quantized = few.quantize(2**bits)
        index = np.asarray(quantized).astype(np.uint32)
        palette = np.array(quantized.getpalette(), np.uint8).reshape(-1, 3)[: 2**bits]
        for header in (12, 40, 108, 124):
            if header == 12:
                palette = np.vstack([palette, np.zeros((2**bits - len(palette), 3), np.uint8)])
            kinds[f"{bits} bits, header {header}"] = bmp(
                index, bits=bits, palette=palette, header=header
            )
        if bits == 8:
            kinds["8 bits, top down"] = bmp(index, bits=8, palette=palette, top_down=True)
    for header in (12, 40, 108, 124):
        kinds[f"24 bits, header {header}"] = bmp(whole, bits=24, header=header)
    kinds["24 bits, top down"] = bmp(whole, bits=24, top_down=True)
    kinds["16 bits, 5 each"] = bmp(five, bits=16)
    kinds["16 bits, 5 6 5"] = bmp(six, bits=16, masks=MASKS_565)
    kinds["16 bits, 5 6 5, header 108"] = bmp(six, bits=16, masks=MASKS_565, header=108)
    kinds["32 bits, reserved 0"] = bmp(whole, bits=32)
    kinds["32 bits, reserved random"] = bmp(whole | (red * 77 & 255) << 24, bits=32)
    kinds["32 bits, masks"] = bmp(whole, bits=32, masks=MASKS_8888)
    kinds["32 bits, masks, header 124"] = bmp(whole, bits=32, masks=MASKS_8888, header=124)
    swapped = blue << 16 | green << 8 | red
    kinds["32 bits, masks of RGBX"] = bmp(swapped, bits=32, masks=MASKS_8888[::-1], header=108)
    clear = whole | green << 24
    for header in (56, 108, 124):
        kinds[f"32 bits, alpha, header {header}"] = bmp(
            clear, bits=32, masks=(*MASKS_8888, ALPHA_MASK), header=header
        )
    return kinds


# --- JPEG ---
def with_jfif_version(body: bytes, major: int) -> bytes:
    at = body.index(b"JFIF\0") + 5
    return body[:at] + bytes([major]) + body[at + 1 :]


def with_scan_header(body: bytes, header: bytes) -> bytes:
    """The JPEG with these three bytes (Ss, Se, Ah and Al) at the end of its first scan's header."""
    at = body.index(b"\xff\xda")
    (length,) = struct.unpack_from(">H", body, at + 2)
    end = at + 2 + length
    return body[: end - 3] + header + body[end:]


def without_segment(body: bytes, name: bytes) -> bytes:
    at = body.index(name)
    (length,) = struct.unpack_from(">H", body, at + 2)
    return body[:at] + body[at + 2 + length :]


def with_segment(body: bytes, name: bytes, content: bytes) -> bytes:
    return body[:2] + name + struct.pack(">H", len(content) + 2) + content + body[2:]


def odd_jpegs() -> dict[str, bytes]:
    """What cameras and programs write against the standard; all programs show the whole picture."""
    body = saved(smooth(), "JPEG", quality=95)
    progressive = saved(smooth(), "JPEG", quality=95, progressive=True)
    end = len(body) - 2
    return {
        "scan header of zeros": with_scan_header(body, b"\0\0\0"),
        "scan header of nonsense": with_scan_header(body, b"\x01\x05\x21"),
        "JFIF version 0": with_jfif_version(body, 0),
        "JFIF version 3": with_jfif_version(body, 3),
        "JFIF version 0, progressive": with_jfif_version(progressive, 0),
        "both": with_scan_header(with_jfif_version(body, 0), b"\0\0\0"),
        "fill bytes": body.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb", 1),
        "stray bytes between segments": body.replace(b"\xff\xdb", b"\x12\x34\xff\xdb", 1),
        "stray bytes before the end": body[:end] + b"\0\0\0" + body[end:],
        "bytes after the end": body + b"junk" * 9,
        "no end mark": body[:end],
        "damaged colour profile": with_segment(body, b"\xff\xe2", b"ICC_PROFILE\0\x05\x02nonsense"),
        "Adobe's transform 9": with_segment(
            without_segment(body, b"\xff\xe0"), b"\xff\xee", b"Adobe\0\x64\0\0\0\0\x09"
        ),
    }


# --- every kind, with what is to be seen ---
def on_white(image: Image.Image) -> Array:
    """The picture as Pillow shows it on white paper: (height, width, 3) RGB."""
    clear = image.convert("RGBA")
    paper = Image.new("RGBA", clear.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(paper, clear).convert("RGB"))


def by_pillow(body: bytes) -> Array:
    image = Image.open(io.BytesIO(body))
    return on_white(ImageOps.exif_transpose(image))


def kinds() -> dict[str, tuple[bytes, Array]]:
    """Files of every kind that is read, and the pixels to be seen: by Pillow, where it reads them."""
    samples: dict[str, tuple[bytes, Array]] = {}
    picture = smooth()
    image = Image.fromarray(picture)

    def add(name: str, body: bytes, truth: Array | None = None) -> None:
        samples[name] = (body, by_pillow(body) if truth is None else truth)

    for kind, options in (
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    ):
        body = saved(image, kind, **options)
        for turned in range(1, 9):
            for order in ("II", "MM"):
                for number in ("SHORT", "LONG"):
                    block = tiff(turned, order=order, number=number)
                    add(f"{kind} turned {turned} {order} {number}", with_exif(body, block))
    turned_jpeg = with_exif(saved(image, "JPEG", quality=95), tiff(6, order="MM", number="SHORT"))
    add("JPEG turned behind fill bytes", turned_jpeg.replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1))
    plain_png = saved(image, "PNG")
    late = chunk(b"eXIf", tiff(6, order="MM", number="SHORT"))
    add("PNG turned behind its pixels", plain_png[:-12] + late + plain_png[-12:])
    decoy = b"Comment\0eXIfMM" + bytes(20)
    add(
        "PNG with a comment that says eXIf", plain_png[:33] + chunk(b"tEXt", decoy) + plain_png[33:]
    )

    whole = by_pillow(saved(image, "JPEG", quality=95))
    for name, body in odd_jpegs().items():
        add(f"JPEG, {name}", body, whole)
    for name, mode in (("grey", "L"), ("CMYK", "CMYK")):
        add(f"JPEG, {name}", saved(image.convert(mode), "JPEG", quality=95))
    add("JPEG, progressive", saved(image, "JPEG", quality=95, progressive=True))
    inked = saved(image.convert("CMYK"), "JPEG", quality=95)
    add("JPEG, CMYK without a mark", without_segment(inked, b"\xff\xee"))
    add("JPEG, CMYK turned", with_exif(
        without_segment(inked, b"\xff\xee"), tiff(6, order="II", number="SHORT")
    ))  # fmt: skip

    for bits in (1, 2, 4, 8, 16):
        most = 2**bits - 1
        grey = picture[..., 0].astype(np.uint32) * most // 255
        key = int(grey[100, 100])
        expected = np.repeat(np.rint(grey * (255 / most))[..., None], 3, axis=2).astype(np.uint8)
        add(f"PNG, grey of {bits}", png(grey, bits=bits, colour=0), expected)
        cleared = np.where((grey == key)[..., None], np.uint8(255), expected)
        add(
            f"PNG, grey of {bits} with a clear one",
            png(grey, bits=bits, colour=0, transparent=struct.pack(">H", key)),
            cleared,
        )
        if bits <= 8:
            palette = np.random.default_rng(0).integers(0, 256, (2**bits, 3), dtype=np.uint8)
            colours = palette.tobytes()
            add(f"PNG, palette of {bits}", png(grey, bits=bits, colour=3, palette=colours))
            add(
                f"PNG, palette of {bits} with clear ones",
                png(grey, bits=bits, colour=3, palette=colours, transparent=b"\0\x64"),
            )
        else:
            rgb = picture.astype(np.uint32) * most // 255
            clear = struct.pack(">HHH", *rgb[100, 100].tolist())
            add(f"PNG, RGB of {bits}", png(rgb, bits=bits, colour=2))
            add(
                f"PNG, RGB of {bits} with a clear one",
                png(rgb, bits=bits, colour=2, transparent=clear),
            )
            add(f"PNG, RGBA of {bits}", png(np.dstack([rgb, rgb[..., :1]]), bits=bits, colour=6))
            add(f"PNG, grey and alpha of {bits}", png(rgb[..., :2], bits=bits, colour=4))
    add("PNG, animated", animated_png(picture, picture[::-1].copy()), picture)

    for name, body in bitmaps().items():
        truth = None if "RGBX" not in name else smooth(90, 60)
        add(f"BMP, {name}", body, truth)

    add("WebP, lossy", saved(image, "WEBP", quality=95))
    clear_image = image.convert("RGBA")
    clear_image.putalpha(image.convert("L"))
    add("WebP, alpha", saved(clear_image, "WEBP", lossless=True))
    for name, first in (("animated", image), ("animated with alpha", clear_image)):
        more = [first.rotate(90)]
        add(f"WebP, {name}", saved(first, "WEBP", lossless=True, save_all=True, append_images=more))

    few = image.quantize(255)
    add("GIF", saved(few, "GIF"))
    add("GIF, animated", saved(few, "GIF", save_all=True, append_images=[few.rotate(90)]))
    index = int(np.asarray(few)[100, 100])
    add("GIF, with a clear colour", saved(few, "GIF", transparency=index))
    return samples
