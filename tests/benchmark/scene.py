"""The benchmark's scene: a COG of rendered ground with equipment, the same bytes on every machine."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import Affine
from rasterio.windows import Window

from models.rendering.canvas import Canvas
from models.rendering.chips import CELL_M, render_chip
from models.rendering.confusers import litter
from models.rendering.layouts import ground
from models.rendering.sensor import draw_sensor, photograph, resampled
from pipelines.gdal_env import gdal_env
from pipelines.scenes.cache import RENDERED_TAG

GSD_M = 0.3
CRS = "EPSG:32615"
CORNER = (770_000.0, 3_877_000.0)
_CHIP_PX = 512
_CHIPS = 24
_GROUNDS_A_CHIP = 7


def write_scene(path: Path, side_px: int) -> None:
    """Write a deflated COG of `side_px` x `side_px` pixels of 0.3 m, made of rendered chips, turned and mirrored.

    A chip in eight is packed with equipment and lettering, which is still far more than any county holds; the others
    are ground with litter. Memory is one row of chips; the chips repeat, which no network notices.
    """
    rng = np.random.default_rng(0)
    chips = [render_chip(900_000_000 + seed, _CHIP_PX, "validation").image for seed in range(_CHIPS)]
    chips += [_bare_ground(seed) for seed in range(_CHIPS)] * _GROUNDS_A_CHIP
    plain = path.with_suffix(".plain.tif")
    profile = {
        "driver": "GTiff",
        "width": side_px,
        "height": side_px,
        "count": 3,
        "dtype": "uint8",
        "photometric": "RGB",
        "crs": CRS,
        "transform": Affine(GSD_M, 0, CORNER[0], 0, -GSD_M, CORNER[1]),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "BIGTIFF": "IF_SAFER",
    }
    with gdal_env(), rasterio.open(plain, "w", **profile) as target:
        target.update_tags(**{RENDERED_TAG: "YES"})
        for top in range(0, side_px, _CHIP_PX):
            height = min(_CHIP_PX, side_px - top)
            row = np.concatenate([_turned(rng, chips) for _ in range(0, side_px, _CHIP_PX)], axis=1)
            row = np.ascontiguousarray(row[:height, :side_px].transpose(2, 0, 1))
            target.write(row, window=Window(0, top, side_px, height))
    with gdal_env():
        rasterio.shutil.copy(
            plain, path, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=512, NUM_THREADS="ALL_CPUS", BIGTIFF="IF_SAFER"
        )
    plain.unlink()


def _bare_ground(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    side = round(_CHIP_PX * GSD_M / CELL_M)
    canvas = Canvas(side, side, CELL_M)
    ground(canvas, rng, float(rng.uniform(0, 180)))
    litter(canvas, rng)
    return resampled(photograph(canvas, draw_sensor(rng, True), rng), (_CHIP_PX, _CHIP_PX))


def _turned(rng: np.random.Generator, chips: list[np.ndarray]) -> np.ndarray:
    chip = chips[int(rng.integers(len(chips)))]
    chip = chip[:, ::-1] if rng.integers(2) else chip
    return np.rot90(chip, int(rng.integers(4)))
