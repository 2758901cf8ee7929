"""Training and validation chips: a random plot, photographed by a random sensor, with its ground truth."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from models.rendering.canvas import Canvas, Truth
from models.rendering.layouts import ground, named_roof, plot, scatter
from models.rendering.materials import Rng
from models.rendering.objects import PlacedObject, PlacedText
from models.rendering.sensor import Sensor, draw_sensor, lean_m, photograph, resampled

CHIP_GSD_M = 0.30
"""Ground sampling distance of chips and of the detector."""
CELL_M = 0.15
"""Cell of the canvas that chips are painted on."""
MARGIN_M = 14.4
"""Painted beyond the chip's edge, so that shadows and leaning objects enter from outside; a whole number of cells."""
REAL_BACKGROUND_SHARE = 0.5
_SCATTERED = 0.6
"""Share of the chips on a real background whose units stand straight on it; the others bring roof or yard along."""
_ROOFS = "buildings"
_ROOF_SHARE = 0.4
"""How often a real background is one of those whose file name is `buildings` and a number: units stand on roofs."""
_SEAM_CELLS = 20
"""3 m, over which one real picture goes over into the next, beside which it lies."""

_PAINTED_PERCENTILE = 88
"""Of a word's box: the thinnest strokes cover an eighth of it."""
_LEAST_CONTRAST = 8
"""Grey levels between paint and roof. Of 200 words, the 17 below were looked at: no eye finds one; the next, at 9, is
faint and can be read."""

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Chip:
    """A picture at `CHIP_GSD_M` with what it shows."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    objects: tuple[PlacedObject, ...]
    texts: tuple[PlacedText, ...]
    ignored: tuple[PlacedObject, ...]
    """Small kin of the classes, neither trained on nor scored."""
    faint: tuple[PlacedText, ...]
    """Words whose paint no eye finds: neither there nor not there."""
    native_gsd_m: float
    """GSD of the product before resampling."""


def render_chip(
    seed: int,
    size_px: int = 448,
    split: Split = "train",
    backgrounds: Sequence[Path] = (),
    native_gsd_m: tuple[float, float] | None = None,
    named: bool = False,
) -> Chip:
    """Render one chip of `size_px` squared; the same arguments give the same chip.

    `backgrounds` are real 0.3 m chips, about 256 px and more, to compose on: a share of the chips shows some of one
    kind, as files are whose names differ in their number alone, side by side; the rest rendered ground.
    `native_gsd_m` is the range that the product's GSD is drawn from, instead of all that imagery comes in. `named` puts
    one roof with a painted name in the middle.
    Seeds of the two splits never share a random stream.
    """
    validation = split == "validation"
    rng = np.random.default_rng([seed, 1 if validation else 0])
    side = round((size_px * CHIP_GSD_M + 2 * MARGIN_M) / CELL_M)
    canvas = Canvas(side, side, CELL_M)
    real = len(backgrounds) > 0 and rng.random() < REAL_BACKGROUND_SHARE
    if real:
        canvas.albedo[:] = _real_ground(rng, backgrounds, side)
    else:
        ground(canvas, rng, float(rng.uniform(0, 180)))
    if named:
        named_roof(canvas, rng, validation)
    elif real and rng.random() < _SCATTERED:
        scatter(canvas, rng, validation)
    else:
        plot(canvas, rng, validation, sparse=real)
    sensor = draw_sensor(rng, validation)
    if native_gsd_m is not None:
        sensor = replace(sensor, native_gsd_m=float(rng.uniform(*native_gsd_m)))
    margin_px = round(MARGIN_M / CHIP_GSD_M)
    objects, texts, ignored = placed(canvas.truth, sensor, CHIP_GSD_M, margin_px, size_px)

    def pictured(canvas: Canvas, noise: Rng) -> npt.NDArray[np.uint8]:
        whole_px = round(side * CELL_M / CHIP_GSD_M)
        image = resampled(photograph(canvas, sensor, noise), (whole_px, whole_px))
        return np.ascontiguousarray(image[margin_px : margin_px + size_px, margin_px : margin_px + size_px])

    picture = pictured(canvas, copy.deepcopy(rng))
    bare = pictured(canvas.unpainted(), rng) if texts else picture
    seen = tuple(text for text in texts if shows(picture, bare, text))
    faint = tuple(text for text in texts if text not in seen)
    return Chip(picture, objects, seen, ignored, faint, sensor.native_gsd_m)


def shows(picture: npt.NDArray[np.uint8], bare: npt.NDArray[np.uint8], text: PlacedText) -> bool:
    """Whether a word can be seen: `picture` (H, W, 3) differs there from `bare`, the same without lettering.

    On an overexposed roof, in a black shadow or under what stands on it there is nothing to find.
    """
    corners = cv2.boxPoints(((text.x_px, text.y_px), (text.length_px, text.width_px), text.heading_deg - 90))
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1)
    # Noise is the same in both, but compression is not.
    differs = cv2.absdiff(cv2.blur(picture, (3, 3)), cv2.blur(bare, (3, 3))).max(axis=2)[mask > 0]
    return not len(differs) or bool(np.percentile(differs, _PAINTED_PERCENTILE) >= _LEAST_CONTRAST)


def _real_ground(rng: Rng, backgrounds: Sequence[Path], side: int) -> npt.NDArray[np.float32]:
    """Real chips of one kind as ground: each turned, side by side, their tone undone to something like reflectance."""
    roofs = [path for path in backgrounds if _kind(path) == _ROOFS]
    pick = roofs if roofs and rng.random() < _ROOF_SHARE else backgrounds
    first = pick[int(rng.integers(len(pick)))]
    pictures = _turned_pictures(rng, first, [path for path in backgrounds if _kind(path) == _kind(first)])
    ground = np.zeros((side, side, 3), np.float32)
    covered = np.zeros((side, side), bool)
    picture = next(pictures)
    # The canvas begins somewhere within the first picture.
    top, first_left = (-int(cells) for cells in rng.integers(0, picture.shape[:2]))
    while top < side:
        left, bottom = first_left, side
        while left < side:
            _lay(ground, covered, picture, top, left)
            bottom = min(bottom, top + picture.shape[0])
            right = left + picture.shape[1]
            left = right - _seam_cells(picture.shape[1]) if right < side else side
            picture = next(pictures)
        top = bottom - _seam_cells(bottom - top) if bottom < side else side
    return np.asarray((ground / 255) ** 1.3 * 0.85, np.float32)


def _turned_pictures(rng: Rng, first: Path, alike: Sequence[Path]) -> Iterator[npt.NDArray[np.float32]]:
    """Endless: the first, then all others before one is shown a second time, each in cells and turned by quarters."""
    yield np.rot90(_in_cells(first), int(rng.integers(4)))
    others = [path for path in alike if path != first]
    while True:
        for number in rng.permutation(len(others)):
            yield np.rot90(_in_cells(others[number]), int(rng.integers(4)))
        others = list(alike)


def _kind(path: Path) -> str:
    """The file's name without its number: what pictures of one kind have in common."""
    return path.stem.rstrip("0123456789")


def _in_cells(path: Path) -> npt.NDArray[np.float32]:
    """A real chip in cells of the canvas, float32 (H, W, 3) RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is not a picture that OpenCV can read")
    finer = CHIP_GSD_M / CELL_M
    picture = np.ascontiguousarray(picture[..., ::-1], np.float32)
    return np.clip(cv2.resize(picture, None, fx=finer, fy=finer, interpolation=cv2.INTER_CUBIC), 0, 255)


def _lay(
    ground: npt.NDArray[np.float32],
    covered: npt.NDArray[np.bool_],
    picture: npt.NDArray[np.float32],
    top: int,
    left: int,
) -> None:
    """Lay a picture on the ground, which may begin or end beyond it; over its upper and left rim it fades in."""
    height, width = picture.shape[:2]
    weight = np.minimum(_rising(height)[:, None], _rising(width)[None, :])
    here = np.s_[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    rows, columns = ground[here].shape[:2]
    inside = np.s_[max(0, -top) : max(0, -top) + rows, max(0, -left) : max(0, -left) + columns]
    # Where nothing lies yet it is alone.
    share = np.where(covered[here], weight[inside], 1)[..., None]
    ground[here] += share * (picture[inside] - ground[here])
    covered[here] = True


def _rising(cells: int) -> npt.NDArray[np.float32]:
    """Weights of a row of cells: from 0 to 1 over the seam that it begins with."""
    return np.minimum((np.arange(cells, dtype=np.float32) + 0.5) / max(1, _seam_cells(cells)), 1)


def _seam_cells(cells: int) -> int:
    return min(_SEAM_CELLS, cells // 2)


def placed(
    truth: Sequence[Truth], sensor: Sensor, gsd_m: float, margin_px: float, size_px: int | tuple[int, int]
) -> tuple[tuple[PlacedObject, ...], tuple[PlacedText, ...], tuple[PlacedObject, ...]]:
    """Truth in pixels of a window that starts `margin_px` into the canvas: objects, texts, ignored objects.

    A unit belongs to the window when the centre of its top face, displaced by the lean, lies inside; lettering belongs
    when any part of it does.
    """
    width_px, height_px = (size_px, size_px) if isinstance(size_px, int) else size_px
    objects: list[PlacedObject] = []
    ignored: list[PlacedObject] = []
    texts: list[PlacedText] = []
    for unit in truth:
        dx_m, dy_m = lean_m(sensor, unit.top_m)
        x_px = (unit.frame.x_m + dx_m) / gsd_m - margin_px
        y_px = (unit.frame.y_m + dy_m) / gsd_m - margin_px
        length_px, width_px_ = unit.length_m / gsd_m, unit.width_m / gsd_m
        if unit.text:
            reach = length_px / 2 + width_px_
            if -reach < x_px < width_px + reach and -reach < y_px < height_px + reach:
                texts.append(PlacedText(unit.text, x_px, y_px, length_px, width_px_, unit.frame.heading_deg % 360.0))
            continue
        if 0 <= x_px < width_px and 0 <= y_px < height_px:
            target = ignored if unit.ignored else objects
            target.append(
                PlacedObject(
                    unit.cls, x_px, y_px, length_px, width_px_, unit.frame.heading_deg % 180.0, unit.fans, unit.kin
                )
            )
    return tuple(objects), tuple(texts), tuple(ignored)
