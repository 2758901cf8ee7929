"""Supply: from turbines and batteries seen, and the site file's connections and contracts, to megawatts.

Generation is what stands there, at its rating; supply is what that and the rest can deliver on a hot day. Batteries
are ride-through only: they never count as supply.
"""

import re
from collections.abc import Iterable

import numpy as np

from pipelines.errors import EstimateError
from pipelines.ledger import Ledger, Seen
from pipelines.tables import Tables
from pipelines.unit_capacity import battery_units, find_model, triangular, turbine_mw

__all__ = ["batteries", "generation_mw", "parse_turbines", "supply_mw"]


def generation_mw(seen: Seen, ledger: Ledger) -> np.ndarray | None:
    """Rated power of the turbines in place, in MW (draws,); None where turbines were not given."""
    cls = "gas_turbine"
    if cls in seen.not_given:
        return None
    if not seen.stands(cls):
        return np.zeros(ledger.draws)
    total = np.zeros(ledger.draws)
    if seen.counts[cls].any():
        count = ledger.record(f"{cls} count", seen.counts[cls], "units", seen.source)
        models, source = ledger.tables.turbines, "turbines.csv, models weighed by prior and measured footprint"
        if cls in ledger.known_models:
            models = (find_model(models, ledger.known_models[cls], cls),)
            source = f"{models[0].model}: {models[0].source}"
        each = turbine_mw(models, seen.size_m.get(cls), ledger.rng("gas_turbine fleet"), ledger.draws)
        total += count * ledger.record(f"{cls} rating", each, "MW", source)
    for model, units in seen.fleet.items():
        count = ledger.constant(f"{model} count", units, "units", seen.source)
        total += count * _rating_mw(model, ledger)
    return total


def parse_turbines(texts: Iterable[str], tables: Tables) -> tuple[int, dict[str, int]]:
    """Turbines of unknown and of known model from `N` and `MODEL:N`; a model may be a size class such as `35MW`.

    :raises EstimateError: a text is neither, or the table of turbines does not know the model
    """
    unknown, fleet = 0, dict[str, int]()
    for text in texts:
        model, _, number = text.rpartition(":")
        if not number.strip().isdecimal():
            raise EstimateError(f"turbines '{text}' must be a number, or a model and a number as in TM2500:12")
        model = model.strip()
        if not model:
            unknown += int(number)
            continue
        if _size_class_mw(model) is None:
            model = find_model(tables.turbines, model, "gas_turbine").model
        fleet[model] = fleet.get(model, 0) + int(number)
    return unknown, {model: count for model, count in fleet.items() if count}


def _size_class_mw(model: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?MW", model, re.IGNORECASE)
    if match and float(match[1]) == 0:
        raise EstimateError(f"turbines of '{model}' make nothing; name their size class, as in 35MW:7")
    return float(match[1]) if match else None


def _rating_mw(model: str, ledger: Ledger) -> np.ndarray:
    size_mw = _size_class_mw(model)
    if size_mw is not None:
        return ledger.constant(f"{model} rating", size_mw, "MW", "given as a size class")
    row = find_model(ledger.tables.turbines, model, "gas_turbine")
    drawn = triangular(*row.power_mw_range, ledger.rng(f"rating of {row.model}"), ledger.draws)
    return ledger.record(f"{row.model} rating", drawn, "MW", row.source)


def supply_mw(generation: np.ndarray, seen: Seen, grid_mw: float, contract_mw: float, ledger: Ledger) -> np.ndarray:
    """Sustained power that can be delivered on a hot day, in MW (draws,).

    Of several turbines one always stands still (N - 1): a load that cannot be shed is not built on the last machine. A
    contract may be the very machines that are seen, so only what exceeds them can add, and only as far as it may have
    been delivered.
    """
    delivered = generation
    if generation.any():
        units = seen.counts["gas_turbine"] + sum(seen.fleet.values())
        all_but_one = np.where(units > 1, (units - 1) / np.maximum(units, 1), 1.0)
        running = np.minimum(ledger.prior("turbine_running_share"), all_but_one)
        ledger.record_derived(
            "turbine share that runs, N - 1 at most", running, "share of units", "the above and counts"
        )
        delivered = generation * ledger.prior("turbine_site_factor") * running
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
