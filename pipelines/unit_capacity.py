"""What one unit can do: draws of the capacity of a chiller, a fan cell, a turbine, a battery, from its size or model.

A yard mostly holds one model of each kind, so what is not known of the model is one draw for the whole site: it is
**not** averaged away over a hundred units. Each function returns (draws,) arrays; randomness comes in as generators.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.errors import EstimateError
from pipelines.tables import Battery, Chiller, DryCooler, Turbine

__all__ = [
    "CHILLER_BY_FANS",
    "CHILLER_BY_FOOTPRINT",
    "CHILLER_CROSS_CHECK_LOG",
    "FOOTPRINT_RANGE_M2",
    "TOWER_BY_AREA",
    "PowerLaw",
    "battery_units",
    "dry_cooler_cell_kw",
    "find_model",
    "fit_power_law",
    "log_sigma",
    "triangular",
    "turbine_mw",
]

Q80 = 1.2815515655446004
"""Standard normal quantile whose two-sided interval holds 80%."""


def log_sigma(spread_x: float) -> float:
    """Standard deviation of the logarithm when 80% lie within a factor `spread_x`."""
    return math.log(spread_x) / Q80


@dataclass(frozen=True)
class PowerLaw:
    """ln(kW) = intercept + slope ln(x), with 80% of models within a factor `spread_x`."""

    intercept: float
    slope: float
    spread_x: float

    def kw(self, x: np.ndarray | float) -> np.ndarray:
        """Central capacity in kW."""
        return np.exp(self.intercept + self.slope * np.log(x))

    def draw_kw(self, x: np.ndarray | float, rng: np.random.Generator, draws: int) -> np.ndarray:
        """Capacities in kW (draws,) of a unit of unknown model: the model's deviation is drawn."""
        return self.kw(x) * np.exp(log_sigma(self.spread_x) * rng.standard_normal(draws))


CHILLER_BY_FOOTPRINT = PowerLaw(3.949, 1.043, 1.25)
"""Air-cooled chiller, x = length x width in m2. Fit to the 54 units of chillers.csv, nameplate at about 35 C air.

80% of the units lie within x1.22 of the fit, and within x1.25 of a fit that never saw their manufacturer: the latter
is the honest spread for a chiller whose maker is unknown.
"""
CHILLER_BY_FANS = PowerLaw(4.571, 0.943, 1.34)
"""Air-cooled chiller, x = number of fans. Same units; x1.28, and x1.34 leaving the manufacturer out."""
CHILLER_CROSS_CHECK_LOG = 0.26
"""Ninety percent of those 54 units have the two fits within this of each other (as logarithms)."""
FOOTPRINT_RANGE_M2 = (11.0, 53.0)
"""Footprints of the units behind `CHILLER_BY_FOOTPRINT`; outside it is extrapolation."""
TOWER_BY_AREA = PowerLaw(3.899, 1.230, 1.5)
"""Cooling tower cell, x = plan area in m2. Fit to 527 models (Epoch AI, CC BY 4.0); cooling_towers.csv holds 40."""


def fit_power_law(x: np.ndarray, kw: np.ndarray) -> PowerLaw:
    """Least squares in logarithms; the spread is the 80th percentile of the absolute residuals."""
    slope, intercept = np.polyfit(np.log(x), np.log(kw), 1)
    residuals = np.log(kw) - intercept - slope * np.log(x)
    return PowerLaw(float(intercept), float(slope), float(np.exp(np.quantile(np.abs(residuals), 0.8))))


def triangular(low: float, mode: float, high: float, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Triangular draws by inversion of one uniform each, so that a shifted range keeps the order of the draws."""
    u = rng.random(draws)
    split = (mode - low) / (high - low)
    below = low + np.sqrt(u * (high - low) * (mode - low))
    above = high - np.sqrt((1 - u) * (high - low) * (high - mode))
    return np.where(u < split, below, above)


def dry_cooler_cell_kw(cell: DryCooler, area_m2: np.ndarray | None, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Heat one fan cell rejects, in kW: weak knowledge, bounded above whatever the size.

    :param area_m2: (draws,) plan area of a cell where it was measured
    """
    if area_m2 is None:
        return triangular(*cell.cell_kw_range, rng, draws)
    flux = cell.flux_kw_per_m2 * np.exp(log_sigma(cell.flux_spread_x) * rng.standard_normal(draws))
    return np.minimum(flux * area_m2, cell.cell_kw_high)


FLEET_CONCENTRATION = 2.0
"""Concentration of the Dirichlet prior over models: one or two models make up most of a fleet."""


def turbine_mw(
    models: Sequence[Turbine], size_m: tuple[float, float] | None, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """Mean rating of the turbines of a site in MW, from which models its fleet may consist of.

    Each model's prior weight is multiplied by how well the measured footprint fits its size; the fleet's composition
    and each model's rating are then common to all turbines of the site.

    :param size_m: median measured length and width, or None
    """
    weights = np.array([model.prior_weight * _size_likelihood(model, size_m) for model in models])
    shares = rng.standard_gamma(np.maximum(FLEET_CONCENTRATION * weights / weights.sum(), 1e-3), (draws, len(models)))
    shares = np.maximum(shares, 1e-300)
    ratings = [triangular(*m.power_mw_range, rng, draws) for m in models]
    return (shares * np.stack(ratings, axis=1)).sum(axis=1) / shares.sum(axis=1)


def _size_likelihood(model: Turbine, size_m: tuple[float, float] | None) -> float:
    if size_m is None:
        return 1.0
    sigma = log_sigma(model.size_spread_x)
    deviations = math.log(size_m[0] / model.length_m) / sigma, math.log(size_m[1] / model.width_m) / sigma
    # Student-t rather than normal tails: a size far from every prior must not make one model certain.
    return math.prod((1 + d * d / 3) ** -2 for d in deviations)


def battery_units(models: Sequence[Battery], rng: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Power in MW and energy in MWh of one battery unit; all units of a site are one model, drawn by prior weight."""
    weights = np.array([model.prior_weight for model in models])
    which = rng.choice(len(models), size=draws, p=weights / weights.sum())
    power = [triangular(*m.power_mw_range, rng, draws) for m in models]
    energy = [triangular(*m.energy_mwh_range, rng, draws) for m in models]
    return np.choose(which, power), np.choose(which, energy)


Named = TypeVar("Named", Chiller, Turbine, Battery)


def find_model(models: Sequence[Named], name: str, kind: str) -> Named:
    """The row of a known model, by its name or by manufacturer and name, in any case.

    :param kind: class of equipment, for the message
    :raises EstimateError: no such model
    """
    wanted = name.strip().casefold()
    for model in models:
        full = f"{model.manufacturer} {model.model}" if isinstance(model, Chiller) else model.model
        if wanted in (model.model.casefold(), full.casefold()):
            return model
    known = ", ".join(model.model for model in models)
    raise EstimateError(f"the table of equipment knows no {kind} model '{name}' (known: {known})")
