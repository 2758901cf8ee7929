import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio import Affine

from flows.cli import main
from pipelines.errors import NoSceneError
from pipelines.scenes.selection import Limits
from pipelines.scenes.sources import open_source
from pipelines.scenes.stac import StacSource
from pipelines.scenes.types import Scene
from pipelines.sites import Site
from tests.pipelines.conftest import FileServer
from tests.pipelines.scenes.catalog_items import (
    collection,
    earth_search_sentinel_2,
    planetary_computer_naip,
)
from tests.pipelines.scenes.conftest import CENTRE, UTM, area_around, make_site, noise
from tests.pipelines.scenes.stac_servers import rustac_server, stac_fastapi_server

HERE = area_around(half_x_m=400, half_y_m=400)
SIZE = (3000, 3000)
TRANSFORM = Affine(0.3, 0, CENTRE[0] - 450, 0, -0.3, CENTRE[1] + 450)
CLOUDS = {"2025-07-03": 3.0, "2025-07-08": 15.0, "2025-07-13": 40.0, "2025-07-18": 80.0, "2025-07-23": None}
COLLECTIONS = [collection("naip", "PDDL-1.0", "USDA"), collection("sentinel-2-l2a", "proprietary", "ESA")]


def write_cog(path: Path, pixels: np.ndarray, transform: Affine, crs: str = UTM, **options: Any) -> Path:
    plain = path.with_suffix(".plain.tif")
    profile = {"count": pixels.shape[0], "dtype": pixels.dtype, "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(plain, "w", driver="GTiff", crs=crs, transform=transform, **profile, **options) as dataset:
        dataset.write(pixels)
    rasterio.shutil.copy(plain, path, driver="COG", COMPRESS="NONE")
    plain.unlink()
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    server = FileServer(tmp_path_factory.mktemp("images"))
    write_cog(server.folder / "naip.tif", noise(4, size=SIZE), TRANSFORM, photometric="RGB")
    write_cog(server.folder / "TCI.tif", noise(3, size=SIZE), TRANSFORM)
    yield server
    server.close()


@pytest.fixture(scope="module")
def items(images: FileServer) -> list[dict[str, Any]]:
    naip = [
        planetary_computer_naip(f"tn_m_3509001_{year}", f"{images.url}/naip.tif", HERE, f"{year}-06-05T16:00:00Z")
        for year in (2021, 2023)
    ]
    sentinel = [
        earth_search_sentinel_2(
            f"S2B_15SYU_{day.replace('-', '')}_0_L2A", f"{images.url}/TCI.tif", HERE, f"{day}T16:52:11.024000Z"
        )
        for day in CLOUDS
    ]
    for item, cloud in zip(sentinel, CLOUDS.values(), strict=True):
        if cloud is None:
            del item["properties"]["eo:cloud_cover"]
        else:
            item["properties"]["eo:cloud_cover"] = cloud
    elsewhere = planetary_computer_naip("tn_m_elsewhere", f"{images.url}/naip.tif", area_around(x_m=9000))
    without = planetary_computer_naip("tn_m_unusable", f"{images.url}/naip.tif", HERE, "2022-06-05T16:00:00Z")
    del without["assets"]["image"]
    return [*naip, *sentinel, elsewhere, without]


@pytest.fixture(scope="module", params=[rustac_server, stac_fastapi_server], ids=["rustac", "stac-fastapi"])
def api(request: Any, items: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with request.param(tmp_path_factory.mktemp("api"), items, COLLECTIONS) as url:
        yield url


@pytest.fixture
def site() -> Site:
    return make_site(area_around())


def days(scenes: list[Scene]) -> list[str]:
    return [f"{scene.acquired:%Y-%m-%d}" for scene in scenes]


def test_items_of_the_perimeter_by_collection(api: str, site: Site, tmp_path: Path) -> None:
    source = StacSource(f"{api}#naip", cache=tmp_path)
    scenes = source.search(site)
    assert [scene.id for scene in scenes] == ["tn_m_3509001_2021", "tn_m_3509001_2023"]
    assert {scene.licence for scene in scenes} == {"PDDL-1.0"}
    assert {scene.attribution for scene in scenes} == {"USDA Farm Service Agency"}
    assert {scene.declared.rgb_bands for scene in scenes} == {(1, 2, 3)}
    assert scenes[0].source == f"stac:{api}#naip"
    # The one without an image is named, not passed over in silence.
    assert ["none of its assets is a GeoTIFF" in problem.reason for problem in source.problems] == [True]
    assert days(StacSource(f"{api}#sentinel-2-l2a", cache=tmp_path).search(site)) == list(CLOUDS)
    assert len(StacSource(f"{api}#naip,sentinel-2-l2a", cache=tmp_path).search(site)) == 7
    assert len(StacSource(api, cache=tmp_path).search(site)) == 7


def test_a_collection_of_an_api_stands_for_the_api_with_it(api: str, site: Site, tmp_path: Path) -> None:
    scenes = StacSource(f"{api}/collections/sentinel-2-l2a", cache=tmp_path).search(site)
    assert days(scenes) == list(CLOUDS)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2025-07-08", "2025-07-18", ["2025-07-08", "2025-07-13", "2025-07-18"]),
        ("2025-07-14", None, ["2025-07-18", "2025-07-23"]),
        (None, "2025-07-03", ["2025-07-03"]),
        ("2025-07-13", "2025-07-13", ["2025-07-13"]),
    ],
)
def test_dates_are_intervals_with_both_ends(api, site, tmp_path, start, end, expected) -> None:
    first, last = (date.fromisoformat(day) if day else None for day in (start, end))
    assert days(StacSource(f"{api}#sentinel-2-l2a", cache=tmp_path).search(site, first, last)) == expected


def test_cloud_cover_is_limited_and_what_does_not_state_it_is_kept(api: str, site: Site, tmp_path: Path) -> None:
    source = StacSource(f"{api}#sentinel-2-l2a", cache=tmp_path, limits=Limits(max_cloud_percent=15))
    assert days(source.search(site)) == ["2025-07-03", "2025-07-08", "2025-07-23"]


def test_gsd_is_limited_whether_the_item_or_its_asset_states_it(api: str, site: Site, tmp_path: Path) -> None:
    assert days(StacSource(api, cache=tmp_path, limits=Limits(max_gsd_m=1)).search(site)) == [
        "2021-06-05",
        "2023-06-05",
    ]
    with pytest.raises(NoSceneError) as error:
        StacSource(f"{api}#sentinel-2-l2a", cache=tmp_path, limits=Limits(20, 1)).search(site)
    assert str(error.value) == (
        f"stac:{api}#sentinel-2-l2a has 5 scenes of the site and the dates, none with at most 20% cloud and a "
        "GSD of at most 1 m (there is GSD 9.996 m, cloud 3 to 80%)"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pages_smaller_than_the_result(api: str, site: Site, tmp_path: Path, size: int) -> None:
    source = StacSource(f"{api}#sentinel-2-l2a", cache=tmp_path, items_a_page=size)
    assert days(source.search(site)) == list(CLOUDS)


def test_nothing_found_says_what_there_is(api: str, site: Site, tmp_path: Path) -> None:
    source = StacSource(f"{api}#naip", cache=tmp_path)
    with pytest.raises(
        NoSceneError, match="no scene of site memphis from 2024-01-01 on; it has 2021-06-05, 2023-06-05"
    ):
        source.search(site, date(2024, 1, 1))
    with pytest.raises(NoSceneError, match="holds no image of site memphis"):
        source.search(make_site(area_around(x_m=-90_000)))


def test_only_the_area_of_a_cog_behind_an_api_is_read(api, site, tmp_path, images: FileServer) -> None:
    images.sent.clear()
    source = open_source(f"stac:{api}#naip", cache=tmp_path)
    scene = source.search(site, date(2023, 1, 1))[0]
    fetched = source.fetch(scene, site.perimeter)
    with rasterio.open(fetched.path) as cog:
        left, top = (round(v) for v in ~TRANSFORM @ cog.transform @ (0, 0))
        expected = noise(4, size=SIZE)[:3, top : top + cog.height, left : left + cog.width]
        assert (cog.read() == expected).all()
    assert 0 < images.sent["/naip.tif"] < 0.2 * (images.folder / "naip.tif").stat().st_size
    assert json.loads(fetched.item_path.read_text())["properties"]["overwatt:licence"] == "PDDL-1.0"


def test_the_command_line_lists_what_an_api_has(api, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OVERWATT_CACHE", str(tmp_path))
    monkeypatch.setenv("OVERWATT_AOI", str(tmp_path / "aoi"))
    (tmp_path / "aoi").mkdir()
    assert main(["sites", "new", "memphis", "--bounds", *map(str, area_around().bounds)]) == 0
    capsys.readouterr()
    assert main(["scenes", "memphis", "--source", f"stac:{api}#sentinel-2-l2a", "--max-cloud", "10", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["scenes"]
    assert [scene["acquired"][:10] for scene in shown] == ["2025-07-03", "2025-07-23"]
    assert main(["scenes", "memphis", "--source", f"stac:{api}", "--max-gsd", "0.1"]) == 2
    assert "none with a GSD of at most 0.1 m" in capsys.readouterr().err
