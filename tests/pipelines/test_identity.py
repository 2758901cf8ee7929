from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from pipelines.coregistration import Shift
from pipelines.identity import DatedUnits, identify_units

UTM = "EPSG:32615"
CORNER_M = (773_000.0, 3_872_000.0)
PITCH_M = 3.5
"""Chillers of a row, from middle to middle."""


def a_run(
    name: str,
    day: int,
    places_m: Sequence[tuple[float, float]],
    shift_m: tuple[float, float] | None = (0.0, 0.0),
    cls: str = "air_cooled_chiller",
    width_m: float = 2.36,
    probability: float = 0.9,
) -> DatedUnits:
    """Units seen by a scene that shows the ground `shift_m` away; (x, y) are metres in the reference scene."""
    east, north = shift_m or (0.0, 0.0)
    shapes = [
        box(x - width_m / 2, y - 6, x + width_m / 2, y + 6)
        for x, y in [(CORNER_M[0] + x + east, CORNER_M[1] + y + north) for x, y in places_m]
    ]
    frame = gpd.GeoDataFrame(
        {"class": [cls] * len(shapes), "width_m": width_m, "probability": probability}, geometry=shapes, crs=UTM
    )
    shift = None if shift_m is None else Shift(east, north, 0.2, "s0", UTM)
    return DatedUnits(name, datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day), frame.to_crs("OGC:CRS84"), shift)


def row(count: int, start: int = 0) -> list[tuple[float, float]]:
    return [(PITCH_M * i, 0.0) for i in range(start, start + count)]


def partition(runs: Sequence[DatedUnits]) -> set[frozenset[tuple[str, object]]]:
    """Which detections are one unit, whatever it is called."""
    units: dict[str, set[tuple[str, object]]] = {}
    for name, identity in identify_units(runs).items():
        for index, unit in identity["unit_id"].items():
            units.setdefault(unit, set()).add((name, index))
    return {frozenset(members) for members in units.values()}


def test_a_unit_keeps_its_id_across_shifted_scenes_and_a_new_one_gets_another() -> None:
    runs = [a_run("s0", 0, row(4)), a_run("s1", 60, row(6), (2.9, -1.7)), a_run("s2", 120, row(5), (-3.4, 0.4))]
    found = identify_units(runs)
    first = found["s0"]["unit_id"].tolist()
    assert len(set(first)) == 4
    assert found["s1"]["unit_id"].tolist()[:4] == first
    assert found["s2"]["unit_id"].tolist() == found["s1"]["unit_id"].tolist()[:5]
    assert len(set(found["s1"]["unit_id"])) == 6
    assert found["s2"].loc[0, ["first_seen", "last_seen"]].tolist() == [date(2025, 1, 1), date(2025, 5, 1)]
    assert found["s1"].loc[5, ["first_seen", "last_seen"]].tolist() == [date(2025, 3, 2)] * 2


def test_without_the_shift_the_same_rows_would_be_taken_for_their_neighbours() -> None:
    moved = a_run("s1", 60, row(6), (PITCH_M, 0.0))
    assert moved.shift is not None
    unaware = [a_run("s0", 0, row(6)), replace(moved, shift=replace(moved.shift, east_m=0.0))]
    found = identify_units(unaware)
    assert found["s1"]["unit_id"].tolist()[0] == found["s0"]["unit_id"].tolist()[1]


def test_a_unit_that_is_missed_on_one_date_comes_back_under_its_id() -> None:
    runs = [a_run("s0", 0, row(3)), a_run("s1", 30, [row(3)[0], row(3)[2]]), a_run("s2", 60, row(3))]
    found = identify_units(runs)
    assert found["s2"]["unit_id"].tolist() == found["s0"]["unit_id"].tolist()
    assert found["s1"]["unit_id"].tolist() == [found["s0"]["unit_id"][i] for i in (0, 2)]


@given(
    st.lists(st.tuples(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7)), min_size=2, max_size=5),
    st.integers(2, 9),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_units_of_a_row_never_swap_while_shifts_are_wrong_by_less_than_a_metre(errors_m, count, random) -> None:
    runs = []
    for day, (east, north) in enumerate(errors_m):
        present = [i for i in range(count) if random.random() < 0.8] or [0]
        run = a_run(f"s{day}", day, [(PITCH_M * i + east, north) for i in present])
        runs.append(replace(run, units=run.units.set_axis(present)))
    for unit in partition(runs):
        assert len({index for _, index in unit}) == 1


@given(st.permutations(range(4)), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_runs_and_of_detections_changes_no_id(order, seed) -> None:
    rng = np.random.default_rng(seed)
    runs = []
    for day in range(4):
        places = [(x + rng.normal(0, 0.4), y + rng.normal(0, 0.4)) for x, y in row(12) if rng.random() < 0.8]
        runs.append(a_run(f"s{day}", day, places or row(1), (float(rng.normal(0, 3)), float(rng.normal(0, 3)))))
    shuffled = [replace(runs[i], units=runs[i].units.sample(frac=1, random_state=seed)) for i in order]
    expected, found = identify_units(runs), identify_units(shuffled)
    for name, identity in expected.items():
        pd.testing.assert_frame_equal(identity, found[name].sort_index())


@given(st.floats(-8, 8), st.floats(-8, 8), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_moving_a_scene_and_its_shift_together_changes_nothing(east_m, north_m, seed) -> None:
    rng = np.random.default_rng(seed)
    places = [[(x + rng.normal(0, 0.3), y + rng.normal(0, 0.3)) for x, y in row(8)] for _ in range(3)]
    still = [a_run(f"s{day}", day, at) for day, at in enumerate(places)]
    moved = [*still[:1], a_run("s1", 1, places[1], (east_m, north_m)), *still[2:]]
    assert partition(still) == partition(moved)


def test_a_later_run_changes_no_id_and_an_earlier_one_in_the_same_place_neither() -> None:
    middle, later, earlier = a_run("s1", 30, row(4)), a_run("s2", 60, row(7)), a_run("s0", 0, row(4))
    ids = identify_units([middle, a_run("sx", 31, row(2))])["s1"]["unit_id"].tolist()
    assert identify_units([middle, later])["s1"]["unit_id"].tolist() == ids
    assert identify_units([earlier, middle, later])["s1"]["unit_id"].tolist() == ids


def test_classes_do_not_take_each_others_ids() -> None:
    runs = [a_run("s0", 0, row(2)), a_run("s1", 9, row(2), cls="battery", width_m=1.7)]
    assert all(len(unit) == 1 for unit in partition(runs))


def test_a_run_without_a_shift_gets_no_ids_unless_it_is_the_only_one() -> None:
    lost = a_run("s1", 9, row(3), None)
    assert identify_units([lost])["s1"]["unit_id"].nunique() == 3
    found = identify_units([a_run("s0", 0, row(3)), lost])
    assert found["s1"]["unit_id"].isna().all()
    assert found["s0"]["unit_id"].nunique() == 3
    assert set(found["s0"]["last_seen"]) == {date(2025, 1, 1)}


def test_what_was_never_probable_was_never_seen() -> None:
    runs = [a_run("s0", 0, row(1), probability=0.2), a_run("s1", 9, row(1)), a_run("s2", 19, row(1), probability=0.3)]
    found = identify_units(runs)
    assert found["s0"]["unit_id"].tolist() == found["s2"]["unit_id"].tolist()
    assert found["s0"].loc[0, ["first_seen", "last_seen"]].tolist() == [date(2025, 1, 10)] * 2
    assert identify_units(runs[:1])["s0"]["first_seen"].tolist() == [None]


def test_rendered_and_photographed_units_are_never_one() -> None:
    drawn = [replace(a_run(f"r{day}", day, row(2)), rendered=True) for day in (3, 4)]
    drawn = [replace(one, shift=Shift(0, 0, 0, "r3", UTM)) for one in drawn]
    found = identify_units([a_run("s0", 0, row(2)), a_run("s1", 9, row(2)), *drawn])
    assert found["r3"]["unit_id"].tolist() == found["r4"]["unit_id"].tolist()
    assert not set(found["r3"]["unit_id"]) & set(found["s0"]["unit_id"])


def test_empty_runs_and_units_on_one_spot_are_no_trouble() -> None:
    assert identify_units([]) == {}
    found = identify_units([a_run("s0", 0, []), a_run("s1", 9, [(0.0, 0.0), (0.01, 0.0)])])
    assert len(found["s0"]) == 0
    one, other = sorted(found["s1"]["unit_id"], key=len)
    assert other == f"{one}-2"


def test_thousands_of_units_in_a_yard_are_matched_one_to_one() -> None:
    grid = [(2.2 * i, 13.0 * j) for i in range(70) for j in range(40)]
    runs = [a_run("s0", 0, grid), a_run("s1", 9, [(x + 0.5, y) for x, y in grid], (4.0, 4.0), width_m=1.9)]
    found = identify_units(runs)
    assert found["s0"]["unit_id"].tolist() == found["s1"]["unit_id"].tolist()


def test_shifts_against_several_references_are_a_mistake_of_the_programmer() -> None:
    one, other = a_run("s0", 0, row(1)), a_run("s1", 1, row(1))
    assert other.shift is not None
    with pytest.raises(ValueError, match="one reference"):
        identify_units([one, replace(other, shift=replace(other.shift, reference="s9"))])
    with pytest.raises(ValueError, match="same name"):
        identify_units([one, one])
