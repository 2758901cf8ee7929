"""Labels that a person has corrected on a real scene, and what training on them changed where it did not see them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from models.calibration import calibrated
from models.classes import CLASSES
from models.detector.detector import Detector
from models.training.chip_pool import PooledChip
from models.training.evaluation import COUNTED, Judged, found_units, judge

__all__ = ["HALO_PX", "HELD_OUT_CORE_PX", "Corrected", "digest", "held_out_change"]

HELD_OUT_CORE_PX, HALO_PX = 256, 96
"""Held-out chips are judged in their core; around it lies what the network looks at, its halo in the engine."""
CHANCE = 0.1
"""A change that chance alone makes more often than this is too small to tell."""


@dataclass(frozen=True)
class Corrected:
    """One scene with its corrected labels, cut into chips."""

    chips: tuple[PooledChip, ...]
    """To train on; of any size."""
    held_out: tuple[PooledChip, ...]
    """To measure on, of one size; units are judged in the core alone."""
    about: Mapping[str, Any]
    """For the recipe: scene, checksum, licence, counts by class, which ground is held out."""


def digest(chips: Sequence[PooledChip]) -> str:
    """What chips are, in 16 hexadecimal digits, so that a checkpoint is not gone on with on others; empty for none."""
    if not chips:
        return ""
    made = hashlib.sha256()
    for chip in chips:
        labels = chip.labels
        for table in (chip.image, labels.objects, labels.texts, labels.ignored, labels.unseen):
            made.update(f"{table.shape}".encode())
            made.update(np.ascontiguousarray(table).data)
    return made.hexdigest()[:16]


def held_out_change(before: Detector, after: Detector, corrected: Sequence[Corrected]) -> dict[str, Any]:
    """Recall, precision and false positives on held-out chips before and after, each with its own calibration.

    By class, and `all` together; only classes that are labelled or were detected. `verdict` says of recall and of false
    positives whether they are better or worse, or that too few changed to tell: a sign test on the units that one
    found and the other did not, and a binomial test on the numbers of false positives.
    """
    chips = [chip for one in corrected for chip in one.held_out]
    images, labels = [chip.image for chip in chips], [chip.scored for chip in chips]
    seen = [judge(detector, images, labels) if chips else {} for detector in (before, after)]
    rows: dict[str, Any] = {}
    for name in CLASSES if chips else ():
        pair = [
            _Outcome.of(found[name], detector.card.calibration[name])
            for found, detector in zip(seen, (before, after), strict=True)
        ]
        if len(pair[0].found) or any(one.false for one in pair):
            rows[name] = pair
    if rows:
        rows["all"] = [_Outcome.together([pair[side] for pair in rows.values()]) for side in (0, 1)]
    return {name: _row(*pair) for name, pair in rows.items()}


@dataclass(frozen=True)
class _Outcome:
    """What a detector did on held-out chips."""

    found: np.ndarray
    """bool, by unit."""
    hits: int
    false: int

    @classmethod
    def of(cls, judged: Judged, calibration: tuple[float, float]) -> "_Outcome":
        counted = calibrated(judged.score, calibration) >= COUNTED
        return cls(found_units(judged, calibration), int(judged.hit[counted].sum()), int((~judged.hit[counted]).sum()))

    @classmethod
    def together(cls, parts: Sequence["_Outcome"]) -> "_Outcome":
        return cls(
            np.concatenate([part.found for part in parts]),
            sum(part.hits for part in parts),
            sum(part.false for part in parts),
        )

    def record(self) -> dict[str, Any]:
        units, detected = len(self.found), self.hits + self.false
        return {
            "found": int(self.found.sum()),
            "recall": round(float(self.found.mean()), 4) if units else None,
            "precision": round(self.hits / detected, 4) if detected else None,
            "false_positives": self.false,
        }


def _row(before: _Outcome, after: _Outcome) -> dict[str, Any]:
    gained, lost = int((after.found & ~before.found).sum()), int((before.found & ~after.found).sum())
    return {
        "units": len(before.found),
        "before": before.record(),
        "after": after.record(),
        "verdict": {
            "recall": _verdict(gained, lost),
            "false_positives": _verdict(before.false, after.false),
        },
    }


def _verdict(good: int, bad: int) -> str:
    if good == bad or binomtest(good, good + bad).pvalue > CHANCE:
        return "too few to tell"
    return "better" if good > bad else "worse"
