"""What is known about a set of detector weights: how they were made, and what they were measured to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.classes import CLASSES

MIN_PROBABILITY = 0.3
"""Detections below it are not shown."""
COUNTED_FROM = 0.1
"""From this probability on a detection goes into a count, each for what it is worth, and a unit counts as found: the
census divides by that recall. Of scenes where all is faint a count from `MIN_PROBABILITY` on would say "none"."""
CERTAIN = 0.9
"""Mean probability of an image's detections of a class, of `MIN_PROBABILITY` and more, from which the detector counts
as certain of them. Fainter ones do not decide that: a large site has much ground for them beside its units."""


@dataclass(frozen=True)
class RecallPoint:
    """Units found (a detection of `COUNTED_FROM` or more) among units shown, at one native GSD."""

    gsd_m: float
    found: int
    total: int
    certain: bool = True
    """Measured on images that the detector was certain of, see `CERTAIN`, or on the others.

    Where haze, shadow or blur hide units, those that are found are uncertain too; a sharp scene, where all are
    certain, must not be corrected for the misses of the others.
    """
    spread_logit: float = 0.0
    """Standard deviation from image to image of the log-odds that a unit is found, which `found` out of `total`, of all
    images together, does not tell: most images hide nothing, a few hide most of what they show."""


@dataclass(frozen=True)
class WeightsCard:
    """What the weights are, how they were made, and what they were measured to do."""

    recipe: Mapping[str, Any]
    """Arguments of the training, enough to repeat it."""
    seed: int
    code_version: str
    metrics: Mapping[str, Any]
    """Measured on rendered validation chips and on held-out real backgrounds, apart."""
    calibration: Mapping[str, tuple[float, float]]
    """By class, a and b of probability = sigmoid(a * logit(score) + b); a > 0."""
    recall: Mapping[str, tuple[RecallPoint, ...]]
    """By class, in order of GSD; measured on chips that the calibration did not see."""

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> "WeightsCard":
        """Card from its JSON form; KeyError or TypeError where it is not one."""
        return cls(
            recipe=card["recipe"],
            seed=card["seed"],
            code_version=card["code_version"],
            metrics=card["metrics"],
            calibration={name: (card["calibration"][name][0], card["calibration"][name][1]) for name in CLASSES},
            recall={name: tuple(RecallPoint(**point) for point in card["recall"][name]) for name in CLASSES},
        )
