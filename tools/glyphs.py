"""Pictures of characters in many hands, made here: what `tools.builtin_weights` trains on.

Fonts are only rendered. Nothing of a font is shipped, so their licences stay with them.
A picture goes through the stages of the UCI handwritten digits: a black and white character,
bent and turned like handwriting, scaled to fill a 32 x 32 box. That box is kept, in a margin of
four pixels; the trainer averages blocks of it (4 x 4 gives the 8 x 8 of those digits) and
enlarges the result.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# One entry per class. Characters of one shape at one size share a class. No digit is among them:
# the backbone must not have seen what the demo asks it to learn.
CLASSES = (
    *("A", "a", "Bß", "b", "Cc", "D", "d", "E", "e", "F", "f", "G", "g", "H", "h", "Il|", "i"),
    *("Jj", "Kk", "L", "M", "m", "N", "n", "Oo", "Pp", "Q", "q", "R", "r", "Ss", "T", "t", "Uu"),
    *("Vv", "Ww", "Xx", "Y", "y", "Zz", "&", "?", "@", "#", "$", "%", "!", "+", "=", "<", ">"),
    *("{", "}", "[", "]", "(", ")", "/", "\\", "*", "~", "€", "£", "¥", "§", "¶"),
    *("Γ", "Δ", "Θθ", "Λ", "Ξ", "Π", "Σ", "Φφ", "Ψψ", "Ω", "α", "β", "γ", "δ", "ε", "ζ", "η"),  # noqa: RUF001
    *("λ", "μ", "ξ", "π", "σ", "τ", "ω", "Б", "Дд", "Жж", "Ии", "Лл", "Фф", "Цц", "Чч", "Шш"),  # noqa: RUF001
    *("Ыы", "Ээ", "Юю", "Яя", "Њњ", "Ћ", "Æ", "æ", "ð", "þ", "Ø", "ñ", "é"),
)
FONT_SUFFIXES = {".ttf", ".otf", ".t1", ".pfb"}
GLYPH = 48  # side of a rendered character
INK = 40  # its larger extent within that
CANVAS = 72  # room to turn and bend it
BOX = 32  # side of the box a character is scaled to fill, as in the UCI digits
FIELD = 40  # side of the kept picture: the box and its margin
LEAST_LIKENESS = 0.55  # fonts whose characters look like nobody else's are left out
_CHUNK = 2000


@dataclass(frozen=True)
class Glyphs:
    """Rendered characters: `solid` as the fonts draw them, `thin` reduced to their middle line."""

    solid: Bytes
    thin: Bytes
    label: Labels
    fonts: int


def read_fonts(folders: list[Path]) -> Glyphs:
    """Render every class in every usable font below `folders`."""
    files = [p for folder in folders for p in folder.rglob("*") if p.suffix in FONT_SUFFIXES]
    by_name = {path.name: path for path in sorted(files)}  # some packages ship a font twice
    paths = [by_name[name] for name in sorted(by_name)]
    pictures: list[Bytes] = []
    classes: list[int] = []
    origins: list[int] = []
    for number, path in enumerate(paths):
        for drawn, picture in _characters(path):
            pictures.append(picture)
            classes.append(drawn)
            origins.append(number)
    if not pictures:
        raise SystemExit(f"no fonts below {', '.join(map(str, folders))}: see the docstring")
    solid, label, font = np.stack(pictures), np.array(classes), np.array(origins)
    keep = _familiar(solid, label, font)
    solid, label = solid[keep], label[keep]
    return Glyphs(solid, thinned(solid), label, len(np.unique(font[keep])))


def _characters(path: Path) -> list[tuple[int, Bytes]]:
    """Return (class, picture) of each character this font has."""
    try:
        font = ImageFont.truetype(str(path), INK)
        missing = _draw(font, "\uffff")
        drawn = [
            (label, _draw(font, character))
            for label, characters in enumerate(CLASSES)
            for character in characters
        ]
    except (OSError, ValueError):
        return []  # not a font that FreeType can scale
    return [
        (label, picture)
        for label, picture in drawn
        if picture is not None and (missing is None or not np.array_equal(picture, missing))
    ]


def _draw(font: ImageFont.FreeTypeFont, character: str) -> Bytes | None:
    """Draw one character, scaled to the same extent and centred; None when it has no ink."""
    left, top, right, bottom = font.getbbox(character)
    if right - left < 2 or bottom - top < 2 or max(right - left, bottom - top) > 6 * INK:
        return None
    image = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, fill=255, font=font)
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = INK / max(image.size)
    size = (max(2, round(image.width * scale)), max(2, round(image.height * scale)))
    field = Image.new("L", (GLYPH, GLYPH))
    field.paste(
        image.resize(size, Image.Resampling.BILINEAR),
        ((GLYPH - size[0]) // 2, (GLYPH - size[1]) // 2),
    )
    return np.asarray(field, np.uint8)


def _familiar(solid: Bytes, label: Labels, font: Labels) -> npt.NDArray[np.bool_]:
    """Mark the characters of fonts that, on average, resemble the mean of their class."""
    small = np.stack([cv2.resize(g, (12, 12), interpolation=cv2.INTER_AREA) for g in solid])
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    likeness = np.zeros(len(flat))
    for wanted in np.unique(label):
        rows = label == wanted
        mean = flat[rows].mean(0)
        likeness[rows] = flat[rows] @ (mean / (np.linalg.norm(mean) + 1e-6))
    per_font = np.bincount(font, likeness) / np.maximum(np.bincount(font), 1)
    keep: npt.NDArray[np.bool_] = (per_font[font] > LEAST_LIKENESS) & (likeness > 0.4)
    return keep


def thinned(solid: Bytes) -> Bytes:
    """Reduce strokes to lines one pixel wide (Zhang and Suen, 1984), all pictures at once."""
    ink = solid > 127
    for _ in range(GLYPH // 4):
        before = np.count_nonzero(ink)
        for first in (True, False):
            n = [
                np.roll(ink, shift, (1, 2))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            count = np.zeros(ink.shape, np.int8)
            turns = np.zeros(ink.shape, np.int8)
            for here, following in zip(n, n[1:] + n[:1], strict=True):
                count += here
                turns += ~here & following
            north, east, south, west = n[0], n[2], n[4], n[6]
            if first:
                edge = ~(north & east & south) & ~(east & south & west)
            else:
                edge = ~(north & east & west) & ~(north & south & west)
            ink &= ~((count >= 2) & (count <= 6) & (turns == 1) & edge)
        if np.count_nonzero(ink) == before:
            break
    return ink.astype(np.uint8) * 255


# ---------------------------------------------------------------- one picture


def written(glyphs: Glyphs, index: int, rng: np.random.Generator) -> Bytes:
    """Bend, turn, restroke and rescale one character: a FIELD x FIELD picture, 0 to 255."""
    pen = rng.random() < 0.6
    drawn = glyphs.thin[index] if pen else glyphs.solid[index]
    ink = cv2.dilate(drawn, np.ones((2, 2), np.uint8)) if pen else drawn
    ink = cv2.remap(ink, *_bent(rng), cv2.INTER_LINEAR)
    width = int(rng.integers(2, 8)) if pen else int(rng.integers(1, 4))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    if pen or rng.random() < 0.6:
        ink = cv2.dilate(ink, kernel)
    elif rng.random() < 0.5:
        ink = cv2.erode(ink, kernel)
    ink = cv2.GaussianBlur(ink, (0, 0), float(rng.uniform(0.6, 1.6)))
    ink = np.where(ink > rng.uniform(70, 130), 255, 0).astype(np.uint8)
    left, top, wide, high = cv2.boundingRect(ink)
    field = np.zeros((FIELD, FIELD), np.uint8)
    if wide < 2 or high < 2:
        return field
    tall = BOX * float(rng.uniform(0.85, 1.06))
    broad = min(tall * wide / high * float(np.exp(rng.normal(0, 0.15))), BOX * 1.05)
    if wide > 1.3 * high:  # a flat character keeps its shape
        tall = min(tall, max(6.0, broad * high / wide))
    size = (max(3, round(broad)), max(3, round(tall)))
    box = cv2.resize(ink[top : top + high, left : left + wide], size, interpolation=cv2.INTER_AREA)
    x = int(np.clip((FIELD - size[0]) / 2 + rng.normal(0, 1), 0, FIELD - size[0]))
    y = int(np.clip((FIELD - size[1]) / 2 + rng.normal(0, 1), 0, FIELD - size[1]))
    field[y : y + size[1], x : x + size[0]] = box
    return field


def _bent(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Where each pixel of the canvas is taken from: an affine map and a smooth random bend."""
    angle, shear = rng.normal(0, 0.16), rng.normal(0, 0.22)
    stretch = np.exp(rng.normal(0, 0.12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = turn @ np.array([[stretch, shear], [0, 1 / stretch]])
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) - CANVAS / 2
    strength = abs(rng.normal(0, 2.6))
    knots = int(rng.integers(3, 6))
    bend = cv2.resize(
        rng.normal(0, strength, (knots, knots, 2)).astype(np.float32),
        (CANVAS, CANVAS),
        interpolation=cv2.INTER_CUBIC,
    )
    x = affine[0, 0] * columns + affine[0, 1] * rows + bend[..., 0] + GLYPH / 2
    y = affine[1, 0] * columns + affine[1, 1] * rows + bend[..., 1] + GLYPH / 2
    return x.astype(np.float32), y.astype(np.float32)


# ---------------------------------------------------------------- many pictures


_shared: Glyphs | None = None


def _share(glyphs: Glyphs) -> None:
    global _shared  # noqa: PLW0603  one copy in each worker process
    _shared = glyphs
    cv2.setNumThreads(1)


def _chunk(seed: int, count: int) -> tuple[Bytes, Labels]:
    assert _shared is not None
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(_shared.label == c) for c in np.unique(_shared.label)]
    chosen = [int(rng.choice(members[rng.integers(len(members))])) for _ in range(count)]
    return np.stack([written(_shared, i, rng) for i in chosen]), _shared.label[chosen]


def many(glyphs: Glyphs, count: int, seed: int, workers: int = 2) -> tuple[Bytes, Labels]:
    """Return `count` pictures and their classes; the same for a seed, however many workers."""
    sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    seeds = [seed * 1_000_003 + number for number in range(len(sizes))]
    with ProcessPoolExecutor(workers, initializer=_share, initargs=(glyphs,)) as pool:
        parts = list(pool.map(_chunk, seeds, sizes))
    return np.concatenate([p for p, _ in parts]), np.concatenate([lab for _, lab in parts])
