"""Whether count intervals hold, with detectors whose honesty is known because they are made up."""

import numpy as np
import pytest

from models.classes import CLASSES
from models.detector.card import RecallPoint
from models.training.evaluation import Judged
from models.training.measuring import JudgedScenes
from pipelines.census import Interval
from pipelines.interval_coverage import SceneCount, count_scenes, count_score, coverage_of

NOTHING = Judged(*(np.zeros(0, kind) for kind in (int, float, bool, float, float, int, float, float)))
AS_SCORED = dict.fromkeys(CLASSES, (1.0, 0.0))
RECALL = 0.9
SCENES = 40


def simulated(stated: float, right: float, cls: str = "air_cooled_chiller", gsd_m: float = 0.3) -> JudgedScenes:
    """Scenes of some 20 units of which `RECALL` is found, and false detections so that a share `right` is right."""
    rng = np.random.default_rng(3)
    image, hit, unit_image = [], [], []
    for number in range(SCENES):
        units = int(rng.integers(10, 30))
        found = int(rng.binomial(units, RECALL))
        false = int(rng.negative_binomial(found, right))
        image += [number] * (found + false)
        hit += [True] * found + [False] * false
        unit_image += [number] * units
    n, m = len(image), len(unit_image)
    judged = Judged(
        np.array(image),
        np.full(n, stated),
        np.array(hit),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.array(unit_image),
        np.zeros(m),
        np.zeros(m),
    )
    return JudgedScenes(gsd_m, (), np.full(SCENES, gsd_m), {**dict.fromkeys(CLASSES, NOTHING), cls: judged}, NOTHING)


def recall_of(share: float) -> dict[str, tuple[RecallPoint, ...]]:
    points = tuple(RecallPoint(0.3, round(2000 * share), 2000, certain) for certain in (True, False))
    return dict.fromkeys(CLASSES, points)


def test_an_honest_detector_is_covered_and_an_over_confident_one_is_not() -> None:
    counts = count_scenes(simulated(0.8, 0.8), AS_SCORED, recall_of(RECALL))
    honest = count_score("air_cooled_chiller", 0.3, counts)
    assert honest.coverage.scenes == SCENES
    assert honest.coverage.share is not None
    assert honest.coverage.share.value >= 0.85
    assert honest.total is not None
    assert abs(honest.total.value) < 0.1
    # It says 0.99 where half is right.
    counts = count_scenes(simulated(0.99, 0.5), AS_SCORED, recall_of(RECALL))
    over = count_score("air_cooled_chiller", 0.3, counts)
    assert over.coverage.share is not None
    assert over.coverage.share.value < 0.2
    assert over.coverage.above > 0.8 * SCENES
    assert over.total is not None
    assert over.error is not None
    assert over.total.value > 0.6
    assert over.error.value > 0.6


def test_a_class_that_a_census_would_not_give_has_no_interval() -> None:
    missed = count_scenes(simulated(0.8, 0.8), AS_SCORED, recall_of(0.1))
    score = count_score("air_cooled_chiller", 0.3, missed)
    assert (score.coverage.scenes, score.coverage.not_given) == (0, SCENES)
    assert (score.error, score.total, score.coverage.share) == (None, None, None)
    coarse = count_scenes(simulated(0.8, 0.8, "battery", 0.52), AS_SCORED, recall_of(RECALL))
    assert count_score("battery", 0.5, coarse).coverage.not_given == SCENES


def test_scenes_without_units_are_apart_and_errors_are_of_what_stands_there() -> None:
    counts = [
        SceneCount("battery", 10, Interval(9, 11, 12)),
        SceneCount("battery", 4, Interval(1, 2, 3)),
        SceneCount("battery", 2, Interval(3, 4, 5)),
        SceneCount("battery", 0, Interval(0, 0, 0)),
        SceneCount("battery", 0, Interval(0, 1, 2)),
        SceneCount("battery", 0, Interval(1, 1, 2)),
        SceneCount("battery", 7, None),
        SceneCount("gas_turbine", 1, Interval(5, 5, 5)),
    ]
    score = count_score("battery", 0.3, counts)
    one = score.coverage
    assert (one.scenes, one.covered, one.below, one.above) == (3, 1, 1, 1)
    assert (one.empty, one.empty_counted, one.empty_excluded, one.not_given) == (3, 2, 1, 1)
    assert one.share is not None
    assert score.error is not None
    assert score.total is not None
    assert one.share.value == pytest.approx(1 / 3, abs=1e-4)
    assert score.error.value == pytest.approx((1 / 10 + 2 / 4 + 2 / 2) / 3, abs=1e-4)
    assert (score.site_scenes, score.site_error) == (0, None)
    assert score.total.value == pytest.approx((11 + 2 + 4 + 0 + 1 + 1) / 16 - 1, abs=1e-4)
    assert coverage_of(counts).scenes == 4
    sites = [*counts, SceneCount("battery", 20, Interval(20, 21, 22)), SceneCount("battery", 100, Interval(90, 98, 99))]
    large = count_score("battery", 0.3, sites)
    assert large.site_scenes == 2
    assert large.site_error is not None
    assert large.site_error.value == pytest.approx((1 / 20 + 2 / 100) / 2, abs=1e-4)
