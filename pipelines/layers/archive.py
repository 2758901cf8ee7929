"""Reading an archive back: every run folder as records and a table of its detections.

Everything that is derived from all runs (layers, catalogs, sinks) starts here. A run folder that cannot be trusted is
named among `Archive.broken` and takes nothing else with it.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from models.classes import CLASSES
from pipelines.census import Census, ClassCount, Interval
from pipelines.coregistration import Refusal, Shift, coregister, read_shifts
from pipelines.errors import ArchiveError, SceneError
from pipelines.identity import DatedUnits, identify_units
from pipelines.sites import Site

__all__ = ["COLUMNS", "FIGURES", "Archive", "BrokenRun", "Run", "read_archive", "read_run", "run_folders"]

CRS = "EPSG:4326"
"""Of every table made from the archive; coordinates stand as longitude, latitude."""
_TIME = pd.DatetimeTZDtype("ms", "UTC")
COLUMNS: Mapping[str, Any] = {
    "detection_id": "string",
    "site": "string",
    "campus": "string",
    "scene_id": "string",
    "acquired": _TIME,
    "acquired_earliest": _TIME,
    "released": pd.ArrowDtype(pa.date32()),
    "class": "string",
    "probability": "float64",
    "score": "float64",
    "length_m": "float64",
    "width_m": "float64",
    "heading_deg": "float64",
    "fan_count": "Int64",
    "text": "string",
    "zone": "string",
    "licence": "string",
    "attribution": "string",
    "source": "string",
    "rendered": "bool",
    "model_version": "string",
    "native_gsd_m": "float64",
    "valid_from": _TIME,
    "valid_until": _TIME,
    "chosen": "bool",
    "unit_id": "string",
    "first_seen": pd.ArrowDtype(pa.date32()),
    "last_seen": pd.ArrowDtype(pa.date32()),
}
"""Columns of a table of detections, besides `geometry`, with their pandas types. The last six:

`valid_from`: 00:00 UTC of the day of acquisition; `valid_until`: the last second before the site's next day with a
scene, missing for the last one; `chosen`: False where another scene of the same site and day shows more of the
perimeter, or is sharper, and counts instead (as in `pipelines.timeline.read_censuses`); `unit_id`, `first_seen`,
`last_seen`: which unit of the site it is over the dates (see `pipelines.identity`), missing where the scene's shift is
not known.
"""
UNIT = ("unit_id", "first_seen", "last_seen")
FIGURES = {
    "cooling_mw": "MW",
    "generation_mw": "MW",
    "supply_mw": "MW",
    "battery_mw": "MW",
    "battery_mwh": "MWh",
    "ride_through_minutes": "min",
    "it_mw": "MW",
    "gpus": "accelerators",
    "h100_equivalents": "H100",
}
"""Figures of an estimate with their units."""
FILES = ("item.json", "census.json", "estimate.json", "detections.geojson")
MOST_READINGS = 5
"""A run that is replaced while it is read is read again; nobody counts a scene this often in a second."""


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    folder: Path
    site: str
    campus: str
    scene_id: str
    acquired: datetime
    """UTC."""
    rendered: bool
    item: Mapping[str, Any] = field(repr=False)
    """The STAC item as it stands in the folder."""
    census: Census = field(repr=False)
    estimate: Mapping[str, Any] = field(repr=False)
    """As `pipelines.capacity.Estimate.as_record` wrote it."""
    detections: gpd.GeoDataFrame = field(repr=False, compare=False)
    """`COLUMNS` and `geometry` (polygons, `CRS`), in the order of the file."""
    valid_from: datetime
    shift: Shift | None = None
    """Against the site's reference scene; None where it was not measured."""
    valid_until: datetime | None = None
    chosen: bool = True

    @property
    def run_id(self) -> str:
        """What the run is called in the archive, where its folder stands: `<site>/<date>/<scene id>`."""
        return _run_id(self.folder)

    @property
    def key(self) -> str:
        """What the run is called among those of its site: `<date>/<scene id>`."""
        return "/".join(self.folder.parts[-2:])

    @property
    def date(self) -> date:
        """Day of acquisition, UTC."""
        return self.acquired.date()

    @property
    def scoped_counts(self) -> tuple[tuple[str, ClassCount], ...]:
        """The counts of the census, each with its scope: `site`, `zone` or `outside zones`."""
        by_zone = [("zone" if count.zone else "outside zones", count) for count in self.census.by_zone]
        return (*(("site", count) for count in self.census.by_class.values()), *by_zone)

    @property
    def figures(self) -> Mapping[str, Mapping[str, float]]:
        """The figures of the estimate that are given, each with its `p5`, `p50` and `p95`."""
        return {name: self.estimate[name] for name in FIGURES if self.estimate[name] is not None}


@dataclass(frozen=True)
class BrokenRun:
    """A run folder that was left out."""

    folder: Path
    reason: str

    @property
    def run_id(self) -> str:
        """As `Run.run_id`."""
        return _run_id(self.folder)

    def __str__(self) -> str:
        """One sentence with the remedy."""
        site, day = self.folder.parts[-3:-1]
        return f"{self.folder} is left out: {self.reason}; count it again with overwatt run {site} --date {day}"


@dataclass(frozen=True)
class Archive:
    """All runs of an archive."""

    path: Path
    runs: tuple[Run, ...]
    """By site, acquisition, scene."""
    broken: tuple[BrokenRun, ...]
    unplaced: tuple[str, ...] = ()
    """Why the units of a site cannot be followed over its dates, a sentence a site."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What a reader must be told, a sentence each."""
        return (*map(str, self.broken), *self.unplaced)

    @property
    def rendered(self) -> bool:
        """Whether any imagery was rendered."""
        return any(run.rendered for run in self.runs)

    @property
    def detections(self) -> gpd.GeoDataFrame:
        """Detections of all runs in one table, `COLUMNS` and `geometry`."""
        frames = [run.detections for run in self.runs]
        return gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), geometry="geometry", crs=CRS)


def _run_id(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def run_folders(archive: Path) -> tuple[Path, ...]:
    """Every run folder of an archive, in the order of their names."""
    return tuple(sorted(path for path in archive.glob("[!.]*/????-??-??/[!.]*") if path.is_dir()))


def read_archive(archive: Path, sites: Sequence[Site] = ()) -> Archive:
    """Read every run folder.

    :param sites: those whose runs are placed against each other first, where the archive does not say how they lie
    :raises ArchiveError: there is no archive, or it holds no run that can be read
    """
    folders = run_folders(archive)
    if not folders:
        raise ArchiveError(
            f"{archive} holds no run yet; count a site with overwatt run SITE, or name another --archive"
        )
    runs: list[Run] = []
    broken: list[BrokenRun] = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except ArchiveError as error:
            broken.append(BrokenRun(folder, str(error)))
    if not runs:
        raise ArchiveError(f"no run of {archive} can be read; the first of {len(broken)}: {broken[0]}")
    runs.sort(key=lambda run: (run.site, run.acquired, run.scene_id))
    by_id = {site.id: site for site in sites}
    unplaced: list[str] = []
    shifts: dict[tuple[str, str], Shift | Refusal] = {}
    for site in sorted({run.site for run in runs}):
        keys = [run.key for run in runs if run.site == site]
        try:
            shifts |= {(site, key): found for key, found in _shifts(site, by_id.get(site), archive, keys).items()}
        except (ArchiveError, SceneError) as error:
            unplaced.append(f"units of {site} are not followed from date to date: {error}")
    for i, run in enumerate(runs):
        shift = shifts.get((run.site, run.key))
        runs[i] = replace(run, shift=shift) if isinstance(shift, Shift) else run
    return Archive(archive, tuple(_in_time(runs)), tuple(broken), tuple(unplaced))


def _shifts(name: str, site: Site | None, archive: Path, keys: Collection[str]) -> Mapping[str, Shift | Refusal]:
    """Return what the archive says; where that is not all there is to say and the site is known, measure it."""
    try:
        known = read_shifts(name, archive)
    except ArchiveError:
        if site is None:
            raise
        known = {}
    return coregister(site, archive) if site is not None and not known.keys() >= set(keys) else known


def read_run(folder: Path) -> Run:
    """Read one run folder, by itself: as if it were the only one of its site.

    :raises ArchiveError: a file is missing, damaged or of another version; the message is a reason, not a remedy
    """
    for _ in range(MOST_READINGS):
        try:
            before = folder.stat().st_ino
            documents = [json.loads((folder / name).read_bytes()) for name in FILES]
            for asset in documents[0].get("assets", {}).values():
                (folder / asset["href"]).stat()
            if folder.stat().st_ino != before:
                continue  # replaced by a new count meanwhile: what was read may be of both
        except FileNotFoundError as error:
            raise ArchiveError(f"{Path(error.filename).name} is missing") from None
        except OSError as error:
            raise ArchiveError(f"{error.filename} cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"one of its files is not JSON ({error})") from None
        except (AttributeError, KeyError, TypeError):
            raise ArchiveError("its item.json is damaged") from None
        try:
            return _run(folder, *documents)
        except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise ArchiveError(f"a file is damaged or of another version ({fault})") from None
    raise ArchiveError("it is being replaced again and again")


def _run(folder: Path, item: Any, census_record: Any, estimate: Any, collection: Any) -> Run:
    census = Census.from_record(census_record)
    properties = item["properties"]
    acquired = census.acquired.astimezone(UTC)
    if (estimate["site"], estimate["scene"]) != (census.site_id, census.scene_id):
        raise ValueError("estimate and census are of different runs")
    if properties["overwatt:site"] != census.site_id or properties["overwatt:scene_id"] != census.scene_id:
        raise ValueError("item and census are of different runs")
    _check(item, estimate)
    day = datetime.combine(acquired.date(), time(), UTC)
    run = Run(
        folder=folder,
        site=census.site_id,
        campus=properties["overwatt:campus"],
        scene_id=census.scene_id,
        acquired=acquired,
        rendered=bool(census.rendered),
        item=item,
        census=census,
        estimate=estimate,
        detections=gpd.GeoDataFrame(),
        valid_from=day,
    )
    return replace(run, detections=_detections(run, collection))


def _check(item: Mapping[str, Any], estimate: Mapping[str, Any]) -> None:
    """Take everything once that layers and sinks take, so that they need not fear that it is not there."""
    shapely.geometry.shape(item["geometry"])
    [float(side) for side in item["bbox"]]
    [link["rel"] for link in item["links"]]
    for where, names in (
        (item, ("id", "assets", "stac_extensions")),
        (item["properties"], ("title", "license")),
        (estimate, ("accelerator", "notes", *FIGURES)),
    ):
        for name in names:
            where[name]
    for name in FIGURES:
        if estimate[name] is not None:
            Interval(**estimate[name])


def _detections(run: Run, collection: Mapping[str, Any]) -> gpd.GeoDataFrame:
    features = collection["features"]
    about = collection["overwatt"]
    if about["scene_id"] != run.scene_id or about["site"] != run.site:
        raise ValueError("detections and census are of different runs")
    same = {
        "campus": run.campus,
        "acquired": run.acquired,
        "valid_from": run.valid_from,
        "valid_until": None,
        "chosen": True,
    }
    columns: dict[str, Any] = {}
    for name, dtype in COLUMNS.items():
        if name == "detection_id":
            values = [feature["id"] for feature in features]
        elif name in same:
            values = [same[name]] * len(features)
        elif name in UNIT:
            values = [None] * len(features)
        elif name in ("acquired_earliest", "released"):  # which older runs do not say
            values = [feature["properties"].get(name) for feature in features]
        else:
            values = [feature["properties"][name] for feature in features]
        if name == "acquired_earliest":
            values = [None if value is None else datetime.fromisoformat(value) for value in values]
        if name == "released":
            values = [None if value is None else date.fromisoformat(value) for value in values]
        columns[name] = pd.Series(values, dtype=dtype)
    unknown = set(columns["class"]) - set(CLASSES)
    if unknown:
        raise ValueError(f"no class is called {sorted(unknown)[0]}")
    texts = [json.dumps(feature["geometry"]) for feature in features]
    shapes = shapely.from_geojson(np.array(texts, dtype=object))
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=CRS)


def _in_time(runs: list[Run]) -> Iterator[Run]:
    """Say until when each run stands, and which of several of a day counts."""
    days: dict[str, list[datetime]] = {}
    best: dict[tuple[str, datetime], Run] = {}

    def rank(run: Run) -> tuple[float, float]:
        return run.census.covered_fraction, -run.census.native_gsd_m

    for run in runs:
        if run.valid_from not in days.setdefault(run.site, []):
            days[run.site].append(run.valid_from)
        key = run.site, run.valid_from
        # In the order of the folders, as the timeline goes through them.
        if key not in best or (rank(run), _reversed(run, best[key])) > (rank(best[key]), False):
            best[key] = run
    units = _units(runs)
    for run in runs:
        # The last second itself, because QGIS and BETWEEN take an end to be in.
        later = next((day for day in days[run.site] if day > run.valid_from), None)
        until = None if later is None else later - timedelta(seconds=1)
        chosen = best[run.site, run.valid_from] is run
        frame = run.detections.assign(
            valid_until=pd.Series([until] * len(run.detections), dtype=_TIME),
            chosen=np.full(len(run.detections), chosen),
            **{name: units[run.folder][name].astype(COLUMNS[name]) for name in UNIT},
        )
        yield replace(run, detections=frame, valid_until=until, chosen=chosen)


def _units(runs: list[Run]) -> Mapping[Path, pd.DataFrame]:
    """Say of the detections of every run which units they are.

    Shifts are against one reference only among runs of one site that are all rendered or all photographs.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    found: dict[Path, pd.DataFrame] = {}
    for run in runs:
        alone = sum(other.site == run.site for other in runs) == 1
        if run.shift is None and not alone:
            found[run.folder] = pd.DataFrame({name: [None] * len(run.detections) for name in UNIT}, dtype=object)
            continue
        reference = ("", "") if run.shift is None else (run.shift.reference, run.shift.crs)
        groups.setdefault((run.site, *reference), []).append(run)
    for alike in groups.values():
        units = identify_units(
            [DatedUnits(run.key, run.acquired, run.detections, run.shift, run.rendered) for run in alike]
        )
        found |= {run.folder: units[run.key] for run in alike}
    return found


def _reversed(run: Run, other: Run) -> bool:
    """Whether the folder of `run` comes before that of `other`."""
    return run.folder.name < other.folder.name
