"""Which windows a scene is read in: cores that tile the lattice, and what of the scene each of them has to see.

A unit belongs to the window whose core holds the cell of its peak. Cores are disjoint and together cover what was asked
for, so the windows' results are disjoint and complete: there is nothing to merge at seams. The network looks at a core
with a halo around it, except at the scene's own edges, where every window ends alike.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import shapely
from shapely.geometry import MultiPolygon, Polygon

from models.detector.network import STRIDE
from models.detector.peaks import MAX_OFFSET_CELLS, REACH_PX
from models.detector.refinement import MOST_PLACES, PLACE_PX

__all__ = ["BESIDE_PX", "MOVED_PX", "Box", "WindowPlan", "plan_windows"]

BESIDE_PX = REACH_PX
"""How far beside an area a peak can stand and still thin out one in it."""
MOVED_PX = math.ceil((MAX_OFFSET_CELLS + 1) * STRIDE + math.hypot(MOST_PLACES, MOST_PLACES) * PLACE_PX)
"""How far both stages together can move a peak's centre from the corner of its cell, which decides whose it is."""


@dataclass(frozen=True)
class Box:
    """A rectangle of lattice pixels; x1 and y1 are outside."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    def grown(self, by_px: int, within: "Box") -> "Box":
        """The box with `by_px` more on every side, as far as `within` reaches."""
        return Box(
            max(within.x0, self.x0 - by_px),
            max(within.y0, self.y0 - by_px),
            min(within.x1, self.x1 + by_px),
            min(within.y1, self.y1 + by_px),
        )

    def clipped(self, to: "Box") -> "Box":
        """What of the box lies in another that it meets."""
        return self.grown(0, to)

    def scaled(self, factor: int) -> "Box":
        """The same place on a lattice `factor` times finer."""
        return Box(self.x0 * factor, self.y0 * factor, self.x1 * factor, self.y1 * factor)

    def halves(self, lattice_px: int) -> tuple["Box", "Box"] | None:
        """Two boxes that tile this one, cut across its longer side on the lattice; None if it is one cell of it."""
        if max(self.width, self.height) <= lattice_px:
            return None
        if self.width >= self.height:
            cut = self.x0 + math.ceil(self.width / lattice_px / 2) * lattice_px
            return Box(self.x0, self.y0, cut, self.y1), Box(cut, self.y0, self.x1, self.y1)
        cut = self.y0 + math.ceil(self.height / lattice_px / 2) * lattice_px
        return Box(self.x0, self.y0, self.x1, cut), Box(self.x0, cut, self.x1, self.y1)


@dataclass(frozen=True)
class WindowPlan:
    """The windows of a scene, row by row."""

    cores: tuple[Box, ...]
    """Those that touch the area asked for; sides and places are multiples of the network's lattice."""
    total: int
    """Windows the whole scene would take."""
    extent: Box
    """The scene, rounded up to the network's lattice: no window reaches beyond it."""
    kept: Polygon | MultiPolygon | None = None
    """Where what is found counts, the same for all windows: the area and what lies near enough to have a say in it."""


def plan_windows(
    width_px: int,
    height_px: int,
    *,
    lattice_px: int,
    window_px: int,
    origin_px: tuple[int, int] = (0, 0),
    area: Polygon | MultiPolygon | None = None,
) -> WindowPlan:
    """Cut a scene of `width_px` x `height_px` lattice pixels into cores of `window_px`.

    :param window_px: side of a core, snapped up to a multiple of `lattice_px`
    :param origin_px: x, y that a corner of the tiling lies on, snapped down to a multiple of `lattice_px`
    :param area: in lattice pixels; cores farther than `BESIDE_PX` from it are left out
    """
    side = max(1, math.ceil(window_px / lattice_px)) * lattice_px
    extent = Box(0, 0, _snapped_up(width_px, lattice_px), _snapped_up(height_px, lattice_px))
    columns = list(_spans(extent.x1, side, math.floor(origin_px[0] / lattice_px) * lattice_px))
    rows = list(_spans(extent.y1, side, math.floor(origin_px[1] / lattice_px) * lattice_px))
    cores = [Box(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]
    if area is None:
        return WindowPlan(tuple(cores), len(cores), extent)
    reached = area.buffer(BESIDE_PX + MOVED_PX)
    shapely.prepare(reached)
    touched = tuple(core for core in cores if reached.intersects(shapely.box(core.x0, core.y0, core.x1, core.y1)))
    return WindowPlan(touched, len(cores), extent, area.buffer(BESIDE_PX))


def _snapped_up(size_px: int, lattice_px: int) -> int:
    return math.ceil(size_px / lattice_px) * lattice_px


def _spans(length: int, side: int, origin: int) -> Iterator[tuple[int, int]]:
    for start in range(origin % side - side, length, side):
        if start + side > 0:
            yield max(0, start), min(start + side, length)
