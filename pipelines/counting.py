"""From scored detections to draws of how many units really stand there.

Three doubts are drawn, each in every draw:
* which detections are real: a Poisson-binomial over their calibrated probabilities;
* how many units were missed: negative binomial given the real ones found, with the recall of the class at the scene's
  ground sampling distance drawn from its Beta posterior (Jeffreys prior) given the validation counts, and then for this
  scene, because it differs from scene to scene by a measured spread;
* how far calibration and recall, both measured on other imagery, are off on this scene: one shift of the log-odds
  common to all units of the class (`DOMAIN_SHIFT_LOGIT`). Without it a hundred detections would average away an error
  that they all share.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv, expit, logit, ndtri

from models.detector.card import CERTAIN, MIN_PROBABILITY, RecallPoint

__all__ = ["DOMAIN_SHIFT_LOGIT", "DRAWS", "MIN_RECALL", "applicable", "draw_true_units", "recall_at", "stream"]

DRAWS = 100_000
"""Monte Carlo draws of a census and of an estimate."""
DOMAIN_SHIFT_LOGIT = 0.5
"""Standard deviation of the shared error of calibration, and of that of recall, in log-odds.

Assumption: imagery unlike the validation set moves a recall of 0.95 to between 0.92 and 0.97 (one sigma). To be
replaced by a measurement once labelled real scenes exist.
"""
MIN_RECALL = 0.3
"""Below it more units would be guessed than seen: the count is not given."""
CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, so that log-odds exist."""
NODES = 16
"""Equally likely values of the calibration shift at which the Poisson-binomial is computed exactly."""


def stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one quantity.

    A stream a name: adding a class or an input leaves the draws of all others as they were.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def draw_true_units(
    probabilities: np.ndarray,
    recall: Sequence[RecallPoint] | None,
    gsd_m: float,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> np.ndarray:
    """Draw the number of units that stand there.

    :param probabilities: (N,) calibrated probabilities of the detections of one class
    :param recall: validation counts; None: nothing is added for what was missed
    :param gsd_m: native ground sampling distance of the scene
    :returns: int64 (draws,)
    """
    found = _draw_found(np.asarray(probabilities, float), rng, draws)
    if recall is None:
        return found
    share = _draw_recall(recall, gsd_m, rng, draws)
    # With the scale-free prior 1/n on the number of units n, the missed given the found are negative binomial; none
    # are imagined where nothing was found.
    missed = rng.negative_binomial(np.maximum(found, 1), share)
    return found + np.where(found > 0, missed, 0)


def applicable(recall: Sequence[RecallPoint], probabilities: np.ndarray) -> tuple[RecallPoint, ...]:
    """Validation counts of images like this one: those where the detector was as certain of what it found.

    :param probabilities: (N,) calibrated probabilities of the detections of the class; where there are none, nothing is
        known of the image and all counts apply
    """
    if len(probabilities):
        shown = probabilities[probabilities >= MIN_PROBABILITY]
        certain = len(shown) > 0 and float(np.mean(shown)) >= CERTAIN
        alike = tuple(point for point in recall if point.certain == certain)
        if any(point.total > 0 for point in alike):
            return alike
    return _pooled(recall)


def _pooled(recall: Sequence[RecallPoint]) -> tuple[RecallPoint, ...]:
    """Counts at nearly the same ground sampling distance (within 12%), added up."""
    pooled: list[RecallPoint] = []
    for point in sorted((point for point in recall if point.total > 0), key=lambda point: point.gsd_m):
        if pooled and point.gsd_m < 1.12 * pooled[-1].gsd_m:
            last = pooled.pop()
            total = last.total + point.total
            gsd_m = (last.gsd_m * last.total + point.gsd_m * point.total) / total
            spread = max(last.spread_logit, point.spread_logit)
            point = RecallPoint(gsd_m, last.found + point.found, total, spread_logit=spread)
        pooled.append(point)
    return tuple(pooled)


def recall_at(recall: Sequence[RecallPoint], gsd_m: float) -> float | None:
    """Median recall at a ground sampling distance, or None where nothing was measured."""
    if not any(point.total > 0 for point in recall):
        return None
    return float(_recall_quantiles(recall, gsd_m, np.array([0.5]))[0])


def _draw_found(probabilities: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Draw how many of the detections are real, with a calibration shift common to all of them."""
    uniform = rng.random(draws)
    node = rng.integers(NODES, size=draws)
    if not probabilities.size:
        return np.zeros(draws, np.int64)
    odds = logit(np.clip(probabilities, CLIP, 1 - CLIP))
    # Detections of nearly equal probability share a level, so that thousands cost no more than a hundred.
    _, level, rows = np.unique(np.round(odds, 1), return_inverse=True, return_counts=True)
    mean = np.bincount(level, np.clip(probabilities, CLIP, 1 - CLIP)) / rows
    shifts = ndtri((np.arange(NODES) + 0.5) / NODES) * DOMAIN_SHIFT_LOGIT
    found = np.empty(draws, np.int64)
    for i, shift in enumerate(shifts):
        cumulative = np.cumsum(_poisson_binomial(expit(logit(mean) + shift), rows))
        mine = node == i
        found[mine] = np.searchsorted(cumulative, uniform[mine] * cumulative[-1], side="right")
    return np.minimum(found, int(rows.sum()))


def _poisson_binomial(probabilities: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Probabilities of 0..n successes, by the discrete Fourier transform of the characteristic function.

    Hong (2013), On computing the distribution function for the Poisson binomial distribution, section 2.
    """
    n = int(rows.sum())
    turn = np.exp(-2j * np.pi * np.arange((n + 1) // 2 + 1) / (n + 1))
    log = np.zeros(turn.shape, complex)
    for p, m in zip(probabilities, rows, strict=True):
        factor = 1 - p + p * turn
        log += m * np.log(np.where(np.abs(factor) < 1e-12, 1e-12, factor))
    return np.clip(np.fft.irfft(np.exp(log)[: (n + 1) // 2 + 1], n + 1), 0, None)


def _draw_recall(recall: Sequence[RecallPoint], gsd_m: float, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Draw the recall on this scene: posterior of the validation counts, this scene's own, the shift of unseen imagery.

    What was counted over all images is the mean of a recall whose log-odds are normal over images; their median is
    farther from zero by sqrt(1 + pi s^2 / 8), s their standard deviation (MacKay 1992, The evidence framework applied
    to classification networks).
    """
    grid = (np.arange(512) + 0.5) / 512
    share = np.interp(rng.random(draws), grid, _recall_quantiles(recall, gsd_m, grid))
    spread = max(point.spread_logit for point in recall)
    middle = logit(np.clip(share, CLIP, 1 - CLIP)) * math.sqrt(1 + math.pi * spread**2 / 8)
    shifted = expit(middle + math.hypot(spread, DOMAIN_SHIFT_LOGIT) * rng.standard_normal(draws))
    return np.clip(shifted, MIN_RECALL / 3, 1 - CLIP)


def _recall_quantiles(recall: Sequence[RecallPoint], gsd_m: float, quantiles: np.ndarray) -> np.ndarray:
    """Quantiles of the recall at a GSD, between the nearest measured GSDs on a logarithmic scale; flat beyond them.

    The same quantile is taken at both, so that interpolating does not pretend to more knowledge than either has.
    """
    points = sorted((point for point in recall if point.total > 0), key=lambda point: point.gsd_m)
    finer = [point for point in points if point.gsd_m <= gsd_m] or points[:1]
    coarser = [point for point in points if point.gsd_m >= gsd_m] or points[-1:]
    a, b = finer[-1], coarser[0]
    weight = math.log(gsd_m / a.gsd_m) / math.log(b.gsd_m / a.gsd_m) if a.gsd_m < b.gsd_m else 0.0
    return (1 - weight) * _jeffreys(a, quantiles) + weight * _jeffreys(b, quantiles)


def _jeffreys(point: RecallPoint, quantiles: np.ndarray) -> np.ndarray:
    return np.asarray(betaincinv(point.found + 0.5, point.total - point.found + 0.5, quantiles))
