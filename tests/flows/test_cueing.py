"""Tip and cue through the command line and through Prefect."""

import json
from datetime import date
from pathlib import Path

import pytest
import shapely
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cueing import cue, cue_all
from tests.flows.conftest import Overwatt
from tests.pipelines.simulated_sentinel import a_site, write_catalog


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a site with two zones and the source of its simulated imagery."""
    folder = tmp_path_factory.mktemp("cue")
    (folder / "images").mkdir()
    (folder / "aoi").mkdir()
    catalog = write_catalog(folder / "images")
    site = a_site()
    perimeter = {"kind": "perimeter", "id": site.id, "name": site.name, "operator": "A", "campus": "here"}
    shapes = [(perimeter, site.perimeter)]
    shapes += [({"kind": "zone", "id": zone.id, "zone": zone.kind}, zone.geometry) for zone in site.zones]
    features = [
        {
            "type": "Feature",
            "properties": about | {"source": "made up", "quality": "proxy"},
            "geometry": shapely.geometry.mapping(shape),
        }
        for about, shape in shapes
    ]
    (folder / "aoi" / "here.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return {
        "OVERWATT_AOI": str(folder / "aoi"),
        "OVERWATT_ARCHIVE": str(folder / "archive"),
        "OVERWATT_CACHE": str(folder / "cache"),
        "source": f"stac:{catalog}",
    }


def test_the_command_says_which_zone_is_worth_a_sharp_image(
    overwatt: Overwatt, simulated: dict[str, str], tmp_path: Path
) -> None:
    picture = tmp_path / "cue.png"
    env = {name: value for name, value in simulated.items() if name.isupper()}
    asked = ("cue", "here", "--source", simulated["source"], "--since", "2025-04-01")
    done = overwatt(*asked, "--json", "--picture", picture, **env)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["rendered"] is True
    assert [zone["flagged"] for zone in document["zones"]] == [True, False]
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = overwatt(*asked, **env)
    assert shown.returncode == 0, shown.stderr
    for words in ("RENDERED", "worth buying a sharp image now", "no chiller"):
        assert words in " ".join(shown.stdout.split())


def test_a_source_without_bands_is_the_users_mistake(overwatt: Overwatt, simulated: dict[str, str]) -> None:
    done = overwatt("cue", "southaven", "--source", "sample", "--since", "2025-08-01", "--json")
    assert done.returncode == 2
    assert "none with the bands of Sentinel-2" in json.loads(done.stdout)["error"]
    wrong = overwatt("cue", "southaven", "--source", "sample", "--picture", "cue.gif")
    assert wrong.returncode == 2
    assert ".png or .svg" in wrong.stderr


def test_the_flow_leaves_a_table_and_a_fault_of_one_site_ends_the_round_failed(
    prefect_server: str, simulated: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in simulated.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        found = cue("here", simulated["source"], since=date(2025, 4, 1))
        assert found["worth_a_sharp_image"]
        # Nothing is counted yet and a year back there is no scene: every site is a fault.
        state = cue_all("sample", return_state=True)
    assert state.is_failed()
    assert "here: " in str(state.message)
