"""Imagery on this machine: one georeferenced image, or a folder of them, the way purchased imagery arrives.

A folder is read one level deep; deeper ones, and names that hold site and date, are read by a pattern. A STAC item of
the same name beside an image (`X.json` beside `X.tif`) says what the image itself does not: date, GSD, licence, angles,
whether it is rendered.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import pystac
from rasterio.io import DatasetReader
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.cache import LICENCE_TAG, RENDERED_TAG, SceneCache
from pipelines.scenes.dates import Days, decide_acquired, stated_dates, written_days
from pipelines.scenes.georeference import footprint, gsd_m, open_raster, refuse_far
from pipelines.scenes.items import acquired_of, is_item, read_item, safe_id, scene_from_item
from pipelines.scenes.selection import choose_scenes, refuse_reversed, within
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.sites import Site

__all__ = ["IMAGE_SUFFIXES", "UNKNOWN_LICENCE", "LocalSource", "local_scene"]

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"})
"""What is taken for an image in a folder; a single file may have any name that GDAL can open."""
_WILDCARDS = r"\*\*/|\*\*|\*|\?|\{site\}|\{date\}"
_TRANSLATED = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_PATH_DATE = r"(?:19|20)\d\d(?:-\d\d-\d\d|_\d\d_\d\d|\d\d\d\d)(?!\d)"
UNKNOWN_LICENCE = "unknown (local file)"


class LocalSource:
    """Georeferenced images on this machine."""

    def __init__(self, path: Path, *, cache: Path, acquired: date | None = None, licence: str | None = None) -> None:
        """Use a file, every image of a folder, or the images whose paths fit a pattern.

        A pattern is a path with `*` and `?` (within one name), `**` (folders of any depth), `{site}` (the site's id) or
        `{date}` (2025-08-22, 2025_08_22 or 20250822: the day of acquisition) in it: `/data/{site}/{date}/**/*.tif`.

        :param path: what exists goes before a pattern
        :param acquired: when the image of a single file was acquired; it must not contradict the file
        :param licence: of the imagery; goes before what a STAC item beside an image says
        :raises SourceError: the path does not exist, or a date is given for a folder
        """
        self.path = path.expanduser().absolute()
        self.name = f"local:{self.path.name}"
        self.problems: Sequence[SceneProblem] = ()
        self._base = self.path if self.path.is_dir() else self.path.parent
        self._pattern = "" if self.path.exists() else _pattern_below(self.path)
        if self._pattern:
            self._base = Path(str(self.path).removesuffix(self._pattern))
            self.name = f"local:{self._base.name}/{self._pattern}"
        if not self._base.is_dir() or not (self._pattern or self.path.exists()):
            raise SourceError(f"{path} does not exist; give the path of an image or of a folder of images")
        if acquired and (self._pattern or self.path.is_dir()):
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
        if self._pattern or self.path.is_dir():
            found = self._scenes_of(self._matching(site) if self._pattern else self._files_of_folder())
            return choose_scenes(found, site, start, end, self.name, self.problems)
        scene = self._scene(self.path)
        if not scene.footprint.intersection(site.perimeter).area:
            raise refuse_far(str(self.path), scene.footprint, site.perimeter, f"site {site.id}")
        if not within(scene, start, end):
            raise NoSceneError(
                f"{self.path} was acquired on {written_days(scene.acquired, scene.earliest)} "
                f"({scene.acquired_from}), which is not in the "
                f"dates asked for, {start or 'any'} to {end or 'any'}"
            )
        return [scene]

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring a scene into the one form that detection reads; see `ImagerySource.fetch`."""
        return self._cache.fetch(scene, area)

    def _files_of_folder(self) -> list[tuple[Path, Days | None]]:
        try:
            files = sorted(p for p in self.path.iterdir() if _is_image(p))
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror}") from error
        if not files:
            deeper = next((path for path in self.path.glob("[!.]*/**/*") if _is_image(path)), None)
            hint = f"; its subfolders do, local:{self.path}/** reads them too" if deeper else ""
            raise SourceError(f"{self.path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}){hint}")
        return [(file, None) for file in files]

    def _matching(self, site: Site) -> list[tuple[Path, Days | None]]:
        """Return the files that fit the pattern, with the day that their path gives."""
        expression = _expression(self._pattern, site.id)
        named = bool(re.search(r"\.\w+$", self._pattern))
        matches = []
        for path in sorted(self._base.rglob("*")):
            match = expression.fullmatch(path.relative_to(self._base).as_posix())
            if match and path.is_file() and (named or _is_image(path)):
                try:
                    day = match.groupdict().get("date")
                    when = date.fromisoformat(re.sub("[-_]", "", day)) if day else None
                except ValueError:
                    continue
                matches.append((path, Days(when, when) if when else None))
        if not matches:
            raise NoSceneError(f"{self._base} holds no image that fits {self._pattern} for site {site.id}")
        return matches

    def _scenes_of(self, files: Sequence[tuple[Path, Days | None]]) -> list[Scene]:
        scenes, problems = [], []
        for file, day in files:
            try:
                scenes.append(self._scene(file, day))
            except SceneError as error:
                log.warning("passed over: %s", error)
                problems.append(SceneProblem(str(file), str(error)))
        self.problems = tuple(problems)
        times = Counter(scene.id for scene in scenes)
        return [scene if times[scene.id] == 1 else _told_apart(scene, self._base) for scene in scenes]

    def _scene(self, path: Path, day: Days | None = None) -> Scene:
        if day is not None:
            return local_scene(
                path, source=self.name, given=day, licence=self._licence, given_by="folder pattern", believe_tags=False
            )
        return local_scene(path, source=self.name, given=self._given, licence=self._licence)


def local_scene(
    path: Path,
    *,
    source: str,
    given: Days | None = None,
    licence: str | None = None,
    given_by: str = "command line",
    remedy: str = "",
    believe_tags: bool = True,
) -> Scene:
    """Build the scene that an image on this machine is, from what it and the STAC item beside it say.

    :param given: when it was acquired, as far as the user knows
    :param licence: goes before what the item says
    :param given_by: where `given` comes from
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
        acquired = decide_acquired(str(path), stated, given, remedy, given_by)
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


def _told_apart(scene: Scene, base: Path) -> Scene:
    name = Path(scene.href).relative_to(base).as_posix()
    return dataclasses.replace(scene, id=f"{scene.id}-{hashlib.sha256(name.encode()).hexdigest()[:8]}")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _pattern_below(path: Path) -> str:
    """Return the part of a path from the first name with a wildcard on; empty if there is none."""
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if re.search(_WILDCARDS, part)), len(parts))
    return "/".join(parts[first:])


def _expression(pattern: str, site_id: str) -> re.Pattern[str]:
    dated = False
    parts = []
    for token in re.split(rf"({_WILDCARDS})", pattern):
        if token == "{date}":
            parts.append("(?P=date)" if dated else rf"(?P<date>{_PATH_DATE})")
            dated = True
        elif token == "{site}":
            parts.append(re.escape(site_id))
        else:
            parts.append(_TRANSLATED.get(token, re.escape(token)))
    return re.compile("".join(parts))
