"""Tiles of one acquisition as one scene: which items belong together, and pixels that are those of the whole image."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from rasterio import Affine
from rasterio.enums import Resampling

from pipelines.errors import SceneError
from pipelines.scenes.stac import StacSource
from pipelines.sites import Site
from tests.pipelines.conftest import FileServer
from tests.pipelines.scenes.catalog_items import collection, earth_search_sentinel_2, planetary_computer_naip
from tests.pipelines.scenes.conftest import CENTRE, UTM, area_around, make_site, noise
from tests.pipelines.scenes.stac_servers import rustac_server

SIZE = (400, 300)
"""Width and height of the whole image, pixels of 0.3 m."""
TRANSFORM = Affine(0.3, 0, CENTRE[0] - 60, 0, -0.3, CENTRE[1] + 45)
QUARTERS = {"nw": (0, 0, 210, 160), "ne": (190, 0, 400, 160), "sw": (0, 140, 210, 300), "se": (190, 140, 400, 300)}
"""Left, top, right and bottom of quadrangles that overlap, as those of a survey do."""


def write(path: Path, pixels: np.ndarray, transform: Affine, crs: str = UTM, **options: Any) -> Path:
    profile = {"count": pixels.shape[0], "dtype": pixels.dtype, "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **profile, **options) as dataset:
        dataset.write(pixels)
    return path


def outline(transform: Affine, width: int, height: int, crs: str = UTM) -> shapely.Polygon:
    to_lonlat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    return shapely.Polygon([to_lonlat.transform(*(transform @ corner)) for corner in corners])


def quarter(folder: Path, name: str, pixels: np.ndarray) -> tuple[str, shapely.Polygon]:
    left, top, right, bottom = QUARTERS[name]
    transform = TRANSFORM @ Affine.translation(left, top)
    path = write(folder / f"{name}.tif", pixels[:, top:bottom, left:right], transform)
    return str(path), outline(transform, right - left, bottom - top)


def quarters(folder: Path, pixels: np.ndarray, **properties: Any) -> list[dict[str, Any]]:
    return [planetary_computer_naip(f"tn_m_{name}", *quarter(folder, name, pixels), **properties) for name in QUARTERS]


def catalog(folder: Path, items: list[dict[str, Any]], name: str = "naip") -> Path:
    for item in items:
        (folder / f"{item['id']}.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in items]
    path = folder / "collection.json"
    path.write_text(json.dumps(collection(name, "PDDL-1.0", "USDA") | {"links": links}))
    return path


@pytest.fixture
def site() -> Site:
    """A perimeter over the corner where four quadrangles meet; with its margin it is the whole image."""
    return make_site(area_around(half_x_m=20, half_y_m=15))


def read(path: Path) -> tuple[np.ndarray, np.ndarray, Affine]:
    with rasterio.open(path) as cog:
        return cog.read(), cog.dataset_mask() > 0, cog.transform


def test_quarter_quads_are_one_scene_whose_pixels_are_the_whole_image_s(tmp_path: Path, site: Site) -> None:
    pixels = noise(4, size=SIZE)
    source = StacSource(str(catalog(tmp_path, quarters(tmp_path, pixels))), cache=tmp_path / "cache")
    (scene,) = source.search(site)
    assert len(scene.parts) == 3
    assert scene.id.startswith("tn_m_ne-and-3-")
    assert scene.earliest is None
    assert scene.footprint.covers(site.perimeter)
    fetched = source.fetch(scene, site.perimeter)
    image, valid, transform = read(fetched.path)
    assert transform.almost_equals(TRANSFORM, 1e-6)
    assert valid.all()
    # Every pixel, those at the seams too, is bit for bit that of the image the quadrangles were cut from.
    assert (image == pixels[:3]).all()
    assert fetched.coverage.equals_exact(site.perimeter, 1e-9) or fetched.coverage.covers(site.perimeter)
    item = json.loads(fetched.item_path.read_text())
    derived = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
    assert sorted(Path(href).name for href in derived) == ["ne.tif", "nw.tif", "se.tif", "sw.tif"]
    assert [part["placed"] for part in item["properties"]["overwatt:parts"]] == ["copied"] * 4
    assert all(len(part["sha256"]) == 64 for part in item["properties"]["overwatt:parts"])
    assert item["properties"]["overwatt:parts"][0]["sha256"] == item["properties"]["overwatt:derived_from"]["sha256"]


def test_the_same_image_untiled_gives_the_same_file_content(tmp_path: Path, site: Site) -> None:
    pixels = noise(4, size=SIZE)
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole / "whole.tif", pixels, TRANSFORM)
    item = planetary_computer_naip("whole", str(whole / "whole.tif"), outline(TRANSFORM, *SIZE))
    untiled = StacSource(str(catalog(whole, [item])), cache=tmp_path / "cache")
    tiled = StacSource(str(catalog(tmp_path, quarters(tmp_path, pixels))), cache=tmp_path / "cache")
    one, other = (s.fetch(s.search(site)[0], site.perimeter) for s in (untiled, tiled))
    for a, b in zip(read(one.path), read(other.path), strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-6)


def test_a_mosaic_is_fetched_once_and_anew_when_any_part_changes(tmp_path: Path, site: Site) -> None:
    pixels = noise(4, size=SIZE)
    source = StacSource(str(catalog(tmp_path, quarters(tmp_path, pixels))), cache=tmp_path / "cache")
    scene = source.search(site)[0]
    first = source.fetch(scene, site.perimeter)
    before = first.path.stat().st_mtime_ns
    assert source.fetch(scene, site.perimeter) == first
    assert first.path.stat().st_mtime_ns == before
    quarter(tmp_path, "sw", 250 - pixels)
    second = source.fetch(scene, site.perimeter)
    assert second.path != first.path
    # Only where no tile above it shows the ground.
    assert (read(second.path)[0][:, 160:, :190] == (250 - pixels)[:3, 160:, :190]).all()


def test_a_mosaic_of_remote_tiles_behind_an_api(tmp_path: Path, site: Site, server: FileServer) -> None:
    pixels = noise(4, size=SIZE)
    items = quarters(tmp_path, pixels)
    for item in items:
        item["assets"]["image"]["href"] = f"{server.url}/{Path(item['assets']['image']['href']).name}"
    (tmp_path / "api").mkdir()
    with rustac_server(tmp_path / "api", items, [collection("naip", "PDDL-1.0", "USDA")]) as url:
        source = StacSource(f"{url}#naip", cache=tmp_path / "cache", items_a_page=2)
        (scene,) = source.search(site)
        fetched = source.fetch(scene, site.perimeter)
    assert (read(fetched.path)[0] == pixels[:3]).all()


def test_holes_of_the_tile_on_top_are_filled_by_those_below(tmp_path: Path, site: Site) -> None:
    pixels = noise(4, size=SIZE)
    items = quarters(tmp_path, pixels)
    # No value of the noise is 0: the tile on top has a hole where the others show the ground.
    holed = pixels.copy()
    holed[:, 140:160, 190:210] = 0
    quarter(tmp_path, "ne", holed)
    for item in items:
        item["assets"]["image"]["nodata"] = 0
    source = StacSource(str(catalog(tmp_path, items)), cache=tmp_path / "cache")
    image, valid, _ = read(source.fetch(source.search(site)[0], site.perimeter).path)
    assert valid.all()
    assert (image == pixels[:3]).all()


def test_a_neighbour_of_another_utm_zone_is_warped_and_says_so(tmp_path: Path, site: Site) -> None:
    # Smooth, so that bilinear resampling is right to a grey value or two.
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    pixels = np.stack([40 + columns * 0.4, 40 + rows * 0.5, 40 + (rows + columns) * 0.25]).astype(np.uint8)
    west = write(tmp_path / "west.tif", pixels[:, :, :220], TRANSFORM)
    zone = "EPSG:32616"
    box = rasterio.warp.transform_bounds(UTM, zone, *rasterio.transform.array_bounds(SIZE[1], SIZE[0], TRANSFORM))
    across = Affine(0.3, 0, box[0], 0, -0.3, box[3])
    shape = (round((box[3] - box[1]) / 0.3), round((box[2] - box[0]) / 0.3))
    there = np.zeros((3, *shape), np.uint8)
    rasterio.warp.reproject(
        pixels, there, src_transform=TRANSFORM, src_crs=UTM, dst_transform=across, dst_crs=zone,
        resampling=Resampling.bilinear,
    )  # fmt: skip
    east = write(tmp_path / "east.tif", there, across, zone, nodata=0)
    items = [
        planetary_computer_naip("west", str(west), outline(TRANSFORM, 220, SIZE[1])),
        planetary_computer_naip(
            "east", str(east), outline(TRANSFORM @ Affine.translation(180, 0), 220, SIZE[1]), **{"proj:epsg": 32616}
        ),
    ]
    source = StacSource(str(catalog(tmp_path, items)), cache=tmp_path / "cache")
    (scene,) = source.search(site)
    fetched = source.fetch(scene, site.perimeter)
    with rasterio.open(fetched.path) as cog:
        assert cog.crs == UTM
        column, row = (round(v) for v in ~cog.transform @ (TRANSFORM @ (0, 0)))
        image = cog.read()[:, row : row + SIZE[1], column : column + SIZE[0]]
        valid = cog.dataset_mask()[row : row + SIZE[1], column : column + SIZE[0]] > 0
    assert (image[:, :, :220] == pixels[:, :, :220]).all()
    assert valid[5:-5, 5:-5].all()
    off = np.abs(image.astype(int) - pixels)[:, 5:-5, 220:-5]
    assert off.max() <= 2
    placed = [part["placed"] for part in json.loads(fetched.item_path.read_text())["properties"]["overwatt:parts"]]
    assert placed == ["copied", "warped, bilinear"]


def test_tiles_of_different_pixels_are_no_mosaic(tmp_path: Path, site: Site) -> None:
    pixels = noise(4, size=SIZE)
    items = quarters(tmp_path, pixels)
    write(
        tmp_path / "sw.tif",
        pixels[:, 140:300, :210].astype(np.uint16) * 20,
        TRANSFORM @ Affine.translation(0, 140),
    )
    source = StacSource(str(catalog(tmp_path, items)), cache=tmp_path / "cache")
    with pytest.raises(SceneError, match=r"are tiles of one acquisition, but their pixels differ \(uint8.*uint16"):
        source.fetch(source.search(site)[0], site.perimeter)
    del items[2]["assets"]["image"]["eo:bands"]
    source = StacSource(str(catalog(tmp_path, items)), cache=tmp_path / "cache")
    assert len(source.search(site)) == 4
    assert ["declare different pixels" in problem.reason for problem in source.problems] == [True]


def test_uint16_tiles_share_one_stretch(tmp_path: Path, site: Site) -> None:
    pixels = noise(3, size=SIZE).astype(np.uint16) * 10
    pixels[:, :, 200:] += 1000
    items = quarters(tmp_path, pixels)
    for item in items:
        del item["assets"]["image"]["eo:bands"]
    source = StacSource(str(catalog(tmp_path, items)), cache=tmp_path / "cache")
    image, valid, _ = read(source.fetch(source.search(site)[0], site.perimeter).path)
    assert valid.all()
    # Equal values look equal on both sides of every seam.
    for band in range(3):
        for value in np.unique(pixels[band])[::25]:
            assert len(np.unique(image[band][pixels[band] == value])) == 1


def sentinel(name: str, shape: shapely.Polygon, when: str, **properties: Any) -> dict[str, Any]:
    return earth_search_sentinel_2(name, f"/tiles/{name}.tif", shape, when, **properties)


WEST, EAST = area_around(x_m=-20, half_x_m=25, half_y_m=30), area_around(x_m=20, half_x_m=25, half_y_m=30)
ALL = area_around(half_x_m=60, half_y_m=60)


def found(tmp_path: Path, site: Site, items: list[dict[str, Any]]) -> list[tuple[str, int]]:
    source = StacSource(str(catalog(tmp_path, items, "sentinel-2-l2a")), cache=tmp_path)
    return [(scene.id.partition("-and-")[0], 1 + len(scene.parts)) for scene in source.search(site)]


def test_what_one_satellite_took_in_one_pass_is_one_scene_and_its_next_pass_another(tmp_path: Path, site: Site) -> None:
    items = [
        sentinel("a", WEST, "2025-08-22T16:52:11Z"),
        sentinel("b", EAST, "2025-08-22T16:52:25Z"),
        sentinel("c", WEST, "2025-08-22T18:31:00Z"),
        sentinel("d", EAST, "2025-08-22T16:52:11Z", platform="sentinel-2a"),
    ]
    assert found(tmp_path, site, items) == [("d", 1), ("a", 2), ("c", 1)]


def test_the_date_of_a_mosaic_is_its_last_part_s_and_its_cloud_the_cloudiest_s(tmp_path: Path, site: Site) -> None:
    items = [
        sentinel("a", WEST, "2025-08-22T16:52:11Z", **{"eo:cloud_cover": 4}),
        sentinel("b", EAST, "2025-08-22T16:52:25Z", **{"eo:cloud_cover": 61}),
    ]
    source = StacSource(str(catalog(tmp_path, items, "sentinel-2-l2a")), cache=tmp_path)
    (scene,) = source.search(site, date(2025, 8, 22), date(2025, 8, 22))
    assert scene.acquired == datetime(2025, 8, 22, 16, 52, 25, tzinfo=UTC)
    assert scene.earliest == datetime(2025, 8, 22, 16, 52, 11, tzinfo=UTC)
    assert scene.cloud_cover_percent == 61


def test_a_tile_that_shows_all_needs_no_other(tmp_path: Path, site: Site) -> None:
    items = [
        sentinel("part", WEST, "2025-08-22T16:52:11Z"),
        sentinel("cloudy", area_around(x_m=30, half_x_m=60, half_y_m=60), "2025-08-22T16:52:25Z"),
        sentinel("clear", area_around(x_m=-30, half_x_m=60, half_y_m=60), "2025-08-22T16:52:25Z"),
    ]
    items[1]["properties"]["eo:cloud_cover"] = 30
    assert found(tmp_path, site, items) == [("clear", 1)]


def test_of_two_versions_of_an_acquisition_the_newest_is_taken(tmp_path: Path, site: Site) -> None:
    old = sentinel("S2B_15SYU_20250822_0_L2A", ALL, "2025-08-22T16:52:11.024Z")
    new = sentinel("S2B_15SYU_20250822_1_L2A", ALL, "2025-08-22T16:52:11.030Z", **{"s2:processing_baseline": "05.12"})
    assert found(tmp_path, site, [new, old]) == [("S2B_15SYU_20250822_1_L2A", 1)]
    # Written later counts where the baseline is the same; a withdrawn version never does.
    new["properties"] |= {"s2:processing_baseline": "05.11", "created": "2025-08-30T00:00:00Z"}
    assert found(tmp_path, site, [new, old]) == [("S2B_15SYU_20250822_1_L2A", 1)]
    new["properties"]["deprecated"] = True
    assert found(tmp_path, site, [new, old]) == [("S2B_15SYU_20250822_0_L2A", 1)]
    # Two halves of one tile are no versions of each other.
    halves = [sentinel("h0", WEST, "2025-08-22T16:52:11Z"), sentinel("h1", EAST, "2025-08-22T16:52:12Z")]
    assert found(tmp_path, site, halves) == [("h0", 2)]


def test_images_that_nobody_calls_one_acquisition_stay_apart(tmp_path: Path, site: Site) -> None:
    morning = planetary_computer_naip("morning", "/a.tif", ALL, "2025-08-22T08:00:00Z")
    evening = planetary_computer_naip("evening", "/b.tif", ALL, "2025-08-22T18:00:00Z")
    assert found(tmp_path, site, [morning, evening]) == [("morning", 1), ("evening", 1)]
    coarse = planetary_computer_naip("coarse", "/b.tif", EAST, "2025-08-22T08:00:00Z", gsd=1.0)
    fine = planetary_computer_naip("fine", "/a.tif", WEST, "2025-08-22T08:00:00Z")
    assert found(tmp_path, site, [coarse, fine]) == [("coarse", 1), ("fine", 1)]
    loose = [planetary_computer_naip(name, "/a.tif", shape) for name, shape in (("x", WEST), ("y", EAST))]
    for item in loose:
        del item["collection"]
        (tmp_path / f"{item['id']}.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in loose]
    plain = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(plain))
    scenes = StacSource(str(tmp_path / "catalog.json"), cache=tmp_path).search(site)
    assert sorted(scene.id for scene in scenes) == ["x", "y"]
