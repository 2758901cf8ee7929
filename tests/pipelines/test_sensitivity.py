"""Causes of spread: shares that can be calculated by hand come out, and what says nothing is not listed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sensitivity import TOGETHER, causes_of_spread

DRAWS = 20_000


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(DRAWS)


@settings(max_examples=30, deadline=None)
@given(weights=st.lists(st.floats(0.2, 5), min_size=2, max_size=4), seed=st.integers(0, 1000))
def test_a_sum_spreads_by_the_squares_of_its_terms(weights: list[float], seed: int) -> None:
    inputs = {f"x{i}": normal(seed * 10 + i) for i in range(len(weights))}
    figure = sum(weight * drawn for weight, drawn in zip(weights, inputs.values(), strict=True))
    [(name, causes)] = causes_of_spread({"y": np.asarray(figure)}, inputs).items()
    assert name == "y"
    found = {cause.input: cause.share for cause in causes}
    for i, weight in enumerate(weights):
        expected = weight**2 / sum(w**2 for w in weights)
        assert found.get(f"x{i}", 0.0) == pytest.approx(expected, abs=0.03)
    assert [cause.share for cause in causes] == sorted((cause.share for cause in causes), reverse=True)
    assert sum(found.values()) == pytest.approx(1, abs=0.05)


def test_what_no_input_causes_alone_is_named() -> None:
    a, b = normal(1), normal(2)
    [causes] = causes_of_spread({"y": a * b}, {"a": a, "b": b}).values()
    # The mean of a product does not depend on either factor alone. All of it is interplay; none is listed by itself.
    assert causes == ()
    [causes] = causes_of_spread({"y": a + a * b}, {"a": a, "b": b}).values()
    assert {cause.input for cause in causes} == {"a", TOGETHER}
    assert sum(cause.share for cause in causes) == pytest.approx(1)


def test_what_cannot_cause_anything_is_left_out() -> None:
    a = normal(1)
    fixed = np.full(DRAWS, 3.0)
    assert causes_of_spread({"y": fixed, "z": None}, {"a": a}) == {}
    [causes] = causes_of_spread({"y": a}, {"a": a, "fixed": fixed, "other": normal(2)}).values()
    assert [cause.input for cause in causes] == ["a"]
    assert causes[0].share == pytest.approx(1, abs=0.01)


def test_too_few_draws_say_nothing() -> None:
    a = normal(1)[:200]
    assert causes_of_spread({"y": a}, {"a": a}) == {"y": ()}
