"""Accelerators: IT power and speed of a chip or of a mix of chips."""

from collections.abc import Mapping

import numpy as np

from pipelines.errors import EstimateError
from pipelines.ledger import Ledger
from pipelines.tables import Accelerator, Tables
from pipelines.unit_capacity import triangular

__all__ = ["H100_OPS8_PER_S", "draw_kw_per_chip", "h100_equivalents_per_chip", "parse_mix"]

H100_OPS8_PER_S = 1.979e15
"""8-bit operations a second of an H100, dense: the definition of an H100 equivalent (Epoch AI)."""


def parse_mix(text: str, tables: Tables) -> dict[Accelerator, float]:
    """Shares of chips by accelerator, from a name or from a mix such as "H100=0.75,H200=0.25".

    :raises EstimateError: an accelerator is unknown, or the shares are not positive numbers that sum to 1
    """
    by_name = {name.casefold(): chip for name, chip in tables.accelerators.items()}
    mix: dict[Accelerator, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        if name.casefold() not in by_name:
            raise EstimateError(
                f"accelerator '{name}' is not in accelerators.csv (known: {', '.join(tables.accelerators)})"
            )
        if by_name[name.casefold()] in mix:
            raise EstimateError(f"accelerator mix '{text}' names {name} twice; give it one share")
        try:
            mix[by_name[name.casefold()]] = float(share or 1)
        except ValueError:
            raise EstimateError(f"accelerator mix '{text}': the share '{share}' of {name} is not a number") from None
    if min(mix.values()) <= 0 or not abs(sum(mix.values()) - 1) < 0.01:
        raise EstimateError(
            f"accelerator mix '{text}': shares must be positive and sum to 1, as in H100=0.75,H200=0.25"
        )
    return mix


def draw_kw_per_chip(mix: Mapping[Accelerator, float], ledger: Ledger) -> np.ndarray:
    """Rated IT power of an average chip of the mix, in kW (draws,)."""
    kw = np.zeros(ledger.draws)
    for chip, share in mix.items():
        drawn = triangular(*chip.it_kw_range, ledger.rng(f"kW of {chip.name}"), ledger.draws)
        kw += share * ledger.record(f"IT power per {chip.name}", drawn, "kW", chip.source)
    return kw / sum(mix.values())


def h100_equivalents_per_chip(mix: Mapping[Accelerator, float]) -> float:
    """H100 equivalents of an average chip of the mix."""
    return sum(share * chip.ops8_per_s for chip, share in mix.items()) / sum(mix.values()) / H100_OPS8_PER_S
