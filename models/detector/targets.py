"""Ground truth to the maps the network should give: what each cell of stride 2 is supervised with."""

from dataclasses import dataclass

import numpy as np

from models.classes import OBJECT_CLASSES
from models.detector.labels import CLASS, COUNT, HEADING, LENGTH, WIDTH, Labels, X, Y
from models.detector.network import STRIDE

MIN_SIGMA = 0.8
"""Cells. Batteries 3.3 cells apart keep a valley between their peaks: exp(-(3.3/2)^2 / (2 * 0.8^2)) = 0.12."""
_MAX_SIGMA = 4.0
_REACH = 12
"""Half side of the patch a Gaussian is drawn in: three times the largest sigma."""


@dataclass(frozen=True)
class Targets:
    """Target maps of one image, (h, w) = image size / STRIDE."""

    heat: np.ndarray
    """float32 (classes, h, w): 1 at the cell of a centre, falling off as a Gaussian along the object's axes."""
    centres: np.ndarray
    """bool (classes, h, w): the cells where an object's centre lies."""
    judged: np.ndarray
    """bool (h, w): False on ignored objects and unseen ground, where the heat-map is not trained."""
    boxes: np.ndarray
    """float32 (8, h, w): x, y offset, log length, log width, cos 2t, sin 2t, log fans (-1 without), width / length."""
    weight: np.ndarray
    """float32 (h, w): how much the box of this cell counts; 1 at centres, less beside them, 0 elsewhere."""
    lettering: np.ndarray
    """float32 (h, w): 1 on painted words."""
    seen: np.ndarray
    """bool (h, w): False on unseen ground, where lettering is not trained."""


def make_targets(labels: Labels, height_px: int, width_px: int) -> Targets:
    """Target maps of an image of the given size, which is a multiple of STRIDE."""
    height, width = height_px // STRIDE, width_px // STRIDE
    objects = labels.objects
    columns = np.floor(objects[:, X] / STRIDE).astype(np.int64)
    rows = np.floor(objects[:, Y] / STRIDE).astype(np.int64)
    classes = objects[:, CLASS].astype(np.int64)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)

    centres = np.zeros((len(OBJECT_CLASSES), height, width), dtype=bool)
    centres[classes[inside], rows[inside], columns[inside]] = True
    boxes, weight = _box_targets(objects[inside], columns[inside], rows[inside], height, width)
    judged = np.ones((height, width), dtype=bool)
    for row in labels.ignored:
        fill_rectangle(judged, row, False, margin_px=STRIDE)
    seen = np.ones((height, width), dtype=bool)
    for row in labels.unseen:
        fill_rectangle(seen, row, False)
    lettering = np.zeros((height, width), dtype=np.float32)
    for row in labels.texts:
        fill_rectangle(lettering, row, 1.0)
    return Targets(
        heat=_heat_target(objects, classes, columns, rows, height, width),
        centres=centres,
        judged=judged & seen,
        boxes=boxes,
        weight=weight,
        lettering=lettering,
        seen=seen,
    )


def _heat_target(
    objects: np.ndarray, classes: np.ndarray, columns: np.ndarray, rows: np.ndarray, height: int, width: int
) -> np.ndarray:
    heat = np.zeros((len(OBJECT_CLASSES), height, width), dtype=np.float32)
    # An object just outside still softens the cells at the edge.
    near = (columns >= -_REACH) & (columns < width + _REACH) & (rows >= -_REACH) & (rows < height + _REACH)
    if not near.any():
        return heat
    objects, classes, columns, rows = objects[near], classes[near], columns[near], rows[near]
    across = np.clip(objects[:, WIDTH] / STRIDE / 6, MIN_SIGMA, _MAX_SIGMA)
    along = np.clip(objects[:, LENGTH] / STRIDE / 8, across, np.minimum(2.5 * across, _MAX_SIGMA))
    turn = np.deg2rad(objects[:, HEADING])
    step = np.arange(-_REACH, _REACH + 1)
    dy, dx = np.meshgrid(step, step, indexing="ij")
    sine, cosine = np.sin(turn)[:, None, None], np.cos(turn)[:, None, None]
    u = (dx * sine - dy * cosine) / along[:, None, None]
    v = (dx * cosine + dy * sine) / across[:, None, None]
    gaussian = np.exp(-0.5 * (u * u + v * v), dtype=np.float32)
    y, x = rows[:, None, None] + dy, columns[:, None, None] + dx
    drawn = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (gaussian > 0.01)
    flat = (np.broadcast_to(classes[:, None, None], y.shape) * height + y) * width + x
    np.maximum.at(heat.reshape(-1), flat[drawn], gaussian[drawn])
    return heat


def _box_targets(
    objects: np.ndarray, columns: np.ndarray, rows: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes at the centre cell and its eight neighbours; where two objects meet, the nearer centre wins."""
    boxes = np.zeros((8, height, width), dtype=np.float32)
    weight = np.zeros((height, width), dtype=np.float32)
    turn = 2 * np.deg2rad(objects[:, HEADING])
    shape = np.stack(
        [
            np.log(objects[:, LENGTH]),
            np.log(objects[:, WIDTH]),
            np.cos(turn),
            np.sin(turn),
            np.where(objects[:, COUNT] >= 1, np.log(np.maximum(objects[:, COUNT], 1)), -1),
            objects[:, WIDTH] / objects[:, LENGTH],
        ]
    )
    ring = sorted(((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)), key=lambda step: -abs(step[0]) - abs(step[1]))
    for dy, dx in ring:  # corners first, the centre last, so that nearer ones overwrite
        y, x = rows + dy, columns + dx
        drawn = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        y, x = y[drawn], x[drawn]
        boxes[0, y, x] = objects[drawn, X] / STRIDE - (x + 0.5)
        boxes[1, y, x] = objects[drawn, Y] / STRIDE - (y + 0.5)
        boxes[2:, y, x] = shape[:, drawn]
        weight[y, x] = (1.0, 0.5, 0.25)[abs(dy) + abs(dx)]
    return boxes, weight


def fill_rectangle(
    target: np.ndarray, row: np.ndarray, value: float, margin_px: float = 0.0, cell_px: int = STRIDE
) -> None:
    """Set the cells of `target` (cells of `cell_px` pixels) whose centre lies in the rectangle of a label row."""
    height, width = target.shape
    half_length, half_width = row[LENGTH] / 2 + margin_px, row[WIDTH] / 2 + margin_px
    reach = float(np.hypot(half_length, half_width))
    left, right = np.clip([(row[X] - reach) // cell_px, (row[X] + reach) // cell_px + 1], 0, width).astype(int)
    top, bottom = np.clip([(row[Y] - reach) // cell_px, (row[Y] + reach) // cell_px + 1], 0, height).astype(int)
    dx = (np.arange(left, right) + 0.5)[None, :] * cell_px - row[X]
    dy = (np.arange(top, bottom) + 0.5)[:, None] * cell_px - row[Y]
    turn = np.deg2rad(row[HEADING])
    along, across = dx * np.sin(turn) - dy * np.cos(turn), dx * np.cos(turn) + dy * np.sin(turn)
    target[top:bottom, left:right][(np.abs(along) <= half_length) & (np.abs(across) <= half_width)] = value
