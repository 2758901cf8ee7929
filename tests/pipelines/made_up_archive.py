"""Run folders that nobody counted, written as a run writes them but without picture, in milliseconds."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Transformer

from models.detector.card import RecallPoint
from pipelines.capacity import estimate
from pipelines.census import assign_zones, take_census
from pipelines.detection import Detections
from pipelines.documents import detections_geojson, json_text, run_item
from pipelines.grid import utm
from pipelines.publishing import replace_folder
from pipelines.scenes.types import FetchedScene, Scene
from pipelines.settings import ROOT
from pipelines.sites import Site, load_site

RECALL = {
    cls: [RecallPoint(gsd_m=0.3, found=95, total=100)]
    for cls in ("air_cooled_chiller", "dry_cooler", "cooling_tower", "gas_turbine", "battery")
}
NO_PICTURE = b"no picture"


@cache
def real_site(site_id: str) -> Site:
    return load_site(site_id, ROOT / "aoi")


def add_run(
    archive: Path,
    site: str | Site = "colossus-2",
    day: date = date(2025, 10, 19),
    scene: str = "scene",
    *,
    rendered: bool = False,
    covered: float = 1.0,
    gsd_m: float = 0.3,
    probabilities: tuple[float, ...] = (0.9, 0.4),
    not_given: Mapping[str, str] | None = None,
    scene_fields: Mapping[str, Any] | None = None,
    **counts: int,
) -> Path:
    """Publish a run with so many detections of each class, in rows north of the middle of the site's south edge."""
    place = real_site(site) if isinstance(site, str) else site
    west, south, east, north = place.perimeter.bounds
    crs = utm((west + east) / 2, (south + north) / 2)
    x0, y0 = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform((west + east) / 2, (south + north) / 2)
    names = [cls for cls, count in counts.items() for _ in range(count)]
    i = np.arange(len(names))
    x, y = x0 + 6 * (i % 40), y0 + 14 * (i // 40)
    words = [f"WORD{k}" if name == "roof_lettering" else None for k, name in enumerate(names)]
    frame = gpd.GeoDataFrame(
        {
            "class": pd.Series(names, dtype=object),
            "score": np.full(len(names), 0.8),
            "probability": np.resize(np.array(probabilities, float), len(names)),
            "length_m": np.full(len(names), 12.0),
            "width_m": np.full(len(names), 4.0),
            "heading_deg": np.zeros(len(names)),
            "fan_count": pd.array([20 if name == "air_cooled_chiller" else None for name in names], dtype="Int64"),
            "text": pd.Series(words, dtype=object),
            "text_confidence": np.where([word is None for word in words], math.nan, 0.9),
        },
        geometry=shapely.box(x - 2, y - 6, x + 2, y + 6),
        crs=crs,
    )
    seen = shapely.box(west, south, west + covered * (east - west), north) & place.perimeter
    found = Detections(
        frame=assign_zones(place, frame),
        coverage=seen,
        not_given=dict(not_given or {}),
        windows_read=1,
        windows_skipped=0,
        model_version="detector-1+reader-2",
        native_gsd_m=gsd_m,
    )
    taken = Scene(
        id=scene,
        source="local:scene.tif",
        acquired=datetime.combine(day, time(16, 45), UTC),
        gsd_m=gsd_m,
        footprint=place.perimeter,
        licence="CC-BY-4.0",
        rendered=rendered,
        href="/images/scene.tif",
        acquired_from="item",
        off_nadir_deg=12.5,
        sun_azimuth_deg=170.0,
        sun_elevation_deg=40.0,
        attribution="Someone",
    )
    taken = replace(taken, **(scene_fields or {}))
    item_path = archive / f".{scene}.json"
    archive.mkdir(parents=True, exist_ok=True)
    projection = {"proj:code": "EPSG:32616", "proj:shape": [10, 20], "proj:transform": [0.3, 0, 0, 0, -0.3, 0]}
    item_path.write_text(json.dumps({"properties": projection}))
    fetched = FetchedScene(taken, archive / "scene.tif", item_path, "0" * 64, seen)
    census = take_census(place, taken, found, RECALL)
    implied = estimate(census, place, draws=500)
    contents = {
        "detections.geojson": detections_geojson(place, taken, found, census).encode(),
        "census.json": json_text(census.as_record()).encode(),
        "estimate.json": json_text(implied.as_record()).encode(),
        "overlay.png": NO_PICTURE,
        "ground.tif": NO_PICTURE,
        "item.json": run_item(place, fetched, found, census).encode(),
    }
    item_path.unlink()
    folder = archive / place.id / day.isoformat() / scene
    replace_folder(folder, contents)
    return folder
