"""Detection in a scene: the engine's peaks and lettering regions become polygons with their properties."""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import shapely.affinity
from rasterio.errors import RasterioError
from shapely.geometry import MultiPolygon, Polygon

from models.calibration import calibrated
from models.classes import BY_NAME, CLASSES, LETTERING, OBJECT_CLASSES, equipment_resolved_at
from models.detector.card import MIN_PROBABILITY
from models.detector.detector import Detector, Peaks
from models.reader.reader import Reader
from pipelines.engine import Layer, find
from pipelines.errors import Damage, SceneError
from pipelines.gdal_env import gdal_env
from pipelines.grid import Grid, boxes, detection_grid, project_polygon
from pipelines.gridded_raster import GriddedRaster
from pipelines.lettering import Region, Word, lettering_regions, read_regions, without_overlaps
from pipelines.scenes.types import FetchedScene
from pipelines.scenes.web import public_href
from pipelines.windows import WindowPlan, plan_windows

__all__ = ["WINDOW_PX", "Detections", "detect", "detect_in_raster"]

WINDOW_PX = 2048
"""Side of a window's core. With the halo of 96 px, 84% of the arithmetic of a window inside a scene is of use; of one
of 1024 px 71%, of 4096 px 91%, and a window of 4096 px takes four times the memory."""
FANS_COARSEST_GSD_M = 0.35
"""Fans of a chiller stand about 1.2 m apart: under 3.5 samples they cannot be counted, and are not given."""
LARGE_LETTERING_SCALE = 3
"""Second lattice for lettering, as a multiple of the detector's ground sampling distance."""


@dataclass(frozen=True)
class Detections:
    """Everything found in one scene."""

    frame: gpd.GeoDataFrame
    """A row a detection, in a metre CRS, ordered by class, then from north-west to south-east.

    Columns: class, score, probability, length_m, width_m, heading_deg (long axis clockwise from true north, [0, 180);
    for lettering the reading direction, [0, 360)), fan_count (Int64, NA where not given), text, text_confidence,
    geometry. Of an image without georeference the geometry is in its pixels, y down, and headings count from its up.
    """
    model_version: str
    native_gsd_m: float
    coverage: Polygon | MultiPolygon
    """What of the area the scene shows, longitude and latitude; empty for an image without georeference."""
    not_given: Mapping[str, str]
    """Classes that this scene is too coarse for, with the reason."""
    windows_read: int
    windows_skipped: int
    """Windows outside the area or with nothing to see."""
    min_probability: float = MIN_PROBABILITY
    damaged: tuple[Damage, ...] = ()
    """What could not be read and was left out, where that was asked for."""
    seconds: Mapping[str, float] | None = None
    """Where the time went: thread time of `read` and `network` in the windows, and their wall time together as
    `windows`; wall time of `polygons` and of `lettering`, its regions found and read."""

    def at_least(self, min_probability: float) -> "Detections":
        """Those of this probability and more."""
        frame = self.frame[self.frame["probability"] >= min_probability]
        return dataclasses.replace(self, frame=frame.reset_index(drop=True), min_probability=min_probability)


def detect(
    fetched: FetchedScene,
    area: Polygon | MultiPolygon,
    detectors: Sequence[Detector],
    reader: Reader,
    *,
    min_probability: float = MIN_PROBABILITY,
    window_px: int = WINDOW_PX,
    origin_px: tuple[int, int] = (0, 0),
    progress: Callable[[int, int], None] | None = None,
) -> Detections:
    """Find every unit whose centre lies in the area (longitude, latitude) and read the lettering on roofs.

    :param detectors: the same weights on each device that takes part
    :param window_px: side of a window's core; the result does not depend on it
    :param origin_px: see `plan_windows`; the result does not depend on it
    :param progress: called with windows done and windows in all
    :raises SceneError: the raster cannot be read; the message names the file and the place
    """
    try:
        with gdal_env(fetched.path), rasterio.open(fetched.path) as dataset:
            grid = detection_grid(dataset, detectors[0].gsd_m)
    except RasterioError as error:
        raise SceneError(f"Scene {fetched.path} cannot be opened as a raster ({error}): fetch it again.") from error
    return detect_in_raster(
        GriddedRaster(fetched.path, grid),
        area,
        detectors,
        reader,
        native_gsd_m=fetched.scene.gsd_m,
        coverage=fetched.coverage,
        min_probability=min_probability,
        window_px=window_px,
        origin_px=origin_px,
        progress=progress,
    )


def detect_in_raster(
    raster: GriddedRaster,
    area: Polygon | MultiPolygon | None,
    detectors: Sequence[Detector],
    reader: Reader,
    *,
    native_gsd_m: float,
    coverage: Polygon | MultiPolygon,
    classes: Collection[str] = CLASSES,
    min_probability: float = MIN_PROBABILITY,
    window_px: int = WINDOW_PX,
    origin_px: tuple[int, int] = (0, 0),
    readers: int | None = None,
    processes: int = 1,
    skip_damaged: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Detections:
    """Find units of the given classes in a raster, or in the area (longitude, latitude) of it.

    Parameters not named here are those of `detect` and of `engine.find`.

    :param native_gsd_m: what the image's pixels measure on the ground; it decides which classes are given
    :param coverage: what of the area the raster shows
    :raises SceneError: the raster cannot be read, or shows nothing of the area
    """
    grid, detector = raster.grid, detectors[0]
    not_given = {
        name: f"the image's {native_gsd_m:.2f} m pixels are coarser than {BY_NAME[name].coarsest_gsd_m:.2f} m, the "
        f"coarsest at which a {BY_NAME[name].unit} can be counted"
        for name in CLASSES
        if name in classes and not BY_NAME[name].resolved_at(native_gsd_m)
    }
    given = [name for name in CLASSES if name in classes and name not in not_given]
    on_grid = None if area is None else grid.to_pixels(area)
    if on_grid is not None and not on_grid.intersection(shapely.box(0, 0, grid.width_px, grid.height_px)).area:
        name = public_href(str(raster.href))
        raise SceneError(f"{name} shows nothing of the area asked for: give an image or an area that overlap")
    plan = _plan(grid, 1, detector.lattice_px, window_px, origin_px, on_grid)
    # A window of the coarse lattice sees nine times the ground: beside an area, smaller ones.
    large_px = window_px if area is None else math.ceil(window_px / LARGE_LETTERING_SCALE)
    large = _plan(grid, LARGE_LETTERING_SCALE, detector.lattice_px, large_px, (0, 0), on_grid)
    # What is left of coarser images is large lettering, which the coarse lattice alone sees.
    large_only = not equipment_resolved_at(native_gsd_m)
    if not given or large_only:
        plan = dataclasses.replace(plan, cores=())
    if LETTERING.name not in given:
        large = dataclasses.replace(large, cores=())
    start = time.perf_counter()
    with raster, raster.coarser(LARGE_LETTERING_SCALE) as coarse:
        # In one go: the processor is busy while the coarse windows, which take long to read, are read.
        found, found_large = find(
            [Layer(raster, plan), Layer(coarse, large)],
            detectors,
            readers=readers,
            processes=processes,
            skip_damaged=skip_damaged,
            min_probability=min_probability,
            progress=progress,
        )
        seconds = {step: found.seconds[step] + found_large.seconds[step] for step in found.seconds}
        seconds["windows"] = time.perf_counter() - start
        start = time.perf_counter()
        frame = _frame(found.peaks, grid, detector, native_gsd_m)
        seconds["polygons"] = time.perf_counter() - start
        start = time.perf_counter()
        if LETTERING.name in given:
            # A letter of 30 m is 100 px at 0.3 m, more than the network was shown and nearly more than it can see at
            # once: the same network on a coarser lattice sees it as an ordinary one, for a ninth of the work.
            regions = lettering_regions(found.cells)
            regions += [region.scaled(LARGE_LETTERING_SCALE) for region in lettering_regions(found_large.cells)]
            words = _read_lettering(raster, regions, detector, reader, skip_damaged)
            frame = pd.concat([frame, words], ignore_index=True) if len(words) else frame
        seconds["lettering"] = time.perf_counter() - start
    frame = frame[frame["class"].isin(given) & (frame["probability"] >= min_probability)]
    if area is not None:
        assert grid.crs is not None
        centre = frame.centroid
        frame = frame[shapely.contains_xy(project_polygon(area, grid.crs), centre.x, centre.y)]
    main = found_large if large_only else found
    return Detections(
        frame=_ordered(frame, grid),
        model_version=f"{detector.version}+{reader.version}",
        native_gsd_m=native_gsd_m,
        coverage=coverage,
        not_given=not_given,
        windows_read=main.windows_read,
        windows_skipped=(large if large_only else plan).total - main.windows_read - len(main.damaged),
        min_probability=min_probability,
        damaged=(
            *found.damaged,
            *(dataclasses.replace(damage, lost="large lettering") for damage in found_large.damaged),
        ),
        seconds=seconds,
    )


def _plan(
    grid: Grid,
    factor: int,
    lattice_px: int,
    window_px: int,
    origin_px: tuple[int, int],
    area: Polygon | MultiPolygon | None,
) -> WindowPlan:
    """Windows of the lattice with pixels `factor` times as large; the area is in those of `grid`."""
    return plan_windows(
        math.ceil(grid.width_px / factor),
        math.ceil(grid.height_px / factor),
        lattice_px=lattice_px,
        window_px=window_px,
        origin_px=origin_px,
        area=None if area is None else shapely.affinity.scale(area, 1 / factor, 1 / factor, origin=(0, 0)),
    )


def _frame(peaks: Peaks, grid: Grid, detector: Detector, native_gsd_m: float) -> gpd.GeoDataFrame:
    """Oriented boxes as polygons with their properties."""
    if len(peaks) == 0:
        return _empty(grid)
    names = np.array(OBJECT_CLASSES, object)[peaks.cls]
    has_fans = np.array([BY_NAME[name].has_fans for name in names])
    single = np.isin(names, ["dry_cooler", "cooling_tower"])
    fans = np.where(single, 1, np.maximum(1, np.round(peaks.fans))).astype(np.int64)
    resolved = single | (has_fans & (native_gsd_m <= FANS_COARSEST_GSD_M))
    polygons, heading_deg = boxes(
        grid, peaks.x_px, peaks.y_px, peaks.length_px, peaks.width_px, peaks.heading_deg.astype(np.float64)
    )
    return gpd.GeoDataFrame(
        {
            "class": names,
            "score": peaks.score.astype(np.float64),
            "probability": detector.probability(peaks.cls, peaks.score),
            "length_m": peaks.length_px.astype(np.float64) * grid.gsd_m,
            "width_m": peaks.width_px.astype(np.float64) * grid.gsd_m,
            "heading_deg": heading_deg % 180.0,
            "fan_count": pd.arrays.IntegerArray(fans, ~resolved),
            "text": None,
            "text_confidence": np.nan,
        },
        geometry=polygons,
        crs=grid.crs,
    )


def _empty(grid: Grid) -> gpd.GeoDataFrame:
    columns = {name: pd.Series(dtype=float) for name in ("score", "probability", "length_m", "width_m", "heading_deg")}
    return gpd.GeoDataFrame(
        {
            "class": pd.Series(dtype=object),
            **columns,
            "fan_count": pd.Series(dtype="Int64"),
            "text": pd.Series(dtype=object),
            "text_confidence": pd.Series(dtype=float),
        },
        geometry=gpd.GeoSeries([], crs=grid.crs),
        crs=grid.crs,
    )


def _read_lettering(
    raster: GriddedRaster, regions: list[Region], detector: Detector, reader: Reader, skip_damaged: bool
) -> gpd.GeoDataFrame:
    """Read every region and keep the best of those that overlap.

    A region that was read with confidence c is lettering with probability 1 - (1 - p) (1 - c), p being the calibrated
    probability of the region alone: map and reader are taken as independent witnesses.
    """
    grid = raster.grid
    if not regions:
        return _empty(grid)
    words: list[Word] = []
    for region, reading, heading_deg in read_regions(raster, regions, reader, skip_damaged):
        alone = float(calibrated(region.score, detector.card.calibration[LETTERING.name]))
        confidence = reading.confidence if reading.text else 0.0
        words.append(Word(region, reading, heading_deg, 1 - (1 - alone) * (1 - confidence)))
    words = without_overlaps(words)
    polygons, heading = boxes(
        grid,
        np.array([word.region.x_px for word in words]),
        np.array([word.region.y_px for word in words]),
        np.array([word.region.length_px for word in words]),
        np.array([word.region.width_px for word in words]),
        np.array([word.heading_deg for word in words]),
    )
    return gpd.GeoDataFrame(
        {
            "class": LETTERING.name,
            "score": [word.region.score for word in words],
            "probability": [word.probability for word in words],
            "length_m": [word.region.length_px * grid.gsd_m for word in words],
            "width_m": [word.region.width_px * grid.gsd_m for word in words],
            "heading_deg": heading,
            "fan_count": pd.array([pd.NA] * len(words), dtype="Int64"),
            "text": pd.Series([word.reading.text or None for word in words], dtype=object),
            "text_confidence": [word.reading.confidence if word.reading.text else np.nan for word in words],
        },
        geometry=polygons,
        crs=grid.crs,
    )


def _ordered(frame: gpd.GeoDataFrame, grid: Grid) -> gpd.GeoDataFrame:
    """Class order of `CLASSES`, then top to bottom, then left to right; north is up."""
    centre = frame.centroid
    down = centre.y * np.sign(grid.transform.e)
    order = np.lexsort((centre.x, down, frame["class"].map({name: i for i, name in enumerate(CLASSES)})))
    return frame.iloc[order].reset_index(drop=True)
