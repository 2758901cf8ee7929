"""The data tables: equipment, accelerators, priors and published figures, read from CSV into values.

A column's name ends in its unit (`capacity_kw`), so a table in another unit is refused instead of misread; every row
names its source. A table that cannot be trusted raises `TableError` naming file, line and column.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

from pipelines.errors import TableError
from pipelines.settings import ROOT

__all__ = [
    "DATA",
    "Accelerator",
    "Battery",
    "Chiller",
    "CoolingTower",
    "DryCooler",
    "Prior",
    "Published",
    "PublishedCount",
    "Tables",
    "TrackedPlace",
    "Turbine",
    "latest_published",
    "load_places",
    "load_published",
    "load_published_counts",
    "load_tables",
]

DATA = ROOT / "data"
"""Folder of the tables: `equipment/*.csv`, `accelerators.csv`, `reference/published.csv`."""

UNITS = frozenset({"m", "m2", "ft", "ft2", "mm", "kw", "mw", "w", "kwh", "mwh", "s", "tons", "x"})
"""Words in a column's name that are taken for units when a header is wrong."""


@dataclass(frozen=True)
class Chiller:
    """An air-cooled chiller of a data sheet."""

    manufacturer: str
    model: str
    length_m: float
    width_m: float
    fans: int
    capacity_kw: float
    """Nameplate cooling capacity, at about 35 C air."""
    source: str


@dataclass(frozen=True)
class CoolingTower:
    """A cooling tower model of a catalogue."""

    manufacturer: str
    model: str
    area_m2: float
    capacity_kw: float
    source: str


@dataclass(frozen=True)
class DryCooler:
    """What is believed of one fan cell of a dry-cooler array."""

    name: str
    cell_kw_low: float
    cell_kw: float
    cell_kw_high: float
    """Upper bound of a cell, whatever its size."""
    flux_kw_per_m2: float
    flux_spread_x: float
    """80% of cells lie within this factor of the flux."""
    source: str

    @property
    def cell_kw_range(self) -> tuple[float, float, float]:
        """Low, most likely and high."""
        return self.cell_kw_low, self.cell_kw, self.cell_kw_high


@dataclass(frozen=True)
class Turbine:
    """A gas turbine package."""

    model: str
    power_mw_low: float
    power_mw: float
    power_mw_high: float
    length_m: float
    width_m: float
    size_spread_x: float
    """80% of packages lie within this factor of length and of width."""
    prior_weight: float
    source: str

    @property
    def power_mw_range(self) -> tuple[float, float, float]:
        """Low, most likely and high."""
        return self.power_mw_low, self.power_mw, self.power_mw_high


@dataclass(frozen=True)
class Battery:
    """A battery unit."""

    model: str
    power_mw_low: float
    power_mw: float
    power_mw_high: float
    energy_mwh_low: float
    energy_mwh: float
    energy_mwh_high: float
    length_m: float
    width_m: float
    prior_weight: float
    source: str

    @property
    def power_mw_range(self) -> tuple[float, float, float]:
        """Low, most likely and high."""
        return self.power_mw_low, self.power_mw, self.power_mw_high

    @property
    def energy_mwh_range(self) -> tuple[float, float, float]:
        """Low, most likely and high."""
        return self.energy_mwh_low, self.energy_mwh, self.energy_mwh_high


@dataclass(frozen=True)
class Accelerator:
    """A chip, with its share of everything that counts as IT."""

    name: str
    it_kw_low: float
    it_kw: float
    """Rated IT power per chip: its share of the server's rating x 1.14 for network, storage and the rest."""
    it_kw_high: float
    ops8_per_s: float
    """8-bit operations a second, dense."""
    source: str

    @property
    def it_kw_range(self) -> tuple[float, float, float]:
        """Low, most likely and high."""
        return self.it_kw_low, self.it_kw, self.it_kw_high


@dataclass(frozen=True)
class Prior:
    """A quantity nobody measured here: a triangular distribution."""

    name: str
    unit: str
    low: float
    mode: float
    high: float
    source: str

    @property
    def range(self) -> tuple[float, float, float]:
        """Low, most likely and high."""
        return self.low, self.mode, self.high


@dataclass(frozen=True)
class Published:
    """What others published of a site for a day or a period."""

    site: str
    date_from: date
    date_to: date
    """Equal to `date_from` unless only a month or a season is known."""
    scope: str
    """What the figures cover; it may be more than the site."""
    chillers: int | None
    turbines: int | None
    batteries: int | None
    cooling_mw: float | None
    generation_mw: float | None
    it_mw: float | None
    facility_mw: float | None
    accelerator: str | None
    gpus: int | None
    h100_equivalents: float | None
    source: str


@dataclass(frozen=True)
class PublishedCount:
    """Equipment that others counted at a site on a date, with the figures they published beside it."""

    site: str
    date: date
    use: str
    """`fit`: an input of the method was taken from this row; `score`: none was."""
    bound: str | None
    """`lower` or `upper` where the figures are published as no more than that."""
    chillers: int | None
    chiller_length_m: float | None
    chiller_width_m: float | None
    dry_cooler_cells: int | None
    cooling_towers: int | None
    """Whole towers, as people count them."""
    cooling_tower_cells: int | None
    turbines: str | None
    """`N` and `MODEL:N`, with spaces between."""
    batteries: int | None
    accelerator: str | None
    cooling_mw: float | None
    generation_mw: float | None
    battery_mw: float | None
    it_mw: float | None
    gpus: float | None
    remark: str | None
    source: str


@dataclass(frozen=True)
class TrackedPlace:
    """Where a site of the reference data is."""

    name: str
    latitude_deg: float
    longitude_deg: float
    source: str


@dataclass(frozen=True)
class Tables:
    """Everything an estimate looks up."""

    chillers: tuple[Chiller, ...]
    cooling_towers: tuple[CoolingTower, ...]
    dry_cooler: DryCooler
    turbines: tuple[Turbine, ...]
    batteries: tuple[Battery, ...]
    accelerators: Mapping[str, Accelerator]
    """By name."""
    priors: Mapping[str, Prior]
    """By name."""
    folder: Path

    def prior(self, name: str) -> Prior:
        """The prior called so.

        :raises TableError: the table of priors lacks it
        """
        if name not in self.priors:
            raise TableError(f"{self.folder / 'equipment' / 'priors.csv'}: there is no row '{name}'; add it")
        return self.priors[name]


def load_tables(folder: Path = DATA) -> Tables:
    """Read the equipment and accelerator tables.

    :raises TableError: a table is missing, empty, or has a wrong column or value
    """
    equipment = folder / "equipment"
    turbines = _read(equipment / "turbines.csv", Turbine)
    batteries = _read(equipment / "batteries.csv", Battery)
    accelerators = _read(folder / "accelerators.csv", Accelerator)
    priors = _read(equipment / "priors.csv", Prior)
    dry = _read(equipment / "dry_coolers.csv", DryCooler)[0]
    for turbine in turbines:
        _check_order(equipment / "turbines.csv", turbine.model, *turbine.power_mw_range)
    for battery in batteries:
        _check_order(equipment / "batteries.csv", battery.model, *battery.power_mw_range)
        _check_order(equipment / "batteries.csv", battery.model, *battery.energy_mwh_range)
    for chip in accelerators:
        _check_order(folder / "accelerators.csv", chip.name, *chip.it_kw_range)
    for prior in priors:
        _check_order(equipment / "priors.csv", prior.name, *prior.range)
    _check_order(equipment / "dry_coolers.csv", dry.name, *dry.cell_kw_range)
    return Tables(
        chillers=_read(equipment / "chillers.csv", Chiller),
        cooling_towers=_read(equipment / "cooling_towers.csv", CoolingTower),
        dry_cooler=dry,
        turbines=turbines,
        batteries=batteries,
        accelerators={chip.name: chip for chip in accelerators},
        priors={prior.name: prior for prior in priors},
        folder=folder,
    )


def load_published(path: Path = DATA / "reference" / "published.csv") -> tuple[Published, ...]:
    """Read the published figures, in the order of the file.

    :raises TableError: the table is missing, empty, or has a wrong column or value
    """
    rows = _read(path, Published)
    for row in rows:
        if row.date_to < row.date_from:
            raise TableError(f"{path}: {row.site} {row.date_from}: date_to lies before date_from; swap them")
    return rows


def load_published_counts(path: Path = DATA / "reference" / "backtest.csv") -> tuple[PublishedCount, ...]:
    """Read the counts that a backtest starts from, in the order of the file.

    :raises TableError: the table is missing, empty, or has a wrong column or value
    """
    rows = _read(path, PublishedCount)
    for row in rows:
        at = f"{path}: {row.site} {row.date}"
        if row.use not in ("fit", "score"):
            raise TableError(f"{at}: use must be fit or score, got '{row.use}'")
        if row.bound not in (None, "lower", "upper"):
            raise TableError(f"{at}: bound must be lower, upper or empty, got '{row.bound}'")
        given = [
            figure
            for figure in (row.cooling_mw, row.generation_mw, row.battery_mw, row.it_mw, row.gpus)
            if figure is not None
        ]
        if not given or min(given) <= 0:
            raise TableError(f"{at}: nothing is published to compare with; every figure given must be over zero")
    return rows


def load_places(path: Path = DATA / "reference" / "places.csv") -> tuple[TrackedPlace, ...]:
    """Read where the sites of the reference data are.

    :raises TableError: the table is missing, empty, or has a wrong column or value
    """
    return _read(path, TrackedPlace)


def latest_published(rows: tuple[Published, ...], site: str, day: date, figure: str) -> Published | None:
    """The latest row about a site that gives a figure for that day or before it, or None.

    :param figure: a field of `Published`, such as "chillers" or "it_mw"
    """
    known = [row for row in rows if row.site == site and row.date_from <= day and getattr(row, figure) is not None]
    return max(known, key=lambda row: row.date_from, default=None)


Row = TypeVar(
    "Row",
    Chiller,
    CoolingTower,
    DryCooler,
    Turbine,
    Battery,
    Accelerator,
    Prior,
    Published,
    PublishedCount,
    TrackedPlace,
)


def _read(path: Path, row_type: type[Row]) -> tuple[Row, ...]:
    """Read a CSV whose columns are the fields of `row_type`; further columns are allowed and ignored."""
    columns: dict[str, Any] = {field.name: field.type for field in fields(row_type)}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(path, columns, reader.fieldnames or [])
            rows = []
            for cells in reader:
                at = f"{path}: line {reader.line_num}"
                rows.append(row_type(**{name: _value(at, name, kind, cells[name]) for name, kind in columns.items()}))
    except FileNotFoundError:
        raise TableError(f"{path}: the table is missing; restore it from the repository") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: the table cannot be read as CSV in UTF-8 ({error})") from None
    if not rows:
        raise TableError(f"{path}: the table has no rows; restore it from the repository")
    return tuple(rows)


def _check_header(path: Path, columns: Mapping[str, object], header: Sequence[str]) -> None:
    for column in columns:
        if column in header:
            continue
        other = [name for name in header if name not in columns and _without_unit(name) == _without_unit(column)]
        if other:
            raise TableError(f"{path}: column {other[0]} has the wrong unit; convert it and call it {column}")
        raise TableError(f"{path}: column {column} is missing; its header must name {', '.join(columns)}")


def _without_unit(column: str) -> list[str]:
    return [word for word in column.split("_") if word not in UNITS]


def _value(at: str, column: str, kind: object, cell: str | None) -> Any:
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    text = (cell or "").strip()
    where = f"{at}, column {column}"
    if not text:
        if type(None) in options:
            return None
        raise TableError(f"{where} is empty; fill it in")
    if options[0] is str:
        return text
    try:
        if options[0] is date:
            return date.fromisoformat(text)
        number = float(text)
    except ValueError:
        wanted = "a date YYYY-MM-DD" if options[0] is date else "a number"
        raise TableError(f"{where} must be {wanted}, got '{text}'") from None
    signed = column.endswith("_deg")
    if not math.isfinite(number) or (number < 0 and not signed) or (options[0] is int and not number.is_integer()):
        wanted = "a whole number, not negative" if options[0] is int else "a finite number, not negative"
        raise TableError(f"{where} must be {wanted}, got '{text}'")
    return int(number) if options[0] is int else number


def _check_order(path: Path, name: str, low: float, mode: float, high: float) -> None:
    if not (low <= mode <= high and low < high):
        raise TableError(f"{path}: row '{name}': low, most likely and high must rise, got {low:g}, {mode:g}, {high:g}")
