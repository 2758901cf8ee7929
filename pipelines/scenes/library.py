"""The library: imagery that the user keeps, as a static STAC catalog on disk with one item a scene.

`<root>/catalog.json` and, for each scene, a folder `<root>/<scene id>/` with the item `<scene id>.json` and the image.
A folder is filled beside its place and renamed in, and the catalog is written anew from the folders that are there, so
that whatever kills an ingest leaves a valid catalog, and ingests that run at once lose nothing.

An image is copied as it is, with the files that GDAL reads with it (world file, overviews, mask). One that is put
together from others (VRT, a vendor's index of tiles) is copied as one COG of the same pixel values, since its parts may
lie anywhere; in place, it and its parts stay where they are.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pystac
import rasterio
import rasterio.shutil
from filelock import FileLock, Timeout
from pystac.extensions.eo import SCHEMA_URI as EO_SCHEMA
from pystac.extensions.file import SCHEMA_URI as FILE_SCHEMA
from pystac.extensions.timestamps import SCHEMA_URI as TIMESTAMPS_SCHEMA
from pystac.extensions.view import SCHEMA_URI as VIEW_SCHEMA
from rasterio.errors import RasterioError
from shapely.geometry import MultiPolygon, Polygon, mapping

from pipelines.errors import SceneError, SourceError
from pipelines.gdal_env import gdal_env
from pipelines.scenes.cache import SceneCache
from pipelines.scenes.dates import DAY_FORMS, Days
from pipelines.scenes.georeference import open_raster, reading, refuse_far
from pipelines.scenes.items import (
    acquired_of,
    item_footprint,
    known_properties,
    read_item,
    scene_from_item,
    when_properties,
)
from pipelines.scenes.local import UNKNOWN_LICENCE, local_scene
from pipelines.scenes.selection import choose_scenes, refuse_reversed
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.sites import Site

__all__ = ["PRICES", "Ingested", "LibrarySource", "Statement", "ingest"]

log = logging.getLogger(__name__)

PRICES = ("free", "requester pays", "priced", "owned", "unknown")
"""Price classes of a scene."""
CATALOG = "catalog.json"
LOCK_TIMEOUT_S = 60.0
"""Moving a scene in takes a fraction of a second; the lock of a process that dies is released with it."""
_ABANDONED_S = 86_400
"""Age at which what a killed ingest left is swept away."""
_SCHEMAS = {"view:": VIEW_SCHEMA, "eo:": EO_SCHEMA, "file:": FILE_SCHEMA, "published": TIMESTAMPS_SCHEMA}


@dataclass(frozen=True)
class Statement:
    """What the user says of imagery, where its files do not; what is said goes before what an item beside it says."""

    source: str
    """Who took it and sells it, for people: `Airbus Pleiades Neo`."""
    acquired: Days | None = None
    """Day of acquisition, or the days it may have been. None: the image says it itself."""
    licence: str | None = None
    released: date | None = None
    """When it was published or delivered."""
    price: str = "owned"
    """One of `PRICES`."""
    gsd_m: float | None = None
    off_nadir_deg: float | None = None
    sun_azimuth_deg: float | None = None
    sun_elevation_deg: float | None = None
    cloud_cover_percent: float | None = None


@dataclass(frozen=True)
class Ingested:
    """A scene of the library."""

    scene: Scene
    item_path: Path
    new: bool
    """False if the library held the same image before; nothing was changed then."""
    size: int
    """Bytes of the image and of what belongs to it."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        scene = self.scene
        return {
            "scene": scene.id,
            "new": self.new,
            "acquired": f"{scene.acquired:%Y-%m-%d}",
            "acquired_earliest": None if scene.earliest is None else f"{scene.earliest:%Y-%m-%d}",
            "acquired_from": scene.acquired_from,
            "released": None if scene.released is None else scene.released.isoformat(),
            "source": scene.source,
            "licence": scene.licence,
            "price": scene.price,
            "gsd_m": round(scene.gsd_m, 4),
            "rendered": scene.rendered,
            "image": scene.href,
            "item": str(self.item_path),
            "bytes": self.size,
        }


class LibrarySource:
    """The library as a source of imagery."""

    def __init__(self, root: Path, *, cache: Path) -> None:
        """Use the library in the folder `root`, which need not exist yet."""
        self.root = root.expanduser().absolute()
        self.name = "library"
        self.problems: Sequence[SceneProblem] = ()
        self._cache = SceneCache(cache, f"library:{self.root}")

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the scenes that overlap the site; see `ImagerySource.search`."""
        refuse_reversed(start, end)
        scenes, problems = [], []
        for path in _item_paths(self.root):
            try:
                scenes.append(_read(path)[0])
            except SceneError as error:
                log.warning("passed over: %s", error)
                problems.append(SceneProblem(str(path), str(error)))
        self.problems = tuple(problems)
        return choose_scenes(scenes, site, start, end, self.name, self.problems)

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring a scene into the one form that detection reads; see `ImagerySource.fetch`."""
        return self._cache.fetch(scene, area)


def ingest(root: Path, file: Path, site: Site, said: Statement, *, in_place: bool = False) -> Ingested:
    """Take an image into the library, or find it there.

    :param root: folder of the library; it is made if need be
    :param file: anything georeferenced that GDAL opens
    :param site: what the image must show, at least in part
    :param in_place: leave the image where it is, and keep its address and checksum only
    :raises SceneError: the image cannot be read, dated or placed, does not show the site, or the library holds the same
        image with another date
    :raises SourceError: the library cannot be written
    """
    root, file = root.expanduser().absolute(), file.expanduser().absolute()
    _refuse_impossible(said)
    remedy = f"give its date: --acquired {DAY_FORMS}"
    scene = local_scene(
        file, source="library", given=said.acquired, licence=said.licence, remedy=remedy, believe_tags=False
    )
    if not scene.footprint.intersection(site.perimeter).area:
        raise refuse_far(str(file), scene.footprint, site.perimeter, f"site {site.id}")
    if scene.acquired.date() > _today():
        raise SceneError(f"{file} states {scene.acquired:%Y-%m-%d} ({scene.acquired_from}) as its date, in the future")
    if said.released is not None and said.released < (scene.earliest or scene.acquired).date():
        raise SceneError(f"{file} cannot have been released on {said.released}, before it was acquired")
    given: dict[str, Any] = {
        "released": said.released,
        "gsd_m": said.gsd_m,
        "off_nadir_deg": said.off_nadir_deg,
        "sun_azimuth_deg": said.sun_azimuth_deg,
        "sun_elevation_deg": said.sun_elevation_deg,
        "cloud_cover_percent": said.cloud_cover_percent,
    }
    scene = dataclasses.replace(
        scene,
        **{name: value for name, value in given.items() if value is not None},
        price=said.price,
        licence="unknown (not stated when it was taken in)" if scene.licence == UNKNOWN_LICENCE else scene.licence,
    )
    with _writing(root), gdal_env(file):
        root.mkdir(parents=True, exist_ok=True)
        files = _files_of(file)
        digest = _digest(files)
        with _locked(root):
            known = _same_image(root, digest, file, scene, said)
            if known:
                _write_catalog(root)
                return known
        with tempfile.TemporaryDirectory(prefix=".ingest-", dir=root) as scratch:
            made = Path(scratch) / "scene"
            made.mkdir()
            image = file if in_place else _copy(file, files, made)
            if _digest(files) != digest:
                raise SceneError(f"{file} changed while it was read; take it in again when it is complete")
            size = sum(path.stat().st_size for path in (files if in_place else made.iterdir()))
            with _locked(root):
                _sweep(root)
                # Another process may have been faster with the same image.
                if known := _same_image(root, digest, file, scene, said):
                    return known
                scene = dataclasses.replace(scene, id=_free_id(root, scene.id, digest))
                folder = root / scene.id
                item = _item(scene, site, said, image, digest, size, in_place=in_place)
                _write_durably(made / f"{scene.id}.json", item)
                made.rename(folder)
                _write_catalog(root)
    return Ingested(_read(folder / f"{scene.id}.json")[0], folder / f"{scene.id}.json", True, size)


def _refuse_impossible(said: Statement) -> None:
    if said.acquired and said.acquired.first > _today():
        raise SceneError(f"acquired on {said.acquired}? That is in the future (today is {_today()}); check the date")
    if said.released and said.released > _today():
        raise SceneError(f"released on {said.released}? That is in the future (today is {_today()}); check the date")
    if said.price not in PRICES:
        raise SceneError(f"'{said.price}' is no price class; choose from {', '.join(PRICES)}")
    if not said.source.strip():
        raise SceneError("say where the imagery comes from, for example --source 'Airbus Pleiades Neo'")
    limits = {
        "GSD": (said.gsd_m, 0.01, 1000.0),
        "off-nadir angle": (said.off_nadir_deg, 0.0, 90.0),
        "sun azimuth": (said.sun_azimuth_deg, 0.0, 360.0),
        "sun elevation": (said.sun_elevation_deg, -90.0, 90.0),
        "cloud cover": (said.cloud_cover_percent, 0.0, 100.0),
    }
    for name, (value, least, most) in limits.items():
        if value is not None and not least <= value <= most:
            raise SceneError(f"a {name} of {value:g} is not possible; it lies between {least:g} and {most:g}")


def _today() -> date:
    return datetime.now(UTC).date()


def _files_of(file: Path) -> list[Path]:
    """Return the files that make up an image, itself first."""
    with open_raster(file) as dataset:
        others = {Path(name).absolute() for name in dataset.files} - {file}
    return [file, *sorted(path for path in others if path.is_file())]


def _is_whole(file: Path, files: Sequence[Path]) -> bool:
    """Whether the image is one file, besides what goes by its name in its folder."""
    return file.suffix.lower() != ".vrt" and all(
        path.parent == file.parent and path.name.startswith(file.stem) for path in files
    )


def _copy(file: Path, files: Sequence[Path], folder: Path) -> Path:
    """Copy an image into a folder and return the copy."""
    if _is_whole(file, files):
        for path in files:
            shutil.copyfile(path, folder / path.name)
            _sync(folder / path.name)
        return folder / file.name
    image = folder / f"{file.stem}.tif"
    with reading(file):
        rasterio.shutil.copy(
            file, image, driver="COG", COMPRESS="DEFLATE", BIGTIFF="IF_SAFER", OVERVIEW_RESAMPLING="AVERAGE"
        )
    _sync(image)
    return image


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of an image: of its file, or of all of its files where it has parts."""
    sums = [_sha256(path) for path in files]
    if _is_whole(files[0], files):
        return sums[0]
    return hashlib.sha256("".join([sums[0], *sorted(sums[1:])]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same_image(root: Path, digest: str, file: Path, scene: Scene, said: Statement) -> Ingested | None:
    """Return the scene of the same image, if the library holds it.

    :raises SceneError: it holds it with another date
    """
    for path in _item_paths(root):
        try:
            known, properties = _read(path, there=False)
        except SceneError:
            continue
        if properties.get("overwatt:image_sha256") != digest:
            continue
        theirs = Days((known.earliest or known.acquired).date(), known.acquired.date())
        ours = Days((scene.earliest or scene.acquired).date(), scene.acquired.date())
        if said.acquired is not None and theirs != ours:
            raise SceneError(
                f"{file} is in the library as {known.id}, acquired {theirs}, not {ours}; if that is wrong, delete the "
                f"folder {path.parent} and take it in again"
            )
        return Ingested(known, path, False, int(properties.get("overwatt:image_bytes", 0)))
    return None


def _free_id(root: Path, wanted: str, digest: str) -> str:
    """Return an id that no scene of the library has; an image of the same name is told apart by its content."""
    return f"{wanted}-{digest[:8]}" if (root / wanted).exists() else wanted


def _item(scene: Scene, site: Site, said: Statement, image: Path, digest: str, size: int, *, in_place: bool) -> bytes:
    properties: dict[str, Any] = {
        "title": f"{site.name}, {said.source}" + (" (rendered imagery)" if scene.rendered else ""),
        "gsd": scene.gsd_m,
        "license": scene.licence if re.fullmatch(r"[\w.+-]+", scene.licence) else "other",
        "providers": [{"name": said.source, "roles": ["producer"]}],
        "overwatt:source": said.source,
        "overwatt:licence": scene.licence,
        "overwatt:price": scene.price,
        "overwatt:rendered": scene.rendered,
        "overwatt:acquired_from": scene.acquired_from,
        "overwatt:image_sha256": digest,
        "overwatt:image_bytes": size,
        "overwatt:sites": [site.id],
    }
    properties |= known_properties(scene)
    if scene.declared.stretch is not None:
        properties["overwatt:stretch"] = [list(pair) for pair in scene.declared.stretch]
    properties |= when_properties(scene.acquired, scene.earliest)
    asset: dict[str, Any] = {
        "href": str(image) if in_place else f"./{image.name}",
        "type": _media_type(image),
        "roles": ["data", "visual"],
        "file:size": image.stat().st_size,
        "file:checksum": f"1220{_sha256(image)}",
    }
    if scene.declared.nodata is not None:
        asset["nodata"] = "nan" if scene.declared.nodata != scene.declared.nodata else scene.declared.nodata
    if scene.declared.rgb_bands is not None:
        names = {band: colour for colour, band in zip(("red", "green", "blue"), scene.declared.rgb_bands, strict=True)}
        asset["bands"] = [{"name": names.get(band, f"band {band}")} for band in range(1, max(names) + 1)]
    document = {
        "type": "Feature",
        "stac_version": pystac.get_stac_version(),
        "stac_extensions": [
            uri
            for prefix, uri in _SCHEMAS.items()
            if prefix == "file:" or any(n.startswith(prefix) for n in properties)
        ],
        "id": scene.id,
        "geometry": mapping(scene.footprint),
        "bbox": list(scene.footprint.bounds),
        "properties": properties,
        "assets": {"image": {name: value for name, value in asset.items() if value is not None}},
        "links": [{"rel": rel, "href": f"../{CATALOG}", "type": pystac.MediaType.JSON} for rel in ("root", "parent")],
    }
    return _json(document)


def _media_type(image: Path) -> str | None:
    known = {
        ".tif": pystac.MediaType.GEOTIFF,
        ".tiff": pystac.MediaType.GEOTIFF,
        ".jp2": pystac.MediaType.JPEG2000,
        ".png": pystac.MediaType.PNG,
        ".jpg": pystac.MediaType.JPEG,
        ".jpeg": pystac.MediaType.JPEG,
        ".vrt": "application/x-gdal-vrt",
        ".ntf": "application/vnd.nitf",
    }
    return known.get(image.suffix.lower())


def _read(path: Path, *, there: bool = True) -> tuple[Scene, Mapping[str, Any]]:
    """Read an item of the library.

    :param there: refuse one whose image is missing or has changed
    :raises SceneError: the item is damaged, or its image is not what was taken in
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SceneError(f"{path} is not JSON ({error}); delete its folder and take the image in again") from error
    if not isinstance(document, dict):
        raise SceneError(f"{path} is no STAC item; delete its folder and take the image in again")
    item = read_item(document, str(path))
    asset = item.assets.get("image")
    if asset is None:
        raise SceneError(f"{path} names no image; delete its folder and take the image in again")
    image = (path.parent / asset.href).resolve() if asset.href.startswith(".") else Path(asset.href)
    if there:
        try:
            size = image.stat().st_size
        except OSError as error:
            raise SceneError(
                f"{image}, which the library refers to in place, cannot be read ({error.strerror}); bring it back, or "
                f"delete {path.parent} and take the image in again"
            ) from error
        if size != asset.extra_fields.get("file:size", size):
            raise SceneError(
                f"{image} has changed since it was taken in; delete {path.parent} and take the image in again"
            )
    shape = item_footprint(item)
    if shape is None:
        raise SceneError(f"{path} has no geometry; delete its folder and take the image in again")
    stated = acquired_of(item)
    said_by = item.properties.get("overwatt:acquired_from")
    scene = scene_from_item(
        item,
        asset,
        source=f"library:{item.properties.get('overwatt:source', 'unknown')}",
        href=str(image),
        footprint=shape,
        raster_gsd_m=None,
        licence=None,
        acquired=dataclasses.replace(stated, said_by=said_by) if isinstance(said_by, str) and said_by else stated,
    )
    return scene, item.properties


def _item_paths(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[!.]*/*.json") if path.stem == path.parent.name)


def _write_catalog(root: Path) -> None:
    """Write the catalog from the folders that are there, so that it names what a killed ingest moved in too."""
    catalog = pystac.Catalog("overwatt-library", "Imagery taken in by overwatt ingest", title="Library")
    for path in _item_paths(root):
        catalog.add_link(pystac.Link("item", f"./{path.parent.name}/{path.name}", pystac.MediaType.GEOJSON))
    document = catalog.to_dict(include_self_link=False, transform_hrefs=False)
    root_link = {"rel": "root", "href": f"./{CATALOG}", "type": pystac.MediaType.JSON}
    document["links"] = [root_link, *(link for link in document["links"] if link["rel"] == "item")]
    content = _json(document)
    path = root / CATALOG
    if path.exists() and path.read_bytes() == content:
        return
    partial = root / f".{CATALOG}.{os.getpid()}"
    _write_durably(partial, content)
    partial.replace(path)


def _json(document: object) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_durably(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    """Bring a file to the disk, so that a power cut cannot leave an item beside half an image."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        with FileLock(root / ".ingesting.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout:
        raise SourceError(
            f"another process has been writing to {root} for {LOCK_TIMEOUT_S:.0f} s; end it or wait"
        ) from None


def _sweep(root: Path) -> None:
    for left in root.glob(".ingest-*"):
        if left.stat().st_mtime < time.time() - _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Turn what goes wrong while writing to the library into one sentence."""
    try:
        yield
    except (OSError, RasterioError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())
        raise SourceError(
            f"the library {root} cannot be written ({reason}); make room, or set OVERWATT_LIBRARY to another folder"
        ) from error
