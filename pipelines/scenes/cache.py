"""Fetched scenes on disk: one COG and one STAC item for each scene and area, never fetched twice, never half written.

`<root>/<hash of the source>/<scene id>/<hash of scene, area and file version>.tif` and `.json`. The item is renamed in
last and holds the COG's checksum, so a pair is complete or it is fetched again. Fetchers of the same pair write the
same bytes, and each renames its own temporary files, so they do not disturb each other.
"""

import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import rasterio.shutil
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window
from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import Damage, SceneError, SourceError, WindowError
from pipelines.gdal_env import gdal_env, is_url
from pipelines.scenes.georeference import (
    footprint,
    gdal_reason,
    gsd_m,
    lonlat_from_pixels,
    open_raster,
    raster_name,
    reading,
    refuse_far,
    unreadable,
    window_around,
)
from pipelines.scenes.items import Origin, cached_item
from pipelines.scenes.mosaic import COPIED, join_tiles
from pipelines.scenes.radiometry import Radiometry, radiometry_of
from pipelines.scenes.remote import refuse_failed, remote_version, uninterrupted
from pipelines.scenes.signing import NO_SIGNING, Signer
from pipelines.scenes.types import FetchedScene, Scene
from pipelines.scenes.web import public_href

__all__ = ["LICENCE_TAG", "RENDERED_TAG", "SceneCache", "scratch_folder", "write_rgb", "writing"]

log = logging.getLogger(__name__)

MARGIN_M = 60.0
"""Image kept around an area, so that a network sees what lies beside an object at its rim."""
FORMAT = 1
"""Raise it when the same input would be cached as other pixels: what was cached before is then fetched again."""
RENDERED_TAG = "OVERWATT_RENDERED"
"""TIFF tag that keeps a copy of a rendered scene labelled when its STAC item is lost."""
LICENCE_TAG = "OVERWATT_LICENCE"
"""TIFF tag that keeps the licence with the pixels."""
_BLOCK_PX = 512
_STRIP_PX = 8_000_000
"""Pixels read at once: about 200 MB of float32 with its working copies."""
_GSD_TOLERANCE = 0.1
"""A declared GSD is believed unless the raster's pixels are coarser than it by more than this."""
_ABANDONED_S = 86_400
"""Age at which what a killed process left is swept away."""
_COVERAGE_PX = 512
"""Longer side of the mask from which coverage is drawn; it is right to about one such pixel."""


class SceneCache:
    """A folder of fetched scenes."""

    def __init__(self, root: Path, source: str, *, signer: Signer = NO_SIGNING) -> None:
        """Use `root` for the scenes of `source`, a text that tells this source from others.

        :param signer: makes the addresses that the source's servers accept; scenes hold the unsigned ones
        """
        self._signer = signer
        self.folder = root / hashlib.sha256(source.encode()).hexdigest()[:12]

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Return the part of `scene` around `area` (CRS84), from the cache if it is there and whole.

        :raises SceneError: the scene does not overlap the area, or its pixels cannot be used
        :raises SourceError: the scene cannot be read from where it is, or the cache cannot be written
        """
        version = _version_of_all(scene, self._signer)
        path = self._path(scene, area, version)
        fetched = _reuse(scene, path)
        if fetched:
            return fetched
        log.info("fetching %s from %s", scene.id, public_href(scene.href))
        fetched = uninterrupted(lambda: _write(scene, area, path, self._signer))
        if _version_of_all(scene, self._signer) != version:
            fetched.item_path.unlink(missing_ok=True)
            raise SceneError(f"{public_href(scene.href)} changed while it was read; run again when it is complete")
        return fetched

    def fetch_made(
        self, scene: Scene, area: Polygon | MultiPolygon, version: str, make: Callable[[Path], None]
    ) -> FetchedScene:
        """Do the same for a scene whose raster must be made first, from tiles for example.

        :param version: tells the pixels that `make` would make from others
        :param make: writes the raster to a path; not called where the cache holds the scene
        """
        path = self._path(scene, area, version)
        fetched = _reuse(scene, path)
        if fetched:
            return fetched
        with scratch_folder(path) as scratch:
            made = scratch / "made.tif"
            make(made)
            return _write(scene, area, path, NO_SIGNING, made)

    def _path(self, scene: Scene, area: Polygon | MultiPolygon, version: str) -> Path:
        key = hashlib.sha256(f"{FORMAT}|{_identity(scene)}|{version}|".encode() + shapely.to_wkb(area)).hexdigest()
        return self.folder / scene.id / f"{key[:16]}.tif"


def _identity(scene: Scene) -> str:
    fields = {field.name: getattr(scene, field.name) for field in dataclasses.fields(scene) if field.name != "bands"}
    # The key of a signed address changes by the hour.
    addresses = {"href": public_href(scene.href), "parts": tuple(public_href(part) for part in scene.parts)}
    return repr(sorted((fields | addresses | {"footprint": scene.footprint.wkt}).items()))


def _version_of_all(scene: Scene, signer: Signer) -> str:
    return "|".join(_file_version(href, signer) for href in (scene.href, *scene.parts))


def _file_version(href: str, signer: Signer) -> str:
    """Tell one version of an image from another without reading it; its world file, mask and parts count too."""
    if is_url(href):
        return remote_version(href, signer=signer)
    with open_raster(href) as dataset:
        return "|".join(_status(Path(file)) for file in sorted({href, *dataset.files}))


def _status(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} cannot be read"
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _reuse(scene: Scene, path: Path) -> FetchedScene | None:
    item_path = path.with_suffix(".json")
    try:
        item = json.loads(item_path.read_bytes())
        sha256 = _sha256(path)
        if item["assets"]["data"]["file:checksum"] != f"1220{sha256}":
            log.warning("%s does not match its checksum; fetching it again", path)
            return None
        properties = item["properties"]
        coverage = shapely.from_geojson(json.dumps(properties["overwatt:coverage"]))
        scene = dataclasses.replace(scene, gsd_m=properties["gsd"], rendered=properties["overwatt:rendered"])
    except (OSError, ValueError, KeyError, TypeError, shapely.errors.GEOSException):
        # Missing or damaged, whatever way: writing it anew says what is wrong, if something still is.
        return None
    return FetchedScene(scene, path, item_path, sha256, coverage)


def _write(
    scene: Scene, area: Polygon | MultiPolygon, path: Path, signer: Signer, made: Path | None = None
) -> FetchedScene:
    name = public_href(scene.href)
    with scratch_folder(path) as scratch:
        tiles = _read_tiles(scene, area, path, scratch, signer, made)
        radiometry = tiles[0].radiometry
        scene = dataclasses.replace(
            scene, rendered=any(tile.rendered for tile in tiles), gsd_m=max(tile.gsd_m for tile in tiles)
        )
        plain, cog, item_path = scratch / "plain.tif", scratch / "cog.tif", scratch / "item.json"
        with writing(path), gdal_env():
            placed = join_tiles([tile.path for tile in tiles], plain, _tags(scene)) if len(tiles) > 1 else [COPIED]
            _write_cog(plain if len(tiles) > 1 else tiles[0].path, cog)
        with gdal_env(), rasterio.open(cog) as dataset:
            coverage = _coverage(dataset, area)
            if not coverage.area:
                raise SceneError(f"{name} holds no valid pixel in the area asked for ({radiometry.mask_from})")
            sha256 = _sha256(cog)
            item = cached_item(
                scene,
                dataset,
                radiometry,
                file_name=path.name,
                size=cog.stat().st_size,
                sha256=sha256,
                footprint=footprint(dataset),
                coverage=coverage,
                origins=[
                    Origin(tile.href, None if is_url(tile.href) else _sha256(Path(tile.href)), how)
                    for tile, how in zip(tiles, placed, strict=True)
                ],
            )
        with writing(path):
            item_path.write_text(json.dumps(item, indent=1) + "\n", encoding="utf-8")
            cog.replace(path)
            item_path.replace(path.with_suffix(".json"))
    return FetchedScene(scene, path, path.with_suffix(".json"), sha256, coverage)


@dataclass(frozen=True)
class _ReadTile:
    """The part of one raster around the area, on this machine in the one form."""

    href: str
    path: Path
    radiometry: Radiometry
    dtype: str
    gsd_m: float
    rendered: bool


def _read_tiles(
    scene: Scene, area: Polygon | MultiPolygon, path: Path, scratch: Path, signer: Signer, made: Path | None
) -> list[_ReadTile]:
    """Read what a scene's rasters show of the area; one that shows nothing of it is left out.

    :raises SceneError: none shows it, or two are of different kinds
    """
    tiles: list[_ReadTile] = []
    far: SceneError | None = None
    for href in (scene.href, *scene.parts):
        name = public_href(href)
        address = str(made) if made and href == scene.href else href
        with open_raster(address, signer=signer) as source:
            window = window_around(source, area, MARGIN_M)
            if window is None:
                far = far or refuse_far(name, footprint(source), area, "the area asked for")
                continue
            with reading(address):
                radiometry = radiometry_of(source, scene.declared, name)
            rendered = scene.rendered or source.tags().get(RENDERED_TAG, "").upper() == "YES"
            gsd_m = _native_gsd_m(scene, source, name)
            tile = _ReadTile(href, scratch / f"tile{len(tiles)}.tif", radiometry, source.dtypes[0], gsd_m, rendered)
            if tiles:
                tile = _like(tiles[0], tile)
            with writing(path):
                write_rgb(
                    source,
                    window,
                    tile.radiometry,
                    tile.path,
                    _tags(dataclasses.replace(scene, rendered=rendered, gsd_m=gsd_m)),
                )
            tiles.append(tile)
    if not tiles and far:
        raise far
    return tiles


def _like(first: _ReadTile, tile: _ReadTile) -> _ReadTile:
    """Show a tile's pixels as the first's are shown, so that no seam is seen.

    :raises SceneError: its pixels are of another kind
    """
    kinds = [
        f"{one.dtype}, {'one band' if len(set(one.radiometry.bands)) == 1 else 'colour'}"
        f"{', palette' if one.radiometry.palette is not None else ''}"
        for one in (first, tile)
    ]
    if kinds[0] != kinds[1]:
        raise SceneError(
            f"{public_href(first.href)} and {public_href(tile.href)} are tiles of one acquisition, but their pixels "
            f"differ ({kinds[0]}; {kinds[1]}), so that they cannot become one image"
        )
    if first.radiometry.stretch is None:
        return tile
    stretch_from = first.radiometry.stretch_from
    shown = dataclasses.replace(tile.radiometry, stretch=first.radiometry.stretch, stretch_from=stretch_from)
    return dataclasses.replace(tile, radiometry=shown)


def _native_gsd_m(scene: Scene, source: DatasetReader, name: str) -> float:
    pixel_m = gsd_m(source)
    if pixel_m <= scene.gsd_m * (1 + _GSD_TOLERANCE):
        return scene.gsd_m
    log.warning(
        "%s: declared GSD %.3f m, but its pixels are %.3f m: taken as %.3f m", name, scene.gsd_m, *[pixel_m] * 2
    )
    return pixel_m


def write_rgb(
    source: DatasetReader,
    window: Window,
    radiometry: Radiometry,
    path: Path,
    tags: Mapping[str, str],
    skip_damaged: bool = False,
) -> list[Damage]:
    """Copy a window as uint8 red, green and blue with a mask, strip by strip, so that memory does not grow with it.

    :param skip_damaged: leave blocks that cannot be read without image, and return which
    :raises WindowError: a part of the source cannot be read
    :raises SourceError: the same of a remote one
    :raises RasterioError: the file cannot be written
    """
    damaged: list[Damage] = []
    width, height = int(window.width), int(window.height)
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 3,
        "dtype": "uint8",
        "photometric": "RGB",
        "crs": source.crs,
        "transform": source.window_transform(window),
        "tiled": True,
        "blockxsize": _BLOCK_PX,
        "blockysize": _BLOCK_PX,
        "BIGTIFF": "IF_SAFER",
    }
    # Local settings here: this file is on this machine, and its mask is inside it.
    with rasterio.open(path, "w", **profile) as target:
        target.update_tags(**tags)
        for part in _strips(width, height):
            try:
                _copy_part(source, window, radiometry, target, part)
            except WindowError:
                if not skip_damaged:
                    raise
                for block in _blocks(part):
                    try:
                        _copy_part(source, window, radiometry, target, block)
                    except WindowError as error:
                        place = (int(window.col_off + block.col_off), int(window.row_off + block.row_off))
                        damaged.append(Damage(*place, int(block.width), int(block.height), error))
    return damaged


def _copy_part(
    source: DatasetReader, window: Window, radiometry: Radiometry, target: DatasetWriter, part: Window
) -> None:
    """Copy a part of the window; its offsets count from the window's corner."""
    column, row = int(window.col_off + part.col_off), int(window.row_off + part.row_off)
    href = raster_name(source)
    try:
        rgb, valid = radiometry.read(source, Window(column, row, part.width, part.height))
        refuse_failed(source)
    except RasterioError as error:
        if is_url(href):
            raise unreadable(href, error) from error
        place = f"window of {part.width} x {part.height} px at column {column}, row {row}"
        raise WindowError(href, place, gdal_reason(error)) from error
    target.write(rgb, window=part)
    target.write_mask(valid, window=part)


def _blocks(part: Window) -> Iterator[Window]:
    for row in range(int(part.row_off), int(part.row_off + part.height), _BLOCK_PX):
        for column in range(int(part.col_off), int(part.col_off + part.width), _BLOCK_PX):
            width = min(_BLOCK_PX, int(part.col_off + part.width) - column)
            yield Window(column, row, width, min(_BLOCK_PX, int(part.row_off + part.height) - row))


def _tags(scene: Scene) -> dict[str, str]:
    tags = {LICENCE_TAG: scene.licence}
    # The tag holds a moment; of a range it would be a false one.
    if scene.earliest is None:
        tags["TIFFTAG_DATETIME"] = scene.acquired.strftime("%Y:%m:%d %H:%M:%S")
    if scene.attribution:
        tags["TIFFTAG_COPYRIGHT"] = scene.attribution
    if scene.rendered:
        tags |= {RENDERED_TAG: "YES", "TIFFTAG_IMAGEDESCRIPTION": "Rendered scene, not an observation"}
    return tags


def _strips(width: int, height: int) -> Iterator[Window]:
    """Cut into windows that share no block of the written file."""
    columns = max(_BLOCK_PX, _STRIP_PX // _BLOCK_PX // _BLOCK_PX * _BLOCK_PX)
    rows = max(_BLOCK_PX, _STRIP_PX // min(width, columns) // _BLOCK_PX * _BLOCK_PX)
    for row in range(0, height, rows):
        for col in range(0, width, columns):
            yield Window(col, row, min(columns, width - col), min(rows, height - row))


def _write_cog(plain: Path, cog: Path) -> None:
    rasterio.shutil.copy(
        plain,
        cog,
        driver="COG",
        # Lossless, and read by every GDAL and QGIS in use; ZSTD is missing from some builds.
        COMPRESS="DEFLATE",
        PREDICTOR="STANDARD",
        BLOCKSIZE=_BLOCK_PX,
        NUM_THREADS="ALL_CPUS",
        OVERVIEWS="IGNORE_EXISTING",
        OVERVIEW_RESAMPLING="AVERAGE",
        BIGTIFF="IF_SAFER",
    )


def _coverage(dataset: DatasetReader, area: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    scale = max(1.0, max(dataset.width, dataset.height) / _COVERAGE_PX)
    shape = (max(1, round(dataset.height / scale)), max(1, round(dataset.width / scale)))
    valid = dataset.read_masks(1, out_shape=shape) > 127
    if valid.all():
        return _polygons(footprint(dataset) & area)
    to_pixels = rasterio.Affine.scale(dataset.width / shape[1], dataset.height / shape[0])
    shapes = rasterio.features.shapes(valid.astype(np.uint8), mask=valid, transform=to_pixels)
    pixels = shapely.union_all([shapely.geometry.shape(geometry) for geometry, _ in shapes])
    pixels = shapely.segmentize(pixels, max(dataset.width, dataset.height) / 16)

    def convert(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return lonlat_from_pixels(dataset, xy)

    return _polygons(shapely.make_valid(shapely.transform(pixels, convert)) & area)


def _polygons(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """Drop the points and lines that an intersection leaves."""
    parts = [part for part in shapely.get_parts(geometry) if part.area]
    merged: Any = shapely.union_all(parts) if parts else shapely.Polygon()
    return shapely.orient_polygons(merged)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path`, on the same disk so that renaming is atomic; it is removed whatever happens.

    :raises SourceError: it cannot be made
    """
    scratch = path.parent / f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}"
    with writing(path):
        scratch.mkdir(parents=True)
        for abandoned in path.parent.glob(".*-*"):
            if abandoned.stat().st_mtime < time.time() - _ABANDONED_S:
                shutil.rmtree(abandoned, ignore_errors=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing to the cache into one sentence, a `SourceError`."""
    try:
        yield
    except (OSError, RasterioError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())
        raise SourceError(
            f"the cache cannot write {path} ({reason}); make room, or set OVERWATT_CACHE to another folder"
        ) from error
