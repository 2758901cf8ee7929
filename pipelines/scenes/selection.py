"""Which of a source's scenes show a site within dates, and what to say when none does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import shapely

from pipelines.errors import NoSceneError, SceneError
from pipelines.geojson import WGS84
from pipelines.scenes.dates import Days, written_days
from pipelines.scenes.types import ImagerySource, Scene, SceneProblem
from pipelines.sites import Site

__all__ = [
    "NO_LIMITS",
    "Limits",
    "Taken",
    "choose_scenes",
    "days_between",
    "nearest_to",
    "refuse_reversed",
    "search_near",
    "within",
]

_NAMED_AT_MOST = 3
_NAMED_WITHIN_DAYS = 1100
"""How far from a day scenes are looked for so that they can be named: a whole archive may be long."""


@dataclass(frozen=True)
class Limits:
    """What scenes are asked for; one that does not state a figure is not left out for it."""

    max_cloud_percent: float | None = None
    """Greatest share of the whole image under cloud, 0 to 100."""
    max_gsd_m: float | None = None
    """Coarsest ground sampling distance in metres."""

    def named(self) -> dict[str, float]:
        """The limits that are set, by the name of the STAC property they hold for."""
        limits = {"eo:cloud_cover": self.max_cloud_percent, "gsd": self.max_gsd_m}
        return {name: most for name, most in limits.items() if most is not None}

    def allow(self, scene: Scene) -> bool:
        """Whether a scene keeps within them."""
        cloudy = (
            self.max_cloud_percent is not None
            and scene.cloud_cover_percent is not None
            and scene.cloud_cover_percent > self.max_cloud_percent
        )
        # A declared 0.6 and a limit of 0.6 are the same, however they were rounded.
        coarse = self.max_gsd_m is not None and scene.gsd_m > self.max_gsd_m * (1 + 1e-6)
        return not cloudy and not coarse

    def __str__(self) -> str:
        """The limits in words."""
        parts = []
        if self.max_cloud_percent is not None:
            parts.append(f"at most {self.max_cloud_percent:g}% cloud")
        if self.max_gsd_m is not None:
            parts.append(f"a GSD of at most {self.max_gsd_m:g} m")
        return " and ".join(parts) or "no limits"


NO_LIMITS = Limits()


def choose_scenes(
    scenes: Sequence[Scene],
    site: Site,
    start: date | None,
    end: date | None,
    source: str,
    problems: Sequence[SceneProblem],
) -> list[Scene]:
    """Return the scenes that overlap the site's perimeter, acquired from `start` to `end`, by date, then id.

    :raises SceneError: nothing of the source is usable, or the dates are the wrong way round
    :raises NoSceneError: no scene fits; the message says what there is
    """
    refuse_reversed(start, end)
    if not scenes and problems:
        raise SceneError(f"{source} holds no usable scene: {_listed(problems)}")
    passed_over = f"; passed over: {_listed(problems)}" if problems else ""
    showing = [scene for scene in scenes if scene.footprint.intersection(site.perimeter).area]
    if not showing:
        nearest = f", the nearest is {_nearest_km(scenes, site):,.1f} km away" if scenes else ""
        raise NoSceneError(f"{source} holds {len(scenes)} scenes, none of site {site.id}{nearest}{passed_over}")
    chosen = [scene for scene in showing if within(scene, start, end)]
    if not chosen:
        days = sorted({written_days(scene.acquired, scene.earliest) for scene in showing})
        held = ", ".join(days) if len(days) <= 8 else f"{len(days)} days from {days[0]} to {days[-1]}"
        raise NoSceneError(f"{source} has no scene of site {site.id} {_span(start, end)}; it has {held}{passed_over}")
    return sorted(chosen, key=lambda scene: (scene.acquired, scene.id))


def within(scene: Scene, start: date | None, end: date | None) -> bool:
    """Whether a scene was, or may have been, acquired from `start` to `end`, both included, in UTC."""
    first, last = (scene.earliest or scene.acquired).date(), scene.acquired.date()
    return (start is None or start <= last) and (end is None or first <= end)


def nearest_to(day: date, scenes: Sequence[Scene]) -> list[Scene]:
    """Return the scenes acquired nearest to a day: all of one day, or of one range of days.

    A range is no distance from the days in it; of what is equally near, an exact day goes before a range, a short range
    before a long one, and the earlier before the later.
    """

    def key(scene: Scene) -> tuple[int, int, date]:
        days = _days(scene)
        return abs(days_between(day, days)), (days.last - days.first).days, days.last

    if not scenes:
        return []
    best = min(map(key, scenes))
    return sorted((scene for scene in scenes if key(scene) == best), key=lambda scene: (scene.acquired, scene.id))


def days_between(day: date, days: Days) -> int:
    """Return how many days after `day` something was acquired, negative before it; 0 within a range."""
    if day in days:
        return 0
    return (days.first - day).days if day < days.first else (days.last - day).days


@dataclass(frozen=True)
class Taken:
    """What was taken for a day that was asked for."""

    asked: date
    days: Days
    """When it was acquired."""

    @property
    def off_days(self) -> int:
        """Days from the day asked for to the day taken; negative where it was acquired before."""
        return days_between(self.asked, self.days)

    def __str__(self) -> str:
        """Return it in words: `2025-08-22 asked, 2025-08-19 taken, 3 days before`."""
        off = abs(self.off_days)
        if off:
            where = f"{off} {'day' if off == 1 else 'days'} {'before' if self.off_days < 0 else 'after'}"
        else:
            where = "the day itself" if self.days.exact else "which holds it"
        return f"{self.asked} asked, {self.days} taken, {where}"


def search_near(source: ImagerySource, site: Site, day: date, tolerance_days: int) -> tuple[list[Scene], Taken]:
    """Find the scenes of a site acquired nearest to a day.

    :param tolerance_days: how far from the day they may be
    :raises NoSceneError: there is none within it; the message names the nearest before and after
    :raises SceneError, SourceError: as `ImagerySource.search`
    """
    try:
        found = source.search(site, *_around(day, tolerance_days))
    except NoSceneError as none:
        raise _too_far(source, site, day, tolerance_days) or none from None
    chosen = nearest_to(day, found)
    return chosen, Taken(day, _days(chosen[0]))


def _too_far(source: ImagerySource, site: Site, day: date, tolerance_days: int) -> NoSceneError | None:
    try:
        others = source.search(site, *_around(day, max(_NAMED_WITHIN_DAYS, 2 * tolerance_days)))
    except NoSceneError:
        return None
    before = [scene for scene in others if scene.acquired.date() < day]
    after = [scene for scene in others if scene.acquired.date() >= day]
    named = [
        f"the nearest {side} is {_days(nearest[0])} ({abs(days_between(day, _days(nearest[0])))} days)"
        for side, nearest in (("before", nearest_to(day, before)), ("after", nearest_to(day, after)))
        if nearest
    ]
    return NoSceneError(
        f"{source.name} has no scene of site {site.id} within {tolerance_days} days of {day}: {', '.join(named)}; give "
        "one of these dates, or a wider --tolerance"
    )


def _around(day: date, days: int) -> tuple[date, date]:
    # The calendar ends somewhere.
    first = max(day.toordinal() - days, date.min.toordinal())
    return date.fromordinal(first), date.fromordinal(min(day.toordinal() + days, date.max.toordinal()))


def _days(scene: Scene) -> Days:
    return Days((scene.earliest or scene.acquired).date(), scene.acquired.date())


def refuse_reversed(start: date | None, end: date | None) -> None:
    """Refuse dates of which the first is after the last.

    :raises SceneError: they are the wrong way round
    """
    if start and end and start > end:
        raise SceneError(f"the dates run backwards: from {start} to {end}; give the earlier one first")


def _span(start: date | None, end: date | None) -> str:
    if start and end:
        return f"of {start}" if start == end else f"from {start} to {end}"
    return f"from {start} on" if start else f"up to {end}"


def _nearest_km(scenes: Sequence[Scene], site: Site) -> float:
    nearest = float("inf")
    for scene in scenes:
        (lon_a, lat_a), (lon_b, lat_b) = shapely.get_coordinates(shapely.shortest_line(scene.footprint, site.perimeter))
        nearest = min(nearest, float(WGS84.inv(lon_a, lat_a, lon_b, lat_b)[2]) / 1000)
    return nearest


def _listed(problems: Sequence[SceneProblem]) -> str:
    # Reasons name their file already where that was clear; the name alone keeps the rest short.
    named = [
        problem.reason if Path(problem.href).name in problem.reason else f"{problem.href}: {problem.reason}"
        for problem in problems[:_NAMED_AT_MOST]
    ]
    more = len(problems) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")
