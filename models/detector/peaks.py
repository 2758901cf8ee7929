"""From the network's maps to peaks: found on the device, brought over in one transfer, thinned once for a scene."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn import functional

from models.detector import refinement
from models.detector.fans import CHILLER
from models.detector.network import (
    CHANNELS,
    FANS,
    HEADING,
    HEAT,
    LETTERING,
    MAX_OFFSET_CELLS,
    OFFSET,
    SIZE,
    STRIDE,
    SUB_CELLS,
    SUB_STRIDE,
    TRUNK_STRIDE,
    Area,
    Features,
)

ALIKE_LENGTH, ALIKE_WIDTH = 0.06, 0.12
"""Chillers whose length and width differ by no more than these shares are taken for one model, ..."""
ALIKE_WITHIN_PX = 200.0
"""... when they stand within 60 m of each other."""
OVERLAP = 0.4
"""Solid bodies do not overlap: of two peaks of a class the weaker goes when they share more of the smaller one's length
times its width than this. Between neighbours that touch, sizes and places off by a fifth share less; a peak on the
joint of two units that stand end to end shares half with each."""
MAX_APART_PX = 48.0
"""Farthest apart that two centres of the longest package (80 px) can be and overlap by more than `OVERLAP`."""
_ROUNDS = 4
"""How many peaks, each weaker than the one before, may decide about the next; ever longer chains are not followed."""
REACH_PX = _ROUNDS * MAX_APART_PX
"""How far a peak can have a say in whether another one stays."""
_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))
LETTERING_POOL = SUB_STRIDE
"""Cells of the lettering map that become one, on each side: H / 4 x W / 4 for a stride of 2."""


@dataclass(frozen=True)
class Peaks:
    """Objects found, one row each, in pixels of their window; ordered by window, class, cell_y, cell_x."""

    window: np.ndarray
    """int64 (N,), index of the window in the batch."""
    x_px: np.ndarray
    y_px: np.ndarray
    """float64: a county is wider than float32 resolves to a hundredth of a pixel."""
    length_px: np.ndarray
    width_px: np.ndarray
    heading_deg: np.ndarray
    """float32 in [0, 180), direction of the long axis, clockwise from up."""
    cls: np.ndarray
    """int64, index in OBJECT_CLASSES."""
    score: np.ndarray
    """float32 in 0..1, not calibrated."""
    fans: np.ndarray
    """float32, fans on the unit, see `models.detector.fans`; has a meaning only for classes with fans."""
    cell_x: np.ndarray
    cell_y: np.ndarray
    """int64, cell of the peak in the window's output lattice (`STRIDE` pixels a cell): which of two windows owns a peak
    is decided by its cell, because the refined centre may differ between them in its last bits."""

    def __len__(self) -> int:
        return len(self.window)

    def __getitem__(self, rows: np.ndarray) -> "Peaks":
        """The given rows (an index or boolean array)."""
        return Peaks(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def none(cls) -> "Peaks":
        """No row at all."""
        return decode(np.zeros((0, refinement.COLUMNS), np.float32), 0)

    @classmethod
    def joined(cls, parts: Sequence["Peaks"]) -> "Peaks":
        """One table of several, in their order; there must be at least one."""
        return cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )


def pick_peaks(
    features: Features, weight: torch.Tensor, bias: torch.Tensor, valid: torch.Tensor | None, min_score: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Table of proposals and pooled lettering map of the network's features, both still on the device.

    The table is float32 (n, COLUMNS), with the columns of `models.detector.refinement`; row and column are those of the
    maps' cell in the whole window. A cell is a proposal when its best class scores at least `min_score`, to the
    features' precision, and no class scores higher in a neighbour; of equal neighbours the first in reading order
    stays. There is no limit on their number, because a limit would be a silent hole. Centres on invalid pixels are left
    out, and lettering there is zero.

    :param weight: of the layer that makes the maps, (SUB_CELLS * CHANNELS, C), float32, as is its `bias`
    :param valid: (N, H, W), False where there is no image
    :param min_score: between 0 and 1
    """
    by_cell, cell_bias = weight.view(SUB_CELLS, CHANNELS, -1), bias.view(SUB_CELLS, CHANNELS)
    # What decides is calculated everywhere: heat of each sub-cell and class, then lettering of each sub-cell.
    rows = torch.cat([by_cell[:, part].flatten(0, 1) for part in (HEAT, LETTERING)])
    shift = torch.cat([cell_bias[:, part].flatten() for part in (HEAT, LETTERING)])
    dense = functional.conv2d(features.maps, rows[:, :, None, None].to(features.maps.dtype)).permute(0, 2, 3, 1)
    dense = dense.contiguous()
    classes, channels = HEAT.stop - HEAT.start, len(rows)
    heats = SUB_CELLS * classes

    # Compared as logits: sigmoid saturates in float32 and would tie distinct peaks above 17.
    least = math.log(min_score / (1 - min_score)) - shift
    least[heats:] = torch.inf
    hit = torch.nonzero((dense >= least.to(dense.dtype)).view(-1)).squeeze(1)
    place, channel = hit // channels, hit % channels
    cls, sub = channel % classes, channel // classes
    _, height, width, _ = dense.shape
    row = place // width % height * SUB_STRIDE + sub // SUB_STRIDE
    column = place % width * SUB_STRIDE + sub % SUB_STRIDE
    window = place // (width * height)

    own = features.own.moved(-features.shown.top, -features.shown.left)
    peak = (row >= own.top // STRIDE) & (row < own.bottom // STRIDE)
    peak &= (column >= own.left // STRIDE) & (column < own.right // STRIDE)
    window, cls, row, column = window[peak], cls[peak], row[peak], column[peak]

    # Few cells are high enough, so neighbours are looked up for these alone. A place is proposed once, as the class
    # that is most likely there: the second stage may name it another.
    by_class, shift_of = dense[..., :heats].unflatten(-1, (SUB_CELLS, classes)), shift[:heats].view(SUB_CELLS, classes)

    def heat(row: torch.Tensor, column: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sub = row % SUB_STRIDE * SUB_STRIDE + column % SUB_STRIDE
        best = by_class[window, row // SUB_STRIDE, column // SUB_STRIDE, sub].float() + shift_of[sub]
        return best.max(dim=1)

    value, best = heat(row, column)
    peak = cls == best
    last_row, last_column = height * SUB_STRIDE - 1, width * SUB_STRIDE - 1
    for dy, dx in _NEIGHBOURS:
        y, x = row + dy, column + dx
        inside = (y >= 0) & (y <= last_row) & (x >= 0) & (x <= last_column)
        other, _ = heat(y.clamp(0, last_row), x.clamp(0, last_column))
        before = (dy, dx) < (0, 0)
        peak &= ~inside | (other < value if before else other <= value)
    window, cls, row, column, value = window[peak], cls[peak], row[peak], column[peak], value[peak]

    # The rest only where it is wanted, and in float32.
    there = features.maps.permute(0, 2, 3, 1)[window, row // SUB_STRIDE, column // SUB_STRIDE].float()
    sub = row % SUB_STRIDE * SUB_STRIDE + column % SUB_STRIDE
    boxes = refinement.by_full_rows(lambda rows: functional.linear(rows, weight, bias), there)
    boxes = boxes.view(-1, SUB_CELLS, CHANNELS)
    box = boxes[torch.arange(len(sub), device=sub.device), sub]
    offset = box[:, OFFSET].clamp(-MAX_OFFSET_CELLS, MAX_OFFSET_CELLS)
    # From the cell's corner: the last bits of a place must not depend on how far the cell is from the window's.
    x, y = (0.5 + offset[:, 0]) * STRIDE, (0.5 + offset[:, 1]) * STRIDE
    # e^7 px is beyond any equipment; the clamp keeps a wild map finite.
    size = box[:, SIZE].clamp(0, 7).exp()
    row, column = row + features.shown.top // STRIDE, column + features.shown.left // STRIDE
    table = torch.stack(
        [
            window.float(),
            cls.float(),
            row.float(),
            column.float(),
            value.sigmoid(),
            x,
            y,
            size.amax(1),
            size.amin(1),
            box[:, HEADING.start],
            box[:, HEADING.start + 1],
            box[:, FANS.start].clamp(-1, 7).exp(),
            *box[:, HEAT].unbind(1),
        ],
        dim=1,
    )
    table = table[centre_is_seen(table, features.whole, valid)]
    lettering = own.of((dense[..., heats:].float() + shift[heats:]).permute(0, 3, 1, 2), TRUNK_STRIDE)
    if valid is not None:
        # Image anywhere in a cell, laid out as the lettering: sub-cells first.
        cells = functional.pixel_unshuffle(features.own.of(valid, 1)[:, None], TRUNK_STRIDE)
        cells = cells.unflatten(1, (SUB_STRIDE, STRIDE, SUB_STRIDE, STRIDE)).any(dim=4).any(dim=2).flatten(1, 2)
        lettering = lettering.masked_fill(~cells, -torch.inf)
    return table, lettering.amax(dim=1).sigmoid().half()


def centre_is_seen(proposals: torch.Tensor, images: Area, valid: torch.Tensor | None) -> torch.Tensor:
    """Bool (n,): which proposals have their centre on the images, and where these are valid."""
    x = proposals[:, refinement.COLUMN].long() * STRIDE + proposals[:, refinement.CENTRE_X].floor().long()
    y = proposals[:, refinement.ROW].long() * STRIDE + proposals[:, refinement.CENTRE_Y].floor().long()
    seen = (x >= 0) & (x < images.right) & (y >= 0) & (y < images.bottom)
    if valid is not None:
        window = proposals[:, refinement.WINDOW].long()
        seen &= valid[window, y.clamp(0, images.bottom - 1), x.clamp(0, images.right - 1)]
    return seen


def decode(table: np.ndarray, first_window: int) -> Peaks:
    """Peaks of a table of proposals, refined or not, in order; windows are numbered from `first_window`."""
    columns = (refinement.COLUMN, refinement.ROW, refinement.CLASS, refinement.WINDOW)
    table = table[np.lexsort([table[:, column] for column in columns])]
    heading = np.rad2deg(np.arctan2(table[:, refinement.SIN], table[:, refinement.COS])) / 2 % 180
    return Peaks(
        window=table[:, refinement.WINDOW].astype(np.int64) + first_window,
        x_px=table[:, refinement.COLUMN].astype(np.float64) * STRIDE + table[:, refinement.CENTRE_X],
        y_px=table[:, refinement.ROW].astype(np.float64) * STRIDE + table[:, refinement.CENTRE_Y],
        length_px=table[:, refinement.LENGTH],
        width_px=table[:, refinement.WIDTH],
        # The remainder of a tiny negative float32 rounds up to 180 itself.
        heading_deg=np.where(heading >= 180, 0, heading).astype(np.float32),
        cls=table[:, refinement.CLASS].astype(np.int64),
        score=table[:, refinement.SCORE],
        fans=table[:, refinement.FANS],
        cell_x=table[:, refinement.COLUMN].astype(np.int64),
        cell_y=table[:, refinement.ROW].astype(np.int64),
    )


def thinned(peaks: Peaks) -> Peaks:
    """The peaks whose box does not overlap that of a stronger one that stays, of their class and window.

    Of a scene read in windows it is called once, on the peaks of all of them in the scene's pixels: which window showed
    a peak then has no say in it, and the windows' halo need not cover it. What is farther away than `REACH_PX` has no
    say either.
    """
    strong, weak = _overlapping(peaks)
    dropped = np.zeros(len(peaks), dtype=bool)
    for _ in range(_ROUNDS if len(strong) else 0):
        # A peak on a joint goes because of one unit, and must then not take the other unit with it.
        overlapped = weak[~dropped[strong]]
        dropped[:] = False
        dropped[overlapped] = True
    return peaks[~dropped]


def _overlapping(peaks: Peaks) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of one class and window that overlap: the stronger one, of equals the first, and the weaker."""
    pairs = [np.zeros((0, 2), dtype=np.intp)]
    for cls in np.unique(peaks.cls):
        mine = np.flatnonzero(peaks.cls == cls)
        # Farther apart no two of them share that much, however they are turned; small ones have many neighbours.
        near = min(MAX_APART_PX, 2 * (1 - OVERLAP) * float(peaks.length_px[mine].max()))
        pairs.append(mine[_pairs(peaks[mine], near)])
    strong, weak = np.concatenate(pairs).T
    turned = peaks.score[weak] > peaks.score[strong]
    strong, weak = np.where(turned, weak, strong), np.where(turned, strong, weak)

    # Along and across the stronger box, of the weaker one its extent.
    heading, turn = (
        np.deg2rad(peaks.heading_deg[strong]),
        np.deg2rad(peaks.heading_deg[weak] - peaks.heading_deg[strong]),
    )
    sine, cosine = np.abs(np.sin(turn)), np.abs(np.cos(turn))
    dx, dy = peaks.x_px[weak] - peaks.x_px[strong], peaks.y_px[weak] - peaks.y_px[strong]
    length, width = peaks.length_px[weak], peaks.width_px[weak]
    shared = _shared(
        dx * np.sin(heading) - dy * np.cos(heading), peaks.length_px[strong], length * cosine + width * sine
    ) * _shared(dx * np.cos(heading) + dy * np.sin(heading), peaks.width_px[strong], length * sine + width * cosine)
    return strong[shared > OVERLAP], weak[shared > OVERLAP]


def _pairs(peaks: Peaks, near_px: float) -> np.ndarray:
    """Rows (n, 2) of peaks of one window whose centres are `near_px` from each other or less, each pair once."""
    if len(peaks) == 0:
        return np.zeros((0, 2), dtype=np.intp)
    # Windows are set far apart along one more axis: one tree for all.
    places = np.stack([peaks.x_px, peaks.y_px, peaks.window * 4 * near_px], axis=1)
    return np.asarray(cKDTree(places.astype(np.float64)).query_pairs(near_px, output_type="ndarray"))


def agreed(peaks: Peaks) -> Peaks:
    """The peaks, chillers with the median number of fans of their neighbours that are as long and as wide.

    What stands side by side and is of one size is of one model. Called, as `thinned`, once on a whole scene.
    """
    mine = np.flatnonzero(peaks.cls == CHILLER)
    chillers = peaks[mine]
    one, other = _pairs(chillers, ALIKE_WITHIN_PX).T
    alike = np.ones(len(one), dtype=bool)
    for size, most in ((chillers.length_px, ALIKE_LENGTH), (chillers.width_px, ALIKE_WIDTH)):
        alike &= np.abs(size[one] - size[other]) <= most * np.minimum(size[one], size[other])
    one, other, itself = one[alike], other[alike], np.arange(len(mine))
    unit = np.concatenate([one, other, itself])
    fans = chillers.fans[np.concatenate([other, one, itself])]
    order = np.lexsort((fans, unit))
    number = np.bincount(unit, minlength=len(mine))
    # The lower of two middle ones: it is a number that one of them has.
    middle = np.cumsum(number) - number + (number - 1) // 2
    agreed_fans = peaks.fans.copy()
    agreed_fans[mine] = fans[order][middle]
    return replace(peaks, fans=agreed_fans)


def _shared(apart: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of the shorter of two spans, their middles `apart`, that lies in the other."""
    both = (one + other) / 2 - np.abs(apart)
    return np.clip(both / np.minimum(one, other), 0, 1)
