"""Identity: which detections of a site's dates are the same unit, so that it can be followed from date to date.

A run says where its own scene shows a unit; identity is derived from all runs of a site together and is written into
none of them, so that a run stays a function of its scene and weights alone. It follows from the set of runs, not from
the order in which they arrived:

* runs are taken by date of acquisition; each detection, moved by its scene's shift, goes on with the unit of its class
  that is nearest, at most half a width away, one to one, with the least distance in all; what finds none is a new unit;
* a unit that is missed on a date waits for the next one under its id. One that is replaced by another of its class on
  the very spot keeps the id too: imagery cannot tell;
* an id is made of the class and the corrected place of the first sighting (about 1 m), not of a scene: a later run
  never changes it, an earlier one seldom does.

A run whose shift is not known is not matched, since rows of equipment stand closer together than scenes may: its units
have no id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyproj import Transformer
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from pipelines.census import DETECTED
from pipelines.coregistration import Shift

__all__ = ["DatedUnits", "identify_units"]

PLACE_DECIMALS = 5
"""Of the longitude and latitude that an id is made of: about 1 m."""


@dataclass(frozen=True)
class DatedUnits:
    """The detections of one run."""

    run: str
    """Unlike that of any other run of the site: `<date>/<scene id>`, as in `coregistration.json`."""
    acquired: datetime
    units: gpd.GeoDataFrame = field(repr=False)
    """Longitude and latitude (CRS84) with the columns `class`, `width_m` and `probability`; others are ignored."""
    shift: Shift | None
    """Against the site's reference scene; None where it could not be measured."""
    rendered: bool = False
    """Rendered and photographed units are never the same unit."""


def identify_units(runs: Sequence[DatedUnits]) -> Mapping[str, pd.DataFrame]:
    """Say which detections of several dates of one site are the same unit.

    :param runs: in any order, which does not matter; the shifts of all photographs are against one reference scene,
        those of all rendered scenes against another. A run that is the only one of its kind needs no shift
    :returns: for each run a frame indexed as its `units`, with the columns `unit_id` (16 hexadecimal digits, `-2`, ...
        after it where two units share a place; None where the run has no shift), `first_seen` and `last_seen` (the
        dates on which the unit was detected with a probability of `DETECTED` or more; None where it never was)
    :raises ValueError: two runs have the same name, or their shifts are not of one CRS
    """
    if len({one.run for one in runs}) < len(runs):
        raise ValueError("two runs have the same name")
    results: dict[str, pd.DataFrame] = {}
    for rendered in (False, True):
        results |= _identify([one for one in runs if one.rendered == rendered])
    return results


def _identify(runs: Sequence[DatedUnits]) -> dict[str, pd.DataFrame]:
    shifts = [one.shift for one in runs if one.shift is not None]
    if len({(shift.crs, shift.reference) for shift in shifts}) > 1:
        raise ValueError("the shifts of a site must have one reference and one CRS")
    placed = [one for one in runs if one.shift is not None or len(runs) == 1]
    placed.sort(key=lambda one: (one.acquired, one.run))
    tracks = _Tracks()
    of_run = {
        one.run: tracks.follow(one, _corrected(one, shifts[0].crs if shifts else "EPSG:3857"))
        for one in placed
        if len(one.units)
    }
    nothing = np.empty(0, np.int64)
    ids, first, last = tracks.ids(), tracks.first, tracks.last
    results = {}
    for one in runs:
        index = one.units.index
        numbers = of_run.get(one.run, nothing)
        if len(numbers) == len(index):
            columns = [[table[n] for n in numbers] for table in (ids, first, last)]
        else:
            columns = [[None] * len(index)] * 3
        names = ("unit_id", "first_seen", "last_seen")
        results[one.run] = pd.DataFrame(
            {name: pd.Series(column, index, dtype=object) for name, column in zip(names, columns, strict=True)}
        )
    return results


@dataclass(frozen=True)
class _Sightings:
    """The detections of a run on the ground of the reference scene."""

    xy_m: NDArray[np.float64]
    lonlat: NDArray[np.float64]


def _corrected(one: DatedUnits, crs: str) -> _Sightings:
    to_grid = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    # Not geopandas' centroid, which warns of degrees: over a few metres they are as straight as metres.
    corners = one.units.geometry.to_numpy()
    lon, lat = np.array([(shape.centroid.x, shape.centroid.y) for shape in corners]).T
    x_m, y_m = to_grid.transform(lon, lat)
    shift = one.shift
    xy_m = np.column_stack([x_m, y_m]) - ((shift.east_m, shift.north_m) if shift else (0.0, 0.0))
    lonlat = np.column_stack(to_grid.transform(xy_m[:, 0], xy_m[:, 1], direction="INVERSE"))
    return _Sightings(xy_m, lonlat)


class _Tracks:
    """The units met so far; numbers count them in the order in which they were met."""

    def __init__(self) -> None:
        self._sum_m = np.empty((0, 2))
        self._times = np.empty(0, np.int64)
        self._width_m = np.empty(0)
        self._cls: list[str] = []
        self._place: list[str] = []
        self.first: list[date | None] = []
        self.last: list[date | None] = []

    def follow(self, one: DatedUnits, where: _Sightings) -> NDArray[np.int64]:
        """Return the number of the unit that each detection of a later run is."""
        cls = one.units["class"].to_numpy(str)
        width_m = one.units["width_m"].to_numpy(float)
        numbers = np.full(len(cls), -1, np.int64)
        for name in np.unique(cls):
            here = np.flatnonzero(cls == name)
            known = np.flatnonzero(np.array(self._cls, str) == name)
            at_m = self._sum_m[known] / self._times[known, None]
            rows, columns = _pairs(at_m, self._width_m[known], where.xy_m[here], width_m[here])
            numbers[here[columns]] = known[rows]
        new = np.flatnonzero(numbers < 0)
        # In an order of the place, not of the frame.
        new = new[np.lexsort((where.xy_m[new, 0], where.xy_m[new, 1], cls[new]))]
        numbers[new] = len(self._cls) + np.arange(len(new))
        self._cls += cls[new].tolist()
        kind = "rendered|" * one.rendered
        self._place += [f"{kind}{cls[i]}|{_degrees(where.lonlat[i, 0])}|{_degrees(where.lonlat[i, 1])}" for i in new]
        self.first += [None] * len(new)
        self.last += [None] * len(new)
        self._sum_m = np.concatenate([self._sum_m, np.zeros((len(new), 2))])
        self._times = np.concatenate([self._times, np.zeros(len(new), np.int64)])
        self._width_m = np.concatenate([self._width_m, width_m[new]])
        self._sum_m[numbers] += where.xy_m
        self._times[numbers] += 1
        for number, probability in zip(numbers, one.units["probability"].to_numpy(float), strict=True):
            if probability >= DETECTED:
                self.first[number] = self.first[number] or one.acquired.date()
                self.last[number] = one.acquired.date()
        return numbers

    def ids(self) -> list[str]:
        met: dict[str, int] = {}
        made = []
        for place in self._place:
            met[place] = met.get(place, 0) + 1
            digest = sha256(place.encode()).hexdigest()[:16]
            made.append(digest if met[place] == 1 else f"{digest}-{met[place]}")
        return made


def _degrees(value: float) -> str:
    return f"{round(value, PLACE_DECIMALS) + 0.0:.{PLACE_DECIMALS}f}"


def _pairs(
    old_m: NDArray[np.float64],
    old_width_m: NDArray[np.float64],
    new_m: NDArray[np.float64],
    new_width_m: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair old and new places one to one: the least sum of distances, where to leave one unpaired costs the tolerance.

    The tolerance is half the width of the narrower of the two.
    """
    nothing = np.empty(0, np.int64)
    if not len(old_m) or not len(new_m):
        return nothing, nothing
    reach_m = min(old_width_m.max(), new_width_m.max()) / 2
    near = KDTree(old_m).sparse_distance_matrix(KDTree(new_m), reach_m, output_type="coo_matrix")
    row, column = near.row.astype(np.int64), near.col.astype(np.int64)
    away_m = np.hypot(*(old_m[row] - new_m[column]).T)
    limit_m = np.minimum(old_width_m[row], new_width_m[column]) / 2
    row, column, away_m, limit_m = (values[away_m < limit_m] for values in (row, column, away_m, limit_m))
    # Units that stand apart are matched apart: a yard of thousands is many small questions.
    size = len(old_m) + len(new_m)
    graph = coo_array((np.ones(len(row)), (row, column + len(old_m))), (size, size))
    _, group = connected_components(graph, directed=False)
    rows, columns = [nothing], [nothing]
    order = np.argsort(group[row], kind="stable")
    for edges in np.split(order, np.flatnonzero(np.diff(group[row][order])) + 1) if len(order) else ():
        olds, old_at = np.unique(row[edges], return_inverse=True)
        news, new_at = np.unique(column[edges], return_inverse=True)
        gain = np.zeros((len(olds), len(news)))
        gain[old_at, new_at] = limit_m[edges] - away_m[edges]
        chosen, others = linear_sum_assignment(gain, maximize=True)
        taken = gain[chosen, others] > 0
        rows.append(olds[chosen[taken]])
        columns.append(news[others[taken]])
    return np.concatenate(rows), np.concatenate(columns)
