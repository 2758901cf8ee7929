"""Tiles on disk: each asked for once, kept with its checksum, and put together to one image of exact georeference.

One SQLite file a scene and level. A tile is in it whole or not at all, so a fetch that was killed goes on where it was.
"""

import hashlib
import io
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio.windows import Window
from scipy import ndimage

from pipelines.errors import SourceError
from pipelines.gdal_env import gdal_env
from pipelines.scenes.cache import writing
from pipelines.scenes.tile_descriptor import NoImage
from pipelines.scenes.tile_grid import Level, TileRange
from pipelines.scenes.web import UnfitAnswerError, get_checked, refuse_status

__all__ = ["KeptTiles", "TileServer", "TileStore", "write_mosaic"]

log = logging.getLogger(__name__)

ASK_AGAIN_S = 86_400
"""Age at which a tile that was missing is asked for again: half a pyramid may be there today, and the rest tomorrow."""
_LARGEST_TILE = 16 << 20
_LOSSY_TOLERANCE = 4
"""How far lossy compression moves the value of an empty pixel."""
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Pictures of eight bits a band; elevation and other measurements come with more and are no picture."""


@dataclass(frozen=True)
class TileServer:
    """How tiles are asked for."""

    client: httpx.Client
    address: Callable[[int, int], str]
    """From column and row to the address of a tile."""
    missing_statuses: tuple[int, ...]
    concurrency: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class KeptTiles:
    """Which tiles of a range a store holds."""

    there: Mapping[tuple[int, int], str]
    """SHA-256 of the tile at (column, row)."""
    count: int
    """Tiles in the range."""

    @property
    def version(self) -> str:
        """What tells these tiles from others."""
        listed = "\n".join(f"{column} {row} {sha256}" for (column, row), sha256 in sorted(self.there.items()))
        return hashlib.sha256(listed.encode()).hexdigest()


@dataclass(frozen=True)
class _Answer:
    content: bytes | None
    etag: str


class TileStore:
    """The kept tiles of one scene and level."""

    def __init__(self, path: Path) -> None:
        """Use a file, which need not be there yet."""
        self.path = path

    def complete(self, tiles: TileRange, server: TileServer) -> KeptTiles:
        """Ask for the tiles that are not there, and say which are.

        :raises SourceError: the server cannot be reached, does not answer with images, or the disk is full
        """
        with self._open() as kept:
            return self._complete(kept, tiles, server)

    def read(self, column: int, row: int) -> bytes | None:
        """Return a tile, None where there is none or where it no longer has the checksum it came with."""
        with self._open() as kept:
            found = kept.execute(
                'SELECT content, sha256 FROM tiles WHERE "column" = ? AND "row" = ?', (column, row)
            ).fetchone()
            if found is None or found[0] is None:
                return None
            content = bytes(found[0])
            if hashlib.sha256(content).hexdigest() != found[1]:
                with kept:
                    kept.execute('DELETE FROM tiles WHERE "column" = ? AND "row" = ?', (column, row))
                raise SourceError(f"{self.path} is damaged at tile {column}/{row}; run again to have it fetched again")
            return content

    def _complete(self, kept: sqlite3.Connection, tiles: TileRange, server: TileServer) -> KeptTiles:
        there, absent = _kept(kept, tiles)
        wanted = [tile for tile in tiles if tile not in there and tile not in absent]
        if len(wanted) < tiles.count:
            log.info("%d of %d tiles are kept from before", tiles.count - len(wanted), tiles.count)
        todo = iter(wanted)
        with ThreadPoolExecutor(server.concurrency, thread_name_prefix="tiles") as pool:
            running: dict[Future[_Answer], tuple[int, int]] = {}
            try:
                while True:
                    # A few more than are asked for at once, so that no thread waits for the disk.
                    while len(running) < 2 * server.concurrency and (tile := next(todo, None)):
                        running[pool.submit(_ask, server, *tile)] = tile
                    if not running:
                        break
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    self._keep(kept, {running.pop(future): future for future in done})
            except BaseException:
                for future in running:
                    future.cancel()
                raise
        return KeptTiles(_kept(kept, tiles)[0], tiles.count)

    def _keep(self, kept: sqlite3.Connection, answers: Mapping[tuple[int, int], Future[_Answer]]) -> None:
        fault: SourceError | None = None
        rows = []
        for (column, row), future in answers.items():
            try:
                answer = future.result()
            except SourceError as error:
                fault = error
                continue
            sha256 = None if answer.content is None else hashlib.sha256(answer.content).hexdigest()
            rows.append((column, row, sha256, answer.etag, time.time(), answer.content))
        with kept:
            kept.executemany("INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?, ?, ?)", rows)
        if fault:
            raise fault

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as kept:
                kept.execute(
                    'CREATE TABLE IF NOT EXISTS tiles ("column" INTEGER, "row" INTEGER, sha256 TEXT, etag TEXT, '
                    'asked REAL, content BLOB, PRIMARY KEY ("column", "row"))'
                )
                yield kept
        except sqlite3.DatabaseError as error:
            remedy = "make room, or set OVERWATT_CACHE to another folder; if it is damaged, delete it"
            raise SourceError(f"the cache cannot use {self.path} ({error}); {remedy}") from error


def _kept(kept: sqlite3.Connection, tiles: TileRange) -> tuple[dict[tuple[int, int], str], set[tuple[int, int]]]:
    """Return the tiles that are there, and those that were missing a short while ago."""
    rows = kept.execute(
        'SELECT "column", "row", sha256, asked FROM tiles WHERE "column" BETWEEN ? AND ? AND "row" BETWEEN ? AND ?',
        (tiles.left, tiles.right, tiles.top, tiles.bottom),
    ).fetchall()
    there = {(column, row): sha256 for column, row, sha256, _ in rows if sha256}
    fresh = time.time() - ASK_AGAIN_S
    return there, {(column, row) for column, row, sha256, asked in rows if not sha256 and asked > fresh}


def _ask(server: TileServer, column: int, row: int) -> _Answer:
    def read(response: httpx.Response) -> _Answer:
        if response.status_code in server.missing_statuses:
            return _Answer(None, "")
        refuse_status(response)
        if not response.content:
            return _Answer(None, "")
        if len(response.content) > _LARGEST_TILE:
            raise UnfitAnswerError(f"a tile of {len(response.content) >> 20} MB is none")
        _picture(response.content, response.headers.get("Content-Type", ""), server)
        return _Answer(response.content, response.headers.get("ETag", ""))

    return get_checked(server.client, server.address(column, row), read)


def _picture(content: bytes, content_type: str, server: TileServer) -> None:
    """Refuse what is no whole picture of the right size."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            size, mode, kind = image.size, image.mode, image.format
            if size == (server.width_px, server.height_px) and mode in _MODES:
                image.load()
    except UnidentifiedImageError as error:
        said = content_type.partition(";")[0].strip() or "no content type"
        raise UnfitAnswerError(f"the server answers with no image ({said}, {len(content)} bytes)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnfitAnswerError(f"the server sends a damaged image ({error}, {len(content)} bytes)") from error
    if size != (server.width_px, server.height_px):
        raise SourceError(
            f"a tile is {size[0]} x {size[1]} pixels where {server.width_px} x {server.height_px} are expected: "
            "set 'tile_size' in the descriptor"
        )
    if mode not in _MODES:
        raise SourceError(f"a tile is a {kind} of mode {mode}, not a picture of 8 bits a band; ask for PNG or JPEG")


def decode(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return uint8 (3, H, W) red, green, blue of a tile and bool (H, W), True where there is image.

    Transparent pixels are none, nor is any of a tile of one colour: that is how servers say that they have nothing.
    """
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    rgb, valid = pixels[..., :3], pixels[..., 3] > 127
    seen = rgb[valid]
    if seen.size and (seen == seen[0]).all():
        valid = np.zeros_like(valid)
    return np.where(valid, np.moveaxis(rgb, -1, 0), 0).astype(np.uint8), valid


def write_mosaic(
    path: Path, level: Level, tiles: TileRange, store: TileStore, kept: KeptTiles, no_image: NoImage
) -> int:
    """Write a GeoTIFF of three bands with a mask from kept tiles, and return how many of them show something.

    A tile at the end of the imagery is often filled up with black or white: what hangs together with a tile that holds
    nothing is no image either.

    :raises SourceError: it cannot be written, or a tile was damaged since it was kept
    """
    width, height = level.tile_width_px, level.tile_height_px
    profile = {
        "driver": "GTiff",
        "width": tiles.columns * width,
        "height": tiles.rows * height,
        "count": 3,
        "dtype": "uint8",
        "photometric": "RGB",
        "crs": level.crs,
        "transform": level.transform(tiles.left, tiles.top),
        "compress": "DEFLATE",
        "zlevel": 1,
        "BIGTIFF": "IF_SAFER",
    }
    if width % 16 == 0 and height % 16 == 0:
        profile |= {"tiled": True, "blockxsize": width, "blockysize": height}

    def content_of(column: int, row: int) -> bytes | None:
        sha256 = kept.there.get((column, row))
        content = store.read(column, row) if sha256 and sha256 not in no_image.sha256 else None
        return None if content is None or len(content) in no_image.bytes else content

    def place(column: int, row: int) -> Window:
        return Window((column - tiles.left) * width, (row - tiles.top) * height, width, height)

    nothing = set()
    with writing(path), gdal_env(), rasterio.open(path, "w", **profile) as target:
        for column, row in tiles:
            valid = np.zeros((height, width), np.bool_)
            if content := content_of(column, row):
                rgb, valid = decode(content)
                target.write(rgb, window=place(column, row))
            if not valid.any():
                nothing.add((column, row))
            target.write_mask(valid, window=place(column, row))
        for (column, row), filled in _filled_up(tiles, nothing, content_of).items():
            target.write_mask(~filled, window=place(column, row))
    return tiles.count - len(nothing)


def _filled_up(
    tiles: TileRange, nothing: Collection[tuple[int, int]], content_of: Callable[[int, int], bytes | None]
) -> Mapping[tuple[int, int], NDArray[np.bool_]]:
    """Return, for opaque tiles beside tiles that hold nothing, where they are filled up: bool (H, W)."""
    filled: dict[tuple[int, int], NDArray[np.bool_]] = {}
    todo = deque(neighbour for tile in sorted(nothing) for neighbour in _beside(*tile))
    inside = set(tiles)
    while todo:
        tile = todo.popleft()
        if tile in nothing or tile not in inside or not (content := content_of(*tile)):
            continue
        rgb, valid = decode(content)
        if not valid.all():
            # It says itself where it holds nothing.
            continue
        tolerance = _LOSSY_TOLERANCE if content[:2] == b"\xff\xd8" or content[8:12] == b"WEBP" else 0
        found = np.zeros_like(valid)
        for alike in ((rgb <= tolerance).all(axis=0), (rgb >= 255 - tolerance).all(axis=0)):
            labels, _ = ndimage.label(alike)
            touched = [np.zeros(0, labels.dtype)]
            for neighbour, (near, far) in zip(_beside(*tile), _EDGES, strict=True):
                if neighbour in nothing:
                    touched.append(labels[near])
                elif neighbour in filled:
                    touched.append(labels[near][filled[neighbour][far]])
            found |= np.isin(labels, [label for label in np.unique(np.concatenate(touched)) if label])
        if found.any() and not (tile in filled and (filled[tile] == found).all()):
            filled[tile] = found
            todo.extend(_beside(*tile))
    return filled


def _beside(column: int, row: int) -> tuple[tuple[int, int], ...]:
    """Return the tiles west, east, north and south of one."""
    return (column - 1, row), (column + 1, row), (column, row - 1), (column, row + 1)


_EDGES: tuple[tuple[Any, Any], ...] = (
    (np.s_[:, 0], np.s_[:, -1]), (np.s_[:, -1], np.s_[:, 0]), (np.s_[0], np.s_[-1]), (np.s_[-1], np.s_[0]),
)  # fmt: skip
"""For each of them the edge of a tile, and the edge of the neighbour that it meets."""
