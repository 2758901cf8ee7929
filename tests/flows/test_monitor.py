"""The flows against a real Prefect server: what they publish, report, retry and refuse."""

import datetime
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import rasterio
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, State
from rasterio.errors import RasterioIOError

from flows import progress
from flows.monitor import monitor, monitor_all, source_may_answer_yet
from models.detector.card import MIN_PROBABILITY
from models.errors import DeviceError
from pipelines.errors import NoSceneError, SceneError, SourceError
from tests.flows.conftest import Place


@pytest.fixture(autouse=True)
def _on_the_server(prefect_server: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield


def test_a_run_is_published_shown_and_not_repeated(place: Place, prefect_server: str, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    with progress.listening(lambda *news: heard.append(news)):
        [run] = monitor(place.site, archive=tmp_path)

    assert heard[-1] == ("Field, 2025-08-22", heard[-1][2], heard[-1][2])
    assert [run.site, run.rendered, run.acquired.date()] == ["field", True, datetime.date(2025, 8, 22)]
    folder = tmp_path / "field" / "2025-08-22" / "field_20250822"
    assert Path(run.folder) == folder
    assert json.loads((folder / "census.json").read_text())["model_version"] == run.model_version
    layer = json.loads((folder / "detections.geojson").read_text())
    assert layer["overwatt"]["min_probability"] == MIN_PROBABILITY
    assert all(feature["properties"]["probability"] >= MIN_PROBABILITY for feature in layer["features"])
    json.dumps(run.as_record())  # small and serialisable
    [placed] = json.loads((tmp_path / "field" / "coregistration.json").read_text())["runs"].values()
    assert placed["reference"] == "2025-08-22/field_20250822"

    artifacts = artifacts_of(prefect_server, "field")
    assert artifacts["field-progress"]["data"] == 100.0
    assert "RENDERED" in artifacts["field-counts"]["description"]
    assert {"", "p50", "p5 - p95", "remark"} == json.loads(artifacts["field-counts"]["data"])[0].keys()
    for picture in ("overlay", "waterfall", "timeline"):
        assert artifacts[f"field-{picture}"]["data"].startswith("data:image/jpeg;base64,")
        assert "RENDERED" in artifacts[f"field-{picture}"]["description"]

    before = folder.stat().st_mtime_ns
    assert monitor(place.site, archive=tmp_path) == []
    assert folder.stat().st_mtime_ns == before
    assert len(monitor(place.site, date=datetime.date(2025, 8, 22), archive=tmp_path)) == 1

    # Other weights counted it: it is new again.
    census = json.loads((folder / "census.json").read_text())
    (folder / "census.json").write_text(json.dumps(census | {"model_version": "detector-00000000+reader-00000000"}))
    assert len(monitor(place.site, archive=tmp_path)) == 1


def test_the_nearest_day_is_taken_and_said(place: Place, prefect_server: str, tmp_path: Path) -> None:
    [run] = monitor(place.site, date=datetime.date(2025, 8, 25), archive=tmp_path)
    assert run.as_record()["asked"] == {
        "date": "2025-08-25",
        "off_days": -3,
        "in_words": "2025-08-25 asked, 2025-08-22 taken, 3 days before",
    }
    said = artifacts_of(prefect_server, "field")["field-counts"]["description"]
    assert "2025-08-25 asked, 2025-08-22 taken, 3 days before" in str(said)
    with pytest.raises(NoSceneError, match=r"within 2 days of 2025-08-25: the nearest before is 2025-08-22 \(3 days\)"):
        monitor(place.site, date=datetime.date(2025, 8, 25), tolerance_days=2, archive=tmp_path)


def test_a_day_without_a_scene_is_the_users_mistake(place: Place) -> None:
    with pytest.raises(NoSceneError, match="2025-08-22"):
        monitor(place.site, date=datetime.date(2025, 10, 1))


def test_a_wrong_device_is_said_before_anything_is_fetched(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cuda:77"):
        monitor(place.site, date=datetime.date(2025, 8, 22), device="cuda:77", archive=tmp_path)


def test_since_leaves_older_scenes_alone(place: Place, tmp_path: Path) -> None:
    assert monitor(place.site, since=datetime.date(2025, 8, 23), archive=tmp_path) == []
    assert monitor(place.site, max_gsd_m=0.01, archive=tmp_path) == []


def test_one_bad_scene_does_not_cost_the_others(place: Place, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a_20250101.tif", "b_20250202.tif", "c_20250303.tif"):
        with rasterio.open(place.image) as source:
            profile = source.profile | {"compress": "lzw"}
            with rasterio.open(images / name, "w", **profile) as copy:
                copy.write(source.read())
    # Its header can be read, its pixels cannot: the fault shows when it is fetched.
    broken = bytearray((images / "b_20250202.tif").read_bytes())
    middle = len(broken) // 2
    broken[middle : middle + 4000] = bytes(4000)
    (images / "b_20250202.tif").write_bytes(broken)
    with pytest.raises(SceneError, match=r"1 of 3 scenes .*b_20250202"):
        monitor(place.site, source=f"local:{images}", archive=tmp_path)
    published = sorted(path.parent.name for path in tmp_path.glob("field/*/*/census.json"))
    assert published == ["a_20250101", "c_20250303"]


def test_one_sites_failure_does_not_stop_the_others(
    place: Place, empty_catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = json.loads((place.aoi / "field.geojson").read_text())
    (tmp_path / "broken.geojson").write_text("{")
    (tmp_path / "field.geojson").write_text(json.dumps(good))
    monkeypatch.setenv("OVERWATT_AOI", str(tmp_path))
    state: State = monitor_all(source=empty_catalog, return_state=True)
    assert state.is_failed()
    assert "1 of 2 sites failed: broken" in str(state.message)
    assert "broken.geojson is not JSON" in str(state.message)

    (tmp_path / "broken.geojson").unlink()
    assert monitor_all(source=empty_catalog) == []


def test_new_runs_are_in_the_merged_layers_and_a_fault_there_fails_no_run(place: Place, tmp_path: Path) -> None:
    [run] = monitor_all(archive=tmp_path)
    assert run.site == "field"
    assert (tmp_path / "layers" / "overwatt.qgz").is_file()

    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "layers").write_text("a file where the layers go")
    [again] = monitor_all(archive=tmp_path)
    assert Path(again.folder).is_dir()


def test_a_source_that_comes_back_is_waited_for(place: Place, empty_catalog: str) -> None:
    # The HTTP client itself tries four times; the sixth request is one of the task's second attempt.
    catalog = Path(empty_catalog.removeprefix("stac:")).read_bytes()
    asked: list[str] = []

    class Waking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            awake = len(asked) > 5
            self.send_response(200 if awake else 503)
            self.end_headers()
            self.wfile.write(catalog if awake else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Waking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert monitor(place.site, source=f"stac:http://127.0.0.1:{server.server_port}/catalog.json") == []
        server.shutdown()
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("cause", "retried"),
    [
        (httpx.ConnectTimeout("late"), True),
        (httpx.HTTPStatusError("", request=httpx.Request("GET", "http://a"), response=httpx.Response(503)), True),
        (httpx.HTTPStatusError("", request=httpx.Request("GET", "http://a"), response=httpx.Response(429)), True),
        (httpx.HTTPStatusError("", request=httpx.Request("GET", "http://a"), response=httpx.Response(404)), False),
        (httpx.UnsupportedProtocol("ftp"), False),
        (RasterioIOError("the disk is full, or the file is no raster"), False),
        (json.JSONDecodeError("", "", 0), False),
        (None, False),
    ],
)
def test_only_what_the_network_did_is_tried_again(cause: Exception | None, retried: bool) -> None:
    fault = SourceError("the catalog cannot be had")
    fault.__cause__ = cause
    assert source_may_answer_yet(None, None, Failed(data=fault, message="")) is retried


def test_a_users_mistake_is_not_tried_again() -> None:
    fault = SceneError("no georeference")
    fault.__cause__ = httpx.ConnectTimeout("late")
    assert not source_may_answer_yet(None, None, Failed(data=fault, message=""))


def artifacts_of(api: str, site: str) -> dict[str, dict[str, object]]:
    """Latest artifacts by key."""
    wanted = {"artifacts": {"key": {"like_": f"{site}-%"}}, "sort": "CREATED_DESC"}
    found = httpx.post(f"{api}/artifacts/latest/filter", json=wanted, trust_env=False).raise_for_status().json()
    return {artifact["key"]: artifact for artifact in found}
