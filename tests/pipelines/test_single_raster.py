"""One raster by itself: which is read where it lies, which is copied first, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import Affine
from shapely.geometry import box

from pipelines.errors import SceneError, SourceError, WindowError
from pipelines.single_raster import open_single
from pipelines.windows import Box
from tests.pipelines.conftest import FileServer

SIZE = (120, 90)
WEST, NORTH = 770_000.0, 3_877_000.0


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    profile = {
        "driver": "GTiff",
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "count": pixels.shape[0],
        "dtype": pixels.dtype,
        "crs": "EPSG:32615",
        "transform": Affine(0.3, 0, WEST, 0, -0.3, NORTH),
    }
    tags = options.pop("tags", {})
    with rasterio.open(path, "w", **(profile | options)) as raster:
        raster.write(pixels)
        raster.update_tags(**tags)
    return path


def noise(count: int = 3, dtype: str = "uint8", high: int = 250) -> np.ndarray:
    return np.random.default_rng(4).integers(1, high, (count, SIZE[1], SIZE[0])).astype(dtype)


def test_eight_bit_rgb_is_read_where_it_lies(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(), tags={"OVERWATT_RENDERED": "YES", "OVERWATT_LICENCE": "CC0-1.0"})
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache") as raster:
        assert raster.gridded.href == path
        assert raster.name == "a.tif"
        assert raster.georeferenced
        assert raster.rendered
        assert raster.licence == "CC0-1.0"
        assert raster.native_gsd_m == pytest.approx(0.3, rel=1e-3)
    assert not (tmp_path / "cache").exists()


def test_sixteen_bit_is_stretched_once_for_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "deep.tif", noise(3, "uint16", 2000))
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache") as raster:
        assert raster.gridded.href != path
        with raster.gridded as gridded:
            rgb = gridded.read(Box(0, 0, *SIZE)).rgb
        assert rgb.min() == 0
        assert rgb.max() == 255
        assert "percentiles" in raster.pixels_from
    assert list((tmp_path / "cache").rglob("*.tif")) == []


def test_pixels_that_are_nan_are_no_image(tmp_path: Path) -> None:
    pixels = noise().astype("float32")
    pixels[:, 10:30, 20:50] = np.nan
    path = write(tmp_path / "nan.tif", pixels)
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache") as raster, raster.gridded as gridded:
        valid = gridded.read(Box(0, 0, *SIZE)).valid
    assert valid is not None
    assert not valid[10:30, 20:50].any()
    assert valid.sum() == SIZE[0] * SIZE[1] - 20 * 30


def test_nodata_in_one_band_is_a_colour(tmp_path: Path) -> None:
    pixels = noise()
    pixels[0, 5, 5] = 0
    pixels[:, 7, 7] = 0
    path = write(tmp_path / "nodata.tif", pixels, nodata=0)
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache") as raster, raster.gridded as gridded:
        valid = gridded.read(Box(0, 0, *SIZE)).valid
    assert valid is not None
    assert valid[5, 5]
    assert not valid[7, 7]


def test_a_copy_of_a_part_keeps_the_lattice(tmp_path: Path) -> None:
    """The lattice is anchored at the image, so that an area does not move what is found in it."""
    path = write(tmp_path / "deep.tif", noise(3, "uint16", 2000))
    to_lonlat = Transformer.from_crs("EPSG:32615", "OGC:CRS84", always_xy=True).transform
    area = shapely.transform(box(WEST + 12, NORTH - 20, WEST + 20, NORTH - 12), to_lonlat, interleaved=False)
    part = Box(45, 45, 60, 60)
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache") as raster, raster.gridded as gridded:
        whole, grid = gridded.read(part).rgb, gridded.grid
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache", area=area) as raster:
        assert raster.gridded.grid == grid
        assert raster.coverage.area == pytest.approx(area.area, rel=1e-6)
        with raster.gridded as gridded:
            assert (gridded.read(part).rgb == whole).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_damage_is_for_whoever_reads_the_window(dtype: str, tmp_path: Path) -> None:
    side = 1100
    # Noise would be stored as it is, and zeros in it would decode.
    pixels = (np.random.default_rng(8).integers(1, 8, (3, side, side)) * 30).astype(dtype)
    profile = {
        "width": side,
        "height": side,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
    }
    path = write(tmp_path / "damaged.tif", pixels, **profile)
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        block = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    content[block + 2 : block + 500] = b"\xff" * 498
    path.write_bytes(content)
    whole = Box(0, 0, side, side)
    with (
        pytest.raises(WindowError, match=r"damaged\.tif cannot be read in the window of"),
        open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache") as raster,
        raster.gridded as gridded,
    ):
        gridded.read(whole)
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path / "cache", skip_damaged=True) as raster:
        if dtype == "uint8":
            assert raster.damaged == ()
            return
        # copied as far as it can be read
        [damage] = raster.damaged
        with raster.gridded as gridded:
            valid = gridded.read(whole).valid
    assert valid is not None
    hole = np.zeros((side, side), bool)
    hole[damage.row : damage.row + damage.height, damage.column : damage.column + damage.width] = True
    assert (valid == ~hole).all()


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(), crs="EPSG:4326")
    with pytest.raises(SceneError, match=r"a\.tif lies where its CRS EPSG:4326 has no longitude and latitude"):
        open_single(path, detector_gsd_m=0.3, cache=tmp_path).__enter__()


def test_an_area_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise())
    with (
        pytest.raises(SceneError, match=r"a\.tif does not show the area asked for.*km away"),
        open_single(path, detector_gsd_m=0.3, cache=tmp_path, area=box(10, 50, 10.1, 50.1)),
    ):
        pass


def test_an_area_that_only_touches_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(), crs="EPSG:4326", transform=Affine(2**-19, 0, -90, 0, -(2**-19), 35))
    with (
        pytest.raises(SceneError, match=r"a\.tif does not show the area asked for"),
        open_single(path, detector_gsd_m=0.3, cache=tmp_path, area=box(-90.1, 34.9, -90, 35)),
    ):
        pass


def test_of_a_remote_raster_only_the_windows_are_fetched(tmp_path: Path, server: FileServer) -> None:
    side = 1024
    pixels = np.random.default_rng(6).integers(0, 255, (3, side, side)).astype(np.uint8)
    profile = {
        "width": side,
        "height": side,
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "compress": "deflate",
    }
    path = write(tmp_path / "remote.tif", pixels, **profile)
    part = Box(300, 200, 420, 330)
    with open_single(f"{server.url}/remote.tif", detector_gsd_m=0.3, cache=tmp_path / "cache") as raster:
        opened = server.sent["/remote.tif"]
        with raster.gridded as gridded:
            assert (gridded.read(part).rgb == pixels[:, 200:330, 300:420].transpose(1, 2, 0)).all()
        assert raster.name == f"{server.url}/remote.tif"
    # 2 x 2 blocks of 8 x 8, and what GDAL takes more than it needs
    assert server.sent["/remote.tif"] - opened < 0.15 * path.stat().st_size


def test_a_server_that_goes_away_is_named(tmp_path: Path, server: FileServer) -> None:
    write(tmp_path / "remote.tif", noise())
    with (
        open_single(f"{server.url}/remote.tif", detector_gsd_m=0.3, cache=tmp_path / "cache") as raster,
        raster.gridded as gridded,
    ):
        (tmp_path / "remote.tif").unlink()
        with pytest.raises(SourceError, match=r"/remote\.tif: the server answers 404 Not Found"):
            gridded.read(Box(0, 0, *SIZE))


def test_pixels_of_an_image_without_georeference(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.png", noise(), driver="PNG", crs=None, transform=Affine.identity())
    with pytest.raises(SceneError, match=r"plain\.png has no georeference: give its pixel size with --gsd METRES"):
        open_single(path, detector_gsd_m=0.3, cache=tmp_path).__enter__()
    with open_single(path, detector_gsd_m=0.3, cache=tmp_path, image_gsd_m=0.15) as raster:
        assert not raster.georeferenced
        assert raster.native_gsd_m == 0.15
        assert (raster.gridded.grid.width_px, raster.gridded.grid.height_px) == (60, 45)
    with pytest.raises(SceneError, match=r"no area of it can be chosen"):
        open_single(path, detector_gsd_m=0.3, cache=tmp_path, image_gsd_m=0.15, area=box(0, 0, 1, 1)).__enter__()


@pytest.mark.parametrize(
    ("gsd_m", "fault"),
    [
        (0.15, r"has a georeference, which says 0\.3 m a pixel: leave --gsd out"),
        (0.0, "no pixel size"),
        (-1, "no pixel"),
    ],
)
def test_a_pixel_size_that_makes_no_sense_is_refused(gsd_m: float, fault: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise())
    with pytest.raises(SceneError, match=fault):
        open_single(path, detector_gsd_m=0.3, cache=tmp_path, image_gsd_m=gsd_m).__enter__()
