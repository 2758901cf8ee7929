"""Peaks thinned as solid bodies: what overlaps goes, what touches stays, and nothing far away has a say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.detector.peaks import REACH_PX, Peaks, decode, thinned

LENGTH_PX, WIDTH_PX = 28.0, 5.5


def peaks(*rows: tuple[float, float, float], heading_deg: float = 90.0, cls: int = 4) -> Peaks:
    """Batteries at the rows' x, y with the rows' scores."""
    table = np.zeros((len(rows), 12), np.float32)
    table[:, 1] = cls
    table[:, 2] = np.arange(len(rows))
    table[:, 4] = [score for _, _, score in rows]
    table[:, 7:9] = LENGTH_PX, WIDTH_PX
    table[:, 9:11] = np.cos(np.deg2rad(2 * heading_deg)), np.sin(np.deg2rad(2 * heading_deg))
    made = decode(table, 0)
    made.x_px[:] = [x for x, _, _ in rows]
    made.y_px[:] = [y for _, y, _ in rows]
    return made


def test_a_peak_on_the_joint_of_two_units_is_dropped_and_takes_neither_with_it() -> None:
    found = thinned(peaks((0, 0, 0.97), (LENGTH_PX / 2, 0, 0.8), (LENGTH_PX, 0, 0.6)))
    assert found.x_px.tolist() == [0, LENGTH_PX]


def test_joints_of_a_whole_row_are_dropped_whatever_the_order_of_their_scores() -> None:
    places = [(k * LENGTH_PX / 2, 0.0) for k in range(13)]
    scores = [0.9 - 0.01 * k if k % 2 == 0 else 0.6 - 0.03 * k for k in range(13)]
    found = thinned(peaks(*((x, y, score) for (x, y), score in zip(places, scores, strict=True))))
    assert found.x_px.tolist() == [k * LENGTH_PX for k in range(7)]


@pytest.mark.parametrize("size", [1.0, 1.2])
def test_units_that_touch_stay_even_where_their_sizes_are_a_fifth_too_large(size: float) -> None:
    block = peaks(*((i * LENGTH_PX / size, k * WIDTH_PX / size, 0.5) for i in range(4) for k in range(4)))
    assert len(thinned(block)) == 16


def test_units_across_each_other_do_not_both_stand() -> None:
    both = Peaks.joined([peaks((0, 0, 0.6), heading_deg=0), peaks((1, 2, 0.7), heading_deg=90)])
    assert thinned(both).score.tolist() == pytest.approx([0.7])


def test_classes_and_windows_have_nothing_to_do_with_each_other() -> None:
    one, other = peaks((0, 0, 0.6)), peaks((0, 0, 0.7), cls=3)
    assert len(thinned(Peaks.joined([one, other]))) == 2


tables = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 40), st.just(6)),
    elements=st.floats(0, 1, width=16),
)


def any_peaks(drawn: np.ndarray) -> Peaks:
    """Peaks on 250 px square, 4 to 80 px long."""
    table = np.zeros((len(drawn), 12), np.float32)
    table[:, 2] = np.arange(len(drawn))
    table[:, 4] = 0.1 + 0.8 * drawn[:, 0]
    table[:, 7] = 4 + 76 * drawn[:, 3]
    table[:, 8] = table[:, 7] * (0.2 + 0.8 * drawn[:, 4])
    turn = 2 * np.pi * drawn[:, 5]
    table[:, 9], table[:, 10] = np.cos(turn), np.sin(turn)
    made = decode(table, 0)
    made.x_px[:], made.y_px[:] = 250 * drawn[:, 1], 250 * drawn[:, 2]
    return made


@settings(max_examples=100, deadline=None)
@given(tables)
def test_the_strongest_stays(drawn: np.ndarray) -> None:
    found = any_peaks(drawn)
    kept = thinned(found)
    assert len(kept) <= len(found)
    if len(found):
        assert found.score.max() in kept.score


@settings(max_examples=100, deadline=None)
@given(tables, st.integers(0, 249))
def test_what_is_farther_than_the_reach_has_no_say(drawn: np.ndarray, at: int) -> None:
    found = any_peaks(drawn)
    near = np.abs(found.x_px - at) <= REACH_PX
    whole, part = thinned(found), thinned(found[near])

    def here(peaks: Peaks) -> list[tuple[float, float]]:
        inside = np.abs(peaks.x_px - at) < 1
        return list(zip(peaks.x_px[inside], peaks.score[inside], strict=True))

    assert here(whole) == here(part)
