"""Which input causes how much of a figure's spread: what an analyst should find out next."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["TOGETHER", "Cause", "causes_of_spread"]

DRAWS_USED = 20_000
"""Of the draws; the shares are then right to about one percentage point."""
BINS = 40
SMALLEST_SHARE = 0.01
"""Inputs that cause less are not listed."""
TOGETHER = "all others, and several together"
"""What is left: the inputs under `SMALLEST_SHARE`, and what inputs cause only beside others."""


@dataclass(frozen=True)
class Cause:
    """An input of an estimate as a cause of the spread of one of its figures."""

    input: str
    share: float
    """Of the figure's variance: what would go if the input were known exactly (first-order Sobol index)."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"input": self.input, "share_of_variance": round(self.share, 3)}


def causes_of_spread(
    figures: Mapping[str, np.ndarray | None], inputs: Mapping[str, np.ndarray]
) -> dict[str, tuple[Cause, ...]]:
    """For each figure that spreads, its causes, the largest first.

    The first-order index Var(E[y | x]) / Var(y) of each input x, from the means of the figure in bins of equally many
    draws of x (Saltelli et al. 2008, Global Sensitivity Analysis, section 1.2.5), less what chance makes such means
    vary by. Inputs must have been drawn independently of each other.

    :param figures: draws (draws,) of each figure, None where it is not given
    :param inputs: draws (draws,) of each input
    """
    spread = {
        name: drawn[:DRAWS_USED] for name, drawn in figures.items() if drawn is not None and np.ptp(drawn[:DRAWS_USED])
    }
    shares: dict[str, list[Cause]] = {name: [] for name in spread}
    for of, drawn in inputs.items():
        used = drawn[:DRAWS_USED]
        # Too few draws to tell an input from chance say nothing.
        if not np.ptp(used) or len(used) < BINS**2:
            continue
        order = np.argsort(used, kind="stable")[: len(used) // BINS * BINS]
        for name, figure in spread.items():
            means = figure[order].reshape(BINS, -1).mean(axis=1)
            chance = (BINS - 1) / len(order)
            share = float((means.var() / figure.var() - chance) / (1 - chance))
            if share >= SMALLEST_SHARE:
                shares[name].append(Cause(of, min(share, 1.0)))
    result = {}
    for name, causes in shares.items():
        rest = 1 - sum(cause.share for cause in causes)
        if causes and rest >= 2 * SMALLEST_SHARE:
            causes = [*causes, Cause(TOGETHER, rest)]
        result[name] = tuple(sorted(causes, key=lambda cause: -cause.share))
    return result
