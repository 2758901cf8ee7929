"""Timeline: the runs of a site or campus in order, what changed between them, how fast it was built, where it heads.

Everything is calculated anew from the censuses in the archive, with one set of draws for what the dates have in common
(the model of a unit, the priors): what differs between two dates is then counts and measured sizes, whose doubts are
drawn for each date by itself. Nothing is taken to grow: equipment goes as well as comes.
"""

import datetime as dt
import itertools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.classes import OBJECT_CLASSES
from pipelines.capacity import Drawn, estimate
from pipelines.census import Census, Interval, draw_counts
from pipelines.counting import stream
from pipelines.errors import ArchiveError, EstimateError
from pipelines.sites import KnownDate, Site, load_sites
from pipelines.tables import Tables, load_tables

__all__ = ["Change", "Moment", "Projection", "Reach", "Timeline", "read_censuses", "read_timeline", "timeline"]

FIGURES = ("cooling_mw", "generation_mw", "it_mw", "gpus", "h100_equivalents")
CHANGING = FIGURES[:3]
"""Figures whose changes are given; accelerators change as IT power does."""
MILESTONES_MW = (100.0, 200.0, 500.0)
DAYS_A_MONTH = 30.4375
DATE_DRAWS = 20_000
"""Draws of each date: they are kept for all dates, some 2 MB each."""
PACE_SPREAD = 0.5
"""Standard deviation of the logarithm of a future pace over the last one.

Assumption: in two of three cases a build goes on between 0.6 and 1.65 times as fast as it last did.
"""
SHORTEST_TREND_DAYS = 30
"""Dates closer together say nothing about a pace."""
MOST_YEARS = 10.0
"""A capacity that is farther away than this is not projected."""


@dataclass(frozen=True)
class Moment:
    """What stood on a date."""

    date: dt.date
    """Of acquisition; the last day it may have been where only a range is known."""
    scenes: Mapping[str, str]
    """Scene by site: of the date itself, or the latest before it where another site of the campus set the date."""
    rendered: bool
    covered_fraction: float
    """The least share of a perimeter that its scene shows."""
    counts: Mapping[str, Interval]
    """Units by class; a class that was not given is absent."""
    figures: Mapping[str, Interval]
    """By the names of `FIGURES`; a figure that is not given is absent."""
    drawn: Drawn = field(repr=False, compare=False)
    earliest: dt.date | None = None
    """First day the scene that set the date may have been acquired, where only a range is known."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "date": self.date.isoformat(),
            "earliest": None if self.earliest is None else self.earliest.isoformat(),
            "scenes": dict(self.scenes),
            "rendered": self.rendered,
            "covered_fraction": round(self.covered_fraction, 4),
            "counts": {name: value.as_record() for name, value in self.counts.items()},
            "figures": {name: value.as_record() for name, value in self.figures.items()},
        }


@dataclass(frozen=True)
class Change:
    """What changed of a count or a figure from one date to the next that shows it."""

    what: str
    """A class, or one of `CHANGING`."""
    start: dt.date
    end: dt.date
    by: Interval
    more: float
    """Probability that there was more at the end."""
    less: float
    """Probability that there was less; what is left to 1 is no change at all."""

    @property
    def real(self) -> float:
        """Probability that the change of the median's sign is real and not noise."""
        return self.more if self.by.p50 > 0 else self.less if self.by.p50 < 0 else max(self.more, self.less)

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "what": self.what,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "by": self.by.as_record(),
            "probability_more": round(self.more, 3),
            "probability_less": round(self.less, 3),
        }


@dataclass(frozen=True)
class Reach:
    """When a capacity was first reached, counted from ground-break; no better known than by the dates around it."""

    figure: str
    mw: float
    months: Interval | None
    """None where it was reached in fewer than one draw in twenty."""
    probability: float
    """That it was reached by the last date."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        months = None if self.months is None else self.months.as_record()
        return {"figure": self.figure, "mw": self.mw, "months": months, "probability": round(self.probability, 3)}


@dataclass(frozen=True)
class Projection:
    """Where the last pace leads, if it goes on within `PACE_SPREAD`."""

    figure: str
    per_month: Interval
    """Megawatts a month between the dates it was taken from."""
    start: dt.date
    end: dt.date
    """Dates the pace was taken from."""
    at: Mapping[dt.date, Interval]
    """Megawatts on the dates asked for."""
    reaches: Mapping[float, tuple[float, tuple[dt.date, dt.date, dt.date] | None]]
    """By megawatts asked for: probability that they are reached within `MOST_YEARS`, and the dates (p5, p50, p95) if so
    in one draw in twenty or more."""

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "figure": self.figure,
            "mw_per_month": self.per_month.as_record(),
            "pace_from": self.start.isoformat(),
            "pace_to": self.end.isoformat(),
            "at": {day.isoformat(): value.as_record() for day, value in self.at.items()},
            "reaches": [
                {
                    "mw": mw,
                    "probability": round(probability, 3),
                    "date": None if days is None else dict(zip(("p5", "p50", "p95"), map(str, days), strict=True)),
                }
                for mw, (probability, days) in self.reaches.items()
            ],
        }


@dataclass(frozen=True)
class Timeline:
    """A site, or the sites of a campus together, over time."""

    name: str
    sites: tuple[Site, ...]
    moments: tuple[Moment, ...]
    changes: tuple[Change, ...]
    ground_break: KnownDate | None
    """The first date known of any of the sites."""
    reached: tuple[Reach, ...]
    projection: Projection | None
    notes: tuple[str, ...]

    @property
    def rendered(self) -> bool:
        """Whether any of the imagery was rendered."""
        return any(moment.rendered for moment in self.moments)

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        begun = self.ground_break
        return {
            "name": self.name,
            "sites": [site.id for site in self.sites],
            "rendered": self.rendered,
            "moments": [moment.as_record() for moment in self.moments],
            "changes": [change.as_record() for change in self.changes],
            "ground_break": None
            if begun is None
            else {"date": begun.date.isoformat(), "event": begun.event, "source": begun.source},
            "reached": [reach.as_record() for reach in self.reached],
            "projection": None if self.projection is None else self.projection.as_record(),
            "notes": list(self.notes),
        }


def read_censuses(archive: Path, site: Site) -> tuple[Census, ...]:
    """The censuses of a site in the archive, one a date, in order.

    Of several scenes of a date the one that shows most of the perimeter counts, and of these the sharpest.

    :raises ArchiveError: there is none, or one was written by an older version
    """
    found: dict[dt.date, Census] = {}

    def rank(census: Census) -> tuple[float, float]:
        return census.covered_fraction, -census.native_gsd_m

    for path in sorted(_census_files(archive, site)):
        try:
            census = Census.from_record(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error.strerror}; make it readable or delete it") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArchiveError(
                f"{path} is damaged or was written by another version ({type(error).__name__}: {error}); count that "
                f"date again with overwatt run {site.id} --date {path.parents[1].name}"
            ) from None
        day = census.acquired.date()
        if day not in found or rank(census) > rank(found[day]):
            found[day] = census
    if not found:
        raise ArchiveError(f"{archive} holds no run of {site.id} yet; count one with overwatt run {site.id}")
    return tuple(found[day] for day in sorted(found))


def read_timeline(
    site: Site,
    archive: Path,
    *,
    campus_of: Path | None = None,
    at: Sequence[dt.date] = (),
    reach_mw: Sequence[float] = (),
) -> Timeline:
    """The timeline of a site from the archive.

    :param campus_of: folder of site files; given, all sites of the site's campus are taken together
    :raises ArchiveError: the archive holds no run of the site, or of any site of the campus
    :raises EstimateError: a capacity to reach is not a positive number, or a date to project to lies in the past
    """
    for mw in reach_mw:
        if not 0 < mw < math.inf:
            raise EstimateError(f"a capacity to reach must be megawatts over zero, got {mw:g}")
    if campus_of is None:
        return timeline(site.id, [(site, read_censuses(archive, site))], at=at, reach_mw=reach_mw)
    members = [other for other in load_sites(campus_of) if other.campus == site.campus]
    if site.id not in {other.id for other in members}:
        members.append(site)
    seen = [other for other in members if any(_census_files(archive, other))]
    if not seen:
        raise ArchiveError(
            f"{archive} holds no run of any site of the campus {site.campus} yet; count one with overwatt run {site.id}"
        )
    made = timeline(site.campus, [(other, read_censuses(archive, other)) for other in seen], at=at, reach_mw=reach_mw)
    unseen = [other.id for other in members if other not in seen]
    if not unseen:
        return made
    return replace(made, notes=(*made.notes, f"no run of {', '.join(unseen)} yet: what stands there is not in this"))


def _census_files(archive: Path, site: Site) -> Iterator[Path]:
    return (archive / site.id).glob("????-??-??/[!.]*/census.json")


def timeline(
    name: str,
    censuses: Sequence[tuple[Site, Sequence[Census]]],
    *,
    at: Sequence[dt.date] = (),
    reach_mw: Sequence[float] = (),
    tables: Tables | None = None,
    seed: int = 0,
    draws: int = DATE_DRAWS,
) -> Timeline:
    """Put the censuses of a site, or of the sites of a campus, in order.

    :param censuses: of each site; a campus has a moment for every date of any of its sites
    :param at: dates to project to
    :param reach_mw: megawatts whose date is projected
    :raises EstimateError: a date to project to lies before the last one that was seen
    """
    tables = tables or load_tables()
    shown = [
        [_show(site, census, tables, seed, draws) for census in sorted(of_site, key=lambda census: census.acquired)]
        for site, of_site in censuses
    ]
    dates = sorted({one.date for of_site in shown for one in of_site})
    together = [[latest for of_site in shown if (latest := _latest(of_site, day)) is not None] for day in dates]
    past = [day for day in at if day < dates[-1]]
    if past:
        raise EstimateError(f"{past[0]} lies before {dates[-1]}, the last date of {name}: a projection looks ahead")
    counts = [_added_counts(parts) for parts in together]
    moments = [_moment(*of_day) for of_day in zip(dates, together, counts, strict=True)]
    figure = next((name for name in ("it_mw", "cooling_mw", "generation_mw") if _carries(name, moments)), None)
    known = [known for site, _ in censuses for known in site.known_dates]
    begun = min(known, key=lambda known: known.date, default=None)
    notes = [*_notes(moments, len(censuses)), *_not_given(shown)]
    reached: tuple[Reach, ...] = ()
    projection = None
    if figure is not None:
        if begun is not None and begun.date <= moments[0].date:
            reached = _reached(figure, moments, begun.date, seed)
            notes.append(
                f"build speed counts {figure} from {begun.date} ({begun.event}), when nothing is taken to stand"
            )
        projection = _projection(figure, moments, at, reach_mw, seed)
    if projection is None and (at or reach_mw):
        notes.append(
            f"nothing is projected: that takes two dates {SHORTEST_TREND_DAYS} days apart that give the same figure"
        )
    sites = tuple(site for site, _ in censuses)
    return Timeline(name, sites, tuple(moments), _changes(moments, counts), begun, reached, projection, tuple(notes))


@dataclass(frozen=True)
class _Shown:
    """One site on one of its dates."""

    date: dt.date
    census: Census
    counts: Mapping[str, np.ndarray]
    drawn: Drawn


def _show(site: Site, census: Census, tables: Tables, seed: int, draws: int) -> _Shown:
    # What the detector may have missed or imagined on one date it need not on the next.
    alone = replace(census, seed=zlib.crc32(f"{seed} {census.site_id} {census.scene_id}".encode()))
    counts = {cls: draw_counts(alone, cls, draws) for cls in OBJECT_CLASSES if cls in census.by_class}
    implied = estimate(alone, site, tables=tables, seed=seed, draws=draws)
    return _Shown(census.acquired.date(), census, counts, implied.drawn)


def _latest(of_site: Sequence[_Shown], day: dt.date) -> _Shown | None:
    return max((one for one in of_site if one.date <= day), key=lambda one: one.date, default=None)


def _moment(day: dt.date, parts: Sequence[_Shown], counts: Mapping[str, np.ndarray]) -> Moment:
    drawn = parts[0].drawn if len(parts) == 1 else _joined([part.drawn for part in parts])
    ranges = [part.census.earliest.date() for part in parts if part.date == day and part.census.earliest is not None]
    return Moment(
        date=day,
        scenes={part.census.site_id: part.census.scene_id for part in parts},
        rendered=any(part.census.rendered for part in parts),
        covered_fraction=min(part.census.covered_fraction for part in parts),
        counts={cls: Interval.of(counted) for cls, counted in counts.items()},
        figures={name: Interval.of(values) for name in FIGURES if (values := _draws(drawn, name)) is not None},
        drawn=drawn,
        earliest=min(ranges, default=None),
    )


def _added_counts(parts: Sequence[_Shown]) -> dict[str, np.ndarray]:
    """Units of each class that every site gives."""
    given = [cls for cls in OBJECT_CLASSES if all(cls in part.counts for part in parts)]
    return {cls: sum((part.counts[cls] for part in parts[1:]), parts[0].counts[cls]) for cls in given}


def _joined(parts: Sequence[Drawn]) -> Drawn:
    """A campus: a plant at one site feeds the halls at another, so the least of all cooling and all supply decides."""
    cooling = _sum([part.cooling_mw for part in parts])
    generation = _sum([part.generation_mw for part in parts])
    supply = None
    if generation is not None:
        supply = _sum([np.zeros_like(generation) if part.supply_mw is None else part.supply_mw for part in parts])
    # A site with turbines and no cooling carries no load of its own.
    halls = [part for part in parts if part.it_by_cooling_mw is not None]
    it_by_cooling = it = gpus = h100_equivalents = None
    if cooling is not None and halls:
        by_hall = np.stack([part.it_by_cooling_mw for part in halls if part.it_by_cooling_mw is not None])
        load = np.stack([part.facility_mw_per_it_mw for part in halls if part.facility_mw_per_it_mw is not None])
        it_by_cooling = by_hall.sum(axis=0)
        fed = np.ones_like(it_by_cooling)
        if supply is not None and np.quantile(supply, 0.05) > 0:
            needed = (by_hall * load).sum(axis=0)
            fed = np.minimum(1, np.divide(supply, needed, out=fed, where=needed > 0))
        it = it_by_cooling * fed
        # What a hall's own supply did not allow there counts again: the campus's does.
        gpus = _sum([_at_cooling(part, part.gpus) for part in halls])
        h100_equivalents = _sum([_at_cooling(part, part.h100_equivalents) for part in halls])
        gpus = None if gpus is None else gpus * fed
        h100_equivalents = None if h100_equivalents is None else h100_equivalents * fed
    return Drawn(cooling, generation, supply, it_by_cooling, None, it, gpus, h100_equivalents)


def _at_cooling(hall: Drawn, chips: np.ndarray | None) -> np.ndarray | None:
    """A hall's accelerators at the IT power that its cooling allows."""
    if chips is None or hall.it_mw is None or hall.it_by_cooling_mw is None:
        return None
    return chips * np.divide(hall.it_by_cooling_mw, hall.it_mw, out=np.zeros_like(hall.it_mw), where=hall.it_mw > 0)


def _sum(draws: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """None where any is not given."""
    given = [drawn for drawn in draws if drawn is not None]
    return np.sum(given, axis=0) if len(given) == len(draws) else None


def _not_given(shown: Sequence[Sequence[_Shown]]) -> list[str]:
    """Why figures are missing."""
    dates: dict[tuple[str, str, str], list[str]] = {}
    for one in itertools.chain.from_iterable(shown):
        for cls, reason in one.census.not_given.items():
            if cls in OBJECT_CLASSES:
                dates.setdefault((one.census.site_id, cls, reason), []).append(str(one.date))
    return [
        f"{site}: {cls} is not given on {', '.join(days)} ({reason}), nor is what follows from it"
        for (site, cls, reason), days in dates.items()
    ]


def _notes(moments: Sequence[Moment], sites: int) -> list[str]:
    notes = []
    if any(moment.rendered for moment in moments):
        notes.append("rendered imagery: these figures describe pictures that were computed, not a place")
    partial = [f"{moment.date} ({moment.covered_fraction:.0%})" for moment in moments if moment.covered_fraction < 1]
    if partial:
        notes.append(
            f"not all of the perimeter is seen on {', '.join(partial)}: changes to and from these dates may be changes "
            "of what is seen"
        )
    early = [str(moment.date) for moment in moments if len(moment.scenes) < sites]
    if early:
        notes.append(f"not every site of the campus had been seen by {', '.join(early)}: it adds nothing until it is")
    if sites > 1:
        notes.append("supply is what the turbines seen and the site files' connections and contracts give, no more")
    return notes


def _draws(drawn: Drawn, figure: str) -> np.ndarray | None:
    draws: np.ndarray | None = getattr(drawn, figure)
    return draws


def _changes(moments: Sequence[Moment], counts: Sequence[Mapping[str, np.ndarray]]) -> tuple[Change, ...]:
    """From each date to the next that gives the same, for every class and figure that is ever more than nothing."""
    changes = []
    for what in (*OBJECT_CLASSES, *CHANGING):
        series = [
            (moment.date, drawn)
            for moment, counted in zip(moments, counts, strict=True)
            if (drawn := counted.get(what) if what in OBJECT_CLASSES else _draws(moment.drawn, what)) is not None
        ]
        for (start, before), (end, after) in itertools.pairwise(series):
            difference = after.astype(float) - before
            if before.any() or after.any():
                more, less = float(np.mean(difference > 0)), float(np.mean(difference < 0))
                changes.append(Change(what, start, end, Interval.of(difference), more, less))
    return tuple(sorted(changes, key=lambda change: (change.start, change.end)))


def _carries(figure: str, moments: Sequence[Moment]) -> bool:
    """Whether a figure is given and more than nothing on some date."""
    return any(figure in moment.figures and moment.figures[figure].p50 > 0 for moment in moments)


def _series(figure: str, moments: Sequence[Moment]) -> tuple[list[dt.date], np.ndarray]:
    """Dates on which a figure is given, and its draws (dates, draws)."""
    given = [(moment.date, drawn) for moment in moments if (drawn := _draws(moment.drawn, figure)) is not None]
    return [day for day, _ in given], np.stack([drawn for _, drawn in given])


def _reached(figure: str, moments: Sequence[Moment], begun: dt.date, seed: int) -> tuple[Reach, ...]:
    """Months from ground-break to each milestone.

    Doubts are taken as common to all dates, quantile by quantile: with independent ones any capacity would be reached
    if only it were looked for often enough. When between two dates it was reached nobody saw: every day from the last
    date below it to the first date that is not is as likely as another.
    """
    days, drawn = _series(figure, moments)
    months = np.array([0.0, *((day - begun).days / DAYS_A_MONTH for day in days)])
    values = np.concatenate([np.zeros((1, drawn.shape[1])), np.sort(drawn, axis=1)])
    reached = []
    for mw in MILESTONES_MW:
        over = values >= mw
        ever = over.any(axis=0)
        first = over.argmax(axis=0)[ever]
        somewhere = np.asarray(stream(seed, "day between two dates").random(drawn.shape[1]))[ever]
        when = months[first - 1] + (months[first] - months[first - 1]) * somewhere
        share = float(ever.mean())
        reached.append(Reach(figure, mw, Interval.of(when) if share >= 0.05 else None, share))
    return tuple(reached)


def _projection(
    figure: str, moments: Sequence[Moment], at: Sequence[dt.date], reach_mw: Sequence[float], seed: int
) -> Projection | None:
    days, drawn = _series(figure, moments)
    last = days[-1]
    earlier = [i for i, day in enumerate(days) if (last - day).days >= SHORTEST_TREND_DAYS]
    if not earlier:
        return None
    start = earlier[-1]
    per_day = (drawn[-1] - drawn[start]) / (last - days[start]).days
    # A pace common to all that follows.
    pace = per_day * np.exp(PACE_SPREAD * stream(seed, "pace").standard_normal(drawn.shape[1]))
    reaches = {}
    for mw in reach_mw:
        short = mw - drawn[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            wait = np.where(short <= 0, 0.0, np.where(pace > 0, short / pace, math.inf))
        soon = wait <= MOST_YEARS * 365.25
        share = float(soon.mean())
        dates = None
        if share >= 0.05:
            p5, p50, p95 = np.quantile(wait[soon], (0.05, 0.5, 0.95))
            dates = (_after(last, p5), _after(last, p50), _after(last, p95))
        reaches[mw] = (share, dates)
    return Projection(
        figure=figure,
        per_month=Interval.of(per_day * DAYS_A_MONTH),
        start=days[start],
        end=last,
        at={day: Interval.of(np.maximum(0, drawn[-1] + pace * max(0, (day - last).days))) for day in at},
        reaches=reaches,
    )


def _after(day: dt.date, days: float) -> dt.date:
    return day + dt.timedelta(days=math.ceil(days))
