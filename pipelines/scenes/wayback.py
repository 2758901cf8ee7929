"""Esri World Imagery Wayback: releases of a world mosaic, each dated by what was captured at the site, not by release.

A release every few weeks replaces the mosaic in some places only. Its metadata service says, for each image in it, when
that was captured; releases that show a site as it was captured before are one scene, known from the first of them.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import shapely
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import SceneError, SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.cache import MARGIN_M, SceneCache
from pipelines.scenes.georeference import grown
from pipelines.scenes.items import safe_id
from pipelines.scenes.presets import Preset
from pipelines.scenes.selection import choose_scenes, refuse_reversed
from pipelines.scenes.tile_descriptor import TileDescriptor, placeholders
from pipelines.scenes.tile_grid import Level, choose_level, named_levels
from pipelines.scenes.tiles import WANTED_GSD_M, fetch_tiles
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.scenes.web import UnfitAnswerError, get_checked, new_client, public_href, refuse_status
from pipelines.sites import Site

__all__ = ["WaybackSource"]

log = logging.getLogger(__name__)

_METADATA_ZOOMS = (10, 23)
"""The metadata service has a layer for each zoom, the finest first (Esri's wayback-core, `getMetadata`)."""
_AT_ONCE = 4
_SLIVER = 1e-3
"""Share of the perimeter below which a capture is an edge that overlaps by rounding."""


@dataclass(frozen=True)
class _Release:
    number: int
    released: date
    template: str
    metadata: str


@dataclass(frozen=True)
class _Captures:
    """What a release shows of a site."""

    first: date
    last: date
    coarsest_m: float
    credit: str


class WaybackSource:
    """The releases of World Imagery."""

    def __init__(self, preset: Preset, *, cache: Path, acknowledged: str, address: str | None = None) -> None:
        """Use the source that a preset describes.

        :param acknowledged: licence that the user acknowledged, when and how
        :param address: of the list of releases, where it is not the preset's
        """
        self._preset = preset
        self._acknowledged = acknowledged
        self._address = address or preset.address
        self.name = preset.name
        self.problems: Sequence[SceneProblem] = ()
        self._cache = SceneCache(cache, f"wayback:{self._address}")
        self._about = TileDescriptor(licence=preset.licence, wmts=self._address, concurrency=_AT_ONCE)

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find what was captured of the site; see `ImagerySource.search`.

        A scene whose perimeter holds several captures has a range for a date, and is named in `problems` as well.
        """
        refuse_reversed(start, end)
        level, level_m = _level(site.perimeter)
        with new_client() as client, ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="wayback") as pool:
            releases = get_checked(client, self._address, _releases)
            # What was released before a day was captured before it.
            wanted = [release for release in releases if start is None or release.released >= start]
            answers = list(pool.map(lambda release: _captures(client, release, level, site), wanted))
        problems = [
            SceneProblem(public_href(release.metadata), str(found))
            for release, found in zip(wanted, answers, strict=True)
            if isinstance(found, SceneError | SourceError)
        ]
        faults = [found for found in answers if isinstance(found, SourceError)]
        if faults and len(faults) == len(answers):
            raise faults[0]
        scenes: dict[tuple[date, date], Scene] = {}
        for release, found in sorted(zip(wanted, answers, strict=True), key=lambda pair: pair[0].released):
            if isinstance(found, _Captures) and (found.first, found.last) not in scenes:
                scenes[found.first, found.last] = scene = self._scene(site, release, found, level_m)
                if found.first != found.last:
                    reason = (
                        f"{scene.id} holds captures from {found.first} to {found.last} within the perimeter, so its "
                        "date is that range"
                    )
                    problems.append(SceneProblem(public_href(release.metadata), reason))
        for problem in problems:
            log.warning("%s", problem.reason)
        self.problems = tuple(problems)
        return choose_scenes(list(scenes.values()), site, start, end, self.name, self.problems)

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring the tiles around an area into the one form that detection reads; see `ImagerySource.fetch`."""
        with new_client() as client:
            return fetch_tiles(scene, area, _level(scene.footprint)[0], self._cache, client, self._about)

    def _scene(self, site: Site, release: _Release, found: _Captures, level_m: float) -> Scene:
        credit = f"{self._preset.attribution} ({found.credit})" if found.credit else self._preset.attribution
        return Scene(
            id=safe_id(f"{self.name}-{site.id}-{found.last}-r{release.number}"),
            source=self.name,
            acquired=_midnight(found.last),
            earliest=None if found.first == found.last else _midnight(found.first),
            gsd_m=max(level_m, found.coarsest_m),
            footprint=shapely.box(*grown(site.perimeter, MARGIN_M).bounds),
            licence=self._preset.licence,
            rendered=False,
            href=release.template,
            acquired_from="wayback metadata",
            attribution=credit,
            released=release.released,
            price=self._preset.price,
            acknowledged=self._acknowledged,
        )


def _level(place: Polygon | MultiPolygon) -> tuple[Level, float]:
    return choose_level(named_levels("WebMercatorQuad", 256), shapely.box(*place.bounds).centroid, WANTED_GSD_M)


def _releases(response: httpx.Response) -> list[_Release]:
    """Read the list of releases: by number, the template of its tiles and the address of its metadata."""
    refuse_status(response)
    document = _json(response)
    shown = public_href(str(response.url))
    releases = []
    for number, about in document.items():
        if not (number.isdigit() and isinstance(about, dict)):
            raise SourceError(f"{shown} is no list of Wayback releases: '{number}' is no release; check the address")
        title = str(about.get("releaseDateLabel") or about.get("itemTitle") or "")
        label = re.search(r"\d{4}-\d\d-\d\d", title)
        template, metadata = about.get("itemURL"), about.get("metadataLayerUrl")
        known = isinstance(template, str) and is_url(template) and {"z", "x", "y"} <= placeholders(template)
        if not (label and known and isinstance(metadata, str) and is_url(metadata)):
            raise SourceError(f"{shown}: release {number} lacks itemTitle with its date, itemURL or metadataLayerUrl")
        assert isinstance(template, str)
        try:
            released = date.fromisoformat(label[0])
        except ValueError:
            raise SourceError(f"{shown}: release {number} is of {label[0]}, which is no day") from None
        releases.append(_Release(int(number), released, template, metadata.rstrip("/")))
    if not releases:
        raise SourceError(f"{shown} lists no release; check the address")
    return releases


def _captures(
    client: httpx.Client, release: _Release, level: Level, site: Site
) -> _Captures | SceneError | SourceError:
    """Return what a release shows of a site, or what is wrong: one release must not stop the others."""
    west, south, east, north = site.perimeter.bounds
    first, last = _METADATA_ZOOMS
    query = {
        "f": "json",
        "where": "1=1",
        "outFields": "*",
        "geometry": json.dumps({"xmin": west, "ymin": south, "xmax": east, "ymax": north}),
        "geometryType": "esriGeometryEnvelope",
        "spatialRel": "esriSpatialRelIntersects",
        "inSR": "4326",
        "outSR": "4326",
        "returnGeometry": "true",
    }
    layer = last - min(max(int(level.id), first), last)
    address = f"{release.metadata}/{layer}/query?{urlencode(query)}"

    def read(response: httpx.Response) -> _Captures:
        refuse_status(response)
        document = _json(response)
        if "error" in document:
            said = document["error"].get("message", "") if isinstance(document["error"], dict) else document["error"]
            raise UnfitAnswerError(f"the metadata service answers with an error ({said})")
        return _inside(document.get("features"), release, site.perimeter)

    try:
        return get_checked(client, address, read)
    except (SceneError, SourceError) as error:
        return error


def _inside(features: object, release: _Release, perimeter: Polygon | MultiPolygon) -> _Captures:
    days, sizes_m, credits = [], [0.0], []
    for feature in features if isinstance(features, list) else []:
        about = feature.get("attributes") if isinstance(feature, dict) else None
        if not isinstance(about, dict):
            continue
        shape = _polygon(feature.get("geometry"))
        if shape is not None and (shape & perimeter).area < _SLIVER * perimeter.area:
            continue
        day = _captured(about)
        if day is None:
            raise SceneError(f"release {release.number} of {release.released} does not say when all of it was captured")
        days.append(day)
        size_m = about.get("SRC_RES") or about.get("SAMP_RES")
        sizes_m.append(float(size_m) if isinstance(size_m, int | float) else 0.0)
        credits.append(str(about.get("NICE_DESC") or about.get("NICE_NAME") or "").strip())
    if not days:
        raise SceneError(f"release {release.number} of {release.released} says nothing of what was captured here")
    return _Captures(min(days), max(days), max(sizes_m), ", ".join(sorted({one for one in credits if one})))


def _captured(about: Mapping[str, Any]) -> date | None:
    """Return the day of an image: SRC_DATE2 in milliseconds since 1970, else SRC_DATE as the number 20250822."""
    moment, day = about.get("SRC_DATE2"), about.get("SRC_DATE")
    try:
        if isinstance(moment, int | float) and moment > 0:
            return datetime.fromtimestamp(moment / 1000, UTC).date()
        return datetime.strptime(str(day), "%Y%m%d").replace(tzinfo=UTC).date()
    except (ValueError, OverflowError, OSError):
        return None


def _polygon(geometry: object) -> shapely.Geometry | None:
    """Return the rings of ArcGIS as a shape: inner ones turn the other way round, which even-odd takes care of."""
    rings = geometry.get("rings") if isinstance(geometry, dict) else None
    if not isinstance(rings, list):
        return None
    try:
        shape: Any = shapely.Polygon()
        for ring in rings:
            shape = shape ^ shapely.make_valid(shapely.Polygon(ring))
        return shape if shape.area else None
    except (ValueError, TypeError, shapely.errors.GEOSException):
        return None


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError as error:
        raise UnfitAnswerError("the server answers with something that is not JSON") from error
    if not isinstance(document, dict):
        raise UnfitAnswerError("the server answers with JSON that is no object")
    return document


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
