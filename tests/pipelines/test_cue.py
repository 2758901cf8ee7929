import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from pipelines.cue import HISTORY, Cue, change_index, cue, flagged_at, last_sharp_image
from pipelines.errors import SceneError
from pipelines.pictures import cue_picture
from pipelines.scenes.stac import StacSource
from pipelines.sites import Site
from tests.pipelines.conftest import FileServer
from tests.pipelines.simulated_sentinel import BROKEN, CLOUDED, HALF_CLOUDED, a_site, write_band, write_catalog
from tests.pipelines.simulated_years import days, simulate

# On simulated series


def judged(seed: int, cover: str, start: date, becomes: str | None = None, broken: date | None = None) -> int | None:
    """Days from breaking ground (or from the first date) to the date on which the change was sure; None: never."""
    kept, series = simulate(np.random.default_rng([seed, 3]), days(73, start), cover, becomes, broken)
    history = np.arange(len(kept)) < HISTORY
    index, _, _ = change_index(series, history)
    found = flagged_at(index.tolist(), [False] * len(kept), (~history).tolist())
    return None if found is None else (kept[found[1]] - (broken or kept[0])).days


@pytest.mark.parametrize("cover", ["grass", "wood", "soil", "asphalt"])
def test_a_year_without_building_raises_no_alarm_in_49_of_50_zones(cover: str) -> None:
    starts = (date(2025, 1, 3), date(2025, 6, 1))
    alarms = [judged(seed, cover, start) is not None for seed in range(25) for start in starts]
    assert sum(alarms) <= 1


def test_a_field_that_is_harvested_late_is_taken_for_broken_ground_in_at_most_one_year_of_five() -> None:
    starts = (date(2025, 1, 3), date(2025, 6, 1))
    alarms = [judged(seed, "crop", start) is not None for seed in range(25) for start in starts]
    assert np.mean(alarms) <= 0.2


@pytest.mark.parametrize(
    ("cover", "becomes", "broken", "median_days"),
    [
        ("grass", "soil", date(2025, 11, 15), 25),
        ("wood", "soil", date(2025, 4, 15), 25),
        ("soil", "concrete", date(2025, 4, 15), 35),
        ("soil", "roof", date(2025, 4, 15), 25),
    ],
)
def test_building_is_noticed_within_weeks(cover: str, becomes: str, broken: date, median_days: int) -> None:
    start = date(2025, 1, 3) if broken < date(2025, 6, 1) else date(2025, 6, 1)
    delays = [judged(seed, cover, start, becomes, broken) for seed in range(20)]
    noticed = [delay for delay in delays if delay is not None]
    assert len(noticed) >= 18
    assert np.median(noticed) <= median_days
    assert min(noticed) >= 0


def test_an_offset_that_a_catalog_declares_wrongly_on_some_dates_changes_no_index() -> None:
    kept, series = simulate(np.random.default_rng(5), days(40), "grass")
    history = np.arange(len(kept)) < HISTORY
    # Brightness alone feels an offset; the differences of two bands do not.
    wrong = np.zeros((len(kept), 1))
    wrong[HISTORY + 2 :] = 0.1
    shifted = replace(
        series,
        zone=series.zone + wrong * (1, 0, 0),
        patches=series.patches + (wrong * (1, 0, 0))[:, None],
    )
    assert change_index(shifted, history)[1] == pytest.approx(change_index(series, history)[1], abs=1e-9)
    assert np.nanmax(change_index(shifted, history)[0][HISTORY:]) < 5


def test_a_flag_takes_two_dates_in_a_row_or_one_far_beyond() -> None:
    sure, never = [False] * 6, [True] * 6
    assert flagged_at([0, 6, 1, 6, 7, 0], sure, never) == (3, 4)
    assert flagged_at([0, 6, 1, 6, 1, 6], sure, never) is None
    assert flagged_at([0, 1, 12, 0, 0, 0], sure, never) == (2, 2)
    assert flagged_at([0, 6, 12, 0, 0, 0], sure, never) == (1, 2)
    # Where the scene classes see a cloud, one date is never enough.
    assert flagged_at([0, 1, 12, 0, 0, 0], [True] * 6, never) is None
    assert flagged_at([0, 1, 12, 12, 0, 0], [True] * 6, never) == (2, 3)
    assert flagged_at([9, 9, 9, 1, 1, 1], sure, [False] * 3 + [True] * 3) is None
    # A date that was not clear is no date between.
    assert flagged_at([0, 6, float("nan"), 6, 0, 0], sure, never) == (1, 3)


# Through a catalog on a web server


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    folder = tmp_path_factory.mktemp("sentinel")
    write_catalog(folder)
    server = FileServer(folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def found(sentinel: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Cue:
    source = StacSource(f"{sentinel.url}/catalog.json", cache=tmp_path_factory.mktemp("cache"))
    return cue(a_site(), source, since=date(2025, 4, 1))


def test_the_zone_whose_ground_was_broken_is_flagged_and_the_other_is_not(found: Cue) -> None:
    broken, alone = found.zones
    assert broken.flagged
    assert broken.first is not None
    assert BROKEN <= broken.first <= BROKEN + timedelta(days=15)
    assert broken.reason == (
        "worth buying a sharp image now: ground was broken (vegetation went, and the ground became brighter or bare)"
    )
    assert not alone.flagged
    assert "no change above" in alone.reason
    assert found.flagged


def test_clouded_dates_are_no_dates_of_a_zone_under_them(found: Cue) -> None:
    broken, alone = found.zones
    for day in CLOUDED:
        assert day not in {look.date for zone in found.zones for look in zone.looks}
    assert HALF_CLOUDED not in {look.date for look in broken.looks}
    assert HALF_CLOUDED in {look.date for look in alone.looks}
    assert all(look.history == (look.date < date(2025, 4, 1)) for look in broken.looks)


def test_the_answer_says_that_it_is_rendered_what_it_cannot_see_and_whose_imagery_it_is(found: Cue) -> None:
    record = json.loads(json.dumps(found.as_record()))
    assert record["rendered"] is True
    assert record["worth_a_sharp_image"] is True
    assert "no chiller" in record["cannot_see"]
    assert "false alarm" in record["measured"]
    assert record["licences"] == ["CC0-1.0"]
    look = record["zones"][0]["looks"][-1]
    assert set(look["noise"]) == {"brightness", "greenness", "bareness"}
    assert min(look["noise"].values()) >= 0.004


def test_a_picture_is_drawn_in_both_forms(found: Cue) -> None:
    assert cue_picture(found).startswith(b"\x89PNG")
    svg = cue_picture(found, "svg").decode()
    assert "<svg" in svg


def test_before_ground_is_broken_nothing_is_flagged(sentinel: FileServer, tmp_path: Path) -> None:
    source = StacSource(f"{sentinel.url}/catalog.json", cache=tmp_path)

    class Earlier:
        name, problems = source.name, ()

        def search(self, site: Site, start: date | None = None, end: date | None = None) -> Any:
            return source.search(site, start, BROKEN - timedelta(days=1))

    assert not cue(a_site(), Earlier(), since=date(2025, 3, 20)).flagged  # type: ignore[arg-type]


def test_a_scene_that_cannot_be_read_is_left_out_and_named(sentinel: FileServer, tmp_path: Path) -> None:
    source = StacSource(f"{sentinel.url}/catalog.json", cache=tmp_path)
    sentinel.status["/S2_20250512_nir.tif"] = sentinel.status["/S2_20250503_nir.tif"] = [404] * 50
    try:
        found = cue(a_site(), source, since=date(2025, 4, 1))
    finally:
        sentinel.status.clear()
    assert any(note.startswith("S2_20250503 was left out: ") for note in found.notes)
    assert found.zones[0].flagged


def test_a_source_without_the_bands_is_refused(tmp_path: Path) -> None:
    from pipelines.settings import SAMPLE_CATALOG, Settings
    from pipelines.sites import load_site

    source = StacSource(str(SAMPLE_CATALOG), cache=tmp_path, name="sample")
    with pytest.raises(SceneError, match="none with the bands of Sentinel-2 surface reflectance"):
        cue(load_site("southaven", Settings().aoi), source)


def test_a_bright_roof_that_is_taken_for_a_cloud_is_looked_at_all_the_same(
    sentinel: FileServer, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(sentinel.folder, folder)
    for path in sorted(folder.glob("S2_*_scl.tif")):
        day = date.fromisoformat(path.name.split("_")[1])
        if day < BROKEN or day in (*CLOUDED, HALF_CLOUDED):
            continue
        for band, value in (
            ("scl", 9),
            ("blue", 5500),
            ("green", 5700),
            ("red", 5800),
            ("nir", 6000),
            ("swir16", 5400),
        ):
            with rasterio.open(folder / f"S2_{day:%Y%m%d}_{band}.tif") as raster:
                values = raster.read(1)
            values[57:73, 57:73] = value
            write_band(folder / f"S2_{day:%Y%m%d}_{band}.tif", values)
    found = cue(a_site(), StacSource(str(folder / "catalog.json"), cache=tmp_path / "cache"), since=date(2025, 4, 1))
    roof, alone = found.zones
    assert roof.flagged
    assert "brighter" in roof.reason
    assert {look.date for look in roof.looks if look.doubtful} >= {date(2025, 4, 23), date(2025, 5, 23)}
    assert not alone.flagged


def test_the_last_sharp_image_is_the_latest_photograph(tmp_path: Path) -> None:
    site = a_site()
    assert last_sharp_image(tmp_path, site) is None
    for day, rendered in (("2025-01-05", False), ("2025-03-01", False), ("2025-09-01", True)):
        folder = tmp_path / site.id / day / "s"
        folder.mkdir(parents=True)
        (folder / "item.json").write_text(json.dumps({"properties": {"overwatt:rendered": rendered}}))
    assert last_sharp_image(tmp_path, site) == date(2025, 3, 1)
