"""`overwatt serve-features` for real: HTTP and GDAL's client beside counts known from the files."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import httpx
import pytest
from pygeoapi.openapi import validate_openapi_document

from pipelines.coregistration import DOCUMENT
from tests.flows.conftest import STARTS_WITHIN_S, Overwatt, wait_until
from tests.pipelines.made_up_archive import add_run
from tests.pipelines.postgres import skip_or_fail

STOPS_WITHIN_S = 60


SHIFT = {"east_m": 0, "north_m": 0, "accuracy_m": 0, "reference": "2025-10-19/s1", "crs": "EPSG:32615"} | {
    "patches": 0,
    "share": 1.0,
}


@dataclass(frozen=True)
class Features:
    """A running server over an archive."""

    process: subprocess.Popen[bytes]
    url: str
    archive: Path
    log: Path

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        named = {name.replace("_crs", "-crs"): value for name, value in parameters.items()}
        return httpx.get(f"{self.url}{path}", params=named, timeout=60, trust_env=False)

    def items(self, collection: str = "detections", **parameters: Any) -> dict[str, Any]:
        answer = self.get(f"/collections/{collection}/items", **parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def start(archive: Path, log: Path, home: dict[str, str]) -> Features:
    command = [sys.executable, "-m", "flows.cli", "serve-features", "--archive", str(archive), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=home | {"PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )

    def said() -> bool:
        assert process.poll() is None, log.read_text()
        return "Ctrl-C" in log.read_text()

    wait_until(said, STARTS_WITHIN_S, log.read_text)
    url = next(word for word in log.read_text().split() if word.startswith("http")).rstrip(";")
    return Features(process, url, archive, log)


def stop(features: Features) -> None:
    features.process.kill()
    features.process.wait(STOPS_WITHIN_S)


@pytest.fixture(scope="module")
def features(home: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Features]:
    folder = tmp_path_factory.mktemp("features")
    archive = folder / "archive"
    add_run(archive, "colossus-2", date(2025, 8, 22), "s1", air_cooled_chiller=30, battery=20, roof_lettering=1)
    ranged = {"earliest": datetime(2025, 10, 10, tzinfo=UTC)}
    add_run(archive, "colossus-2", date(2025, 10, 19), "s2", scene_fields=ranged, air_cooled_chiller=50, battery=15)
    add_run(archive, "southaven", date(2025, 10, 19), "s3", rendered=True, gas_turbine=7)
    features = start(archive, folder / "log", home)
    yield features
    stop(features)


# Filters


@pytest.mark.parametrize(
    ("datetime_", "count"),
    [
        ("2025-08-22", 51),
        ("2025-08-22T16:45:00Z", 51),
        ("2025-08-22T16:45:00+00:00", 51),
        ("2025-08-22T16:46:00Z", 0),
        ("2025-10-12", 65),
        ("2025-08-22/2025-08-31", 51),
        ("2025-10-19/..", 72),
        ("2025-10-19T17:00:00Z/..", 0),
        ("../2025-08-31", 51),
        ("../2025-10-18", 116),
        ("../1999-01-01", 0),
        ("2030-01-01/..", 0),
        ("../..", 123),
    ],
)
def test_datetime(features: Features, datetime_: str, count: int) -> None:
    found = features.items(datetime=datetime_, limit=1000)
    assert (found["numberMatched"], len({one["id"] for one in found["features"]})) == (count, count)


def test_bbox_in_each_crs(features: Features) -> None:
    frame = gpd.read_file(next(features.archive.glob("southaven/*/*/detections.geojson")))
    west, south, east, north = frame.total_bounds
    assert features.items(bbox=f"{west},{south},{east},{north}")["numberMatched"] == 7
    latitude_first = "http://www.opengis.net/def/crs/EPSG/0/4326"
    assert features.items(bbox=f"{south},{west},{north},{east}", bbox_crs=latitude_first)["numberMatched"] == 7
    metres = ",".join(str(value) for value in frame.to_crs("EPSG:3857").total_bounds)
    mercator = "http://www.opengis.net/def/crs/EPSG/0/3857"
    found = features.items(bbox=metres, bbox_crs=mercator, crs=mercator)
    assert found["numberMatched"] == 7
    x, y = found["features"][0]["geometry"]["coordinates"][0][0]
    assert (int(x / 1e6), int(y / 1e6)) == (-10, 4)
    assert features.items(bbox="0,0,1,1")["numberMatched"] == 0


def test_properties_alone_and_with_everything_else(features: Features) -> None:
    for parameters, count in (
        ({"class": "battery"}, 35),
        ({"class": "battery", "site": "colossus-2", "datetime": "2025-08-22"}, 20),
        ({"rendered": "true"}, 7),
        ({"rendered": "1"}, 7),
        ({"rendered": "true", "class": "battery"}, 0),
        ({"scene_id": "s2", "bbox": "-91,34,-89,36"}, 65),
        ({"probability": "0.4"}, 60),
        ({"zone": "nowhere"}, 0),
    ):
        assert features.items(**parameters)["numberMatched"] == count, parameters
    assert features.items("battery", datetime="2025-10-19")["numberMatched"] == 15


def test_parameters_that_make_no_sense_are_refused(features: Features) -> None:
    for parameters in (
        {"clas": "battery"},
        {"datetime": "yesterday"},
        {"datetime": "2025-10-19/2025-10-18"},
        {"datetime": ""},
        {"bbox": "1,2,3"},
        {"bbox": "nan,0,1,1"},
        {"bbox": "0,0,1,1", "bbox_crs": "http://www.opengis.net/def/crs/EPSG/0/32616"},
        {"limit": "0"},
        {"limit": "many"},
        {"offset": "-1"},
        {"sortby": ""},
        {"sortby": "nothing"},
        {"properties": "nothing"},
        {"rendered": "maybe"},
        {"q": "chiller"},
        {"filter": "class = 'battery'"},
        {"crs": "nothing"},
    ):
        answer = features.get("/collections/detections/items", **parameters)
        assert answer.status_code == 400, parameters
        assert answer.json()["description"], parameters
    assert "Traceback" not in features.log.read_text()


# Features, pages, descriptions


def test_pages_hold_each_feature_once(features: Features) -> None:
    seen: list[str] = []
    url = f"{features.url}/collections/detections/items?limit=25&sortby=-class"
    for _ in range(10):
        page = httpx.get(url, timeout=60, trust_env=False).json()
        assert page["numberMatched"] == 123
        assert page["numberReturned"] == len(page["features"])
        seen += [one["id"] for one in page["features"]]
        following = [link["href"] for link in page["links"] if link["rel"] == "next"]
        if not following:
            break
        url = following[0]
    files = [json.loads(path.read_text()) for path in features.archive.glob("*/*/*/detections.geojson")]
    assert sorted(seen) == sorted(one["id"] for file in files for one in file["features"])


def test_one_feature_is_what_the_file_says(features: Features) -> None:
    file = json.loads(next(features.archive.glob("southaven/*/*/detections.geojson")).read_text())
    for wanted in file["features"]:
        answer = features.get(f"/collections/detections/items/{wanted['id']}")
        assert answer.status_code == 200
        found = answer.json()
        assert found["geometry"] == wanted["geometry"]
        same = wanted["properties"].keys() & found["properties"].keys()
        assert {"class", "site", "acquired", "released", "probability", "rendered", "licence", "zone"} <= same
        assert {name: found["properties"][name] for name in same} == {name: wanted["properties"][name] for name in same}
    assert features.get("/collections/detections/items/nothing").status_code == 404
    assert features.get("/collections/nothing/items").status_code == 404


@pytest.mark.parametrize("collection", ["battery", "estimates"])
def test_csv_has_a_line_a_feature(features: Features, collection: str) -> None:
    answer = features.get(f"/collections/{collection}/items", f="csv", limit=1000, rendered="false")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    lines = list(csv.DictReader(answer.text.splitlines()))
    assert len(lines) == features.items(collection, limit=1000, rendered="false")["numberMatched"] > 0
    assert {line["site"] for line in lines} == {"colossus-2"}


def test_only_what_is_asked_for_is_sent(features: Features) -> None:
    [one] = features.items(limit=1, properties="class,site", skipGeometry="true")["features"]
    assert one["properties"].keys() == {"class", "site"}
    assert one["geometry"] is None
    hits = features.items(resulttype="hits")
    assert (hits["numberMatched"], hits["features"]) == (123, [])


def test_sites_runs_census_and_estimates_are_there_as_well(features: Features) -> None:
    assert features.items("runs", site="colossus-2")["numberMatched"] == 2
    assert features.items("zones", site="colossus-2")["numberMatched"] > 0
    assert features.items("sites")["numberMatched"] >= 4
    [row] = features.items("census", scope="site", datetime="2025-08-22", **{"class": "battery"})["features"]
    census = json.loads(next(features.archive.glob("*/2025-08-22/*/census.json")).read_text())
    [count] = [one for one in census["counts"] if one["class"] == "battery"]
    assert row["geometry"] is None
    assert row["properties"]["detected"] == count["detected"]
    assert row["properties"]["p50"] == count["expected"]["p50"]
    [cooling] = features.items("estimates", figure="cooling_mw", run_id="colossus-2/2025-08-22/s1")["features"]
    estimate = json.loads(next(features.archive.glob("*/2025-08-22/*/estimate.json")).read_text())
    assert cooling["properties"]["p50"] == estimate["cooling_mw"]["p50"]
    assert features.get(f"/collections/estimates/items/{cooling['id']}").status_code == 200


def test_descriptions_are_valid_and_say_rendered(features: Features) -> None:
    document = features.get("/openapi").json()
    validate_openapi_document(document)
    parameters = document["paths"]["/collections/detections/items"]["get"]["parameters"]
    assert any("datetime" in one.get("$ref", "") for one in parameters)
    listed = {one["id"]: one for one in features.get("/collections").json()["collections"]}
    assert {"detections", "battery", "runs", "sites", "zones", "census", "estimates"} <= listed.keys()
    assert "RENDERED" in listed["detections"]["title"]
    west, south, east, north = listed["detections"]["extent"]["spatial"]["bbox"][0]
    assert west < -90 < east + 0.1
    assert south < 35 < north + 0.1
    queryables = features.get("/collections/detections/queryables").json()["properties"]
    assert queryables["rendered"]["type"] == "boolean"
    schema = features.get("/collections/detections/schema").json()["properties"]
    assert schema["released"] == {"type": "string", "format": "date"}
    for path in ("/", "/conformance", "/collections/detections", "/collections/detections/items"):
        assert features.get(path, f="html").headers["content-type"].startswith("text/html"), path
    assert features.get("/collections/detections/items", f="csv").text.count("\n") == 124
    assert httpx.post(f"{features.url}/collections/detections/items", json={}, trust_env=False).status_code == 405


# GDAL and QGIS


def test_ogr2ogr_reads_and_filters(features: Features, tmp_path: Path) -> None:
    if shutil.which("ogr2ogr") is None:
        skip_or_fail("ogr2ogr is not installed: apt-get install gdal-bin")

    def ogr(program: str, *arguments: str) -> str:
        command = [program, *arguments]
        done = subprocess.run(command, env=without_proxy(), capture_output=True, text=True, timeout=STOPS_WITHIN_S)
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
        return done.stdout

    file = tmp_path / "all.gpkg"
    ogr("ogr2ogr", str(file), f"OAPIF:{features.url}", "-oo", "PAGE_SIZE=40", "detections", "census")
    assert gpd.read_file(file, layer="detections")["id"].nunique() == 123
    assert len(gpd.read_file(file, layer="census")) == features.items("census")["numberMatched"]
    frame = gpd.read_file(next(features.archive.glob("southaven/*/*/detections.geojson")))
    box = [str(value) for value in frame.total_bounds]
    summary = ("-ro", "-so", f"OAPIF:{features.url}", "detections")
    for filters, count in (
        (["-spat", *box], 7),
        (["-where", "class = 'battery'"], 35),
        (["-where", "acquired >= '2025-10-01T00:00:00Z'"], 72),
        (["-where", "acquired < '2025-10-01T00:00:00Z' AND class = 'battery'"], 20),
        (["-where", "rendered = 1"], 7),
        (["-where", "probability > 0.5"], 63),
    ):
        assert f"Feature Count: {count}\n" in ogr("ogrinfo", *summary, *filters), filters


IN_QGIS = """
import os
import sys
from qgis.core import QgsApplication, QgsFeatureRequest, QgsRectangle, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsVectorLayer(f"url='{sys.argv[1]}' typename='detections' srsname='EPSG:4326'", "detections", "OAPIF")
assert layer.isValid(), layer.error().message()
everything = len(list(layer.getFeatures()))
box = QgsRectangle(*map(float, sys.argv[2:]))
inside = len(list(layer.getFeatures(QgsFeatureRequest(box))))
layer.setSubsetString("\\"class\\" = 'battery'")
print("counts", everything, inside, len(list(layer.getFeatures())), flush=True)
os._exit(0)  # taken down in any order, QGIS may crash
"""


def test_qgis_reads_and_filters(features: Features, tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import qgis.core"], capture_output=True).returncode:
        skip_or_fail("QGIS is not installed: apt-get install qgis")
    frame = gpd.read_file(next(features.archive.glob("southaven/*/*/detections.geojson")))
    box = [str(value) for value in frame.total_bounds]
    # Of its own environment's modules QGIS must see none, nor this user's settings.
    env = {name: value for name, value in without_proxy().items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [python, "-c", IN_QGIS, features.url, *box]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert "counts 123 7 35" in done.stdout, done.stdout + done.stderr


def without_proxy() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


# Its life


def test_a_new_run_is_served_without_a_restart(home: dict[str, str], tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    add_run(archive, "southaven", date(2025, 10, 19), "s1", gas_turbine=3)
    features = start(archive, tmp_path / "log", home)
    try:
        assert features.items()["numberMatched"] == 3
        add_run(archive, "southaven", date(2026, 1, 13), "s2", rendered=True, gas_turbine=5)
        wait_until(lambda: features.items()["numberMatched"] == 8, 60, features.log.read_text)
        assert "RENDERED" in features.get("/collections/gas_turbine").json()["title"]
        # As a run leaves it: the shifts, and with them the units, come a moment later.
        time.sleep(1.1)
        assert features.items(first_seen="2025-10-19")["numberMatched"] == 0
        (archive / "southaven" / DOCUMENT).write_text(json.dumps({"runs": {"2025-10-19/s1": SHIFT}}))
        wait_until(lambda: features.items(first_seen="2025-10-19")["numberMatched"] == 2, 60, features.log.read_text)
        shutil.rmtree(archive)
        for _ in range(3):
            time.sleep(1.1)
            assert features.items()["numberMatched"] == 8
        assert features.log.read_text().count("what was there before is still served") == 1
    finally:
        stop(features)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_ends_when_told_to(home: dict[str, str], tmp_path: Path, sent: signal.Signals, code: int) -> None:
    archive = tmp_path / "archive"
    add_run(archive, "southaven", date(2025, 10, 19), "s1", gas_turbine=3)
    features = start(archive, tmp_path / "log", home)
    features.items()
    features.process.send_signal(sent)
    assert features.process.wait(STOPS_WITHIN_S) == code
    assert "Traceback" not in features.log.read_text()
    with pytest.raises(httpx.ConnectError):
        features.get("/")


def test_mistakes_are_named(features: Features, overwatt: Overwatt, tmp_path: Path) -> None:
    port = features.url.rsplit(":", 1)[-1]
    for arguments, sentence in (
        (["--archive", features.archive, "--port", port], f"port {port} of 127.0.0.1 cannot be listened on"),
        (["--archive", features.archive, "--host", "no.such.host.invalid"], "is no address of this machine"),
        (["--archive", tmp_path, "--port", 0], "holds no run yet"),
    ):
        done = overwatt("serve-features", *arguments)
        assert done.returncode == 2, done.stdout
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    code = "import sys; sys.modules['pygeoapi'] = None; from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve-features", "--archive", str(features.archive)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STOPS_WITHIN_S)
    assert done.returncode == 2
    assert "pip install 'overwatt[features]'" in done.stderr
