"""STAC items, both ways: what an item says becomes a `Scene`; a cached COG gets an item of its own.

Overwatt's own properties carry the prefix `overwatt:`; everything that STAC has a name for goes by that name.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pystac
import shapely
from pystac.extensions.eo import SCHEMA_URI as EO_SCHEMA
from pystac.extensions.file import SCHEMA_URI as FILE_SCHEMA
from pystac.extensions.projection import SCHEMA_URI as PROJECTION_SCHEMA
from pystac.extensions.view import SCHEMA_URI as VIEW_SCHEMA
from pystac.utils import str_to_datetime
from rasterio.io import DatasetReader
from shapely.geometry import MultiPolygon, Polygon, mapping

from pipelines.errors import SceneError
from pipelines.scenes.bands import item_bands
from pipelines.scenes.dates import DateStatement
from pipelines.scenes.radiometry import Radiometry
from pipelines.scenes.types import RasterDeclaration, Scene
from pipelines.scenes.web import public_href

__all__ = [
    "Origin",
    "acquired_of",
    "cached_item",
    "is_item",
    "item_footprint",
    "known_properties",
    "providers_line",
    "read_item",
    "safe_id",
    "scene_from_item",
    "when_properties",
]

_LONGEST_ACQUISITION = timedelta(days=1)
"""A scene is one acquisition; an item that spans more is a mosaic of several dates."""
_LONGEST_ID = 96


def is_item(document: object) -> bool:
    """Whether JSON is meant to be a STAC item."""
    return isinstance(document, dict) and document.get("type") == "Feature" and "stac_version" in document


def read_item(document: Mapping[str, Any], href: str) -> pystac.Item:
    """Build a STAC item from its JSON.

    :raises SceneError: it is broken; the message names the field
    """
    for name, kind in (("id", str), ("properties", dict), ("assets", dict), ("links", list)):
        if not isinstance(document.get(name), kind):
            raise SceneError(f"STAC item {href}: '{name}' must be a JSON {_JSON_NAMES[kind]}")
    # Older ones are migrated by pystac through files it fetches by itself.
    if not str(document["stac_version"]).startswith("1."):
        raise SceneError(f"STAC item {href}: 'stac_version' is {document['stac_version']!r}, but 1.x is needed")
    properties = document["properties"]
    for name in ("datetime", "start_datetime", "end_datetime"):
        _time(properties.get(name), f"STAC item {href}: '{name}'")
    if properties.get("datetime") is None and not {"start_datetime", "end_datetime"} <= properties.keys():
        raise SceneError(f"STAC item {href}: it has no 'datetime', so the scene cannot be dated; add one")
    for key, asset in document["assets"].items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            raise SceneError(f"STAC item {href}: asset '{key}' must have an 'href'")
        for name, each in _ASSET_LISTS.items():
            values = asset.get(name)
            if values is not None and not (isinstance(values, list) and all(isinstance(one, each) for one in values)):
                raise SceneError(
                    f"STAC item {href}: asset '{key}': '{name}' must be a list, each a JSON {_JSON_NAMES[each]}"
                )
        if not isinstance(asset.get("type"), str | None):
            raise SceneError(f"STAC item {href}: asset '{key}': 'type' must be a JSON string")
    try:
        return pystac.Item.from_dict(dict(document), href=href)
    except (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SceneError(f"STAC item {href} is broken ({error}); validate it with a STAC validator") from error


_ASSET_LISTS: dict[str, type] = {"roles": str, "bands": dict, "eo:bands": dict, "raster:bands": dict}
_JSON_NAMES: dict[type, str] = {str: "string", dict: "object", list: "list"}


def acquired_of(item: pystac.Item) -> DateStatement:
    """Return when an item was acquired: its `datetime`, or the end of a range of at most one day.

    A longer range is one of which a single moment is meant where `overwatt:earliest` says so by giving its start.

    :raises SceneError: the range is longer: a mosaic has no acquisition date
    """
    if item.datetime is not None:
        return DateStatement(_utc(item.datetime), "item")
    start = _time(item.properties["start_datetime"], "start_datetime")
    end = _time(item.properties["end_datetime"], "end_datetime")
    earliest = _time(item.properties.get("overwatt:earliest"), f"STAC item {item.id}: 'overwatt:earliest'")
    if earliest is not None and end is not None and earliest == start and earliest <= end:
        said_by = _text(item.properties.get("overwatt:acquired_from")) or "item end_datetime"
        return DateStatement(end.replace(hour=0, minute=0, second=0, microsecond=0), said_by, earliest)
    if start is None or end is None or not start <= end <= start + _LONGEST_ACQUISITION:
        raise SceneError(
            f"STAC item {item.id}: it spans {item.properties['start_datetime']} to {item.properties['end_datetime']}, "
            "which is no single acquisition"
        )
    return DateStatement(end, "item end_datetime")


def when_properties(acquired: datetime, earliest: datetime | None) -> dict[str, str | None]:
    """Return the properties that say when a scene was acquired; a range of days ends with its last second."""
    if earliest is None:
        return {"datetime": f"{acquired:%Y-%m-%dT%H:%M:%SZ}"}
    return {
        "datetime": None,
        "start_datetime": f"{earliest:%Y-%m-%dT%H:%M:%SZ}",
        "end_datetime": f"{acquired:%Y-%m-%d}T23:59:59Z",
        # Without it a range would be one over which a mosaic was put together.
        "overwatt:earliest": f"{earliest:%Y-%m-%dT%H:%M:%SZ}",
    }


def scene_from_item(
    item: pystac.Item,
    asset: pystac.Asset | None,
    *,
    source: str,
    href: str,
    footprint: Polygon | MultiPolygon,
    raster_gsd_m: float | None,
    licence: str | None,
    attribution: str = "",
    acquired: DateStatement | None = None,
    price: str = "unknown",
) -> Scene:
    """Build the scene an item describes.

    :param asset: the asset that holds the raster; its fields go before the item's
    :param raster_gsd_m: used where the item declares no `gsd`
    :param licence: used where the item declares none
    :param price: used where the item declares none (`overwatt:price`)
    :raises SceneError: a property is not of its kind; the message names the item and the property
    """
    own = asset.extra_fields if asset else {}
    properties = item.properties
    acquired = acquired or acquired_of(item)
    gsd_m = _number(item, "gsd", own.get("gsd", properties.get("gsd")), positive=True) or raster_gsd_m
    if gsd_m is None:
        raise SceneError(f"STAC item {item.id}: it has no 'gsd'; add the ground sampling distance in metres")
    rendered = properties.get("overwatt:rendered", False)
    if not isinstance(rendered, bool):
        raise SceneError(f"STAC item {item.id}: 'overwatt:rendered' must be true or false, got {rendered!r}")
    return Scene(
        id=safe_id(item.id),
        source=source,
        acquired=acquired.when,
        gsd_m=gsd_m,
        footprint=footprint,
        licence=_text(properties.get("overwatt:licence")) or _text(properties.get("license")) or licence or "unknown",
        rendered=rendered,
        href=href,
        acquired_from=acquired.said_by,
        earliest=acquired.earliest,
        acknowledged=_text(properties.get("overwatt:acknowledged")),
        off_nadir_deg=_number(item, "view:off_nadir", properties.get("view:off_nadir")),
        sun_azimuth_deg=_number(item, "view:sun_azimuth", properties.get("view:sun_azimuth")),
        sun_elevation_deg=_number(item, "view:sun_elevation", properties.get("view:sun_elevation")),
        cloud_cover_percent=_number(item, "eo:cloud_cover", properties.get("eo:cloud_cover")),
        attribution=_text(properties.get("attribution")) or providers_line(properties.get("providers")) or attribution,
        declared=_declaration(item, asset),
        released=_released(item),
        price=_text(properties.get("overwatt:price")) or price,
        bands=item_bands(item),
    )


def _released(item: pystac.Item) -> date | None:
    """Return the day of `published` (timestamps extension)."""
    published = _time(item.properties.get("published"), f"STAC item {item.id}: 'published'")
    return None if published is None else published.date()


def providers_line(providers: object) -> str:
    """Name the providers of an item or a collection in one line."""
    if not isinstance(providers, list):
        return ""
    return "; ".join(str(p["name"]) for p in providers if isinstance(p, dict) and p.get("name"))


def _declaration(item: pystac.Item, asset: pystac.Asset | None) -> RasterDeclaration:
    """Return what an item says of its pixels.

    :raises SceneError: `nodata` is no number, or `overwatt:stretch` is not pairs of numbers
    """
    own = asset.extra_fields if asset else {}
    bands = own.get("bands") or own.get("eo:bands") or []
    described = [band for band in [own, *bands, *(own.get("raster:bands") or [])] if isinstance(band, dict)]
    nodata = next((band["nodata"] for band in described if band.get("nodata") is not None), None)
    try:
        # STAC writes not-a-number as the string "nan".
        nodata = None if nodata is None else float(nodata)
    except (TypeError, ValueError) as error:
        raise SceneError(f"STAC item {item.id}: 'nodata' must be a number or \"nan\", got {nodata!r}") from error
    names = [str(b.get("eo:common_name") or b.get("common_name") or b.get("name")).lower() for b in bands]
    rgb = None
    if {"red", "green", "blue"} <= set(names):
        rgb = (names.index("red") + 1, names.index("green") + 1, names.index("blue") + 1)
    return RasterDeclaration(
        nodata=nodata,
        stretch=_stretch(item),
        rgb_bands=rgb,
    )


def safe_id(text: str) -> str:
    """Make an id that is safe as a folder name; ids that differ stay different."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:_LONGEST_ID]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


@dataclass(frozen=True)
class Origin:
    """A raster that a cached COG was made from."""

    href: str
    sha256: str | None
    """None where the file is remote."""
    placed: str
    """How its pixels came into the COG."""


def cached_item(
    scene: Scene,
    dataset: DatasetReader,
    radiometry: Radiometry,
    *,
    file_name: str,
    size: int,
    sha256: str,
    footprint: Polygon,
    coverage: Polygon | MultiPolygon,
    origins: Sequence[Origin],
) -> dict[str, Any]:
    """Describe a cached COG as a STAC item (JSON); the same input gives the same item.

    :param dataset: the COG, open
    :param origins: the rasters it was made from, the one on top first
    """
    properties: dict[str, Any] = {
        "gsd": scene.gsd_m,
        # STAC wants a name of the SPDX list or "other"; the words that came with the image stay beside it.
        "license": scene.licence if re.fullmatch(r"[\w.+-]+", scene.licence) else "other",
        "proj:code": f"EPSG:{dataset.crs.to_epsg()}" if dataset.crs.to_epsg() else None,
        "proj:wkt2": dataset.crs.to_wkt(version="WKT2_2019"),
        "proj:shape": [dataset.height, dataset.width],
        "proj:transform": list(dataset.transform)[:6],
        "overwatt:source": scene.source,
        "overwatt:licence": scene.licence,
        "overwatt:rendered": scene.rendered,
        "overwatt:acquired_from": scene.acquired_from,
        "overwatt:bands": list(radiometry.bands),
        "overwatt:bands_from": radiometry.bands_from,
        "overwatt:stretch": radiometry.stretch,
        "overwatt:stretch_from": radiometry.stretch_from,
        "overwatt:mask": radiometry.mask_from,
        "overwatt:derived_from": {"href": public_href(origins[0].href), "sha256": origins[0].sha256},
        "overwatt:coverage": mapping(coverage),
    }
    optional = {
        "overwatt:price": None if scene.price == "unknown" else scene.price,
        "overwatt:parts": [
            {"href": public_href(one.href), "sha256": one.sha256, "placed": one.placed} for one in origins
        ]
        if len(origins) > 1
        else None,
    }
    properties |= known_properties(scene)
    properties |= {name: value for name, value in optional.items() if value is not None}
    if scene.earliest is not None:
        properties |= when_properties(scene.acquired, scene.earliest)
    schemas = {"proj:": PROJECTION_SCHEMA, "file:": FILE_SCHEMA, "view:": VIEW_SCHEMA, "eo:": EO_SCHEMA}
    item = pystac.Item(
        id=scene.id,
        geometry=mapping(footprint),
        bbox=list(footprint.bounds),
        datetime=scene.acquired if scene.earliest is None else None,
        properties=properties,
        stac_extensions=[
            uri for prefix, uri in schemas.items() if prefix == "file:" or any(p.startswith(prefix) for p in properties)
        ],
    )
    asset = pystac.Asset(
        href=f"./{file_name}",
        media_type=pystac.MediaType.COG,
        roles=["data", "visual"],
        extra_fields={
            # Multihash: 0x12 says SHA-256, 0x20 says 32 bytes.
            "file:checksum": f"1220{sha256}",
            "file:size": size,
            "data_type": "uint8",
            "bands": [{"name": colour} for colour in ("red", "green", "blue")],
        },
    )
    item.add_asset("data", asset)
    for one in origins:
        item.add_link(pystac.Link("derived_from", _link_href(one.href)))
    # Through JSON, so that what is returned is what a reader of the file gets.
    document: dict[str, Any] = json.loads(json.dumps(item.to_dict(include_self_link=False)))
    return document


def known_properties(scene: Scene) -> dict[str, Any]:
    """Return what is known of how a scene was seen and may be used, as properties of an item; the rest is left out."""
    optional = {
        "view:off_nadir": scene.off_nadir_deg,
        "view:sun_azimuth": scene.sun_azimuth_deg,
        "view:sun_elevation": scene.sun_elevation_deg,
        "eo:cloud_cover": scene.cloud_cover_percent,
        "attribution": scene.attribution or None,
        "published": None if scene.released is None else f"{scene.released}T00:00:00Z",
        "overwatt:acknowledged": scene.acknowledged or None,
    }
    return {name: value for name, value in optional.items() if value is not None}


def item_footprint(item: pystac.Item) -> Polygon | MultiPolygon | None:
    """Return an item's geometry, or its bounding box where it has none; None where it has neither.

    :raises SceneError: its geometry is no polygon
    """
    try:
        if item.geometry is not None:
            shape = shapely.make_valid(shapely.from_geojson(json.dumps(item.geometry)))
            if shape.area:
                return shape
        elif item.bbox:
            half = len(item.bbox) // 2
            return shapely.box(item.bbox[0], item.bbox[1], item.bbox[half], item.bbox[half + 1])
    except (shapely.errors.GEOSException, TypeError, IndexError) as error:
        raise SceneError(f"STAC item {item.id}: its geometry is not GeoJSON ({error})") from error
    return None


def _link_href(href: str) -> str:
    # The braces of a tile template have no place in an address.
    return quote(public_href(href), safe="%/:?@!$&'()*+,;=~[]") if "://" in href else Path(href).as_uri()


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _time(text: object, what: str) -> datetime | None:
    if text is None:
        return None
    try:
        return _utc(str_to_datetime(text))  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise SceneError(f"{what} is {text!r}, which is no date and time such as 2025-08-22T16:30:00Z") from error


def _number(item: pystac.Item, name: str, value: object, positive: bool = False) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (positive and not value > 0):
        raise SceneError(f"STAC item {item.id}: '{name}' must be a {'positive ' * positive}number, got {value!r}")
    return float(value)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _stretch(item: pystac.Item) -> tuple[tuple[float, float], ...] | None:
    value = item.properties.get("overwatt:stretch")
    if value is None:
        return None
    pairs = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
    numbers = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(v) in (int, float) for v in pair) and pair[0] < pair[1]
        for pair in pairs
    )
    if not numbers or len(pairs) not in (1, 3):
        raise SceneError(
            f"STAC item {item.id}: 'overwatt:stretch' must be [low, high], or three such pairs, got {value!r}"
        )
    return tuple((float(low), float(high)) for low, high in pairs)
