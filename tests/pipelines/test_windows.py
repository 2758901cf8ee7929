"""Windows of a scene: cores tile it for any size and origin, and only those that touch the area are there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from pipelines.windows import BESIDE_PX, MOVED_PX, Box, plan_windows

LATTICE_PX = 16


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    window_px=st.integers(1, 500),
    origin=st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)),
)
def test_cores_tile_the_scene_once(width: int, height: int, window_px: int, origin: tuple[int, int]) -> None:
    plan = plan_windows(width, height, lattice_px=LATTICE_PX, window_px=window_px, origin_px=origin)
    times = np.zeros((plan.extent.height, plan.extent.width), int)
    for core in plan.cores:
        assert core.width > 0
        assert core.height > 0
        assert all(edge % LATTICE_PX == 0 for edge in (core.x0, core.y0, core.x1, core.y1))
        times[core.y0 : core.y1, core.x0 : core.x1] += 1
    assert (times == 1).all()
    assert plan.total == len(plan.cores)
    assert 0 <= plan.extent.width - width < LATTICE_PX
    assert 0 <= plan.extent.height - height < LATTICE_PX
    assert list(plan.cores) == sorted(plan.cores, key=lambda core: (core.y0, core.x0))


def test_the_tiling_has_a_corner_at_the_origin() -> None:
    plan = plan_windows(1000, 1000, lattice_px=16, window_px=256, origin_px=(100, 900))
    # 100 and 900 snapped down to the lattice
    assert {core.x0 for core in plan.cores} == {0, 96, 352, 608, 864}
    assert {core.y0 for core in plan.cores} == {0, 128, 384, 640, 896}


def test_only_what_touches_the_area_is_a_window() -> None:
    area = Polygon([(10, 10), (180, 10), (10, 180)])
    plan = plan_windows(1024, 1024, lattice_px=16, window_px=256, area=area)
    # what lies beside the area may thin out what is in it
    expected = [
        core
        for core in plan_windows(1024, 1024, lattice_px=16, window_px=256).cores
        if _distance(core, area) <= BESIDE_PX + MOVED_PX
    ]
    assert list(plan.cores) == expected
    assert len(plan.cores) == 3
    assert plan.total == 16
    assert plan_windows(1024, 1024, lattice_px=16, window_px=256, area=box(1300, 1300, 1400, 1400)).cores == ()


def _distance(core: Box, area: Polygon) -> float:
    return box(core.x0, core.y0, core.x1, core.y1).distance(area)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
def test_halves_are_the_whole(x: int, y: int, width: int, height: int) -> None:
    whole = Box(x * 16, y * 16, (x + width) * 16, (y + height) * 16)
    halves = whole.halves(16)
    if width == height == 1:
        assert halves is None
        return
    assert halves is not None
    one, other = halves
    assert one.width * one.height + other.width * other.height == whole.width * whole.height
    assert (one.x0, one.y0, other.x1, other.y1) == (whole.x0, whole.y0, whole.x1, whole.y1)
    assert one.width % 16 == one.height % 16 == 0


@pytest.mark.parametrize(("by_px", "expected"), [(0, Box(10, 10, 20, 20)), (15, Box(0, 0, 32, 30))])
def test_a_window_ends_where_the_scene_does(by_px: int, expected: Box) -> None:
    assert Box(10, 10, 20, 20).grown(by_px, Box(0, 0, 32, 30)) == expected
