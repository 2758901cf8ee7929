"""Which tiles of a pyramid show an area, at which level, and where each lies on the ground.

Columns count eastwards and rows southwards from a level's top left corner, as in XYZ and WMTS. x is east and y north
in the CRS of the level, whatever order of axes its authority has.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import morecantile
import numpy as np
import pyproj
import shapely
from morecantile.errors import InvalidIdentifier
from rasterio import Affine
from shapely.geometry import MultiPolygon, Point, Polygon

from pipelines.errors import SourceError
from pipelines.geojson import WGS84
from pipelines.scenes.georeference import grown

__all__ = ["Level", "TileRange", "choose_level", "ground_m", "named_levels", "quadkey", "tiles_around"]

_EDGE_POINTS = 16
"""Points an edge of an area is divided into: straight in degrees is not straight in every CRS."""
_EQUAL = 1e-9
"""Share of a tile that an area may reach over an edge by rounding alone."""


@dataclass(frozen=True)
class TileRange:
    """A rectangle of tiles of one level; both ends are in it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return self.right - self.left + 1

    @property
    def rows(self) -> int:
        """Tiles one below the other."""
        return self.bottom - self.top + 1

    @property
    def count(self) -> int:
        """All of them."""
        return self.columns * self.rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(column, row) of each, row by row."""
        return (
            (column, row) for row in range(self.top, self.bottom + 1) for column in range(self.left, self.right + 1)
        )


@dataclass(frozen=True)
class Level:
    """One level of a tile matrix set."""

    id: str
    """What stands for {z}: a number, or the identifier of a WMTS tile matrix."""
    crs: str
    """As pyproj and GDAL read it: `EPSG:3857`, or WKT."""
    left: float
    top: float
    """Corner of the tile (0, 0), CRS units."""
    cell: float
    """Side of a pixel, CRS units."""
    tile_width_px: int
    tile_height_px: int
    columns: int
    rows: int

    def transform(self, column: int, row: int) -> Affine:
        """Return the geotransform of an image whose top left tile is this one."""
        x = self.left + column * self.tile_width_px * self.cell
        y = self.top - row * self.tile_height_px * self.cell
        return Affine(self.cell, 0, x, 0, -self.cell, y)

    def bounds(self, column: int, row: int) -> tuple[float, float, float, float]:
        """Return left, bottom, right and top of a tile, CRS units."""
        left, top = self.transform(column, row) @ (0, 0)
        right, bottom = self.transform(column + 1, row + 1) @ (0, 0)
        return left, bottom, right, top

    def range_of(self, left: float, bottom: float, right: float, top: float) -> TileRange | None:
        """Return the tiles that show a rectangle (CRS units), None where the level has none of them."""
        width, height = self.tile_width_px * self.cell, self.tile_height_px * self.cell
        first = math.floor((left - self.left) / width + _EQUAL)
        last = max(first, math.ceil((right - self.left) / width - _EQUAL) - 1)
        upper = math.floor((self.top - top) / height + _EQUAL)
        lower = max(upper, math.ceil((self.top - bottom) / height - _EQUAL) - 1)
        first, upper = max(0, first), max(0, upper)
        last, lower = min(self.columns - 1, last), min(self.rows - 1, lower)
        return None if last < first or lower < upper else TileRange(first, upper, last, lower)


@lru_cache(maxsize=8)
def named_levels(matrix_set: str, tile_size_px: int) -> tuple[Level, ...]:
    """Return the levels of a matrix set that everyone knows, such as `WebMercatorQuad`, the coarsest first.

    A `tile_size_px` of 512 means the same tiles with four times the pixels, as servers with `@2x` send them.

    :raises SourceError: there is no such matrix set, or its levels are not of square tiles
    """
    try:
        matrices = morecantile.tms.get(matrix_set)
    except InvalidIdentifier as error:
        raise SourceError(
            f"there is no tile matrix set '{matrix_set}' (known: {', '.join(sorted(morecantile.tms.list()))}); "
            "give the address of the server's WMTS capabilities as 'wmts' instead"
        ) from error
    crs = pyproj.CRS.from_user_input(matrices.crs._pyproj_crs)
    levels = []
    for matrix in matrices.tileMatrices:
        if matrix.variableMatrixWidths or matrix.cornerOfOrigin != "topLeft":
            raise SourceError(f"the tile matrix set '{matrix_set}' has rows of unequal width or counts them from below")
        x, y = matrix.pointOfOrigin
        if is_northing_first(crs):
            x, y = y, x
        scale = matrix.tileWidth / tile_size_px
        levels.append(
            Level(
                matrix.id,
                crs_text(crs),
                x,
                y,
                matrix.cellSize * scale,
                tile_size_px,
                tile_size_px,
                matrix.matrixWidth,
                matrix.matrixHeight,
            )
        )
    return tuple(levels)


def is_northing_first(crs: pyproj.CRS) -> bool:
    """Whether the authority of a CRS writes latitude or northing before longitude or easting."""
    return bool(crs.axis_info and crs.axis_info[0].direction.lower() in {"north", "south"})


def crs_text(crs: pyproj.CRS) -> str:
    """Return a CRS as pyproj and GDAL read it."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def ground_m(level: Level, lon: float, lat: float) -> float:
    """Return the ground size of a level's pixel at a place in metres, the longer of its two sides."""
    to_level, to_lonlat = _transformers(level.crs)
    x, y = to_level.transform(lon, lat)
    lons, lats = to_lonlat.transform([x, x + level.cell, x], [y, y, y - level.cell])
    _, _, sides = WGS84.inv([lons[0]] * 2, [lats[0]] * 2, lons[1:], lats[1:])
    return float(max(sides))


def choose_level(levels: Sequence[Level], place: Point, wanted_m: float) -> tuple[Level, float]:
    """Return the coarsest level whose pixels are at most `wanted_m` on the ground, else the finest there is.

    :param place: longitude and latitude

    :returns: the level, and the ground size of its pixels in metres
    """
    sizes = sorted(((ground_m(level, place.x, place.y), level) for level in levels), key=lambda pair: -pair[0])
    size_m, level = next((pair for pair in sizes if pair[0] <= wanted_m), sizes[-1])
    return level, size_m


def tiles_around(level: Level, area: Polygon | MultiPolygon, margin_m: float) -> TileRange | None:
    """Return the tiles that show an area (CRS84) and a margin around it, None where the level does not reach it."""
    wide = grown(area, margin_m)
    west, south, east, north = wide.bounds
    fine = shapely.get_coordinates(shapely.segmentize(wide, max(east - west, north - south) / _EDGE_POINTS))
    x, y = _transformers(level.crs)[0].transform(fine[:, 0], fine[:, 1])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    return level.range_of(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def quadkey(level: Level, column: int, row: int) -> str:
    """Return the key of a tile in the numbering that Bing Maps made up: a digit a level.

    :raises SourceError: the levels are not numbered
    """
    if not level.id.isdigit():
        raise SourceError(f"a quadkey needs levels with numbers, but one is called '{level.id}'; use {{z}}/{{x}}/{{y}}")
    bits = range(int(level.id) - 1, -1, -1)
    return "".join(str((column >> bit & 1) + 2 * (row >> bit & 1)) for bit in bits)


@lru_cache(maxsize=32)
def _transformers(crs: str) -> tuple[pyproj.Transformer, pyproj.Transformer]:
    to_level = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    return to_level, pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
