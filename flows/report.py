"""Results for people at a terminal: tables and a progress bar, made with rich."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows import progress
from flows.summary import FIGURES, class_label, figure, run_title, table_rows, written
from pipelines.scenes.dates import written_days

if TYPE_CHECKING:  # what makes these values has loaded their modules; a list of sites need not wait for them
    from flows.detecting import Written
    from flows.labelling import LabelFile
    from flows.summary import RunSummary
    from models.detector.card import WeightsCard
    from models.training.uncertainty import Figure
    from pipelines.backtest import Backtest
    from pipelines.capacity import Estimate
    from pipelines.census import Interval
    from pipelines.cue import Cue
    from pipelines.layers.publish import Published
    from pipelines.measured import Measurement
    from pipelines.postgis import Sent
    from pipelines.reference import BuildSpeed, Comparison, Snapshot
    from pipelines.scenes.library import Ingested
    from pipelines.scenes.types import Scene
    from pipelines.sites import Site
    from pipelines.timeline import Projection, Timeline


def run_report(run: "RunSummary") -> RenderableType:
    """Everything a run found, as a table with the small print under it."""
    table = Table(title=Text(run_title(run), style="bold"), title_justify="left")
    table.add_column("")
    table.add_column("p50", justify="right")
    table.add_column("p5 - p95", justify="right")
    table.add_column("")
    for row in table_rows(run):
        table.add_row(row.what, row.value, row.interval, row.remark)
    attribution = f", {run.attribution}" if run.attribution else ""
    released = f"; released {run.released}" if run.released else ""
    small_print = [
        f"scene {run.scene} ({run.source}), dated by {run.acquired_from}, {run.native_gsd_m:.2f} m per pixel, "
        f"{run.covered_fraction:.0%} of the perimeter seen",
        *([f"date: {run.asked}"] if run.asked and run.asked.off_days else []),
        f"licence {run.licence}{attribution}{released}; weights {run.model_version}",
        *(f"note: {note}" for note in run.notes),
        f"files in {run.folder}: {', '.join(run.files)}",
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def written_table(found: "Written") -> RenderableType:
    """What one image gave, with the small print under it."""
    rendered = " (RENDERED imagery)" if found.rendered else ""
    table = Table(title=Text(f"{found.raster}{rendered}", style="bold"), title_justify="left")
    table.add_column("class")
    table.add_column("polygons", justify="right")
    for name, count in found.polygons.items():
        table.add_row(name, str(count))
    coordinates = "longitude and latitude" if found.georeferenced else "pixels of the image, y down"
    small_print = [
        f"{found.path} written, coordinates in {coordinates}",
        f"{found.native_gsd_m:.2f} m per pixel; {found.windows_read} windows looked at, {found.windows_skipped} "
        f"had nothing to see or lay outside; weights {found.model_version}",
        "polygons are no counts: `overwatt run` gives counts with intervals",
        *(f"not given: {name}: {reason}" for name, reason in found.not_given.items()),
        *([f"lettering read: {', '.join(found.texts)}"] if found.texts else []),
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def label_report(made: "LabelFile") -> RenderableType:
    """What there is to correct, and how to go on."""
    rendered = " (RENDERED imagery)" if made.rendered else ""
    table = Table(title=Text(f"{made.path}: labels of {made.scene.name}{rendered}", style="bold"), title_justify="left")
    table.add_column("class")
    table.add_column("detections", justify="right")
    for name, count in made.detections.items():
        table.add_row(name, str(count))
    small_print = [
        f"{made.native_gsd_m:.2f} m per pixel; licence {made.licence or 'unknown'}; weights {made.model_version}",
        *(f"not given: {name}: {reason}" for name, reason in made.not_given.items()),
        *(f"next: {step}" for step in made.next_steps),
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def training_report(weights: Path, card: "WeightsCard") -> RenderableType:
    """What a training reached on rendered chips, and, with corrected labels, what it changed on held-out ground."""
    rendered = card.metrics["rendered_validation"]
    table = Table(
        title=Text(f"{weights}: {rendered['chips']} rendered validation chips", style="bold"), title_justify="left"
    )
    for column in ("class", "units", "recall", "precision", "F1"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in rendered["classes"].items():
        table.add_row(name, str(row["units"]), *(_score(row[key]) for key in ("recall", "precision", "f1")))
    parts: list[RenderableType] = [table]
    earlier = _images_trained_on(card.recipe.get("start_recipe"))
    for one in card.recipe.get("corrected_labels", ()):
        counts = ", ".join(f"{count} {name}" for name, count in one["units"].items()) or "no unit"
        kept = ", ".join(f"{count} {name}" for name, count in one["held_out_units"].items()) or "no unit"
        rendered_scene = " (RENDERED imagery)" if one["rendered"] else ""
        lines = [
            f"trained on {one['labels']} of {one['scene']}{rendered_scene}: {counts}; "
            f"{one['ignored']} ignored, {one['outside_reviewed']} outside the reviewed ground not used",
            f"held out {one['held_out_ground']}: {kept}",
        ]
        if one["scene_sha256"] in earlier:
            lines.append(
                f"the weights it went on from were already trained on {one['scene']}: they may know the held-out ground"
            )
        parts += [Padding(Text(line), (0, 0, 0, 1)) for line in lines]
    if "corrected_held_out" in card.metrics:
        parts.append(_change_table(card.metrics["corrected_held_out"]))
    parts.append(Padding(Text(f"next: OVERWATT_WEIGHTS={shlex.quote(str(weights))} overwatt run SITE"), (0, 0, 0, 1)))
    return Group(*parts)


def _images_trained_on(recipe: Mapping[str, Any] | None) -> set[str]:
    """Checksums of the images whose corrected labels a training, and those that it went on from, were shown."""
    images = set()
    while recipe:
        images |= {one["scene_sha256"] for one in recipe.get("corrected_labels") or ()}
        recipe = recipe.get("start_recipe")
    return images


def _change_table(change: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title=Text("held-out ground, before -> after", style="bold"), title_justify="left")
    for column in ("class", "units", "recall", "", "precision", "false positives", ""):
        table.add_column(column, justify="left" if column in ("", "class") else "right")
    for name, row in change.items():
        before, after = row["before"], row["after"]
        both = {key: f"{_score(before[key])} -> {_score(after[key])}" for key in ("recall", "precision")}
        false = f"{before['false_positives']} -> {after['false_positives']}"
        table.add_row(
            *(name, str(row["units"]), both["recall"], row["verdict"]["recall"]),
            *(both["precision"], false, row["verdict"]["false_positives"]),
        )
    return table


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def published_report(made: "Published") -> RenderableType:
    """What the merged layers hold, and which files changed."""
    rendered = " (RENDERED imagery among them)" if made.rendered else ""
    lines = [
        f"{made.runs} runs, {made.detections} detections{rendered} in {made.folder}",
        *(f"written: {name}" for name in made.written),
        *(f"removed: {name}" for name in made.removed),
        f"unchanged: {made.unchanged} files",
    ]
    return Group(*(Text(line) for line in lines))


def estimate_report(result: "Estimate") -> RenderableType:
    """An estimate from counts: figures, what they rest on, and which input to find out next."""
    title = "Estimate from counts" + (f", {result.site_id}" if result.site_id else "")
    figures = Table(title=Text(title + (f", {result.date}" if result.date else "")), title_justify="left")
    for column in ("", "p50", "p5 - p95"):
        figures.add_column(column, justify="left" if not column else "right")
    for name, what in FIGURES.items():
        interval = getattr(result, name)
        figures.add_row(what, *(written(interval) if interval else ("not given", "")))
    inputs = Table(title="Inputs", title_justify="left")
    for column in ("input", "p50", "p5 - p95", "unit", "source"):
        inputs.add_column(column, overflow="fold", justify="right" if column.startswith("p5") else "left")
    for item in result.inputs:
        fixed = item.value.p5 == item.value.p95
        inputs.add_row(
            item.name, figure(item.value.p50), "" if fixed else written(item.value)[1], item.unit, item.source
        )
    parts: list[RenderableType] = [figures, inputs]
    asked = next(
        (name for name in ("gpus", "it_mw", "generation_mw", "cooling_mw") if name in result.sensitivity), None
    )
    if asked:
        causes = Table(title=f"What causes the spread of {FIGURES[asked]}", title_justify="left")
        causes.add_column("input")
        causes.add_column("share of the variance", justify="right")
        for cause in result.sensitivity[asked]:
            causes.add_row(cause.input, f"{cause.share:.0%}")
        parts.append(causes)
    limits = [f"{what} ({share:.0%})" for what, share in result.binding.items() if share > 0]
    small_print = [
        *([f"IT power is limited by {', '.join(limits)}"] if limits else []),
        *(f"note: {note}" for note in result.notes),
    ]
    return Group(*parts, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def backtest_report(result: "Backtest") -> RenderableType:
    """Every published figure beside its estimate, and how good the method is where nothing was taken from the row."""
    from pipelines.backtest import WITHIN

    table = Table(title="Estimates from published counts alone", title_justify="left")
    for column in ("site", "date", "use", "figure", "published", "p50", "p5 - p95", "factor"):
        table.add_column(column, overflow="fold", justify="left" if column in ("site", "use", "figure") else "right")
    for score in result.scores:
        mark = "" if score.inside else ", outside"
        estimated = written(score.estimated)
        sign = {"lower": ">= ", "upper": "<= "}.get(score.bound or "", "")
        row = (score.site, str(score.date), score.use, score.figure, sign + figure(score.published), *estimated)
        table.add_row(*row, f"{score.factor:.2f}{mark}")
    summary = Table(title="Where no input was taken from the row", title_justify="left")
    for column in ("figure", "scored", *(f"within x{factor:g}" for factor in WITHIN), "inside p5 - p95"):
        summary.add_column(column, justify="left" if column == "figure" else "right")
    for one in result.summaries:
        summary.add_row(one.figure, str(one.scored), *(str(count) for count in one.within.values()), str(one.inside))
    small_print = [
        f"{result.site_dates} site-dates",
        *(
            f"off: {score.site} {score.date}, {score.figure} x{score.factor:.2f}: {score.remark or 'no remark'}"
            for score in result.worst
        ),
        *(f"source: {source}" for source in dict.fromkeys(score.source for score in result.scores)),
    ]
    return Group(table, summary, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def timeline_report(result: "Timeline") -> RenderableType:
    """A site over time: figures by date, what changed, how fast it was built, where it is heading."""
    name = f"{result.name} - RENDERED IMAGERY, not photographs" if result.rendered else result.name
    shown = [what for what in FIGURES if any(what in moment.figures for moment in result.moments)]
    moments = Table(title=Text(name, style="bold"), title_justify="left")
    moments.add_column("date")
    for what in shown:
        moments.add_column(f"{FIGURES[what]}\np50 (p5 - p95)", justify="right")
    for moment in result.moments:
        given = [moment.figures.get(what) for what in shown]
        moments.add_row(
            written_days(moment.date, moment.earliest), *(_with_interval(one) if one else "not given" for one in given)
        )
    changes = Table(title="Changes", title_justify="left")
    for column in ("from", "to", "what", "by (p5 - p95)", "probability that it is real"):
        changes.add_column(column, justify="right" if column.startswith(("by", "prob")) else "left")
    for change in result.changes:
        what = FIGURES.get(change.what) or class_label(change.what)
        changes.add_row(
            str(change.start), str(change.end), what, _with_interval(change.by, signed=True), f"{change.real:.0%}"
        )
    parts: list[RenderableType] = [moments]
    if result.changes:
        parts.append(changes)
    if result.reached and result.ground_break:
        speed = Table(title=f"Build speed from {result.ground_break.date}", title_justify="left")
        reached = FIGURES[result.reached[0].figure]
        for column in (reached, "months (p5 - p95)", "probability that it was"):
            speed.add_column(column, justify="left" if column == reached else "right")
        for reach in result.reached:
            months = _with_interval(reach.months) if reach.months else "not reached"
            speed.add_row(f"{reach.mw:g} MW", months, f"{reach.probability:.0%}")
        parts.append(speed)
    if result.projection:
        parts.append(_projection_table(result.projection))
    return Group(*parts, *(Padding(Text(f"note: {note}"), (0, 0, 0, 1)) for note in result.notes))


def comparison_table(
    ours: "Timeline", name: str, snapshot: "Snapshot", compared: Sequence["Comparison"]
) -> RenderableType:
    """Our estimates beside the reference's figures, which are those of its latest date by then."""
    title = f"{ours.name} beside {name}" + (" - RENDERED IMAGERY, not photographs" if ours.rendered else "")
    table = Table(title=Text(title, style="bold"), title_justify="left")
    for column in ("date", "figure", "ours, p50 (p5 - p95)", "reference", "of", "factor"):
        table.add_column(column, justify="left" if column in ("date", "figure", "of") else "right")
    for one in compared:
        factor = "" if one.factor is None else f"{one.factor:.2f}{'' if one.inside else ', outside'}"
        table.add_row(
            str(one.date),
            FIGURES[one.figure],
            _with_interval(one.estimated),
            figure(one.reference),
            str(one.reference_date),
            factor,
        )
    small_print = [
        f"reference: {snapshot.label}",
        *([] if compared else ["the reference says nothing of these dates, or ours give no such figure"]),
        *(f"note: {note}" for note in ours.notes),
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def speed_table(snapshot: "Snapshot", speeds: Sequence["BuildSpeed"]) -> RenderableType:
    """Months from ground-break to each capacity, as well as the reference's dates tell."""
    from pipelines.timeline import MILESTONES_MW

    table = Table(title="Months from ground-break to IT power", title_justify="left")
    for column in ("site", "owner", "begun"):
        table.add_column(column, overflow="fold")
    for mw in MILESTONES_MW:
        table.add_column(f"{mw:g} MW", justify="right")
    for one in speeds:
        spans = [one.months[mw] for mw in MILESTONES_MW]
        shown = ["not yet" if span is None else f"{span[0]:.0f} - {span[1]:.0f}" for span in spans]
        table.add_row(one.site, one.owner, str(one.begun), *shown)
    small_print = (
        f"{snapshot.label}: months to its last date below and its first date at or above the capacity; only sites "
        "whose first date is before any power"
    )
    return Group(table, Padding(Text(small_print), (0, 0, 0, 1)))


def _projection_table(projection: "Projection") -> Table:
    pace = _with_interval(projection.per_month, signed=True)
    title = f"If it goes on as from {projection.start} to {projection.end} ({pace} MW a month)"
    table = Table(title=title, title_justify="left")
    table.add_column(FIGURES[projection.figure])
    table.add_column("p50 (p5 - p95)", justify="right")
    table.add_column("probability", justify="right")
    for day, interval in projection.at.items():
        table.add_row(f"on {day}", _with_interval(interval), "")
    for mw, (probability, days) in projection.reaches.items():
        when = f"{days[1]} ({days[0]} - {days[2]})" if days else "not in sight"
        table.add_row(f"{mw:g} MW", when, f"{probability:.0%}")
    return table


def _with_interval(interval: "Interval", *, signed: bool = False) -> str:
    values = (interval.p50, interval.p5, interval.p95)
    middle, low, high = (f"{'+' if signed and value > 0 else ''}{figure(value)}" for value in values)
    return f"{middle} ({low} - {high})" if low != high else middle


def measurement_report(found: "Measurement") -> RenderableType:
    """What weights reach beside what they are to reach, then by class and GSD, rendered and real apart."""
    from models.training.goals import reached_on_real_images, reached_on_rendered_scenes
    from models.training.measuring import COUNTED, MOST_TURN_DEG
    from pipelines.word_reading import MIN_LETTER_M

    record = dataclasses.asdict(found)
    goals = _table(
        f"{found.detector} and {found.reader} on {found.scenes} rendered scenes at each GSD, and on real images",
        ("figure", "at", "target", "reached (95%)", "of", ""),
        left=("figure", ""),
    )
    for goal in (*reached_on_rendered_scenes(record), *reached_on_real_images(record)):
        at = "" if goal.gsd_m is None else f"{goal.gsd_m:g} m"
        goals.add_row(goal.what, at, goal.target, goal.written, goal.of, goal.verdict)
    rendered = _table(
        "Rendered scenes, by class",
        ("class", "GSD", "units", "recall", "precision", "F1", "fans off by", "count off by", "in all"),
        left=("class",),
    )
    counts = {(row.cls, row.gsd_m): row for row in found.counts}
    for row in found.rendered:
        count = counts.get((row.cls, row.gsd_m))
        rendered.add_row(
            class_label(row.cls),
            f"{row.gsd_m:g} m",
            str(row.units),
            _measured(row.recall),
            _measured(row.precision),
            _measured(row.f1),
            "" if row.fans_error is None else f"{row.fans_error.value:.1f}",
            "" if count is None or count.error is None else f"{count.error.value:.1%}",
            "" if count is None or count.total is None else f"{count.total.value:+.1%}",
        )
    intervals = _table(
        "Count intervals p5 to p95 on rendered scenes",
        ("class", "GSD", "scenes", "hold the truth", "too low", "too high", "empty", "counted", "zero excluded"),
        left=("class",),
    )
    rows = [(class_label(row.cls), row.gsd_m, row.coverage) for row in found.counts]
    for label, gsd_m, one in (*rows, *(("all", total.gsd_m, total.coverage) for total in found.coverage)):
        intervals.add_row(
            label,
            "" if gsd_m is None else f"{gsd_m:g} m",
            str(one.scenes),
            _measured(one.share),
            str(one.below),
            str(one.above),
            str(one.empty),
            str(one.empty_counted),
            str(one.empty_excluded),
        )
    words = _table(
        f"Words on rendered scenes, letters of {MIN_LETTER_M:g} m and more",
        ("GSD", "words", "found", "read exactly", "refused", "wrong text", "read where none is"),
        left=("GSD",),
    )
    for word in found.words:
        words.add_row(
            f"{word.gsd_m:g} m",
            *(str(number) for number in (word.words, word.found, word.exact, word.refused, word.wrong)),
            str(word.read_nowhere),
        )
    notes = [
        f"Matched within half a unit's width and {MOST_TURN_DEG:.0f} degrees, at a probability of {COUNTED}.",
        "Counts are p50, corrected for recall: their mean distance from a scene's units, and that of all together.",
        "Scenes without a unit are apart: how many, on how many something was counted, and zero was excluded.",
        "Packaged units with a fan array, kin of chillers, are left out; a run counts those it finds as chillers.",
        *(f"At {kin.gsd_m:g} m {_measured(kin.found)} of {kin.units} are found." for kin in found.kin if kin.found),
        *(
            f"{class_label(row.cls)} {part.range} at {row.gsd_m:g} m: recall {_measured(part.recall)} of {part.units}."
            for row in found.rendered
            for part in row.by_width
        ),
    ]
    parts: list[RenderableType] = [goals, rendered, intervals, words, *(Text(f" {note}") for note in notes)]
    if found.ground:
        ground = _table(
            f"{found.ground_images} real backgrounds, {found.ground_km2:.2f} km2",
            ("class", "false positives", "per km2", "95%"),
            left=("class",),
        )
        for false in found.ground:
            ground.add_row(class_label(false.cls), str(false.false_positives), *_rate(false.per_km2))
        total = sum(false.false_positives for false in found.ground)
        ground.add_row("all", str(total), *_rate(found.ground_per_km2))
        parts.append(ground)
    if found.labelled:
        labelled = _table(
            "Labelled real images",
            ("GSD", "found", "share (95%)", "tower fans", "false positives", "km2", "per km2", "95%"),
            left=("GSD",),
        )
        for real in found.labelled:
            labelled.add_row(
                f"{real.gsd_m:.2f} m",
                f"{real.found} of {real.objects}",
                "" if real.found_share is None else f"{real.found_share.low:.2f}-{real.found_share.high:.2f}",
                f"{real.fans_found} of {real.fans}",
                str(real.false_positives),
                f"{real.area_km2:.3f}",
                *_rate(real.per_km2),
            )
        parts.append(labelled)
    for name in found.roof_names:
        seen = "found" if name.found else "not found"
        read = f"read as {name.read!r}" if name.read else "not read"
        refused = "" if name.given else "; a run gives no lettering at this GSD"
        parts.append(Text(f" painted name {name.text!r} at {name.gsd_m:g} m: {seen}, {read}{refused}"))
    return Group(*parts)


def _table(title: str, columns: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table


def _measured(figure: "Figure | None") -> str:
    return "" if figure is None else f"{figure.value:.3f}"


def _rate(figure: "Figure | None") -> tuple[str, str]:
    return ("", "") if figure is None else (f"{figure.value:.1f}", f"{figure.low:.1f}-{figure.high:.1f}")


def sites_table(sites: Sequence["Site"]) -> Table:
    """Sites with what a user needs to choose one."""
    table = Table()
    for column in ("site", "name", "operator", "campus", "perimeter", "zones"):
        table.add_column(column, overflow="fold", no_wrap=column == "site")
    for site in sites:
        kinds = Counter(zone.kind for zone in site.zones)
        zones = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
        table.add_row(site.id, site.name, site.operator, site.campus, site.perimeter_quality, zones)
    return table


def ingested_table(taken: Sequence["Ingested"]) -> Table:
    """Scenes that the library took in, or held already."""
    table = Table()
    for column in ("scene", "acquired", "dated by", "GSD, m", "source", "licence", "released", ""):
        table.add_column(column, justify="right" if column == "GSD, m" else "left", overflow="fold")
    for one in taken:
        scene = one.scene
        table.add_row(
            scene.id,
            written_days(scene.acquired, scene.earliest),
            scene.acquired_from,
            f"{scene.gsd_m:.2f}",
            scene.source.removeprefix("library:"),
            scene.licence,
            "" if scene.released is None else str(scene.released),
            "new" if one.new else "was there already",
        )
    return table


def cue_report(found: "Cue") -> RenderableType:
    """What Sentinel-2 shows of each zone, with the small print under it."""
    from pipelines.cue import AT_ONCE, THRESHOLD

    rendered = " (RENDERED imagery, not photographs)" if found.rendered else ""
    since = f"since {found.since}" if found.since else "since the first dates"
    table = Table(title=Text(f"{found.name}: change {since}{rendered}", style="bold"), title_justify="left")
    for column in ("zone", "clear dates", "highest index", "first seen", "what it says"):
        table.add_column(column, justify="right" if column in ("clear dates", "highest index") else "left")
    for zone in found.zones:
        asked = [look.index for look in zone.looks if not look.history]
        table.add_row(
            f"{zone.zone} ({zone.kind})",
            str(len(zone.looks)),
            f"{max(asked):.1f}" if asked else "",
            str(zone.first) if zone.first else "",
            Text(zone.reason, style="bold" if zone.flagged else ""),
        )
    small_print = [
        f"index: change over its noise; flagged from {THRESHOLD:g} twice in a row or {AT_ONCE:g} at once",
        f"source {found.source}; licence {', '.join(found.licences)}"
        + (f"; {', '.join(found.attributions)}" if found.attributions else ""),
        *found.notes,
    ]
    return Group(table, *(Padding(Text(line), (0, 0, 0, 1)) for line in small_print))


def scenes_report(scenes: Sequence["Scene"], counted: Sequence[str | None]) -> Table:
    """Scenes that sources hold of a site.

    :param counted: of each, the weights that counted it; None where the archive does not hold it
    """
    # What is long stands below each other in one column, and no column is empty: 80 characters then hold a scene's id.
    clouds = any(scene.cloud_cover_percent is not None for scene in scenes)
    table = Table()
    for column in ("acquired", "GSD, m", *(("cloud",) if clouds else ()), "imagery", "counted"):
        table.add_column(column, justify="right" if column in ("GSD, m", "cloud") else "left", no_wrap=True)
    table.add_column("scene, source, licence, price", overflow="fold")
    for scene, version in zip(scenes, counted, strict=True):
        cloud = scene.cloud_cover_percent
        price = "price unknown" if scene.price == "unknown" else scene.price
        offer = [scene.licence, price, *([] if scene.released is None else [f"released {scene.released}"])]
        table.add_row(
            f"{written_days(scene.acquired, scene.earliest)}\n({scene.acquired_from})",
            f"{scene.gsd_m:.2f}",
            *(["" if cloud is None else f"{cloud:.0f}%"] if clouds else []),
            "RENDERED" if scene.rendered else "observed",
            "yes" if version else "no",
            f"{scene.id}\n{scene.source}\n{', '.join(offer)}",
        )
    return table


def sent_report(sent: "Sent") -> Text:
    """What a PostGIS database was told."""
    runs = f"{len(sent.written)} runs written, {len(sent.unchanged)} unchanged"
    removed = f", {len(sent.removed)} removed" if sent.removed else ""
    lines = [f"{sent.database}, schema {sent.schema}: {runs}{removed}; the archive holds {sent.detections} detections"]
    lines += [f"removed: {run}" for run in sent.removed]
    lines += [f"no longer in the archive, left there without --prune: {run}" for run in sent.left]
    return Text("\n".join(lines))


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
