"""Census: which detections count, in which zone, and what is said where the scene shows less."""

import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import Polygon

from models.classes import CLASSES, OBJECT_CLASSES
from models.detector.card import RecallPoint
from pipelines.census import Census, Interval, assign_zones, draw_counts, take_census
from pipelines.detection import Detections
from pipelines.scenes.types import Scene
from pipelines.sites import Site, Zone

CRS = "EPSG:32615"
EAST, NORTH = 767_000.0, 3_876_000.0
"""South-west corner of the site in UTM zone 15N: Memphis."""
RECALL = {cls: (RecallPoint(0.3, 980, 1000),) for cls in OBJECT_CLASSES}


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """A rectangle in metres from the site's corner, as longitude and latitude."""
    metres = gpd.GeoSeries([shapely.box(EAST + x0, NORTH + y0, EAST + x1, NORTH + y1)], crs=CRS)
    return metres.to_crs("OGC:CRS84")[0]


def zone(zone_id: str, *bounds: float) -> Zone:
    return Zone(zone_id, "yard", box(*bounds), "drawn", "traced")


def site(*zones: Zone) -> Site:
    return Site(
        id="here",
        name="Here",
        operator="A",
        address="",
        campus="here",
        perimeter=box(0, 0, 1000, 500),
        perimeter_source="drawn",
        perimeter_quality="traced",
        zones=zones,
        known_dates=(),
        supplies=(),
        accelerator=None,
        accelerator_source=None,
        pue=None,
        pue_source=None,
        path=Path("here.geojson"),
    )


def scene(rendered: bool = False) -> Scene:
    return Scene(
        id="s1",
        source="local:s1",
        acquired=datetime(2025, 8, 22, tzinfo=UTC),
        gsd_m=0.3,
        footprint=box(0, 0, 1000, 500),
        licence="unknown",
        rendered=rendered,
        href="/s1.tif",
        acquired_from="item",
    )


def frame(*rows: tuple) -> gpd.GeoDataFrame:
    """Rows of (class, x m, y m, probability) and, optionally, fans or text."""
    last = [row[4] if len(row) > 4 else None for row in rows]
    return gpd.GeoDataFrame(
        {
            "class": pd.Series([row[0] for row in rows], dtype=object),
            "score": [0.9] * len(rows),
            "probability": pd.Series([row[3] for row in rows], dtype=float),
            "length_m": pd.Series([13.0] * len(rows), dtype=float),
            "width_m": pd.Series([2.3] * len(rows), dtype=float),
            "heading_deg": [0.0] * len(rows),
            "fan_count": pd.array([x if isinstance(x, int) else pd.NA for x in last], dtype="Int64"),
            "text": pd.Series([x if isinstance(x, str) else None for x in last], dtype=object),
            "text_confidence": [np.nan] * len(rows),
        },
        geometry=[shapely.box(EAST + r[1] - 6, NORTH + r[2] - 1, EAST + r[1] + 6, NORTH + r[2] + 1) for r in rows],
        crs=CRS,
    )


def detections(*rows: tuple, coverage: Polygon | None = None, not_given: dict[str, str] | None = None) -> Detections:
    return Detections(
        frame=frame(*rows),
        model_version="detector-1",
        native_gsd_m=0.3,
        coverage=box(0, 0, 1000, 500) if coverage is None else coverage,
        not_given=not_given or {},
        windows_read=1,
        windows_skipped=0,
        min_probability=0.1,
    )


CHILLER = "air_cooled_chiller"


def test_a_unit_belongs_to_the_zone_of_its_centroid() -> None:
    here = site(zone("north", 0, 250, 1000, 500), zone("south", 0, 0, 500, 250))
    rows = frame((CHILLER, 100, 251, 0.9), (CHILLER, 100, 249, 0.9), (CHILLER, 600, 100, 0.9))
    assert assign_zones(here, rows)["zone"].tolist() == ["north", "south", None]


def test_where_zones_overlap_the_first_of_the_file_holds_the_unit() -> None:
    here = site(zone("roof", 0, 0, 200, 200), zone("yard", 0, 0, 1000, 500))
    rows = frame((CHILLER, 100, 100, 0.9), (CHILLER, 300, 300, 0.9))
    assert assign_zones(here, rows)["zone"].tolist() == ["roof", "yard"]


def test_units_outside_the_perimeter_do_not_count() -> None:
    rows = ((CHILLER, 2, 100, 0.99), (CHILLER, -2, 100, 0.99))  # both outlines cross the perimeter; one centroid is in
    kept = assign_zones(site(), frame(*rows))
    assert len(kept) == 1
    assert kept.index.tolist() == [0]
    assert take_census(site(), scene(), detections(*rows), RECALL).by_class[CHILLER].detected == 1


def test_a_frame_in_degrees_is_a_programmers_mistake() -> None:
    with pytest.raises(ValueError, match="projected"):
        assign_zones(site(), frame((CHILLER, 1, 1, 0.9)).to_crs("OGC:CRS84"))


def test_counts_sizes_fans_and_texts() -> None:
    here = site(zone("yard", 0, 0, 500, 500))
    census = take_census(
        here,
        scene(),
        detections(
            (CHILLER, 100, 100, 0.99, 20),
            (CHILLER, 100, 110, 0.98, 22),
            (CHILLER, 600, 100, 0.97),
            (CHILLER, 100, 120, 0.2, 99),
            ("roof_lettering", 300, 300, 0.9, "MACROHARD"),
            ("roof_lettering", 300, 330, 0.9, "MACROHARD"),
            ("roof_lettering", 300, 360, 0.2, "NOISE"),
        ),
        RECALL,
    )
    count = census.by_class[CHILLER]
    assert (count.detected, count.fans, count.fans_per_unit) == (3, 42, 21.0)
    assert (count.median_length_m, count.median_width_m) == (13.0, 2.3)
    assert 3 <= count.expected.p50 <= 4
    assert census.texts == ("MACROHARD",)
    assert [(c.cls, c.zone, c.detected) for c in census.by_zone if c.cls == CHILLER] == [
        (CHILLER, "yard", 2),
        (CHILLER, None, 1),
    ]
    assert census.by_class["gas_turbine"].expected == Interval(0, 0, 0)
    assert census.by_class["gas_turbine"].median_length_m is None


def test_nothing_on_the_site_is_zero_of_everything() -> None:
    census = take_census(site(), scene(), detections(), RECALL)
    assert set(census.by_class) == set(CLASSES)
    assert all(count.expected == Interval(0, 0, 0) and count.detected == 0 for count in census.by_class.values())
    assert census.by_zone == ()


def test_part_of_the_perimeter_is_said_and_not_extrapolated() -> None:
    rows = [(CHILLER, 10 + 20 * i, 100, 0.99) for i in range(20)]
    whole = take_census(site(), scene(), detections(*rows), RECALL)
    half = take_census(site(), scene(), detections(*rows, coverage=box(0, 0, 500, 500)), RECALL)
    assert whole.covered_fraction == 1
    assert half.covered_fraction == pytest.approx(0.5, abs=0.001)
    assert half.by_class == whole.by_class


def test_a_scene_beside_the_site_gives_no_counts_rather_than_zeros() -> None:
    census = take_census(site(), scene(), detections(coverage=Polygon()), RECALL)
    assert census.by_class == {}
    assert set(census.not_given) == set(CLASSES)
    assert census.covered_fraction == 0


def test_a_class_that_cannot_be_counted_is_absent_with_its_reason() -> None:
    recall = {cls: points for cls, points in RECALL.items() if cls != "gas_turbine"}
    recall["cooling_tower"] = (RecallPoint(0.3, 5, 100),)
    census = take_census(site(), scene(), detections(not_given={"battery": "too coarse"}), recall)
    assert census.not_given["battery"] == "too coarse"
    assert "never measured" in census.not_given["gas_turbine"]
    assert "finds only" in census.not_given["cooling_tower"]
    assert {"battery", "gas_turbine", "cooling_tower"}.isdisjoint(census.by_class)


def test_draws_are_those_behind_the_interval_and_follow_the_seed() -> None:
    rows = [(CHILLER, 10 + 20 * i, 100, 0.6) for i in range(40)]
    census = take_census(site(), scene(), detections(*rows), RECALL, seed=7)
    assert Interval.of(draw_counts(census, CHILLER)) == census.by_class[CHILLER].expected
    other = take_census(site(), scene(), detections(*rows), RECALL, seed=8)
    assert (draw_counts(other, CHILLER) != draw_counts(census, CHILLER)).any()


def test_one_class_does_not_change_the_draws_of_another() -> None:
    rows = [(CHILLER, 10 + 20 * i, 100, 0.6) for i in range(40)]
    alone = take_census(site(), scene(), detections(*rows), RECALL)
    both = take_census(site(), scene(), detections(*rows, ("battery", 50, 300, 0.7)), RECALL)
    np.testing.assert_array_equal(draw_counts(alone, CHILLER), draw_counts(both, CHILLER))


def test_the_record_is_json_and_keeps_the_rendered_label() -> None:
    census: Census = take_census(site(), scene(rendered=True), detections((CHILLER, 9, 9, 0.99, 20)), RECALL)
    record = json.loads(json.dumps(census.as_record(), allow_nan=False))
    assert record["rendered"] is True
    assert record["counts"][0]["class"] == CHILLER
    assert record["counts"][0]["detected"] == 1
    assert record["acquired"].startswith("2025-08-22")
