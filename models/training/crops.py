"""Training crops: a window of a chip, turned, mirrored and tinted, with its labels turned the same way."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from models.detector.labels import CLASS, HEADING, LENGTH, WIDTH, Labels, X, Y
from models.training.chip_pool import PooledChip

CROP_PX = 256
_NEGATIVES = 0.3
"""Share of crops that show ground with nothing to find, real or rendered."""


_DISTANT = 0.06
"""Share of crops at a third of the resolution, as the engine's second pass for large lettering sees the ground."""
_DISTANCE = 3


def draw_crop(
    rng: np.random.Generator, chips: Sequence[PooledChip], backgrounds: Sequence[np.ndarray]
) -> tuple[np.ndarray, Labels]:
    """One augmented crop, uint8 (CROP_PX, CROP_PX, 3), and its labels; a pure function of the generator's state."""
    choice = rng.random()
    if backgrounds and choice < _NEGATIVES:
        image, labels = backgrounds[int(rng.integers(len(backgrounds)))], Labels.of()
    elif choice > 1 - _DISTANT:
        image, labels = _distant(rng, chips)
    else:
        chip = chips[int(rng.integers(len(chips)))]
        left, top = _corner(rng, chip)
        image = chip.image[top : top + CROP_PX, left : left + CROP_PX]
        labels = _each(chip.labels, lambda table: _shift(table, left, top))
    image, labels = turn(image, labels, quarters=int(rng.integers(4)), mirror=bool(rng.integers(2)))
    return tint(rng, image), labels


def empty_windows(chips: Sequence[PooledChip]) -> list[np.ndarray]:
    """Windows of chips, uint8 (CROP_PX, CROP_PX, 3), that no label comes near: rendered ground, roofs and confusers."""
    windows = []
    for chip in chips:
        height, width = chip.image.shape[:2]
        rows = np.concatenate([chip.labels.objects, chip.labels.texts, chip.labels.ignored])
        reach = np.hypot(rows[:, LENGTH], rows[:, WIDTH]) / 2
        for top, left in ((0, 0), (0, width - CROP_PX), (height - CROP_PX, 0), (height - CROP_PX, width - CROP_PX)):
            beside_x = np.abs(rows[:, X] - left - CROP_PX / 2) > CROP_PX / 2 + reach
            beside_y = np.abs(rows[:, Y] - top - CROP_PX / 2) > CROP_PX / 2 + reach
            if (beside_x | beside_y).all():
                windows.append(chip.image[top : top + CROP_PX, left : left + CROP_PX])
                break
    return windows


def turn(image: np.ndarray, labels: Labels, quarters: int, mirror: bool) -> tuple[np.ndarray, Labels]:
    """A square image and its labels, mirrored left to right if asked, then turned clockwise by quarters of a turn."""
    size = image.shape[0]
    if image.shape[1] != size:
        raise ValueError(f"turn() needs a square image, not {image.shape[:2]}")
    if mirror:
        image = image[:, ::-1]
        labels = _each(labels, lambda table: _mirror(table, size), turned=True)
    for _ in range(quarters % 4):
        image = np.rot90(image, -1)
        labels = _each(labels, lambda table: _quarter(table, size), turned=True)
    return np.ascontiguousarray(image), labels


def tint(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Small changes of gain, offset, gamma, colour, sharpness and noise: chips already went through a sensor."""
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    offset = rng.uniform(-15, 15) + rng.uniform(-5, 5, 3)
    gamma = np.exp(rng.uniform(-0.25, 0.25))
    level = np.arange(256, dtype=np.float64)[:, None] / 255
    table = np.clip(level**gamma * 255 * gain + offset, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None])
    choice = rng.random()
    if choice < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    elif choice < 0.35:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        image = cv2.addWeighted(image, 1.5, soft, -0.5, 0)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 5), image.shape[:2]).astype(np.float32)
        image = np.clip(image + noise[:, :, None], 0, 255).astype(np.uint8)
    return image


def _distant(rng: np.random.Generator, chips: Sequence[PooledChip]) -> tuple[np.ndarray, Labels]:
    """A crop of four chips side by side, shrunk: only its lettering is judged."""
    rows, texts = [], []
    for row in range(2):
        pictures = []
        for column in range(2):
            chip = chips[int(rng.integers(len(chips)))]
            side = chip.image.shape[0] // _DISTANCE
            pictures.append(cv2.resize(chip.image, (side, side), interpolation=cv2.INTER_AREA))
            table = chip.labels.texts.copy()
            table[:, [X, Y, LENGTH, WIDTH]] /= _DISTANCE
            table[:, [X, Y]] += [column * side, row * side]
            # A word that crosses the joint is cut there.
            inside = (np.abs(table[:, [X, Y]] - [(column + 0.5) * side, (row + 0.5) * side]) < side / 2).all(axis=1)
            texts.append(table[inside])
        rows.append(np.concatenate(pictures, axis=1))
    image = np.concatenate(rows)[:CROP_PX, :CROP_PX]
    below, right = CROP_PX - image.shape[0], CROP_PX - image.shape[1]
    image = cv2.copyMakeBorder(image, 0, max(below, 0), 0, max(right, 0), cv2.BORDER_REFLECT)
    everything = np.zeros((1, 7), dtype=np.float32)
    everything[0, [X, Y, LENGTH, WIDTH]] = [CROP_PX / 2, CROP_PX / 2, 2 * CROP_PX, 2 * CROP_PX]
    nothing = np.zeros((0, 7), dtype=np.float32)
    return image, Labels(nothing, np.concatenate(texts).astype(np.float32), everything)


def _corner(rng: np.random.Generator, chip: PooledChip) -> tuple[int, int]:
    """Left and top of a crop: half of them hold a random object or word, so that rare things are seen often enough."""
    height, width = chip.image.shape[:2]
    free = np.array([width - CROP_PX, height - CROP_PX])
    objects = chip.labels.objects
    kinds = [objects[objects[:, CLASS] == cls] for cls in np.unique(objects[:, CLASS])]
    kinds += [chip.labels.texts] if len(chip.labels.texts) else []
    corner = rng.integers(0, free + 1)
    if kinds and rng.random() < 0.5:
        # A kind first, then one of it: a plot holds a hundred batteries for three turbines.
        anchors = kinds[int(rng.integers(len(kinds)))]
        anchor = anchors[rng.integers(len(anchors)), [X, Y]]
        corner = np.clip(anchor - rng.integers(0, CROP_PX, 2), 0, free).astype(int)
    return int(corner[0]), int(corner[1])


def _each(labels: Labels, change: Callable[[np.ndarray], np.ndarray], turned: bool = False) -> Labels:
    objects, texts, ignored = change(labels.objects), change(labels.texts), change(labels.ignored)
    if turned:
        for table, period in ((objects, 180), (texts, 360), (ignored, 180)):
            table[:, HEADING] %= period
            table[table[:, HEADING] >= period, HEADING] = 0  # the remainder of a tiny negative rounds up to the period
    return Labels(objects, texts, ignored)


def _shift(table: np.ndarray, left: int, top: int) -> np.ndarray:
    table = table.copy()
    table[:, X] -= left
    table[:, Y] -= top
    return table


def _mirror(table: np.ndarray, size: int) -> np.ndarray:
    table = table.copy()
    table[:, X] = size - table[:, X]
    table[:, HEADING] *= -1
    return table


def _quarter(table: np.ndarray, size: int) -> np.ndarray:
    table = table.copy()
    table[:, X], table[:, Y] = size - table[:, Y], table[:, X].copy()
    table[:, HEADING] += 90
    return table
