"""Whether the intervals of a count hold: counts of rendered scenes, taken as a census takes them, against the truth.

A census states the fifth and the ninety-fifth percentile of how many units stand there, so the truth should lie between
them on nine scenes of ten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.calibration import calibrated
from models.classes import BY_NAME, OBJECT_CLASSES
from models.detector.card import COUNTED_FROM, RecallPoint
from models.training.goals import SITE_UNITS
from models.training.measuring import JudgedScenes
from models.training.uncertainty import Figure, ratio, share
from pipelines.census import Interval
from pipelines.counting import MIN_RECALL, applicable, draw_true_units, recall_at, stream

__all__ = ["CountScore", "Coverage", "SceneCount", "count_scenes", "count_score", "coverage_of"]


@dataclass(frozen=True)
class SceneCount:
    """The count of one class on one scene beside what stands there."""

    cls: str
    truth: int
    """Units whose centre lies in the judged part of the scene, kin of chillers left out."""
    counted: Interval | None
    """None where a census would not give the class."""


@dataclass(frozen=True)
class Coverage:
    """How often the interval p5 to p95 holds the truth, over scenes.

    Scenes without any unit are apart: an interval of nothing is right there without any merit.
    """

    scenes: int
    """That show units and got a count."""
    covered: int
    share: Figure | None
    below: int
    """Scenes with more units than the interval allows."""
    above: int
    """Scenes with fewer."""
    empty: int
    """Scenes without units that got a count."""
    empty_counted: int
    """Of these, where the middle of the count is above zero."""
    empty_excluded: int
    """Of these, where the interval excludes zero."""
    not_given: int
    """Scenes with units where a census gives no count: too coarse, or too few would be found."""


@dataclass(frozen=True)
class CountScore:
    """The corrected count (p50) of one class on scenes of one GSD."""

    cls: str
    gsd_m: float
    error: Figure | None
    """Mean over the scenes that show units of |count - units| / units.

    A third of the scenes, of 134 m, show fewer than five, so that an error of one decides.
    """
    site_scenes: int
    """Scenes that show as many units as a site does: `SITE_UNITS` and more."""
    site_error: Figure | None
    """The same mean over these: what the count of one site is off by."""
    total: Figure | None
    """Counts of all scenes over units of all scenes, less one: what is left when errors cancel."""
    coverage: Coverage


def count_scenes(
    scenes: JudgedScenes,
    calibration: Mapping[str, tuple[float, float]],
    recall: Mapping[str, Sequence[RecallPoint]],
    seed: int = 0,
) -> tuple[SceneCount, ...]:
    """Count every class of unit on every scene, from what lies in its judged part, as `take_census` counts a site.

    Kin of chillers, and what was detected on it, is left out.
    """
    counts = []
    for cls in OBJECT_CLASSES:
        judged = scenes.judged[cls]
        probability = calibrated(judged.score, calibration[cls])
        truth = np.bincount(judged.unit_image, minlength=len(scenes.native_gsd_m))
        for number, gsd_m in enumerate(scenes.native_gsd_m):
            mine = probability[(judged.image == number) & (probability >= COUNTED_FROM)]
            counted = None
            if BY_NAME[cls].resolved_at(float(gsd_m)):
                counted = _counted(mine, recall[cls], float(gsd_m), stream(seed, f"{cls} on {scenes.gsd_m} {number}"))
            counts.append(SceneCount(cls, int(truth[number]), counted))
    return tuple(counts)


def count_score(cls: str, gsd_m: float, counts: Sequence[SceneCount]) -> CountScore:
    """What the counts of a class on scenes of a GSD are worth; counts of other classes are passed over."""
    mine = [count for count in counts if count.cls == cls]
    given = [(count.counted.p50, count.truth) for count in mine if count.counted is not None]
    middle, truth = np.array(given, float).reshape(-1, 2).T
    total = ratio(middle, truth)

    def error(least: int) -> Figure | None:
        shown = truth >= least
        return ratio(np.abs(middle[shown] - truth[shown]) / truth[shown], np.ones(int(shown.sum())))

    return CountScore(
        cls=cls,
        gsd_m=gsd_m,
        error=error(1),
        site_scenes=int((truth >= SITE_UNITS).sum()),
        site_error=error(SITE_UNITS),
        total=None if total is None else Figure(*(round(end - 1, 4) for end in (total.value, total.low, total.high))),
        coverage=coverage_of(mine),
    )


def coverage_of(counts: Sequence[SceneCount]) -> Coverage:
    """How often the intervals hold the truth, whatever the classes."""
    given = [(count.counted, count.truth) for count in counts if count.counted is not None]
    shown = [(interval, truth) for interval, truth in given if truth > 0]
    empty = [interval for interval, truth in given if truth == 0]
    below = sum(truth > interval.p95 for interval, truth in shown)
    above = sum(truth < interval.p5 for interval, truth in shown)
    covered = len(shown) - below - above
    return Coverage(
        scenes=len(shown),
        covered=covered,
        share=share(covered, len(shown)),
        below=below,
        above=above,
        empty=len(empty),
        empty_counted=sum(interval.p50 > 0 for interval in empty),
        empty_excluded=sum(interval.p5 > 0 for interval in empty),
        not_given=sum(count.counted is None and count.truth > 0 for count in counts),
    )


def _counted(
    probability: np.ndarray, recall: Sequence[RecallPoint], gsd_m: float, rng: np.random.Generator
) -> Interval | None:
    points = applicable(recall, probability)
    measured = recall_at(points, gsd_m)
    if measured is None or measured < MIN_RECALL:
        return None
    if len(probability) == 0:
        return Interval(0.0, 0.0, 0.0)
    return Interval.of(draw_true_units(probability, points, gsd_m, rng))
