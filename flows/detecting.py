"""`overwatt detect`: one image in, one GeoJSON file of polygons out, without Prefect."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import progress
from flows.instruments import instruments
from models.classes import CLASSES
from models.errors import InputError
from pipelines.errors import ArchiveError
from pipelines.gdal_env import is_url
from pipelines.geojson import read_area
from pipelines.scenes.georeference import is_there
from pipelines.settings import Settings


@dataclass(frozen=True)
class Written:
    """What one image gave."""

    path: Path
    raster: str
    rendered: bool
    native_gsd_m: float
    georeferenced: bool
    polygons: Mapping[str, int]
    """By class, those that were looked for."""
    texts: tuple[str, ...]
    not_given: Mapping[str, str]
    not_read: tuple[str, ...]
    windows_read: int
    windows_skipped: int
    model_version: str
    seconds: Mapping[str, float]
    """Where the time went: thread time of `read` and `network`, wall time of the others."""

    def as_record(self) -> dict[str, Any]:
        """What `--json` prints."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {"path": str(self.path), "texts": list(self.texts), "not_read": list(self.not_read)}
        return record | lists | {"seconds": {step: round(value, 3) for step, value in self.seconds.items()}}


def detect_to_file(
    raster: str,
    *,
    classes: str | None,
    out: Path | None,
    area: Path | None,
    gsd_m: float | None,
    min_probability: float,
    window_px: int | None,
    readers: int | None,
    processes: int,
    skip_damaged: bool,
    device: str,
) -> Written:
    """Detect in one image and write the polygons.

    :raises InputError: the image, an option or the place to write is at fault
    """
    wanted = parse_classes(classes)
    inside = None if area is None else read_area(area)
    target = _target(raster, out, area)

    from pipelines.detection import WINDOW_PX, detect_in_raster
    from pipelines.documents import raster_geojson
    from pipelines.single_raster import open_single

    detectors, reader = instruments(device)
    start = time.perf_counter()
    with open_single(
        raster,
        detector_gsd_m=detectors[0].gsd_m,
        cache=Settings().cache,
        image_gsd_m=gsd_m,
        area=inside,
        skip_damaged=skip_damaged,
    ) as image:
        opened_s = time.perf_counter() - start
        found = detect_in_raster(
            image.gridded,
            inside,
            detectors,
            reader,
            native_gsd_m=image.native_gsd_m,
            coverage=image.coverage,
            classes=wanted,
            min_probability=min_probability,
            window_px=window_px or WINDOW_PX,
            readers=readers,
            processes=processes,
            skip_damaged=skip_damaged,
            progress=lambda done, total: progress.report(f"{image.name}: windows", done, total),
        )
        start = time.perf_counter()
        text = raster_geojson(image, found, wanted)
    _write(target, text)
    counts = Counter(found.frame["class"])
    return Written(
        path=target,
        raster=image.name,
        rendered=image.rendered,
        native_gsd_m=image.native_gsd_m,
        georeferenced=image.georeferenced,
        polygons={name: counts[name] for name in CLASSES if name in wanted and name not in found.not_given},
        texts=tuple(found.frame["text"].dropna()),
        not_given=found.not_given,
        not_read=tuple(str(damage) for damage in (*image.damaged, *found.damaged)),
        windows_read=found.windows_read,
        windows_skipped=found.windows_skipped,
        model_version=found.model_version,
        seconds={"open": opened_s, **(found.seconds or {}), "write": time.perf_counter() - start},
    )


def _target(raster: str, out: Path | None, area: Path | None) -> Path:
    """Where the polygons go, checked before the work is done."""
    stem = Path(raster.partition("?")[0] if is_url(raster) else raster).stem
    target = out or Path(f"{stem}.detections.geojson")
    if is_there(target):
        if target.is_dir():
            raise ArchiveError(f"--out {target} is a folder: name a file")
        for read, what in ((raster, "the image itself"), (area, "the area file")):
            if read is not None and is_there(read) and target.samefile(read):
                raise ArchiveError(f"--out {target} is {what}: name another file")
    if not is_there(target.parent) or not target.parent.is_dir():
        raise ArchiveError(f"{target.parent} is no folder: make it, or name another file with --out")
    return target


def parse_classes(text: str | None) -> tuple[str, ...]:
    """Class names from `a,b`; all of them from None."""
    if text is None:
        return CLASSES
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if name not in CLASSES]
    if wrong or not names:
        what = f"has no class {wrong[0]!r}" if wrong else "names no class"
        raise InputError(f"--classes {text} {what}: choose from {', '.join(CLASSES)}")
    return names


def _write(path: Path, text: str) -> None:
    """Beside its place first, so that a full disk costs nobody an earlier file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise ArchiveError(f"{path} cannot be written: {error.strerror}; name another file with --out") from None
