"""Dated tiles from a plain web server: what is asked for, how often, and what a bad answer does."""

import hashlib
import io
import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from flows.cli import main
from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.cache import MARGIN_M
from pipelines.scenes.sources import open_source
from pipelines.scenes.tile_grid import TileRange, choose_level, named_levels, tiles_around
from pipelines.scenes.tiles import TileSource
from pipelines.sites import new_site
from tests.pipelines.conftest import Answer, Asked, FileServer
from tests.pipelines.scenes.conftest import area_around, lonlat, make_site

AREA = area_around(half_x_m=40, half_y_m=35)
LEVEL = choose_level(named_levels("WebMercatorQuad", 256), AREA.centroid, 0.3)[0]
TILES = tiles_around(LEVEL, AREA, MARGIN_M)
TEMPLATE = "/colossus2/{date}/{z}/{x}/{y}.png"


def picture(seed: int, mode: str = "RGB", form: str = "PNG", size: int = 256) -> bytes:
    pixels = np.random.default_rng(seed).integers(1, 250, (size, size, 4), np.uint8)
    pixels[..., 3] = 255
    image = Image.fromarray(pixels, "RGBA")
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    content = io.BytesIO()
    image.save(content, form)
    return content.getvalue()


def put_tiles(folder: Path, tiles: TileRange = TILES, **options: Any) -> None:
    for number, (column, row) in enumerate(tiles):
        path = folder / LEVEL.id / str(column) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, **options))


def tile_path(number: int, day: str = "2025-08-22") -> str:
    column, row = list(TILES)[number]
    return f"/colossus2/{day}/{LEVEL.id}/{column}/{row}.png"


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    folder = tmp_path / "colossus2" / "2025-08-22"
    put_tiles(folder)
    return folder


def describe(tmp_path: Path, server: FileServer, **fields: Any) -> Path:
    path = tmp_path / "archive.json"
    about = {"template": server.url + TEMPLATE, "licence": "bought", "sites": {"memphis": ["2025-08-22"]}}
    path.write_text(json.dumps(about | fields))
    return path


@pytest.fixture
def source(pyramid: Path, server: FileServer, tmp_path: Path) -> TileSource:
    return TileSource(str(describe(tmp_path, server)), cache=tmp_path / "cache")


def fetch(source: TileSource, site: Any = None) -> Any:
    site = site or make_site(AREA)
    return source.fetch(source.search(site)[0], site.perimeter)


def test_the_descriptor_of_a_pyramid_by_site_and_date(server: FileServer, tmp_path: Path) -> None:
    path = describe(
        tmp_path,
        server,
        template=server.url + "/{site}/{date}/{z}/{x}/{y}.jpg",
        attribution="Imagery (c) Vendor",
        price="owned",
        released="2025-12-01",
        native_gsd_m=0.5,
        sites={
            "memphis": {
                "called": "colossus 2",
                "dates": [
                    "2025-08-22",
                    {"acquired": "2025-09", "date": "sept", "released": "2025-10-03", "off_nadir_deg": 21},
                    "2025-10-01/2025-10-14",
                ],
            },
            "elsewhere": ["2025-01-01"],
        },
    )
    source = TileSource(str(path), cache=tmp_path)
    first, september, october = source.search(make_site(AREA))
    assert (first.acquired, first.earliest) == (datetime(2025, 8, 22, tzinfo=UTC), None)
    assert (september.earliest, september.acquired) == (
        datetime(2025, 9, 1, tzinfo=UTC),
        datetime(2025, 9, 30, tzinfo=UTC),
    )
    assert (october.earliest, october.acquired.day) == (datetime(2025, 10, 1, tzinfo=UTC), 14)
    assert first.href == f"{server.url}/colossus%202/2025-08-22/{{z}}/{{x}}/{{y}}.jpg"
    assert "/sept/" in september.href
    assert (first.released, september.released) == (date(2025, 12, 1), date(2025, 10, 3))
    assert (first.licence, first.attribution, first.price) == ("bought", "Imagery (c) Vendor", "owned")
    # The tiles are finer than what the sensor saw.
    assert first.gsd_m == 0.5
    assert september.off_nadir_deg == 21
    assert len({scene.id for scene in (first, september, october)}) == 3
    assert server.requests == []
    with pytest.raises(NoSceneError, match=r"has 2025-08-22, 2025-09-01 to 2025-09-30, 2025-10-01 to 2025-10-14"):
        source.search(make_site(AREA), date(2024, 1, 1), date(2024, 1, 2))


def test_a_site_that_the_descriptor_does_not_name(server: FileServer, tmp_path: Path) -> None:
    path = describe(tmp_path, server, sites={"elsewhere": ["2025-01-01"]})
    with pytest.raises(NoSceneError, match=r"no tiles of site memphis; 'sites' in .*archive.json names elsewhere"):
        TileSource(str(path), cache=tmp_path).search(make_site(AREA))


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ('["2025-08-22", {"acquired": "2025-10-19", "released": "2025-11-01"}]', "dates.json"),
        ('{"memphis": ["2025-08-22", "2025-10-19"], "other": []}', "by-site.json"),
        ("# ours\n2025-08-22\n2025-10-19\n", "dates.txt"),
    ],
)
@pytest.mark.parametrize("where", ["disk", "http"])
def test_dates_are_read_from_a_file(server, tmp_path, listed: str, name: str, where: str) -> None:
    (tmp_path / name).write_text(listed)
    at = name if where == "disk" else f"{server.url}/{name}"
    for fields in ({"sites": {"memphis": at}}, {"sites": {}, "dates_at": at}):
        source = TileSource(str(describe(tmp_path, server, **fields)), cache=tmp_path)
        assert [f"{s.acquired:%m-%d}" for s in source.search(make_site(AREA))] == ["08-22", "10-19"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"licence": None}, "archive.json: 'licence'"),
        ({"licens": "x"}, "there is no field 'licens'; fields are attribution"),
        ({"template": "https://x/{z}/{x}.png"}, "'template': it needs {z}, {x} and {y}"),
        ({"template": "https://{s}.x.org/{z}/{x}/{y}.png"}, "{s} is no placeholder"),
        ({"template": "ftp://x/{z}/{x}/{y}.png"}, "'template': it must begin with http"),
        (
            {"sites": {"memphis": ["22.8.2025"]}},
            "memphis.dates.0.acquired': '22.8.2025' is no date of acquisition",
        ),
        ({"sites": {"memphis": ["2025-13"]}}, "'sites.memphis.dates.0.acquired': '2025-13' is no date"),
        ({"sites": {"memphis": ["2025-09-02/2025-09-01"]}}, "runs backwards"),
        ({"sites": {}}, "says no dates; add 'sites'"),
        ({"tile_size": 100}, "'tile_size': input should be 256 or 512"),
        ({"price": "cheap"}, "'price': input should be 'free'"),
        ({"max_zoom": 3, "min_zoom": 5}, "'max_zoom' is below 'min_zoom'"),
        ({"wmts": "https://x/caps.xml"}, "give either 'template' or 'wmts'"),
        ({"concurrency": 0}, "'concurrency': input should be greater than or equal to 1"),
        ({"released": "soon"}, "'released': 'soon' is no day such as 2025-09-30"),
    ],
)
def test_a_broken_descriptor_is_answered_field_by_field(server, tmp_path, fields, message: str) -> None:
    path = describe(tmp_path, server, **fields)
    with pytest.raises(SourceError) as error:
        TileSource(str(path), cache=tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_descriptor_without_licence_or_that_is_no_json_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in [
        ("{}", "'licence' is missing; say under which terms"),
        ("{", "is not JSON"),
        ("[]", "a.json"),
    ]:
        path.write_text(text)
        with pytest.raises(SourceError, match=message):
            TileSource(str(path), cache=tmp_path)
    with pytest.raises(SourceError, match=r"b.json does not exist"):
        TileSource(str(tmp_path / "b.json"), cache=tmp_path)


def test_each_tile_is_asked_for_once_and_a_second_fetch_gives_the_same_bytes(source, server, tmp_path) -> None:
    fetched = fetch(source)
    assert Counter(server.requests) == Counter(tile_path(number) for number in range(TILES.count))
    kept = fetched.path.read_bytes(), fetched.item_path.read_bytes()
    again = fetch(TileSource(str(tmp_path / "archive.json"), cache=tmp_path / "cache"))
    assert len(server.requests) == TILES.count
    assert (again.path.read_bytes(), again.item_path.read_bytes()) == kept
    # Made anew from the kept tiles, and then from the server: the same bytes.
    fetched.path.unlink()
    assert (fetch(source).path.read_bytes(), fetched.item_path.read_bytes()) == kept
    assert len(server.requests) == TILES.count
    fresh = fetch(TileSource(str(tmp_path / "archive.json"), cache=tmp_path / "fresh"))
    assert (fresh.path.read_bytes(), fresh.item_path.read_bytes()) == kept


def test_pixels_and_georeference_are_those_of_the_tiles(source: TileSource, pyramid: Path) -> None:
    fetched = fetch(source)
    with rasterio.open(fetched.path) as dataset:
        assert dataset.crs.to_epsg() == 3857
        assert dataset.dtypes == ("uint8",) * 3
        pixels, origin = dataset.read(), dataset.transform
        assert (dataset.dataset_mask() == 255).all()
    assert fetched.coverage.symmetric_difference(AREA).area < 1e-12
    column, row = list(TILES)[TILES.count // 2]
    expected = np.moveaxis(np.asarray(Image.open(pyramid / LEVEL.id / str(column) / f"{row}.png")), -1, 0)
    left, top = ~origin @ (LEVEL.transform(column, row) @ (0, 0))
    assert left == pytest.approx(round(left), abs=1e-6)
    assert top == pytest.approx(round(top), abs=1e-6)
    x, y = round(left), round(top)
    assert (pixels[:, y : y + 256, x : x + 256] == expected).all()


@pytest.mark.parametrize(
    ("mode", "form"), [("P", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("RGB", "JPEG"), ("RGBA", "WEBP")]
)
def test_every_way_to_pack_a_picture(server: FileServer, tmp_path: Path, mode: str, form: str) -> None:
    put_tiles(tmp_path / "colossus2" / "2025-08-22", mode=mode, form=form)
    fetched = fetch(TileSource(str(describe(tmp_path, server)), cache=tmp_path / "cache"))
    with rasterio.open(fetched.path) as dataset:
        assert dataset.count == 3
        assert dataset.read().std() > 10


def test_tiles_of_512_pixels(server: FileServer, tmp_path: Path) -> None:
    level, size_m = choose_level(named_levels("WebMercatorQuad", 512), AREA.centroid, 0.3)
    for number, (column, row) in enumerate(tiles_around(level, AREA, MARGIN_M)):
        path = tmp_path / "colossus2" / "2025-08-22" / level.id / str(column) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, size=512))
    path = describe(tmp_path, server, tile_size=512)
    fetched = fetch(TileSource(str(path), cache=tmp_path / "cache"))
    assert fetched.scene.gsd_m == pytest.approx(size_m)
    wrong = TileSource(str(describe(tmp_path, server, max_zoom=int(level.id))), cache=tmp_path / "cache")
    with pytest.raises(SourceError, match="a tile is 512 x 512 pixels where 256 x 256 are expected: set 'tile_size'"):
        fetch(wrong)


def test_half_a_pyramid_is_covered_half_and_what_was_missing_is_asked_for_another_day(
    source, pyramid, server, tmp_path, caplog
) -> None:
    middle = (TILES.left + TILES.right) // 2
    for column, row in TILES:
        if column > middle:
            (pyramid / LEVEL.id / str(column) / f"{row}.png").rename(tmp_path / f"{column}-{row}")
    fetched = fetch(source)
    missing = sum(column > middle for column, _ in TILES)
    assert f"{missing} of {TILES.count} tiles are missing" in caplog.text
    edge = LEVEL.bounds(middle, TILES.top)[2]
    shown = rasterio.warp.transform_bounds("EPSG:3857", "OGC:CRS84", *LEVEL.bounds(middle, TILES.top))[2]
    assert fetched.coverage.bounds[2] == pytest.approx(shown, abs=1e-5)
    with rasterio.open(fetched.path) as dataset:
        column = round((edge - dataset.transform.c) / LEVEL.cell)
        mask = dataset.dataset_mask()
        assert (mask[:, :column] == 255).all()
        assert (mask[:, column:] == 0).all()
    fetch(source)
    assert len(server.requests) == TILES.count
    for column, row in TILES:
        if column > middle:
            (tmp_path / f"{column}-{row}").rename(pyramid / LEVEL.id / str(column) / f"{row}.png")
    (kept,) = (tmp_path / "cache").rglob("*.tiles")
    with closing(sqlite3.connect(kept)) as connection, connection:
        connection.execute("UPDATE tiles SET asked = asked - 90000")
    whole = fetch(source)
    assert len(server.requests) == TILES.count + missing
    assert whole.coverage.symmetric_difference(AREA).area < 1e-12


@pytest.mark.parametrize("kind", ["204", "transparent", "one colour", "sha256", "bytes"])
def test_tiles_that_show_nothing_are_not_covered(source, pyramid, server, tmp_path, kind: str) -> None:
    hole = TILES.count // 2
    column, row = list(TILES)[hole]
    path = pyramid / LEVEL.id / str(column) / f"{row}.png"
    fields: dict[str, Any] = {}
    if kind == "204":
        server.before = lambda asked: Answer(204) if asked.path == tile_path(hole) else None
    elif kind == "transparent":
        Image.new("RGBA", (256, 256), (200, 10, 10, 0)).save(path)
    elif kind == "one colour":
        Image.new("RGB", (256, 256), (255, 255, 255)).save(path)
    elif kind == "sha256":
        fields = {"no_image": {"sha256": [hashlib.sha256(path.read_bytes()).hexdigest()]}}
    else:
        path.write_bytes(path.read_bytes() + b"\0" * 7)
        fields = {"no_image": {"bytes": [path.stat().st_size]}}
    fetched = fetch(TileSource(str(describe(tmp_path, server, **fields)), cache=tmp_path / "cache"))
    with rasterio.open(fetched.path) as dataset:
        left, top = ~dataset.transform @ (LEVEL.transform(column, row) @ (0, 0))
        mask = dataset.dataset_mask()
        inside = mask[max(0, round(top)) : round(top) + 256, max(0, round(left)) : round(left) + 256]
        assert (inside == 0).all()
        assert (mask == 255).sum() == mask.size - inside.size


def test_dark_ground_is_no_filled_up_tile(source: TileSource, pyramid: Path) -> None:
    # A shadow at the edge of a tile, beside tiles that are whole.
    column, row = list(TILES)[TILES.count // 2]
    path = pyramid / LEVEL.id / str(column) / f"{row}.png"
    pixels = np.array(Image.open(path))
    pixels[:100, :] = 0
    Image.fromarray(pixels).save(path)
    assert fetch(source).coverage.symmetric_difference(AREA).area < 1e-12


def test_no_tile_at_all_is_one_sentence(server: FileServer, tmp_path: Path) -> None:
    source = TileSource(str(describe(tmp_path, server)), cache=tmp_path / "cache")
    with pytest.raises(SceneError) as error:
        fetch(source)
    assert f"has no imagery of the area on 2025-08-22: none of {TILES.count} tiles of level {LEVEL.id}" in str(
        error.value
    )
    assert f"{server.url}/colossus2/2025-08-22/{LEVEL.id}/" in str(error.value)
    put_tiles(tmp_path / "colossus2" / "2025-08-22")
    for path in (tmp_path / "colossus2").rglob("*.png"):
        Image.new("RGB", (256, 256), (0, 0, 0)).save(path)
    with pytest.raises(SceneError, match="has no imagery of the area"):
        fetch(TileSource(str(describe(tmp_path, server)), cache=tmp_path / "other"))


def test_a_busy_server_is_asked_again(source: TileSource, server: FileServer) -> None:
    server.status[tile_path(3)] = [429, 503]
    fetch(source)
    assert Counter(server.requests)[tile_path(3)] == 3
    assert len(server.requests) == TILES.count + 2


@pytest.mark.parametrize("kind", ["html", "cut off", "16 bits"])
def test_what_is_no_picture_is_never_kept(source, pyramid, server, kind: str) -> None:
    good = picture(1)
    body = {"html": b"<html>log in</html>", "cut off": good[: len(good) // 2], "16 bits": picture(1, "I;16")}[kind]
    answers = [Answer(200, body, {"Content-Type": "text/html"})] * 40

    others_asked = threading.Event()

    def before(asked: Asked) -> Answer | None:
        if len(set(server.requests)) == TILES.count:
            others_asked.set()
        if answers and asked.path == tile_path(5):
            others_asked.wait(60)  # or the four tries may be over before any other tile is kept
            return answers.pop()
        return None

    server.before = before
    expected = {"html": "no image .text/html, 19 bytes", "cut off": "a damaged image", "16 bits": "not a picture of 8"}
    with pytest.raises(SourceError, match=expected[kind]) as error:
        fetch(source)
    assert "\n" not in str(error.value)
    answers.clear()
    before_mended = len(server.requests)
    fetched = fetch(source)
    assert fetched.coverage.symmetric_difference(AREA).area < 1e-12
    assert len(server.requests) - before_mended < TILES.count


def test_a_tile_that_is_whole_at_the_second_try_is_used(source: TileSource, server: FileServer) -> None:
    answers = [Answer(200, b"<html>busy</html>")]
    server.before = lambda asked: answers.pop() if answers and asked.path == tile_path(5) else None
    fetch(source)
    assert Counter(server.requests)[tile_path(5)] == 2


def test_a_fetch_that_was_killed_goes_on_where_it_was(pyramid, server, tmp_path) -> None:
    path = describe(tmp_path, server, concurrency=3)
    let_go = threading.Event()

    def before(asked: Asked) -> Answer | None:
        if len(server.requests) > 8:
            let_go.wait(60)
        return None

    server.before = before
    code = (
        "import pickle, sys; from pathlib import Path; from pipelines.scenes.tiles import TileSource;"
        "source = TileSource(sys.argv[1], cache=Path(sys.argv[2]));"
        "site = pickle.loads(Path(sys.argv[3]).read_bytes());"
        "source.fetch(source.search(site)[0], site.perimeter)"
    )
    (tmp_path / "site").write_bytes(pickle.dumps(make_site(AREA)))
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "cache"), str(tmp_path / "site")]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3], env=dict(os.environ))
    until = time.monotonic() + 120
    while len(server.requests) < 11 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert process.poll() is None
    # The tiles that were answered are written while the server holds the others back.
    time.sleep(1)
    process.kill()
    process.wait(30)
    asked = set(server.requests)
    assert len(asked) == 11
    let_go.set()
    fetched = fetch(TileSource(str(path), cache=tmp_path / "cache"))
    assert fetched.coverage.symmetric_difference(AREA).area < 1e-12
    # Only the three that it held in its hands are asked for twice.
    assert len(server.requests) == TILES.count + 3


def test_an_absurd_area_is_refused_with_its_number(source: TileSource, server: FileServer) -> None:
    site = make_site(area_around(half_x_m=6000, half_y_m=6000))
    with pytest.raises(SceneError, match=r"takes 4\d,\d{3} tiles .* at most 20,000 are fetched"):
        fetch(source, site)
    assert server.requests == []


def test_keys_of_the_environment_reach_the_server_and_nothing_else(
    pyramid, server, tmp_path, monkeypatch, caplog
) -> None:
    template = f"{server.url}/colossus2/{{date}}/{{z}}/{{x}}/{{y}}.png?key={{env:TILE_KEY}}"
    path = describe(tmp_path, server, template=template)
    monkeypatch.delenv("TILE_KEY", raising=False)
    with pytest.raises(SourceError, match="needs a key from the environment variable TILE_KEY, which is not set"):
        TileSource(str(path), cache=tmp_path)
    monkeypatch.setenv("TILE_KEY", "s3cr et/key")
    source = TileSource(str(path), cache=tmp_path / "cache")
    with caplog.at_level(logging.DEBUG):
        fetched = fetch(source)
        assert {asked.query for asked in server.asked} == {"key=s3cr%20et%2Fkey"}
        server.status[tile_path(0)] = [404]
    written = caplog.text + repr(fetched.scene) + fetched.item_path.read_text()
    assert "s3cr" not in written
    for kept in (tmp_path / "cache").rglob("*"):
        if kept.is_file():
            assert b"s3cr" not in kept.read_bytes()


def test_a_key_within_the_path_stays_out_of_messages_redirects_and_logs(server, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("TILE_KEY", "s3cret")
    put_tiles(tmp_path / "moved")
    template = f"{server.url}/keys/{{env:TILE_KEY}}/{{z}}/{{x}}/{{y}}.png"
    source = TileSource(str(describe(tmp_path, server, template=template)), cache=tmp_path / "cache")
    with caplog.at_level(logging.DEBUG):
        server.before = lambda asked: Answer(500)
        with pytest.raises(SourceError) as error:
            fetch(source)
        # The server leads to an address that holds the key as well.
        server.before = lambda asked: (
            Answer(302, headers={"Location": asked.path.replace("/keys/", "/moved-keys/")})
            if asked.path.startswith("/keys/s3cret/")
            else Answer(200, picture(7))
            if asked.path.startswith("/moved-keys/s3cret/")
            else Answer(400)
        )
        fetched = fetch(source)
    assert "500" in str(error.value)
    assert "s3cret" not in str(error.value) + repr(error.value.__cause__)
    assert "s3cret" not in caplog.text + fetched.item_path.read_text() + repr(fetched.scene)


def test_another_server_gets_no_key(pyramid, server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TILE_KEY", "s3cret")
    other = FileServer(tmp_path)
    try:
        template = f"{server.url}/a/{{z}}/{{x}}/{{y}}.png?key={{env:TILE_KEY}}"
        source = TileSource(str(describe(tmp_path, server, template=template)), cache=tmp_path / "cache")
        server.before = lambda asked: Answer(302, headers={"Location": f"{other.url}/b?key=%7Benv:TILE_KEY%7D"})
        other.before = lambda asked: Answer(200, picture(3))
        fetch(source)
        assert other.asked
        assert not any("s3cret" in asked.query for asked in other.asked)
    finally:
        other.close()


def test_a_template_alone_is_for_one_day_that_the_user_names(pyramid, server, tmp_path) -> None:
    source = open_source(f"tiles:{server.url}{TEMPLATE}", cache=tmp_path / "cache", licence="bought")
    site = make_site(AREA)
    with pytest.raises(SceneError, match="give one with --date YYYY-MM-DD --tolerance 0, or describe it in a file"):
        source.search(site)
    (scene,) = source.search(site, date(2025, 8, 22), date(2025, 8, 22))
    assert (scene.acquired_from, scene.licence) == ("command line", "bought")
    assert source.fetch(scene, site.perimeter).coverage.area > 0
    unnamed = open_source(f"tiles:{server.url}{TEMPLATE}", cache=tmp_path / "cache")
    assert unnamed.search(site, date(2025, 8, 22), date(2025, 8, 22))[0].licence.startswith("unknown")


def test_a_template_without_a_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no \{date\} or \{time\}, so nobody says when it was acquired"):
        open_source("tiles:https://example.org/{z}/{x}/{y}.png", cache=tmp_path)


def test_capabilities_that_are_none(server: FileServer, tmp_path: Path) -> None:
    for text, message in [("<html><p>", "it is not XML"), ("<html/>", "but <html>; give the address")]:
        (tmp_path / "caps.xml").write_text(text)
        with pytest.raises(SourceError, match=message):
            open_source(f"tiles:{server.url}/caps.xml", cache=tmp_path).search(make_site(AREA))


def test_overwatt_lists_and_fetches_a_site_from_a_descriptor(pyramid, server, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OVERWATT_AOI", str(tmp_path / "aoi"))
    monkeypatch.setenv("OVERWATT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "aoi").mkdir()
    new_site("memphis", shapely.box(*AREA.bounds).bounds, tmp_path / "aoi", source="test")
    path = describe(tmp_path, server)
    assert main(["scenes", "memphis", "--source", f"tiles:{path}", "--json"]) == 0
    (scene,) = json.loads(capsys.readouterr().out)["scenes"]
    assert (scene["acquired"][:10], scene["licence"], scene["source"]) == ("2025-08-22", "bought", "tiles:archive")
    path.write_text("{}")
    assert main(["scenes", "memphis", "--source", f"tiles:{path}"]) == 2
    assert "'licence' is missing" in capsys.readouterr().err


def test_places_are_where_the_test_thinks() -> None:
    assert shapely.Point(*lonlat(0, 0)).within(AREA)
