"""Draws of true counts: against exact distributions, and honest where validation was small or imagery unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from models.detector.card import RecallPoint
from pipelines.counting import _poisson_binomial, applicable, draw_true_units, recall_at, stream

GOOD = (RecallPoint(0.3, 1960, 2000),)


def spread(draws: np.ndarray) -> float:
    return float(np.subtract(*np.quantile(draws, (0.95, 0.05))))


@pytest.mark.parametrize("n", [1, 2, 5, 6, 119])
@pytest.mark.parametrize("p", [0.03, 0.5, 0.99])
def test_equal_probabilities_are_a_binomial(n: int, p: float) -> None:
    exact = binom.pmf(np.arange(n + 1), n, p)
    np.testing.assert_allclose(_poisson_binomial(np.array([p]), np.array([n])), exact, atol=1e-12)


def test_unequal_probabilities_are_their_convolution() -> None:
    levels, rows = np.array([0.1, 0.5, 0.9]), np.array([3, 1, 2])
    exact = np.ones(1)
    for p in np.repeat(levels, rows):
        exact = np.convolve(exact, [1 - p, p])
    np.testing.assert_allclose(_poisson_binomial(levels, rows), exact, atol=1e-12)


def test_the_mean_is_the_sum_of_probabilities_over_recall() -> None:
    probabilities = np.linspace(0.1, 1.0, 200)
    recall = (RecallPoint(0.3, 8_000, 10_000),)
    draws = draw_true_units(probabilities, recall, 0.3, stream(0, "a"))
    # The shifts of unseen imagery are symmetric in log-odds, which moves a mean of 1/recall by 2.5%.
    assert draws.mean() == pytest.approx(probabilities.sum() / 0.8, rel=0.04)


def test_a_small_validation_widens_the_interval() -> None:
    certain = np.full(119, 0.995)
    well = draw_true_units(certain, (RecallPoint(0.3, 990, 1000),), 0.3, stream(0, "a"))
    poorly = draw_true_units(certain, (RecallPoint(0.3, 20, 20),), 0.3, stream(0, "a"))
    assert spread(poorly) > 1.5 * spread(well)


def test_119_near_certain_detections_are_not_a_certain_count() -> None:
    draws = draw_true_units(np.full(119, 0.999), GOOD, 0.3, stream(0, "a"))
    p5, p50, p95 = np.quantile(draws, (0.05, 0.5, 0.95))
    assert 119 <= p50 <= 123
    assert p5 <= 120
    assert p95 - p5 >= 3


@pytest.mark.parametrize(
    ("probabilities", "certain"),
    [
        ([0.99] * 40, True),
        ([0.99] * 40 + [0.6] * 40, False),
        # Faint ones on the ground around the units do not make the units uncertain.
        ([0.99] * 40 + [0.08] * 60, True),
        ([0.08] * 3, False),
    ],
)
def test_recall_is_that_of_images_as_certain(probabilities: list[float], certain: bool) -> None:
    recall = (RecallPoint(0.3, 99, 100, certain=True), RecallPoint(0.3, 60, 100, certain=False))
    assert applicable(recall, np.array(probabilities)) == (recall[0 if certain else 1],)


def test_nothing_found_is_nothing() -> None:
    assert not draw_true_units(np.array([]), GOOD, 0.3, stream(0, "a")).any()


def test_without_recall_nothing_is_added() -> None:
    assert draw_true_units(np.full(5, 0.9), None, 0.3, stream(0, "a")).max() == 5


def test_recall_is_that_of_the_nearest_measured_gsds() -> None:
    points = (RecallPoint(0.3, 950, 1000), RecallPoint(0.6, 700, 1000))
    assert recall_at(points, 0.2) == pytest.approx(0.95, abs=0.01)
    assert recall_at(points, 0.3 * 2**0.5) == pytest.approx(0.825, abs=0.01)
    assert recall_at(points, 1.0) == pytest.approx(0.70, abs=0.01)
    assert recall_at((RecallPoint(0.3, 0, 0),), 0.3) is None


@settings(max_examples=25, deadline=None)
@given(
    probabilities=st.lists(st.floats(0, 1), max_size=30),
    found=st.integers(10, 100),
    gsd_m=st.floats(0.1, 1.0),
    seed=st.integers(0, 2**32),
)
def test_draws_are_whole_repeatable_and_never_negative(
    probabilities: list[float], found: int, gsd_m: float, seed: int
) -> None:
    recall = (RecallPoint(0.3, found, 100), RecallPoint(0.6, found // 2, 100))
    first = draw_true_units(np.array(probabilities), recall, gsd_m, stream(seed, "a"), 500)
    again = draw_true_units(np.array(probabilities), recall, gsd_m, stream(seed, "a"), 500)
    assert first.dtype == np.int64
    assert first.min() >= 0
    np.testing.assert_array_equal(first, again)


@settings(max_examples=25, deadline=None)
@given(probability=st.floats(0.05, 0.95), n=st.integers(1, 60))
def test_more_detections_never_lower_the_median(probability: float, n: int) -> None:
    fewer, more = (
        np.median(draw_true_units(np.full(rows, probability), GOOD, 0.3, stream(1, "a"), 4000)) for rows in (n, n + 5)
    )
    assert more >= fewer


def test_a_recall_that_differs_from_scene_to_scene_widens_the_interval_and_keeps_its_mean() -> None:
    certain = np.full(50, 0.995)
    alike = draw_true_units(certain, (RecallPoint(0.3, 900, 1000),), 0.3, stream(0, "a"))
    differing = draw_true_units(certain, (RecallPoint(0.3, 900, 1000, spread_logit=2.0),), 0.3, stream(0, "a"))
    assert spread(differing) > 2 * spread(alike)
    # Most scenes hide less than the mean says, a few hide much.
    assert np.median(differing) < np.median(alike)
    # Found over standing, a scene: as measured over all of them.
    assert (50 / differing).mean() == pytest.approx(0.9, abs=0.02)
