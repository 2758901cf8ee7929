from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
import shapely.affinity
from rasterio.shutil import copy
from rasterio.transform import from_origin

from pipelines.errors import SceneError, SourceError
from pipelines.scenes.bands import grid_around, item_bands, read_bands
from pipelines.scenes.types import Band, Scene
from tests.pipelines.conftest import FileServer
from tests.pipelines.scenes.conftest import CENTRE, UTM, area_around


def an_item(assets: dict[str, dict[str, Any]], **properties: Any) -> pystac.Item:
    return pystac.Item.from_dict(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "s",
            "geometry": None,
            "properties": {"datetime": "2025-08-22T16:00:00Z"} | properties,
            "links": [],
            "assets": {key: {"href": f"./{key}.tif", "type": "image/tiff"} | asset for key, asset in assets.items()},
        },
        href="http://127.0.0.1/items/s.json",
    )


def a_scene(*bands: Band) -> Scene:
    item = an_item({})
    return Scene("s", "made", item.datetime, 10.0, area_around(), "CC0", False, "s.tif", "item", bands=bands)  # type: ignore[arg-type]


RASTER_BANDS = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]


def test_bands_are_known_by_common_name_with_scale_and_offset_as_declared() -> None:
    picture = {"eo:bands": [{"common_name": name} for name in ("red", "green", "blue")]}
    item = an_item(
        {name: {"raster:bands": RASTER_BANDS} for name in ("blue", "nir", "swir16")}
        | {"visual": picture, "red": {"bands": [{"name": "B04", "raster:scale": 0.001}]}, "scl": {}}
        | {"green-jp2": {"type": "image/jp2", "eo:bands": [{"common_name": "green"}]}}
    )
    bands = {band.name: band for band in item_bands(item)}
    assert list(bands) == ["red", "blue", "nir", "swir16", "scl"]
    assert bands["nir"] == Band("nir", "http://127.0.0.1/items/nir.tif", 0.0001, -0.1, 0.0)
    assert (bands["red"].scale, bands["red"].offset) == (0.001, 0.0)
    assert (bands["scl"].scale, bands["scl"].offset) == (1.0, 0.0)


@pytest.mark.parametrize(("baseline", "offset"), [("05.10", -0.1), ("04.00", -0.1), ("03.01", 0.0)])
def test_sentinel_2_that_declares_no_scale_is_scaled_by_its_processing_baseline(baseline: str, offset: float) -> None:
    keys = ("B02", "B03", "B04", "B08", "B11", "SCL")
    item = an_item({key: {} for key in keys}, platform="Sentinel-2A", **{"s2:processing_baseline": baseline})
    bands = {band.name: band for band in item_bands(item)}
    assert set(bands) == {"blue", "green", "red", "nir", "swir16", "scl"}
    assert (bands["red"].scale, bands["red"].offset) == (1e-4, offset)
    assert bands["red"].href.endswith("/B04.tif")


def test_an_offset_that_was_applied_already_is_not_applied_again() -> None:
    item = an_item({"red": {"raster:bands": RASTER_BANDS}}, **{"earthsearch:boa_offset_applied": True})
    assert item_bands(item)[0].offset == 0.0


def write(path: Path, values: np.ndarray, pixel_m: float = 10.0, crs: str = UTM) -> Path:
    west, north = CENTRE[0] - CENTRE[0] % 10 - 5000, CENTRE[1] - CENTRE[1] % 10 + 5000
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": crs, "nodata": 0}
    profile |= {"height": values.shape[0], "width": values.shape[1]}
    plain = path.with_suffix(".plain.tif")
    with rasterio.open(plain, "w", **profile, transform=from_origin(west, north, pixel_m, pixel_m)) as raster:
        raster.write(values.astype(np.uint16), 1)
    copy(plain, path, driver="COG", blocksize=256, compress="deflate")
    return path


def test_only_the_part_around_the_place_is_read_on_one_grid(tmp_path: Path, server: FileServer) -> None:
    rng = np.random.default_rng(1)
    ten = rng.integers(1000, 4000, (1000, 1000))
    write(tmp_path / "red.tif", ten)
    write(tmp_path / "swir16.tif", ten[::2, ::2], 20.0)
    grid = grid_around(area_around(half_x_m=200, half_y_m=200), 200)
    scene = a_scene(
        Band("red", f"{server.url}/red.tif", 1e-4, -0.1), Band("swir16", f"{server.url}/swir16.tif", 1e-4, -0.1)
    )
    read = read_bands(scene, grid, ("red", "swir16"))
    column, row = round((grid.west_m - 768_000) / 10), round((3_877_000 - grid.north_m) / 10)
    part = np.s_[row : row + grid.height, column : column + grid.width]
    assert read["red"] == pytest.approx(ten[part] * 1e-4 - 0.1, abs=1e-6)
    assert read["swir16"] == pytest.approx(np.repeat(np.repeat(ten[::2, ::2], 2, 0), 2, 1)[part] * 1e-4 - 0.1, abs=1e-6)
    assert server.sent["/red.tif"] < 0.4 * (tmp_path / "red.tif").stat().st_size


def test_a_server_that_wants_signed_addresses_gets_them_and_the_scene_keeps_its_own(
    tmp_path: Path, server: FileServer
) -> None:
    write(tmp_path / "signed.tif", np.full((1000, 1000), 1500))

    class ByPath:
        def sign(self, url: str) -> str:
            return url.replace("plain.tif", "signed.tif")

        refresh = sign

    scene = a_scene(Band("red", f"{server.url}/plain.tif", 1e-4))
    grid = grid_around(area_around(), 100)
    assert np.nanmax(read_bands(scene, grid, ("red",), signer=ByPath())["red"]) == pytest.approx(0.15)
    assert "/plain.tif" not in server.requests


def test_what_a_tile_does_not_reach_is_nothing(tmp_path: Path) -> None:
    values = np.full((1000, 1000), 1500)
    values[:, :500] = 0
    path = write(tmp_path / "red.tif", values)
    grid = grid_around(area_around(half_x_m=200, half_y_m=200), 0)
    red = read_bands(a_scene(Band("red", str(path), 1e-4, 0.0)), grid, ("red",))["red"]
    assert np.isnan(red[:, 0]).all()
    assert red[:, -1] == pytest.approx(np.full(grid.height, 0.15))
    beyond = grid_around(shapely.affinity.translate(area_around(), 0.2, 0), 100)
    assert np.isnan(read_bands(a_scene(Band("red", str(path))), beyond, ("red",))["red"]).all()


def test_a_scene_without_the_bands_and_a_server_without_the_file_are_said_in_a_sentence(server: FileServer) -> None:
    grid = grid_around(area_around(), 100)
    with pytest.raises(SceneError, match="offers no band nir, scl; give a source of Sentinel-2"):
        read_bands(a_scene(Band("red", "red.tif")), grid, ("red", "nir", "scl"))
    with pytest.raises(SourceError, match=r"none\.tif: the server answers 404 Not Found"):
        read_bands(a_scene(Band("red", f"{server.url}/none.tif?key=secret")), grid, ("red",))
