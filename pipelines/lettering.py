"""Painted lettering over a raster: cells of the detector's lettering map joined to regions, regions read as text.

Cells lie on one lattice anchored at the scene and each comes from the window whose core holds it, so a word that spans
many windows is one region, the same whatever the windows were.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.affinity import rotate, translate
from shapely.geometry import MultiPolygon, Polygon, box

from models.detector.detector import MIN_LETTERING
from models.detector.network import STRIDE
from models.detector.peaks import LETTERING_POOL
from models.reader.placement import Place, find_place, letters_in
from models.reader.reader import Reader, Reading
from models.reader.rectify import rectify
from pipelines.errors import WindowError
from pipelines.gridded_raster import GriddedRaster
from pipelines.windows import Box

LETTERING_CELL_PX = STRIDE * LETTERING_POOL
"""Grid pixels a cell of the lettering map covers."""
SURE_CELL = 0.5
"""A region is scored by the mean of its cells from here on, which is what its calibration was fitted to."""
MIN_SURE_CELLS = 12
"""Regions with fewer are no words: three metres of letter height and five of length."""
RAGGED = 0.03
"""Share of a region's cells on each side that may stick out of its box."""
JOIN_CELLS = 3
"""Cells this far apart still belong together: the gap between two letters of a worn word."""
MIN_LETTER_PX = 9.0
"""Lowest letters, in grid pixels (2.7 m at 0.3 m): lower ones hold fewer than two samples a stroke."""
SEEN_HEIGHTS = 4.0
"""Room around a region, in letter heights, in which the rest of its word is looked for."""
MIN_LETTERS = 3
"""Shorter readings are taken for chance: the reader was trained on words of three letters and more."""
MAX_WORD_PX = 2000.0
"""Longest word, in grid pixels (600 m at 0.3 m, longer than any roof): a longer chain of cells is none, and its picture
would not fit into memory."""
MIN_ASPECT = 1.3
"""Length over height of the shortest word."""


@dataclass(frozen=True)
class LetteringCells:
    """Cells that may show lettering, sparse: lattice row and column, and probability."""

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]

    @classmethod
    def of_core(cls, lettering: npt.NDArray, core: Box) -> "LetteringCells":
        """Those of a core's map (ceil(h/4), ceil(w/4)); the core in grid pixels."""
        r, c = np.nonzero(lettering >= MIN_LETTERING)
        top, left = core.y0 // LETTERING_CELL_PX, core.x0 // LETTERING_CELL_PX
        return cls(r + top, c + left, lettering[r, c].astype(np.float64))

    def within(self, area: Polygon | MultiPolygon) -> "LetteringCells":
        """The cells whose centre lies in an area of grid pixels."""
        x, y = ((index + 0.5) * LETTERING_CELL_PX for index in (self.column, self.row))
        inside = shapely.contains_xy(area, x, y)
        return LetteringCells(self.row[inside], self.column[inside], self.probability[inside])

    @classmethod
    def joined(cls, parts: Sequence["LetteringCells"]) -> "LetteringCells":
        """All cells of several windows, in reading order."""
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        row = np.concatenate([p.row for p in parts])
        column = np.concatenate([p.column for p in parts])
        order = np.lexsort((column, row))
        return cls(row[order], column[order], np.concatenate([p.probability for p in parts])[order])


@dataclass(frozen=True)
class Region:
    """One region of lettering as an oriented box in grid pixels."""

    x_px: float
    y_px: float
    length_px: float
    width_px: float
    heading_deg: float
    """Direction of the long axis, in [0, 180); which end the text starts at is for the reader to say."""
    score: float
    """Mean probability of its sure cells."""

    def scaled(self, factor: float) -> "Region":
        """The same region in the pixels of a lattice `factor` times finer."""
        return Region(
            self.x_px * factor,
            self.y_px * factor,
            self.length_px * factor,
            self.width_px * factor,
            self.heading_deg,
            self.score,
        )

    @property
    def outline(self) -> Polygon:
        """The box in grid pixels."""
        turned = rotate(
            box(-self.width_px / 2, -self.length_px / 2, self.width_px / 2, self.length_px / 2),
            self.heading_deg,
            origin=(0, 0),
        )
        return translate(turned, self.x_px, self.y_px)


@dataclass(frozen=True)
class Word:
    """A region with what was read in it."""

    region: Region
    reading: Reading
    heading_deg: float
    """Reading direction in the grid, [0, 360)."""
    probability: float
    """That this is lettering at all."""


def without_overlaps(words: Sequence[Word]) -> list[Word]:
    """Of words that cover each other by more than half of the smaller, the most probable.

    A word that both lattices show is found twice; which of the two is kept does not depend on their order.
    """
    best_first = sorted(words, key=lambda w: (-w.probability, -w.region.length_px, w.region.y_px, w.region.x_px))
    outlines = np.array([word.region.outline for word in best_first], dtype=object)
    area = shapely.area(outlines)
    better, worse = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    pairs = better < worse
    better, worse = better[pairs], worse[pairs]
    shared = shapely.area(shapely.intersection(outlines[better], outlines[worse]))
    covers = shared > 0.5 * np.minimum(area[better], area[worse])
    kept = np.ones(len(best_first), dtype=bool)
    # Best first: whether a word stays is settled before it is held against a worse one.
    for one, other in sorted(zip(better[covers], worse[covers], strict=True)):
        kept[other] &= not kept[one]
    return [word for word, stays in zip(best_first, kept, strict=True) if stays]


def lettering_regions(cells: LetteringCells) -> list[Region]:
    """Join neighbouring cells to regions that are long and high enough for a word."""
    if len(cells.row) == 0:
        return []
    labels = _components(cells.row, cells.column)
    regions = []
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(labels[order]) > 0])
    for members in np.split(order, starts[1:]):
        probability = cells.probability[members]
        sure = probability[probability >= SURE_CELL]
        if len(sure) < MIN_SURE_CELLS:
            continue
        core = members[probability >= SURE_CELL]
        points = np.stack([cells.column[core] + 0.5, cells.row[core] + 0.5], axis=1) * LETTERING_CELL_PX
        region = _oriented_box(points, float(sure.mean()))
        if region.width_px >= MIN_LETTER_PX and MIN_ASPECT * region.width_px <= region.length_px <= MAX_WORD_PX:
            regions.append(region)
    return regions


def _oriented_box(points: npt.NDArray[np.float64], score: float) -> Region:
    """Box along the principal axis of cell centres (N, 2) in pixels.

    Its sides are where the outermost `RAGGED` of the cells begin, widened to what a filled rectangle would have: the
    smallest box around all cells would be set by one ragged corner, and the reader needs the letters to fill the crop.
    """
    middle = points.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((points - middle).T))
    along, across = axes[:, 1], axes[:, 0]
    ends = [np.quantile((points - middle) @ axis, (RAGGED, 1 - RAGGED)) for axis in (along, across)]
    x, y = middle + along * ends[0].mean() + across * ends[1].mean()
    length, width = (float(np.ptp(end)) / (1 - 2 * RAGGED) for end in ends)
    heading_deg = float(np.rad2deg(np.arctan2(along[0], -along[1])) % 180.0)
    return Region(float(x), float(y), length, width, heading_deg, score)


def _components(row: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Component number of each cell; cells up to `JOIN_CELLS` apart in both directions are joined."""
    stride = int(column.max()) + 2 * JOIN_CELLS + 1
    key = row * stride + column
    position = np.argsort(key, kind="stable")
    ordered = key[position]
    links: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for dr in range(0, JOIN_CELLS + 1):
        for dc in range(-JOIN_CELLS, JOIN_CELLS + 1):
            if dr == 0 and dc <= 0:
                continue
            wanted = key + dr * stride + dc
            at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
            hit = np.flatnonzero(ordered[at] == wanted)
            links.append((hit, position[at[hit]]))
    first = np.concatenate([a for a, _ in links])
    second = np.concatenate([b for _, b in links])
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(key), len(key)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def read_regions(
    raster: GriddedRaster, regions: Sequence[Region], reader: Reader, skip_damaged: bool = False
) -> list[tuple[Region, Reading, float]]:
    """Read regions; returns for each where the word lies, the reading, and the reading direction in the grid, [0, 360).

    What cannot be read keeps the region that it had.

    :param skip_damaged: leave unread what cannot be read from the file
    :raises WindowError: a region's surroundings cannot be read
    """
    read = []
    for region in regions:
        try:
            placed, reading = _read(raster, region, reader)
        except WindowError:
            if not skip_damaged:
                raise
            placed, reading = region, Reading("", 0.0, False)
        read.append((placed, reading, (placed.heading_deg + (180.0 if reading.flipped else 0.0)) % 360.0))
    return read


def _read(raster: GriddedRaster, region: Region, reader: Reader) -> tuple[Region, Reading]:
    """Where the word of a region lies, and what it says."""
    around_px = (0.5 + SEEN_HEIGHTS) * region.width_px
    reach = int(np.ceil(np.hypot(region.length_px / 2 + around_px, around_px))) + 2
    x, y = int(region.x_px), int(region.y_px)
    box = Box(x - reach, y - reach, x + reach, y + reach).clipped(
        Box(0, 0, raster.grid.width_px, raster.grid.height_px)
    )
    picture = raster.read(box).rgb
    first = Place(
        region.x_px - box.x0, region.y_px - box.y0, region.length_px, region.width_px, region.heading_deg % 180.0
    )
    place = find_place(reader, picture, first, MAX_WORD_PX)
    [reading] = reader.read([rectify(picture, *place, margin=0.0)])
    if len(reading.text.replace(" ", "")) < MIN_LETTERS:
        return region, dataclasses.replace(reading, text="")
    letters = letters_in(reader, picture, place)
    placed = Region(
        letters.x_px + box.x0,
        letters.y_px + box.y0,
        letters.length_px,
        letters.width_px,
        letters.heading_deg,
        region.score,
    )
    return placed, reading
