"""Tiny real rasters around one place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.enums import ColorInterp

from pipelines.sites import Site

UTM = "EPSG:32615"
CENTRE = (773_000.0, 3_872_000.0)
"""Easting and northing near Memphis."""
SIZE = (200, 160)
"""Width and height of the small rasters, pixels of 0.3 m."""
TRANSFORM = Affine(0.3, 0, CENTRE[0] - 30, 0, -0.3, CENTRE[1] + 24)


def lonlat(x_m: float, y_m: float) -> tuple[float, float]:
    """From metres east and north of the centre."""
    to_lonlat = pyproj.Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)
    return to_lonlat.transform(CENTRE[0] + x_m, CENTRE[1] + y_m)


def area_around(x_m: float = 0, y_m: float = 0, half_x_m: float = 15, half_y_m: float = 12) -> shapely.Polygon:
    """A rectangle in longitude and latitude."""
    corners = [(-half_x_m, -half_y_m), (half_x_m, -half_y_m), (half_x_m, half_y_m), (-half_x_m, half_y_m)]
    return shapely.Polygon([lonlat(x_m + x, y_m + y) for x, y in corners])


def make_site(perimeter: shapely.Polygon) -> Site:
    """A site that is nothing but a perimeter."""
    return Site(
        id="memphis",
        name="Memphis",
        operator="nobody",
        address="",
        campus="memphis",
        perimeter=perimeter,
        perimeter_source="test",
        perimeter_quality="proxy",
        zones=(),
        known_dates=(),
        supplies=(),
        accelerator=None,
        accelerator_source=None,
        pue=None,
        pue_source=None,
        path=Path("memphis.geojson"),
    )


@pytest.fixture
def area() -> shapely.Polygon:
    return area_around()


@pytest.fixture
def site(area: shapely.Polygon) -> Site:
    return make_site(area)


def noise(count: int, dtype: str = "uint8", low: int = 1, high: int = 250, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(count, height, width) of values that no rule takes for nodata."""
    return np.random.default_rng(7).integers(low, high, (count, size[1], size[0])).astype(dtype)


MakeRaster = Callable[..., Path]


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Write a raster; keywords go to rasterio, `tags`, `mask`, `colorinterp`, `colormap`, `descriptions` apart."""

    def make(name: str = "scene_20250822.tif", pixels: np.ndarray | None = None, **options: Any) -> Path:
        pixels = noise(3) if pixels is None else pixels
        extra = {
            key: options.pop(key, None)
            for key in ("tags", "imagery", "mask", "colorinterp", "colormap", "descriptions")
        }
        profile = {
            "driver": "GTiff",
            "width": pixels.shape[2],
            "height": pixels.shape[1],
            "count": pixels.shape[0],
            "dtype": pixels.dtype,
            "crs": UTM,
            "transform": TRANSFORM,
        } | options
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as dataset:
            if extra["colorinterp"]:
                dataset.colorinterp = [ColorInterp[colour] for colour in extra["colorinterp"]]
            if extra["colormap"]:
                dataset.write_colormap(1, extra["colormap"])
            for band, text in enumerate(extra["descriptions"] or (), 1):
                dataset.set_band_description(band, text)
            dataset.write(pixels)
            if extra["mask"] is not None:
                dataset.write_mask(extra["mask"])
            if extra["tags"]:
                dataset.update_tags(**extra["tags"])
            if extra["imagery"]:
                dataset.update_tags(ns="IMAGERY", **extra["imagery"])
        return path

    return make
