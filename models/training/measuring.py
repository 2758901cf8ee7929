"""What the network reaches: on rendered scenes by class and GSD, on real ground, on labelled real images.

Nothing is fitted here: the weights are taken with the calibration that lies in them, on images that neither their
training nor that calibration has seen.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from models.calibration import calibrated, reliability
from models.classes import CLASSES, LETTERING, OBJECT_CLASSES, equipment_resolved_at
from models.detector.card import MIN_PROBABILITY
from models.detector.detector import GSD_M, Detector
from models.detector.labels import Labels
from models.detector.peaks import Peaks, thinned
from models.errors import InputError
from models.training.chip_pool import PooledChip, PoolRecipe, read_chip, render_pool, split_backgrounds
from models.training.evaluation import (
    COUNTED,
    Judged,
    detected,
    found_units,
    judge,
    judge_detected,
    judged_area_km2,
)
from models.training.uncertainty import Figure, rate, ratio, share

MOST_TURN_DEG = 15.0
"""A detection of a long unit that is turned further has not found it."""
NATIVE_GSD_M = {0.3: (0.28, 0.32), 0.5: (0.48, 0.52)}
"""Range that the GSD of a rendered scene is drawn from, by the GSD that it stands for: products differ a little."""
COOLING = ("air_cooled_chiller", "dry_cooler", "cooling_tower")
"""Which of them a fan array on a real roof is called decides nothing: found as any of the three, it is found."""
LABELLED_GSD_M = (0.15, 0.3, 0.5)
_LABEL_FIELDS = ("file", "gsd_m", "class", "cx", "cy", "length_px", "width_px", "heading_deg", "fan_count", "status")
SEEDS = {0.3: 900, 0.5: 901}
"""Of the scenes rendered for measuring, far from those of any training."""
_NAMED_SEEDS = 20
"""Added to these for the scenes that show a painted name."""
SCENE_PX = 448
LARGE_CELL_M = 4.0
"""Width from which a fan cell is large: rooftop towers are mostly smaller, cells of large arrays mostly larger."""
COOLING_REAL = "cooling"
"""What the three cooling classes are called together, on real images."""
_SLACK_PX = 1.0
"""By how much a detection's centre may lie outside a labelled outline, which is good to 1-2 px of its own image."""


@dataclass(frozen=True)
class JudgedScenes:
    """Rendered scenes of one GSD, judged."""

    gsd_m: float
    """What they stand for, a key of `NATIVE_GSD_M`."""
    paths: tuple[Path, ...]
    """Files of the scenes, for `read_chip`."""
    native_gsd_m: np.ndarray
    """float (scenes,)."""
    judged: Mapping[str, Judged]
    """By class."""
    kin: Judged
    """The units that `judged` leaves out, packaged ones with a fan array, judged as chillers; of detections that lie on
    none of them it says nothing."""


@dataclass(frozen=True)
class WidthRecall:
    """Units of a range of widths, from `least_m` to below `most_m`, and how many of them are found."""

    least_m: float
    most_m: float | None
    """None: without end."""
    units: int
    recall: Figure
    """Its interval is the bootstrap's over scenes."""

    @property
    def range(self) -> str:
        """For example "below 4 m"."""
        return f"from {self.least_m:g} m" if self.most_m is None else f"below {self.most_m:g} m"


@dataclass(frozen=True)
class RenderedScore:
    """One class at one GSD, on rendered scenes; intervals are the bootstrap's over scenes."""

    cls: str
    gsd_m: float
    units: int
    scenes: int
    """That show any."""
    recall: Figure
    precision: Figure | None
    """None where nothing was detected."""
    f1: Figure
    fans_error: Figure | None
    """Mean absolute error of the fans of found units; None for classes without."""
    by_width: tuple[WidthRecall, ...]
    """Of fan cells, which come in sizes that differ by a factor of six; empty for other classes."""


@dataclass(frozen=True)
class KinScore:
    """Packaged units with a fan array, kin of chillers: left out of every score, and counted by a run as chillers."""

    gsd_m: float
    units: int
    found: Figure | None
    """Share of them on which a chiller is found, matched as one; None where the scenes show none."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Detections of nearly one stated probability, and how many of them were right."""

    cls: str
    """Or `COOLING_REAL` on real images, where the three names decide nothing."""
    real: bool
    low: float
    high: float
    detections: int
    stated: float
    """Mean probability."""
    right: Figure


@dataclass(frozen=True)
class GroundScore:
    """False positives of one class on real ground without equipment."""

    cls: str
    false_positives: int
    per_km2: Figure


@dataclass(frozen=True)
class LabelledScore:
    """Labelled cooling equipment found on real images of one GSD."""

    gsd_m: float
    found: int
    objects: int
    found_share: Figure | None
    fans_found: int
    """Of cooling towers, whose unit is the fan cell; a bank is labelled as one object."""
    fans: int
    false_positives: int
    area_km2: float
    per_km2: Figure | None
    """False positives."""


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
    text: str = ""
    """Of painted lettering."""


@dataclass(frozen=True)
class RealImage:
    """A real image with its labels; `objects` is empty where somebody looked and found nothing."""

    path: Path
    gsd_m: float
    objects: tuple[RealObject, ...]


def judge_scenes(
    detector: Detector,
    workdir: Path,
    gsd_m: float,
    scenes: int,
    *,
    backgrounds: Path | None = None,
    leave_out: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> JudgedScenes:
    """Render `scenes` of a GSD (a key of `NATIVE_GSD_M`) that no training has seen into `workdir`, and judge them.

    What `workdir` holds already is not rendered again. `backgrounds` and `leave_out` are those of `held_out_grounds`,
    whose images the scenes are rendered onto. Raises `InputError`.
    """
    paths = scenes_of(workdir, gsd_m, scenes, backgrounds=backgrounds, leave_out=leave_out, progress=progress)
    chips = [read_chip(path) for path in paths]
    for path, chip in zip(paths, chips, strict=True):
        if chip.kin is None:
            raise InputError(f"Scene {path} does not say what is kin of chillers: give another working folder.")
    return judge_chips(detector, chips, gsd_m, paths)


def judge_chips(
    detector: Detector, chips: Sequence[PooledChip], gsd_m: float, paths: Sequence[Path] = ()
) -> JudgedScenes:
    """Judge scenes that stand for a GSD; `paths` are their files."""
    found = detected(detector, [chip.image for chip in chips])
    judged = judge_detected(found, [chip.scored for chip in chips], MOST_TURN_DEG)
    kin_alone = [
        Labels.of() if chip.kin is None else replace(Labels.of(), objects=chip.labels.objects[chip.kin])
        for chip in chips
    ]
    kin = judge_detected(found, kin_alone, MOST_TURN_DEG)
    native_gsd_m = np.array([chip.native_gsd_m for chip in chips])
    return JudgedScenes(gsd_m, tuple(paths), native_gsd_m, judged, kin[COOLING[0]])


def scenes_of(
    workdir: Path,
    gsd_m: float,
    scenes: int,
    *,
    named_roof: bool = False,
    backgrounds: Path | None = None,
    leave_out: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Files of `scenes` of a GSD that no training has seen, rendered into `workdir` where it lacks them.

    With `named_roof` each shows a painted name: of the words on other scenes too few are large enough to be scored.
    Raises `InputError`.
    """
    recipe = PoolRecipe(
        seed=SEEDS[gsd_m] + (_NAMED_SEEDS if named_roof else 0),
        size_px=SCENE_PX,
        backgrounds="" if backgrounds is None else str(backgrounds),
        native_gsd_m=NATIVE_GSD_M[gsd_m],
        left_out=tuple(sorted(leave_out)),
        named_roof=named_roof,
    )
    folder = workdir / (f"{gsd_m:.2f}m" + ("-names" if named_roof else ""))
    return tuple(render_pool(folder, recipe, scenes, "validation", held_out_grounds(backgrounds, leave_out), progress))


def held_out_grounds(backgrounds: Path | None, leave_out: Sequence[str] = ()) -> tuple[Path, ...]:
    """The fifth of the folder that `train_detector` takes which it holds out; none without a folder.

    `leave_out` names files, without suffix, that do show equipment. Raises `InputError` for one that is not there.
    """
    return split_backgrounds(backgrounds, leave_out)[1]


def rendered_scores(scenes: JudgedScenes, calibration: Mapping[str, tuple[float, float]]) -> tuple[RenderedScore, ...]:
    """Each class that the scenes show units of."""
    scores = []
    for name in CLASSES:
        judged, parameters, n = scenes.judged[name], calibration[name], len(scenes.native_gsd_m)
        counted = calibrated(judged.score, parameters) >= COUNTED
        found = found_units(judged, parameters)
        units, detected = np.bincount(judged.unit_image, minlength=n), np.bincount(judged.image[counted], minlength=n)
        hits, seen = (
            np.bincount(image[right], minlength=n)
            for image, right in ((judged.image, counted & judged.hit), (judged.unit_image, found))
        )
        recall, f1 = ratio(seen, units), ratio(2 * seen, units + detected)
        if recall is None or f1 is None:
            continue
        given = counted & np.isfinite(judged.fan_error)
        off = np.bincount(judged.image[given], np.abs(judged.fan_error[given]), minlength=n)
        scores.append(
            RenderedScore(
                cls=name,
                gsd_m=scenes.gsd_m,
                units=int(units.sum()),
                scenes=int((units > 0).sum()),
                recall=recall,
                precision=ratio(hits, detected),
                f1=f1,
                fans_error=ratio(off, np.bincount(judged.image[given], minlength=n)) if name == COOLING[0] else None,
                by_width=tuple(_by_width(judged, found, n)) if name in COOLING[1:] else (),
            )
        )
    return tuple(scores)


def _by_width(judged: Judged, found: np.ndarray, images: int) -> Iterator[WidthRecall]:
    large = judged.unit_width_px * GSD_M >= LARGE_CELL_M
    for these, least_m, most_m in ((~large, 0.0, LARGE_CELL_M), (large, LARGE_CELL_M, None)):
        units, seen = (np.bincount(judged.unit_image[which], minlength=images) for which in (these, these & found))
        recall = ratio(seen, units)
        if recall is not None:
            yield WidthRecall(least_m, most_m, int(units.sum()), recall)


def kin_score(scenes: JudgedScenes, calibration: Mapping[str, tuple[float, float]]) -> KinScore:
    """How many of the packaged units are found as chillers."""
    kin, n = scenes.kin, len(scenes.native_gsd_m)
    found = found_units(kin, calibration[COOLING[0]])
    units, seen = (np.bincount(images, minlength=n) for images in (kin.unit_image, kin.unit_image[found]))
    return KinScore(scenes.gsd_m, len(found), ratio(seen, units))


def rendered_reliability(
    scenes: Sequence[JudgedScenes], calibration: Mapping[str, tuple[float, float]]
) -> tuple[ReliabilityBin, ...]:
    """How far a stated probability can be believed on rendered scenes, by class; scenes of all GSDs together."""
    rows: list[ReliabilityBin] = []
    for name in CLASSES:
        parts = [one.judged[name] for one in scenes]
        probability = calibrated(np.concatenate([part.score for part in parts]), calibration[name])
        rows += reliability_bins(name, False, probability, np.concatenate([part.hit for part in parts]))
    return tuple(rows)


def reliability_bins(cls: str, real: bool, probability: np.ndarray, hit: np.ndarray) -> list[ReliabilityBin]:
    """Detections in ten bins of stated probability; words and real objects, which are few, in five."""
    bins = 5 if real or cls == LETTERING.name else 10
    rows = []
    for n, stated, right in reliability(probability, hit, bins):
        which = min(int(stated * bins), bins - 1)
        figure = share(round(right * n), n)
        assert figure is not None
        rows.append(ReliabilityBin(cls, real, which / bins, (which + 1) / bins, n, round(stated, 4), figure))
    return rows


def ground_scores(detector: Detector, images: Sequence[np.ndarray]) -> tuple[tuple[GroundScore, ...], float]:
    """False positives by class on uint8 images (one size) without equipment, and the ground judged, km2.

    No row where nothing was judged.
    """
    judged = judge(detector, images, [Labels.of() for _ in images])
    area_km2 = judged_area_km2(images, detector.gsd_m)
    rows = []
    for name in CLASSES:
        count = int((calibrated(judged[name].score, detector.card.calibration[name]) >= COUNTED).sum())
        per_km2 = rate(count, area_km2)
        if per_km2 is not None:
            rows.append(GroundScore(name, count, per_km2))
    return tuple(rows), area_km2


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


def labelled_reliability(
    detector: Detector, images: Iterable[RealImage], gsd_m: float = LABELLED_GSD_M[1]
) -> tuple[ReliabilityBin, ...]:
    """How far a stated probability can be believed on labelled real images of a GSD, the cooling classes together."""
    probabilities, hits = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for image in images:
        if image.gsd_m > gsd_m * 1.05:
            continue
        peaks, probability, scale, _ = _detected(detector, image, gsd_m)
        cooling = np.isin(peaks.cls, [OBJECT_CLASSES.index(name) for name in COOLING])
        inside = {True: np.zeros(len(peaks), dtype=bool), False: np.zeros(len(peaks), dtype=bool)}
        for item in image.objects:
            inside[item.sure and item.cls in COOLING] |= _inside(peaks, item, scale)
        judged = cooling & (inside[True] | ~inside[False])
        probabilities.append(probability[judged])
        hits.append(inside[True][judged])
    return tuple(reliability_bins(COOLING_REAL, True, np.concatenate(probabilities), np.concatenate(hits)))


def read_labelled(folder: Path) -> tuple[RealImage, ...]:
    """Images of a folder with `labels.csv`; those coarser than the detector can use only with painted lettering.

    Columns: file, gsd_m, class, cx, cy, length_px, width_px, heading_deg, fan_count, status (sure or ignore), and text
    where there is lettering. Raises `InputError`.
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
    read = []
    for name, group in grouped.items():
        objects = tuple(_object(table, line) for line in group if line["cx"])
        painted = any(item.cls == LETTERING.name for item in objects)
        if equipment_resolved_at(float(group[0]["gsd_m"])) or painted:
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
            text=line.get("text") or "",
        )
    except ValueError:
        raise InputError(
            f"Labels {table}, line {line['line']}: cx, cy, length_px, width_px, heading_deg and fan_count are numbers."
        ) from None


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
    return LabelledScore(
        gsd_m=gsd_m,
        found=found,
        objects=objects,
        found_share=share(found, objects),
        fans_found=fans_found,
        fans=fans,
        false_positives=false,
        area_km2=area_m2 / 1e6,
        per_km2=rate(false, area_m2 / 1e6),
    )


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
