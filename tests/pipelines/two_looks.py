"""The same rendered place seen twice: another sun, season, air and sensor, something built, and a known shift."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from models.rendering import confusers
from models.rendering.canvas import Canvas, Frame
from models.rendering.cooling_equipment import chiller_style
from models.rendering.layouts import chiller_rows, ground, roof
from models.rendering.materials import pave
from models.rendering.sensor import Sensor, draw_sensor, photograph
from pipelines.sites import Site
from tests.pipelines.made_up import site as made_up_site

CELL_M = 0.2
SIDE_M = 240.0
CRS = "EPSG:32615"
WEST_M, NORTH_M = 773_000.0, 3_872_000.0


def place() -> Site:
    """A perimeter around the rendered place."""
    square = shapely.box(WEST_M + 60, NORTH_M - SIDE_M + 60, WEST_M + SIDE_M - 60, NORTH_M - 60)
    to_lonlat = Transformer.from_crs(CRS, "OGC:CRS84", always_xy=True)
    return made_up_site(perimeter=shapely.transform(square, to_lonlat.transform, interleaved=False))


def paint(seed: int, built: bool) -> Canvas:
    """Fields, houses, roads and trees; `built`: a hall and rows of chillers stand on a third of them."""
    side = round(SIDE_M / CELL_M)
    canvas = Canvas(side, side, CELL_M)
    rng = np.random.default_rng([seed, 5])
    heading_deg = float(rng.uniform(0, 90))
    ground(canvas, rng, heading_deg, "grass")
    middle = Frame(SIDE_M / 2, SIDE_M / 2, heading_deg)
    for _ in range(6):
        at = middle.at(float(rng.uniform(-110, 110)), float(rng.uniform(-110, 110)))
        name = str(rng.choice(["dry_grass", "soil", "gravel", "concrete"]))
        pave(canvas, rng, at, float(rng.uniform(25, 70)), float(rng.uniform(20, 50)), name)
    for along in (-0.3, 0.28):
        pave(canvas, rng, middle.at(along * SIDE_M, 0), 9, 2 * SIDE_M, "asphalt")
        confusers.markings(canvas, rng, middle.at(along * SIDE_M, 0, 90), 2 * SIDE_M, 8)
    for _ in range(22):
        at = middle.at(float(rng.uniform(-120, 120)), float(rng.uniform(-120, 120)), float(rng.normal(0, 8)))
        colour = str(rng.choice(["dark_roof", "tan_roof", "grey_roof"]))
        roof(canvas, rng, at, float(rng.uniform(9, 18)), float(rng.uniform(7, 12)), colour, float(rng.uniform(3.5, 6)))
    for _ in range(12):
        confusers.trees(canvas, rng, middle.at(float(rng.uniform(-110, 110)), float(rng.uniform(-110, 110))), 30, 18)
    if built:
        rng = np.random.default_rng([seed, 6])
        yard = middle.at(float(rng.uniform(-40, 40)), float(rng.uniform(-40, 40)))
        pave(canvas, rng, yard, 120, 130, "concrete")
        roof(canvas, rng, yard.at(0, -30), 110, 60, "white_roof", 12.0)
        style = replace(chiller_style(rng, model=1), length_m=13.4, width_m=2.4)
        chiller_rows(canvas, rng, yard.at(0, 35), 100, 45, style, 30, gap_m=1.9, aisle_m=4.0)
    return canvas


def look(
    path: Path,
    canvas: Canvas,
    seed: int,
    shift_m: tuple[float, float],
    gsd_m: float | None = None,
    crs: str = CRS,
    sensor: Sensor | None = None,
) -> Path:
    """Photograph a canvas from a corner of its own and place it `shift_m` (east, north) off its true place."""
    rng = np.random.default_rng([seed, 7])
    sensor = sensor or draw_sensor(rng)
    sensor = replace(sensor, native_gsd_m=gsd_m or float(np.clip(sensor.native_gsd_m, 0.28, 0.6)))
    sensor = replace(sensor, off_nadir_deg=min(sensor.off_nadir_deg, 12.0))
    right, down = (int(cells) for cells in rng.integers(0, 40, 2))
    seen = Canvas(canvas.width_px - right, canvas.height_px - down, CELL_M)
    seen.albedo = canvas.albedo[down:, right:].copy()
    seen.height_m = canvas.height_m[down:, right:].copy()
    # The season: grass and leaves turn, ground does not.
    green = seen.albedo[..., 1] > 1.05 * seen.albedo[..., 0]
    seen.albedo[green] *= rng.uniform(0.6, 1.4, 3).astype(np.float32)
    image = photograph(seen, sensor, rng)
    # The product's pixels are what the canvas divided by their number makes them.
    width_m, height_m = seen.extent_m
    west_m, north_m = WEST_M + right * CELL_M + shift_m[0], NORTH_M - down * CELL_M + shift_m[1]
    pixel_m = (width_m / image.shape[1], height_m / image.shape[0])
    profile = {"driver": "GTiff", "width": image.shape[1], "height": image.shape[0], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=CRS, transform=from_origin(west_m, north_m, *pixel_m)) as raster:
        raster.write(image.transpose(2, 0, 1))
        raster.update_tags(OVERWATT_RENDERED="YES")
    if crs != CRS:
        warped = path.with_stem(f"{path.stem}_warped")
        with (
            rasterio.open(path) as raster,
            WarpedVRT(raster, crs=crs, resampling=Resampling.cubic, nodata=0) as vrt,
        ):
            copy(vrt, warped, driver="GTiff")
        return warped
    return path
