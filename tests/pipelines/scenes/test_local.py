import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from rasterio import Affine

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.local import LocalSource
from pipelines.sites import Site
from tests.pipelines.scenes.conftest import CENTRE, MakeRaster, area_around, make_site, noise


def write_item(image: Path, **properties: Any) -> Path:
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "vendor/strip 7",
        "geometry": None,
        "properties": {"datetime": "2025-08-22T16:31:05Z"} | properties,
        "links": [],
        "assets": {"image": {"href": f"./{image.name}", "type": "image/tiff"}},
    }
    path = image.with_suffix(".json")
    path.write_text(json.dumps(item))
    return path


def test_file_dated_by_its_name(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("m_20250822.tif")
    (scene,) = LocalSource(path, cache=tmp_path / "cache").search(site)
    assert scene.id == "m_20250822"
    assert scene.source == "local:m_20250822.tif"
    assert scene.acquired == datetime(2025, 8, 22, tzinfo=UTC)
    assert scene.acquired_from == "file name"
    assert scene.gsd_m == pytest.approx(0.3, rel=1e-3)
    assert scene.licence == "unknown (local file)"
    assert scene.href == str(path)
    assert not scene.rendered
    assert scene.footprint.covers(site.perimeter)


def test_item_beside_the_file_goes_before_everything(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("m_20240101.tif", tags={"TIFFTAG_DATETIME": "2023:01:01 00:00:00"})
    write_item(
        path,
        gsd=0.5,
        license="CC-BY-4.0",
        providers=[{"name": "Vendor", "roles": ["producer"]}],
        **{
            "view:off_nadir": 14,
            "view:sun_azimuth": 160.5,
            "view:sun_elevation": 60,
            "eo:cloud_cover": 2,
            "overwatt:rendered": True,
            "overwatt:stretch": [[1, 2], [3, 4], [5, 6]],
        },
    )
    (scene,) = LocalSource(path, cache=tmp_path / "cache").search(site)
    assert scene.acquired == datetime(2025, 8, 22, 16, 31, 5, tzinfo=UTC)
    assert scene.acquired_from == "item"
    assert (scene.gsd_m, scene.licence, scene.attribution) == (0.5, "CC-BY-4.0", "Vendor")
    assert (scene.off_nadir_deg, scene.sun_azimuth_deg, scene.sun_elevation_deg) == (14, 160.5, 60)
    assert scene.cloud_cover_percent == 2
    assert scene.rendered
    assert scene.declared.stretch == ((1, 2), (3, 4), (5, 6))
    assert scene.id.startswith("vendor-strip-7-")
    assert "/" not in scene.id


def test_a_fetched_scene_is_a_local_source_again(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("m.tif", noise(3, "uint16", 200, 1800))
    write_item(path, license="MIT", **{"overwatt:rendered": True, "overwatt:stretch": [300, 1000]})
    source = LocalSource(path, cache=tmp_path / "cache")
    first = source.fetch(source.search(site)[0], site.perimeter)
    again = LocalSource(first.path, cache=tmp_path / "again")
    (scene,) = again.search(site)
    assert (scene.acquired, scene.licence, scene.rendered) == (first.scene.acquired, "MIT", True)
    second = again.fetch(scene, site.perimeter)
    # Stretched once, not twice.
    assert second.sha256 == first.sha256


def test_a_rendered_file_without_its_item_is_still_rendered(make_raster, site, tmp_path) -> None:
    path = make_raster("m_20250822.tif", tags={"OVERWATT_RENDERED": "YES", "TIFFTAG_COPYRIGHT": "(c) Vendor"})
    (scene,) = LocalSource(path, cache=tmp_path / "cache").search(site)
    assert scene.rendered
    # A copyright notice is no licence.
    assert (scene.attribution, scene.licence) == ("(c) Vendor", "unknown (local file)")


def test_a_cached_cog_without_its_item_keeps_label_date_and_licence(make_raster, site, tmp_path) -> None:
    path = make_raster("m_20250822.tif", tags={"OVERWATT_RENDERED": "YES"})
    source = LocalSource(path, cache=tmp_path / "cache", licence="bought, © Vendor")
    fetched = source.fetch(source.search(site)[0], site.perimeter)
    stray = tmp_path / "stray.tif"
    shutil.copy(fetched.path, stray)
    (scene,) = LocalSource(stray, cache=tmp_path / "again").search(site)
    assert (scene.acquired, scene.acquired_from) == (fetched.scene.acquired, "tiff tag")
    assert (scene.rendered, scene.licence) == (True, "bought, © Vendor")


def test_given_date_and_licence(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("image.tif")
    with pytest.raises(SceneError, match=r"image.tif does not say when it was acquired; .*--date YYYY-MM-DD"):
        LocalSource(path, cache=tmp_path).search(site)
    source = LocalSource(path, cache=tmp_path, acquired=date(2025, 8, 22), licence="bought, no redistribution")
    (scene,) = source.search(site, date(2025, 8, 22), date(2025, 8, 22))
    assert scene.acquired_from == "command line"
    assert scene.licence == "bought, no redistribution"


def test_given_date_against_the_files_own(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    path = make_raster("m_20250822.tif")
    with pytest.raises(SceneError, match=r"2025-08-22 \(file name\).*not on the 2024-01-01"):
        LocalSource(path, cache=tmp_path, acquired=date(2024, 1, 1)).search(site)


def test_file_is_never_dated_by_the_file_system(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="does not say when"):
        LocalSource(make_raster("image.tif"), cache=tmp_path).search(site)


def test_file_of_another_date_and_backward_dates(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    source = LocalSource(make_raster("m_20250822.tif"), cache=tmp_path)
    assert source.search(site, date(2025, 8, 22), date(2025, 8, 22))
    with pytest.raises(NoSceneError, match="acquired on 2025-08-22"):
        source.search(site, date(2025, 8, 23))
    with pytest.raises(NoSceneError):
        source.search(site, None, date(2025, 8, 21))
    with pytest.raises(SceneError, match="backwards"):
        source.search(site, date(2025, 8, 23), date(2025, 8, 22))


def test_file_elsewhere_is_refused_with_both_places(make_raster: MakeRaster, tmp_path: Path) -> None:
    source = LocalSource(make_raster(), cache=tmp_path)
    with pytest.raises(SceneError, match=r"does not show site memphis: the image is at 34.\d+ N 90.\d+ W.*5.0 km"):
        source.search(make_site(area_around(x_m=5045)))


def test_image_with_swapped_axes_gets_a_hint(make_raster: MakeRaster, tmp_path: Path) -> None:
    # Northern Memphis mirrored: longitude 35, latitude -90 is the pole, so the site lies at 35 E 60 N here.
    path = make_raster(crs="EPSG:4326", transform=Affine(3e-6, 0, 35, 0, -3e-6, 60))
    area = area_around()
    site = make_site(type(area)([(x + 60 - area.bounds[0], y + 35 - area.bounds[1]) for x, y in area.exterior.coords]))
    with pytest.raises(SceneError, match="latitude and longitude look swapped"):
        LocalSource(path, cache=tmp_path).search(site)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"properties": {"datetime": None}}, "it has no 'datetime'"),
        ({"properties": {"datetime": "22 Aug"}}, "'datetime' is '22 Aug'"),
        ({"properties": {"datetime": 20250822}}, "'datetime' is 20250822"),
        ({"properties": None}, "'properties' must be a JSON object"),
        ({"assets": {"image": {}}}, "asset 'image' must have an 'href'"),
        ({"stac_version": "0.9.0"}, "'stac_version' is '0.9.0'"),
        ({"properties": {"datetime": "2025-08-22T00:00:00Z", "gsd": "0.3"}}, "'gsd' must be a positive number"),
        ({"properties": {"datetime": "2025-08-22T00:00:00Z", "gsd": 0}}, "'gsd' must be a positive number"),
        ({"properties": {"datetime": "2025-08-22T00:00:00Z", "overwatt:rendered": "yes"}}, "must be true or false"),
        ({"properties": {"datetime": "2025-08-22T00:00:00Z", "overwatt:stretch": [9, 1]}}, "'overwatt:stretch' must"),
        ({"assets": {"image": {"href": "m.tif", "nodata": "none"}}}, "'nodata' must be a number"),
    ],
)
def test_broken_item_beside_the_file_names_item_and_field(make_raster, site, tmp_path, change, message) -> None:
    path = make_raster("m.tif")
    sidecar = write_item(path)
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | change))
    with pytest.raises(SceneError, match=f"STAC item .*{message}"):
        LocalSource(path, cache=tmp_path).search(site)


def test_item_that_is_no_json_is_refused_and_foreign_json_is_not_used(make_raster, site, tmp_path, caplog) -> None:
    path = make_raster("m_20250822.tif")
    path.with_suffix(".json").write_text('{"cloud": 3}')
    (scene,) = LocalSource(path, cache=tmp_path).search(site)
    assert scene.acquired_from == "file name"
    assert "is no STAC item and is not used" in caplog.text
    path.with_suffix(".json").write_text("{cloud")
    with pytest.raises(SceneError, match=r"m_20250822.json beside m_20250822.tif is not JSON"):
        LocalSource(path, cache=tmp_path).search(site)


def test_nodata_declared_by_the_item_is_used(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    pixels = noise(3)
    pixels[:, :, :90] = 9
    path = make_raster("m.tif", pixels)
    sidecar = write_item(path)
    item = json.loads(sidecar.read_text())
    item["assets"]["image"]["nodata"] = 9
    sidecar.write_text(json.dumps(item))
    source = LocalSource(path, cache=tmp_path / "cache")
    fetched = source.fetch(source.search(site)[0], site.perimeter)
    assert 0.5 < fetched.coverage.area / site.perimeter.area < 0.65


def test_png_with_world_file_needs_a_crs_and_gets_it_from_aux_xml(make_raster, site, tmp_path) -> None:
    path = make_raster("m_20250822.png", driver="PNG", crs=None, transform=None)
    for aux in tmp_path.glob("*.aux.xml"):
        aux.unlink()
    path.with_suffix(".pgw").write_text(f"0.3\n0\n0\n-0.3\n{CENTRE[0] - 29.85}\n{CENTRE[1] + 23.85}\n")
    with pytest.raises(SceneError, match="does not say its CRS"):
        LocalSource(path, cache=tmp_path / "cache").search(site)
    Path(f"{path}.aux.xml").write_text("<PAMDataset><SRS>EPSG:32615</SRS></PAMDataset>")
    source = LocalSource(path, cache=tmp_path / "cache")
    fetched = source.fetch(source.search(site)[0], site.perimeter)
    assert fetched.coverage.equals(site.perimeter)


def test_folder_is_ordered_and_names_what_it_passed_over(make_raster, site, tmp_path, caplog) -> None:
    make_raster("in/b_20251019.tif")
    make_raster("in/a_20251019.tif")
    make_raster("in/c_20250822.TIF")
    make_raster("in/undated.tif")
    make_raster("in/deeper/d_20250101.tif")
    make_raster("in/far_20250822.tif", transform=Affine(0.3, 0, CENTRE[0] + 9000, 0, -0.3, CENTRE[1]))
    (tmp_path / "in" / "broken_20250101.tif").write_bytes(b"II*\0")
    (tmp_path / "in" / "readme.txt").write_text("hello")
    source = LocalSource(tmp_path / "in", cache=tmp_path / "cache")
    found = source.search(site)
    assert [scene.id for scene in found] == ["c_20250822", "a_20251019", "b_20251019"]
    assert [Path(problem.href).name for problem in source.problems] == ["broken_20250101.tif", "undated.tif"]
    assert caplog.text.count("passed over") == 2
    assert [s.id for s in source.search(site, date(2025, 9, 1), date(2025, 12, 1))] == ["a_20251019", "b_20251019"]


def test_folder_without_a_scene_says_what_it_holds(make_raster, site, tmp_path) -> None:
    make_raster("in/a_20250822.tif")
    make_raster("in/undated.tif")
    source = LocalSource(tmp_path / "in", cache=tmp_path)
    with pytest.raises(NoSceneError, match=r"local:in has no scene of site memphis of 2024-01-01; it has 2025-08-22;"):
        source.search(site, date(2024, 1, 1), date(2024, 1, 1))
    with pytest.raises(NoSceneError, match=r"holds 1 scenes, none of site memphis, the nearest is 9.\d km away"):
        source.search(make_site(area_around(x_m=9900)))


def test_folder_of_unusable_images_is_an_error_that_names_them(make_raster, site, tmp_path) -> None:
    make_raster("in/undated.tif")
    make_raster("in/plain_20250822.tif", crs=None, transform=None)
    with pytest.raises(
        SceneError, match=r"no usable scene: .*plain_20250822.tif has no geo.*undated.tif does not say"
    ) as e:
        LocalSource(tmp_path / "in", cache=tmp_path).search(site)
    assert not isinstance(e.value, NoSceneError)


def test_scenes_of_one_name_are_told_apart(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    make_raster("in/a_20250822.tif")
    make_raster("in/a_20250822.jp2", driver="JP2OpenJPEG")
    found = LocalSource(tmp_path / "in", cache=tmp_path).search(site)
    assert len({scene.id for scene in found}) == 2


def test_paths_that_are_no_source(make_raster: MakeRaster, tmp_path: Path, site: Site) -> None:
    with pytest.raises(SourceError, match=r"gone.tif does not exist"):
        LocalSource(tmp_path / "gone.tif", cache=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no image"):
        LocalSource(tmp_path / "empty", cache=tmp_path).search(site)
    with pytest.raises(SourceError, match="for one image only"):
        LocalSource(tmp_path / "empty", cache=tmp_path, acquired=date(2025, 1, 1))


def test_site_that_reaches_beyond_the_image_is_covered_in_part(make_raster, tmp_path) -> None:
    site = make_site(area_around(x_m=30, half_x_m=30, half_y_m=10))
    source = LocalSource(make_raster(), cache=tmp_path / "cache")
    fetched = source.fetch(source.search(site)[0], site.perimeter)
    assert fetched.coverage.area / site.perimeter.area == pytest.approx(0.5, abs=0.01)


def test_a_delivery_with_subfolders_is_read_when_asked_for(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    make_raster("in/order/a_20250822.tif")
    make_raster("in/order/deep/b_20250101.tif")
    make_raster("in/other/a_20250822.tif")
    with pytest.raises(SourceError, match=r"holds no image .*; its subfolders do, local:.*in/\*\* reads them too"):
        LocalSource(tmp_path / "in", cache=tmp_path).search(site)
    source = LocalSource(tmp_path / "in" / "**", cache=tmp_path / "cache")
    found = source.search(site)
    assert [scene.acquired.date() for scene in found] == [date(2025, 1, 1), date(2025, 8, 22), date(2025, 8, 22)]
    assert len({scene.id for scene in found}) == 3
    assert source.name == "local:in/**"
    named = LocalSource(tmp_path / "in" / "*" / "?_20250822.tif", cache=tmp_path).search(site)
    assert len(named) == 2


def test_a_pattern_gives_site_and_date(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    make_raster("in/memphis/2025-08-22/rgb.tif", tags={"TIFFTAG_DATETIME": "2026:01:01 00:00:00"})
    make_raster("in/memphis/2025_10_01/memphis_20251001_v20260101.tif")
    make_raster("in/memphis/2025-13-01/rgb.tif")
    make_raster("in/southaven/2025-08-23/rgb.tif")
    source = LocalSource(tmp_path / "in" / "{site}" / "{date}" / "*", cache=tmp_path / "cache")
    assert [(one.acquired.date(), one.acquired_from) for one in source.search(site)] == [
        (date(2025, 8, 22), "folder pattern"),
        (date(2025, 10, 1), "file name"),
    ]
    make_raster("in/memphis/2025-09-09/b_20240101.tif")
    assert len(source.search(site)) == 2
    assert "2024-01-01 (file name) by its own account, not on the 2025-09-09" in source.problems[0].reason
    with pytest.raises(NoSceneError, match=r"in holds no image that fits \{site\}_\*.tif for site memphis"):
        LocalSource(tmp_path / "in" / "{site}_*.tif", cache=tmp_path).search(site)
    with pytest.raises(SourceError, match="does not exist"):
        LocalSource(tmp_path / "gone" / "{date}" / "*.tif", cache=tmp_path)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(make_raster, site: Site, tmp_path: Path) -> None:
    path = make_raster("in/{site}_20250822.tif")
    make_raster("in/memphis_20250822.tif")
    [scene] = LocalSource(path, cache=tmp_path).search(site)
    assert scene.href == str(path)
