"""Wayback from a server on loopback whose documents follow the documented form; Esri's own was not contacted.

The list of releases is that of waybackconfig.json, the metadata that of an ArcGIS map service's query operation.
"""

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import shapely

from flows.cli import main
from pipelines.errors import NoSceneError, SceneError, SourceError
from pipelines.scenes.sources import open_source
from pipelines.sites import new_site
from tests.pipelines.conftest import Answer, Asked, FileServer
from tests.pipelines.scenes.conftest import area_around, make_site
from tests.pipelines.scenes.test_tiles import picture

AREA = area_around(half_x_m=40, half_y_m=35)
TERMS = "esri-world-imagery"
RELEASES = {10: "2024-03-07", 20: "2025-01-30", 30: "2025-06-26", 40: "2025-10-23"}


def milliseconds(day: str) -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def capture(day: str, shape: shapely.Polygon | None = None, **attributes: Any) -> dict[str, Any]:
    shape = area_around(half_x_m=4000, half_y_m=4000) if shape is None else shape
    about = {"SRC_DATE2": milliseconds(day), "SRC_RES": 0.3, "SRC_ACC": 5, "NICE_DESC": "Vantor", "NICE_NAME": "Vivid"}
    rings = [[list(point) for point in shape.exterior.coords]]
    return {"attributes": about | attributes, "geometry": {"rings": rings, "spatialReference": {"wkid": 4326}}}


class Wayback:
    """What the server holds: captures by release; `broken` forces an answer of a release's metadata."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.captures = {
            10: [capture("2023-11-02")],
            20: [capture("2023-11-02")],
            30: [capture("2025-04-15", SRC_RES=0.46)],
            40: [capture("2025-04-15", SRC_RES=0.46)],
        }
        self.broken: dict[int, Answer] = {}
        self.address = f"{server.url}/config.maptiles.arcgis.com/waybackconfig.json"
        server.before = self.answer

    def answer(self, asked: Asked) -> Answer | None:
        if asked.path.endswith("/waybackconfig.json"):
            return self.json(self.releases())
        if match := re.fullmatch(r"/metadata/(\d+)/MapServer/(\d+)/query", asked.path):
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            assert match[2] == "4"
            assert (query["f"], query["geometryType"], query["outSR"]) == ("json", "esriGeometryEnvelope", "4326")
            box = json.loads(query["geometry"])
            assert shapely.box(box["xmin"], box["ymin"], box["xmax"], box["ymax"]).covers(AREA)
            if broken := self.broken.get(int(match[1])):
                return broken
            return self.json({"features": self.captures[int(match[1])]})
        if match := re.fullmatch(r"/wayback/tile/(\d+)/19/(\d+)/(\d+)", asked.path):
            if match[1] == "40":
                # A tile that did not change leads to the release that has it.
                return Answer(302, headers={"Location": asked.path.replace("/40/", "/30/")})
            return Answer(200, picture(int(match[2]) * 7 + int(match[3]), form="JPEG"), {"Content-Type": "image/jpeg"})
        return None

    def releases(self) -> dict[str, Any]:
        url = self.server.url
        return {
            str(number): {
                "itemID": f"{number:032x}",
                "itemTitle": f"World Imagery (Wayback {day})",
                "itemURL": f"{url}/wayback/tile/{number}/{{level}}/{{row}}/{{col}}",
                "metadataLayerUrl": f"{url}/metadata/{number}/MapServer",
                "layerIdentifier": f"WB_{number}",
            }
            for number, day in RELEASES.items()
        }

    @staticmethod
    def json(document: object) -> Answer:
        return Answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def wayback(server: FileServer) -> Wayback:
    return Wayback(server)


def opened(wayback: Wayback, cache: Path) -> Any:
    return open_source(f"wayback:{wayback.address}", cache=cache, acknowledge=[TERMS])


def test_it_runs_only_after_its_terms_are_acknowledged(wayback: Wayback, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("OVERWATT_ACKNOWLEDGE", raising=False)
    for names in (None, []):
        with pytest.raises(SourceError) as error:
            open_source("wayback", cache=tmp_path, acknowledge=names)
        assert "non-commercial use only" in str(error.value)
        assert "automated extraction is mostly forbidden" in str(error.value)
        assert "say so with --acknowledge esri-world-imagery" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(SourceError, match=r"no licence 'esri' to acknowledge .known: esri-world-imagery"):
        open_source("wayback", cache=tmp_path, acknowledge=["esri"])
    assert wayback.server.requests == []
    assert not (tmp_path / "acknowledged.json").exists()
    monkeypatch.setenv("OVERWATT_ACKNOWLEDGE", f"{TERMS}")
    assert open_source("wayback", cache=tmp_path).name == "wayback"
    # What is on record is no consent.
    monkeypatch.delenv("OVERWATT_ACKNOWLEDGE")
    with pytest.raises(SourceError, match="only after its licence is acknowledged"):
        open_source("wayback", cache=tmp_path)


def test_releases_that_show_the_same_capture_are_one_scene_dated_by_it(wayback: Wayback, tmp_path: Path) -> None:
    first, second = opened(wayback, tmp_path).search(make_site(AREA))
    assert [scene.acquired for scene in (first, second)] == [
        datetime(2023, 11, 2, tzinfo=UTC),
        datetime(2025, 4, 15, tzinfo=UTC),
    ]
    assert [scene.released for scene in (first, second)] == [date(2024, 3, 7), date(2025, 6, 26)]
    assert [scene.gsd_m for scene in (first, second)] == [0.3, 0.46]
    assert {scene.acquired_from for scene in (first, second)} == {"wayback metadata"}
    assert first.earliest is None
    assert first.licence == "Esri Master License Agreement"
    assert "Esri" in first.attribution
    assert "Vantor" in first.attribution
    assert not first.rendered


def test_dates_are_those_of_capture_and_not_of_release(wayback: Wayback, tmp_path: Path) -> None:
    source = opened(wayback, tmp_path)
    with pytest.raises(NoSceneError, match="it has 2025-04-15"):
        source.search(make_site(AREA), date(2025, 6, 1), date(2025, 12, 31))
    (scene,) = source.search(make_site(AREA), date(2025, 4, 1))
    assert scene.acquired.date() == date(2025, 4, 15)


def test_several_captures_within_the_perimeter_are_a_range_and_said_to_be_one(wayback: Wayback, tmp_path: Path) -> None:
    west = area_around(x_m=-500, half_x_m=500, half_y_m=100)
    east = area_around(x_m=500, half_x_m=500, half_y_m=100)
    beside = area_around(x_m=5000, half_x_m=100, half_y_m=100)
    wayback.captures[40] = [
        capture("2025-09-01", west), capture("2025-09-20", east), capture("2025-10-01", beside),
    ]  # fmt: skip
    source = opened(wayback, tmp_path)
    scene = source.search(make_site(AREA))[-1]
    assert (scene.earliest, scene.acquired) == (datetime(2025, 9, 1, tzinfo=UTC), datetime(2025, 9, 20, tzinfo=UTC))
    assert [problem.reason for problem in source.problems] == [
        f"{scene.id} holds captures from 2025-09-01 to 2025-09-20 within the perimeter, so its date is that range"
    ]


@pytest.mark.parametrize(
    ("captures", "reason"),
    [
        ([], "release 40 of 2025-10-23 says nothing of what was captured here"),
        ([capture("2025-09-01", SRC_DATE2=None)], "does not say when all of it was captured"),
    ],
)
def test_a_release_without_a_date_is_passed_over_and_named(wayback, tmp_path, captures, reason: str) -> None:
    wayback.captures[40] = captures
    source = opened(wayback, tmp_path)
    assert len(source.search(make_site(AREA))) == 2
    assert [problem.reason for problem in source.problems if reason in problem.reason]


def test_the_older_spelling_of_dates_is_read(wayback: Wayback, tmp_path: Path) -> None:
    wayback.captures[40] = [capture("2025-09-01", SRC_DATE2=None, SRC_DATE=20250903)]
    assert opened(wayback, tmp_path).search(make_site(AREA))[-1].acquired == datetime(2025, 9, 3, tzinfo=UTC)


def test_one_broken_answer_does_not_stop_the_others_but_all_do(wayback: Wayback, tmp_path: Path) -> None:
    refused = {"error": {"code": 400, "message": "Failed to execute query."}}
    wayback.broken[30] = Answer(404)
    wayback.broken[40] = Wayback.json(refused)
    source = opened(wayback, tmp_path)
    assert len(source.search(make_site(AREA))) == 1
    assert ["404" in problem.reason or "Failed to execute query" in problem.reason for problem in source.problems] == [
        True,
        True,
    ]
    wayback.broken = dict.fromkeys(RELEASES, Answer(404))
    with pytest.raises(SourceError, match="404"):
        source.search(make_site(AREA))


@pytest.mark.parametrize(
    "text",
    [
        "<html>",
        "[]",
        "{}",
        '{"a": {}}',
        '{"10": {"itemTitle": "x"}}',
        '{"10": {"itemTitle": "2025-13-45", "itemURL": "http://h/{level}/{row}/{col}", "metadataLayerUrl": "http://h"}}',
    ],
)
def test_a_list_of_releases_that_is_none(server: FileServer, tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    source = open_source(f"wayback:{server.url}/list.json", cache=tmp_path, acknowledge=[TERMS])
    with pytest.raises(SourceError, match=r"list.json") as error:
        source.search(make_site(AREA))
    assert "\n" not in str(error.value)


def test_a_scene_is_fetched_with_its_acknowledgement_and_comes_out_the_same_again(wayback, tmp_path) -> None:
    site = make_site(AREA)
    source = opened(wayback, tmp_path / "cache")
    fetched = source.fetch(source.search(site)[-1], site.perimeter)
    item = json.loads(fetched.item_path.read_text())
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert item["properties"]["overwatt:acknowledged"] == f"{TERMS} on {today} by --acknowledge"
    assert item["properties"]["published"] == "2025-06-26T00:00:00Z"
    assert item["properties"]["datetime"] == "2025-04-15T00:00:00Z"
    assert fetched.coverage.symmetric_difference(AREA).area < 1e-12
    kept = fetched.path.read_bytes(), fetched.item_path.read_bytes()
    # Another day, the same bytes: the day of the first acknowledgement is remembered.
    record = tmp_path / "cache" / "acknowledged.json"
    record.write_text(record.read_text().replace(today, "2025-11-03"))
    assert (
        opened(wayback, tmp_path / "cache").search(site)[-1].acknowledged == f"{TERMS} on 2025-11-03 by --acknowledge"
    )
    record.write_text(record.read_text().replace("2025-11-03", today))
    asked = len([path for path in wayback.server.requests if "/tile/" in path])
    anew = opened(wayback, tmp_path / "cache")
    again = anew.fetch(anew.search(site)[-1], site.perimeter)
    assert (again.path.read_bytes(), again.item_path.read_bytes()) == kept
    assert len([path for path in wayback.server.requests if "/tile/" in path]) == asked


def test_unchanged_tiles_lead_to_the_release_that_has_them(wayback: Wayback, tmp_path: Path) -> None:
    wayback.captures[40] = [capture("2025-09-01")]
    site = make_site(AREA)
    source = opened(wayback, tmp_path)
    assert source.fetch(source.search(site)[-1], site.perimeter).coverage.symmetric_difference(AREA).area < 1e-12


def test_a_place_that_no_release_knows(wayback: Wayback, tmp_path: Path) -> None:
    wayback.captures = {number: [] for number in RELEASES}
    with pytest.raises(SceneError, match=r"wayback holds no usable scene: .*says nothing of what was captured here"):
        opened(wayback, tmp_path).search(make_site(AREA))


def test_overwatt_scenes_asks_for_the_acknowledgement(wayback, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OVERWATT_AOI", str(tmp_path / "aoi"))
    monkeypatch.setenv("OVERWATT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERWATT_ACKNOWLEDGE", raising=False)
    (tmp_path / "aoi").mkdir()
    new_site("memphis", AREA.bounds, tmp_path / "aoi", source="test")
    command = ["scenes", "memphis", "--source", f"wayback:{wayback.address}", "--json"]
    assert main(command) == 2
    assert "say so with --acknowledge esri-world-imagery" in capsys.readouterr().err
    assert main(["run", *command[1:]]) == 2
    assert "say so with --acknowledge esri-world-imagery" in capsys.readouterr().err
    assert wayback.server.requests == []
    wayback.captures[10] = [capture("2023-11-02")]
    assert main([*command, "--acknowledge", TERMS]) == 0
    shown = json.loads(capsys.readouterr().out)["scenes"]
    assert [scene["acquired"][:10] for scene in shown] == ["2023-11-02", "2025-04-15"]
