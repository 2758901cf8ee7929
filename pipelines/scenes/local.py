"""Imagery on this machine: one georeferenced image, or a folder of them, the way purchased imagery arrives.

A folder is read one level deep. A STAC item of the same name beside an image (`X.json` beside `X.tif`) says what the
image itself does not: date, GSD, licence, angles, whether it is rendered.
"""

import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import pystac
from rasterio.io import DatasetReader
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.cache import LICENCE_TAG, RENDERED_TAG, SceneCache
from pipelines.scenes.dates import Days, decide_acquired, stated_dates
from pipelines.scenes.georeference import footprint, gsd_m, open_raster, refuse_far
from pipelines.scenes.items import acquired_of, is_item, read_item, safe_id, scene_from_item
from pipelines.scenes.selection import choose_scenes, refuse_reversed, within
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.sites import Site

__all__ = ["IMAGE_SUFFIXES", "UNKNOWN_LICENCE", "LocalSource", "local_scene"]

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"})
"""What is taken for an image in a folder; a single file may have any name that GDAL can open."""
UNKNOWN_LICENCE = "unknown (local file)"


class LocalSource:
    """Georeferenced images on this machine."""

    def __init__(self, path: Path, *, cache: Path, acquired: date | None = None, licence: str | None = None) -> None:
        """Use a file, or every image of a folder.

        :param acquired: when the image of a single file was acquired; it must not contradict the file
        :param licence: of the imagery; goes before what a STAC item beside an image says
        :raises SourceError: the path does not exist, or a date is given for a folder
        """
        self.path = path.expanduser().absolute()
        self.name = f"local:{self.path.name}"
        self.problems: Sequence[SceneProblem] = ()
        if not self.path.exists():
            raise SourceError(f"{path} does not exist; give the path of an image or of a folder of images")
        if acquired and self.path.is_dir():
            raise SourceError(f"{path} is a folder: a date of acquisition can be given for one image only")
        self._given = Days(acquired, acquired) if acquired else None
        self._licence = licence
        self._cache = SceneCache(cache, f"local:{self.path}")

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the images that overlap the site; see `ImagerySource.search`.

        In a folder, an image that cannot be used is passed over, logged, and listed in `problems`; a single file that
        cannot be used, or that does not show the site, is an error.
        """
        refuse_reversed(start, end)
        if self.path.is_dir():
            return choose_scenes(self._scenes_of_folder(), site, start, end, self.name, self.problems)
        scene = self._scene(self.path)
        if not scene.footprint.intersection(site.perimeter).area:
            raise refuse_far(str(self.path), scene.footprint, site.perimeter, f"site {site.id}")
        if not within(scene, start, end):
            raise NoSceneError(
                f"{self.path} was acquired on {scene.acquired:%Y-%m-%d} ({scene.acquired_from}), which is not in the "
                f"dates asked for, {start or 'any'} to {end or 'any'}"
            )
        return [scene]

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring a scene into the one form that detection reads; see `ImagerySource.fetch`."""
        return self._cache.fetch(scene, area)

    def _scenes_of_folder(self) -> list[Scene]:
        try:
            files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror}") from error
        if not files:
            raise SourceError(f"{self.path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        scenes, problems = [], []
        for file in files:
            try:
                scenes.append(self._scene(file))
            except SceneError as error:
                log.warning("passed over: %s", error)
                problems.append(SceneProblem(str(file), str(error)))
        self.problems = tuple(problems)
        times = Counter(scene.id for scene in scenes)
        return [scene if times[scene.id] == 1 else _told_apart(scene) for scene in scenes]

    def _scene(self, path: Path) -> Scene:
        return local_scene(path, source=self.name, given=self._given, licence=self._licence)


def local_scene(
    path: Path,
    *,
    source: str,
    given: Days | None = None,
    licence: str | None = None,
    remedy: str = "",
    believe_tags: bool = True,
) -> Scene:
    """Build the scene that an image on this machine is, from what it and the STAC item beside it say.

    :param given: when it was acquired, as far as the user knows
    :param licence: goes before what the item says
    :param remedy: what the user can do when there is no date
    :param believe_tags: whether a date that a TIFF tag states, maybe that of a later edit, can contradict `given`
    :raises SceneError: it cannot be read, dated or placed on the ground, or contradicts `given`
    """
    sidecar = _sidecar(path)
    with open_raster(path) as dataset:
        item = sidecar or _item_of(dataset, path)
        stated = [acquired_of(sidecar)] if sidecar else stated_dates(dataset, path)
        if given is not None and not believe_tags:
            stated = [one for one in stated if one.said_by != "tiff tag"]
        remedy = remedy or (
            "give its date (--date YYYY-MM-DD) with the file itself, or write the date into the file name or into "
            f"a STAC item {path.with_suffix('.json').name} beside it"
        )
        acquired = decide_acquired(str(path), stated, given, remedy)
        scene = scene_from_item(
            item,
            _asset_of(item, path),
            source=source,
            href=str(path),
            footprint=footprint(dataset),
            raster_gsd_m=gsd_m(dataset),
            licence=UNKNOWN_LICENCE,
            acquired=acquired,
        )
        rendered = scene.rendered or dataset.tags().get(RENDERED_TAG, "").upper() == "YES"
    return dataclasses.replace(scene, rendered=rendered, licence=licence or scene.licence)


def _item_of(dataset: DatasetReader, path: Path) -> pystac.Item:
    """Make the item that nobody wrote, so that there is one way from an item to a scene."""
    tags = dataset.tags()
    properties = {"overwatt:licence": tags.get(LICENCE_TAG), "attribution": tags.get("TIFFTAG_COPYRIGHT")}
    return pystac.Item(
        id=safe_id(path.stem),
        geometry=None,
        bbox=None,
        # Not used: the date of an image without an item is decided from what the image states.
        datetime=datetime.min,
        properties=properties,
    )


def _sidecar(path: Path) -> pystac.Item | None:
    sidecar = path.with_suffix(".json")
    try:
        document = json.loads(sidecar.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SceneError(f"{sidecar} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SceneError(f"{sidecar} beside {path.name} is not JSON ({error}); mend or remove it") from error
    if not is_item(document):
        log.warning("%s beside %s is no STAC item and is not used", sidecar, path.name)
        return None
    return read_item(document, str(sidecar))


def _asset_of(item: pystac.Item, path: Path) -> pystac.Asset | None:
    for asset in item.assets.values():
        if asset.href.rpartition("/")[2] == path.name:
            return asset
    return None


def _told_apart(scene: Scene) -> Scene:
    name = Path(scene.href).name
    return dataclasses.replace(scene, id=f"{scene.id}-{hashlib.sha256(name.encode()).hexdigest()[:8]}")
