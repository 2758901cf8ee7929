"""The embedded sample: rendered scenes of Colossus 2 and Southaven on three dates, as a static STAC catalog of COGs.

Nothing here is a photograph. The scenes show the published counts of equipment on the real sites' proxy outlines, so
that the whole chain can be run and checked where the answer is known; every file says that it is rendered.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pystac
import rasterio
import shapely
from pyproj import Transformer
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin
from shapely.geometry import Point, Polygon, box, mapping

from models.rendering import confusers
from models.rendering.canvas import Canvas, Frame, Truth
from models.rendering.chips import placed
from models.rendering.cooling_equipment import CellStyle, cell_grid, chiller_style
from models.rendering.layouts import battery_rows, chiller_rows, ground, paint_text, roof, turbine_pads
from models.rendering.lettering import LetteringStyle
from models.rendering.materials import pave
from models.rendering.power_equipment import battery_style, turbine_style
from models.rendering.sensor import Sensor, photograph
from pipelines.sites import Site, load_site

SAMPLE_CRS = "EPSG:32615"
SAMPLE_GSD_M = 0.30
CELL_M = 0.15
LICENCE = "Apache-2.0"
DESCRIPTION = "RENDERED scene made by Overwatt's own renderer; not a photograph"

CHILLER_MODEL = 1
"""13.39 x 2.36 m with 20 fans: a size that the detector's training scenes leave out."""


@dataclass(frozen=True)
class SampleDate:
    """What a sample scene shows and how it was seen."""

    day: date
    chillers: int = 0
    dry_cooler_columns: int = 0
    """Finished columns of the 6 x 24 array."""
    arrays_begun: int = 0
    batteries: int = 0
    turbines: int = 0
    lettering: str = ""
    sun_azimuth_deg: float = 150.0
    sun_elevation_deg: float = 55.0
    off_nadir_deg: float = 8.0
    haze: float = 0.05


COLOSSUS_2 = (
    # 119 chillers: SemiAnalysis for 2025-08-22. 121 on 2025-09-08: Epoch AI. ~350 MW of cooling in January 2026, the
    # first dry-cooler array nearly complete and two more begun: Epoch AI. 168 Megapacks: announced May 2025.
    SampleDate(
        date(2025, 8, 22), chillers=119, batteries=84, sun_azimuth_deg=141, sun_elevation_deg=59, off_nadir_deg=7
    ),
    SampleDate(
        date(2025, 10, 19),
        chillers=121,
        batteries=168,
        sun_azimuth_deg=162,
        sun_elevation_deg=43,
        off_nadir_deg=12,
        haze=0.10,
    ),
    SampleDate(
        date(2026, 1, 13),
        chillers=139,
        dry_cooler_columns=23,
        arrays_begun=2,
        batteries=192,
        lettering="MACROHARD",
        sun_azimuth_deg=160,
        sun_elevation_deg=31,
        off_nadir_deg=10,
        haze=0.03,
    ),
)
SOUTHAVEN = (
    # 3 turbines in August, 18 on 2025-10-31, 27 on 2026-02-09: FACTS of the published permits and imagery, see
    # data/reference/published.csv.
    SampleDate(date(2025, 8, 22), turbines=3, sun_azimuth_deg=141, sun_elevation_deg=59, off_nadir_deg=7),
    SampleDate(date(2025, 10, 19), turbines=18, sun_azimuth_deg=162, sun_elevation_deg=43, off_nadir_deg=12, haze=0.10),
    SampleDate(date(2026, 1, 13), turbines=27, sun_azimuth_deg=160, sun_elevation_deg=31, off_nadir_deg=10, haze=0.03),
)
SAMPLES = (("colossus-2", COLOSSUS_2), ("southaven", SOUTHAVEN))


@dataclass(frozen=True)
class _Stage:
    """A canvas laid over a site's perimeter."""

    canvas: Canvas
    west_m: float
    north_m: float
    to_grid: Transformer

    def frame(self, polygon: Polygon) -> tuple[Frame, float, float]:
        """Frame along the longer side of a lon/lat rectangle, with its length and width in metres."""
        ring = shapely.transform(
            polygon, self.to_grid.transform, interleaved=False
        ).minimum_rotated_rectangle.exterior.coords
        (x0, y0), (x1, y1), (x2, y2) = ring[0], ring[1], ring[2]
        sides = (np.hypot(x1 - x0, y1 - y0), np.hypot(x2 - x1, y2 - y1))
        dx, dy = (x1 - x0, y1 - y0) if sides[0] >= sides[1] else (x2 - x1, y2 - y1)
        heading_deg = float(np.rad2deg(np.arctan2(dx, dy)) % 180.0)
        centre = Polygon(ring).centroid
        return Frame(centre.x - self.west_m, self.north_m - centre.y, heading_deg), max(sides), min(sides)


def render_sample(folder: Path, sites: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Render every sample scene into `folder` and return the path of its STAC catalog.

    :param sites: folder of site files
    :raises SiteError: a sample site's file is missing or broken
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalog = pystac.Catalog(
        "overwatt-sample",
        "RENDERED sample scenes of Colossus 2 (Memphis) and the Southaven plant; made by a renderer, not photographed.",
        title="Overwatt rendered sample",
    )
    jobs = [(load_site(site_id, sites), when) for site_id, dates in SAMPLES for when in dates]
    for done, (site, when) in enumerate(jobs):
        item = _render_scene(folder, site, when)
        catalog.add_item(item)
        if progress is not None:
            progress(done + 1, len(jobs))
    catalog.normalize_hrefs(str(folder))
    catalog.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=2) + "\n")
    return folder / "catalog.json"


def _render_scene(folder: Path, site: Site, when: SampleDate) -> pystac.Item:
    to_grid = Transformer.from_crs("OGC:CRS84", SAMPLE_CRS, always_xy=True)
    grid = shapely.transform(site.perimeter, to_grid.transform, interleaved=False)
    west, south, east, north = (np.round(v / SAMPLE_GSD_M) * SAMPLE_GSD_M for v in grid.bounds)
    width_px, height_px = round((east - west) / SAMPLE_GSD_M), round((north - south) / SAMPLE_GSD_M)
    scale = round(SAMPLE_GSD_M / CELL_M)
    stage = _Stage(Canvas(width_px * scale, height_px * scale, CELL_M), west, north, to_grid)
    if site.id == "colossus-2":
        _paint_colossus_2(stage, site, when)
    else:
        _paint_southaven(stage, when)
    sensor = Sensor(
        native_gsd_m=SAMPLE_GSD_M,
        sun_azimuth_deg=when.sun_azimuth_deg,
        sun_elevation_deg=when.sun_elevation_deg,
        off_nadir_deg=when.off_nadir_deg,
        lean_azimuth_deg=290.0,
        ambient=0.28,
        haze=when.haze,
        exposure=1.25,
        gamma=0.75,
        cast=(1.02, 1.0, 0.97),
        blur_px=0.65,
        sharpen=0.4,
        chroma_blur_px=1.2,
        noise=0.005,
        jpeg_quality=92,
    )
    rng = np.random.default_rng([when.day.toordinal(), len(site.id)])
    image = photograph(stage.canvas, sensor, rng)
    scene_id = f"rendered-{site.id}-{when.day:%Y%m%d}"
    target = folder / scene_id / f"{scene_id}.tif"
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_cog(target, image, from_origin(west, north, SAMPLE_GSD_M, SAMPLE_GSD_M), when.day)
    return _item(scene_id, target, stage, site, when, sensor, (width_px, height_px))


def _write_cog(path: Path, image: np.ndarray, transform: rasterio.Affine, day: date) -> None:
    profile = {
        "driver": "GTiff",
        "width": image.shape[1],
        "height": image.shape[0],
        "count": 3,
        "dtype": "uint8",
        "crs": SAMPLE_CRS,
        "transform": transform,
        "photometric": "RGB",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(image.transpose(2, 0, 1))
            raster.update_tags(
                OVERWATT_RENDERED="YES",
                TIFFTAG_IMAGEDESCRIPTION=DESCRIPTION,
                TIFFTAG_DATETIME=f"{day:%Y:%m:%d} 17:00:00",
                TIFFTAG_COPYRIGHT=LICENCE,
            )
        copy_raster(memory.name, path, driver="COG", compress="JPEG", quality=82, blocksize=512)


def _item(
    scene_id: str, path: Path, stage: _Stage, site: Site, when: SampleDate, sensor: Sensor, size_px: tuple[int, int]
) -> pystac.Item:
    to_lonlat = Transformer.from_crs(SAMPLE_CRS, "OGC:CRS84", always_xy=True)
    east_m, south_m = stage.west_m + size_px[0] * SAMPLE_GSD_M, stage.north_m - size_px[1] * SAMPLE_GSD_M
    ground_box = box(stage.west_m, south_m, east_m, stage.north_m)
    outline = shapely.transform(ground_box, to_lonlat.transform, interleaved=False)
    counts, texts = shown(stage.canvas.truth, sensor, site, stage, size_px)
    item = pystac.Item(
        scene_id,
        mapping(outline),
        list(outline.bounds),
        datetime(when.day.year, when.day.month, when.day.day, 17, tzinfo=UTC),
        {
            "title": f"RENDERED: {site.name}, {when.day.isoformat()}",
            "description": DESCRIPTION,
            "gsd": SAMPLE_GSD_M,
            "license": LICENCE,
            "platform": "overwatt-renderer",
            "view:off_nadir": sensor.off_nadir_deg,
            "view:sun_azimuth": sensor.sun_azimuth_deg,
            "view:sun_elevation": sensor.sun_elevation_deg,
            "overwatt:site": site.id,
            "overwatt:rendered": True,
            "overwatt:rendered_counts": counts,
            "overwatt:rendered_texts": texts,
        },
        stac_extensions=["https://stac-extensions.github.io/view/v1.0.0/schema.json"],
    )
    item.add_asset(
        "visual",
        pystac.Asset(f"./{path.name}", title=DESCRIPTION, media_type=pystac.MediaType.COG, roles=["data", "visual"]),
    )
    return item


def shown(
    truth: list[Truth], sensor: Sensor, site: Site, stage: _Stage, size_px: tuple[int, int]
) -> tuple[dict[str, int], list[str]]:
    """Units of each class and lettering whose place in the image lies inside the perimeter."""
    perimeter = shapely.transform(site.perimeter, stage.to_grid.transform, interleaved=False)
    objects, texts, _ = placed(truth, sensor, SAMPLE_GSD_M, 0.0, size_px)

    def inside(x_px: float, y_px: float) -> bool:
        return perimeter.contains(Point(stage.west_m + x_px * SAMPLE_GSD_M, stage.north_m - y_px * SAMPLE_GSD_M))

    counts = Counter(o.cls for o in objects if inside(o.x_px, o.y_px))
    return dict(sorted(counts.items())), [t.text for t in texts if inside(t.x_px, t.y_px)]


def _surroundings(stage: _Stage, heading_deg: float, seed: int) -> None:
    """Fields, woods, roads and small industry all over the canvas; the same on every date."""
    canvas = stage.canvas
    rng = np.random.default_rng([seed, 1])
    ground(canvas, rng, heading_deg, "grass")
    width_m, height_m = canvas.extent_m
    # u to the north, v to the east of the middle, as shares of the canvas
    north = Frame(width_m / 2, height_m / 2, heading_deg)

    def at(u: float, v: float) -> Frame:
        return north.at(u * height_m, v * width_m)

    for u, v, length, across, name in (
        (0.28, -0.30, 0.32, 0.34, "dry_grass"),
        (0.33, 0.04, 0.26, 0.30, "grass"),
        (0.36, 0.36, 0.20, 0.22, "dry_grass"),
        (-0.08, -0.36, 0.28, 0.20, "grass"),
        (-0.36, -0.34, 0.18, 0.26, "soil"),
        (-0.10, -0.17, 0.20, 0.12, "dry_grass"),
        (0.12, -0.38, 0.06, 0.18, "soil"),
    ):
        pave(canvas, rng, at(u, v), length * height_m, across * width_m, name)
    for along in (-0.475, 0.475):
        pave(canvas, rng, at(along, 0), 11, 2 * width_m, "asphalt")
        confusers.markings(canvas, rng, at(along, 0).at(0, 0, 90), 2 * width_m, 10)
    pave(canvas, rng, at(0, -0.47), 2 * height_m, 9, "asphalt")
    confusers.markings(canvas, rng, at(0, -0.47), 2 * height_m, 8)
    for u, v, length, across in (
        (0.44, 0.0, 0.04, 0.9),
        (0.14, -0.12, 0.05, 0.5),
        (-0.30, -0.46, 0.3, 0.02),
        (0.30, -0.12, 0.3, 0.02),
        (0.20, 0.20, 0.02, 0.5),
        (-0.45, 0.1, 0.03, 0.7),
    ):
        for _ in range(3):
            confusers.trees(canvas, rng, at(u, v), length * height_m, across * width_m)
    confusers.pool(canvas, rng, at(-0.16, -0.34), 60, 45)
    for k in range(14):
        house = at(0.41 - 0.022 * (k // 7), 0.14 + 0.045 * (k % 7)).at(0, 0, float(rng.normal(0, 3)))
        roof(
            canvas,
            rng,
            house,
            float(rng.uniform(10, 16)),
            float(rng.uniform(8, 12)),
            str(rng.choice(["dark_roof", "tan_roof", "grey_roof"])),
            float(rng.uniform(3.5, 6)),
        )
        canvas.box(house.at(12, 4), 4.6, 1.9, np.array([0.5, 0.5, 0.55]), 1.5)


def _paint_colossus_2(stage: _Stage, site: Site, when: SampleDate) -> None:
    canvas = stage.canvas
    hall = next(z for z in site.zones if z.kind == "roof")
    along, length_m, width_m = stage.frame(Polygon(hall.geometry.exterior))
    # u to the east along the hall, v to the south
    east = along if 45 < along.heading_deg < 135 else along.at(0, 0, 90)
    _surroundings(stage, (east.heading_deg - 90) % 360, seed=2)
    rng = np.random.default_rng(22)
    pave(canvas, rng, east, length_m + 190, width_m + 230, "gravel", 0.0)
    pave(canvas, rng, east.at(0, width_m / 2 + 60), length_m + 160, 70, "concrete", 0.0)
    roof(canvas, rng, east, length_m, width_m, "white_roof", 12.0)
    confusers.skylights(canvas, rng, east.at(0, -95), length_m * 0.9, 60)
    confusers.skylights(canvas, rng, east.at(0, 95), length_m * 0.9, 60)
    confusers.trailers(canvas, rng, east.at(-60, width_m / 2 + 14, 90), 28, 150)
    confusers.cars(canvas, rng, east.at(80, width_m / 2 + 64), 150, 46)
    confusers.containers(canvas, rng, east.at(-110, width_m / 2 + 66), 60, 30)
    confusers.pallets(canvas, rng, east.at(-30, width_m / 2 + 70), 60, 40)
    confusers.switchyard(canvas, rng, east.at(length_m / 2 + 46, 80), 66, 90)
    confusers.generators(canvas, rng, east.at(length_m / 2 + 42, -110, 90), 60, 40)
    confusers.tanks(canvas, rng, east.at(length_m / 2 + 40, 10), 40, 12)

    rng = np.random.default_rng(23)
    style = replace(chiller_style(rng, model=CHILLER_MODEL), length_m=13.39, width_m=2.36, control_m=0.6)
    north = east.at(0, -width_m / 2 - 52, 90)
    pave(canvas, rng, north, 66, 262, "concrete")
    chiller_rows(canvas, np.random.default_rng(24), north, 62, 258, style, when.chillers, gap_m=1.9, aisle_m=4.0)

    if when.dry_cooler_columns or when.arrays_begun:
        cell = CellStyle(
            length_m=6.6,
            width_m=6.6,
            fan_fill=0.82,
            deck=(0.62, 0.63, 0.64),
            throat=0.13,
            shroud=0.75,
            shroud_m=0.5,
            blades=6,
            blade=0.32,
            height_m=8.0,
        )
        rng = np.random.default_rng(25)
        west = east.at(-length_m / 2 - 60, -55, 90)
        missing = 1 - when.dry_cooler_columns / 24
        cell_grid(canvas, rng, west, "dry_cooler", cell, 24, 6, gap_m=0.2, missing=missing)
        for k in range(when.arrays_begun):
            begun = east.at(-length_m / 2 - 60 - 52 * (k + 1), -55, 90)
            pave(canvas, rng, begun, 165, 46, "soil", 0.0)
            cell_grid(canvas, rng, begun, "dry_cooler", cell, 24, 6, gap_m=0.2, missing=1.0)
    if when.batteries:
        rng = np.random.default_rng(26)
        field_at = east.at(-length_m / 2 - 68, 112)
        pave(canvas, rng, field_at, 124, 104, "gravel", 0.0)
        battery_rows(canvas, rng, field_at, 120, 100, battery_style(rng), when.batteries)
    if when.lettering:
        style_of_letters = LetteringStyle(face="block", stretch=1.0, weight=0.2, spacing=0.2)
        paint_text(canvas, np.random.default_rng(27), east, when.lettering, 30.0, style_of_letters, (0.06, 0.06, 0.07))


def _paint_southaven(stage: _Stage, when: SampleDate) -> None:
    canvas = stage.canvas
    width_m, height_m = canvas.extent_m
    east = Frame(width_m / 2, height_m / 2, 90.0 + 8.0)
    _surroundings(stage, 8.0, seed=3)
    rng = np.random.default_rng(32)
    pave(canvas, rng, east, 420, 330, "gravel", 0.0)
    roof(canvas, rng, east.at(-120, -110), 110, 48, "metal_roof", 18.0)
    confusers.rooftop_units(canvas, rng, east.at(-120, -110), 90, 40)
    roof(canvas, rng, east.at(-20, -115), 46, 30, "grey_roof", 9.0)
    confusers.tanks(canvas, rng, east.at(60, -120), 90, 30)
    confusers.switchyard(canvas, rng, east.at(150, -90), 90, 110)
    confusers.containers(canvas, rng, east.at(160, 110), 50, 40)
    confusers.cars(canvas, rng, east.at(-170, -40), 60, 30)
    confusers.trailers(canvas, rng, east.at(150, 50), 30, 50)

    left = when.turbines
    for row, (v_m, share) in enumerate(((-10.0, 14), (45.0, 12), (100.0, 14))):
        rng = np.random.default_rng([33, row])
        pad = east.at(-30, v_m, 90)
        pave(canvas, rng, pad, 40, 250, "concrete")
        left -= turbine_pads(canvas, rng, pad, 36, 240, turbine_style(rng), min(left, share))
