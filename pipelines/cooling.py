"""Cooling: from units seen to the heat they can reject on a hot day, and to the IT power whose heat that is.

`cooling_mw` is what the equipment in place could reject on a design day with every unit running: the figure others
publish as what N chillers "could support". Reserve, commissioning and heat that is not IT's come off afterwards, and
turn it into the IT load it can carry.
"""

from collections.abc import Mapping

import numpy as np

from pipelines.ledger import Ledger, Seen
from pipelines.unit_capacity import (
    CHILLER_BY_FANS,
    CHILLER_BY_FOOTPRINT,
    CHILLER_CROSS_CHECK_LOG,
    FOOTPRINT_RANGE_M2,
    TOWER_BY_AREA,
    dry_cooler_cell_kw,
    find_model,
)

__all__ = ["COOLING_CLASSES", "cooling_mw", "it_heat_mw", "peak_pue"]

COOLING_CLASSES = ("air_cooled_chiller", "dry_cooler", "cooling_tower")


def cooling_mw(seen: Seen, ledger: Ledger) -> dict[str, np.ndarray]:
    """Heat the units of each class can reject on a hot day, in MW: (draws,) by class.

    Classes add up: coolers and towers are taken to reject their own share of the heat, not that of the chillers.
    """
    by_class: dict[str, np.ndarray] = {}
    unit_kw = {
        "air_cooled_chiller": _chiller_kw,
        "dry_cooler": _dry_cooler_kw,
        "cooling_tower": _cooling_tower_kw,
    }
    for cls in COOLING_CLASSES:
        if cls in seen.not_given:
            continue
        if not seen.stands(cls):
            by_class[cls] = np.zeros(ledger.draws)
            continue
        kw = np.zeros(ledger.draws)
        if seen.counts[cls].any():
            unit = {"air_cooled_chiller": "units"}.get(cls, "fan cells")
            count = ledger.record(f"{cls} count", seen.counts[cls], unit, seen.source)
            kw = count * unit_kw[cls](seen, ledger)
        if cls == "cooling_tower" and seen.whole_towers:
            towers = ledger.constant("cooling towers, counted whole", seen.whole_towers, "towers", seen.source)
            kw = kw + towers * ledger.prior("tower_heat_kw")
        by_class[cls] = ledger.record_derived(f"{cls} cooling", kw / 1000, "MW", "product of the above")
    return by_class


def it_heat_mw(by_class: Mapping[str, np.ndarray], ledger: Ledger) -> np.ndarray:
    """IT power, as drawn and turned to heat, that the cooling can carry, in MW (draws,)."""
    direct = by_class["air_cooled_chiller"] + by_class["dry_cooler"]
    towers = by_class["cooling_tower"]
    if towers.any():
        towers = towers / (1 + ledger.prior("tower_compressor_share"))
    usable = ledger.prior("cooling_commissioned_share") * (1 - ledger.prior("cooling_reserve_share"))
    return (direct + towers) * usable / (1 + ledger.prior("non_it_heat_share"))


def peak_pue(
    by_class: Mapping[str, np.ndarray], site_pue: float | None, site_source: str | None, ledger: Ledger
) -> np.ndarray:
    """Facility power / IT power at peak (draws,): the site file's, else by the kinds of cooling that are seen."""
    if site_pue is not None:
        error = 0.05 * (ledger.rng("site pue").random(ledger.draws) * 2 - 1)
        source = f"{site_source or 'given'}; +-0.05: assumption"
        return ledger.record("peak PUE", np.maximum(1.0, site_pue + error), "facility / IT", source)
    total = sum(by_class.values(), np.zeros(ledger.draws))
    pue = np.zeros(ledger.draws)
    for cls in COOLING_CLASSES:
        if by_class[cls].any():
            pue += np.divide(by_class[cls], total, out=np.zeros_like(total), where=total > 0) * ledger.prior(
                f"pue_{cls}"
            )
    # Draws in which nothing stands carry no load: any ratio will do.
    return np.where(total > 0, pue, 1.0)


def _sizes_m(seen: Seen, ledger: Ledger, cls: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Length and width of a unit (draws,), each with an error common to all units of the site."""
    if cls not in seen.size_m:
        return None
    drawn = []
    for name, size_m in zip(("length", "width"), seen.size_m[cls], strict=True):
        error = seen.size_error_m * ledger.rng(f"{cls} {name} {seen.size_seed}").standard_normal(ledger.draws)
        drawn.append(ledger.record(f"{cls} {name}", np.maximum(size_m + error, 0.3 * size_m), "m", seen.source))
    return drawn[0], drawn[1]


def _chiller_kw(seen: Seen, ledger: Ledger) -> np.ndarray:
    cls = "air_cooled_chiller"
    hot_day = ledger.prior("hot_day_factor")
    if cls in ledger.known_models:
        model = find_model(ledger.tables.chillers, ledger.known_models[cls], cls)
        return hot_day * ledger.constant(f"{cls} nameplate", model.capacity_kw, "kW", f"{model.model}: {model.source}")
    sizes = _sizes_m(seen, ledger, cls)
    fans = seen.fans_per_unit.get(cls)
    if sizes is None and fans:
        kw = CHILLER_BY_FANS.draw_kw(fans, ledger.rng(f"{cls} model"), ledger.draws)
        source = (
            f"fit to the fans of chillers.csv, {fans:g} fans a unit, 80% within x1.34; one model for the whole site"
        )
        return hot_day * ledger.record(f"{cls} nameplate", kw, "kW", source)
    length_m, width_m = sizes or (ledger.prior("chiller_length_m"), ledger.prior("chiller_width_m"))
    area_m2 = length_m * width_m
    kw = CHILLER_BY_FOOTPRINT.draw_kw(area_m2, ledger.rng(f"{cls} model"), ledger.draws)
    source = "footprint fit to chillers.csv, 80% within x1.25 for an unknown maker; one model for the whole site"
    ledger.record_derived(f"{cls} nameplate", kw, "kW", source, own=kw / CHILLER_BY_FOOTPRINT.kw(area_m2))
    area = float(np.median(area_m2))
    low, high = FOOTPRINT_RANGE_M2
    if not low <= area <= high:
        ledger.notes.append(
            f"chillers measure {area:.0f} m2, outside the {low:.0f} to {high:.0f} m2 of the units behind the fit: "
            "their capacity is an extrapolation"
        )
    if fans:
        _cross_check_fans(fans, area, ledger)
    return hot_day * kw


def _cross_check_fans(fans: float, area_m2: float, ledger: Ledger) -> None:
    """The fan count does not enter the estimate, since the footprint says more; it tells when the two disagree."""
    kw = CHILLER_BY_FANS.draw_kw(fans, ledger.rng("chiller fans"), ledger.draws)
    source = f"cross-check only: fit to the fans of chillers.csv, {fans:g} fans a unit, 80% within x1.34"
    ledger.record_derived("air_cooled_chiller nameplate by fans", kw, "kW", source)
    by_fans, by_size = float(CHILLER_BY_FANS.kw(fans)), float(CHILLER_BY_FOOTPRINT.kw(area_m2))
    if abs(np.log(by_fans / by_size)) > CHILLER_CROSS_CHECK_LOG:
        ledger.notes.append(
            f"{fans:g} fans suggest {by_fans:,.0f} kW a chiller and its footprint {by_size:,.0f} kW, further apart "
            "than nine in ten models: check the sizes"
        )


def _dry_cooler_kw(seen: Seen, ledger: Ledger) -> np.ndarray:
    sizes = _sizes_m(seen, ledger, "dry_cooler")
    cell = ledger.tables.dry_cooler
    area_m2 = None if sizes is None else sizes[0] * sizes[1]
    kw = dry_cooler_cell_kw(cell, area_m2, ledger.rng("dry_cooler cell"), ledger.draws)
    if np.median(seen.counts["dry_cooler"]) > 0:
        ledger.notes.append("dry coolers: the capacity of a fan cell is a weak prior with an upper bound")
    own = kw if area_m2 is None else kw / (cell.flux_kw_per_m2 * area_m2)
    return ledger.record_derived("dry_cooler cell", kw, "kW", cell.source, own=own)


def _cooling_tower_kw(seen: Seen, ledger: Ledger) -> np.ndarray:
    sizes = _sizes_m(seen, ledger, "cooling_tower")
    area_m2 = ledger.prior("tower_cell_area_m2") if sizes is None else sizes[0] * sizes[1]
    kw = TOWER_BY_AREA.draw_kw(area_m2, ledger.rng("cooling_tower model"), ledger.draws)
    source = "plan area fit to 527 models (Epoch AI, CC BY 4.0), 80% within x1.5; one model for the whole site"
    return ledger.record_derived("cooling_tower cell", kw, "kW", source, own=kw / TOWER_BY_AREA.kw(area_m2))
