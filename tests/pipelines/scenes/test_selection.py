from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import NoSceneError
from pipelines.scenes.dates import Days
from pipelines.scenes.selection import Taken, choose_scenes, days_between, nearest_to, search_near, within
from pipelines.scenes.types import FetchedScene, Scene, SceneProblem
from pipelines.sites import Site
from tests.pipelines.scenes.conftest import area_around, make_site

AREA = area_around()
SITE = make_site(AREA)


def at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def scene(last: date, first: date | None = None, name: str = "s") -> Scene:
    return Scene(
        id=f"{name}-{last}",
        source="test",
        acquired=at(last),
        gsd_m=0.3,
        footprint=AREA,
        licence="none",
        rendered=False,
        href=f"/{name}.tif",
        acquired_from="item",
        earliest=None if first is None or first == last else at(first),
    )


def days_of(one: Scene) -> Days:
    return Days((one.earliest or one.acquired).date(), one.acquired.date())


class Listed:
    """A source that holds a list."""

    name = "listed"
    problems: Sequence[SceneProblem] = ()

    def __init__(self, scenes: list[Scene]) -> None:
        self.scenes = scenes

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        return choose_scenes(self.scenes, site, start, end, self.name, ())

    def fetch(self, scene: Scene, area: object) -> FetchedScene:
        raise NotImplementedError


DAY = date(2025, 8, 22)


def test_an_exact_day_wins_with_all_of_its_scenes() -> None:
    same = [scene(DAY, name="a"), scene(DAY, name="b")]
    others = [scene(DAY - timedelta(days=1)), scene(DAY + timedelta(days=9), DAY - timedelta(days=9))]
    assert nearest_to(DAY, [*others, *reversed(same)]) == same


def test_a_tie_goes_to_the_earlier() -> None:
    before, after = scene(DAY - timedelta(days=3)), scene(DAY + timedelta(days=3))
    assert nearest_to(DAY, [after, before]) == [before]


def test_a_range_is_no_distance_from_the_days_in_it() -> None:
    august = scene(date(2025, 8, 31), date(2025, 8, 1))
    assert nearest_to(DAY, [scene(DAY + timedelta(days=1)), august]) == [august]
    assert within(august, DAY, DAY)
    assert within(august, date(2025, 8, 31), None)
    assert not within(august, date(2025, 9, 1), None)
    assert not within(august, None, date(2025, 7, 31))
    assert days_between(date(2025, 9, 2), days_of(august)) == -2
    assert days_between(date(2025, 7, 30), days_of(august)) == 2


SCENES = st.lists(
    st.builds(
        lambda day, length: scene(day + timedelta(days=length), day),
        st.dates(date(2024, 1, 1), date(2026, 12, 31)),
        st.sampled_from([0, 0, 0, 1, 30, 91]),
    ),
    min_size=1,
    max_size=12,
)


@given(SCENES, st.dates(date(2024, 1, 1), date(2026, 12, 31)))
def test_nothing_is_nearer_than_what_is_taken(scenes: list[Scene], day: date) -> None:
    chosen = nearest_to(day, scenes)
    taken = days_of(chosen[0])
    assert {days_of(one) for one in chosen} == {taken}
    assert sum(days_of(one) == taken for one in scenes) == len(chosen)
    off = days_between(day, taken)
    for one in scenes:
        other = days_between(day, days_of(one))
        assert abs(other) >= abs(off)
        if abs(other) == abs(off) and days_of(one).exact and taken.exact:
            assert one.acquired >= chosen[0].acquired
    # Against a count of days one by one.
    assert abs(off) == min(
        abs((day - (days.first + timedelta(days=step))).days)
        for days in map(days_of, scenes)
        for step in range((days.last - days.first).days + 1)
    )


@given(SCENES, st.dates(date(2024, 1, 1), date(2026, 12, 31)), st.integers(0, 60))
def test_the_tolerance_holds(scenes: list[Scene], day: date, tolerance_days: int) -> None:
    source = Listed(scenes)
    nearest = abs(days_between(day, days_of(nearest_to(day, scenes)[0])))
    if nearest <= tolerance_days:
        found, taken = search_near(source, SITE, day, tolerance_days)
        assert found == nearest_to(day, scenes)
        assert abs(taken.off_days) == nearest
    else:
        with pytest.raises(NoSceneError, match=f"within {tolerance_days} days of {day}: the nearest"):
            search_near(source, SITE, day, tolerance_days)


def test_outside_the_tolerance_the_nearest_before_and_after_are_named() -> None:
    days = [date(2025, 7, 1), date(2025, 7, 20), date(2025, 9, 20), date(2025, 10, 1)]
    source = Listed([scene(day) for day in days])
    with pytest.raises(
        NoSceneError,
        match=r"within 15 days of 2025-08-22: the nearest before is 2025-07-20 \(33 days\), the nearest after is "
        r"2025-09-20 \(29 days\); give one of these dates, or a wider --tolerance",
    ):
        search_near(source, SITE, DAY, 15)
    with pytest.raises(NoSceneError, match="it has 2025-07-01"):
        search_near(source, SITE, date(1990, 1, 1), 15)
    assert search_near(source, SITE, date.max, 3 * 10**6)[1].days.last == date(2025, 10, 1)


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (date(2025, 8, 19), date(2025, 8, 19), "2025-08-22 asked, 2025-08-19 taken, 3 days before"),
        (date(2025, 8, 23), date(2025, 8, 23), "2025-08-22 asked, 2025-08-23 taken, 1 day after"),
        (DAY, DAY, "2025-08-22 asked, 2025-08-22 taken, the day itself"),
        (date(2025, 8, 1), date(2025, 8, 31), "2025-08-22 asked, 2025-08-01 to 2025-08-31 taken, which holds it"),
    ],
)
def test_what_was_taken_in_words(first: date, last: date, words: str) -> None:
    assert str(Taken(DAY, Days(first, last))) == words
