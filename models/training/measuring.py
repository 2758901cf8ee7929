"""What weights reach, as a table: on rendered scenes by class and GSD, on real ground, on labelled real images.

Nothing is fitted here: the weights are taken with the calibration that lies in them, on images that neither their
training nor that calibration has seen.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.calibration import calibrated
from models.classes import BY_NAME, CLASSES, OBJECT_CLASSES
from models.detector.card import MIN_PROBABILITY
from models.detector.detector import Detector
from models.detector.labels import Labels
from models.detector.peaks import Peaks, thinned
from models.errors import InputError
from models.training.chip_pool import PooledChip, PoolRecipe, read_background, read_chip, render_pool, split_backgrounds
from models.training.crops import CROP_PX
from models.training.evaluation import Judged, judge, judged_area_km2

COUNTED = 0.5
"""Probability from which a detection counts in recall, precision and as a false positive."""
MOST_TURN_DEG = 15.0
"""A detection of a long unit that is turned further has not found it."""
BANDS_M = (0.25, 0.35, 0.45)
"""Native GSD at which one band of the table ends and the next begins."""
COOLING = ("air_cooled_chiller", "dry_cooler", "cooling_tower")
"""Which of them a fan array on a real roof is called decides nothing: found as any of the three, it is found."""
LABELLED_GSD_M = (0.15, 0.3, 0.5)
_LABEL_FIELDS = ("file", "gsd_m", "class", "cx", "cy", "length_px", "width_px", "heading_deg", "fan_count", "status")
SEED = 900
"""Of the scenes rendered for measuring, far from those of any training."""
SCENE_PX = 448
_SLACK_PX = 1.0
"""By how much a detection's centre may lie outside a labelled outline, which is good to 1-2 px of its own image."""


@dataclass(frozen=True)
class RenderedScore:
    """One class in one band of native GSD, on rendered images."""

    cls: str
    band: str
    units: int
    recall: float
    precision: float | None
    """None where nothing was detected."""
    f1: float
    fans_error: float | None
    """Mean absolute error of the fans of found units; None for classes without."""
    count_error: float
    """Sum of probabilities against units, relative: what a count errs by before it is corrected for recall."""


@dataclass(frozen=True)
class GroundScore:
    """False positives of one class on real ground without equipment."""

    cls: str
    false_positives: int
    per_km2: float


@dataclass(frozen=True)
class LabelledScore:
    """Labelled cooling equipment found on real images of one GSD."""

    gsd_m: float
    found: int
    objects: int
    fans_found: int
    """Of cooling towers, whose unit is the fan cell; a bank is labelled as one object."""
    fans: int
    false_positives: int
    area_km2: float


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured of one weights file."""

    version: str
    scenes: int
    rendered: tuple[RenderedScore, ...]
    ground_images: int
    ground_km2: float
    ground: tuple[GroundScore, ...]
    labelled: tuple[LabelledScore, ...]


@dataclass(frozen=True)
class RealObject:
    """One labelled object of a real image, in pixels of its file."""

    cls: str
    x_px: float
    y_px: float
    length_px: float
    width_px: float
    heading_deg: float
    fans: int
    sure: bool
    """False: neither a hit nor a miss."""


@dataclass(frozen=True)
class RealImage:
    """A real image with its labels; `objects` is empty where somebody looked and found nothing."""

    path: Path
    gsd_m: float
    objects: tuple[RealObject, ...]


def measure(
    detector: Detector,
    workdir: Path,
    *,
    scenes: int = 200,
    backgrounds: Path | None = None,
    labelled: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Render `scenes` that no training has seen into `workdir` and measure on them, and on real images where given.

    `backgrounds` is the folder that `train_detector` takes; only the fifth that it holds out is looked at.
    `labelled` is a folder for `read_labelled`. Raises `InputError`.
    """
    real = () if labelled is None else read_labelled(labelled)
    _, held_out = split_backgrounds(backgrounds)
    recipe = PoolRecipe(seed=SEED, size_px=SCENE_PX, backgrounds="" if backgrounds is None else str(backgrounds))
    paths = render_pool(workdir, recipe, scenes, "validation", held_out, progress)
    ground, ground_km2 = ground_scores(detector, [read_background(path, CROP_PX) for path in held_out])
    return Measurement(
        version=detector.version,
        scenes=scenes,
        rendered=rendered_scores(detector, [read_chip(path) for path in paths]),
        ground_images=len(held_out),
        ground_km2=ground_km2,
        ground=ground if held_out else (),
        labelled=labelled_scores(detector, real),
    )


def rendered_scores(detector: Detector, chips: Sequence[PooledChip]) -> tuple[RenderedScore, ...]:
    """Each class in each band that shows units of it; `chips` are of one size."""
    judged = judge(detector, [chip.image for chip in chips], [chip.labels for chip in chips], MOST_TURN_DEG)
    band = np.searchsorted(BANDS_M, [chip.native_gsd_m for chip in chips], side="right")
    scores = []
    for name in CLASSES:
        for number in range(len(BANDS_M) + 1):
            mine = judged[name].on(band == number)
            if len(mine.unit_score):
                scores.append(_score(name, _band(number), mine, detector.card.calibration[name]))
        if len(judged[name].unit_score):
            scores.append(_score(name, "all", judged[name], detector.card.calibration[name]))
    return tuple(scores)


def ground_scores(detector: Detector, images: Sequence[np.ndarray]) -> tuple[tuple[GroundScore, ...], float]:
    """False positives by class on uint8 images (one size) without equipment, and the ground judged, km2."""
    judged = judge(detector, images, [Labels.of() for _ in images])
    area_km2 = judged_area_km2(images, detector.gsd_m)
    counts = {
        name: int((calibrated(judged[name].score, detector.card.calibration[name]) >= COUNTED).sum())
        for name in CLASSES
    }
    return tuple(GroundScore(name, n, n / area_km2 if area_km2 else 0.0) for name, n in counts.items()), area_km2


def labelled_scores(detector: Detector, images: Iterable[RealImage]) -> tuple[LabelledScore, ...]:
    """Labelled cooling equipment by GSD: images finer than a GSD are averaged to it, coarser ones are left out.

    An object is found when a detection of any cooling class, of `MIN_PROBABILITY` or more, has its centre in it.
    """
    images = tuple(images)
    rows = []
    for gsd_m in LABELLED_GSD_M:
        shown = [image for image in images if image.gsd_m <= gsd_m * 1.05]
        if shown:
            rows.append(_labelled_score(detector, shown, gsd_m))
    return tuple(rows)


def read_labelled(folder: Path) -> tuple[RealImage, ...]:
    """Images of a folder with `labels.csv`; coarser than the detector can use are left out.

    Columns: file, gsd_m, class, cx, cy, length_px, width_px, heading_deg, fan_count, status (sure or ignore). Raises
    `InputError`.
    """
    table = folder / "labels.csv"
    try:
        with table.open(newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"Labels {table} cannot be read ({error.strerror}): name a folder with a labels.csv."
        ) from None
    absent = [name for name in _LABEL_FIELDS if lines and name not in lines[0]]
    if not lines or absent:
        raise InputError(f"Labels {table} lack the column {absent[0] if absent else _LABEL_FIELDS[0]}: add it.")
    grouped: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for number, line in enumerate(lines, start=2):
        try:
            float(line["gsd_m"])
            grouped[line["file"]].append(line | {"line": str(number)})
        except (TypeError, ValueError):
            raise InputError(f"Labels {table}, line {number}, gsd_m: write a number of metres.") from None
    coarsest_m = max(entry.coarsest_gsd_m for entry in BY_NAME.values())
    read = []
    for name, group in grouped.items():
        if float(group[0]["gsd_m"]) <= coarsest_m:
            objects = tuple(_object(table, line) for line in group if line["cx"])
            read.append(RealImage(folder / name, float(group[0]["gsd_m"]), objects))
    return tuple(read)


def _object(table: Path, line: Mapping[str, str]) -> RealObject:
    try:
        return RealObject(
            cls=line["class"],
            x_px=float(line["cx"]),
            y_px=float(line["cy"]),
            length_px=float(line["length_px"]),
            width_px=float(line["width_px"]),
            heading_deg=float(line["heading_deg"] or 0),
            fans=int(line["fan_count"] or 1),
            sure=line["status"] == "sure",
        )
    except ValueError:
        raise InputError(
            f"Labels {table}, line {line['line']}: cx, cy, length_px, width_px, heading_deg and fan_count are numbers."
        ) from None


def _score(name: str, band: str, judged: Judged, parameters: tuple[float, float]) -> RenderedScore:
    probability = calibrated(judged.score, parameters)
    counted = probability >= COUNTED
    found = int(((judged.unit_score > 0) & (calibrated(judged.unit_score, parameters) >= COUNTED)).sum())
    units, detected = len(judged.unit_score), int(counted.sum())
    hits = int(judged.hit[counted].sum())
    fans = np.abs(judged.fan_error[counted])
    fans = fans[np.isfinite(fans)]
    return RenderedScore(
        cls=name,
        band=band,
        units=units,
        recall=found / units,
        precision=hits / detected if detected else None,
        f1=2 * found / (units + detected),
        fans_error=float(fans.mean()) if name == COOLING[0] and len(fans) else None,
        count_error=float(probability[probability >= MIN_PROBABILITY].sum() / units - 1),
    )


def _band(number: int) -> str:
    if number == 0:
        return f"below {BANDS_M[0]:.2f} m"
    if number == len(BANDS_M):
        return f"{BANDS_M[-1]:.2f} m and more"
    return f"{BANDS_M[number - 1]:.2f}-{BANDS_M[number]:.2f} m"


def _labelled_score(detector: Detector, images: Sequence[RealImage], gsd_m: float) -> LabelledScore:
    found = objects = fans_found = fans = false = 0
    area_m2 = 0.0
    for image in images:
        peaks, probability, scale, size_m2 = _detected(detector, image, gsd_m)
        cooling = np.isin(peaks.cls, [OBJECT_CLASSES.index(name) for name in COOLING])
        kept = probability >= MIN_PROBABILITY
        explained = np.zeros(len(peaks), dtype=bool)
        for item in image.objects:
            inside = _inside(peaks, item, scale) & cooling
            explained |= inside
            if item.sure and item.cls in COOLING:
                here = int((inside & kept).sum())
                objects, found = objects + 1, found + (here > 0)
                if item.cls == "cooling_tower":
                    fans, fans_found = fans + item.fans, fans_found + min(item.fans, here)
        false += int((~explained & (probability >= COUNTED)).sum())
        area_m2 += size_m2
    return LabelledScore(gsd_m, found, objects, fans_found, fans, false, area_m2 / 1e6)


def _detected(detector: Detector, image: RealImage, gsd_m: float) -> tuple[Peaks, np.ndarray, float, float]:
    """Peaks of an image averaged to `gsd_m`, their probabilities, the scale from its pixels, and its ground in m2."""
    picture = cv2.imread(str(image.path), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f"Labelled image {image.path} is not a readable image: replace it or take its lines out.")
    size_m2 = picture.shape[0] * picture.shape[1] * image.gsd_m**2
    seen_m = max(gsd_m, image.gsd_m)
    picture = _resized(picture, image.gsd_m / seen_m)
    picture = _resized(picture, seen_m / detector.gsd_m)
    height, width = picture.shape[:2]
    below, right = -height % detector.lattice_px, -width % detector.lattice_px
    window = cv2.copyMakeBorder(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), 0, below, 0, right, cv2.BORDER_CONSTANT)
    valid = np.zeros((1, *window.shape[:2]), dtype=bool)
    valid[0, :height, :width] = True
    peaks, _ = detector.detect(window[None], valid)
    peaks = thinned(peaks)
    pairs = np.array([detector.card.calibration[name] for name in OBJECT_CLASSES])
    probability = calibrated(peaks.score, (pairs[peaks.cls, 0], pairs[peaks.cls, 1]))
    return peaks, probability, image.gsd_m / detector.gsd_m, size_m2


def _resized(picture: np.ndarray, factor: float) -> np.ndarray:
    # A difference of 2% is within what the detector is trained on, and a needless resampling blurs.
    if abs(factor - 1) < 0.02:
        return picture
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how))


def _inside(peaks: Peaks, item: RealObject, scale: float) -> np.ndarray:
    dx, dy = peaks.x_px - item.x_px * scale, peaks.y_px - item.y_px * scale
    turn = np.deg2rad(item.heading_deg)
    along, across = dx * np.sin(turn) - dy * np.cos(turn), dx * np.cos(turn) + dy * np.sin(turn)
    half_length, half_width = item.length_px * scale / 2 + _SLACK_PX, item.width_px * scale / 2 + _SLACK_PX
    return np.asarray((np.abs(along) <= half_length) & (np.abs(across) <= half_width))
