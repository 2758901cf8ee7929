"""Single bands of a scene (Sentinel-2 surface reflectance and its scene classes), read on a grid around a place.

A catalog offers them as assets of their own; they are known by their common name (`red`) or by Sentinel-2's (`B04`).
What an item declares of scale and offset is used. Catalogs are seen to declare the offset of processing baseline 04
(-0.1) for scenes that have it applied already, and the other way round, so nothing should rest on it: a difference of
two bands, or of two places, does not.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import SceneError
from pipelines.scenes.georeference import open_raster, reading
from pipelines.scenes.signing import NO_SIGNING, Signer
from pipelines.scenes.types import Band, Scene

__all__ = ["BAND_NAMES", "BandGrid", "grid_around", "item_bands", "read_bands"]

BAND_NAMES = ("red", "green", "blue", "nir", "swir16", "scl")
_SENTINEL_2 = {"b02": "blue", "b03": "green", "b04": "red", "b08": "nir", "b11": "swir16"}
_SENTINEL_2_SCALE = 1e-4
_SENTINEL_2_OFFSET = -0.1
_OFFSET_SINCE = "04.00"
"""Processing baseline from which surface reflectance has an offset."""


@dataclass(frozen=True)
class BandGrid:
    """A north-up grid of square pixels in UTM."""

    crs: str
    west_m: float
    north_m: float
    pixel_m: float
    width: int
    height: int

    @property
    def transform(self) -> Affine:
        """From pixels to metres."""
        return Affine(self.pixel_m, 0, self.west_m, 0, -self.pixel_m, self.north_m)

    def place(self, shape: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
        """Bring a shape from longitude and latitude (CRS84) to the grid's metres."""
        to_grid = Transformer.from_crs("OGC:CRS84", self.crs, always_xy=True)
        return shapely.transform(shape, to_grid.transform, interleaved=False)


def grid_around(area: Polygon | MultiPolygon, margin_m: float, pixel_m: float = 10.0) -> BandGrid:
    """Return the grid that holds `area` (CRS84) and a margin; its edges are multiples of the pixel, as Sentinel-2's."""
    west, south, east, north = area.bounds
    lon, lat = (west + east) / 2, (south + north) / 2
    (utm, *_) = query_utm_crs_info("WGS 84", AreaOfInterest(lon, lat, lon, lat))
    crs = f"{utm.auth_name}:{utm.code}"
    left, bottom, right, top = BandGrid(crs, 0, 0, pixel_m, 0, 0).place(area).buffer(margin_m).bounds
    column, row = math.floor(left / pixel_m), math.ceil(top / pixel_m)
    width, height = math.ceil(right / pixel_m) - column, row - math.floor(bottom / pixel_m)
    return BandGrid(crs, column * pixel_m, row * pixel_m, pixel_m, width, height)


def read_bands(
    scene: Scene, grid: BandGrid, names: Collection[str] = BAND_NAMES, *, signer: Signer = NO_SIGNING
) -> Mapping[str, NDArray[np.float32]]:
    """Read bands on a grid, of remote files only the part that it needs.

    :param signer: makes the addresses that the server of remote ones accepts
    :returns: by name, (height, width): reflectance, or the class of `scl`; NaN where there is nothing
    :raises SceneError: the scene lacks one of them, or one cannot be read
    :raises SourceError: the same of a remote one
    """
    bands = {band.name: band for band in scene.bands}
    lacking = [name for name in names if name not in bands]
    if lacking:
        raise SceneError(
            f"{scene.id} of {scene.source} offers no band {', '.join(lacking)}; give a source of Sentinel-2 surface "
            "reflectance, such as earth-search-sentinel-2"
        )
    return {name: _read(bands[name], grid, signer) for name in names}


def _read(band: Band, grid: BandGrid, signer: Signer) -> NDArray[np.float32]:
    with open_raster(band.href, signer=signer) as dataset, reading(band.href):
        nodata = dataset.nodata if dataset.nodata is not None else band.nodata
        with WarpedVRT(
            dataset,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            # Classes are not averaged, nor are pixels that lie on the grid already; coarser ones are spread.
            resampling=Resampling.nearest,
            src_nodata=0 if nodata is None else nodata,
            nodata=0 if nodata is None else nodata,
        ) as warped:
            values = warped.read(1)
            seen = warped.read_masks(1) > 0
    reflectance = values.astype(np.float32) * np.float32(band.scale) + np.float32(band.offset)
    return np.where(seen, reflectance, np.float32(np.nan))


def item_bands(item: pystac.Item) -> tuple[Band, ...]:
    """Return the bands of `BAND_NAMES` that an item offers as assets of one band each."""
    found: dict[str, Band] = {}
    for key, asset in item.assets.items():
        described = _described(asset.extra_fields)
        if len(described) > 1 or "jp2" in f"{key} {asset.media_type}":
            continue
        about = described[0] if described else {}
        name = _name(key, about)
        if name is not None and name not in found:
            href = asset.get_absolute_href() or asset.href
            scale, offset = (1.0, 0.0) if name == "scl" else _scaling(item, asset.extra_fields, about)
            nodata = about.get("nodata", asset.extra_fields.get("nodata"))
            found[name] = Band(name, href, scale, offset, float(nodata) if isinstance(nodata, int | float) else None)
    return tuple(found[name] for name in BAND_NAMES if name in found)


def _described(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an asset says of each of its bands, STAC 1.1's `bands` and the extensions' before it put together."""
    given = [fields.get(name) for name in ("bands", "eo:bands", "raster:bands")]
    lists: list[list[Any]] = [entries for entries in given if isinstance(entries, list)]
    count = max((len(entries) for entries in lists), default=0)
    merged: list[dict[str, Any]] = [{} for _ in range(count)]
    for entries in lists:
        for band, entry in zip(merged, entries, strict=False):
            band |= entry if isinstance(entry, dict) else {}
    return merged


def _name(key: str, about: Mapping[str, Any]) -> str | None:
    for given in (key, about.get("eo:common_name"), about.get("common_name"), about.get("name")):
        text = str(given or "").lower()
        text = _SENTINEL_2.get(text, text)
        if text in BAND_NAMES:
            return text
    return None


def _scaling(item: pystac.Item, fields: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[float, float]:
    def declared(name: str) -> float | None:
        for where in (about, fields):
            for key in (name, f"raster:{name}"):
                if type(where.get(key)) in (int, float):
                    return float(where[key])
        return None

    scale, offset = declared("scale"), declared("offset")
    properties = item.properties
    baseline = str(properties.get("s2:processing_baseline") or properties.get("processing:version") or "")
    is_sentinel_2 = "sentinel-2" in f"{properties.get('platform')} {properties.get('constellation')}".lower()
    if scale is None:
        scale = _SENTINEL_2_SCALE if is_sentinel_2 or baseline else 1.0
    if offset is None:
        offset = _SENTINEL_2_OFFSET if is_sentinel_2 and baseline >= _OFFSET_SINCE else 0.0
    if properties.get("earthsearch:boa_offset_applied") is True:
        offset = 0.0
    return scale, offset
