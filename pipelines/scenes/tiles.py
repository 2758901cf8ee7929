"""Dated tiles: XYZ, TMS and WMTS pyramids with a date, a time or a release, put together to one image around a site.

The usual case is a pyramid a site and date, of imagery that the user has rights to; see `tile_descriptor` for what is
written of one.
"""

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import shapely
from pydantic import ValidationError
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.cache import MARGIN_M, SceneCache
from pipelines.scenes.credentials import is_loopback
from pipelines.scenes.georeference import grown, refuse_far
from pipelines.scenes.items import safe_id
from pipelines.scenes.selection import choose_scenes, refuse_reversed
from pipelines.scenes.tile_descriptor import (
    DatedImagery,
    SiteImagery,
    TileDescriptor,
    environment_names,
    fill,
    parse_dates,
    placeholders,
    read_descriptor,
    read_when,
)
from pipelines.scenes.tile_grid import Level, choose_level, named_levels, quadkey, tiles_around
from pipelines.scenes.tile_store import TileServer, TileStore, write_mosaic
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.scenes.web import as_source_error, get_text, new_client, public_href
from pipelines.scenes.wmts import WmtsLayer, read_capabilities
from pipelines.sites import Site

__all__ = ["MOST_TILES", "WANTED_GSD_M", "TileSource", "fetch_tiles"]

log = logging.getLogger(__name__)

WANTED_GSD_M = 0.3
"""What the detector works at: finer tiles would be fetched only to be averaged."""
MOST_TILES = 20_000
"""1.3 gigapixels: 10 km x 10 km at 0.3 m. More is a mistake, or takes its leave from somebody's server."""
_UNKNOWN_LICENCE = "unknown (tiles without a descriptor)"


class TileSource:
    """A pyramid of tiles by date, or by site and date."""

    def __init__(self, spec: str, *, cache: Path, licence: str | None = None) -> None:
        """Use what a user wrote: a template, the address of WMTS capabilities, or the path of a descriptor.

        :param licence: of the imagery, where a template is given alone
        :raises SourceError: it is none of these, a descriptor is broken, or a key is not in the environment
        """
        if is_url(spec):
            self._file = None
            self._descriptor = _bare(spec, licence)
            default = f"{urlsplit(spec).hostname}"
        else:
            self._file = Path(spec).expanduser().absolute()
            self._descriptor = read_descriptor(self._file)
            default = self._file.stem
            if licence:
                raise SourceError(f"{spec} states the licence itself; change it there")
        self._label = self._descriptor.name or default
        self.name = f"tiles:{self._label}"
        self.problems: Sequence[SceneProblem] = ()
        self._address = self._descriptor.template or self._descriptor.wmts or ""
        self._keys = _Keys(self._address, self._descriptor.dates_at or "")
        self._cache = SceneCache(cache, f"tiles:{self._file or self._address}")

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the dates there are of a site; see `ImagerySource.search`.

        No tile is asked for: whether a date's tiles are there shows when it is fetched.
        """
        refuse_reversed(start, end)
        called, entries, said_by = self._entries(site, start, end)
        scenes, problems = [], []
        for entry in entries:
            try:
                scenes.append(self._scene(site, called, entry, said_by))
            except SceneError as error:
                log.warning("passed over: %s", error)
                problems.append(SceneProblem(public_href(self._address), str(error)))
        self.problems = tuple(problems)
        return choose_scenes(scenes, site, start, end, self.name, self.problems)

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring the tiles around an area into the one form that detection reads; see `ImagerySource.fetch`."""
        level, _ = choose_level(self._levels, scene.footprint.centroid, WANTED_GSD_M)
        with self._keys.client() as client:
            return fetch_tiles(scene, area, level, self._cache, client, self._descriptor)

    @cached_property
    def _layer(self) -> WmtsLayer | None:
        about = self._descriptor
        if about.wmts is None:
            return None
        with self._keys.client() as client:
            text = get_text(client, about.wmts)
        shown = public_href(about.wmts)
        if "{env:" in text:
            raise SourceError(f"{shown} asks for a variable of this machine's environment, which no server gets")
        # Some servers write the key they were asked with into the addresses they give.
        text = self._keys.hidden(text)
        layer = read_capabilities(text, about.wmts, shown, about.layer, about.style, about.matrix_set)
        self._keys.admit(layer.template)
        return layer

    @cached_property
    def _levels(self) -> tuple[Level, ...]:
        about = self._descriptor
        if self._layer is not None:
            levels = self._layer.levels
        else:
            levels = named_levels(about.matrix_set or "WebMercatorQuad", about.tile_size)
        finest = 99 if about.max_zoom is None else about.max_zoom
        chosen = tuple(level for index, level in enumerate(levels) if about.min_zoom <= _zoom(level, index) <= finest)
        if not chosen:
            raise SourceError(f"{self.name} has no level from {about.min_zoom} to {finest}")
        return chosen

    def _entries(self, site: Site, start: date | None, end: date | None) -> tuple[str, Sequence[DatedImagery], str]:
        """Return what the site is called, its dates, and who says so."""
        about = self._descriptor
        own = about.sites.get(site.id, SiteImagery(dates=about.dates, dates_at=about.dates_at))
        called = own.called or site.id
        if about.sites and site.id not in about.sites and not (about.dates or about.dates_at):
            raise NoSceneError(
                f"{self.name} has no tiles of site {site.id}; 'sites' in {self._file} names {', '.join(about.sites)}"
            )
        if own.dates_at:
            return called, (*own.dates, *self._listed(own.dates_at, site, called)), "list of dates"
        if own.dates:
            return called, own.dates, "tile descriptor"
        if self._layer is not None and self._layer.times:
            return called, self._times(self._layer), "wmts time"
        if self._file is not None:
            raise SourceError(f"{self._file} says no dates of site {site.id}, nor does the server; add 'dates'")
        if start is None or start != end:
            raise SceneError(
                f"{self.name} does not say which dates it has: give one with --date YYYY-MM-DD --tolerance 0, or "
                "describe it in a file, tiles:FILE.json"
            )
        return called, (DatedImagery(acquired=start.isoformat()),), "command line"

    def _times(self, layer: WmtsLayer) -> list[DatedImagery]:
        entries = []
        for time in layer.times:
            try:
                entries.append(DatedImagery(acquired=time, time=time))
            except ValidationError:
                log.warning("%s: the time '%s' is no date and is passed over", self.name, time)
        return entries

    def _listed(self, where: str, site: Site, called: str) -> Sequence[DatedImagery]:
        where = fill(where, {"site": called})
        if is_url(where):
            with self._keys.client() as client:
                return parse_dates(get_text(client, where), public_href(where), site.id)
        path = (self._file.parent if self._file else Path()) / Path(where).expanduser()
        try:
            return parse_dates(path.read_text(encoding="utf-8"), str(path), site.id)
        except OSError as error:
            raise SourceError(f"{path}, which should list the dates, cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}, which should list the dates, is no text") from error

    def _scene(self, site: Site, called: str, entry: DatedImagery, said_by: str) -> Scene:
        about, layer = self._descriptor, self._layer
        earliest, acquired = read_when(entry.acquired)
        values = {
            "site": called,
            "date": entry.date or entry.acquired,
            "time": entry.time or entry.acquired,
        }
        if entry.release:
            values["release"] = entry.release
        if earliest is None:
            values["day"] = f"{acquired:%Y-%m-%d}"
        href = fill(about.template or (layer.template if layer else ""), values)
        if any(name.startswith("date:") for name in placeholders(href)):
            raise SceneError(
                f"{self.name}: the template wants a day, but {entry.acquired} is a range; add 'date' to it"
            )
        reach = about.bounds or (layer.bounds if layer else None)
        shown = shapely.box(*grown(site.perimeter, MARGIN_M).bounds)
        if reach:
            shown = shown & shapely.box(*reach) if shown.intersects(shapely.box(*reach)) else shapely.box(*reach)
        _, level_m = choose_level(self._levels, shown.centroid, WANTED_GSD_M)
        return Scene(
            id=safe_id("-".join(filter(None, (self._label, site.id, entry.acquired, entry.release)))),
            source=self.name,
            acquired=acquired,
            earliest=earliest,
            gsd_m=max(level_m, entry.native_gsd_m or about.native_gsd_m or 0),
            footprint=shown,
            licence=about.licence,
            rendered=about.rendered,
            href=href,
            acquired_from=said_by,
            attribution=about.attribution or (layer.attribution if layer else ""),
            off_nadir_deg=entry.off_nadir_deg,
            cloud_cover_percent=entry.cloud_cover_percent,
            released=entry.released or about.released,
            price=about.price,
        )


def fetch_tiles(
    scene: Scene,
    area: Polygon | MultiPolygon,
    level: Level,
    cache: SceneCache,
    client: httpx.Client,
    about: TileDescriptor,
) -> FetchedScene:
    """Ask for the tiles of a scene around an area, each once, and put them together.

    :param scene: its `href` is the template, with nothing left to fill but the tile
    :raises SceneError: there is no tile at all, or there would be too many
    :raises SourceError: the server cannot be reached or does not answer with images, or the cache cannot be written
    """
    shown = public_href(scene.href)
    if not (scene.footprint & area).area:
        raise refuse_far(shown, scene.footprint, area, "the area asked for")
    tiles = tiles_around(level, area, MARGIN_M)
    if tiles is None:
        raise SceneError(f"{shown}: level {level.id} of its tile matrix set does not reach the area asked for")
    if tiles.count > MOST_TILES:
        raise SceneError(
            f"the area asked for takes {tiles.count:,} tiles of {scene.source} at level {level.id}, but at most "
            f"{MOST_TILES:,} are fetched: give a smaller perimeter, or set a coarser 'max_zoom'"
        )
    digest = hashlib.sha256(f"{scene.href}|{level}".encode()).hexdigest()[:8]
    store = TileStore(cache.folder / scene.id / f"{safe_id(f'level-{level.id}')}-{digest}.tiles")
    server = TileServer(
        client,
        lambda column, row: _tile_address(scene.href, level, column, row),
        about.missing_statuses,
        about.concurrency,
        level.tile_width_px,
        level.tile_height_px,
    )
    log.info("%s: %d tiles of level %s", scene.id, tiles.count, level.id)
    kept = store.complete(tiles, server)
    example = public_href(server.address((tiles.left + tiles.right) // 2, (tiles.top + tiles.bottom) // 2))
    nothing = (
        f"{scene.source} has no imagery of the area on {scene.acquired:%Y-%m-%d}: none of {tiles.count:,} tiles of "
        f"level {level.id} holds any (such as {example}); check site name, date and 'max_zoom'"
    )
    if not kept.there:
        raise SceneError(nothing)

    def make(path: Path) -> None:
        if not write_mosaic(path, level, tiles, store, kept, about.no_image):
            raise SceneError(nothing)

    if missing := tiles.count - len(kept.there):
        log.warning(
            "%s: %d of %d tiles are missing: what they would show is not covered", scene.id, missing, tiles.count
        )
    return cache.fetch_made(scene, area, f"{kept.version}|{level}|{about.no_image}", make)


class _Keys:
    """Keys of the environment, put into requests below everything that reports, repeats or redirects them."""

    def __init__(self, *addresses: str) -> None:
        self._values: dict[bytes, bytes] = {}
        self._hosts: set[bytes] = set()
        for address in addresses:
            for name in sorted(environment_names(address)):
                value = os.environ.get(name)
                if not value:
                    raise SourceError(
                        f"{public_href(address)} needs a key from the environment variable {name}, which is not set"
                    )
                self._values[_encoded(name)] = quote(value, safe="").encode()
            if environment_names(address):
                self.admit(address)

    def admit(self, address: str) -> None:
        """Let the keys go to the server of an address as well.

        :raises SourceError: it is no address
        """
        with as_source_error(address):
            self._hosts.add(httpx.URL(address).netloc)

    def hidden(self, text: str) -> str:
        """Return a text with the placeholders in place of the keys."""
        for encoded, value in self._values.items():
            name = encoded.decode().removeprefix("%7B").removesuffix("%7D")
            text = text.replace(value.decode(), f"{{{name}}}")
        return text

    def client(self) -> httpx.Client:
        """Return a client that puts them in."""
        return new_client(wrap=lambda transport: _KeyedPath(transport, self._values, self._hosts))


class _KeyedPath(httpx.BaseTransport):
    def __init__(self, inner: httpx.BaseTransport, values: dict[bytes, bytes], hosts: set[bytes]) -> None:
        self._inner, self._values, self._hosts = inner, values, hosts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path
        if request.url.netloc in self._hosts:
            for name, value in self._values.items():
                path = path.replace(name, value)
        if path == request.url.raw_path:
            return self._inner.handle_request(request)
        if request.url.scheme != "https" and not is_loopback(request.url.host):
            raise SourceError(f"{public_href(str(request.url))}: a key is sent encrypted only; use https")
        keyed = httpx.Request(
            request.method,
            request.url.copy_with(raw_path=path),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        response = self._inner.handle_request(keyed)
        if location := response.headers.get("Location"):
            for name, value in self._values.items():
                location = location.replace(value.decode(), name.decode())
            response.headers["Location"] = location
        return response

    def close(self) -> None:
        self._inner.close()


def _encoded(name: str) -> bytes:
    return f"%7Benv:{name}%7D".encode()


def _tile_address(template: str, level: Level, column: int, row: int) -> str:
    values = {"z": level.id, "x": str(column), "y": str(row), "-y": str(level.rows - 1 - row)}
    if "quadkey" in placeholders(template):
        values["quadkey"] = quadkey(level, column, row)
    # Braces are left for keys alone, and are not allowed in an address.
    return re.sub(r"\{(env:\w+)\}", r"%7B\1%7D", fill(template, values))


def _zoom(level: Level, index: int) -> int:
    number = re.search(r"\d+$", level.id)
    return int(number[0]) if number else index


def _bare(address: str, licence: str | None) -> TileDescriptor:
    about = {"licence": licence or _UNKNOWN_LICENCE}
    names = placeholders(address)
    if not {name for name in names if not name.startswith("env:")}:
        return TileDescriptor.model_validate(about | {"wmts": address})
    try:
        found = TileDescriptor.model_validate(about | {"template": address})
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise SourceError(f"tiles:{public_href(address)}: {reason}") from error
    if not any(name in ("date", "time") or name.startswith("date:") for name in names):
        raise SourceError(
            f"tiles:{public_href(address)} holds no {{date}} or {{time}}, so nobody says when it was acquired; "
            "describe it in a file with its dates, tiles:FILE.json"
        )
    return found
