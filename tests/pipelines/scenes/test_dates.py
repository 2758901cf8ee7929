from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import SceneError
from pipelines.scenes.dates import DateStatement, Days, decide_acquired, parse_days, stated_dates, written_days
from tests.pipelines.scenes.conftest import MakeRaster


def stated(path: Path) -> list[DateStatement]:
    with rasterio.open(path) as dataset:
        return stated_dates(dataset, path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m_3211605_20200415", [(2020, 4, 15)]),
        ("colossus-2_2025-08-22_v2", [(2025, 8, 22)]),
        ("x2025_08_22", [(2025, 8, 22)]),
        ("20250822T183000Z", [(2025, 8, 22)]),
        ("20250822183000_0001", [(2025, 8, 22)]),
        ("m_20110815_20111107", [(2011, 8, 15), (2011, 11, 7)]),
        ("usgs_hro_colorado_201404", []),
        ("order_120200415", []),
        ("tile_2025-13-40", []),
        ("tile_20250231", []),
        ("mixed_2025-0822", []),
        ("part_2025", []),
    ],
)
def test_dates_in_file_names(make_raster: MakeRaster, name: str, expected: list[tuple[int, int, int]]) -> None:
    found = stated(make_raster(f"{name}.tif"))
    assert [s.when for s in found] == [datetime(*ymd, tzinfo=UTC) for ymd in expected]
    assert {s.said_by for s in found} <= {"file name"}


def test_tiff_tag_and_image_metadata(make_raster: MakeRaster) -> None:
    tag = {"TIFFTAG_DATETIME": "2025:08:22 16:31:05"}
    assert stated(make_raster("a.tif", tags=tag)) == [
        DateStatement(datetime(2025, 8, 22, 16, 31, 5, tzinfo=UTC), "tiff tag")
    ]
    # The moment of acquisition settles the matter, whatever an editor or a name says.
    both = make_raster("a_20240101.tif", tags=tag, imagery={"ACQUISITIONDATETIME": "2025-08-21 16:00:00"})
    assert stated(both) == [DateStatement(datetime(2025, 8, 21, 16, tzinfo=UTC), "image metadata")]
    assert stated(make_raster("a.tif", tags={"TIFFTAG_DATETIME": "0000:00:00 00:00:00"})) == []


AUGUST = DateStatement(datetime(2025, 8, 22, 16, tzinfo=UTC), "tiff tag")
MAY = DateStatement(datetime(2025, 5, 1, tzinfo=UTC), "file name")


def test_the_users_date_may_fill_a_gap_or_settle_a_contradiction() -> None:
    assert decide_acquired("x", [], date(2025, 5, 1), "") == DateStatement(MAY.when, "command line")
    assert decide_acquired("x", [AUGUST, MAY], date(2025, 8, 22), "") == AUGUST
    assert decide_acquired("x", [AUGUST], None, "") == AUGUST


def test_no_date_contradicting_dates_and_a_contradicted_user_are_refused() -> None:
    with pytest.raises(SceneError, match=r"x.tif does not say when it was acquired; give one"):
        decide_acquired("x.tif", [], None, "give one")
    with pytest.raises(SceneError, match=r"more than one date, 2025-08-22 \(tiff tag\) and 2025-05-01 \(file name\)"):
        decide_acquired("x.tif", [AUGUST, MAY], None, "give one")
    with pytest.raises(SceneError, match=r"2025-08-22 \(tiff tag\).*not on the 2024-01-01"):
        decide_acquired("x.tif", [AUGUST], date(2024, 1, 1), "give one")


def test_a_day_within_a_known_range_is_taken_and_one_outside_refused() -> None:
    assert decide_acquired("x", [AUGUST], parse_days("2025-Q3"), "") == AUGUST
    assert decide_acquired("x", [AUGUST, MAY], parse_days("2025-08"), "") == AUGUST
    given = decide_acquired("x", [], parse_days("2025-08"), "")
    assert (given.earliest, given.when) == (datetime(2025, 8, 1, tzinfo=UTC), datetime(2025, 8, 31, tzinfo=UTC))
    with pytest.raises(SceneError, match=r"2025-08-22 \(tiff tag\).*not on the 2025-05-01 to 2025-05-31"):
        decide_acquired("x.tif", [AUGUST], parse_days("2025-05"), "")
    with pytest.raises(SceneError, match=r"more than one date within 2025-01-01 to 2025-12-31, .*give the day"):
        decide_acquired("x.tif", [AUGUST, MAY], parse_days("2025"), "")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2025-08-22", date(2025, 8, 22), date(2025, 8, 22)),
        ("2025-08", date(2025, 8, 1), date(2025, 8, 31)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2025-Q3", date(2025, 7, 1), date(2025, 9, 30)),
        ("2025-q4", date(2025, 10, 1), date(2025, 12, 31)),
        ("2025", date(2025, 1, 1), date(2025, 12, 31)),
        ("2025-08-01/2025-08-31", date(2025, 8, 1), date(2025, 8, 31)),
        ("2024-12 / 2025-Q1", date(2024, 12, 1), date(2025, 3, 31)),
    ],
)
def test_forms_of_a_date_of_acquisition(text: str, first: date, last: date) -> None:
    assert parse_days(text) == Days(first, last)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no date of acquisition"),
        ("22.08.2025", "is no date of acquisition"),
        ("2025-8-2", "is no date of acquisition"),
        ("2025-Q5", "is no date of acquisition"),
        ("2025-13", "is no date of acquisition"),
        ("2025-08/", "is no date of acquisition"),
        ("2025-08/2025-09/2025-10", "is no date of acquisition"),
        ("2025-02-30", "is no day of the calendar"),
        ("2025-09/2025-08", "runs backwards"),
    ],
)
def test_what_is_no_date_of_acquisition_is_refused_with_the_forms(text: str, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        parse_days(text)


DAYS = st.dates(date(1950, 1, 1), date(2090, 12, 31))


@given(DAYS, st.integers(0, 900))
def test_what_is_written_is_read_again(first: date, length: int) -> None:
    last = first + timedelta(days=length)
    read = parse_days(written_days(last, first).replace(" to ", "/"))
    assert (read.first, read.last, read.exact) == (first, last, length == 0)


@given(DAYS)
def test_a_month_holds_its_days_and_no_other(day: date) -> None:
    month, quarter = parse_days(f"{day:%Y-%m}"), parse_days(f"{day.year}-Q{(day.month + 2) // 3}")
    assert day in month
    assert month.first - timedelta(days=1) not in month
    assert (month.last + timedelta(days=1)).day == 1
    assert month.first in quarter
    assert month.last in quarter
