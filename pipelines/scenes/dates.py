"""When a local image was acquired: what the file says, held against what the user says; never a guess."""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from rasterio.io import DatasetReader

from pipelines.errors import SceneError

__all__ = [
    "DAY_FORMS",
    "DateStatement",
    "Days",
    "decide_acquired",
    "given_statement",
    "parse_days",
    "stated_dates",
    "written_days",
]

_NAME_DATE = re.compile(
    # 2025-08-22, 2025_08_22 or 20250822, not inside a longer number; a time of day may follow (20250822183000).
    r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?=\d{6}(?!\d)|(?!\d))"
)
_TAG_DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?")
_GIVEN = re.compile(
    r"(?P<year>(?:19|20)\d\d)(?:-Q(?P<quarter>[1-4])|-(?P<month>0[1-9]|1[0-2])(?:-(?P<day>\d\d))?)?", re.IGNORECASE
)
DAY_FORMS = "2025-08-22, or what is known of it: 2025-08, 2025-Q3, 2025 or 2025-08-01/2025-08-31"
"""The forms of a date of acquisition, for messages and help."""


@dataclass(frozen=True)
class Days:
    """A day, or a range of days of which one is meant, both ends included."""

    first: date
    last: date

    @property
    def exact(self) -> bool:
        """Whether it is one day."""
        return self.first == self.last

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.first}" if self.exact else f"{self.first} to {self.last}"


def parse_days(text: str) -> Days:
    """Read a date of acquisition: a day, a month, a quarter, a year, or two of them with `/` between.

    :raises SceneError: it is none of the forms, no date of the calendar, or runs backwards
    """
    parts = [_part(part.strip(), text) for part in text.split("/")]
    if len(parts) > 2:
        raise SceneError(f"'{text}' is no date of acquisition; give {DAY_FORMS}")
    if parts[0].first > parts[-1].last:
        raise SceneError(f"'{text}' runs backwards; give the earlier day first")
    return Days(parts[0].first, parts[-1].last)


def _part(part: str, text: str) -> Days:
    match = _GIVEN.fullmatch(part)
    if not match:
        raise SceneError(f"'{text}' is no date of acquisition; give {DAY_FORMS}")
    year, quarter, month, day = (None if value is None else int(value) for value in match.groups())
    assert year is not None
    if quarter:
        first, last = 3 * quarter - 2, 3 * quarter
    else:
        first, last = (month, month) if month else (1, 12)
    try:
        return Days(date(year, first, day or 1), date(year, last, day or calendar.monthrange(year, last)[1]))
    except ValueError as error:
        raise SceneError(f"'{text}' is no day of the calendar; give {DAY_FORMS}") from error


def written_days(acquired: date, earliest: date | None) -> str:
    """Return when something was acquired as people read it: a day, or the range where no more is known."""
    last = acquired.date() if isinstance(acquired, datetime) else acquired
    first = earliest.date() if isinstance(earliest, datetime) else earliest
    return str(Days(first or last, last))


@dataclass(frozen=True)
class DateStatement:
    """One statement of an acquisition date."""

    when: datetime
    """UTC; 00:00 where only the day is stated."""
    said_by: str
    """`item`, `item end_datetime`, `image metadata`, `tiff tag`, `file name`, `folder pattern` or `command line`."""
    earliest: datetime | None = None
    """First moment it may have been, where only a range is known; `when` is then 00:00 of its last day."""

    @property
    def days(self) -> Days:
        """The day, or the days, it may have been."""
        return Days((self.earliest or self.when).date(), self.when.date())


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


def decide_acquired(
    name: str,
    stated: list[DateStatement],
    given: date | Days | None,
    remedy: str,
    given_by: str = "command line",
) -> DateStatement:
    """Return the one acquisition date of an image.

    :param given: what the user gives, if anything; it settles a contradiction but may not contradict everything. Of a
        range of days, one that the image states itself is taken
    :param remedy: what the user can do when there is no date
    :param given_by: where the given days come from
    :raises SceneError: there is none, or several that differ, or none that is the given one
    """
    if isinstance(given, date):
        given = Days(given, given)
    said = " and ".join(dict.fromkeys(f"{s.days} ({s.said_by})" for s in stated))
    if given is not None:
        if not stated:
            return given_statement(given, given_by)
        fitting = [one for one in stated if one.days.first in given and one.days.last in given]
        if len({one.days for one in fitting}) == 1:
            return fitting[0]
        if fitting:
            raise SceneError(f"{name} states more than one date within {given}, {said}; give the day")
        raise SceneError(f"{name} was acquired on {said} by its own account, not on the {given} given for it")
    if not stated:
        raise SceneError(f"{name} does not say when it was acquired; {remedy}")
    if len({statement.days for statement in stated}) > 1:
        raise SceneError(f"{name} states more than one date, {said}; {remedy}")
    return stated[0]


def given_statement(given: Days, said_by: str = "command line") -> DateStatement:
    """Return the statement of whoever gives the days."""
    first, last = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (given.first, given.last))
    return DateStatement(last, said_by, None if given.exact else first)


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
