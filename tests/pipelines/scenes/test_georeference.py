import math
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.io import MemoryFile

from pipelines.errors import SceneError
from pipelines.scenes.georeference import (
    footprint,
    gsd_m,
    lonlat_from_pixels,
    open_raster,
    reading,
    refuse_far,
    window_around,
)
from tests.pipelines.scenes.conftest import CENTRE, SIZE, TRANSFORM, UTM, MakeRaster, area_around, lonlat, noise


def test_footprint_and_gsd_of_a_projected_image(make_raster: MakeRaster) -> None:
    with open_raster(make_raster()) as dataset:
        assert gsd_m(dataset) == pytest.approx(0.3, rel=1e-3)
        corner = shapely.Point(lonlat(-30, 24))
        assert footprint(dataset).exterior.distance(corner) < 1e-9
        assert footprint(dataset).exterior.is_ccw
        assert lonlat_from_pixels(dataset, np.array([[0.0, 0.0]]))[0] == pytest.approx(corner.coords[0], abs=1e-9)


def test_gsd_is_the_coarser_side_of_non_square_pixels(make_raster: MakeRaster) -> None:
    path = make_raster(transform=Affine(0.3, 0, CENTRE[0], 0, -0.5, CENTRE[1]))
    with open_raster(path) as dataset:
        assert gsd_m(dataset) == pytest.approx(0.5, rel=1e-3)


def test_gsd_of_degrees_and_of_mercator_is_measured_on_the_ground(make_raster: MakeRaster) -> None:
    lon, lat = lonlat(0, 0)
    with open_raster(make_raster(crs="EPSG:4326", transform=Affine(3e-6, 0, lon, 0, -3e-6, lat))) as dataset:
        # A degree of latitude is 110.9 km at 35 N, one of longitude 91.3 km.
        assert gsd_m(dataset) == pytest.approx(3e-6 * 110_900, rel=2e-3)
    with open_raster(make_raster(crs="EPSG:3857", transform=Affine(1, 0, -10_022_000, 0, -1, 4_165_000))) as dataset:
        assert gsd_m(dataset) == pytest.approx(math.cos(math.radians(lat)), rel=5e-3)


def test_image_without_georeference_is_refused_with_a_remedy(make_raster: MakeRaster) -> None:
    path = make_raster("plain.tif", crs=None, transform=None)
    with pytest.raises(SceneError, match=r"plain.tif has no georeference.*gdal_edit.py"), open_raster(path):
        pass


def test_image_with_a_crs_but_no_geotransform_is_refused(make_raster: MakeRaster) -> None:
    path = make_raster("plain.tif", transform=None)
    with pytest.raises(SceneError, match="no georeference"), open_raster(path):
        pass


def test_image_without_a_crs_is_refused_with_a_remedy(make_raster: MakeRaster) -> None:
    path = make_raster("nocrs.tif", crs=None)
    with pytest.raises(SceneError, match=r"nocrs.tif does not say its CRS.*-a_srs"), open_raster(path):
        pass


def test_image_placed_by_control_points_only_is_refused_with_a_remedy(make_raster: MakeRaster) -> None:
    path = make_raster("gcps.tif", crs=None, transform=None)
    points = [
        rasterio.control.GroundControlPoint(r, c, -90 + c / 1e6, 35 - r / 1e6) for r, c in [(0, 0), (0, 99), (99, 0)]
    ]
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    with pytest.raises(SceneError, match=r"control points.*gdalwarp"), open_raster(path):
        pass


def test_complex_pixels_are_refused(make_raster: MakeRaster) -> None:
    path = make_raster("radar.tif", noise(1, "complex64"))
    with pytest.raises(SceneError, match="complex numbers"), open_raster(path):
        pass


def test_crs_without_a_place_on_earth_is_refused(make_raster: MakeRaster) -> None:
    path = make_raster("site_grid.tif", crs=rasterio.CRS.from_wkt('LOCAL_CS["mine",UNIT["metre",1]]'))
    with pytest.raises(SceneError, match="cannot be converted to longitude and latitude"), open_raster(path):
        pass


def test_swapped_degrees_are_refused(make_raster: MakeRaster) -> None:
    lon, lat = lonlat(0, 0)
    path = make_raster(crs="EPSG:4326", transform=Affine(3e-6, 0, lat, 0, -3e-6, lon - 10))
    with open_raster(path) as dataset, pytest.raises(SceneError, match="swapped"):
        footprint(dataset)


@pytest.mark.parametrize("compress", [None, "deflate", "jpeg", "lzw"])
def test_truncated_file_is_an_error_not_black_pixels(make_raster: MakeRaster, compress: str | None) -> None:
    path = make_raster("short.tif", noise(3, size=(700, 700)), compress=compress)
    os.truncate(path, path.stat().st_size * 6 // 10)
    with (
        open_raster(path) as dataset,
        pytest.raises(SceneError, match=r"short.tif is damaged.*fresh copy"),
        reading(path),
    ):
        dataset.read()


def test_truncated_file_whose_directory_is_lost_is_refused(make_raster: MakeRaster) -> None:
    # Tags written after the pixels move the TIFF directory to the end of the file.
    path = make_raster("short.tif", tags={"LATE": "x" * 500})
    os.truncate(path, path.stat().st_size * 6 // 10)
    with pytest.raises(SceneError, match=r"short.tif is damaged"), open_raster(path):
        pass


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not an image at all"])
def test_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.tif"
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"odd.tif is damaged or is no image"), open_raster(path):
        pass


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="does not exist"), open_raster(tmp_path / "gone.tif"):
        pass


def test_window_reaches_the_margin_but_not_beyond_the_image(make_raster: MakeRaster) -> None:
    with open_raster(make_raster()) as dataset:
        middle = window_around(dataset, area_around(half_x_m=3, half_y_m=3), 9)
        assert middle is not None
        # 3 m of area and 9 m of margin each way, in pixels of 0.3 m, rounded outwards.
        assert (80, 80) <= (middle.width, middle.height) <= (83, 83)
        whole = window_around(dataset, area_around(half_x_m=25, half_y_m=20), 60)
        assert whole is not None
        assert (whole.col_off, whole.row_off, whole.width, whole.height) == (0, 0, *SIZE)


def test_margin_alone_is_no_overlap(make_raster: MakeRaster) -> None:
    with open_raster(make_raster()) as dataset:
        assert window_around(dataset, area_around(x_m=60), 60) is None
        assert window_around(dataset, shapely.box(139, 35, 139.01, 35.01), 60) is None


def test_distance_and_swapped_axes_are_told(make_raster: MakeRaster) -> None:
    with open_raster(make_raster()) as dataset:
        shown = footprint(dataset)
    far = str(refuse_far("a.tif", shown, area_around(x_m=5030), "site memphis"))
    assert "a.tif does not show site memphis" in far
    assert "5.0 km away" in far
    assert "swapped" not in far
    swapped = shapely.transform(area_around(), lambda xy: xy[:, ::-1])
    assert "swapped" in str(refuse_far("a.tif", swapped, area_around(), "site memphis"))


@settings(max_examples=60, deadline=None)
@given(
    turn=st.floats(0, 360),
    shear=st.floats(-30, 30),
    pixel_m=st.tuples(st.floats(0.1, 1.2), st.floats(0.1, 1.2)),
    offset_m=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    half_m=st.tuples(st.floats(1, 40), st.floats(1, 40)),
    margin_m=st.sampled_from([0.0, 5.0]),
    mirrored=st.booleans(),
)
def test_window_holds_the_area_for_any_geotransform(turn, shear, pixel_m, offset_m, half_m, margin_m, mirrored) -> None:
    transform = (
        Affine.translation(*CENTRE)
        @ Affine.rotation(turn)
        @ Affine.shear(shear, 0)
        @ Affine.scale(pixel_m[0], pixel_m[1] if mirrored else -pixel_m[1])
        @ Affine.translation(-SIZE[0] / 2, -SIZE[1] / 2)
    )
    area = area_around(*offset_m, *half_m)
    profile = {"driver": "GTiff", "width": SIZE[0], "height": SIZE[1], "count": 1, "dtype": "uint8", "crs": UTM}
    with MemoryFile() as memory:
        with memory.open(**profile, transform=transform):
            pass
        with memory.open() as dataset:
            window = window_around(dataset, area, margin_m)
            image = shapely.box(0, 0, *SIZE)
    # Straight between the corners in UTM, where the area is straight in degrees: less than 0.1 pixels apart.
    corners = [
        (CENTRE[0] + offset_m[0] + x, CENTRE[1] + offset_m[1] + y)
        for x, y in [(-half_m[0], -half_m[1]), (half_m[0], -half_m[1]), (half_m[0], half_m[1]), (-half_m[0], half_m[1])]
    ]
    needed = shapely.Polygon([~transform @ corner for corner in corners]) & image
    if window is None:
        assert needed.area < 1
        return
    got = shapely.box(window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height)
    assert image.covers(got)
    assert (needed - got).area < 0.5


def test_the_fixture_raster_is_where_it_should_be(make_raster: MakeRaster) -> None:
    with rasterio.open(make_raster()) as dataset:
        assert dataset.transform == TRANSFORM
        assert dataset.bounds.left < CENTRE[0] < dataset.bounds.right
