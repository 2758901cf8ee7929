"""Scores to probabilities: two numbers a class, fitted on detections that are known to be right or wrong."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

_PRIOR = 1.0
"""Pull towards "the score is the probability", worth about one detection: decides only where there are hardly any."""
_FLATTEST = 0.05
"""Smallest slope, so that a higher score never means a lower probability."""


def fit_calibration(score: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
    """a, b of probability = sigmoid(a * logit(score) + b) by logistic regression (Platt 1999) on scores in 0..1."""
    logit = to_logit(score)
    right = np.asarray(hit, dtype=np.float64)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = parameters
        z = a * logit + b
        value = np.sum(np.logaddexp(0, z) - right * z) + 0.5 * _PRIOR * ((a - 1) ** 2 + b**2)
        excess = 1 / (1 + np.exp(-z)) - right
        return float(value), np.array([excess @ logit + _PRIOR * (a - 1), excess.sum() + _PRIOR * b])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(_FLATTEST, 20), (-20, 20)])
    return float(found.x[0]), float(found.x[1])


def calibrated(score: npt.ArrayLike, parameters: tuple[npt.ArrayLike, npt.ArrayLike]) -> np.ndarray:
    """Probability, float64, of scores in 0..1; a and b are one pair for all or one for each score."""
    a, b = np.asarray(parameters[0]), np.asarray(parameters[1])
    return np.asarray(1 / (1 + np.exp(-(a * to_logit(score) + b))))


def to_logit(score: npt.ArrayLike) -> np.ndarray:
    """log(s / (1 - s)) with s kept a millionth away from 0 and 1, which float32 scores reach."""
    clipped = np.clip(np.asarray(score, dtype=np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def reliability(probability: np.ndarray, hit: np.ndarray, bins: int = 5) -> list[tuple[int, float, float]]:
    """Of equal-width bins of probability that hold any detection: their number, mean probability and share of hits."""
    which = np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
    rows = []
    for number in np.unique(which):
        mine = which == number
        rows.append((int(mine.sum()), float(probability[mine].mean()), float(np.mean(hit[mine]))))
    return rows


def calibration_error(probability: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance between stated and observed share of hits, over equal-width bins."""
    if len(probability) == 0:
        return 0.0
    which = np.minimum((probability * bins).astype(int), bins - 1)
    stated = np.bincount(which, weights=probability, minlength=bins)
    observed = np.bincount(which, weights=np.asarray(hit, dtype=np.float64), minlength=bins)
    return float(np.abs(stated - observed).sum() / len(probability))
