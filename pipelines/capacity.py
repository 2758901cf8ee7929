"""Capacity: what a census implies, by Monte Carlo over every uncertain input.

Counts x unit capacity -> heat that can be rejected -> IT power -> accelerators -> H100 equivalents; turbines, grid and
contracts -> supply -> IT power through PUE. IT power is the smaller of what cooling and supply allow.

IT power is **rated** power, as published figures are: what the chips' ratings add up to. Real machines draw less than
their rating even at peak, so a site carries more rated IT than its heat or its supply alone suggests; that share
(`peak_draw_share`) is one draw common to both sides.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipelines.accelerators import draw_kw_per_chip, h100_equivalents_per_chip, parse_mix
from pipelines.census import Census, Interval, draw_counts
from pipelines.cooling import COOLING_CLASSES, cooling_mw, it_heat_mw, peak_pue
from pipelines.counting import DRAWS
from pipelines.errors import EstimateError
from pipelines.ledger import Input, Ledger, Seen
from pipelines.sensitivity import Cause, causes_of_spread
from pipelines.sites import Site
from pipelines.supply import batteries, generation_mw, supply_mw
from pipelines.tables import Tables, load_tables

__all__ = ["Drawn", "Estimate", "estimate", "estimate_from_counts"]

MEASUREMENT_ERROR_PX = 0.3
"""Standard deviation of the error common to all sizes measured in a scene, in its pixels.

Assumption: blur and the choice of an edge move both ends of every outline alike; what differs from unit to unit
averages away in the median.
"""
MOST_UNITS = 1_000_000
"""More of anything stand on no site."""
WORKING_GSD_M = 0.30
"""Sizes are measured at this ground sampling distance or at the scene's own, whichever is coarser."""


@dataclass(frozen=True)
class Drawn:
    """Draws (draws,) behind an estimate; None where the figure is not given.

    Estimates with one seed share the draws of every input but counts and sizes: they can be added up and subtracted.
    """

    cooling_mw: np.ndarray | None
    generation_mw: np.ndarray | None
    supply_mw: np.ndarray | None
    it_by_cooling_mw: np.ndarray | None
    """Rated IT power that the cooling allows."""
    facility_mw_per_it_mw: np.ndarray | None
    """Power that a megawatt of rated IT draws from the supply at peak."""
    it_mw: np.ndarray | None
    gpus: np.ndarray | None
    h100_equivalents: np.ndarray | None


@dataclass(frozen=True)
class Estimate:
    """What stands on a site implies. None: not given, with the reason among the notes; it is never zero."""

    site_id: str | None
    scene_id: str | None
    date: dt.date | None
    rendered: bool
    """The counts come from rendered imagery, not from a photograph."""
    cooling_mw: Interval | None
    """Heat the cooling equipment in place could reject on a hot day, all units running."""
    generation_mw: Interval | None
    """Rated power of the turbines in place."""
    supply_mw: Interval | None
    """Sustained power that turbines, grid and contracts of this site could deliver on a hot day."""
    battery_mw: Interval | None
    battery_mwh: Interval | None
    """Usable energy."""
    ride_through_minutes: Interval | None
    """How long the batteries' energy would carry the load of `it_mw`, if their power suffices."""
    it_mw: Interval | None
    """Rated IT power that both cooling and supply allow."""
    gpus: Interval | None
    h100_equivalents: Interval | None
    binding: Mapping[str, float]
    """Probability that "cooling" and that "supply" is what limits `it_mw`; empty where that is not given."""
    accelerator: str | None
    inputs: tuple[Input, ...]
    sensitivity: Mapping[str, tuple[Cause, ...]]
    """By figure that spreads: which inputs cause how much of its variance, the largest first."""
    notes: tuple[str, ...]
    seed: int
    draws: int
    drawn: Drawn = field(repr=False, compare=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the inputs come from, each source once."""
        return tuple(dict.fromkeys(item.source for item in self.inputs))

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        figures = ("cooling_mw", "generation_mw", "supply_mw", "battery_mw", "battery_mwh", "ride_through_minutes")
        record: dict[str, Any] = {
            "site": self.site_id,
            "scene": self.scene_id,
            "date": None if self.date is None else self.date.isoformat(),
            "rendered": self.rendered,
        }
        for name in (*figures, "it_mw", "gpus", "h100_equivalents"):
            interval: Interval | None = getattr(self, name)
            record[name] = None if interval is None else interval.as_record()
        return record | {
            "binding": {name: round(p, 3) for name, p in self.binding.items()},
            "accelerator": self.accelerator,
            "inputs": [item.as_record() for item in self.inputs],
            "sources": list(self.sources),
            "sensitivity": {name: [cause.as_record() for cause in causes] for name, causes in self.sensitivity.items()},
            "notes": list(self.notes),
            "seed": self.seed,
            "draws": self.draws,
        }


@dataclass(frozen=True)
class _Circumstances:
    """What is known besides the equipment."""

    site_id: str | None = None
    scene_id: str | None = None
    date: dt.date | None = None
    rendered: bool = False
    accelerator: str | None = None
    pue: float | None = None
    pue_source: str | None = None
    grid_mw: float = 0.0
    contract_mw: float = 0.0
    campus: str | None = None
    """Campus shared with other sites, which may bring power from outside this site's perimeter."""


def estimate(
    census: Census,
    site: Site,
    *,
    accelerator: str | None = None,
    known_models: Mapping[str, str] | None = None,
    tables: Tables | None = None,
    seed: int | None = None,
    draws: int = DRAWS,
) -> Estimate:
    """Estimate megawatts and accelerators from a census.

    :param accelerator: a name of accelerators.csv, or a mix by share of chips such as "H100=0.75,H200=0.25"; default:
        the site's
    :param known_models: model by class (`air_cooled_chiller`, `gas_turbine`, `battery`) where it is known; default:
        drawn from size and prior
    :param seed: of every input but counts and sizes, which go by the census's; default: that, too
    :raises EstimateError: an accelerator or model is unknown
    :raises TableError: a table is broken
    """
    date = census.acquired.date()
    ledger = _ledger(tables, census.seed if seed is None else seed, draws, known_models)
    counts = census.by_class
    seen = Seen(
        counts={cls: draw_counts(census, cls, draws) for cls in counts},
        not_given=census.not_given,
        size_m={
            cls: (count.median_length_m, count.median_width_m)
            for cls, count in counts.items()
            if count.median_length_m is not None and count.median_width_m is not None
        },
        size_error_m=MEASUREMENT_ERROR_PX * max(WORKING_GSD_M, census.native_gsd_m),
        fans_per_unit={cls: count.fans_per_unit for cls, count in counts.items() if count.fans_per_unit is not None},
        source=f"census of scene {census.scene_id}",
        size_seed=census.seed,
    )
    if not site.zones:
        ledger.notes.append(f"{site.path.name} has no zones: draw them in QGIS to have counts by roof, yard and plant")
    if census.rendered:
        ledger.notes.append("rendered imagery: these figures describe a picture that was computed, not a place")
    if 0 < census.covered_fraction < 1:
        ledger.notes.append(
            f"the scene shows {census.covered_fraction:.0%} of the perimeter: figures are of that part only"
        )
    known = _of_site(site, date, ledger)
    return _estimate(
        seen,
        ledger,
        replace(
            known,
            scene_id=census.scene_id,
            rendered=census.rendered,
            accelerator=accelerator or known.accelerator,
        ),
    )


def estimate_from_counts(
    *,
    chillers: int | None = 0,
    dry_cooler_cells: int | None = 0,
    cooling_tower_cells: int | None = 0,
    cooling_towers: int = 0,
    turbines: int | None = 0,
    turbine_fleet: Mapping[str, int] | None = None,
    batteries: int | None = 0,
    length_m: float | None = None,
    width_m: float | None = None,
    fans: int | None = None,
    supply_mw: float | None = None,
    pue: float | None = None,
    accelerator: str | None = None,
    known_models: Mapping[str, str] | None = None,
    site: Site | None = None,
    date: dt.date | None = None,
    seed: int = 0,
    tables: Tables | None = None,
    draws: int = DRAWS,
) -> Estimate:
    """Estimate megawatts and accelerators from counts that somebody made, taken as exact.

    :param chillers: units; None for this and the other counts: not counted, which is not zero
    :param cooling_towers: whole towers as people count them from above, besides `cooling_tower_cells`
    :param turbines: of unknown model, besides those of `turbine_fleet`, which are by model or size class such as 35MW
    :param length_m: of one chiller, with `width_m`; default: a big unit of unknown size
    :param fans: on one chiller
    :param supply_mw: power known to reach the site besides the turbines
    :param site: that the counts are of: its accelerator, PUE, supplies and campus count where nothing else is given
    :param date: of the counts; with a site it decides which of its supplies there were
    :param pue: facility power / IT power at peak; default: by the kinds of cooling
    :raises EstimateError: a count, size, PUE, accelerator, model or date makes no sense
    """
    given = {
        "air_cooled_chiller": chillers,
        "dry_cooler": dry_cooler_cells,
        "cooling_tower": cooling_tower_cells,
        "gas_turbine": turbines,
        "battery": batteries,
    }
    fleet = turbine_fleet or {}
    for what, count in {**given, **fleet, "cooling towers": cooling_towers, "fans": fans}.items():
        if count is not None and not (0 <= count < np.inf and count == int(count)):
            raise EstimateError(f"the count of {what} must be a whole number, not negative, got {count}")
        if count is not None and count > MOST_UNITS:
            raise EstimateError(f"the count of {what} is over {MOST_UNITS:,}, got {count}: check it")
    if (length_m is None) != (width_m is None):
        raise EstimateError("the size of a chiller needs both its length and its width in metres; give the other too")
    size_m: dict[str, tuple[float, float]] = {}
    if length_m is not None and width_m is not None:
        if not (0 < width_m <= length_m < 60):
            raise EstimateError(
                f"a chiller of {length_m:g} x {width_m:g} m cannot be: give length, then width, in metres"
            )
        size_m["air_cooled_chiller"] = (length_m, width_m)
    if supply_mw is not None and not 0 <= supply_mw < np.inf:
        raise EstimateError(f"the supply must be megawatts, not negative, got {supply_mw:g}")
    if pue is not None and not 1 <= pue <= 3:
        raise EstimateError(f"a PUE lies between 1 and 3, got {pue:g}")
    if site is not None:
        _check_date(site, date, any((*given.values(), *fleet.values(), cooling_towers)))
    ledger = _ledger(tables, seed, draws, known_models)
    known = _Circumstances(date=date) if site is None else _of_site(site, date, ledger)
    if supply_mw:
        ledger.constant("supply besides turbines", supply_mw, "MW", "given")
    seen = Seen(
        counts={cls: np.full(draws, int(count), np.int64) for cls, count in given.items() if count is not None},
        not_given={cls: "it was not counted" for cls, count in given.items() if count is None},
        size_m=size_m,
        size_error_m=0.0,
        fans_per_unit={"air_cooled_chiller": fans} if fans else {},
        source="given",
        whole_towers=cooling_towers,
        fleet=fleet,
    )
    known = replace(
        known,
        accelerator=accelerator or known.accelerator,
        pue=pue or known.pue,
        pue_source="given" if pue else known.pue_source,
        grid_mw=known.grid_mw + (supply_mw or 0.0),
    )
    return _estimate(seen, ledger, known)


def _of_site(site: Site, date: dt.date | None, ledger: Ledger) -> _Circumstances:
    """What the site file says of a day; without a day no supply is taken for granted."""
    if site.supplies and date is None:
        ledger.notes.append(f"without a date none of the supplies of {site.id} is counted: give the date of the counts")
    supplies = [supply for supply in site.supplies if date is not None and supply.start <= date]
    for supply in supplies:
        ledger.constant(f"{supply.kind} from {supply.start}", supply.mw, "MW", supply.source)
    return _Circumstances(
        site_id=site.id,
        date=date,
        accelerator=site.accelerator,
        pue=site.pue,
        pue_source=site.pue_source,
        grid_mw=sum(supply.mw for supply in supplies if supply.kind == "grid"),
        contract_mw=sum(supply.mw for supply in supplies if supply.kind == "contract"),
        campus=site.campus if site.campus != site.id else None,
    )


def _check_date(site: Site, date: dt.date | None, stands: bool) -> None:
    """Equipment cannot stand where nothing had begun."""
    first = min(site.known_dates, key=lambda known: known.date, default=None)
    if stands and date is not None and first is not None and date < first.date:
        raise EstimateError(
            f"nothing stood at {site.id} on {date}: the first that is known of it is of {first.date} ({first.event}); "
            "check the date"
        )


def _ledger(tables: Tables | None, seed: int, draws: int, known_models: Mapping[str, str] | None) -> Ledger:
    if seed < 0:
        raise EstimateError(f"the seed must not be negative, got {seed}")
    if draws < 1:
        raise EstimateError(f"an estimate needs at least one draw, got {draws}")
    known = ("air_cooled_chiller", "gas_turbine", "battery")
    for cls in known_models or {}:
        if cls not in known:
            raise EstimateError(f"no table knows models of '{cls}' (known: {', '.join(known)})")
    return Ledger(tables or load_tables(), seed, draws, known_models or {})


def _estimate(seen: Seen, ledger: Ledger, known: _Circumstances) -> Estimate:
    mix = parse_mix(known.accelerator, ledger.tables) if known.accelerator else None
    cooling_by_class = cooling_mw(seen, ledger)
    missing = [cls for cls in COOLING_CLASSES if cls in seen.not_given]
    for cls in missing:
        ledger.notes.append(f"cooling and IT power are not given: {cls} could not be counted ({seen.not_given[cls]})")
    cooling = None if missing else sum(cooling_by_class.values(), np.zeros(ledger.draws))
    generation = generation_mw(seen, ledger)
    if generation is None:
        ledger.notes.append(
            f"generation and supply are not given: gas_turbine could not be counted ({seen.not_given['gas_turbine']})"
        )
    supply = None
    if generation is not None and (generation.any() or known.grid_mw or known.contract_mw):
        supply = supply_mw(generation, seen, known.grid_mw, known.contract_mw, ledger)

    it: np.ndarray | None = None
    by_cooling: np.ndarray | None = None
    facility_per_it: np.ndarray | None = None
    binding: dict[str, float] = {}
    if cooling is not None and _is_load(cooling, generation, ledger):
        pue = peak_pue(cooling_by_class, known.pue, known.pue_source, ledger)
        peak_draw = ledger.prior("peak_draw_share")
        facility_per_it = pue * peak_draw
        by_cooling = it_heat_mw(cooling_by_class, ledger) / peak_draw
        it, binding = by_cooling, {"cooling": 1.0, "supply": 0.0}
        if supply is not None and _supply_is_whole(seen, known, ledger):
            by_supply = supply / facility_per_it
            it = np.minimum(by_cooling, by_supply)
            of_supply = float(np.mean(by_supply < by_cooling))
            binding = {"cooling": 1.0 - of_supply, "supply": of_supply}
        elif supply is None:
            ledger.notes.append("supply was not observed at this site: IT power is what the cooling allows")

    stored = batteries(seen, ledger)
    if stored is None:
        ledger.notes.append(f"batteries are not given: they could not be counted ({seen.not_given['battery']})")
    load = None if it is None or facility_per_it is None else it * facility_per_it
    gpus: np.ndarray | None = None
    if it is not None and mix is not None:
        gpus = it * 1000 / draw_kw_per_chip(mix, ledger)
    elif mix is None:
        ledger.notes.append("GPUs are not given: no accelerator is named for this site")
    h100_equivalents = None if gpus is None or mix is None else gpus * h100_equivalents_per_chip(mix)
    return Estimate(
        site_id=known.site_id,
        scene_id=known.scene_id,
        date=known.date,
        rendered=known.rendered,
        cooling_mw=_interval(cooling),
        generation_mw=_interval(generation),
        supply_mw=_interval(supply),
        battery_mw=None if stored is None else Interval.of(stored[0]),
        battery_mwh=None if stored is None else Interval.of(stored[1]),
        ride_through_minutes=_interval(_ride_through_minutes(stored, load, ledger)),
        it_mw=_interval(it),
        gpus=_interval(None if gpus is None else np.rint(gpus)),
        h100_equivalents=_interval(h100_equivalents),
        binding=binding,
        accelerator=known.accelerator,
        inputs=tuple(ledger.inputs),
        sensitivity=causes_of_spread(
            {"cooling_mw": cooling, "generation_mw": generation, "supply_mw": supply, "it_mw": it, "gpus": gpus},
            ledger.causes,
        ),
        notes=tuple(ledger.notes),
        seed=ledger.seed,
        draws=ledger.draws,
        drawn=Drawn(cooling, generation, supply, by_cooling, facility_per_it, it, gpus, h100_equivalents),
    )


def _interval(draws: np.ndarray | None) -> Interval | None:
    return None if draws is None else Interval.of(draws)


def _is_load(cooling: np.ndarray, generation: np.ndarray | None, ledger: Ledger) -> bool:
    """A place with turbines and no cooling is a power plant, not a datacenter that runs nothing."""
    # A chance detection of one chiller must not turn a plant into a datacenter.
    plant = Interval.of(cooling).p5 == 0 and generation is not None and Interval.of(generation).p5 > 0
    if plant:
        ledger.notes.append("IT power is not given: turbines and no cooling equipment, so the load is elsewhere")
    return not plant


def _supply_is_whole(seen: Seen, known: _Circumstances, ledger: Ledger) -> bool:
    """Whether what is known of supply can limit IT power; a chance detection of one turbine must not."""
    if known.campus is not None:
        ledger.notes.append(
            f"supply does not limit IT power here: the campus {known.campus} may bring power from its other sites"
        )
        return False
    if known.grid_mw or known.contract_mw or seen.fleet or Interval.of(seen.counts["gas_turbine"]).p5 >= 1:
        return True
    ledger.notes.append("supply was not observed at this site: IT power is what the cooling allows")
    return False


def _ride_through_minutes(
    stored: tuple[np.ndarray, np.ndarray] | None, load_mw: np.ndarray | None, ledger: Ledger
) -> np.ndarray | None:
    if stored is None or load_mw is None or np.quantile(load_mw, 0.05) <= 0:
        return None
    power_mw, energy_mwh = stored
    if power_mw.any():
        share = np.minimum(1, power_mw / np.maximum(load_mw, 1e-9))
        ledger.record_derived("share of the load that the batteries can carry", share, "share", "battery power / load")
    return 60 * energy_mwh / np.maximum(load_mw, 1e-9)
