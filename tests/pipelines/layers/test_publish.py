"""Merged layers: real readers accept them and count what the runs hold; what did not change is not touched."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from filelock import FileLock

from models.classes import CLASSES
from pipelines.errors import ArchiveError, SiteError
from pipelines.layers import publish
from pipelines.layers.publish import publish_layers
from pipelines.legend import PALETTE
from pipelines.settings import ROOT
from pipelines.sites import load_sites
from tests.pipelines.made_up_archive import add_run

AOI = ROOT / "aoi"
FIRST, SECOND, THIRD = date(2025, 8, 22), date(2025, 10, 19), date(2026, 1, 13)
needs_gdal = pytest.mark.skipif(
    shutil.which("ogrinfo") is None and "OVERWATT_TESTS_MUST_NOT_SKIP" not in os.environ,
    reason="gdal-bin (ogrinfo, ogr2ogr) is not installed",
)


def fill(archive: Path) -> None:
    """Two sites, five runs, one of them rendered, one superseded by a better scene of its day."""
    add_run(archive, day=FIRST, air_cooled_chiller=4, battery=2, rendered=True)
    add_run(archive, day=SECOND, air_cooled_chiller=6, battery=3, not_given={"gas_turbine": "pixels too coarse"})
    add_run(archive, day=SECOND, scene="half", covered=0.5, air_cooled_chiller=1)
    add_run(archive, "southaven", FIRST, gas_turbine=5, roof_lettering=1, scene_fields={"released": SECOND})
    add_run(archive, "southaven", THIRD)


COUNTS = {"air_cooled_chiller": 11, "battery": 5, "gas_turbine": 5, "roof_lettering": 1}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    fill(folder)
    made = publish_layers(folder, AOI)
    assert (made.runs, made.detections, made.broken) == (5, sum(COUNTS.values()), ())
    return folder


@pytest.fixture
def layers(archive: Path) -> Path:
    return archive / "layers"


def state(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".publishing.lock"
    }


# GeoPackage


def test_geopackage_has_a_layer_a_class_and_every_detection_in_it(layers: Path) -> None:
    for cls in CLASSES:
        frame = gpd.read_file(layers / "overwatt.gpkg", layer=cls)
        assert len(frame) == COUNTS.get(cls, 0), cls
        assert set(frame["class"]) <= {cls}
    chillers = gpd.read_file(layers / "overwatt.gpkg", layer="air_cooled_chiller")
    by_scene = chillers.groupby(["site", "acquired", "scene_id", "rendered", "chosen"]).size()
    assert list(by_scene) == [4, 1, 6]
    assert chillers["detection_id"].is_unique or chillers.groupby("scene_id")["detection_id"].nunique().sum() == 7
    turbines = gpd.read_file(layers / "overwatt.gpkg", layer="gas_turbine")
    assert turbines["acquired"].dt.tz_convert("UTC").unique() == pd.Timestamp("2025-08-22T16:45Z")
    assert {str(day)[:10] for day in turbines["released"]} == {"2025-10-19"}


def test_sites_and_zones_are_those_of_the_site_files(layers: Path) -> None:
    sites = gpd.read_file(layers / "overwatt.gpkg", layer="sites").set_index("site")
    zones = gpd.read_file(layers / "overwatt.gpkg", layer="zones")
    expected = load_sites(AOI)
    assert sorted(sites.index) == [site.id for site in expected]
    assert len(zones) == sum(len(site.zones) for site in expected)
    for site in expected:
        assert shapely.equals_exact(sites.geometry[site.id], site.perimeter, 1e-9, normalize=True)
    assert dict(sites["runs"]) == {"colossus-1": 0, "colossus-2": 3, "macrohardrr": 0, "southaven": 2}


def test_census_says_counts_and_why_a_class_is_not_given(layers: Path) -> None:
    census = pyogrio.read_dataframe(layers / "overwatt.gpkg", layer="census")
    whole = census[(census["scope"] == "site") & census["chosen"]]
    assert len(whole) == 4 * len(CLASSES)
    second = whole[(whole["site"] == "colossus-2") & ~whole["rendered"]].set_index("class")
    assert second["not_given"]["gas_turbine"] == "pixels too coarse"
    assert pd.isna(second["detected"]["gas_turbine"])
    assert second["detected"]["air_cooled_chiller"] == 3  # of six, every other one is less probable than 0.5
    chillers = second.loc["air_cooled_chiller"]
    assert chillers["p5"] <= chillers["p50"] <= chillers["p95"]
    assert set(census["scope"]) >= {"site", "zone"}


def test_estimates_have_a_row_a_figure_with_unit_and_interval(layers: Path) -> None:
    estimate = pyogrio.read_dataframe(layers / "overwatt.gpkg", layer="estimates")
    assert estimate.groupby(["site", "acquired", "scene_id"]).size().eq(9).all()
    power = estimate[(estimate["figure"] == "generation_mw") & (estimate["site"] == "southaven")].iloc[0]
    assert power["unit"] == "MW"
    assert 0 < power["p5"] <= power["p50"] <= power["p95"]
    hidden = estimate[(estimate["figure"] == "generation_mw") & (estimate["scene_id"] == "scene")]
    hidden = hidden[(hidden["site"] == "colossus-2") & ~hidden["rendered"]].iloc[0]
    assert pd.isna(hidden["p50"])
    assert "gas_turbine could not be counted" in hidden["notes"]


def test_runs_carry_everything_known_of_their_scene(layers: Path, archive: Path) -> None:
    runs = gpd.read_file(layers / "overwatt.gpkg", layer="runs")
    assert len(runs) == 5
    half = runs[runs["scene_id"] == "half"].iloc[0]
    assert (half["licence"], half["attribution"], half["source"]) == ("CC-BY-4.0", "Someone", "local:scene.tif")
    assert (half["off_nadir_deg"], half["sun_elevation_deg"]) == (12.5, 40.0)
    assert 0.3 < half["covered_fraction"] < 0.7
    assert all((archive / folder / "census.json").is_file() for folder in runs["folder"])


def test_geopackage_is_drawn_by_styles_of_its_own(layers: Path) -> None:
    with sqlite3.connect(f"file:{layers / 'overwatt.gpkg'}?mode=ro", uri=True) as database:
        styles = database.execute("SELECT f_table_name, styleQML, useAsDefault FROM layer_styles").fetchall()
        contents = dict(database.execute("SELECT table_name, description FROM gpkg_contents").fetchall())
        version = database.execute("PRAGMA user_version").fetchone()[0]
    assert version == 10300
    assert {name for name, _, _ in styles} == {*CLASSES, "sites", "zones", "runs"}
    assert all(default for _, _, default in styles)
    by_name = {name: text for name, text, _ in styles}
    for cls in CLASSES:
        r, g, b = (int(PALETTE[cls][i : i + 2], 16) for i in (1, 3, 5))
        assert f'value="{r},{g},{b},' in by_name[cls]
    assert "RENDERED imagery: probability 0.5 or more" in by_name["air_cooled_chiller"]
    assert "RENDERED" not in by_name["gas_turbine"]
    assert contents["air_cooled_chiller"].startswith("RENDERED IMAGERY, not photographs")
    assert "RENDERED" not in contents["gas_turbine"]


@needs_gdal
def test_the_systems_gdal_reads_every_layer_without_a_warning(layers: Path, tmp_path: Path) -> None:
    for cls in CLASSES:
        read = subprocess.run(
            ["ogrinfo", "-ro", "-so", str(layers / "overwatt.gpkg"), cls], capture_output=True, text=True, check=True
        )
        assert read.stderr == ""
        assert "Warning" not in read.stdout
        assert f"Feature Count: {COUNTS.get(cls, 0)}\n" in read.stdout
    copy = tmp_path / "chillers.geojson"
    where = "acquired >= '2025-10-01' AND chosen"
    command = ["ogr2ogr", "-where", where, str(copy), str(layers / "overwatt.gpkg"), "air_cooled_chiller"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stderr == ""
    assert len(gpd.read_file(copy)) == 6


# GeoParquet


def test_geoparquet_is_version_1_1_with_boxes_that_cover(layers: Path) -> None:
    import json

    path = layers / "overwatt.parquet"
    about = json.loads(pq.read_schema(path).metadata[b"geo"])
    assert about["version"] == "1.1.0"
    assert about["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    frame = gpd.read_parquet(path)
    assert len(frame) == sum(COUNTS.values())
    boxes = pd.DataFrame(list(pq.read_table(path, columns=["bbox"])["bbox"].to_pylist()))
    assert (boxes[["xmin", "ymin", "xmax", "ymax"]].to_numpy() == frame.geometry.bounds.to_numpy()).all()
    few = gpd.read_parquet(path, bbox=tuple(frame[frame["site"] == "southaven"].total_bounds))
    assert set(few["site"]) == {"southaven"}


def test_duckdb_counts_and_places_the_same(layers: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    counts = duckdb.sql(
        f"SELECT class, count(*) AS n FROM read_parquet('{layers / 'overwatt.parquet'}') GROUP BY class"
    ).fetchall()
    assert dict(counts) == COUNTS
    [(kind,)] = duckdb.sql(
        f"SELECT DISTINCT typeof(geometry) FROM read_parquet('{layers / 'overwatt.parquet'}')"
    ).fetchall()
    assert kind.startswith("GEOMETRY")


# Again


def test_publishing_again_touches_nothing(archive: Path, layers: Path) -> None:
    before = state(layers)
    made = publish_layers(archive, AOI)
    assert (made.written, made.removed, made.unchanged) == ((), (), len(before))
    assert state(layers) == before


def test_a_new_run_changes_only_what_it_is_in(archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / "archive"
    shutil.copytree(archive, copy)
    before = state(copy / "layers")
    folder = add_run(copy, "southaven", date(2025, 9, 1), scene="new", gas_turbine=2, scene_fields={"released": FIRST})
    made = publish_layers(copy, AOI)
    items = {"sites/southaven/scene-new.json", "sites/southaven/southaven-new.json"}
    merged = {"overwatt.gpkg", "overwatt.parquet", "overwatt.qgz", "sites/southaven/collection.json"}
    assert set(made.written) == items | merged
    after = state(copy / "layers")
    assert {name for name in before if after[name] == before[name]} == set(before) - merged
    shutil.rmtree(folder)
    gone = publish_layers(copy, AOI)
    assert (set(gone.removed), set(gone.written)) == (items, merged)
    assert {name: digest for name, (digest, _) in state(copy / "layers").items()} == {
        name: digest for name, (digest, _) in before.items()
    }


def test_the_same_runs_elsewhere_give_the_same_files(archive: Path, layers: Path, tmp_path: Path) -> None:
    fill(tmp_path)
    publish_layers(tmp_path, AOI)
    assert {name: digest for name, (digest, _) in state(tmp_path / "layers").items()} == {
        name: digest for name, (digest, _) in state(layers).items()
    }


def test_a_broken_run_is_left_out_and_named(tmp_path: Path) -> None:
    add_run(tmp_path, day=FIRST, battery=2)
    (add_run(tmp_path, day=SECOND, battery=2) / "census.json").write_text("{}")
    made = publish_layers(tmp_path, AOI)
    assert (made.runs, made.detections) == (1, 2)
    assert "2025-10-19" in str(made.broken[0])


def test_nothing_to_publish_is_said_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds no run yet"):
        publish_layers(tmp_path / "none", AOI)
    assert not (tmp_path / "none").exists()


def test_a_broken_site_file_is_named_and_old_layers_stay(archive: Path, layers: Path, tmp_path: Path) -> None:
    (tmp_path / "x.geojson").write_text("{")
    before = state(layers)
    with pytest.raises(SiteError, match=r"x\.geojson"):
        publish_layers(archive, tmp_path)
    assert state(layers) == before


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    run = add_run(tmp_path / "archive", day=FIRST, scene="one", battery=2)
    add_run(tmp_path / "archive", day=SECOND, scene="two", battery=2)
    out = tmp_path / "gis"
    theirs = [out / "models" / "card.json", out / "sites" / "mine.json", out / "sites" / "colossus-2" / "notes.json"]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    publish_layers(tmp_path / "archive", AOI, out)
    shutil.rmtree(run)
    assert len(publish_layers(tmp_path / "archive", AOI, out).removed) == 2
    assert all(path.is_file() for path in theirs)


@pytest.mark.parametrize("text", ['{"type": "Catalog", "id": "mine", "links": []}', "[]", "{"])
def test_a_catalog_of_others_is_not_written_over(text: str, tmp_path: Path) -> None:
    add_run(tmp_path / "archive", battery=1)
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(ArchiveError, match=r"catalog\.json was not made by overwatt publish: move it away"):
        publish_layers(tmp_path / "archive", AOI, tmp_path)
    assert (tmp_path / "catalog.json").read_text() == text
    assert not (tmp_path / "overwatt.gpkg").exists()


def test_a_second_publisher_waits_its_turn(archive: Path, layers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "LOCK_TIMEOUT_S", 0.2)
    with (
        FileLock(layers / ".publishing.lock"),
        pytest.raises(ArchiveError, match="another process has been publishing"),
    ):
        publish_layers(archive, AOI)


def test_a_reader_keeps_the_file_it_has_open(tmp_path: Path) -> None:
    add_run(tmp_path, day=FIRST, battery=2)
    publish_layers(tmp_path, AOI)
    path = tmp_path / "layers" / "overwatt.gpkg"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
        assert reader.execute("SELECT count(*) FROM battery").fetchone() == (2,)
        add_run(tmp_path, day=SECOND, battery=3)
        publish_layers(tmp_path, AOI)
        assert reader.execute("SELECT count(*) FROM battery").fetchone() == (2,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(gpd.read_file(path, layer="battery")) == 5


def test_a_killed_publisher_leaves_the_old_layers(archive: Path, layers: Path, tmp_path: Path) -> None:
    copy = tmp_path / "archive"
    shutil.copytree(archive, copy)
    add_run(copy, day=THIRD, battery=4)
    before = state(copy / "layers")
    program = (
        "import sys, time; from pathlib import Path; from pipelines.layers import publish\n"
        "publish._put = lambda made, place: (print('ready', flush=True), time.sleep(60))\n"
        f"publish.publish_layers(Path({str(copy)!r}), Path({str(AOI)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
    assert {name: value for name, value in state(copy / "layers").items() if ".partial" not in name} == before
    start = time.monotonic()
    assert publish_layers(copy, AOI).runs == 6
    assert time.monotonic() - start < publish.LOCK_TIMEOUT_S
    assert not (copy / "layers" / ".partial").exists()
