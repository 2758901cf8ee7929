"""The ledger of one estimate: what was seen, every input drawn with its source, and what a reader must be told.

An estimate is traceable because nothing uncertain enters it except through a ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.census import Interval
from pipelines.counting import stream
from pipelines.tables import Prior, Tables
from pipelines.unit_capacity import triangular

__all__ = ["Input", "Ledger", "Seen"]


@dataclass(frozen=True)
class Input:
    """One named input of an estimate."""

    name: str
    value: Interval
    unit: str
    source: str

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "value": self.value.as_record(), "unit": self.unit, "source": self.source}


@dataclass(frozen=True)
class Seen:
    """Equipment an estimate starts from."""

    counts: Mapping[str, np.ndarray]
    """Draws of the number of units (draws,) by class; a class that was not given is absent, never zero."""
    not_given: Mapping[str, str]
    """Classes without a count, with the reason."""
    size_m: Mapping[str, tuple[float, float]]
    """Median length and width of a unit by class, where measured."""
    size_error_m: float
    """Standard deviation of the error that all measured sizes share."""
    fans_per_unit: Mapping[str, float]
    """By class, where the scene shows them."""
    source: str
    """Where counts and sizes come from."""
    size_seed: int = 0
    """Of the error of the sizes, which another scene of the same place has anew."""
    whole_towers: int = 0
    """Cooling towers counted as structures, of several fan cells each; `counts` holds cells."""
    fleet: Mapping[str, int] = field(default_factory=dict)
    """Gas turbines by model or size class, besides those in `counts`, whose model is not known."""

    def stands(self, cls: str) -> bool:
        """Whether any unit of the class may stand there."""
        otherwise = {"cooling_tower": self.whole_towers > 0, "gas_turbine": bool(self.fleet)}
        return cls in self.counts and (bool(self.counts[cls].any()) or otherwise.get(cls, False))


@dataclass
class Ledger:
    """Draws inputs and writes them down."""

    tables: Tables
    seed: int
    draws: int
    known_models: Mapping[str, str] = field(default_factory=dict)
    """Model by class where someone knows it."""
    inputs: list[Input] = field(default_factory=list)
    causes: dict[str, np.ndarray] = field(default_factory=dict)
    """Draws of the inputs that are independent of each other, by name."""
    notes: list[str] = field(default_factory=list)

    def rng(self, name: str) -> np.random.Generator:
        """The random numbers of one input."""
        return stream(self.seed, name)

    def prior(self, name: str) -> np.ndarray:
        """Draw (draws,) from the table of priors."""
        row: Prior = self.tables.prior(name)
        drawn = triangular(*row.range, self.rng(name), self.draws)
        return self.record(name.replace("_", " "), drawn, row.unit, row.source)

    def record(self, name: str, drawn: np.ndarray, unit: str, source: str) -> np.ndarray:
        """Write down an input that was drawn independently of all others, and give it back."""
        return self.record_derived(name, drawn, unit, source, own=drawn)

    def record_derived(
        self, name: str, drawn: np.ndarray, unit: str, source: str, own: np.ndarray | None = None
    ) -> np.ndarray:
        """Write down a quantity that follows from other inputs, and give it back.

        :param own: draws of what it has besides them, independent of all others
        """
        self.inputs.append(Input(name, Interval.of(drawn), unit, source))
        if own is not None:
            self.causes[name] = own
        return drawn

    def constant(self, name: str, value: float, unit: str, source: str) -> np.ndarray:
        """Write down an input taken as exact."""
        return self.record(name, np.full(self.draws, float(value)), unit, source)
