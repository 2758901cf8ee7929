import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely

from pipelines.coregistration import (
    DOCUMENT,
    GROUND,
    Ground,
    Refusal,
    Shift,
    coregister,
    ground_tif,
    measure_shift,
    read_ground,
    read_shifts,
    view_ground,
)
from pipelines.errors import ArchiveError
from pipelines.scenes.cache import RENDERED_TAG
from pipelines.settings import SAMPLE_CATALOG, Settings
from pipelines.sites import Site, Zone, load_site
from tests.pipelines.two_looks import look, paint, place

SEEDS = range(8)
CRS = "EPSG:32615"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Ground, Ground, tuple[float, float]]]:
    """Two looks at each of eight places, in most of which something was built between, and the shift between them."""
    folder = tmp_path_factory.mktemp("looks")
    made = []
    for seed in SEEDS:
        east_m, north_m = np.random.default_rng([seed, 9]).uniform(-9, 9, 2)
        before = look(folder / f"{seed}a.tif", paint(seed, built=False), 2 * seed, (0, 0))
        after = look(folder / f"{seed}b.tif", paint(seed, built=seed % 3 > 0), 2 * seed + 1, (east_m, north_m))
        made.append((view_ground(before, place()), view_ground(after, place()), (east_m, north_m)))
    return made


def test_the_shift_is_within_its_stated_accuracy_in_nine_cases_of_ten(pairs) -> None:
    errors_m, accuracies_m = [], []
    for before, after, (east_m, north_m) in pairs:
        found = measure_shift(after, before, "before", place())
        assert isinstance(found, Shift)
        errors_m.append(np.hypot(found.east_m - east_m, found.north_m - north_m))
        accuracies_m.append(found.accuracy_m)
    assert np.mean(np.array(errors_m) <= accuracies_m) >= 0.9
    # An accuracy that is always right because it is large says nothing.
    assert max(accuracies_m) < 0.5
    assert max(errors_m) < 0.5


def test_the_way_back_is_the_same_shift_reversed(pairs) -> None:
    before, after, _ = pairs[1]
    there, back = measure_shift(after, before, "a"), measure_shift(before, after, "b")
    assert isinstance(there, Shift)
    assert isinstance(back, Shift)
    assert (there.east_m, there.north_m) == pytest.approx((-back.east_m, -back.north_m), abs=0.1)


def test_pictures_of_other_places_are_refused(pairs) -> None:
    for (one, _, _), (_, other, _) in itertools.pairwise(pairs):
        found = measure_shift(other, one, "other", place())
        assert isinstance(found, Refusal)
        assert "agree" in found.reason


def test_a_picture_of_nothing_is_refused(pairs) -> None:
    before, _, _ = pairs[0]
    flat = replace(before, grey=np.full_like(before.grey, 90))
    black = replace(before, grey=np.zeros_like(before.grey))
    elsewhere = replace(before, west_m=before.west_m + 6000)
    for other in (flat, black, elsewhere):
        assert isinstance(measure_shift(other, before, "before"), Refusal)
    other_grid = measure_shift(replace(before, pixel_m=1.2), before, "before")
    assert isinstance(other_grid, Refusal)
    assert "count both again" in other_grid.reason


@pytest.mark.parametrize(("gsd_m", "crs"), [(0.3, "EPSG:4326"), (0.6, CRS), (0.5, "EPSG:3857")])
def test_scenes_of_other_gsd_and_crs_are_measured_as_well(pairs, tmp_path: Path, gsd_m: float, crs: str) -> None:
    before, _, _ = pairs[2]
    after = look(tmp_path / "after.tif", paint(2, built=True), 77, (3.3, -4.7), gsd_m, crs)
    found = measure_shift(view_ground(after, place()), before, "before", place())
    assert isinstance(found, Shift)
    assert np.hypot(found.east_m - 3.3, found.north_m + 4.7) < 1.5 * found.accuracy_m
    assert found.crs == CRS


def test_zones_that_leave_no_ground_outside_are_looked_at_after_all(pairs) -> None:
    before, after, (east_m, north_m) = pairs[4]
    site = place()
    wide = Zone("all", "yard", shapely.box(*site.perimeter.buffer(0.01).bounds), "drawn", "proxy")
    found = measure_shift(after, before, "before", replace(site, zones=(wide,)))
    assert isinstance(found, Shift)
    assert np.hypot(found.east_m - east_m, found.north_m - north_m) < 0.5


def test_rendered_dates_of_the_sample_lie_on_each_other() -> None:
    site = load_site("southaven", Settings().aoi)
    paths = sorted(SAMPLE_CATALOG.parent.glob("rendered-southaven-*/*.tif"))
    first, *others = [view_ground(path, site) for path in paths]
    for other in others:
        found = measure_shift(other, first, "first", site)
        assert isinstance(found, Shift)
        assert np.hypot(found.east_m, found.north_m) < found.accuracy_m


def add_run(
    archive: Path,
    site: Site,
    day: str,
    ground: Ground | None,
    gsd_m: float = 0.4,
    rendered: bool = True,
    since: str | None = None,
) -> str:
    folder = archive / site.id / day / f"scene-{day}"
    folder.mkdir(parents=True)
    properties = {"datetime": f"{day}T00:00:00Z", "overwatt:rendered": rendered, "gsd": gsd_m}
    if since is not None:
        properties |= {"datetime": None, "start_datetime": since, "end_datetime": f"{day}T23:59:59Z"}
    (folder / "item.json").write_text(json.dumps({"properties": properties}))
    if ground is not None:
        (folder / GROUND).write_bytes(ground_tif(ground, rendered=rendered, licence="made"))
    return f"{day}/scene-{day}"


def test_a_document_of_the_site_follows_from_its_runs_in_any_order(pairs, tmp_path: Path) -> None:
    before, after, (east_m, north_m) = pairs[5]
    site = place()
    first = add_run(tmp_path / "a", site, "2025-01-01", before)
    assert coregister(site, tmp_path / "a") == {first: Shift(0, 0, 0, first, CRS)}
    second = add_run(tmp_path / "a", site, "2025-03-01", after)
    found = coregister(site, tmp_path / "a")[second]
    assert isinstance(found, Shift)
    assert found.reference == first
    assert np.hypot(found.east_m - east_m, found.north_m - north_m) < 0.5
    add_run(tmp_path / "b", site, "2025-03-01", after)
    coregister(site, tmp_path / "b")
    add_run(tmp_path / "b", site, "2025-01-01", before)
    coregister(site, tmp_path / "b")
    one, other = (tmp_path / name / site.id / DOCUMENT for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    one.unlink()
    coregister(site, tmp_path / "a")
    assert one.read_bytes() == other.read_bytes()
    assert read_shifts(site.id, tmp_path / "a")[second] == found
    assert {path.name for path in one.parent.iterdir()} == {DOCUMENT, "2025-01-01", "2025-03-01"}


def test_what_was_measured_is_kept_and_a_changed_run_is_measured_again(pairs, tmp_path: Path) -> None:
    before, after, _ = pairs[5]
    site = place()
    add_run(tmp_path, site, "2025-01-01", before)
    second = add_run(tmp_path, site, "2025-03-01", after)
    coregister(site, tmp_path)
    path = tmp_path / site.id / DOCUMENT
    document = json.loads(path.read_text())
    document["runs"][second]["east_m"] = 77.0
    path.write_text(json.dumps(document))
    kept = coregister(site, tmp_path)[second]
    assert isinstance(kept, Shift)
    assert kept.east_m == 77.0
    (tmp_path / site.id / second / GROUND).write_bytes(ground_tif(before, rendered=True, licence="made"))
    again = coregister(site, tmp_path)[second]
    assert isinstance(again, Shift)
    assert (again.east_m, again.north_m) == pytest.approx((0, 0), abs=0.01)


def test_the_reference_is_the_earliest_sharp_and_full_scene_of_its_kind(pairs, tmp_path: Path) -> None:
    before, after, _ = pairs[5]
    site = place()
    half = replace(before, grey=np.where(np.arange(before.grey.shape[1]) < 200, before.grey, 0).astype(np.uint8))
    add_run(tmp_path, site, "2025-01-01", half)
    add_run(tmp_path, site, "2025-02-01", before, gsd_m=2.0)
    sharp = add_run(tmp_path, site, "2025-03-01", before)
    add_run(tmp_path, site, "2025-04-01", after)
    photograph = add_run(tmp_path, site, "2025-05-01", after, rendered=False)
    shifts = coregister(site, tmp_path)
    assert {shift.reference for shift in shifts.values() if isinstance(shift, Shift)} == {sharp, photograph}
    assert isinstance(shifts[photograph], Shift)


def test_a_scene_of_which_only_a_range_of_days_is_known_can_be_the_reference(pairs, tmp_path: Path) -> None:
    before, after, _ = pairs[5]
    site = place()
    first = add_run(tmp_path, site, "2025-01-31", before, since="2025-01-01T00:00:00Z")
    add_run(tmp_path, site, "2025-03-01", after)
    shifts = coregister(site, tmp_path).values()
    assert {shift.reference for shift in shifts if isinstance(shift, Shift)} == {first}


def test_runs_without_a_picture_of_the_ground_are_said_not_to_be_placed(pairs, tmp_path: Path) -> None:
    before, _, _ = pairs[5]
    site = place()
    old = add_run(tmp_path, site, "2025-01-01", None)
    damaged = add_run(tmp_path, site, "2025-02-01", None)
    (tmp_path / site.id / damaged / GROUND).write_bytes(b"II*\0 no more")
    add_run(tmp_path, site, "2025-03-01", before)
    shifts = coregister(site, tmp_path)
    for key in (old, damaged):
        refused = shifts[key]
        assert isinstance(refused, Refusal)
        assert "count that date again" in refused.reason
    assert coregister(replace(site, id="elsewhere"), tmp_path) == {}
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_document_is_named_and_made_anew(pairs, tmp_path: Path) -> None:
    site = place()
    key = add_run(tmp_path, site, "2025-01-01", pairs[5][0])
    path = tmp_path / site.id / DOCUMENT
    path.write_text(json.dumps({"runs": {key: {"east_m": 1}}}))
    with pytest.raises(ArchiveError, match="delete it"):
        read_shifts(site.id, tmp_path)
    coregister(site, tmp_path)
    assert isinstance(read_shifts(site.id, tmp_path)[key], Shift)


def test_the_picture_of_the_ground_is_read_as_it_was_written_and_says_what_it_is(pairs, tmp_path: Path) -> None:
    before, _, _ = pairs[0]
    path = tmp_path / GROUND
    path.write_bytes(ground_tif(before, rendered=True, licence="CC0"))
    again = read_ground(path)
    assert (again.grey == before.grey).all()
    assert replace(again, grey=before.grey) == before

    with rasterio.open(path) as raster:
        assert raster.tags()[RENDERED_TAG] == "YES"
        assert raster.tags()["OVERWATT_LICENCE"] == "CC0"
