"""Several sources as one: what each holds of a site, without counting twice what two of them offer.

A source that fails does not hide the others; it is logged and named in `failures`.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from shapely.geometry import MultiPolygon, Polygon

from pipelines.errors import InputError, NoSceneError, SceneError, SourceError
from pipelines.scenes.selection import NO_LIMITS, Limits
from pipelines.scenes.sources import open_source, public_spec, takes_limits
from pipelines.scenes.types import FetchedScene, ImagerySource, Scene, SceneProblem
from pipelines.scenes.web import public_href
from pipelines.sites import Site

__all__ = ["SeveralSources", "open_sources"]

log = logging.getLogger(__name__)

_SAME_GSD = 1.1
"""Greatest ratio of two GSDs of one image: catalogs round."""
_SAME_PLACE = 0.5
"""Least share of the ground of both together that two footprints of one image have in common."""


class SeveralSources:
    """Imagery of several sources, of which any may fail."""

    def __init__(
        self, sources: Sequence[ImagerySource], *, failed: Sequence[SceneProblem] = (), limits: Limits = NO_LIMITS
    ) -> None:
        """Use the sources in their order: of a scene that two offer, the first one's is taken.

        :param failed: sources that could not even be opened
        :param limits: on the scenes of those that take none
        """
        self.sources = tuple(sources)
        self.name = "; ".join(source.name for source in sources)
        self.problems: Sequence[SceneProblem] = ()
        self.failures: Sequence[SceneProblem] = failed
        """Sources that could not be searched the last time, and why."""
        self._failed = tuple(failed)
        self._limits = limits
        self._origin: dict[tuple[str, str], ImagerySource] = {}

    def search(self, site: Site, start: date | None = None, end: date | None = None) -> list[Scene]:
        """Find the scenes of all sources; see `ImagerySource.search`.

        :raises NoSceneError: those that could be searched hold nothing
        :raises SceneError, SourceError: none could be searched
        """
        found: list[Scene] = []
        failures, nothing = list(self._failed), []
        problems: list[SceneProblem] = []
        fault: InputError | None = None
        self._origin = {}
        for source in self.sources:
            try:
                offered = [scene for scene in source.search(site, start, end) if self._limits.allow(scene)]
            except NoSceneError as none:
                nothing.append(str(none))
                offered = []
            except (SceneError, SourceError) as error:
                fault = fault or error
                failures.append(SceneProblem(source.name, str(error)))
                continue
            problems += source.problems
            for scene in offered:
                known = next((one for one in found if _is_same(one, scene)), None)
                if known is not None:
                    problems.append(SceneProblem(public_href(scene.href), f"{known.source} offers the same scene"))
                    continue
                scene = _told_apart(scene, found)
                found.append(scene)
                self._origin[scene.source, scene.id] = source
        self.failures, self.problems = tuple(failures), tuple(problems)
        if len(failures) == len(self.sources) + len(self._failed):
            if fault is not None and len(failures) == 1:
                raise fault
            every = "; ".join(f"{failure.href}: {failure.reason}" for failure in failures)
            raise SourceError(f"none of the sources can be searched: {every}") from (fault and fault.__cause__)
        for failure in failures:
            log.warning("%s is left out: %s", failure.href, failure.reason)
        if not found:
            limited = f" with {self._limits}" if self._limits != NO_LIMITS else ""
            raise NoSceneError("; ".join(nothing) or f"{self.name} has no scene of site {site.id}{limited}")
        return sorted(found, key=lambda scene: (scene.acquired, scene.id))

    def fetch(self, scene: Scene, area: Polygon | MultiPolygon) -> FetchedScene:
        """Bring a scene of the last search to this machine; see `ImagerySource.fetch`."""
        return self._origin[scene.source, scene.id].fetch(scene, area)


def open_sources(
    specs: str,
    *,
    cache: Path,
    acquired: date | None = None,
    licence: str | None = None,
    limits: Limits | None = None,
    acknowledge: Sequence[str] | None = None,
) -> ImagerySource:
    """Return the source that `specs` names, or several with `;` between them as one.

    The parameters are those of `open_source`; limits that are given hold for sources of every kind.

    :raises SourceError: as `open_source`; of several, when none can be opened, or when `acquired` or `licence` is given
    """
    wanted = list(dict.fromkeys(spec.strip() for spec in specs.split(";") if spec.strip())) or [specs]
    if len(wanted) == 1 and (limits in (None, NO_LIMITS) or takes_limits(wanted[0])):
        return open_source(
            wanted[0], cache=cache, acquired=acquired, licence=licence, limits=limits, acknowledge=acknowledge
        )
    if len(wanted) > 1 and (acquired or licence):
        shown = "; ".join(map(public_spec, wanted))
        raise SourceError(f"{shown} are several sources; a date or a licence can be given for one local image only")
    sources, failed = [], []
    for spec in wanted:
        own = limits if takes_limits(spec) else None
        try:
            sources.append(
                open_source(spec, cache=cache, acquired=acquired, licence=licence, limits=own, acknowledge=acknowledge)
            )
        except SourceError as error:
            if len(wanted) == 1:
                raise
            failed.append(SceneProblem(public_spec(spec), str(error)))
    if not sources:
        raise SourceError("; ".join(problem.reason for problem in failed))
    return SeveralSources(sources, failed=failed, limits=limits or NO_LIMITS)


def _is_same(one: Scene, other: Scene) -> bool:
    """Whether two sources offer the same image: one address, or one name, day, place and sharpness."""
    same_days = (one.acquired.date(), one.earliest) == (other.acquired.date(), other.earliest)
    # What is asked for behind the ? may be the date itself, or a signature.
    asked = urlsplit(one.href).query or urlsplit(other.href).query
    if public_href(one.href) == public_href(other.href) and (same_days or not asked):
        return True
    if one.id != other.id or not same_days:
        return False
    sharp = max(one.gsd_m, other.gsd_m) <= _SAME_GSD * min(one.gsd_m, other.gsd_m)
    common = one.footprint.intersection(other.footprint).area
    return sharp and common >= _SAME_PLACE * one.footprint.union(other.footprint).area


def _told_apart(scene: Scene, others: Sequence[Scene]) -> Scene:
    """Give another id to a scene whose run would go where that of a different one goes."""
    if scene.id not in {other.id for other in others}:
        return scene
    digest = hashlib.sha256(f"{scene.source}|{public_href(scene.href)}".encode()).hexdigest()[:8]
    return dataclasses.replace(scene, id=f"{scene.id}-{digest}")
