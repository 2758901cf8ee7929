"""Results for people at a terminal: tables and a progress bar, made with rich."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows import progress
from flows.detecting import Written
from flows.summary import RunSummary, run_title, table_rows
from pipelines.scenes.types import Scene
from pipelines.sites import Site


def run_report(run: RunSummary) -> RenderableType:
    """Everything a run found, as a table with the small print under it."""
    table = Table(title=Text(run_title(run), style="bold"), title_justify="left")
    table.add_column("")
    table.add_column("p50", justify="right")
    table.add_column("p5 - p95", justify="right")
    table.add_column("")
    for row in table_rows(run):
        table.add_row(row.what, row.value, row.interval, row.remark)
    attribution = f", {run.attribution}" if run.attribution else ""
    small_print = [
        f"scene {run.scene} ({run.source}), dated by {run.acquired_from}, {run.native_gsd_m:.2f} m per pixel, "
        f"{run.covered_fraction:.0%} of the perimeter seen",
        f"licence {run.licence}{attribution}; weights {run.model_version}",
        *(f"note: {note}" for note in run.notes),
        f"files in {run.folder}: {', '.join(run.files)}",
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def written_table(written: Written) -> RenderableType:
    """What one image gave, with the small print under it."""
    rendered = " (RENDERED imagery)" if written.rendered else ""
    table = Table(title=Text(f"{written.raster}{rendered}", style="bold"), title_justify="left")
    table.add_column("class")
    table.add_column("polygons", justify="right")
    for name, count in written.polygons.items():
        table.add_row(name, str(count))
    coordinates = "longitude and latitude" if written.georeferenced else "pixels of the image, y down"
    small_print = [
        f"{written.path} written, coordinates in {coordinates}",
        f"{written.native_gsd_m:.2f} m per pixel; {written.windows_read} windows looked at, {written.windows_skipped} "
        f"had nothing to see or lay outside; weights {written.model_version}",
        "polygons are no counts: `overwatt run` gives counts with intervals",
        *(f"not given: {name}: {reason}" for name, reason in written.not_given.items()),
        *([f"lettering read: {', '.join(written.texts)}"] if written.texts else []),
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def sites_table(sites: Sequence[Site]) -> Table:
    """Sites with what a user needs to choose one."""
    table = Table()
    for column in ("site", "name", "operator", "campus", "perimeter", "zones"):
        table.add_column(column, overflow="fold", no_wrap=column == "site")
    for site in sites:
        kinds = Counter(zone.kind for zone in site.zones)
        zones = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
        table.add_row(site.id, site.name, site.operator, site.campus, site.perimeter_quality, zones)
    return table


def scenes_table(scenes: Sequence[Scene]) -> Table:
    """Scenes that a source holds of a site."""
    table = Table()
    for column in ("acquired", "dated by", "scene", "GSD, m", "imagery", "licence"):
        table.add_column(column, justify="right" if column == "GSD, m" else "left", overflow="fold")
    for scene in scenes:
        imagery = "RENDERED" if scene.rendered else "observed"
        acquired = f"{scene.acquired:%Y-%m-%d}"
        table.add_row(acquired, scene.acquired_from, scene.id, f"{scene.gsd_m:.2f}", imagery, scene.licence)
    return table


@contextmanager
def progress_bar(console: Console, waiting_for: str) -> Iterator[None]:
    """Show what the flows in this block report; nothing is drawn where `console` is not a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(waiting_for, total=None)

        def show(label: str, done: int, total: int) -> None:
            bar.update(line, description=label, completed=done, total=total or None)

        with progress.listening(show):
            yield
