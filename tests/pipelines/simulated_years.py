"""Simulated surface reflectance of zones and their surroundings over years: season, haze, light, noise, clouds.

Nothing here is measured. Covers have the reflectance that is usual for them; what differs between two patches of one
cover, and from date to date, is drawn.
"""

from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from pipelines.cue import Series

BANDS = ("blue", "green", "red", "nir", "swir16")
WINTER = {
    "grass": (0.06, 0.08, 0.10, 0.22, 0.26),
    "crop": (0.08, 0.10, 0.13, 0.21, 0.29),
    "wood": (0.04, 0.05, 0.06, 0.20, 0.17),
    "soil": (0.10, 0.14, 0.19, 0.26, 0.36),
    "concrete": (0.22, 0.25, 0.27, 0.30, 0.32),
    "asphalt": (0.09, 0.10, 0.11, 0.13, 0.16),
    "roof": (0.45, 0.47, 0.48, 0.50, 0.44),
}
SUMMER = WINTER | {
    "grass": (0.04, 0.08, 0.06, 0.38, 0.22),
    "crop": (0.03, 0.07, 0.04, 0.45, 0.18),
    "wood": (0.03, 0.05, 0.03, 0.36, 0.15),
}
COVERS = ("grass", "crop", "wood", "soil", "asphalt")
EVERY_DAYS = 5
CLOUDY = 0.5


def days(count: int, start: date = date(2025, 1, 3)) -> list[date]:
    return [start + timedelta(days=EVERY_DAYS * i) for i in range(count)]


def reflectance(cover: str, when: date, late_days: float = 0.0, vigour: float = 1.0) -> NDArray[np.float64]:
    """(5,) of `BANDS`; vegetation is at its height in July, `late_days` later in this patch."""
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (when.timetuple().tm_yday - 15 - late_days) / 365.25)
    share = np.clip(summer * vigour, 0, 1.2)
    return np.array(WINTER[cover]) * (1 - share) + np.array(SUMMER[cover]) * share


def features(bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 5) to (..., 3): brightness, greenness, bareness."""
    visible, red, nir, swir = bands[..., :3].mean(axis=-1), bands[..., 2], bands[..., 3], bands[..., 4]
    return np.stack([visible, nir - red, swir - nir], axis=-1)


def seen(truth: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(patches, 5) through the air and the sensor of one date: haze, light and what correction leaves of them."""
    haze = rng.gamma(1.5, 0.006) * np.array([1.6, 1.1, 0.8, 0.3, 0.1])
    gain = 1 + rng.normal(0, 0.02) + rng.normal(0, 0.006, 5)
    uneven = rng.normal(0, 0.002, truth.shape)
    return truth * gain * (1 - haze) + haze + uneven


def simulate(
    rng: np.random.Generator,
    when: list[date],
    cover: str,
    becomes: str | None = None,
    broken: date | None = None,
    takes_days: float = 10.0,
    share: float = 1.0,
    patches: int = 24,
) -> tuple[list[date], Series]:
    """A zone among patches of all covers on the dates without clouds; from `broken` on a share of it becomes another.

    Wetness of the soil and mowing or tilling of single patches are part of an undisturbed year.
    """
    covers = [cover, *rng.choice(COVERS, patches, p=[0.35, 0.25, 0.2, 0.1, 0.1])]
    late, vigour = rng.normal(0, 12, patches + 1), rng.normal(1, 0.12, patches + 1)
    own = np.exp(rng.normal(0, 0.08, (patches + 1, 1))) * np.exp(rng.normal(0, 0.02, (patches + 1, 5)))
    cut = np.where(rng.random(patches + 1) < 0.3, rng.uniform(120, 300, patches + 1), np.inf)
    kept, rows = [], []
    for day in when:
        if rng.random() < CLOUDY:
            continue
        truth = np.array([reflectance(*one) for one in zip(covers, [day] * len(covers), late, vigour, strict=True)])
        past = day.timetuple().tm_yday - cut
        mown = ((past > 0) & (past < 25) & np.isin(covers, ("grass", "crop")))[1:]
        # What is mown is half as green for some weeks; the zone's own fate is told apart.
        truth[1:][mown, 3] *= 0.75
        truth *= own * (1 - 0.08 * rng.random() * np.isin(covers, ("soil", "crop"))[:, None])
        if broken is not None and becomes is not None and day >= broken:
            done = share * min(1.0, ((day - broken).days + 1) / takes_days)
            truth[0] = truth[0] * (1 - done) + reflectance(becomes, day) * done
        kept.append(day)
        rows.append(features(seen(truth, rng)))
    values = np.array(rows)
    return kept, Series(values[:, 0], values[:, 1:])
