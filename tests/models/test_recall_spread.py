"""How much recall differs from image to image, estimated from units found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from models.training.evaluation import recall_spread


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_known_spread_is_found_again(spread: float, groups: int) -> None:
    rng = np.random.default_rng(4)
    total, group = rng.integers(1, 60, 600), rng.integers(0, groups, 600)
    found = rng.binomial(total, expit(2.0 - group + spread * rng.standard_normal(600)))
    assert recall_spread(found, total, group) == pytest.approx(spread, abs=0.3)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8))
def test_few_images_claim_no_wild_spread(images: list[tuple[int, int]]) -> None:
    found, total = (np.array(column) for column in zip(*((a, max(a + b, 1)) for a, b in images), strict=True))
    assert 0 <= recall_spread(found, total, np.zeros(len(found), int)) < 4


def test_of_images_with_one_unit_nothing_is_claimed() -> None:
    assert recall_spread(np.array([1, 1, 0, 1]), np.ones(4, int), np.zeros(4, int)) <= 0.5
