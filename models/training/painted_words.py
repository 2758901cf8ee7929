"""Rendered crops of painted roof words with their texts, and of roofs without any: all that the reader is trained on.

A word is painted on a roof in the image's own resolution, blurred, soiled, compressed, and cut out with the errors of a
detected region by the same `rectify` that the pipeline uses. The names that judge the reader never occur.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from models.reader.placement import Place
from models.reader.rectify import rectify
from models.rendering.lettering import TRAINING_FACES, LetteringStyle, random_style, random_text, word_mask

SMALLEST_LETTER_PX = 6.0
LARGEST_LETTER_PX = 60.0
_TURNED_SHARE = 0.10
"""Share of words shown upside down and labelled unreadable: the right way up then wins clearly when both are read."""
EMPTY_SHARE = 0.08
"""Share of crops without a word."""
_SMALLEST_MIXED_PX = 12.0
"""Words with small letters are at least so high: a small letter is little more than half of that."""
_READS_UPSIDE_DOWN = set("HINOSXZMW689 01")
"""A text of these alone may read as another text upside down: never taught as unreadable."""


@dataclass(frozen=True)
class PaintedCrop:
    """One training or test sample of the reader."""

    image: np.ndarray
    """uint8 (32, w, 3)."""
    text: str
    """What must be read; empty where nothing can be."""


@dataclass(frozen=True)
class PaintedRegion:
    """A roof with the region that a detector would give of what is painted on it."""

    image: np.ndarray
    """uint8 (H, W, 3)."""
    place: Place
    """Off in place, size and heading; the right way up."""
    text: str
    """Empty where nothing can be read."""

    def cut_out(self) -> PaintedCrop:
        """What is cut out at the place as it is, room around it included."""
        return PaintedCrop(rectify(self.image, *self.place), self.text)

    def turned(self) -> "PaintedRegion":
        """The same upside down; the heading is that of a line, not of a reading direction."""
        height, width = self.image.shape[:2]
        place = self.place._replace(x_px=width - self.place.x_px, y_px=height - self.place.y_px)
        return replace(self, image=np.ascontiguousarray(self.image[::-1, ::-1]), place=place)


def painted_crop(rng: np.random.Generator) -> PaintedCrop:
    """A sample as training mixes them: mostly words, some upside down, some roofs with nothing to read."""
    height_px = random_height_px(rng)
    if rng.random() < EMPTY_SHARE:
        return empty_crop(rng, height_px)
    word = painted_word(rng, random_text(rng), height_px, legible(random_style(rng, TRAINING_FACES), height_px))
    if rng.random() < _TURNED_SHARE and set(word.text) - _READS_UPSIDE_DOWN:
        return replace(word, image=np.ascontiguousarray(word.image[::-1, ::-1]), text="")
    return word


def random_height_px(rng: np.random.Generator) -> float:
    """Height of letters as training mixes them."""
    # More small letters than large ones: they are the hard ones, and past 32 px the crop looks the same.
    return float(SMALLEST_LETTER_PX * (LARGEST_LETTER_PX / SMALLEST_LETTER_PX) ** (rng.random() ** 1.3))


def painted_word(rng: np.random.Generator, text: str, letter_height_px: float, style: LetteringStyle) -> PaintedCrop:
    """A word on a roof, seen and cut out with all errors, the right way up."""
    return painted_region(rng, text, letter_height_px, style).cut_out()


def painted_region(
    rng: np.random.Generator, text: str, letter_height_px: float, style: LetteringStyle
) -> PaintedRegion:
    """A word on a roof, seen with all errors, and a region that is off as a detector's is."""
    mask = word_mask(text, letter_height_px, style)
    h, w = mask.shape
    pad_y, pad_x = int(0.6 * h) + 3, int(0.9 * h) + 3
    canvas = _roof(rng, h + 2 * pad_y, w + 2 * pad_x, letter_height_px)
    coverage = _slightly_off(rng, mask, pad_x, pad_y)
    coverage *= _wear(rng, coverage.shape, letter_height_px)
    canvas += coverage[..., None] * (_paint(rng, canvas) - canvas)
    if rng.random() < 0.25:
        _clutter(rng, canvas, letter_height_px, count=int(rng.integers(1, 4)), size=0.3)
    if rng.random() < 0.3:
        _seams(rng, canvas, letter_height_px)
    image = _seen(rng, canvas, letter_height_px)
    # The region as a detector would give it: off in place, size and, as far as a long region can be, in heading.
    height = h * rng.uniform(0.85, 1.25)
    start, end = rng.uniform(-0.15, 0.5, 2) * h
    tilt_deg = min(5.0, float(np.rad2deg(np.arctan(0.5 * h / max(w, 1)))))
    place = Place(
        x_px=pad_x + w / 2 + (end - start) / 2,
        y_px=pad_y + h / 2 + rng.uniform(-0.1, 0.1) * h,
        length_px=w + start + end,
        width_px=height,
        heading_deg=90 + rng.uniform(-tilt_deg, tilt_deg),
    )
    return PaintedRegion(image, place, text)


def empty_crop(rng: np.random.Generator, height_px: float) -> PaintedCrop:
    """A roof region without a word."""
    return empty_region(rng, height_px).cut_out()


def empty_region(rng: np.random.Generator, height_px: float) -> PaintedRegion:
    """A roof region without a word: bare, seams, stripes, rows of vents, arrows and logos."""
    h, w = round(height_px), round(height_px * rng.uniform(2, 10))
    canvas = _roof(rng, 2 * h, w + h, height_px)
    if rng.random() < 0.75:
        _shapes(rng, canvas, height_px)
    if rng.random() < 0.4:
        _clutter(rng, canvas, height_px, count=int(rng.integers(1, 8)), size=0.8)
    if rng.random() < 0.4:
        _seams(rng, canvas, height_px)
    image = _seen(rng, canvas, height_px)
    tilt_deg = rng.uniform(-5, 5)
    return PaintedRegion(image, Place((w + h) / 2, float(h), float(w), float(h), 90 + tilt_deg), "")


def legible(style: LetteringStyle, letter_height_px: float) -> LetteringStyle:
    """The style with strokes and gaps of at least about a pixel and a quarter: thinner ones cannot be seen."""
    return replace(
        style,
        weight=max(style.weight, min(0.21, 1.3 / letter_height_px)),
        spacing=max(style.spacing, min(0.22, 1.3 / letter_height_px)),
        stretch=max(style.stretch, min(1.0, 7.0 / letter_height_px)),
        outline=style.outline if style.outline * letter_height_px >= 1.0 else 0.0,
        stencil_gap=style.stencil_gap if style.stencil_gap * letter_height_px >= 0.5 else 0.0,
        case=style.case if letter_height_px >= _SMALLEST_MIXED_PX else "upper",
    )


def _noise(rng: np.random.Generator, h: int, w: int, cell_px: float) -> np.ndarray:
    """Smooth noise in -1..1 with features of about `cell_px`, float32 (h, w)."""
    shape = (max(2, round(w / cell_px) + 1), max(2, round(h / cell_px) + 1))
    coarse = rng.uniform(-1, 1, (shape[1], shape[0])).astype(np.float32)
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)


def _roof(rng: np.random.Generator, h: int, w: int, letter_px: float) -> np.ndarray:
    """A membrane or metal roof, float32 (h, w, 3) in 0..255: tone, mottling, ribs, panel seams, streaks, grain."""
    tone = rng.choice([rng.uniform(25, 90), rng.uniform(90, 170), rng.uniform(170, 245)], p=[0.3, 0.35, 0.35])
    grey = np.full((h, w), tone, np.float32)
    grey += rng.uniform(0, 10) * _noise(rng, h, w, rng.uniform(0.5, 4) * letter_px)
    grey += rng.uniform(0, 7) * _noise(rng, h, w, rng.uniform(1.5, 5))
    if rng.random() < 0.4:
        # Ribs: along, across or, less often, askew.
        period = rng.uniform(2.2, 1.2 * letter_px + 3)
        x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
        lean = 0.0 if rng.random() < 0.7 else rng.uniform(-1, 1)
        phase = x + lean * y if lean else (x if rng.random() < 0.5 else y)
        grey += rng.uniform(1, 9) * np.sin(phase * (2 * np.pi / period) + rng.uniform(0, 6))
    if rng.random() < 0.3:
        # Streaks: noise drawn out along one direction.
        long, short = rng.uniform(1, 4) * letter_px, rng.uniform(1.5, 4)
        streaks = _noise(rng, max(2, round(h / long) + 1) if rng.random() < 0.5 else h, w, short)
        grey += rng.uniform(2, 12) * cv2.resize(streaks, (w, h), interpolation=cv2.INTER_LINEAR)
    tint = rng.uniform(-0.06, 0.06, 3) if rng.random() < 0.85 else rng.uniform(-0.35, 0.35, 3)
    canvas = grey[..., None] * (1 + tint.astype(np.float32))
    if rng.random() < 0.3:
        _seams(rng, canvas, letter_px)
    if rng.random() < 0.25:
        # The roof's edge or another surface reaches into the region.
        edge = round(h * rng.uniform(0.02, 0.2))
        part = canvas[:edge] if rng.random() < 0.5 else canvas[h - edge :]
        part[:] = rng.uniform(10, 245)
    return canvas


def _slightly_off(rng: np.random.Generator, mask: np.ndarray, pad_x: int, pad_y: int) -> np.ndarray:
    """The mask on its canvas, at a part of a pixel, with the bend of perspective and roof relief."""
    h, w = mask.shape
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
    moved = corners + np.array([pad_x, pad_y]) + rng.uniform(-0.06, 0.06, (4, 2)) * h + rng.uniform(-0.5, 0.5, 2)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return cv2.warpPerspective(mask, matrix, (w + 2 * pad_x, h + 2 * pad_y), flags=cv2.INTER_LINEAR)


def _wear(rng: np.random.Generator, shape: tuple[int, ...], letter_px: float) -> np.ndarray | float:
    """How much of the paint is left, 0..1."""
    opacity = rng.uniform(0.75, 1.0)
    if rng.random() < 0.6:
        return float(opacity)
    worn = opacity + rng.uniform(0.1, 0.5) * _noise(rng, shape[0], shape[1], rng.uniform(0.1, 1.0) * letter_px + 1)
    return np.clip(worn, 0, 1)


def _paint(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """A paint colour that stands out from the roof, float32 (3,)."""
    tone = float(canvas.mean())
    while True:
        colour = rng.uniform(5, 250) * (1 + (rng.uniform(-0.8, 0.8, 3) if rng.random() < 0.3 else np.zeros(3)))
        colour = np.clip(colour, 2, 253).astype(np.float32)
        if rng.random() < 0.4:
            colour[:] = rng.uniform(225, 253) if tone < 140 else rng.uniform(2, 40)
        if abs(float(colour.mean()) - tone) > 30:
            break
    if rng.random() < 0.08:
        # Paint as bright as its roof and of another colour, or a picture that something lies over.
        other = np.abs(canvas.mean(axis=(0, 1)) + rng.uniform(-30, 30, 3))
        if np.abs(other - canvas.mean(axis=(0, 1))).max() > 16:
            return np.clip(other, 2, 253).astype(np.float32)
    return colour


def _seams(rng: np.random.Generator, canvas: np.ndarray, letter_px: float) -> None:
    """A few straight lines across, parallel to the roof's sides or not."""
    h, w = canvas.shape[:2]
    shade = float(canvas.mean()) + rng.uniform(-60, 60)
    spacing = rng.uniform(0.7, 5) * letter_px
    lean = rng.uniform(-0.3, 0.3) if rng.random() < 0.3 else 0.0
    for start in np.arange(rng.uniform(0, spacing), w if rng.random() < 0.7 else min(w, spacing), spacing):
        ends = (int(start * 8), 0), (int((start + lean * h) * 8), h * 8)
        cv2.line(canvas, *ends, (shade,) * 3, max(1, round(rng.uniform(0.02, 0.06) * letter_px)), cv2.LINE_AA, shift=3)


def _clutter(rng: np.random.Generator, canvas: np.ndarray, letter_px: float, count: int, size: float) -> None:
    """Boxes, round vents and stains with a shadow beside them, up to `size` letters large."""
    h, w = canvas.shape[:2]
    dx, dy = rng.uniform(-0.1, 0.1, 2) * letter_px
    for _ in range(count):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        a, b = rng.uniform(0.08, size, 2) * letter_px / 2 + 0.5
        shade = rng.uniform(15, 245)
        for ox, oy, value in ((dx, dy, 25.0), (0.0, 0.0, shade)):
            centre = (round(x + ox), round(y + oy))
            if rng.random() < 0.5:
                cv2.ellipse(canvas, centre, (max(1, round(a)), max(1, round(a))), 0, 0, 360, (value,) * 3, -1)
            else:
                corner = (round(x + ox + a), round(y + oy + b))
                cv2.rectangle(canvas, (2 * centre[0] - corner[0], 2 * centre[1] - corner[1]), corner, (value,) * 3, -1)


def _shapes(rng: np.random.Generator, canvas: np.ndarray, size_px: float) -> None:
    """Painted or built things that a detector could take for lettering."""
    h, w = canvas.shape[:2]
    colour = tuple(float(c) for c in _paint(rng, canvas))
    kind = rng.integers(5)
    line = max(1, round(rng.uniform(0.06, 0.25) * size_px))
    if kind == 0:
        period = rng.uniform(0.3, 1.5) * size_px
        lean = rng.uniform(-1, 1) * size_px
        for x in np.arange(0, w, max(period, 2.5 * line)):
            cv2.line(canvas, (round(x), round(0.5 * size_px)), (round(x + lean), round(1.5 * size_px)), colour, line)
    elif kind == 1:
        radius = max(1, round(rng.uniform(0.08, 0.4) * size_px))
        for y in np.arange(0.6 * size_px, h - 0.4 * size_px, 2.6 * radius):
            for x in np.arange(0.5 * size_px, w, rng.uniform(2.4, 4) * radius):
                cv2.circle(canvas, (round(x), round(y)), radius, colour, -1 if rng.random() < 0.7 else 1)
    elif kind == 2:
        points = rng.uniform(0, 1, (int(rng.integers(3, 9)), 2)) * (w * 0.8, size_px) + (w * 0.1, 0.5 * size_px)
        cv2.polylines(canvas, [np.round(points).astype(np.int32)], bool(rng.random() < 0.5), colour, line, cv2.LINE_AA)
    elif kind == 3:
        centre = (round(w * rng.uniform(0.3, 0.7)), h // 2)
        axes = (round(rng.uniform(0.3, 1.5) * size_px), round(rng.uniform(0.2, 0.5) * size_px))
        cv2.ellipse(canvas, centre, axes, 0, 0, rng.uniform(120, 360), colour, line if rng.random() < 0.6 else -1)
    else:
        for x in np.arange(0.4 * size_px, w, rng.uniform(0.5, 2) * size_px):
            a, b = rng.uniform(0.1, 0.5, 2) * size_px
            low, high = (round(x - a), round(h / 2 - b)), (round(x + a), round(h / 2 + b))
            cv2.rectangle(canvas, low, high, colour, line if rng.random() < 0.5 else -1)


def _seen(rng: np.random.Generator, canvas: np.ndarray, letter_px: float) -> np.ndarray:
    """What the sensor and the product make of it: uint8 RGB of the same size."""
    image = canvas
    h, w = image.shape[:2]
    if rng.random() < 0.25:
        # Delivered finer than it was taken.
        coarser = rng.uniform(1.0, min(1.8, max(1.05, letter_px / 6)))
        small = cv2.resize(
            image, (max(4, round(w / coarser)), max(4, round(h / coarser))), interpolation=cv2.INTER_AREA
        )
        image = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
    sigma = rng.uniform(0.3, 0.9) if rng.random() < 0.9 else rng.uniform(0.3, 0.04 * letter_px + 0.9)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.25:
        image = image + rng.uniform(0.3, 1.0) * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
    if rng.random() < 0.15:
        grey = image.mean(axis=2, keepdims=True)
        image = grey + cv2.GaussianBlur(image - grey, (0, 0), rng.uniform(1, 3))
    if rng.random() < 0.4:
        floor = rng.uniform(0, 90)
        image = floor + image * rng.uniform(0.35, 1.0)
    grain = rng.standard_normal((h, w, 1), np.float32) * rng.uniform(0.5, 6)
    pixels = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.7:
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))])[1]
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return pixels
