"""Asking the archive's collections: every filter beside the same question put to a plain table."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.features_provider import Collection, QueryError, ask, collections_of, parse_interval
from pipelines.layers.archive import read_archive
from pipelines.settings import ROOT
from pipelines.sites import load_sites
from tests.pipelines.made_up_archive import add_run

START = datetime(2025, 8, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    add_run(folder, "colossus-2", date(2025, 8, 22), "s1", air_cooled_chiller=30, battery=20, roof_lettering=1)
    ranged = {"earliest": datetime(2025, 10, 10, tzinfo=UTC), "released": date(2025, 12, 1)}
    add_run(folder, "colossus-2", date(2025, 10, 19), "s2", scene_fields=ranged, air_cooled_chiller=50, battery=15)
    add_run(folder, "southaven", date(2025, 10, 19), "s3", rendered=True, gas_turbine=7)
    return folder


@pytest.fixture(scope="module")
def collections(archive: Path) -> dict[str, Collection]:
    return {one.name: one for one in collections_of(read_archive(archive), load_sites(ROOT / "aoi"))}


@pytest.fixture(scope="module")
def plain(archive: Path) -> gpd.GeoDataFrame:
    """The files as geopandas reads them."""
    frames = [gpd.read_file(path) for path in sorted(archive.glob("*/*/*/detections.geojson"))]
    frame = pd.concat(frames, ignore_index=True)
    last = pd.to_datetime(frame["acquired"], utc=True)
    first = pd.to_datetime(frame["acquired_earliest"], utc=True).fillna(last)
    return gpd.GeoDataFrame(frame, crs="EPSG:4326").assign(first=first, last=last)


def test_a_unit_says_on_which_days_it_was_seen(collections: dict[str, Collection]) -> None:
    turbines = collections["gas_turbine"]
    [one] = turbines.features(ask(turbines, equal=[("first_seen", "2025-10-19")])[:1])
    assert (one["properties"]["first_seen"], one["properties"]["last_seen"]) == ("2025-10-19", "2025-10-19")
    assert len(ask(turbines, equal=[("first_seen", "2025-10-19")])) == 4  # of seven, every other one is probable
    assert len(ask(turbines, equal=[("first_seen", "2025-08-22")])) == 0


def ids(collection: Collection, positions: np.ndarray) -> list[str]:
    return [collection.ids[position] for position in positions]


moments = st.one_of(st.none(), st.integers(0, 120 * 86400).map(lambda s: START + timedelta(seconds=s)))
boxes = st.tuples(*(st.floats(low, low + 0.05) for low in (-90.08, 34.96)), st.floats(0, 0.05), st.floats(0, 0.05))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=boxes, first=moments, last=moments, cls=st.sampled_from([None, "battery", "gas_turbine", "dry_cooler"]))
def test_every_filter_finds_what_geopandas_finds(
    collections: dict[str, Collection],
    plain: gpd.GeoDataFrame,
    box: tuple[float, float, float, float],
    first: datetime | None,
    last: datetime | None,
    cls: str | None,
) -> None:
    if first and last and first > last:
        first, last = last, first
    west, south, width, height = box
    bbox = (west, south, west + width, south + height)
    text = "/".join(".." if moment is None else moment.isoformat() for moment in (first, last))
    found = ask(
        collections["detections"],
        bbox=bbox,
        interval=parse_interval(text),
        equal=[] if cls is None else [("class", cls)],
    )
    wanted = plain[plain.intersects(shapely.box(*bbox))]
    if first is not None:
        wanted = wanted[wanted["last"] >= first]
    if last is not None:
        wanted = wanted[wanted["first"] <= last]
    if cls is not None:
        wanted = wanted[wanted["class"] == cls]
    assert sorted(ids(collections["detections"], found)) == sorted(wanted["id"])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2025-08-22", 51),
        ("2025-08-22T16:45:00Z", 51),
        ("2025-08-22T12:45:00-04:00", 51),
        ("2025-08-22T16:45:01Z", 0),
        ("2025-08-22/2025-08-22", 51),
        ("2025-10-12", 65),  # of one scene only a range of days is known
        ("2025-10-09", 0),
        ("2025-10-19", 72),
        ("2025-10-19T20:00:00Z/..", 0),
        ("2025-10-19/..", 72),
        ("../2025-10-18", 116),
        ("../2025-08-22T16:44:59Z", 0),
        ("/2025-08-22", 51),
        ("2025-09-01/", 72),
        ("../..", 123),
        ("2025-08-22/2025-10-19", 123),
        ("1900-01-01/1900-01-02", 0),
        ("0001-01-01/9999-12-31", 123),
    ],
)
def test_moments_days_and_intervals(collections: dict[str, Collection], text: str, count: int) -> None:
    assert len(ask(collections["detections"], interval=parse_interval(text))) == count


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2025", "2025-02-30", "2025-10-19/2025-10-18", "a/b/c", "2025-10-19T16:45:00 00:00", "20251019"],
)
def test_what_is_no_datetime_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        parse_interval(text)


def test_what_has_no_time_matches_any(collections: dict[str, Collection]) -> None:
    assert len(ask(collections["sites"], interval=parse_interval("1900-01-01"))) == len(load_sites(ROOT / "aoi"))


def test_properties_are_compared_as_what_they_are(collections: dict[str, Collection], plain: gpd.GeoDataFrame) -> None:
    detections = collections["detections"]
    for name, value, count in (
        ("rendered", "true", 7),
        ("rendered", "FALSE", 116),
        ("probability", "0.4", int((plain["probability"] == 0.4).sum())),
        ("probability", "0.40", int((plain["probability"] == 0.4).sum())),
        ("fan_count", "20", 80),
        ("released", "2025-12-01", 65),
        ("acquired", "2025-10-19", 72),
        ("acquired_earliest", "2025-10-10T00:00:00Z", 65),
        ("zone", "nowhere", 0),
        ("text", "WORD50", 1),
    ):
        assert len(ask(detections, equal=[(name, value)])) == count, name
    assert len(ask(detections, equal=[("site", "colossus-2"), ("class", "battery")])) == 35


@pytest.mark.parametrize(
    ("name", "value"),
    [("clas", "battery"), ("rendered", "yes"), ("fan_count", "many"), ("released", "1 May"), ("acquired", "now")],
)
def test_a_property_that_is_unknown_or_cannot_be_so_is_refused(
    collections: dict[str, Collection], name: str, value: str
) -> None:
    with pytest.raises(QueryError, match=value if name == "acquired" else name):
        ask(collections["detections"], equal=[(name, value)])


def test_boxes_over_the_antimeridian_and_of_nothing(collections: dict[str, Collection]) -> None:
    detections = collections["detections"]
    assert len(ask(detections, bbox=(170, -90, -80, 90))) == 123
    assert len(ask(detections, bbox=(170, -90, -170, 90))) == 0
    assert len(ask(detections, bbox=(-91, 34, 0, -89, 36, 100))) == 123
    with pytest.raises(QueryError, match="finite"):
        ask(detections, bbox=(float("nan"), 0, 1, 1))


def test_sorting_goes_by_several_properties_and_puts_what_is_missing_last(collections: dict[str, Collection]) -> None:
    detections = collections["detections"]
    order = ask(detections, sort=[("class", False), ("acquired", True)])
    rows = [one["properties"] for one in detections.features(order)]
    keys = [(row["class"], row["acquired"]) for row in rows]
    assert keys == sorted(sorted(keys, key=lambda key: key[1], reverse=True), key=lambda key: key[0])
    for descending in (True, False):
        order = ask(detections, sort=[("fan_count", descending)])
        fans = [one["properties"]["fan_count"] for one in detections.features(order)]
        assert fans == [20] * 80 + [None] * 43


def test_collections_by_class_share_out_all_detections(collections: dict[str, Collection]) -> None:
    found = [
        identity for name in ("air_cooled_chiller", "battery", "gas_turbine") for identity in collections[name].ids
    ]
    found += collections["roof_lettering"].ids
    assert sorted(found) == sorted(collections["detections"].ids)
    assert collections["dry_cooler"].ids == ()
    assert collections["dry_cooler"].bounds == (-180, -90, 180, 90)


def test_rendered_imagery_is_called_so(collections: dict[str, Collection], tmp_path: Path) -> None:
    for name in ("detections", "gas_turbine", "runs", "census", "estimates"):
        assert "RENDERED" in collections[name].title
        assert "RENDERED" in collections[name].description
    add_run(tmp_path, "southaven", date(2025, 10, 19), "s3", gas_turbine=7)
    photographed = collections_of(read_archive(tmp_path), [])
    assert not any("RENDERED" in one.title + one.description for one in photographed)


def test_one_scene_that_shows_two_sites_gives_ids_of_their_own(tmp_path: Path) -> None:
    [site] = [site for site in load_sites(ROOT / "aoi") if site.id == "southaven"]
    for name in ("one", "two"):
        add_run(tmp_path, replace(site, id=name, campus=name), date(2025, 10, 19), "s3", gas_turbine=7)
    detections = collections_of(read_archive(tmp_path), [])[0]
    assert len(set(detections.ids)) == 14
    assert all(identity.endswith((".one.2025-10-19.s3", ".two.2025-10-19.s3")) for identity in detections.ids)
