"""When a local image was acquired: what the file says, held against what the user says; never a guess."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from rasterio.io import DatasetReader

from pipelines.errors import SceneError

__all__ = ["DateStatement", "decide_acquired", "stated_dates"]

_NAME_DATE = re.compile(
    # 2025-08-22, 2025_08_22 or 20250822, not inside a longer number; a time of day may follow (20250822183000).
    r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?=\d{6}(?!\d)|(?!\d))"
)
_TAG_DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?")


@dataclass(frozen=True)
class DateStatement:
    """One statement of an acquisition date."""

    when: datetime
    """UTC; 00:00 where only the day is stated."""
    said_by: str
    """`item`, `image metadata`, `tiff tag` or `file name`."""


def stated_dates(dataset: DatasetReader, path: Path) -> list[DateStatement]:
    """Collect what a raster's metadata and its name state, the surest first; values that are no date are passed over.

    GDAL's IMAGERY metadata is written by vendors for the moment of acquisition and settles the matter. The TIFF tag
    DateTime may be that of a later edit and a name may hold the day of delivery: both are returned.
    """
    imagery = _tag_date(dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME"))
    if imagery:
        return [DateStatement(imagery, "image metadata")]
    tags = dataset.tags()
    stated = []
    for tag in ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME"):
        if when := _tag_date(tags.get(tag)):
            stated.append(DateStatement(when, "tiff tag"))
    return stated + _name_dates(path.stem)


def decide_acquired(name: str, stated: list[DateStatement], given: date | None, remedy: str) -> DateStatement:
    """Return the one acquisition date of an image.

    :param given: the date the user gives, if any; it settles a contradiction but may not contradict everything
    :param remedy: what the user can do when there is no date
    :raises SceneError: there is none, or several that differ, or none that is the given one
    """
    said = " and ".join(dict.fromkeys(f"{s.when:%Y-%m-%d} ({s.said_by})" for s in stated))
    if given is not None:
        if not stated:
            return DateStatement(datetime(given.year, given.month, given.day, tzinfo=UTC), "command line")
        for statement in stated:
            if statement.when.date() == date(given.year, given.month, given.day):
                return statement
        raise SceneError(f"{name} was acquired on {said} by its own account, not on the {given:%Y-%m-%d} given for it")
    if not stated:
        raise SceneError(f"{name} does not say when it was acquired; {remedy}")
    if len({statement.when.date() for statement in stated}) > 1:
        raise SceneError(f"{name} states more than one date, {said}; {remedy}")
    return stated[0]


def _tag_date(text: str | None) -> datetime | None:
    match = _TAG_DATE.match((text or "").strip())
    if not match:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups()), tzinfo=UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None


def _name_dates(stem: str) -> list[DateStatement]:
    found = []
    for year, _, month, day in _NAME_DATE.findall(stem):
        try:
            when = datetime(int(year), int(month), int(day), tzinfo=UTC)
        except ValueError:
            continue
        found.append(DateStatement(when, "file name"))
    return found
