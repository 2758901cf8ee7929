import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rasterio import Affine

from flows.cli import main
from pipelines.errors import NoSceneError, SourceError
from pipelines.scenes.dates import parse_days
from pipelines.scenes.library import LibrarySource, Statement, ingest
from pipelines.scenes.local import LocalSource
from pipelines.scenes.selection import Limits
from pipelines.scenes.several import SeveralSources, open_sources
from pipelines.sites import Site, new_site
from tests.pipelines.scenes.conftest import CENTRE, MakeRaster, area_around, noise


def write_catalog(folder: Path, image: Path, name: str, **properties: Any) -> str:
    """A catalog of one scene, as a foreign source."""
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": json.loads(json.dumps(area_around(half_x_m=30, half_y_m=24).__geo_interface__)),
        "properties": {"datetime": "2025-08-22T16:31:05Z", "gsd": 0.3} | properties,
        "links": [],
        "assets": {"image": {"href": str(image), "type": "image/tiff"}},
    }
    folder.mkdir()
    (folder / "item.json").write_text(json.dumps(item))
    return f"stac:{folder / 'item.json'}"


def test_scenes_of_all_sources_come_in_one_list_and_are_fetched_from_their_own(
    make_raster: MakeRaster, site: Site, tmp_path: Path
) -> None:
    make_raster("one/a_20250822.tif")
    make_raster("two/b_20250101.tif")
    source = open_sources(f"local:{tmp_path / 'one'}; local:{tmp_path / 'two'}", cache=tmp_path / "cache")
    found = source.search(site)
    assert [(scene.id, scene.source) for scene in found] == [("b_20250101", "local:two"), ("a_20250822", "local:one")]
    for scene in found:
        assert source.fetch(scene, site.perimeter).scene.id == scene.id
    assert [scene.id for scene in source.search(site, date(2025, 8, 1))] == ["a_20250822"]


def test_the_same_scene_offered_twice_is_counted_once(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    image = make_raster("one/a_20250822.tif")
    again = write_catalog(tmp_path / "stac", image, "vendor-name")
    make_raster("two/a_20250822.tif")
    source = open_sources(f"local:{image.parent}; {again}; local:{tmp_path / 'two'}", cache=tmp_path / "cache")
    assert [(scene.id, scene.source) for scene in source.search(site)] == [("a_20250822", "local:one")]
    assert [problem.reason for problem in source.problems] == ["local:one offers the same scene"] * 2


def test_tiles_whose_date_stands_behind_the_question_mark_are_scenes_of_their_own(site: Site, tmp_path: Path) -> None:
    template = "https://tiles.example/{z}/{x}/{y}.png?time={date}"
    described = {"template": template, "licence": "bought", "dates": ["2025-08-22", "2025-09-01"]}
    (tmp_path / "dated.json").write_text(json.dumps(described))
    source = open_sources(f"tiles:{tmp_path / 'dated.json'}", cache=tmp_path, limits=Limits(max_gsd_m=2))
    assert [f"{scene.acquired:%Y-%m-%d}" for scene in source.search(site)] == ["2025-08-22", "2025-09-01"]


@pytest.mark.parametrize("licence", [None, "MIT"])
@pytest.mark.parametrize("others", ["", "; local:gone"])
def test_no_message_holds_the_key_of_an_address(licence: str | None, others: str, tmp_path: Path) -> None:
    for spec in (
        "tiles:https://u:secret@h/{z}/{x}/{y}?key=secret",
        "https://u:secret@h/?key=secret",
        "stac:https://u:secret@[h/?key=secret",
    ):
        with pytest.raises(SourceError) as refused:
            open_sources(spec + others, cache=tmp_path, licence=licence)
        assert "secret" not in str(refused.value)
    mixed = open_sources("sample; tiles:https://u:secret@h/{z}/{x}/{y}?key=secret", cache=tmp_path)
    assert isinstance(mixed, SeveralSources)
    assert "secret" not in str(mixed.failures)


def test_different_images_of_one_name_and_day_are_told_apart(
    make_raster: MakeRaster, site: Site, tmp_path: Path
) -> None:
    make_raster("one/a_20250822.tif")
    make_raster("two/a_20250822.tif", transform=Affine(0.6, 0, CENTRE[0] - 60, 0, -0.6, CENTRE[1] + 48))
    source = open_sources(f"local:{tmp_path / 'one'};local:{tmp_path / 'two'}", cache=tmp_path / "cache")
    found = source.search(site)
    assert len({scene.id for scene in found}) == 2
    assert sorted(round(source.fetch(scene, site.perimeter).scene.gsd_m, 1) for scene in found) == [0.3, 0.6]


def test_a_source_that_fails_is_named_and_hides_no_other(
    make_raster: MakeRaster, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_raster("one/a_20250822.tif")
    (tmp_path / "broken.json").write_text("{")
    specs = f"stac:{tmp_path / 'broken.json'}; local:{tmp_path / 'one'}; local:{tmp_path / 'gone'}; nonsense"
    source = open_sources(specs, cache=tmp_path / "cache")
    assert isinstance(source, SeveralSources)
    assert [scene.id for scene in source.search(site)] == ["a_20250822"]
    assert len(source.failures) == 3
    for named in ("broken.json", "gone", "nonsense"):
        assert sum(named in failure.reason for failure in source.failures) == 1
        assert named in caplog.text


def test_nothing_anywhere_and_no_source_at_all_differ(make_raster: MakeRaster, site: Site, tmp_path: Path) -> None:
    make_raster("one/a_20250822.tif")
    (tmp_path / "broken.json").write_text("{")
    broken = f"stac:{tmp_path / 'broken.json'}"
    some = open_sources(f"local:{tmp_path / 'one'};{broken}", cache=tmp_path / "cache")
    with pytest.raises(NoSceneError, match="it has 2025-08-22"):
        some.search(site, date(2026, 1, 1))
    with pytest.raises(SourceError, match=r"none of the sources can be searched: nonsense.*; stac:.*broken.json"):
        open_sources(f"{broken};nonsense", cache=tmp_path / "cache").search(site)
    with pytest.raises(SourceError, match=r"nonsense.*rubbish"):
        open_sources("nonsense;rubbish", cache=tmp_path / "cache")
    with pytest.raises(SourceError, match="several sources; a date or a licence"):
        open_sources(f"local:{tmp_path / 'one'};sample", cache=tmp_path, licence="MIT")


def test_one_source_is_itself_and_limits_hold_for_every_kind(
    make_raster: MakeRaster, site: Site, tmp_path: Path
) -> None:
    make_raster("one/a_20250822.tif")
    spec = f"local:{tmp_path / 'one'}"
    assert isinstance(open_sources(f"{spec};{spec};", cache=tmp_path), LocalSource)
    assert open_sources(spec, cache=tmp_path, limits=Limits(max_gsd_m=0.3001)).search(site)
    with pytest.raises(NoSceneError, match=r"local:one has no scene of site memphis with a GSD of at most 0.2 m"):
        open_sources(spec, cache=tmp_path, limits=Limits(max_gsd_m=0.2)).search(site)
    with pytest.raises(SourceError, match="is no imagery source"):
        open_sources("", cache=tmp_path)


def test_the_command_lists_every_source(
    make_raster: MakeRaster, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    aoi = tmp_path / "aoi"
    aoi.mkdir()
    new_site("memphis", area_around(), aoi, source="made up for a test")
    said = Statement(source="Airbus", acquired=parse_days("2025-03"), released=date(2025, 4, 2), cloud_cover_percent=4)
    ingest(tmp_path / "library", make_raster("image.tif"), site, said)
    make_raster("one/a_20250822.tif", 255 - noise(3))
    for name, value in {
        "AOI": aoi,
        "LIBRARY": tmp_path / "library",
        "CACHE": tmp_path / "cache",
        "ARCHIVE": tmp_path / "archive",
        "SOURCE": f"library; local:{tmp_path / 'one'}; local:{tmp_path / 'gone'}",
    }.items():
        monkeypatch.setenv(f"OVERWATT_{name}", str(value))
    run = tmp_path / "archive" / "memphis" / "2025-08-22" / "a_20250822"
    run.mkdir(parents=True)
    (run / "census.json").write_text('{"model_version": "detector-1"}')

    assert main(["scenes", "memphis", "--json"]) == 0
    captured = capsys.readouterr()
    listed = json.loads(captured.out)
    first, second = listed["scenes"]
    assert (first["acquired_earliest"], first["acquired"]) == ("2025-03-01T00:00:00Z", "2025-03-31T00:00:00Z")
    assert (first["released"], first["price"], first["cloud_cover_percent"]) == ("2025-04-02", "owned", 4)
    assert (first["source"], first["counted_by"], first["parts"]) == ("library:Airbus", None, [])
    assert (second["source"], second["counted_by"], second["released"]) == ("local:one", "detector-1", None)
    assert "gone" in listed["sources_that_failed"][0]["reason"]
    [line] = captured.err.splitlines()
    assert "gone is left out" in line

    assert main(["scenes", "memphis", "--since", "2025-03-20", "--until", "2025-04-01"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "owned" in shown
    assert "a_20250822" not in shown
    assert main(["scenes", "memphis", "--max-gsd", "0.1", "--json"]) == 0
    assert "no scene of site memphis with a GSD of at most 0.1 m" in json.loads(capsys.readouterr().out)["nothing"]
    assert main(["scenes", "memphis", "--source", "library"]) == 0
    assert main(["scenes", "memphis", "--source", "local:gone;nonsense"]) == 2
    assert isinstance(open_sources("library", cache=tmp_path), LibrarySource)
