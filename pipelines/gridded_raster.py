"""A raster as the detector sees it: uint8 RGB and validity on one lattice, read by any number of threads.

Where the lattice is the raster's own, pixels are taken as they are; elsewhere GDAL warps them, in blocks that are
anchored at the scene. Either way a pixel has one value, whatever window it is read in.
"""

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from pipelines.errors import WindowError
from pipelines.gdal_env import gdal_env, is_url
from pipelines.grid import Grid
from pipelines.scenes.georeference import gdal_reason
from pipelines.scenes.remote import open_remote, refuse_failed
from pipelines.scenes.web import public_href
from pipelines.windows import Box

__all__ = ["GriddedRaster", "Pixels"]

_DRIFT_PX = 0.01
"""A raster whose pixels are this close to the lattice's at its far corner is not resampled."""
_ROWS = 128
"""Rows of a coarser window that are read at once."""
_NOWHERE = 'LOCAL_CS["image",UNIT["metre",1]]'
"""CRS of an image without georeference: GDAL warps within it, and knows no way out of it."""


@dataclass(frozen=True)
class Pixels:
    """A window's pixels."""

    rgb: npt.NDArray[np.uint8]
    """(h, w, 3)."""
    valid: npt.NDArray[np.bool_] | None
    """(h, w), False where there is no image; None where there is image everywhere."""

    @property
    def empty(self) -> bool:
        """Whether there is no image at all."""
        return self.valid is not None and not self.valid.any()

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """The colour of a window that has only one, everywhere."""
        first = self.rgb[0, 0]
        # Most windows differ in their first row.
        if self.valid is not None or (self.rgb[0] != first).any() or (self.rgb != first).any():
            return None
        red, green, blue = (int(value) for value in first)
        return red, green, blue


@dataclass(frozen=True)
class GriddedRaster:
    """A raster on a lattice; use it as a context manager, because it keeps one open file a thread.

    The raster has three uint8 bands for red, green and blue, and its dataset mask says where there is image.
    """

    href: str | Path
    grid: Grid
    bands: tuple[int, int, int] = (1, 2, 3)
    shrink: int = 1
    """Lattice pixels of `grid` that make one pixel, on each side."""
    _local: threading.local = field(default_factory=threading.local, repr=False)
    _opened: ExitStack = field(default_factory=ExitStack, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __enter__(self) -> "GriddedRaster":
        """Nothing is opened before it is read."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files of all threads, which must have ended; the calling one may read again."""
        self._opened.close()
        self._local.__dict__.clear()

    def __reduce__(self) -> tuple[type["GriddedRaster"], tuple[object, ...]]:
        """Another process opens the file for itself."""
        return GriddedRaster, (self.href, self.grid, self.bands, self.shrink)

    def coarser(self, factor: int) -> "GriddedRaster":
        """The same raster with pixels that are means of `factor` x `factor` of these, to be entered on its own."""
        return GriddedRaster(self.href, self.grid, self.bands, self.shrink * factor)

    def read(self, box: Box) -> Pixels:
        """Pixels of a window; it may reach beyond the lattice, where there is no image.

        :raises WindowError: the file or a block of it cannot be read
        :raises SourceError: its server does not send it
        """
        if self.shrink == 1:
            return self._read(box)
        # A few rows at a time: the fine pixels of a whole window would take nine times its memory.
        parts = [
            _shrunk(self._read(Box(box.x0, top, box.x1, min(top + _ROWS, box.y1)).scaled(self.shrink)), self.shrink)
            for top in range(box.y0, box.y1, _ROWS)
        ]
        rgb = np.concatenate([part.rgb for part in parts])
        if all(part.valid is None for part in parts):
            return Pixels(rgb, None)
        valid = [np.ones(part.rgb.shape[:2], np.bool_) if part.valid is None else part.valid for part in parts]
        return Pixels(rgb, np.concatenate(valid))

    def _read(self, box: Box) -> Pixels:
        try:
            with gdal_env(self.href):
                dataset, warped = self._handles()
                pixels = self._warped(warped, box) if warped is not None else self._straight(dataset, box)
                refuse_failed(dataset)
                return pixels
        except RasterioError as error:
            if dataset := getattr(self._local, "handles", (None, None))[0]:
                refuse_failed(dataset)
            x, y, width, height = self._in_source(box)
            window = f"window of {width} x {height} px at column {x}, row {y}"
            raise WindowError(public_href(str(self.href)), window, gdal_reason(error)) from error

    def in_source(self, box: Box) -> tuple[int, int, int, int]:
        """Column, row, width and height of a window in the raster's own pixels, as well as they can be told."""
        return self._in_source(box.scaled(self.shrink))

    def _in_source(self, box: Box) -> tuple[int, int, int, int]:
        box = box.clipped(Box(0, 0, self.grid.width_px, self.grid.height_px))
        dataset, warped = getattr(self._local, "handles", (None, None))
        if dataset is None or warped is None:
            return box.x0, box.y0, box.width, box.height
        corners = [(x, y) for x in (box.x0, box.x1) for y in (box.y0, box.y1)]
        places = self.grid.to_source(dataset, np.array(corners, float))
        left, top = np.maximum(np.floor(places.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(places.max(axis=0)), (dataset.width, dataset.height)).astype(int)
        return int(left), int(top), int(right - left), int(bottom - top)

    def _handles(self) -> tuple[DatasetReader, WarpedVRT | None]:
        if not hasattr(self._local, "handles"):
            with ExitStack() as stack:
                opened = open_remote(str(self.href)) if is_url(self.href) else rasterio.open(self.href)
                dataset = stack.enter_context(opened)
                warped = None if _same_lattice(dataset, self.grid) else self._warp(dataset)
                if warped is not None:
                    stack.enter_context(warped)
                kept = stack.pop_all()
            with self._lock:
                self._opened.push(kept)
            self._local.handles = dataset, warped
        handles: tuple[DatasetReader, WarpedVRT | None] = self._local.handles
        return handles

    def _warp(self, dataset: DatasetReader) -> WarpedVRT:
        grid = self.grid
        if grid.crs is None:
            source_m = grid.gsd_m / grid.transform.a
            place = {"src_crs": _NOWHERE, "src_transform": Affine(source_m, 0, 0, 0, -source_m, 0)}
            crs, transform = _NOWHERE, Affine(grid.gsd_m, 0, 0, 0, -grid.gsd_m, 0)
        else:
            place, crs, transform = {}, grid.crs.to_wkt(), grid.transform
        return WarpedVRT(
            dataset,
            crs=crs,
            transform=transform,
            width=grid.width_px,
            height=grid.height_px,
            resampling=Resampling.bilinear,
            add_alpha=True,
            # An approximated transformation depends on the window; zero itself is refused by the driver.
            tolerance=1e-4,
            **place,
        )

    def _straight(self, dataset: DatasetReader, box: Box) -> Pixels:
        inside = box.clipped(Box(0, 0, dataset.width, dataset.height))
        window = Window(inside.x0, inside.y0, inside.width, inside.height)
        planes = dataset.read(self.bands, window=window)
        everywhere = MaskFlags.all_valid in dataset.mask_flag_enums[self.bands[0] - 1]
        mask = None if everywhere else dataset.read_masks(self.bands[0], window=window)
        return _pixels(planes, None if mask is None else mask > 0, inside, box)

    def _warped(self, warped: WarpedVRT, box: Box) -> Pixels:
        inside = box.clipped(Box(0, 0, warped.width, warped.height))
        window = Window(inside.x0, inside.y0, inside.width, inside.height)
        planes = warped.read((*self.bands, warped.count), window=window)
        # Resampled from a mask of 0 and 255.
        return _pixels(planes[:3], planes[3] >= 128, inside, box)


def _same_lattice(dataset: DatasetReader, grid: Grid) -> bool:
    """Whether lattice pixel (x, y) is the raster's pixel (x, y), as far as anybody can tell."""
    if grid.crs is not None and dataset.crs != rasterio.CRS.from_user_input(grid.crs):
        return False
    size = (dataset.width, dataset.height)
    if size != (grid.width_px, grid.height_px):
        return False
    source = Affine.identity() if grid.crs is None else dataset.transform
    there = ~source @ grid.transform
    return all(
        abs(a - b) <= _DRIFT_PX
        for corner in ((0, 0), size, (size[0], 0), (0, size[1]))
        for a, b in zip(there @ corner, corner, strict=True)
    )


def _pixels(planes: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None, inside: Box, box: Box) -> Pixels:
    """Put the planes (3, h, w) that were read together and pad them to the window that was asked for."""
    rgb = cv2.merge(list(planes))
    if valid is not None and valid.all():
        valid = None
    if inside == box:
        return Pixels(rgb, valid)
    pad = (inside.y0 - box.y0, box.y1 - inside.y1), (inside.x0 - box.x0, box.x1 - inside.x1)
    if valid is None:
        valid = np.ones(rgb.shape[:2], np.bool_)
    return Pixels(np.pad(rgb, (*pad, (0, 0))), np.pad(valid, pad))


def _shrunk(pixels: Pixels, factor: int) -> Pixels:
    height, width = (side // factor for side in pixels.rgb.shape[:2])
    rgb = np.asarray(cv2.resize(pixels.rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if pixels.valid is None:
        return Pixels(rgb, None)
    valid: npt.NDArray[np.bool_] = np.all(pixels.valid.reshape(height, factor, width, factor), axis=(1, 3))
    return Pixels(rgb, valid)
