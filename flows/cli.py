"""The `overwatt` command line: a thin mirror of the flows and steps. What loads slowly is imported where it is used.

Exit codes: 0 done, 1 a check failed, 2 the user's mistake in one sentence on stderr, 130 interrupted. With `--json`,
stdout holds one JSON document, also when something goes wrong.
"""

import dataclasses
import datetime
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows import prefect_env
from models.detector.card import MIN_PROBABILITY
from pipelines.errors import ArchiveError, InputError, SiteError

PLAIN_WIDTH = 110
"""Columns of a table that goes to a file or a pipe."""
FINE_RATE = 5e-4
"""Highest learning rate of a training on corrected labels: a few of them must not undo what the weights know."""
INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

app = typer.Typer(
    help="Count cooling and power equipment of AI datacenters in dated overhead imagery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
sites_app = typer.Typer(help="List the sites, or add one.")
app.add_typer(sites_app, name="sites")
reference_app = typer.Typer(help="Epoch AI's figures of AI datacenters (CC BY 4.0) beside ours.")
app.add_typer(reference_app, name="reference")

SiteId = Annotated[str, typer.Argument(metavar="SITE", help="Site id, or path of a site file.")]
Source = Annotated[
    str | None,
    typer.Option(
        help="library, sample, local:PATH, stac:PATH_OR_URL (#COLLECTION,... behind an API), tiles:TEMPLATE_OR_FILE, "
        "or a name of data/imagery/sources.csv; several with ; between them "
        "(default: OVERWATT_SOURCE, else the library once it holds a scene, else sample)"
    ),
]
Since = Annotated[
    datetime.datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Look no further back than this day."),
]
MaxCloud = Annotated[
    float | None, typer.Option(min=0, max=100, metavar="PERCENT", help="Leave out scenes with more cloud.")
]
MaxGsd = Annotated[float | None, typer.Option(metavar="METRES", help="Leave out scenes with coarser pixels.")]
Acknowledge = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LICENCE",
        help="Say that your use is within this licence; may be given again (default: OVERWATT_ACKNOWLEDGE)",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, or several: cuda:0,cuda:1")]
Archive = Annotated[Path | None, typer.Option(help="Output folder (default: OVERWATT_ARCHIVE, else archive)")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log on stderr.")]
Picture = Annotated[Path | None, typer.Option(metavar="FILE.png|svg", help="Draw it into this file as well.")]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,...", help="Backgrounds that do show some, without suffix; may be given again."),
]
Day = Annotated[datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for steps in ("pipelines", "models"):
        # The same one each time: it is added once.
        logging.getLogger(steps).addHandler(_WARNINGS)
    as_json = "--json" in arguments
    try:
        code = app(arguments, prog_name="overwatt", standalone_mode=False) or 0
    except InputError as error:
        return _refuse(str(error), as_json)
    except typer.TyperException as error:
        return _refuse(error.format_message(), as_json)
    if code == INTERRUPTED:
        print("overwatt: interrupted", file=sys.stderr)  # noqa: T201
    return int(code)


@app.callback(invoke_without_command=True)
def overwatt(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options that stand before every command."""
    if show_version:
        typer.echo(f"overwatt {version('overwatt')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@sites_app.callback(invoke_without_command=True)
def sites(context: typer.Context, as_json: AsJson = False) -> None:
    """List the sites, or add one."""
    if context.invoked_subcommand is not None:
        return
    from flows.report import sites_table
    from pipelines.settings import Settings
    from pipelines.sites import load_sites

    found = load_sites(Settings().aoi)
    _result(as_json, {"sites": [_site_record(site) for site in found]}, lambda: sites_table(found))


@sites_app.command("new")
def new(
    site: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits, - and _.")],
    raster: Annotated[Path | None, typer.Option(help="Take the footprint of this image as the perimeter.")] = None,
    bounds: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="Take this box, in degrees, as the perimeter."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name for people.")] = None,
    operator: Annotated[str, typer.Option(help="Who runs it.")] = "unknown",
    as_json: AsJson = False,
) -> None:
    """Add a site file with a perimeter; draw its zones in QGIS afterwards."""
    from pipelines.settings import Settings
    from pipelines.sites import new_site

    if (raster is None) == (bounds is None):
        raise SiteError("a new site needs its perimeter from either --raster FILE or --bounds W S E N")
    if raster is not None:
        from pipelines.scenes.georeference import footprint, open_raster

        with open_raster(raster) as dataset:
            area: Any = footprint(dataset)
        source = f"footprint of {raster.name}"
    else:
        area, source = bounds, "bounds given on the command line"
    made = new_site(site, area, Settings().aoi, source=source, name=name, operator=operator)
    _result(as_json, _site_record(made), lambda: f"{made.path} written; next: overwatt run {made.id}")


@sites_app.command("add")
def add(
    from_reference: Annotated[
        str, typer.Option("--from-reference", metavar="NAME", help="A site that Epoch AI tracks, by its name there.")
    ],
    site: Annotated[str | None, typer.Option("--id", help="Site id (default: made from the name)")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a tracked site: a square around its coordinates, to be drawn properly in QGIS afterwards."""
    from pipelines.errors import ReferenceDataError
    from pipelines.reference import load_snapshot, site_from_reference
    from pipelines.settings import Settings

    settings = Settings()
    try:
        snapshot = load_snapshot(settings.cache)
        origin = f"owner and address: {snapshot.label}"
    except ReferenceDataError as none:
        snapshot, origin = None, f"owner and address are unknown: {none}"
    made = site_from_reference(from_reference, settings.aoi, snapshot, site)
    _result(
        as_json, _site_record(made), lambda: f"{made.path} written, a proxy; {origin}; next: overwatt run {made.id}"
    )


@reference_app.callback(invoke_without_command=True)
def reference(context: typer.Context) -> None:
    """Epoch AI's figures of AI datacenters (CC BY 4.0) beside ours."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@reference_app.command("refresh")
def refresh(
    url: Annotated[str | None, typer.Option(help="Address of the export (default: Epoch AI's)")] = None,
    as_json: AsJson = False,
) -> None:
    """Download Epoch AI's export and keep it as the snapshot of today."""
    from pipelines import reference
    from pipelines.settings import Settings

    snapshot = reference.refresh(Settings().cache, url or reference.EXPORT_URL)
    about = {
        "retrieved": snapshot.retrieved.isoformat(),
        "url": snapshot.url,
        "sites": len(snapshot.sites),
        "credit": reference.CREDIT,
        "folder": str(snapshot.folder),
    }
    _result(as_json, about, lambda: f"{snapshot.label}: {len(snapshot.sites)} sites, kept in {snapshot.folder}")


@reference_app.command("compare")
def compare(
    site: SiteId,
    campus: Annotated[bool, typer.Option("--campus", help="All sites of its campus together.")] = False,
    name: Annotated[str | None, typer.Option(help="Its name in the reference (default: the site file's)")] = None,
    archive: Archive = None,
    as_json: AsJson = False,
) -> None:
    """Our estimates beside Epoch AI's figures of the same dates."""
    from flows.report import comparison_table
    from pipelines import reference
    from pipelines.settings import Settings
    from pipelines.sites import load_site
    from pipelines.timeline import read_timeline

    settings = Settings()
    place = load_site(site, settings.aoi)
    called = name or place.reference_name
    if called is None:
        raise SiteError(f"{place.path} does not say what the reference calls it: give --name, or set reference_name")
    snapshot = reference.load_snapshot(settings.cache)
    ours = read_timeline(place, archive or settings.archive, campus_of=settings.aoi if campus else None)
    found = reference.compare(ours, called, snapshot)
    if not campus and place.campus != place.id:
        part = f"{called} in the reference may be the whole campus {place.campus}: --campus adds up its sites"
        ours = dataclasses.replace(ours, notes=(*ours.notes, part))
    document = {
        "site": ours.name,
        "notes": list(ours.notes),
        "reference": called,
        "snapshot": snapshot.label,
        "rendered": ours.rendered,
        "comparisons": [one.as_record() for one in found],
    }
    _result(as_json, document, lambda: comparison_table(ours, called, snapshot, found))


@reference_app.command("speed")
def speed(as_json: AsJson = False) -> None:
    """Months from ground-break to 100, 200 and 500 MW of IT, site by site."""
    from flows.report import speed_table
    from pipelines import reference
    from pipelines.settings import Settings

    snapshot = reference.load_snapshot(Settings().cache)
    speeds = reference.build_speeds(snapshot)
    document = {"snapshot": snapshot.label, "speeds": [one.as_record() for one in speeds]}
    _result(as_json, document, lambda: speed_table(snapshot, speeds))


@app.command()
def scenes(
    site: SiteId,
    source: Source = None,
    since: Since = None,
    until: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Look no further than this day."),
    ] = None,
    max_cloud: MaxCloud = None,
    max_gsd: MaxGsd = None,
    acknowledge: Acknowledge = None,
    archive: Archive = None,
    as_json: AsJson = False,
) -> None:
    """List what every imagery source holds of a site, and whether it was counted already."""
    from flows.report import scenes_report
    from pipelines.documents import to_json
    from pipelines.errors import NoSceneError
    from pipelines.publishing import counted_by
    from pipelines.scenes.several import SeveralSources, open_sources
    from pipelines.scenes.sources import limits_given
    from pipelines.scenes.web import public_href
    from pipelines.settings import Settings
    from pipelines.sites import load_site

    settings = Settings()
    place = load_site(site, settings.aoi)
    limits = limits_given(max_cloud, max_gsd)
    wanted = source or settings.source
    imagery = open_sources(wanted, cache=settings.cache, limits=limits, acknowledge=acknowledge or None)
    nothing = None
    try:
        found = imagery.search(place, since.date() if since else None, until.date() if until else None)
    except NoSceneError as none:
        if not isinstance(imagery, SeveralSources):
            raise
        found, nothing = [], str(none)
    counted = [counted_by(archive or settings.archive, place, scene) for scene in found]
    shown = (
        *("id", "source", "acquired", "acquired_from", "released", "gsd_m", "cloud_cover_percent", "off_nadir_deg"),
        *("sun_azimuth_deg", "sun_elevation_deg", "rendered", "licence", "acknowledged", "attribution", "price"),
    )
    records = [
        {field: to_json(getattr(scene, field)) for field in shown}
        | {
            "acquired_earliest": to_json(scene.earliest),
            "href": public_href(scene.href),
            "parts": [public_href(part) for part in scene.parts],
            "counted_by": version,
        }
        for scene, version in zip(found, counted, strict=True)
    ]
    failures = imagery.failures if isinstance(imagery, SeveralSources) else ()
    document = {
        "scenes": records,
        "nothing": nothing,
        "passed_over": [{"href": problem.href, "reason": problem.reason} for problem in imagery.problems],
        "sources_that_failed": [{"source": failure.href, "reason": failure.reason} for failure in failures],
    }
    _result(as_json, document, lambda: nothing or scenes_report(found, counted))


@app.command()
def ingest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="GeoTIFF, COG, JP2, VRT, NITF, ...")],
    site: Annotated[str, typer.Option(metavar="SITE", help="Site that the imagery shows, at least in part.")],
    source: Annotated[str, typer.Option(help='Who took it: "Airbus Pleiades Neo".')],
    acquired: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help="2025-08-22; or what is known: 2025-08, 2025-Q3, 2025, 2025-08-01/2025-08-31."
        ),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="What may be done with it.")] = None,
    released: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Day of publication or delivery."),
    ] = None,
    price: Annotated[str, typer.Option(help="owned, free, requester pays, priced or unknown")] = "owned",
    gsd: Annotated[float | None, typer.Option(metavar="METRES", help="Native GSD (default: the pixels' size)")] = None,
    off_nadir: Annotated[float | None, typer.Option(metavar="DEGREES", help="Angle off the vertical.")] = None,
    sun_azimuth: Annotated[float | None, typer.Option(metavar="DEGREES", help="Clockwise from north.")] = None,
    sun_elevation: Annotated[float | None, typer.Option(metavar="DEGREES", help="Above the horizon.")] = None,
    cloud: Annotated[float | None, typer.Option(metavar="PERCENT", help="Share of the image under cloud.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Leave the files where they are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take purchased imagery into the library, from which every command reads it afterwards; one scene a file.

    Tiles of one acquisition are one scene: make a VRT of them first (gdalbuildvrt) and take that in.
    """
    from flows.report import ingested_table
    from pipelines.scenes.dates import parse_days
    from pipelines.scenes.library import Statement
    from pipelines.scenes.library import ingest as take_in
    from pipelines.settings import Settings
    from pipelines.sites import load_site

    settings = Settings()
    place = load_site(site, settings.aoi)
    said = Statement(
        source=source,
        acquired=parse_days(acquired) if acquired else None,
        licence=licence,
        released=released.date() if released else None,
        price=price,
        gsd_m=gsd,
        off_nadir_deg=off_nadir,
        sun_azimuth_deg=sun_azimuth,
        sun_elevation_deg=sun_elevation,
        cloud_cover_percent=cloud,
    )
    taken = [take_in(settings.library, file, place, said, in_place=in_place) for file in files]
    document = {"library": str(settings.library.absolute()), "scenes": [one.as_record() for one in taken]}
    _result(as_json, document, lambda: [ingested_table(taken), f"next: overwatt run {place.id} --source library"])


@app.command()
def run(
    site: SiteId,
    date: Day = None,
    source: Source = None,
    scene: Annotated[
        Path | None, typer.Option(help="One georeferenced image; --date then says when it was acquired.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of a local image that does not state its own.")] = None,
    max_cloud: MaxCloud = None,
    max_gsd: MaxGsd = None,
    acknowledge: Acknowledge = None,
    since: Since = None,
    tolerance: Annotated[
        int | None,
        typer.Option(min=0, metavar="DAYS", help="How far from --date a scene may be; 0: that day only (default: 15)"),
    ] = None,
    device: Device = "auto",
    archive: Archive = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Count a site once: on a date, in one image, or in every scene that the archive does not hold yet.

    Of a date, the nearest acquisition within --tolerance is taken, and which one it is is said.
    """
    if scene and source:
        raise typer.BadParameter("give either --scene FILE or --source, not both")
    if since and (date or scene):
        raise typer.BadParameter("give either --since or a --date or --scene, not both")
    if tolerance is not None and (scene or not date):
        raise typer.BadParameter("--tolerance says how far a scene may be from --date: give a date, and no --scene")
    from flows.report import progress_bar, run_report
    from pipelines.scenes.several import open_sources
    from pipelines.scenes.sources import limits_given
    from pipelines.settings import Settings
    from pipelines.sites import load_site

    # A slip of the pen is answered now, not after Prefect has started.
    settings = Settings()
    load_site(site, settings.aoi)
    wanted = f"local:{scene}" if scene else source or settings.source
    open_sources(
        wanted,
        cache=settings.cache,
        licence=licence,
        limits=limits_given(max_cloud, max_gsd),
        acknowledge=acknowledge or None,
    )
    with progress_bar(Console(stderr=True), "starting"):
        _prefect(verbose)
        from flows.monitor import monitor

        runs = monitor(
            site,
            date=date.date() if date else None,
            source=source,
            scene=scene,
            licence=licence,
            acknowledge=acknowledge or None,
            max_cloud_percent=max_cloud,
            max_gsd_m=max_gsd,
            since=since.date() if since else None,
            tolerance_days=tolerance,
            device=device,
            archive=archive,
        )
    nothing = f"nothing new of {site}; 'overwatt scenes {site}' lists what there is, --date counts a day again"
    _result(as_json, {"runs": [one.as_record() for one in runs]}, lambda: [run_report(one) for one in runs] or nothing)


@app.command()
def detect(
    raster: Annotated[str, typer.Argument(metavar="RASTER", help="Image file, or http(s) address of a COG.")],
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Classes wanted, with commas between (default: all six)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.geojson", help="(default: RASTER's name, .detections.geojson, here)")
    ] = None,
    area: Annotated[Path | None, typer.Option(metavar="FILE.geojson", help="Look inside these polygons only.")] = None,
    gsd: Annotated[
        float | None, typer.Option(metavar="METRES", help="Pixel size of an image without georeference.")
    ] = None,
    min_probability: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out less probable ones.")
    ] = MIN_PROBABILITY,
    window: Annotated[
        int | None,
        typer.Option(min=16, metavar="N", help="Side of a window in pixels of 0.3 m: memory, but no result, follows."),
    ] = None,
    readers: Annotated[int | None, typer.Option(min=1, max=64, help="Threads that read ahead.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the image.")] = 1,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Go on without windows that cannot be read, and name them.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find equipment in any image and write its polygons; no site, no date, no counts.

    An image without georeference (PNG, JPEG) needs --gsd; the coordinates are then its pixels, y down.
    """
    from flows.detecting import detect_to_file
    from flows.report import progress_bar, written_table

    with progress_bar(Console(stderr=True), "starting"):
        written = detect_to_file(
            raster,
            classes=classes,
            out=out,
            area=area,
            gsd_m=gsd,
            min_probability=min_probability,
            window_px=window,
            readers=readers,
            processes=processes,
            skip_damaged=skip_damaged,
            device=device,
        )
    for damage in written.not_read:
        print(f"overwatt: left out: {damage}", file=sys.stderr)  # noqa: T201
    _result(as_json, written.as_record(), lambda: written_table(written))


@app.command()
def estimate(
    chillers: Annotated[int, typer.Option(min=0, help="Air-cooled chillers.")] = 0,
    length_m: Annotated[float | None, typer.Option(help="Length of a chiller.")] = None,
    width_m: Annotated[float | None, typer.Option(help="Width of a chiller.")] = None,
    fans: Annotated[int | None, typer.Option(min=1, help="Fans on a chiller.")] = None,
    chiller_model: Annotated[str | None, typer.Option(help="Model of the chillers, one of chillers.csv.")] = None,
    dry_cooler_fans: Annotated[int, typer.Option(min=0, help="Fans of all dry coolers together.")] = 0,
    cooling_towers: Annotated[int, typer.Option(min=0, help="Cooling towers, each whole.")] = 0,
    cooling_tower_fans: Annotated[
        int, typer.Option(min=0, help="Fan cells of cooling towers, where these were counted and not towers.")
    ] = 0,
    turbines: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL:]N", help="Gas turbines; again for each model or size class: TM2500:12, 35MW:7."),
    ] = None,
    batteries: Annotated[int, typer.Option(min=0, help="Megapack-like units.")] = 0,
    supply_mw: Annotated[float | None, typer.Option(help="Power known to reach the site besides the turbines.")] = None,
    pue: Annotated[float | None, typer.Option(help="Facility power / IT power at peak.")] = None,
    accelerator: Annotated[
        str | None, typer.Option(help='Name of accelerators.csv, or shares of chips: "H100=0.75,H200=0.25".')
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Site the counts are of: its accelerator, PUE and supplies count.")
    ] = None,
    date: Day = None,
    picture: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Megawatts and GPUs from counts alone, without imagery; what is not named is taken not to be there."""
    from flows.report import estimate_report
    from pipelines.capacity import estimate_from_counts
    from pipelines.errors import EstimateError
    from pipelines.settings import Settings
    from pipelines.sites import load_site
    from pipelines.supply import parse_turbines
    from pipelines.tables import load_tables

    tables = load_tables()
    unknown, fleet = parse_turbines(turbines or (), tables)
    if not any((chillers, dry_cooler_fans, cooling_towers, cooling_tower_fans, unknown, fleet, batteries)):
        raise EstimateError("nothing was counted: give at least one of --chillers, --cooling-towers, --turbines, ...")
    if not chillers and (length_m, width_m, fans, chiller_model) != (None, None, None, None):
        raise EstimateError("the chillers are described but not counted: give --chillers N")
    result = estimate_from_counts(
        chillers=chillers,
        length_m=length_m,
        width_m=width_m,
        fans=fans,
        known_models={"air_cooled_chiller": chiller_model} if chiller_model else None,
        dry_cooler_cells=dry_cooler_fans,
        cooling_towers=cooling_towers,
        cooling_tower_cells=cooling_tower_fans,
        turbines=unknown,
        turbine_fleet=fleet,
        batteries=batteries,
        supply_mw=supply_mw,
        pue=pue,
        accelerator=accelerator,
        site=load_site(site, Settings().aoi) if site else None,
        date=date.date() if date else None,
        tables=tables,
    )
    if picture is not None:
        from pipelines.pictures import waterfall_picture

        drawn = waterfall_picture(result, _picture_form(picture))
        if drawn is None:
            raise EstimateError("there is nothing to draw: no IT power is given, see the notes of the estimate")
        _write_picture(picture, drawn)
    _result(as_json, result.as_record(), lambda: estimate_report(result))


@app.command()
def backtest(
    table: Annotated[
        Path | None, typer.Option(help="Counts with published figures (default: data/reference/backtest.csv)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold the method against published figures: estimates from published counts alone."""
    from flows.report import backtest_report
    from pipelines.backtest import backtest as run_backtest
    from pipelines.tables import load_published_counts

    result = run_backtest(load_published_counts(table) if table else load_published_counts())
    _result(as_json, result.as_record(), lambda: backtest_report(result))


@app.command()
def timeline(
    site: SiteId,
    campus: Annotated[bool, typer.Option("--campus", help="All sites of its campus together.")] = False,
    at: Annotated[
        list[datetime.datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Project to this day; may be given again."),
    ] = None,
    reach: Annotated[
        list[float] | None, typer.Option(metavar="MW", help="Project when this is reached; may be given again.")
    ] = None,
    archive: Archive = None,
    picture: Picture = None,
    as_json: AsJson = False,
) -> None:
    """What stood on each date in the archive, what changed, how fast it was built, and where it is heading."""
    from flows.report import timeline_report
    from pipelines.settings import Settings
    from pipelines.sites import load_site
    from pipelines.timeline import read_timeline

    settings = Settings()
    result = read_timeline(
        load_site(site, settings.aoi),
        archive or settings.archive,
        campus_of=settings.aoi if campus else None,
        at=[day.date() for day in at or ()],
        reach_mw=reach or (),
    )
    if picture is not None:
        from pipelines.pictures import timeline_picture
        from pipelines.tables import load_published

        _write_picture(picture, timeline_picture(result, load_published(), _picture_form(picture)))
    _result(as_json, result.as_record(), lambda: timeline_report(result))


@app.command()
def cue(
    site: SiteId,
    source: Annotated[
        str, typer.Option(help="Sentinel-2 surface reflectance: a source known by name, or stac:PATH_OR_URL.")
    ] = "earth-search-sentinel-2",
    since: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Change since this day (default: the last sharp image in the archive, else a year ago)",
        ),
    ] = None,
    archive: Archive = None,
    picture: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Say whether free Sentinel-2 imagery shows change enough to be worth buying a sharp image."""
    from flows.cueing import look_for_change
    from flows.report import cue_report, progress_bar

    form = None if picture is None else _picture_form(picture)
    with progress_bar(Console(stderr=True), "starting"):
        found = look_for_change(site, source, since.date() if since else None, archive)
    if picture is not None and form is not None:
        from pipelines.pictures import cue_picture

        _write_picture(picture, cue_picture(found, form))
    _result(as_json, found.as_record(), lambda: cue_report(found))


@app.command()
def demo(device: Device = "auto", archive: Archive = None, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Count the embedded rendered scenes and compare with what was rendered; exit code 1 where they differ."""
    from flows.report import progress_bar

    with progress_bar(Console(stderr=True), "starting"):
        _prefect(verbose)
        from flows.demo import demo_table, faults_of, run_demo

        shots = run_demo(device, archive)
    faults = faults_of(shots)
    _result(as_json, {"scenes": [shot.as_record() for shot in shots], "faults": faults}, lambda: demo_table(shots))
    for fault in faults:
        print(f"overwatt: {fault}", file=sys.stderr)  # noqa: T201
    if faults:
        raise typer.Exit(1)


@app.command()
def publish(
    to: Annotated[
        str | None,
        typer.Option(metavar="postgresql://USER@HOST/DB", help="PostGIS database to write to, instead of files."),
    ] = None,
    schema: Annotated[
        str | None, typer.Option(help="Schema of the database; made where it is missing (default: overwatt)")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove runs from the database that the archive no longer holds.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the files go (default: layers, in the archive)")
    ] = None,
    archive: Archive = None,
    as_json: AsJson = False,
) -> None:
    """Merge all runs into layers for GIS programs, or write them to a PostGIS database with --to.

    The files: GeoPackage, GeoParquet, QGIS project, STAC catalog. The password of a database comes from PGPASSWORD,
    ~/.pgpass or a service file; in the address others may read it. A run folder that cannot be read is named and left
    out, and the exit code is then 1.
    """
    from flows.report import published_report, sent_report
    from pipelines.settings import Settings

    if to is None and (schema is not None or prune):
        raise typer.BadParameter("--schema and --prune are about a database: give --to postgresql://... with them")
    if to is not None and out is not None:
        raise typer.BadParameter("give either --out FOLDER or --to postgresql://..., not both")
    settings = Settings()
    made: Any
    report: Any
    if to is None:
        from pipelines.layers.publish import publish_layers

        made, report = publish_layers(archive or settings.archive, settings.aoi, out), published_report
    else:
        from pipelines.layers.archive import read_archive
        from pipelines.postgis import SCHEMA, publish_to_postgis
        from pipelines.sites import load_sites

        sites = load_sites(settings.aoi)
        runs = read_archive(archive or settings.archive, sites)
        made = publish_to_postgis(runs, sites, to, schema=schema or SCHEMA, prune=prune)
        report = sent_report
    for broken in made.broken:
        print(f"overwatt: {broken}", file=sys.stderr)  # noqa: T201
    _result(as_json, made.as_record(), lambda: report(made))
    if made.broken:
        raise typer.Exit(1)


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help="When to look for new imagery of every site, UTC.")] = "0 6 * * 1",
    port: Annotated[int, typer.Option(help="Port of the Prefect server, on this machine only.")] = 4200,
) -> None:
    """Run the schedule on this machine until stopped; starts a Prefect server unless PREFECT_API_URL names one."""
    from flows.serving import serve as serve_forever

    serve_forever(cron, port)


@app.command("serve-features")
def serve_features(
    archive: Archive = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 5000,
    url: Annotated[str | None, typer.Option(help="Address that others reach it by (default: host and port)")] = None,
) -> None:
    """Serve the archive through OGC API - Features, to QGIS, ArcGIS, ogr2ogr and curl, until stopped."""
    from flows.feature_server import serve_features as serve_forever
    from pipelines.settings import Settings

    settings = Settings()
    serve_forever(archive or settings.archive, settings.aoi, host, port, url)


@app.command()
def label(
    scene: Annotated[Path, typer.Argument(metavar="SCENE", help="Georeferenced image file.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.gpkg", help="(default: SCENE's name, .labels.gpkg, here)")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Detector weights (default: those in use)")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of an image that does not state its own.")] = None,
    min_probability: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out less probable ones.")
    ] = MIN_PROBABILITY,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file, with all corrections that it may hold.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write detections to a GeoPackage to be corrected in QGIS, for `overwatt train --labels`; no site, no counts."""
    from flows.labelling import label_to_file
    from flows.report import label_report, progress_bar

    with progress_bar(Console(stderr=True), "starting"):
        made = label_to_file(
            scene,
            output=output,
            weights=weights,
            licence=licence,
            min_probability=min_probability,
            overwrite=overwrite,
            device=device,
        )
    _result(as_json, made.as_record(), lambda: label_report(made))


@app.command()
def train(
    output: Annotated[
        Path | None,
        typer.Option(help="Weights file to write (default: the one in use; with --labels the file's name, here)"),
    ] = None,
    workdir: Annotated[Path, typer.Option(help="Chips and checkpoint; the same command goes on from it.")] = Path(
        "training"
    ),
    labels: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.gpkg", help="Corrected file of overwatt label; may be given again."),
    ] = None,
    scene: Annotated[
        list[Path] | None,
        typer.Option(metavar="IMAGE", help="The image that --labels are of; as often, in the same order."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Time for training proper (default: 120; with --labels 15)")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps instead of minutes.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    chips: Annotated[
        int | None, typer.Option(min=1, help="Rendered chips to train on (default: 2600; with --labels 400)")
    ] = None,
    validation_chips: Annotated[int, typer.Option(min=2, help="Rendered chips to calibrate and measure on.")] = 200,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of real 0.3 m images without equipment.")] = None,
    leave_out: LeaveOut = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Chips of an earlier training (its WORKDIR/pool); may be given again."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Train on from these weights (default: from nothing; with --labels those in use)"),
    ] = None,
    start_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Weight of the start in the mean with it that is written.")
    ] = 0.5,
    peak_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Highest learning rate (default: 0.0015; with --labels 0.0005)")
    ] = None,
    seed: int = 1,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train the detector on rendered chips, and on corrected labels of your own, measure it, and write its weights."""
    from flows import progress
    from flows.labelling import read_pairs
    from flows.report import progress_bar, training_report
    from models.training.fitting import PEAK_RATE
    from models.training.train_detector import Progress, train_detector
    from pipelines.settings import Settings

    if minutes is not None and steps is not None:
        raise typer.BadParameter("give either --minutes or --steps, not both")
    if scene and not labels:
        raise typer.BadParameter("--scene is the image that labels are of: give --labels FILE.gpkg with it")
    weights = Settings().weights
    if labels:
        start = start or weights
    output = output or (Path(f"{labels[0].stem}.safetensors") if labels else weights)
    if output.suffix != ".safetensors" or output.is_dir():
        # Hours of corrections must not be written over with weights by a slip.
        raise typer.BadParameter(f"--output {output} is no weights file: name one that ends in .safetensors")
    minutes = minutes if minutes is not None or steps is not None else 15.0 if labels else 120.0

    def report(state: Progress) -> None:
        progress.report(f"{state.stage}: {state.message}", round(1000 * state.fraction), 1000)

    with progress_bar(Console(stderr=True), "starting"):
        corrected = read_pairs(labels or (), scene or (), progress.report)
        card = train_detector(
            output,
            workdir=workdir,
            chips=chips or (400 if labels else 2600),
            validation_chips=validation_chips,
            minutes=minutes,
            steps=steps,
            batch=batch,
            backgrounds=backgrounds,
            leave_out=_names(leave_out),
            also=also or (),
            start=start,
            start_share=start_share,
            peak_rate=peak_rate if peak_rate is not None else FINE_RATE if labels else PEAK_RATE,
            corrected=corrected,
            seed=seed,
            device=device,
            progress=report,
        )
    about = [dict(one.about) for one in corrected]
    result = {"weights": str(output), "metrics": dict(card.metrics), "corrected_labels": about}
    _result(as_json, result, lambda: training_report(output, card))


@app.command()
def evaluate(
    weights: Annotated[Path | None, typer.Option(help="Weights to measure (default: those in use)")] = None,
    scenes: Annotated[
        int, typer.Option(min=1, help="Rendered scenes to measure on at each of 0.3 and 0.5 m; none was trained on.")
    ] = 200,
    workdir: Annotated[Path | None, typer.Option(help="Keep the rendered scenes here (default: not kept)")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of real images without equipment.")] = None,
    leave_out: LeaveOut = None,
    labelled: Annotated[Path | None, typer.Option(help="Folder of real images with a labels.csv.")] = None,
    keep: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Keep the measurement in this file.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure weights against their targets, on rendered scenes and on real images where you have some."""
    import contextlib
    import tempfile

    from flows import progress
    from flows.report import measurement_report, progress_bar
    from models.detector.detector import Detector
    from models.reader.reader import Reader
    from pipelines.measured import keep as keep_measurement
    from pipelines.measured import measure
    from pipelines.settings import Settings

    if keep is not None and (keep.is_dir() or not keep.parent.is_dir()):
        # Before half an hour of measuring, not after it.
        raise typer.BadParameter(f"--keep {keep} cannot be written: name a file in a folder that there is")
    detector = Detector.load(weights or Settings().weights, device)
    reader = Reader.load(Settings().reader_weights, device)
    kept = contextlib.nullcontext(workdir) if workdir else tempfile.TemporaryDirectory()
    with kept as folder, progress_bar(Console(stderr=True), "starting"):
        found = measure(
            detector,
            reader,
            Path(folder),
            scenes=scenes,
            backgrounds=backgrounds,
            leave_out=_names(leave_out),
            labelled=labelled,
            progress=progress.report,
        )
    if keep is not None:
        keep_measurement(found, keep)
    _result(as_json, dataclasses.asdict(found), lambda: measurement_report(found))


@app.command("train-reader")
def train_reader(
    output: Annotated[Path | None, typer.Option(help="Weights file to write (default: the one in use)")] = None,
    minutes: Annotated[float, typer.Option(help="Time for training proper.")] = 12.0,
    seed: int = 0,
) -> None:
    """Train the lettering reader on rendered words, measure it, and write its weights."""
    import subprocess

    from pipelines.settings import Settings

    where = str(output or Settings().reader_weights)
    module = [sys.executable, "-m", "models.training.train_reader"]
    code = subprocess.call([*module, "--output", where, "--minutes", str(minutes), "--seed", str(seed)])
    raise typer.Exit(code)


@app.command("render-sample")
def render_sample(
    folder: Annotated[Path | None, typer.Option(help="Folder to write (default: data/scenes)")] = None,
    as_json: AsJson = False,
) -> None:
    """Render the embedded sample scenes anew, with their STAC catalog."""
    from flows import progress
    from flows.report import progress_bar
    from pipelines.sample import render_sample as render
    from pipelines.settings import SAMPLE_CATALOG, Settings

    with progress_bar(Console(stderr=True), "starting"):
        catalog = render(
            folder or SAMPLE_CATALOG.parent,
            Settings().aoi,
            lambda done, total: progress.report("rendering scenes", done, total),
        )
    _result(as_json, {"catalog": str(catalog), "rendered": True}, lambda: f"{catalog} written (rendered scenes)")


class _Warnings(logging.Handler):
    """What a step warns of (an image passed over, a GSD corrected) is for the user, whatever Prefect's log does."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"overwatt: {record.getMessage()}", file=sys.stderr)  # noqa: T201


_WARNINGS = _Warnings(logging.WARNING)


def _prefect(verbose: bool) -> None:
    if not verbose:
        prefect_env.quiet_terminal()
    prefect_env.require_server()


def _result(as_json: bool, document: object, show: Any) -> None:
    """Print a result for a program or for a person."""
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        return
    shown = show()
    # Where rich cannot ask a terminal it takes 80 columns, too few for a table with sources.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if known else PLAIN_WIDTH)
    for part in shown if isinstance(shown, list) else [shown]:
        console.print(part)


def _names(given: Sequence[str] | None) -> list[str]:
    """Names of an option that takes several, separated by commas, and may be given again."""
    return [name.strip() for part in given or () for name in part.split(",") if name.strip()]


def _picture_form(path: Path) -> str:
    form = path.suffix.lower().removeprefix(".")
    if form not in ("png", "svg"):
        raise typer.BadParameter(f"--picture {path}: name a .png or .svg file")
    return form


def _write_picture(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ArchiveError(f"--picture {path} cannot be written: {error.strerror}; name a file in a folder") from None


def _site_record(site: Any) -> dict[str, Any]:
    from pipelines.documents import to_json

    fields = ("id", "name", "operator", "address", "campus", "perimeter_source", "perimeter_quality", "accelerator")
    zones = [{name: getattr(zone, name) for name in ("id", "kind", "quality", "source")} for zone in site.zones]
    lists = {name: [dataclasses.asdict(entry) for entry in getattr(site, name)] for name in ("known_dates", "supplies")}
    record: dict[str, Any] = to_json({name: getattr(site, name) for name in fields} | {"zones": zones} | lists)
    return record | {"path": str(site.path)}


def _refuse(sentence: str, as_json: bool) -> int:
    sentence = " ".join(sentence.split())
    print(f"overwatt: {sentence}", file=sys.stderr)  # noqa: T201
    if as_json:
        typer.echo(json.dumps({"error": sentence}, ensure_ascii=False))
    return 2


if __name__ == "__main__":
    sys.exit(main())
