"""The demo as a check: what it lets pass and what it calls a fault. `make demo` runs it on the real sample."""

import dataclasses
import io

import pytest
from rich.console import Console

from flows.demo import Shot, demo_table, faults_of
from flows.summary import Count
from pipelines.census import Interval
from pipelines.tables import latest_published, load_published
from tests.flows.test_summary import summary


def shot(detected: int = 119, median: float = 119, **changes: object) -> Shot:
    """119 chillers and MACROHARD rendered."""
    counts = {**summary().counts, "air_cooled_chiller": Count(detected, Interval(median, median, median), None)}
    run = summary(**{"counts": counts} | changes)
    published = latest_published(load_published(), "colossus-2", run.acquired.date(), "chillers")
    assert published is not None
    return Shot({"air_cooled_chiller": 119}, ("MACROHARD",), run, {"chillers": published})


@pytest.mark.parametrize(("detected", "median"), [(119, 119), (122, 122), (116, 116)])
def test_three_per_cent_is_let_pass(detected: int, median: float) -> None:
    assert faults_of([shot(detected, median)]) == []


@pytest.mark.parametrize(("detected", "median"), [(123, 119), (119, 123), (115, 119), (0, 0)])
def test_more_is_a_fault(detected: int, median: float) -> None:
    [fault] = faults_of([shot(detected, median)])
    assert "119 rendered" in fault


@pytest.mark.parametrize(("detected", "median", "faults"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_where_none_is_rendered_none_may_be_found(detected: int, median: float, faults: int) -> None:
    counts = {**summary().counts, "air_cooled_chiller": Count(detected, Interval(0, median, 2), None)}
    bare = dataclasses.replace(shot(counts=counts), rendered_counts={})
    assert len(faults_of([bare])) == faults


def test_lettering_and_label_are_checked() -> None:
    assert "MACROHARD rendered" in faults_of([shot(texts=("MACROHARO",))])[0]
    assert "none read" in faults_of([shot(texts=())])[0]
    assert "not labelled rendered" in faults_of([shot(rendered=False)])[0]


def test_a_count_that_is_not_given_is_a_fault() -> None:
    missing = shot(counts={}, not_given={"air_cooled_chiller": "too coarse"})
    assert "too coarse" in faults_of([missing])[0]


def test_the_table_shows_found_rendered_and_published() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(demo_table([shot(118, 120)]))
    text = out.getvalue()
    assert "RENDERED" in text
    [row] = [line for line in text.splitlines() if "chillers" in line]
    assert [cell.strip() for cell in row.split("│")[2:6]] == ["118", "120", "120 - 120", "119"]
    assert "2025-08-22" in row
    assert "MACROHARD" in text


def test_a_record_is_json_with_the_published_source() -> None:
    record = shot().as_record()
    assert record["published"]["chillers"]["value"] == 119
    assert record["published"]["chillers"]["source"]
    assert record["run"]["rendered"] is True
