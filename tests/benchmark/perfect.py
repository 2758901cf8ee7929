"""A detector without error, for the engine: what it finds is painted into the image.

In come true places in pixels; out comes what the engine makes of them, window by window, from a GeoTIFF. Whatever the
result lacks, has twice or has moved is then the engine's doing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from models.detector.detector import GSD_M
from models.detector.network import LATTICE_PX, STRIDE, Area
from models.detector.peaks import Peaks
from pipelines.engine import Found, Layer, find
from pipelines.gdal_env import gdal_env
from pipelines.grid import Grid, detection_grid
from pipelines.gridded_raster import GriddedRaster
from pipelines.windows import plan_windows

CRS = "EPSG:32615"
CORNER = (770_000.0, 3_877_000.0)
_GROUND = (128, 128, 128)
_MARK = 255
"""Blue of a pixel that holds a centre; its red and green say where in the pixel."""
_STEPS = 250
"""Places told apart in a pixel, on each axis."""


def paint(path: Path, centres: npt.NDArray[np.float64], side_px: int) -> None:
    """Write a square GeoTIFF, plain but for the pixels that hold a centre; no two share one."""
    image = np.full((side_px, side_px, 3), _GROUND, np.uint8)
    steps = np.round(centres * _STEPS).astype(np.int64)
    (column, row), within = (steps // _STEPS).T, steps % _STEPS
    image[row, column] = np.column_stack([within, np.full(len(steps), _MARK)])
    profile = {"driver": "GTiff", "width": side_px, "height": side_px, "count": 3, "dtype": "uint8", "crs": CRS}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "photometric": "RGB"}
    transform = Affine(GSD_M, 0, CORNER[0], 0, -GSD_M, CORNER[1])
    with gdal_env(), rasterio.open(path, "w", transform=transform, **profile, **blocks) as target:
        target.write(image.transpose(2, 0, 1))


@dataclass(frozen=True)
class PerfectDetector:
    """What the engine needs of a `Detector`, with units of one size and heading."""

    length_px: float
    width_px: float
    heading_deg: float
    gsd_m: float = GSD_M
    stride: int = STRIDE
    lattice_px: int = LATTICE_PX
    halo_px: int = 6 * LATTICE_PX
    device: str = "cpu"
    most_px: int | None = None

    def detect(
        self, windows: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None, *, within: Area
    ) -> tuple[Peaks, npt.NDArray[np.float16]]:
        """A peak for each painted pixel in a part of the windows, and no lettering."""
        window, row, column = np.nonzero(windows[:, within.top : within.bottom, within.left : within.right, 2] == _MARK)
        row, column = row + within.top, column + within.left
        place = windows[window, row, column, :2] / _STEPS
        count = len(window)
        peaks = Peaks(
            window=window,
            x_px=column + place[:, 0],
            y_px=row + place[:, 1],
            length_px=np.full(count, self.length_px, np.float32),
            width_px=np.full(count, self.width_px, np.float32),
            heading_deg=np.full(count, self.heading_deg, np.float32),
            cls=np.zeros(count, np.int64),
            score=np.ones(count, np.float32),
            fans=np.ones(count, np.float32),
            cell_x=column // self.stride,
            cell_y=row // self.stride,
        )
        return peaks, np.zeros((len(windows), within.height // 4, within.width // 4), np.float16)

    def silent_on(self, colour: tuple[int, int, int]) -> bool:
        """Whether nothing is painted."""
        return colour[2] != _MARK


def found_in(path: Path, detector: PerfectDetector, window_px: int) -> tuple[Found, Grid]:
    """What the engine finds in a painted GeoTIFF with windows of a size, and the lattice of its pixels."""
    with rasterio.open(path) as dataset:
        grid = detection_grid(dataset, detector.gsd_m)
    plan = plan_windows(grid.width_px, grid.height_px, lattice_px=detector.lattice_px, window_px=window_px)
    with GriddedRaster(path, grid) as raster:
        return find([Layer(raster, plan)], [detector])[0], grid
