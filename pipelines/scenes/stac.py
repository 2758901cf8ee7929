"""Imagery of a static STAC catalog, on disk or on a web server; rasters are read in place, only around the site.

A catalog, a collection or a single item may be given. An item is used if it overlaps the site, was acquired at one
time, and has one image asset; what is passed over for another reason is logged and listed in `problems`.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import pystac
from pystac.utils import make_absolute_href
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import SceneError, SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.cache import SceneCache
from pipelines.scenes.georeference import gsd_m, open_raster
from pipelines.scenes.items import is_item, item_footprint, providers_line, read_item, scene_from_item
from pipelines.scenes.selection import choose_scenes, refuse_reversed
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.scenes.web import get_text, new_client, public_href
from pipelines.sites import Site

__all__ = ["StacSource"]

log = logging.getLogger(__name__)

_PREFERRED_KEYS = ("visual", "image", "data")
"""Asset keys in use for the picture itself, the one made for looking at first."""
_RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
_RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")


@dataclass(frozen=True)
class _Found:
    """An item, and what its collection says where it says nothing."""

    document: Mapping[str, Any]
    href: str
    licence: str
    attribution: str


class StacSource:
    """A static STAC catalog."""

    def __init__(self, href: str, *, cache: Path, name: str | None = None) -> None:
        """Use a catalog, a collection or an item.

        :param href: path or http(s) URL of its JSON file; a folder stands for the `catalog.json` in it
        :param name: what scenes give as their source; the default is made from `href`
        """
        if not is_url(href):
            path = Path(href).expanduser().absolute()
            path = path / "catalog.json" if path.is_dir() else path
            href = str(path)
        self.href = href
        shown = public_href(href) if is_url(href) else f"{Path(href).parent.name}/{Path(href).name}"
        self.name = name or f"stac:{shown}"
        self.problems: Sequence[SceneProblem] = ()
        self._cache = SceneCache(cache, f"stac:{public_href(href)}")

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the items that overlap the site; see `ImagerySource.search`."""
        refuse_reversed(start, end)
        scenes, problems = [], []
        for found in _walk(self.href):
            try:
                if scene := self._scene(found, site):
                    scenes.append(scene)
            except SceneError as error:
                log.warning("passed over: %s", error)
                problems.append(SceneProblem(public_href(found.href), str(error)))
        self.problems = tuple(problems)
        return choose_scenes(scenes, site, start, end, self.name, self.problems)

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring a scene into the one form that detection reads; see `ImagerySource.fetch`."""
        return self._cache.fetch(scene, area)

    def _scene(self, found: _Found, site: Site) -> Scene | None:
        item = read_item(found.document, found.href)
        shape = item_footprint(item)
        if shape is None:
            raise SceneError(f"STAC item {item.id}: it has neither a polygon nor a bounding box, so it has no place")
        if not shape.intersects(site.perimeter):
            return None
        asset = _image_asset(item)
        href = _resolve(asset.href, found.href)
        raster_gsd_m = None
        if "gsd" not in item.properties and "gsd" not in asset.extra_fields:
            with open_raster(href) as dataset:
                raster_gsd_m = gsd_m(dataset)
        return scene_from_item(
            item,
            asset,
            source=self.name,
            href=href,
            footprint=shape,
            raster_gsd_m=raster_gsd_m,
            licence=found.licence or "unknown (STAC item without licence)",
            attribution=found.attribution,
        )


def _walk(root: str) -> Iterator[_Found]:
    """Yield the items below a catalog, each once, whatever loops its links make."""
    with ExitStack() as stack:
        client: httpx.Client | None = None
        todo, seen = [(root, "", "")], {root}
        while todo:
            href, licence, attribution = todo.pop()
            if is_url(href):
                # Not made for a catalog on disk: it reads the machine's certificates.
                client = client or stack.enter_context(new_client())
                document = _json(get_text(client, href), href)
            else:
                document = _json(_read_text(href), href)
            if is_item(document):
                yield _Found(document, href, licence, attribution)
                continue
            if document.get("type") not in {"Catalog", "Collection"} or "stac_version" not in document:
                raise SourceError(f"{public_href(href)} is no STAC catalog, collection or item; check the address")
            if document.get("conformsTo"):
                raise SourceError(f"{public_href(href)} is a STAC API; give a static catalog, collection or item")
            if document["type"] == "Collection":
                licence = str(document.get("license") or licence)
                attribution = providers_line(document.get("providers")) or attribution
            for target in _targets(document, href):
                if target not in seen:
                    seen.add(target)
                    todo.append((target, licence, attribution))


def _targets(document: Mapping[str, Any], base: str) -> Iterator[str]:
    links = document.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") in {"child", "item"} and isinstance(link.get("href"), str):
            yield _resolve(link["href"], base)


def _read_text(href: str) -> str:
    try:
        return Path(href).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceError(f"{href} does not exist; give the path of a STAC catalog, collection or item") from error
    except OSError as error:
        raise SourceError(f"{href} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{href} is not JSON (not UTF-8 text); give a STAC catalog, collection or item") from error


def _json(text: str, href: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{public_href(href)} is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "a STAC catalog, collection or item is needed"
        ) from error
    except RecursionError as error:
        raise SourceError(f"{public_href(href)} is nested too deeply to be STAC") from error
    return document if isinstance(document, dict) else {}


def _resolve(href: str, base: str) -> str:
    """Make an address of a catalog absolute.

    :raises SourceError: it is neither a path nor an http(s) URL, or a web server names a file of this machine
    """
    absolute = make_absolute_href(href, base)
    parts = urlsplit(absolute)
    if is_url(absolute):
        return absolute
    if is_url(base):
        raise SourceError(f"{public_href(base)} names {absolute}, which is not on a web server; http(s) is needed")
    if parts.scheme == "file":
        return url2pathname(parts.path)
    if "://" in absolute:
        raise SourceError(f"{base} names {absolute}, which cannot be read; a path or an http(s) address is needed")
    return absolute


def _image_asset(item: pystac.Item) -> pystac.Asset:
    images = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    for key in _PREFERRED_KEYS:
        if key in images:
            return images[key]
    for role in ("visual", "data"):
        if with_role := [asset for asset in images.values() if role in (asset.roles or [])]:
            images = {key: asset for key, asset in images.items() if asset in with_role}
            break
    if len(images) == 1:
        return next(iter(images.values()))
    if not images:
        raise SceneError(f"STAC item {item.id}: none of its assets is a GeoTIFF, COG, JP2 or VRT")
    raise SceneError(
        f"STAC item {item.id}: which of its assets {', '.join(images)} is the image cannot be told; name it 'visual', "
        "'image' or 'data'"
    )


def _is_raster(asset: pystac.Asset) -> bool:
    if asset.media_type:
        return asset.media_type.split(";")[0].strip().lower() in _RASTER_TYPES
    return urlsplit(asset.href).path.lower().endswith(_RASTER_SUFFIXES)
