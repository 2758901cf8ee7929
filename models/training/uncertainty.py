"""Measured figures with the interval that so many measurements leave them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, chi2

_RESAMPLED = 2000
"""Draws of the bootstrap: the ends of its interval are then good to some hundredths of its width."""
_DIGITS = 4


@dataclass(frozen=True)
class Figure:
    """A measured figure with its 95% interval."""

    value: float
    low: float
    high: float


def share(part: int, whole: int) -> Figure | None:
    """`part` of `whole` independent trials, with the interval of Wilson (1927); None of none."""
    if whole == 0:
        return None
    found = binomtest(part, whole).proportion_ci(0.95, "wilson")
    return _figure(part / whole, found.low, found.high)


def rate(events: int, exposure: float) -> Figure | None:
    """Events per unit of exposure, with the exact Poisson interval of Garwood (1936); None without exposure."""
    if exposure <= 0:
        return None
    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    return _figure(events / exposure, low / exposure, chi2.ppf(0.975, 2 * events + 2) / 2 / exposure)


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Figure | None:
    """Sum over scenes of `part` over that of `whole`, both (scenes,); None where the latter is nothing.

    The interval is the bootstrap's over scenes (Efron 1979): units of one scene share its haze, blur and layout and
    are no independent trials. Where no scene differs from another it is a single value.
    """
    parts, wholes = np.asarray(part, float), np.asarray(whole, float)
    if wholes.sum() <= 0:
        return None
    times = np.random.default_rng(0).multinomial(len(wholes), np.full(len(wholes), 1 / len(wholes)), _RESAMPLED)
    below = times @ wholes
    drawn = (times @ parts)[below > 0] / below[below > 0]
    return _figure(parts.sum() / wholes.sum(), *np.quantile(drawn, (0.025, 0.975)))


def _figure(*values: float) -> Figure:
    return Figure(*(round(float(value), _DIGITS) for value in values))
