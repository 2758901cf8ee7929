"""Imagery of a STAC catalog, static or behind an API; rasters are read in place, only around the site.

A static catalog, collection or item may be on disk or on a web server, and is walked; an API is recognised by its
landing page and searched. An item is used if it overlaps the site, was acquired at one time, and has one image asset;
what is passed over for another reason is logged and listed in `problems`. Items of one acquisition that each show a
part of the site become one scene, see `pipelines.scenes.acquisitions`.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import url2pathname

import httpx
import pyproj
import pystac
from pyproj.exceptions import CRSError, ProjError
from pystac.utils import make_absolute_href
from rasterio import Affine
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.acquisitions import Candidate, join_acquisitions
from pipelines.scenes.cache import SceneCache
from pipelines.scenes.georeference import gsd_m, open_raster, pixel_size_m
from pipelines.scenes.items import is_item, item_footprint, providers_line, read_item, scene_from_item
from pipelines.scenes.presets import Preset
from pipelines.scenes.selection import Limits, choose_scenes, refuse_reversed, within
from pipelines.scenes.signing import NO_SIGNING, Signer
from pipelines.scenes.stac_api import PAGES_AT_MOST, ItemSearch, is_api, read_object, search_items
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.scenes.web import new_client, public_href
from pipelines.sites import Site

__all__ = ["StacSource"]

log = logging.getLogger(__name__)

_PREFERRED_KEYS = ("visual", "image", "data")
"""Asset keys in use for the picture itself, the one made for looking at first."""
_RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
_RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")


_PUBLIC_BUCKETS = {"sentinel-cogs": "https://sentinel-cogs.s3.us-west-2.amazonaws.com"}
"""Buckets that anyone may read over https (Registry of Open Data on AWS)."""
_WIDE_PAGES = 2
"""Pages looked at to say what there is where nothing fits."""


@dataclass(frozen=True)
class _Found:
    """An item, and what its collection says where it says nothing."""

    document: Mapping[str, Any]
    href: str
    licence: str
    attribution: str
    collection: str = ""


class StacSource:
    """A static STAC catalog, or a STAC API."""

    def __init__(
        self,
        href: str,
        *,
        cache: Path,
        name: str | None = None,
        limits: Limits | None = None,
        preset: Preset | None = None,
        signer: Signer = NO_SIGNING,
        items_a_page: int = 100,
    ) -> None:
        """Use a catalog, a collection, an item, or an API.

        :param href: path or http(s) URL of its JSON file, or URL of an API; a folder stands for the `catalog.json` in
            it. Behind a # the collections that are wanted: `https://host/api#naip,sentinel-2-l2a`
        :param name: what scenes give as their source; the default is made from `href`
        :param limits: scenes past them are not offered
        :param preset: says licence, attribution and price where items do not
        :param signer: makes the addresses that the images' servers accept
        :param items_a_page: asked of an API
        """
        self.collections: tuple[str, ...] = preset.collections if preset else ()
        if is_url(href):
            href, wanted = urldefrag(href)
            self.collections = tuple(unquote(part).strip() for part in wanted.split(",") if part.strip()) or (
                self.collections
            )
        else:
            path = Path(href).expanduser().absolute()
            path = path / "catalog.json" if path.is_dir() else path
            href = str(path)
        self.href = href
        self.limits = limits or Limits()
        shown = public_href(href) if is_url(href) else f"{Path(href).parent.name}/{Path(href).name}"
        chosen = f"#{','.join(self.collections)}" if self.collections else ""
        self.name = name or f"stac:{shown}{chosen}"
        self.problems: Sequence[SceneProblem] = ()
        self._preset = preset
        self._items_a_page = items_a_page
        self.signer = signer
        self._cache = SceneCache(cache, f"stac:{public_href(href)}", signer=signer)

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the items that overlap the site; see `ImagerySource.search`."""
        refuse_reversed(start, end)
        with ExitStack() as stack:
            reader = _Reader(stack)
            root = reader.read(self.href)
            api = _api_of(reader, root, self.href, self.collections)
            if api is None:
                scenes = self._scenes(_walk(reader, root, self.href, self.collections), site)
                if not scenes and not self.problems:
                    raise NoSceneError(f"{self.name} holds no image of site {site.id}")
                return self._within_limits(choose_scenes(scenes, site, start, end, self.name, self.problems))
            landing, href, collections = api
            wanted = ItemSearch(site.perimeter, start, end, collections, self.limits, self._items_a_page)
            scenes = self._scenes(_ask(reader, landing, href, wanted, self._preset), site)
            found = [scene for scene in scenes if within(scene, start, end) and self.limits.allow(scene)]
            if found:
                return choose_scenes(found, site, start, end, self.name, self.problems)
            if not scenes and self.problems:
                return choose_scenes(scenes, site, start, end, self.name, self.problems)
            # Asked again without dates and limits, to say what there is.
            wide = dataclasses.replace(wanted, start=None, end=None, limits=Limits(), pages_at_most=_WIDE_PAGES)
            scenes = self._scenes(_ask(reader, landing, href, wide, self._preset), site)
            if not scenes and not self.problems:
                raise NoSceneError(f"{self.name} holds no image of site {site.id}")
            return self._within_limits(choose_scenes(scenes, site, start, end, self.name, self.problems))

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring a scene into the one form that detection reads; see `ImagerySource.fetch`."""
        return self._cache.fetch(scene, area)

    def _scenes(self, found: Iterator[_Found | SceneProblem], site: Site) -> list[Scene]:
        """Make scenes of items; `problems` says which could not be used."""
        candidates, problems = [], []
        for one in found:
            if isinstance(one, SceneProblem):
                problems.append(one)
                continue
            try:
                if candidate := self._candidate(one, site):
                    candidates.append(candidate)
            except SceneError as error:
                problems.append(SceneProblem(public_href(one.href), str(error)))
        scenes, unlike = join_acquisitions(candidates, site.perimeter)
        problems += unlike
        for problem in problems:
            log.warning("passed over: %s", problem.reason)
        self.problems = tuple(problems)
        return scenes

    def _within_limits(self, chosen: list[Scene]) -> list[Scene]:
        """Leave out what is past the limits.

        :raises NoSceneError: nothing is left; the message says what there is
        """
        kept = [scene for scene in chosen if self.limits.allow(scene)]
        if kept:
            return kept
        gsds = sorted({scene.gsd_m for scene in chosen})
        clouds = sorted({scene.cloud_cover_percent for scene in chosen if scene.cloud_cover_percent is not None})
        cloudy = f", cloud {_span(clouds)}%" if clouds else ""
        raise NoSceneError(
            f"{self.name} has {len(chosen)} scenes of the site and the dates, none with {self.limits} "
            f"(there is GSD {_span(gsds)} m{cloudy})"
        )

    def _candidate(self, found: _Found, site: Site) -> Candidate | None:
        item = read_item(found.document, found.href)
        shape = item_footprint(item)
        if shape is None:
            raise SceneError(f"STAC item {item.id}: it has neither a polygon nor a bounding box, so it has no place")
        if not shape.intersects(site.perimeter):
            return None
        asset = _image_asset(item)
        href = _web_address(item, asset, self._preset) or _resolve(asset.href, found.href)
        raster_gsd_m = _resolution_m(item, asset)
        if raster_gsd_m is None and "gsd" not in item.properties and "gsd" not in asset.extra_fields:
            with open_raster(href, signer=self.signer) as dataset:
                raster_gsd_m = gsd_m(dataset)
        preset = self._preset
        scene = scene_from_item(
            item,
            asset,
            source=self.name,
            href=href,
            footprint=shape,
            raster_gsd_m=raster_gsd_m,
            licence=(preset.licence if preset else found.licence) or "unknown (STAC item without licence)",
            attribution=preset.attribution if preset else found.attribution,
            price=preset.price if preset else "unknown",
        )
        return Candidate.of(scene, item, found.collection)


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


class _Reader:
    """Reads JSON from disk or from web servers, these through one client."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._client: httpx.Client | None = None

    @property
    def client(self) -> httpx.Client:
        # Not made for a catalog on disk: it reads the machine's certificates.
        self._client = self._client or self._stack.enter_context(new_client())
        return self._client

    def read(self, href: str) -> dict[str, Any]:
        """Read a JSON object.

        :raises SourceError: there is none
        """
        return read_object(self.client, href)[0] if is_url(href) else _json(_read_text(href), href)


def _api_of(
    reader: _Reader, document: Mapping[str, Any], href: str, collections: tuple[str, ...]
) -> tuple[Mapping[str, Any], str, tuple[str, ...]] | None:
    """Return landing page, address and wanted collections of an API; None for a static catalog.

    A collection of an API stands for the API with that collection.
    """
    if is_api(document):
        if not is_url(href):
            raise SourceError(f"{href} is the landing page of a STAC API; give the API's own address, stac:https://...")
        return document, href, collections
    links = {
        str(link.get("rel")): link.get("href")
        for link in (document["links"] if isinstance(document.get("links"), list) else ())
        if isinstance(link, dict) and isinstance(link.get("href"), str)
    }
    served = is_url(href) and document.get("type") == "Collection" and "items" in links and "item" not in links
    if not served or "root" not in links:
        return None
    root = _resolve(str(links["root"]), href)
    landing = reader.read(root)
    return (landing, root, (str(document.get("id")),)) if is_api(landing) else None


def _ask(
    reader: _Reader, landing: Mapping[str, Any], href: str, wanted: ItemSearch, preset: Preset | None
) -> Iterator[_Found | SceneProblem]:
    """Yield what an API finds, with what the items' collections say of licence and providers."""
    said: dict[str, tuple[str, str]] = {}
    found = search_items(reader.client, landing, href, wanted)
    while True:
        try:
            item = next(found)
        except StopIteration as ended:
            if not ended.value and wanted.pages_at_most == PAGES_AT_MOST:
                more = f"more items match than {PAGES_AT_MOST} pages hold, the rest was not seen; narrow the dates"
                yield SceneProblem(public_href(href), f"{public_href(href)}: {more}")
            return
        own, collection = _links_of(item, href)
        name = str(item.get("collection") or "")
        if name not in said:
            said[name] = ("", "") if preset or collection is None else _collection_says(reader, collection)
        yield _Found(item, own, *said[name], name)


def _links_of(item: Mapping[str, Any], base: str) -> tuple[str, str | None]:
    """Return an item's own address, against which its assets are resolved, and its collection's."""
    hrefs: dict[str, str] = {}
    for link in item.get("links") if isinstance(item.get("links"), list) else ():  # type: ignore[union-attr]
        if isinstance(link, dict) and link.get("rel") in ("self", "collection") and isinstance(link.get("href"), str):
            try:
                hrefs.setdefault(link["rel"], _resolve(link["href"], base))
            except SourceError as error:
                log.info("a link of STAC item %s is not followed: %s", item.get("id"), error)
    return hrefs.get("self", f"{base.rstrip('/')}/{item.get('id')}"), hrefs.get("collection")


def _collection_says(reader: _Reader, href: str) -> tuple[str, str]:
    try:
        document = reader.read(href)
    except SourceError as error:
        log.warning("licence and providers are unknown where items do not say them: %s", error)
        return "", ""
    return str(document.get("license") or ""), providers_line(document.get("providers"))


def _walk(
    reader: _Reader, document: dict[str, Any], root: str, collections: tuple[str, ...]
) -> Iterator[_Found | SceneProblem]:
    """Yield the items below a catalog, each once, whatever loops its links make."""
    todo, seen = [(root, "", "", "")], {root}
    while todo:
        href, licence, attribution, collection = todo.pop()
        document = document if href == root else reader.read(href)
        if is_item(document):
            collection = str(document.get("collection") or collection)
            if not collections or collection in collections:
                yield _Found(document, href, licence, attribution, collection)
            continue
        if document.get("type") not in {"Catalog", "Collection"} or "stac_version" not in document:
            raise SourceError(f"{public_href(href)} is no STAC catalog, collection or item; check the address")
        if document["type"] == "Collection":
            licence = str(document.get("license") or licence)
            attribution = providers_line(document.get("providers")) or attribution
            collection = str(document.get("id") or collection)
        for target in _targets(document, href):
            if target not in seen:
                seen.add(target)
                todo.append((target, licence, attribution, collection))


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
    try:
        absolute = make_absolute_href(href, base)
        parts = urlsplit(absolute)
    except ValueError as error:
        raise SourceError(f"{public_href(base)} names {public_href(href)}, which is no address ({error})") from error
    if is_url(absolute):
        return absolute
    if is_url(base):
        raise SourceError(f"{public_href(base)} names {absolute}, which is not on a web server; http(s) is needed")
    if parts.scheme == "file":
        return url2pathname(parts.path)
    if "://" in absolute:
        raise SourceError(f"{base} names {absolute}, which cannot be read; a path or an http(s) address is needed")
    return absolute


def _web_address(item: pystac.Item, asset: pystac.Asset, preset: Preset | None) -> str | None:
    """Return the https address of an image in a bucket; None where its address is none of a bucket.

    :raises SceneError: it is in a bucket only, which is not read from here
    """
    if urlsplit(asset.href).scheme != "s3":
        return None
    # Alternate assets extension: the same file somewhere else.
    alternates = asset.extra_fields.get("alternate")
    for other in alternates.values() if isinstance(alternates, dict) else ():
        if isinstance(other, dict) and is_url(str(other.get("href"))):
            return str(other["href"])
    parts = urlsplit(asset.href)
    if parts.netloc in _PUBLIC_BUCKETS:
        return _PUBLIC_BUCKETS[parts.netloc] + parts.path
    own = asset.extra_fields.get("storage:requester_pays", item.properties.get("storage:requester_pays"))
    pays = own is True or (own is None and preset is not None and preset.price == "requester pays")
    kind, payer = ("requester-pays bucket", " --request-payer requester") if pays else ("bucket", "")
    raise SceneError(
        f"STAC item {item.id}: its image lies in the {kind} {parts.netloc}, which needs a cloud account; copy it with "
        f"`aws s3 cp{payer} s3://{parts.netloc}{parts.path} .` and give it as local:PATH"
    )


def _resolution_m(item: pystac.Item, asset: pystac.Asset) -> float | None:
    """Return the pixel size in metres that the raster or the projection extension states; None where neither does.

    It saves a look into each image of a catalog that states no `gsd`.
    """
    own = asset.extra_fields
    fields = [own, *(own.get("raster:bands") or ()), *(own.get("bands") or ())]
    names = ("spatial_resolution", "raster:spatial_resolution")
    stated = [field.get(name) for field in fields for name in names]
    numbers = [value for value in stated if isinstance(value, (int, float)) and value > 0]
    if numbers:
        return float(max(numbers))
    placed = item.properties | own
    code = placed.get("proj:code") or (f"EPSG:{placed['proj:epsg']}" if placed.get("proj:epsg") else None)
    try:
        height, width = placed["proj:shape"]
        transform = Affine(*placed["proj:transform"][:6])
        return pixel_size_m(pyproj.CRS.from_user_input(code), transform, width / 2, height / 2)
    except (KeyError, TypeError, ValueError, CRSError, ProjError):
        return None


def _image_asset(item: pystac.Item) -> pystac.Asset:
    # An overview may be a GeoTIFF too.
    images = {key: one for key, one in item.assets.items() if _is_raster(one) and not _is_preview(one)}
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


def _is_preview(asset: pystac.Asset) -> bool:
    roles = set(asset.roles or ())
    return bool(roles & {"thumbnail", "overview"}) and not roles & {"visual", "data"}
