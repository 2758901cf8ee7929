"""Whether painted words are found and read: images whose words are known, through detector and reader as in a run."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import geopandas as gpd
import numpy as np
import rasterio
import shapely
from shapely.geometry import Polygon

from models.classes import BY_NAME, LETTERING
from models.detector.detector import Detector
from models.detector.labels import HEADING, LENGTH, WIDTH, X, Y
from models.errors import InputError
from models.reader.reader import Reader
from models.training.chip_pool import PooledChip, read_chip
from models.training.measuring import RealImage
from models.training.uncertainty import Figure, share
from pipelines.census import DETECTED
from pipelines.detection import detect_in_raster
from pipelines.gdal_env import gdal_env
from pipelines.grid import image_grid
from pipelines.gridded_raster import GriddedRaster
from pipelines.lettering import Region

__all__ = ["MIN_LETTER_M", "RoofName", "WordScore", "judge_words", "read_roof_names", "read_words"]

MIN_LETTER_M = 5.0
"""Words of lower letters are not scored."""
_RIM_PX = 10
"""A word that comes nearer to the edge of its scene is not scored: it may be cut."""
_FOUND_SHARE = 0.5
"""Part of a word that a region must cover to have found it."""

Outcome = Literal["missed", "refused", "wrong", "exact"]


@dataclass(frozen=True)
class WordScore:
    """Painted words of letters of `MIN_LETTER_M` or more on rendered scenes of one GSD."""

    gsd_m: float
    words: int
    found: int
    exact: int
    refused: int
    """Found, and no text given."""
    wrong: int
    """Found, and another text given, which misleads."""
    found_share: Figure | None
    exact_share: Figure | None
    """Of all words, those that were not found included."""
    exact_of_found: Figure | None
    read_nowhere: int
    """Texts read where no word stands, over all scenes."""


@dataclass(frozen=True)
class RoofName:
    """A painted roof name of a labelled real image."""

    file: str
    gsd_m: float
    text: str
    found: bool
    read: str
    """What was read, empty for nothing."""
    exact: bool
    given: bool
    """False: a run gives no lettering at this GSD, and what is said here is what it would have given."""


def read_words(
    detector: Detector,
    reader: Reader,
    paths: Sequence[Path],
    gsd_m: float,
    progress: Callable[[int, int], None] | None = None,
) -> WordScore:
    """Find and read the words of rendered scenes (files for `read_chip`) of a GSD."""
    outcomes: list[Outcome] = []
    nowhere = 0
    with tempfile.TemporaryDirectory() as folder:
        for done, path in enumerate(paths, start=1):
            chip = read_chip(path)
            if len(chip.words) < len(chip.labels.texts):
                raise InputError(f"Scene {path} does not say what its words are: give another working folder.")
            frame = _lettering(detector, reader, chip.image, detector.gsd_m, chip.native_gsd_m, Path(folder))
            judged, idle = judge_words(frame, chip, detector.gsd_m)
            outcomes += judged
            nowhere += idle
            if progress is not None:
                progress(done, len(paths))
    counts = Counter(outcomes)
    found = len(outcomes) - counts["missed"]
    return WordScore(
        gsd_m=gsd_m,
        words=len(outcomes),
        found=found,
        exact=counts["exact"],
        refused=counts["refused"],
        wrong=counts["wrong"],
        found_share=share(found, len(outcomes)),
        exact_share=share(counts["exact"], len(outcomes)),
        exact_of_found=share(counts["exact"], found),
        read_nowhere=nowhere,
    )


def read_roof_names(detector: Detector, reader: Reader, images: Sequence[RealImage]) -> tuple[RoofName, ...]:
    """Find and read the painted names of labelled real images, each image at its own GSD.

    Case and spaces do not count: the reader knows capitals alone, and a gap between words is a matter of taste.

    :raises InputError: an image cannot be read
    """
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for image in images:
            painted = [item for item in image.objects if item.cls == LETTERING.name and item.sure and item.text]
            if not painted:
                continue
            picture = cv2.imread(str(image.path), cv2.IMREAD_COLOR)
            if picture is None:
                raise InputError(f"Labelled image {image.path} is not a readable image: replace it.")
            rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            # Where a run would refuse the image as too coarse, what it would have given is still worth knowing.
            coarsest_m = BY_NAME[LETTERING.name].coarsest_gsd_m
            frame = _lettering(detector, reader, rgb, image.gsd_m, min(image.gsd_m, coarsest_m), Path(folder))
            for item in painted:
                word = Region(item.x_px, item.y_px, item.length_px, item.width_px, item.heading_deg, 1.0).outline
                covering = _covering(frame, word)
                read = "" if covering.empty else _text(covering.iloc[0]["text"])
                names.append(
                    RoofName(
                        file=image.path.name,
                        gsd_m=image.gsd_m,
                        text=item.text,
                        found=not covering.empty,
                        read=read,
                        exact=_plain(read) == _plain(item.text),
                        given=image.gsd_m <= coarsest_m,
                    )
                )
    return tuple(names)


def judge_words(frame: gpd.GeoDataFrame, chip: PooledChip, gsd_m: float) -> tuple[list[Outcome], int]:
    """What became of each word of a scene that is scored, and how many texts were read where no word stands.

    A word is found when a region that a census would list covers half of it or more, and is read as the most probable
    such region is.

    :param frame: detections of lettering with geometry in pixels of the scene
    :param gsd_m: of these pixels
    """
    height, width = chip.image.shape[:2]
    inside = shapely.box(_RIM_PX, _RIM_PX, width - _RIM_PX, height - _RIM_PX)
    outlines = [_outline(row) for row in chip.labels.texts]
    outcomes: list[Outcome] = []
    for row, outline, text in zip(chip.labels.texts, outlines, chip.words, strict=True):
        if row[WIDTH] * gsd_m < MIN_LETTER_M or not inside.contains(outline):
            continue
        covering = _covering(frame, outline)
        read = "" if covering.empty else _text(covering.iloc[0]["text"])
        if covering.empty:
            outcomes.append("missed")
        elif not read:
            outcomes.append("refused")
        else:
            outcomes.append("exact" if read == text else "wrong")
    painted = shapely.union_all([*outlines, *(_outline(row) for row in chip.labels.unseen)])
    listed = frame[(frame["probability"] >= DETECTED) & frame["text"].notna()]
    return outcomes, int((~listed.intersects(painted)).sum())


def _outline(row: np.ndarray) -> Polygon:
    """Of a word of a label table, in its pixels."""
    x, y, length, width, heading = (float(row[column]) for column in (X, Y, LENGTH, WIDTH, HEADING))
    return Region(x, y, length, width, heading, 1.0).outline


def _covering(frame: gpd.GeoDataFrame, word: Polygon) -> gpd.GeoDataFrame:
    """Regions that a census would list and that cover the word, the most probable first."""
    covers = frame.geometry.intersection(word).area >= _FOUND_SHARE * word.area
    return frame[covers & (frame["probability"] >= DETECTED)].sort_values("probability", ascending=False, kind="stable")


def _lettering(
    detector: Detector, reader: Reader, rgb: np.ndarray, gsd_m: float, native_gsd_m: float, folder: Path
) -> gpd.GeoDataFrame:
    """Lettering found in an image (H, W, 3) of `gsd_m`, with geometry in its pixels."""
    height, width = rgb.shape[:2]
    path = folder / "image.tif"
    with (
        gdal_env(),
        rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8", photometric="RGB"
        ) as dataset,
    ):
        dataset.write(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
    raster = GriddedRaster(path, image_grid(width, height, gsd_m, detector.gsd_m))
    return detect_in_raster(
        raster,
        None,
        [detector],
        reader,
        native_gsd_m=native_gsd_m,
        coverage=Polygon(),
        classes=[LETTERING.name],
    ).frame


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _plain(text: str) -> str:
    return text.upper().replace(" ", "")
