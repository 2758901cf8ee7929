"""The archive as collections of OGC API - Features, and the provider that lets pygeoapi ask them.

pygeoapi's own providers for GeoJSON and GeoPackage answer `datetime` with everything. This one holds the collections
in memory and honours every filter: bbox, datetime (moments, days, open and closed intervals), properties, sorting,
paging. What it cannot honour it refuses.
"""

import copy
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import shapely
from shapely.geometry import mapping

from models.classes import CLASSES
from pipelines.census import ClassCount
from pipelines.errors import ExtraError
from pipelines.layers.archive import Archive, Run
from pipelines.sites import Site

try:
    from pygeoapi.formatter.csv_ import CSVFormatter
    from pygeoapi.provider.base import BaseProvider, ProviderInvalidQueryError, ProviderItemNotFoundError
    from pygeoapi.util import crs_transform
except ImportError as missing:
    raise ExtraError("OGC API - Features needs an optional part: pip install 'overwatt[features]'") from missing

__all__ = ["ArchiveProvider", "Collection", "Csv", "QueryError", "ask", "collections_of", "parse_interval"]

Interval = tuple[datetime | None, datetime | None]
"""First and last moment, both included; None: open."""
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
TYPES: Mapping[str, Mapping[str, str]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "flag": {"type": "boolean"},
    "moment": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "format": "date"},
}
"""JSON Schema of each kind of column."""
DTYPES: Mapping[str, Any] = {"text": "object", "number": "Float64", "integer": "Int64", "flag": "boolean"}

DETECTIONS = {
    "detection_id": "text",
    "run_id": "text",
    "site": "text",
    "campus": "text",
    "scene_id": "text",
    "acquired": "moment",
    "acquired_earliest": "moment",
    "released": "day",
    "class": "text",
    "probability": "number",
    "score": "number",
    "length_m": "number",
    "width_m": "number",
    "heading_deg": "number",
    "fan_count": "integer",
    "text": "text",
    "zone": "text",
    "licence": "text",
    "attribution": "text",
    "source": "text",
    "rendered": "flag",
    "model_version": "text",
    "native_gsd_m": "number",
    "valid_from": "moment",
    "valid_until": "moment",
    "chosen": "flag",
    "unit_id": "text",
    "first_seen": "day",
    "last_seen": "day",
}
"""Columns and their kinds, as in `pipelines.layers.archive.COLUMNS`."""
RUNS = {
    "run_id": "text",
    "title": "text",
    **{name: DETECTIONS[name] for name in ("site", "campus", "scene_id", "acquired", "acquired_earliest", "released")},
    **{name: DETECTIONS[name] for name in ("licence", "attribution", "source", "rendered", "model_version")},
    "native_gsd_m": "number",
    "covered_fraction": "number",
    "accelerator": "text",
    **{name: DETECTIONS[name] for name in ("valid_from", "valid_until", "chosen")},
}
OF_RUN = {name: RUNS[name] for name in ("run_id", "site", "scene_id", "acquired", "rendered", "chosen")}
CENSUS = OF_RUN | {
    "scope": "text",
    "zone": "text",
    "class": "text",
    "detected": "integer",
    **dict.fromkeys(("p5", "p50", "p95"), "number"),
    "fans": "integer",
    **dict.fromkeys(("fans_per_unit", "median_length_m", "median_width_m"), "number"),
    "not_given": "text",
}
ESTIMATES = OF_RUN | {"figure": "text", **dict.fromkeys(("p5", "p50", "p95"), "number"), "accelerator": "text"}
SITES = {
    **dict.fromkeys(("site", "name", "operator", "address", "campus", "accelerator"), "text"),
    "pue": "number",
    **dict.fromkeys(("source", "quality"), "text"),
}
ZONES = dict.fromkeys(("site", "zone", "kind", "source", "quality"), "text")


class QueryError(ValueError):
    """A question makes no sense; the message says which part of it."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Features with their places and times, ready to be asked."""

    name: str
    title: str
    description: str
    kinds: Mapping[str, str]
    """Kind by property, the keys of `TYPES`."""
    ids: tuple[str, ...]
    table: pd.DataFrame = field(repr=False)
    """A row a feature, a column a property."""
    places: np.ndarray | None = field(repr=False)
    """Polygons (CRS84) by which a bbox selects, object array."""
    shown: bool = True
    """Features have the polygons as their geometry; False: they have none."""
    times: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    """First and last moment of each feature, int64 microseconds since 1970 UTC; None: they have no time, and every
    datetime matches, as the standard has it."""
    positions: Mapping[str, int] = field(init=False, repr=False)
    tree: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"ids of {self.name} are given twice")
        object.__setattr__(self, "positions", {identity: i for i, identity in enumerate(self.ids)})
        object.__setattr__(self, "tree", None if self.places is None else shapely.STRtree(self.places))

    def __deepcopy__(self, memo: object) -> "Collection":
        """pygeoapi copies its configuration, in which collections stand; they do not change."""
        return self

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north; the world where there is nothing."""
        if self.places is None or not len(self.places):
            return (-180.0, -90.0, 180.0, 90.0)
        west, south, east, north = shapely.total_bounds(self.places)
        return (float(west), float(south), float(east), float(north))

    def features(
        self, positions: Sequence[int] | np.ndarray, properties: Sequence[str] = (), *, geometry: bool = True
    ) -> list[dict[str, Any]]:
        """Features as GeoJSON, in the order of `positions`.

        :param properties: those wanted; all where none is named
        """
        rows = np.asarray(positions, dtype=np.int64)
        names = [name for name in self.kinds if not properties or name in properties]
        columns = [[_plain(value) for value in self.table[name].iloc[rows]] for name in names]
        values = zip(*columns, strict=True) if columns else iter([()] * len(rows))
        shapes: Sequence[Any] = [None] * len(rows)
        if geometry and self.shown and self.places is not None:
            shapes = [mapping(place) for place in self.places[rows]]
        return [
            {
                "type": "Feature",
                "id": self.ids[row],
                "geometry": shape,
                "properties": dict(zip(names, of_one, strict=True)),
            }
            for row, shape, of_one in zip(rows, shapes, values, strict=True)
        ]


def parse_interval(text: str) -> Interval:
    """Read the parameter `datetime`: a moment, a day, or two of them with a stroke between; `..` or nothing is open.

    A day lasts from 00:00 to its last microsecond, UTC, and so do the two days of an interval.

    :raises QueryError: it is none of these, or ends before it starts
    """
    parts = text.split("/")
    if len(parts) == 1:
        start, end = _moments(text)
        return start, end
    if len(parts) != 2:
        raise QueryError(f"datetime '{text}' has more than one /")
    first, last = (None if part in ("", "..") else _moments(part) for part in parts)
    if first is None and last is None:
        return None, None
    if first and last and first[0] > last[1]:
        raise QueryError(f"datetime '{text}' ends before it starts")
    return first[0] if first else None, last[1] if last else None


def _moments(text: str) -> tuple[datetime, datetime]:
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            start = datetime.fromisoformat(text).replace(tzinfo=UTC)
            return start, start + (DAY - MICROSECOND)
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})?", text):
            moment = datetime.fromisoformat(text.upper())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            return moment, moment
    except (ValueError, OverflowError):
        pass
    raise QueryError(
        f"'{text}' is neither a day YYYY-MM-DD nor a moment YYYY-MM-DDThh:mm:ssZ (write %2B for + in an address)"
    )


def ask(
    collection: Collection,
    *,
    bbox: Sequence[float] = (),
    interval: Interval = (None, None),
    equal: Sequence[tuple[str, str]] = (),
    sort: Sequence[tuple[str, bool]] = (),
) -> np.ndarray:
    """Positions of the features that match, in the order wanted.

    :param bbox: west, south, east, north in degrees; over the antimeridian where west > east
    :param interval: features whose own interval has a moment in common with it
    :param equal: properties and what they must be; all must hold
    :param sort: properties and whether in descending order, the first weighing most; missing values come last
    :returns: int64 (n,)
    :raises QueryError: a property is unknown, or a value cannot be one of it
    """
    found = np.ones(len(collection.ids), dtype=bool)
    if len(bbox):
        found &= _inside(collection, bbox)
    if collection.times is not None:
        start, end = interval
        first, last = collection.times
        if start is not None:
            found &= last >= _microseconds(start)
        if end is not None:
            found &= first <= _microseconds(end)
    for name, value in equal:
        found &= _equal(collection, name, value)
    positions = np.flatnonzero(found)
    for name, descending in reversed(sort):
        if name not in collection.kinds:
            raise QueryError(f"there is no property '{name}' to sort by")
        column = collection.table[name].iloc[positions].reset_index(drop=True)
        order = column.sort_values(ascending=not descending, kind="stable", na_position="last").index
        positions = positions[order.to_numpy()]
    return positions


def _inside(collection: Collection, bbox: Sequence[float]) -> np.ndarray:
    if len(bbox) == 6:
        bbox = (bbox[0], bbox[1], bbox[3], bbox[4])
    west, south, east, north = bbox
    if not all(map(math.isfinite, bbox)):
        raise QueryError("bbox needs four finite numbers")
    inside = np.zeros(len(collection.ids), dtype=bool)
    if collection.tree is None:
        return ~inside
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    for left, right in spans:
        inside[collection.tree.query(shapely.box(left, south, right, north), predicate="intersects")] = True
    return inside


def _equal(collection: Collection, name: str, value: str) -> np.ndarray:
    kind = collection.kinds.get(name)
    if kind is None:
        known = ", ".join(collection.kinds)
        raise QueryError(f"there is no parameter or property '{name}' (properties of {collection.name}: {known})")
    column = collection.table[name]
    if kind == "text":
        return (column == value).to_numpy(dtype=bool)
    if kind == "moment":
        start, end = _moments(value)
        return column.between(pd.Timestamp(start), pd.Timestamp(end)).to_numpy(dtype=bool)
    try:
        if kind == "flag":
            # GDAL asks for 1 where SQL says true.
            wanted: object = {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        elif kind == "day":
            wanted = date.fromisoformat(value)
        else:
            wanted = float(value) if kind == "number" else int(value)
    except (KeyError, ValueError, OverflowError):
        raise QueryError(
            f"'{name}' cannot be '{value}': it is a {TYPES[kind].get('format', TYPES[kind]['type'])}"
        ) from None
    return (column == wanted).fillna(False).to_numpy(dtype=bool)


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND


def _plain(value: Any) -> Any:
    """What JSON has."""
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        text = value.isoformat(timespec="auto")
        return text.replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


# The collections of an archive


def collections_of(archive: Archive, sites: Sequence[Site]) -> tuple[Collection, ...]:
    """Everything that is served: detections, the same by class, runs, census, estimates, sites, zones."""
    label = _label(archive.runs)
    detections = _detections(archive, label)
    by_class = [_of_class(detections, cls, label) for cls in CLASSES]
    about_sites = "Perimeters as drawn in the site files; 'quality' says whether they were traced or are proxies."
    return (
        detections,
        *by_class,
        _runs(archive, label),
        _census(archive, label),
        _estimates(archive, label),
        _collection(
            ("sites", "Sites", about_sites),
            SITES,
            [
                (
                    site.id,
                    {
                        name: getattr(site, name)
                        for name in ("name", "operator", "address", "campus", "accelerator", "pue")
                    }
                    | {"site": site.id, "source": site.perimeter_source, "quality": site.perimeter_quality},
                    site.perimeter,
                )
                for site in sites
            ],
        ),
        _collection(
            ("zones", "Zones", "Parts of the sites that are counted on their own: roofs, yards, plants."),
            ZONES,
            [
                (
                    f"{site.id}.{zone.id}",
                    {name: getattr(zone, name) for name in ("kind", "source", "quality")}
                    | {"site": site.id, "zone": zone.id},
                    zone.geometry,
                )
                for site in sites
                for zone in site.zones
            ],
        ),
    )


def _label(runs: Sequence[Run]) -> str:
    rendered = sum(run.rendered for run in runs)
    if rendered == 0:
        return ""
    return (
        "RENDERED imagery, not photographs" if rendered == len(runs) else "some from RENDERED imagery, see 'rendered'"
    )


def _titled(title: str, label: str) -> str:
    return f"{title} ({label})" if label else title


def _span(runs: Sequence[Run]) -> str:
    days = sorted(run.date for run in runs)
    return f"Scenes acquired from {days[0]} to {days[-1]}"


def _detections(archive: Archive, label: str) -> Collection:
    frame = archive.detections
    runs = [identity for run in archive.runs for identity in [run.run_id] * len(run.detections)]
    # One scene may show two sites whose perimeters overlap: the same unit is then found for both.
    often = Counter(frame["detection_id"])
    ids = tuple(
        identity if often[identity] == 1 else f"{identity}.{run.replace('/', '.')}"
        for identity, run in zip(frame["detection_id"], runs, strict=True)
    )
    table = pd.DataFrame(frame.drop(columns="geometry")).assign(run_id=runs)
    table = pd.DataFrame({name: _column(table[name].tolist(), kind) for name, kind in DETECTIONS.items()})
    about = (
        f"{_span(archive.runs)}; each feature is one unit as one scene shows it. 'chosen' is false where another scene "
        "of the same day counts instead; valid_from and valid_until span the time to the site's next scene. 'unit_id' "
        "is the same for one unit on all dates, of which first_seen and last_seen are the ends."
    )
    return Collection(
        name="detections",
        title=_titled("Detections of cooling and power equipment", label),
        description=_titled(about, label),
        kinds=DETECTIONS,
        ids=ids,
        table=table,
        places=frame.geometry.to_numpy(),
        times=_times(table),
    )


def _of_class(detections: Collection, cls: str, label: str) -> Collection:
    rows = np.flatnonzero(detections.table["class"] == cls)
    table = detections.table.iloc[rows].reset_index(drop=True)
    return Collection(
        name=cls,
        title=_titled(cls.replace("_", " ").capitalize(), label),
        description=f"{detections.description} Class {cls} alone.",
        kinds=DETECTIONS,
        ids=tuple(detections.ids[row] for row in rows),
        table=table,
        places=None if detections.places is None else detections.places[rows],
        times=_times(table),
    )


def _runs(archive: Archive, label: str) -> Collection:
    about = f"{_span(archive.runs)}: what each showed of its site, and where it comes from."
    rows = []
    for run in archive.runs:
        said = run.item["properties"]
        record = {
            "title": said["title"],
            "released": said.get("overwatt:released"),
            "acquired_earliest": _moment(said.get("overwatt:acquired_earliest")),
            "licence": said.get("overwatt:licence"),
            "attribution": said.get("overwatt:attribution"),
            "source": said.get("overwatt:source"),
            "model_version": run.census.model_version,
            "native_gsd_m": run.census.native_gsd_m,
            "covered_fraction": run.census.covered_fraction,
            "accelerator": run.estimate.get("accelerator"),
        }
        released = record["released"]
        record["released"] = None if released is None else date.fromisoformat(released)
        own = {name: getattr(run, name) for name in RUNS.keys() - record.keys()}
        rows.append((_id(run), record | own, _footprint(run)))
    return _collection(("runs", _titled("Runs: scenes that were counted", label), _titled(about, label)), RUNS, rows)


def _census(archive: Archive, label: str) -> Collection:
    about = (
        f"{_span(archive.runs)}: units of each class by scope (site, zone, outside zones) with their interval; where "
        "'not_given' says why a class cannot be counted, its figures are null. No geometry; bbox goes by the scene's."
    )
    rows = []
    for run in archive.runs:
        for scope, count in run.scoped_counts:
            identity = f"{_id(run)}.{count.cls}.{count.zone or scope.replace(' ', '-')}"
            rows.append((identity, _of_run(run) | _counted(count) | {"scope": scope}, _footprint(run)))
        for cls, reason in run.census.not_given.items():
            record = _of_run(run) | {"scope": "site", "class": cls, "not_given": reason}
            rows.append((f"{_id(run)}.{cls}.site", record, _footprint(run)))
    texts = ("census", _titled("Census: counts by class and zone", label), _titled(about, label))
    return _collection(texts, CENSUS, rows, shown=False)


def _counted(count: ClassCount) -> dict[str, Any]:
    names = ("detected", "fans", "fans_per_unit", "median_length_m", "median_width_m", "zone")
    expected = {name: getattr(count.expected, name) for name in ("p5", "p50", "p95")}
    return {"class": count.cls, **{name: getattr(count, name) for name in names}, **expected}


def _estimates(archive: Archive, label: str) -> Collection:
    about = (
        f"{_span(archive.runs)}: what the counts imply, in MW and accelerators, each with its interval. A figure that "
        "is not given is absent. No geometry; bbox goes by the scene's."
    )
    rows = [
        (
            f"{_id(run)}.{name}",
            _of_run(run) | {"figure": name, "accelerator": run.estimate.get("accelerator"), **figure},
            _footprint(run),
        )
        for run in archive.runs
        for name, figure in run.figures.items()
    ]
    texts = ("estimates", _titled("Estimates: MW and GPUs", label), _titled(about, label))
    return _collection(texts, ESTIMATES, rows, shown=False)


def _collection(
    texts: tuple[str, str, str],
    kinds: Mapping[str, str],
    rows: Sequence[tuple[str, Mapping[str, Any], shapely.Geometry]],
    *,
    shown: bool = True,
) -> Collection:
    table = pd.DataFrame({name: _column([row[1].get(name) for row in rows], kind) for name, kind in kinds.items()})
    name, title, description = texts
    places = np.empty(len(rows), dtype=object)
    places[:] = [row[2] for row in rows]
    return Collection(
        name=name,
        title=title,
        description=description,
        kinds=kinds,
        ids=tuple(row[0] for row in rows),
        table=table,
        places=places,
        shown=shown,
        times=_times(table) if "acquired" in kinds else None,
    )


def _column(values: Sequence[Any], kind: str) -> pd.Series:
    if kind == "moment":
        moments = pd.Series(pd.to_datetime(pd.Series(values, dtype=object), utc=True))
        return moments.astype("datetime64[us, UTC]")
    plain = [None if pd.isna(value) else value for value in values]
    return pd.Series(plain, dtype=DTYPES.get(kind, "object"))


def _times(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    last = table["acquired"]
    first = table["acquired_earliest"].fillna(last) if "acquired_earliest" in table else last
    one, other = (column.astype("datetime64[us, UTC]").astype("int64").to_numpy() for column in (first, last))
    return one, other


def _id(run: Run) -> str:
    """Without strokes, which stand between the parts of an address."""
    return run.run_id.replace("/", ".")


def _of_run(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in OF_RUN}


def _footprint(run: Run) -> shapely.Geometry:
    return shapely.geometry.shape(run.item["geometry"])


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# pygeoapi


class Csv(CSVFormatter):
    """Properties as CSV; pygeoapi's own fails where features have no geometry, and leaves polygons out as well."""

    def __init__(self, formatter_def: Mapping[str, Any]) -> None:
        """One is made for every answer."""
        super().__init__({**formatter_def, "geom": False})


class ArchiveProvider(BaseProvider):
    """What pygeoapi asks; its definition's `data` is a `Collection`."""

    def __init__(self, provider_def: Mapping[str, Any]) -> None:
        """One is made for every request."""
        super().__init__(provider_def)
        self.collection: Collection = self.data
        self._fields = self.get_fields()
        # Whatever it does not know comes here to be refused, instead of being passed over in silence.
        self.include_extra_query_parameters = True

    def get_fields(self) -> dict[str, dict[str, str]]:
        """JSON Schema of every property."""
        # pygeoapi writes into them.
        return {name: copy.copy(dict(TYPES[kind])) for name, kind in self.collection.kinds.items()}

    @crs_transform  # type: ignore[untyped-decorator, unused-ignore]
    def query(
        self,
        offset: int = 0,
        limit: int = 10,
        resulttype: str = "results",
        bbox: Sequence[float] = (),
        datetime_: str | None = None,
        properties: Sequence[tuple[str, str]] = (),
        sortby: Sequence[Mapping[str, str]] = (),
        select_properties: Sequence[str] = (),
        skip_geometry: bool = False,
        q: str | None = None,
        filterq: object = None,
        **_: object,
    ) -> dict[str, Any]:
        """Features that match, as a GeoJSON FeatureCollection.

        :raises ProviderInvalidQueryError: a part of the question makes no sense, or is not offered
        """
        if q is not None or filterq is not None:
            name = "q" if q is not None else "filter"
            raise ProviderInvalidQueryError(user_msg=f"'{name}' is not offered: use bbox, datetime and properties")
        try:
            found = ask(
                self.collection,
                bbox=bbox,
                interval=(None, None) if datetime_ is None else parse_interval(datetime_),
                equal=properties,
                sort=[(one["property"], one["order"] == "-") for one in sortby],
            )
        except QueryError as error:
            raise ProviderInvalidQueryError(user_msg=str(error)) from None
        page = found[:0] if resulttype == "hits" else found[offset : offset + limit]
        features = self.collection.features(page, select_properties, geometry=not skip_geometry)
        return {
            "type": "FeatureCollection",
            "numberMatched": len(found),
            "numberReturned": len(features),
            "features": features,
        }

    @crs_transform  # type: ignore[untyped-decorator, unused-ignore]
    def get(self, identifier: str, **_: object) -> dict[str, Any]:
        """One feature.

        :raises ProviderItemNotFoundError: there is none of this id
        """
        position = self.collection.positions.get(identifier)
        if position is None:
            raise ProviderItemNotFoundError(user_msg=f"{self.collection.name} holds no {identifier}")
        return self.collection.features([position])[0]
