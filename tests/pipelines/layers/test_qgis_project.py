"""The QGIS project: what stands in the file, and what the real QGIS makes of it where it is installed."""

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zipfile
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classes import CLASSES
from pipelines.layers.archive import read_archive
from pipelines.layers.publish import publish_layers
from pipelines.layers.qgis_project import frame_days
from pipelines.layers.qgis_styles import plural
from pipelines.settings import ROOT
from tests.pipelines.made_up_archive import add_run
from tests.pipelines.postgres import skip_or_fail

FIRST, SECOND, THIRD = date(2025, 8, 22), date(2025, 10, 19), date(2026, 1, 13)
SYSTEM_PYTHON = "/usr/bin/python3"


@cache
def has_qgis() -> bool:
    if shutil.which(SYSTEM_PYTHON) is None:
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    add_run(folder, day=FIRST, air_cooled_chiller=4, battery=2, rendered=True)
    add_run(folder, day=SECOND, air_cooled_chiller=6, battery=3)
    add_run(folder, day=SECOND, scene="half", covered=0.5, air_cooled_chiller=1)
    add_run(folder, day=THIRD, air_cooled_chiller=5)
    add_run(folder, "southaven", SECOND, gas_turbine=5, roof_lettering=1)
    publish_layers(folder, ROOT / "aoi")
    return folder


def project(archive: Path) -> ET.Element:
    with zipfile.ZipFile(archive / "layers" / "overwatt.qgz") as packed:
        assert packed.namelist() == ["overwatt.qgs"]
        return ET.fromstring(packed.read("overwatt.qgs"))


def test_project_holds_every_layer_by_a_relative_path(archive: Path) -> None:
    root = project(archive)
    sources = [layer.findtext("datasource", "") for layer in root.findall("projectlayers/maplayer")]
    names = {source.removeprefix("./overwatt.gpkg|layername=").partition("|")[0] for source in sources}
    assert names == {*CLASSES, "sites", "zones", "runs", "census", "estimates"}
    assert all(source.startswith("./overwatt.gpkg|") for source in sources)
    ids = [layer.findtext("id") for layer in root.findall("projectlayers/maplayer")]
    assert sorted(node.get("id", "") for node in root.iter("layer-tree-layer")) == sorted(str(one) for one in ids)
    assert root.findtext("properties/SpatialRefSys/ProjectionsEnabled") == "1"
    assert str(archive) not in ET.tostring(root, encoding="unicode")


def test_project_steps_from_the_first_date_past_the_last(archive: Path) -> None:
    times = project(archive).find("ProjectTimeSettings")
    assert times is not None
    assert (times.get("timeStepUnit"), times.get("timeStep")) == ("d", "2")  # 58 and 86 days
    assert times.findtext("TemporalRange/start") == "2025-08-22T00:00:00Z"
    assert times.findtext("TemporalRange/end") == "2026-01-15T00:00:00Z"


def test_project_says_when_imagery_is_rendered(archive: Path, tmp_path: Path) -> None:
    assert project(archive).findtext("title", "").endswith("part of it RENDERED IMAGERY")
    for rendered, title in ((True, "RENDERED IMAGERY, not photographs"), (False, "equipment")):
        add_run(tmp_path, battery=1, rendered=rendered)
        publish_layers(tmp_path, ROOT / "aoi")
        assert project(tmp_path).findtext("title", "").endswith(title)


@given(st.lists(st.dates(date(1990, 1, 1), date(2100, 1, 1)), min_size=1, max_size=12))
def test_no_frame_begins_between_two_dates_and_ends_after_one(days: list[date]) -> None:
    step = frame_days(days)
    first = min(days)
    assert step >= 1
    for day in days:
        frame = first + timedelta(days=(day - first).days // step * step)
        assert frame == day


@pytest.fixture(scope="module")
def opened(archive: Path) -> dict[str, Any]:
    if not has_qgis():
        skip_or_fail("QGIS and its Python module (Debian: qgis, python3-qgis) are not installed")
    script = Path(__file__).with_name("open_in_qgis.py")
    # The system's Python must not find this environment's packages.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(
        [SYSTEM_PYTHON, script, archive / "layers/overwatt.qgz", *(str(day) for day in (FIRST, SECOND, THIRD))],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"QT_QPA_PLATFORM": "offscreen"},
        timeout=240,
    )
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def test_qgis_opens_the_project_with_every_layer_drawn_and_dated(opened: dict[str, Any]) -> None:
    assert opened["opened"]
    assert opened["title"].endswith("RENDERED IMAGERY")
    assert (opened["crs"], opened["controller"], opened["absolute_paths"]) == ("EPSG:3857", 1, False)
    assert opened["groups"] == ["Equipment", "Places", "Figures"]
    assert opened["bookmarks"] == ["Colossus 2", "Southaven power plant"]
    assert len(opened["layers"]) == len(CLASSES) + 5
    for name, layer in opened["layers"].items():
        assert layer["valid"], name
    for cls in CLASSES:
        [layer] = [layer for name, layer in opened["layers"].items() if name.startswith(plural(cls))]
        assert (layer["renderer"], layer["labels"], layer["temporal"]) == ("RuleRenderer", True, True)
    chillers = opened["layers"]["air cooled chillers - RENDERED IMAGERY"]["legend"]
    assert chillers == [
        "RENDERED imagery: probability 0.5 or more",
        "RENDERED imagery: less probable",
        "probability 0.5 or more",
        "less probable",
    ]
    assert {renderer for renderer, _ in opened["default_styles"].values()} == {"RuleRenderer"}


def test_qgis_shows_on_each_date_what_the_archive_holds_of_it(opened: dict[str, Any], archive: Path) -> None:
    runs = [run for run in read_archive(archive).runs if run.chosen]
    for day, shown in opened["dates"].items():
        for cls in CLASSES:
            expected = {}
            for site in ("colossus-2", "southaven"):
                latest = [run for run in runs if run.site == site and str(run.date) <= day]
                count = int((latest[-1].detections["class"] == cls).sum()) if latest else 0
                expected |= {site: count} if count else {}
            [counted] = [counts for name, counts in shown.items() if name.startswith(plural(cls))]
            assert counted == expected, (day, cls)
    assert [opened["dates"][str(day)]["air cooled chillers - RENDERED IMAGERY"] for day in (FIRST, SECOND, THIRD)] == [
        {"colossus-2": 4},
        {"colossus-2": 6},
        {"colossus-2": 5},
    ]
