"""Sites: where to look, in which zones, and what is known of the place; one GeoJSON file a site.

A site file is an RFC 7946 FeatureCollection in longitude and latitude (CRS84). One feature has `kind` "perimeter" and
carries the site's attributes; the others have `kind` "zone" and a `zone` of roof, yard or plant. Every feature says
where its geometry comes from (`source`) and whether it was `traced` or is a `proxy`. A file that cannot be trusted is
refused with a `SiteError` that names the file, the feature and the fault.
"""

import contextlib
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import shapely
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, ValidationError
from shapely.geometry import MultiPolygon, Polygon, mapping

from pipelines.errors import SiteError
from pipelines.geojson import Place, area_m2, read_polygon

__all__ = ["KnownDate", "Site", "Supply", "Zone", "load_site", "load_sites", "new_site"]

LARGEST_PERIMETER_KM2 = 2500.0
"""A datacenter campus is a few km2; ten times a large county is a mistake of units or of order."""
ZONE_OUTSIDE_SHARE = 0.05
"""Share of a zone's area that may lie outside the perimeter: traced outlines are a metre or two off each other."""
OVERLAP_M2 = 1.0
"""Two perimeters of a campus that share an edge overlap by rounding only."""


def _slug(value: str) -> str:
    if re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", value) and len(value) <= 64:
        return value
    raise ValueError("must be at most 64 lower-case letters and digits, with single - or _ between them")


Slug = Annotated[str, AfterValidator(_slug)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Quality = Literal["traced", "proxy"]
ZoneKind = Literal["roof", "yard", "plant"]


def _iso_date(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return date.fromisoformat(value)
    raise ValueError("input should be a date YYYY-MM-DD")


IsoDate = Annotated[date, BeforeValidator(_iso_date)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True)
class KnownDate:
    """Something published about the site that a timeline can be held against."""

    date: IsoDate
    event: Text
    source: Text


@dataclass(frozen=True)
class Supply:
    """Power that imagery does not show."""

    kind: Literal["grid", "contract"]
    """`grid`: a connection said to be energised. `contract`: announced; it may be machines that imagery also shows."""
    mw: Annotated[Number, Field(gt=0)]
    """What this entry adds from `start` on (entries of one kind add up)."""
    start: IsoDate
    source: Text


@dataclass(frozen=True)
class Zone:
    """A part of the site that is counted on its own."""

    id: str
    kind: ZoneKind
    geometry: Polygon | MultiPolygon
    """Longitude and latitude (CRS84), exterior rings counter-clockwise."""
    source: str
    quality: Quality


@dataclass(frozen=True)
class Site:
    """A place that is monitored."""

    id: str
    """Safe as a folder name: lower-case letters, digits, single - or _."""
    name: str
    operator: str
    address: str
    campus: str
    """Sites with the same campus work as one; their perimeters do not overlap, so that no unit counts twice."""
    perimeter: Polygon
    """Longitude and latitude (CRS84), exterior ring counter-clockwise."""
    perimeter_source: str
    perimeter_quality: Quality
    zones: tuple[Zone, ...]
    """In the order of the file; where two overlap, the first holds the unit."""
    known_dates: tuple[KnownDate, ...]
    supplies: tuple[Supply, ...]
    accelerator: str | None
    """Default accelerator for estimates (a name of the accelerator table); None where the site computes nothing."""
    accelerator_source: str | None
    pue: float | None
    """Peak facility power / IT power; None: the estimate takes it from the cooling that is seen."""
    pue_source: str | None
    path: Path
    reference_name: str | None = None
    """What Epoch AI's export calls the site, or the sites of its campus together."""


def load_site(id_or_path: str, folder: Path) -> Site:
    """Read one site.

    :param id_or_path: a site id (`<folder>/<id>.geojson`), or the path of a site file anywhere
    :param folder: where the site files are
    :raises SiteError: there is no such site, or its file is broken
    """
    if Path(id_or_path).suffix.lower() in {".geojson", ".json"} or os.sep in id_or_path:
        return _read(Path(id_or_path))
    known = [path.stem for path in _site_files(folder)]
    if id_or_path not in known:
        close = difflib.get_close_matches(id_or_path.lower(), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SiteError(f"there is no site '{id_or_path}' in {folder} (known: {', '.join(known) or 'none'}{hint})")
    site = _read(folder / f"{id_or_path}.geojson")
    if site.id != id_or_path:
        raise SiteError(f"{site.path}: its perimeter has the id '{site.id}'; name the file {site.id}.geojson")
    return site


def load_sites(folder: Path) -> list[Site]:
    """Read every site of a folder, in the order of their file names.

    :raises SiteError: a file is broken, two files have the same id, or two perimeters of a campus overlap
    """
    sites = [_read(path) for path in _site_files(folder)]
    for i, site in enumerate(sites):
        for other in sites[:i]:
            if site.id == other.id:
                raise SiteError(f"{site.path}: the id '{site.id}' is already that of {other.path}; give it another")
            if site.campus == other.campus and area_m2(site.perimeter & other.perimeter) > OVERLAP_M2:
                raise SiteError(
                    f"{site.path}: its perimeter overlaps that of '{other.id}' of the same campus '{site.campus}', "
                    "where units would count twice; draw them apart"
                )
    return sites


def new_site(
    site_id: str,
    area: tuple[float, float, float, float] | Polygon,
    folder: Path,
    *,
    source: str,
    quality: Quality = "proxy",
    name: str | None = None,
    operator: str = "unknown",
    address: str = "",
    campus: str | None = None,
    reference_name: str | None = None,
) -> Site:
    """Write a new site file without zones, `<folder>/<site_id>.geojson`, and return what it holds.

    :param area: the perimeter in longitude and latitude: bounds (west, south, east, north) or a polygon, such as the
        footprint of a raster
    :param source: where the perimeter comes from
    :param campus: defaults to the site's own id
    :raises SiteError: the id is not a safe name, the area is no area, the file exists or cannot be written
    """
    path = folder / f"{site_id}.geojson"
    if not isinstance(area, Polygon):
        west, south, east, north = area
        if not (west < east and south < north):
            raise SiteError(f"bounds {west} {south} {east} {north}: give them as west south east north in degrees")
        area = shapely.box(west, south, east, north)
    document = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {
                    "kind": "perimeter",
                    "id": site_id,
                    "name": name or site_id,
                    "operator": operator,
                    "address": address,
                    "campus": campus or site_id,
                    "source": source,
                    "quality": quality,
                    **({"reference_name": reference_name} if reference_name else {}),
                },
                "geometry": mapping(shapely.orient_polygons(shapely.force_2d(area))),
            }
        ],
    }
    site = _parse(json.loads(json.dumps(document)), path)
    try:
        with contextlib.suppress(FileExistsError):  # when it is a file, opening one inside it says so
            folder.mkdir(parents=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1) + "\n")
    except FileExistsError:
        raise SiteError(f"{path} already exists; choose another id or edit that file") from None
    except OSError as error:
        raise SiteError(f"{path} cannot be written: {error.strerror}") from None
    return site


def _site_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SiteError(f"{folder}, the folder of site files, does not exist; set OVERWATT_AOI to the one that does")
    return sorted(folder.glob("[!.]*.geojson"))


def _read(path: Path) -> Site:
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise SiteError(f"site file {path} does not exist") from None
    except OSError as error:
        raise SiteError(f"site file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SiteError(f"{path} is not GeoJSON: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise SiteError(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise SiteError(f"{path} is not GeoJSON: it is nested too deeply") from None
    return _parse(document, path)


M = TypeVar("M", bound=BaseModel)


class _PerimeterProperties(BaseModel):
    """What the perimeter's feature must say; fields that GIS programs add (fid, stroke, ...) are ignored."""

    kind: Literal["perimeter"]
    id: Slug
    name: Text
    operator: Text
    address: str = ""
    campus: Slug
    accelerator: Text | None = None
    accelerator_source: Text | None = None
    pue: Annotated[Number, Field(ge=1, le=3)] | None = None
    pue_source: Text | None = None
    known_dates: tuple[KnownDate, ...] = ()
    supplies: tuple[Supply, ...] = ()
    reference_name: Text | None = None
    source: Text
    quality: Quality


class _ZoneProperties(BaseModel):
    """What a zone's feature must say."""

    kind: Literal["zone"]
    id: Slug
    zone: ZoneKind
    source: Text
    quality: Quality


def _parse(document: object, path: Path) -> Site:
    perimeters: list[tuple[Place, _PerimeterProperties, Polygon]] = []
    zones: list[tuple[Place, Zone]] = []
    for place, feature, properties in _features(document, path):
        kind = properties.get("kind")
        if kind == "perimeter":
            attributes = _validated(_PerimeterProperties, properties, place)
            outline = read_polygon(feature.get("geometry"), place)
            if not isinstance(outline, Polygon):
                place.refuse("the perimeter must be one polygon, not several")
            perimeters.append((place, attributes, outline))
        elif kind == "zone":
            fields = _validated(_ZoneProperties, properties, place)
            geometry = read_polygon(feature.get("geometry"), place)
            if fields.id in {zone.id for _, zone in zones}:
                place.refuse(f"the zone id '{fields.id}' is given twice")
            zones.append((place, Zone(fields.id, fields.zone, geometry, fields.source, fields.quality)))
        else:
            place.refuse(f"kind must be 'perimeter' or 'zone', got {kind!r}")
    if not perimeters:
        raise SiteError(f"{path}: no feature has kind 'perimeter'; a site needs one")
    if len(perimeters) > 1:
        perimeters[1][0].refuse(f"a second perimeter; feature {perimeters[0][0].index} already is one")
    place, attributes, perimeter = perimeters[0]
    area_km2 = area_m2(perimeter) / 1e6
    if area_km2 > LARGEST_PERIMETER_KM2:
        place.refuse(f"the perimeter covers {area_km2:,.0f} km2, more than {LARGEST_PERIMETER_KM2:,.0f} km2")
    _check_zones_inside(place, perimeter, zones)
    return Site(
        id=attributes.id,
        name=attributes.name,
        operator=attributes.operator,
        address=attributes.address,
        campus=attributes.campus,
        perimeter=perimeter,
        perimeter_source=attributes.source,
        perimeter_quality=attributes.quality,
        zones=tuple(zone for _, zone in zones),
        known_dates=attributes.known_dates,
        supplies=attributes.supplies,
        accelerator=attributes.accelerator,
        accelerator_source=attributes.accelerator_source,
        pue=attributes.pue,
        pue_source=attributes.pue_source,
        path=path,
        reference_name=attributes.reference_name,
    )


def _features(document: object, path: Path) -> Iterator[tuple[Place, Mapping[str, Any], Mapping[str, Any]]]:
    if not isinstance(document, dict) or document.get("type") != "FeatureCollection":
        raise SiteError(f"{path} is not a GeoJSON FeatureCollection; a site file is one")
    crs = document.get("crs")
    if crs is not None and not re.search(r"CRS84|EPSG:+4326", json.dumps(crs)):
        raise SiteError(f"{path}: its crs member is not WGS 84; save it as RFC 7946 GeoJSON in longitude and latitude")
    features = document.get("features")
    if not isinstance(features, list):
        raise SiteError(f"{path}: 'features' is not a list; a FeatureCollection holds one")
    for index, feature in enumerate(features):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            Place(path, index, None).refuse("not a GeoJSON Feature")
        properties = feature.get("properties")
        if not isinstance(properties, dict):
            Place(path, index, feature.get("id")).refuse("it has no properties")
        yield Place(path, index, properties.get("id", feature.get("id"))), feature, properties


def _validated(model: type[M], properties: Mapping[str, Any], place: Place) -> M:
    for field in properties.keys() - model.model_fields.keys():
        # An optional field spelled wrong would be lost without a word.
        if close := difflib.get_close_matches(field, model.model_fields, n=1, cutoff=0.85):
            place.refuse(f"unknown field '{field}'; did you mean '{close[0]}'?")
    try:
        return model.model_validate(properties)
    except ValidationError as error:
        first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        place.refuse(f"'{field}' is missing")
    fault = first["msg"].removeprefix("Value error, ")
    place.refuse(f"'{field}': {fault[0].lower()}{fault[1:]}, got {first['input']!r}")


def _check_zones_inside(place: Place, perimeter: Polygon, zones: list[tuple[Place, Zone]]) -> None:
    outside = [(p, z) for p, z in zones if (z.geometry - perimeter).area > ZONE_OUTSIDE_SHARE * z.geometry.area]
    if not outside:
        return
    swapped = [shapely.transform(z.geometry, lambda xy: xy[:, ::-1]).intersects(perimeter) for _, z in outside]
    if all(swapped) and len(outside) == len(zones) > 1:
        place.refuse("the perimeter has latitude and longitude swapped: its zones are all in the other order")
    zone_place, zone = outside[0]
    if swapped[0]:
        zone_place.refuse("the zone has latitude and longitude swapped against the perimeter; longitude comes first")
    share = (zone.geometry - perimeter).area / zone.geometry.area
    zone_place.refuse(f"{share:.0%} of the zone lies outside the perimeter; a zone is a part of its site")
