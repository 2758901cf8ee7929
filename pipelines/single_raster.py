"""One raster by itself, for people who want polygons of it and nothing else: no site, no date, no archive.

An 8-bit RGB image is read where it lies. Anything else (16 bit, alpha, nodata values, a palette, an unmarked black or
white collar, floating point with NaN) is first copied to 8-bit RGB with a mask, by the same rules as a site's imagery.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import Damage, SceneError
from pipelines.gdal_env import is_url
from pipelines.grid import detection_grid, image_grid
from pipelines.gridded_raster import GriddedRaster
from pipelines.scenes.cache import LICENCE_TAG, MARGIN_M, RENDERED_TAG, scratch_folder, write_rgb, writing
from pipelines.scenes.georeference import (
    footprint,
    gsd_m,
    is_unplaced,
    open_raster,
    reading,
    refuse_far,
    window_around,
)
from pipelines.scenes.radiometry import Radiometry, radiometry_of
from pipelines.scenes.types import RasterDeclaration
from pipelines.scenes.web import public_href

__all__ = ["SingleRaster", "open_single"]

_WIDEST_STRIPED_PX = 16_384
"""Rows of a window of 2048 px and its halo, this long, are 110 MB of RGB: they stay in GDAL's cache of 192 MB."""
_FINEST_GSD_M, _COARSEST_GSD_M = 0.01, 100.0


@dataclass(frozen=True)
class SingleRaster:
    """A raster on the detector's lattice, and what is known of it."""

    name: str
    """File name, or address without a signature."""
    gridded: GriddedRaster
    native_gsd_m: float
    georeferenced: bool
    coverage: Polygon | MultiPolygon
    """What of the area it shows, longitude and latitude; empty without georeference."""
    rendered: bool
    licence: str | None
    """As its tags say."""
    damaged: tuple[Damage, ...]
    """What could not be copied, where that was asked for."""
    pixels_from: str
    """How its values became 8-bit RGB."""


@contextmanager
def open_single(
    href: str | Path,
    *,
    detector_gsd_m: float,
    cache: Path,
    image_gsd_m: float | None = None,
    area: Polygon | MultiPolygon | None = None,
    skip_damaged: bool = False,
) -> Iterator[SingleRaster]:
    """Open a raster for detection.

    :param detector_gsd_m: ground sampling distance of the lattice
    :param cache: folder for a copy, where one is needed; it is removed afterwards
    :param image_gsd_m: pixel size of an image without georeference
    :param area: what will be looked at, longitude and latitude; no more than that is copied
    :param skip_damaged: copy what can be read, and name the rest in the result
    :raises SceneError: it cannot be read or placed, shows nothing of the area, or `image_gsd_m` makes no sense for it
    :raises SourceError: it cannot be reached, or the copy cannot be written
    """
    if image_gsd_m is not None and not _FINEST_GSD_M <= image_gsd_m <= _COARSEST_GSD_M:
        raise SceneError(f"--gsd {image_gsd_m:g} is no pixel size of an image: give metres, for example --gsd 0.15")
    name = public_href(str(href))
    with open_raster(href, placed=False) as source:
        georeferenced = not is_unplaced(source)
        if not georeferenced and image_gsd_m is None:
            raise SceneError(
                f"{name} has no georeference: give its pixel size with --gsd METRES to get polygons in its pixels, or "
                "export it with a georeference"
            )
        if georeferenced and image_gsd_m is not None:
            raise SceneError(f"{name} has a georeference, which says {gsd_m(source):.3g} m a pixel: leave --gsd out")
        if not georeferenced and area is not None:
            raise SceneError(f"{name} has no georeference, so no area of it can be chosen: leave --area out")
        if image_gsd_m is None:
            # First, because it says what is wrong with a place that is none.
            coverage = footprint(source) if area is None else footprint(source) & area
            grid, native_gsd_m = detection_grid(source, detector_gsd_m), gsd_m(source)
            if area is not None and not coverage.area:
                raise refuse_far(name, footprint(source), area, "the area asked for")
        else:
            grid, native_gsd_m = image_grid(source.width, source.height, image_gsd_m, detector_gsd_m), image_gsd_m
            coverage = Polygon()
        with reading(href):
            radiometry = radiometry_of(source, RasterDeclaration(), name)
        tags = source.tags()
        with _eight_bit(source, href, radiometry, area, cache, skip_damaged) as (path, bands, damaged):
            yield SingleRaster(
                name=name if is_url(href) else Path(href).name,
                gridded=GriddedRaster(path, grid, bands),
                native_gsd_m=native_gsd_m,
                georeferenced=georeferenced,
                coverage=coverage,
                rendered=tags.get(RENDERED_TAG, "").upper() == "YES",
                licence=tags.get(LICENCE_TAG),
                damaged=damaged,
                pixels_from=f"{radiometry.bands_from}; {radiometry.stretch_from}; valid: {radiometry.mask_from}",
            )


@contextmanager
def _eight_bit(
    source: DatasetReader,
    href: str | Path,
    radiometry: Radiometry,
    area: Polygon | MultiPolygon | None,
    cache: Path,
    skip_damaged: bool,
) -> Iterator[tuple[str | Path, tuple[int, int, int], tuple[Damage, ...]]]:
    """The raster itself with its bands, or a copy for as long as it is needed, and what the copy lacks."""
    if _is_eight_bit(source, radiometry) and not _is_wide_and_striped(source):
        yield href, radiometry.bands, ()
        return
    window = Window(0, 0, source.width, source.height)
    if area is not None:
        window = window_around(source, area, MARGIN_M) or window
    path = cache / "single" / "rgb.tif"
    with scratch_folder(path) as scratch:
        copy = scratch / path.name
        with writing(copy):
            damaged = write_rgb(source, window, radiometry, copy, {}, skip_damaged=skip_damaged)
        yield copy, (1, 2, 3), tuple(damaged)


def _is_wide_and_striped(source: DatasetReader) -> bool:
    """Whether rows are stored whole and so long that each window of a row of windows would decode them again."""
    return source.block_shapes[0][1] == source.width > _WIDEST_STRIPED_PX


def _is_eight_bit(source: DatasetReader, radiometry: Radiometry) -> bool:
    flags = source.mask_flag_enums[radiometry.bands[0] - 1]
    return (
        np.dtype(source.dtypes[radiometry.bands[0] - 1]) == np.uint8
        and len(set(radiometry.bands)) == 3
        and radiometry.palette is None
        and radiometry.stretch is None
        and radiometry.collar is None
        and radiometry.nodata is None
        and (MaskFlags.all_valid in flags or radiometry.has_mask_band)
    )
