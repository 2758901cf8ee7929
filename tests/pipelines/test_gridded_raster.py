"""A raster on the detector's lattice: its own pixels where they fit, one value a pixel whatever the window is."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from rasterio.windows import Window

from pipelines.gdal_env import gdal_env
from pipelines.grid import detection_grid, image_grid
from pipelines.gridded_raster import GriddedRaster
from pipelines.windows import Box

SIZE = (330, 270)
GSD_M = 0.3


def noise(bands: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (bands, SIZE[1], SIZE[0])).astype(np.uint8)


def write(
    path: Path, pixels: np.ndarray, transform: Affine, crs: str | None = "EPSG:32615", mask: object = None
) -> Path:
    profile = {"driver": "GTiff", "width": SIZE[0], "height": SIZE[1], "count": len(pixels), "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", crs=crs, transform=transform, tiled=True, blockxsize=64, blockysize=64, **profile
        ) as r,
    ):
        r.write(pixels)
        if mask is not None:
            r.write_mask(mask)
    return path


def at_gsd(gsd_m: float) -> Affine:
    return Affine(gsd_m, 0, 770_000, 0, -gsd_m, 3_877_000)


def gridded(path: Path) -> GriddedRaster:
    with rasterio.open(path) as dataset:
        return GriddedRaster(path, detection_grid(dataset, GSD_M))


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.2 m, so that the lattice's pixels are resampled."""
    return write(tmp_path_factory.mktemp("raster") / "fine.tif", noise(), at_gsd(0.2))


def test_pixels_that_fit_are_taken_as_they_are(tmp_path: Path) -> None:
    pixels = noise()
    with gridded(write(tmp_path / "a.tif", pixels, at_gsd(GSD_M))) as raster:
        read = raster.read(Box(40, 17, 200, 140))
    assert read.valid is None
    assert (read.rgb == pixels[:, 17:140, 40:200].transpose(1, 2, 0)).all()


def test_a_block_is_decoded_once_for_the_windows_that_share_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(), at_gsd(GSD_M))
    with gdal_env(), rasterio.open(path) as dataset:
        before = dataset.read(1)
        # From here on what is not remembered cannot be read.
        path.write_bytes(path.read_bytes()[:200])
        assert (dataset.read(1, window=Window(10, 10, 30, 30)) == before[10:40, 10:40]).all()


def test_other_bands_can_be_the_colours(tmp_path: Path) -> None:
    pixels = noise(4)
    path = write(tmp_path / "rgbn.tif", pixels, at_gsd(GSD_M))
    with rasterio.open(path) as dataset:
        grid = detection_grid(dataset, GSD_M)
    with GriddedRaster(path, grid, (4, 1, 2)) as raster:
        assert (raster.read(Box(0, 0, 50, 40)).rgb == pixels[[3, 0, 1], :40, :50].transpose(1, 2, 0)).all()


def test_beyond_the_edge_there_is_no_image(tmp_path: Path, fine: Path) -> None:
    same = write(tmp_path / "a.tif", noise(), at_gsd(GSD_M))
    for path in (same, fine):
        with gridded(path) as raster:
            width, height = raster.grid.width_px, raster.grid.height_px
            read = raster.read(Box(-8, -4, width + 6, height + 2))
        assert read.valid is not None
        inside = np.zeros((height + 6, width + 14), bool)
        inside[4 : 4 + height, 8 : 8 + width] = True
        assert (read.valid == inside).all()
        assert (read.rgb[~inside] == 0).all()


@pytest.mark.parametrize("seen", [1, 255])
def test_the_mask_is_what_counts(seen: int, tmp_path: Path) -> None:
    mask = np.full(SIZE[::-1], seen, np.uint8)
    mask[:100] = 0
    with gridded(write(tmp_path / "a.tif", noise(), at_gsd(GSD_M), mask=mask)) as raster:
        assert raster.read(Box(0, 0, 64, 100)).empty
        assert raster.read(Box(0, 100, 64, 200)).valid is None
        valid = raster.read(Box(0, 90, 64, 110)).valid
        assert valid is not None
        assert not valid[:10].any()
        assert valid[10:].all()


@settings(max_examples=25, deadline=None)
@given(x=st.integers(0, 150), y=st.integers(0, 120), width=st.integers(1, 70), height=st.integers(1, 60))
def test_a_pixel_has_one_value_whatever_the_window(fine: Path, x: int, y: int, width: int, height: int) -> None:
    with gridded(fine) as raster:
        whole = raster.read(Box(0, 0, raster.grid.width_px, raster.grid.height_px)).rgb
        part = raster.read(Box(x, y, x + width, y + height)).rgb
    assert (part == whole[y : y + height, x : x + width]).all()


def test_resampling_keeps_places(tmp_path: Path) -> None:
    """The centre of mass of a bright spot stays where it is, to a twentieth of a pixel."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    spot = 200 * np.exp(-((x - 151.3) ** 2 + (y - 120.6) ** 2) / (2 * 6**2))
    path = write(tmp_path / "spot.tif", np.stack([spot] * 3).astype(np.uint8), at_gsd(0.23))
    with gridded(path) as raster:
        read = raster.read(Box(0, 0, raster.grid.width_px, raster.grid.height_px)).rgb[..., 0].astype(float)
    rows, columns = np.mgrid[: read.shape[0], : read.shape[1]] + 0.5
    scale = 0.23 / GSD_M
    assert (columns * read).sum() / read.sum() == pytest.approx(151.3 * scale, abs=0.05)
    assert (rows * read).sum() / read.sum() == pytest.approx(120.6 * scale, abs=0.05)


def test_coarser_pixels_are_means_whatever_the_window(tmp_path: Path) -> None:
    pixels = noise()
    with gridded(write(tmp_path / "a.tif", pixels, at_gsd(GSD_M))).coarser(3) as raster:
        read = raster.read(Box(5, 7, 105, 90))
        expected = pixels.reshape(3, 90, 3, 110, 3).mean(axis=(2, 4)).transpose(1, 2, 0)
        assert np.abs(read.rgb - expected[7:90, 5:105]).max() <= 0.5
        assert (raster.read(Box(30, 40, 60, 70)).rgb == read.rgb[33:63, 25:55]).all()
        beyond = raster.read(Box(100, 80, 120, 100)).valid
    assert beyond is not None
    assert beyond[:10, :10].all()
    assert not beyond[10:].any()


def test_threads_read_the_same(fine: Path) -> None:
    with gridded(fine) as raster:
        boxes = [Box(x, y, x + 40, y + 30) for y in range(0, 150, 30) for x in range(0, 160, 40)]
        expected = [raster.read(box).rgb for box in boxes]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda box: raster.read(box).rgb, boxes * 3))
    assert all((a == b).all() for a, b in zip(found, expected * 3, strict=True))


def test_an_image_without_georeference_has_its_own_rows_and_columns(tmp_path: Path) -> None:
    pixels = noise()
    path = write(tmp_path / "plain.tif", pixels, Affine.identity(), crs=None)
    with GriddedRaster(path, image_grid(*SIZE, GSD_M, GSD_M)) as raster:
        assert (raster.read(Box(10, 20, 70, 60)).rgb == pixels[:, 20:60, 10:70].transpose(1, 2, 0)).all()
    with GriddedRaster(path, image_grid(*SIZE, 0.15, GSD_M)) as raster:
        read = raster.read(Box(0, 0, 165, 135))
        assert read.valid is None
        # halved: a smooth version of the picture, not a shifted one
        means = pixels.reshape(3, 135, 2, 165, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
        assert np.corrcoef(read.rgb.ravel(), means.ravel())[0, 1] > 0.9


def test_one_colour_is_seen(tmp_path: Path) -> None:
    pixels = noise()
    pixels[:, :64, :64] = np.array([9, 8, 7], np.uint8)[:, None, None]
    with gridded(write(tmp_path / "a.tif", pixels, at_gsd(GSD_M))) as raster:
        assert raster.read(Box(0, 0, 64, 64)).colour == (9, 8, 7)
        assert raster.read(Box(0, 0, 65, 64)).colour is None
        assert raster.read(Box(0, 0, 64, 65)).colour is None
        assert raster.read(Box(-1, 0, 63, 64)).colour is None
