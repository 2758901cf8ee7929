"""Tiles of one acquisition become one image: pixels are copied where grids agree, and warped where they do not.

Tiles here are what `write_rgb` leaves: uint8 red, green and blue with a mask, on this machine. The first gives the
grid and lies on top; the others fill what it leaves open, in their order.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

__all__ = ["COPIED", "WARPED", "join_tiles"]

COPIED = "copied"
WARPED = "warped, bilinear"
"""How a tile's pixels came into the image; bilinear, because what is counted has edges and cubic rings beside them."""
_ALIGNED_PX = 0.01
"""Grids that agree to this share of a pixel over a whole tile are one grid, whose numbers were rounded."""
_EDGE_POINTS = 16
_BLOCK_PX = 512


@dataclass(frozen=True, eq=False)
class _Tile:
    source: DatasetReader | WarpedVRT
    column: int
    row: int
    """Where its top left pixel lies in the image."""
    alpha: bool

    def read(self, part: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[slice, slice]] | None:
        """Read what lies in a part of the image: pixels, which are valid, and their place in that part."""
        left, top = max(part.col_off, self.column), max(part.row_off, self.row)
        right = min(part.col_off + part.width, self.column + self.source.width)
        bottom = min(part.row_off + part.height, self.row + self.source.height)
        if left >= right or top >= bottom:
            return None
        own = Window(left - self.column, top - self.row, right - left, bottom - top)
        rgb = self.source.read([1, 2, 3], window=own)
        mask = self.source.read(4, window=own) if self.alpha else self.source.read_masks(1, window=own)
        place = (
            slice(top - part.row_off, bottom - part.row_off),
            slice(left - part.col_off, right - part.col_off),
        )
        return rgb, mask > 127, place


def join_tiles(tiles: Sequence[Path], target: Path, tags: Mapping[str, str]) -> list[str]:
    """Write one image of several tiles, block by block.

    :returns: for each tile `COPIED` or `WARPED`
    :raises RasterioError: the image cannot be written
    """
    with ExitStack() as stack:
        sources = [stack.enter_context(rasterio.open(tile)) for tile in tiles]
        first = sources[0]
        offsets = [_offset(first, source) for source in sources]
        boxes = [
            (*offset, offset[0] + source.width, offset[1] + source.height) if offset else _reach(first, source)
            for source, offset in zip(sources, offsets, strict=True)
        ]
        left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
        width, height = max(box[2] for box in boxes) - left, max(box[3] for box in boxes) - top
        transform = first.transform @ Affine.translation(left, top)
        placed = [
            _Tile(source, offset[0] - left, offset[1] - top, alpha=False)
            if offset
            else _Tile(_warped(stack, path, source, first, transform, (width, height)), 0, 0, alpha=True)
            for path, source, offset in zip(tiles, sources, offsets, strict=True)
        ]
        profile = first.profile | {"width": width, "height": height, "transform": transform}
        with rasterio.open(target, "w", **profile) as image:
            image.update_tags(**tags)
            for part in _blocks(width, height):
                rgb = np.zeros((3, part.height, part.width), np.uint8)
                valid = np.zeros((part.height, part.width), np.bool_)
                for tile in placed:
                    if (found := tile.read(part)) is None:
                        continue
                    pixels, shown, place = found
                    fresh = shown & ~valid[place]
                    rgb[:, place[0], place[1]][:, fresh] = pixels[:, fresh]
                    valid[place] |= fresh
                image.write(rgb, window=part)
                image.write_mask(valid, window=part)
    return [COPIED if offset else WARPED for offset in offsets]


def _offset(first: DatasetReader, other: DatasetReader) -> tuple[int, int] | None:
    """Return column and row of a tile's corner in the first's grid; None where that is not its grid."""
    if first.crs != other.crs:
        return None
    corners = np.array([(0, 0), (other.width, 0), (0, other.height), (other.width, other.height)], float)
    columns, rows = ~first.transform @ (other.transform @ tuple(corners.T))
    column, row = round(columns[0]), round(rows[0])
    off = max(np.abs(columns - column - corners[:, 0]).max(), np.abs(rows - row - corners[:, 1]).max())
    return (column, row) if off <= _ALIGNED_PX else None


def _reach(first: DatasetReader, other: DatasetReader) -> tuple[int, int, int, int]:
    """Return the box around a tile in the first's grid: left, top, right, bottom, in whole pixels."""
    edge = np.linspace(0, 1, _EDGE_POINTS + 1)
    ends = [np.zeros_like(edge), np.ones_like(edge)]
    columns = np.concatenate([edge, edge, *ends]) * other.width
    rows = np.concatenate([*ends, edge, edge]) * other.height
    x, y = other.transform @ (columns, rows)
    x, y = rasterio.warp.transform(other.crs, first.crs, x, y)
    columns, rows = ~first.transform @ (np.array(x), np.array(y))
    return math.floor(columns.min()), math.floor(rows.min()), math.ceil(columns.max()), math.ceil(rows.max())


def _warped(
    stack: ExitStack,
    path: Path,
    source: DatasetReader,
    first: DatasetReader,
    transform: Affine,
    size: tuple[int, int],
) -> WarpedVRT:
    """Show a tile in the image's grid; its mask goes along as alpha, so that no empty pixel bleeds into its edge."""
    with_alpha = path.with_name(f"{path.stem}-alpha.tif")
    profile = source.profile | {"count": 4, "photometric": "RGB", "alpha": "UNSPECIFIED"}
    with rasterio.open(with_alpha, "w", **profile) as copy:
        copy.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        for part in _blocks(source.width, source.height):
            copy.write(source.read([1, 2, 3], window=part), [1, 2, 3], window=part)
            copy.write(source.read_masks(1, window=part), 4, window=part)
    opened = stack.enter_context(rasterio.open(with_alpha))
    return stack.enter_context(
        WarpedVRT(
            opened,
            crs=first.crs,
            transform=transform,
            width=size[0],
            height=size[1],
            resampling=Resampling.bilinear,
            # The approximation of GDAL's default may be an eighth of a pixel off.
            tolerance=0.01,
        )
    )


def _blocks(width: int, height: int) -> Iterator[Window]:
    for row in range(0, height, _BLOCK_PX):
        for column in range(0, width, 4 * _BLOCK_PX):
            yield Window(column, row, min(4 * _BLOCK_PX, width - column), min(_BLOCK_PX, height - row))
