from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import rasterio

from pipelines.errors import SceneError
from pipelines.scenes.dates import DateStatement, decide_acquired, stated_dates
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
