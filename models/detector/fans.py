"""How many fans a chiller has, by the period of their pattern along it.

A network that has seen some twenty models tells how many fans a unit of this length has had; of a model that it has
not seen it says the mean. Two rows of fans are a wave, whose length is the pitch of the fans: 0.9 to 1.8 m, 3 to 6 px.
"""

import math

import torch
from torch.nn import functional

from models.classes import OBJECT_CLASSES

CHILLER = OBJECT_CLASSES.index("air_cooled_chiller")
ROWS = 2
"""Rows of fans on units up to `WIDEST_PX`, as all data sheets of that width have it."""
WIDEST_PX = 9.2
"""2.75 m: wider units have three rows and more, or are none of the data sheets', and keep what was regressed."""
FAN_ZONE = 0.96
"""Share of a unit's length that bears fans; the rest is the control section, which half of the units have."""
REGRESSED_SPREAD = 0.12
"""Standard deviation of the natural logarithm by which the regressed number may be off."""
_WAVES = (0.14, 0.44, 0.002)
"""Waves a pixel, from, to and by: pitches of 2.1 m to 0.68 m."""
_TREND_PX = 9
"""Brightness is taken against its mean over so many pixels: edges of cabinets and shadows are no fans."""
_STRIP = 0.42
"""Half of the strip across that is looked at, as a share of the width: the rim belongs to shadow and ground."""


def by_period(
    cutouts: torch.Tensor,
    seen: torch.Tensor,
    length_px: torch.Tensor,
    width_px: torch.Tensor,
    regressed: torch.Tensor,
) -> torch.Tensor:
    """Number of fans, float32 (n,), of units in the middle of `cutouts` (n, 3, H, W), their long axis to the right.

    The likeliest wave along the unit, each side of its axis for itself, where `regressed` (n,) is the prior. `seen`
    (n, H, W) says which pixels may be looked at. Units wider than `WIDEST_PX` keep what was regressed.
    """
    height, width = cutouts.shape[2:]
    along = torch.arange(width, device=cutouts.device) + 0.5 - width / 2
    across = torch.arange(height, device=cutouts.device) + 0.5 - height / 2
    waves = torch.arange(*_WAVES, device=cutouts.device)
    phase = 2 * math.pi * along[:, None] * waves
    on_unit = (seen & (across.abs()[:, None] <= _STRIP * width_px[:, None, None])).float()
    on_unit = on_unit * (along.abs() <= length_px[:, None, None] / 2)
    taper = (math.pi * along / length_px[:, None].clamp(min=1)).cos().clamp(min=0).sqrt()
    grey, power = cutouts.mean(dim=1), torch.zeros(len(cutouts), len(waves), device=cutouts.device)
    for side in (across < 0, across > 0):
        here = on_unit * side[:, None]
        cells = here.sum(dim=1)
        profile, shown = (grey * here).sum(dim=1) / cells.clamp(min=1), (cells > 0).float()
        wave = (profile - _mean_about(profile, shown)) * taper * shown
        power = power + (wave @ phase.cos()).square() + (wave @ phase.sin()).square()
    columns = FAN_ZONE * length_px[:, None] * waves
    off = (ROWS * columns / regressed[:, None].clamp(min=1)).log() / REGRESSED_SPREAD
    best = ((power + 1e-9).log() - off.square() / 2).argmax(dim=1, keepdim=True)
    counted = ROWS * columns.gather(1, best).squeeze(1).round().clamp(min=1)
    return torch.where(width_px <= WIDEST_PX, counted, regressed)


def _mean_about(profile: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Mean of a profile (n, W) over `_TREND_PX`, of what is shown."""
    kernel = torch.ones(1, 1, _TREND_PX, device=profile.device)
    total, number = (
        functional.conv1d(part[:, None], kernel, padding=_TREND_PX // 2)[:, 0] for part in (profile * shown, shown)
    )
    return total / number.clamp(min=1)
