"""What the files of a run folder say: detections as GeoJSON, census and estimate as JSON, the run as a STAC item.

Each function returns text that is a function of its arguments alone (no clock, no paths but the scene's own, sorted
keys, rounded figures), so that the same scene and weights give the same bytes.
"""

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pystac
import shapely
from pystac.extensions.eo import SCHEMA_URI as EO_SCHEMA
from pystac.extensions.projection import SCHEMA_URI as PROJECTION_SCHEMA
from pystac.extensions.view import SCHEMA_URI as VIEW_SCHEMA
from shapely.geometry import mapping

from models.classes import CLASSES, LETTERING
from pipelines.gdal_env import is_url
from pipelines.geojson import rounded
from pipelines.scenes.dates import written_days
from pipelines.scenes.items import when_properties
from pipelines.scenes.web import public_href
from pipelines.sites import Site

if TYPE_CHECKING:
    from pipelines.census import Census
    from pipelines.detection import Detections
    from pipelines.scenes.types import FetchedScene, Scene
    from pipelines.single_raster import SingleRaster

__all__ = ["PROCESSING_SCHEMA", "detections_geojson", "json_text", "raster_geojson", "run_item", "to_json"]

_IMAGE_CRS = (
    'ENGCRS["image pixels",EDATUM["image"],CS[Cartesian,2],AXIS["x",east],AXIS["y",south],LENGTHUNIT["pixel",1]]'
)
PIXEL_DECIMALS = 3
"""Of coordinates in pixels of an image without georeference."""

SIGNIFICANT_DIGITS = 7
"""Of every figure in census and estimate: more than any of them deserves, and few enough to be the same everywhere."""


def to_json(value: object) -> Any:
    """Turn a record (mappings, sequences, figures, texts, times) into what JSON has.

    NaN and missing values become null, times become ISO 8601 in UTC, figures keep seven significant digits.

    :raises ValueError: a figure is infinite
    :raises TypeError: the value is of a kind that no document holds (an array, a geometry, ...)
    """
    if value is None or value is pd.NA or isinstance(value, bool | str):
        return value if value is not pd.NA else None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if math.isinf(value):
            raise ValueError("a document cannot hold an infinite figure")
        return None if math.isnan(value) else float(f"{float(value):.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    raise TypeError(f"no document holds a {type(value).__name__}")


def json_text(value: object) -> str:
    """Return any value that `to_json` knows as an indented JSON document with sorted keys."""
    return json.dumps(to_json(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def detections_geojson(site: Site, scene: "Scene", detections: "Detections", census: "Census") -> str:
    """Return the detections as an RFC 7946 FeatureCollection in CRS84, one feature a line.

    A feature's `id` is the first 16 hexadecimal digits of the SHA-256 of scene id, class and centroid (longitude and
    latitude to 6 decimals, about 0.1 m): the same unit in the same scene keeps its id when other detections come or go.
    Where two would be equal, the later one in the frame's order gets `-2`, `-3`, ...

    :param detections: its frame has the column `zone`
    """
    about = {
        "site": site.id,
        "scene_id": scene.id,
        "acquired": _utc(scene.acquired),
        "acquired_earliest": None if scene.earliest is None else _utc(scene.earliest),
        "acquired_from": scene.acquired_from,
        "released": None if scene.released is None else scene.released.isoformat(),
        "source": scene.source,
        "licence": scene.licence,
        "attribution": scene.attribution,
        "rendered": scene.rendered,
        "model_version": detections.model_version,
        "native_gsd_m": _round(detections.native_gsd_m, 3),
    }
    foreign = about | {
        "covered_fraction": _round(census.covered_fraction, 4),
        "min_probability": _round(detections.min_probability, 4),
        "not_given": dict(detections.not_given),
    }
    return _collection({"overwatt": foreign}, _features(detections, scene.id, about))


def raster_geojson(raster: "SingleRaster", detections: "Detections", classes: Collection[str]) -> str:
    """Return what was detected in a raster by itself, a feature a line.

    It is RFC 7946 in CRS84. Of an image without georeference, the coordinates are pixels of the image, x to the right
    and y down from the outer corner of its first pixel; the member `overwatt` says so, and a `crs` of the image's own
    keeps GIS programs from placing it on the ground (GDAL 3.12 takes a `crs` of null for longitude and latitude).
    """
    about = {
        "raster": raster.name,
        "licence": raster.licence,
        "rendered": raster.rendered,
        "model_version": detections.model_version,
        "native_gsd_m": _round(detections.native_gsd_m, 3),
    }
    foreign = about | {
        "coordinates": (
            "longitude and latitude, CRS84"
            if raster.georeferenced
            else f"pixels of {raster.name}: x to the right, y down, (0, 0) is the outer corner of its first pixel"
        ),
        "classes": [name for name in CLASSES if name in classes],
        "pixels_from": raster.pixels_from,
        "min_probability": _round(detections.min_probability, 4),
        "not_given": dict(detections.not_given),
        "not_read": [
            {name: getattr(damage, name) for name in ("column", "row", "width", "height")}
            | {"lost": damage.lost, "reason": damage.error.reason}
            for damage in (*raster.damaged, *detections.damaged)
        ],
    }
    placed = {} if raster.georeferenced else {"crs": {"type": "name", "properties": {"name": _IMAGE_CRS}}}
    return _collection(placed | {"overwatt": foreign}, _features(detections, raster.name, about))


def _collection(members: Mapping[str, Any], features: Iterable[Mapping[str, Any]]) -> str:
    lines = [_dump(feature) for feature in features]
    # "type" comes first, against the alphabet: GDAL and others recognise GeoJSON by its first bytes.
    named = "".join(f'"{name}": {_dump(member)}, ' for name, member in members.items())
    head = f'{{"type": "FeatureCollection", {named}"features": ['
    return head + "\n" + ",\n".join(lines) + ("\n" if lines else "") + "]}\n"


def _features(detections: "Detections", scene_id: str, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    frame = detections.frame
    if frame.crs is None:
        polygons = shapely.transform(frame.geometry.to_numpy(), lambda xy: np.round(xy, PIXEL_DECIMALS) + 0.0)
    else:
        frame = frame.to_crs("OGC:CRS84")
        polygons = rounded(frame.geometry.to_numpy())
    centroids = shapely.get_coordinates(shapely.centroid(frame.geometry.to_numpy()))
    rows = frame.drop(columns="geometry").to_dict("records")
    seen: dict[str, int] = {}
    for row, (lon, lat), polygon in zip(rows, centroids, polygons, strict=True):
        key = f"{scene_id}|{row['class']}|{lon:.6f}|{lat:.6f}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        seen[digest] = seen.get(digest, 0) + 1
        turn_deg = 360 if row["class"] == LETTERING.name else 180
        yield {
            "type": "Feature",
            "id": digest if seen[digest] == 1 else f"{digest}-{seen[digest]}",
            "geometry": mapping(polygon),
            "properties": {
                **about,
                "class": row["class"],
                "score": _round(row["score"], 6),
                "probability": _round(row["probability"], 6),
                "length_m": _round(row["length_m"], 2),
                "width_m": _round(row["width_m"], 2),
                "heading_deg": round(float(row["heading_deg"]), 1) % turn_deg,
                "fan_count": None if pd.isna(row["fan_count"]) else int(row["fan_count"]),
                "text": None if pd.isna(row["text"]) else row["text"],
                "text_confidence": _round(row["text_confidence"], 4),
                **({"zone": None if pd.isna(row["zone"]) else row["zone"]} if "zone" in row else {}),
            },
        }


def run_item(
    site: Site, fetched: "FetchedScene", detections: "Detections", census: "Census", *, waterfall: bool = False
) -> str:
    """Return the STAC item of a run: its geometry is what was seen of the site, its assets are the run's files.

    :param waterfall: whether there is the picture of `WATERFALL`
    """
    scene = fetched.scene
    seen = site.perimeter if detections.coverage.is_empty else detections.coverage
    geometry = rounded(np.array([seen], dtype=object))[0]
    # STAC wants an SPDX identifier or "other"; the licence as it was given stands beside it.
    spdx = scene.licence if re.fullmatch(r"[A-Za-z0-9.+-]+", scene.licence) else "other"
    item = pystac.Item(
        id=f"{site.id}-{scene.id}",
        geometry=mapping(geometry),
        bbox=[float(x) for x in shapely.bounds(geometry)],
        datetime=None if scene.earliest is not None else scene.acquired.astimezone(UTC),
        properties={
            **({} if scene.earliest is None else when_properties(scene.acquired, scene.earliest)),
            "title": f"{site.name}, {written_days(scene.acquired, scene.earliest)}"
            + (" (rendered imagery)" if scene.rendered else ""),
            "gsd": _round(detections.native_gsd_m, 3),
            "license": spdx,
            "overwatt:site": site.id,
            "overwatt:campus": site.campus,
            "overwatt:scene_id": scene.id,
            "overwatt:scene_sha256": fetched.sha256,
            "overwatt:source": scene.source,
            "overwatt:acquired_from": scene.acquired_from,
            "overwatt:acquired_earliest": None if scene.earliest is None else _utc(scene.earliest),
            "overwatt:released": None if scene.released is None else scene.released.isoformat(),
            "overwatt:licence": scene.licence,
            "overwatt:attribution": scene.attribution,
            "overwatt:acknowledged": scene.acknowledged or None,
            "overwatt:rendered": scene.rendered,
            "overwatt:model_version": detections.model_version,
            "overwatt:covered_fraction": _round(census.covered_fraction, 4),
            "overwatt:counts": {cls: count.detected for cls, count in census.by_class.items()},
            "overwatt:not_given": dict(census.not_given),
            **_how(fetched, detections),
        },
    )
    schemas = {"proj:": PROJECTION_SCHEMA, "view:": VIEW_SCHEMA, "eo:": EO_SCHEMA, "processing:": PROCESSING_SCHEMA}
    item.stac_extensions = [
        uri for prefix, uri in schemas.items() if any(name.startswith(prefix) for name in item.properties)
    ]
    for key, (href, media_type, title, roles) in (ASSETS | (WATERFALL if waterfall else {})).items():
        item.add_asset(key, pystac.Asset(f"./{href}", title, media_type=media_type, roles=list(roles)))
    if is_url(scene.href):
        # A local image has no address that means anything on another machine; its checksum stands among the properties.
        item.add_link(pystac.Link("derived_from", public_href(scene.href), title=f"scene {scene.id}"))
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _how(fetched: "FetchedScene", detections: "Detections") -> dict[str, Any]:
    """Say how the scene was seen and what was done with it, by the names that STAC has for that."""
    scene = fetched.scene
    seen = {
        "view:off_nadir": scene.off_nadir_deg,
        "view:sun_azimuth": scene.sun_azimuth_deg,
        "view:sun_elevation": scene.sun_elevation_deg,
        "eo:cloud_cover": scene.cloud_cover_percent,
    }
    placed: Mapping[str, Any] = {}
    if fetched.item_path.is_file():
        placed = json.loads(fetched.item_path.read_bytes()).get("properties", {})
    projection = {name: placed[name] for name in ("proj:code", "proj:shape", "proj:transform") if name in placed}
    return {name: value for name, value in seen.items() if value is not None} | {
        **projection,
        # L4: results of a model, not measured by the instrument.
        "processing:level": "L4",
        "processing:lineage": (
            "equipment detected as oriented polygons, counted with measured recall, and turned into megawatts by "
            "Monte Carlo" + ("; the imagery is RENDERED, not a photograph" if scene.rendered else "")
        ),
        "processing:software": {"overwatt": version("overwatt"), "overwatt weights": detections.model_version},
    }


PROCESSING_SCHEMA = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
"""pystac has no module for it."""
ASSETS = {
    "detections": ("detections.geojson", pystac.MediaType.GEOJSON, "Detections as polygons", ("data",)),
    "census": ("census.json", pystac.MediaType.JSON, "Counts by class and zone", ("metadata",)),
    "estimate": ("estimate.json", pystac.MediaType.JSON, "What the counts imply in MW and GPUs", ("metadata",)),
    "ground": (
        "ground.tif",
        pystac.MediaType.GEOTIFF,
        "Grey picture of the ground, for co-registration",
        ("metadata",),
    ),
    "overlay": ("overlay.png", pystac.MediaType.PNG, "Detections drawn over the scene", ("overview",)),
}
"""Files of every run folder beside its item: key, name, media type, title, roles."""
WATERFALL = {"waterfall": ("waterfall.png", pystac.MediaType.PNG, "From equipment to accelerators", ("overview",))}
"""The same of runs that give IT power."""


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _round(value: float, decimals: int) -> float | None:
    return None if pd.isna(value) else round(float(value), decimals)


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
