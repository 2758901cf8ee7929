"""The lattice on which a scene is read: square pixels of one ground sampling distance, north up, true metres.

Whatever CRS and geotransform a scene has, detection sees this; `boxes` takes what it finds back to the ground.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
import shapely.affinity
from pyproj import CRS, Geod, Proj, Transformer
from rasterio.transform import Affine
from shapely.geometry import MultiPolygon, Polygon

_STRAIGHT_DEG = 0.01
"""Edges are divided into pieces of this length: the middle of one is then within 2 cm of where it should be; that of an
edge of a degree would be off by 100 m."""


@dataclass(frozen=True)
class Grid:
    """The lattice on which a scene is read: north up, square pixels of the detector's GSD, in a metre CRS.

    Of an image without georeference it is the image's own rows and columns at that GSD, and `crs` is None.
    """

    crs: CRS | None
    transform: Affine
    """Lattice pixels to the CRS; without one, to the image's own pixels, y down."""
    width_px: int
    height_px: int
    gsd_m: float
    """Pixel size in metres."""

    def to_crs(self, x_px: npt.NDArray, y_px: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
        """CRS coordinates of pixel positions; pixel edges are at integers."""
        return self.transform.c + x_px * self.transform.a, self.transform.f + y_px * self.transform.e

    def to_source(self, dataset: rasterio.DatasetReader, xy_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Columns and rows of a raster that lattice positions (N, 2) lie on."""
        x, y = self.to_crs(xy_px[:, 0], xy_px[:, 1])
        if self.crs is None:
            return np.column_stack([x, y])
        x, y = Transformer.from_crs(self.crs, dataset.crs, always_xy=True).transform(x, y)
        return np.column_stack(~dataset.transform @ (x, y))

    def to_pixels(self, area: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
        """A longitude/latitude polygon in lattice pixels."""
        inverse = ~self.transform
        if self.crs is None:
            raise ValueError("an image without georeference has no place on the ground")
        return shapely.affinity.affine_transform(
            project_polygon(area, self.crs), [inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f]
        )


def detection_grid(dataset: rasterio.DatasetReader, gsd_m: float) -> Grid:
    """The reading lattice of a raster: its own CRS where one of its metres is a metre on the ground, else UTM.

    The lattice is anchored at the raster's own bounds, so that it does not depend on the area.
    """
    source = CRS.from_user_input(dataset.crs)
    to_lonlat = Transformer.from_crs(source, "OGC:CRS84", always_xy=True)
    x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
    longitude, latitude = to_lonlat.transform(x, y)
    crs = source if _true_metres(source, longitude, latitude) else utm(longitude, latitude)
    to_crs = Transformer.from_crs(source, crs, always_xy=True)
    edge = np.linspace(0, 1, 21)
    columns = np.concatenate([edge, edge, np.zeros(21), np.ones(21)]) * dataset.width
    rows = np.concatenate([np.zeros(21), np.ones(21), edge, edge]) * dataset.height
    xs, ys = to_crs.transform(*(dataset.transform @ (columns, rows)))
    west, north = float(np.min(xs)), float(np.max(ys))
    # A hair short of a whole pixel is rounding, not a further pixel.
    width_px = max(1, math.ceil((float(np.max(xs)) - west) / gsd_m - 1e-6))
    height_px = max(1, math.ceil((north - float(np.min(ys))) / gsd_m - 1e-6))
    return Grid(crs, Affine(gsd_m, 0, west, 0, -gsd_m, north), width_px, height_px, gsd_m)


def image_grid(width_px: int, height_px: int, image_gsd_m: float, gsd_m: float) -> Grid:
    """The reading lattice of an image without georeference whose pixels are `image_gsd_m` on the ground."""
    scale = gsd_m / image_gsd_m
    # A hair short of a whole pixel is rounding, not a further pixel.
    width, height = (max(1, math.ceil(side / scale - 1e-6)) for side in (width_px, height_px))
    return Grid(None, Affine.scale(scale), width, height, gsd_m)


def utm(longitude: float, latitude: float) -> CRS:
    """The WGS 84 / UTM zone of a place."""
    zone = int((longitude + 180) // 6) % 60 + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)


def project_polygon(area: Polygon | MultiPolygon, crs: CRS) -> Polygon | MultiPolygon:
    """A longitude/latitude polygon in another CRS; its edges are straight in degrees (RFC 7946, 3.1.1)."""
    to_crs = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    return shapely.transform(shapely.segmentize(area, _STRAIGHT_DEG), to_crs.transform, interleaved=False)


def _true_metres(crs: CRS, longitude: float, latitude: float) -> bool:
    """Whether a projected metre is within half a per cent of a metre on the ground there."""
    if not crs.is_projected or any(axis.unit_name != "metre" for axis in crs.axis_info):
        return False
    factors = Proj(crs).get_factors(longitude, latitude)
    return abs(factors.meridional_scale - 1) < 0.005 and abs(factors.parallel_scale - 1) < 0.005


def boxes(
    grid: Grid,
    x_px: npt.NDArray,
    y_px: npt.NDArray,
    length_px: npt.NDArray,
    width_px: npt.NDArray,
    heading_deg: npt.NDArray,
) -> tuple[npt.NDArray, npt.NDArray]:
    """Polygons in the grid's CRS of oriented boxes in grid pixels, and their headings from true north, [0, 360).

    Without a CRS: polygons in the image's pixels, headings from the image's up.
    """
    heading = np.deg2rad(heading_deg)
    along = np.stack([np.sin(heading), -np.cos(heading)], axis=-1) * (length_px / 2)[:, None]
    across = np.stack([np.cos(heading), np.sin(heading)], axis=-1) * (width_px / 2)[:, None]
    centre = np.stack([x_px, y_px], axis=-1).astype(np.float64)
    corners = np.stack(
        [centre + along + across, centre + along - across, centre - along - across, centre - along + across], axis=1
    )
    xs, ys = grid.to_crs(corners[..., 0], corners[..., 1])
    polygons = shapely.polygons(np.stack([xs, ys], axis=-1))
    if grid.crs is None:
        return polygons, np.asarray(heading_deg, np.float64) % 360.0
    to_lonlat = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)
    # 10 m either way along the axis: long enough for the azimuth to be exact, short enough to be local.
    step = np.stack([np.sin(heading), -np.cos(heading)], axis=-1) * (10.0 / grid.gsd_m)
    ends = []
    for sign in (-1, 1):
        point = centre + sign * step
        ends.append(to_lonlat.transform(*grid.to_crs(point[:, 0], point[:, 1])))
    azimuth, _, _ = Geod(ellps="WGS84").inv(ends[0][0], ends[0][1], ends[1][0], ends[1][1])
    return polygons, np.asarray(azimuth) % 360.0
