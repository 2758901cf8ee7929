"""From a raster's own pixel values to uint8 red, green, blue and a mask: decided once per scene, never per window.

Which bands are shown, how values are stretched and which pixels hold nothing is read from what the raster and its STAC
item declare; what nobody declares is derived from one decimated look at the whole scene, logged, and recorded in the
cached item. The same pixel then comes out the same in every window.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window
from scipy import ndimage

from pipelines.errors import SceneError
from pipelines.scenes.types import RasterDeclaration

__all__ = ["Radiometry", "radiometry_of"]

log = logging.getLogger(__name__)

STRETCH_PERCENTILES = (0.5, 99.5)
"""Share of dark and of bright pixels that a stretch gives up; the usual choice for display of 11-bit imagery."""
THUMBNAIL_PX = 512
"""Longer side of the decimated look: 262,144 pixels fix a 0.5 percentile to about 0.01%."""
DECODE_AT_MOST_PX = 64_000_000
"""Without overviews a decimated look decodes the whole raster; past this size it samples small windows instead."""
_SAMPLES, _SAMPLE_PX = 8, 64
ALPHA_IS_MASK_SHARE = 0.95
"""An alpha band is a mask if this share of it is fully transparent or opaque; averaged overviews blur only its edges.

NAIP files carry infrared in a fourth band that GDAL calls alpha: its values are spread over the whole range.
"""
_COLLAR_SHARE = {0: 0.01, 255: 0.05}
"""Least share of the image for a connected area of pure black or white at the border to be taken for no image.

White needs more, because a bright roof cut by the border can saturate.
"""
_LOSSY_TOLERANCE = 4
"""How far lossy compression moves the value of an empty pixel."""
_PALETTE_SIZE = {"uint8": 256, "uint16": 65536}


@dataclass(frozen=True, eq=False)
class _Collar:
    value: int
    tolerance: int
    where: NDArray[np.bool_]
    """Coarse picture of the whole image: True where the collar may be."""
    share: float


@dataclass(frozen=True, eq=False)
class Radiometry:
    """How the pixels of one raster become uint8 RGB and a mask."""

    bands: tuple[int, int, int]
    """Band numbers, counted from 1, shown as red, green and blue."""
    bands_from: str
    """Why these bands."""
    stretch: tuple[tuple[float, float], ...] | None
    """For each of red, green and blue the value that becomes 0 and the one that becomes 255; None: values are kept."""
    stretch_from: str
    """Where the stretch comes from."""
    palette: NDArray[np.uint8] | None
    """(entries, 4) red, green, blue and alpha of a paletted image."""
    nodata: float | None
    alpha_band: int | None
    has_mask_band: bool
    collar: _Collar | None

    @property
    def mask_from(self) -> str:
        """What decides which pixels are valid."""
        parts = []
        if self.alpha_band:
            parts.append(f"alpha band {self.alpha_band}")
        if self.has_mask_band:
            parts.append("mask band")
        if self.nodata is not None:
            parts.append(f"nodata {self.nodata:g}")
        if self.collar:
            parts.append(f"unmarked collar of value {self.collar.value}, {self.collar.share:.0%} of the image")
        return ", ".join(parts) or "every pixel"

    def read(self, dataset: DatasetReader, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a window: uint8 (3, H, W) RGB, 0 where not valid, and bool (H, W), True where valid."""
        raw = dataset.read(_once(self.bands), window=window)
        alpha = dataset.read(self.alpha_band, window=window) if self.alpha_band else None
        mask = dataset.read_masks(self.bands[0], window=window) if self.has_mask_band else None
        collar = None
        if self.collar:
            coarse = self.collar.where
            rows = (np.arange(window.height) + int(window.row_off)) * coarse.shape[0] // dataset.height
            cols = (np.arange(window.width) + int(window.col_off)) * coarse.shape[1] // dataset.width
            collar = coarse[np.ix_(rows, cols)]
        valid = self.valid(raw, alpha, mask, collar)
        if self.palette is not None:
            planes = list(np.moveaxis(self.palette[raw[0]][..., :3], -1, 0))
        else:
            planes = [_to_uint8(plane, pair) for plane, pair in zip(raw, self.stretch or (None,) * 3, strict=False)]
        rgb = np.stack(planes * 3 if len(planes) == 1 else planes)
        rgb[:, ~valid] = 0
        return rgb, valid

    def valid(
        self,
        raw: NDArray[Any],
        alpha: NDArray[Any] | None,
        mask: NDArray[np.uint8] | None,
        collar: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        """Combine all that is said of pixels `raw` (bands, H, W) into one mask; an unmarked collar by its values."""
        valid = np.isfinite(raw).all(axis=0) if raw.dtype.kind == "f" else np.ones(raw.shape[1:], np.bool_)
        if alpha is not None:
            valid &= alpha > _full(alpha) / 2
        if mask is not None:
            valid &= mask > 0
        if self.palette is not None:
            valid &= self.palette[raw[0], 3] > 0
        if self.nodata is not None:
            # Black in one band is a colour; in all of them it is nothing.
            valid &= ~_equals(raw, self.nodata)
        if self.collar and collar is not None:
            valid &= ~(_near(raw, self.collar.value, self.collar.tolerance) & collar)
        return valid


def radiometry_of(dataset: DatasetReader, declared: RasterDeclaration, name: str) -> Radiometry:
    """Decide how a raster is shown, from its declarations and one decimated look at the whole of it.

    :param name: what messages call the raster
    :raises SceneError: it has two colour bands, or no valid pixel
    """
    look = _Look(dataset)
    alpha_band = _alpha_mask(dataset, look, name)
    bands, bands_from = _choose_bands(dataset, declared, alpha_band, name)
    palette = _palette(dataset, bands)
    nodata = dataset.nodatavals[bands[0] - 1]
    if nodata is None:
        nodata = declared.nodata
    flags = dataset.mask_flag_enums[bands[0] - 1]
    has_mask_band = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    raw = look.read(_once(bands))
    collar = None
    if not (alpha_band or has_mask_band or nodata is not None or palette is not None):
        collar = _find_collar(dataset, look, raw)
    partial = Radiometry(bands, bands_from, None, "kept", palette, nodata, alpha_band, has_mask_band, collar)
    valid = look.valid(partial, raw)
    if not valid.any():
        raise SceneError(f"{name} holds no valid pixel ({partial.mask_from}); nothing in it can be counted")
    stretch, stretch_from = None, "values kept (uint8)"
    if palette is not None:
        stretch_from = "colours of the palette"
    elif raw.dtype != np.uint8:
        stretch, stretch_from = _stretch(declared, raw, valid)
    log.info("%s: bands %s (%s); %s; valid: %s", name, bands, bands_from, stretch_from, partial.mask_from)
    if collar:
        log.warning("%s marks no empty pixels but has an %s: not counted as covered", name, partial.mask_from)
    return Radiometry(bands, bands_from, stretch, stretch_from, palette, nodata, alpha_band, has_mask_band, collar)


class _Look:
    """One decimated look at a whole raster: a thumbnail, or small windows side by side where that would cost more."""

    def __init__(self, dataset: DatasetReader) -> None:
        self.dataset = dataset
        width, height = dataset.width, dataset.height
        # The bands of an image without overviews must be decoded whole to be decimated.
        cheap = dataset.overviews(1) or width * height <= DECODE_AT_MOST_PX
        scale = max(width, height) / THUMBNAIL_PX
        self.is_picture = bool(cheap)
        self.shape = (max(1, int(height / max(1, scale))), max(1, int(width / max(1, scale))))
        side_x, side_y = min(_SAMPLE_PX, width), min(_SAMPLE_PX, height)
        cols = np.linspace(0, width - side_x, _SAMPLES).astype(int)
        rows = np.linspace(0, height - side_y, _SAMPLES).astype(int)
        self.windows = [Window(col, row, side_x, side_y) for row in rows for col in cols]

    def read(self, bands: list[int]) -> NDArray[Any]:
        """(bands, h, w) in the raster's own values."""
        if self.is_picture:
            try:
                return self.dataset.read(bands, out_shape=(len(bands), *self.shape))
            except RasterioError:
                # A damaged block is for whoever reads its window: the look is content with what can be read.
                self.is_picture = False
                self.windows = [window for window in self.windows if self._can_read(bands, window)]
                if not self.windows:
                    raise
        return np.concatenate([self.dataset.read(bands, window=window) for window in self.windows], axis=1)

    def _can_read(self, bands: list[int], window: Window) -> bool:
        try:
            self.dataset.read(bands, window=window)
        except RasterioError:
            return False
        return True

    def valid(self, radiometry: Radiometry, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Bool (h, w) beside what `read` returned."""
        if not self.is_picture:
            return np.concatenate([radiometry.read(self.dataset, window)[1] for window in self.windows])
        alpha = self.read([radiometry.alpha_band])[0] if radiometry.alpha_band else None
        mask = None
        if radiometry.has_mask_band:
            mask = self.dataset.read_masks(radiometry.bands[0], out_shape=self.shape)
        return radiometry.valid(raw, alpha, mask, radiometry.collar.where if radiometry.collar else None)


def _choose_bands(
    dataset: DatasetReader, declared: RasterDeclaration, alpha_band: int | None, name: str
) -> tuple[tuple[int, int, int], str]:
    colour_bands = [i for i in dataset.indexes if i != alpha_band]
    if len(colour_bands) == 2:
        raise SceneError(
            f"{name} has two bands, which is neither grey nor colour; give an image with one band or with red, green "
            "and blue"
        )
    if len(colour_bands) == 1:
        only = colour_bands[0]
        return (only, only, only), "its only band, as grey"
    if declared.rgb_bands:
        if max(declared.rgb_bands) > dataset.count:
            raise SceneError(f"{name} has {dataset.count} bands, but its STAC item declares {declared.rgb_bands}")
        return declared.rgb_bands, "STAC item"
    for naming, names in (
        ("colour interpretation", [colour.name for colour in dataset.colorinterp]),
        ("band descriptions", [(text or "").strip().lower() for text in dataset.descriptions]),
    ):
        if {"red", "green", "blue"} <= set(names):
            red, green, blue = (names.index(colour) + 1 for colour in ("red", "green", "blue"))
            return (red, green, blue), naming
    log.warning("%s: nothing says which bands are red, green and blue; the first three are taken", name)
    red, green, blue = colour_bands[:3]
    return (red, green, blue), "first three, unnamed"


def _alpha_mask(dataset: DatasetReader, look: _Look, name: str) -> int | None:
    if ColorInterp.alpha not in dataset.colorinterp:
        return None
    band = dataset.colorinterp.index(ColorInterp.alpha) + 1
    alpha = look.read([band])[0]
    share = float(np.isin(alpha, (0, _full(alpha))).mean())
    if share >= ALPHA_IS_MASK_SHARE:
        return band
    log.info("%s: band %d is tagged alpha but holds an image (infrared?); it is not used", name, band)
    return None


def _palette(dataset: DatasetReader, bands: tuple[int, int, int]) -> NDArray[np.uint8] | None:
    if dataset.colorinterp[bands[0] - 1] != ColorInterp.palette or dataset.dtypes[bands[0] - 1] not in _PALETTE_SIZE:
        return None
    colours = np.zeros((_PALETTE_SIZE[dataset.dtypes[bands[0] - 1]], 4), np.uint8)
    for index, colour in dataset.colormap(bands[0]).items():
        colours[index] = colour
    return colours


def _stretch(
    declared: RasterDeclaration, raw: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[tuple[tuple[float, float], ...], str]:
    if declared.stretch:
        return declared.stretch * 3 if len(declared.stretch) == 1 else declared.stretch, "stretch of the STAC item"
    pairs = []
    for plane in raw:
        low, high = np.percentile(plane[valid].astype(np.float64), STRETCH_PERCENTILES)
        # A scene of one value has no contrast to keep; any positive width will do.
        pairs.append((float(low), float(high) if high > low else float(low) + 1.0))
    low_percent, high_percent = STRETCH_PERCENTILES
    return tuple(pairs * 3 if len(pairs) == 1 else pairs), f"scene percentiles {low_percent} and {high_percent}"


def _find_collar(dataset: DatasetReader, look: _Look, raw: NDArray[Any]) -> _Collar | None:
    """Find the black or white wedges that a mosaic leaves around its image when nobody declared nodata."""
    if not look.is_picture or raw.dtype.kind not in "ui":
        return None
    compression = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "") + dataset.driver
    lossy = any(word in compression for word in ("JPEG", "JP2", "WEBP", "JXL", "LERC"))
    tolerance = _LOSSY_TOLERANCE if lossy and raw.dtype == np.uint8 else 0
    for value, least in _COLLAR_SHARE.items():
        if value and raw.dtype != np.uint8:
            continue
        labels, _ = ndimage.label(_near(raw, value, tolerance))
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        sizes = np.bincount(labels.ravel())
        large = [label for label in np.unique(border[border > 0]) if sizes[label] >= least * labels.size]
        if large:
            where = np.isin(labels, large)
            # One coarse cell more, so that the collar's ragged rim is looked at pixel by pixel.
            return _Collar(value, tolerance, ndimage.binary_dilation(where, np.ones((3, 3))), float(where.mean()))
    return None


def _once(bands: tuple[int, int, int]) -> list[int]:
    return [bands[0]] if len(set(bands)) == 1 else list(bands)


def _full(alpha: NDArray[Any]) -> float:
    return 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)


def _equals(raw: NDArray[Any], value: float) -> NDArray[np.bool_]:
    if math.isnan(value):
        return np.isnan(raw).all(axis=0) if raw.dtype.kind == "f" else np.zeros(raw.shape[1:], np.bool_)
    if raw.dtype.kind == "f":
        # The value is written in the file's own precision: -3.4e38 is not exactly a float64.
        return (raw == raw.dtype.type(value)).all(axis=0)
    return (raw == value).all(axis=0)


def _near(raw: NDArray[Any], value: int, tolerance: int) -> NDArray[np.bool_]:
    return np.logical_and.reduce((raw >= value - tolerance) & (raw <= value + tolerance), axis=0)


def _to_uint8(plane: NDArray[Any], pair: tuple[float, float] | None) -> NDArray[np.uint8]:
    if pair is None:
        return np.asarray(plane, np.uint8)
    low, high = pair
    scaled = (plane.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8)
