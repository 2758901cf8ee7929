"""How many fans a chiller has: the period of a pattern that is drawn here, and what neighbours agree on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classes import OBJECT_CLASSES
from models.detector.fans import CHILLER, WIDEST_PX, by_period
from models.detector.peaks import ALIKE_WITHIN_PX, Peaks, agreed, thinned

HEIGHT, WIDTH = 64, 96


def unit(columns: int, pitch_px: float, dark: bool, noise: float, seed: int) -> tuple[np.ndarray, float, float]:
    """A cut-out (3, H, W) with two rows of fans, and the unit's length and width."""
    rng = np.random.default_rng(seed)
    finer = 4
    length_px, width_px = columns * pitch_px / 0.97, 7.6
    u = (np.arange(WIDTH * finer) + 0.5) / finer - WIDTH / 2
    v = ((np.arange(HEIGHT * finer) + 0.5) / finer - HEIGHT / 2)[:, None]
    picture = np.where((np.abs(u) < length_px / 2) & (np.abs(v) < width_px / 2), 0.6, 0.0)
    start = length_px / 2 - columns * pitch_px
    du = (u - start) % pitch_px - pitch_px / 2
    fan = np.hypot(du, np.abs(v) - width_px / 4) < 0.42 * min(pitch_px, width_px / 2)
    picture[fan & (u > start) & (u < length_px / 2)] = 0.1 if dark else 1.1
    picture = picture.reshape(HEIGHT, finer, WIDTH, finer).mean(axis=(1, 3)) + rng.normal(0, noise, (HEIGHT, WIDTH))
    return np.repeat(picture[None], 3, axis=0).astype(np.float32), length_px, width_px


def counted(
    cutout: np.ndarray, length_px: float, width_px: float, regressed: float, seen: np.ndarray | None = None
) -> float:
    everywhere = np.ones((HEIGHT, WIDTH), bool) if seen is None else seen
    sizes = (torch.tensor([value], dtype=torch.float32) for value in (length_px, width_px, regressed))
    return float(by_period(torch.from_numpy(cutout)[None], torch.from_numpy(everywhere)[None], *sizes))


@settings(deadline=None, max_examples=60)
@given(
    columns=st.integers(6, 14),
    pitch_px=st.floats(3.4, 5.2),
    dark=st.booleans(),
    noise=st.floats(0, 0.08),
    off=st.floats(0.87, 1.15),
    seed=st.integers(0, 99),
)
def test_fans_are_counted_whatever_the_model_was_thought_to_be(
    columns: int, pitch_px: float, dark: bool, noise: float, off: float, seed: int
) -> None:
    cutout, length_px, width_px = unit(columns, pitch_px, dark, noise, seed)
    assert counted(cutout, length_px, width_px, 2 * columns * off) == 2 * columns


def test_what_is_not_to_be_seen_does_not_decide() -> None:
    cutout, length_px, width_px = unit(11, 4.0, True, 0.02, 1)
    seen = np.ones((HEIGHT, WIDTH), bool)
    seen[:, 60:] = False
    other = cutout.copy()
    other[:, :, 60:] = np.random.default_rng(2).uniform(-3, 3, (3, HEIGHT, WIDTH - 60))
    told = counted(cutout, length_px, width_px, 20.0, seen)
    assert told == counted(other, length_px, width_px, 20.0, seen) == 22
    # Where nothing may be seen at all, what was regressed is rounded to whole rows.
    assert counted(cutout, length_px, width_px, 20.4, np.zeros_like(seen)) == 20


def test_units_wider_than_two_rows_keep_what_was_regressed() -> None:
    cutout, length_px, _ = unit(11, 4.0, True, 0.02, 1)
    assert counted(cutout, length_px, WIDEST_PX + 0.1, 33.4) == pytest.approx(33.4)


def peaks(rows: list[tuple[float, float, float, float, int, float, int]]) -> Peaks:
    """Of (x, y, length, width, class, fans, window)."""
    x, y, length, width, cls, fans, window = (np.array(column) for column in zip(*rows, strict=True))
    n = len(x)
    real = [column.astype(np.float32) for column in (x, y, length, width, np.zeros(n))]
    return Peaks(window, *real, cls, np.full(n, 0.9, np.float32), fans.astype(np.float32), x.astype(int), y.astype(int))


def test_neighbours_of_one_size_have_the_median_number() -> None:
    battery = OBJECT_CLASSES.index("battery")
    far = 100 + ALIKE_WITHIN_PX + 50
    found = peaks(
        [
            (100, 100, 40, 8, CHILLER, 20, 0),
            (112, 100, 41, 8.2, CHILLER, 22, 0),
            (124, 100, 40, 7.9, CHILLER, 22, 0),
            (136, 100, 50, 8, CHILLER, 28, 0),  # another model
            (148, 100, 40, 8, battery, 3, 0),
            (far + 124, 100, 40, 8, CHILLER, 18, 0),  # another yard
            (112, 100, 40, 8, CHILLER, 16, 1),  # another picture
            (124, 100, 40, 8, CHILLER, 18, 1),
        ]
    )
    assert agreed(found).fans.tolist() == [22, 22, 22, 28, 3, 18, 16, 16]
    assert found.fans[0] == 20
    order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
    assert agreed(found[order]).fans.tolist() == agreed(found).fans[order].tolist()
    assert len(agreed(thinned(Peaks.none()))) == 0
