"""Site files: what the shipped ones hold, and one clear sentence for each way a file can be broken."""

import itertools
import json
from datetime import date
from pathlib import Path

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import SiteError
from pipelines.geojson import area_m2
from pipelines.settings import ROOT
from pipelines.sites import Site, load_site, load_sites, new_site

AOI = ROOT / "aoi"
SHIPPED = ("colossus-1", "colossus-2", "macrohardrr", "southaven")


def square(west: float, south: float, size: float = 0.01) -> dict:
    east, north = west + size, south + size
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def perimeter(geometry: dict | None = None, **properties: object) -> dict:
    fields = {"kind": "perimeter", "id": "here", "name": "Here", "operator": "A", "campus": "c"}
    fields |= {"source": "drawn", "quality": "traced"} | properties
    return {"type": "Feature", "properties": fields, "geometry": geometry or square(10, 50)}


def zone(geometry: dict | None = None, **properties: object) -> dict:
    fields = {"kind": "zone", "id": "roof", "zone": "roof", "source": "drawn", "quality": "traced"} | properties
    return {"type": "Feature", "properties": fields, "geometry": geometry or square(10.002, 50.002, 0.002)}


def write(folder: Path, *features: object, name: str = "here.geojson") -> Path:
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def without(feature: dict, field: str) -> dict:
    return feature | {"properties": {k: v for k, v in feature["properties"].items() if k != field}}


def refusal(path: Path) -> str:
    with pytest.raises(SiteError) as refused:
        load_site(str(path), path.parent)
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# The shipped files


@pytest.mark.parametrize("site_id", SHIPPED)
def test_shipped_site_is_a_plain_rfc_7946_collection(site_id: str) -> None:
    document = json.loads((AOI / f"{site_id}.geojson").read_text())
    assert "crs" not in document
    for feature in document["features"]:
        ring = shapely.LinearRing(feature["geometry"]["coordinates"][0])
        assert ring.is_ccw
        assert feature["properties"]["source"].startswith("proxy: ")
        assert feature["properties"]["quality"] == "proxy"


def test_shipped_sites_load_in_order_and_form_their_campuses() -> None:
    sites = load_sites(AOI)
    assert tuple(site.id for site in sites) == SHIPPED
    assert {site.id: site.campus for site in sites} == {
        "colossus-1": "colossus-1",
        "colossus-2": "memphis-southaven",
        "macrohardrr": "memphis-southaven",
        "southaven": "memphis-southaven",
    }


def test_no_two_shipped_perimeters_share_ground() -> None:
    for one, other in itertools.combinations(load_sites(AOI), 2):
        assert (one.perimeter & other.perimeter).area == 0


@pytest.mark.parametrize("site_id", SHIPPED)
def test_zones_of_a_shipped_site_tile_its_perimeter(site_id: str) -> None:
    site = load_site(site_id, AOI)
    assert sum(area_m2(z.geometry) for z in site.zones) == pytest.approx(area_m2(site.perimeter), rel=1e-6)
    assert area_m2(shapely.union_all([z.geometry for z in site.zones]) ^ site.perimeter) < 1


@pytest.mark.parametrize(
    ("site_id", "lon", "lat", "zone_id"),
    [
        ("colossus-1", -90.15546, 35.06017, "yard"),
        ("colossus-2", -90.035, 34.99814, "roof"),
        ("macrohardrr", -90.03429, 34.9934, "roof"),
        ("southaven", -90.038, 34.987, "plant"),
    ],
)
def test_published_point_of_each_site_lies_in_its_zone(site_id: str, lon: float, lat: float, zone_id: str) -> None:
    holding = [z.id for z in load_site(site_id, AOI).zones if z.geometry.contains(shapely.Point(lon, lat))]
    assert holding == [zone_id]


def test_colossus_2_attributes() -> None:
    site = load_site("colossus-2", AOI)
    assert (site.accelerator, site.pue) == ("GB200", 1.35)
    assert {known.date for known in site.known_dates} >= {date(2025, 8, 22), date(2025, 10, 19), date(2026, 1, 13)}
    assert all(known.source for known in site.known_dates)


def test_announced_supply_is_a_contract_with_a_date() -> None:
    supplies = load_site("southaven", AOI).supplies
    assert [(s.kind, s.mw, s.start.year) for s in supplies] == [("contract", 1100, 2025), ("contract", 400, 2027)]


# Finding a site


def test_path_is_as_good_as_an_id() -> None:
    assert load_site(str(AOI / "southaven.geojson"), Path("nowhere")) == load_site("southaven", AOI)


def test_unknown_site_lists_the_known_and_suggests_one() -> None:
    with pytest.raises(SiteError, match=r"no site 'Colosus-2' .*known: colossus-1, .*; did you mean colossus-2\?"):
        load_site("Colosus-2", AOI)


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="OVERWATT_AOI"):
        load_sites(tmp_path / "none")
    with pytest.raises(SiteError, match="OVERWATT_AOI"):
        load_site("colossus-2", tmp_path / "none")


def test_file_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone.geojson")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "dir.geojson").mkdir()
    assert "cannot be read" in refusal(tmp_path / "dir.geojson")


def test_id_differs_from_the_file_name(tmp_path: Path) -> None:
    write(tmp_path, perimeter(), name="there.geojson")
    with pytest.raises(SiteError, match=r"name the file here\.geojson"):
        load_site("there", tmp_path)


def test_same_id_in_two_files(tmp_path: Path) -> None:
    write(tmp_path, perimeter(), name="a.geojson")
    write(tmp_path, perimeter(square(11, 50)), name="b.geojson")
    with pytest.raises(SiteError, match=r"b\.geojson: the id 'here' is already that of .*a\.geojson"):
        load_sites(tmp_path)


def test_overlapping_sites_of_one_campus_would_count_units_twice(tmp_path: Path) -> None:
    write(tmp_path, perimeter(id="a"), name="a.geojson")
    write(tmp_path, perimeter(square(10.005, 50), id="b"), name="b.geojson")
    with pytest.raises(SiteError, match=r"b\.geojson: .* overlaps that of 'a' of the same campus 'c'"):
        load_sites(tmp_path)
    write(tmp_path, perimeter(square(10.005, 50), id="b", campus="other"), name="b.geojson")
    assert [site.id for site in load_sites(tmp_path)] == ["a", "b"]


# Broken files


def test_not_json_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text('{\n "type": FeatureCollection\n}')
    assert "line 2, column 10" in refusal(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "not a GeoJSON FeatureCollection"),
        (b'{"type": "Feature"}', "not a GeoJSON FeatureCollection"),
        (b'{"type": "FeatureCollection", "features": {}}', "'features' is not a list"),
        (b'{"type": "FeatureCollection", "features": []}', "no feature has kind 'perimeter'"),
        (b'{"type": "FeatureCollection", "features": [7]}', "feature 0: not a GeoJSON Feature"),
        (
            b'{"type": "FeatureCollection", "features": [{"type": "Feature", "id": 5}]}',
            "feature 0 ('5'): it has no prop",
        ),
        (b'{"type": "FeatureCollection", "features": [], "crs": {"properties": {"name": "EPSG:32616"}}}', "not WGS 84"),
    ],
)
def test_not_a_site_file(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_bytes(content)
    assert fault in refusal(path)


BOW_TIE = {"type": "Polygon", "coordinates": [[[10, 50], [10.01, 50.01], [10.01, 50], [10, 50.01], [10, 50]]]}
OPEN = {"type": "Polygon", "coordinates": [[[10, 50], [10.01, 50], [10.01, 50.01], [10, 50.01]]]}
LINE = {"type": "Polygon", "coordinates": [[[10, 50], [10.01, 50.01], [10.005, 50.005], [10, 50]]]}
POINT = {"type": "Polygon", "coordinates": [[[10, 50], [10, 50], [10, 50], [10, 50]]]}


@pytest.mark.parametrize(
    ("features", "fault"),
    [
        ([perimeter(), perimeter()], "feature 1 ('here'): a second perimeter; feature 0 already is one"),
        ([perimeter(kind="area")], "kind must be 'perimeter' or 'zone', got 'area'"),
        ([perimeter(), zone(), zone(square(10.006, 50.006, 0.001))], "feature 2 ('roof'): the zone id 'roof' is given"),
        ([perimeter(), zone(zone="parking")], "'zone': input should be 'roof', 'yard' or 'plant', got 'parking'"),
        ([perimeter(id="../here")], "'id': must be at most 64 lower-case letters and digits"),
        ([perimeter(id="Here")], "'id': must be"),
        ([perimeter(), zone(id="")], "feature 1: 'id': must be"),
        ([perimeter(), without(zone(), "id")], "feature 1: 'id' is missing"),
        ([without(perimeter(), "source")], "feature 0 ('here'): 'source' is missing"),
        ([without(perimeter(), "quality")], "'quality' is missing"),
        ([perimeter(quality="good")], "'quality': input should be 'traced' or 'proxy', got 'good'"),
        ([perimeter(name=7)], "'name': input should be a valid string, got 7"),
        ([perimeter(operator=" ")], "'operator': string should have at least 1 character"),
        ([perimeter(pue="1.2")], "'pue': input should be a valid number, got '1.2'"),
        ([perimeter(pue=0.5)], "'pue': input should be greater than or equal to 1, got 0.5"),
        ([perimeter(pue=float("nan"))], "'pue': input should be a finite number"),
        ([perimeter(acelerator="GB200")], "unknown field 'acelerator'; did you mean 'accelerator'?"),
        ([perimeter(known_dates=[{"date": "2025-13-01", "event": "e", "source": "s"}])], "'known_dates.0.date': month"),
        ([perimeter(known_dates=[{"date": 20250101, "event": "e", "source": "s"}])], "a date YYYY-MM-DD, got 20250101"),
        ([perimeter(known_dates=[{"date": "2025-01-01", "event": "e"}])], "'known_dates.0.source' is missing"),
        ([perimeter(supplies=[{"kind": "sun", "mw": 1, "start": "2025-01-01", "source": "s"}])], "'supplies.0.kind'"),
        ([perimeter(supplies=[{"kind": "grid", "mw": -1, "start": "2025-01-01", "source": "s"}])], "greater than 0"),
        ([perimeter(BOW_TIE)], "crosses or touches itself at longitude and latitude 10.005 50.005"),
        ([perimeter(OPEN)], "a ring is not closed"),
        ([perimeter(LINE)], "encloses no area"),
        ([perimeter(POINT)], "encloses no area"),
        ([perimeter({"type": "Point", "coordinates": [1, 2]})], "must be a Polygon, got 'Point'"),
        ([perimeter() | {"geometry": None}], "it has no geometry"),
        ([perimeter({"type": "Polygon", "coordinates": []})], "its geometry is not a list of rings"),
        ([perimeter({"type": "Polygon", "coordinates": [7]})], "a ring needs at least four positions"),
        ([perimeter({"type": "Polygon", "coordinates": [[["a", 1]] * 4]})], "must be [longitude, latitude] in degrees"),
        (
            [perimeter({"type": "Polygon", "coordinates": [[[True, 1]] * 4]})],
            "must be [longitude, latitude] in degrees",
        ),
        ([perimeter({"type": "Polygon", "coordinates": [[[float("inf"), 1]] * 4]})], "coordinates must be finite"),
        ([perimeter({"type": "Polygon", "coordinates": [[[10**400, 1]] * 4]})], "coordinates must be finite"),
        ([perimeter(square(10, 50, 1))], "more than 2,500 km2"),
        ([perimeter(square(34.99, -90.04))], "has latitude and longitude swapped; GeoJSON gives longitude first"),
        ([perimeter(square(773000, 3876000, 900))], "is not longitude and latitude in degrees"),
        (
            [perimeter(), zone(square(50.002, 10.002, 0.002))],
            "feature 1 ('roof'): the zone has latitude and longitude swap",
        ),
        ([perimeter(), zone(square(12, 50, 0.002))], "feature 1 ('roof'): 100% of the zone lies outside the perimeter"),
        ([perimeter(), zone(square(10.009, 50.002, 0.002))], "50% of the zone lies outside the perimeter"),
        (
            [perimeter(square(50, 10)), zone(), zone(square(10.006, 50.006, 0.001), id="two")],
            "feature 0 ('here'): the perimeter has latitude and longitude swapped",
        ),
    ],
)
def test_broken_site_is_refused_in_one_sentence(tmp_path: Path, features: list, fault: str) -> None:
    assert fault in refusal(write(tmp_path, *features))


def test_perimeter_in_two_pieces_is_refused(tmp_path: Path) -> None:
    pieces = [square(10, 50)["coordinates"], square(11, 50)["coordinates"]]
    path = write(tmp_path, perimeter({"type": "MultiPolygon", "coordinates": pieces}))
    assert "one polygon, not several" in refusal(path)


def test_what_gis_programs_write_is_read(tmp_path: Path) -> None:
    """A multipolygon of one part, heights, left-handed rings, extra fields, a CRS84 member and a byte order mark."""
    ring = [[x, y, 90.5] for x, y in reversed(square(10, 50)["coordinates"][0])]
    document = {
        "type": "FeatureCollection",
        "name": "here",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
        "features": [perimeter({"type": "MultiPolygon", "coordinates": [[ring]]}, fid=1, stroke="#fff"), zone(fid=2)],
    }
    path = tmp_path / "here.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document).encode())
    site = load_site(str(path), tmp_path)
    assert site.perimeter.equals(shapely.box(10, 50, 10.01, 50.01))
    assert site.perimeter.exterior.is_ccw
    assert not site.perimeter.has_z
    assert [z.id for z in site.zones] == ["roof"]


# New sites


def test_new_site_from_bounds(tmp_path: Path) -> None:
    site = new_site("my-site", (10, 50, 10.01, 50.01), tmp_path / "aoi", source="drawn on a map")
    assert site == load_site("my-site", tmp_path / "aoi")
    assert site.perimeter.equals(shapely.box(10, 50, 10.01, 50.01))
    assert (site.name, site.campus, site.perimeter_quality, site.zones) == ("my-site", "my-site", "proxy", ())


def test_new_site_never_overwrites(tmp_path: Path) -> None:
    path = write(tmp_path, perimeter())
    before = path.read_bytes()
    with pytest.raises(SiteError, match=r"here\.geojson already exists"):
        new_site("here", (10, 50, 10.01, 50.01), tmp_path, source="s")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("site_id", "bounds", "fault"),
    [
        ("../up", (10, 50, 10.01, 50.01), "'id': must be"),
        ("a", (10.01, 50, 10, 50.01), "west south east north"),
        ("a", (float("nan"), 50, 10, 50.01), "west south east north"),
        ("a", (10, 50, float("inf"), 50.01), "finite"),
        ("a", (35, -91, 36, -90.5), "swapped"),
        ("a", (10, 50, 20, 60), "km2"),
    ],
)
def test_new_site_refuses_what_could_not_be_loaded(tmp_path: Path, site_id: str, bounds: tuple, fault: str) -> None:
    with pytest.raises(SiteError, match=fault):
        new_site(site_id, bounds, tmp_path, source="s")
    assert list(tmp_path.iterdir()) == []


def test_new_site_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SiteError, match="cannot be written"):
        new_site("a", (10, 50, 10.01, 50.01), tmp_path / "file", source="s")


@settings(deadline=None)
@given(
    lon=st.floats(-179, 179),
    lat=st.floats(-84, 84),
    angle_deg=st.floats(0, 180),
    sizes_deg=st.tuples(st.floats(1e-4, 0.1), st.floats(1e-4, 0.1)),
)
def test_round_trip_keeps_the_geometry(
    tmp_path_factory: pytest.TempPathFactory, lon: float, lat: float, angle_deg: float, sizes_deg: tuple[float, float]
) -> None:
    width, height = sizes_deg
    upright = shapely.box(lon - width / 2, lat - height / 2, lon + width / 2, lat + height / 2)
    outline = shapely.affinity.rotate(upright, angle_deg)
    folder = tmp_path_factory.mktemp("aoi")
    written: Site = new_site("x", outline, folder, source="hypothesis")
    read = load_site("x", folder)
    assert read == written
    assert read.perimeter.exterior.is_ccw
    assert set(read.perimeter.exterior.coords) == set(outline.exterior.coords)
    assert read.perimeter.equals(outline)
