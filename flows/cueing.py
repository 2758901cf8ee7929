"""Tip and cue: the flow `cue` looks at one site, `cue_all` at every site, for change that is worth a sharp image."""

import datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import progress
from flows.artifacts import artifact_key
from pipelines.cue import CANNOT_SEE, Cue, last_sharp_image
from pipelines.cue import cue as follow
from pipelines.errors import InputError
from pipelines.scenes.sources import open_source
from pipelines.settings import Settings
from pipelines.sites import load_site, load_sites

SENTINEL_2 = "earth-search-sentinel-2"


def look_for_change(site: str, source: str, since: datetime.date | None, archive: Path | None) -> Cue:
    """Follow a site's zones since a day: the one given, that of the last sharp image in the archive, or a year ago."""
    settings = Settings()
    place = load_site(site, settings.aoi)
    imagery = open_source(source, cache=settings.cache)
    if since is None:
        year_ago = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=365)
        since = last_sharp_image(archive or settings.archive, place) or year_ago
    label = f"{place.name}: Sentinel-2"
    progress.report(label, 0, 0)
    return follow(place, imagery, since=since, progress=lambda done, total: progress.report(label, done, total))


@flow(name="cue", flow_run_name="cue {site}")
def cue(
    site: str,
    source: str = SENTINEL_2,
    since: datetime.date | None = None,
    archive: Path | None = None,
) -> dict[str, Any]:
    """Say whether Sentinel-2 shows change enough at a site to be worth buying a sharp image.

    Args:
        site: Site id, or the path of a site file.
        source: Sentinel-2 surface reflectance: a source known by name, or `stac:PATH_OR_URL`.
        since: Change since this day. Empty: since the last sharp image in the archive, else a year ago.
        archive: Output folder. Empty: the setting OVERWATT_ARCHIVE.
    """
    found = look_for_change(site, source, since, archive)
    rendered = "RENDERED IMAGERY, not photographs. " if found.rendered else ""
    create_table_artifact(
        [{"zone": one.zone, "first seen": str(one.first or ""), "what it says": one.reason} for one in found.zones],
        key=artifact_key(found.site, "cue"),
        description=f"{rendered}{found.name} since {found.since}. {CANNOT_SEE}.",
    )
    if found.flagged:
        get_run_logger().warning("%s: worth buying a sharp image now", found.name)
    return found.as_record()


@flow(name="cue-all")
def cue_all(source: str = SENTINEL_2, archive: Path | None = None) -> list[dict[str, Any]] | State[Any]:
    """Look at every site; one that cannot be looked at does not stop the others, but the run ends Failed.

    Args:
        source: Sentinel-2 surface reflectance: a source known by name, or `stac:PATH_OR_URL`.
        archive: Output folder. Empty: the setting OVERWATT_ARCHIVE.
    """
    found: list[dict[str, Any]] = []
    faults: list[str] = []
    for site in load_sites(Settings().aoi):
        try:
            found.append(cue(site.id, source, archive=archive))
        except InputError as fault:
            faults.append(f"{site.id}: {fault}")
    if faults:
        return Failed(message=f"{len(faults)} sites could not be looked at: {'; '.join(faults)}")
    return found
