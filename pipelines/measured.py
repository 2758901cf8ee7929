"""Everything that is measured of detector and reader weights together, and the file that keeps it beside them."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.classes import OBJECT_CLASSES
from models.detector.detector import Detector
from models.reader.reader import Reader
from models.training.chip_pool import read_background
from models.training.crops import CROP_PX
from models.training.measuring import (
    NATIVE_GSD_M,
    GroundScore,
    KinScore,
    LabelledScore,
    ReliabilityBin,
    RenderedScore,
    ground_scores,
    held_out_grounds,
    judge_scenes,
    kin_score,
    labelled_reliability,
    labelled_scores,
    read_labelled,
    rendered_reliability,
    rendered_scores,
    scenes_of,
)
from models.training.uncertainty import Figure, rate
from pipelines.errors import ArchiveError
from pipelines.interval_coverage import CountScore, Coverage, SceneCount, count_scenes, count_score, coverage_of
from pipelines.word_reading import RoofName, WordScore, read_roof_names, read_words

__all__ = ["Measurement", "TotalCoverage", "keep", "measure"]


@dataclass(frozen=True)
class TotalCoverage:
    """How often the count intervals of all classes hold the truth, at one GSD or at all."""

    gsd_m: float | None
    """None: at all."""
    coverage: Coverage


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured of one pair of weights."""

    detector: str
    reader: str
    """Versions of the weights."""
    scenes: int
    """Rendered ones at each GSD."""
    rendered: tuple[RenderedScore, ...]
    kin: tuple[KinScore, ...]
    counts: tuple[CountScore, ...]
    coverage: tuple[TotalCoverage, ...]
    words: tuple[WordScore, ...]
    reliability: tuple[ReliabilityBin, ...]
    ground_images: int
    ground_km2: float
    ground: tuple[GroundScore, ...]
    ground_per_km2: Figure | None
    """False positives of all classes; None without ground."""
    left_out: tuple[str, ...]
    """Images of the ground that do show equipment."""
    labelled: tuple[LabelledScore, ...]
    roof_names: tuple[RoofName, ...]


def measure(
    detector: Detector,
    reader: Reader,
    workdir: Path,
    *,
    scenes: int = 200,
    backgrounds: Path | None = None,
    leave_out: Sequence[str] = (),
    labelled: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Measurement:
    """Render `scenes` of each GSD that no training has seen into `workdir`, and measure on them and on real images.

    Half as many again show a painted name each; on these only words are measured.

    Scenes that `workdir` holds are not rendered again.

    :param backgrounds: the folder that `train_detector` takes; only the fifth that it holds out is looked at
    :param leave_out: images of it, without suffix, that do show equipment
    :param labelled: a folder for `read_labelled`
    :param progress: called with what is being done, how much of it is, and how much there is
    :raises InputError: a folder or an image is at fault
    """
    real = () if labelled is None else read_labelled(labelled)
    grounds = held_out_grounds(backgrounds, leave_out)
    calibration, recall = detector.card.calibration, detector.card.recall

    def said(what: str) -> Callable[[int, int], None]:
        return lambda done, total: None if progress is None else progress(what, done, total)

    judged = [
        judge_scenes(
            detector,
            workdir,
            gsd_m,
            scenes,
            backgrounds=backgrounds,
            leave_out=leave_out,
            progress=said(f"rendering scenes at {gsd_m} m"),
        )
        for gsd_m in NATIVE_GSD_M
    ]
    counts = {one.gsd_m: count_scenes(one, calibration, recall) for one in judged}
    every = [count for some in counts.values() for count in some]
    words = []
    for one in judged:
        named = scenes_of(
            workdir,
            one.gsd_m,
            scenes // 2,
            named_roof=True,
            backgrounds=backgrounds,
            leave_out=leave_out,
            progress=said(f"rendering painted names at {one.gsd_m} m"),
        )
        paths = (*one.paths, *named)
        words.append(read_words(detector, reader, paths, one.gsd_m, said(f"reading words at {one.gsd_m} m")))
    ground, ground_km2 = ground_scores(detector, [read_background(path, CROP_PX) for path in grounds])
    return Measurement(
        detector=detector.version,
        reader=reader.version,
        scenes=scenes,
        rendered=tuple(score for one in judged for score in rendered_scores(one, calibration)),
        kin=tuple(kin_score(one, calibration) for one in judged),
        counts=tuple(count_score(cls, gsd_m, some) for gsd_m, some in counts.items() for cls in OBJECT_CLASSES),
        coverage=(*(_total(gsd_m, some) for gsd_m, some in counts.items()), _total(None, every)),
        words=tuple(words),
        reliability=rendered_reliability(judged, calibration) + labelled_reliability(detector, real),
        ground_images=len(grounds),
        ground_km2=round(ground_km2, 4),
        ground=ground,
        ground_per_km2=rate(sum(row.false_positives for row in ground), ground_km2),
        left_out=tuple(sorted(leave_out)),
        labelled=labelled_scores(detector, real),
        roof_names=read_roof_names(detector, reader, real),
    )


def keep(measurement: Measurement, path: Path) -> None:
    """Write a measurement as JSON, beside its place first.

    :raises ArchiveError: it cannot be written there
    """
    record: dict[str, Any] = asdict(measurement)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ArchiveError(f"--keep {path} cannot be written: {error.strerror}; name a file in a folder") from None


def _total(gsd_m: float | None, counts: Sequence[SceneCount]) -> TotalCoverage:
    return TotalCoverage(gsd_m, coverage_of(counts))
