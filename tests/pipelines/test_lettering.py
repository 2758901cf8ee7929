"""Lettering regions over a raster: sparse cells joined to words, whatever windows they came from."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.lettering import LETTERING_CELL_PX, LetteringCells, lettering_regions
from pipelines.windows import plan_windows


def word_map(length_px: float, width_px: float, heading_deg: float, size: int = 100) -> np.ndarray:
    """A map (size, size) of cells with 0.9 inside one oriented box about the middle."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) * LETTERING_CELL_PX - size * LETTERING_CELL_PX / 2
    h = np.deg2rad(heading_deg)
    u, v = x * np.sin(h) - y * np.cos(h), x * np.cos(h) + y * np.sin(h)
    return np.where((np.abs(u) <= length_px / 2) & (np.abs(v) <= width_px / 2), 0.9, 0.01)


def cells_of(whole: np.ndarray, window_px: int) -> LetteringCells:
    """The cells as windows of a given size would deliver them."""
    size_px = whole.shape[0] * LETTERING_CELL_PX
    plan = plan_windows(size_px, size_px, lattice_px=LETTERING_CELL_PX, window_px=window_px)
    parts = []
    for core in plan.cores:
        x0, y0, x1, y1 = (edge // LETTERING_CELL_PX for edge in (core.x0, core.y0, core.x1, core.y1))
        parts.append(LetteringCells.of_core(whole[y0:y1, x0:x1], core))
    return LetteringCells.joined(parts)


@settings(max_examples=40, deadline=None)
@given(
    length_px=st.floats(80, 300),
    aspect=st.floats(2.5, 8),
    heading_deg=st.floats(0, 179),
    window_px=st.sampled_from([64, 128, 208, 400]),
)
def test_a_word_is_one_region_with_its_box(length_px: float, aspect: float, heading_deg: float, window_px: int) -> None:
    width_px = max(length_px / aspect, 20)
    regions = lettering_regions(cells_of(word_map(length_px, width_px, heading_deg), window_px))
    assert len(regions) == 1
    region = regions[0]
    assert abs(region.x_px - 200) < 5
    assert abs(region.y_px - 200) < 5
    assert abs(region.length_px - length_px) < 9
    assert abs(region.width_px - width_px) < 9
    turn = (region.heading_deg - heading_deg + 90) % 180 - 90
    assert abs(turn) < 8


def test_windows_do_not_change_a_region() -> None:
    whole = word_map(250, 40, 33)
    assert lettering_regions(cells_of(whole, 64)) == lettering_regions(cells_of(whole, 400))


def test_small_or_faint_patches_are_no_words() -> None:
    assert lettering_regions(cells_of(word_map(12, 4, 0), 400)) == []
    assert lettering_regions(cells_of(word_map(200, 40, 0) * 0.5, 400)) == []
    assert lettering_regions(LetteringCells.joined([])) == []


def test_words_apart_stay_apart() -> None:
    whole = np.full((100, 100), 0.01)
    whole[10:16, 10:50] = 0.9
    whole[40:46, 10:50] = 0.9
    assert len(lettering_regions(cells_of(whole, 400))) == 2
