"""Which of a source's scenes show a site within dates, and what to say when none does."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import shapely

from pipelines.errors import NoSceneError, SceneError
from pipelines.geojson import WGS84
from pipelines.scenes.types import Scene, SceneProblem
from pipelines.sites import Site

__all__ = ["choose_scenes", "refuse_reversed", "within"]

_NAMED_AT_MOST = 3


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
        days = sorted({f"{scene.acquired:%Y-%m-%d}" for scene in showing})
        held = ", ".join(days) if len(days) <= 8 else f"{len(days)} days from {days[0]} to {days[-1]}"
        raise NoSceneError(f"{source} has no scene of site {site.id} {_span(start, end)}; it has {held}{passed_over}")
    return sorted(chosen, key=lambda scene: (scene.acquired, scene.id))


def within(scene: Scene, start: date | None, end: date | None) -> bool:
    """Whether a scene was acquired from `start` to `end`, both included, in UTC."""
    day = scene.acquired.date()
    return (start is None or start <= day) and (end is None or day <= end)


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
