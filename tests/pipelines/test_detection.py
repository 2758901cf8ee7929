"""Detection over a raster: the same answer for any window, every CRS, and places that are right on the ground."""

from datetime import UTC, datetime
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject
from shapely.geometry import Polygon, box

from models.classes import CLASSES
from models.detector.detector import Detector
from models.reader.reader import Reader
from models.rendering.canvas import Canvas, Frame, Truth
from models.rendering.chips import placed
from models.rendering.cooling_equipment import chiller, chiller_style
from models.rendering.layouts import chiller_rows, ground, paint_text, roof
from models.rendering.lettering import LetteringStyle
from models.rendering.sensor import Sensor, photograph
from pipelines.detection import Detections, detect
from pipelines.errors import SceneError
from pipelines.grid import project_polygon
from pipelines.scenes.types import FetchedScene, Scene
from pipelines.settings import Settings

CRS = "EPSG:32615"
WEST, NORTH = 770_000.0, 3_877_000.0
GSD_M = 0.3
WIDTH_PX, HEIGHT_PX = 700, 560


@pytest.fixture(scope="module")
def picture() -> tuple[np.ndarray, list[Truth]]:
    """A rendered yard with 40 chillers at 30 degrees, and a roof with a word, 210 x 168 m."""
    canvas = Canvas(WIDTH_PX * 2, HEIGHT_PX * 2, GSD_M / 2)
    rng = np.random.default_rng(7)
    ground(canvas, rng, 20.0, "gravel")
    chiller_rows(canvas, rng, Frame(70, 84, 30), 62, 62, chiller_style(rng, model=0), 40, gap_m=1.6, aisle_m=3.0)
    roof(canvas, rng, Frame(160, 84, 0), 150, 60, "white_roof", 6.0)
    style = LetteringStyle(face="block", weight=0.2)
    paint_text(canvas, rng, Frame(160, 84, 0), "ORBITAL", 16.0, style, (0.05, 0.05, 0.06))
    sensor = Sensor(0.3, 160, 50, 0, 0, 0.3, 0.03, 1.2, 0.75, (1, 1, 1), 0.6, 0.3, 0.0, 0.004, 93)
    return photograph(canvas, sensor, rng), canvas.truth


@pytest.fixture(scope="module")
def detectors() -> list[Detector]:
    return Detector.load_each(Settings().weights, "cpu", precision="float32")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load(Settings().reader_weights, "cpu")


def write(
    path: Path,
    image: np.ndarray,
    transform: Affine,
    crs: str = CRS,
    mask: np.ndarray | None = None,
    gsd_m: float = GSD_M,
) -> FetchedScene:
    """A raster in the form that a source hands over."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=image.shape[1],
            height=image.shape[0],
            count=3,
            dtype="uint8",
            crs=crs,
            transform=transform,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
        ) as raster,
    ):
        raster.write(image.transpose(2, 0, 1))
        raster.write_mask(np.full(image.shape[:2], 255, np.uint8) if mask is None else mask)
    corners = [transform @ c for c in ((0, 0), (image.shape[1], 0), image.shape[1::-1], (0, image.shape[0]))]
    footprint = shapely.transform(
        Polygon(corners), Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform, interleaved=False
    )
    scene = Scene(
        id="yard",
        source="local:test",
        acquired=datetime(2025, 8, 22, tzinfo=UTC),
        gsd_m=gsd_m,
        footprint=footprint,
        licence="Apache-2.0",
        rendered=True,
        href=str(path),
        acquired_from="command line",
    )
    return FetchedScene(scene, path, path.with_suffix(".json"), "0" * 64, footprint)


@pytest.fixture(scope="module")
def straight(picture: tuple[np.ndarray, list[Truth]], tmp_path_factory: pytest.TempPathFactory) -> FetchedScene:
    path = tmp_path_factory.mktemp("straight") / "yard.tif"
    return write(path, picture[0], Affine(GSD_M, 0, WEST, 0, -GSD_M, NORTH))


@pytest.fixture(scope="module")
def whole(straight: FetchedScene, detectors: list[Detector], reader: Reader) -> Detections:
    return detect(straight, straight.scene.footprint, detectors, reader, window_px=4096)


def test_less_probable_rows_can_be_left_out(whole: Detections) -> None:
    probabilities = whole.frame["probability"]
    some = whole.at_least(float(probabilities.median()))
    assert 0 < len(some.frame) < len(whole.frame)
    assert some.frame["probability"].min() >= some.min_probability == probabilities.median()
    assert list(some.frame.index) == list(range(len(some.frame)))


def true_centres(truth: list[Truth]) -> np.ndarray:
    return np.array([(WEST + t.frame.x_m, NORTH - t.frame.y_m) for t in truth if t.cls == "air_cooled_chiller"])


def found_chillers(detections: Detections, crs: str = CRS) -> gpd.GeoDataFrame:
    frame = detections.frame
    return frame[(frame["class"] == "air_cooled_chiller") & (frame["probability"] >= 0.5)].to_crs(crs)


def test_every_chiller_is_found_where_it_stands(whole: Detections, picture: tuple[np.ndarray, list[Truth]]) -> None:
    chillers = found_chillers(whole)
    truth = true_centres(picture[1])
    centres = np.column_stack([chillers.centroid.x, chillers.centroid.y])
    assert len(chillers) == len(truth) == 40
    offsets = np.array([centres[np.argmin(((centres - t) ** 2).sum(1))] - t for t in truth])
    assert np.hypot(*offsets.T).max() < 0.6
    # half a pixel would be 0.15 m
    assert np.abs(offsets.mean(axis=0)).max() < 0.10
    assert chillers["length_m"].median() == pytest.approx(11.9, rel=0.05)
    # grid north is 1.7 degrees off true north here
    assert np.abs((chillers["heading_deg"] - 30 + 90) % 180 - 90).median() < 4


def test_lettering_is_read(whole: Detections) -> None:
    words = whole.frame[whole.frame["class"] == "roof_lettering"]
    assert list(words["text"]) == ["ORBITAL"]
    # it reads northwards: the frame's u points up
    assert abs((words["heading_deg"].iloc[0] + 180) % 360 - 180) < 6


SEAMS_PX = (512, 1024)
SEAMED_PX = 1100


def on_the_seams() -> list[tuple[float, float]]:
    """Places in pixels: on every seam and corner of windows of 512 px, and a few pixels to either side of it."""
    places: list[tuple[float, float]] = []
    steps = [(seam, along) for seam in SEAMS_PX for along in (*SEAMS_PX, *range(56, SEAMED_PX - 40, 57))]
    for number, (seam, along) in enumerate(steps):
        beside = (0, 1, -3, 7)[number % 4] if along not in SEAMS_PX else 0
        for place in ((seam + beside, along), (along, seam + beside)):
            if all(np.hypot(place[0] - x, place[1] - y) > 60 for x, y in places):
                places.append(place)
    return places


def beside(number: int, place_px: tuple[float, float]) -> list[Frame]:
    """Frames of three units side by side, the middle one on the place."""
    middle = Frame(place_px[0] * GSD_M, place_px[1] * GSD_M, 37.0 * number)
    return [middle.at(0, across_m) for across_m in (-3.6, 0, 3.6)]


@pytest.fixture(scope="module")
def seamed(tmp_path_factory: pytest.TempPathFactory) -> FetchedScene:
    """Chillers at all headings on the seams of windows of 512 and 1024 px."""
    canvas = Canvas(SEAMED_PX * 2, SEAMED_PX * 2, GSD_M / 2)
    rng = np.random.default_rng(3)
    ground(canvas, rng, 0.0, "gravel")
    style = chiller_style(rng, model=0)
    for number, place in enumerate(on_the_seams()):
        for frame in beside(number, place):
            chiller(canvas, rng, frame, style)
    sensor = Sensor(0.3, 160, 50, 0, 0, 0.3, 0.03, 1.2, 0.75, (1, 1, 1), 0.6, 0.3, 0.0, 0.004, 93)
    image = photograph(canvas, sensor, rng)
    path = tmp_path_factory.mktemp("seamed") / "seamed.tif"
    return write(path, image, Affine(GSD_M, 0, WEST, 0, -GSD_M, NORTH))


@pytest.fixture(scope="module")
def seamed_whole(seamed: FetchedScene, detectors: list[Detector], reader: Reader) -> Detections:
    return detect(seamed, seamed.scene.footprint, detectors, reader, window_px=4096)


def test_units_on_seams_are_found_once(seamed_whole: Detections) -> None:
    found = found_chillers(seamed_whole)
    frames = [frame for number, place in enumerate(on_the_seams()) for frame in beside(number, place)]
    truth = np.array([(WEST + frame.x_m, NORTH - frame.y_m) for frame in frames])
    gap = np.hypot(*(found.centroid.get_coordinates().to_numpy()[:, None] - truth[None]).transpose(2, 0, 1))
    assert len(truth) > 60
    assert (gap < 1.0).sum(axis=0).max() == 1
    # threes without a row around them are missed more often; a seam must not make it worse
    assert (gap < 1.0).any(axis=0).mean() > 0.75


@pytest.mark.parametrize(
    ("window_px", "origin_px"), [(512, (0, 0)), (1024, (0, 0)), (2048, (0, 0)), (512, (256, 144)), (208, (0, 0))]
)
def test_windows_do_not_change_the_answer(
    window_px: int,
    origin_px: tuple[int, int],
    seamed: FetchedScene,
    seamed_whole: Detections,
    detectors: list[Detector],
    reader: Reader,
) -> None:
    found = detect(seamed, seamed.scene.footprint, detectors, reader, window_px=window_px, origin_px=origin_px)
    assert_same(found, seamed_whole)


def test_windows_do_not_change_what_is_read(
    straight: FetchedScene, whole: Detections, detectors: list[Detector], reader: Reader
) -> None:
    assert_same(detect(straight, straight.scene.footprint, detectors, reader, window_px=208), whole)


def assert_same(found: Detections, expected: Detections) -> None:
    """The same set, scores within 1e-3, positions within 0.05 m, the same words."""
    assert list(found.frame["class"]) == list(expected.frame["class"])
    assert np.abs(found.frame["score"] - expected.frame["score"]).max() < 1e-3
    gap = shapely.distance(found.frame.centroid.to_numpy(), expected.frame.centroid.to_numpy())
    assert gap.max() < 0.05
    assert list(found.frame["text"].dropna()) == list(expected.frame["text"].dropna())


def test_only_the_area_is_read(straight: FetchedScene, detectors: list[Detector], reader: Reader) -> None:
    to_lonlat = Transformer.from_crs(CRS, "OGC:CRS84", always_xy=True).transform
    area = shapely.transform(box(WEST + 5, NORTH - 60, WEST + 60, NORTH - 5), to_lonlat, interleaved=False)
    seen: list[tuple[int, int]] = []
    detections = detect(straight, area, detectors, reader, window_px=256, progress=lambda *step: seen.append(step))
    # one that shows the area, three more whose units may thin out some in it
    assert detections.windows_read == 4
    assert detections.windows_skipped == 5
    # and six of the coarse lattice, whose windows are no larger on the ground
    assert seen[-1] == (10, 10)
    inside = project_polygon(area, detections.frame.crs)
    assert shapely.contains_xy(inside, detections.frame.centroid.x, detections.frame.centroid.y).all()


def degrees(picture: np.ndarray, path: Path) -> FetchedScene:
    transform = Affine(3.3e-6, 0, 0, 0, -2.7e-6, 0)
    corner = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(WEST, NORTH)
    transform = Affine.translation(corner[0] - 2e-5, corner[1] + 2e-5) @ transform
    return warped(picture, path, transform, "EPSG:4326", (760, 680))


def rotated(picture: np.ndarray, path: Path) -> FetchedScene:
    transform = Affine.translation(WEST - 60, NORTH - 40) @ Affine.rotation(20) @ Affine.scale(0.3, -0.3)
    return warped(picture, path, transform, CRS, (950, 900))


def oblong(picture: np.ndarray, path: Path) -> FetchedScene:
    return warped(picture, path, Affine(0.24, 0, WEST, 0, -0.3, NORTH), CRS, (875, 560))


def mercator(picture: np.ndarray, path: Path) -> FetchedScene:
    transformer = Transformer.from_crs(CRS, "EPSG:3857", always_xy=True)
    west, north = transformer.transform(WEST, NORTH)
    # a Mercator metre is cos(latitude) of a metre on the ground
    return warped(picture, path, Affine(0.36, 0, west - 3, 0, -0.36, north + 3), "EPSG:3857", (740, 620))


def warped(picture: np.ndarray, path: Path, transform: Affine, crs: str, size: tuple[int, int]) -> FetchedScene:
    source = np.concatenate([picture.transpose(2, 0, 1), np.full((1, *picture.shape[:2]), 255, np.uint8)])
    target = np.zeros((4, size[1], size[0]), np.uint8)
    reproject(
        source,
        target,
        src_transform=Affine(GSD_M, 0, WEST, 0, -GSD_M, NORTH),
        src_crs=CRS,
        dst_transform=transform,
        dst_crs=crs,
        resampling=Resampling.cubic,
        tolerance=0.0,
    )
    return write(path, target[:3].transpose(1, 2, 0), transform, crs, mask=(target[3] > 127).astype(np.uint8) * 255)


@pytest.mark.parametrize("make", [degrees, rotated, oblong, mercator])
def test_a_scene_in_any_grid_gives_the_same_places(
    make: object, picture: tuple[np.ndarray, list[Truth]], tmp_path: Path, detectors: list[Detector], reader: Reader
) -> None:
    assert callable(make)
    fetched: FetchedScene = make(picture[0], tmp_path / "yard.tif")
    detections = detect(fetched, fetched.scene.footprint, detectors, reader)
    chillers = found_chillers(detections)
    truth = true_centres(picture[1])
    centres = np.column_stack([chillers.centroid.x, chillers.centroid.y])
    assert abs(len(chillers) - 40) <= 1
    offsets = np.array([centres[np.argmin(((centres - t) ** 2).sum(1))] - t for t in truth])
    assert np.abs(np.median(offsets, axis=0)).max() < 0.12
    assert chillers["length_m"].median() == pytest.approx(11.9, rel=0.05)
    assert np.abs((chillers["heading_deg"] - 30 + 90) % 180 - 90).median() < 4


def test_blank_windows_never_reach_the_network(
    picture: tuple[np.ndarray, list[Truth]], tmp_path: Path, detectors: list[Detector], reader: Reader
) -> None:
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    mask[:100, :100] = 255
    fetched = write(tmp_path / "corner.tif", picture[0], Affine(GSD_M, 0, WEST, 0, -GSD_M, NORTH), mask=mask)
    detections = detect(fetched, fetched.scene.footprint, detectors, reader, window_px=256)
    # the corner's window, and those whose halo it reaches
    assert 1 <= detections.windows_read < 9
    assert len(detections.frame) == 0 or detections.frame.centroid.x.max() < WEST + 31


def test_coarse_imagery_gives_no_count_but_the_reason(
    picture: tuple[np.ndarray, list[Truth]], tmp_path: Path, detectors: list[Detector], reader: Reader
) -> None:
    fetched = write(tmp_path / "coarse.tif", picture[0][::5, ::5], Affine(1.5, 0, WEST, 0, -1.5, NORTH), gsd_m=1.5)
    detections = detect(fetched, fetched.scene.footprint, detectors, reader)
    assert len(detections.frame) == 0
    assert set(detections.not_given) == set(CLASSES)
    assert "1.50 m" in detections.not_given["battery"]
    assert detections.windows_read == 0


def test_of_imagery_too_coarse_for_equipment_large_lettering_is_left(
    picture: tuple[np.ndarray, list[Truth]], tmp_path: Path, detectors: list[Detector], reader: Reader
) -> None:
    # 16 m letters in 1.2 m pixels.
    averaged = cv2.resize(picture[0], None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_AREA)
    fetched = write(tmp_path / "coarse.tif", averaged, Affine(1.2, 0, WEST, 0, -1.2, NORTH), gsd_m=1.2)
    detections = detect(fetched, fetched.scene.footprint, detectors, reader)
    assert set(detections.not_given) == set(CLASSES) - {"roof_lettering"}
    assert detections.frame["text"].tolist() == ["ORBITAL"]
    assert detections.windows_read == 1


def test_a_damaged_block_is_named(
    straight: FetchedScene, tmp_path: Path, detectors: list[Detector], reader: Reader
) -> None:
    path = tmp_path / "damaged.tif"
    content = bytearray(straight.path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    broken = FetchedScene(straight.scene, path, straight.item_path, straight.sha256, straight.coverage)
    with pytest.raises(SceneError, match=r"damaged\.tif cannot be read in the window"):
        detect(broken, straight.scene.footprint, detectors, reader, window_px=256)


def test_labels_of_the_fixture_are_inside(picture: tuple[np.ndarray, list[Truth]]) -> None:
    sensor = Sensor(0.3, 160, 50, 0, 0, 0.3, 0.03, 1.2, 0.75, (1, 1, 1), 0.6, 0.3, 0.0, 0.004, 93)
    objects, texts, _ = placed(picture[1], sensor, GSD_M, 0.0, (WIDTH_PX, HEIGHT_PX))
    assert len(objects) == 40
    assert [t.text for t in texts] == ["ORBITAL"]
