"""An archive is read back as it was written, and what is broken is named."""

import json
import math
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from pipelines.coregistration import DOCUMENT, Shift, _as_record, _write_document, read_shifts
from pipelines.errors import ArchiveError
from pipelines.layers.archive import COLUMNS, read_archive, read_run
from tests.pipelines.made_up_archive import add_run, real_site

FIRST, SECOND = date(2025, 8, 22), date(2025, 10, 19)
NO_FIGURES = json.dumps(
    {
        "runs": {
            "2025-08-22/scene": asdict(Shift(math.nan, 0.0, 0.0, "2025-08-22/scene", "EPSG:32616")),
            "2025-10-19/scene": asdict(Shift(0.0, 0.0, 0.0, "2025-08-22/scene", "EPSG:32616")),
        }
    }
)


def test_detections_come_back_with_every_column(tmp_path: Path) -> None:
    add_run(tmp_path, day=FIRST, air_cooled_chiller=3, roof_lettering=1, scene_fields={"released": date(2025, 9, 1)})
    frame = read_archive(tmp_path).detections
    assert list(frame.columns) == [*COLUMNS, "geometry"]
    assert frame.crs == "EPSG:4326"
    chiller, word = frame.iloc[0], frame.iloc[3]
    document = json.loads((tmp_path / "colossus-2/2025-08-22/scene/detections.geojson").read_text())
    assert list(frame["detection_id"]) == [feature["id"] for feature in document["features"]]
    assert (chiller["class"], chiller["fan_count"], chiller["campus"]) == (
        "air_cooled_chiller",
        20,
        "memphis-southaven",
    )
    assert chiller["acquired"] == pd.Timestamp("2025-08-22T16:45Z")
    assert (chiller["released"], chiller["licence"], chiller["attribution"]) == (
        date(2025, 9, 1),
        "CC-BY-4.0",
        "Someone",
    )
    assert pd.isna(chiller["acquired_earliest"])
    assert pd.isna(chiller["text"])
    assert word["text"] == "WORD3"
    assert real_site("colossus-2").perimeter.contains(chiller.geometry)


def test_columns_keep_their_types_where_there_is_nothing(tmp_path: Path) -> None:
    add_run(tmp_path)
    frame = read_archive(tmp_path).detections
    assert len(frame) == 0
    assert {name: str(dtype) for name, dtype in frame.dtypes.items() if name != "geometry"} == {
        name: str(pd.Series(dtype=dtype).dtype) for name, dtype in COLUMNS.items()
    }


def test_a_run_stands_until_the_next_date_of_its_site(tmp_path: Path) -> None:
    add_run(tmp_path, day=FIRST, battery=1)
    add_run(tmp_path, day=SECOND, battery=2)
    add_run(tmp_path, "southaven", date(2025, 9, 1), gas_turbine=1)
    runs = read_archive(tmp_path).runs
    spans = [(run.site, run.valid_from, run.valid_until) for run in runs]
    assert spans == [
        ("colossus-2", datetime(2025, 8, 22, tzinfo=UTC), datetime(2025, 10, 18, 23, 59, 59, tzinfo=UTC)),
        ("colossus-2", datetime(2025, 10, 19, tzinfo=UTC), None),
        ("southaven", datetime(2025, 9, 1, tzinfo=UTC), None),
    ]
    assert [run.detections["valid_until"].isna().all() for run in runs] == [False, True, True]


def test_of_two_scenes_of_a_day_the_better_one_is_chosen(tmp_path: Path) -> None:
    add_run(tmp_path, scene="half", covered=0.5, battery=3)
    add_run(tmp_path, scene="whole", gsd_m=0.5, battery=2)
    add_run(tmp_path, scene="whole-and-sharp", battery=1)
    chosen = {run.scene_id: run.chosen for run in read_archive(tmp_path).runs}
    assert chosen == {"half": False, "whole": False, "whole-and-sharp": True}


def test_units_keep_their_identity_where_the_shifts_are_known(tmp_path: Path) -> None:
    for day, count in ((FIRST, 2), (SECOND, 3)):
        add_run(tmp_path, day=day, battery=count, probabilities=(0.9,))
    assert read_archive(tmp_path).detections["unit_id"].isna().all()
    shift = {"east_m": 0.0, "north_m": 0.0, "accuracy_m": 0.0, "reference": "2025-08-22/scene", "crs": "EPSG:32616"}
    shift |= {"patches": 9, "share": 1.0}
    entries = {f"{day}/scene": _as_record(Shift(**shift)) for day in (FIRST, SECOND)}
    _write_document(tmp_path / "colossus-2" / DOCUMENT, real_site("colossus-2"), entries)
    frame = read_archive(tmp_path).detections
    assert list(frame["unit_id"][:2]) == list(frame["unit_id"][2:4])
    assert frame["unit_id"].nunique() == 3
    assert list(frame["first_seen"]) == [FIRST] * 4 + [SECOND]
    assert list(frame["last_seen"]) == [SECOND] * 5


def test_the_only_run_of_a_site_needs_no_shift(tmp_path: Path) -> None:
    add_run(tmp_path, battery=2)
    assert read_archive(tmp_path).detections["unit_id"].nunique() == 2


@pytest.mark.parametrize(
    "text", ["{", '{"runs": []}', '{"runs": {"2025-08-22/scene": {"east_m": 1}}}', '{"runs": {"x": 3}}', NO_FIGURES]
)
def test_a_damaged_document_of_shifts_is_named_and_takes_no_other_site_with_it(text: str, tmp_path: Path) -> None:
    for day in (FIRST, SECOND):
        add_run(tmp_path, day=day, battery=2)
    add_run(tmp_path, "southaven", FIRST, gas_turbine=1)
    path = tmp_path / "colossus-2" / DOCUMENT
    path.write_text(text)
    archive = read_archive(tmp_path)
    [said] = archive.faults
    assert f"units of colossus-2 are not followed from date to date: {path} is damaged" in said
    assert archive.broken == ()
    frame = archive.detections
    assert list(frame["unit_id"].notna()) == list(frame["site"] == "southaven")
    # Where the site is known they are measured anew, as the remedy says.
    assert read_archive(tmp_path, [real_site("colossus-2")]).faults == ()
    assert set(read_shifts("colossus-2", tmp_path)) == {f"{day}/scene" for day in (FIRST, SECOND)}


def test_shifts_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    for day in (FIRST, SECOND):
        add_run(tmp_path, day=day, battery=2)
    # Not by its rights, which root passes over.
    (tmp_path / "colossus-2" / DOCUMENT).mkdir()
    [said] = read_archive(tmp_path, [real_site("colossus-2")]).faults
    assert "cannot be written" in said


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("census.json", None, "census.json is missing"),
        ("detections.geojson", '{"type": "Feature', "not JSON"),
        ("estimate.json", "{}", "damaged or of another version"),
        ("item.json", '{"properties": {"overwatt:site": "elsewhere"}}', "another version|different runs"),
        ("detections.geojson", '{"features": [], "overwatt": {"scene_id": "x", "site": "y"}}', "different runs"),
    ],
)
def test_a_broken_run_is_named_and_takes_nothing_with_it(
    name: str, text: str | None, reason: str, tmp_path: Path
) -> None:
    add_run(tmp_path, day=FIRST, battery=1)
    broken = add_run(tmp_path, day=SECOND, battery=1)
    if text is None:
        (broken / name).unlink()
    else:
        (broken / name).write_text(text)
    archive = read_archive(tmp_path)
    assert [run.date for run in archive.runs] == [FIRST]
    [left_out] = archive.broken
    assert left_out.folder == broken
    assert "overwatt run colossus-2 --date 2025-10-19" in str(left_out)
    with pytest.raises(ArchiveError, match=reason):
        read_run(broken)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("item.json", "geometry"),
        ("item.json", "bbox"),
        ("item.json", "links"),
        ("item.json", "stac_extensions"),
        ("item.json", "properties/title"),
        ("item.json", "properties/license"),
        ("estimate.json", "notes"),
        ("estimate.json", "accelerator"),
        ("estimate.json", "cooling_mw"),
        ("estimate.json", "cooling_mw/p5"),
    ],
)
def test_a_run_that_lacks_what_layers_and_sinks_take_from_it_is_broken(name: str, field: str, tmp_path: Path) -> None:
    path = add_run(tmp_path, air_cooled_chiller=3) / name
    document = json.loads(path.read_text())
    *within, last = field.split("/")
    del (document[within[0]] if within else document)[last]
    path.write_text(json.dumps(document))
    with pytest.raises(ArchiveError, match="damaged"):
        read_run(path.parent)


def test_an_archive_without_runs_is_said_in_one_sentence(tmp_path: Path) -> None:
    for archive in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArchiveError, match="holds no run yet; count a site"):
            read_archive(archive)
    folder = add_run(tmp_path)
    (folder / "item.json").unlink()
    with pytest.raises(ArchiveError, match=r"no run of .* can be read; the first of 1"):
        read_archive(tmp_path)
