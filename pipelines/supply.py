"""Supply: from turbines and batteries seen, and the site file's connections and contracts, to megawatts.

Generation is what stands there, at its rating; supply is what that and the rest can deliver on a hot day. Batteries
are ride-through only: they never count as supply.
"""

import numpy as np

from pipelines.ledger import Ledger, Seen
from pipelines.unit_capacity import battery_units, find_model, turbine_mw

__all__ = ["batteries", "generation_mw", "supply_mw"]


def generation_mw(seen: Seen, ledger: Ledger) -> np.ndarray | None:
    """Rated power of the turbines in place, in MW (draws,); None where turbines were not given."""
    cls = "gas_turbine"
    if cls in seen.not_given:
        return None
    if not seen.stands(cls):
        return np.zeros(ledger.draws)
    count = ledger.record(f"{cls} count", seen.counts[cls], "units", seen.source)
    models, source = ledger.tables.turbines, "turbines.csv, models weighed by prior and measured footprint"
    if cls in ledger.known_models:
        models = (find_model(models, ledger.known_models[cls], cls),)
        source = f"{models[0].model}: {models[0].source}"
    each = turbine_mw(models, seen.size_m.get(cls), ledger.rng("gas_turbine fleet"), ledger.draws)
    ledger.record(f"{cls} rating", each, "MW", source)
    return count * each


def supply_mw(generation: np.ndarray, grid_mw: float, contract_mw: float, ledger: Ledger) -> np.ndarray:
    """Sustained power that can be delivered on a hot day, in MW (draws,).

    A contract may be the very machines that are seen, so only what exceeds them can add, and only as far as it may
    have been delivered.
    """
    delivered = generation
    if generation.any():
        delivered = generation * ledger.prior("turbine_site_factor") * ledger.prior("turbine_running_share")
    if contract_mw:
        beyond = np.maximum(0, contract_mw - delivered)
        delivered = delivered + beyond * ledger.prior("contract_delivered_share")
    return delivered + grid_mw


def batteries(seen: Seen, ledger: Ledger) -> tuple[np.ndarray, np.ndarray] | None:
    """Power in MW and usable energy in MWh of the batteries in place, (draws,) each; None where not given."""
    cls = "battery"
    if cls in seen.not_given:
        return None
    if not seen.stands(cls):
        return np.zeros(ledger.draws), np.zeros(ledger.draws)
    count = ledger.record(f"{cls} count", seen.counts[cls], "units", seen.source)
    models, source = ledger.tables.batteries, "batteries.csv, models by prior weight; one model for the whole site"
    if cls in ledger.known_models:
        models = (find_model(models, ledger.known_models[cls], cls),)
        source = f"{models[0].model}: {models[0].source}"
    power_mw, energy_mwh = battery_units(models, ledger.rng("battery model"), ledger.draws)
    ledger.record(f"{cls} power", power_mw, "MW", source)
    ledger.record(f"{cls} energy", energy_mwh, "MWh", source)
    return count * power_mw, count * energy_mwh * ledger.prior("battery_usable_share")
