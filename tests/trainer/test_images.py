import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from tests.support import pictures
from tests.support.trainer_engine import encoded, photo, picture

from retrainer.inference import headers, pixels

Array = np.ndarray[Any, Any]


def apart(ours: Array, theirs: Array) -> float:
    """Mean difference of two pictures, of 255."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(int) - theirs.astype(int)).mean())


def test_every_kind_of_file_shows_what_pillow_shows_upright_on_white() -> None:
    wrong = {}
    for name, (body, truth) in pictures.kinds().items():
        ours = pixels.decoded(body, 1000)
        # Half a level: Pillow rounds 5 bits to 8 down. WebP and JPEG are decoded by the same code.
        if ours.shape != truth.shape or apart(ours, truth) >= 0.5:
            wrong[name] = ours.shape
    assert not wrong


def test_pixels_are_a_square_of_bytes_in_rgb() -> None:
    red = np.full((40, 80, 3), (250, 10, 20), np.uint8)
    got = pixels.pixels(encoded(red, "PNG"), 32)
    assert got.shape == (32, 32, 3)
    assert got.dtype == np.uint8
    assert got[16, 16].tolist() == [250, 10, 20]


def test_nonsense_in_exif_leaves_the_photo_as_it_is() -> None:
    whole = encoded(picture(3), exif=b"Exif\0\0II*\0" + struct.pack("<I", 4_000_000_000))
    assert pixels.decoded(whole, 1000).shape == (48, 64, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = (np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) * 16).astype(np.uint16)
    written, body = cv2.imencode(".png", deep)
    assert written
    got = pixels.decoded(body.tobytes(), 1)
    assert apart(got[..., 0], np.rint(deep / 257)) < 0.01


@pytest.mark.parametrize(("most", "dark"), [(2**12, True), (2**14, True), (2**15, False)])
def test_a_png_of_sixteen_bits_that_uses_few_of_them_is_known_as_nearly_black(
    most: int, dark: bool
) -> None:
    rows = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) * (most - 1) // (64 * 64 - 1)
    assert pixels.is_nearly_black(pictures.png(rows, bits=16, colour=0)) == dark
    whole = np.dstack([rows, np.full_like(rows, 65535)])
    assert pixels.is_nearly_black(pictures.png(whole, bits=16, colour=4)) == dark


def test_a_dark_photo_of_eight_bits_is_left_in_peace() -> None:
    assert not pixels.is_nearly_black(encoded(np.zeros((9, 9), np.uint8), "PNG"))
    assert not pixels.is_nearly_black(encoded(np.zeros((9, 9), np.uint8)))


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture(5)[..., 0]
    for kind in ("JPEG", "PNG"):
        got = pixels.decoded(encoded(grey, kind), 1000)
        assert (got[..., 0] == got[..., 2]).all()
        assert apart(got[..., 0], grey) < 2


def test_alpha_is_laid_on_white() -> None:
    clear = np.zeros((20, 20, 4), np.uint8)
    clear[:, 10:] = (200, 100, 0, 128)
    got = pixels.decoded(encoded(clear, "PNG"), 1)
    assert got[0, 0].tolist() == [255, 255, 255]
    assert np.abs(got[0, 15].astype(int) - (227, 177, 127)).max() <= 1


def test_a_gif_gives_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), v, np.uint8)) for v in (40, 200)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert pixels.decoded(out.getvalue(), 1)[5, 5].tolist() == [40, 40, 40]


def test_a_large_photo_is_averaged_not_sampled() -> None:
    # Stripes one pixel wide: sampling gives black and white at random, averaging gives grey.
    stripes = np.zeros((2000, 3000, 3), np.uint8)
    stripes[:, ::2] = 255
    for kind in ("PNG", "JPEG"):
        got = pixels.pixels(encoded(stripes, kind), 224).astype(int)
        assert np.abs(got - 127).max() < 12, kind


def test_decoding_at_a_fraction_gives_nearly_what_full_size_gives() -> None:
    body = photo(6, 1600, 1200)
    full = cv2.resize(simplejpeg.decode_jpeg(body), (224, 224), interpolation=cv2.INTER_AREA)
    assert apart(pixels.pixels(body, 224), full) < 1


@pytest.mark.parametrize(("size", "expected"), [(64, (128, 128)), (128, (128, 128)), (129, (256, 256)),
                                                (256, (256, 256)), (1000, (1024, 1024))])  # fmt: skip
def test_a_jpeg_is_decoded_no_smaller_than_needed(size: int, expected: tuple[int, int]) -> None:
    assert pixels.decoded(photo(7, 1024, 1024), size).shape[:2] == expected


def test_a_small_photo_is_enlarged() -> None:
    assert pixels.pixels(photo(8, 20, 30), 128).shape == (128, 128, 3)


def test_a_photo_narrow_one_way_is_both_shrunk_and_enlarged() -> None:
    assert pixels.pixels(photo(9, 20, 900), 128).shape == (128, 128, 3)


# --- rejected ---
def rejected(body: bytes) -> str:
    with pytest.raises(pixels.RejectedError) as raised:
        pixels.pixels(body, 128)
    return str(raised.value)


def test_a_text_is_no_image() -> None:
    assert rejected(b"hello, this is no photo") == "not a JPEG, PNG, WebP, BMP or GIF image"


@pytest.mark.parametrize(("start", "name"), [
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
    (b"\0\0\0\x1cftypmif1\0\0\0\0heic", "a HEIC photo"),
    (b"\0\0\0\x20ftypavif", "an AVIF image"),
    (b"II*\0\x08\0\0\0", "a TIFF image or a raw photo"),
    (b"%PDF-1.7", "a PDF"),
    (b"<?xml version='1.0'?>\n<svg xmlns=", "an SVG drawing"),
])  # fmt: skip
def test_a_photo_in_another_format_is_named_with_what_to_do(start: bytes, name: str) -> None:
    text = f"{name}, which is not read: convert it to JPEG or PNG"
    assert rejected(start + bytes(100)) == text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_damage_anywhere_gives_pixels_or_a_rejection_and_no_word(kind: str, capfd: Any) -> None:
    generator = np.random.default_rng(3)
    options: dict[str, Any] = {"exif": pictures.tiff(6, order="MM", number="LONG")}
    if kind in ("BMP", "GIF"):
        options = {}
    whole = encoded(picture(3, 40, 30), kind, **options)
    for _ in range(400):
        broken = bytearray(whole)
        # Most of what can go wrong stands in the headers.
        most = int(generator.choice([40, 120, len(whole)]))
        for at in generator.integers(0, min(most, len(whole)), generator.integers(1, 5)):
            broken[at] = generator.choice([0, 1, 127, 128, 255, int(generator.integers(256))])
        for _ in range(int(generator.integers(0, 2))):
            at = int(generator.integers(0, len(broken)))
            del broken[at : at + int(generator.integers(1, 9))]
        try:
            assert pixels.pixels(bytes(broken), 32).shape == (32, 32, 3)
        except pixels.RejectedError:
            continue
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_a_header_full_of_nonsense_costs_no_memory_and_no_time() -> None:
    bomb = bytearray(pictures.bitmaps()["8 bits, header 40"])
    bomb[18:26] = struct.pack("<ii", 8000, 8000)
    assert rejected(bytes(bomb)) == "BMP: truncated"
    endless = pictures.saved(pictures.smooth(), "JPEG")
    for filler in (b"\xff" * 20_000_000, b"\xff\0" * 10_000_000, b"\xff" * 20_000_000 + b"\0"):
        body = endless[:2] + filler + endless[2:]
        begun = time.process_time()
        assert headers.orientation(body, "JPEG") == 1
        read = time.process_time()
        body.count(b"\xff\xd8")
        counted = time.process_time()
        assert read - begun < 100 * (counted - read), "linear, as a search through the bytes is"


def test_nothing_is_no_image() -> None:
    assert rejected(b"") == "0 bytes"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_rejected(kind: str, share: float, capfd: Any) -> None:
    body = encoded(np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8), kind)
    assert rejected(body[: max(4, int(len(body) * share))])
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_a_png_with_a_wrong_checksum_is_rejected_without_chatter(capfd: Any) -> None:
    body = bytearray(encoded(picture(1), "PNG"))
    body[len(body) // 2] ^= 1
    assert rejected(bytes(body)) == "PNG: damaged (a checksum is wrong)"
    assert capfd.readouterr().err == ""


def _png_of(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"IHDR" + body
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def test_a_header_of_ten_billion_pixels_is_rejected_before_decoding() -> None:
    text = "100000 x 100000 pixels, at most 67 million are read"
    assert rejected(_png_of(100_000, 100_000)) == text
    jpeg = bytearray(photo(1))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 50_000, 50_000)
    assert rejected(bytes(jpeg)).startswith("50000 x 50000 pixels")
    bmp = bytearray(encoded(picture(1), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, -100_000)
    assert rejected(bytes(bmp)) == text
    gif = bytearray(encoded(picture(1), "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    assert rejected(bytes(gif)).startswith("60000 x 60000 pixels")


def test_a_photo_of_fifty_megapixels_as_phones_sell_them_is_read() -> None:
    grey = np.full((6144, 8160), 90, np.uint8)
    assert pixels.pixels(encoded(grey, quality=50), 128)[64, 64].tolist() == [90, 90, 90]


def test_an_image_of_no_pixels_is_rejected() -> None:
    assert rejected(_png_of(0, 5)) == "its header says that it has no pixels"


def test_more_than_64_mib_is_rejected() -> None:
    assert rejected(b"\xff\xd8\xff" + bytes(pixels.MAX_BYTES)) == (
        "67108867 bytes, at most 64 MiB are read"
    )


@pytest.mark.parametrize("name", pictures.odd_jpegs())
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_jpeg_that_is_odd_and_cut_off_is_rejected(name: str, share: float) -> None:
    body = pictures.odd_jpegs()[name].removesuffix(b"junk" * 9)
    assert "JPEG" in rejected(body[: int(len(body) * share)])


def test_a_progressive_jpeg_that_ends_between_two_scans_is_rejected() -> None:
    body = encoded(picture(1, 200, 200), progressive=True)
    assert "JPEG" in rejected(body[: body.rindex(b"\xff\xda")])


@pytest.mark.parametrize("name", pictures.bitmaps())
def test_a_bitmap_that_is_cut_off_is_rejected(name: str) -> None:
    body = pictures.bitmaps()[name]
    assert rejected(body[: len(body) // 2]) == "BMP: truncated"


def test_bytes_too_many_at_the_end_do_no_harm() -> None:
    body = photo(1)
    for odd in (body[:-2] + b"\0\0\0" + body[-2:], body + b"junk"):
        assert apart(pixels.decoded(odd, 1000), pixels.decoded(body, 1000)) == 0


def test_every_real_photo_is_read(flowers: Path) -> None:
    some = sorted(flowers.glob("*/*.jpg"))[::25]
    assert len(some) > 50
    for path in some:
        theirs = np.asarray(Image.open(path).convert("RGB"))
        assert apart(pixels.decoded(path.read_bytes(), 227), theirs) < 1, path
