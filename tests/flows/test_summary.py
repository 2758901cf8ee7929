"""The table of a run: what is given, what is not and why, and that rendered imagery is called so."""

import dataclasses
import io
import json
from datetime import UTC, datetime

from rich.console import Console

from flows.report import run_report
from flows.summary import Count, RunSummary, figure, run_title, table_rows
from pipelines.census import Interval


def summary(**changes: object) -> RunSummary:
    """A run with 119 chillers, too coarse for batteries."""
    run = RunSummary(
        site="colossus-2",
        site_name="Colossus 2",
        scene="s1",
        source="sample",
        acquired=datetime(2025, 8, 22, 17, tzinfo=UTC),
        acquired_from="item",
        rendered=True,
        licence="Apache-2.0",
        attribution="",
        native_gsd_m=0.3,
        covered_fraction=1.0,
        model_version="detector-1+reader-2",
        counts={
            "air_cooled_chiller": Count(119, Interval(118, 119, 122), 2380),
            "dry_cooler": Count(0, Interval(0, 0, 0), None),
            "cooling_tower": Count(0, Interval(0, 0, 0), None),
            "gas_turbine": Count(0, Interval(0, 0, 1), None),
            "roof_lettering": Count(1, Interval(1, 1, 1), None),
        },
        texts=("MACROHARD",),
        figures={
            "cooling_mw": Interval(151.2, 201.4, 255.3),
            "generation_mw": Interval(0, 0, 0),
            "it_mw": Interval(130.0, 170.0, 220.0),
            "gpus": Interval(81_234, 110_432, 151_999),
            "h100_equivalents": None,
        },
        accelerator="GB200",
        binding={"cooling": 0.9, "supply": 0.1},
        not_given={"battery": "the image's pixels are too coarse"},
        notes=("something to know",),
        folder="archive/colossus-2/2025-08-22/s1",
        files=("census.json",),
    )
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def test_rows_give_counts_figures_and_reasons() -> None:
    rows = {row.what: row for row in table_rows(summary())}
    assert dataclasses.astuple(rows["air cooled chillers"])[1:] == ("119", "118 - 122", "119 detected, 2380 fans")
    assert dataclasses.astuple(rows["batteries"])[1:] == ("not given", "", "the image's pixels are too coarse")
    assert rows["roof lettering"].value == "MACROHARD"
    assert dataclasses.astuple(rows["GPUs"])[1:] == ("110,000", "81,200 - 152,000", "as GB200")
    assert rows["IT, MW"].remark == "limited by cooling (90%), supply (10%)"
    assert rows["H100 equivalents"].value == "not given"


def test_figures_have_three_digits() -> None:
    assert [figure(x) for x in (0, 0.1234, 3, 12.34, 119, 1234, 110_432)] == [
        "0",
        "0.123",
        "3",
        "12.3",
        "119",
        "1,230",
        "110,000",
    ]


def test_rendered_is_said_and_only_then() -> None:
    assert "RENDERED" in run_title(summary())
    assert "RENDERED" not in run_title(summary(rendered=False))


def test_the_report_names_everything_a_reader_needs() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(run_report(summary()))
    text = out.getvalue()
    for needed in ("RENDERED", "Apache-2.0", "0.30 m", "100% of the perimeter", "detector-1+reader-2", "census.json"):
        assert needed in text
    assert "something to know" in text


def test_a_summary_is_json() -> None:
    record = json.loads(json.dumps(summary().as_record()))
    assert record["counts"]["air_cooled_chiller"]["expected"] == {"p5": 118, "p50": 119, "p95": 122}
    assert record["figures"]["h100_equivalents"] is None
    assert record["acquired"] == "2025-08-22T17:00:00Z"
