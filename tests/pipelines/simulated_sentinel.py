"""A static STAC catalog of simulated Sentinel-2 scenes: single bands of 10 m with clouds; ground is broken on a day."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.shutil import copy
from rasterio.transform import from_origin

from pipelines.sites import Site, Zone
from tests.pipelines.made_up import site as made_up_site
from tests.pipelines.simulated_years import BANDS, reflectance, seen

CRS = "EPSG:32615"
WEST_M, NORTH_M, SIDE_PX = 772_000.0, 3_873_000.0, 150
BROKEN = date(2025, 4, 20)
CLOUDED = (date(2025, 3, 4), date(2025, 5, 13))
HALF_CLOUDED = date(2025, 5, 3)


def ground_box(west_px: float, north_px: float, side_px: float) -> shapely.Polygon:
    left, top = WEST_M + 10 * west_px, NORTH_M - 10 * north_px
    to_lonlat = Transformer.from_crs(CRS, "OGC:CRS84", always_xy=True)
    square = shapely.box(left, top - 10 * side_px, left + 10 * side_px, top)
    return shapely.transform(square, to_lonlat.transform, interleaved=False)


def a_site() -> Site:
    return made_up_site(
        perimeter=ground_box(55, 55, 40),
        zones=(
            Zone("broken", "yard", ground_box(57, 57, 16), "drawn", "traced"),
            Zone("left-alone", "yard", ground_box(76, 76, 16), "drawn", "traced"),
        ),
    )


def write_band(path: Path, values: np.ndarray) -> None:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": CRS, "nodata": 0}
    profile |= {"height": SIDE_PX, "width": SIDE_PX, "transform": from_origin(WEST_M, NORTH_M, 10, 10)}
    plain = path.with_suffix(".plain")
    with rasterio.open(plain, "w", **profile) as raster:
        raster.write(np.clip(np.rint(values), 1, 65535).astype(np.uint16), 1)
    copy(plain, path, driver="COG", compress="deflate")
    plain.unlink()


def write_date(folder: Path, day: date, rng: np.random.Generator, covers: np.ndarray) -> str:
    """One simulated Sentinel-2 item with its bands; returns its file name."""
    name = f"S2_{day:%Y%m%d}"
    truth = np.zeros((SIDE_PX, SIDE_PX, 5))
    for cover in np.unique(covers):
        truth[covers == cover] = reflectance(str(cover), day)
    if day >= BROKEN:
        truth[57:73, 57:73] = reflectance("soil", day)
    bands = seen(truth, rng)
    classes = np.full((SIDE_PX, SIDE_PX), 4.0)
    if day in CLOUDED:
        bands[:], classes[:] = 0.8, 9
    if day == HALF_CLOUDED:
        bands[:, :75], classes[:, :75] = 0.8, 9
    assets: dict[str, Any] = {"visual": {"href": "./visual.tif", "type": "image/tiff", "roles": ["visual"]}}
    for band, values in zip(BANDS, np.moveaxis(bands, -1, 0), strict=True):
        write_band(folder / f"{name}_{band}.tif", (values + 0.1) * 10_000)
        described = {"raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
        assets[band] = {"href": f"./{name}_{band}.tif", "type": "image/tiff"} | described
    write_band(folder / f"{name}_scl.tif", classes)
    assets["scl"] = {"href": f"./{name}_scl.tif", "type": "image/tiff"}
    outline = ground_box(0, 0, SIDE_PX)
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": f"{day}T16:50:00Z", "gsd": 10, "overwatt:rendered": True, "license": "CC0-1.0"},
        "links": [],
        "assets": assets,
    }
    (folder / f"{name}.json").write_text(json.dumps(item))
    return f"{name}.json"


def write_catalog(folder: Path) -> Path:
    """Fourteen dates, ten days apart from 2025-02-02 on, and the catalog of their items."""
    rng = np.random.default_rng(8)
    blocks = rng.choice(["grass", "crop", "wood"], (10, 10), p=[0.7, 0.15, 0.15])
    blocks[3:7, 3:7] = "grass"
    covers = np.repeat(np.repeat(blocks, 15, 0), 15, 1)
    names = [write_date(folder, date(2025, 2, 2) + timedelta(days=10 * i), rng, covers) for i in range(14)]
    links = [{"rel": "item", "href": f"./{name}"} for name in names]
    about = {"type": "Catalog", "stac_version": "1.0.0", "id": "s2", "description": "simulated", "links": links}
    path = folder / "catalog.json"
    path.write_text(json.dumps(about))
    return path
