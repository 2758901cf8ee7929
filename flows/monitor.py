"""The flows: `monitor` counts one site, `monitor_all` every site; the steps they arrange live in `pipelines`."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import progress
from flows.artifacts import DetectionProgress, show_run, show_timeline
from flows.instruments import instruments
from flows.prefect_env import TAG
from flows.summary import RunSummary, summarise
from models.detector.card import COUNTED_FROM, MIN_PROBABILITY
from pipelines.capacity import estimate
from pipelines.census import assign_zones, take_census
from pipelines.coregistration import Refusal, coregister
from pipelines.errors import InputError, NoSceneError, SceneError, SiteError, SourceError
from pipelines.publishing import counted_by, publish_run
from pipelines.scenes.dates import written_days
from pipelines.scenes.selection import Taken, search_near
from pipelines.scenes.several import SeveralSources, open_sources
from pipelines.scenes.sources import limits_given
from pipelines.scenes.types import FetchedScene, ImagerySource, Scene
from pipelines.scenes.web import may_pass
from pipelines.settings import Settings
from pipelines.sites import Site, load_site

SOURCE_RETRY_DELAYS_S = [2.0, 10.0]
"""HTTP is retried within a step as well; this bridges a source that restarts."""


@flow(name="monitor", flow_run_name="{site}")
def monitor(
    site: str,
    date: datetime.date | None = None,
    source: str | None = None,
    scene: Path | None = None,
    licence: str | None = None,
    acknowledge: list[str] | None = None,
    since: datetime.date | None = None,
    tolerance_days: int | None = None,
    device: str = "auto",
    archive: Path | None = None,
    max_cloud_percent: float | None = None,
    max_gsd_m: float | None = None,
) -> list[RunSummary]:
    """Count the equipment of one site and publish what was found.

    Args:
        site: Site id, or the path of a site file.
        date: Day of acquisition; the nearest within `tolerance_days` is taken, and said. Empty: every scene that the
            archive does not hold for the present weights.
        source: `library`, `sample`, `local:PATH`, `stac:PATH_OR_URL`, ..., several with `;` between. Empty: the setting
            OVERWATT_SOURCE.
        scene: One raster file instead of a source; `date` then says when it was acquired if the file does not.
        licence: Licence of local imagery, where it does not say.
        acknowledge: Licences that ask for it and that your use is within. Empty: the setting OVERWATT_ACKNOWLEDGE.
        since: With no date: look no further back than this day.
        tolerance_days: How far from `date` a scene may be. Empty: the setting OVERWATT_TOLERANCE_DAYS.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, or several that share a scene: `cuda:0,cuda:1`.
        archive: Output folder. Empty: the setting OVERWATT_ARCHIVE.
        max_cloud_percent: Scenes with more cloud are left out. Empty: the setting OVERWATT_MAX_CLOUD_PERCENT.
        max_gsd_m: Scenes with coarser pixels, in metres, are left out. Empty: the setting OVERWATT_MAX_GSD_M.
    """
    settings = Settings()
    place = load_site(site, settings.aoi)
    archive = archive or settings.archive
    imagery = open_sources(
        f"local:{scene}" if scene else source or settings.source,
        cache=settings.cache,
        acquired=date if scene else None,
        licence=licence,
        limits=limits_given(max_cloud_percent, max_gsd_m),
        acknowledge=acknowledge,
    )
    progress.report(f"{place.name}: looking for scenes", 0, 0)
    taken: Taken | None = None
    if date and not scene:
        tolerance_days = settings.tolerance_days if tolerance_days is None else tolerance_days
        scenes, taken = find_nearest(imagery, place, date, tolerance_days)
        get_run_logger().info("%s: %s", place.id, taken)
    else:
        scenes = find_scenes(imagery, place, date or since, date, wanted=bool(scene))
    for failure in imagery.failures if isinstance(imagery, SeveralSources) else ():
        get_run_logger().warning("%s could not be searched: %s", failure.href, failure.reason)
    if not (date or scene):
        scenes = [one for one in scenes if not is_counted(archive, place, one, device)]
        get_run_logger().info("%d new scenes of %s in %s", len(scenes), place.id, imagery.name)
    if scenes:
        instruments(
            device
        )  # a wrong device or missing weights are no scene's fault, and are said before any is fetched
    runs: list[RunSummary] = []
    faults: list[str] = []
    for one in scenes:
        progress.report(f"{place.name}, {written_days(one.acquired, one.earliest)}: fetching", 0, 0)
        try:
            run = count_equipment(place, fetch_scene(imagery, one, place), device, archive)
        except InputError as fault:
            if len(scenes) == 1:
                raise
            faults.append(f"{one.id}: {fault}")
        else:
            runs.append(dataclasses.replace(run, asked=taken))
            show_run(runs[-1])
    if runs:
        place_dates(place, archive)
        show_timeline(place, archive)
    if faults:
        raise SceneError(f"{len(faults)} of {len(scenes)} scenes could not be counted: {'; '.join(faults)}")
    return runs


@flow(name="monitor-all")
def monitor_all(
    source: str | None = None,
    since: datetime.date | None = None,
    device: str = "auto",
    archive: Path | None = None,
    acknowledge: list[str] | None = None,
) -> list[RunSummary] | State[Any]:
    """Look for new imagery of every site; a site that fails does not stop the others, but the run ends Failed.

    Args:
        source: `library`, `sample`, `local:PATH`, `stac:PATH_OR_URL`, ..., several with `;` between. Empty: the setting
            OVERWATT_SOURCE.
        since: Look no further back than this day.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, or several that share a scene: `cuda:0,cuda:1`.
        archive: Output folder. Empty: the setting OVERWATT_ARCHIVE.
        acknowledge: Licences that ask for it and that your use is within. Empty: the setting OVERWATT_ACKNOWLEDGE.
    """
    folder = Settings().aoi
    sites = sorted(path.stem for path in folder.glob("*.geojson"))
    if not sites:
        raise SiteError(f"{folder} holds no site file; set OVERWATT_AOI to a folder that does")
    runs: list[RunSummary] = []
    failed: list[str] = []
    for site in sites:
        with tags(TAG):
            state = monitor(
                site,
                source=source,
                acknowledge=acknowledge,
                since=since,
                device=device,
                archive=archive,
                return_state=True,
            )
        if state.is_completed():
            runs += state.result()
        else:
            failed.append(f"{site} ({state.message})")
    if runs and not publish(archive or Settings().archive, return_state=True).is_completed():
        get_run_logger().warning("the merged layers could not be made anew; overwatt publish says why")
    if failed:
        return Failed(message=f"{len(failed)} of {len(sites)} sites failed: {'; '.join(failed)}")
    return runs


def source_may_answer_yet(_task: object, _run: object, state: State[Any]) -> bool:
    """Retry what a network did, never what a user did: the same mistake fails the same way again."""
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, SourceError) and fault.__cause__ is not None and may_pass(fault.__cause__)


# Scenes are cached by checksum on disk and runs in the archive, so Prefect need not hash or store anything of them.
@task(
    name="find scenes",
    retries=len(SOURCE_RETRY_DELAYS_S),
    retry_delay_seconds=SOURCE_RETRY_DELAYS_S,
    retry_condition_fn=source_may_answer_yet,
    cache_policy=NO_CACHE,
)
def find_scenes(
    imagery: ImagerySource, site: Site, start: datetime.date | None, end: datetime.date | None, *, wanted: bool
) -> list[Scene]:
    """Scenes of a site; where none is `wanted` in particular, to find none is not a fault."""
    try:
        return imagery.search(site, start, end)
    except NoSceneError as none:
        if wanted:
            raise
        get_run_logger().info("%s", none)
        return []


@task(
    name="find scenes near a day",
    task_run_name="find scenes near {day}",
    retries=len(SOURCE_RETRY_DELAYS_S),
    retry_delay_seconds=SOURCE_RETRY_DELAYS_S,
    retry_condition_fn=source_may_answer_yet,
    cache_policy=NO_CACHE,
)
def find_nearest(
    imagery: ImagerySource, site: Site, day: datetime.date, tolerance_days: int
) -> tuple[list[Scene], Taken]:
    """Scenes of the day nearest to the one asked for, and which it is."""
    return search_near(imagery, site, day, tolerance_days)


@task(
    name="fetch scene",
    task_run_name="fetch {scene.id}",
    retries=len(SOURCE_RETRY_DELAYS_S),
    retry_delay_seconds=SOURCE_RETRY_DELAYS_S,
    retry_condition_fn=source_may_answer_yet,
    cache_policy=NO_CACHE,
)
def fetch_scene(imagery: ImagerySource, scene: Scene, site: Site) -> FetchedScene:
    """Bring a scene's pixels around the site to this machine; what travels on is their path."""
    return imagery.fetch(scene, site.perimeter)


@task(name="count equipment", task_run_name="count {site.id} on {fetched.scene.id}", cache_policy=NO_CACHE)
def count_equipment(site: Site, fetched: FetchedScene, device: str, archive: Path) -> RunSummary:
    """Detect, count, estimate, publish: one step, so that pixels and polygons never leave it but as files."""
    from pipelines.detection import detect

    detectors, reader = instruments(device)
    label = f"{site.name}, {written_days(fetched.scene.acquired, fetched.scene.earliest)}"
    found = detect(
        fetched,
        site.perimeter,
        detectors,
        reader,
        min_probability=COUNTED_FROM,
        progress=DetectionProgress(site.id, label),
    )
    found = dataclasses.replace(found, frame=assign_zones(site, found.frame))
    census = take_census(site, fetched.scene, found, detectors[0].card.recall)
    implied = estimate(census, site)
    folder = publish_run(archive, site, fetched, found.at_least(MIN_PROBABILITY), census, implied)
    return summarise(site, fetched, census, implied, folder)


@task(name="co-register", task_run_name="co-register {site.id}", cache_policy=NO_CACHE)
def place_dates(site: Site, archive: Path) -> None:
    """Measure how far the dates of a site lie apart on the ground; a scene that cannot be placed is no fault."""
    for run, answer in coregister(site, archive).items():
        if isinstance(answer, Refusal):
            get_run_logger().warning("%s of %s is not placed against the others: %s", run, site.id, answer.reason)


@task(name="publish layers", cache_policy=NO_CACHE)
def publish(archive: Path) -> None:
    """Make the merged layers anew, so that whoever opens them finds the runs of this morning."""
    from pipelines.layers.publish import publish_layers

    made = publish_layers(archive, Settings().aoi)
    for broken in made.broken:
        get_run_logger().warning("%s", broken)
    get_run_logger().info("layers of %d runs in %s: %d files written", made.runs, made.folder, len(made.written))


def is_counted(archive: Path, site: Site, scene: Scene, device: str) -> bool:
    """Whether the archive holds this scene as the present weights count it."""
    version = counted_by(archive, site, scene)
    if version is None:
        return False
    detectors, reader = instruments(device)
    return version == f"{detectors[0].version}+{reader.version}"
