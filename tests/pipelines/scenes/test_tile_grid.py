import math

import morecantile
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detector.detector import GSD_M
from pipelines.errors import SourceError
from pipelines.scenes.tile_grid import TileRange, choose_level, ground_m, named_levels, quadkey, tiles_around
from pipelines.scenes.tiles import WANTED_GSD_M
from tests.pipelines.scenes.conftest import area_around

MERCATOR = named_levels("WebMercatorQuad", 256)
LEVELS = st.sampled_from([
    *MERCATOR[3:21], *named_levels("WebMercatorQuad", 512)[3:21], *named_levels("WGS1984Quad", 256)[3:18],
    *named_levels("UTM31WGS84Quad", 256)[3:20],
])  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(LEVELS, st.data())
def test_a_range_of_tiles_and_its_bounds_go_round_in_a_circle(level, data) -> None:
    left, right = sorted(data.draw(st.tuples(*[st.integers(0, level.columns - 1)] * 2)))
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, level.rows - 1)] * 2)))
    west, _, _, north = level.bounds(left, top)
    _, south, east, _ = level.bounds(right, bottom)
    assert level.range_of(west, south, east, north) == TileRange(left, top, right, bottom)


@settings(max_examples=100, deadline=None)
@given(LEVELS, st.data())
def test_the_pixel_of_a_mosaic_is_where_its_own_tile_has_it(level, data) -> None:
    left, column = sorted(data.draw(st.tuples(*[st.integers(0, level.columns - 1)] * 2)))
    top, row = sorted(data.draw(st.tuples(*[st.integers(0, level.rows - 1)] * 2)))
    inside = data.draw(st.integers(0, level.tile_width_px)), data.draw(st.integers(0, level.tile_height_px))
    in_mosaic = (column - left) * level.tile_width_px + inside[0], (row - top) * level.tile_height_px + inside[1]
    mosaic, tile = level.transform(left, top) @ in_mosaic, level.transform(column, row) @ inside
    assert np.abs(np.subtract(mosaic, tile)).max() < level.cell / 1000


@settings(max_examples=100, deadline=None)
@given(st.floats(-179.9, 179.9), st.floats(-84, 84), st.integers(1, 20))
def test_tiles_are_those_of_morecantile(lon: float, lat: float, zoom: int) -> None:
    known = morecantile.tms.get("WebMercatorQuad")
    tile = known.tile(lon, lat, zoom)
    level = MERCATOR[zoom]
    assert np.allclose(level.bounds(tile.x, tile.y), known.xy_bounds(tile), rtol=0, atol=1e-6)
    x, y = known.xy(lon, lat)
    # A metre around a point may touch the next tile.
    around = level.range_of(x - 1, y - 1, x + 1, y + 1)
    assert (tile.x, tile.y) in around
    assert around.count <= 4
    assert quadkey(level, tile.x, tile.y) == known.quadkey(tile)


def test_the_zoom_is_the_coarsest_that_the_detector_can_use() -> None:
    assert WANTED_GSD_M == GSD_M
    level, size_m = choose_level(MERCATOR, shapely.Point(-90, 35), 0.3)
    assert level.id == "19"
    assert size_m == pytest.approx(0.29858 * math.cos(math.radians(35)), rel=0.003)
    # Nearer to the pole a tile shows less ground.
    assert choose_level(MERCATOR, shapely.Point(25, 66), 0.3)[0].id == "18"
    # The same tiles with four times the pixels are as fine a level earlier.
    level, double_m = choose_level(named_levels("WebMercatorQuad", 512), shapely.Point(-90, 35), 0.3)
    assert (level.id, double_m) == ("18", pytest.approx(size_m))


def test_a_pyramid_that_ends_early_gives_its_finest_level_and_says_how_fine_it_is() -> None:
    level, size_m = choose_level(MERCATOR[:18], shapely.Point(-90, 35), 0.3)
    assert level.id == "17"
    assert size_m == pytest.approx(0.98, abs=0.01)


def test_ground_size_in_degrees_is_the_longer_side() -> None:
    level = named_levels("WGS1984Quad", 256)[10]
    assert ground_m(level, 0, 60) == pytest.approx(level.cell * 111_412, rel=1e-3)


def test_tiles_cover_an_area_and_its_margin() -> None:
    area = area_around(half_x_m=100, half_y_m=100)
    tiles = tiles_around(MERCATOR[19], area, 60)
    left, _, _, top = MERCATOR[19].bounds(tiles.left, tiles.top)
    _, bottom, right, _ = MERCATOR[19].bounds(tiles.right, tiles.bottom)
    there = rasterio.warp.transform_bounds("EPSG:3857", "OGC:CRS84", left, bottom, right, top)
    assert shapely.box(*there).contains(area)
    assert 25 <= tiles.count <= 49
    assert len(list(tiles)) == tiles.count


def test_unknown_matrix_sets_are_answered_with_those_there_are() -> None:
    with pytest.raises(SourceError, match=r"no tile matrix set 'Mercator' .*WebMercatorQuad"):
        named_levels("Mercator", 256)
