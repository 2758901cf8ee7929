"""Seams of windows: a detector without error keeps its count and its places through the engine, to the ground.

The rows of units and the detector are the benchmark's, which counts what the merging of other programs loses.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import shapely
from scipy.spatial import cKDTree

from pipelines import engine
from pipelines.grid import boxes

BENCHMARK = Path(__file__).parents[1] / "benchmark"


def benchmark(name: str) -> ModuleType:
    """A module of the benchmark, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rows, perfect = benchmark("rows"), benchmark("perfect")


@pytest.mark.parametrize("window_px", [512, 1024])
@pytest.mark.parametrize("angle_deg", [0, 30, 45])
def test_windows_neither_lose_nor_double_nor_move_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, angle_deg: float, window_px: int
) -> None:
    true = rows.units(angle_deg, beside=96, rows=24)
    path = tmp_path / "rows.tif"
    perfect.paint(path, true.centres, true.side_px)
    detector = perfect.PerfectDetector(true.length_px, true.width_px, true.heading_deg)
    with_thinning, _ = perfect.found_in(path, detector, window_px)
    # Thinning drops a unit that two windows gave, and would hide it.
    monkeypatch.setattr(engine, "thinned", lambda peaks: peaks)
    without, _ = perfect.found_in(path, detector, window_px)
    for found in (with_thinning, without):
        assert found.windows_read >= 4
        assert len(found.peaks) == len(true.centres) == 2304
        distance_px, at = cKDTree(np.column_stack([found.peaks.x_px, found.peaks.y_px])).query(true.centres)
        assert len(set(at)) == len(at)
        assert distance_px.max() < 0.01


def test_a_known_corner_is_where_it_is_on_the_ground(tmp_path: Path) -> None:
    # The corner that the geotransform names, one inside, and the last pixel's far corner but for a step.
    places_px = np.array([(0.0, 0.0), (300.0, 517.5), (599.996, 599.996)])
    path = tmp_path / "corner.tif"
    perfect.paint(path, places_px, 600)
    found, grid = perfect.found_in(path, perfect.PerfectDetector(40.0, 8.0, 30.0), 256)
    peaks = found.peaks
    assert len(peaks) == 3
    assert grid.crs.to_epsg() == 32615
    polygons, _ = boxes(grid, peaks.x_px, peaks.y_px, peaks.length_px, peaks.width_px, peaks.heading_deg)
    ground_m = shapely.get_coordinates(shapely.centroid(polygons))
    true_m = np.array([(770_000 + 0.3 * x, 3_877_000 - 0.3 * y) for x, y in places_px])
    assert np.abs(ground_m - true_m).max() < 0.01 * 0.3
