"""Timeline: what changed is told from noise, speed and projection follow the dates, and a campus works as one."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from models.detector.card import RecallPoint
from pipelines.census import Census, Interval, draw_counts
from pipelines.documents import json_text
from pipelines.errors import ArchiveError, EstimateError
from pipelines.settings import ROOT
from pipelines.sites import KnownDate, load_site
from pipelines.timeline import Change, Timeline, read_censuses, read_timeline, timeline
from tests.pipelines.made_up import CHILLER, DRAWS, census, site

FIRST, SECOND, THIRD = date(2025, 3, 1), date(2025, 8, 22), date(2026, 1, 10)
RECALL = {CHILLER: (RecallPoint(0.3, 95, 100),), "cooling_tower": (RecallPoint(0.3, 90, 100),)}


def of(*censuses: Census, **how: object) -> Timeline:
    return timeline("here", [(site(), censuses)], draws=DRAWS, **how)  # type: ignore[arg-type]


def change(result: Timeline, what: str, end: date = SECOND) -> Change:
    return next(one for one in result.changes if one.what == what and one.end == end)


def span(interval: Interval) -> float:
    return interval.p95 - interval.p5


def test_a_build_that_doubles_is_real() -> None:
    result = of(
        census(day=FIRST, recall=RECALL, air_cooled_chiller=60),
        census(day=SECOND, recall=RECALL, air_cooled_chiller=119),
    )
    assert [moment.date for moment in result.moments] == [FIRST, SECOND]
    chillers, it = change(result, CHILLER), change(result, "it_mw")
    assert chillers.real > 0.99
    assert 45 < chillers.by.p50 < 75
    assert it.more > 0.99
    before, after = (moment.figures["it_mw"].p50 for moment in result.moments)
    assert it.by.p50 == pytest.approx(after - before, rel=0.1)
    # A kind of equipment that never stood there is no change.
    assert not any(one.what in ("gas_turbine", "generation_mw") for one in result.changes)


def test_the_same_count_twice_is_noise_and_the_common_inputs_cancel() -> None:
    same = [census(day=day, recall=RECALL, probability=0.9, air_cooled_chiller=119) for day in (FIRST, SECOND)]
    result = of(*same)
    assert change(result, CHILLER).real < 0.75
    assert change(result, "it_mw").by.p5 < 0 < change(result, "it_mw").by.p95
    assert span(change(result, "it_mw").by) < 0.7 * span(result.moments[0].figures["it_mw"])


def test_sizes_are_measured_anew_in_each_scene() -> None:
    taken = [census(day=day, air_cooled_chiller=119) for day in (FIRST, SECOND)]
    change_of_it = change(of(*taken), "it_mw").by
    # Nothing missed, nothing imagined: what is left of noise is the measuring of 13 m at 0.3 m a pixel.
    assert change_of_it.p5 < -1
    assert change_of_it.p95 > 1
    named = [replace(one, by_class={CHILLER: replace(one.by_class[CHILLER], median_length_m=None)}) for one in taken]
    assert change(of(*named), "it_mw").by == Interval(0, 0, 0)


def test_equipment_that_goes_is_seen_to_go() -> None:
    result = of(
        census(day=FIRST, recall=RECALL, air_cooled_chiller=119),
        census(day=SECOND, recall=RECALL, air_cooled_chiller=10, cooling_tower=40),
        at=[date(2027, 1, 1)],
        reach_mw=[2000],
    )
    assert change(result, CHILLER).less > 0.99
    assert change(result, "cooling_tower").more > 0.99
    assert change(result, "it_mw").less > 0.5
    assert result.projection is not None
    assert result.projection.at[date(2027, 1, 1)].p5 == 0
    probability, days = result.projection.reaches[2000]
    assert probability < 0.5
    assert days is None or days[0] > SECOND


def test_speed_counts_from_ground_break_and_knows_no_more_than_the_dates() -> None:
    begun = KnownDate(date(2024, 9, 1), "land clearing", "a report")
    here = site(known_dates=(begun,), accelerator="GB200")
    dates = [census(day=day, air_cooled_chiller=count) for day, count in ((FIRST, 30), (SECOND, 200), (THIRD, 200))]
    result = timeline("here", [(here, dates)], draws=DRAWS)
    assert result.ground_break == begun
    hundred, two_hundred, five_hundred = result.reached
    assert (hundred.mw, two_hundred.mw, five_hundred.mw) == (100, 200, 500)
    assert hundred.probability > 0.99
    assert hundred.months is not None
    first, second = ((day - begun.date).days / 30.4375 for day in (FIRST, SECOND))
    assert hundred.months.p50 == pytest.approx((first + second) / 2, rel=0.05)
    assert hundred.months.p95 - hundred.months.p5 == pytest.approx(0.9 * (second - first), rel=0.1)
    assert five_hundred.probability < 0.3


def test_looking_often_does_not_reach_more() -> None:
    begun = KnownDate(date(2024, 9, 1), "land clearing", "a report")
    dates = [date(2025, 1, day) for day in range(1, 13)]
    same = [census(day=day, recall=RECALL, probability=0.9, air_cooled_chiller=119) for day in dates]
    once, often = (
        timeline("here", [(site(known_dates=(begun,)), some)], draws=DRAWS).reached[1].probability
        for some in (same[:1], same)
    )
    assert 0.2 < once < 0.8
    assert often == pytest.approx(once, abs=0.05)


def test_a_projection_goes_on_at_the_last_pace_within_an_interval() -> None:
    later = date(2026, 2, 1)
    result = of(
        census(day=FIRST, air_cooled_chiller=60),
        census(day=SECOND, air_cooled_chiller=120),
        at=[SECOND, later],
        reach_mw=[1, 300],
    )
    projection = result.projection
    assert projection is not None
    assert (projection.start, projection.end) == (FIRST, SECOND)
    now = result.moments[-1].figures["it_mw"]
    assert projection.at[SECOND] == now
    months = (later - SECOND).days / 30.4375
    assert projection.at[later].p50 == pytest.approx(now.p50 + months * projection.per_month.p50, rel=0.05)
    assert span(projection.at[later]) > span(now)
    assert projection.reaches[1] == (1.0, (SECOND, SECOND, SECOND))
    probability, days = projection.reaches[300]
    assert probability > 0.9
    assert days is not None
    assert SECOND < days[0] < days[1] < days[2]


def test_dates_too_close_together_give_no_pace() -> None:
    result = of(
        census(day=FIRST, air_cooled_chiller=60), census(day=date(2025, 3, 9), air_cooled_chiller=70), at=[THIRD]
    )
    assert result.projection is None
    assert any("nothing is projected" in note for note in result.notes)


def test_a_projection_looks_ahead() -> None:
    with pytest.raises(EstimateError, match="2025-03-01 lies before 2025-08-22, the last date of here"):
        of(census(day=FIRST, air_cooled_chiller=60), census(day=SECOND, air_cooled_chiller=70), at=[FIRST])


def test_what_is_not_given_is_no_change() -> None:
    result = of(
        census(day=FIRST, air_cooled_chiller=60),
        census(day=SECOND, not_given={CHILLER: "too coarse"}),
        census(day=THIRD, air_cooled_chiller=60),
    )
    assert "it_mw" not in result.moments[1].figures
    assert CHILLER not in result.moments[1].counts
    assert any(f"{CHILLER} is not given on {SECOND} (too coarse)" in note for note in result.notes)
    [only] = [one for one in result.changes if one.what == CHILLER]
    assert (only.start, only.end) == (FIRST, THIRD)


def test_a_plant_feeds_the_halls_of_its_campus() -> None:
    hall, plant = (replace(site(campus="both"), id=name) for name in ("hall", "plant"))
    halls = [census(day=day, of="hall", air_cooled_chiller=119) for day in (FIRST, THIRD)]
    plants = [census(day=SECOND, of="plant", gas_turbine=4)]
    result = timeline("both", [(hall, halls), (plant, plants)], draws=DRAWS)
    assert [moment.date for moment in result.moments] == [FIRST, SECOND, THIRD]
    assert result.moments[1].scenes == {"hall": f"hall-{FIRST}", "plant": f"plant-{SECOND}"}
    assert result.moments[2].counts[CHILLER].p50 == 119
    assert result.moments[2].counts["gas_turbine"].p50 == 4
    alone, fed = result.moments[0].figures, result.moments[1].figures
    assert fed["generation_mw"].p50 > 60
    # Four turbines of 16 to 39 MW feed less than the chillers could cool.
    assert fed["it_mw"].p95 < alone["it_mw"].p50
    assert fed["gpus"].p50 / fed["it_mw"].p50 == pytest.approx(alone["gpus"].p50 / alone["it_mw"].p50, rel=0.05)
    assert any("not every site of the campus had been seen" in note for note in result.notes)


# The archive.


def written(archive: Path, one: Census) -> Path:
    folder = archive / one.site_id / f"{one.acquired:%Y-%m-%d}" / one.scene_id
    folder.mkdir(parents=True)
    (folder / "census.json").write_text(json_text(one.as_record()), encoding="utf-8")
    return folder / "census.json"


def test_a_census_comes_back_from_its_file() -> None:
    before = census(day=FIRST, recall=RECALL, probability=0.8, air_cooled_chiller=50, fans=22)
    after = Census.from_record(json.loads(json_text(before.as_record())))
    assert after == before
    assert np.array_equal(draw_counts(after, CHILLER, 500), draw_counts(before, CHILLER, 500))


def test_of_several_scenes_of_a_date_the_fullest_and_sharpest_counts(tmp_path: Path) -> None:
    for name, covered, gsd_m in (("part", 0.5, 0.15), ("coarse", 1.0, 0.5), ("sharp", 1.0, 0.3)):
        written(tmp_path, replace(census(day=FIRST, covered=covered, gsd_m=gsd_m), scene_id=name))
    written(tmp_path, census(day=SECOND, covered=0.5))
    first, second = read_censuses(tmp_path, site())
    assert first.scene_id == "sharp"
    result = read_timeline(site(), tmp_path)
    assert any(f"not all of the perimeter is seen on {SECOND} (50%)" in note for note in result.notes)
    assert second.acquired.date() == SECOND


def test_an_archive_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"holds no run of here yet; count one with overwatt run here"):
        read_timeline(site(), tmp_path)
    here = load_site("colossus-2", ROOT / "aoi")
    with pytest.raises(ArchiveError, match=r"holds no run of any site of the campus memphis-southaven"):
        read_timeline(here, tmp_path, campus_of=ROOT / "aoi")


def test_a_campus_is_read_with_the_sites_that_were_seen(tmp_path: Path) -> None:
    written(tmp_path, census(day=SECOND, of="colossus-2", air_cooled_chiller=119))
    here = load_site("colossus-2", ROOT / "aoi")
    result = read_timeline(here, tmp_path, campus_of=ROOT / "aoi", reach_mw=[500])
    assert result.name == "memphis-southaven"
    assert any("no run of macrohardrr, southaven yet" in note for note in result.notes)
    record = json.loads(json_text(result.as_record()))
    assert record["moments"][0]["figures"]["it_mw"]["p50"] > 100


def test_a_site_file_from_elsewhere_belongs_to_its_campus(tmp_path: Path) -> None:
    written(tmp_path, census(day=SECOND, of="colossus-2", air_cooled_chiller=119))
    (tmp_path / "aoi").mkdir()
    result = read_timeline(load_site("colossus-2", ROOT / "aoi"), tmp_path, campus_of=tmp_path / "aoi")
    assert [one.id for one in result.sites] == ["colossus-2"]


def test_a_run_of_an_older_version_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = written(tmp_path, census(day=FIRST))
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["recall"]
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ArchiveError, match=r"another version .*overwatt run here --date 2025-03-01"):
        read_timeline(site(), tmp_path)


@pytest.mark.parametrize("text", ['{"counts": ["x"]}', "[]", "{", '{"counts": []}'])
def test_a_damaged_run_is_named(text: str, tmp_path: Path) -> None:
    written(tmp_path, census(day=FIRST)).write_text(text, encoding="utf-8")
    with pytest.raises(ArchiveError, match=r"census\.json is damaged or was written by another version"):
        read_timeline(site(), tmp_path)


@pytest.mark.parametrize("broken", [{"probabilities": {}}, {"probabilities": []}, {"acquired": "2025-03-01T00:00:00"}])
def test_a_census_that_lacks_what_its_draws_need_is_named(broken: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path, census(day=FIRST, air_cooled_chiller=5))
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | broken), encoding="utf-8")
    with pytest.raises(ArchiveError, match="is damaged or was written by another version"):
        read_timeline(site(), tmp_path)


@pytest.mark.parametrize("mw", [0, -5, float("nan"), float("inf")])
def test_a_capacity_that_makes_no_sense_is_refused(mw: float, tmp_path: Path) -> None:
    with pytest.raises(EstimateError, match="must be megawatts over zero"):
        read_timeline(site(), tmp_path, reach_mw=[mw])
