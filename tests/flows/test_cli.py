"""The command line as a user meets it: exit codes, one sentence on stderr, one JSON document on stdout."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from shapely.geometry import box

from flows.cli import main
from pipelines.documents import json_text
from tests.flows.conftest import ROOT, Overwatt, Place
from tests.pipelines.made_up import census


def sentence_of(done: subprocess.CompletedProcess[str]) -> str:
    """The refusal: exit code 2, one line on stderr, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("overwatt: ")
    return line.removeprefix("overwatt: ")


def test_help_and_version_load_neither_torch_nor_prefect() -> None:
    program = (
        "import sys\n"
        "from flows.cli import main\n"
        "codes = [main(['--help']), main(['run', '--help']), main(['--version'])]\n"
        "heavy = {'torch', 'prefect', 'rasterio', 'geopandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert codes == [0, 0, 0], codes\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"overwatt \d+\.\d+", done.stdout)


@pytest.mark.parametrize(("command", "default"), [("scenes", "OVERWATT_SOURCE"), ("run", "15"), ("ingest", "pixels")])
def test_help_says_what_holds_where_nothing_is_given(
    command: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert re.search(rf"\(default: [^)]*{default}", shown)


def test_without_a_command_the_commands_are_listed(overwatt: Overwatt) -> None:
    done = overwatt()
    assert "demo" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runn"], "runn"),
        (["run"], "SITE"),
        (["run", "colossus-2", "--date", "22.08.2025"], "--date"),
        (["run", "colossus-2", "--source", "sample", "--scene", "a.tif"], "--scene"),
        (["run", "colossus-3"], "colossus-3"),
        (["run", "nowhere/site.geojson"], "nowhere/site.geojson"),
        (["run", "colossus-2", "--scene", "missing.tif"], "missing.tif"),
        (["run", "colossus-2", "--source", "ftp:somewhere"], "ftp:somewhere"),
        (["run", "colossus-2", "--since", "2025-01-01", "--date", "2025-08-22"], "--since"),
        (["run", "colossus-2", "--tolerance", "3"], "--tolerance"),
        (["run", "colossus-2", "--max-gsd", "-1"], "a GSD of at most -1 m is not possible"),
        (["run", "colossus-2", "--source", "sample", "--licence", "MIT"], "says its dates and licences itself"),
        (["scenes", "colossus-2", "--max-gsd", "nan"], "a GSD of at most nan m is not possible"),
        (["scenes", "colossus-2", "--max-cloud", "nan"], "--max-cloud"),
        (["scenes", "colossus-2", "--source", "local:missing"], "missing"),
        (["scenes", "colossus-2", "--source", "stac:http://[bad/x"], "stac:http://[bad/x is no address"),
        (["scenes", "colossus-2", "--source", "tiles:http://a:b/{date}/{z}/{x}/{y}"], "is no address"),
        (["ingest", "a.tif", "--site", "colossus-3", "--source", "Airbus"], "did you mean colossus-2?"),
        (["ingest", "a.tif", "--site", "colossus-2"], "--source"),
        (
            ["ingest", "a.tif", "--site", "colossus-2", "--source", "Airbus", "--acquired", "May 2025"],
            "'May 2025' is no",
        ),
        (["ingest", "missing.tif", "--site", "colossus-2", "--source", "Airbus"], "missing.tif does not exist"),
        (["sites", "new", "x"], "--bounds"),
        (["sites", "new", "x", "--bounds", "1", "2", "3"], "--bounds"),
        (["sites", "new", "x", "--bounds", "-90", "35", "-91", "36"], "west south east north"),
        (["serve", "--cron", "monday"], "--cron"),
        (["detect", "missing.tif"], "missing.tif does not exist"),
        (["detect", "a.tif", "--classes", "chiller"], "--classes chiller has no class 'chiller'"),
        (["detect", "a.tif", "--classes", ","], "names no class"),
        (["detect", "a.tif", "--min-probability", "1.5"], "--min-probability"),
        (["detect", "a.tif", "--window", "0"], "--window"),
        (["detect", "a.tif", "--out", "no/such/folder/a.geojson"], "no/such/folder is no folder"),
        (["detect", "a.tif", "--out", "."], "--out . is a folder"),
        (["detect", "x" * 300 + ".tif"], "does not exist"),
        (["detect", "a.tif", "--area", "missing.geojson"], "area file missing.geojson cannot be read"),
        (["detect", "a.tif", "--device", "cuda:77"], "cuda:77"),
        (["evaluate", "--weights", "missing.safetensors"], "missing.safetensors"),
        (["evaluate", "--labelled", "missing"], "missing/labels.csv"),
        (["evaluate", "--backgrounds", "missing"], "missing holds no"),
        (["evaluate", "--scenes", "0"], "--scenes"),
        (["evaluate", "--leave-out", "roof03"], "--leave-out roof03"),
        (["evaluate", "--keep", "missing/measured.json"], "--keep missing/measured.json"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("overwatt: ")
    assert said in line


def test_weights_are_measured_on_rendered_and_on_real_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: Place
) -> None:
    labelled, ground, scenes = tmp_path / "labelled", tmp_path / "ground", tmp_path / "scenes"
    labelled.mkdir()
    ground.mkdir()
    with rasterio.open(place.image) as raster:
        picture = Image.fromarray(raster.read().transpose(1, 2, 0))
    picture.save(labelled / "roof.png")
    header = "file,gsd_m,class,cx,cy,length_px,width_px,heading_deg,fan_count,status\n"
    (labelled / "labels.csv").write_text(header + "roof.png,0.3,cooling_tower,200,200,30,30,0,2,sure\n")
    for number in range(6):
        Image.new("RGB", (256, 256), (90, 100 + number, 80)).save(ground / f"field{number}.png")
    arguments = ["evaluate", "--scenes", "2", "--workdir", scenes, "--backgrounds", ground, "--labelled", labelled]
    arguments += ["--leave-out", "field5", "--keep", tmp_path / "measured.json"]
    assert main([str(argument) for argument in (*arguments, "--json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "measured.json").read_text()) == found
    assert found["scenes"] == 2
    assert found["ground_images"] == 1
    assert sum(row["false_positives"] for row in found["ground"]) == 0
    assert {(row["gsd_m"], row["objects"], row["fans"]) for row in found["labelled"]} == {(0.3, 1, 2), (0.5, 1, 2)}
    assert {row["gsd_m"] for row in found["rendered"]} == {0.3, 0.5}
    assert all(0 <= row["recall"]["value"] <= 1 and row["units"] > 0 for row in found["rendered"])
    assert [row["gsd_m"] for row in found["words"]] == [0.3, 0.5]
    everywhere = found["coverage"][-1]["coverage"]
    assert everywhere["scenes"] == everywhere["covered"] + everywhere["below"] + everywhere["above"] > 0
    assert main([str(argument) for argument in arguments]) == 0
    table = capsys.readouterr().out
    for row in found["kin"]:
        assert (f"of {row['units']} are found" in table) == (row["found"] is not None)
    widths = [part for row in found["rendered"] for part in row["by_width"]]
    assert table.count(" m: recall ") == len(widths) > 0
    assert all(
        said in table for said in (found["detector"], "2 rendered scenes", "1 real backgrounds", "0 of 1", ">= 0.98")
    )


def test_the_process_ends_with_the_code(overwatt: Overwatt) -> None:
    assert "colossus-3" in sentence_of(overwatt("run", "colossus-3"))
    assert "runn" in sentence_of(overwatt("runn"))


@pytest.mark.parametrize("arguments", [["run", "colossus-3"], ["run", "x", "--date", "never"], ["sites", "new", "x"]])
def test_a_mistake_is_one_json_document_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert f"overwatt: {json.loads(captured.out)['error']}\n" == captured.err


def test_a_broken_site_file_is_named(overwatt: Overwatt, tmp_path: Path) -> None:
    (tmp_path / "bad.geojson").write_text('{"type": "FeatureCollection",')
    assert "bad.geojson" in sentence_of(overwatt("sites", OVERWATT_AOI=str(tmp_path)))


def test_sites_are_listed(overwatt: Overwatt) -> None:
    ids = [site["id"] for site in json.loads(overwatt("sites", "--json").stdout)["sites"]]
    assert ids == ["colossus-1", "colossus-2", "macrohardrr", "southaven"]
    table = overwatt("sites")
    assert table.returncode == 0
    assert all(site in table.stdout for site in ids)
    assert "\x1b[" not in table.stdout


def test_a_site_is_made_from_bounds_or_a_raster(overwatt: Overwatt, tmp_path: Path, place: Place) -> None:
    env = {"OVERWATT_AOI": str(tmp_path)}
    made = json.loads(overwatt("sites", "new", "one", "--bounds", -90.1, 35.0, -90.0, 35.1, "--json", **env).stdout)
    assert Path(made["path"]).is_file()
    assert overwatt("sites", "new", "two", "--raster", place.image, **env).returncode == 0
    assert [site["id"] for site in json.loads(overwatt("sites", "--json", **env).stdout)["sites"]] == ["one", "two"]
    assert "one.geojson" in sentence_of(overwatt("sites", "new", "one", "--raster", place.image, **env))


def test_scenes_are_listed_with_their_date_and_label(overwatt: Overwatt, place: Place) -> None:
    [scene] = json.loads(overwatt("scenes", place.site, "--json", **place.env).stdout)["scenes"]
    assert scene["acquired"].startswith("2025-08-22")
    assert scene["acquired_from"] == "file name"
    assert scene["rendered"] is True
    assert "RENDERED" in overwatt("scenes", place.site, **place.env).stdout


def test_imagery_taken_in_is_what_is_counted(
    overwatt: Overwatt, place: Place, prefect_server: str, tmp_path: Path
) -> None:
    env = {name: value for name, value in place.env.items() if name != "OVERWATT_SOURCE"}
    env |= {"OVERWATT_LIBRARY": str(tmp_path / "library"), "PREFECT_API_URL": prefect_server}
    image = tmp_path / "delivery.tif"
    image.write_bytes(place.image.read_bytes())
    said = (
        "--site",
        place.site,
        "--acquired",
        "2025-08",
        "--source",
        "Airbus Pleiades Neo",
        "--released",
        "2025-09-03",
    )
    done = overwatt("ingest", image, *said, "--licence", "bought", "--json", **env)
    assert done.returncode == 0, done.stderr
    [taken] = json.loads(done.stdout)["scenes"]
    assert (taken["new"], taken["acquired_earliest"], taken["acquired"]) == (True, "2025-08-01", "2025-08-31")
    assert "was there already" in overwatt("ingest", image, *said, **env).stdout
    image.unlink()

    done = overwatt("run", place.site, "--date", "2025-08-10", "--archive", tmp_path / "archive", "--json", **env)
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)["runs"]
    assert (run["earliest"], run["acquired"]) == ("2025-08-01T00:00:00Z", "2025-08-31T00:00:00Z")
    assert (run["source"], run["licence"]) == ("library:Airbus Pleiades Neo", "bought")
    assert (run["released"], run["price"], run["asked"]["off_days"]) == ("2025-09-03", "owned", 0)
    folder = Path(run["folder"])
    item = json.loads((folder / "item.json").read_text())
    assert (item["properties"]["datetime"], item["properties"]["start_datetime"]) == (None, "2025-08-01T00:00:00Z")
    for feature in json.loads((folder / "detections.geojson").read_text())["features"]:
        about = feature["properties"]
        assert (about["licence"], about["released"]) == ("bought", "2025-09-03")
        assert (about["acquired_earliest"], about["acquired"]) == ("2025-08-01T00:00:00Z", "2025-08-31T00:00:00Z")

    listed = overwatt("scenes", place.site, **env).stdout
    shown = overwatt("run", place.site, "--date", "2025-09-05", "--archive", tmp_path / "archive", **env).stdout
    assert "Field, 2025-08-01 to 2025-08-31" in shown
    assert "2025-09-05 asked, 2025-08-01 to 2025-08-31 taken, 5 days before" in " ".join(shown.split())
    timeline = overwatt("timeline", place.site, "--archive", tmp_path / "archive", **env).stdout
    for text in (listed, timeline):
        assert "2025-08-01 to 2025-08-31" in " ".join(text.split())


def test_an_image_that_cannot_be_used_is_refused(
    overwatt: Overwatt, place: Place, prefect_server: str, tmp_path: Path
) -> None:
    env = place.env | {"PREFECT_API_URL": prefect_server}
    nowhere = tmp_path / "photo_20250822.png"
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(nowhere)
    assert nowhere.name in sentence_of(overwatt("run", place.site, "--scene", nowhere, **env))
    undated = tmp_path / "undated.tif"
    with rasterio.open(place.image) as source, rasterio.open(undated, "w", **source.profile) as copy:
        copy.write(source.read())
    refused = overwatt("run", place.site, "--scene", undated, "--json", **env)
    assert "--date" in sentence_of(refused)
    assert "undated.tif" in json.loads(refused.stdout)["error"]


def test_a_day_without_imagery_says_what_there_is(overwatt: Overwatt, place: Place, prefect_server: str) -> None:
    done = overwatt("run", place.site, "--date", "2024-01-01", PREFECT_API_URL=prefect_server, **place.env)
    assert "2025-08-22" in sentence_of(done)


def test_a_server_that_does_not_answer_is_named(overwatt: Overwatt, place: Place) -> None:
    done = overwatt("run", place.site, PREFECT_API_URL="http://127.0.0.1:9/api", **place.env)
    assert "127.0.0.1:9" in sentence_of(done)


def test_a_run_prints_a_table_and_json(overwatt: Overwatt, place: Place, prefect_server: str, tmp_path: Path) -> None:
    env = place.env | {"PREFECT_API_URL": prefect_server}
    done = overwatt("run", place.site, "--date", "2025-08-22", "--archive", tmp_path, "--json", **env)
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)["runs"]
    assert run["rendered"] is True
    assert run["figures"]["cooling_mw"].keys() == {"p5", "p50", "p95"}
    assert sorted(path.name for path in Path(run["folder"]).iterdir()) == run["files"]
    assert Path(run["folder"]).parent == tmp_path / place.site / "2025-08-22"
    assert done.stderr == ""

    image = tmp_path / "undated.tif"
    with rasterio.open(place.image) as source, rasterio.open(image, "w", **source.profile) as copy:
        copy.write(source.read())
    shown = overwatt("run", place.site, "--scene", image, "--date", "2026-02-03", "--archive", tmp_path, **env)
    assert shown.returncode == 0, shown.stderr
    assert "2026-02-03" in shown.stdout
    assert "dated by command line" in shown.stdout
    assert "cooling, MW" in shown.stdout


def test_nothing_new_is_said(overwatt: Overwatt, place: Place, empty_catalog: str, prefect_server: str) -> None:
    done = overwatt("run", place.site, "--source", empty_catalog, PREFECT_API_URL=prefect_server, **place.env)
    assert done.returncode == 0, done.stderr
    assert "nothing new" in done.stdout


def test_ctrl_c_ends_with_130(home: dict[str, str], place: Place, tmp_path: Path) -> None:
    # The site file is a pipe that nobody writes to: the command waits there for certain.
    waiting = tmp_path / "waiting.geojson"
    os.mkfifo(waiting)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(waiting)],
        env=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with waiting.open("w"):  # returns once the command has opened the other end
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors


def detected(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    return document


def test_detect_writes_polygons_of_an_image(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.geojson"
    assert main(["detect", str(place.image), "--out", str(out), "--device", "cpu", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    document = detected(out)
    assert sum(summary["polygons"].values()) == len(document["features"]) > 10
    assert summary["rendered"] is True
    assert document["overwatt"]["rendered"] is True
    assert all(feature["properties"]["rendered"] for feature in document["features"])
    frame = gpd.read_file(out)
    assert frame.crs == "EPSG:4326"
    assert frame.geometry.is_valid.all()
    with rasterio.open(place.image) as raster:
        assert frame.to_crs(raster.crs).centroid.within(box(*raster.bounds).buffer(0.1)).all()
    assert main(["detect", str(place.image), "--out", str(tmp_path / "again.geojson"), "--window", "128"]) == 0
    again = detected(tmp_path / "again.geojson")
    assert len(again["features"]) == pytest.approx(len(document["features"]), abs=2)


def test_detect_gives_the_classes_asked_for(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["detect", str(place.image), "--out", str(tmp_path / "a.geojson"), "--device", "cpu"]
    assert main([*arguments, "--classes", "battery,gas_turbine", "--min-probability", "0.6"]) == 0
    assert "RENDERED" in capsys.readouterr().out
    document = detected(tmp_path / "a.geojson")
    assert document["overwatt"]["classes"] == ["gas_turbine", "battery"]
    assert document["overwatt"]["min_probability"] == 0.6
    for feature in document["features"]:
        assert feature["properties"]["class"] in {"battery", "gas_turbine"}
        assert feature["properties"]["probability"] >= 0.6


def test_detect_looks_inside_an_area(place: Place, tmp_path: Path) -> None:
    with rasterio.open(place.image) as raster:
        west, south, east, _ = raster.bounds
        half = gpd.GeoSeries([box(west, south, east, south + 60)], crs=raster.crs).to_crs("OGC:CRS84")
    (tmp_path / "area.geojson").write_text(half.to_json())
    arguments = ["detect", str(place.image), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "all.geojson")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "part.geojson"), "--area", str(tmp_path / "area.geojson")]) == 0
    everything = gpd.read_file(tmp_path / "all.geojson").to_crs("EPSG:32616")
    inside = everything[everything.centroid.y < south + 60]
    part = gpd.read_file(tmp_path / "part.geojson")
    assert 0 < len(part) < len(everything)
    assert len(part) == pytest.approx(len(inside), abs=2)
    assert main([*arguments, "--area", str(place.image)]) == 2
    drawn = str(tmp_path / "area.geojson")
    assert main([*arguments, "--area", drawn, "--out", drawn]) == 2
    assert main([*arguments, "--out", str(place.image)]) == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_detect_gives_pixels_of_an_image_without_georeference(
    suffix: str, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with rasterio.open(place.image) as raster:
        pixels = raster.read().transpose(1, 2, 0)
    Image.fromarray(pixels).save(f"plain{suffix}", quality=95)
    assert main(["detect", f"plain{suffix}"]) == 2
    assert "--gsd" in capsys.readouterr().err
    assert main(["detect", f"plain{suffix}", "--gsd", "0.3", "--device", "cpu"]) == 0
    assert "pixels of the image, y down" in capsys.readouterr().out
    document = detected(tmp_path / "plain.detections.geojson")
    assert "y down" in document["overwatt"]["coordinates"]
    plain = gpd.read_file(tmp_path / "plain.detections.geojson")
    assert plain.crs.is_engineering
    assert [axis.direction for axis in plain.crs.axis_info] == ["east", "south"]
    # the same places as in the georeferenced image, there measured from its north-west corner
    assert main(["detect", str(place.image), "--out", "placed.geojson", "--device", "cpu"]) == 0
    with rasterio.open(place.image) as raster:
        placed = gpd.read_file("placed.geojson").to_crs(raster.crs)
        x, y = ~raster.transform @ (placed.centroid.x.to_numpy(), placed.centroid.y.to_numpy())
    sure = placed["probability"].to_numpy() > 0.9
    gap = np.hypot(plain.centroid.x.to_numpy()[None] - x[sure, None], plain.centroid.y.to_numpy()[None] - y[sure, None])
    assert sure.sum() > 5
    assert np.median(gap.min(axis=1)) < 0.3


def test_detect_leaves_out_what_is_damaged_when_asked(place: Place, tmp_path: Path, overwatt: Overwatt) -> None:
    with rasterio.open(place.image) as raster:
        profile, pixels = raster.profile | {"compress": "deflate", "tiled": True}, raster.read()
    with rasterio.open(tmp_path / "a.tif", "w", **profile | {"blockxsize": 128, "blockysize": 128}) as raster:
        raster.write(pixels)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with rasterio.open(tmp_path / "a.tif") as raster:
        block = int(raster.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    content[block + 2 : block + 500] = b"\xff" * 498
    (tmp_path / "a.tif").write_bytes(content)
    said = sentence_of(overwatt("detect", tmp_path / "a.tif", "--window", "64"))
    assert "a.tif cannot be read in the window of" in said
    out = tmp_path / "a.geojson"
    done = overwatt("detect", tmp_path / "a.tif", "--window", "64", "--skip-damaged", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    not_read = json.loads(done.stdout)["not_read"]
    assert not_read
    assert len(not_read) == len(detected(out)["overwatt"]["not_read"])
    assert done.stderr.count("left out") == len(not_read)


def test_counts_alone_give_an_estimate(overwatt: Overwatt) -> None:
    counts = ("--chillers", "119", "--date", "2025-08-22", "--accelerator", "GB200")
    done = overwatt("estimate", *counts, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["cooling_mw"]["p50"] == pytest.approx(200, rel=0.1)
    assert record["gpus"]["p50"] == pytest.approx(110_000, rel=0.15)
    for name in ("cooling_mw", "generation_mw", "it_mw", "gpus", "h100_equivalents"):
        assert set(record[name]) == {"p5", "p50", "p95"}
    assert record["binding"] == {"cooling": 1.0, "supply": 0.0}
    assert record["sources"]
    assert record["sensitivity"]["gpus"][0]["share_of_variance"] > 0.3
    shown = overwatt("estimate", *counts, "--turbines", "TM2500:12", "--turbines", "35MW:7")
    assert shown.returncode == 0, shown.stderr
    assert "TM2500 rating" in shown.stdout
    assert "What causes the spread of GPUs" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing was counted"),
        (["--chillers", "-5"], "--chillers"),
        (["--chillers", "5", "--accelerator", "GB2000"], "'GB2000' is not in accelerators.csv"),
        (["--chillers", "5", "--length-m", "13"], "needs both its length and its width"),
        (["--turbines", "3", "--chiller-model", "x"], "described but not counted"),
        (["--turbines", "V94:3"], "knows no gas_turbine model 'V94'"),
        (["--chillers", "5", "--site", "colossus-2", "--date", "2024-01-01"], "nothing stood at colossus-2"),
        (["--chillers", "5", "--site", "nowhere"], "nowhere"),
    ],
)
def test_counts_that_make_no_sense_are_refused(overwatt: Overwatt, arguments: list[str], said: str) -> None:
    assert said in sentence_of(overwatt("estimate", *arguments))


def test_the_backtest_shows_every_figure_with_its_source(overwatt: Overwatt, tmp_path: Path) -> None:
    done = overwatt("backtest", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["site_dates"] >= 12
    assert {"figure", "scored", "within_x1.25", "inside_p5_p95"} <= set(record["summary"][0])
    shown = overwatt("backtest").stdout
    assert "Where no input was taken from the row" in shown
    assert "SemiAnalysis" in shown
    assert "is missing" in sentence_of(overwatt("backtest", "--table", str(tmp_path / "none.csv")))


def test_a_timeline_is_read_from_the_archive(overwatt: Overwatt, tmp_path: Path) -> None:
    for day, chillers in ((date(2025, 3, 1), 60), (date(2025, 8, 22), 119)):
        taken = census(day=day, of="colossus-2", air_cooled_chiller=chillers)
        folder = tmp_path / "colossus-2" / str(day) / taken.scene_id
        folder.mkdir(parents=True)
        (folder / "census.json").write_text(json_text(taken.as_record()))
    where = ("--archive", str(tmp_path))
    done = overwatt("timeline", "colossus-2", "--at", "2026-06-15", "--reach", "946", *where, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [moment["date"] for moment in record["moments"]] == ["2025-03-01", "2025-08-22"]
    assert record["changes"][0]["probability_more"] == 1.0
    assert record["reached"][0]["months"]["p50"] > 0
    assert record["projection"]["at"]["2026-06-15"]["p50"] > 200
    picture = tmp_path / "timeline.svg"
    shown = overwatt("timeline", "colossus-2", "--campus", *where, "--picture", str(picture))
    assert b"IT power, published" in picture.read_bytes()
    assert ".png or .svg" in sentence_of(overwatt("timeline", "colossus-2", *where, "--picture", "a.pdf"))
    assert shown.returncode == 0, shown.stderr
    assert "probability that it is real" in shown.stdout
    assert "memphis-southaven" in shown.stdout
    assert "holds no run of southaven yet" in sentence_of(overwatt("timeline", "southaven", *where))
    assert "over zero" in sentence_of(overwatt("timeline", "colossus-2", "--reach", "0", *where))


def test_reference_alone_lists_its_commands(overwatt: Overwatt) -> None:
    done = overwatt("reference")
    assert (done.returncode, done.stderr) == (0, "")
    assert "refresh" in done.stdout


def test_reference_data_without_a_snapshot_says_what_to_do(overwatt: Overwatt, tmp_path: Path) -> None:
    nowhere = {"OVERWATT_CACHE": str(tmp_path / "cache"), "OVERWATT_AOI": str(tmp_path / "aoi")}
    assert "overwatt reference refresh" in sentence_of(
        overwatt("reference", "compare", str(ROOT / "aoi" / "colossus-2.geojson"), **nowhere)
    )
    done = overwatt("sites", "add", "--from-reference", "Meta Prometheus", "--json", **nowhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "meta-prometheus"
    gone = overwatt("reference", "refresh", "--url", "http://127.0.0.1:9/x.zip", **nowhere)
    assert "there is no snapshot yet" in sentence_of(gone)
