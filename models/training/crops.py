"""Training crops: a window of a chip, turned, mirrored and tinted, with its labels turned the same way."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from models.detector.labels import CLASS, HEADING, LENGTH, WIDTH, Labels, X, Y
from models.training.chip_pool import PooledChip

CROP_PX = 256
_NEGATIVES = 0.3
"""Share of crops that show ground with nothing to find, real or rendered."""
_REAL = 0.2
"""Share of crops of real imagery with labels, where there is any."""
_CUT_OFF = 0.1
"""Share of crops of which a part is black, as beyond the edge of an image: units that it cuts are found as well."""
_SCALES = (0.8, 1.25)
"""Range by which real imagery is made larger or smaller: as many other sizes of the same units and other GSDs."""
_DISTANT = 0.06
"""Share of crops at a third of the resolution, as the engine's second pass for large lettering sees the ground."""
_DISTANCE = 3


def draw_crop(
    rng: np.random.Generator,
    chips: Sequence[PooledChip],
    backgrounds: Sequence[np.ndarray],
    real: Sequence[PooledChip] = (),
) -> tuple[np.ndarray, Labels]:
    """One augmented crop, uint8 (CROP_PX, CROP_PX, 3), and its labels; a pure function of the generator's state.

    `chips` are rendered, at least CROP_PX a side; `backgrounds` hold nothing; `real` is labelled imagery of any size at
    the detector's GSD.
    """
    choice = rng.random()
    if backgrounds and choice < _NEGATIVES:
        image, labels = _turned_ground(rng, backgrounds[int(rng.integers(len(backgrounds)))]), Labels.of()
    elif real and choice < _NEGATIVES + _REAL:
        image, labels = _real(rng, real[int(rng.integers(len(real)))], backgrounds)
    elif choice > 1 - _DISTANT:
        image, labels = _distant(rng, chips)
    else:
        chip = chips[int(rng.integers(len(chips)))]
        left, top = _corner(rng, chip)
        image = chip.image[top : top + CROP_PX, left : left + CROP_PX]
        labels = _each(chip.labels, lambda table: _shift(table, left, top))
    image, labels = turn(image, labels, quarters=int(rng.integers(4)), mirror=bool(rng.integers(2)))
    image = tint(rng, image)
    return _cut_off(rng, image, labels) if rng.random() < _CUT_OFF else (image, labels)


def _cut_off(rng: np.random.Generator, image: np.ndarray, labels: Labels) -> tuple[np.ndarray, Labels]:
    """Black beyond a straight edge at any heading, mostly a level one, and no label whose centre is there."""
    turn_deg = float(rng.choice([0, 90, 180, 270]) if rng.random() < 0.7 else rng.uniform(0, 360))
    sine, cosine = np.sin(np.deg2rad(turn_deg)), np.cos(np.deg2rad(turn_deg))
    edge_px = float(rng.uniform(-0.1, 0.45)) * CROP_PX
    middle = np.arange(CROP_PX) + 0.5 - CROP_PX / 2

    def beyond(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(x * cosine + y * sine > edge_px)

    image = image.copy()
    image[beyond(middle[None, :], middle[:, None])] = 0

    def kept(table: np.ndarray) -> np.ndarray:
        return table[~beyond(table[:, X] - CROP_PX / 2, table[:, Y] - CROP_PX / 2)]

    return image, Labels(kept(labels.objects), kept(labels.texts), kept(labels.ignored), labels.unseen)


def empty_windows(chips: Sequence[PooledChip]) -> list[np.ndarray]:
    """Windows of chips, uint8 (CROP_PX, CROP_PX, 3), that no label comes near: rendered ground, roofs and confusers."""
    windows = []
    for chip in chips:
        height, width = chip.image.shape[:2]
        rows = np.concatenate([chip.labels.objects, chip.labels.texts, chip.labels.ignored, chip.labels.unseen])
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


def _turned_ground(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Ground at any heading and another scale, mirrored beyond its edge: a few hundred are soon known by heart."""
    if rng.random() < 0.4:
        return ground
    middle = np.array(ground.shape[1::-1]) / 2
    move = _similarity(middle, np.full(2, CROP_PX / 2), float(rng.uniform(0, 360)), _scale(rng))
    return _warped(ground, move)


def _real(rng: np.random.Generator, chip: PooledChip, backgrounds: Sequence[np.ndarray]) -> tuple[np.ndarray, Labels]:
    """A crop of labelled imagery at any heading and another scale; beyond its edge lies a ground that holds nothing."""
    size = np.array(chip.image.shape[1::-1])
    rows = np.concatenate([chip.labels.objects, chip.labels.texts])
    anchor = rng.uniform(0, size)
    if len(rows) and rng.random() < 0.7:
        anchor = rows[int(rng.integers(len(rows))), [X, Y]]
    target = rng.uniform(0.2 * CROP_PX, 0.8 * CROP_PX, 2)
    turn_deg, scale = float(rng.uniform(0, 360)), _scale(rng)
    move = _similarity(anchor, target, turn_deg, scale)
    if backgrounds:
        image = backgrounds[int(rng.integers(len(backgrounds)))].copy()
    else:
        image = np.zeros((CROP_PX, CROP_PX, 3), dtype=np.uint8)
    inside = _warped(np.full(chip.image.shape[:2], 255, dtype=np.uint8), move, cv2.BORDER_CONSTANT) > 127
    image[inside] = _warped(chip.image, move)[inside]

    def moved(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table[:, [X, Y]] = table[:, [X, Y]] @ move[:, :2].T + move[:, 2]
        table[:, [LENGTH, WIDTH]] *= scale
        table[:, HEADING] += turn_deg
        return table

    return image, _each(chip.labels, moved, turned=True)


def _warped(image: np.ndarray, move: np.ndarray, beyond: int = cv2.BORDER_REFLECT) -> np.ndarray:
    """A crop of the image moved by a 2 x 3 matrix of positions, whose pixel 0 reaches from 0 to 1."""
    by_index = move.copy()  # OpenCV's pixel 0 lies at 0
    by_index[:, 2] += 0.5 * move[:, :2].sum(axis=1) - 0.5
    return np.asarray(cv2.warpAffine(image, by_index, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=beyond))


def _scale(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(_SCALES))))


def _similarity(source: np.ndarray, target: np.ndarray, turn_deg: float, scale: float) -> np.ndarray:
    """The 2 x 3 matrix that turns clockwise by `turn_deg`, scales, and takes the point `source` to `target`."""
    sine, cosine = scale * np.sin(np.deg2rad(turn_deg)), scale * np.cos(np.deg2rad(turn_deg))
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target - linear @ source])


def _distant(rng: np.random.Generator, chips: Sequence[PooledChip]) -> tuple[np.ndarray, Labels]:
    """A crop of four chips side by side, shrunk: only its lettering is judged."""
    rows: list[np.ndarray] = []
    texts: list[np.ndarray] = []
    unseen: list[np.ndarray] = []
    for row in range(2):
        pictures = []
        for column in range(2):
            chip = chips[int(rng.integers(len(chips)))]
            side = chip.image.shape[0] // _DISTANCE
            pictures.append(cv2.resize(chip.image, (side, side), interpolation=cv2.INTER_AREA))
            for found, table in ((texts, chip.labels.texts.copy()), (unseen, chip.labels.unseen.copy())):
                table[:, [X, Y, LENGTH, WIDTH]] /= _DISTANCE
                table[:, [X, Y]] += [column * side, row * side]
                # A word that crosses the joint is cut there.
                middle = np.array([(column + 0.5) * side, (row + 0.5) * side])
                found.append(table[(np.abs(table[:, [X, Y]] - middle) < side / 2).all(axis=1)])
        rows.append(np.concatenate(pictures, axis=1))
    image = np.concatenate(rows)[:CROP_PX, :CROP_PX]
    below, right = CROP_PX - image.shape[0], CROP_PX - image.shape[1]
    image = cv2.copyMakeBorder(image, 0, max(below, 0), 0, max(right, 0), cv2.BORDER_REFLECT)
    everything = np.zeros((1, 7), dtype=np.float32)
    everything[0, [X, Y, LENGTH, WIDTH]] = [CROP_PX / 2, CROP_PX / 2, 2 * CROP_PX, 2 * CROP_PX]
    nothing = np.zeros((0, 7), dtype=np.float32)
    words, faint = (np.concatenate(tables).astype(np.float32) for tables in (texts, unseen))
    return image, Labels(nothing, words, everything, faint)


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
    unseen = change(labels.unseen)
    if turned:
        for table, period in ((objects, 180), (texts, 360), (ignored, 180), (unseen, 180)):
            table[:, HEADING] %= period
            table[table[:, HEADING] >= period, HEADING] = 0  # the remainder of a tiny negative rounds up to the period
    return Labels(objects, texts, ignored, unseen)


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
