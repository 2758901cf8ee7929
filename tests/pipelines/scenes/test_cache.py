import dataclasses
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from pystac.validation import validate_dict
from rasterio import Affine
from rio_cogeo.cogeo import cog_validate

from pipelines.errors import SceneError, SourceError
from pipelines.scenes import cache
from pipelines.scenes.cache import SceneCache
from pipelines.scenes.georeference import open_raster
from pipelines.scenes.types import FetchedScene, RasterDeclaration, Scene
from tests.pipelines.scenes.conftest import CENTRE, SIZE, UTM, MakeRaster, area_around, lonlat, noise

RGBA = ["red", "green", "blue", "alpha"]


def scene_of(path: Path, **fields: Any) -> Scene:
    values = {
        "id": "one",
        "source": "local:test",
        "acquired": datetime(2025, 8, 22, 16, tzinfo=UTC),
        "gsd_m": 0.3,
        "footprint": area_around(),
        "licence": "CC-BY-4.0",
        "rendered": False,
        "href": str(path),
        "acquired_from": "item",
    } | fields
    return Scene(**values)


@pytest.fixture
def scenes(tmp_path: Path) -> SceneCache:
    return SceneCache(tmp_path / "cache", "test")


def validated(fetched: FetchedScene) -> dict[str, Any]:
    """The item, after what every fetched scene must hold."""
    assert cog_validate(fetched.path, strict=True) == (True, [], [])
    with rasterio.open(fetched.path) as dataset:
        assert dataset.dtypes == ("uint8",) * 3
        assert [colour.name for colour in dataset.colorinterp] == ["red", "green", "blue"]
        assert dataset.nodata is None
        assert dataset.files == [str(fetched.path)]
        shape, transform, crs = dataset.shape, dataset.transform, dataset.crs
    item = json.loads(fetched.item_path.read_text())
    validate_dict(item, extensions=[])
    properties = item["properties"]
    assert properties["proj:shape"] == list(shape)
    assert Affine(*properties["proj:transform"]) == transform
    assert rasterio.CRS.from_wkt(properties["proj:wkt2"]) == crs
    assert item["assets"]["data"]["file:checksum"] == f"1220{fetched.sha256}"
    assert item["assets"]["data"]["file:size"] == fetched.path.stat().st_size
    return item


DEGREES = Affine(3.3e-6, 0, lonlat(-30, 24)[0], 0, -2.7e-6, lonlat(-30, 24)[1])
ROTATED = Affine.translation(*CENTRE) @ Affine.rotation(33) @ Affine.scale(0.3, -0.3) @ Affine.translation(-100, -80)
ALPHA = np.concatenate([noise(3), np.full((1, SIZE[1], SIZE[0]), 255, np.uint8)])
NAN = noise(1, "float32")
NAN[0, :40] = np.nan
EDGES = noise(3)
EDGES[:, :, 150:] = 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"crs": "EPSG:4326", "transform": DEGREES}, id="degrees"),
        pytest.param({"transform": Affine(0.3, 0, CENTRE[0] - 30, 0, -0.45, CENTRE[1] + 36)}, id="non-square"),
        pytest.param({"transform": ROTATED}, id="rotated"),
        pytest.param({"transform": Affine(0.3, 0, CENTRE[0] - 30, 0, 0.3, CENTRE[1] - 24)}, id="south-up"),
        pytest.param({"pixels": noise(3, "uint16", 200, 1800)}, id="uint16"),
        pytest.param({"pixels": noise(4), "colorinterp": RGBA}, id="infrared-as-alpha"),
        pytest.param({"pixels": ALPHA, "colorinterp": RGBA}, id="alpha"),
        pytest.param({"pixels": EDGES, "nodata": 0}, id="nodata-edges"),
        pytest.param({"compress": "jpeg", "photometric": "ycbcr"}, id="jpeg"),
        pytest.param({"pixels": noise(1), "photometric": "palette", "colormap": {9: (1, 2, 3, 255)}}, id="palette"),
        pytest.param({"pixels": noise(1)}, id="one-band"),
        pytest.param({"pixels": NAN}, id="float-nan"),
        pytest.param({"name": "a.jp2", "driver": "JP2OpenJPEG"}, id="jp2"),
        pytest.param({"name": "a b;ü.tif"}, id="odd-name"),
    ],
)
def test_every_oddity_becomes_the_one_form(make_raster: MakeRaster, scenes: SceneCache, options: Any) -> None:
    path = make_raster(**{"name": "a.tif"} | options)
    fetched = scenes.fetch(scene_of(path), area_around())
    validated(fetched)
    with open_raster(path) as source, rasterio.open(fetched.path) as cog:
        assert cog.crs == source.crs
        # Same pixel grid: the corner of the COG is a corner of a source pixel, and pixels agree.
        col, row = (round(v) for v in ~source.transform @ (cog.transform.c, cog.transform.f))
        assert source.transform @ (col, row) == pytest.approx((cog.transform.c, cog.transform.f))
        assert tuple(cog.transform)[:2] == pytest.approx(tuple(source.transform)[:2])
        if source.count == 3 and source.dtypes[0] == "uint8":
            window = ((row, row + cog.height), (col, col + cog.width))
            valid = cog.dataset_mask() > 0
            assert (cog.read()[:, valid] == source.read(window=window)[:, valid]).all()
    missing = area_around() - fetched.coverage
    assert missing.area < (0.4 if "pixels" in options else 1e-6) * area_around().area


def test_window_is_the_area_and_a_margin(make_raster: MakeRaster, scenes: SceneCache) -> None:
    big = (1500, 1200)
    transform = Affine(0.3, 0, CENTRE[0] - 225, 0, -0.3, CENTRE[1] + 180)
    path = make_raster(pixels=noise(3, size=big), transform=transform, tiled=True)
    fetched = scenes.fetch(scene_of(path), area_around(half_x_m=15, half_y_m=12))
    with rasterio.open(fetched.path) as cog, rasterio.open(path) as source:
        assert cog.width * 0.3 == pytest.approx(150, abs=1)
        assert cog.height * 0.3 == pytest.approx(144, abs=1)
        window = rasterio.windows.from_bounds(*cog.bounds, source.transform).round()
        assert (cog.read() == source.read(window=window)).all()


def test_strips_cover_the_window_once_and_share_no_block(monkeypatch: Any) -> None:
    monkeypatch.setattr(cache, "_STRIP_PX", 1024 * 512)
    for width, height in [(1, 1), (512, 513), (3000, 2000), (700, 5000)]:
        seen = np.zeros((height, width), int)
        for window in cache._strips(width, height):
            assert window.col_off % 512 == window.row_off % 512 == 0
            assert window.width * window.height <= 1024 * 512
            seen[window.toslices()] += 1
        assert (seen == 1).all()


def test_pixels_do_not_depend_on_the_strips(make_raster: MakeRaster, tmp_path: Path, monkeypatch: Any) -> None:
    transform = Affine(0.1, 0, CENTRE[0] - 70, 0, -0.1, CENTRE[1] + 70)
    path = make_raster(pixels=noise(3, "uint16", 200, 1800, (1400, 1400)), transform=transform)
    one = SceneCache(tmp_path / "a", "x").fetch(scene_of(path), area_around())
    monkeypatch.setattr(cache, "_STRIP_PX", 512 * 512)
    other = SceneCache(tmp_path / "b", "x").fetch(scene_of(path), area_around())
    assert one.sha256 == other.sha256


def test_small_area_of_a_huge_raster_is_cheap(tmp_path: Path, scenes: SceneCache) -> None:
    path = tmp_path / "huge.tif"
    transform = Affine(0.3, 0, CENTRE[0] - 9000, 0, -0.3, CENTRE[1] + 9000)
    profile = {"driver": "GTiff", "width": 60000, "height": 60000, "count": 1, "dtype": "uint8", "crs": UTM}
    with rasterio.open(path, "w", **profile, transform=transform, tiled=True, SPARSE_OK=True) as dataset:
        dataset.write(noise(1, size=(512, 512)), window=((29696, 30208), (29696, 30208)))
    fetched = scenes.fetch(scene_of(path), area_around())
    with rasterio.open(fetched.path) as cog:
        assert cog.width < 600
    assert sum(file.stat().st_size for file in scenes.folder.rglob("*.tif")) < 1e6


def test_item_says_where_everything_comes_from(make_raster: MakeRaster, scenes: SceneCache) -> None:
    path = make_raster(pixels=noise(3, "uint16", 200, 1800), nodata=0)
    scene = scene_of(
        path, licence="licence of the vendor, see contract", off_nadir_deg=12.5, sun_elevation_deg=51.0,
        cloud_cover_percent=3.0, attribution="(c) Vendor", acquired_from="file name",
    )  # fmt: skip
    properties = validated(scenes.fetch(scene, area_around()))["properties"]
    assert properties["datetime"] == "2025-08-22T16:00:00Z"
    assert properties["gsd"] == 0.3
    assert properties["license"] == "other"
    assert properties["overwatt:licence"] == "licence of the vendor, see contract"
    assert properties["overwatt:source"] == "local:test"
    assert properties["overwatt:acquired_from"] == "file name"
    assert properties["overwatt:rendered"] is False
    assert properties["overwatt:bands"] == [1, 2, 3]
    assert properties["overwatt:mask"] == "nodata 0"
    assert np.shape(properties["overwatt:stretch"]) == (3, 2)
    assert properties["overwatt:derived_from"]["sha256"] == cache._sha256(path)
    assert properties["view:off_nadir"] == 12.5
    assert properties["view:sun_elevation"] == 51.0
    assert properties["eo:cloud_cover"] == 3.0
    assert "view:sun_azimuth" not in properties


def test_cached_cog_labels_itself_when_its_item_is_lost(make_raster: MakeRaster, scenes: SceneCache) -> None:
    fetched = scenes.fetch(scene_of(make_raster(), rendered=True), area_around())
    with rasterio.open(fetched.path) as cog:
        tags = cog.tags()
    assert tags["OVERWATT_RENDERED"] == "YES"
    assert tags["TIFFTAG_DATETIME"] == "2025:08:22 16:00:00"
    assert tags["OVERWATT_LICENCE"] == "CC-BY-4.0"
    real = scenes.fetch(scene_of(make_raster("real.tif")), area_around())
    with rasterio.open(real.path) as cog:
        assert "OVERWATT_RENDERED" not in cog.tags()


def test_rendered_tag_of_the_raster_labels_a_scene_whose_item_forgot(make_raster, scenes) -> None:
    fetched = scenes.fetch(scene_of(make_raster(tags={"OVERWATT_RENDERED": "YES"})), area_around())
    assert fetched.scene.rendered
    assert validated(fetched)["properties"]["overwatt:rendered"] is True


def test_pixels_coarser_than_declared_decide_the_gsd(make_raster: MakeRaster, scenes: SceneCache) -> None:
    path = make_raster()
    assert scenes.fetch(scene_of(path, gsd_m=0.1), area_around()).scene.gsd_m == pytest.approx(0.3, rel=1e-3)
    # Finer pixels than declared are an enlargement: they show no more.
    assert scenes.fetch(scene_of(path, gsd_m=0.5), area_around()).scene.gsd_m == 0.5


def test_fetched_once(make_raster: MakeRaster, scenes: SceneCache, caplog: Any) -> None:
    path = make_raster(pixels=EDGES, nodata=0)
    first = scenes.fetch(scene_of(path), area_around())
    written = first.path.stat().st_mtime_ns
    caplog.set_level("INFO")
    assert scenes.fetch(scene_of(path), area_around()) == first
    assert first.path.stat().st_mtime_ns == written
    assert "fetching" not in caplog.text


@pytest.mark.parametrize("damage", ["pixels", "no item", "item cut", "item of another kind", "no pixels"])
def test_damaged_cache_is_fetched_again(make_raster: MakeRaster, scenes: SceneCache, damage: str) -> None:
    scene = scene_of(make_raster())
    first = scenes.fetch(scene, area_around())
    good = first.path.read_bytes()
    if damage == "pixels":
        first.path.write_bytes(good[:-100] + bytes(100))
    elif damage == "no item":
        first.item_path.unlink()
    elif damage == "item cut":
        first.item_path.write_text(first.item_path.read_text()[:200])
    elif damage == "item of another kind":
        first.item_path.write_text("[]")
    else:
        first.path.unlink()
    assert scenes.fetch(scene, area_around()) == first
    assert first.path.read_bytes() == good


def test_changed_source_is_not_served_from_the_cache(make_raster: MakeRaster, scenes: SceneCache) -> None:
    path = make_raster()
    first = scenes.fetch(scene_of(path), area_around())
    status = path.stat()
    make_raster(pixels=250 - noise(3))
    # Same size and same modification time, as a careful copy would have them.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    second = scenes.fetch(scene_of(path), area_around())
    assert second.sha256 != first.sha256


def test_changed_part_of_a_mosaic_or_world_file_is_noticed(make_raster: MakeRaster, tmp_path: Path) -> None:
    scenes = SceneCache(tmp_path / "cache", "test")
    part = make_raster("part.tif")
    rasterio.shutil.copy(part, tmp_path / "mosaic.vrt", driver="VRT")
    first = scenes.fetch(scene_of(tmp_path / "mosaic.vrt"), area_around())
    make_raster("part.tif", 250 - noise(3))
    assert scenes.fetch(scene_of(tmp_path / "mosaic.vrt"), area_around()).sha256 != first.sha256

    png = make_raster("m.png", driver="PNG", crs=None, transform=None)
    Path(f"{png}.aux.xml").write_text("<PAMDataset><SRS>EPSG:32615</SRS></PAMDataset>")
    world = "0.3\n0\n0\n-0.3\n{}\n{}\n"
    png.with_suffix(".pgw").write_text(world.format(CENTRE[0] - 29.85, CENTRE[1] + 23.85))
    first = scenes.fetch(scene_of(png), area_around())
    png.with_suffix(".pgw").write_text(world.format(CENTRE[0] - 26.85, CENTRE[1] + 23.85))
    assert scenes.fetch(scene_of(png), area_around()).sha256 != first.sha256


def test_other_area_date_or_declaration_is_another_file(make_raster: MakeRaster, scenes: SceneCache) -> None:
    scene = scene_of(make_raster(pixels=noise(3, "uint16")))
    fetched = [
        scenes.fetch(scene, area_around()),
        scenes.fetch(scene, area_around(half_x_m=5)),
        scenes.fetch(dataclasses.replace(scene, licence="MIT"), area_around()),
        scenes.fetch(dataclasses.replace(scene, declared=RasterDeclaration(stretch=((0, 500),))), area_around()),
    ]
    assert len({f.path for f in fetched}) == 4


def test_concurrent_fetchers_leave_one_whole_pair(make_raster: MakeRaster, scenes: SceneCache) -> None:
    scene = scene_of(make_raster())
    results: list[FetchedScene] = []
    threads = [threading.Thread(target=lambda: results.append(scenes.fetch(scene, area_around()))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(result == results[0] for result in results)
    validated(results[0])
    assert sorted(p.suffix for p in results[0].path.parent.iterdir()) == [".json", ".tif"]


def test_nothing_is_left_when_reading_fails_half_way(make_raster: MakeRaster, scenes: SceneCache) -> None:
    path = make_raster(
        pixels=noise(3, size=(700, 700)), transform=Affine(0.1, 0, CENTRE[0] - 35, 0, -0.1, CENTRE[1] + 35)
    )
    os.truncate(path, path.stat().st_size * 6 // 10)
    with pytest.raises(SceneError, match=r"scene_20250822.tif cannot be read in the window of 700 x 700 px"):
        scenes.fetch(scene_of(path), area_around())
    assert [p for p in scenes.folder.rglob("*") if p.is_file() or p.name.startswith(".")] == []


def test_what_a_killed_fetcher_left_is_swept_away_later(make_raster: MakeRaster, scenes: SceneCache) -> None:
    old, young = scenes.folder / "one" / ".abc-1-ff", scenes.folder / "one" / ".abc-2-ff"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "plain.tif").touch()
    os.utime(old, (0, 0))
    scenes.fetch(scene_of(make_raster()), area_around())
    assert not old.exists()
    assert young.exists()


def test_source_that_changes_while_it_is_read_is_refused(make_raster, scenes, monkeypatch) -> None:
    path = make_raster()
    write = cache._write

    def write_late(*args: Any) -> FetchedScene:
        fetched = write(*args)
        os.utime(path)
        return fetched

    monkeypatch.setattr(cache, "_write", write_late)
    with pytest.raises(SceneError, match="changed while it was read"):
        scenes.fetch(scene_of(path), area_around())
    assert list(scenes.folder.rglob("*.json")) == []


def test_scene_beside_the_area_is_refused_with_the_distance(make_raster: MakeRaster, scenes: SceneCache) -> None:
    with pytest.raises(SceneError, match=r"does not show the area asked for.*1\.0 km away"):
        scenes.fetch(scene_of(make_raster()), area_around(x_m=1045))


def test_area_in_the_nodata_edge_is_refused(make_raster: MakeRaster, scenes: SceneCache) -> None:
    with pytest.raises(SceneError, match=r"no valid pixel in the area asked for \(nodata 0\)"):
        scenes.fetch(scene_of(make_raster(pixels=EDGES, nodata=0)), area_around(x_m=24, half_x_m=5))


def test_coverage_follows_the_mask(make_raster: MakeRaster, scenes: SceneCache) -> None:
    fetched = scenes.fetch(scene_of(make_raster(pixels=EDGES, nodata=0)), area_around(half_x_m=29, half_y_m=20))
    # Pixels of columns 150 to 200 of 200 are empty: from 15 m east of the centre on.
    assert fetched.coverage.covers(shapely.Point(lonlat(14, 0)))
    assert not fetched.coverage.intersects(shapely.Point(lonlat(16, 0)))
    whole = scenes.fetch(scene_of(make_raster("b.tif")), area_around())
    assert whole.coverage.equals(area_around())


def test_cache_that_cannot_be_written_is_refused_with_a_remedy(make_raster: MakeRaster, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"cache cannot write.*OVERWATT_CACHE"):
        SceneCache(tmp_path / "file", "x").fetch(scene_of(make_raster()), area_around())
