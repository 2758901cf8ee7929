"""Backtest: the shipped table holds the method to what is promised, and scores are what they are called."""

from datetime import date
from pathlib import Path

import pytest

from pipelines.backtest import Score, backtest
from pipelines.census import Interval
from pipelines.errors import EstimateError, TableError
from pipelines.tables import DATA, load_published_counts

TABLE = DATA / "reference" / "backtest.csv"


def test_the_shipped_table_holds_the_method_to_its_promise() -> None:
    result = backtest(load_published_counts())
    assert result.site_dates >= 12
    of = {summary.figure: summary for summary in result.summaries}
    assert of["it_mw"].scored >= 5
    assert of["it_mw"].within[1.25] >= 0.8 * of["it_mw"].scored
    assert 0.8 * of["all"].scored <= of["all"].inside <= 0.98 * of["all"].scored
    assert all(score.source for score in result.scores)


def test_rows_that_inputs_were_taken_from_are_not_scored() -> None:
    result = backtest(load_published_counts())
    fitted = [score for score in result.scores if score.use == "fit" or score.bound]
    assert len(fitted) >= 3
    assert result.summaries[-1].figure == "all"
    assert result.summaries[-1].scored == len(result.scores) - len(fitted)
    assert not any(score.use == "fit" for score in result.worst)


def test_a_score_says_how_far_off_and_whether_inside() -> None:
    def score(published: float, bound: str | None = None) -> Score:
        return Score(
            "here", date(2025, 1, 1), "score", bound, "it_mw", published, Interval(80, 100, 130), "", "a source"
        )

    assert score(125).factor == 0.8
    assert score(125).error_x == score(80).error_x == 1.25
    assert [score(published).inside for published in (79, 80, 130, 131)] == [False, True, True, False]
    assert [score(published, "lower").inside for published in (79, 130, 131)] == [True, True, False]
    assert [score(published, "upper").inside for published in (79, 80, 131)] == [False, True, True]
    assert not score(79, "lower").scored


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = TABLE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "counts.csv"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_another_table_is_scored_by_its_own_figures(tmp_path: Path) -> None:
    row = "colossus-2,2025-08-22,score,,119"
    shipped, other = (backtest(load_published_counts(path)) for path in (TABLE, edited(tmp_path, row, row[:-3] + "60")))
    assert other.scores[0].estimated.p50 == pytest.approx(shipped.scores[0].estimated.p50 * 60 / 119, rel=0.01)
    assert not any(score.site == "colossus-2" for score in shipped.worst)
    assert sum(score.site == "colossus-2" for score in other.worst) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("GB200,200,", "GB200,0,", "every figure given must be over zero"),
        ("colossus-2,2025-08-22,score", "colossus-2,2025-08-22,tuned", "use must be fit or score, got 'tuned'"),
        (",score,,119,", ",score,,-119,", "line 2, column chillers must be a whole number, not negative, got '-119'"),
        (",score,,119,", ",score,most,119,", "bound must be lower, upper or empty, got 'most'"),
        ("2025-08-22", "22.08.2025", "column date must be a date YYYY-MM-DD"),
        ("cooling_mw", "cooling_kw", "column cooling_kw has the wrong unit; convert it and call it cooling_mw"),
        ("GB200,200,,,,110000", "GB200,,,,,", "nothing is published to compare with"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        load_published_counts(edited(tmp_path, old, new))


def test_a_figure_that_the_counts_cannot_give_is_named(tmp_path: Path) -> None:
    with pytest.raises(EstimateError, match=r"colossus-2 2025-08-22: gpus is published, but its counts"):
        backtest(load_published_counts(edited(tmp_path, "GB200,200,,,,110000", ",200,,,,110000")))


def test_an_unknown_turbine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EstimateError, match="knows no gas_turbine model 'V94'"):
        backtest(load_published_counts(edited(tmp_path, "TM2500:12", "V94:12")))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(TABLE.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(TableError, match="has no rows"):
        load_published_counts(path)
