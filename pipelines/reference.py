"""Reference data: Epoch AI's export of AI datacenters, kept as dated snapshots and read with its traps in mind.

Credit: Epoch AI, *AI Data Centers*, CC BY 4.0. A snapshot is what was downloaded on a day, unchanged; Epoch revises
past rows, so whatever is compared names its snapshot. `Current power (MW)` of the table of sites meant facility power
until about May 2026 and IT power since: it is never read. Powers come from the timelines, whose columns say what they
are.
"""

import csv
import datetime as dt
import difflib
import hashlib
import io
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.census import Interval
from pipelines.errors import ReferenceDataError, SourceError
from pipelines.scenes.web import get_bytes, new_client, public_href
from pipelines.sites import Site, new_site
from pipelines.tables import DATA, load_places
from pipelines.timeline import DAYS_A_MONTH, MILESTONES_MW, Timeline

__all__ = [
    "CREDIT",
    "EXPORT_URL",
    "BuildSpeed",
    "Comparison",
    "ReferencePoint",
    "Snapshot",
    "build_speeds",
    "compare",
    "load_snapshot",
    "refresh",
    "site_from_reference",
]

EXPORT_URL = "https://epoch.ai/data/data_centers/data_centers.zip"
CREDIT = "Epoch AI, AI Data Centers, CC BY 4.0"
_SITES, _TIMELINES, _CHIPS = "data_centers.csv", "data_center_timelines.csv", "data_center_chip_quantities.csv"
_COLUMNS = {
    _SITES: ("Name", "Owner", "Country", "Address"),
    _TIMELINES: (
        "Data center",
        "Date",
        "Construction status",
        "Buildings operational",
        "IT power (MW)",
        "Power (MW)",
        "H100 equivalents",
    ),
    _CHIPS: ("Data center", "Date", "Chip type", "Number of Units"),
}
_ABOUT = "snapshot.json"
_MOST_MB = 100
"""The export holds half a megabyte; more than this is something else."""
_HALF_SIDE_M = 1000.0
"""Half of the side of the square that stands for a tracked site until somebody draws its outline."""
_COMPARED = ("it_mw", "h100_equivalents")


@dataclass(frozen=True)
class ReferencePoint:
    """What Epoch AI says of a site from a date on."""

    date: dt.date
    status: str
    buildings: float | None
    it_mw: float | None
    facility_mw: float | None
    h100_equivalents: float | None
    chips: Mapping[str, float]
    """Number by type, of rows with this date."""


@dataclass(frozen=True)
class TrackedSite:
    """A site of the export."""

    name: str
    owner: str
    country: str
    address: str
    points: tuple[ReferencePoint, ...]
    """In order; dates after the snapshot's are projections."""


@dataclass(frozen=True)
class Snapshot:
    """An export as it was on a day."""

    retrieved: dt.date
    url: str
    sites: Mapping[str, TrackedSite]
    """By name."""
    folder: Path

    @property
    def label(self) -> str:
        """What a comparison is called after."""
        return f"{CREDIT}, snapshot of {self.retrieved}"

    def site(self, name: str) -> TrackedSite:
        """The site called so, in any case.

        :raises ReferenceDataError: there is none
        """
        by_name = {known.casefold(): site for known, site in self.sites.items()}
        if name.casefold() not in by_name:
            raise ReferenceDataError(
                f"the snapshot of {self.retrieved} tracks no site '{name}'{_did_you_mean(name, self.sites)}"
            )
        return by_name[name.casefold()]


@dataclass(frozen=True)
class Comparison:
    """Our estimate on a date beside the reference's of that date or the latest before it."""

    date: dt.date
    reference_date: dt.date
    figure: str
    estimated: Interval
    reference: float
    status: str

    @property
    def factor(self) -> float | None:
        """Our median over the reference; None where the reference says there is nothing."""
        return self.estimated.p50 / self.reference if self.reference else None

    @property
    def inside(self) -> bool:
        """Whether the reference lies in our interval."""
        return self.estimated.p5 <= self.reference <= self.estimated.p95

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "date": self.date.isoformat(),
            "reference_date": self.reference_date.isoformat(),
            "figure": self.figure,
            "estimated": self.estimated.as_record(),
            "reference": self.reference,
            "factor": None if self.factor is None else round(self.factor, 3),
            "inside": self.inside,
            "status": self.status,
        }


def refresh(cache: Path, url: str = EXPORT_URL, today: dt.date | None = None) -> Snapshot:
    """Download the export and keep it as the snapshot of today; another of today is replaced.

    :raises SourceError: the export cannot be had; the message says which snapshot there is
    :raises ReferenceDataError: what came is no such export; nothing is kept of it
    """
    today = today or dt.date.today()
    try:
        with new_client() as client:
            content = get_bytes(client, url, at_most=_MOST_MB << 20)
    except SourceError as error:
        known = _snapshot_folders(cache)
        kept = f"the snapshot of {known[-1].name} stays in use" if known else "there is no snapshot yet"
        raise SourceError(f"{error}; {kept}") from error
    files = _unpacked(content, public_href(url))
    _parse(files, public_href(url))
    about = {
        "retrieved": today.isoformat(),
        "url": public_href(url),
        "sha256": hashlib.sha256(content).hexdigest(),
        "credit": CREDIT,
    }
    folder = cache / "reference" / today.isoformat()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8", newline="")
        (partial / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise ReferenceDataError(
            f"{folder} cannot be written: {error.strerror}; set OVERWATT_CACHE to a writable folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_snapshot(cache)


def load_snapshot(cache: Path) -> Snapshot:
    """The latest snapshot.

    :raises ReferenceDataError: there is none, or it was damaged since
    """
    folders = _snapshot_folders(cache)
    if not folders:
        raise ReferenceDataError("there is no snapshot of the reference data yet: run overwatt reference refresh")
    folder = folders[-1]
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        files = {name: (folder / name).read_text(encoding="utf-8") for name in _COLUMNS}
        retrieved, url = dt.date.fromisoformat(about["retrieved"]), str(about["url"])
    except (OSError, ValueError, KeyError) as error:
        raise ReferenceDataError(
            f"{folder} is damaged ({error}): delete it and run overwatt reference refresh"
        ) from None
    return Snapshot(retrieved, url, _parse(files, str(folder)), folder)


def compare(timeline: Timeline, name: str, snapshot: Snapshot) -> tuple[Comparison, ...]:
    """Each date of a timeline beside what the reference says of that date, projections left out.

    :param name: of the site in the reference
    :raises ReferenceDataError: the reference tracks no such site
    """
    past = [point for point in snapshot.site(name).points if point.date <= snapshot.retrieved]
    compared = []
    for moment in timeline.moments:
        known = [point for point in past if point.date <= moment.date]
        for figure in _COMPARED:
            given = [point for point in known if getattr(point, figure) is not None]
            if given and figure in moment.figures:
                point = given[-1]
                compared.append(
                    Comparison(
                        moment.date, point.date, figure, moment.figures[figure], getattr(point, figure), point.status
                    )
                )
    return tuple(compared)


@dataclass(frozen=True)
class BuildSpeed:
    """How long a tracked site took to a capacity."""

    site: str
    owner: str
    begun: dt.date
    """Its first date in the reference, which is when ground was broken or land cleared."""
    months: Mapping[float, tuple[float, float] | None]
    """By megawatts of IT: months to the last date below and to the first date at or above; None: not yet."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "site": self.site,
            "owner": self.owner,
            "begun": self.begun.isoformat(),
            "months": [
                {"it_mw": mw, "after": span and round(span[0], 1), "by": span and round(span[1], 1)}
                for mw, span in self.months.items()
            ],
        }


def build_speeds(snapshot: Snapshot) -> tuple[BuildSpeed, ...]:
    """Months from ground-break to each of `MILESTONES_MW`, of every tracked site that reached the first of them.

    Only sites whose first date has no power yet: of the others nobody says when they were begun. The quickest come
    first, by the first milestone.
    """
    speeds = []
    for site in snapshot.sites.values():
        past = [point for point in site.points if point.date <= snapshot.retrieved and point.it_mw is not None]
        if not past or past[0].it_mw:
            continue
        begun = past[0].date
        months: dict[float, tuple[float, float] | None] = {}
        for mw in MILESTONES_MW:
            first = next((i for i, point in enumerate(past) if (point.it_mw or 0) >= mw), None)
            days = None if first is None else (past[first - 1].date - begun, past[first].date - begun)
            months[mw] = None if days is None else (days[0].days / DAYS_A_MONTH, days[1].days / DAYS_A_MONTH)
        if months[MILESTONES_MW[0]] is not None:
            speeds.append(BuildSpeed(site.name, site.owner, begun, months))
    return tuple(sorted(speeds, key=lambda speed: speed.months[MILESTONES_MW[0]] or (math.inf, math.inf)))


def site_from_reference(name: str, folder: Path, snapshot: Snapshot | None, site_id: str | None = None) -> Site:
    """Write a site file for a tracked site: a square around its coordinates, a proxy until somebody draws it.

    :param snapshot: where owner and address are taken from; None: they stay unknown
    :raises ReferenceDataError: no coordinates of such a site are known
    :raises SiteError: the file exists or cannot be written
    """
    places = {place.name.casefold(): place for place in load_places()}
    if name.casefold() not in places:
        hint = _did_you_mean(name, [place.name for place in places.values()])
        raise ReferenceDataError(f"{DATA / 'reference' / 'places.csv'} holds no coordinates of '{name}'{hint}")
    place = places[name.casefold()]
    tracked = None if snapshot is None else snapshot.sites.get(place.name)
    # Metres a degree at mid latitudes; the square is a proxy.
    north = _HALF_SIDE_M / 111_320
    east = north / math.cos(math.radians(place.latitude_deg))
    slug = "-".join("".join(c if c.isalnum() and c.isascii() else " " for c in place.name.lower()).split())
    return new_site(
        site_id or slug,
        (
            place.longitude_deg - east,
            place.latitude_deg - north,
            place.longitude_deg + east,
            place.latitude_deg + north,
        ),
        folder,
        source=f"square of {2 * _HALF_SIDE_M / 1000:g} km around the {place.source}",
        name=place.name,
        operator=(tracked.owner if tracked else "") or "unknown",
        address=tracked.address if tracked else "",
        reference_name=place.name,
    )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    by_name = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), by_name, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(by_name[one] for one in close)}?" if close else ""


def _snapshot_folders(cache: Path) -> list[Path]:
    return sorted((cache / "reference").glob("????-??-??"))


def _unpacked(content: bytes, name: str) -> dict[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {Path(member.filename).name: member for member in archive.infolist() if not member.is_dir()}
            missing = [file for file in _COLUMNS if file not in members]
            if missing:
                raise ReferenceDataError(f"{name} lacks {', '.join(missing)}: its makers changed the export")
            if sum(members[file].file_size for file in _COLUMNS) > _MOST_MB << 20:
                raise ReferenceDataError(f"{name} unpacks to more than {_MOST_MB} MB: it is not the export")
            return {file: archive.read(members[file]).decode("utf-8-sig") for file in _COLUMNS}
    # What is damaged inside a member comes as any of these.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise ReferenceDataError(
            f"{name} is not the zip file of tables it should be ({error}); try again later"
        ) from None


def _parse(files: Mapping[str, str], name: str) -> dict[str, TrackedSite]:
    sites, timelines, chips = (_rows(files[file], file, name) for file in (_SITES, _TIMELINES, _CHIPS))
    chips_of: dict[tuple[str, dt.date], dict[str, float]] = {}
    for at, row in chips:
        count = _number(row["Number of Units"], at, "Number of Units")
        if count is not None and row["Date"].strip():
            of = chips_of.setdefault((row["Data center"].strip(), _date(row["Date"], at)), {})
            of[row["Chip type"].strip()] = of.get(row["Chip type"].strip(), 0.0) + count
    points: dict[str, list[ReferencePoint]] = {}
    for at, row in timelines:
        if not row["Date"].strip():
            continue
        site, day = row["Data center"].strip(), _date(row["Date"], at)
        points.setdefault(site, []).append(
            ReferencePoint(
                date=day,
                status=row["Construction status"].strip(),
                buildings=_number(row["Buildings operational"], at, "Buildings operational"),
                it_mw=_number(row["IT power (MW)"], at, "IT power (MW)"),
                facility_mw=_number(row["Power (MW)"], at, "Power (MW)"),
                h100_equivalents=_number(row["H100 equivalents"], at, "H100 equivalents"),
                chips=chips_of.get((site, day), {}),
            )
        )
    return {
        site: TrackedSite(
            name=site,
            # "SpaceXAI #confident": how sure Epoch is, which is not part of the name.
            owner=row["Owner"].partition("#")[0].strip(),
            country=row["Country"].strip(),
            address=row["Address"].strip(),
            points=tuple(sorted(points.get(site, ()), key=lambda point: point.date)),
        )
        for _, row in sites
        if (site := row["Name"].strip())
    }


def _rows(text: str, file: str, name: str) -> list[tuple[str, dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [column for column in _COLUMNS[file] if column not in (reader.fieldnames or [])]
        if missing:
            raise ReferenceDataError(f"{name}: {file} lacks the column '{missing[0]}': its makers changed the export")
        rows = [
            (f"{name}: {file}, line {reader.line_num}", {column: row[column] or "" for column in _COLUMNS[file]})
            for row in reader
        ]
    except csv.Error as error:
        raise ReferenceDataError(f"{name}: {file} cannot be read as CSV ({error})") from None
    if not rows:
        raise ReferenceDataError(f"{name}: {file} has no rows: its makers changed the export")
    return rows


def _number(cell: str, at: str, column: str) -> float | None:
    text = cell.strip().replace(",", "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ReferenceDataError(f"{at}: {column} must be a number, got '{cell.strip()}'")
    return value


def _date(cell: str, at: str) -> dt.date:
    try:
        return dt.date.fromisoformat(cell.strip())
    except ValueError:
        raise ReferenceDataError(f"{at}: Date must be a date YYYY-MM-DD, got '{cell.strip()}'") from None
