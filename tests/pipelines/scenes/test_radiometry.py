import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from pipelines.errors import SceneError
from pipelines.scenes import radiometry
from pipelines.scenes.radiometry import Radiometry, radiometry_of
from pipelines.scenes.types import RasterDeclaration
from tests.pipelines.scenes.conftest import SIZE, MakeRaster, noise

WIDTH, HEIGHT = SIZE
RGBA = ["red", "green", "blue", "alpha"]


def shown(path: Path, **declared: Any) -> tuple[Radiometry, np.ndarray, np.ndarray]:
    with rasterio.open(path) as dataset:
        how = radiometry_of(dataset, RasterDeclaration(**declared), path.name)
        return how, *how.read(dataset, Window(0, 0, dataset.width, dataset.height))


def test_uint8_rgb_is_kept_as_it_is(make_raster: MakeRaster) -> None:
    how, rgb, valid = shown(make_raster())
    assert (rgb == noise(3)).all()
    assert valid.all()
    assert (how.bands, how.stretch, how.mask_from) == ((1, 2, 3), None, "every pixel")


def test_a_declared_stretch_has_no_effect_on_uint8(make_raster: MakeRaster) -> None:
    _, rgb, _ = shown(make_raster(), stretch=((0, 10),))
    assert (rgb == noise(3)).all()


def test_bands_follow_their_colours_not_their_order(make_raster: MakeRaster) -> None:
    pixels = noise(4)
    by_colour = make_raster(
        "a.tif", pixels, photometric="minisblack", colorinterp=["blue", "green", "red", "undefined"]
    )
    how, rgb, _ = shown(by_colour)
    assert how.bands == (3, 2, 1)
    assert (rgb == pixels[[2, 1, 0]]).all()
    named = {"photometric": "minisblack", "descriptions": ["Blue", "Green", "Red", "NIR"]}
    assert shown(make_raster("b.tif", pixels, **named))[0].bands == (3, 2, 1)
    assert shown(by_colour, rgb_bands=(4, 3, 2))[0].bands == (4, 3, 2)


def test_unnamed_bands_are_the_first_three_and_it_is_said(make_raster: MakeRaster, caplog: Any) -> None:
    how, _, _ = shown(make_raster(pixels=noise(5), photometric="minisblack"))
    assert how.bands == (1, 2, 3)
    assert "nothing says which bands" in caplog.text


def test_item_that_declares_a_band_too_many_is_refused(make_raster: MakeRaster) -> None:
    with pytest.raises(SceneError, match="has 3 bands, but its STAC item declares"):
        shown(make_raster(), rgb_bands=(3, 4, 5))


def test_infrared_tagged_alpha_is_neither_mask_nor_colour(make_raster: MakeRaster, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    pixels = noise(4, low=0, high=256)
    how, rgb, valid = shown(make_raster(pixels=pixels, colorinterp=RGBA))
    assert how.alpha_band is None
    assert how.bands == (1, 2, 3)
    assert valid.all()
    assert (rgb == pixels[:3]).all()
    assert "tagged alpha but holds an image" in caplog.text


def test_alpha_that_is_a_mask_is_one(make_raster: MakeRaster) -> None:
    pixels = noise(4)
    pixels[3] = 255
    pixels[3, :, :50] = 0
    how, rgb, valid = shown(make_raster(pixels=pixels, colorinterp=RGBA))
    assert how.mask_from == "alpha band 4"
    assert not valid[:, :50].any()
    assert valid[:, 50:].all()
    assert (rgb[:, :, :50] == 0).all()


def test_nodata_needs_all_bands_black_is_a_colour(make_raster: MakeRaster) -> None:
    pixels = noise(3)
    pixels[:, :, :40] = 0
    pixels[0, 100, 100] = 0
    for declared in ({"nodata": 0}, {}):
        how, _, valid = shown(make_raster(pixels=pixels, **declared), nodata=0.0)
        assert how.mask_from == "nodata 0"
        assert not valid[:, :40].any()
        assert valid[:, 40:].all()


def test_the_rasters_own_nodata_goes_before_the_items(make_raster: MakeRaster) -> None:
    assert shown(make_raster(nodata=7), nodata=9.0)[0].nodata == 7


def test_mask_band(make_raster: MakeRaster) -> None:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:30] = 0
    how, _, valid = shown(make_raster(mask=mask))
    assert how.mask_from == "mask band"
    assert (valid == (mask > 0)).all()


def test_grey_is_replicated_also_with_an_alpha_mask(make_raster: MakeRaster) -> None:
    grey = noise(1)
    _, rgb, _ = shown(make_raster("grey.tif", grey))
    assert (rgb == grey).all()
    with_alpha = np.concatenate([grey, np.full_like(grey, 255)])
    how, rgb, _ = shown(make_raster("ga.tif", with_alpha, colorinterp=["gray", "alpha"]))
    assert (rgb == grey).all()
    assert how.alpha_band == 2


def test_two_bands_are_refused(make_raster: MakeRaster) -> None:
    with pytest.raises(SceneError, match="has two bands"):
        shown(make_raster(pixels=noise(2), photometric="minisblack"))


def test_palette_becomes_its_colours(make_raster: MakeRaster) -> None:
    indices = noise(1, low=0, high=3)
    table = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (0, 0, 0, 255)}
    how, rgb, valid = shown(make_raster(pixels=indices, photometric="palette", colormap=table, nodata=2))
    assert how.stretch_from == "colours of the palette"
    assert (valid == (indices[0] != 2)).all()
    assert (rgb[:, indices[0] == 1].T == (200, 100, 50)).all()
    assert (rgb[:, indices[0] == 0].T == (10, 20, 30)).all()


def test_uint16_is_stretched_by_scene_percentiles_of_valid_pixels(make_raster: MakeRaster) -> None:
    pixels = noise(3, "uint16", 200, 1800)
    pixels[:, :60] = 0
    how, rgb, valid = shown(make_raster(pixels=pixels, nodata=0))
    assert how.stretch is not None
    for low, high in how.stretch:
        # 0.5 and 99.5 percent of a flat spread from 200 to 1800; the empty third does not count.
        assert low == pytest.approx(208, abs=4)
        assert high == pytest.approx(1792, abs=4)
    red = pixels[0].astype(float)
    expected = np.clip((red - how.stretch[0][0]) / (how.stretch[0][1] - how.stretch[0][0]) * 255, 0, 255)
    assert np.abs(rgb[0][valid] - expected[valid]).max() <= 0.51
    assert "percentiles 0.5 and 99.5" in how.stretch_from


def test_declared_stretch_goes_before_percentiles(make_raster: MakeRaster) -> None:
    how, rgb, _ = shown(make_raster(pixels=np.full((3, HEIGHT, WIDTH), 1000, "uint16")), stretch=((0, 2000),))
    assert how.stretch == ((0, 2000),) * 3
    assert (rgb == 128).all()


def test_signed_and_float_pixels_with_nan_and_infinity(make_raster: MakeRaster) -> None:
    pixels = noise(3, "float32", 1, 200) / 400 - 0.2
    pixels[1, 20:40, 20:40] = np.nan
    pixels[2, 0, 0] = np.inf
    _, rgb, valid = shown(make_raster("f.tif", pixels))
    assert not valid[20:40, 20:40].any()
    assert not valid[0, 0]
    assert valid.sum() == WIDTH * HEIGHT - 401
    assert (rgb[:, ~valid] == 0).all()
    assert 0 < rgb.mean() < 255
    _, _, valid = shown(make_raster("nan.tif", pixels, nodata=np.nan))
    assert not valid[20:40, 20:40].any()
    signed = noise(3, "int16", -500, 500)
    _, rgb, valid = shown(make_raster("i.tif", signed))
    assert valid.all()
    assert rgb[0].flat[signed[0].argmin()] == 0
    assert rgb[0].flat[signed[0].argmax()] == 255


def test_constant_uint16_does_not_divide_by_zero(make_raster: MakeRaster) -> None:
    _, rgb, valid = shown(make_raster(pixels=np.full((3, HEIGHT, WIDTH), 900, "uint16")))
    assert valid.all()
    assert (rgb == 0).all()


def test_image_without_a_valid_pixel_is_refused(make_raster: MakeRaster) -> None:
    with pytest.raises(SceneError, match="no valid pixel"):
        shown(make_raster(pixels=np.zeros((3, HEIGHT, WIDTH), "uint8"), nodata=0))
    with pytest.raises(SceneError, match="no valid pixel"):
        shown(make_raster("nan.tif", np.full((1, HEIGHT, WIDTH), np.nan, "float32")))


@pytest.mark.parametrize(("value", "compress"), [(0, None), (255, None), (255, "jpeg"), (0, "jpeg")])
def test_unmarked_collar_is_no_image(make_raster: MakeRaster, caplog: Any, value: int, compress: str | None) -> None:
    pixels = noise(3, low=60, high=190)
    pixels[:, :, :64] = value
    # A dark and a bright patch inside the image stay image.
    pixels[:, 60:70, 120:130] = value
    how, _, valid = shown(make_raster(pixels=pixels, compress=compress))
    assert f"unmarked collar of value {value}, 32% of the image" in how.mask_from
    assert "unmarked collar" in caplog.text
    assert not valid[:, :56].any()
    assert valid[:, 66:].all()


def test_one_empty_band_is_a_colour_not_a_collar(make_raster: MakeRaster) -> None:
    pixels = noise(3)
    pixels[2, :, :64] = 0
    pixels[0, :, 150:] = 255
    assert shown(make_raster(pixels=pixels))[2].all()


def test_bright_roof_at_the_border_is_no_collar(make_raster: MakeRaster) -> None:
    pixels = noise(3)
    pixels[:, :30, :40] = 255
    _, _, valid = shown(make_raster(pixels=pixels))
    assert valid.all()


def test_uint16_collar_of_zeros_is_outside_the_stretch(make_raster: MakeRaster) -> None:
    pixels = noise(3, "uint16", 400, 900)
    pixels[:, :, 100:] = 0
    how, _, valid = shown(make_raster(pixels=pixels))
    assert how.stretch is not None
    assert how.stretch[0][0] > 395
    assert not valid[:, 100:].any()


def test_scene_too_large_to_decode_whole_is_sampled(make_raster: MakeRaster, monkeypatch: Any) -> None:
    monkeypatch.setattr(radiometry, "DECODE_AT_MOST_PX", 1000)
    pixels = noise(4, "uint16", 200, 1800)
    pixels[3] = 65535
    how, _, valid = shown(make_raster(pixels=pixels, colorinterp=RGBA))
    assert how.alpha_band == 4
    assert valid.all()
    assert how.stretch is not None
    assert how.stretch[0] == pytest.approx((208, 1792), abs=6)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_pixel_comes_out_the_same_in_every_window(tmp_path_factory: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "windows.tif"
    if not path.exists():
        pixels = noise(3, "uint16", 300, 2000)
        pixels[:, :, :70] = 0
        profile = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint16"}
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(pixels)
    col, row = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    width, height = data.draw(st.integers(1, WIDTH - col)), data.draw(st.integers(1, HEIGHT - row))
    with rasterio.open(path) as dataset:
        how = radiometry_of(dataset, RasterDeclaration(), "x")
        whole, whole_valid = how.read(dataset, Window(0, 0, WIDTH, HEIGHT))
        part, part_valid = how.read(dataset, Window(col, row, width, height))
    assert (part == whole[:, row : row + height, col : col + width]).all()
    assert (part_valid == whole_valid[row : row + height, col : col + width]).all()
