"""How good a detector is: matched against rendered chips, and left alone with real backgrounds that hold nothing.

One half of the images fits the calibration, the other half is what recall, precision and the rest are measured on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from scipy.special import log_expit, logsumexp

from models.calibration import calibrated, calibration_error, fit_calibration, reliability
from models.classes import BY_NAME, CLASSES, LETTERING, OBJECT_CLASSES
from models.detector.card import CERTAIN, COUNTED_FROM, MIN_PROBABILITY, RecallPoint
from models.detector.detector import MIN_SCORE, Detector, Peaks
from models.detector.labels import CLASS, COUNT, HEADING, LENGTH, WIDTH, Labels, X, Y
from models.detector.losses import NEARLY_SQUARE
from models.detector.network import STRIDE
from models.detector.peaks import LETTERING_POOL, agreed, thinned
from models.detector.targets import fill_rectangle
from models.training.chip_pool import PooledChip

_PRIOR_SPREAD = 1.5
"""Standard deviation of what `recall_spread` expects to find, in log-odds: an assumption that many images override."""
COUNTED = 0.5
"""Probability from which a detection counts in recall, precision and as a false positive."""
GSD_EDGES_M = (0.0, 0.28, 0.34, 0.42, 0.50, 0.60)
"""Bins of native GSD that recall is given for; the last one is open."""
_EDGE_PX = 40
"""Objects nearer to a chip's edge are cut by it as hardly any is in a scene: not judged."""
_WORD_SHARE = 0.5
"""A word is found, and a region is right, when half of its cells agree."""
_MIN_REGION_CELLS = 12
_BATCH = 4


@dataclass(frozen=True)
class Judged:
    """Every detection and every unit of one class on a set of images, judged against each other."""

    image: np.ndarray
    """int (n,): image of each detection."""
    score: np.ndarray
    """float (n,)."""
    hit: np.ndarray
    """bool (n,)."""
    fan_error: np.ndarray
    """float (n,): detected minus true fans; NaN where there is none to compare."""
    heading_error_deg: np.ndarray
    """float (n,): 0..90; NaN for misses and for units that are nearly square."""
    unit_image: np.ndarray
    """int (m,): image of each unit."""
    unit_score: np.ndarray
    """float (m,): score of the detection that found it, 0 where none did."""
    unit_width_px: np.ndarray
    """float (m,): at the detector's GSD; of a word the height of its letters."""

    def on(self, images: np.ndarray) -> "Judged":
        """What concerns the images where `images` (bool, by image) is True."""
        mine, units = images[self.image], images[self.unit_image]
        return Judged(
            image=self.image[mine],
            score=self.score[mine],
            hit=self.hit[mine],
            fan_error=self.fan_error[mine],
            heading_error_deg=self.heading_error_deg[mine],
            unit_image=self.unit_image[units],
            unit_score=self.unit_score[units],
            unit_width_px=self.unit_width_px[units],
        )


@dataclass(frozen=True)
class Detected:
    """What is found on one image."""

    shape: tuple[int, int]
    """Height and width of the image."""
    peaks: Peaks
    lettering: np.ndarray
    """float32 (h, w): probability by cell of the lettering map."""


def evaluate(
    detector: Detector, chips: Sequence[PooledChip], backgrounds: Sequence[np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Calibration, recall and metrics of a detector, as the JSON fields of a `WeightsCard`.

    `chips` are rendered validation chips of one size, `backgrounds` real uint8 images of one size that hold no
    equipment. Even-numbered images fit the calibration, odd-numbered ones are measured.
    """
    on_chips = judge(detector, [chip.image for chip in chips], [chip.scored for chip in chips])
    on_ground = judge(detector, backgrounds, [Labels.of() for _ in backgrounds])
    fit_chips, fit_ground = np.arange(len(chips)) % 2 == 0, np.arange(len(backgrounds)) % 2 == 0
    gsd_m = np.array([chip.native_gsd_m for chip in chips])
    area_km2 = judged_area_km2(backgrounds[1::2], detector.gsd_m)

    calibration: dict[str, tuple[float, float]] = {}
    recall: dict[str, list[dict[str, Any]]] = {}
    rendered: dict[str, dict[str, Any]] = {}
    real: dict[str, dict[str, Any]] = {}
    for name in CLASSES:
        fitted = (on_chips[name].on(fit_chips), on_ground[name].on(fit_ground))
        parameters = fit_calibration(
            np.concatenate([part.score for part in fitted]), np.concatenate([part.hit for part in fitted])
        )
        calibration[name] = parameters
        measured, empty = on_chips[name].on(~fit_chips), on_ground[name].on(~fit_ground)
        recall[name] = [asdict(point) for point in _recall_points(measured, gsd_m, parameters)]
        rendered[name] = _scores(name, measured, parameters)
        false = calibrated(empty.score, parameters)
        real[name] = {
            "false_positives": int((false >= COUNTED).sum()),
            "false_positives_per_km2": _ratio((false >= COUNTED).sum(), area_km2),
            "expected_count_per_km2": _ratio(false.sum(), area_km2),
        }
    return {
        "calibration": calibration,
        "recall": recall,
        "metrics": {
            "rendered_validation": {"chips": int((~fit_chips).sum()), "classes": rendered},
            "real_backgrounds": {"images": int((~fit_ground).sum()), "area_km2": round(area_km2, 4), "classes": real},
        },
    }


def judged_area_km2(images: Sequence[np.ndarray], gsd_m: float) -> float:
    """Ground of the images without the rim on which nothing is judged."""
    inner = [max(0, image.shape[0] - 2 * _EDGE_PX) * max(0, image.shape[1] - 2 * _EDGE_PX) for image in images]
    return sum(inner) * (gsd_m / 1000) ** 2


def judge(
    detector: Detector,
    images: Sequence[np.ndarray],
    labels: Sequence[Labels],
    most_turn_deg: float | None = None,
) -> dict[str, Judged]:
    """Detections on uint8 images (one size) against their labels, by class, lettering included.

    With `most_turn_deg`, a detection of a long unit that is turned further against it has not found it.
    """
    return judge_detected(detected(detector, images), labels, most_turn_deg)


def detected(detector: Detector, images: Sequence[np.ndarray]) -> list[Detected]:
    """What is found on uint8 images (one size)."""
    found = []
    for start in range(0, len(images), _BATCH):
        peaks, lettering = detector.detect(np.stack(images[start : start + _BATCH]), None, MIN_SCORE)
        peaks = agreed(thinned(peaks))
        for offset, probability in enumerate(lettering):
            mine = peaks[peaks.window == offset]
            found.append(Detected(images[start + offset].shape[:2], mine, probability.astype(np.float32)))
    return found


def judge_detected(
    found: Sequence[Detected], labels: Sequence[Labels], most_turn_deg: float | None = None
) -> dict[str, Judged]:
    """As `judge`, of detections that were made before."""
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in CLASSES}
    for number, (here, truth) in enumerate(zip(found, labels, strict=True)):
        for index, name in enumerate(OBJECT_CLASSES):
            mine = here.peaks[here.peaks.cls == index]
            rows[name].append(_judge_objects(mine, truth, index, here.shape, number, most_turn_deg))
        rows[LETTERING.name].append(_judge_words(here.lettering, truth, number))
    return {name: Judged(*_columns(parts)) for name, parts in rows.items()}


def match(peaks: Peaks, units: np.ndarray) -> np.ndarray:
    """Row of `units` (a label table of the same class) that each peak found, -1 for none.

    Best score first, each unit once, the nearest within half of the unit's width.
    """
    found = np.full(len(peaks), -1)
    if len(units) == 0:
        return found
    free = np.ones(len(units), dtype=bool)
    for row in np.argsort(-peaks.score, kind="stable"):
        distance = np.hypot(units[:, X] - peaks.x_px[row], units[:, Y] - peaks.y_px[row])
        distance[~free | (distance > units[:, WIDTH] / 2)] = np.inf
        nearest = int(np.argmin(distance))
        if np.isfinite(distance[nearest]):
            found[row] = nearest
            free[nearest] = False
    return found


def _judge_objects(
    peaks: Peaks, labels: Labels, index: int, shape: tuple[int, int], number: int, most_turn_deg: float | None
) -> tuple[np.ndarray, ...]:
    units = labels.objects[labels.objects[:, CLASS] == index]
    found = match(peaks, units)
    if most_turn_deg is not None and len(units):
        turned = _turn_deg(peaks, units[found]) > most_turn_deg
        found[turned & _long(units[found])] = -1
    hit = found >= 0
    wanted = np.ones(len(units), dtype=bool) & _clear(units[:, X], units[:, Y], shape)
    # Misses and hits at the edge are not judged, whichever of the two decided that they are there.
    kept = np.where(hit, wanted[found] if len(units) else False, _clear(peaks.x_px, peaks.y_px, shape))
    kept &= hit | ~_on_any(peaks, np.concatenate([labels.ignored, labels.unseen]))
    unit_score = np.zeros(len(units))
    unit_score[found[hit]] = peaks.score[hit]

    fan_error, heading_error = np.full(len(peaks), np.nan), np.full(len(peaks), np.nan)
    truth = units[found[hit]]
    if BY_NAME[OBJECT_CLASSES[index]].has_fans:
        fan_error[hit] = np.where(truth[:, COUNT] > 0, np.round(peaks.fans[hit]) - truth[:, COUNT], np.nan)
    heading_error[hit] = np.where(_long(truth), _turn_deg(peaks[hit], truth), np.nan)
    return (
        np.full(int(kept.sum()), number),
        peaks.score[kept].astype(np.float64),
        hit[kept],
        fan_error[kept],
        heading_error[kept],
        np.full(int(wanted.sum()), number),
        unit_score[wanted],
        units[wanted, WIDTH].astype(np.float64),
    )


def _turn_deg(peaks: Peaks, units: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs((peaks.heading_deg - units[:, HEADING] + 90) % 180 - 90))


def _long(units: np.ndarray) -> np.ndarray:
    """Whether a unit has a long axis that a heading can be judged by."""
    return np.asarray(units[:, WIDTH] < NEARLY_SQUARE * units[:, LENGTH])


def _judge_words(probability: np.ndarray, labels: Labels, number: int) -> tuple[np.ndarray, ...]:
    """Regions of the lettering map, scored by their mean, against the words on the image."""
    cell_px = STRIDE * LETTERING_POOL
    painted = np.zeros(probability.shape, dtype=bool)
    seen = np.ones(probability.shape, dtype=bool)
    for row in labels.unseen:
        fill_rectangle(seen, row, False, cell_px=cell_px)
    unit_score, unit_width_px = [], []
    for row in labels.texts:
        word = np.zeros(probability.shape, dtype=bool)
        fill_rectangle(word, row, True, cell_px=cell_px)
        painted |= word
        # A word that is mostly outside the image cannot be judged.
        if word.sum() * cell_px**2 > 0.6 * row[LENGTH] * row[WIDTH]:
            inside = probability[word]
            unit_width_px.append(float(row[WIDTH]))
            unit_score.append(float(inside.mean()) if (inside >= 0.5).mean() >= _WORD_SHARE else 0.0)
    regions, which, stats, _ = cv2.connectedComponentsWithStats((probability >= 0.5).astype(np.uint8), connectivity=8)
    score, hit = [], []
    for region in range(1, regions):
        if stats[region, cv2.CC_STAT_AREA] < _MIN_REGION_CELLS:
            continue
        cells = which == region
        if seen[cells].mean() >= _WORD_SHARE:
            score.append(float(probability[cells].mean()))
            hit.append(bool(painted[cells].mean() >= _WORD_SHARE))
    nothing = np.full(len(score), np.nan)
    return (
        np.full(len(score), number),
        np.array(score, dtype=np.float64),
        np.array(hit, dtype=bool),
        nothing,
        nothing,
        np.full(len(unit_score), number),
        np.array(unit_score, dtype=np.float64),
        np.array(unit_width_px, dtype=np.float64),
    )


def _recall_points(judged: Judged, gsd_m: np.ndarray, parameters: tuple[float, float]) -> Iterable[RecallPoint]:
    found = found_units(judged, parameters, COUNTED_FROM)
    unit_gsd = gsd_m[judged.unit_image]
    bins = np.searchsorted(GSD_EDGES_M, gsd_m, side="right")
    which = bins[judged.unit_image]
    certain = _certain(judged, parameters, len(gsd_m))[judged.unit_image]
    for kind in (True, False):
        images = judged.unit_image[certain == kind]
        number = np.bincount(images, minlength=len(gsd_m))
        right = np.bincount(images, found[certain == kind], minlength=len(gsd_m))
        shown = number > 0
        spread = recall_spread(right[shown], number[shown], bins[shown])
        for bin_number in np.unique(which[certain == kind]):
            mine = (which == bin_number) & (certain == kind)
            middle_m = round(float(unit_gsd[mine].mean()), 3)
            yield RecallPoint(middle_m, int(found[mine].sum()), int(mine.sum()), kind, spread)


def recall_spread(found: np.ndarray, total: np.ndarray, group: np.ndarray) -> float:
    """Standard deviation from image to image of the log-odds that a unit is found.

    The most likely one where `found` of `total` units an image are binomial with log-odds that are normal over images,
    about a middle that each `group` of images has for itself; integrated by Gauss-Hermite quadrature. A normal prior
    (`_PRIOR_SPREAD`) keeps a few images from claiming a wild one.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    spreads, middles = np.arange(0, 4.01, 0.1), np.arange(-4, 8.01, 0.2)
    odds = middles[None, :, None] + spreads[:, None, None] * nodes
    hit, miss = log_expit(odds), log_expit(-odds)
    likelihood = -(spreads**2) / (2 * _PRIOR_SPREAD**2)
    for mine in (group == value for value in np.unique(group)):
        shared = np.zeros((len(spreads), len(middles)))
        for (right, wrong), images in Counter(zip(found[mine], (total - found)[mine], strict=True)).items():
            shared += images * logsumexp(right * hit + wrong * miss, axis=2, b=weights / weights.sum())
        likelihood = likelihood + shared.max(axis=1)
    return round(float(spreads[np.argmax(likelihood)]), 1)


def _certain(judged: Judged, parameters: tuple[float, float], images: int) -> np.ndarray:
    """Bool (images,): whether the mean probability of the image's detections is `CERTAIN` or more."""
    probability = calibrated(judged.score, parameters)
    kept = probability >= MIN_PROBABILITY
    number = np.bincount(judged.image[kept], minlength=images)
    total = np.bincount(judged.image[kept], probability[kept], minlength=images)
    return (number > 0) & (total >= CERTAIN * number)


def _scores(name: str, judged: Judged, parameters: tuple[float, float]) -> dict[str, Any]:
    probability = calibrated(judged.score, parameters)
    sure = probability >= COUNTED
    recall = _ratio(found_units(judged, parameters).sum(), len(judged.unit_score))
    precision = _ratio(judged.hit[sure].sum(), sure.sum())
    both = None if recall is None or precision is None else recall + precision
    return {
        "units": len(judged.unit_score),
        "recall": recall,
        "precision": precision,
        "f1": None if both is None or recall is None or precision is None else _ratio(2 * recall * precision, both),
        "expected_over_true": _ratio(probability.sum(), len(judged.unit_score)),
        "calibration_error": round(calibration_error(probability, judged.hit), 4),
        "reliability": [[n, round(said, 3), round(seen, 3)] for n, said, seen in reliability(probability, judged.hit)],
        "fan_mean_absolute_error": _mean(np.abs(judged.fan_error[sure])) if BY_NAME[name].has_fans else None,
        "heading_mean_absolute_error_deg": _mean(judged.heading_error_deg[sure]),
    }


def found_units(judged: Judged, parameters: tuple[float, float], least: float = COUNTED) -> np.ndarray:
    """Bool (m,): which units a detection of at least this probability has found."""
    return (judged.unit_score > 0) & (calibrated(judged.unit_score, parameters) >= least)


def _clear(x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    inside: np.ndarray = (x >= _EDGE_PX) & (x < width - _EDGE_PX) & (y >= _EDGE_PX) & (y < height - _EDGE_PX)
    return inside


def _on_any(peaks: Peaks, rectangles: np.ndarray) -> np.ndarray:
    """True for peaks whose centre lies on one of the rectangles of a label table."""
    dx = peaks.x_px[:, None] - rectangles[None, :, X]
    dy = peaks.y_px[:, None] - rectangles[None, :, Y]
    turn = np.deg2rad(rectangles[:, HEADING])
    along, across = dx * np.sin(turn) - dy * np.cos(turn), dx * np.cos(turn) + dy * np.sin(turn)
    inside = (np.abs(along) <= rectangles[:, LENGTH] / 2) & (np.abs(across) <= rectangles[:, WIDTH] / 2)
    return np.asarray(inside.any(axis=1))


def _columns(parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    if not parts:
        kinds = (int, float, bool, float, float, int, float, float)
        return [np.zeros(0, dtype=kind) for kind in kinds]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _ratio(part: float, whole: float) -> float | None:
    return round(float(part / whole), 4) if whole > 0 else None


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 3) if len(values) else None
