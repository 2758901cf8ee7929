"""A label file written, corrected as GIS programs do it, and read back as chips."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import MultiPolygon, Polygon

from models.classes import CLASSES, LETTERING
from models.detector.labels import CLASS, COUNT, HEADING, LENGTH, WIDTH, X, Y
from models.detector.targets import make_targets
from pipelines.detection import Detections
from pipelines.errors import InputError
from pipelines.grid import Grid, boxes, detection_grid
from pipelines.label_file import refuse_existing, write_label_file
from pipelines.labels import UNSEEN_GREY, held_out_ground, identify, read_corrected, read_drawn, unseen_rectangles
from pipelines.single_raster import open_single
from tests.pipelines.layers.test_qgis_project import SYSTEM_PYTHON, has_qgis
from tests.pipelines.postgres import skip_or_fail

GSD_M = 0.3
SIDE_PX = 480
WEST_M, NORTH_M = 230_000.0, 3_883_000.0
Row = tuple[str, float, float, float, float, float]
"""Class, centre x and y, length and width in pixels of the lattice, heading in degrees."""
CHILLERS: Sequence[Row] = [
    ("air_cooled_chiller", 60.0 + 40 * (n % 10), 60.0 + 90 * (n // 10), 44, 8, 0) for n in range(40)
]


def write_scene(path: Path, gsd_m: float = GSD_M, black_from: int | None = None, seed: int = 7) -> Path:
    """Noise on the ground near Memphis; columns from `black_from` on hold no image."""
    pixels = np.random.default_rng(seed).integers(60, 200, (3, SIDE_PX, SIDE_PX)).astype(np.uint8)
    mask = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    if black_from is not None:
        pixels[:, :, black_from:], mask[:, black_from:] = 0, 0
    place = from_origin(WEST_M, NORTH_M, gsd_m, gsd_m)
    profile = {"driver": "GTiff", "width": SIDE_PX, "height": SIDE_PX, "count": 3, "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", crs="EPSG:32616", transform=place, **profile) as raster,
    ):
        raster.write(pixels)
        if black_from is not None:
            raster.write_mask(mask)
    return path


def write_labels(path: Path, scene: Path, rows: Sequence[Row]) -> Grid:
    """As `overwatt label` does, with the given boxes for detections."""
    with rasterio.open(scene) as raster:
        grid = detection_grid(raster, GSD_M)
    names = [row[0] for row in rows]
    columns = np.array([row[1:] for row in rows], float).reshape(-1, 5).T
    polygons, heading_deg = boxes(grid, *columns)
    frame = gpd.GeoDataFrame(
        {
            "class": pd.Series(names, dtype=object),
            "probability": 0.9,
            "heading_deg": heading_deg,
            "fan_count": pd.array([12 if name == "air_cooled_chiller" else pd.NA for name in names], dtype="Int64"),
            "text": [("MACROHARD" if name == LETTERING.name else None) for name in names],
        },
        geometry=list(polygons),
        crs=grid.crs,
    )
    found = Detections(frame, "detector-0+reader-0", GSD_M, Polygon(), {}, 1, 0)
    with open_single(scene, detector_gsd_m=GSD_M, cache=path.parent / "cache") as image:
        write_label_file(path, identify(scene, image, "public domain"), image, found)
    return grid


def edit(path: Path, layer: str, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]) -> None:
    """Write one layer anew, as a program does that does not know of the others."""
    frame = change(pyogrio.read_dataframe(path, layer=layer))
    with sqlite3.connect(path) as database:
        kept = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (layer,)).fetchall()
    assert kept
    pyogrio.write_dataframe(frame, path, layer=layer, driver="GPKG", append=False)


def read(labels: Path, scene: Path) -> Any:
    return read_corrected(labels, scene, detector_gsd_m=GSD_M, cache=labels.parent / "cache")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "noise.tif")


@pytest.fixture
def labels(tmp_path: Path, scene: Path) -> Path:
    path = tmp_path / "noise.labels.gpkg"
    write_labels(path, scene, CHILLERS)
    return path


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(CLASSES),
            st.floats(60, 420),
            st.floats(60, 420),
            st.floats(20, 60),
            st.floats(6, 18),
            st.floats(0, 359.9),
        ),
        min_size=1,
        max_size=6,
    ),
    crs=st.sampled_from([None, "EPSG:4326", "EPSG:3857", "EPSG:32615", "EPSG:3035"]),
)
def test_what_is_written_is_read_within_a_pixel_whatever_crs_it_was_saved_in(
    rows: list[Row], crs: str | None, scene: Path, tmp_path: Path
) -> None:
    path = tmp_path / "round.gpkg"
    path.unlink(missing_ok=True)
    rows = sorted(rows)
    grid = write_labels(path, scene, rows)
    if crs is not None:
        edit(path, "labels", lambda frame: frame.to_crs(crs))
    drawn = read_drawn(path, grid)
    wanted = np.array([row[1:] for row in rows])
    assert [CLASSES[int(index)] for index in drawn.table[:, CLASS]] == [row[0] for row in rows]
    assert np.abs(drawn.table[:, [X, Y, LENGTH, WIDTH]] - wanted[:, :4]).max() < 1
    words = np.array([row[0] == LETTERING.name for row in rows])
    period = np.where(words, 360, 180)
    off = (drawn.table[:, HEADING] - wanted[:, 4] + period / 2) % period - period / 2
    assert np.abs(off).max() < 2, "lettering keeps its reading direction, the rest its axis"
    single = np.isin([row[0] for row in rows], ["dry_cooler", "cooling_tower"])
    chillers = np.array([row[0] == "air_cooled_chiller" for row in rows])
    assert (drawn.table[single, COUNT] == 1).all()
    assert (drawn.table[chillers, COUNT] == 12).all()


@pytest.mark.parametrize(
    ("given_deg", "wanted_deg"), [(270.0, 270.0), (250.0, 270.0), (90.0, 90.0), (10.0, 90.0), (None, 90.0)]
)
def test_lettering_reads_as_its_field_says_where_that_fits_the_polygon(
    given_deg: float | None, wanted_deg: float, scene: Path, tmp_path: Path
) -> None:
    path = tmp_path / "word.gpkg"
    grid = write_labels(path, scene, [(LETTERING.name, 200, 200, 80, 16, 270)])
    edit(path, "labels", lambda frame: frame.assign(heading_deg=given_deg))
    assert read_drawn(path, grid).table[0, HEADING] == pytest.approx(wanted_deg, abs=2)


def test_every_unit_is_trained_on_or_held_out_and_never_both(labels: Path, scene: Path) -> None:
    corrected = read(labels, scene)
    trained = [chip.labels.objects for chip in corrected.chips]
    held_out = [chip.labels.objects for chip in corrected.held_out]
    assert sum(map(len, trained)) + sum(map(len, held_out)) == len(CHILLERS)
    assert 0.15 <= sum(map(len, held_out)) / len(CHILLERS) <= 0.4
    assert corrected.about["units"] == {"air_cooled_chiller": sum(map(len, trained))}
    assert corrected.about["held_out_units"] == {"air_cooled_chiller": sum(map(len, held_out))}
    assert corrected.about["licence"] == "public domain"
    assert corrected.about["scene"] == "noise.tif"
    for chip in corrected.chips:
        targets = make_targets(chip.labels, *(side // 2 * 2 for side in chip.image.shape[:2]))
        assert 0 < targets.judged.mean() < 1
        # Held-out units lie on ground that training does not judge.
        for row in chip.labels.ignored:
            assert not targets.judged[int(row[Y]) // 2, int(row[X]) // 2]


def test_ground_that_another_scene_of_the_place_is_measured_on_is_not_trained_on(
    labels: Path, scene: Path, tmp_path: Path
) -> None:
    # The same place before it was finished, which is divided elsewhere.
    earlier = write_scene(tmp_path / "earlier.tif", seed=5)
    its_labels = tmp_path / "earlier.labels.gpkg"
    write_labels(its_labels, earlier, [row for row in CHILLERS if row[1] < 300 and row[2] < 250])
    cache = tmp_path / "cache"
    ground = held_out_ground(its_labels, earlier, detector_gsd_m=GSD_M, cache=cache)
    alone = read(labels, scene)
    beside = read_corrected(labels, scene, detector_gsd_m=GSD_M, cache=cache, elsewhere=[ground])
    with rasterio.open(scene) as raster:
        grid = detection_grid(raster, GSD_M)
    polygon = grid.to_pixels(ground)
    hidden = [row for row in CHILLERS if polygon.contains(shapely.Point(row[1], row[2]))]
    shown = sum(alone.about["units"].values())
    assert 0 < shown - sum(beside.about["units"].values()) <= len(hidden)
    assert beside.about["held_out_units"] == alone.about["held_out_units"]
    far = shapely.box(13.726, 45.147, 13.727, 45.148)
    assert read_corrected(labels, scene, detector_gsd_m=GSD_M, cache=cache, elsewhere=[far]).about == alone.about


def test_a_unit_on_a_chip_lies_where_it_lies_in_the_scene(tmp_path: Path) -> None:
    image = tmp_path / "marked.tif"
    write_scene(image)
    with rasterio.open(image, "r+") as raster:
        raster.write(np.full((3, 10, 30), 255, np.uint8), window=((100, 110), (300, 330)))
    path = tmp_path / "marked.gpkg"
    write_labels(path, image, [("gas_turbine", 315, 105, 30, 10, 90)])
    made = read(path, image)
    [chip] = [chip for chip in (*made.chips, *made.held_out) if len(chip.labels.objects)]
    [row] = chip.labels.objects
    y, x = np.argwhere((chip.image == 255).all(axis=2)).mean(axis=0) + 0.5
    assert (row[X], row[Y]) == pytest.approx((x, y), abs=0.6)


def test_ground_that_was_not_reviewed_or_is_not_shown_is_not_judged(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "collar.tif", black_from=300)
    path = tmp_path / "collar.gpkg"
    write_labels(path, image, [row for row in CHILLERS if row[1] < 290])
    before = pyogrio.read_dataframe(path, layer="reviewed")
    # The valid extent, not the file's.
    assert before.total_bounds == pytest.approx(
        [WEST_M, NORTH_M - SIDE_PX * GSD_M, WEST_M + 300 * GSD_M, NORTH_M], abs=0.5
    )
    west = shapely.box(WEST_M, NORTH_M - SIDE_PX * GSD_M, WEST_M + 200 * GSD_M, NORTH_M)
    edit(path, "reviewed", lambda frame: gpd.GeoDataFrame({"note": [None]}, geometry=[west], crs=frame.crs))
    corrected = read(path, image)
    assert corrected.about["reviewed_km2"] == pytest.approx(200 * SIDE_PX * GSD_M**2 / 1e6, abs=1e-4)
    assert corrected.about["outside_reviewed"] == 8
    [chip] = corrected.chips
    targets = make_targets(chip.labels, *(side // 2 * 2 for side in chip.image.shape[:2]))
    assert not targets.seen[:, 102:].any()
    assert targets.seen[4:40, 4:96].all()
    for held_out in corrected.held_out:
        grey = (held_out.image == UNSEEN_GREY).all(axis=2)
        assert grey.any(), "ground without image is the grey that the network takes it for"


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_unseen_rectangles_cover_what_is_unseen_and_nothing_else(data: st.DataObject) -> None:
    seed, share = data.draw(st.integers(0, 1000)), data.draw(st.floats(0, 1))
    cells = np.random.default_rng(seed).random((9, 13)) < share
    seen = cells.repeat(4, axis=0).repeat(4, axis=1)
    painted = np.ones_like(cells)
    for x, y, length, width, heading, *_ in unseen_rectangles(seen):
        assert heading == 0
        top, left = int((y - length / 2) / 4), int((x - width / 2) / 4)
        assert painted[top : top + int(length / 4), left : left + int(width / 4)].all(), "covered once"
        painted[top : top + int(length / 4), left : left + int(width / 4)] = False
    assert (painted == cells).all()


def square(x: float = 100, y: float = 100, side: float = 20) -> Polygon:
    west, north = WEST_M + x * GSD_M, NORTH_M - y * GSD_M
    return shapely.box(west, north - side * GSD_M, west + side * GSD_M, north)


BOW_TIE = Polygon(
    [(WEST_M + 9, NORTH_M - 9), (WEST_M + 20, NORTH_M - 20), (WEST_M + 20, NORTH_M - 9), (WEST_M + 9, NORTH_M - 20)]
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"class": "chiller"}, r"feature \d+ has the class 'chiller', which is none: choose from air_cooled_chiller, "),
        ({"class": None}, r"feature \d+ has no class: choose from"),
        ({"status": "perhaps"}, r"feature \d+ has the status 'perhaps', which is none: choose from sure, ignore"),
        ({"geometry": square(x=5000)}, r"feature \d+: it lies outside the scene"),
        ({"geometry": BOW_TIE}, r"feature \d+: its geometry is invalid \(Self-intersection"),
        ({"geometry": square(side=0.5)}, r"feature \d+: it encloses no area"),
        ({"geometry": None}, r"feature \d+: it has no polygon"),
        ({"geometry": MultiPolygon([square(), square(x=200)])}, r"feature \d+: it has 2 parts"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused_by_its_number(
    change: dict[str, Any], sentence: str, labels: Path, scene: Path
) -> None:
    def spoil(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        for name, value in change.items():
            column = frame[name].astype(object).tolist()
            column[3] = value
            frame[name] = gpd.GeoSeries(column, crs=frame.crs) if name == "geometry" else column
        return frame

    edit(labels, "labels", spoil)
    with pytest.raises(InputError, match=sentence) as refused:
        read(labels, scene)
    assert "feature 4" in str(refused.value)


def test_files_that_are_not_labels_of_the_scene_are_refused(labels: Path, scene: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tif"
    write_scene(other, black_from=400)
    with pytest.raises(InputError, match=r"holds labels of noise\.tif .* is another file"):
        read(labels, other)
    with pytest.raises(InputError, match="does not exist: make a file with `overwatt label SCENE`"):
        read(tmp_path / "none.gpkg", scene)
    with pytest.raises(InputError, match="is a folder: make a file"):
        read(tmp_path, scene)
    text = tmp_path / "text.gpkg"
    text.write_text("no database")
    with pytest.raises(InputError, match="no GeoPackage that can be read"):
        read(text, scene)
    alone = tmp_path / "alone.gpkg"
    pyogrio.write_dataframe(pyogrio.read_dataframe(labels, layer="labels"), alone, layer="labels")
    with pytest.raises(InputError, match="has no table reviewed"):
        read(alone, scene)
    edit(labels, "scene", lambda frame: frame.assign(format="overwatt-labels-0"))
    with pytest.raises(InputError, match="is not as `overwatt label` wrote it"):
        read(labels, scene)


def test_a_layer_without_crs_or_field_is_refused(labels: Path, scene: Path) -> None:
    copy = labels.with_name("copy.gpkg")
    shutil.copy(labels, copy)
    with pytest.warns(UserWarning, match="crs"):
        edit(copy, "labels", lambda frame: frame.set_crs(None, allow_override=True))
    with pytest.raises(InputError, match="layer labels, does not say its CRS"):
        read(copy, scene)
    edit(labels, "labels", lambda frame: frame.drop(columns="status"))
    with pytest.raises(InputError, match="has no field status"):
        read(labels, scene)


@pytest.mark.parametrize("layer", ["labels", "reviewed"])
def test_metres_that_are_called_degrees_are_refused(layer: str, labels: Path, scene: Path) -> None:
    edit(labels, layer, lambda frame: frame.set_crs("EPSG:4326", allow_override=True))
    with pytest.raises(InputError, match=f"layer {layer}, has coordinates that its CRS, WGS 84, does not know"):
        read(labels, scene)


@pytest.mark.parametrize("ground", [[], [square(x=9000, side=100)]])
def test_without_reviewed_ground_nothing_is_read(ground: list[Polygon], labels: Path, scene: Path) -> None:
    edit(
        labels,
        "reviewed",
        lambda frame: gpd.GeoDataFrame({"note": [None] * len(ground)}, geometry=ground, crs=frame.crs),
    )
    with pytest.raises(InputError, match="layer reviewed, holds no ground of the scene"):
        read(labels, scene)


def test_a_scene_too_coarse_for_any_unit_is_refused(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "coarse.tif", gsd_m=1.0)
    path = tmp_path / "coarse.gpkg"
    write_labels(path, image, CHILLERS)
    with pytest.raises(InputError, match=r"coarse\.tif has pixels of 1\.00 m, coarser than 0\.60 m"):
        read(path, image)


def test_a_file_that_may_hold_corrections_is_replaced_only_when_told_to(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"may hold corrections: .*--overwrite"):
        refuse_existing(labels, overwrite=False)
    refuse_existing(labels, overwrite=True)
    refuse_existing(tmp_path / "new.gpkg", overwrite=False)
    with pytest.raises(InputError, match=r"ends in \.gpkg"):
        refuse_existing(tmp_path / "new.geojson", overwrite=False)
    with pytest.raises(InputError, match="is no folder"):
        refuse_existing(tmp_path / "nowhere" / "new.gpkg", overwrite=False)
    reader = sqlite3.connect(labels)
    reader.execute("PRAGMA journal_mode = WAL")
    reader.execute("CREATE TABLE held_open (x)")
    with pytest.raises(InputError, match="open in another program"):
        refuse_existing(labels, overwrite=True)
    reader.close()


def test_qgis_offers_the_classes_and_saves_corrections(labels: Path, scene: Path, tmp_path: Path) -> None:
    if not has_qgis():
        skip_or_fail("QGIS and its Python module (Debian: qgis, python3-qgis) are not installed")
    edits = tmp_path / "edits.json"
    # Drawn with a corner more than a box has, as by hand.
    drawn = [[square(x=20, y=400, side=30).segmentize(5).wkt, {"class": "gas_turbine"}]]
    changes = [[2, "class", "battery"], [3, "status", "ignore"]]
    edits.write_text(json.dumps({"delete": [1], "draw": drawn, "change": changes}))
    # The system's Python must not find this environment's packages.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(
        [SYSTEM_PYTHON, Path(__file__).with_name("correct_in_qgis.py"), labels, edits],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"QT_QPA_PLATFORM": "offscreen"},
        timeout=240,
    )
    told = json.loads(run.stdout)
    fields = told["labels"]["fields"]
    for name, choices in (("class", CLASSES), ("status", ("sure", "ignore"))):
        assert fields[name]["widget"] == "ValueMap"
        assert fields[name]["config"]["map"] == [{choice: choice} for choice in choices]
        assert fields[name]["required"]
    assert fields["status"]["default"] == "'sure'"
    assert fields["probability"]["read_only"]
    assert told["labels"]["renderer"] == told["reviewed"]["renderer"] == "RuleRenderer"
    assert len(told["labels"]["legend"]) == len(CLASSES) + 2
    assert told["committed"]
    assert told["after"] == len(CHILLERS)
    about = read(labels, scene).about
    counts = {name: about["units"].get(name, 0) + about["held_out_units"].get(name, 0) for name in CLASSES}
    assert counts["air_cooled_chiller"] == len(CHILLERS) - 3
    assert counts["battery"] == counts["gas_turbine"] == 1
    assert about["ignored"] + sum(counts.values()) in (len(CHILLERS), len(CHILLERS) - 1)
