"""Run folders: what the files say, that they open in GIS programs, and that nobody ever sees half a run."""

import dataclasses
import io
import itertools
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pystac
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer
from rasterio import Affine

from models.detector.card import RecallPoint
from pipelines import overlay, publishing
from pipelines.capacity import Estimate, estimate
from pipelines.census import Census, assign_zones, take_census
from pipelines.detection import Detections
from pipelines.documents import detections_geojson, json_text, run_item, to_json
from pipelines.errors import ArchiveError
from pipelines.geojson import rounded
from pipelines.grid import boxes, utm
from pipelines.legend import PALETTE
from pipelines.overlay import draw_overlay
from pipelines.publishing import publish_run, replace_folder
from pipelines.scenes.types import FetchedScene, Scene
from pipelines.settings import ROOT
from pipelines.sites import Site, load_site
from tests.pipelines.stac_rules import check_stac

UTM = "EPSG:32616"
RECALL = {
    cls: [RecallPoint(gsd_m=0.3, found=95, total=100)]
    for cls in ("air_cooled_chiller", "dry_cooler", "cooling_tower", "gas_turbine", "battery")
}
TO_UTM = Transformer.from_crs("OGC:CRS84", UTM, always_xy=True)
ORIGIN = TO_UTM.transform(-90.0350, 34.9960)
"""South of the roof of Colossus 2, inside its perimeter."""


def row(cls: str, east_m: float, north_m: float, probability: float = 0.9, **fields: object) -> dict:
    """A detection of 12 x 4 m, long axis to the north, metres from ORIGIN."""
    x, y = ORIGIN[0] + east_m, ORIGIN[1] + north_m
    values = {"class": cls, "score": 0.8, "probability": probability, "length_m": 12.0, "width_m": 4.0}
    values |= {"heading_deg": 0.0, "fan_count": pd.NA, "text": None, "text_confidence": math.nan}
    return values | {"geometry": shapely.box(x - 2, y - 6, x + 2, y + 6)} | fields


def detections(site: Site, *rows: dict, **changes: object) -> Detections:
    columns = list(row("battery", 0, 0))
    frame = gpd.GeoDataFrame(pd.DataFrame(list(rows), columns=columns), geometry="geometry", crs=UTM)
    frame["fan_count"] = frame["fan_count"].astype("Int64")
    frame["text"] = frame["text"].astype(object)
    fields = {"coverage": site.perimeter, "not_given": {}, "windows_read": 1, "windows_skipped": 0}
    fields |= {"model_version": "detector-1+reader-2", "native_gsd_m": 0.3}
    return Detections(frame=assign_zones(site, frame), **(fields | changes))


ROWS = (
    row("air_cooled_chiller", 0, 0, fan_count=20),
    row("air_cooled_chiller", 8, 0, 0.2),
    row("battery", 40, 0, heading_deg=179.98),
    row("roof_lettering", 0, 240, 0.97, text="MACROHARD", text_confidence=0.93, heading_deg=359.97),
)


@pytest.fixture(scope="module", autouse=True)
def _small_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "IMAGE_PX", 900)
        yield


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site("colossus-2", ROOT / "aoi")


@pytest.fixture(scope="module")
def fetched(site: Site, tmp_path_factory: pytest.TempPathFactory) -> FetchedScene:
    """The perimeter at 2 m, grey, in UTM."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    west, _, _, north = shapely.transform(site.perimeter, TO_UTM.transform, interleaved=False).bounds
    return scene_at(path, site, Affine(2, 0, west - 60, 0, -2, north + 60), UTM, (620, 620))


def scene_at(
    path: Path, site: Site, transform: Affine, crs: str, size: tuple[int, int], mark: shapely.Polygon | None = None
) -> FetchedScene:
    """Write a grey raster with `mark` (longitude and latitude) burnt in white."""
    pixels = np.full((3, *size), 60, np.uint8)
    if mark is not None:
        to_crs = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
        placed = shapely.transform(mark, to_crs.transform, interleaved=False)
        inside = rasterio.features.geometry_mask([placed], size, transform, invert=True)
        pixels[:, inside] = 255
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": size[0], "width": size[1], "crs": crs}
    with rasterio.open(path, "w", transform=transform, **profile) as raster:
        raster.write(pixels)
    acquired = datetime(2025, 10, 19, 16, 45, tzinfo=UTC)
    scene = Scene("scene-1", "local:scene.tif", acquired, 0.3, site.perimeter, "CC-BY-4.0", False, str(path), "item")
    return FetchedScene(scene, path, path.with_suffix(".json"), "0" * 64, site.perimeter)


def as_rendered(fetched: FetchedScene) -> FetchedScene:
    return dataclasses.replace(fetched, scene=dataclasses.replace(fetched.scene, rendered=True))


def census_of(site: Site, fetched: FetchedScene, found: Detections) -> Census:
    return take_census(site, fetched.scene, found, RECALL)


def collection(site: Site, fetched: FetchedScene, found: Detections) -> dict:
    return json.loads(detections_geojson(site, fetched.scene, found, census_of(site, fetched, found)))


@pytest.fixture(scope="module")
def run(site: Site, fetched: FetchedScene) -> tuple[Detections, Census, Estimate]:
    found = detections(site, *ROWS)
    census = census_of(site, fetched, found)
    return found, census, estimate(census, site, draws=2000)


@pytest.fixture(scope="module")
def published(site: Site, fetched: FetchedScene, run: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_run(tmp_path_factory.mktemp("archive"), site, fetched, *run)


# The folder


def test_run_folder_holds_its_files_and_nothing_else_is_left(published: Path) -> None:
    assert published.parts[-3:] == ("colossus-2", "2025-10-19", "scene-1")
    names = sorted(path.name for path in published.iterdir())
    files = ["census.json", "detections.geojson", "estimate.json", "ground.tif", "item.json", "overlay.png"]
    files = [*files, "waterfall.png"]
    assert names == files
    assets = json.loads((published / "item.json").read_text())["assets"]
    assert sorted(asset["href"] for asset in assets.values()) == [f"./{name}" for name in files if name != "item.json"]
    assert [path.name for path in published.parent.iterdir()] == ["scene-1"]


def test_run_again_gives_the_same_bytes(site, fetched, run, published: Path, tmp_path: Path) -> None:
    again = publish_run(tmp_path / "new" / "archive", site, fetched, *run)
    for path in published.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_census_and_estimate_are_json_that_keeps_the_figures(published: Path, run: tuple) -> None:
    _, _, implied = run
    counts = json.loads((published / "census.json").read_text())
    assert counts["rendered"] is False
    chillers = next(count for count in counts["counts"] if count["class"] == "air_cooled_chiller")
    assert (chillers["detected"], chillers["fans"]) == (1, 20)
    figures = json.loads((published / "estimate.json").read_text())
    assert figures["cooling_mw"]["p50"] == pytest.approx(implied.cooling_mw.p50, rel=1e-3)
    assert figures["inputs"]


# Detections


def test_detections_are_plain_rfc_7946(published: Path) -> None:
    text = (published / "detections.geojson").read_text()
    assert text.startswith('{"type": "FeatureCollection"')
    document = json.loads(text)
    assert "crs" not in document
    assert len(document["features"]) == len(ROWS)
    for feature in document["features"]:
        ring = feature["geometry"]["coordinates"][0]
        assert all(value == round(value, 7) for position in ring for value in position)
        assert shapely.LinearRing(ring).is_ccw
        assert shapely.Polygon(ring).is_valid


def test_detection_says_everything_about_itself(published: Path) -> None:
    chiller, faint, battery, word = json.loads((published / "detections.geojson").read_text())["features"]
    assert chiller["properties"] == {
        "site": "colossus-2",
        "scene_id": "scene-1",
        "acquired": "2025-10-19T16:45:00Z",
        "acquired_earliest": None,
        "acquired_from": "item",
        "released": None,
        "source": "local:scene.tif",
        "licence": "CC-BY-4.0",
        "attribution": "",
        "rendered": False,
        "model_version": "detector-1+reader-2",
        "native_gsd_m": 0.3,
        "class": "air_cooled_chiller",
        "score": 0.8,
        "probability": 0.9,
        "length_m": 12.0,
        "width_m": 4.0,
        "heading_deg": 0.0,
        "fan_count": 20,
        "text": None,
        "text_confidence": None,
        "zone": "yard-south",
    }
    assert faint["properties"]["fan_count"] is None
    assert battery["properties"]["heading_deg"] == 0.0  # 179.98 is 180.0 rounded, which is 0 for an axis
    assert word["properties"]["heading_deg"] == 0.0
    assert (word["properties"]["text"], word["properties"]["zone"]) == ("MACROHARD", "roof")


@pytest.mark.parametrize("count", [0, len(ROWS)])
def test_detections_open_in_gdal_at_the_right_place(site, fetched, tmp_path: Path, count: int) -> None:
    found = detections(site, *ROWS[:count])
    path = tmp_path / "detections.geojson"
    path.write_text(detections_geojson(site, fetched.scene, found, census_of(site, fetched, found)))
    info = pyogrio.read_info(path)
    assert (info["features"], info["driver"], info["layer_name"]) == (count, "GeoJSON", "detections")
    frame = gpd.read_file(path)
    if count:
        assert frame.crs == "EPSG:4326"
        assert shapely.contains(site.perimeter, frame.geometry).all()
        back = frame.geometry.to_crs(UTM).centroid.distance(found.frame.geometry.centroid)
        assert back.max() < 0.02
        assert list(frame["class"]) == [values["class"] for values in ROWS]


def test_feature_ids_are_stable_and_unique(site, fetched) -> None:
    everything = [feature["id"] for feature in collection(site, fetched, detections(site, *ROWS))["features"]]
    assert len(set(everything)) == len(ROWS)
    fewer = [feature["id"] for feature in collection(site, fetched, detections(site, *ROWS[1:]))["features"]]
    assert fewer == everything[1:]
    nudged = detections(site, {**ROWS[0], "score": 0.7, "length_m": 13.0})
    assert [feature["id"] for feature in collection(site, fetched, nudged)["features"]] == everything[:1]
    twice = [feature["id"] for feature in collection(site, fetched, detections(site, ROWS[0], ROWS[0]))["features"]]
    assert twice == [everything[0], f"{everything[0]}-2"]


def test_collection_says_what_was_not_given_and_not_seen(site, fetched) -> None:
    west, south, east, north = site.perimeter.bounds
    half = shapely.box(west, south, (west + east) / 2, north)
    found = detections(site, coverage=half, not_given={"battery": "pixels too coarse"})
    about = collection(site, fetched, found)["overwatt"]
    assert about["not_given"] == {"battery": "pixels too coarse"}
    assert about["covered_fraction"] == pytest.approx(0.5, abs=0.001)


@settings(deadline=None, max_examples=60)
@given(
    lon=st.floats(-179.5, 179.5),
    lat=st.floats(-80, 80),
    size_m=st.tuples(st.floats(0.6, 40), st.floats(0.6, 40)),
    heading_deg=st.floats(0, 180),
)
def test_rounding_keeps_a_box_valid_and_in_place(
    lon: float, lat: float, size_m: tuple[float, float], heading_deg: float
) -> None:
    crs = utm(lon, lat)
    x, y = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(lon, lat)
    grid = SimpleNamespace(crs=crs, gsd_m=1.0, to_crs=lambda px, py: (x + px, y - py))
    zero = np.zeros(1)
    box, _ = boxes(grid, zero, zero, zero + max(size_m), zero + min(size_m), zero + heading_deg)
    exact = gpd.GeoSeries(box, crs=crs).to_crs("OGC:CRS84")
    [result] = rounded(exact.to_numpy())
    assert result.is_valid
    assert result.exterior.is_ccw
    assert max(len(f"{abs(v):.9f}".rstrip("0").split(".")[1]) for xy in result.exterior.coords for v in xy) <= 7
    assert shapely.hausdorff_distance(result, exact[0]) < 0.71e-7  # half a step in both directions


def test_rounding_a_polygon_smaller_than_itself_is_a_programmers_error() -> None:
    with pytest.raises(ValueError, match="smaller than the rounding"):
        rounded(np.array([shapely.box(0, 0, 1e-9, 1e-9)], dtype=object))


# Records


def test_record_to_json() -> None:
    record = {
        "figures": (np.float32(0.3), np.float64(1 / 3), math.nan, np.int64(3), 123456789),
        "flags": [True, np.bool_(False), None, pd.NA],
        "when": datetime(2025, 10, 19, 18, 45, tzinfo=UTC),
        "day": datetime(2025, 10, 19).date(),
    }
    assert to_json(record) == {
        "figures": [0.3, 0.3333333, None, 3, 123456789],
        "flags": [True, False, None, None],
        "when": "2025-10-19T18:45:00Z",
        "day": "2025-10-19",
    }
    assert json_text({"b": 1, "a": "é"}) == '{\n "a": "é",\n "b": 1\n}\n'


def test_record_that_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="infinite"):
        to_json({"mw": math.inf})
    with pytest.raises(TypeError, match="ndarray"):
        to_json({"draws": np.zeros(3)})


# STAC item


def test_item_is_valid_stac_and_leads_to_the_files(published: Path, fetched: FetchedScene) -> None:
    check_stac(json.loads((published / "item.json").read_text()))
    item = pystac.Item.from_file(str(published / "item.json"))
    assert item.properties["processing:level"] == "L4"
    assert item.properties["processing:software"]["overwatt weights"] == "detector-1+reader-2"
    assert item.datetime == fetched.scene.acquired
    for asset in item.assets.values():
        assert Path(asset.get_absolute_href()).is_file()
    assert item.get_links("derived_from") == []
    assert str(fetched.path.parent) not in (published / "item.json").read_text()
    assert item.properties["overwatt:counts"]["air_cooled_chiller"] == 1
    assert item.properties["license"] == "CC-BY-4.0"
    assert item.properties["overwatt:model_version"] == "detector-1+reader-2"


def test_item_names_a_remote_scene_without_its_credentials(site, fetched, run, tmp_path: Path) -> None:
    scene = dataclasses.replace(fetched.scene, href="https://images.example/scene.tif?sig=secret")
    remote = dataclasses.replace(fetched, scene=scene)
    found = run[0]
    census = census_of(site, remote, found)
    folder = publish_run(tmp_path, site, remote, found, census, estimate(census, site, draws=2000))
    [link] = pystac.Item.from_file(str(folder / "item.json")).get_links("derived_from")
    assert link.get_absolute_href() == "https://images.example/scene.tif"


def test_rendered_imagery_is_called_so_everywhere(site, fetched, run, tmp_path: Path) -> None:
    rendered = as_rendered(fetched)
    found = run[0]
    census = census_of(site, rendered, found)
    folder = publish_run(tmp_path, site, rendered, found, census, estimate(census, site, draws=2000))
    item = pystac.Item.from_file(str(folder / "item.json"))
    assert item.properties["overwatt:rendered"] is True
    assert item.properties["title"].endswith("(rendered imagery)")
    features = json.loads((folder / "detections.geojson").read_text())["features"]
    assert all(feature["properties"]["rendered"] is True for feature in features)
    for name in ("census.json", "estimate.json"):
        assert json.loads((folder / name).read_text())["rendered"] is True
    with (
        Image.open(folder / "overlay.png") as labelled,
        Image.open(io.BytesIO(draw_overlay(site, fetched, *run[:2]))) as plain,
    ):
        assert share_of(labelled, "#ffd400") > 0.02
        assert share_of(plain, "#ffd400") == 0


def test_item_with_a_licence_in_words_and_nothing_seen(site, fetched, run) -> None:
    scene = dataclasses.replace(fetched.scene, licence="unknown (nobody said)")
    found = detections(site, coverage=shapely.Polygon())
    census = census_of(site, fetched, found)
    item = pystac.Item.from_dict(json.loads(run_item(site, dataclasses.replace(fetched, scene=scene), found, census)))
    check_stac(item.to_dict())
    assert (item.properties["license"], item.properties["overwatt:licence"]) == ("other", "unknown (nobody said)")
    assert shapely.geometry.shape(item.geometry).equals(site.perimeter)


# Overlay


def share_of(image: Image.Image, colour: str) -> float:
    return float(near(image, colour, 8).mean())


def near(image: Image.Image, colour: str, tolerance: int) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(np.asarray(image.convert("RGB")).astype(int) - wanted) <= tolerance).all(axis=-1)


def rotated(site: Site) -> tuple[Affine, str]:
    west, south, east, north = shapely.transform(site.perimeter, TO_UTM.transform, interleaved=False).bounds
    cos, sin = math.cos(math.radians(25)), math.sin(math.radians(25))
    c, f = (west + east) / 2 - 900 * (cos + sin), (south + north) / 2 - 900 * (sin - cos)
    return Affine(cos, sin, c, sin, -cos, f), UTM


def in_degrees(site: Site) -> tuple[Affine, str]:
    west, _, _, north = site.perimeter.bounds
    return Affine(0.9e-5, 0, west - 0.001, 0, -0.9e-5, north + 0.001), "OGC:CRS84"


def not_square(site: Site) -> tuple[Affine, str]:
    west, _, _, north = shapely.transform(site.perimeter, TO_UTM.transform, interleaved=False).bounds
    return Affine(1, 0, west - 60, 0, -2, north + 60), UTM


@pytest.mark.parametrize("lie", [rotated, in_degrees, not_square])
def test_outline_falls_on_the_object_whatever_the_georeference(site, tmp_path: Path, lie) -> None:
    """A white building of 80 x 200 m burnt into the scene, and a detection of the same ground."""
    x, y = ORIGIN
    ground = shapely.box(x - 40, y - 100, x + 40, y + 100)
    to_degrees = Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)
    mark = shapely.transform(ground, to_degrees.transform, interleaved=False)
    transform, crs = lie(site)
    fetched = scene_at(tmp_path / "scene.tif", site, transform, crs, (1800, 1800), mark)
    found = detections(site, row("gas_turbine", 0, 0, geometry=ground))
    with Image.open(io.BytesIO(draw_overlay(site, fetched, found, census_of(site, fetched, found)))) as page:
        image = page.crop((0, 118, page.width, 118 + 900))  # without title and legend, which use colours too
        outline, building = np.argwhere(near(image, PALETTE["gas_turbine"], 40)), np.argwhere(near(image, "#ffffff", 3))
    ring, body = shapely.MultiPoint(outline).minimum_rotated_rectangle, shapely.MultiPoint(outline).convex_hull
    inside = building[shapely.contains_xy(body, building[:, 0], building[:, 1])]
    seen = shapely.MultiPoint(inside).minimum_rotated_rectangle
    assert shapely.intersection(seen, ring).area / shapely.union(seen, ring).area > 0.85
    sides = sorted(shapely.LineString(pair).length for pair in itertools.pairwise(ring.exterior.coords))
    assert sides[-1] / sides[0] == pytest.approx(2.5, rel=0.06)  # as long and wide as on the ground: equal scale


def test_scene_that_covers_a_corner_or_nothing_still_makes_a_picture(site, tmp_path: Path) -> None:
    found = detections(site)
    west, _, _, north = site.perimeter.bounds
    for name, offset in (("corner", -0.001), ("nothing", -1.0)):
        transform = Affine(1e-5, 0, west + offset, 0, -1e-5, north - offset)
        fetched = scene_at(tmp_path / f"{name}.tif", site, transform, "OGC:CRS84", (400, 400))
        page = Image.open(io.BytesIO(draw_overlay(site, fetched, found, census_of(site, fetched, found))))
        assert max(page.size) < 2600
        assert (near(page, "#3c3c3c", 3).mean() > 0.02) == (name == "corner")


def test_text_beyond_the_fonts_letters_is_drawn_plainly(site, fetched, run) -> None:
    named = dataclasses.replace(site, name="Rhône – 孟菲斯", operator="Société Ž")
    assert draw_overlay(named, fetched, *run[:2])


# In one step


CONTENTS = {"a.txt": b"1", "b.txt": b"1"}


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".publishing.lock"}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_run_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(publishing, "_exchange", lambda one, other: False)
    folder = tmp_path / "site" / "2025-10-19" / "scene"
    replace_folder(folder, CONTENTS | {"old.txt": b"gone"})
    replace_folder(folder, {"a.txt": b"2", "b.txt": b"2"})
    assert tree(tmp_path / "site") == {f"2025-10-19{end}" for end in ("", "/scene", "/scene/a.txt", "/scene/b.txt")}
    assert (folder / "a.txt").read_bytes() == b"2"


def test_failure_half_way_leaves_the_old_run_and_no_litter(tmp_path: Path) -> None:
    folder = tmp_path / "site" / "2025-10-19" / "scene"
    replace_folder(folder, CONTENTS)
    before = tree(tmp_path)
    with pytest.raises(ArchiveError, match="File name too long"):
        replace_folder(folder, {"a.txt": b"2", "b" * 300: b"2"})
    assert tree(tmp_path) == before
    assert (folder / "a.txt").read_bytes() == b"1"


def test_leftovers_of_killed_runs_are_cleared_and_a_run_moved_aside_comes_back(tmp_path: Path) -> None:
    day = tmp_path / "site" / "2025-10-19"
    (day / ".half.partial").mkdir(parents=True)
    (day / ".half.partial" / "a.txt").write_bytes(b"half")
    (day / ".aside.previous").mkdir()
    (day / ".aside.previous" / "a.txt").write_bytes(b"whole")
    (day / "done").mkdir()
    (day / ".done.previous").mkdir()
    replace_folder(tmp_path / "site" / "2026-01-13" / "scene", CONTENTS)
    assert tree(day) == {"aside", "aside/a.txt", "done"}


def test_replacing_moves_nothing_aside_where_folders_can_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not publishing._exchange(*map(make_folder, (tmp_path / "x", tmp_path / "y"))):
        pytest.skip("this file system cannot exchange two folders in one step")
    folder = tmp_path / "site" / "2025-10-19" / "scene"
    replace_folder(folder, CONTENTS)
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("a moment without a run"))
    replace_folder(folder, {"a.txt": b"2"})
    assert tree(folder) == {"a.txt"}


def test_writers_take_turns_and_readers_always_find_a_whole_run(tmp_path: Path) -> None:
    if not publishing._exchange(*map(make_folder, (tmp_path / "x", tmp_path / "y"))):
        pytest.skip("this file system cannot exchange two folders in one step")
    folder = tmp_path / "site" / "2025-10-19" / "scene"
    replace_folder(folder, CONTENTS)

    def write(version: bytes) -> None:
        for _ in range(12):
            replace_folder(folder, {"a.txt": version * 5000, "b.txt": version * 5000})

    looks = missing = 0
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, version) for version in (b"2", b"3", b"4")]
        while not all(writer.done() for writer in writers):
            looks += 1
            missing += not (folder / "a.txt").exists() or not (folder / "b.txt").exists()
    for writer in writers:
        writer.result()
    assert looks > 20
    assert missing == 0
    assert tree(tmp_path / "site") == {f"2025-10-19{end}" for end in ("", "/scene", "/scene/a.txt", "/scene/b.txt")}
    assert (folder / "a.txt").read_bytes() == (folder / "b.txt").read_bytes()


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("where", ["file", "file/archive", "taken"])
def test_archive_that_cannot_be_written(site, fetched, run, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "colossus-2" / "2025-10-19").mkdir(parents=True)
    (tmp_path / "taken" / "colossus-2" / "2025-10-19" / "scene-1").write_text("a file where the run goes")
    with pytest.raises(
        ArchiveError, match=r"cannot be written: (Not a directory|File exists).*OVERWATT_ARCHIVE"
    ) as refused:
        publish_run(tmp_path / where, site, fetched, *run)
    assert "\n" not in str(refused.value)


def test_archive_on_a_file_system_without_writing(site, fetched, run) -> None:
    with pytest.raises(ArchiveError, match="OVERWATT_ARCHIVE"):
        publish_run(Path("/proc/overwatt"), site, fetched, *run)


def test_writer_that_never_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LOCK_TIMEOUT_S", 0.05)
    folder = tmp_path / "site" / "2025-10-19" / "scene"
    folder.parent.mkdir(parents=True)
    with (
        publishing.FileLock(tmp_path / "site" / ".publishing.lock"),
        pytest.raises(ArchiveError, match="another process"),
    ):
        replace_folder(folder, CONTENTS)
