"""The command line as a user meets it: exit codes, one sentence on stderr, one JSON document on stdout."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from flows.cli import main
from tests.flows.conftest import Overwatt, Place


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
        (["scenes", "colossus-2", "--source", "local:missing"], "missing"),
        (["sites", "new", "x"], "--bounds"),
        (["sites", "new", "x", "--bounds", "1", "2", "3"], "--bounds"),
        (["sites", "new", "x", "--bounds", "-90", "35", "-91", "36"], "west south east north"),
        (["serve", "--cron", "monday"], "--cron"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("overwatt: ")
    assert said in line


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
