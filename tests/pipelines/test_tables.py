"""Tables: the shipped ones read, their numbers follow from their rows, and a wrong one is refused in one sentence."""

import csv
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import TableError
from pipelines.settings import ROOT
from pipelines.tables import DATA, latest_published, load_published, load_tables
from pipelines.unit_capacity import (
    CHILLER_BY_FANS,
    CHILLER_BY_FOOTPRINT,
    FOOTPRINT_RANGE_M2,
    TOWER_BY_AREA,
    fit_power_law,
)

EPOCH = ROOT.parent / "shared" / "reference" / "epoch"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped tables that a test may break."""
    shutil.copytree(DATA / "equipment", tmp_path / "equipment")
    shutil.copy(DATA / "accelerators.csv", tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_chiller_constants_follow_from_the_table() -> None:
    chillers = load_tables().chillers
    assert len(chillers) == 54
    area = np.array([c.length_m * c.width_m for c in chillers])
    kw = np.array([c.capacity_kw for c in chillers])
    fit = fit_power_law(area, kw)
    assert (fit.intercept, fit.slope) == pytest.approx(
        (CHILLER_BY_FOOTPRINT.intercept, CHILLER_BY_FOOTPRINT.slope), abs=0.001
    )
    assert fit.spread_x == pytest.approx(1.22, abs=0.005)
    by_fans = fit_power_law(np.array([c.fans for c in chillers]), kw)
    assert (by_fans.intercept, by_fans.slope) == pytest.approx(
        (CHILLER_BY_FANS.intercept, CHILLER_BY_FANS.slope), abs=0.001
    )
    assert FOOTPRINT_RANGE_M2[0] <= area.min()
    assert area.max() <= FOOTPRINT_RANGE_M2[1]


@pytest.mark.parametrize("by", ["footprint", "fans"])
def test_the_spread_for_an_unknown_maker_is_that_of_leaving_it_out(by: str) -> None:
    chillers = load_tables().chillers
    x = np.array([c.length_m * c.width_m if by == "footprint" else c.fans for c in chillers])
    kw = np.array([c.capacity_kw for c in chillers])
    maker = np.array([c.manufacturer for c in chillers])
    errors: list[float] = []
    for left_out in np.unique(maker):
        fit = fit_power_law(x[maker != left_out], kw[maker != left_out])
        errors += np.abs(np.log(kw[maker == left_out] / fit.kw(x[maker == left_out]))).tolist()
    expected = CHILLER_BY_FOOTPRINT if by == "footprint" else CHILLER_BY_FANS
    assert np.exp(np.quantile(errors, 0.8)) == pytest.approx(expected.spread_x, abs=0.01)


def test_tower_constants_agree_with_the_compact_table() -> None:
    towers = load_tables().cooling_towers
    fit = fit_power_law(np.array([t.area_m2 for t in towers]), np.array([t.capacity_kw for t in towers]))
    for area in (8.0, 25.0, 80.0):
        assert fit.kw(area) == pytest.approx(TOWER_BY_AREA.kw(area), rel=0.1)
    assert fit.spread_x == pytest.approx(TOWER_BY_AREA.spread_x, abs=0.1)


@pytest.mark.skipif(not EPOCH.is_dir(), reason="Epoch AI's export is not beside the repository")
def test_tower_constants_follow_from_the_full_export() -> None:
    with (EPOCH / "data_center_cooling_towers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    area = np.array([float(row["Area (m^2)"]) for row in rows])
    kw = np.array([float(row["Cooling capacity (central estimate, kW)"]) for row in rows])
    fit = fit_power_law(area, kw)
    assert (fit.intercept, fit.slope) == pytest.approx((TOWER_BY_AREA.intercept, TOWER_BY_AREA.slope), abs=0.001)
    assert fit.spread_x == pytest.approx(TOWER_BY_AREA.spread_x, abs=0.01)


def test_every_accelerator_has_its_known_h100_equivalent() -> None:
    chips = load_tables().accelerators
    equivalents = {name: chip.ops8_per_s / chips["H100"].ops8_per_s for name, chip in chips.items()}
    assert equivalents["H200"] == 1
    assert equivalents["GB200"] == equivalents["GB300"] == pytest.approx(2.5265, abs=1e-4)
    assert equivalents["Trainium2"] == pytest.approx(0.656, abs=0.001)


def test_published_figures_of_a_day_are_the_latest_known_then() -> None:
    rows = load_published()
    chillers = latest_published(rows, "colossus-2", date(2025, 8, 22), "chillers")
    assert chillers is not None
    assert (chillers.chillers, chillers.cooling_mw, chillers.gpus) == (119, 200, 110_000)
    later = latest_published(rows, "colossus-2", date(2026, 1, 13), "it_mw")
    assert later is not None
    assert (later.it_mw, later.h100_equivalents) == (239, 277_918)
    august = latest_published(rows, "southaven", date(2025, 8, 22), "turbines")
    assert august is not None
    assert august.turbines == 3
    assert latest_published(rows, "southaven", date(2025, 7, 31), "turbines") is None
    assert latest_published(rows, "colossus-2", date(2025, 8, 22), "it_mw") is None


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "equipment/chillers.csv",
            "capacity_kw",
            "capacity_mw",
            r"chillers.csv: column capacity_mw has the wrong unit",
        ),
        (
            "accelerators.csv",
            "it_kw_low",
            "it_w_low",
            r"accelerators.csv: column it_w_low has the wrong unit; .* it_kw_low",
        ),
        ("equipment/turbines.csv", "prior_weight", "weight", r"turbines.csv: column prior_weight is missing"),
        ("equipment/turbines.csv", "16.5,17.0", "x,17.0", r"turbines.csv: line 2, column power_mw must be a number"),
        ("equipment/turbines.csv", "16.5,17.0", "18,17.0", r"turbines.csv: row 'SMT-130': .* must rise"),
        ("equipment/chillers.csv", ",18,985,", ",18.5,985,", r"column fans must be a whole number"),
        ("equipment/chillers.csv", ",985,", ",-985,", r"column capacity_kw must be a finite number, not negative"),
        ("equipment/chillers.csv", ",985,", ",,", r"column capacity_kw is empty"),
        ("accelerators.csv", "as H100: the same processor with more memory", "", r"line 3, column source is empty"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(folder: Path, name: str, old: str, new: str, message: str) -> None:
    edit(folder / name, old, new)
    with pytest.raises(TableError, match=message):
        load_tables(folder)


def test_missing_and_empty_tables(folder: Path) -> None:
    batteries = folder / "equipment" / "batteries.csv"
    batteries.write_text(batteries.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(TableError, match=r"batteries.csv: the table has no rows"):
        load_tables(folder)
    batteries.write_text("", encoding="utf-8")
    with pytest.raises(TableError, match=r"batteries.csv: column model is missing"):
        load_tables(folder)
    batteries.unlink()
    with pytest.raises(TableError, match=r"batteries.csv: the table is missing"):
        load_tables(folder)


def test_a_missing_prior_is_named(folder: Path) -> None:
    edit(folder / "equipment" / "priors.csv", "hot_day_factor", "warm_day_factor")
    with pytest.raises(TableError, match=r"priors.csv: there is no row 'hot_day_factor'"):
        load_tables(folder).prior("hot_day_factor")


def test_a_table_saved_by_a_spreadsheet_reads(folder: Path) -> None:
    path = folder / "accelerators.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert "GB200" in load_tables(folder).accelerators


def test_published_periods_run_forwards(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    shutil.copy(DATA / "reference" / "published.csv", path)
    edit(path, "2025-08-01,2025-08-31", "2025-08-31,2025-08-01")
    with pytest.raises(TableError, match="date_to lies before date_from"):
        load_published(path)
