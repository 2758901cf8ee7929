"""Tiles of a real tile server: where a known point lands, whatever way the tiles are numbered and packed."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio import Affine

from pipelines.scenes.sources import open_source
from pipelines.scenes.types import FetchedScene
from tests.pipelines.scenes.conftest import CENTRE, UTM, area_around, lonlat, make_site

ROOT = Path(__file__).resolve().parents[3]
MARK = (12.4, -7.7)
"""Metres east and north of the centre: not the middle of a pixel of any level."""
HALF_M, PIXEL_M = 150, 0.1


@pytest.fixture(scope="module")
def titiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A COG with a red disc at a known place, in its UTM zone, behind titiler."""
    path = tmp_path_factory.mktemp("titiler") / "scene.tif"
    size = round(2 * HALF_M / PIXEL_M)
    grey = np.random.default_rng(3).integers(60, 120, (size // 30, size // 30)).repeat(30, 0).repeat(30, 1)
    pixels = np.stack([grey] * 3).astype(np.uint8)
    y, x = (np.mgrid[:size, :size] + 0.5) * PIXEL_M - HALF_M
    disc = (x - MARK[0]) ** 2 + (y + MARK[1]) ** 2 < 4.0**2
    pixels[:, disc] = np.array([[250], [10], [10]])
    transform = Affine(PIXEL_M, 0, CENTRE[0] - HALF_M, 0, -PIXEL_M, CENTRE[1] + HALF_M)
    profile = {"driver": "COG", "width": size, "height": size, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=UTM, transform=transform) as dataset:
        dataset.write(pixels)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("titiler_app.py")), str(path), str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "GDAL_CACHEMAX": "64"})
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None, "titiler did not start"
            try:
                httpx.get(f"{url}/docs", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < until, "titiler does not answer"
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def fetched_from(source: Any, cache: Path) -> FetchedScene:
    imagery = open_source(source, cache=cache)
    place = make_site(area_around(half_x_m=40, half_y_m=35))
    return imagery.fetch(imagery.search(place)[-1], place.perimeter)


def described(tmp_path: Path, **fields: Any) -> str:
    path = tmp_path / "archive.json"
    path.write_text(json.dumps({"licence": "test", "sites": {"memphis": ["2025-08-22"]}} | fields))
    return f"tiles:{path}"


def offset_px(fetched: FetchedScene) -> tuple[float, float]:
    """How far the disc's middle is from where its longitude and latitude say."""
    with rasterio.open(fetched.path) as dataset:
        red, green, _ = dataset.read().astype(int)
        rows, columns = np.nonzero((red > 170) & (green < 90))
        to_crs = pyproj.Transformer.from_crs("OGC:CRS84", dataset.crs, always_xy=True)
        x, y = ~dataset.transform @ to_crs.transform(*lonlat(*MARK))
        assert len(rows) > 100
        return columns.mean() + 0.5 - x, rows.mean() + 0.5 - y


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/tiles/WebMercatorQuad/{z}/{x}/{y}.png", {}),
        ("/tiles/WebMercatorQuad/{z}/{x}/{y}.jpg", {"max_zoom": 20}),
        ("/tiles/WebMercatorQuad/{z}/{x}/{y}.webp", {}),
        ("/tms/{z}/{x}/{-y}.png", {}),
        ("/dated/{date:%Y%m%d}/{z}/{x}/{y}.png", {}),
        ("/tiles/WorldCRS84Quad/{z}/{x}/{y}.png", {"matrix_set": "WorldCRS84Quad"}),
    ],
)
def test_a_known_point_lands_where_it_is(titiler: str, tmp_path: Path, path: str, fields: dict[str, Any]) -> None:
    fetched = fetched_from(described(tmp_path, template=titiler + path, **fields), tmp_path / "cache")
    east, south = offset_px(fetched)
    assert abs(east) < 0.5
    assert abs(south) < 0.5
    assert fetched.scene.gsd_m <= 0.3
    assert fetched.coverage.equals(area_around(half_x_m=40, half_y_m=35)) or (
        fetched.coverage.symmetric_difference(area_around(half_x_m=40, half_y_m=35)).area < 1e-12
    )


@pytest.mark.parametrize("encoding", ["rest", "kvp"])
@pytest.mark.parametrize("matrix_set", ["WebMercatorQuad", "WGS1984Quad", "UTM15"])
def test_wmts_says_its_dates_levels_and_corner_itself(
    titiler: str, tmp_path: Path, encoding: str, matrix_set: str
) -> None:
    spec = f"tiles:{titiler}/wmts/{encoding}/{matrix_set}/WMTSCapabilities.xml"
    place = make_site(area_around(half_x_m=40, half_y_m=35))
    imagery = open_source(spec, cache=tmp_path)
    scenes = imagery.search(place)
    assert [scene.acquired for scene in scenes] == [
        datetime(2025, 8, 22, tzinfo=UTC), datetime(2025, 10, 19, tzinfo=UTC),
    ]  # fmt: skip
    assert {scene.acquired_from for scene in scenes} == {"wmts time"}
    assert {scene.attribution for scene in scenes} == {"Test tiles"}
    assert "2025-08-22" in scenes[0].href
    assert "2025-10-19" in scenes[1].href
    fetched = imagery.fetch(scenes[0], place.perimeter)
    assert max(map(abs, offset_px(fetched))) < 0.5
    with rasterio.open(fetched.path) as dataset:
        expected = {"WebMercatorQuad": 3857, "WGS1984Quad": 4326, "UTM15": 32615}[matrix_set]
        assert dataset.crs.to_epsg() == expected


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_an_area_at_the_edge_is_covered_as_far_as_the_tiles_show_something(
    titiler: str, tmp_path: Path, form: str
) -> None:
    # JPEG has no transparency: titiler fills the tiles at the edge up with black.
    template = f"{titiler}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.{form}"
    imagery = open_source(described(tmp_path, template=template), cache=tmp_path)
    across = area_around(x_m=HALF_M, half_x_m=60, half_y_m=30)
    place = make_site(across)
    fetched = imagery.fetch(imagery.search(place)[0], place.perimeter)
    image = shapely.Polygon([lonlat(x, y) for x, y in ((-150, -150), (150, -150), (150, 150), (-150, 150))])
    assert 0.48 < fetched.coverage.area / across.area < 0.52
    assert fetched.coverage.intersection(image).area > 0.98 * fetched.coverage.area
