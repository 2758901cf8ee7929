"""Detection over a raster of any size: windows at the detector's ground sampling distance in, polygons out.

A window is a core with a halo of everything the network can see around it. A unit belongs to the window whose core
holds the cell of its peak, so the windows' results are disjoint and complete: there is nothing to merge at seams.
Windows outside the area, and windows without a valid pixel, never reach the network.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import shapely
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from shapely.geometry import MultiPolygon, Polygon

from models.calibration import calibrated
from models.classes import BY_NAME, CLASSES, LETTERING, OBJECT_CLASSES
from models.detector.card import MIN_PROBABILITY
from models.detector.detector import Detector, Peaks
from models.reader.reader import Reader
from pipelines.errors import SceneError
from pipelines.gdal_env import gdal_env
from pipelines.grid import Grid, boxes, detection_grid, project_polygon
from pipelines.lettering import LetteringCells, Region, Word, lettering_regions, read_region, without_overlaps
from pipelines.scenes.types import FetchedScene

FANS_COARSEST_GSD_M = 0.35
"""Fans of a chiller stand about 1.2 m apart: under 3.5 samples they cannot be counted, and are not given."""
READ_AHEAD = 2
"""Windows read while the network works on another."""
LARGE_LETTERING_SCALE = 3
"""Second lattice for lettering, as a multiple of the detector's ground sampling distance."""
LARGE_LETTERING_WINDOW_PX = 1024


@dataclass(frozen=True)
class Detections:
    """Everything found in one scene."""

    frame: gpd.GeoDataFrame
    """A row a detection, in a metre CRS, ordered by class, then from north-west to south-east.

    Columns: class, score, probability, length_m, width_m, heading_deg (long axis clockwise from true north, [0, 180);
    for lettering the reading direction, [0, 360)), fan_count (Int64, NA where not given), text, text_confidence,
    geometry.
    """
    model_version: str
    native_gsd_m: float
    coverage: Polygon | MultiPolygon
    """What of the area the scene shows, longitude and latitude."""
    not_given: Mapping[str, str]
    """Classes that this scene is too coarse for, with the reason."""
    windows_read: int
    windows_skipped: int
    """Windows outside the area or without a valid pixel."""
    min_probability: float = MIN_PROBABILITY


@dataclass(frozen=True)
class _Core:
    """One window's core, in grid pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


def detect(
    fetched: FetchedScene,
    area: Polygon,
    detector: Detector,
    reader: Reader,
    window_px: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> Detections:
    """Find every unit whose centre lies in the area (longitude, latitude) and read the lettering on roofs.

    :param window_px: side of a window's core; the result does not depend on it
    :param progress: called with windows done and windows in all
    :raises SceneError: the raster cannot be read; the message names the file and the place
    """
    native_gsd_m = fetched.scene.gsd_m
    not_given = {
        name: f"the image's {native_gsd_m:.2f} m pixels are coarser than {BY_NAME[name].coarsest_gsd_m:.2f} m, the "
        f"coarsest at which a {BY_NAME[name].unit} can be counted"
        for name in CLASSES
        # Half a per cent of tolerance: a 0.6 m product is often delivered with 0.601 m pixels.
        if native_gsd_m > BY_NAME[name].coarsest_gsd_m * 1.005
    }
    with gdal_env(fetched.path), _open(fetched.path) as dataset:
        grid = detection_grid(dataset, detector.gsd_m)
        area_on_grid = _to_grid_pixels(area, grid)
        cores = list(_cores(grid, area_on_grid, window_px, detector.lattice_px))
        total = _count_windows(grid, window_px, detector.lattice_px)
        if len(not_given) == len(CLASSES):
            cores = []
        peaks, cells, read = _run(fetched.path, grid, cores, detector, progress)
        frame = _frame(peaks, grid, detector, native_gsd_m)
        regions = lettering_regions(cells) + _large_lettering(fetched.path, grid, area, detector) if cores else []
        lettering = _read_lettering(fetched.path, grid, regions, detector, reader)
    frame = pd.concat([frame, lettering], ignore_index=True) if len(lettering) else frame
    frame = frame[~frame["class"].isin(list(not_given)) & (frame["probability"] >= MIN_PROBABILITY)]
    inside = shapely.contains_xy(project_polygon(area, grid.crs), frame.centroid.x, frame.centroid.y)
    frame = _ordered(frame[inside])
    return Detections(
        frame=frame,
        model_version=f"{detector.version}+{reader.version}",
        native_gsd_m=native_gsd_m,
        coverage=fetched.coverage,
        not_given=not_given,
        windows_read=read,
        windows_skipped=total - read,
    )


def _open(path: Path) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise SceneError(f"Scene {path} cannot be opened as a raster ({error}): fetch it again.") from error


def _vrt(dataset: rasterio.DatasetReader, grid: Grid, pad_px: int) -> WarpedVRT:
    """The raster on the lattice with `pad_px` of nothing around it, and its validity as the last band."""
    return WarpedVRT(
        dataset,
        crs=grid.crs.to_wkt(),
        transform=grid.transform @ Affine.translation(-pad_px, -pad_px),
        width=grid.width_px + 2 * pad_px,
        height=grid.height_px + 2 * pad_px,
        resampling=Resampling.bilinear,
        add_alpha=True,
        # An approximated transformation depends on the window; zero itself is refused by the driver.
        tolerance=1e-4,
    )


def _to_grid_pixels(area: Polygon, grid: Grid) -> Polygon | MultiPolygon:
    inverse = ~grid.transform
    return shapely.affinity.affine_transform(
        project_polygon(area, grid.crs), [inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f]
    )


def _side(window_px: int, lattice_px: int) -> int:
    """Core side: the asked one, snapped up to the network's lattice."""
    return max(1, math.ceil(window_px / lattice_px)) * lattice_px


def _count_windows(grid: Grid, window_px: int, lattice_px: int) -> int:
    side = _side(window_px, lattice_px)
    return math.ceil(grid.width_px / side) * math.ceil(grid.height_px / side)


def _cores(grid: Grid, area: Polygon | MultiPolygon, window_px: int, lattice_px: int) -> Iterator[_Core]:
    """Cores that touch the area, row by row."""
    side = _side(window_px, lattice_px)
    prepared = shapely.prepared.prep(area)
    for y0 in range(0, grid.height_px, side):
        for x0 in range(0, grid.width_px, side):
            core = _Core(x0, y0, min(x0 + side, grid.width_px), min(y0 + side, grid.height_px))
            if prepared.intersects(shapely.box(core.x0, core.y0, core.x1, core.y1)):
                yield core


def _run(
    path: Path, grid: Grid, cores: list[_Core], detector: Detector, progress: Callable[[int, int], None] | None
) -> tuple[Peaks | None, LetteringCells, int]:
    """Peaks of all cores in grid pixels, the lettering cells, and how many windows reached the network."""
    halo = detector.halo_px
    found: list[Peaks] = []
    cells: list[LetteringCells] = []
    for done, (core, pixels) in enumerate(_read_ahead(path, grid, cores, halo)):
        if pixels[3].any():
            window = np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))[None]
            peaks, lettering = detector.detect(window, (pixels[3] >= 128)[None])
            found.append(_owned(peaks, core, halo, detector.stride))
            cells.append(LetteringCells.of_core(lettering[0], core.x0, core.y0, core.x1, core.y1, halo))
        if progress is not None:
            progress(done + 1, len(cores))
    return Peaks.joined(found) if found else None, LetteringCells.joined(cells), len(found)


def _large_lettering(path: Path, grid: Grid, area: Polygon, detector: Detector) -> list[Region]:
    """Words whose letters are too high for the network to see whole: the same network on a coarser lattice.

    A letter of 30 m is 100 px at 0.3 m, more than the network was shown and nearly more than it can see at once; at
    `LARGE_LETTERING_SCALE` times the ground sampling distance it is an ordinary one. It costs a ninth of the fine pass.
    """
    coarse = Grid(
        grid.crs,
        grid.transform @ Affine.scale(LARGE_LETTERING_SCALE),
        math.ceil(grid.width_px / LARGE_LETTERING_SCALE),
        math.ceil(grid.height_px / LARGE_LETTERING_SCALE),
    )
    cores = list(_cores(coarse, _to_grid_pixels(area, coarse), LARGE_LETTERING_WINDOW_PX, detector.lattice_px))
    _, cells, _ = _run(path, coarse, cores, detector, None)
    return [region.scaled(LARGE_LETTERING_SCALE) for region in lettering_regions(cells)]


def _read_ahead(path: Path, grid: Grid, cores: list[_Core], halo: int) -> Iterator[tuple[_Core, npt.NDArray[np.uint8]]]:
    """Cores with their pixels (4, h, w), in order; the next ones are read while the caller works on one."""
    with gdal_env(path), rasterio.open(path) as dataset, _vrt(dataset, grid, halo) as vrt:

        def read(core: _Core) -> npt.NDArray[np.uint8]:
            # The VRT starts a halo before the grid, so a core's window in it starts at the core's own x0, y0. Whole
            # lattice cells are read even at the far edges: the network pads nothing there.
            width, height = core.x1 - core.x0 + 2 * halo, core.y1 - core.y0 + 2 * halo
            window = Window(core.x0, core.y0, width, height)
            try:
                with gdal_env(path):
                    return np.asarray(vrt.read(window=window), np.uint8)
            except RasterioError as error:
                raise SceneError(
                    f"Scene {path} cannot be read in the window of {width} x {height} px at column {core.x0}, row "
                    f"{core.y0} ({error}): fetch it again."
                ) from error

        # One reader thread: a GDAL dataset must not be read by two threads at once.
        with ThreadPoolExecutor(1) as pool:
            pending: list[tuple[_Core, Future[npt.NDArray[np.uint8]]]] = []
            for core in cores:
                pending.append((core, pool.submit(read, core)))
                if len(pending) > READ_AHEAD:
                    ready, future = pending.pop(0)
                    yield ready, future.result()
            for ready, future in pending:
                yield ready, future.result()


def _owned(peaks: Peaks, core: _Core, halo: int, stride: int) -> Peaks:
    """The peaks whose cell lies in the core, moved to grid pixels."""
    x = peaks.cell_x * stride - halo
    y = peaks.cell_y * stride - halo
    mine = (x >= 0) & (x < core.x1 - core.x0) & (y >= 0) & (y < core.y1 - core.y0)
    kept = peaks[mine]
    kept.x_px[:] += np.float32(core.x0 - halo)
    kept.y_px[:] += np.float32(core.y0 - halo)
    return kept


def _frame(peaks: Peaks | None, grid: Grid, detector: Detector, native_gsd_m: float) -> gpd.GeoDataFrame:
    """Oriented boxes as polygons with their properties."""
    if peaks is None or len(peaks) == 0:
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
    path: Path, grid: Grid, regions: list[Region], detector: Detector, reader: Reader
) -> gpd.GeoDataFrame:
    """Read every region and keep the best of those that overlap.

    A region that was read with confidence c is lettering with probability 1 - (1 - p) (1 - c), p being the calibrated
    probability of the region alone: map and reader are taken as independent witnesses.
    """
    if not regions:
        return _empty(grid)
    words: list[Word] = []
    with rasterio.open(path) as dataset, _vrt(dataset, grid, 0) as vrt:
        for region in regions:
            reading, heading_deg = read_region(vrt, region, reader)
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


def _ordered(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Class order of `CLASSES`, then north to south, then west to east."""
    order = np.lexsort(
        (frame.centroid.x, -frame.centroid.y, frame["class"].map({name: i for i, name in enumerate(CLASSES)}))
    )
    return frame.iloc[order].reset_index(drop=True)
