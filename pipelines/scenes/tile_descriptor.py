"""What an analyst writes of a tile source: a template alone, or a JSON file that says when, whose and how fine.

{"template": "https://tiles.example.com/{site}/{date}/{z}/{x}/{y}.jpg",
 "licence": "bought, internal use", "max_zoom": 20,
 "sites": {"colossus-2": {"called": "colossus2", "dates": ["2025-08-22", "2025-10"]}}}
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipelines.errors import SceneError, SourceError
from pipelines.gdal_env import is_url
from pipelines.scenes.dates import parse_days

__all__ = [
    "DatedImagery",
    "NoImage",
    "SiteImagery",
    "TileDescriptor",
    "environment_names",
    "fill",
    "parse_dates",
    "read_descriptor",
    "read_when",
]

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_ALIASES = {
    "tilematrix": "z", "level": "z", "zoom": "z", "tilerow": "y", "row": "y", "tilecol": "x", "col": "x",
    "column": "x",
}  # fmt: skip
"""Spellings of WMTS and ArcGIS, in lower case."""
_KNOWN = ("site", "date", "time", "release", "z", "x", "y", "-y", "quadkey")
_ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def read_when(text: str) -> tuple[datetime | None, datetime]:
    """Return the first day, where only a range is known, and the last moment, both UTC; days are given as 00:00.

    A day, a moment of one (`2025-08-22T16:30:00Z`), or what is known of it, see `parse_days`.

    :raises ValueError: it is none of these
    """
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[^/]+", text.strip()):
        moment = datetime.fromisoformat(text.strip())
        try:
            return None, moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError as error:
            raise ValueError(f"'{text}' is beyond the calendar") from error
    try:
        days = parse_days(text.strip())
    except SceneError as error:
        raise ValueError(str(error)) from error
    first, last = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (days.first, days.last))
    return None if days.exact else first, last


def _when(text: str) -> str:
    read_when(text)
    return text.strip()


def _day(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return date.fromisoformat(value)
    raise ValueError(f"{value!r} is no day such as 2025-09-30")


Day = Annotated[date, BeforeValidator(_day)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatedImagery(_Model):
    """One acquisition that the source has tiles of; a bare text stands for `acquired` alone."""

    acquired: Annotated[Text, AfterValidator(_when)]
    """Day, moment, month or range, see `read_when`."""
    date: Text | None = None
    """What stands for {date} in the template; the default is `acquired`."""
    time: Text | None = None
    """What stands for {time}; the default is `acquired`."""
    release: Text | None = None
    """What stands for {release}."""
    released: Day | None = None
    """When it was published or delivered."""
    native_gsd_m: Annotated[float, Field(gt=0, le=1000)] | None = None
    off_nadir_deg: Annotated[float, Field(ge=0, lt=90)] | None = None
    cloud_cover_percent: Annotated[float, Field(ge=0, le=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"acquired": value} if isinstance(value, str) else value


class SiteImagery(_Model):
    """What the source has of one site; a bare list stands for `dates`, a bare text for `dates_at`."""

    called: Text | None = None
    """What stands for {site} in the template; the default is our site id."""
    dates: tuple[DatedImagery, ...] = ()
    dates_at: Text | None = None
    """Address or path of a file that lists the dates: JSON, or a date a line; placeholders are filled."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        if isinstance(value, str):
            return {"dates_at": value}
        return {"dates": value} if isinstance(value, list) else value


class NoImage(_Model):
    """Tiles that say "no imagery here" in pixels."""

    sha256: tuple[Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$", to_lower=True)], ...] = ()
    bytes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Size of the file, to the byte."""


def _template(text: str) -> str:
    if not is_url(text):
        raise ValueError("it must begin with http:// or https://")
    names = placeholders(text)
    unknown = [name for name in names if name not in _KNOWN and not _ENVIRONMENT.fullmatch(name)]
    unknown = [name for name in unknown if not name.startswith("date:%")]
    if unknown:
        raise ValueError(
            f"{{{unknown[0]}}} is no placeholder; there are {', '.join(f'{{{name}}}' for name in _KNOWN)}, "
            "{date:%Y%m%d} and {env:NAME}" + ("; write the name of one server" if unknown[0] in "s" else "")
        )
    if not ({"quadkey"} <= names or ({"z", "x"} <= names and names & {"y", "-y"})):
        raise ValueError("it needs {z}, {x} and {y} (or {-y}, counted from below), or {quadkey}")
    if "{" in urlsplit(text).netloc:
        raise ValueError("the name of the server must stand in it as it is")
    # Raises for what is no port.
    _ = urlsplit(text).port
    return text


class TileDescriptor(_Model):
    """A source of dated tiles."""

    licence: Text
    template: Annotated[str, AfterValidator(_template)] | None = None
    wmts: Text | None = None
    """Address of WMTS capabilities instead of a template."""
    layer: Text | None = None
    style: Text | None = None
    matrix_set: Text | None = None
    """Tile matrix set: of the WMTS, or one that everyone knows; `WebMercatorQuad` where nothing is said."""
    name: Text | None = None
    attribution: str = ""
    price: Literal["free", "requester pays", "priced", "owned", "unknown"] = "unknown"
    rendered: bool = False
    released: Day | None = None
    min_zoom: Annotated[int, Field(ge=0, le=30)] = 0
    max_zoom: Annotated[int, Field(ge=0, le=30)] | None = None
    """Finest level there is."""
    tile_size: Literal[256, 512] = 256
    native_gsd_m: Annotated[float, Field(gt=0, le=1000)] | None = None
    """What the sensor saw, where the tiles are finer than that."""
    bounds: tuple[float, float, float, float] | None = None
    """West, south, east, north of what there is, degrees."""
    sites: Mapping[str, SiteImagery] = Field(default_factory=dict)
    dates: tuple[DatedImagery, ...] = ()
    """Of every site that `sites` says nothing of."""
    dates_at: Text | None = None
    no_image: NoImage = NoImage()
    missing_statuses: tuple[Annotated[int, Field(ge=200, le=499)], ...] = (204, 404, 410)
    """HTTP answers that mean there is no such tile; some object stores say 403."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    """Tiles asked for at once."""

    @model_validator(mode="after")
    def _whole(self) -> "TileDescriptor":
        if (self.template is None) == (self.wmts is None):
            raise ValueError("give either 'template' or 'wmts'")
        if self.wmts is not None and not is_url(self.wmts):
            raise ValueError("'wmts' must begin with http:// or https://")
        if self.max_zoom is not None and self.max_zoom < self.min_zoom:
            raise ValueError("'max_zoom' is below 'min_zoom'")
        if self.bounds and not (self.bounds[0] < self.bounds[2] and self.bounds[1] < self.bounds[3]):
            raise ValueError("'bounds' must be west, south, east, north")
        if self.template and {"release"} & placeholders(self.template):
            every = [*self.dates, *(one for site in self.sites.values() for one in site.dates)]
            if any(one.release is None for one in every):
                raise ValueError("the template holds {release}, so every date needs a 'release'")
        return self


def read_descriptor(path: Path) -> TileDescriptor:
    """Read a descriptor.

    :raises SourceError: it is missing or broken; the message names the file and the field
    """
    try:
        found = TileDescriptor.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist; give a tile template or the JSON file that describes one") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise SourceError(f"{path}: {_sentence(error)}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON ({error})") from error
    if found.template and not (found.dates or found.dates_at or found.sites):
        raise SourceError(f"{path} says no dates; add 'sites' (with dates by site), 'dates' or 'dates_at'")
    return found


def parse_dates(text: str, shown: str, site: str) -> tuple[DatedImagery, ...]:
    """Read a file that lists dates: JSON (a list, or lists by site), or a date a line.

    :param site: whose list to take where there are several
    :raises SourceError: it is broken, or lists nothing for the site
    """
    try:
        document: Any = json.loads(text)
    except ValueError:
        document = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if isinstance(document, dict):
        document = document.get(site, document.get("dates"))
        if document is None:
            raise SourceError(f"{shown} lists no dates for '{site}'")
    try:
        return SiteImagery.model_validate({"dates": document}).dates
    except ValidationError as error:
        raise SourceError(f"{shown}: {_sentence(error)}") from error


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values where their placeholders stand, whatever way these are spelt; others stay."""

    def put(match: re.Match[str]) -> str:
        name = _plain(match[1])
        if name.startswith("date:") and "day" in values:
            return quote(datetime.fromisoformat(values["day"]).strftime(match[1][5:]))
        return quote(values[name], safe=":,") if name in values else match[0]

    return _PLACEHOLDER.sub(put, template)


def placeholders(template: str) -> set[str]:
    """Return the placeholders of a template in our spelling."""
    return {_plain(name) for name in _PLACEHOLDER.findall(template)}


def environment_names(template: str) -> frozenset[str]:
    """Return the environment variables that a template holds keys from."""
    return frozenset(_ENVIRONMENT.findall(" ".join(f"{{{name}}}" for name in _PLACEHOLDER.findall(template))))


def _plain(name: str) -> str:
    if name.startswith(("env:", "date:")):
        return name
    return _ALIASES.get(name.lower(), name.lower())


def _sentence(error: ValidationError) -> str:
    """Return the first of a descriptor's faults as the end of a sentence."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        hint = "; say under which terms the imagery is used" if field == "licence" else ""
        return f"'{field}' is missing{hint}"
    if first["type"] == "extra_forbidden":
        return f"there is no field '{field}'; fields are {', '.join(sorted(TileDescriptor.model_fields))}"
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:] if reason.startswith("Input") else reason
    return f"'{field}': {reason}" if field else reason
