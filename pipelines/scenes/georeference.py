"""Where a raster is on the ground: opening it, its footprint, its GSD, and the window around an area.

A raster whose place is not certain is refused; nothing here guesses a CRS. Longitude and latitude are CRS84. Pixel
coordinates count columns and rows from the top left corner of the image, whole numbers at pixel edges.
"""

import functools
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyproj
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import SceneError, SourceError
from pipelines.gdal_env import gdal_env, is_url
from pipelines.geojson import WGS84
from pipelines.scenes.remote import open_remote
from pipelines.scenes.signing import NO_SIGNING, Signer
from pipelines.scenes.web import public_href

__all__ = [
    "footprint",
    "gdal_reason",
    "grown",
    "gsd_m",
    "is_there",
    "is_unplaced",
    "lonlat_from_pixels",
    "open_raster",
    "pixel_size_m",
    "raster_name",
    "reading",
    "refuse_far",
    "unreadable",
    "window_around",
]

_EDGE_POINTS = 16
"""Points an image edge is divided into: a straight edge is a curve in another CRS."""
_SWAPPED_WITHIN_KM = 100.0
_OPENER = re.compile(r"/vsiriopener_[0-9a-f]+/")
"""What rasterio puts before the name of a file that is read through Python."""


@contextmanager
def open_raster(href: str | Path, *, placed: bool = True, signer: Signer = NO_SIGNING) -> Iterator[DatasetReader]:
    """Open a raster that has a place on the ground; one without, where it need not be `placed`.

    :param signer: makes the address that the server of a remote one accepts
    :raises SceneError: it is missing, damaged, empty, complex-valued, or has no certain place on the ground
    :raises SourceError: it is remote and cannot be reached
    """
    if not is_url(href) and not is_there(href):
        raise SceneError(f"{href} does not exist")
    with ExitStack() as stack:
        stack.enter_context(gdal_env(href))
        with reading(href):
            dataset = stack.enter_context(
                open_remote(str(href), signer=signer) if is_url(href) else rasterio.open(href)
            )
        _refuse_unusable(dataset, public_href(str(href)))
        if placed or not is_unplaced(dataset):
            _refuse_unplaced(dataset, public_href(str(href)))
        yield dataset


def is_there(path: str | Path) -> bool:
    """Whether there is such a path; one that is too long or in a locked folder is none."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def is_unplaced(dataset: DatasetReader) -> bool:
    """Whether a raster says nothing at all of its place on the ground."""
    return bool(dataset.transform.is_identity and not dataset.gcps[0] and not dataset.rpcs)


@contextmanager
def reading(href: str | Path) -> Iterator[None]:
    """Turn what GDAL says while reading `href` into one sentence."""
    try:
        yield
    except RasterioError as error:
        raise unreadable(href, error) from error


def unreadable(href: str | Path, error: RasterioError) -> SourceError | SceneError:
    """Return the error for a raster that GDAL could not read."""
    if is_url(href):
        return SourceError(f"{public_href(str(href))} cannot be read ({gdal_reason(error)}); try again later")
    return SceneError(f"{href} is damaged or is no image ({gdal_reason(error)}); get a fresh copy of it")


def gdal_reason(error: RasterioError) -> str:
    """What GDAL says of an error, in one line."""
    return _OPENER.sub("", " ".join(str(error.__cause__ or error).split())).rstrip(".")


def raster_name(dataset: DatasetReader) -> str:
    """Return the path or the address of an open raster, without what may be a key."""
    return public_href(_OPENER.sub("", dataset.name))


def footprint(dataset: DatasetReader) -> Polygon:
    """Return the outline of the whole image in longitude and latitude.

    :raises SceneError: its CRS cannot be converted to longitude and latitude there
    """
    edge = np.linspace(0, 1, _EDGE_POINTS, endpoint=False)
    ones = np.ones_like(edge)
    cols = np.concatenate([edge, ones, 1 - edge, 0 * ones]) * dataset.width
    rows = np.concatenate([0 * ones, edge, ones, 1 - edge]) * dataset.height
    outline = shapely.Polygon(lonlat_from_pixels(dataset, np.column_stack([cols, rows])))
    # Points that are straight to a centimetre say nothing.
    return shapely.orient_polygons(outline.simplify(1e-7))


def gsd_m(dataset: DatasetReader) -> float:
    """Return the ground size of the pixel at the image's centre in metres, the longer of its two sides."""
    x, y = dataset.width / 2, dataset.height / 2
    (lon, lon_right, lon_down), (lat, lat_right, lat_down) = lonlat_from_pixels(
        dataset, np.array([[x, y], [x + 1, y], [x, y + 1]])
    ).T
    _, _, sides = WGS84.inv([lon, lon], [lat, lat], [lon_right, lon_down], [lat_right, lat_down])
    return float(max(sides))


def pixel_size_m(crs: pyproj.CRS, transform: rasterio.Affine, column: float, row: float) -> float:
    """Return the ground size in metres of the pixel at (column, row) of a grid, the longer of its two sides.

    :raises ProjError: the CRS cannot be converted to longitude and latitude there
    """
    x, y = transform @ (np.array([column, column + 1, column]), np.array([row, row, row + 1]))
    to_lonlat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    (lon, lon_right, lon_down), (lat, lat_right, lat_down) = to_lonlat.transform(x, y, errcheck=True)
    _, _, sides = WGS84.inv([lon, lon], [lat, lat], [lon_right, lon_down], [lat_right, lat_down])
    return float(max(sides))


def window_around(dataset: DatasetReader, area: Polygon | MultiPolygon, margin_m: float) -> Window | None:
    """Return the smallest window of whole pixels that holds `area` and a margin, as far as the image reaches.

    None if the image shows nothing of the area itself.
    """
    # In degrees: a projection is not defined everywhere, and an area on its far side makes broken shapes.
    if not (footprint(dataset) & area).area:
        return None
    left, top, right, bottom = _to_pixels(dataset, grown(area, margin_m)).bounds
    col, row = max(0, math.floor(left)), max(0, math.floor(top))
    width = min(dataset.width, math.ceil(right)) - col
    height = min(dataset.height, math.ceil(bottom)) - row
    return Window(col, row, width, height)


def lonlat_from_pixels(dataset: DatasetReader, xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert pixel coordinates, one (column, row) a line, to longitude and latitude.

    :raises SceneError: the CRS cannot be converted to longitude and latitude there
    """
    x, y = dataset.transform @ (xy[:, 0], xy[:, 1])
    lon, lat = _transformer(dataset).transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all() and (np.abs(lat) <= 90).all()):
        raise SceneError(
            f"{raster_name(dataset)} lies where its CRS {_crs_name(dataset)} has no longitude and latitude; check its "
            "CRS and its geotransform (are latitude and longitude swapped?)"
        )
    return np.column_stack([lon, lat])


def grown(area: Polygon | MultiPolygon, margin_m: float) -> Polygon | MultiPolygon:
    """Grow an area by metres, in a projection centred on it."""
    lon, lat = area.centroid.coords[0]
    local = pyproj.CRS.from_dict({"proj": "aeqd", "lat_0": lat, "lon_0": lon, "datum": "WGS84"})
    to_local = pyproj.Transformer.from_crs("OGC:CRS84", local, always_xy=True)
    metres = shapely.transform(area, lambda xy: np.column_stack(to_local.transform(xy[:, 0], xy[:, 1])))
    wide = metres.buffer(margin_m)
    return shapely.transform(
        wide, lambda xy: np.column_stack(to_local.transform(xy[:, 0], xy[:, 1], direction="INVERSE"))
    )


def refuse_far(name: str, shown: Polygon | MultiPolygon, area: Polygon | MultiPolygon, what: str) -> SceneError:
    """Return the error for an image that does not show an area: where both are, and how far apart."""
    sentence = (
        f"{name} does not show {what}: the image is at {_place(shown)}, {what} is at {_place(area)}, "
        f"{_distance_km(shown, area):,.1f} km away"
    )
    if _distance_km(shapely.transform(shown, lambda xy: xy[:, ::-1]), area) < _SWAPPED_WITHIN_KM:
        sentence += "; the image's latitude and longitude look swapped"
    return SceneError(sentence)


def _refuse_unusable(dataset: DatasetReader, name: str) -> None:
    if dataset.count == 0:
        raise SceneError(f"{name} holds no image by itself; open one of its subdatasets")
    if dataset.width == 0 or dataset.height == 0:
        raise SceneError(f"{name} is empty: {dataset.width} x {dataset.height} pixels")
    if any(dtype.startswith("complex") for dtype in dataset.dtypes):
        raise SceneError(f"{name} holds complex numbers (radar?); an optical image with real pixel values is needed")


def _refuse_unplaced(dataset: DatasetReader, name: str) -> None:
    if is_unplaced(dataset):
        raise SceneError(
            f"{name} has no georeference (no geotransform, no control points); export it with one, or give it one with "
            "`gdal_edit.py -a_srs EPSG:CODE -a_ullr LEFT TOP RIGHT BOTTOM FILE`"
        )
    if dataset.transform.is_identity:
        raise SceneError(
            f"{name} is placed by control points or RPCs only; rectify it first, for example with "
            "`gdalwarp -t_srs EPSG:32616 IN OUT` (the UTM zone of the place)"
        )
    if dataset.transform.is_degenerate:
        raise SceneError(f"{name} has a geotransform that gives its pixels no size; export it again")
    if not dataset.crs:
        raise SceneError(
            f"{name} does not say its CRS; if you know it, write it into the file with "
            "`gdal_edit.py -a_srs EPSG:CODE FILE`"
        )
    _transformer(dataset)


def _crs_name(dataset: DatasetReader) -> str:
    epsg = dataset.crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else "(custom)"


@functools.lru_cache(maxsize=64)
def _transformer_of(wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(wkt), "OGC:CRS84", always_xy=True)


def _transformer(dataset: DatasetReader) -> pyproj.Transformer:
    try:
        return _transformer_of(dataset.crs.to_wkt())
    except (CRSError, ProjError) as error:
        raise SceneError(
            f"{raster_name(dataset)} has a CRS that cannot be converted to longitude and latitude; "
            "write the right one into the file with `gdal_edit.py -a_srs EPSG:CODE FILE`"
        ) from error


def _to_pixels(dataset: DatasetReader, area: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    # Edges are divided because straight in degrees is not straight in the raster.
    west, south, east, north = area.bounds
    fine = shapely.segmentize(area, max(east - west, north - south) / _EDGE_POINTS)

    def convert(lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = _transformer(dataset).transform(lonlat[:, 0], lonlat[:, 1], direction="INVERSE")
        return np.column_stack(~dataset.transform @ (x, y))

    return shapely.transform(fine, convert)


def _place(area: Polygon | MultiPolygon) -> str:
    lon, lat = area.centroid.coords[0]
    return f"{abs(lat):.4f} {'N' if lat >= 0 else 'S'} {abs(lon):.4f} {'E' if lon >= 0 else 'W'}"


def _distance_km(a: Polygon | MultiPolygon, b: Polygon | MultiPolygon) -> float:
    (lon_a, lat_a), (lon_b, lat_b) = shapely.get_coordinates(shapely.shortest_line(a, b))
    if max(abs(lat_a), abs(lat_b)) > 90:
        return math.inf
    return float(WGS84.inv(lon_a, lat_a, lon_b, lat_b)[2]) / 1000
