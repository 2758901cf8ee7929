import json
import socket
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import rasterio
import rasterio.shutil
import shapely
from rasterio import Affine

from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.stac import StacSource
from pipelines.sites import Site
from tests.pipelines.conftest import FileServer
from tests.pipelines.scenes.conftest import CENTRE, MakeRaster, area_around, noise

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def item_json(item_id: str, href: str, geometry: shapely.Polygon, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "geometry": shapely.geometry.mapping(geometry),
        "bbox": list(geometry.bounds),
        "properties": {"datetime": "2025-08-22T16:00:00Z", "gsd": 0.3} | properties,
        "links": [],
        "assets": {
            "thumbnail": {"href": "./thumb.png", "type": "image/png", "roles": ["thumbnail"]},
            "image": {"href": href, "type": COG, "roles": ["data"]},
        },
    }


def catalog_json(*links: tuple[str, str], kind: str = "Catalog", **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "stac_version": "1.0.0",
        "id": "cat",
        "description": "x",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    } | fields


def put(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def catalog(tmp_path: Path, make_raster: MakeRaster) -> Path:
    """Two items of the place under a collection, one elsewhere, and links that run in circles."""
    make_raster("stac/coll/a.tif")
    make_raster("stac/coll/b/b.tif")
    here, elsewhere = area_around(half_x_m=30, half_y_m=24), area_around(x_m=9000)
    put(tmp_path / "stac/coll/a.json", item_json("a", "./a.tif", here, datetime="2025-10-19T16:00:00Z"))
    put(tmp_path / "stac/coll/b/b.json", item_json("b", "b.tif", here, license="MIT", **{"overwatt:rendered": True}))
    put(tmp_path / "stac/coll/c.json", item_json("c", "./c.tif", elsewhere))
    put(
        tmp_path / "stac/coll/collection.json",
        catalog_json(
            ("item", "./a.json"), ("item", "./b/b.json"), ("item", "./c.json"), ("child", "../catalog.json"),
            ("root", "../catalog.json"), kind="Collection", license="CC-BY-4.0", providers=[{"name": "Vendor"}],
            extent={"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        ),
    )  # fmt: skip
    return put(tmp_path / "stac/catalog.json", catalog_json(("child", "./coll/collection.json")))


@pytest.fixture(params=["disk", "http"])
def source(request: Any, catalog: Path, server: FileServer, tmp_path: Path) -> StacSource:
    href = str(catalog) if request.param == "disk" else f"{server.url}/stac/catalog.json"
    return StacSource(href, cache=tmp_path / "cache")


def test_items_of_the_site_by_date(source: StacSource, site: Site) -> None:
    b, a = source.search(site)
    assert [b.id, a.id] == ["b", "a"]
    assert b.acquired == datetime(2025, 8, 22, 16, tzinfo=UTC)
    assert b.source.startswith("stac:")
    assert b.acquired_from == "item"
    assert b.rendered
    assert not a.rendered
    # What the item does not say, its collection does.
    assert (b.licence, a.licence, a.attribution) == ("MIT", "CC-BY-4.0", "Vendor")
    assert [s.id for s in source.search(site, date(2025, 9, 1))] == ["a"]
    assert [s.id for s in source.search(site, date(2025, 8, 22), date(2025, 8, 22))] == ["b"]
    with pytest.raises(NoSceneError, match="no scene of site memphis up to 2024-12-31; it has 2025-08-22, 2025-10-19"):
        source.search(site, None, date(2024, 12, 31))


def test_relative_assets_are_fetched_and_fetched_once(source: StacSource, site: Site, server: FileServer) -> None:
    scene = source.search(site)[0]
    fetched = source.fetch(scene, site.perimeter)
    with rasterio.open(fetched.path) as cog:
        assert (cog.read() == noise(3)).all()
        assert cog.tags()["OVERWATT_RENDERED"] == "YES"
    assert fetched.coverage.equals(site.perimeter)
    sent = server.sent.get("/stac/coll/b/b.tif", 0)
    assert source.fetch(scene, site.perimeter) == fetched
    # One byte asks whether the file is still the same.
    assert server.sent.get("/stac/coll/b/b.tif", 0) <= sent + 1


def test_only_the_area_of_a_remote_cog_is_read(tmp_path, make_raster, server, site) -> None:
    size = (3000, 3000)
    transform = Affine(0.3, 0, CENTRE[0] - 450, 0, -0.3, CENTRE[1] + 450)
    plain = make_raster("plain.tif", noise(3, size=size), transform=transform)
    rasterio.shutil.copy(plain, tmp_path / "big.tif", driver="COG", COMPRESS="NONE")
    put(tmp_path / "big.json", item_json("big", "./big.tif", area_around()))
    source = StacSource(f"{server.url}/big.json", cache=tmp_path / "cache")
    fetched = source.fetch(source.search(site)[0], site.perimeter)
    with rasterio.open(fetched.path) as cog:
        assert cog.width * cog.height < 0.05 * size[0] * size[1]
    assert server.sent["/big.tif"] < 0.2 * (tmp_path / "big.tif").stat().st_size
    # No sidecar files are asked for beside it.
    assert {path for path in server.requests if path != "/big.tif"} == {"/big.json"}


def test_replaced_remote_file_is_read_anew(tmp_path, make_raster, server, site) -> None:
    make_raster("one.tif")
    put(tmp_path / "one.json", item_json("one", "./one.tif", area_around()))
    source = StacSource(f"{server.url}/one.json", cache=tmp_path / "cache")
    first = source.fetch(source.search(site)[0], site.perimeter)
    make_raster("one.tif", 250 - noise(3))
    second = source.fetch(source.search(site)[0], site.perimeter)
    assert second.path != first.path
    with rasterio.open(second.path) as cog:
        assert (cog.read() == 250 - noise(3)).all()


def test_keys_in_addresses_are_not_written_down(tmp_path, make_raster, server, site) -> None:
    make_raster("one.tif")
    put(tmp_path / "one.json", item_json("one", f"{server.url}/one.tif?sig=secret", area_around()))
    source = StacSource(f"{server.url}/one.json?token=secret", cache=tmp_path / "cache")
    scene = source.search(site)[0]
    fetched = source.fetch(scene, site.perimeter)
    assert "secret" not in fetched.item_path.read_text()
    assert "secret" not in scene.source
    with pytest.raises(SourceError) as error:
        StacSource(f"{server.url}/gone.json?token=secret", cache=tmp_path).search(site)
    assert "secret" not in str(error.value)


def refused(href: str, site: Site, cache: Path) -> str:
    started = time.monotonic()
    with pytest.raises(SourceError) as error:
        StacSource(href, cache=cache).search(site)
    assert time.monotonic() - started < 15
    message = str(error.value)
    assert "\n" not in message
    return message


def test_server_that_answers_404(server: FileServer, site: Site, tmp_path: Path) -> None:
    message = refused(f"{server.url}/gone.json", site, tmp_path)
    assert message == f"{server.url}/gone.json: the server answers 404 Not Found; check the address"
    assert server.requests == ["/gone.json"]


def test_server_that_answers_500_is_asked_again(server: FileServer, site: Site, catalog: Path, tmp_path: Path) -> None:
    server.status["/stac/catalog.json"] = [500] * 9
    message = refused(f"{server.url}/stac/catalog.json", site, tmp_path)
    assert "the server answers 500 Internal Server Error; it did so 4 times, try again later" in message
    assert server.requests == ["/stac/catalog.json"] * 4


def test_server_that_recovers_is_used(server: FileServer, site: Site, catalog: Path, tmp_path: Path) -> None:
    server.status["/stac/catalog.json"] = [503, 429]
    server.status["/stac/coll/a.json"] = [502]
    assert len(StacSource(f"{server.url}/stac/catalog.json", cache=tmp_path).search(site)) == 2


def test_one_broken_link_is_not_a_hole_in_silence(server, site, catalog, tmp_path) -> None:
    (catalog.parent / "coll/a.json").unlink()
    assert "a.json: the server answers 404" in refused(f"{server.url}/stac/catalog.json", site, tmp_path)
    assert "a.json does not exist" in refused(str(catalog), site, tmp_path)


def test_port_that_nobody_listens_on(site: Site, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "cannot be reached" in refused(f"http://127.0.0.1:{port}/catalog.json", site, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>login</html>", "is not JSON (line 1, column 1"),
        ("", "is not JSON"),
        ("[1, 2]", "is no STAC catalog, collection or item"),
        ('{"type": "FeatureCollection", "features": []}', "is no STAC catalog, collection or item"),
        ('{"type": "Catalog", "stac_version": "1.0.0", "conformsTo": ["x"], "links": []}', "a STAC API"),
    ],
)
@pytest.mark.parametrize("where", ["disk", "http"])
def test_answers_that_are_no_catalog(server, site, tmp_path, text, message, where) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    assert message in refused(str(path) if where == "disk" else f"{server.url}/odd.json", site, tmp_path)


def test_missing_catalog_on_disk(site: Site, tmp_path: Path) -> None:
    assert "nothing.json does not exist" in refused(str(tmp_path / "nothing.json"), site, tmp_path)


def test_catalog_of_a_server_may_not_name_files_of_this_machine(server, site, tmp_path) -> None:
    put(tmp_path / "cat.json", catalog_json(("item", "file:///etc/item.json")))
    assert "is not on a web server" in refused(f"{server.url}/cat.json", site, tmp_path)
    put(tmp_path / "cat.json", catalog_json(("item", "s3://bucket/item.json")))
    assert "cannot be read" in refused(str(tmp_path / "cat.json"), site, tmp_path)


@pytest.mark.parametrize("answer", [404, 500, "no ranges", "no image"])
def test_remote_image_that_cannot_be_read(tmp_path, make_raster, server, site, answer) -> None:
    path = make_raster("one.tif")
    put(tmp_path / "one.json", item_json("one", "./one.tif", area_around()))
    source = StacSource(f"{server.url}/one.json", cache=tmp_path / "cache")
    scene = source.search(site)[0]
    expected = {
        404: "404 Not Found",
        500: "500 Internal Server Error",
        "no ranges": "range requests",
        "no image": "cannot be read",
    }[answer]
    if isinstance(answer, int):
        server.status["/one.tif"] = [answer] * 9
    elif answer == "no ranges":
        server.ranges = False
    else:
        path.write_bytes(b"<html>login</html>")
    with pytest.raises(SourceError, match=expected) as error:
        source.fetch(scene, site.perimeter)
    assert f"{server.url}/one.tif" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_local_asset_is_named(tmp_path: Path, site: Site) -> None:
    put(tmp_path / "one.json", item_json("one", "./gone.tif", area_around()))
    source = StacSource(str(tmp_path / "one.json"), cache=tmp_path / "cache")
    with pytest.raises(SceneError, match=r"gone.tif"):
        source.fetch(source.search(site)[0], site.perimeter)


def test_undated_item_is_an_error_alone_and_a_problem_among_others(catalog: Path, site: Site, tmp_path: Path) -> None:
    broken = item_json("undated", "./a.tif", area_around())
    del broken["properties"]["datetime"]
    put(catalog.parent / "undated.json", broken)
    with pytest.raises(SceneError, match=r"undated.json: it has no 'datetime'"):
        StacSource(str(catalog.parent / "undated.json"), cache=tmp_path).search(site)
    put(catalog, catalog_json(("child", "./coll/collection.json"), ("item", "./undated.json")))
    source = StacSource(str(catalog), cache=tmp_path)
    assert [scene.id for scene in source.search(site)] == ["b", "a"]
    assert [Path(problem.href).name for problem in source.problems] == ["undated.json"]


def test_range_of_minutes_is_an_acquisition_a_range_of_months_is_not(tmp_path: Path, site: Site) -> None:
    when = {"datetime": None, "start_datetime": "2025-08-22T16:00:00Z"}
    minutes = when | {"end_datetime": "2025-08-22T16:02:00Z"}
    put(tmp_path / "one.json", item_json("one", "./a.tif", area_around(), **minutes))
    (scene,) = StacSource(str(tmp_path / "one.json"), cache=tmp_path).search(site, date(2025, 8, 22), date(2025, 8, 22))
    assert scene.acquired == datetime(2025, 8, 22, 16, 2, tzinfo=UTC)
    assert scene.acquired_from == "item end_datetime"
    months = when | {"end_datetime": "2025-11-22T16:02:00Z"}
    put(tmp_path / "one.json", item_json("one", "./a.tif", area_around(), **months))
    with pytest.raises(SceneError, match="no single acquisition"):
        StacSource(str(tmp_path / "one.json"), cache=tmp_path).search(site)


def asset(role: str | None = None, media: str | None = COG, href: str = "./x.tif") -> dict[str, Any]:
    return {"href": href} | ({"roles": [role]} if role else {}) | ({"type": media} if media else {})


@pytest.mark.parametrize(
    ("assets", "chosen"),
    [
        ({"data": asset(), "visual": asset(href="./v.tif")}, "v.tif"),
        ({"analytic": asset("data"), "rgb": asset("visual", href="./v.tif")}, "v.tif"),
        (
            {"ortho": asset("data", "image/tiff; application=geotiff", "./v.tif"), "meta": asset(media="text/xml")},
            "v.tif",
        ),
        ({"only": asset(media=None, href="./v.tif")}, "v.tif"),
        ({"preview": asset("overview", "image/jpeg", "./p.jpg")}, None),
        ({"red": asset("data"), "green": asset("data"), "blue": asset("data")}, None),
    ],
)
def test_which_asset_is_the_image(tmp_path: Path, site: Site, assets: Any, chosen: str | None) -> None:
    put(tmp_path / "one.json", item_json("one", "", area_around()) | {"assets": assets})
    source = StacSource(str(tmp_path / "one.json"), cache=tmp_path)
    if chosen is None:
        with pytest.raises(SceneError, match=r"none of its assets|cannot be told"):
            source.search(site)
    else:
        assert Path(source.search(site)[0].href).name == chosen


def test_gsd_of_the_asset_then_the_item_then_the_raster(tmp_path: Path, make_raster: MakeRaster, site: Site) -> None:
    make_raster("one.tif")
    document = item_json("one", "./one.tif", area_around(), gsd=0.4)
    source = StacSource(str(put(tmp_path / "one.json", document)), cache=tmp_path)
    assert source.search(site)[0].gsd_m == 0.4
    document["assets"]["image"]["gsd"] = 0.35
    put(tmp_path / "one.json", document)
    assert source.search(site)[0].gsd_m == 0.35
    del document["assets"]["image"]["gsd"], document["properties"]["gsd"]
    put(tmp_path / "one.json", document)
    assert source.search(site)[0].gsd_m == pytest.approx(0.3, rel=1e-3)


def test_band_names_of_both_stac_versions(tmp_path: Path, make_raster: MakeRaster, site: Site) -> None:
    for field, name in (("bands", "name"), ("bands", "eo:common_name"), ("eo:bands", "common_name")):
        document = item_json("one", "./one.tif", area_around())
        document["assets"]["image"][field] = [{name: colour} for colour in ("blue", "green", "red", "nir")]
        source = StacSource(str(put(tmp_path / "one.json", document)), cache=tmp_path)
        assert source.search(site)[0].declared.rgb_bands == (3, 2, 1)


def test_item_without_geometry_is_placed_by_its_box_or_refused(tmp_path: Path, site: Site) -> None:
    document = item_json("one", "./one.tif", area_around()) | {"geometry": None}
    source = StacSource(str(put(tmp_path / "one.json", document)), cache=tmp_path)
    assert source.search(site)[0].footprint.equals(shapely.box(*area_around().bounds))
    put(tmp_path / "one.json", document | {"bbox": None})
    with pytest.raises(SceneError, match="it has no place"):
        source.search(site)
